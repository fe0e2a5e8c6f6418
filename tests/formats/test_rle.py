from __future__ import annotations

import numpy as np
import pytest
from faster_coco_eval.core import mask as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.formats.rle import Rle, pack_counts, unpack_counts


def random_mask(seed, height, width, density):
    rng = np.random.default_rng(seed)
    return rng.random((height, width)) < density


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 40),
    st.integers(1, 70),
    st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]),
)
def test_both_codes_agree_with_the_reference_and_round_trip(seed, height, width, density):
    mask = random_mask(seed, height, width, density)
    code = Rle.encode(mask)
    theirs = reference.encode(np.asfortranarray(mask.astype(np.uint8)))
    text = theirs["counts"].decode() if isinstance(theirs["counts"], bytes) else theirs["counts"]
    assert code.to_json() == {"size": [height, width], "counts": text}
    for compressed in (True, False):
        assert np.array_equal(Rle.from_json(code.to_json(compressed=compressed)).decode(), mask)
    assert code.area == mask.sum()


def test_long_runs_need_several_letters():
    mask = np.zeros((1500, 2000), bool)
    mask[700:900, 500:1700] = True
    code = Rle.encode(mask)
    theirs = reference.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    assert code.to_json()["counts"] == (theirs.decode() if isinstance(theirs, bytes) else theirs)
    assert np.array_equal(Rle.from_json({"size": [1500, 2000], "counts": theirs}).decode(), mask)


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=30))
def test_packing_is_undone_by_unpacking(counts):
    assert unpack_counts(pack_counts(np.array(counts))).tolist() == counts


def test_runs_go_down_the_columns():
    mask = np.zeros((3, 2), bool)
    mask[:, 1] = True
    assert Rle.encode(mask).counts.tolist() == [3, 3]


def test_a_mask_that_begins_set_has_an_empty_first_run():
    assert Rle.encode(np.ones((2, 2), bool)).counts.tolist() == [0, 4]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"size": [2, 2]}, "'counts' is missing"),
        ({"counts": [4]}, "'size' is missing"),
        ({"size": [2, 2], "counts": [3]}, "expected runs that fill 2 x 2 pixels, they fill 3"),
        ({"size": [2, 2], "counts": [5, -1]}, "expected runs that fill"),
        ({"size": [2, 2], "counts": "X"}, "ends within a number"),
        ({"size": [2, 2], "counts": "4\x01"}, "another letter"),
    ],
)
def test_damaged_codes_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        Rle.from_json(value)
