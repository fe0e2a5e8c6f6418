from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from sightline.formats.coco import (
    CocoDataset,
    CocoResult,
    read_coco_results,
    write_coco,
    write_coco_results,
)
from sightline.formats.frames import Frame, FrameObject, load_mask
from sightline.formats.pixel_boxes import box_of_mask
from sightline.formats.rle import Rle
from tests.formats.dataset_factory import make_frame, make_mask

SIZE = (24, 16)
MASK = make_mask((3, 12), (2, 7))


def frames():
    mug = FrameObject("mug", 90, box=box_of_mask(MASK), mask=MASK)
    can = FrameObject("can", 7, box=torch.tensor([0.25, 1.5, 3.75, 9.0], dtype=torch.float64), score=0.5)
    return [Frame(42, "a.png", (mug, can), size=SIZE), Frame(7, "b.png", (can,), size=SIZE)]


@pytest.mark.parametrize("compressed", [True, False])
def test_write_then_read_is_identity(tmp_path, compressed):
    losses = write_coco(tmp_path / "a.json", frames(), compressed=compressed)
    assert losses.lines() == []
    dataset = CocoDataset(tmp_path / "a.json")
    assert dataset.categories == {7: "can", 90: "mug"} and dataset.image_ids == [42, 7]
    for frame, expected in zip(dataset, frames(), strict=True):
        assert (frame.frame_id, frame.name, frame.image_size) == (expected.frame_id, expected.name, SIZE)
        assert frame.image == tmp_path / expected.name
        for found, wanted in zip(frame.objects, expected.objects, strict=True):
            assert (found.name, found.obj_id, found.score) == (wanted.name, wanted.obj_id, wanted.score)
            assert torch.equal(found.box, wanted.box)
            assert (found.mask is None) == (wanted.mask is None)
    assert np.array_equal(load_mask(dataset[0].objects[0].mask), MASK)


def test_boxes_are_xywh_from_the_picture_s_edge_and_ids_stay_sparse(tmp_path):
    write_coco(tmp_path / "a.json", frames())
    content = json.loads((tmp_path / "a.json").read_text())
    first = content["annotations"][0]
    assert first["bbox"] == [3, 2, 9, 5] and first["area"] == 45
    assert first["category_id"] == 90 and first["image_id"] == 42
    assert content["images"][0] == {"id": 42, "file_name": "a.png", "width": 24, "height": 16}
    assert content["categories"] == [{"id": 7, "name": "can"}, {"id": 90, "name": "mug"}]


def test_clashing_numbers_are_given_anew(tmp_path):
    clashing = [replace(frame, frame_id=1) for frame in frames()]
    clashing[1] = replace(clashing[1], objects=(FrameObject("cup", 90, box=box_of_mask(MASK)),))
    write_coco(tmp_path / "a.json", clashing)
    dataset = CocoDataset(tmp_path / "a.json")
    assert dataset.image_ids == [1, 2] and dataset.categories == {1: "can", 2: "cup", 3: "mug"}


def test_given_categories_are_kept_and_must_hold_all(tmp_path):
    write_coco(tmp_path / "a.json", frames(), categories={1: "can", 5: "mug", 9: "cup"})
    assert CocoDataset(tmp_path / "a.json").categories == {1: "can", 5: "mug", 9: "cup"}
    with pytest.raises(ValueError, match=r"a\.json: categories: expected 'mug' among \['can'\]"):
        write_coco(tmp_path / "a.json", frames(), categories={1: "can"})


def test_what_coco_cannot_hold_is_counted(tmp_path):
    frame = make_frame(tmp_path, 1, ("mug", "can"))
    lines = write_coco(tmp_path / "a.json", [frame]).lines()
    assert sorted(lines) == ["cameras: 1", "depth maps: 1", "poses: 2"]


def test_polygons_become_masks(tmp_path):
    write_coco(tmp_path / "a.json", frames())
    edit(tmp_path, lambda c: c["annotations"][0].update(segmentation=[[3, 2, 12, 2, 12, 7, 3, 7]]))
    mask = load_mask(CocoDataset(tmp_path / "a.json")[0].objects[0].mask)
    assert np.array_equal(mask, MASK)


