from __future__ import annotations

import errno
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from sightline.formats.bop_detections import (
    BopDetection,
    group_by_image,
    read_bop_detections,
    to_record,
    write_bop_detections,
)
from sightline.formats.bop_results import (
    HEADER,
    BopResult,
    parse_results_name,
    read_bop_results,
    results_from_poses,
    results_name,
    write_bop_results,
)
from sightline.formats.pixel_boxes import box_of_mask
from sightline.formats.rle import Rle
from sightline.geometry.poses import make_pose
from sightline.geometry.rotations import exp
from sightline.records import PoseEstimate

NAME = "sift_lmo-test.csv"


def pose(seed):
    w, t = torch.randn(2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return make_pose(exp(w), t)


ROWS = [
    BopResult(2, 3, 5, 0.9, pose(1), 0.25),
    BopResult(2, 3, 6, 0.125, pose(2), 0.25),
    BopResult(2, 4, 5, -1.5, pose(3)),
]


def test_write_then_read_is_identity(tmp_path):
    write_bop_results(tmp_path / NAME, ROWS)
    for row, expected in zip(read_bop_results(tmp_path / NAME), ROWS, strict=True):
        assert (row.scene_id, row.im_id, row.obj_id) == (expected.scene_id, expected.im_id, expected.obj_id)
        assert (row.score, row.time) == (expected.score, expected.time)
        torch.testing.assert_close(row.cam_from_obj, expected.cam_from_obj, rtol=0, atol=1e-15)


def test_the_file_is_what_bop_s_tool_reads(tmp_path):
    write_bop_results(tmp_path / NAME, ROWS[:1])
    header, row = (tmp_path / NAME).read_bytes().decode().rstrip("\n").split("\n")
    assert header == "scene_id,im_id,obj_id,score,R,t,time" == HEADER
    cells = row.split(",")
    assert cells[:4] == ["2", "3", "5", "0.9"] and cells[6] == "0.25"
    assert [float(word) for word in cells[4].split(" ")] == pose(1)[:3, :3].flatten().tolist()
    assert [float(word) for word in cells[5].split(" ")] == pytest.approx((pose(1)[:3, 3] * 1000).tolist())


def test_different_times_in_one_picture_are_refused_in_both_directions(tmp_path):
    rows = [ROWS[0], BopResult(2, 3, 6, 0.1, pose(2), 0.5)]
    message = "the same in all rows of scene 2, image 3 .* got 0.25 and 0.5"
    with pytest.raises(ValueError, match=message):
        write_bop_results(tmp_path / NAME, rows)
    write_bop_results(tmp_path / NAME, ROWS[:2])
    text = (tmp_path / NAME).read_text().rstrip("\n")
    (tmp_path / NAME).write_text(text[: -len("0.25")] + "0.5\n")
    with pytest.raises(ValueError, match=message):
        read_bop_results(tmp_path / NAME)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (BopResult(1, 1, 1, math.nan, pose(1)), "row 0: expected finite numbers"),
        (
            BopResult(1, 1, 1, 0.5, torch.full((4, 4), math.nan, dtype=torch.float64)),
            "leave poses that",
        ),
        (BopResult(1, 1, 1, 0.5, pose(1), -2.0), "time: expected seconds, or -1"),
        (BopResult(1, 1, 1, 0.5, pose(1), math.nan), "time: expected seconds"),
    ],
)
def test_what_the_server_would_refuse_is_not_written(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        write_bop_results(tmp_path / NAME, [row])
    assert list(tmp_path.iterdir()) == []


GOOD = "2,3,5,0.9,1 0 0 0 1 0 0 0 1,1 2 3,-1"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2,3,5,0.9,1 0 0 0 1 0 0 0 1,1 2 3", "line 3: expected 7 values between commas .* got 6"),
        (GOOD.replace("0.9", "high"), "line 3: score: expected numbers, got 'high'"),
        (GOOD.replace("2,3,5", "2,3,mug"), "line 3: scene_id, im_id, obj_id: expected whole numbers"),
        (GOOD.replace("1 2 3", "1 2"), "line 3: t: expected 3 finite numbers between spaces, got '1 2'"),
        (GOOD.replace("1 2 3", "1 nan 3"), "t: expected 3 finite numbers"),
        (GOOD.replace("1 0 0 0", "1 0 0"), "line 3: R: expected 9 finite numbers"),
        (GOOD.replace("1 0 0 0", "9 0 0 0"), "line 3: R: expected a rotation"),
    ],
)
def test_malformed_rows_are_named_by_line(tmp_path, line, message):
    (tmp_path / NAME).write_text(f"{HEADER}\n{GOOD}\n{line}\n")
    with pytest.raises(ValueError, match=message):
        read_bop_results(tmp_path / NAME)


