from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.geometry import pixel_affine
from sightline.geometry.cameras import project
from sightline.geometry.poses import compose, invert, make_pose, transform
from sightline.geometry.rotations import exp
from sightline.geometry.triangulation import (
    reprojection_errors,
    triangulate,
    triangulate_pairs,
    triangulate_robust,
    view_pairs,
)
from tests.geometry.camera_rigs import cloud, rig, see
from tests.real_data import golden_path
from tests.tolerances import tolerance


def pairs_by_svd(px, K, cam_from_world):
    """The common way: a loop over frames and pairs, each with the SVD of its points' 4x4 equations."""
    xy = (px - K[:, None, :2, 2]) / K[:, None, [0, 1], [0, 1]]
    frames = []
    for frame in xy:
        pairs = []
        for i, j in itertools.combinations(range(len(K)), 2):
            rows = [frame[v, :, :, None] * cam_from_world[v, 2] - cam_from_world[v, :2] for v in (i, j)]
            null = torch.linalg.svd(torch.cat(rows, 1)).Vh[:, -1]
            pairs.append(null[:, :3] / null[:, 3:])
        frames.append(torch.stack(pairs))
    return torch.stack(frames)


@pytest.mark.parametrize("num_views", [2, 3, 6, 12])
@pytest.mark.parametrize("method", ["linear", "dlt"])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_points_come_back_through_distortion(num_views, method, dtype, error):
    K, poses, lens = rig(num_views)
    points = cloud(4, 7)
    px = see(points, K, poses, lens).to(dtype)
    found, valid = triangulate(px, K.to(dtype), poses.to(dtype), lens.to(dtype), method=method)
    assert valid.all() and found.dtype == dtype
    assert float((found - points).abs().max()) < error
    by_pairs = triangulate_pairs(px, K.to(dtype), poses.to(dtype), lens.to(dtype), method=method)
    assert by_pairs.points.shape == (4, num_views * (num_views - 1) // 2, 7, 3) and by_pairs.valid.all()
    assert float((by_pairs.points - points.unsqueeze(1)).abs().max()) < 10 * error


@pytest.mark.parametrize("method", ["linear", "dlt"])
def test_a_world_whose_origin_is_far_away(method):
    K, far = rig(2)[0], torch.tensor([3e5, -2e5, 1e5], dtype=torch.float64)
    poses = make_pose(torch.eye(3).double(), torch.tensor([[0.02, 0, 2], [-0.02, 0, 2]]).double())
    px = see(cloud(6), K, poses)
    shift = make_pose(torch.eye(3).double(), -far)
    found = triangulate(px, K, compose(poses, shift.expand(2, 4, 4)), method=method)
    # The poses are exact to 6e-11 m, which 0.02 rad of parallax make some 3e-9; squared it would be 2e-7.
    torch.testing.assert_close(found.points - far, cloud(6), rtol=0, atol=3e-8)


def test_pairs_are_the_loop_of_svds():
    K, poses, _ = rig(5)
    px = see(cloud(3, 8), K, poses)
    exact = triangulate_pairs(px, K, poses).points
    torch.testing.assert_close(exact, pairs_by_svd(px, K, poses), rtol=0, atol=1e-9)
    noisy = px + torch.randn(px.shape, generator=torch.Generator().manual_seed(1), dtype=px.dtype)
    dlt = triangulate_pairs(noisy, K, poses, method="dlt").points
    torch.testing.assert_close(dlt, pairs_by_svd(noisy, K, poses), rtol=0, atol=1e-9)


@pytest.mark.parametrize("noise_px", [0.0, 2.0])
def test_two_views_are_opencvs(noise_px):
    K, poses, _ = rig(2, seed=3)
    px = see(cloud(20), K, poses, noise_px=noise_px)
    xy = ((px - K[:, None, :2, 2]) / K[:, None, [0, 1], [0, 1]]).numpy()
    homogeneous = cv2.triangulatePoints(poses[0, :3].numpy(), poses[1, :3].numpy(), xy[0].T, xy[1].T)
    expected = torch.from_numpy((homogeneous[:3] / homogeneous[3]).T)
    found = triangulate(px, K, poses, method="dlt").points
    torch.testing.assert_close(found, expected, **tolerance(torch.float64, "iterative"))


@pytest.mark.real
def test_golden_pairs_and_reprojection():
    golden = {k: torch.from_numpy(v) for k, v in np.load(golden_path("multiview.npz")).items() if v.ndim}
    poses = torch.eye(4).repeat(4, 1, 1)
    poses[:, :3] = golden["extrinsics_cam_from_world"]
    cameras = (golden["K"], poses, golden["distortion_k1k2p1p2k3"])
    found = triangulate_pairs(golden["keypoints2d_noisy"], *cameras, method="dlt")
    assert found.valid.all()
    torch.testing.assert_close(found.points, golden["pairwise3d"], rtol=0, atol=2e-6)  # printed in float32
    seen = project(
        transform(poses, found.points.mean(1)[:, None]), golden["K"], golden["distortion_k1k2p1p2k3"]
    )
    torch.testing.assert_close(seen, golden["reprojected2d"], rtol=0, atol=1e-3)
    clean = triangulate(golden["keypoints2d"], *cameras)
    torch.testing.assert_close(clean.points, golden["points3d"], rtol=0, atol=2e-6)


def test_linear_is_the_least_squares_of_reprojection():
    K, poses, _ = rig(5)
    px = see(cloud(60), K, poses, noise_px=1.0)
    linear, dlt = triangulate(px, K, poses).points, triangulate(px, K, poses, method="dlt").points
    best = linear.contiguous().clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [best], lr=1, max_iter=100, tolerance_grad=1e-12, line_search_fn="strong_wolfe"
    )

    def cost():
        optimiser.zero_grad()
        total = reprojection_errors(best, px, K, poses).square().sum()
        total.backward()
        return total

    optimiser.step(cost)
    least = float(cost().detach())
    above = float(reprojection_errors(linear, px, K, poses).square().sum()) / least - 1
    above_dlt = float(reprojection_errors(dlt, px, K, poses).square().sum()) / least - 1
    assert above < 1e-4 and above_dlt > 20 * above


