"""Covariances are widened about the middle of the object, by what was fitted and what was written."""

from __future__ import annotations

import pytest
import torch

from sightline.geometry.poses import make_pose
from sightline.geometry.rotations import exp
from sightline.objects.pose_errors import ErrorModel, PoseErrors, read_error_model, write_error_model

POSE = make_pose(exp(torch.tensor([0.4, -0.8, 0.3]).double()), torch.tensor([0.1, -0.05, 0.7]).double())
MIDDLE = torch.tensor([0.02, 0.3, -0.1]).double()
SIZE = torch.tensor(0.2).double()
NOTHING = torch.zeros(6, 6).double()


def covariance_of(point_obj: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
    """Of a point of the object in the camera frame: dx = w x (R p) + v."""
    x, y, z = (POSE[:3, :3] @ point_obj).tolist()
    cross = torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]]).double()
    jacobian = torch.cat([-cross, torch.eye(3).double()], 1)
    return jacobian @ covariance @ jacobian.mT


def test_a_turn_is_about_the_middle_which_stays():
    widened = PoseErrors(turn=0.1).widen(NOTHING, POSE, MIDDLE, SIZE)
    torch.testing.assert_close(covariance_of(MIDDLE, widened), torch.zeros(3, 3).double(), atol=1e-15, rtol=0)
    off = covariance_of(MIDDLE + torch.tensor([0.05, 0.0, 0.0]).double(), widened)
    assert float(off.trace()) == pytest.approx(2 * (0.1 * 0.05) ** 2)


def test_a_zoom_is_along_the_line_of_sight_of_the_middle():
    widened = PoseErrors(zoom=0.02).widen(NOTHING, POSE, MIDDLE, SIZE)
    middle = POSE[:3, :3] @ MIDDLE + POSE[:3, 3]
    values, axes = torch.linalg.eigh(covariance_of(MIDDLE, widened))
    assert float(values[-1]) == pytest.approx((0.02 * float(middle.norm())) ** 2)
    assert abs(float(axes[:, -1] @ middle / middle.norm())) == pytest.approx(1)
    assert float(values[:2].abs().max()) < 1e-15


def test_scale_and_shift():
    root = torch.randn(6, 6, generator=torch.Generator().manual_seed(0)).double()
    claimed = root @ root.mT
    widened = PoseErrors(scale=3.0, shift=0.5).widen(claimed, POSE, MIDDLE, SIZE)
    added = torch.diag(torch.tensor([0, 0, 0, 0.01, 0.01, 0.01]).double())
    torch.testing.assert_close(widened, 9 * claimed + added)
    batch = [x.expand(4, *x.shape) for x in (claimed, POSE, MIDDLE, SIZE)]
    torch.testing.assert_close(PoseErrors(scale=3.0, shift=0.5).widen(*batch)[2], widened)
    torch.testing.assert_close(PoseErrors().widen(claimed, POSE, MIDDLE, SIZE), claimed)


def test_doubt_grows_with_what_the_score_lacks():
    claimed = torch.eye(6).double()
    errors = PoseErrors(doubt=2.0)
    torch.testing.assert_close(errors.widen(claimed, POSE, MIDDLE, SIZE, 1.0), claimed)
    wide = errors.widen(claimed, POSE, MIDDLE, SIZE, 0.5)
    torch.testing.assert_close(wide, torch.e**2 * claimed)


def test_tails_need_a_covariance():
    with pytest.raises(ValueError, match="freedom: expected a number above 2, got 2"):
        PoseErrors(freedom=2.0)


def test_files(tmp_path):
    path = tmp_path / "w.errors.json"
    model = ErrorModel(PoseErrors(1.5, 0.01, 0.02, 0.03, freedom=4.0), PoseErrors(turn=0.004))
    write_error_model(path, model, {"poses": 7})
    assert read_error_model(path) == model
    path.write_text(path.read_text().replace("0.004", "-0.004"))
    with pytest.raises(ValueError, match=r"w\.errors\.json: depth: turn: expected a number that is not neg"):
        read_error_model(path)
    path.write_text('{"picture": {"scale": 1}, "depth": {}}')
    with pytest.raises(ValueError, match="'turn' is missing"):
        read_error_model(path)