def test_crowds_and_key_points_are_reported(tmp_path):
    write_coco(tmp_path / "a.json", frames())
    edit(tmp_path, lambda c: c["annotations"][0].update(iscrowd=1, keypoints=[1, 2, 2]))
    dataset = CocoDataset(tmp_path / "a.json")
    assert len(dataset[0].objects) == 1
    assert sorted(dataset.ignored.lines()) == ["crowd regions: 1", "key points: 1"]


def edit(folder, change):
    content = json.loads((folder / "a.json").read_text())
    change(content)
    (folder / "a.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("images"), r"a\.json: top level: the key 'images' is missing"),
        (lambda c: c["images"][1].update(id=42), r"images\[1\]: id: expected each number once, got 42 again"),
        (lambda c: c["images"][0].pop("width"), r"images\[0\]: the key 'width' is missing"),
        (lambda c: c["annotations"][0].pop("bbox"), r"annotations\[0\]: the key 'bbox' is missing"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, "3", 4]), "bbox: expected 4 numbers"),
        (lambda c: c["annotations"][0].update(image_id=5), "there is none of number 5"),
        (
            lambda c: c["annotations"][0].update(category_id=5),
            r"category_id: expected one of \[7, 90\]",
        ),
        (lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3]]), "polygons of at least three points"),
        (lambda c: c["annotations"][0]["segmentation"].update(size=[24, 16]), "expected a mask of"),
        (lambda c: c["categories"][0].pop("name"), r"categories\[0\]: the key 'name' is missing"),
    ],
)
def test_faults_name_the_entry_and_the_key(tmp_path, change, message):
    write_coco(tmp_path / "a.json", frames())
    edit(tmp_path, change)
    with pytest.raises(ValueError, match=message):
        list(CocoDataset(tmp_path / "a.json"))


def test_missing_and_truncated_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.json"):
        CocoDataset(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"images": [')
    with pytest.raises(ValueError, match=r"a\.json: expected JSON, damaged or truncated"):
        CocoDataset(tmp_path / "a.json")
    with pytest.raises(ValueError, match="for its size"):
        write_coco(tmp_path / "b.json", [Frame(1, "a.png")])
    with pytest.raises(KeyError, match="no image 8"):
        write_coco(tmp_path / "c.json", frames())
        CocoDataset(tmp_path / "c.json").frame(8)


def test_results_round_trip(tmp_path):
    boxed = CocoResult(7, 7, box_of_mask(MASK), 1.0)
    results = [CocoResult(42, 90, box_of_mask(MASK), 0.75, Rle.encode(MASK)), boxed]
    write_coco_results(tmp_path / "r.json", results)
    first, second = read_coco_results(tmp_path / "r.json")
    assert torch.equal(first.box, results[0].box) and np.array_equal(first.mask.decode(), MASK)
    assert (first.image_id, first.category_id, first.score) == (42, 90, 0.75) and second.mask is None
    (tmp_path / "r.json").write_text('[{"image_id": 1, "category_id": 2, "score": 0.5}]')
    with pytest.raises(ValueError, match=r"r\.json: top level, results\[0\]: the key 'bbox' is missing"):
        read_coco_results(tmp_path / "r.json")


def test_results_are_taken_by_coco_s_evaluation(tmp_path):
    from faster_coco_eval import COCO, COCOeval_faster

    write_coco(tmp_path / "truth.json", frames())
    found = [CocoResult(42, 90, box_of_mask(MASK), 0.75), CocoResult(42, 7, frames()[0].objects[1].box, 0.5)]
    found.append(CocoResult(7, 7, frames()[1].objects[0].box, 0.9))
    write_coco_results(tmp_path / "r.json", found)
    truth = COCO(str(tmp_path / "truth.json"))
    answers = truth.loadRes(str(tmp_path / "r.json"))
    evaluation = COCOeval_faster(truth, answers, "bbox", print_function=lambda *_: None)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)
