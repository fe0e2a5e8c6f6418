"""Two laws of a reference detector, learned: it finds what its templates show, and only that."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sightline.geometry.boxes import iou_matrix
from sightline.refdet.contrast import contrast_loss
from sightline.refdet.decode import decode_maps
from sightline.refdet.losses import RefDetLoss
from sightline.refdet.model import ConvNeXtRefDet


def scene(generator, textures, size=(96, 128)):
    """A blurred background with two textured squares, one in either half."""
    picture = (
        0.2 + 0.6 * F.interpolate(torch.rand(1, 3, 12, 16, generator=generator), size, mode="bilinear")[0]
    )
    boxes = []
    for half, texture in enumerate(textures):
        side, x, y = (int(torch.randint(*r, (1,), generator=generator)) for r in ((20, 52), (0, 12), (0, 44)))
        x += half * size[1] // 2
        picture[:, y : y + side, x : x + side] = F.interpolate(texture[None], (side, side), mode="area")[0]
        boxes.append(torch.tensor([[x - 0.5, y - 0.5, x + side - 0.5, y + side - 0.5]]))
    return picture, boxes


@pytest.fixture(scope="module")
def composites():
    """Eight samples: four scenes of two objects, each looked for once."""
    generator = torch.Generator().manual_seed(0)
    search, templates, others, boxes = [], [], [], []
    for _ in range(4):
        pair = [F.interpolate(torch.rand(1, 3, 6, 6, generator=generator), (64, 64))[0] for _ in range(2)]
        picture, places = scene(generator, pair)
        for i in range(2):
            search.append(picture)
            templates.append(pair[i])
            others.append(pair[1 - i])
            boxes.append(places[i])
    return torch.stack(search), torch.stack(templates)[:, None], torch.stack(others)[:, None], boxes


@torch.no_grad()
def overlaps(model, search, templates, boxes):
    """The IoU of each picture's best detection, and its score."""
    model.eval()
    found = decode_maps(model.detect_maps(search, model.encode_templates(templates)), max_detections=1)
    model.train()
    ious = [iou_matrix(found.boxes[i], box)[0, 0] for i, box in enumerate(boxes)]
    return torch.stack(ious), found.scores[:, 0]


@pytest.fixture(scope="module")
def learned(composites):
    search, templates, _, boxes = composites
    torch.manual_seed(0)
    model = ConvNeXtRefDet(
        32, 16, 32, backbone="nano", detection_stride=8, template_scales=(1.0, 0.5), descriptor_channels=32
    )
    criterion, steps = RefDetLoss(), 240
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    for step in range(1, steps + 1):
        features, bank = model.search_features(search), model.encode_templates(templates)
        loss = criterion(model.match(features, bank), boxes)["loss"]
        loss = loss + contrast_loss(model, features, bank, boxes)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        if step % 40 == 0 and overlaps(model, search, templates, boxes)[0].min() > 0.92:
            break
    return model


def test_composites_are_learned(learned, composites):
    search, templates, _, boxes = composites
    ious, scores = overlaps(learned, search, templates, boxes)
    assert ious.min() > 0.9
    assert scores.min() > 0.3


def test_other_templates_do_not_find_the_object(learned, composites):
    search, _, others, boxes = composites
    ious, _ = overlaps(learned, search, others, boxes)
    assert (ious > 0.5).float().mean() < 0.1


def test_other_templates_find_the_other_object(learned, composites):
    search, _, others, boxes = composites
    swapped = [boxes[i ^ 1] for i in range(len(boxes))]
    assert overlaps(learned, search, others, swapped)[0].min() > 0.9


def test_contrast_is_least_for_the_own_template(learned, composites):
    search, templates, others, boxes = composites
    with torch.no_grad():
        features = learned.search_features(search)
        own, other = (
            contrast_loss(learned, features, learned.encode_templates(t), boxes) for t in (templates, others)
        )
        nothing = contrast_loss(
            learned, features, learned.encode_templates(templates), [b[:0] for b in boxes]
        )
    assert own < 0.5 * other
    assert nothing == 0
