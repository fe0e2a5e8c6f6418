from __future__ import annotations

import pytest
import torch

from sightline.geometry.rotations import geodesic_distance
from sightline.vpog.cluster_mode import ClusterModeInference
from sightline.vpog.global_mode import GlobalModeInference
from tests.rendering.meshes import bumpy
from tests.vpog.oracle import Oracle, coordinate_card, coordinate_picture
from tests.vpog.test_inference import CAMERA, box_around, seen_from


@pytest.fixture(scope="module")
def card():
    return coordinate_card(bumpy(1500))


@pytest.mark.parametrize("mode", [ClusterModeInference, GlobalModeInference])
@pytest.mark.parametrize("pooled", [True, False])
def test_poses_of_a_batch_are_found_and_a_failure_is_flagged(card, mode, pooled):
    truths = [seen_from((1, 0.3, 0.4), 0.4), seen_from((-0.5, -1, 0.2), -2.0)]
    images = [coordinate_picture(card, truth, CAMERA) for truth in truths]
    images.append(images[0] * 0)
    boxes = [box_around(card, truth) for truth in (*truths, truths[0])]
    search = mode(Oracle(card), pooled=pooled, turn=0.55)
    found = search(images, card, [CAMERA] * 3, boxes)
    assert found.pose.shape == (3, 4, 4)
    assert found.valid.tolist() == [True, True, False]
    for pose, truth in zip(found.pose, truths, strict=False):
        assert float(geodesic_distance(pose[:3, :3], truth[:3, :3])) < (0.01 if pooled else 0.02)
        assert torch.allclose(pose[:3, 3], truth[:3, 3], atol=0.005)
    assert (found.confidence[:2] > 0.5).all()
    assert float(found.confidence[2]) == 0.0
    assert bool(found.pose[2, :3].isnan().all())
    assert found.reasons[:2] == ("", "")
    assert "templates" in found.reasons[2]


def test_numbers_that_differ_and_cards_that_are_too_large_are_refused(card):
    search = GlobalModeInference(Oracle(card), total_templates=41)
    image = coordinate_picture(card, seen_from((1, 0, 0), 0.0), CAMERA)
    with pytest.raises(ValueError, match="at most 41 templates, got 42"):
        search([image], card, [CAMERA])
    with pytest.raises(ValueError, match="as many as"):
        ClusterModeInference(Oracle(card))([image], card, [CAMERA, CAMERA])
