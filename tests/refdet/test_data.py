from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from sightline.formats.image_stream import FileFault
from sightline.formats.images import write_image
from sightline.formats.refdet_folder import RefDetSample, read_refdet_folder
from sightline.formats.refdet_templates import TemplatePicture
from sightline.formats.refdet_writing import write_refdet_folder
from sightline.geometry import pixel_affine
from sightline.geometry.boxes import boxes_from_masks
from sightline.refdet.data import RefDetDataset, collate, load_templates
from sightline.refdet.framing import (
    letterbox_affine,
    prepare_search,
    prepare_template,
    transform_boxes,
    warp_picture,
    whole_picture,
)

SIZES = [(1920, 1080), (1080, 1920), (640, 480), (333, 517), (64, 36)]


def marked(size, box):
    """A dark picture with a bright rectangle in these pixels (first and last + 1)."""
    image = np.full((size[1], size[0], 3), 20, np.uint8)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = 230
    return image, torch.tensor([[x1, y1, x2, y2]], dtype=torch.float64) - 0.5


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("search_size", [(1024, 576), (576, 1024)])
def test_letterbox_keeps_everything_its_shape_and_its_middle(size, search_size):
    affine = letterbox_affine(whole_picture(size), search_size)
    inside = transform_boxes(whole_picture(size)[None], affine)[0]
    frame = whole_picture(search_size)
    assert bool((inside[:2] >= frame[:2] - 1e-9).all() and (inside[2:] <= frame[2:] + 1e-9).all())
    fills = (inside[2:] - inside[:2]) / torch.tensor(search_size, dtype=torch.float64)
    assert float(fills.max()) == pytest.approx(1.0)
    assert float(affine[0, 0]) == float(affine[1, 1]) and float(affine[0, 1]) == 0
    torch.testing.assert_close((inside[:2] + inside[2:]) / 2, (frame[:2] + frame[2:]) / 2)
    boxes = torch.rand(50, 4, dtype=torch.float64) * 100
    boxes = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:] + 1], 1)
    back = transform_boxes(transform_boxes(boxes, affine), pixel_affine.invert(affine))
    torch.testing.assert_close(back, boxes, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((1280, 720), (100, 50, 300, 650)),
        ((720, 1280), (100, 50, 300, 650)),
        ((160, 90), (10, 5, 30, 60)),
        ((90, 160), (10, 5, 30, 60)),
    ],
)
def test_the_object_is_where_its_box_says(size, box):
    image, boxes = marked(size, box)
    prepared = prepare_search(image, (512, 288))
    assert prepared.picture.shape == (3, 288, 512) and prepared.picture.dtype == torch.float32
    bright = boxes_from_masks(prepared.picture.amin(0) > 0.47)
    expected = transform_boxes(boxes, prepared.search_from_image)[0].float()
    torch.testing.assert_close(bright, expected, rtol=0, atol=0.75)


def test_wide_and_tall_frames_differ():
    image, _ = marked((160, 90), (10, 5, 30, 60))
    wide, tall = prepare_search(image, (64, 36)), prepare_search(image, (36, 64))
    assert wide.picture.shape == (3, 36, 64) and tall.picture.shape == (3, 64, 36)
    fill = torch.tensor([124, 116, 104]) / 255
    assert torch.allclose(tall.picture[:, 0, 0], fill) and torch.allclose(
        wide.picture[:, 0, 0], torch.tensor(20 / 255)
    )


def test_shrinking_averages():
    stripes = np.zeros((512, 512), np.uint8)
    stripes[:, ::2] = 200
    small = warp_picture(stripes, letterbox_affine(whole_picture((512, 512)), (64, 64)), (64, 64), fill=0)
    assert np.abs(small[4:-4, 4:-4].astype(int) - 100).max() <= 3


@pytest.mark.parametrize("template_size", [(128, 128), (160, 96), (96, 160)])
def test_template_is_cropped_to_its_mask_with_the_margin(template_size):
    mask = np.zeros((300, 400), bool)
    mask[100:160, 200:320] = True
    image = np.where(mask[..., None], np.uint8(230), np.uint8(20)).repeat(3, 2)
    prepared = prepare_template(TemplatePicture(image, mask), template_size, margin=0.1)
    assert prepared.picture.shape == (3, template_size[1], template_size[0])
    scale = min(template_size[0] / (120 + 24), template_size[1] / (60 + 24))
    box = boxes_from_masks(prepared.mask > 0.5)
    middle = torch.tensor([template_size[0] - 1, template_size[1] - 1]) / 2
    half = scale * torch.tensor([60.0, 30.0])
    torch.testing.assert_close(box, torch.cat([middle - half, middle + half]), rtol=0, atol=0.75)
    assert bool(((prepared.picture[0] > 0.5) == (prepared.mask > 0.5)).float().mean() > 0.98)


def test_template_of_a_box_and_of_a_whole_picture():
    image, box = marked((80, 60), (20, 10, 60, 50))
    boxed = prepare_template(TemplatePicture(image, box=box[0]), (48, 48), margin=0.1)
    assert (
        float(boxed.mask.sum()) == pytest.approx(40 * 40, rel=0.02) and float(boxed.picture[0, 24, 24]) > 0.8
    )
    whole = prepare_template(TemplatePicture(image), (48, 48))
    # what lies beside the picture is known not to be the object
    assert bool((whole.mask[6:42] > 0.99).all()) and bool((whole.mask[:5] == 0).all())


