"""The map read within boxes."""

from __future__ import annotations

import torch

from sightline.rtdetr_pose.box_detail import BoxDetail


def _detail(**options: int) -> BoxDetail:
    torch.manual_seed(0)
    return BoxDetail(8, 16, **options)


def test_both_ways_to_sample_are_the_same():
    detail, fine = _detail(cells=5), torch.rand(2, 8, 12, 16)
    boxes = torch.tensor(
        [[[0.5, 0.5, 0.4, 0.3], [0.95, 0.1, 0.5, 0.5]], [[0.2, 0.7, 0.1, 0.9], [0.5, 0.5, 1, 1]]]
    )
    plain = detail(fine, boxes)
    detail.sampling = "gather"
    assert torch.allclose(detail(fine, boxes), plain, atol=1e-5)


def test_what_lies_outside_of_a_box_counts_nothing():
    detail, fine = _detail(cells=4), torch.rand(1, 8, 16, 16)
    box = torch.tensor([[[0.25, 0.25, 0.25, 0.25]]])
    other = fine.clone()
    other[..., 9:, 9:] = 5.0
    assert torch.equal(detail(fine, box), detail(other, box))
    other[..., 3, 3] = 5.0
    assert not torch.equal(detail(fine, box), detail(other, box))


def test_an_object_and_its_mirror_image_read_differently():
    detail = _detail(cells=4)
    fine = torch.rand(1, 8, 8, 8)
    box = torch.tensor([[[0.5, 0.5, 1.0, 1.0]]])
    assert not torch.allclose(detail(fine, box), detail(fine.flip(-1), box), atol=1e-2)


def test_no_gradient_moves_the_box():
    boxes = torch.full((1, 1, 4), 0.5, requires_grad=True)
    fine = torch.rand(1, 8, 8, 8, requires_grad=True)
    _detail(cells=3)(fine, boxes).sum().backward()
    assert boxes.grad is None
    assert fine.grad is not None
