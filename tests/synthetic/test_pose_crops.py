from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from sightline.geometry import pixel_affine
from sightline.geometry.poses import transform
from sightline.geometry.rotations import angle_between
from sightline.geometry.viewpoints import view_direction
from sightline.records import TriangleMesh
from sightline.rendering import render_views
from sightline.synthetic.backdrops import BackdropBank
from sightline.synthetic.exam import exam_object
from sightline.synthetic.pose_bank import PoseBank
from sightline.synthetic.pose_crops import (
    PoseCrop,
    PoseCrops,
    PoseCropSettings,
    nearest_equivalents,
    upright_pose,
)
from sightline.synthetic.pose_views import PoseViewSettings, draw_pose_views
from sightline.synthetic.pose_warp import warp_view
from sightline.synthetic.sensor import SensorSettings

VIEWS = PoseViewSettings(num_templates=42, template_px=96, num_queries=4, query_px=112)
ALONE = PoseCropSettings(
    behind=(0, 0), cover_share=0.0, cut_share=0.0, recolor_share=0.0, mirror_share=0.0, gray_share=0.0
)


@pytest.fixture(scope="module")
def bank() -> PoseBank:
    return PoseBank(8, settings=VIEWS)


@pytest.fixture(scope="module")
def backdrops() -> BackdropBank:
    return BackdropBank(2, image_size=(160, 120))


def first_two(rng, query, templates):
    return torch.tensor([5, 30]), torch.tensor([0, 1])


def mesh_of(number: int, mirrored: bool) -> TriangleMesh:
    mesh = exam_object(number, "train").mesh
    if not mirrored:
        return mesh
    return replace(mesh, vertices=mesh.vertices * torch.tensor([-1.0, 1, 1]))


def drawn(
    mesh: TriangleMesh, pose: torch.Tensor, K: torch.Tensor, side: int
) -> tuple[np.ndarray, np.ndarray]:
    result = render_views(mesh, pose[None], K[None], (side, side), outputs=("depth", "mask"))
    return result.depth[0].numpy(), result.mask[0].numpy()


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("number", [0, 3, 5])
def test_the_crop_is_what_its_pose_and_camera_see(bank, backdrops, number: int, mirrored: bool):
    crops = PoseCrops(bank, backdrops, replace(ALONE, mirror_share=float(mirrored)))
    mesh, side, wrong, shares = mesh_of(number, mirrored), crops.side, [], []
    for seed in range(4):
        crop = crops.draw(number, np.random.default_rng(seed), first_two)
        depth, mask = drawn(mesh, crop.query_pose, crop.query_K, side)
        seen = crop.query_mask.numpy()
        shares.append((mask & seen).sum() / (mask | seen).sum())
        wrong.append(np.abs(depth - crop.query_depth.numpy())[mask & seen] / crop.diameter)
        assert (crop.query_depth.numpy() > 0)[seen].all()
        assert (crop.query_depth.numpy() == 0)[~seen].all()
        for k in range(2):
            t_depth, t_mask = drawn(mesh, crop.template_pose[k], crop.template_K[k], side)
            assert (t_mask == crop.template_mask[k].numpy()).mean() > 0.9995
            both = t_mask & crop.template_mask[k].numpy()
            assert np.abs(t_depth - crop.template_depth[k].numpy())[both].max() < 1e-3 * crop.diameter
    errors = np.concatenate(wrong)
    assert min(shares) > 0.95
    assert np.median(errors) < 2e-4
    assert np.quantile(errors, 0.97) < 0.01


def test_points_of_the_object_land_where_they_are_seen(bank, backdrops):
    crops = PoseCrops(bank, backdrops, ALONE)
    crop = crops.draw(0, np.random.default_rng(1), first_two)
    corners = mesh_of(0, False).vertices.double()
    in_camera = transform(crop.query_pose, corners)
    px = in_camera @ crop.query_K.T
    px = px[:, :2] / px[:, 2:]
    rows, columns = np.nonzero(crop.query_mask.numpy())
    low, high = px.amin(0), px.amax(0)
    assert low.tolist() == pytest.approx([columns.min(), rows.min()], abs=1.5)
    assert high.tolist() == pytest.approx([columns.max(), rows.max()], abs=1.5)


