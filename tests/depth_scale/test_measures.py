"""The lengths of a mask: exact where they can be, doubled by doubling, differentiable."""

from __future__ import annotations

import math

import pytest
import torch

from sightline.depth_scale import hard_box_size, measure_scale
from sightline.depth_scale.measures import ScaleMeasure, touches_border

MEASURES = ScaleMeasure.__args__


def disc(radius: float, size: int = 64) -> torch.Tensor:
    place = torch.arange(size) - (size - 1) / 2
    return ((place[:, None] ** 2 + place**2) <= radius**2).float()


def rectangle(width: int, height: int, size: int = 32) -> torch.Tensor:
    mask = torch.zeros(size, size)
    mask[3 : 3 + height, 5 : 5 + width] = 1.0
    return mask


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        ("sqrt_area", math.sqrt(77)),
        ("bbox_height", 11),
        ("bbox_width", 7),
        ("diagonal", math.hypot(7, 11)),
        ("moment_height", 11),
        ("moment_width", 7),
        ("perimeter", 36),
    ],
)
def test_a_rectangle_is_exact(measure: str, expected: float) -> None:
    size = measure_scale(rectangle(7, 11), measure)
    assert size.shape == (1, 1, 1, 1)
    assert size.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("measure", MEASURES)
def test_doubling_the_resolution_doubles_the_length(measure: str) -> None:
    mask = disc(14.0)
    fine = mask.repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert measure_scale(fine, measure).item() == pytest.approx(
        2 * measure_scale(mask, measure).item(), rel=0.003
    )


@pytest.mark.parametrize("measure", MEASURES)
def test_cells_in_image_pixels(measure: str) -> None:
    mask = disc(9.0)
    in_pixels = measure_scale(mask, measure, cell=(8.0, 8.0))
    torch.testing.assert_close(in_pixels, 8 * measure_scale(mask, measure))


def test_height_does_not_mind_holes_and_area_does() -> None:
    whole, holed = rectangle(20, 20), rectangle(20, 20)
    holed[8:18, 9:20] = 0.0
    assert measure_scale(holed, "bbox_height") == measure_scale(whole, "bbox_height")
    assert measure_scale(holed, "sqrt_area") < 0.9 * measure_scale(whole, "sqrt_area")


def test_perimeter_closes_at_the_border() -> None:
    assert measure_scale(torch.ones(6, 9), "perimeter").item() == 30


def test_soft_area_counts_shares() -> None:
    assert measure_scale(torch.full((10, 10), 0.25), "sqrt_area").item() == pytest.approx(5.0)


def test_square_root_is_smooth_at_one_cell_and_ends_at_a_half() -> None:
    area = torch.tensor([0.0, 0.5, 1 - 1e-4, 1 + 1e-4], dtype=torch.float64)
    mask = torch.zeros(4, 3, 3, dtype=torch.float64)
    mask[:, 1, 1] = area
    mask.requires_grad_()
    size = measure_scale(mask).flatten()
    size.sum().backward()
    torch.testing.assert_close(size.detach()[:2], torch.tensor([0.5, 0.75], dtype=torch.float64))
    torch.testing.assert_close(
        mask.grad[:, 1, 1], torch.full((4,), 0.5, dtype=torch.float64), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("measure", MEASURES)
def test_gradcheck(measure: str) -> None:
    generator = torch.Generator().manual_seed(5)
    mask = torch.rand(2, 1, 4, 5, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: measure_scale(m, measure), mask)


def test_hard_box_is_for_logging() -> None:
    boxes = hard_box_size(torch.stack([rectangle(7, 11), torch.zeros(32, 32), 0.4 * rectangle(5, 5)]))
    assert boxes.tolist() == [[7, 11], [0, 0], [0, 0]]
    assert not boxes.requires_grad


def test_what_touches_the_border() -> None:
    cut = rectangle(7, 11).roll(-3, 0)
    faint = torch.maximum(rectangle(7, 11), 0.4 * cut)
    assert touches_border(torch.stack([cut, rectangle(7, 11), faint, cut.T])).tolist() == [
        True,
        False,
        False,
        True,
    ]


def test_unknown_measure() -> None:
    with pytest.raises(ValueError, match=r"scale_measure: expected one of sqrt_area, .* got 'volume'"):
        measure_scale(torch.ones(3, 3), "volume")
