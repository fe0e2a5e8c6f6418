from __future__ import annotations

import numpy as np
import pytest
import torch

from sightline.formats import pixel_boxes

BOX = torch.tensor([9.5, 19.5, 14.5, 27.5], dtype=torch.float64)


def test_a_box_of_one_pixel_in_all_conventions():
    mask = np.zeros((4, 5), bool)
    mask[1, 3] = True
    box = pixel_boxes.box_of_mask(mask)
    assert box.tolist() == [2.5, 0.5, 3.5, 1.5]
    assert pixel_boxes.coco_from_xyxy(box).tolist() == [3, 1, 1, 1]
    assert pixel_boxes.bop_from_xyxy(box).tolist() == [3, 1, 0, 0]
    assert pixel_boxes.pixel_edges_from_xyxy(box).tolist() == [3, 1, 4, 2]


@pytest.mark.parametrize(
    ("there", "back"),
    [
        (pixel_boxes.coco_from_xyxy, pixel_boxes.xyxy_from_coco),
        (pixel_boxes.bop_from_xyxy, pixel_boxes.xyxy_from_bop),
        (pixel_boxes.pixel_edges_from_xyxy, pixel_boxes.xyxy_from_pixel_edges),
    ],
)
def test_there_and_back(there, back):
    boxes = torch.stack([BOX, BOX + 3.25])
    assert torch.equal(back(there(boxes)), boxes)


def test_an_invisible_object_has_no_box():
    empty = pixel_boxes.box_of_mask(np.zeros((3, 3), bool))
    assert empty.isnan().all()
    assert pixel_boxes.bop_from_xyxy(empty).tolist() == [-1, -1, -1, -1]
    assert pixel_boxes.xyxy_from_bop(torch.full((4,), -1.0)).isnan().all()


def test_boxes_of_coco_agree_with_the_reference():
    from faster_coco_eval.core import mask as reference

    mask = np.random.default_rng(0).random((13, 17)) > 0.9
    xywh = reference.toBbox(reference.encode(np.asfortranarray(mask.astype(np.uint8))))
    assert pixel_boxes.coco_from_xyxy(pixel_boxes.box_of_mask(mask)).tolist() == xywh.reshape(-1).tolist()
