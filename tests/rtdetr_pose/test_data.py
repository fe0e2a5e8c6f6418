from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from sightline.formats.bop_dataset import BopDataset
from sightline.formats.coco import CocoDataset, write_coco
from sightline.geometry.boxes import denormalize
from sightline.geometry.translation import recover_translation
from sightline.rtdetr_pose.augmentation import PoseAugmentation
from sightline.rtdetr_pose.data import PoseScenes, picture_geometry
from sightline.rtdetr_pose.pictures import (
    BopPictures,
    CocoPictures,
    GeneratedPictures,
    LabelledPicture,
    ScenePictures,
    classes_of_objects,
    number_classes,
)
from sightline.synthetic import (
    Scene,
    SceneSettings,
    frame_of_scene,
    make_object,
    make_scene,
    write_bop_dataset,
)
from sightline.synthetic.backdrops import BackdropBank
from sightline.synthetic.pose_composites import CompositeSettings, PoseComposites
from sightline.synthetic.pose_views import PoseViewSettings
from sightline.synthetic.view_bank import ViewBank
from sightline.training import Samples

OBJECTS = [make_object("box", 1), make_object("bottle", 3, texture="low")]
SETTINGS = SceneSettings(image_size=(160, 120), size_px=(40, 70))
RNG = np.random.default_rng


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene(OBJECTS, seed, SETTINGS) for seed in range(2)]


def generated(size: tuple[int, int] = (128, 96)) -> GeneratedPictures:
    bank = ViewBank(OBJECTS, PoseViewSettings(num_queries=12, query_px=64, query_aside=0.0))
    made = PoseComposites(
        bank, None, BackdropBank(2, image_size=(64, 48)), CompositeSettings(size, empty_share=0)
    )
    return GeneratedPictures(made, 10)


