from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import trimesh

from sightline.records import TriangleMesh
from sightline.rendering import Lights, PreparedMesh, render_scene, render_views
from sightline.rendering.normals import corner_normals
from tests.rendering.meshes import (
    ALL_OUTPUTS,
    AT_ORIGIN,
    UNIT_K,
    bumpy,
    camera_matrix,
    cube,
    from_trimesh,
    pixel_rays,
    pixel_rectangle,
    pose,
    random_poses,
    rectangle,
    sphere,
)

BACKENDS = ("numba", "torch")
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def _quadrants(side: int = 32) -> torch.Tensor:
    texture = torch.zeros(side, side, 3, dtype=torch.uint8)
    half = side // 2
    texture[:half, :half], texture[:half, half:] = torch.tensor(RED), torch.tensor(GREEN)
    texture[half:, :half], texture[half:, half:] = torch.tensor(BLUE), torch.tensor(WHITE)
    return texture.to(torch.uint8)


def _noise(height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_texture_is_the_right_way_up_and_round(backend):
    picture = render_views(
        pixel_rectangle(-0.5, -0.5, 39.5, 29.5, _quadrants()), AT_ORIGIN, UNIT_K, (40, 30), backend=backend
    ).color[0]
    assert tuple(picture[4, 5].tolist()) == RED
    assert tuple(picture[4, 34].tolist()) == GREEN
    assert tuple(picture[25, 5].tolist()) == BLUE
    assert tuple(picture[25, 34].tolist()) == WHITE


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_texture_seen_texel_by_pixel_is_the_picture_itself(backend):
    texture = _noise(30, 40)
    picture = render_views(
        pixel_rectangle(-0.5, -0.5, 39.5, 29.5, texture), AT_ORIGIN, UNIT_K, (40, 30), backend=backend
    ).color[0]
    assert torch.equal(picture, texture)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("factor", [2, 4])
def test_a_texture_seen_from_far_is_the_mean_of_its_texels(backend, factor):
    texture = _noise(32, 64)
    picture = render_views(
        pixel_rectangle(-0.5, -0.5, 64 / factor - 0.5, 32 / factor - 0.5, texture),
        AT_ORIGIN,
        UNIT_K,
        (64 // factor, 32 // factor),
        backend=backend,
    ).color[0]
    means = torch.nn.functional.avg_pool2d(texture.permute(2, 0, 1)[None].float(), factor)[0].permute(1, 2, 0)
    assert (picture.float() - means).abs().max() <= 1.1


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_slanted_texture_runs_in_perspective(backend):
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 256, 1).expand(4, 256, 3).contiguous()
    corners = torch.tensor([[-0.5, -0.4, 0.6], [0.5, -0.4, 2.0], [0.5, 0.4, 2.0], [-0.5, 0.4, 0.6]]).double()
    uv, faces = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]]), torch.tensor([[0, 2, 1], [0, 3, 2]])
    mesh = TriangleMesh(corners, faces, uv=uv[faces], texture=ramp)
    K = camera_matrix(80, 96, 48)
    result = render_views(mesh, AT_ORIGIN, K, (96, 48), backend=backend)
    # the plane z = 0.6 + 1.4 (x + 0.5), and u = x + 0.5
    x_by_z = pixel_rays(K, 96, 48)[..., 0]
    z = (0.6 + 0.7) / (1 - 1.4 * x_by_z)
    expected = ((x_by_z * z + 0.5) * 256 - 0.5).clamp(0, 255)
    inside = result.mask[0] & (expected > 3) & (expected < 252)
    assert inside.sum() > 800
    assert (result.color[0, ..., 0].double() - expected)[inside].abs().max() < 1.5


@pytest.mark.parametrize("backend", BACKENDS)
def test_vertex_colors_run_in_perspective(backend):
    corners = torch.tensor([[-0.5, -0.4, 0.6], [0.5, -0.4, 2.0], [0.5, 0.4, 2.0], [-0.5, 0.4, 0.6]]).double()
    colors = torch.tensor([[0.0, 0, 0], [1, 0, 0.5], [1, 1, 0.5], [0, 1, 0]])
    mesh = TriangleMesh(corners, torch.tensor([[0, 2, 1], [0, 3, 2]]), vertex_colors=colors)
    result = render_views(
        mesh, AT_ORIGIN, camera_matrix(80, 96, 48), (96, 48), outputs=ALL_OUTPUTS, backend=backend
    )
    seen = result.mask[0]
    x, y = result.xyz[0, ..., 0], result.xyz[0, ..., 1]
    expected = torch.stack([x + 0.5, (y + 0.4) / 0.8, (x + 0.5) / 2], -1) * 255
    assert seen.sum() > 800
    assert (result.color[0].float() - expected)[seen].abs().max() < 0.51


