from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import Delaunay

from sightline.geometry.intrinsics import flip_intrinsics
from sightline.records import TriangleMesh
from sightline.rendering import render_scene, render_views, torch_backend
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
    sphere,
)

BACKENDS = ("numba", "torch")
GEOMETRY = ("depth", "mask", "xyz", "normals")


@pytest.mark.parametrize("backend", BACKENDS)
def test_depth_of_a_sphere_is_that_of_the_equation(backend):
    radius, K = 0.05, camera_matrix(500, 160, 120)
    center = torch.tensor([0.01, -0.005, 0.4], dtype=torch.float64)
    result = render_views(
        sphere(radius), pose((0.3, 0.2, 0.1), tuple(center.tolist()))[None], K, (160, 120), backend=backend
    )
    rays = pixel_rays(K, 160, 120)
    a, b = (rays * rays).sum(-1), rays @ center
    discriminant = b**2 - a * (center @ center - radius**2)
    exact = (b - discriminant.clamp_min(0).sqrt()) / a
    # clear of the outline, where a facet's error grows without bound along the ray
    clear = (discriminant > 0) & ((rays * exact[..., None] - center).norm(dim=-1) < radius * 1.0001)
    clear &= -((rays * exact[..., None] - center) * rays).sum(-1) / (radius * a.sqrt()) > 0.3
    assert clear.sum() > 4000
    assert (result.depth[0][clear] - exact[clear]).abs().max() < 2e-4
    assert not result.mask[0][discriminant <= 0].any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("distance", [0.4, 0.12, 0.0])