def assert_targets_agree(data: PoseScenes, index: int) -> None:
    sample = data.sample(index, RNG(index))
    target = sample["target"]
    width, height = data.image_size
    assert sample["image"].shape == (3, height, width)
    assert 0 <= float(sample["image"].min()) <= float(sample["image"].max()) <= 1
    boxes = denormalize(target["boxes"], data.image_size)
    center = boxes[:, :2]
    found = recover_translation(center, target["offsets"], target["z"], target["K"].expand(len(boxes), 3, 3))
    torch.testing.assert_close(found.t, target["t"], atol=2e-5, rtol=1e-4)
    assert target["image_size"].tolist() == [width, height]
    assert target["pose_valid"].all()
    assert target["geom"].shape == (2, height // data.stride, width // data.stride)
    assert target["geom"].isfinite().all()


@pytest.mark.parametrize("size", [(128, 96), (192, 96), (96, 96)])
def test_targets_of_generated_pictures_give_their_translations_back(size: tuple[int, int]):
    data = PoseScenes(generated(), size, augmentation=PoseAugmentation())
    assert isinstance(data, Samples)
    for index in range(5):
        assert_targets_agree(data, index)


def test_targets_of_scenes(scenes: list[Scene]):
    data = PoseScenes(ScenePictures(scenes, OBJECTS), (96, 96), with_maps=True)
    assert_targets_agree(data, 0)
    target = data.sample(0, RNG(0))["target"]
    K = scenes[0].camera.K
    assert float(target["K"][0, 0]) == pytest.approx(float(K[0, 0]) * 96 / 160, rel=1e-6)
    assert float(target["K"][1, 2]) == pytest.approx((float(K[1, 2]) + 0.5) * 96 / 120 - 0.5, rel=1e-6)
    assert target["masks"].shape == (2, 96, 96)
    assert target["depth"].shape == (96, 96)
    assert data.diameters == [thing.mesh.diameter for thing in OBJECTS]
    assert [group is thing.symmetries for group, thing in zip(data.symmetries, OBJECTS, strict=True)] == [
        True
    ] * 2


def test_a_validation_sample_is_the_same_each_time():
    data = PoseScenes(generated(), (128, 96), fixed=True)
    a, b = data.sample(1, RNG(0)), data.sample(1, RNG(1))
    assert torch.equal(a["image"], b["image"])
    assert not torch.equal(a["image"], data.sample(2, RNG(0))["image"])


def test_batches_hold_what_all_pictures_have(scenes: list[Scene]):
    data = PoseScenes(ScenePictures(scenes, OBJECTS), (96, 96), with_validity=True)
    batch = data.collate([data.sample(index, RNG(0)) for index in (0, 1)])
    assert batch["images"].shape == (2, 3, 96, 96)
    assert batch["intrinsics"] is not None
    assert batch["intrinsics"].shape == (2, 3, 3)
    assert batch["geom"] is not None
    assert batch["geom"].shape == (2, 3, 3, 3)
    with pytest.raises(ValueError, match="at least one"):
        data.collate([])


def test_bop_scenes(scenes: list[Scene], tmp_path: Path):
    write_bop_dataset(tmp_path, OBJECTS, scenes, split="train")
    source = BopPictures(BopDataset(tmp_path, "train"))
    assert [each.number for each in source.classes] == [1, 2]
    assert source.notes == ["class ids 1, 2 have holes or do not begin at 0: they become 0 to 1"]
    assert source.classes[1].symmetries.axis is not None
    data = PoseScenes(source, (96, 96), augmentation=PoseAugmentation())
    assert_targets_agree(data, 0)
    direct = ScenePictures(scenes, OBJECTS).draw(0, RNG(0))
    read = source.draw(0, RNG(0))
    np.testing.assert_allclose(read.cam_from_obj, direct.cam_from_obj, atol=1e-6)
    np.testing.assert_allclose(read.boxes, direct.boxes, atol=1e-6)
    assert np.array_equal(read.masks, direct.masks)


def test_coco_has_boxes_alone_and_its_holes_are_said(scenes: list[Scene], tmp_path: Path):
    from sightline.formats.images import write_image

    ids = {OBJECTS[0].name: 7, OBJECTS[1].name: 90}
    frames = [frame_of_scene(scene, ids, k) for k, scene in enumerate(scenes)]
    write_coco(tmp_path / "labels.json", frames)
    for frame, scene in zip(frames, scenes, strict=True):
        write_image(tmp_path / f"{frame.name}.png", scene.image)
    text = (tmp_path / "labels.json").read_text()
    (tmp_path / "labels.json").write_text(
        text.replace('000000"', '000000.png"').replace('000001"', '000001.png"')
    )
    source = CocoPictures(CocoDataset(tmp_path / "labels.json"))
    assert source.labels == {7: 0, 90: 1}
    assert "7, 90" in source.notes[0]
    assert math.isnan(source.classes[0].diameter)
    data = PoseScenes(source, (96, 96))
    batch = data.collate([data.sample(0, RNG(0))])
    target = batch["targets"][0]
    assert sorted(target["labels"].tolist()) == [0, 1]
    assert "z" not in target
    assert "K" not in target
    assert batch["intrinsics"] is None
    assert batch["geom"] is None


def test_a_picture_without_objects_is_a_sample():
    blank = LabelledPicture(
        "blank",
        np.zeros((96, 96, 3), np.uint8),
        np.zeros(0, np.int64),
        np.zeros((0, 4)),
        np.array([[90.0, 0, 47], [0, 90, 47], [0, 0, 1]]),
        np.zeros((0, 4, 4)),
        np.zeros((0, 96, 96), bool),
        np.zeros((96, 96), np.float32),
    )

    class One:
        classes = classes_of_objects(OBJECTS)

        def __len__(self) -> int:
            return 1

        def draw(self, number: int, rng: np.random.Generator) -> LabelledPicture:
            return blank

    target = PoseScenes(One(), (96, 96), augmentation=PoseAugmentation()).sample(0, RNG(0))["target"]
    assert target["labels"].shape == (0,)
    assert target["R"].shape == (0, 3, 3)
    assert float(target["geom"].abs().sum()) == 0


def test_geometry_has_one_reference_a_picture_and_averages_valid_pixels_alone():
    mask = np.zeros((8, 16), bool)
    mask[:, :4] = mask[:, 8:] = True
    depth = np.full((8, 16), 3.0, np.float32)
    depth[:, 8:] = 6.0
    depth[0, 0], depth[1, 1] = 0.0, np.nan
    geometry = picture_geometry(mask, depth, 8, with_validity=True)
    torch.testing.assert_close(geometry[0], torch.tensor([[0.5, 1.0]]))
    torch.testing.assert_close(geometry[1], torch.tensor([[0.0, math.log(2)]]))
    assert geometry[2].tolist() == [[1, 1]]


def test_a_size_that_is_no_multiple_of_the_stride_is_refused():
    with pytest.raises(ValueError, match="multiples"):
        PoseScenes(generated(), (130, 96))
    with pytest.raises(ValueError, match="once"):
        number_classes([3, 3])