def test_templates_that_cannot_be_used():
    black = TemplatePicture(np.zeros((8, 8, 3), np.uint8))
    fine = TemplatePicture(np.full((8, 8, 3), 5, np.uint8))
    with pytest.raises(ValueError, match=r"templates\[1\]: template: .*all its pixels are black"):
        load_templates([fine, black], (16, 16))
    with pytest.raises(ValueError, match="expected at least one picture of the object, got none"):
        load_templates([], (16, 16))
    with pytest.raises(ValueError, match=r"templates\[0\]: expected a mask or box"):
        load_templates([fine], (16, 16), require_mask=True)
    far = TemplatePicture(fine.image, box=torch.tensor([20.0, 20, 30, 30], dtype=torch.float64))
    with pytest.raises(ValueError, match="within the template's picture"):
        load_templates([far], (16, 16))


def test_templates_of_a_folder(tmp_path):
    with pytest.raises(ValueError, match="expected pictures of the object, there are none"):
        load_templates(tmp_path, (16, 16))
    for name in ("b.png", "a.png"):
        write_image(tmp_path / name, np.full((8, 8, 3), 10 if name == "a.png" else 20, np.uint8))
    pictures, masks = load_templates(tmp_path, (16, 16))
    assert (pictures[:, 0, 8, 8] * 255).round().tolist() == [10, 20] and masks.shape == (2, 16, 16)
    assert torch.equal(load_templates(tmp_path / "b.png", (16, 16))[0][0], pictures[1])


@pytest.fixture
def folder(tmp_path):
    image, boxes = marked((160, 90), (10, 5, 30, 60))
    none = torch.zeros(0, 4, dtype=torch.float64)
    samples = [
        RefDetSample("mug_frame_1", "mug", boxes, image, (160, 90)),
        RefDetSample("mug_frame_2", "mug", none, np.ascontiguousarray(image.transpose(1, 0, 2)), (90, 160)),
        RefDetSample("can_frame_3", "can", boxes, image, (160, 90)),
    ]
    views = [TemplatePicture(np.full((20, 30, 3), 10 * k, np.uint8)) for k in range(1, 6)]
    write_refdet_folder(tmp_path, samples, {"mug": views, "can": views[:1]})
    return read_refdet_folder(tmp_path)


def test_samples_of_a_folder(folder):
    data = RefDetDataset(folder, search_size=(128, 64), template_size=(32, 48), num_templates=3)
    can, mug, absent = (data[index] for index in range(3))
    assert [item.object_id for item in (can, mug, absent)] == ["can", "mug", "mug"]
    assert mug.templates.shape == (3, 3, 48, 32) and can.templates.shape == (1, 3, 48, 32)
    assert (mug.templates[:, 0, 24, 16] * 255).round().tolist() == [10, 30, 50]  # spread over all five
    scale = 64 / 90
    left = (128 - 160 * scale) / 2 - 0.5
    expected = [left + 10 * scale, 5 * scale - 0.5, left + 30 * scale, 60 * scale - 0.5]
    torch.testing.assert_close(mug.boxes, torch.tensor([expected]), rtol=0, atol=1e-4)
    assert absent.boxes.shape == (0, 4)
    assert len(RefDetDataset(folder, num_templates=None)[1].templates) == 5
    with pytest.raises(ValueError, match="num_templates"):
        RefDetDataset(folder, num_templates=0)


def test_draws_of_templates_follow_seed_and_epoch(folder):
    data = RefDetDataset(folder, search_size=(64, 36), template_size=(16, 16), num_templates=2, shuffle=True)

    def draws(epoch):
        data.set_epoch(epoch)
        return data[1].templates

    assert torch.equal(draws(0), draws(0))
    assert len({tuple(draws(epoch)[:, 0, 8, 8].tolist()) for epoch in range(8)}) > 3
    assert torch.equal(pickle.loads(pickle.dumps(data))[1].templates, data[1].templates)


def test_batch(folder):
    data = RefDetDataset(folder, search_size=(128, 64), template_size=(32, 32))
    batch = collate([data[index] for index in range(3)])
    assert batch["search"].shape == (3, 3, 64, 128) and batch["templates"].shape == (3, 3, 3, 32, 32)
    assert batch["template_valid"].tolist() == [[True, False, False], [True] * 3, [True] * 3]
    assert not batch["templates"][0, 1:].any() and not batch["template_masks"][0, 1:].any()
    assert batch["present"].tolist() == [True, True, False] and [len(b) for b in batch["boxes"]] == [1, 1, 0]
    assert batch["search_from_image"].shape == (3, 2, 3) and batch["faults"] == []


def test_a_damaged_picture_is_named_and_the_rest_goes_on(folder):
    whole = folder.samples[0].image.read_bytes()
    folder.samples[0].image.write_bytes(whole[: len(whole) // 2])
    data = RefDetDataset(folder, search_size=(128, 64), template_size=(32, 32))
    fault = data[0]
    assert isinstance(fault, FileFault) and "can_frame_3.png" in fault.reason
    batch = collate([data[index] for index in range(3)])
    assert batch["names"] == ["mug_frame_1", "mug_frame_2"] and "can_frame_3.png" in batch["faults"][0]
    with pytest.raises(ValueError, match=r"at least one sample.*can_frame_3"):
        collate([fault])
    template = folder.templates["mug"][0]
    template.write_bytes(b"none")
    fault = RefDetDataset(folder, search_size=(128, 64), template_size=(32, 32))[1]
    assert isinstance(fault, FileFault) and fault.path == template and str(template) in fault.reason
