"""The whole network: what goes in and out, what may not matter, what must, and its cost."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sightline.nn.fpn import FPN
from sightline.refdet.bank import TemplateBank
from sightline.refdet.decode import decode_maps
from sightline.refdet.head import DetectionHead
from sightline.refdet.losses import RefDetLoss
from sightline.refdet.model import (
    ConvNeXtRefDet,
    ConvNeXtTiny,
    build_convnext_refdet,
    count_parameters,
    describe,
    load_pretrained_convnext,
)
from sightline.refdet.second_look import look_again
from tests.tolerances import tolerance

NEAR = tolerance(torch.float32, "iterative")
SMALL = {"backbone": "nano", "template_scales": (1.0, 0.5), "descriptor_channels": 16}


def build(stride=8, **options):
    torch.manual_seed(0)
    model = ConvNeXtRefDet(16, 8, 16, detection_stride=stride, **{**SMALL, **options}).eval()
    for matcher in model.matchers.values():  # at first the head hardly listens to anything
        torch.nn.init.normal_(matcher.prototypes.projection.weight)
    for output in (model.head.objectness, model.head.box):
        torch.nn.init.normal_(output[-1].weight, std=0.3)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture
def pictures():
    generator = torch.Generator().manual_seed(1)
    return {
        "search": torch.rand(2, 3, 64, 96, generator=generator),
        "templates": torch.rand(2, 3, 3, 64, 64, generator=generator),
        "masks": (torch.rand(2, 3, 64, 64, generator=generator) > 0.4).float(),
    }


def same(a, b, **bounds):
    for x, y in zip((*a.objectness, *a.boxes), (*b.objectness, *b.boxes), strict=True):
        torch.testing.assert_close(x, y, **(bounds or NEAR))


# what goes in and out


@pytest.mark.parametrize("stride", [4, 8, 16, 32, (8, 16), (4, 8, 16)])
@pytest.mark.parametrize("size", [(64, 96), (96, 64), (57, 81)])
def test_maps_of_every_stride_and_size(stride, size):
    model = build(stride)
    maps = model.detect_maps(torch.rand(2, 3, *size), model.encode_templates(torch.rand(2, 3, 64, 64)))
    assert maps.image_size == (size[1], size[0])
    for s, logits, raw in zip(model.strides, maps.objectness, maps.boxes, strict=True):
        assert logits.shape == (2, 1, -(-size[0] // s), -(-size[1] // s))
        assert raw.shape == (2, 4, *logits.shape[-2:])
    found = decode_maps(maps)
    assert (found.boxes[..., 2] <= size[1] - 0.5).all()
    assert (found.boxes[..., 3] <= size[0] - 0.5).all()


def test_forms_of_templates(model, pictures):
    search, templates = pictures["search"], pictures["templates"]
    by_batch = model(templates, search)
    assert by_batch.objectness.shape == (2, 1, 8, 12)
    listed = model([templates[:, i] for i in range(3)], search)
    torch.testing.assert_close(listed.objectness, by_batch.objectness, **NEAR)
    shared = model(templates[0], search)
    torch.testing.assert_close(shared.bbox[:1], by_batch.bbox[:1], **NEAR)
    objectness, bbox = model(templates[:1], search)
    torch.testing.assert_close(objectness, shared.objectness, **NEAR)
    assert [len(p) for p in model.decode_predictions(objectness, bbox, 0.0, 2)] == [2, 2]


def test_several_levels_come_as_tuples(pictures):
    objectness, bbox = build((8, 16))(pictures["templates"], pictures["search"])
    assert [tuple(o.shape[-2:]) for o in objectness] == [(8, 12), (4, 6)]
    assert len(bbox) == 2


def test_first_scores_are_one_percent():
    torch.manual_seed(0)
    fresh = ConvNeXtRefDet(16, 8, 16, detection_stride=8, **SMALL).eval()
    with torch.no_grad():
        logits = fresh(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 96)).objectness
    assert logits.sigmoid().mean().item() == pytest.approx(0.01, rel=0.1)


# banks


def test_a_bank_serves_pictures_and_objects_in_every_combination(model, pictures):
    bank = model.encode_templates(pictures["templates"], pictures["masks"])
    pairs = model.detect_maps(pictures["search"], bank)
    for i in range(2):
        alone = model.detect_maps(pictures["search"][i : i + 1], bank.select([i]))
        torch.testing.assert_close(alone.objectness[0], pairs.objectness[0][i : i + 1], **NEAR)
        shared = model.detect_maps(pictures["search"], bank.select([i]))
        torch.testing.assert_close(shared.objectness[0][i], pairs.objectness[0][i], **NEAR)
        many = model.detect_maps(pictures["search"][i : i + 1], bank)
        torch.testing.assert_close(many.boxes[0][i], pairs.boxes[0][i], **NEAR)
    with pytest.raises(ValueError, match="2 objects does not go with 3 pictures"):
        model.detect_maps(torch.rand(3, 3, 64, 64), bank)


def test_a_stored_bank_gives_the_same_bits(model, pictures, tmp_path):
    from safetensors.torch import load_file, save_file

    bank = model.encode_templates(pictures["templates"], pictures["masks"])
    save_file({k: v.contiguous() for k, v in bank.to_tensors().items()}, tmp_path / "bank.safetensors")
    again = TemplateBank.from_tensors(load_file(tmp_path / "bank.safetensors"))
    a, b = (model.detect_maps(pictures["search"], x) for x in (bank, again))
    same(a, b, rtol=0, atol=0)


def test_joined_banks_equal_their_parts(model, pictures):
    parts = [model.encode_templates(pictures["templates"][i, :n]) for i, n in ((0, 3), (1, 1))]
    joined = TemplateBank.concatenate(parts)
    assert (joined.num_objects, joined.num_templates) == (2, 3)
    maps = model.detect_maps(pictures["search"], joined)
    for i, part in enumerate(parts):
        alone = model.detect_maps(pictures["search"][i : i + 1], part)
        torch.testing.assert_close(maps.objectness[0][i : i + 1], alone.objectness[0], **NEAR)


def test_foreign_banks_are_refused(model, pictures):
    bank = model.encode_templates(pictures["templates"])
    tensors = bank.to_tensors()
    with pytest.raises(ValueError, match=r"level8\.kernel"):
        TemplateBank.from_tensors({k: v for k, v in tensors.items() if k != "level8.kernel"})
    with pytest.raises(ValueError, match="extra"):
        TemplateBank.from_tensors({**tensors, "extra": torch.zeros(1)})
    other = build(kernel_size=5).encode_templates(pictures["templates"])
    with pytest.raises(ValueError, match="different models"):
        TemplateBank.concatenate([bank, other])
    with pytest.raises(ValueError, match="no template banks"):
        TemplateBank.concatenate([])
    assert bank.to(torch.float64).levels[8].kernel.dtype == torch.float64
    assert bank.to(torch.float64).part_valid.dtype == torch.bool


# what may not matter


@pytest.mark.parametrize("fusion", ["attention", "average"])
@pytest.mark.parametrize("count", [1, 3, 16])
def test_order_and_number_of_templates_do_not_matter(fusion, count):
    model = build(template_fusion=fusion)
    templates, search = torch.rand(count, 3, 64, 64), torch.rand(1, 3, 64, 64)
    maps = model.detect_maps(search, model.encode_templates(templates))
    same(model.detect_maps(search, model.encode_templates(templates[torch.randperm(count)])), maps)
    same(model.detect_maps(search, model.encode_templates(templates.repeat(2, 1, 1, 1))), maps)
    padded = torch.cat([templates, torch.zeros(2, 3, 64, 64)])
    valid = torch.arange(count + 2) < count
    same(model.detect_maps(search, model.encode_templates(padded, valid=valid)), maps)


def test_background_of_templates_does_not_matter(model, pictures):
    templates, masks = pictures["templates"], pictures["masks"]
    spoilt = torch.where(masks[:, :, None] > 0, templates, torch.rand_like(templates))
    same(
        model.detect_maps(pictures["search"], model.encode_templates(spoilt, masks)),
        model.detect_maps(pictures["search"], model.encode_templates(templates, masks)),
        rtol=0,
        atol=0,
    )


def test_the_rest_of_the_batch_does_not_matter(model, pictures):
    bank = model.encode_templates(pictures["templates"])
    whole = model.detect_maps(pictures["search"], bank)
    other = pictures["search"].clone()
    other[1] = torch.rand(3, 64, 96)
    torch.testing.assert_close(
        model.detect_maps(other, bank).objectness[0][:1], whole.objectness[0][:1], **NEAR
    )


def test_templates_of_odd_sizes(model):
    bank = model.encode_templates(torch.rand(2, 3, 75, 50))
    assert model.detect_maps(torch.rand(1, 3, 64, 64), bank).objectness[0].isfinite().all()


# what must matter


def test_templates_move_the_scores_as_much_as_the_picture_does(model, pictures):
    search = pictures["search"][:1]
    banks = [model.encode_templates(torch.rand(2, 3, 64, 64) * c) for c in torch.eye(3)[:, :, None, None]]
    logits = torch.cat([model.detect_maps(search, bank).objectness[0] for bank in banks])
    by_template = logits.std(0).mean()
    by_place = logits.std((-2, -1)).mean()
    assert by_template > 0.3 * by_place


def test_every_parameter_learns():
    torch.manual_seed(0)
    for stride in (4, (8, 16)):
        model = ConvNeXtRefDet(16, 8, 16, detection_stride=stride, refine_boxes=True, **SMALL)
        for parameter in model.parameters():
            parameter.data += 0.02 * torch.randn_like(parameter)
        bank = model.encode_templates(torch.rand(2, 3, 3, 64, 64))
        maps = model.detect_maps(torch.rand(2, 3, 64, 96), bank)
        loss = RefDetLoss()(maps, [torch.tensor([[4.0, 4.0, 40.0, 40.0]]), torch.zeros(0, 4)])["loss"]
        looked = look_again(model, torch.rand(1, 3, 64, 64), bank)
        (loss + looked.evidence.square().sum() + looked.edges.sum()).backward()
        assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_frozen_backbone_does_not_learn():
    model = ConvNeXtRefDet(16, 8, 16, **SMALL)
    all_of_it = count_parameters(model, trainable_only=True)
    model.freeze_backbone()
    assert count_parameters(model, trainable_only=True) == all_of_it - count_parameters(model.backbone)
    model.freeze_backbone(False)
    assert count_parameters(model, trainable_only=True) == all_of_it == count_parameters(model)


# bad input


@pytest.mark.parametrize(
    ("templates", "options", "message"),
    [
        (torch.zeros(0, 3, 32, 32), {}, "n >= 1"),
        (torch.rand(3, 32, 32), {}, r"got \(3, 32, 32\)"),
        (
            torch.cat([torch.rand(1, 3, 32, 32), torch.zeros(1, 3, 32, 32)]),
            {},
            "template 1 of object 0 is all zero",
        ),
        (torch.rand(1, 3, 32, 32), {"masks": torch.zeros(1, 32, 32)}, "empty mask"),
        (torch.rand(1, 3, 32, 32), {"valid": torch.tensor([False])}, "no valid template"),
    ],
)
def test_templates_without_anything_are_refused(model, templates, options, message):
    with pytest.raises((ValueError, TypeError), match=message if templates.ndim == 4 else None):
        model.encode_templates(templates, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"detection_stride": 6}, "detection_stride"),
        ({"detection_stride": (16, 8)}, "rising"),
        ({"template_scales": ()}, "template_scales"),
        ({"template_fusion": "max"}, "attention or average"),
        ({"backbone": "huge"}, "tiny, small, base, nano"),
        ({"kernel_size": 4}, "odd"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ConvNeXtRefDet(16, 8, 16, **{**SMALL, **options})


# parts, construction


def test_fpn_builds_what_is_read():
    maps = [
        torch.rand(1, c, -(-50 // s), -(-70 // s))
        for c, s in zip((8, 16, 24, 32), (4, 8, 16, 32), strict=True)
    ]
    fpn = FPN((8, 16, 24, 32), 12, strides=(8, 16))
    levels = fpn(maps)
    assert [tuple(level.shape) for level in levels] == [
        (1, 12, *maps[1].shape[-2:]),
        (1, 12, *maps[2].shape[-2:]),
    ]
    sum(level.sum() for level in levels).backward()
    assert all(p.grad is not None for p in fpn.parameters())
    assert [tuple(level.shape[1:2]) for level in FPN((8, 16, 24, 32), 12)(maps)] == [(12,)] * 4
    with pytest.raises(ValueError, match="strides"):
        FPN(strides=(2,))


@pytest.mark.parametrize("separable", [True, False])
def test_head_options(separable):
    head = DetectionHead(16, 24, num_convs=2, dropout=0.5, separable=separable)
    x = torch.rand(2, 16, 6, 6)
    assert not torch.equal(head(x)[1], head(x)[1])
    head.eval()
    assert torch.equal(head(x)[1], head(x)[1])
    assert count_parameters(DetectionHead(16, 24, num_convs=6)) > count_parameters(DetectionHead(16, 24))
    assert [m.shape[1] for m in DetectionHead(16, num_convs=0)(x)] == [1, 4]


def test_config_builds_the_same_model(model):
    again = ConvNeXtRefDet(**model.config)
    assert again.config == model.config
    again.load_state_dict(model.state_dict())


def test_description_names_the_parts(model):
    text = describe(model)
    assert all(name in text for name in ("backbone", "fpn", "matchers", "head", "total"))


def test_pretrained_backbone_from_a_folder(tmp_path):
    from transformers import ConvNextConfig, ConvNextModel

    published = ConvNextModel(ConvNextConfig())
    published.save_pretrained(tmp_path)
    model = build_convnext_refdet(16, 8, 16, pretrained_backbone=tmp_path)
    own = model.backbone.state_dict()["stages.2.layers.8.pwconv2.weight"]
    assert torch.equal(own, published.state_dict()["encoder.stages.2.layers.8.pwconv2.weight"])
    with pytest.raises(ValueError, match="missing"):
        load_pretrained_convnext(model, {"stem.0.weight": torch.zeros(96, 3, 4, 4)})


# cost


def cost_of(**options):
    """GFLOP of a picture of 576x1024 with a cached bank"""
    model = ConvNeXtRefDet(**options).eval().to("meta")
    bank = model.encode_templates(torch.empty(1, 3, 3, 256, 256, device="meta"))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.detect_maps(torch.empty(1, 3, 576, 1024, device="meta"), bank)
    return counter.get_total_flops() / 1e9


def test_cost_of_a_frame():
    assert ConvNeXtTiny().channels == (96, 192, 384, 768)
    assert cost_of(fpn_channels=128, det_channels=128) <= 160
    assert cost_of() <= 300
    assert cost_of(fpn_channels=64, corr_channels=32, det_channels=64, backbone="nano") <= 25