def test_depth_of_a_cube_is_exact_from_outside_near_and_inside(backend, distance):
    half, K, size = 0.05, camera_matrix(100, 96, 80), (96, 80)
    cam_from_obj = pose((0.4, -0.7, 0.2), (0.004, -0.006, distance))
    result = render_views(cube(2 * half), cam_from_obj[None], K, size, outputs=GEOMETRY, backend=backend)
    obj_from_cam = torch.linalg.inv(cam_from_obj)
    rays = pixel_rays(K, *size) @ obj_from_cam[:3, :3].mT
    first, second = (-half - obj_from_cam[:3, 3]) / rays, (half - obj_from_cam[:3, 3]) / rays
    enter = torch.minimum(first, second).amax(-1)
    leave = torch.maximum(first, second).amin(-1)
    exact = torch.where(enter > 0, enter, leave)
    hit = (enter < leave) & (leave > 0)
    sure = (enter - leave).abs() > 1e-9
    assert torch.equal(result.mask[0][sure], hit[sure])
    assert hit.all() == (distance == 0.0)
    torch.testing.assert_close(result.depth[0][hit].double(), exact[hit], rtol=2e-7, atol=0)
    points = obj_from_cam[:3, 3] + rays * exact[..., None]
    torch.testing.assert_close(result.xyz[0][hit].double(), points[hit], rtol=0, atol=1e-8)
    axis = result.normals[0][hit].double() @ cam_from_obj[:3, :3]
    assert torch.allclose(axis.abs().amax(-1), torch.ones(1).double(), atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_floor_that_passes_below_the_camera_is_drawn_up_to_the_horizon(backend):
    corners = torch.tensor([[-900.0, 0.5, -900], [900, 0.5, -900], [900, 0.5, 900], [-900, 0.5, 900]])
    floor = TriangleMesh(corners.double(), torch.tensor([[0, 1, 2], [0, 2, 3]]))
    K = camera_matrix(60, 80, 60)
    depth = render_views(floor, AT_ORIGIN, K, (80, 60), outputs=("depth",), backend=backend).depth[0]
    rows = torch.arange(60).double()
    exact = 0.5 * 60 / (rows - 29.5)
    below = rows > 29.5
    torch.testing.assert_close(depth[below].double(), exact[below, None].expand(-1, 80), rtol=1e-6, atol=0)
    assert not depth[~below].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_nearer_than_near_is_drawn(backend):
    slope = TriangleMesh(
        torch.tensor([[-9.0, -9, 0.0], [9, -9, 0.0], [9, 9, 2], [-9, 9, 2]]).double(),
        torch.tensor([[0, 1, 2], [0, 2, 3]]),
    )
    K = camera_matrix(40, 40, 40)
    args = (slope, AT_ORIGIN, K, (40, 40))
    whole = render_views(*args, outputs=("depth",), backend=backend).depth
    cut = render_views(*args, outputs=("depth",), near=1.0, backend=backend).depth
    assert 0 < (cut > 0).sum() < (whole > 0).sum()
    torch.testing.assert_close(cut, torch.where(whole >= 1.0, whole, 0.0), rtol=0, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_pixels_whose_centres_lie_on_the_border_belong_to_the_left_and_the_top(backend):
    mask = render_views(
        pixel_rectangle(3, 2, 7, 5), AT_ORIGIN, UNIT_K, (12, 9), outputs=("mask",), backend=backend
    ).mask[0]
    expected = torch.zeros(9, 12, dtype=torch.bool)
    expected[2:5, 3:7] = True
    assert torch.equal(mask, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_triangles_that_share_edges_leave_no_crack_and_hit_no_pixel_twice(backend):
    rng = np.random.default_rng(3)
    # Many corners and edges run exactly through pixel centres; depths that are powers of two keep them there.
    inner = np.concatenate([rng.integers(1, 23, (30, 2)), rng.integers(2, 46, (20, 2)) / 2])
    points = np.unique(np.concatenate([inner, [[0, 0], [24, 0], [0, 24], [24, 24]]]), axis=0)
    faces = torch.from_numpy(Delaunay(points).simplices.astype(np.int64))
    depths = torch.from_numpy(2.0 ** rng.integers(-1, 3, len(points)))
    vertices = torch.cat([torch.from_numpy(points) * depths[:, None], depths[:, None]], 1)
    hits = torch.zeros(26, 26, dtype=torch.int64)
    for face in faces:
        one = TriangleMesh(vertices, face[None])
        hits += render_views(one, AT_ORIGIN, UNIT_K, (26, 26), outputs=("mask",), backend=backend).mask[0]
    expected = torch.zeros_like(hits)
    expected[:24, :24] = 1
    assert torch.equal(hits, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mesh_of_slivers_leaves_no_crack(backend):
    rng = np.random.default_rng(4)
    around = np.linspace(0, 2 * np.pi, 3000, endpoint=False)
    rim = np.stack([20 + 30 * np.cos(around), 20 + 30 * np.sin(around)], 1)
    points = np.concatenate([[[20.3, 19.6]], rim])
    depths = rng.uniform(0.5, 3.0, (len(points), 1))
    vertices = torch.from_numpy(np.concatenate([points * depths, depths], 1))
    index = torch.arange(3000)
    faces = torch.stack([torch.zeros_like(index), index + 1, (index + 1) % 3000 + 1], 1)
    mesh = TriangleMesh(vertices, faces)
    assert render_views(mesh, AT_ORIGIN, UNIT_K, (40, 40), outputs=("mask",), backend=backend).mask.all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_cannot_be_seen_leaves_an_empty_picture(backend):
    ball, K = sphere(0.05, 2), camera_matrix(100, 32, 24)
    poses = torch.stack([pose((0, 0, 0), t) for t in ((0, 0, -0.5), (5, 0, 0.5), (0, -5, 0.5))])
    result = render_views(
        ball, poses, K, (32, 24), outputs=ALL_OUTPUTS, background=(1, 2, 3), backend=backend
    )
    assert not result.mask.any()
    assert not result.depth.any() and not result.xyz.any() and not result.normals.any()
    assert (result.instance == -1).all()
    assert (result.color == torch.tensor([1, 2, 3])).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_degenerate_triangles_draw_nothing_and_break_nothing(backend):
    point = torch.tensor([[0.0, 0, 1], [0.5, 0, 1], [1, 0, 1], [0, 0.5, 1]]).double()
    flat = TriangleMesh(point, torch.tensor([[0, 0, 0], [0, 1, 2], [1, 1, 3]]))
    K = camera_matrix(20, 16, 16)
    drawn = render_views(flat, AT_ORIGIN, K, (16, 16), outputs=ALL_OUTPUTS, backend=backend)
    assert not drawn.mask.any()
    whole = TriangleMesh(point, torch.tensor([[0, 0, 0], [0, 3, 2]]))
    drawn = render_views(whole, AT_ORIGIN, K, (16, 16), outputs=ALL_OUTPUTS, backend=backend)
    assert drawn.mask.any() and drawn.normals.isfinite().all()


def test_no_views_give_no_pictures():
    result = render_views(cube(0.1), torch.zeros(0, 4, 4), camera_matrix(100, 32, 24), (32, 24))
    assert len(result) == 0 and result.color.shape == (0, 24, 32, 3)


def _random_soup(seed: int) -> TriangleMesh:
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.randn(60, 3, generator=generator, dtype=torch.float64)
    faces = torch.randint(0, 60, (40, 3), generator=generator)
    return TriangleMesh(vertices, faces, vertex_colors=torch.rand(60, 3, generator=generator))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), z=st.floats(-0.5, 4.0))
def test_both_backends_draw_the_same_picture_of_triangles_all_around_the_camera(seed, z):
    args = (_random_soup(seed), pose((0.1, 0.2, 0.3), (0, 0, z))[None], camera_matrix(30, 40, 30), (40, 30))
    ours = render_views(*args, outputs=ALL_OUTPUTS, backend="numba")
    theirs = render_views(*args, outputs=ALL_OUTPUTS, backend="torch")
    for name in ALL_OUTPUTS:
        torch.testing.assert_close(ours.layers[name], theirs.layers[name], rtol=1e-6, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_the_order_of_the_faces_does_not_matter(seed):
    mesh, K = _random_soup(seed), camera_matrix(30, 40, 30)
    order = torch.randperm(len(mesh.faces), generator=torch.Generator().manual_seed(seed))
    other = TriangleMesh(mesh.vertices, mesh.faces[order], mesh.vertex_colors)
    first, second = (
        render_views(m, pose((0, 0, 0), (0, 0, 2))[None], K, (40, 30), outputs=("depth", "xyz"))
        for m in (mesh, other)
    )
    assert torch.equal(first.depth, second.depth)


def test_moving_the_object_and_the_camera_together_changes_nothing():
    mesh, K = bumpy(2000), camera_matrix(150, 64, 64)
    world_from_new = pose((0.5, -1.0, 0.2), (3.0, -2.0, 1.0))
    moved = TriangleMesh(
        (mesh.vertices - world_from_new[:3, 3]) @ world_from_new[:3, :3],
        mesh.faces,
        None,
        mesh.uv,
        mesh.texture,
    )
    cam_from_obj = random_poses(3, 0.25)
    before = render_views(mesh, cam_from_obj, K, (64, 64), outputs=("color", "depth", "mask", "normals"))
    after = render_views(
        moved, cam_from_obj @ world_from_new, K, (64, 64), outputs=("color", "depth", "mask", "normals")
    )
    assert (before.mask != after.mask).sum() <= 1
    same = before.mask & after.mask & ((before.depth - after.depth).abs() < 1e-6)
    assert same.sum() >= before.mask.sum() - 2
    assert (before.normals - after.normals)[same].abs().max() < 1e-4
    assert (before.color.int() - after.color.int())[same].abs().float().mean() < 0.01


@pytest.mark.parametrize("backend", BACKENDS)
def test_twice_the_resolution_sees_the_same_at_the_same_places(backend):
    mesh, K = bumpy(2000), camera_matrix(150, 64, 64)
    double = torch.diag(torch.tensor([2.0, 2.0, 1.0])).double() @ K
    poses = random_poses(2, 0.25)
    coarse = render_views(mesh, poses, K, (64, 64), outputs=GEOMETRY, backend=backend)
    fine = render_views(mesh, poses, double, (128, 128), outputs=GEOMETRY, backend=backend)
    assert torch.equal(coarse.mask, fine.mask[:, ::2, ::2])
    torch.testing.assert_close(coarse.depth, fine.depth[:, ::2, ::2], rtol=0, atol=1e-7)
    torch.testing.assert_close(coarse.xyz, fine.xyz[:, ::2, ::2], rtol=0, atol=1e-7)


def test_the_mirrored_scene_in_the_mirrored_camera_is_the_mirrored_picture():
    mesh, K = bumpy(2000), camera_matrix(150, 70, 64)
    K[0, 2] += 5.3
    cam_from_obj = random_poses(1, 0.25)
    points = mesh.vertices @ cam_from_obj[0, :3, :3].mT + cam_from_obj[0, :3, 3]
    seen = TriangleMesh(points, mesh.faces)
    mirrored = TriangleMesh(points * torch.tensor([-1.0, 1, 1]), mesh.faces.flip(1))
    outputs = ("depth", "normals")
    before = render_views(seen, AT_ORIGIN, K, (70, 64), outputs=outputs)
    after = render_views(mirrored, AT_ORIGIN, flip_intrinsics(K, 70), (70, 64), outputs=outputs)
    torch.testing.assert_close(before.depth.flip(2), after.depth, rtol=0, atol=1e-7)
    expected = before.normals.flip(2) * torch.tensor([-1.0, 1, 1])
    torch.testing.assert_close(after.normals, expected, rtol=0, atol=1e-5)


def test_k_may_differ_by_view_and_may_be_skewed():
    mesh, poses = sphere(0.05, 3), random_poses(2, 0.3)
    K = torch.stack([camera_matrix(100, 48, 48), camera_matrix(160, 48, 48)])
    K[1, 0, 1] = 12.0
    both = render_views(mesh, poses, K, (48, 48), outputs=("depth", "xyz"))
    for view in range(2):
        alone = render_views(mesh, poses[view : view + 1], K[view], (48, 48), outputs=("depth",))
        assert torch.equal(alone.depth[0], both.depth[view])
    y, x = both.depth[1].nonzero().unbind(-1)
    seen = both.xyz[1][y, x].double() @ poses[1, :3, :3].mT + poses[1, :3, 3]
    pixels = (seen / seen[:, 2:]) @ K[1].mT
    torch.testing.assert_close(pixels[:, :2], torch.stack([x, y], -1).double(), rtol=0, atol=2e-4)


def test_one_view_in_bands_is_the_view_in_one(monkeypatch):
    mesh, K = bumpy(2000), camera_matrix(150, 64, 70)
    pictures = []
    for threads in (1, 4):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        pictures.append(
            render_views(mesh, random_poses(1, 0.25), K, (64, 70), outputs=ALL_OUTPUTS, samples=2)
        )
    for name in ALL_OUTPUTS:
        assert torch.equal(pictures[0].layers[name], pictures[1].layers[name])


def test_the_torch_backend_draws_the_same_in_pieces_of_any_size(monkeypatch):
    mesh, K = bumpy(2000), camera_matrix(150, 48, 48)
    pictures = []
    for size in (300, 1 << 22):
        monkeypatch.setattr(torch_backend, "_CHUNK_ON_CPU", size)
        pictures.append(
            render_views(mesh, random_poses(3, 0.25), K, (48, 48), outputs=ALL_OUTPUTS, backend="torch")
        )
    for name in ALL_OUTPUTS:
        assert torch.equal(pictures[0].layers[name], pictures[1].layers[name])


def test_many_callers_at_once_get_their_own_pictures():
    mesh, K, poses = bumpy(2000), camera_matrix(150, 48, 48), random_poses(8, 0.25)
    alone = render_views(mesh, poses, K, (48, 48))
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda p: render_views(mesh, p[None], K, (48, 48)), poses))
    for view, result in enumerate(together):
        assert torch.equal(result.color[0], alone.color[view])
        assert torch.equal(result.depth[0], alone.depth[view])


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_nearest_mesh_of_a_scene_wins_at_every_pixel(backend):
    meshes = [cube(0.1), sphere(0.06, 3), bumpy(500)]
    poses = torch.stack(
        [
            pose((0.5, 0.3, 0), (0, 0, 0.5)),
            pose((0, 0, 0), (0.03, 0, 0.47)),
            pose((1, 0, 0), (-0.04, 0.02, 0.5)),
        ]
    )
    K, size = camera_matrix(200, 80, 60), (80, 60)
    scene = render_scene(meshes, poses, K, size, outputs=ALL_OUTPUTS, backend=backend)
    alone = [
        render_scene([m], p[None], K, size, outputs=ALL_OUTPUTS) for m, p in zip(meshes, poses, strict=True)
    ]
    depths = torch.stack([torch.where(r.mask[0], r.depth[0], torch.inf) for r in alone])
    nearest = depths.argmin(0)
    seen = depths.amin(0).isfinite()
    assert torch.equal(scene.mask[0], seen)
    assert torch.equal(scene.instance[0].long(), torch.where(seen, nearest, -1))
    assert scene.instance[0].unique().tolist() == [-1, 0, 1, 2]
    for name in ("color", "depth", "xyz", "normals"):
        layers = torch.stack([r.layers[name][0] for r in alone])
        picked = layers.gather(0, nearest.view(1, 60, 80, *(1,) * (layers.ndim - 3)).expand_as(layers[:1]))[0]
        assert torch.equal(scene.layers[name][0][seen], picked[seen])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("turned", [0, 1, None])
def test_the_first_of_two_surfaces_at_one_depth_is_seen_from_either_side(backend, turned):
    meshes = [pixel_rectangle(1, 1, 9, 9), pixel_rectangle(1, 1, 9, 9)]
    if turned is not None:
        meshes[turned] = TriangleMesh(meshes[turned].vertices, meshes[turned].faces.flip(1))
    scene = render_scene(meshes, AT_ORIGIN.repeat(2, 1, 1), UNIT_K, (10, 10), backend=backend)
    assert scene.instance[0, 1:9, 1:9].unique().tolist() == [0]


def test_a_mesh_with_unused_vertices_behind_the_camera_is_drawn_whole():
    mesh = cube(0.1)
    loose = TriangleMesh(torch.cat([mesh.vertices, torch.zeros(1, 3).double() - 9]), mesh.faces)
    args = (random_poses(2, 0.4), camera_matrix(100, 48, 48), (48, 48))
    assert torch.equal(render_views(mesh, *args).depth, render_views(loose, *args).depth)


def test_trimesh_and_our_reading_of_faces_agree_on_what_is_outside():
    import trimesh

    mesh = from_trimesh(trimesh.creation.icosphere(subdivisions=2), 0.05)
    result = render_views(
        mesh, random_poses(1, 0.3), camera_matrix(150, 48, 48), (48, 48), outputs=("normals", "mask")
    )
    towards = result.normals[0][result.mask[0]]
    assert (towards[:, 2] < 0.15).all() and towards[:, 2].min() < -0.97
