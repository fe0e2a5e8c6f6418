"""Where the heads start, what bounds them, and the translations that follow from what they say."""

from __future__ import annotations

import math

import pytest
import torch

from sightline.geometry.rotations import geodesic_distance, rot6d_to_matrix
from sightline.geometry.translation import correct_intrinsics, recover_translation
from sightline.rtdetr_pose.model import RTDETRPose
from sightline.rtdetr_pose.pose_heads import (
    MAX_DEPTH_CHANGE,
    MAX_OFFSET,
    IntrinsicsHead,
    PoseHeads,
    box_centers_px,
    ray_rotation,
)
from sightline.rtdetr_pose.query_selection import decode_queries
from tests.tolerances import tolerance

SIZE = (640, 480)
K = torch.tensor([[600.0, 0, 320], [0, 500, 240], [0, 0, 1]])


def outputs(bbox, offsets, log_z, k_delta=(0.0, 0.0, 0.0, 0.0), intrinsics=K, size=SIZE):
    return {
        "bbox": torch.tensor([[[*bbox, 0.1, 0.1]]]),
        "offsets": torch.tensor([[offsets]]),
        "log_z": torch.tensor([[[log_z]]]),
        "k_delta": torch.tensor([k_delta]),
        "intrinsics": intrinsics[None],
        "image_size": size,
    }


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    small = {"backbone_config": {"hidden_sizes": [16, 16, 24, 32], "embedding_size": 16}}
    return RTDETRPose(3, 32, 8, backbone="tiny", detector=small, use_uncertainty=True).eval()


def heads(**options) -> PoseHeads:
    torch.manual_seed(0)
    return PoseHeads(16, **options)


def run(head, box=(0.5, 0.5, 0.2, 0.1), sizes=(0.1, 0.2, 0.4), K=K, features=None):
    features = torch.randn(1, 1, 16) if features is None else features
    logits = torch.tensor([[[0.0, 1.0, -1.0]]])
    return head(features, torch.tensor([[box]]), K[None], logits, torch.tensor(sizes), SIZE)


def test_corrected_intrinsics_and_translation_by_hand(model):
    corrected = correct_intrinsics(K, torch.tensor([0.05, -0.02, 4.0, -3.0]))
    assert corrected.tolist() == [[630, 0, 324], [0, 490, 237], [0, 0, 1]]
    # a box whose centre is the pixel (256, 288): the first pixel's centre is 0, its edge -0.5
    found = outputs((256.5 / 640, 288.5 / 480), (3.5, -2.5), math.log(1.25), (0.05, -0.02, 4.0, -3.0))
    t = model.translations(found)[0, 0]
    torch.testing.assert_close(t, torch.tensor([-0.1279762, 0.1237245, 1.25]), atol=1e-6, rtol=0)
    seen = corrected @ t / t[2]
    torch.testing.assert_close(seen[:2], torch.tensor([259.5, 285.5]), atol=1e-3, rtol=0)
    assert torch.equal(model.translations(found, K[None]), model.translations(found))


@pytest.mark.parametrize("z", [0.3, 1.0, 7.0])
def test_at_the_principal_point_there_is_no_sideways(model, z):
    t = model.translations(outputs((320.5 / 640, 240.5 / 480), (0.0, 0.0), math.log(z)))[0, 0]
    torch.testing.assert_close(t, torch.tensor([0.0, 0.0, z]), atol=2e-6 * z, rtol=1e-6)


def test_translation_is_linear_in_depth(model):
    near, far = (model.translations(outputs((0.3, 0.8), (2.0, 1.0), math.log(z)))[0, 0] for z in (0.7, 2.1))
    torch.testing.assert_close(far, 3 * near)
    found = outputs((0.3, 0.8), (2.0, 1.0), 0.2)
    log_z = found["log_z"].requires_grad_()
    x = model.translations(found)[0, 0, 0]
    (slope,) = torch.autograd.grad(x, log_z)
    torch.testing.assert_close(slope[0, 0, 0], x.detach())