def test_missing_file_and_header_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such results file"):
        read_bop_results(tmp_path / NAME)
    for text in ("", GOOD, "im_id,scene_id,obj_id,score,R,t,time"):
        (tmp_path / NAME).write_text(text)
        with pytest.raises(ValueError, match="line 1: expected the header 'scene_id,im_id"):
            read_bop_results(tmp_path / NAME)


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    write_bop_results(tmp_path / NAME, ROWS)
    before = (tmp_path / NAME).read_bytes()

    def fill_up(self, *_args, **_options):
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fill_up)
    with pytest.raises(OSError, match="No space"):
        write_bop_results(tmp_path / NAME, ROWS[:1])
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert (tmp_path / NAME).read_bytes() == before


def test_names_of_results_files():
    assert parse_results_name("a/b/cosy-rgb_tless-test-primesense_12.csv") == (
        "cosy-rgb",
        "tless",
        "test",
        "primesense",
        "12",
    )
    assert (
        results_name("my_method", "tless", split_type="primesense") == "my-method_tless-test-primesense.csv"
    )
    for name in ("lmo-test.csv", "a_lmo.csv", "a_b_lmo-test.csv", "a_lmo-test.txt", "a_lmo-test_1_2.csv"):
        with pytest.raises(ValueError, match="expected METHOD_DATASET-SPLIT"):
            parse_results_name(name)


def test_rows_of_poses_leave_failures_out():
    found = PoseEstimate(pose(1)[:3, :3], pose(1)[:3, 3], 0.5, valid=True, name="mug")
    rows = results_from_poses(2, 3, [found, PoseEstimate.failure("lost", name="mug")], {"mug": 7}, time=1)
    assert [(row.obj_id, row.time) for row in rows] == [(7, 1.0)]
    with pytest.raises(ValueError, match="expected a number for 'mug'"):
        results_from_poses(2, 3, [found], {"cup": 7})


MASK = np.zeros((8, 10), bool)
MASK[2:5, 3:9] = True
DETECTIONS = [
    BopDetection(2, 3, 5, box_of_mask(MASK), 0.5, Rle.encode(MASK), 0.2),
    BopDetection(2, 3, 12, box_of_mask(MASK) + 0.25, 0.75, Rle.encode(~MASK), 0.2),
]


@pytest.mark.parametrize("compressed", [True, False])
def test_detections_round_trip(tmp_path, compressed):
    write_bop_detections(tmp_path / "d.json", DETECTIONS, compressed=compressed)
    raw = json.loads((tmp_path / "d.json").read_text())[0]
    assert raw["bbox"] == [3, 2, 6, 3] and raw["image_id"] == 3 and raw["category_id"] == 5
    assert isinstance(raw["segmentation"]["counts"], str) == compressed
    for found, expected in zip(read_bop_detections(tmp_path / "d.json"), DETECTIONS, strict=True):
        assert torch.equal(found.box, expected.box)
        assert np.array_equal(found.mask.decode(), expected.mask.decode())
        assert (found.obj_id, found.score, found.time) == (expected.obj_id, expected.score, expected.time)


def test_detections_become_the_house_s_record(tmp_path):
    (group,) = group_by_image(DETECTIONS).values()
    assert [found.score for found in group] == [0.75, 0.5]
    record = to_record(group, (10, 8), {5: "mug"})
    assert record.names == ("obj_000012", "mug")
    assert np.array_equal(record.masks[1].numpy(), MASK)
    assert len(to_record([], (10, 8))) == 0


def test_boxes_without_masks_are_detections_too(tmp_path):
    (tmp_path / "d.json").write_text(
        '[{"scene_id": 1, "image_id": 2, "category_id": 3, "bbox": [0, 0, 4, 2], "score": 1}]'
    )
    (found,) = read_bop_detections(tmp_path / "d.json")
    assert found.mask is None and found.time == -1 and found.box.tolist() == [-0.5, -0.5, 3.5, 1.5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("bbox"), r"d\.json: top level, detections\[0\]: the key 'bbox' is missing"),
        (lambda d: d.update(bbox=[1, 2, 3]), "bbox: expected 4 numbers, got 3"),
        (lambda d: d.update(score=None), "score: expected a number"),
        (lambda d: d["segmentation"].update(counts=[1]), "segmentation: counts: expected runs that fill"),
        (lambda d: d["segmentation"].pop("size"), "segmentation: the key 'size' is missing"),
    ],
)
def test_faults_of_detections_are_named(tmp_path, change, message):
    write_bop_detections(tmp_path / "d.json", DETECTIONS)
    content = json.loads((tmp_path / "d.json").read_text())
    change(content[0])
    (tmp_path / "d.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_bop_detections(tmp_path / "d.json")
