"""Crops of what is in data sets' pictures: their geometry is exact, whatever was done to the picture."""

from __future__ import annotations

import logging
import pickle
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from sightline.formats.bop_dataset import BopDataset
from sightline.formats.bop_shard_writing import write_bop_shards
from sightline.formats.bop_writing import BopSceneWriter
from sightline.formats.frames import load_mask
from sightline.geometry import pixel_affine
from sightline.geometry.poses import transform
from sightline.geometry.rotations import twist_about_z
from sightline.objects.gigapose import read_gigapose_card, write_gigapose_templates
from sightline.rendering import render_views
from sightline.synthetic import SceneSettings, make_object, make_scene, write_bop_dataset
from sightline.synthetic.pose_crops import PoseCropSettings, upright_pose
from sightline.synthetic.pose_views import PoseViewSettings
from sightline.synthetic.sensor import SensorSettings
from sightline.training.stream import EpochStream
from sightline.vpog.data import MixedCrops, VPOGTrainDataset, collate
from sightline.vpog.flow_computer import FlowComputer
from sightline.vpog.scene_crops import SceneCrops
from sightline.vpog.scene_data import SceneData
from sightline.vpog.scene_objects import SceneObjects, diameter_of_views, find_meshes, frame_views
from sightline.vpog.template_selector import TemplateSelector
from sightline.vpog.training import PoseData

