from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from sightline.formats.coco import write_coco
from sightline.formats.frames import Frame, FrameObject
from sightline.formats.image_stream import FileFault, stream_images
from sightline.formats.images import write_image, write_mask
from sightline.formats.refdet_folder import RefDetSample, object_id_of, read_refdet_folder
from sightline.formats.refdet_templates import TemplatePicture, list_templates, read_template
from sightline.formats.refdet_writing import write_refdet_folder

WIDE, TALL = (64, 36), (36, 64)


def picture(size, value=90):
    return np.full((size[1], size[0], 3), value, np.uint8)


def put(
    root, labels, *, split="train", size=WIDE, template_of=("object_1",), places="templates/{}/template_0.png"
):
    """A folder with a picture of each label, and templates of some objects."""
    for stem, text in labels.items():
        write_image(root / split / "search" / "images" / f"{stem}.png", picture(size))
        (root / split / "search" / "labels").mkdir(parents=True, exist_ok=True)
        if text is not None:
            (root / split / "search" / "labels" / f"{stem}.txt").write_text(text)
    for name in template_of:
        write_image(root / places.format(name), picture((8, 8)))
    return root


@pytest.mark.parametrize(
    ("stem", "known", "expected"),
    [
        ("object_1_frame_0001", (), "object_1"),
        ("object_1_frame_0001", ("object", "object_1"), "object_1"),
        ("photo_frame_frame_3", (), "photo_frame"),
        ("a_frame_0001_frame_0002", (), "a_frame_0001"),
        ("12_frame_0001", (), "12"),
        ("mug", (), "mug"),
        ("mug_0007", ("mug", "m"), "mug"),
        ("mug_10_7", ("mug", "mug_1"), "mug"),
        ("mug_frame_1_crop_frame_2", ("mug",), "mug"),
    ],
)
def test_object_id(stem, known, expected):
    assert object_id_of(stem, known) == expected


@pytest.mark.parametrize(
    "places",
    [
        "templates/{}/template_0.png",
        "train/templates/{}/a.png",
        "train/templates/{}_ref_001.png",
        "templates/{}_ref_a.png",
    ],
)
def test_layouts(tmp_path, places):
    labels = {"object_1_frame_0001": "10 20 60 30\n30 10 50 30\n", "object_1_frame_0002": ""}
    folder = read_refdet_folder(put(tmp_path, labels, places=places))
    assert folder.label_format == "xyxy" and folder.object_ids == ("object_1",)
    first, second = folder.samples
    assert first.name == "object_1_frame_0001" and first.image_size == WIDE
    assert first.boxes.tolist() == [[9.5, 19.5, 59.5, 29.5], [29.5, 9.5, 49.5, 29.5]]
    assert second.boxes.shape == (0, 4) and second.object_id == "object_1"
    assert len(folder.templates["object_1"]) == 1 and folder.faults == ()


def test_a_split_is_its_own_and_none_is_the_root(tmp_path):
    put(tmp_path, {"object_1_frame_1": "10 20 60 30\n"}, split="val")
    assert len(read_refdet_folder(tmp_path, "val").samples) == 1
    with pytest.raises(FileNotFoundError, match="train"):
        read_refdet_folder(tmp_path, "train")
    put(tmp_path / "test", {"object_1_frame_1": "10 20 60 30\n"}, split=".")
    assert len(read_refdet_folder(tmp_path / "test", None).samples) == 1


def test_wide_and_tall_pictures_have_other_limits(tmp_path):
    text = {"object_1_frame_1": "10 20 60 30\n"}
    read_refdet_folder(put(tmp_path / "wide", text, size=WIDE))
    with pytest.raises(ValueError, match=r"object_1_frame_1\.txt:1: .*within the picture of 36x64"):
        read_refdet_folder(put(tmp_path / "tall", text, size=TALL))


def test_the_form_of_labels_is_found_given_or_noted(tmp_path):
    put(tmp_path, {"object_1_frame_1": "10 10 20 20\n"})
    with pytest.raises(ValueError, match="label_format='xyxy' or label_format='xywh'"):
        read_refdet_folder(tmp_path)
    assert read_refdet_folder(tmp_path, label_format="xywh").samples[0].boxes.tolist() == [
        [9.5, 9.5, 29.5, 29.5]
    ]
    (tmp_path / "refdet.json").write_text('{"label_format": "xyxy"}')
    assert read_refdet_folder(tmp_path).samples[0].boxes.tolist() == [[9.5, 9.5, 19.5, 19.5]]
    (tmp_path / "refdet.json").write_text('{"label_format": "voc"}')
    with pytest.raises(ValueError, match=r"refdet\.json: .*label_format: expected one of"):
        read_refdet_folder(tmp_path)
    with pytest.raises(ValueError, match="label_format: expected one of auto, coco"):
        read_refdet_folder(tmp_path, label_format="voc")