def test_turned_and_upright_crops_are_turns_of_one_another(bank):
    views = bank[2]
    view = views.queries.view(1)
    upright = warp_view(view, 0.0, 0.6, (0.0, 0.0), 96, views.diameter)
    for angle in (0.5, np.pi / 2, -2.5):
        turned = warp_view(view, angle, 0.6, (0.0, 0.0), 96, views.diameter)
        R = turned.cam_from_obj[:3, :3] @ upright.cam_from_obj[:3, :3].T
        assert (
            pytest.approx(
                np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
            )
            == R
        )
        # the picture of one, turned by the affine between the cameras, is the other
        H = turned.K @ R @ np.linalg.inv(upright.K)
        again = cv2.warpAffine(upright.mask.astype(np.uint8), H[:2], (96, 96), flags=cv2.INTER_NEAREST) > 0
        assert (again & turned.mask).sum() / (again | turned.mask).sum() > 0.95
        a, b = torch.from_numpy(turned.cam_from_obj), torch.from_numpy(upright.cam_from_obj)
        assert torch.allclose(view_direction(a[:3, :3]), view_direction(b[:3, :3]))


def test_depth_on_planes_is_interpolated_exactly(bank):
    views = bank[0]  # a box
    assert views.name.startswith("box")
    mesh = mesh_of(0, False)
    for row in range(4):
        warped = warp_view(views.queries.view(row), 0.7, 0.9, (0.03, -0.02), 96, views.diameter)
        depth, mask = drawn(mesh, torch.from_numpy(warped.cam_from_obj), torch.from_numpy(warped.K), 96)
        inside = cv2.erode((mask & warped.mask).astype(np.uint8), np.ones((5, 5))) > 0
        wrong = np.abs(depth - warped.depth)[inside] / views.diameter
        assert np.median(wrong) < 1e-4
        assert np.quantile(wrong, 0.9) < 1e-3


def test_the_crop_affine_leads_from_an_uncropped_camera(bank, backdrops):
    for mirrored in (0.0, 1.0):
        crops = PoseCrops(bank, backdrops, replace(ALONE, mirror_share=mirrored))
        crop = crops.draw(1, np.random.default_rng(3), first_two)
        image_K = pixel_affine.apply_to_intrinsics(pixel_affine.invert(crop.crop_from_image), crop.query_K)
        known = torch.from_numpy(bank[1].queries.K).clone()
        if mirrored:
            known[:, 0, 2] *= -1
        assert (image_K - known).abs().amax((1, 2)).min() < 1e-9
        assert crop.crop_from_image[0, 0] == crop.crop_from_image[1, 1] > 0
        assert crop.crop_from_image[0, 1] == crop.crop_from_image[1, 0] == 0


def test_the_object_fills_the_crop_as_wanted(bank, backdrops):
    settings = replace(ALONE, fill=(0.7, 0.7), shift=0.0)
    crops = PoseCrops(bank, backdrops, settings)
    for number in range(4):
        crop = crops.draw(number, np.random.default_rng(number), first_two)
        rows, columns = np.nonzero(crop.query_mask.numpy())
        longer = max(np.ptp(rows), np.ptp(columns)) + 1
        assert longer == pytest.approx(0.7 * 96, abs=2)
        assert (rows.min() + rows.max()) / 2 == pytest.approx(47.5, abs=1.5)
        assert (columns.min() + columns.max()) / 2 == pytest.approx(47.5, abs=1.5)


def test_pictures_show_the_object_where_the_mask_is(bank, backdrops):
    settings = replace(
        ALONE, background_share=1.0, shadow_share=0.0, sensor=SensorSettings.clean(), size_px=(500, 500)
    )
    crops = PoseCrops(bank, backdrops, settings)
    plain = crops.draw(4, np.random.default_rng(5), first_two)
    other = PoseCrops(bank, BackdropBank(1, image_size=(90, 70)), settings).draw(
        4, np.random.default_rng(5), first_two
    )
    same = (plain.query - other.query).abs().amax(0) < 1e-3
    assert (plain.query_mask == other.query_mask).all()
    inside = cv2.erode(plain.query_mask.numpy().astype(np.uint8), np.ones((3, 3))) > 0
    assert same.numpy()[inside].all()
    assert same.numpy()[~plain.query_mask.numpy()].mean() < 0.2


def test_others_hide_what_the_mask_leaves_out(bank, backdrops):
    settings = replace(ALONE, cover_share=1.0, cut_share=0.5, min_visible=0.5)
    crops, alone = PoseCrops(bank, backdrops, settings), PoseCrops(bank, backdrops, ALONE)
    shares = []
    for seed in range(12):
        crop = crops.draw(6, np.random.default_rng(seed), first_two)
        whole = alone.draw(6, np.random.default_rng(seed), first_two)  # draws the same up to what lies behind
        assert torch.equal(crop.query_pose, whole.query_pose)
        assert (crop.query_mask & ~whole.query_mask).sum() == 0
        shares.append(float(crop.query_mask.sum() / whole.query_mask.sum()))
    assert min(shares) >= 0.5
    assert np.mean(shares) < 0.95


