from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from sightline.geometry.rotations import angle_between
from sightline.geometry.viewpoints import view_direction
from sightline.synthetic.backdrops import BackdropBank
from sightline.synthetic.exam import exam_object
from sightline.synthetic.pose_bank import PoseBank
from sightline.synthetic.pose_crops import PoseCrop, PoseCrops
from sightline.synthetic.pose_views import PoseViewSettings
from sightline.training.stream import EpochStream
from sightline.training.task import Samples
from sightline.vpog.data import PoseCropBatch, VPOGTrainDataset, collate
from sightline.vpog.flow_computer import FlowComputer
from sightline.vpog.template_selector import TemplateSelector

VIEWS = PoseViewSettings(num_templates=42, template_px=64, num_queries=3, query_px=64)


@pytest.fixture(scope="module")
def crops() -> PoseCrops:
    return PoseCrops(PoseBank(6, settings=VIEWS), BackdropBank(2, image_size=(160, 120)))


@pytest.fixture
def data(crops: PoseCrops) -> VPOGTrainDataset:
    return VPOGTrainDataset(crops, TemplateSelector(2, 1), length=12)


def same(one: PoseCrop, other: PoseCrop) -> bool:
    return all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(one, other, strict=True))


def test_a_batch_has_the_shapes_and_types_that_the_room_agreed_on(data):
    batch = data.collate([data[0], data[3]])
    shapes = {
        "query": (2, 3, 64, 64),
        "query_depth": (2, 64, 64),
        "query_mask": (2, 64, 64),
        "query_K": (2, 3, 3),
        "query_pose": (2, 4, 4),
        "templates": (2, 3, 3, 64, 64),
        "template_depth": (2, 3, 64, 64),
        "template_mask": (2, 3, 64, 64),
        "template_K": (2, 3, 3, 3),
        "template_pose": (2, 3, 4, 4),
        "template_types": (2, 3),
        "diameter": (2,),
        "object_index": (2,),
        "crop_from_image": (2, 2, 3),
    }
    assert {name: tuple(value.shape) for name, value in batch.items()} == shapes
    assert set(shapes) == set(PoseCropBatch.__annotations__) == set(PoseCrop._fields)
    whole = {"template_types", "object_index"}
    for name, value in batch.items():
        expected = torch.int64 if name in whole else torch.bool if name.endswith("mask") else torch.float32
        assert value.dtype == expected, name
    assert batch["object_index"].tolist() == [0, 3]
    assert float(batch["query"].min()) >= 0
    assert float(batch["query"].max()) <= 1


def test_samples_depend_on_seed_epoch_and_index_alone(data, crops):
    first = data[5]
    data[6]
    assert same(first, data[5])
    assert same(first, pickle.loads(pickle.dumps(data))[5])
    assert same(data.sample(2, np.random.default_rng(4)), data.sample(2, np.random.default_rng(4)))
    data.set_epoch(1)
    assert not torch.equal(first.query, data[5].query)
    data.set_epoch(0)
    other = VPOGTrainDataset(crops, data.selector, length=12, seed=1)
    assert not torch.equal(first.query, other[5].query)
    with pytest.raises(IndexError):
        data[12]


def test_validation_is_the_same_each_time(crops):
    fixed = VPOGTrainDataset(crops, length=4, fixed=True)
    assert same(fixed.sample(3, np.random.default_rng(0)), fixed.sample(3, np.random.default_rng(1)))
    assert same(fixed.sample(3, np.random.default_rng(0)), fixed[3])


def test_the_trainer_takes_it(data):
    assert isinstance(data, Samples)
    stream = EpochStream(data, data.collate, batch_size=3, seed=0, stop=2)
    batches = list(stream)
    assert [batch["query"].shape[0] for batch in batches] == [3, 3]


def test_positives_are_near_and_negatives_far(data):
    for index in range(0, 12, 2):  # objects rich in texture have no symmetries
        crop = data[index]
        center = -(crop.query_pose[:3, :3].T @ crop.query_pose[:3, 3])
        toward = torch.nn.functional.normalize(center, dim=0)
        angles = angle_between(toward, view_direction(crop.template_pose[:, :3, :3])).rad2deg()
        assert crop.template_types.tolist() == [0, 0, 1]
        assert float(angles[0]) <= 20.9 + 1e-6  # covering radius of 42 views
        assert float(angles[1]) <= 45
        assert float(angles[2]) >= 90 - 1e-6


def test_objects_whose_sides_are_all_alike_have_no_negatives(crops):
    symmetric = [k for k in range(1, 60, 2) if exam_object(k, "train").symmetries.axis is not None]
    bank = PoseBank(symmetric[0] + 1, settings=VIEWS)
    data = VPOGTrainDataset(PoseCrops(bank, crops.backdrops), TemplateSelector(1, 3), length=10**6)
    index = symmetric[0]
    for seed in range(6):
        crop = data.sample(index, np.random.default_rng(seed))
        center = -(crop.query_pose[:3, :3].T @ crop.query_pose[:3, 3])
        toward = torch.nn.functional.normalize(center, dim=0)
        angles = angle_between(toward, view_direction(crop.template_pose[:, :3, :3])).rad2deg()
        assert len(angles) == 4
        assert (angles[crop.template_types == 1] >= 90 - 1e-6).all()
        assert (angles[crop.template_types == 0] < 90).all()


def test_labels_see_the_positives_and_not_the_negatives(crops):
    data = VPOGTrainDataset(crops, TemplateSelector(1, 1), length=24)
    batch = collate([data[index] for index in range(24)])
    labels = FlowComputer(patch_size=16)(
        batch["query_depth"],
        batch["query_mask"],
        batch["query_K"],
        batch["query_pose"],
        batch["template_depth"],
        batch["template_mask"],
        batch["template_K"],
        batch["template_pose"],
        batch["diameter"],
    )
    seen = labels.visible.sum((-1, -2, -3)) / batch["query_mask"].sum((-1, -2))[:, None]
    near, far = (seen[batch["template_types"] == kind] for kind in (0, 1))
    # of what a query shows a view from some degrees away shows nearly all, one from 90 degrees less than half
    assert float(near.mean()) > 0.8
    assert float(far.mean()) < 0.4
    # matched points are the same surface: neither picture's flow leaves its neighbourhood
    assert float(labels.flow[labels.visible].abs().quantile(0.99)) < 3


def test_an_empty_epoch_is_refused(crops):
    with pytest.raises(ValueError, match="length: expected at least 1, got 0"):
        VPOGTrainDataset(crops, length=0)
