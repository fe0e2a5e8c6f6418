"""Detections for COCO's and BOP's evaluations: numbers that a data set has, or counted ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sightline.formats.bop_detections import read_bop_detections
from sightline.formats.coco import CocoDataset, read_coco_results
from sightline.formats.result_records import ImageResult
from sightline.formats.results import image_entry, read_results
from sightline.formats.results_stream import stream_results
from sightline.pipeline.detection_files import write_detections
from sightline.records import Detections


def results(*names: str, objects: tuple[str, ...] = ("mug",), time: float | None = 0.5) -> list[ImageResult]:
    boxes = torch.tensor([[9.5, 19.5, 14.5, 27.5]] * len(objects), dtype=torch.float64)
    found = Detections(boxes, torch.full((len(objects),), 0.9).double(), objects, (64, 48))
    return [ImageResult.of_records(name, detections=found, time=time) for name in names]


def test_counted_numbers(tmp_path: Path):
    found = results("b.png", "12.png")
    write_detections(tmp_path, found, {}, names=["mug", "can"], source=tmp_path, form="coco")
    numbers = CocoDataset(tmp_path / "coco_images.json")
    assert numbers.image_ids == [1, 2]
    assert numbers.categories == {1: "can", 2: "mug"}  # those that were not found too
    written = read_coco_results(tmp_path / "coco_results.json")
    assert [(one.image_id, one.category_id) for one in written] == [(1, 2), (2, 2)]
    assert written[0].box.tolist() == [9.5, 19.5, 14.5, 27.5]
    assert json.loads((tmp_path / "coco_results.json").read_text())[0]["bbox"] == [10.0, 20.0, 5.0, 8.0]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["obj_000005", "obj_000012"], {5, 12}),
        (["obj_000005", "mug"], {1, 2}),
        (["obj_05", "obj_5"], {1, 2}),
    ],
)
def test_numbers_of_objects(tmp_path: Path, names, expected):
    found = results("000001.png", objects=tuple(names))
    write_detections(tmp_path, found, {}, names=names, source=tmp_path, form="bop")
    assert {one.obj_id for one in read_bop_detections(tmp_path / "bop_detections.json")} == expected


@pytest.mark.parametrize(("folder", "scene"), [("000048/rgb", 48), ("48", 48), ("pictures", 0)])
def test_scenes(tmp_path: Path, folder: str, scene: int):
    place = tmp_path / "set" / folder
    place.mkdir(parents=True)
    (place / "000003.png").touch()
    for source in (place, place / "000003.png"):
        write_detections(tmp_path, results("000003.png"), {}, names=["mug"], source=source, form="bop")
        (one,) = read_bop_detections(tmp_path / "bop_detections.json")
        assert (one.scene_id, one.im_id, one.time) == (scene, 3, 0.5)


def test_an_unknown_time_is_minus_one(tmp_path: Path):
    found = results("000003.png", time=None)
    write_detections(tmp_path, found, {}, names=["mug"], source=tmp_path, form="bop")
    assert read_bop_detections(tmp_path / "bop_detections.json")[0].time == -1


def test_an_unknown_form_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="format: expected json, coco or bop, got 'voc'"):
        write_detections(tmp_path, [], {}, names=[], source=tmp_path, form="voc")
    assert not any(tmp_path.iterdir())


def test_a_stream_reads_as_the_whole_file(tmp_path: Path):
    found = results("a.png", "b.png")
    write_detections(tmp_path, found, {"detector": "x"}, names=["mug"], source=tmp_path)
    with stream_results(tmp_path / "stream.json", ["mug"], {"detector": "x"}) as write:
        for one in found:
            write(image_entry(one, ["mug"]))
    whole, streamed = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("detections", "stream"))
    assert whole == streamed
    with stream_results(tmp_path / "empty.json", []):
        pass
    assert read_results(tmp_path / "empty.json").images == ()


def test_a_stream_is_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "stream.json"
    with (
        pytest.raises(ValueError, match=r"stream.json: JSON holds no NaN"),
        stream_results(path, []) as write,
    ):
        write({"image": "a.png", "score": float("nan")})
    assert not any(tmp_path.iterdir())