def test_backgrounds_are_kept_or_removed(bank, backdrops):
    kept = PoseCrops(bank, backdrops, replace(ALONE, background_share=1.0))
    removed = PoseCrops(bank, backdrops, replace(ALONE, background_share=0.0))
    for seed in range(6):
        with_it, without = (each.draw(0, np.random.default_rng(seed), first_two) for each in (kept, removed))
        near = cv2.dilate(with_it.query_mask.numpy().astype(np.uint8), np.ones((5, 5))) > 0
        assert (with_it.query.numpy()[:, ~near] > 0).mean() > 0.5
        assert (without.query.numpy()[:, ~near] == 0).all()
        assert (without.query.numpy()[:, without.query_mask.numpy()] > 0).mean() > 0.5


def test_templates_are_on_black_and_share_the_colours_of_the_query(bank, backdrops):
    plain = PoseCrops(bank, backdrops, ALONE).draw(2, np.random.default_rng(0), first_two)
    assert (plain.templates[~plain.template_mask[:, None].expand_as(plain.templates)] == 0).all()
    for seed in range(5):
        recoloured = PoseCrops(bank, backdrops, replace(ALONE, recolor_share=1.0))
        crop = recoloured.draw(2, np.random.default_rng(seed), first_two)
        orders = [
            o
            for o in torch.cartesian_prod(*[torch.arange(3)] * 3)
            if torch.equal(plain.templates[:, o], crop.templates)
        ]
        assert len(orders) >= 1
    gray = PoseCrops(bank, backdrops, replace(ALONE, gray_share=1.0)).draw(
        2, np.random.default_rng(0), first_two
    )
    for picture in (gray.query, gray.templates[0]):
        assert torch.equal(picture[0], picture[1])
        assert picture.std() > 0.01


def symmetric_number() -> int:
    for number in range(1, 60, 2):
        if exam_object(number, "train").symmetries.axis is not None:
            return number
    raise AssertionError("no object of revolution among the first")


def test_templates_of_symmetric_objects_have_the_nearest_of_their_equal_poses():
    number = symmetric_number()
    views = draw_pose_views(number, "train", VIEWS)
    mesh = mesh_of(number, False)
    for row in range(3):
        upright = upright_pose(views.queries.view(row).cam_from_obj)
        poses = nearest_equivalents(views, upright)
        before = torch.from_numpy(views.templates.cam_from_obj)
        query = view_direction(upright[:3, :3])
        now, then = (angle_between(query, view_direction(each[:, :3, :3])) for each in (poses, before))
        assert (now - then).max() < 0.02
        assert now.max() < then.max() - 0.2
        for k in (1, 20):
            depth, mask = drawn(mesh, poses[k], torch.from_numpy(views.templates.K[k]), 96)
            assert (mask == views.templates.view(k).mask).mean() > 0.99
            both = mask & views.templates.view(k).mask
            assert np.median(np.abs(depth - views.templates.view(k).depth)[both]) < 2e-3 * views.diameter


def test_objects_without_symmetries_keep_their_poses(bank):
    upright = upright_pose(bank[0].queries.view(0).cam_from_obj)
    assert np.array_equal(nearest_equivalents(bank[0], upright).numpy(), bank[0].templates.cam_from_obj)


def test_the_same_generator_gives_the_same_crop(bank, backdrops):
    crops = PoseCrops(bank, backdrops)
    one, same, other = (crops.draw(3, np.random.default_rng(seed), first_two) for seed in (7, 7, 8))
    crops.draw(5, np.random.default_rng(1), first_two)
    again = crops.draw(3, np.random.default_rng(7), first_two)
    for name in PoseCrop._fields:
        values = [torch.as_tensor(getattr(each, name)) for each in (one, same, again)]
        assert torch.equal(values[0], values[1]), name
        assert torch.equal(values[0], values[2]), name
    assert not torch.equal(one.query, other.query)


def test_what_cannot_be_is_refused(bank):
    with pytest.raises(ValueError, match="backdrops: expected those of split 'train', got 'development'"):
        PoseCrops(bank, BackdropBank(1, image_size=(64, 48), split="development"))
    with pytest.raises(ValueError, match=r"cover_share: expected a share in \[0, 1\], got 1.5"):
        PoseCropSettings(cover_share=1.5)
    with pytest.raises(ValueError, match=r"fill: expected \(least, largest\)"):
        PoseCropSettings(fill=(0.9, 0.5))
    with pytest.raises(ValueError, match="fill, size_px"):
        PoseCropSettings(size_px=(2.0, 50.0))
