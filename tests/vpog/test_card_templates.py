from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sightline.geometry.cameras import unproject
from sightline.geometry.depth import pixel_grid
from sightline.geometry.poses import invert, look_at, make_pose, transform
from sightline.geometry.rotations import exp
from sightline.geometry.symmetry import SymmetryGroup
from sightline.objects.card import ObjectCard, Template
from sightline.objects.onboard import onboard_mesh
from sightline.records import TriangleMesh
from sightline.rendering import render_views
from sightline.synthetic.pose_views import PoseViewSettings, sphere_camera
from sightline.vpog.card_templates import frame_templates, object_radius
from tests.printed_box import printed_box

SIZE = 64


def shifted_box() -> TriangleMesh:
    """A box whose middle is not its origin."""
    mesh = printed_box()
    return replace(mesh, vertices=mesh.vertices + torch.tensor([0.1, -0.05, 0.02], dtype=torch.float64))


@pytest.fixture(scope="module")
def card() -> ObjectCard:
    return onboard_mesh(
        shifted_box(), name="box", num_views=42, template_size=224, symmetries=SymmetryGroup.none()
    )


def photo_of(card: ObjectCard) -> ObjectCard:
    """A card of one photograph: rolled, from near, the object beside the middle."""
    roll = exp(torch.tensor([0.12, -0.2, 1.9], dtype=torch.float64))
    eye = card.center + torch.tensor([0.2, -0.25, 0.2], dtype=torch.float64)
    pose = make_pose(roll, torch.zeros(3, dtype=torch.float64)) @ look_at(eye, card.center)
    K = torch.tensor([[700.0, 0, 300], [0, 690, 250], [0, 0, 1]], dtype=torch.float64)
    drawn = render_views(card.mesh, pose[None], K, (640, 480), background=(90, 200, 90))
    photo = Template(drawn.color[0], drawn.mask[0], drawn.depth[0], K, pose, source="photo")
    return replace(card, templates=(photo,))


@pytest.mark.parametrize("kind", ["render", "photo"])
def test_framed_templates_are_what_training_draws(card, kind):
    """Drawn anew with the framed camera the object has the same colours and the same depth."""
    given = card if kind == "render" else photo_of(card)
    framed = frame_templates(given, SIZE)
    size = (SIZE, SIZE)
    drawn = render_views(card.mesh, framed.cam_from_obj, framed.K, size, samples=2)
    for number in range(0, len(framed.K), 7):
        both = drawn.mask[number] & (framed.depth[number] > 0)
        assert both.sum() > 0.93 * drawn.mask[number].sum()
        assert (framed.depth[number] > 0).sum() < 1.07 * drawn.mask[number].sum()
        far = (drawn.depth[number] - framed.depth[number])[both].abs()
        assert float(far.quantile(0.95)) < 0.01 * card.diameter
        if kind == "render":  # lamps and shading are those of the card
            colors = drawn.color[number].permute(2, 0, 1) / 255
            apart = (colors - framed.pictures[number]).abs().mean(0)[both]
            assert float(apart.median()) < 0.1
        assert float(framed.pictures[number][:, framed.depth[number] == 0].mean()) < 0.1


def test_framed_cameras_look_at_the_middle_upright_and_fill_the_frame(card):
    for given in (card, photo_of(card)):
        framed = frame_templates(given, SIZE)
        middle = transform(framed.cam_from_obj, card.center.double()[None])[:, 0]
        assert float(middle[:, :2].abs().max()) < 1e-9
        upward = framed.cam_from_obj[:, :3, 2]
        assert float(upward[:, 0].abs().max()) < 1e-9
        assert float(upward[:, 1].max()) < 1e-9
        fill = PoseViewSettings.template_fill
        expected = sphere_camera(object_radius(card), float(middle[0, 2]), SIZE, fill)
        assert torch.allclose(framed.K[0], expected)


def test_points_of_framed_depth_are_the_cards_and_pixels_go_back(card):
    given = photo_of(card)
    framed, photo = frame_templates(given, SIZE), given.templates[0]
    px = pixel_grid(SIZE, SIZE)[framed.depth[0] > 0]
    depth = framed.depth[0][framed.depth[0] > 0].double()
    points = transform(invert(framed.cam_from_obj[0]), unproject(px, depth, framed.K[0]))
    there = photo.camera.project(transform(photo.cam_from_obj, points))
    homogeneous = torch.cat([px, torch.ones_like(px[:, :1])], 1) @ framed.card_from_framed[0].mT
    assert torch.allclose(there, homogeneous[:, :2] / homogeneous[:, 2:], atol=1e-3)
    low, high = card.bounds - card.diameter / 100 * torch.tensor([[1.0], [-1.0]])
    assert ((points >= low) & (points <= high)).all(1).double().mean() > 0.99
