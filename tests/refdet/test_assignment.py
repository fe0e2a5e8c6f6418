"""Which cells answer for which box."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.refdet.assignment import assign_boxes
from sightline.refdet.decode import RefDetMaps, cell_centers, encode_boxes


def maps_of(sizes, strides, batch=1):
    return RefDetMaps(
        tuple(torch.zeros(batch, 1, *s) for s in sizes),
        tuple(torch.zeros(batch, 4, *s) for s in sizes),
        tuple(strides),
        (sizes[0][1] * strides[0], sizes[0][0] * strides[0]),
    )


def assigned(boxes, sizes, strides, **options):
    """For each picture, ``{cell: number of the box}``."""
    pairs = assign_boxes(boxes, sizes, strides, **options)
    rows = []
    for cells, positive, numbers in zip(pairs.cells, pairs.positive, pairs.numbers, strict=True):
        held = list(zip(cells[positive].tolist(), numbers[positive].tolist(), strict=True))
        assert len(dict(held)) == len(held)  # a cell answers for one box at most
        rows.append(dict(held))
    return rows


def random_boxes(generator, count, width=256, height=192):
    corner = torch.rand(count, 2, generator=generator) * torch.tensor([width - 4.0, height - 4.0])
    room = torch.tensor([width, height]) - corner
    side = 2 + torch.rand(count, 2, generator=generator) ** 3 * (room - 2)
    return torch.cat([corner, corner + side], dim=-1) - 0.5


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(0, 2), st.sampled_from([((48, 64),), ((24, 32), (12, 16))]))
def test_every_box_has_a_cell_and_cells_stay_inside(seed, radius, sizes):
    strides = [192 // h for h, _ in sizes]
    boxes = random_boxes(torch.Generator().manual_seed(seed), 1)
    held = assigned([boxes], sizes, strides, pos_radius=radius)[0]
    assert 1 <= len(held) <= (2 * radius + 1) ** 2
    maps = maps_of(sizes, strides)
    centers = maps.cells().centers
    spacing = torch.cat([torch.full((h * w,), float(s)) for (h, w), s in zip(sizes, strides, strict=True)])
    for cell in held:
        inside = (centers[cell] >= boxes[0, :2]).all() and (centers[cell] <= boxes[0, 2:]).all()
        middle = (boxes[0, :2] + boxes[0, 2:]) / 2
        home = ((middle - centers[cell]).abs() <= spacing[cell] / 2 + 1e-4).all()
        assert inside or home


def test_a_batch_equals_its_pictures():
    generator = torch.Generator().manual_seed(1)
    boxes = [random_boxes(generator, n) for n in (3, 0, 12, 1)]
    sizes, strides = [(24, 32), (12, 16)], [8, 16]
    together = assigned(boxes, sizes, strides)
    assert together == [assigned([b], sizes, strides)[0] for b in boxes]
    assert together[1] == {}


def test_pictures_without_objects():
    pairs = assign_boxes([torch.zeros(0, 4)] * 2, [(4, 4)], [4])
    assert pairs.cells.shape == (2, 0)


def test_of_two_boxes_that_share_a_cell_the_smaller_wins():
    large, small = torch.tensor([0.0, 0.0, 30.0, 30.0]), torch.tensor([12.0, 12.0, 18.0, 18.0])
    for order in ([large, small], [small, large]):
        held = assigned([torch.stack(order)], [(8, 8)], [4], pos_radius=0)[0]
        assert held == {3 * 8 + 3: [o is small for o in order].index(True)}


def test_equal_boxes_are_told_apart():
    box = torch.tensor([[4.0, 4.0, 16.0, 16.0]])
    assert len(assigned([box.repeat(2, 1)], [(8, 8)], [4])[0]) == 9


def test_a_neighbour_does_not_take_a_centre():
    large, small = torch.tensor([3.5, 3.5, 27.5, 27.5]), torch.tensor([15.5, 11.5, 23.5, 19.5])
    held = assigned([torch.stack([large, small])], [(8, 8)], [4])[0]
    assert held[3 * 8 + 3] == 0 or held[3 * 8 + 4] == 1
    middle = ((large[:2] + large[2:]) / 2 + 0.5) // 4
    assert held[int(middle[1] * 8 + middle[0])] == 0


def test_large_boxes_go_to_the_coarser_level():
    boxes = [torch.tensor([[10.0, 10.0, 40.0, 40.0]]), torch.tensor([[0.0, 0.0, 150.0, 150.0]])]
    small, large = assigned(boxes, [(24, 32), (12, 16)], [8, 16], pos_radius=0)
    assert max(small) < 24 * 32 <= min(large)


def test_boxes_without_area_are_left_out():
    wrong = torch.tensor([[8.0, 8.0, 8.0, 20.0], [20.0, 20.0, 10.0, 10.0], [1.0, 1.0, 9.0, 9.0]])
    assert set(assigned([wrong], [(8, 8)], [4])[0].values()) == {2}


def test_targets_of_assigned_cells_can_be_represented():
    maps = maps_of([(48, 64)], [4])
    boxes = random_boxes(torch.Generator().manual_seed(3), 20)
    pairs = assign_boxes([boxes], [(48, 64)], [4], pos_radius=2)
    centers = cell_centers(maps.boxes[0], 4).flatten(0, 1)[pairs.cells[0]]
    raw = encode_boxes(pairs.boxes[0], centers, 4)[pairs.positive[0]]
    filled = torch.zeros(4, 48 * 64)
    filled[:, pairs.cells[0][pairs.positive[0]]] = raw.T
    decoded = maps._replace(boxes=(filled.view(1, 4, 48, 64),)).cells().boxes[0]
    torch.testing.assert_close(
        decoded[pairs.cells[0][pairs.positive[0]]],
        pairs.boxes[0][pairs.positive[0]],
        rtol=1e-5,
        atol=1e-3,
    )


@pytest.mark.parametrize("size", [(48, 64), (64, 48)])
def test_rows_and_columns_are_not_swapped(size):
    x, y = 4 * (size[1] - 2), 4 * 3
    box = torch.tensor([[x - 0.5, y - 0.5, x + 3.5, y + 3.5]])
    assert list(assigned([box], [size], [4], pos_radius=0)[0]) == [3 * size[1] + size[1] - 2]
