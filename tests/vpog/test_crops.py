from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sightline.geometry import pixel_affine
from sightline.vpog.crops import box_affines, cut_crops, even_turns


def ramp(height: int = 90, width: int = 120) -> np.ndarray:
    """A picture whose red is its x and whose green is its y."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([2 * columns, 2 * rows, np.full_like(rows, 255)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("side", [70.0, 30.0])  # shrunk by averaging, and enlarged
@pytest.mark.parametrize("turn", [0.0, 0.7, -2.0])
def test_a_crop_shows_what_its_affine_says(side, turn):
    box = torch.tensor([60 - side / 2, 45 - side / 4, 60 + side / 2, 45 + side / 4])
    affine = box_affines(box, 32, torch.tensor([turn]), fill=0.8)
    crop = cut_crops(ramp(), affine, 32).pictures[0]
    for x, y in ((16, 16), (10, 20), (22, 13)):
        there = pixel_affine.apply(pixel_affine.invert(affine[0]), torch.tensor([[x, y]]).double())[0]
        seen = crop[:2, y, x].double() * 255 / 2
        assert torch.allclose(seen, there, atol=0.6)


def test_the_box_fills_its_share_at_every_turn_of_a_quarter():
    box = torch.tensor([30.0, 20.0, 90.0, 50.0])
    affines = box_affines(box, 64, even_turns(4), fill=0.75)
    corners = box.double()[[0, 1, 2, 1, 2, 3, 0, 3]].view(4, 2)
    for number, affine in enumerate(affines):
        there = pixel_affine.apply(affine, corners)
        extent = there.amax(0) - there.amin(0)
        assert torch.allclose(extent[number % 2], torch.tensor(48.0).double())
        assert torch.allclose((there.amax(0) + there.amin(0)) / 2, torch.tensor([31.5, 31.5]).double())


def test_beyond_the_picture_is_black_and_within_is_not():
    crops = cut_crops(
        ramp(), box_affines(torch.tensor([-40.0, 20, 20, 80]), 48, torch.zeros(1), fill=1.0), 48
    )
    assert float(crops.pictures[0, 2, :, :31].max()) == 0
    assert float(crops.pictures[0, 2, :, 33:].min()) > 0.99


def test_a_crop_outside_is_none():
    affine = box_affines(torch.tensor([400.0, 20, 460, 80]), 48, even_turns(8))
    assert cut_crops(ramp(), affine, 48) is None


def test_turns_go_all_around():
    assert torch.allclose(even_turns(8).diff(), torch.full((7,), math.pi / 4, dtype=torch.float64))
