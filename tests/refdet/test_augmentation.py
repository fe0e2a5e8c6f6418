from __future__ import annotations

import pytest
import torch

from sightline.geometry import pixel_affine
from sightline.geometry.boxes import area, boxes_from_masks, clip
from sightline.refdet.augmentation import Appearance, AugmentationSettings, RefDetAugmentation
from sightline.refdet.data import RefDetItem, collate
from sightline.refdet.framing import transform_boxes

WIDE = (96, 64)
SAME = Appearance(color_share=0.0, blur_share=0.0, jpeg_share=0.0, noise_share=0.0)


def item(name, box=(30, 16, 60, 40), num_templates=2):
    """A dark picture with a bright rectangle; templates are bright on their left side."""
    x1, y1, x2, y2 = box
    search = torch.full((3, WIDE[1], WIDE[0]), 0.05)
    search[:, y1:y2, x1:x2] = 0.95
    templates = torch.zeros(num_templates, 3, 32, 32)
    templates[..., :16] = 0.9
    masks = torch.zeros(num_templates, 32, 32)
    masks[..., :16] = 1.0
    boxes = torch.tensor([box], dtype=torch.float32) - 0.5
    affine = torch.tensor([[2.0, 0, 0.5], [0, 2.0, 0.5]], dtype=torch.float64)
    return RefDetItem(name, "mug", search, templates, masks, boxes, affine)


def settings(**changes):
    return AugmentationSettings(**({"search": SAME, "templates": SAME, "template_turn": 0.0} | changes))


def test_boxes_move_as_the_picture_does():
    batch = collate([item(str(k), (20 + k, 16, 70 - k, 40)) for k in range(12)])
    out = RefDetAugmentation(settings(move_share=1.0))(batch, epoch=0, indices=list(range(12)))
    moved = 0
    for picture, box, before in zip(out["search"], out["boxes"], batch["boxes"], strict=True):
        seen = boxes_from_masks(picture.amin(0) > 0.7)
        torch.testing.assert_close(seen, clip(box, WIDE)[0], rtol=0, atol=1.0)
        moved += not torch.allclose(box, before, atol=1.5)
    assert moved >= 10
    assert out["search"].shape == batch["search"].shape and out["search"].dtype == torch.float32


def test_the_affine_to_the_file_s_picture_goes_along():
    batch = collate([item(str(k)) for k in range(6)])
    in_image = transform_boxes(batch["boxes"][0].double(), pixel_affine.invert(batch["search_from_image"][0]))
    out = RefDetAugmentation(settings(move_share=1.0))(batch, epoch=1, indices=list(range(6)))
    for affine, boxes in zip(out["search_from_image"], out["boxes"], strict=True):
        torch.testing.assert_close(clip(transform_boxes(in_image, affine), WIDE).float(), boxes)


def test_a_mirror_takes_the_templates_with_it():
    batch = collate([item("a"), item("b", num_templates=1)])
    out = RefDetAugmentation(settings(flip_share=1.0, move_share=0.0))(batch, epoch=0, indices=[0, 1])
    torch.testing.assert_close(out["search"], batch["search"].flip(-1), atol=1e-5, rtol=0)
    valid = batch["template_valid"]
    torch.testing.assert_close(out["templates"][valid], batch["templates"][valid].flip(-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        out["template_masks"][valid], batch["template_masks"][valid].flip(-1), atol=1e-5, rtol=0
    )
    assert not out["templates"][~valid].any()
    assert out["boxes"][0].tolist() == [[WIDE[0] - 60 - 0.5, 15.5, WIDE[0] - 30 - 0.5, 39.5]]


def test_without_changes_nothing_changes():
    batch = collate([item("a")])
    out = RefDetAugmentation(settings(flip_share=0.0, move_share=0.0))(batch, epoch=0, indices=[0])
    for key in ("search", "templates", "template_masks"):
        assert torch.equal(out[key], batch[key])
    assert torch.equal(out["boxes"][0], batch["boxes"][0])


def test_a_sample_is_the_same_in_any_batch():
    augment = RefDetAugmentation(AugmentationSettings(), seed=3)
    items = [item(str(k), num_templates=1 + k % 3) for k in range(6)]
    together = augment(collate(items), epoch=2, indices=[5, 6, 7, 8, 9, 10])
    alone = augment(collate([items[3]]), epoch=2, indices=[8])
    torch.testing.assert_close(together["search"][3], alone["search"][0], atol=1e-5, rtol=0)
    assert torch.equal(together["boxes"][3], alone["boxes"][0])
    torch.testing.assert_close(together["templates"][3, :1], alone["templates"][0], atol=1e-5, rtol=0)
    again = augment(collate(items), epoch=2, indices=[5, 6, 7, 8, 9, 10])
    assert torch.equal(again["search"], together["search"])
    for other in (
        augment(collate(items), epoch=3, indices=[5, 6, 7, 8, 9, 10]),
        RefDetAugmentation(seed=4)(collate(items), epoch=2, indices=[5, 6, 7, 8, 9, 10]),
    ):
        assert not torch.allclose(other["search"], together["search"])


def test_no_box_is_lost():
    """At the picture's rim a move would push boxes out; those samples keep their place."""
    batch = collate([item(str(k), (0, 0, 8, 6)) for k in range(40)])
    out = RefDetAugmentation(settings(move_share=1.0, flip_share=0.0, min_visible=0.6))(
        batch, epoch=0, indices=list(range(40))
    )
    kept = [torch.equal(box, batch["boxes"][0]) for box in out["boxes"]]
    assert 5 < sum(kept) < 35
    for box, affine in zip(out["boxes"], out["search_from_image"], strict=True):
        move = pixel_affine.compose(affine, pixel_affine.invert(batch["search_from_image"][0]))
        whole = transform_boxes(batch["boxes"][0].double(), move)
        assert float(area(box[0]) / area(whole[0])) >= 0.6 - 1e-5
    assert out["present"].all()


def test_looks_change_within_their_limits():
    one = {"flip_share": 0.0, "move_share": 0.0}
    batch = collate([item(str(k)) for k in range(8)])
    for look in (
        Appearance(1.0, 0.3, 0.3, 0.3, 0.05, 0.0, jpeg_share=0.0, noise_share=0.0),
        Appearance(0.0, blur_share=1.0, jpeg_share=0.0, noise_share=0.0),
        Appearance(0.0, blur_share=0.0, jpeg_share=1.0, jpeg_quality=(20.0, 30.0), noise_share=0.0),
        Appearance(0.0, blur_share=0.0, jpeg_share=0.0, noise_share=1.0),
    ):
        out = RefDetAugmentation(settings(**one, search=look))(batch, epoch=0, indices=list(range(8)))
        change = (out["search"] - batch["search"]).abs().flatten(1).amax(1)
        assert bool((change > 0.003).all()) and bool(out["search"].isfinite().all())
        assert float(out["search"].min()) >= 0 and float(out["search"].max()) <= 1
        assert torch.equal(out["templates"], batch["templates"])


def test_an_absent_object_stays_absent():
    absent = item("a")._replace(boxes=torch.zeros(0, 4))
    out = RefDetAugmentation()(collate([absent]), epoch=0, indices=[0])
    assert out["boxes"][0].shape == (0, 4) and not out["present"].any()


def test_indices_must_fit():
    with pytest.raises(ValueError, match="indices: expected one for each of 1 samples, got 2"):
        RefDetAugmentation()(collate([item("a")]), epoch=0, indices=[0, 1])