@pytest.mark.parametrize(("sx", "sy", "px", "py"), [(0.5, 0.5, 0, 0), (0.4, 0.6, 0, 0), (0.5, 0.5, 32, 64)])
def test_resizing_and_letterboxing_change_no_translation(model, sx, sy, px, py):
    found = outputs((0.37, 0.61), (3.0, -5.0), 0.3)
    size = (round(640 * sx) + 2 * px, round(480 * sy) + 2 * py)
    edge = torch.tensor([[sx, 0, px], [0, sy, py], [0, 0, 1.0]])  # of coordinates that count from the edge
    center = box_centers_px(found["bbox"], SIZE)[0, 0] + 0.5
    moved = (edge @ torch.tensor([*center.tolist(), 1.0]))[:2]
    half = torch.tensor([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    other_K = torch.linalg.inv(half) @ edge @ half @ K
    bbox = (moved / torch.tensor(size)).tolist()
    other = outputs(bbox, (3.0 * sx, -5.0 * sy), 0.3, intrinsics=other_K, size=size)
    torch.testing.assert_close(model.translations(other), model.translations(found), atol=2e-6, rtol=1e-5)


def test_absurd_numbers_concern_their_own_object_alone():
    depth = torch.tensor([1.0, torch.nan, torch.inf, 1.0, 1.0])
    cameras = K.repeat(5, 1, 1)
    cameras[3, 0, 0], cameras[4, 1, 1] = -1.0, torch.nan
    found = recover_translation(torch.rand(5, 2), torch.rand(5, 2), depth, cameras)
    assert found.valid.tolist() == [True, False, False, False, False]
    assert found.t.isfinite().all(-1).tolist() == found.valid.tolist()


@pytest.mark.parametrize("log_z", [1000.0, -1000.0])
def test_absurd_depths_stay_finite(model, log_z):
    assert model.translations(outputs((0.4, 0.6), (0.0, 0.0), log_z)).isfinite().all()


def test_heads_start_where_a_careful_guess_would_be():
    found = run(heads(use_uncertainty=True))
    prior = (600 * 0.2 / 128 + 500 * 0.2 / 48) / 2
    assert found["log_z"].exp().item() == pytest.approx(prior, rel=1e-5)
    assert found["offsets"].abs().max().item() == 0
    assert found["log_sigma_z"].item() == found["log_sigma_rot"].item() == 0
    at_center = run(heads(), box=(320.5 / 640, 240.5 / 480, 0.2, 0.1))["rot6d"]
    torch.testing.assert_close(at_center[0, 0], torch.tensor([1.0, 0, 0, 0, 1, 0]), atol=1e-6, rtol=0)


def test_rotations_are_as_seen_along_the_ray():
    """The same view, away from the optical axis, is another rotation: by the angle of the ray."""
    aside = run(heads(), box=(0.9, 0.5, 0.2, 0.1))["rot6d"]
    angle = math.atan((0.9 * 640 - 0.5 - 320) / 600)
    off = geodesic_distance(rot6d_to_matrix(aside)[0, 0], torch.eye(3)).item()
    assert off == pytest.approx(math.hypot(angle, math.atan((0.5 * 480 - 0.5 - 240) / 500)), abs=1e-3)
    axis = rot6d_to_matrix(aside)[0, 0] @ torch.tensor([0.0, 0, 1])
    assert (axis[0] / axis[2]).item() == pytest.approx(math.tan(angle), rel=1e-4)


def test_ray_rotations_are_rotations():
    slopes = torch.randn(50, 2, dtype=torch.float64)
    R = ray_rotation(slopes)
    torch.testing.assert_close(R @ R.mT, torch.eye(3).to(R).expand_as(R), **tolerance(torch.float64))
    assert torch.allclose(torch.linalg.det(R), torch.ones(50, dtype=torch.float64))
    torch.testing.assert_close(R[:, :2, 2] / R[:, 2:, 2], slopes)


def test_predictions_are_bounded():
    head, camera = heads(use_uncertainty=True), IntrinsicsHead(16)
    with torch.no_grad():
        for parameter in (*head.parameters(), *camera.parameters()):
            parameter.normal_(std=50)
    features = torch.randn(1, 1, 16) * 100
    found, prior = run(head, features=features), run(heads())["log_z"]
    assert (found["log_z"] - prior).abs().item() <= MAX_DEPTH_CHANGE + 1e-4
    assert (found["offsets"].abs() <= MAX_OFFSET * torch.tensor([128.0, 48.0]) + 1e-3).all()
    R = rot6d_to_matrix(found["rot6d"])
    torch.testing.assert_close(R @ R.mT, torch.eye(3).expand_as(R), atol=1e-5, rtol=0)
    limits = torch.tensor([0.2, 0.2, 0.05 * 640, 0.05 * 640])
    delta = camera(features, SIZE).abs()
    assert (delta <= limits).all()
    assert (correct_intrinsics(K, camera(features, SIZE)[0])[[0, 1], [0, 1]] > 0).all()


def test_the_best_class_gives_the_size():
    """Twice the object's size is twice the prior's depth; sizes of other classes do not matter."""
    one, two, other = (run(heads(), sizes=sizes) for sizes in [(1, 0.2, 1.0), (1, 0.4, 1.0), (3, 0.2, 9.0)])
    torch.testing.assert_close(two["log_z"] - one["log_z"], torch.full((1, 1, 1), math.log(2)))
    assert torch.equal(one["log_z"], other["log_z"])


def test_pose_gives_boxes_and_scores_no_gradient():
    head = heads()
    with torch.no_grad():
        head.depth[-1].weight.normal_()
        head.rotation[-1].weight.normal_()
    box = torch.rand(1, 4, 4).requires_grad_()
    logits = torch.rand(1, 4, 3).requires_grad_()
    features = torch.rand(1, 4, 16).requires_grad_()
    found = head(features, box, K[None], logits, torch.ones(3), SIZE)
    sum(value.square().sum() for value in found.values()).backward()
    assert box.grad is None
    assert logits.grad is None
    assert features.grad is not None


def test_every_layer_has_heads_of_its_own(model):
    """Other detectors' queries can carry them, and gradients of a layer reach its own heads."""
    model = model.train()
    labels = [{"labels": torch.tensor([0]), "boxes": torch.full((1, 4), 0.3)}]
    found = model(torch.rand(1, 3, 64, 64), targets=labels)
    keys = {"logits", "bbox", "log_z", "rot6d", "offsets", "log_sigma_z", "log_sigma_rot"}
    assert [set(layer) for layer in found["aux_outputs"]] == [keys, keys]
    found["aux_outputs"][0]["log_z"].sum().backward()
    assert model.pose_heads[0].depth[-1].bias.grad is not None
    assert model.pose_heads[1].depth[-1].bias.grad is None
    model.zero_grad(set_to_none=True)
    model.eval()
    assert model(torch.rand(1, 3, 64, 64))["aux_outputs"] == []
    assert len(model(torch.rand(1, 3, 64, 64), targets=labels)["aux_outputs"]) == 2


def test_sizes_of_objects(model):
    model.set_objects([0.1, 0.2, 0.3])
    assert model.object_sizes.tolist() == pytest.approx([0.1, 0.2, 0.3])
    for wrong in ([0.1, 0.2], [0.1, 0.2, 0.0], [0.1, 0.2, math.nan]):
        with pytest.raises(ValueError, match="3 positive lengths"):
            model.set_objects(wrong)


def test_the_camera_in_the_outputs(model):
    picture = torch.rand(1, 3, 64, 96)
    found = model(picture)
    assert found["intrinsics"].tolist() == [[[96, 0, 47.5], [0, 96, 31.5], [0, 0, 1]]]
    assert found["image_size"] == (96, 64)
    given = model(picture, intrinsics=K[None])
    assert torch.equal(given["intrinsics"][0], K)
    assert not torch.equal(given["log_z"], found["log_z"])
    with pytest.raises(ValueError, match=r"intrinsics: expected \(1, 3, 3\)"):
        model(picture, intrinsics=K.repeat(2, 1, 1))
    with pytest.raises(ValueError, match="multiples of 32, got 100 x 64"):
        model(torch.rand(1, 3, 64, 100))
    with pytest.raises(ValueError, match="at least 8 cells, one a query, got"):
        decode_queries(model.detector, [torch.rand(1, 32, 1, n) for n in (4, 2, 1)])


def test_a_sensors_depth():
    torch.manual_seed(0)
    small = {"backbone_config": {"hidden_sizes": [16, 16, 24, 32], "embedding_size": 16}}
    model = RTDETRPose(3, 32, 8, backbone="tiny", detector=small, depth_mode="fuse_mid").eval()
    picture, depth = torch.rand(2, 3, 64, 96), torch.rand(2, 1, 128, 192) + 1
    depth[0, 0, :9, :9] = torch.nan
    plain = model(picture)["logits"]
    assert torch.equal(model(picture, depth=depth)["logits"], plain), "the fusion starts at nothing"
    with torch.no_grad():
        for level in model.depth_fusion.levels:
            level[-1].weight.normal_(std=0.3)
    fused = model(picture, depth=depth)["logits"]
    assert fused.isfinite().all()
    assert not torch.allclose(fused, plain)
    missing = torch.where(depth.isnan(), 0.0, depth)
    assert torch.equal(model(picture, depth=missing)["logits"], fused)
    assert torch.equal(
        model(picture, depth=depth, depth_valid=torch.tensor([True, False]))["logits"],
        model(picture, depth=depth * torch.tensor([1.0, 0.0]).view(2, 1, 1, 1))["logits"],
    )
    with pytest.raises(ValueError, match="fuse_mid"):
        RTDETRPose(3, 32, 8, backbone="tiny", detector=small)(picture, depth=depth)
