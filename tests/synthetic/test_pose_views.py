from __future__ import annotations

import numpy as np
import pytest
import torch

from sightline.geometry.viewpoints import view_poses
from sightline.rendering import RenderResult, render_views
from sightline.synthetic.exam import exam_object
from sightline.synthetic.pose_views import PoseViewSettings, draw_pose_views, pack_views, sphere_camera

TINY = PoseViewSettings(num_templates=42, template_px=64, num_queries=6, query_px=48)


@pytest.fixture(scope="module")
def views():
    return draw_pose_views(2, "train", TINY)


def test_unpacked_views_are_those_that_were_rendered(views):
    thing = exam_object(2, "train")
    assert views.name == thing.name
    packed = views.templates
    poses, K = torch.from_numpy(packed.cam_from_obj), torch.from_numpy(packed.K)
    drawn = render_views(thing.prepared, poses, K, (64, 64), samples=TINY.template_samples)
    for row in (0, 17, 41):
        view, mask = packed.view(row), drawn.mask[row].numpy()
        assert (view.mask == mask).all()
        assert (view.color == drawn.color[row].numpy() * mask[..., None]).all()
        wrong = np.abs(view.depth - drawn.depth[row].numpy())
        assert wrong.max() < 2e-5 * views.diameter
        assert (view.depth[~mask] == 0).all()


def test_templates_stand_all_around_and_fill_their_circle(views):
    poses = view_poses(42, TINY.template_distance * views.diameter)
    assert np.allclose(views.templates.cam_from_obj, poses.numpy())
    reach = []
    for row in range(views.templates.number):
        rows, columns = np.nonzero(views.templates.view(row).mask)
        reach.append(np.hypot(rows - 31.5, columns - 31.5).max())
    assert max(reach) <= 0.87 * 32 + 0.1
    assert max(reach) > 0.83 * 32


def test_queries_are_framed_from_random_sides_beside_the_optical_axis(views):
    queries = views.queries
    distances = np.linalg.norm(queries.cam_from_obj[:, :3, 3], axis=1) / views.diameter
    assert (distances >= TINY.query_distance[0]).all()
    assert (distances <= TINY.query_distance[1]).all()
    t = queries.cam_from_obj[:, :3, 3]
    aside = np.linalg.norm(t[:, :2], axis=1) / t[:, 2]
    assert aside.max() <= TINY.query_aside + 1e-9
    assert aside.std() > 0.05
    gaps = queries.directions @ queries.directions.T
    assert gaps[~np.eye(len(gaps), dtype=bool)].max() < 0.999
    for row in range(queries.number):
        rows, columns = np.nonzero(queries.view(row).mask)
        assert max(np.ptp(rows), np.ptp(columns)) >= 0.9 * 48


def test_a_sphere_fills_the_share_that_was_asked_for():
    radius, distance, side = 0.07, 0.3, 200
    K = sphere_camera(radius, distance, side, 0.9)
    # the outline of a sphere is seen at the angle asin(r / d)
    half = K[0, 0] * np.tan(np.arcsin(radius / distance))
    assert float(half) == pytest.approx(0.9 * side / 2)
    with pytest.raises(ValueError, match=r"distance: expected more than the radius 0\.3"):
        sphere_camera(0.3, 0.2, 100, 0.9)


def test_the_same_views_each_time_and_others_of_others(views):
    again, other = draw_pose_views(2, "train", TINY), draw_pose_views(4, "train", TINY)
    for key, array in views.arrays().items():
        assert np.array_equal(array, again.arrays()[key]), key
    assert not np.array_equal(views.queries.cam_from_obj, other.queries.cam_from_obj)


def test_an_empty_view_is_refused():
    layers = {"mask": torch.zeros(1, 8, 8, dtype=torch.bool), "depth": torch.zeros(1, 8, 8)}
    empty = RenderResult(layers | {"color": torch.zeros(1, 8, 8, 3, dtype=torch.uint8)})
    with pytest.raises(ValueError, match="view 0 is empty"):
        pack_views(empty, torch.eye(3)[None], torch.eye(4)[None])
