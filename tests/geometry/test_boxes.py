"""Boxes: forms, the IoU family against closed forms and its gradients, boxes of masks and points."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.geometry import boxes as bx
from tests.tolerances import tolerance

EXACT = tolerance(torch.float64)
MEASURES = pytest.mark.parametrize("measure", [bx.iou, bx.giou, bx.diou, bx.ciou])
seeds = st.integers(0, 2**31 - 1)


def box(*numbers, dtype=torch.float64):
    return torch.tensor(numbers, dtype=dtype)


def random_boxes(count, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    center, size = torch.rand(2, count, 2, generator=generator, dtype=dtype)
    return bx.xyxy_from_cxcywh(torch.cat([center, 0.1 + size], dim=-1))


# --- forms


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_forms_and_their_inverses(seed):
    xyxy = 100 * random_boxes(20, seed) - 30
    for there, back in [
        (bx.cxcywh_from_xyxy, bx.xyxy_from_cxcywh),
        (bx.xywh_from_xyxy, bx.xyxy_from_xywh),
        (lambda b: bx.normalize(b, (64, 48)), lambda b: bx.denormalize(b, (64, 48))),
    ]:
        torch.testing.assert_close(back(there(xyxy)), xyxy, **EXACT)


def test_forms_written_out():
    xyxy = box(4, 1, 6, 7)
    assert bx.cxcywh_from_xyxy(xyxy).tolist() == [5, 4, 2, 6]
    assert bx.xywh_from_xyxy(xyxy).tolist() == [4, 1, 2, 6]
    assert bx.area(xyxy).item() == 12
    assert bx.area(box(6, 1, 4, 7)).item() == 0


def test_a_picture_runs_from_minus_half_to_size_minus_half():
    whole = box(-0.5, -0.5, 63.5, 47.5)
    assert bx.normalize(whole, (64, 48)).tolist() == [0, 0, 1, 1]
    assert bx.clip(box(-9, -9, 99, 99), (64, 48)).tolist() == whole.tolist()
    assert bx.boxes_from_masks(torch.ones(48, 64, dtype=torch.bool)).tolist() == whole.tolist()


def test_clip():
    inside = box(3, 4, 5, 6)
    assert torch.equal(bx.clip(inside, (64, 48)), inside)
    outside = bx.clip(box(100, 5, 120, 9), (64, 48))
    assert outside.tolist() == [63.5, 5, 63.5, 9]
    assert bx.area(outside) == 0


def test_one_image_size_a_picture():
    sizes = torch.tensor([[64, 48], [10, 20]])
    xyxy = torch.stack([box(-0.5, -0.5, 63.5, 47.5), box(-0.5, -0.5, 9.5, 19.5)])
    assert bx.normalize(xyxy, sizes).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]
    grid = xyxy[:, None].expand(2, 5, 4)
    assert torch.equal(bx.clip(grid * 3, sizes[:, None]), grid.clamp_min(-0.5))


# --- overlaps


def test_literals():
    unit, apart = box(0, 0, 1, 1), box(2, 0, 3, 1)
    left, right = box(0, 0, 2, 1), box(1, 0, 3, 1)
    assert bx.giou(unit, apart).item() == pytest.approx(-1 / 3, abs=1e-15)
    assert bx.giou(left, right).item() == pytest.approx(1 / 3, abs=1e-15)
    assert bx.iou(left, right).item() == pytest.approx(1 / 3, abs=1e-15)
    assert bx.iou(unit, apart).item() == 0
    assert bx.diou(unit, apart).item() == pytest.approx(-4 / 10, abs=1e-15)
    assert bx.diou(left, right).item() == pytest.approx(1 / 3 - 1 / 10, abs=1e-15)
    # equal aspect ratios: nothing to add
    assert bx.ciou(left, right).item() == pytest.approx(1 / 3 - 1 / 10, abs=1e-15)
    # concentric 4x2 and 2x4: IoU 4/12, no distance, v of the two aspects
    wide, tall = box(-2, -1, 2, 1), box(-1, -2, 1, 2)
    v = 4 / math.pi**2 * (math.atan(2) - math.atan(0.5)) ** 2
    assert bx.ciou(wide, tall).item() == pytest.approx(1 / 3 - v * v / (2 / 3 + v), abs=1e-15)


@MEASURES
@settings(max_examples=20, deadline=None)
@given(seed=seeds, scale=st.floats(1e-3, 1e3), dx=st.floats(-100, 100), dy=st.floats(-100, 100))
def test_symmetric_bounded_and_blind_to_shift_and_scale(measure, seed, scale, dx, dy):
    a, b = random_boxes(40, seed).split(20)
    value = measure(a, b)
    torch.testing.assert_close(measure(b, a), value, **EXACT)
    assert (value <= bx.iou(a, b) + 1e-15).all()
    assert (value > (0 if measure is bx.iou else -1) - 1e-15).all()
    shift = torch.tensor([dx, dy, dx, dy], dtype=torch.float64)
    moved = measure(scale * a + shift, scale * b + shift)
    torch.testing.assert_close(moved, value, rtol=0, atol=1e-9 + 1e-12 * (abs(dx) + abs(dy)) / scale)
    torch.testing.assert_close(measure(a, a), torch.ones(20).double(), **EXACT)
    mirrored_a, mirrored_b = ((c * torch.tensor([-1, 1, -1, 1]))[:, [2, 1, 0, 3]] for c in (a, b))
    flipped = measure(mirrored_a, mirrored_b)
    torch.testing.assert_close(flipped, value, **EXACT)


def test_iou_counts_pixels():
    generator = torch.Generator().manual_seed(0)
    corners = torch.randint(0, 20, (50, 2, 2, 2), generator=generator).sort(dim=-2).values
    a, b = corners.double().flatten(-2).unbind(1)
    centers = torch.cartesian_prod(torch.arange(20) + 0.5, torch.arange(20) + 0.5)
    inside = [((centers > c[:, None, :2]) & (centers < c[:, None, 2:])).all(-1) for c in (a, b)]
    both, either = (inside[0] & inside[1]).sum(1), (inside[0] | inside[1]).sum(1)
    torch.testing.assert_close(bx.iou(a, b), both / either.clamp_min(1).double(), **EXACT)


@MEASURES
def test_pairs_are_the_same_numbers(measure):
    a, b = random_boxes(7, 1), random_boxes(5, 2)
    table = bx.pairwise(measure, a, b)
    assert table.shape == (7, 5)
    torch.testing.assert_close(table[3], measure(a[3], b), **EXACT)
    stacked = bx.pairwise(measure, torch.stack([a, a.flip(0)]), b)
    torch.testing.assert_close(stacked[1], table.flip(0), **EXACT)
    if measure is bx.iou:
        assert torch.equal(bx.iou_matrix(a, b), table)


@pytest.mark.parametrize("measure", [bx.iou, bx.giou, bx.diou])
def test_gradcheck(measure):
    a, b = random_boxes(6, 3).requires_grad_(), random_boxes(6, 4).requires_grad_()
    assert torch.autograd.gradcheck(measure, (a, b))


def test_gradient_of_ciou_holds_alpha_but_not_v():
    a, b = random_boxes(8, 5).requires_grad_(), random_boxes(8, 6).requires_grad_()
    width = lambda c: c[:, 2] - c[:, 0]  # noqa: E731
    height = lambda c: c[:, 3] - c[:, 1]  # noqa: E731
    gap = lambda a, b: torch.atan(width(a) / height(a)) - torch.atan(width(b) / height(b))  # noqa: E731
    v = 4 / math.pi**2 * gap(a, b) ** 2
    alpha = (v / (1 - bx.iou(a, b) + v)).detach()
    with_constant_alpha = lambda a, b: bx.diou(a, b) - alpha * 4 / math.pi**2 * gap(a, b) ** 2  # noqa: E731
    assert torch.autograd.gradcheck(with_constant_alpha, (a, b))
    expected = torch.autograd.grad(with_constant_alpha(a, b).sum(), (a, b))
    got = torch.autograd.grad(bx.ciou(a, b).sum(), (a, b))
    torch.testing.assert_close(got, expected, **EXACT)
    plain = torch.autograd.grad(bx.diou(a, b).sum(), (a, b))
    assert (got[0] - plain[0]).abs().amax(-1).min() > 1e-6  # never merely DIoU's
    # closed form of the paper for the width: dv/dw = 8 / pi^2 (gap) h / (w^2 + h^2), applied to x2
    w, h = width(a), height(a)
    dv_dw = 8 / math.pi**2 * gap(a, b) * h / (w**2 + h**2)
    torch.testing.assert_close((got[0] - plain[0])[:, 2], -alpha * dv_dw.detach(), **EXACT)


DEGENERATE = {
    "point on itself": ((1, 1, 1, 1), (1, 1, 1, 1)),
    "two points": ((1, 1, 1, 1), (2, 3, 2, 3)),
    "point in a box": ((1, 1, 1, 1), (0, 0, 2, 2)),
    "line on itself": ((0, 0, 2, 0), (0, 0, 2, 0)),
    "upright line and box": ((0, 0, 0, 2), (0, 0, 1, 1)),
    "identical": ((0, 0, 3, 2), (0, 0, 3, 2)),
    "touching": ((0, 0, 1, 1), (1, 0, 2, 1)),
    "swapped corners": ((2, 2, 1, 1), (0, 0, 3, 3)),
    "tiny": ((0, 0, 1e-18, 1e-25), (0, 0, 1e-22, 1e-20)),
    "denormal": ((0, 0, 1e-40, 1e-42), (0, 0, 1e-41, 1e-40)),
    "huge": ((0, 0, 1e15, 1e15), (5e14, 0, 1e15, 1e14)),
}


@MEASURES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_boxes_have_finite_values_and_gradients(name, dtype, measure):
    a, b = (box(*map(float, numbers), dtype=dtype).requires_grad_() for numbers in DEGENERATE[name])
    value = measure(a, b)
    value.backward()
    assert value.isfinite()
    assert value <= 1
    assert a.grad.isfinite().all()
    assert b.grad.isfinite().all()


# --- boxes of masks and of points


def test_boxes_from_masks():
    masks = torch.zeros(2, 2, 6, 9, dtype=torch.bool)
    masks[0, 0, 1:3, 3:6] = True
    masks[0, 1, 5, 8] = True
    masks[1, 0, [0, 4], [7, 2]] = True
    boxes = bx.boxes_from_masks(masks)
    assert boxes[0].tolist() == [[2.5, 0.5, 5.5, 2.5], [7.5, 4.5, 8.5, 5.5]]
    assert boxes[1, 0].tolist() == [1.5, -0.5, 7.5, 4.5]
    assert boxes[1, 1].isnan().all()
    assert bx.area(boxes[0, 0]) == masks[0, 0].sum()


def test_boxes_from_points():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(4, 30, 2, generator=generator, dtype=torch.float64)
    points[1, 3, 0] = math.nan
    points[1, 4, 1] = math.inf
    valid = torch.ones(4, 30, dtype=torch.bool)
    valid[2, 10:] = False
    valid[3] = False
    boxes = bx.boxes_from_points(points, valid)
    assert boxes[0].tolist() == [*points[0].amin(0).tolist(), *points[0].amax(0).tolist()]
    finite = torch.cat([points[1, :3], points[1, 5:]])
    assert boxes[1].tolist() == [*finite.amin(0).tolist(), *finite.amax(0).tolist()]
    assert torch.equal(boxes[2], bx.boxes_from_points(points[2, :10]))
    assert boxes[3].isnan().all()
    free = points[0].clone().requires_grad_()
    assert torch.autograd.gradcheck(bx.boxes_from_points, free)