def test_damaged_pictures_are_named_and_the_rest_is_there(tmp_path):
    put(
        tmp_path,
        {"object_1_frame_1": "10 20 60 30\n", "object_1_frame_2": "1 2 60 30\n", "object_1_frame_3": None},
    )
    images, labels = tmp_path / "train" / "search" / "images", tmp_path / "train" / "search" / "labels"
    (images / "object_1_frame_2.png").write_bytes(b"no picture")
    (labels / "object_1_frame_9.txt").write_text("")
    folder = read_refdet_folder(tmp_path)
    assert [sample.name for sample in folder.samples] == ["object_1_frame_1"]
    reasons = " | ".join(fault.reason for fault in folder.faults)
    assert "object_1_frame_2.png: expected a whole picture" in reasons
    assert "object_1_frame_3.txt: no such label file" in reasons
    assert "object_1_frame_9.txt: no picture of this name" in reasons
    assert len(folder.faults) == 3


def test_a_stream_goes_on_after_a_fault(tmp_path):
    write_image(tmp_path / "a.png", picture(WIDE))
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    kinds = [
        type(each).__name__ for each in stream_images([tmp_path / n for n in ("a.png", "b.png", "a.png")])
    ]
    assert kinds == ["LoadedImage", "FileFault", "LoadedImage"]
    [fault] = [each for each in stream_images([tmp_path / "b.png"]) if isinstance(each, FileFault)]
    assert fault.path == tmp_path / "b.png" and "b.png" in fault.reason


def test_objects_without_templates_are_listed(tmp_path):
    put(tmp_path, {"object_2_frame_1": "10 20 60 30\n"})
    with pytest.raises(ValueError, match="no templates of object_2; there are templates of object_1"):
        read_refdet_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="expected <object>"):
        read_refdet_folder(put(tmp_path / "none", {"a_frame_1": ""}, template_of=()))


def test_yolo_classes_are_objects_where_they_have_names(tmp_path):
    put(
        tmp_path,
        {"room_1": "0 0.5 0.5 0.2 0.2\n1 0.5 0.5 0.5 0.5\n1 0.25 0.25 0.1 0.1\n"},
        template_of=("mug", "can"),
    )
    with pytest.raises(ValueError, match=r"room_1\.txt: class 0: expected its name"):
        read_refdet_folder(tmp_path)
    (tmp_path / "train" / "search" / "labels" / "classes.txt").write_text("can\nmug\n")
    folder = read_refdet_folder(tmp_path)
    assert folder.label_format == "yolo" and folder.faults == ()
    assert [(s.name, s.object_id, len(s.boxes)) for s in folder.samples] == [
        ("room_1:can", "can", 1),
        ("room_1:mug", "mug", 2),
    ]


def test_one_class_is_the_object_of_the_name(tmp_path):
    put(tmp_path, {"object_1_frame_1": "0 0.5 0.5 0.5 0.5\n"})
    assert read_refdet_folder(tmp_path).samples[0].object_id == "object_1"


def test_coco_beside_the_pictures(tmp_path):
    put(tmp_path, {"can_frame_1": None, "mug_frame_2": None}, template_of=("mug", "can"))
    mug = FrameObject("mug", 2, box=torch.tensor([9.5, 9.5, 39.5, 29.5], dtype=torch.float64))
    frames = [Frame(1, "can_frame_1.png", (mug,), size=WIDE), Frame(2, "mug_frame_2.png", (), size=WIDE)]
    table = tmp_path / "train" / "search" / "labels" / "annotations.json"
    write_coco(table, frames)
    folder = read_refdet_folder(tmp_path)
    assert folder.label_format == "coco"
    # the picture named after the can asks for it although only the mug is in it
    assert [(s.name, s.object_id, s.boxes.tolist()) for s in folder.samples] == [
        ("can_frame_1", "can", []),
        ("can_frame_1:mug", "mug", [[9.5, 9.5, 39.5, 29.5]]),
        ("mug_frame_2", "mug", []),
    ]
    content = json.loads(table.read_text())
    content["annotations"][0]["bbox"] = [50, 10, 30, 20]
    table.write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match=r"annotations\.json: image can_frame_1\.png: mug:1: .*within the picture"
    ):
        read_refdet_folder(tmp_path)
    (table.parent / "a.txt").write_text("")
    with pytest.raises(ValueError, match="give label_format="):
        read_refdet_folder(tmp_path)


