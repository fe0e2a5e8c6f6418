from __future__ import annotations

import json
import pickle
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from sightline.synthetic import pose_bank
from sightline.synthetic.exam_settings import EXAM
from sightline.synthetic.pose_bank import PoseBank
from sightline.synthetic.pose_views import PoseViewSettings

TINY = PoseViewSettings(num_templates=42, template_px=16, num_queries=2, query_px=16)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bank")
    PoseBank(3, folder, settings=TINY).build()
    return folder


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_is_mapped_is_what_was_drawn(built: Path):
    kept, fresh = PoseBank(3, built, settings=TINY, draw=False)[2], PoseBank(3, settings=TINY)[2]
    assert kept.name == fresh.name
    assert kept.diameter == fresh.diameter
    for key, array in fresh.arrays().items():
        assert np.array_equal(kept.arrays()[key], array), key
        assert kept.arrays()[key].dtype == array.dtype
    assert not kept.templates.colors.flags.writeable


def test_an_interrupted_build_goes_on_where_it_stopped(tmp_path: Path):
    class InterruptedError(Exception):
        pass

    def stop(done: int, whole: int) -> None:
        if done == 2:
            raise InterruptedError

    bank = PoseBank(4, tmp_path, settings=TINY)
    with pytest.raises(InterruptedError):
        bank.build(stop)
    assert bank.missing() == [2, 3]
    before = {path: path.stat().st_mtime_ns for path in files(tmp_path)}
    seen = []
    bank.build(lambda done, whole: seen.append((done, whole)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert bank.missing() == []
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from safetensors import numpy as safetensors_numpy

    def half(tensors: dict, path: Path, metadata: dict) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(safetensors_numpy, "save_file", half)
    with pytest.raises(OSError, match="no space"):
        PoseBank(2, tmp_path, settings=TINY).build()
    assert files(tmp_path) == []


def test_missing_objects_are_named(built: Path, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"train-000003\.safetensors: 2 of 5 objects are not drawn"):
        PoseBank(5, built, settings=TINY, draw=False)
    with pytest.raises(FileNotFoundError, match="3 of 3"):
        PoseBank(3, tmp_path / "nowhere", settings=TINY, draw=False)
    with pytest.raises(ValueError, match="folder: expected one"):
        PoseBank(3, settings=TINY, draw=False)


@pytest.mark.parametrize("spoil", ["cut", "longer", "other", "empty"])
def test_damaged_files_are_named(built: Path, tmp_path: Path, spoil: str):
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    path = files(tmp_path)[1]
    whole = path.read_bytes()
    spoilt = {"cut": whole[:-7], "longer": whole + b"x", "other": b"\x89PNG" * 50, "empty": b""}[spoil]
    path.write_bytes(spoilt)
    bank = PoseBank(3, tmp_path, settings=TINY)
    assert bank[0].name == "box-rich-0"
    with pytest.raises(ValueError, match=r"train-000001\.safetensors: (truncated|expected views)"):
        bank[1]


def test_another_form_is_refused(built: Path, tmp_path: Path):
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    path = files(tmp_path)[0]
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"form":"1"', b'"form":"0"'))
    with pytest.raises(ValueError, match=r"train-000000\.safetensors: expected views of form 1, got '0'"):
        PoseBank(3, tmp_path, settings=TINY)[0]


def test_a_file_without_an_array_is_damaged(built: Path, tmp_path: Path):
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    path = files(tmp_path)[0]
    whole = path.read_bytes()
    assert whole.count(b'"query.depths"') == 1
    path.write_bytes(whole.replace(b'"query.depths"', b'"query.d3pths"'))
    with pytest.raises(ValueError, match=r"train-000000\.safetensors: damaged views \('query\.depths'\)"):
        PoseBank(3, tmp_path, settings=TINY)[0]


def test_other_settings_have_another_folder(built: Path):
    other = PoseViewSettings(num_templates=42, template_px=16, num_queries=2, query_px=16, template_fill=0.8)
    assert PoseBank(3, built, settings=other).missing() == [0, 1, 2]
    assert PoseBank(3, built, split="development", settings=TINY).missing() == [0, 1, 2]


def test_no_object_is_one_of_the_exam():
    with pytest.raises(ValueError, match="split: expected one of train, development; got 'exam'"):
        PoseBank(2, split="exam")
    ranges = sorted(EXAM.object_seeds.values())
    assert all(first[1] <= second[0] for first, second in pairwise(ranges))
    names = {
        split: {PoseBank(2, split=split, settings=TINY)[k].name for k in range(2)}
        for split in ("train", "development")
    }
    assert not names["train"] & names["development"]
    first, stop = EXAM.object_seeds["exam"]
    seeds = [int(name.rsplit("-", 1)[1]) for each in names.values() for name in each]
    assert not any(first <= seed < stop for seed in seeds)


def test_at_least_two_objects():
    with pytest.raises(ValueError, match="num_objects: expected at least 2, got 1"):
        PoseBank(1)


def test_workers_get_no_mapped_memory(built: Path):
    bank = PoseBank(3, built, settings=TINY)
    whole = bank[1].arrays()
    small = pickle.dumps(bank)
    assert len(small) < 2000
    for key, array in pickle.loads(small)[1].arrays().items():
        assert np.array_equal(array, whole[key])


def test_no_more_files_are_mapped_than_allowed(built: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pose_bank, "_MOST_HELD", 2)
    bank = PoseBank(3, built, settings=TINY)
    names = [bank[k].name for k in (0, 1, 2, 0)]
    assert names[0] == names[3]
    assert len(bank._held) == 2


def test_the_header_is_that_of_safetensors(built: Path):
    from safetensors.numpy import load_file

    path = files(built)[0]
    loaded = load_file(path)
    views = PoseBank(3, built, settings=TINY)[0].arrays()
    assert loaded.keys() == views.keys()
    assert all(np.array_equal(loaded[key], views[key]) for key in views)
    length = int.from_bytes(path.read_bytes()[:8], "little")
    assert json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"]["name"] == "box-rich-0"
