from __future__ import annotations

import functools

import cv2
import numpy as np
import pytest
import torch
import trimesh

from sightline.geometry.poses import look_at
from sightline.rendering import Lights, render_views
from sightline.synthetic import OBJECT_KINDS, SyntheticObject, make_lookalike, make_object

make = functools.cache(make_object)
CASES = [(kind, texture) for kind in OBJECT_KINDS for texture in ("rich", "low")]
PLAIN = Lights(ambient=(1.0, 1.0, 1.0))


def view(thing: SyntheticObject, cam_from_obj: torch.Tensor, size: int = 160) -> np.ndarray:
    K = torch.tensor([[2.2 * size, 0, (size - 1) / 2], [0, 2.2 * size, (size - 1) / 2], [0, 0, 1.0]]).double()
    result = render_views(thing.prepared, cam_from_obj[None], K, (size, size), outputs=("color",), samples=2)
    return result.color[0].numpy()


def pose_from(direction: tuple[float, float, float], thing: SyntheticObject) -> torch.Tensor:
    towards = torch.nn.functional.normalize(torch.tensor(direction).double(), dim=0)
    return look_at(towards * 2.6 * thing.mesh.diameter)


@pytest.mark.parametrize(("kind", "texture"), CASES)
def test_objects_are_whole_household_things(kind: str, texture: str):
    for seed in (0, 1):
        thing = make(kind, seed, texture=texture)
        mesh = thing.mesh
        solid = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)
        assert solid.is_watertight
        assert all(part.volume > 0 for part in solid.split())
        assert 0.05 < mesh.diameter < 0.32
        assert 500 <= len(mesh.faces) <= 6000
        assert torch.allclose(mesh.bounds.sum(0), torch.zeros(3).double(), atol=1e-9)
        assert mesh.texture is not None
        assert mesh.uv is not None
        assert 0 <= float(mesh.uv.min()) <= float(mesh.uv.max()) <= 1


@pytest.mark.parametrize(("kind", "texture"), CASES)
def test_the_same_seed_gives_the_same_bytes(kind: str, texture: str):
    first, again = make(kind, 0, texture=texture), make_object(kind, 0, texture=texture)
    for name in ("vertices", "faces", "uv", "texture"):
        assert torch.equal(getattr(first.mesh, name), getattr(again.mesh, name))
    other = make(kind, 1, texture=texture)
    assert other.name != first.name
    assert abs(other.mesh.diameter - first.mesh.diameter) > 1e-6


@pytest.mark.parametrize(("kind", "texture"), CASES)
def test_symmetries_look_the_same(kind: str, texture: str):
    for seed in range(3):
        thing = make(kind, seed, texture=texture)
        pose = pose_from((0.6, -1.0, 0.5), thing)
        straight = view(thing, pose, 96).astype(float)
        motions = thing.symmetries.transforms(step_rad=2.0)
        assert texture == "low" or len(motions) == 1
        for motion in motions[1:]:
            assert np.abs(view(thing, pose @ motion, 96) - straight).mean() < 1.0


def test_plain_objects_have_every_kind_of_symmetry():
    groups = [make(kind, seed, texture="low").symmetries for kind in OBJECT_KINDS for seed in range(5)]
    assert any(group.axis is not None and len(group.discrete) == 2 for group in groups)  # can
    assert any(group.axis is not None and len(group.discrete) == 1 for group in groups)  # bottle
    assert any(group.axis is None and len(group.discrete) == 4 for group in groups)  # box
    assert sum(len(group.transforms()) == 1 for group in groups) > len(groups) / 2


@pytest.mark.parametrize("kind", ["box", "can", "bottle", "knob"])
def test_without_known_symmetry_a_half_turn_is_seen(kind: str):
    thing = next(t for s in range(9) if len((t := make(kind, s, texture="low")).symmetries.transforms()) == 1)
    pose, turn = pose_from((0.6, -1.0, 0.5), thing), torch.diag(torch.tensor([-1.0, -1, 1, 1])).double()
    assert np.abs(view(thing, pose).astype(float) - view(thing, pose @ turn)).mean() > 1.0


def test_prints_are_not_mirrored():
    # the front of a box, seen head-on, is the panel's picture in the atlas and not its mirror image
    thing = make("box", 1)
    seen = view(thing, pose_from((0.0, -1.0, 0.0), thing), 220)
    background = (seen == 0).all(-1)
    rows, columns = np.flatnonzero(~background.all(1)), np.flatnonzero(~background.all(0))
    front = seen[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean(-1)
    faces = (thing.mesh.vertices[thing.mesh.faces][..., 1] < thing.mesh.bounds[0, 1] + 1e-9).all(-1)
    texture = thing.mesh.texture.numpy()
    uv = thing.mesh.uv[faces].reshape(-1, 2).numpy() * texture.shape[1::-1]
    (left, top), (right, bottom) = np.round(uv.min(0)).astype(int), np.round(uv.max(0)).astype(int)
    panel = cv2.resize(texture[top:bottom, left:right], front.shape[::-1], interpolation=cv2.INTER_AREA)
    panel = panel.mean(-1)
    agreement = [np.corrcoef(front.ravel(), p.ravel())[0, 1] for p in (panel, panel[:, ::-1], panel[::-1])]
    assert agreement[0] > 0.9
    assert max(agreement[1:]) < 0.7


def test_rich_objects_have_corners_and_low_ones_do_not():
    detector = cv2.SIFT_create()
    counts = {"rich": [], "low": []}
    for kind, texture in CASES:
        thing = make(kind, 0, texture=texture)
        picture = view(thing, pose_from((0.5, -1.0, 0.4), thing), 224)
        counts[texture].append(len(detector.detect(picture, None)))
    assert min(counts["rich"]) > 40
    assert np.median(counts["low"]) < 0.3 * np.median(counts["rich"])


@pytest.mark.parametrize(("kind", "texture"), CASES)
def test_lookalikes_share_shape_and_differ_in_print(kind: str, texture: str):
    original = make(kind, 0, texture=texture)
    other = make_lookalike(original, 77)
    assert torch.equal(original.mesh.vertices, other.mesh.vertices)
    assert original.name != other.name
    pose = pose_from((0.5, -1.0, 0.4), original)
    pictures = [view(thing, pose).astype(float) for thing in (original, other)]
    assert np.abs(pictures[0] - pictures[1]).mean() > 1.5
    assert ((pictures[0] > 0).any(-1) == (pictures[1] > 0).any(-1)).mean() > 0.99


def test_unknown_kinds_and_textures_are_refused():
    with pytest.raises(ValueError, match=r"kind: expected one of box, can.*got 'vase'"):
        make_object("vase", 0)
    with pytest.raises(ValueError, match="texture: expected 'rich' or 'low', got 'medium'"):
        make_object("box", 0, texture="medium")