def test_templates_with_mask_alpha_and_box(tmp_path):
    mask = np.zeros((10, 20), bool)
    mask[2:5, 3:9] = True
    write_image(tmp_path / "a.png", picture((20, 10)))
    write_mask(tmp_path / "a_mask.png", mask)
    write_image(tmp_path / "b.png", np.dstack([picture((20, 10)), mask.astype(np.uint8) * 255]))
    write_image(tmp_path / "c.png", picture((20, 10)))
    (tmp_path / "c.txt").write_text("3 2 9 5\n")
    write_image(tmp_path / "d.jpg", picture((20, 10)))
    write_image(tmp_path / "e.png", picture((20, 10)))
    (tmp_path / "boxes.json").write_text('{"d.jpg": [3, 2, 9, 5]}')
    for name in ("a.png", "b.png"):
        assert np.array_equal(read_template(tmp_path / name).mask, mask)
    for name in ("c.png", "d.jpg"):
        template = read_template(tmp_path / name)
        assert template.box.tolist() == [2.5, 1.5, 8.5, 4.5] and template.mask is None
    nothing = read_template(tmp_path / "e.png")
    assert nothing.mask is None and nothing.box is None
    (tmp_path / "boxes.json").write_text('{"d.jpg": [9, 2, 3, 5]}')
    with pytest.raises(ValueError, match=r"boxes\.json: d\.jpg:1: expected x1 < x2"):
        read_template(tmp_path / "d.jpg")
    (tmp_path / "c.txt").write_text("")
    with pytest.raises(ValueError, match=r"c\.txt: expected one box of the object in c\.png, got 0"):
        read_template(tmp_path / "c.png")
    write_mask(tmp_path / "a_mask.png", np.zeros((10, 20), bool))
    with pytest.raises(ValueError, match=r"a_mask\.png: mask: .*empty"):
        read_template(tmp_path / "a.png")
    write_mask(tmp_path / "a_mask.png", mask.T)
    with pytest.raises(
        ValueError, match=r"a_mask\.png: mask: expected the picture's size of 20x10, got 10x20"
    ):
        read_template(tmp_path / "a.png")


def test_masks_are_no_templates_but_objects_may_be_called_mask(tmp_path):
    for name in ("mug/a.png", "mug/a_mask.png", "gas_mask/gas_mask.png", "ref_box_ref_1.png"):
        write_image(tmp_path / name, picture((8, 8)))
    found = {name: [path.name for path in paths] for name, paths in list_templates(tmp_path).items()}
    assert found == {"gas_mask": ["gas_mask.png"], "mug": ["a.png"], "ref_box": ["ref_box_ref_1.png"]}


def test_write_then_read_is_identity(tmp_path):
    boxes = torch.tensor([[9.5, 9.5, 19.5, 19.5], [0.25, 1.75, 30.125, 20.0]], dtype=torch.float64)
    none = torch.zeros(0, 4, dtype=torch.float64)
    mask = np.zeros((8, 8), bool)
    mask[2:4] = True
    templates = {
        "mug": [TemplatePicture(picture((8, 8)), mask), TemplatePicture(picture((8, 8)))],
        "can": [
            TemplatePicture(picture((8, 8)), box=torch.tensor([0.5, 1.5, 5.5, 6.5], dtype=torch.float64))
        ],
    }
    samples = [
        RefDetSample("mug_frame_0007", "mug", boxes, picture(WIDE, 7), WIDE),
        RefDetSample("whatever", "can", none, picture(TALL, 8), TALL),
    ]
    write_refdet_folder(tmp_path, samples, templates)
    folder = read_refdet_folder(tmp_path)
    assert folder.label_format == "xyxy" and folder.faults == ()
    can, mug = folder.samples
    assert (can.name, can.object_id, can.image_size) == ("can_frame_000001", "can", TALL)
    assert (mug.name, mug.object_id, mug.image_size) == ("mug_frame_0007", "mug", WIDE)
    assert torch.equal(mug.boxes, boxes) and len(can.boxes) == 0
    assert np.array_equal(mug.read_image(), picture(WIDE, 7))
    read = [read_template(path) for path in folder.templates["mug"]]
    assert np.array_equal(read[0].mask, mask) and read[1].mask is None
    assert read_template(folder.templates["can"][0]).box.tolist() == [0.5, 1.5, 5.5, 6.5]
    assert [len(frame.objects) for frame in folder.frame_set().frames] == [0, 2]
    # a second split from files stands beside the first
    write_refdet_folder(tmp_path, folder.samples, {}, split="val")
    assert len(read_refdet_folder(tmp_path, "val").samples) == 2
    with pytest.raises(FileExistsError):
        write_refdet_folder(tmp_path, samples, templates)


def test_a_fault_while_writing_leaves_nothing(tmp_path):
    outside = torch.tensor([[5.0, 5.0, 70.0, 20.0]], dtype=torch.float64)
    sample = RefDetSample("mug_frame_1", "mug", outside, picture(WIDE), WIDE)
    with pytest.raises(ValueError, match="mug_frame_1: expected boxes within 64x36"):
        write_refdet_folder(tmp_path / "a", [sample], {"mug": [TemplatePicture(picture((8, 8)))]})
    with pytest.raises(ValueError, match="expected templates of 'mug'"):
        write_refdet_folder(tmp_path / "a", [sample], {})
    assert not (tmp_path / "a" / "train").exists()