VIEWS = PoseViewSettings(num_templates=42, template_px=64)
PLAIN = PoseCropSettings(
    turn=0.5,
    recolor_share=0.0,
    mirror_share=0.0,
    gray_share=0.0,
    background_share=1.0,
    sensor=SensorSettings.clean(),
)
SETTINGS = SceneSettings(image_size=(320, 240), size_px=(60.0, 120.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two pictures with a box twice and a can, in BOP's layout and as shards."""
    root = tmp_path_factory.mktemp("scenes")
    objects = [make_object("box", 1), make_object("can", 0, texture="low")]
    scenes = [make_scene([objects[0], objects[1], objects[0]], seed, SETTINGS) for seed in (3, 4)]
    write_bop_dataset(root / "toys", objects, scenes, split="train_pbr", scene_id=2)
    frames = BopDataset(root / "toys", "train_pbr").frames
    write_bop_shards(root / "web" / "train_pbr_web", frames, per_shard=1, names={1: "Box", 2: "Can"})
    return root


@pytest.fixture
def data(folder):
    return SceneData(folder=folder / "toys")


def first_two(rng, query, templates):
    return torch.tensor([5, 30]), torch.tensor([0, 1])


def in_crop(crop, mesh):
    """Depth and mask of a mesh where the crop's pose and K see it."""
    side = crop.query.shape[-1]
    drawn = render_views(
        mesh, crop.query_pose[None], crop.query_K[None], (side, side), outputs=("depth", "mask")
    )
    return drawn.depth[0], drawn.mask[0]


def test_each_visible_instance_has_a_number_of_its_own(folder, data):
    crops = data.open(VIEWS, PLAIN)
    frames = BopDataset(folder / "toys", "train_pbr").frames
    seen = [(r, w) for r, f in enumerate(frames) for w, one in enumerate(f.objects) if one.visibility > 0.1]
    assert crops.places.tolist() == [list(place) for place in seen]
    assert len(seen) >= 5
    drawn = [crops.draw(number, np.random.default_rng(0), first_two) for number in range(len(crops))]
    assert [crop.object_index for crop in drawn] == [frames[r].objects[w].obj_id for r, w in seen]
    twins = [crop for crop in drawn if crop.object_index == 1]
    assert not torch.allclose(twins[0].query_pose, twins[1].query_pose, atol=1e-3)
    assert crops.report == []


def test_the_crop_is_what_its_pose_and_camera_see(folder, data):
    dataset = BopDataset(folder / "toys", "train_pbr")
    for depth_from in ("mesh", "picture"):
        crops = replace(data, depth_from=depth_from).open(VIEWS, PLAIN)
        for number in range(len(crops)):
            crop = crops.draw(number, np.random.default_rng(number), first_two)
            depth, mask = in_crop(crop, dataset.mesh(crop.object_index).mesh)
            seen = crop.query_mask
            assert (mask & seen).sum() > 0.97 * seen.sum()
            wrong = (depth - crop.query_depth).abs()[mask & seen] / crop.diameter
            assert float(wrong.median()) < 1e-3
            assert (crop.query_depth[seen] > 0).all()
            assert (crop.query_depth[~seen] == 0).all()


def test_the_affine_leads_from_the_pictures_pixels_to_the_crops(folder, data):
    crops, frames = data.open(VIEWS, PLAIN), BopDataset(folder / "toys", "train_pbr").frames
    for number, (row, which) in enumerate(crops.places.tolist()):
        frame, found = frames[row], frames[row].objects[which]
        crop = crops.draw(number, np.random.default_rng(number), first_two)
        points = BopDataset(folder / "toys", "train_pbr").mesh(found.obj_id).mesh.vertices.double()
        in_picture = frame.camera.project(transform(found.cam_from_obj, points))
        in_camera = transform(crop.query_pose, points) @ crop.query_K.T
        in_crop_px = in_camera[:, :2] / in_camera[:, 2:]
        assert torch.allclose(pixel_affine.apply(crop.crop_from_image, in_picture), in_crop_px, atol=1e-6)
        # and the pixels themselves went that way
        inside = crop.query_mask.nonzero().flip(-1).double()
        back = pixel_affine.apply(pixel_affine.invert(crop.crop_from_image), inside).round().long()
        image = torch.from_numpy(frame.read_image())
        shown = image[back[:, 1], back[:, 0]].float() / 255
        taken = crop.query[:, inside[:, 1].long(), inside[:, 0].long()].T
        assert float((shown - taken).abs().mean()) < 0.08
        mask = torch.from_numpy(load_mask(found.mask))
        assert mask[back[:, 1], back[:, 0]].double().mean() > 0.97


def test_objects_stand_upright_up_to_the_turn(data):
    for turn in (0.0, 0.5):
        crops = data.open(VIEWS, replace(PLAIN, turn=turn))
        angles = []
        for number in range(len(crops)):
            crop = crops.draw(number, np.random.default_rng(number), first_two)
            upright = upright_pose(crop.query_pose.numpy())
            angles.append(float(twist_about_z(crop.query_pose[:3, :3] @ upright[:3, :3].T)))
        assert max(map(abs, angles)) <= turn + 1e-9
        assert turn == 0 or max(map(abs, angles)) > 0.1


def test_pixels_that_are_not_square_and_cameras_that_lie_on_their_side(folder, tmp_path):
    source = BopDataset(folder / "toys", "train_pbr")
    frame = source.frames[0]
    K = frame.camera.K.clone()
    affine = torch.tensor([[1.0, 0, 0], [0, 1.25, 0]], dtype=torch.float64)
    stretched = pixel_affine.apply_to_intrinsics(affine, K)
    turned = torch.eye(4, dtype=torch.float64)
    turned[:2, :2] = torch.tensor([[0.0, -1], [1, 0]])
    found = frame.objects[0]
    picture = np.zeros((300, 320, 3), np.uint8)
    pose = turned @ found.cam_from_obj
    mesh = source.mesh(found.obj_id).mesh
    drawn = render_views(mesh, pose[None], stretched, (320, 300))
    picture = drawn.color[0].numpy()
    camera = replace(frame.camera, K=stretched, height=300)
    made = replace(
        frame,
        camera=camera,
        image=picture,
        depth=drawn.depth[0].numpy(),
        objects=(replace(found, cam_from_obj=pose, mask=drawn.mask[0].numpy(), mask_amodal=None, box=None),),
    )
    objects = SceneObjects(find_meshes(source.models_folder), infos=source.models_info, settings=VIEWS)
    for source_of_depth in ("mesh", "picture"):
        crops = SceneCrops([made], objects, PLAIN, depth_from=source_of_depth)
        crop = crops.draw(0, np.random.default_rng(0), first_two)
        depth, mask = in_crop(crop, mesh)
        assert crop.query_K[0, 0] == pytest.approx(float(crop.query_K[1, 1]))
        assert abs(float(crop.query_K[0, 1])) < 1e-9
        seen = crop.query_mask
        assert float((mask & seen).sum() / (mask | seen).sum()) > 0.95
        assert float(((depth - crop.query_depth).abs()[mask & seen] / crop.diameter).median()) < 1e-3
        upright = upright_pose(crop.query_pose.numpy())
        assert abs(float(twist_about_z(crop.query_pose[:3, :3] @ upright[:3, :3].T))) <= 0.5 + 1e-9


def test_mirrored_crops_keep_their_affine(data):
    mirrored = data.open(VIEWS, replace(PLAIN, mirror_share=1.0)).draw(0, np.random.default_rng(2), first_two)
    plain = data.open(VIEWS, PLAIN).draw(0, np.random.default_rng(2), first_two)
    px = torch.tensor([[10.0, 20.0], [200.0, 100.0]], dtype=torch.float64)
    there = pixel_affine.apply(plain.crop_from_image, px)
    again = pixel_affine.apply(mirrored.crop_from_image, px * torch.tensor([-1.0, 1.0]).double())
    assert torch.allclose(again, torch.stack([63 - there[:, 0], there[:, 1]], -1))
    assert torch.equal(mirrored.query, plain.query.flip(-1))


def test_labels_see_the_nearest_template(data):
    samples = VPOGTrainDataset(data.open(VIEWS, PLAIN), TemplateSelector(1, 1), length=8, fixed=True)
    batch = collate([samples[index] for index in range(8)])
    names = ("query_depth", "query_mask", "query_K", "query_pose", "template_depth", "template_mask")
    labels = FlowComputer(16)(*(batch[name] for name in (*names, "template_K", "template_pose", "diameter")))
    seen = labels.visible.sum((-1, -2, -3)) / batch["query_mask"].sum((-1, -2))[:, None]
    near, far = (seen[batch["template_types"] == kind] for kind in (0, 1))
    assert float(near.mean()) > 0.7
    assert float(far.mean()) < 0.4


def test_shards_and_scenes_show_the_same(folder, data):
    shards = SceneData(
        folder=folder / "web", split="train_pbr_web", models=folder / "toys" / "models", depth_from="picture"
    )
    crops = shards.open(VIEWS, PLAIN)
    assert len(crops) == 2
    seen = {crops.draw(0, np.random.default_rng(seed), first_two).object_index for seed in range(12)}
    assert seen == {1, 2}
    crop = crops.draw(1, np.random.default_rng(0), first_two)
    depth, mask = in_crop(crop, BopDataset(folder / "toys", "train_pbr").mesh(crop.object_index).mesh)
    both = mask & crop.query_mask
    assert float(((depth - crop.query_depth).abs()[both] / crop.diameter).median()) < 1e-3
    assert crop.diameter == pytest.approx(data.open(VIEWS, PLAIN).objects.views(crop.object_index).diameter)


def test_damaged_pictures_are_passed_over_and_told(folder, tmp_path, caplog):
    caplog.set_level(logging.WARNING, "sightline")
    web = tmp_path / "web"
    frames = BopDataset(folder / "toys", "train_pbr").frames
    write_bop_shards(web, frames, per_shard=1)
    with tarfile.open(web / "shard-000000.tar") as archive:
        part = archive.getmember("000002_000000.depth.png")
    data = bytearray((web / "shard-000000.tar").read_bytes())
    data[part.offset_data : part.offset_data + 50] = bytes(50)
    (web / "shard-000000.tar").write_bytes(data)
    crops = SceneData(folder=web, models=folder / "toys" / "models", depth_from="picture").open(VIEWS, PLAIN)
    crop = crops.draw(0, np.random.default_rng(0), first_two)
    assert torch.isfinite(crop.query_depth).all()
    assert "000002_000000.depth.png" in crops.report.lines()[0]
    assert "000002_000000.depth.png" in caplog.text
    (web / "shard-000001.tar").write_bytes(b"")
    with pytest.raises(ValueError, match="expected something to learn from near sample 0, found none: "):
        SceneData(folder=web, models=folder / "toys" / "models", depth_from="picture").open(
            VIEWS, PLAIN
        ).draw(0, np.random.default_rng(0), first_two)


def test_a_mask_that_is_not_where_the_pose_is_is_refused(folder):
    dataset = BopDataset(folder / "toys", "train_pbr")
    frame = dataset.frames[0]
    away = replace(frame.objects[0], mask=np.roll(load_mask(frame.objects[0].mask), 160, axis=1))
    objects = SceneObjects(find_meshes(dataset.models_folder), settings=VIEWS)
    crops = SceneCrops([replace(frame, objects=(away,))], objects, PLAIN)
    with pytest.raises(ValueError, match="pixels of its mask show the object at its pose"):
        crops.draw(0, np.random.default_rng(0), first_two)


def test_without_a_mask_the_box_says_what_is_seen(folder):
    dataset = BopDataset(folder / "toys", "train_pbr")
    frame = dataset.frames[0]
    objects = SceneObjects(find_meshes(dataset.models_folder), settings=VIEWS)
    boxed = replace(frame, objects=(replace(frame.objects[0], mask=None),))
    crop = SceneCrops([boxed], objects, PLAIN).draw(0, np.random.default_rng(0), first_two)
    masked = SceneCrops([frame], objects, PLAIN, places=[(0, 0)]).draw(0, np.random.default_rng(0), first_two)
    area, smaller = (
        each.query_mask.sum() / each.crop_from_image[:, :2].det().abs() for each in (masked, crop)
    )
    assert float(smaller) == pytest.approx(float(area), rel=0.1)  # pixels of the picture


def test_templates_of_gigapose_are_upright_squares(folder, tmp_path):
    dataset = BopDataset(folder / "toys", "train_pbr")
    mesh, info = dataset.mesh(1).mesh, dataset.models_info[1]
    write_gigapose_templates(tmp_path / "templates" / "toys", 1, mesh, num_views=42, scale=10)
    given = SceneObjects(
        {}, infos={1: info}, templates=tmp_path / "templates" / "toys", template_scale=10, settings=VIEWS
    )
    assert 1 in given
    assert 2 not in given
    views = given.views(1).templates
    assert views.number == 42
    for row in (0, 17, 40):
        view = views.view(row)
        pose, K = torch.from_numpy(view.cam_from_obj), torch.from_numpy(view.K)
        drawn = render_views(mesh, pose[None], K[None], (64, 64), outputs=("depth", "mask"))
        mask = torch.from_numpy(view.mask)
        assert float((drawn.mask[0] & mask).sum() / (drawn.mask[0] | mask).sum()) > 0.95
        both = drawn.mask[0] & mask
        wrong = (drawn.depth[0] - torch.from_numpy(view.depth)).abs()[both] / info.diameter
        assert float(wrong.median()) < 2e-3
        upright = upright_pose(view.cam_from_obj)
        assert abs(float(twist_about_z(pose[:3, :3] @ upright[:3, :3].T))) < 1e-6
        rows, columns = np.nonzero(view.mask)
        assert max(np.ptp(rows), np.ptp(columns)) + 1 == pytest.approx(0.87 * 64, abs=2)
    folder_of_views = tmp_path / "templates" / "toys"
    unknown = SceneObjects({}, templates=folder_of_views, template_scale=10, settings=VIEWS)
    assert unknown.views(1).diameter == pytest.approx(info.diameter, rel=0.03)
    card = read_gigapose_card(
        folder_of_views, 1, name="box", bounds=info.bounds, diameter=info.diameter, scale=10, mesh=mesh
    )
    assert len(card.templates) == 42
    crops = SceneCrops(dataset.frames, given, PLAIN, depth_from="picture")
    assert crops.draw(0, np.random.default_rng(0), first_two).templates.shape == (2, 3, 64, 64)


def test_templates_are_kept_between_runs(folder, tmp_path, monkeypatch):
    dataset = BopDataset(folder / "toys", "train_pbr")
    meshes = find_meshes(dataset.models_folder)
    options = {"infos": dataset.models_info, "settings": VIEWS, "folder": tmp_path}
    first = SceneObjects(meshes, **options).views(2)
    monkeypatch.setattr("sightline.vpog.scene_objects.draw_templates", None)
    again = pickle.loads(pickle.dumps(SceneObjects(meshes, **options))).views(2)
    assert np.array_equal(first.templates.colors, again.templates.colors)
    assert again.diameter == first.diameter
    assert (again.symmetries.axis is None) == (first.symmetries.axis is None)
    assert again.queries.number == 0
    other = SceneObjects(meshes, infos=dataset.models_info, settings=VIEWS, unit_mm=2, folder=tmp_path)
    with pytest.raises(TypeError):
        other.views(2)  # another size, another file


def test_symmetric_objects_are_seen_from_their_nearest_side(folder, data):
    crops = data.open(VIEWS, PLAIN)
    views = crops.objects.views(2)
    assert views.symmetries.axis is not None
    poses = []

    def note(rng, query, templates):
        poses.append((query, templates))
        return first_two(rng, query, templates)

    number = next(
        n
        for n, (row, which) in enumerate(crops.places.tolist())
        if crops.frames[row].objects[which].obj_id == 2
    )
    crops.draw(number, np.random.default_rng(0), note)
    query, templates = poses[0]
    stored = torch.from_numpy(np.array(views.templates.cam_from_obj))
    assert not torch.allclose(templates, stored)
    # equal views stand where the camera stands or, beyond the pole, opposite: only heights differ
    direction, own = -templates[:, 2, :3], -query[2, :3]
    axis = views.symmetries.axis
    flat, toward = (each - (each @ axis)[..., None] * axis for each in (direction, own))
    same = torch.nn.functional.cosine_similarity(flat, toward[None])
    level = flat.norm(dim=1) > 0.1
    assert float(same[level].abs().min()) > 0.999
    assert float(same[torch.where(level, direction @ own, -1.0).argmax()]) > 0.999
    assert float((direction @ own).mean()) > float((-stored[:, 2, :3] @ own).mean()) + 0.3


def test_recipes_name_data_sets(folder, tmp_path):
    from sightline.vpog.recipe import read_vpog_recipe

    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"""
model: {{encoder: {{name: tiny, dim: 32, depth: 1, num_heads: 2}}, image_size: 64, depth: 1, num_heads: 2,
  flow_hidden_dim: 32, flow_layers: 1}}
data:
  views: {{num_templates: 42, template_px: 64}}
  crops: {{turn: 0.55}}
  num_positives: 1
  num_negatives: 1
  epoch_length: 4
  num_validation: 2
  scene_share: 1
  scenes:
    - {{folder: {folder / "toys"}, share: 3}}
    - {{folder: {folder / "web"}, split: train_pbr_web, depth_from: picture,
       models: {folder / "toys" / "models"}}}
  validation_scenes:
    - {{folder: {folder / "toys"}}}
train: {{batch_size: 2, steps: 1}}
""",
        encoding="utf-8",
    )
    task = read_vpog_recipe(path).task
    assert task.data.scenes[1].depth_from == "picture"
    samples = task.training_samples()
    batch = next(iter(EpochStream(samples, task.collate, batch_size=2, seed=0, stop=1)))
    assert torch.isfinite(task.losses(batch)["loss"])
    assert len(task.validation_samples()) == 2
    assert task.validation_samples()[0].object_index in (1, 2)
    path.write_text(path.read_text().replace("share: 3", "shares: 3"))
    with pytest.raises(ValueError, match="data: scenes: unknown key 'shares'"):
        read_vpog_recipe(path)


def test_what_cannot_be_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match=r"scene_share: expected a share in \[0, 1\], got 2"):
        PoseData(scene_share=2)
    with pytest.raises(ValueError, match="shares: expected one"):
        MixedCrops([], [])
    with pytest.raises(FileNotFoundError, match="expected a folder of models or of templates"):
        SceneData(folder=folder / "web", split="train_pbr_web").open(VIEWS, PLAIN)
    with pytest.raises(FileNotFoundError, match="expected meshes such as"):
        find_meshes(tmp_path)
    with pytest.raises(ValueError, match="all are empty"):
        frame_views([], 0.1, VIEWS)
    with pytest.raises(ValueError, match="all are empty"):
        diameter_of_views([])
    with pytest.raises(ValueError, match="expected meshes or a folder of templates"):
        SceneObjects({})
    dataset = BopDataset(folder / "toys", "train_pbr")
    objects = SceneObjects(find_meshes(dataset.models_folder), settings=VIEWS)
    with pytest.raises(ValueError, match="depth_from: expected mesh or picture"):
        SceneCrops(dataset.frames, objects, depth_from="sensor")
    with pytest.raises(ValueError, match="expected visible objects"):
        SceneCrops(dataset.frames, objects, places=[])
    with BopSceneWriter(tmp_path / "empty" / "train" / "000001") as writer:
        writer.add(replace(dataset.frames[0], objects=()))
    with pytest.raises(ValueError, match="expected visible objects"):
        SceneData(folder=tmp_path / "empty", split="train", models=dataset.models_folder).open(VIEWS, PLAIN)
