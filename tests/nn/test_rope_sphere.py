from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.geometry.rotations import exp
from sightline.geometry.viewpoints import icosphere_directions, view_direction
from sightline.nn.rope import S2RoPE, sphere_split
from tests.tolerances import tolerance

# fmt: off
_COMPAT = [
    5.0000000, 1.3413479, 0.3598428, 0.0965349, 0.0258974, 0.0069475, 0.0018638, 3.0000000,
    0.8048087, 0.2159057, 0.0579209, 0.0155384, 0.0041685, 0.0011183, 1.0701416, 0.7531513,
    0.0075315, 2.0714510, -0.7531513, -0.0075315, 0.8762981, -0.8960554, -0.0089606, 2.2652946,
    0.8960554, 0.0089606, 0.9272952, 0.0000000, 0.0000000, 2.2142974, 0.0000000, 0.0000000,
]
# fmt: on


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _directions(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.nn.functional.normalize(_random(*shape, 3, seed=seed), dim=-1)


def _kernel(rope: S2RoPE, directions, reference, up=None) -> torch.Tensor:
    """Score of equal tokens seen from each two directions, pair by pair of channels; 1 for the same."""
    phases = rope.sphere_phases(directions, reference, up)
    return (phases[..., :, None, :] - phases[..., None, :, :]).cos()


def _published_phases(place, d, r, px=7, py=7, ps=3):
    """The published definition, token by token, in plain Python."""

    def dot(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True))

    def cross(a, b):
        return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])

    def frame(axis):
        world = (0.0, 0.0, 1.0) if abs(axis[2]) < 0.9 else (0.0, 1.0, 0.0)
        first = [w - dot(world, axis) * a for w, a in zip(world, axis, strict=True)]
        first = [f / math.sqrt(dot(first, first)) for f in first]
        return first, cross(axis, first)

    phases = [place[1] / 1e4 ** (i / px) for i in range(px)] + [place[0] / 1e4 ** (i / py) for i in range(py)]
    e1, e2 = frame(r)
    for axis in (r, e1, e2):
        for sign in (1, -1):
            c = [sign * a for a in axis]
            gamma = math.acos(dot(d, c))
            tangent = [x - dot(d, c) * y for x, y in zip(d, c, strict=True)]
            v, w = frame(c)
            phi = math.atan2(dot(tangent, w), dot(tangent, v))
            phases += [gamma / 1e4 ** (i / (ps // 2)) for i in range(ps // 2)]
            phases += [phi / 1e4 ** (i / (ps - ps // 2)) for i in range(ps - ps // 2)]
    return phases


def test_compat_equals_the_published_definition():
    rope = S2RoPE(64, mode="compat")
    directions, references = _directions(40, seed=1), _directions(40, seed=2)
    places = torch.randint(0, 14, (40, 1, 2), generator=torch.Generator().manual_seed(3))
    found = rope.phases(places, directions, references)
    expected = [
        _published_phases(p[0].tolist(), d.tolist(), r.tolist())
        for p, d, r in zip(places, directions, references, strict=True)
    ]
    torch.testing.assert_close(found[:, 0], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-9)


def test_compat_numbers_stay():
    """Printed by ``_published_phases((3, 5), (0.6, 0, 0.8), (0, 0.8, 0.6))``, rounded."""
    direction, reference = torch.tensor([0.6, 0.0, 0.8]), torch.tensor([0.0, 0.8, 0.6])
    phases = S2RoPE(64, mode="compat").phases(torch.tensor([[3, 5]]), direction.double(), reference.double())
    expected = torch.tensor(_COMPAT, dtype=torch.float64)
    torch.testing.assert_close(phases[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["fixed", "compat"])
@pytest.mark.parametrize("split", [(7, 7, 3), (10, 10, 2), (13, 13, 1)])
def test_published_splits(mode, split):
    rope = S2RoPE(64, *split, mode=mode)
    up = _directions(2, seed=4)
    phases = rope.phases(torch.zeros(2, 5, 2), _directions(2), _directions(2, seed=5), up)
    assert phases.shape == (2, 5, 32)
    assert phases.isfinite().all()


def test_channels_must_add_up():
    with pytest.raises(ValueError, match=r"head_dim = 64, got 2 \(8 \+ 8 \+ 6 \* 2\) = 56"):
        S2RoPE(64, 8, 8, 2)
    with pytest.raises(ValueError, match="expected fixed or compat, got 'both'"):
        S2RoPE(mode="both")
    with pytest.raises(ValueError, match="at least 16, got 12"):
        sphere_split(12)
    with pytest.raises(ValueError, match="needs a direction of the reference camera"):
        S2RoPE().sphere_phases(torch.eye(3), torch.eye(3))


@pytest.mark.parametrize("head_dim", range(16, 132, 4))
def test_every_width_has_a_split(head_dim):
    px, py, ps = sphere_split(head_dim)
    assert S2RoPE(head_dim, px, py, ps).head_dim == head_dim


def test_zero_phases_are_no_rotation_and_norms_are_kept():
    rope, x = S2RoPE(64), _random(2, 3, 5, 64)
    assert torch.equal(rope.rotate(x, torch.zeros(2, 5, 32)), x)
    out = rope.rotate(x, _random(2, 5, 32, seed=1))
    torch.testing.assert_close(out.norm(dim=-1), x.norm(dim=-1), **tolerance(torch.float64))


def test_scores_depend_on_differences_of_phases():
    rope, (q, k) = S2RoPE(64), _random(2, 5, 64)
    a, b, shift = _random(3, 5, 32, seed=1)
    shift = shift[:1]
    scores = rope.rotate(q, a) @ rope.rotate(k, b).mT
    torch.testing.assert_close(
        scores, rope.rotate(q, a + shift) @ rope.rotate(k, b + shift).mT, **tolerance(torch.float64)
    )
    torch.testing.assert_close(
        (rope.rotate(q, a) * rope.rotate(k, a)).sum(-1), (q * k).sum(-1), **tolerance(torch.float64)
    )


def test_the_inverse_rotation_is_the_transpose():
    rope, x, phases = S2RoPE(64), _random(5, 64), _random(5, 32, seed=1)
    torch.testing.assert_close(rope.rotate(rope.rotate(x, phases), -phases), x, **tolerance(torch.float64))
    y = _random(5, 64, seed=2)
    torch.testing.assert_close(
        (rope.rotate(x, phases) * y).sum(), (x * rope.rotate(y, -phases)).sum(), **tolerance(torch.float64)
    )


def test_gradient():
    rope = S2RoPE(16, *sphere_split(16))
    x, phases = _random(2, 3, 4, 16).requires_grad_(), _random(2, 4, 8, seed=1).requires_grad_()
    rope_mask = torch.tensor([[True, True, False, True]]).expand(2, 4)
    assert torch.autograd.gradcheck(lambda x, phases: rope.rotate(x, phases, rope_mask), (x, phases))


def test_pairs_are_neighbours():
    phases, x = torch.zeros(1, 32), torch.zeros(1, 64)
    phases[0, 3], x[0, 6] = math.pi / 2, 1.0
    expected = torch.zeros(1, 64)
    expected[0, 7] = 1.0
    torch.testing.assert_close(S2RoPE(64).rotate(x, phases), expected)


def test_masked_tokens_are_bit_identical_strides_do_not_matter_and_nothing_is_in_place():
    rope = S2RoPE(64)
    stored = _random(2, 6, 3, 64).float()
    x, before = stored.transpose(1, 2), stored.clone()
    phases = _random(2, 6, 32, seed=1).float()
    rope_mask = torch.rand(2, 6, generator=torch.Generator().manual_seed(2)) < 0.5
    out = rope.rotate(x, phases, rope_mask)
    kept = ~rope_mask[:, None].expand(2, 3, 6)
    assert torch.equal(out[kept], x[kept])
    assert not torch.allclose(out[~kept], x[~kept])
    assert torch.equal(stored, before)
    assert torch.equal(out, rope.rotate(x.contiguous(), phases, rope_mask))
    assert torch.equal(rope.rotate(x, phases, torch.zeros_like(rope_mask)), x)


def test_bfloat16_rounds_once():
    rope, x = S2RoPE(64), _random(3, 5, 64).bfloat16()
    phases = _random(5, 32, seed=1).float() * 10
    out = rope.rotate(x, phases)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, rope.rotate(x.float(), phases).bfloat16())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_fixed_does_not_know_the_frame_of_the_object(seed):
    rope = S2RoPE(64)
    views, reference, up = _directions(9, seed=seed), _directions(seed=seed + 1), _directions(seed=seed + 2)
    turn = exp(3 * _random(3, seed=seed + 3))
    here = rope.sphere_phases(views, reference, up)
    there = rope.sphere_phases(views @ turn.mT, turn @ reference, turn @ up)
    torch.testing.assert_close(here, there, rtol=0, atol=1e-9)
    single = _kernel(rope, (views @ turn.mT).float(), (turn @ reference).float(), (turn @ up).float())
    torch.testing.assert_close(_kernel(rope, views, reference, up), single.double(), rtol=0, atol=1e-5)


def test_compat_knows_the_frame_of_the_object():
    rope = S2RoPE(64, mode="compat")
    views, reference, turn = _directions(9), _directions(seed=1), exp(_random(3, seed=2))
    moved = _kernel(rope, views @ turn.mT, turn @ reference)
    assert (moved - _kernel(rope, views, reference)).abs().max() > 0.1


@pytest.mark.parametrize(("mode", "continuous"), [("fixed", True), ("compat", False)])
def test_continuity_around_the_reference(mode, continuous):
    """Views on a small ring around d_ref, which is always a template itself."""
    rope = S2RoPE(64, mode=mode)
    reference, up = _directions(seed=5), _directions(seed=6)
    across = torch.nn.functional.normalize(torch.linalg.cross(reference, up), dim=-1)
    angle = 2e-4
    ring = [exp(reference * t) @ exp(across * angle) @ reference for t in torch.linspace(0, 6, 25).tolist()]
    views = torch.stack([reference, *ring])
    phases = rope.sphere_phases(views, reference, up)
    assert bool((phases[1:] - phases[:1]).abs().max() < 5 * angle) == continuous
    assert bool((1 - _kernel(rope, views, reference, up)).max() < angle) == continuous


@pytest.mark.parametrize(("mode", "continuous"), [("fixed", True), ("compat", False)])
def test_continuity_where_the_published_frame_changes_its_axis(mode, continuous):
    """The reference crosses |z . r| = 0.9 by 0.03 degrees, and its camera with it."""
    rope = S2RoPE(64, mode=mode)
    views, step = _directions(30, seed=7), math.radians(0.03)
    tilt = math.acos(0.9)
    kernels = []
    for angle in (tilt - step / 2, tilt + step / 2):
        R = _camera(angle)
        kernels.append(_kernel(rope, views, view_direction(R), -R[1]))
    assert bool((kernels[0] - kernels[1]).abs().max() < 10 * step) == continuous


def _camera(tilt: float) -> torch.Tensor:
    """Stands ``tilt`` from world z and sees it upwards."""
    across = torch.tensor([0.8, 0.6, 0.0], dtype=torch.float64)
    towards = math.sin(tilt) * across + math.cos(tilt) * torch.eye(3, dtype=torch.float64)[2]
    right = torch.tensor([-0.6, 0.8, 0.0], dtype=torch.float64)
    return torch.stack([right, torch.linalg.cross(-towards, right), -towards])


def test_fixed_is_lipschitz_everywhere():
    """Even at poles and antipodes of all six faces, and where an azimuth goes through 180 degrees."""
    rope = S2RoPE(64)
    R = exp(_random(3, seed=8))
    reference, up = view_direction(R), -R[1]
    starts = torch.cat([icosphere_directions(642), R, -R, _directions(300, seed=9)])
    step = 1e-4
    ends = torch.nn.functional.normalize(starts + step * _directions(len(starts), seed=10), dim=-1)
    change = rope.sphere_phases(starts, reference, up) - rope.sphere_phases(ends, reference, up)
    assert change.abs().max() < 4.01 * step


def test_fixed_tells_all_templates_apart():
    rope = S2RoPE(64)
    views = icosphere_directions(162)
    kernel = _kernel(rope, views, views[14], torch.tensor([0.1, 0.9, 0.2], dtype=torch.float64)).mean(-1)
    kernel.fill_diagonal_(-1)
    assert kernel.max() < 0.97
    assert kernel.min() < 0


def test_the_turn_of_the_picture_is_not_a_view():
    R = exp(_random(3, seed=11))
    spun = exp(torch.tensor([0.0, 0.0, 1.3], dtype=torch.float64)) @ R
    torch.testing.assert_close(view_direction(R), view_direction(spun))
    centre = -R.mT @ torch.tensor([0.0, 0.0, 0.7], dtype=torch.float64)
    torch.testing.assert_close(view_direction(R), centre / centre.norm())


def test_reference_of_a_batch_serves_all_its_pictures():
    rope = S2RoPE(64)
    directions, reference, up = _directions(2, 5), _directions(2, seed=1), _directions(2, seed=2)
    places = torch.zeros(2, 5, 3, 2, dtype=torch.int64)
    together = rope.phases(places, directions, reference, up)
    alone = rope.phases(places[1, 4], directions[1, 4], reference[1], up[1])
    torch.testing.assert_close(together[1, 4], alone)
    per_token = rope.phases(places, directions[:, :, None].expand(2, 5, 3, 3), reference, up)
    torch.testing.assert_close(together, per_token)
    x = _random(2, 5, 4, 3, 64)
    torch.testing.assert_close(rope(x, places, directions, reference, up), rope.rotate(x, together))