@given(seed=st.integers(0, 2**20), scale=st.floats(0.01, 100))
@settings(max_examples=15, deadline=None)
def test_world_and_cameras_moved_together(seed, scale):
    K, poses, lens = rig(4, seed)
    px = see(cloud(6, seed=seed), K, poses, lens, noise_px=1.0)
    generator = torch.Generator().manual_seed(seed)
    turn, shift = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    new_from_old = make_pose(exp(turn), 5 * scale * shift)
    scaled = poses.clone()
    scaled[:, :3, 3] *= scale  # the unit of length changes, then the frame
    moved = compose(scaled, invert(new_from_old).expand(4, 4, 4))
    before, after = triangulate(px, K, poses, lens), triangulate(px, K, moved, lens)
    assert torch.equal(before.valid, after.valid)
    expected = transform(new_from_old, before.points * scale)
    torch.testing.assert_close(after.points, expected, rtol=1e-7, atol=1e-7 * scale)
    torch.testing.assert_close(
        reprojection_errors(after.points, px, K, moved, lens),
        reprojection_errors(before.points, px, K, poses, lens),
        **tolerance(torch.float64, "pixel"),
    )


@given(order=st.permutations(range(5)), seed=st.integers(0, 2**20))
@settings(max_examples=15, deadline=None)
def test_the_order_of_views_does_not_matter(order, seed):
    K, poses, lens = rig(5, seed)
    px = see(cloud(6, seed=seed), K, poses, lens, noise_px=1.0)
    px[1, 2], px[3, 2] = torch.nan, torch.nan
    weights = torch.rand(5, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    views, p = (K, poses, lens), list(order)
    expected = triangulate(px, *views, weights=weights).points
    found = triangulate(px[p], *(view[p] for view in views), weights=weights[p]).points
    torch.testing.assert_close(found, expected, **tolerance(torch.float64, "iterative"))
    robust = triangulate_robust(px[p], *(view[p] for view in views))
    torch.testing.assert_close(robust.points, triangulate_robust(px, *views).points, rtol=1e-9, atol=1e-9)


def test_a_batch_with_its_own_cameras_equals_the_loop():
    rigs = [rig(4, seed) for seed in range(3)]
    views = [torch.stack(parts) for parts in zip(*rigs, strict=True)]
    px = torch.stack([see(cloud(5, seed=i), *rigs[i], noise_px=1.0) for i in range(3)])
    px[1, 0, 3] = torch.nan
    for solve in (triangulate, triangulate_pairs, triangulate_robust):
        whole = solve(px, *views)
        for i in range(3):
            for together, alone in zip(whole, solve(px[i], *rigs[i]), strict=True):
                torch.testing.assert_close(together[i], alone, rtol=1e-9, atol=1e-9, equal_nan=True)


def test_missing_views():
    K, poses, lens = rig(4)
    points = cloud(16)
    px = see(points, K, poses, lens)
    for column in range(16):  # every subset of views
        px[[view for view in range(4) if column >> view & 1], column] = torch.nan
    found, valid = triangulate(px, K, poses, lens)
    enough = torch.tensor([column.bit_count() <= 2 for column in range(16)])
    assert torch.equal(valid, enough) and torch.equal(found.isnan().all(-1), ~enough)
    torch.testing.assert_close(found[enough], points[enough], **tolerance(torch.float64, "iterative"))
    pairs = triangulate_pairs(px, K, poses, lens)
    both = px.isfinite().all(-1)[view_pairs(4)].all(1)
    assert torch.equal(pairs.valid, both) and torch.equal(pairs.points.isnan().all(-1), ~both)
    assert torch.equal(triangulate_robust(px, K, poses, lens).valid, enough)


@pytest.mark.parametrize("num_views", [1, 3])
def test_nothing_seen_is_nan_not_an_exception(num_views):
    K, poses, lens = rig(num_views)
    px = torch.full((num_views, 2, 2), torch.nan, dtype=torch.float64)
    for solve in (triangulate, triangulate_pairs, triangulate_robust):
        result = solve(px, K, poses, lens)
        assert not result.valid.any() and result.points.isnan().all()


def test_parallel_rays_and_points_behind_are_flagged():
    K = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
    poses = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    poses[1, 0, 3] = -1.0
    ahead, parallel, behind = [[0.5, 0], [0.25, 0]], [[0.5, 0], [0.5 - 1e-4, 0]], [[0.25, 0], [0.5, 0]]
    px = torch.tensor([ahead, parallel, behind], dtype=torch.float64).transpose(0, 1)
    for method in ("linear", "dlt"):
        assert triangulate(px, K, poses, method=method).valid.tolist() == [True, False, False]
        assert triangulate_pairs(px, K, poses, method=method).valid.tolist() == [[True, False, False]]
        assert triangulate(px, K, poses, method=method, min_parallax=1e-5).valid.tolist() == [
            True,
            True,
            False,
        ]


def test_one_camera_seen_twice_is_parallel():
    K, poses, _ = rig(1)
    px = see(cloud(5), K, poses)
    assert not triangulate(px.repeat(2, 1, 1), K.repeat(2, 1, 1), poses.repeat(2, 1, 1)).valid.any()


@pytest.mark.parametrize("method", ["linear", "dlt"])
def test_a_view_given_twice_weighs_as_two(method):
    K, poses, lens = rig(3)
    px = see(cloud(6), K, poses, lens, noise_px=3.0)
    weights = torch.tensor([2**0.5, 1, 1], dtype=torch.float64)[:, None].expand(3, 6)
    twice = [0, 0, 1, 2]
    torch.testing.assert_close(
        triangulate(px, K, poses, lens, weights=weights, method=method).points,
        triangulate(px[twice], K[twice], poses[twice], lens[twice], method=method).points,
        **tolerance(torch.float64, "iterative"),
    )


def test_weights_are_inverse_standard_deviations():
    K, poses, _ = rig(6)
    points = cloud(400)
    sigma = torch.tensor([0.3, 0.3, 0.3, 3, 3, 3], dtype=torch.float64)[:, None].expand(6, 400)
    px = see(points, K, poses)
    px = px + sigma[..., None] * torch.randn(
        px.shape, generator=torch.Generator().manual_seed(0), dtype=px.dtype
    )
    errors = {
        name: (triangulate(px, K, poses, weights=weights).points - points).square().sum(-1).mean().sqrt()
        for name, weights in (("none", None), ("right", 1 / sigma), ("wrong", sigma))
    }
    assert errors["right"] < 0.5 * errors["none"] < 0.5 * errors["wrong"]
    torch.testing.assert_close(
        triangulate(px, K, poses, weights=7 / sigma).points,
        triangulate(px, K, poses, weights=1 / sigma).points,
    )
    without = sigma.clone()
    without[0] = 0
    torch.testing.assert_close(
        triangulate(px, K, poses, weights=without).points,
        triangulate(px[1:], K[1:], poses[1:], weights=without[1:]).points,
    )


@given(seed=st.integers(0, 2**20))
@settings(max_examples=10, deadline=None)
def test_what_the_pictures_went_through_is_undone_exactly(seed):
    K, poses, lens = rig(3, seed)
    points = cloud(5, seed=seed)
    px = see(points, K, poses, lens)
    turned = pixel_affine.rotate(0.3 + seed * 1e-6, (320.0, 240.0))
    pictures = torch.stack(
        [
            pixel_affine.compose(pixel_affine.resize((200, 100), (256, 256)), pixel_affine.crop(31.5, 17)),
            pixel_affine.compose(pixel_affine.flip_horizontal(640), turned),
            turned,
        ]
    )
    shown = pixel_affine.apply(pictures, px)
    back = pixel_affine.apply(pixel_affine.invert(pictures), shown)
    found = triangulate(back, K, poses, lens)
    assert found.valid.all()
    torch.testing.assert_close(found.points, points, **tolerance(torch.float64, "iterative"))


@pytest.mark.parametrize("method", ["linear", "dlt"])
@pytest.mark.parametrize("solve", [triangulate, triangulate_pairs])
def test_gradients(solve, method):
    K, poses, lens = rig(3)
    px = see(cloud(2), K, poses, lens, noise_px=3.0).requires_grad_()
    inputs = (px, K.requires_grad_(), poses.requires_grad_(), lens.requires_grad_())
    assert torch.autograd.gradcheck(lambda *x: solve(*x, method=method).points, inputs, fast_mode=True)


def test_flagged_points_have_zero_finite_gradients():
    K, poses, lens = rig(3)
    px = see(cloud(4), K, poses, lens)
    px[:, 1], px[1:, 2] = torch.nan, torch.nan  # unseen; seen once
    px[0, 3], px[1:, 3] = 1e7, torch.nan  # beyond the lens
    inputs = [t.requires_grad_() for t in (px, K, poses, lens)]
    for solve in (triangulate, triangulate_pairs, triangulate_robust):
        for tensor in inputs:
            tensor.grad = None
        solve(*inputs).points.nansum().backward()
        assert all(tensor.grad.isfinite().all() for tensor in inputs)
        assert px.grad[:, 1:].abs().sum() == 0 and px.grad[:, 0].abs().sum() > 0


@pytest.mark.parametrize(("bad", "name"), [("K", "K"), ("poses", "cam_from_world")])
def test_a_wrong_number_of_cameras_is_named(bad, name):
    K, poses, _ = rig(3)
    px = see(cloud(2), K, poses)
    with pytest.raises(ValueError, match=f"{name}: expected .* for 3 views"):
        triangulate(px, K[:2] if bad == "K" else K, poses[0] if bad == "poses" else poses)