@pytest.mark.parametrize("backend", BACKENDS)
def test_texture_coordinates_beyond_the_border_repeat_the_texture(backend):
    texture = _noise(8, 8)
    mesh = pixel_rectangle(-0.5, -0.5, 31.5, 23.5, texture)
    tiled = TriangleMesh(
        mesh.vertices,
        mesh.faces,
        uv=mesh.uv * torch.tensor([4.0, 3.0]) - torch.tensor([1.0, 2.0]),
        texture=texture,
    )
    picture = render_views(tiled, AT_ORIGIN, UNIT_K, (32, 24), backend=backend).color[0]
    assert torch.equal(picture, texture.repeat(3, 4, 1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_surrounds_an_island_of_the_texture_does_not_seep_in(backend):
    texture = torch.zeros(256, 256, 3, dtype=torch.uint8)
    texture[64:192, 64:192] = torch.tensor([200, 100, 50], dtype=torch.uint8)
    mesh = pixel_rectangle(-0.5, -0.5, 15.5, 15.5, texture)
    island = TriangleMesh(mesh.vertices, mesh.faces, uv=mesh.uv / 2 + 0.25, texture=texture)
    picture = render_views(island, AT_ORIGIN, UNIT_K, (16, 16), backend=backend).color[0]
    assert picture.view(-1, 3).unique(dim=0).tolist() == [[200, 100, 50]]


def test_a_face_that_uses_one_texel_of_a_palette_has_its_color():
    palette = torch.zeros(16, 16, 3, dtype=torch.uint8)
    palette[5, 9] = torch.tensor([10, 220, 30], dtype=torch.uint8)
    mesh = pixel_rectangle(-0.5, -0.5, 7.5, 7.5, palette)
    swatch = torch.tensor([9.5 / 16, 5.5 / 16]).expand(2, 3, 2)
    picture = render_views(
        TriangleMesh(mesh.vertices, mesh.faces, uv=swatch, texture=palette), AT_ORIGIN, UNIT_K, (8, 8)
    ).color[0]
    assert picture.view(-1, 3).unique(dim=0).tolist() == [[10, 220, 30]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_fine_pattern_on_a_far_slanted_floor_turns_grey_without_aliasing(backend):
    checks = (torch.arange(512)[:, None] // 4 + torch.arange(512) // 4) % 2 * 255
    texture = checks.to(torch.uint8)[..., None].expand(-1, -1, 3).contiguous()
    corners = torch.tensor([[-4.0, 0.3, 9], [4, 0.3, 9], [4, 0.3, 0.2], [-4, 0.3, 0.2]]).double()
    uv, faces = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]]), torch.tensor([[0, 2, 1], [0, 3, 2]])
    floor = TriangleMesh(corners, faces, uv=uv[faces], texture=texture)
    result = render_views(floor, AT_ORIGIN, camera_matrix(60, 96, 96), (96, 96), backend=backend)
    far = result.mask[0] & (result.depth[0] > 6) & (result.depth[0] < 8)
    assert far.sum() > 50
    shades = result.color[0, ..., 0][far].float()
    assert abs(float(shades.mean()) - 127.5) < 3 and shades.std() < 8
    near = result.mask[0] & (result.depth[0] < 0.7)
    assert result.color[0, ..., 0][near].float().std() > 70


@pytest.mark.parametrize("backend", BACKENDS)
def test_samples_mix_object_and_background_by_area(backend):
    picture = render_views(
        pixel_rectangle(2.25, -1, 20, 20),
        AT_ORIGIN,
        UNIT_K,
        (8, 4),
        samples=4,
        background=(20, 20, 20),
        backend=backend,
    ).color[0, 1, :, 0]
    # the object is 180 and covers pixel 2 from 2.25 to 2.5
    assert picture.tolist() == [20, 20, 60, 180, 180, 180, 180, 180]


def test_samples_change_neither_depth_nor_mask():
    args = (bumpy(2000), random_poses(2, 0.25), camera_matrix(150, 64, 64), (64, 64))
    one, four = (render_views(*args, outputs=ALL_OUTPUTS, samples=samples) for samples in (1, 4))
    for name in ("depth", "mask", "xyz", "normals"):
        assert torch.equal(one.layers[name], four.layers[name])
    inside = one.mask & (one.color.int() - four.color.int()).abs().amax(-1).lt(60)
    assert inside.sum() > 0.7 * one.mask.sum()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("samples", [1, 2])
def test_the_background_shows_where_nothing_is(backend, samples):
    background = _noise(48, 64)
    result = render_scene(
        [sphere(0.05, 3)],
        pose((0, 0, 0), (0, 0, 0.4))[None],
        camera_matrix(150, 64, 48),
        (64, 48),
        background=background,
        samples=samples,
        backend=backend,
    )
    seen = result.mask[0]
    touched = torch.nn.functional.max_pool2d(seen[None].float(), 3, 1, 1)[0] > 0
    assert torch.equal(result.color[0][~touched], background[~touched])
    inner = torch.nn.functional.max_pool2d(1 - seen[None].float(), 3, 1, 1)[0] == 0
    assert inner.sum() > 500
    assert (result.color[0][inner] == 180).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_light_follows_lambert(backend):
    plane = rectangle(-1, -1, 1, 1)
    K, size = camera_matrix(20, 16, 16), (16, 16)
    for tilt in (0.0, 0.5, 1.0, 2.0):
        lights = Lights(
            ambient=(0.1, 0.2, 0.3),
            positions=torch.tensor([[math.sin(tilt), 0.0, -math.cos(tilt), 0.0]]),
            colors=torch.tensor([[0.5, 0.4, 0.3]]),
        )
        color = render_views(plane, AT_ORIGIN, K, size, lights=lights, backend=backend).color[0, 8, 8]
        cosine = max(math.cos(tilt), 0)
        expected = [180 * (0.1 + 0.5 * cosine), 180 * (0.2 + 0.4 * cosine), 180 * (0.3 + 0.3 * cosine)]
        assert np.abs(color.numpy() - np.array(expected)).max() <= 0.51


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_point_light_shines_from_its_place_and_a_highlight_is_where_the_mirror_sees_it(backend):
    plane, K, size = rectangle(-2, -2, 2, 2), camera_matrix(40, 64, 64), (64, 64)
    lamp = torch.tensor([[0.4, 0.0, 0.0, 1.0]])
    matt = Lights((0.0, 0.0, 0.0), lamp, torch.ones(1, 3))
    color = render_views(plane, AT_ORIGIN, K, size, lights=matt, backend=backend).color[0].float()
    rays = pixel_rays(K, *size)
    to_lamp = lamp[0, :3].double() - rays
    expected = 180 * -to_lamp[..., 2] / to_lamp.norm(dim=-1)
    assert (color[..., 0] - expected).abs().max() <= 0.51
    glossy = Lights((0.0, 0.0, 0.0), lamp, torch.ones(1, 3), specular=0.2, shininess=200.0)
    shine = render_views(plane, AT_ORIGIN, K, size, lights=glossy, backend=backend).color[0].float() - color
    row, column = divmod(int(shine[..., 0].argmax()), 64)
    # the mirror image of the lamp is at (0.4, 0, 2), halfway to which the ray meets the plane
    assert abs(column - (31.5 + 40 * 0.2)) <= 1 and abs(row - 31.5) <= 1
    assert 45 < shine.max() <= 52


@pytest.mark.parametrize("backend", BACKENDS)
def test_both_sides_of_a_face_are_lit_from_the_viewer_s_side(backend):
    front = rectangle(-1, -1, 1, 1)
    back = TriangleMesh(front.vertices, front.faces.flip(1))
    args = (AT_ORIGIN, camera_matrix(20, 16, 16), (16, 16))
    one, other = (
        render_views(m, *args, outputs=ALL_OUTPUTS, lights=Lights.headlight(), backend=backend)
        for m in (front, back)
    )
    assert torch.equal(one.color, other.color) and torch.equal(one.normals, other.normals)
    assert one.normals[0, 8, 8].tolist() == [0, 0, -1]


def test_bright_light_saturates_and_does_not_wrap_round():
    bright = Lights(ambient=(9.0, 9.0, 9.0))
    for samples in (1, 2):
        color = render_views(
            cube(0.1), random_poses(1, 0.1), camera_matrix(20, 8, 8), (8, 8), lights=bright, samples=samples
        ).color
        assert (color[0, 4, 4] == 255).all()


def test_lights_that_change_nothing_change_nothing():
    args = (bumpy(500), random_poses(1, 0.25), camera_matrix(100, 32, 32), (32, 32))
    assert torch.equal(render_views(*args).color, render_views(*args, lights=Lights()).color)


def test_normals_are_smooth_on_a_ball_and_sharp_on_a_cube():
    ball = sphere(0.05, 3)
    smooth = corner_normals(ball.vertices.numpy(), ball.faces.numpy())
    radial = (ball.vertices / ball.vertices.norm(dim=-1, keepdim=True))[ball.faces].numpy()
    assert (smooth * radial).sum(-1).min() > 0.9995
    box = cube(0.1)
    sharp = corner_normals(box.vertices.numpy(), box.faces.numpy())
    assert np.allclose(np.abs(sharp).max(-1), 1, atol=1e-7)


def test_the_seam_of_a_texture_does_not_show_in_the_normals():
    mesh = bumpy(2000, dents=0.0)
    normals = corner_normals(mesh.vertices.numpy(), mesh.faces.numpy())
    corners = mesh.vertices[mesh.faces]
    at_seam = (corners[..., 1].abs() < 1e-12) & (corners[..., 0] > 1e-3)
    at_seam &= torch.from_numpy(np.abs(normals).sum(-1) > 0)  # the triangles at the poles have no area
    places = corners[at_seam].numpy().round(12)
    order = np.lexsort(places.T)
    places, seen = places[order], normals[at_seam.numpy()][order]
    same = (places[1:] == places[:-1]).all(1)
    assert same.sum() > 50
    assert np.abs(seen[1:] - seen[:-1])[same].max() < 1e-5


def test_a_cylinder_is_smooth_around_and_sharp_at_its_rims():
    mesh = from_trimesh(trimesh.creation.cylinder(radius=0.03, height=0.1, sections=48))
    normals = corner_normals(mesh.vertices.numpy(), mesh.faces.numpy())
    corners = mesh.vertices[mesh.faces].numpy()
    side = np.ptp(corners[..., 2], axis=1) > 0.01
    radial = corners[..., :2] / np.maximum(np.linalg.norm(corners[..., :2], axis=-1, keepdims=True), 1e-12)
    assert (normals[side][..., :2] * radial[side]).sum(-1).min() > 1 - 1e-6
    assert np.allclose(np.abs(normals[~side][..., 2]), 1, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"lights": Lights.headlight()}, {"samples": 2}])
def test_both_backends_draw_the_same_textured_picture(options):
    args = (bumpy(4000), random_poses(2, 0.2, seed=5), camera_matrix(180, 80, 72), (80, 72))
    ours = render_views(*args, outputs=ALL_OUTPUTS, backend="numba", **options)
    theirs = render_views(*args, outputs=ALL_OUTPUTS, backend="torch", **options)
    assert (ours.color.int() - theirs.color.int()).abs().max() <= 1
    for name in ("depth", "mask", "xyz", "normals"):
        torch.testing.assert_close(ours.layers[name], theirs.layers[name], rtol=1e-6, atol=1e-6)


def test_a_prepared_mesh_gives_the_same_picture_and_keeps_its_preparation():
    mesh = bumpy(500)
    args = (random_poses(1, 0.25), camera_matrix(100, 32, 32), (32, 32))
    prepared = PreparedMesh(mesh)
    first = render_views(prepared, *args, lights=Lights.headlight())
    assert prepared.mips is prepared.mips and prepared.normals is prepared.normals
    again = render_views(prepared, *args, lights=Lights.headlight())
    plain = render_views(mesh, *args, lights=Lights.headlight())
    assert torch.equal(first.color, plain.color) and torch.equal(again.color, plain.color)
