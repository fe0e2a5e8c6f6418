from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from sightline.rendering import render_scene
from sightline.synthetic import make_object
from sightline.synthetic.backdrops import BackdropBank
from sightline.synthetic.pose_composites import CompositeSettings, PoseComposites
from sightline.synthetic.pose_views import PoseViewSettings
from sightline.synthetic.view_bank import ViewBank

OBJECTS = [make_object("box", 1), make_object("mug", 2), make_object("bottle", 3, texture="low")]
VIEWS = PoseViewSettings(num_queries=12, query_px=96, query_aside=0.0)
BANK = ViewBank(OBJECTS, VIEWS)
OTHERS = ViewBank([make_object("toy", 4)], VIEWS)
BACKDROPS = BackdropBank(2, image_size=(120, 90))
SIZE = (160, 128)


def composites(**changes: object) -> PoseComposites:
    return PoseComposites(BANK, OTHERS, BACKDROPS, CompositeSettings(SIZE, **changes))  # ty: ignore[invalid-argument-type]


def test_the_truth_is_that_of_the_renderer():
    drawn = composites(empty_share=0.0, wanted=(3, 3), others=(0, 0), shadow_share=0.0)
    for seed in range(6):
        picture = drawn.draw(np.random.default_rng(seed))
        meshes = [OBJECTS[label].prepared for label in picture.labels]
        K, poses = torch.from_numpy(picture.K), torch.from_numpy(picture.cam_from_obj)
        scene = render_scene(meshes, poses, K, SIZE, outputs=("depth", "instance"))
        owner, depth = scene.instance[0].numpy(), scene.depth[0].numpy()
        for row, mask in enumerate(picture.masks):
            agree = mask & (owner == row)
            # objects that reach into each other are told apart by their origins here
            assert agree.sum() > 0.8 * mask.sum()
            assert np.median(np.abs(picture.depth[agree] / depth[agree] - 1)) < 1e-3


def test_masks_boxes_and_shares_belong_together():
    drawn = composites(empty_share=0.0)
    for seed in range(20):
        picture = drawn.draw(np.random.default_rng(seed))
        assert picture.image.shape == (128, 160, 3)
        assert len(set(picture.labels.tolist())) == len(picture.labels) >= 1
        assert picture.masks.sum(0).max() <= 1
        assert (picture.depth[picture.masks.any(0)] > 0).all()
        assert (picture.visib_fract >= 0.4).all()
        assert (picture.visib_fract <= 1).all()
        for mask, box in zip(picture.masks, picture.boxes, strict=True):
            rows, columns = np.nonzero(mask)
            assert box[0] - 2 <= columns.min() <= columns.max() <= box[2] + 2
            assert box[1] - 2 <= rows.min() <= rows.max() <= box[3] + 2


def test_the_same_generator_gives_the_same_bytes():
    drawn = composites()
    first, second = (drawn.draw(np.random.default_rng(7)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    other = drawn.draw(np.random.default_rng(8))
    assert not np.array_equal(first.image, other.image)


def test_some_pictures_are_empty_and_sizes_are_in_range():
    empty = composites(empty_share=1.0).draw(np.random.default_rng(0))
    assert len(empty.labels) == 0
    assert empty.masks.shape == (0, 128, 160)
    drawn = composites(empty_share=0.0, others=(0, 0), extent=(0.2, 0.3), cut_share=0.0)
    sides = []
    for seed in range(20):
        boxes = drawn.draw(np.random.default_rng(seed)).boxes
        sides += (boxes[:, 2:] - boxes[:, :2]).max(1).tolist()
        assert (boxes >= -1).all()
        assert (boxes[:, 2:] <= np.array(SIZE) + 0.5).all()
    assert 0.13 * 160 < np.median(sides) < 0.36 * 160


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="empty_share"):
        CompositeSettings(empty_share=1.2)
    with pytest.raises(ValueError, match="extent"):
        CompositeSettings(extent=(0.3, 0.2))


def test_a_bank_is_kept_in_files_and_mapped(tmp_path: Path):
    small = PoseViewSettings(num_queries=3, query_px=32)
    bank = ViewBank(OBJECTS[:2], small, tmp_path)
    bank.build()
    files = sorted(tmp_path.iterdir())
    assert [path.name.startswith(("box", "mug")) for path in files] == [True, True]
    again = pickle.loads(pickle.dumps(ViewBank(OBJECTS[:2], small, tmp_path)))
    kept, fresh = again.views(1), ViewBank(OBJECTS[:2], small).views(1)
    assert all(np.array_equal(a, b) for a, b in zip(kept, fresh, strict=True))
    np.testing.assert_array_equal(again.extents(1), ViewBank(OBJECTS[:2], small).extents(1))
    with pytest.raises(ValueError, match="each once"):
        ViewBank([OBJECTS[0], OBJECTS[0]], small)
