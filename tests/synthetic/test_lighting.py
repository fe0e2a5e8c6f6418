from __future__ import annotations

import numpy as np
import pytest
import torch

from sightline.geometry.cameras import Camera
from sightline.geometry.poses import look_at, make_pose
from sightline.records import TriangleMesh
from sightline.rendering import PreparedMesh, render_scene
from sightline.synthetic.lighting import LightSettings, cast_shadows, draw_lights
from sightline.synthetic.shapes import box


def block(size: tuple[float, float, float]) -> TriangleMesh:
    surface = box(size, cells=2)
    return TriangleMesh(torch.from_numpy(surface.vertices), torch.from_numpy(surface.faces))


def test_a_post_throws_its_shadow_away_from_the_lamp():
    # a post 0.2 m high on a floor, seen from straight above; the lamp stands at 45 degrees over +x
    camera = Camera.from_focal(300.0, 240, 240)
    cam_from_world = look_at(
        torch.tensor([0.0, 0.0, 1.5]).double(), up=torch.tensor([0.0, 1.0, 0.0]).double()
    )
    meshes = [block((0.04, 0.04, 0.2)), block((2.0, 2.0, 0.02))]
    heights = torch.tensor([[0.0, 0.0, 0.1], [0.0, 0.0, -0.01]]).double()
    poses = cam_from_world @ make_pose(torch.eye(3).double().expand(2, 3, 3), heights)
    drawn = render_scene(meshes, poses, camera.K, camera.image_size, outputs=("depth", "normals"))
    lamp = cam_from_world[:3, :3] @ torch.tensor([1.0, 0.0, 1.0]).double()
    shade = cast_shadows(
        [PreparedMesh(meshes[0])], poses[:1], drawn.depth[0], drawn.normals[0], camera, lamp, softness_px=0.5
    )

    def at(x: float, y: float) -> float:
        point = cam_from_world[:3, :3] @ torch.tensor([x, y, 0.0]).double() + cam_from_world[:3, 3]
        column, row = camera.project(point).round().int().tolist()
        return float(shade[row, column])

    assert at(-0.1, 0.0) > 0.9
    assert at(-0.17, 0.0) > 0.9  # the shadow is as long as the post is high
    assert at(-0.3, 0.0) == 0
    assert at(0.1, 0.0) == 0
    assert at(-0.1, 0.1) == 0
    assert shade[:, : shade.shape[1] // 4].max() == 0


def test_the_lamp_is_never_among_the_objects():
    camera = Camera.from_focal(300.0, 96, 96)
    poses = torch.eye(4).double().repeat(2, 1, 1)
    poses[:, :3, 3] = torch.tensor(
        [[-6.0, 0.0, 20.0], [6.0, 0.0, 20.0]]
    )  # farther apart than the lamp is away
    posts = [PreparedMesh(block((0.5, 0.5, 0.5))) for _ in range(2)]
    drawn = render_scene(posts, poses, camera.K, camera.image_size, outputs=("depth", "normals"))
    shade = cast_shadows(
        posts, poses, drawn.depth[0], drawn.normals[0], camera, torch.tensor([0.0, -1.0, 0.0]).double()
    )
    assert np.isfinite(shade).all()
    assert 0 <= shade.min() <= shade.max() <= 1


@pytest.mark.parametrize("seed", range(6))
def test_lamps_shine_from_above_and_never_burn_out(seed: int):
    settings = LightSettings()
    free = draw_lights(np.random.default_rng(seed), settings, None)
    assert 1 <= len(free.positions) <= 3
    assert (free.positions[:, 1] < 0).all()  # y runs down
    assert (free.positions[:, 3] == 0).all()
    total = np.array(free.ambient) + free.colors.sum(0).numpy()
    assert (total < 1.35).all()
    assert float(free.colors[0].mean()) == float(free.colors.mean(1).max())
    upside = np.eye(4)
    upside[:3, :3] = np.diag([1.0, -1.0, -1.0])  # the camera looks straight down on the table
    table = draw_lights(np.random.default_rng(seed), settings, upside)
    assert (table.positions[:, 2] < 0).all()
