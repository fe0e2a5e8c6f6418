"""Rigid transforms: group laws, batches, the look-at camera."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.geometry.poses import compose, invert, look_at, make_pose, relative, split_pose, transform
from sightline.geometry.rotations import random_rotations
from tests.tolerances import tolerance

seeds = st.integers(0, 2**31 - 1)
EXACT = tolerance(torch.float64)


def random_poses(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    t = torch.randn((*shape, 3), generator=generator, dtype=torch.float64)
    return make_pose(random_rotations(shape, generator=generator), t)


def test_a_pose_written_out():
    quarter_turn = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    b_from_a = make_pose(quarter_turn, torch.tensor([1.0, 2.0, 3.0]))
    assert b_from_a.tolist() == [[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]]
    moved = transform(b_from_a, torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    assert moved.tolist() == [[1, 3, 3], [0, 2, 3]]
    assert transform(invert(b_from_a), moved).tolist() == [[1, 0, 0], [0, 1, 0]]


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_group_laws(seed):
    c_from_b, b_from_a = random_poses((2, 4), seed)
    points = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    twice = transform(c_from_b, transform(b_from_a, points))
    torch.testing.assert_close(transform(compose(c_from_b, b_from_a), points), twice, **EXACT)
    torch.testing.assert_close(
        compose(b_from_a, invert(b_from_a)), torch.eye(4).double().expand(4, 4, 4), **EXACT
    )
    torch.testing.assert_close(invert(b_from_a), torch.linalg.inv(b_from_a), **EXACT)
    c_from_a = compose(c_from_b, b_from_a)
    torch.testing.assert_close(relative(invert(b_from_a), c_from_b), c_from_a, **EXACT)


def test_parts_and_broadcasting():
    poses = random_poses((2, 3), 5)
    R, t = split_pose(poses)
    assert torch.equal(make_pose(R, t), poses)
    broadcast = make_pose(R[0, 0], t)
    assert broadcast.shape == (2, 3, 4, 4)
    assert torch.equal(broadcast[1, 2], make_pose(R[0, 0], t[1, 2]))
    points = torch.arange(21, dtype=torch.float64).reshape(7, 3)
    many = transform(poses, points)
    assert many.shape == (2, 3, 7, 3)
    torch.testing.assert_close(many[1, 0], transform(poses[1, 0], points), **EXACT)
    assert compose(poses, poses[0, 0], poses[:, :1]).shape == (2, 3, 4, 4)


def test_compose_needs_something():
    with pytest.raises(ValueError, match="at least one transform"):
        compose()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_look_at_sees_target_in_the_centre_and_up_upwards(dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    eye, target, up = torch.randn(3, 50, 3, generator=generator, dtype=dtype)
    cam_from_world = look_at(eye, target, up)
    points = torch.stack([eye, target, target + up / up.norm(dim=-1, keepdim=True)], dim=-2)
    at_eye, at_target, above = transform(cam_from_world, points).unbind(-2)
    bound = 1e-3 if dtype == torch.float32 else 1e-10
    distance = (target - eye).norm(dim=-1)
    assert at_eye.abs().max() < bound
    assert (at_target[:, :2].abs().amax(-1) / distance).max() < bound
    assert torch.allclose(at_target[:, 2], distance, rtol=bound, atol=bound)
    assert above[:, 0].abs().max() < bound  # straight up: x unchanged ...
    assert (above[:, 1] <= bound).all()  # ... and y, which points down, negative
    R = cam_from_world[:, :3, :3]
    assert (torch.linalg.det(R) - 1).abs().max() < bound


def test_look_at_at_the_poles():
    eyes = torch.tensor([[0.0, 0.0, 2.0], [0.0, 0.0, -2.0], [1e-9, 0.0, 2.0]], dtype=torch.float64)
    cam_from_world = look_at(eyes)
    R = cam_from_world[:, :3, :3]
    torch.testing.assert_close(R @ R.mT, torch.eye(3).double().expand(3, 3, 3), **EXACT)
    # from above +y stands in for up, and so does it from below
    assert torch.allclose(R[:, 1], torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64), atol=1e-8)
    along_y = look_at(torch.tensor([0.0, 3.0, 0.0]), up=torch.tensor([0.0, 1.0, 0.0]))
    assert torch.linalg.det(along_y[:3, :3]) == pytest.approx(1.0)
    assert along_y[1, :3].tolist() == [-1.0, 0.0, 0.0]


def test_look_at_itself_is_not_a_pose():
    eye = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 1.0]])
    cam_from_world = look_at(eye, eye[:1])
    assert cam_from_world[0, :3].isnan().all()
    assert cam_from_world[1].isfinite().all()


def test_gradients():
    generator = torch.Generator().manual_seed(0)
    R = random_rotations(2, generator=generator).requires_grad_()
    t, points, eye = torch.randn(3, 2, 3, generator=generator, dtype=torch.float64).requires_grad_().unbind()
    assert torch.autograd.gradcheck(lambda R, t, p: transform(invert(make_pose(R, t)), p), (R, t, points))
    assert torch.autograd.gradcheck(look_at, (eye, t, points))
