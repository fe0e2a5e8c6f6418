from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sightline.formats.frames import Frame, FrameObject
from sightline.formats.yolo import YoloDataset, read_class_names, write_yolo


def frames():
    mug = FrameObject("mug", box=torch.tensor([9.5, 19.5, 29.5, 59.5], dtype=torch.float64))
    can = FrameObject("can", box=torch.tensor([-0.5, -0.5, 39.5, 79.5], dtype=torch.float64))
    image = np.full((80, 40, 3), 90, np.uint8)
    return [Frame(0, "a.png", (mug, can), image=image), Frame(1, "b.png", (), image=image)]


@pytest.mark.parametrize("split", ["", "train"])
def test_write_then_read_is_identity(tmp_path, split):
    assert write_yolo(tmp_path, frames(), split=split).lines() == []
    dataset = YoloDataset(tmp_path, split)
    assert dataset.categories == {0: "can", 1: "mug"}
    for frame, expected in zip(dataset, frames(), strict=True):
        assert (frame.name, frame.image_size) == (expected.name, (40, 80))
        assert [found.name for found in frame.objects] == [found.name for found in expected.objects]
        for found, wanted in zip(frame.objects, expected.objects, strict=True):
            torch.testing.assert_close(found.box, wanted.box, rtol=0, atol=1e-5)
    assert len(dataset[:]) == 2 and dataset[-1].name == "b.png"


def test_lines_are_centre_and_size_in_shares(tmp_path):
    write_yolo(tmp_path, frames())
    assert (tmp_path / "labels" / "a.txt").read_text() == "1 0.5 0.5 0.5 0.5\n0 0.5 0.5 1 1\n"
    assert (tmp_path / "labels" / "b.txt").read_text() == ""


def test_a_picture_without_label_is_background(tmp_path):
    write_yolo(tmp_path, frames())
    (tmp_path / "labels" / "a.txt").unlink()
    assert YoloDataset(tmp_path)[0].objects == ()


def test_split_before_images(tmp_path):
    write_yolo(tmp_path / "valid", frames())
    (tmp_path / "data.yaml").write_text("names: {0: can, 1: mug}\n")
    assert [found.name for found in YoloDataset(tmp_path, "valid")[0].objects] == ["mug", "can"]


def test_class_names_of_a_list_and_faults(tmp_path):
    (tmp_path / "data.yaml").write_text("names: [a, b]\n")
    assert read_class_names(tmp_path) == {0: "a", 1: "b"}
    (tmp_path / "data.yaml").write_text("names: 3\n")
    with pytest.raises(ValueError, match=r"data\.yaml: names: expected a list"):
        read_class_names(tmp_path)
    (tmp_path / "data.yaml").write_text("names: [a\n")
    with pytest.raises(ValueError, match=r"data\.yaml: expected YAML"):
        read_class_names(tmp_path)


def test_faults(tmp_path):
    with pytest.raises(FileNotFoundError, match="images"):
        YoloDataset(tmp_path)
    write_yolo(tmp_path, frames())
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n0 0.9 0.5 0.5 0.5\n")
    with pytest.raises(ValueError, match=r"a\.txt:2: .*within the picture of 40x80"):
        YoloDataset(tmp_path)[0]
    twice = [replace(frame, name="a.png") for frame in frames()]
    with pytest.raises(ValueError, match="names that differ"):
        write_yolo(tmp_path / "other", twice)
