from __future__ import annotations

import pytest
import torch

from sightline.geometry.poses import make_pose
from sightline.geometry.triangulation import (
    point_covariance,
    reprojection_errors,
    triangulate,
    triangulate_pairs,
    triangulate_robust,
)
from tests.geometry.camera_rigs import cloud, rig, see
from tests.real_data import real_path


@pytest.mark.parametrize("wrong_view", [0, 3, 5])
def test_one_wrong_view_of_six(wrong_view):
    K, poses, lens = rig(6)
    points = cloud(200)
    px = see(points, K, poses, lens, noise_px=1.0)
    clean = triangulate(px, K, poses, lens).points
    angle = 6.28 * torch.rand(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    px[wrong_view] += 100 * torch.stack([angle.cos(), angle.sin()], -1)
    robust = triangulate_robust(px, K, poses, lens)
    mean_of_pairs = triangulate_pairs(px, K, poses, lens).points.nanmean(0)

    def rms(found):
        return float((found - points).square().sum(-1).mean().sqrt())

    assert robust.valid.all() and rms(robust.points) < 1.3 * rms(clean)
    assert not robust.inliers[wrong_view].any() and robust.inliers.double().mean() > 0.99 * 5 / 6
    assert rms(mean_of_pairs) > 10 * rms(clean)  # why it is there


def test_two_views_that_contradict_each_other_are_not_valid():
    K, poses, _ = rig(2)
    px = see(cloud(4), K, poses)
    px[0, :, 1] += torch.tensor([0.0, 1, 300, 300])
    assert triangulate_robust(px, K, poses).valid.tolist() == [True, True, False, False]


def test_gradients_of_weights_and_of_the_robust_choice():
    K, poses, lens = rig(4)
    px = see(cloud(2), K, poses, lens, noise_px=2.0)
    px[1] += 200
    weights = torch.linspace(0.5, 1.5, 8, dtype=torch.float64).view(4, 2).requires_grad_()
    px.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, w: triangulate(x, K, poses, lens, weights=w).points, (px, weights)
    )
    robust = triangulate_robust(px, K, poses, lens)
    assert robust.inliers[:, 0].tolist() == [True, False, True, True]
    assert torch.autograd.gradcheck(
        lambda x: triangulate_robust(x, K, poses, lens).points, (px,), fast_mode=True
    )


def test_the_covariance_is_that_of_repeated_measurements():
    K, poses, lens = rig(4)
    lens = 2 * lens
    point = cloud(1)
    sigma = torch.tensor([0.5, 1, 2, 1], dtype=torch.float64)[:, None, None]
    clean = see(point, K, poses, lens)
    noise = torch.randn(4000, *clean.shape, generator=torch.Generator().manual_seed(0), dtype=clean.dtype)
    found = triangulate(clean + sigma * noise, K, poses, lens, weights=(1 / sigma[..., 0]).expand(4000, 4, 1))
    predicted = point_covariance(point, K, poses, lens, sigma_px=sigma[..., 0])[0]
    whitened = torch.linalg.solve_triangular(
        torch.linalg.cholesky(predicted), (found.points - point)[:, 0].T, upper=False
    )
    torch.testing.assert_close(torch.cov(whitened), torch.eye(3).double(), rtol=0, atol=0.08)


def test_the_covariance_has_the_jacobian_of_the_projection():
    K, poses, lens = rig(3)
    K[:, 0, 1] = 5.0
    point = cloud(1)
    jacobian = torch.autograd.functional.jacobian(lambda x: see(x, K, poses, lens), point).view(6, 3)
    expected = torch.linalg.inv(jacobian.T @ jacobian) * 0.7**2
    found = point_covariance(point, K, poses, lens, sigma_px=0.7)[0]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


def test_the_covariance_of_what_is_not_determined_is_nan():
    K, poses, _ = rig(3)
    points = cloud(3)
    points[1] = torch.nan
    seen = torch.tensor([[True, True, True], [True, True, False], [False, True, False]])
    covariance = point_covariance(points, K, poses, seen=seen)
    assert covariance.isnan().all((-1, -2)).tolist() == [False, True, True]
    fewer = point_covariance(points[:1], K[:2], poses[:2])
    torch.testing.assert_close(covariance[:1], fewer)
    assert torch.autograd.gradcheck(
        lambda x: point_covariance(x, K, poses, sigma_px=9.0)[0], points[:1].requires_grad_()
    )


def test_reprojection_errors():
    K, poses, lens = rig(3)
    points = cloud(5).requires_grad_()
    px = see(points.detach(), K, poses, lens) + torch.tensor([3.0, 4.0])
    px[0, 0] = torch.nan
    errors = reprojection_errors(points, px, K, poses, lens)
    assert errors.isnan().sum() == 1
    torch.testing.assert_close(errors.detach().nan_to_num(5), torch.full((3, 5), 5.0).double())
    assert torch.autograd.gradcheck(
        lambda x: reprojection_errors(x, px[1:], K[1:], poses[1:], lens[1:]), (points,)
    )


@pytest.mark.real
def test_a_mouse_labelled_in_six_views():
    from scipy.io import loadmat

    data = loadmat(real_path("dannce_mouse/label3d_dannce.mat"), simplify_cells=True)
    params, labels = data["params"], data["labelData"]
    K = torch.stack([torch.tensor(p["K"].T) for p in params])
    K[:, :2, 2] -= 1  # the file counts pixels from 1
    poses = make_pose(
        torch.stack([torch.tensor(p["r"].T) for p in params]),
        torch.stack([torch.tensor(p["t"]) for p in params]),
    )
    lens = torch.stack(
        [torch.tensor([*p["RDistort"][:2], *p["TDistort"], *p["RDistort"][2:]]).double() for p in params]
    )
    px = torch.stack([torch.tensor(label["data_2d"]).view(81, 22, 2) for label in labels], 1) - 1
    stored = torch.tensor(labels[0]["data_3d"]).view(81, 22, 3)
    for found in (triangulate(px, K, poses, lens), triangulate_robust(px, K, poses, lens)):
        labelled = stored.isfinite().all(-1) & found.valid
        assert labelled.double().mean() > 0.9
        errors = reprojection_errors(found.points, px, K, poses, lens)
        assert (errors.movedim(1, 0).flatten(1).nanmedian(1).values <= 1.6).all()
        size = float((stored[labelled].amax(0) - stored[labelled].amin(0)).norm())
        assert float((found.points - stored)[labelled].norm(dim=-1).median()) < 0.01 * size
