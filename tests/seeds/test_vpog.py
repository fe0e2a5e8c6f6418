"""The code blocks of the document on template-based poses, and its two integration tests.

Import lines name this package's addresses; what the document leaves undefined is supplied. The loader's test
and that of the full pipeline run on generated crops and on a data set in BOP's layout, as the document's do
on synthetic and real data, with a small network.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sightline.geometry.flow import patch_centers, pixels_to_flow
from sightline.nn.rope import rope_encode
from sightline.synthetic import SceneSettings, make_object, make_scene, write_bop_dataset
from sightline.synthetic.backdrops import BackdropBank
from sightline.synthetic.pose_bank import PoseBank
from sightline.synthetic.pose_crops import PoseCrops, PoseCropSettings
from sightline.synthetic.pose_views import PoseViewSettings
from sightline.vis.flow import draw_flow, draw_flow_wheel, draw_patch_flow, draw_patch_matches
from sightline.vpog.correspondence import CorrespondenceBuilder, TemplateSurfaces
from sightline.vpog.data import VPOGTrainDataset
from sightline.vpog.flow_computer import FlowComputer, View
from sightline.vpog.losses import classification_loss, flow_loss, weight_regularization
from sightline.vpog.model import VPOGModel
from sightline.vpog.pose_loss import EProPnPLoss
from sightline.vpog.scene_data import SceneData
from sightline.vpog.template_selector import TemplateSelector

SIDE, PATCH = 64, 16
GRID = (SIDE // PATCH, SIDE // PATCH)
VIEWS = PoseViewSettings(num_templates=42, template_px=SIDE, num_queries=3, query_px=SIDE)


def generated(tmp_path):
    return PoseCrops(PoseBank(3, settings=VIEWS), BackdropBank(1, image_size=(96, 72)))


def of_a_data_set(tmp_path):
    thing = make_object("box", 1)
    scenes = [make_scene([thing], 3, SceneSettings(image_size=(160, 120), size_px=(50.0, 80.0)))]
    write_bop_dataset(tmp_path, [thing], scenes, split="train_pbr")
    return SceneData(folder=tmp_path).open(VIEWS, PoseCropSettings(turn=0.5))


@pytest.fixture(scope="module", params=[generated, of_a_data_set])
def dataset(request, tmp_path_factory):
    crops = request.param(tmp_path_factory.mktemp("data"))
    return VPOGTrainDataset(crops, TemplateSelector(3, 1), length=8)


def queries_and_templates(batch):
    query = View(*(batch[f"query_{name}"] for name in ("depth", "mask", "K", "pose")))
    templates = View(*(batch[f"template_{name}"] for name in ("depth", "mask", "K", "pose")))
    return query, templates


def test_rope_mask_system():
    B, S, N, added, num_added = 2, 3, 6, 1, 1
    x = torch.rand(B, S, N + added, 16)
    pos = torch.randint(0, 14, (B, S, N + added, 2))

    # Added tokens skip positional encoding
    rope_mask = torch.ones(B, S, N + added, dtype=torch.bool)
    rope_mask[:, :, -num_added:] = False  # False = skip RoPE

    # In AA module
    x_encoded = rope_encode(x, pos, rope_mask=rope_mask)

    assert torch.equal(x_encoded[:, :, -num_added:], x[:, :, -num_added:])
    assert not torch.allclose(x_encoded[:, :, :-num_added], x[:, :, :-num_added])


def test_flow_normalisation():
    patch_size = 16
    flow_pixels = torch.tensor([[16.0, 0.0], [0.0, -8.0]])

    # Patch units: delta_x=1.0 = one patch = 16 pixels
    flow_patch_units = flow_pixels / patch_size
    # Scale-invariant representation

    centers = patch_centers((14, 14))[[20, 33]]
    assert torch.allclose(pixels_to_flow(centers + flow_pixels, centers), flow_patch_units)
    assert flow_patch_units[0].tolist() == [1.0, 0.0]


def test_unseen_mask_generation(dataset):
    batch = dataset.collate([dataset[index] for index in range(4)])
    computer = FlowComputer(PATCH, min_visible_pixels=16)
    targets = computer.targets(*queries_and_templates(batch), batch["diameter"])
    labels = computer.label(targets)
    occlusion_mask, out_of_bounds_mask = targets.occluded, targets.out_of_bounds
    low_visibility_mask = targets.seen & ~labels.visible

    # Multi-factor unseen detection
    unseen_mask = (
        occlusion_mask  # Depth-based occlusion
        | out_of_bounds_mask  # Boundary checking
        | low_visibility_mask  # Minimum visible pixels
    )

    assert torch.equal(unseen_mask, labels.unseen_mask)
    assert occlusion_mask.any()
    assert low_visibility_mask.any()


def test_dataloader_integration(dataset):
    """``VPOGTrainDataset``: batches and their shapes, flow labels, pictures of the flow."""
    loader = torch.utils.data.DataLoader(dataset, batch_size=2, collate_fn=dataset.collate)
    batch = next(iter(loader))
    assert batch["query"].shape == (2, 3, SIDE, SIDE)
    assert batch["templates"].shape == (2, 4, 3, SIDE, SIDE)
    assert batch["template_types"].tolist() == [[0, 0, 0, 1]] * 2
    computer = FlowComputer(PATCH)
    targets = computer.targets(*queries_and_templates(batch), batch["diameter"])
    pairs = computer.all_pairs(targets)
    assert pairs.flow.shape == (2, 4, 16, 16, PATCH, PATCH, 2)  # [S, Nq, Nt, 16, 16, 2], with a batch
    assert pairs.confidence.shape == pairs.unseen_mask.shape == (2, 4, 16, 16, PATCH, PATCH)
    assert (pairs.flow[pairs.unseen_mask] == 0).all()
    labels = computer.label(targets)
    matched = ((labels.labels >= 0) & (labels.labels < 16)).nonzero()
    assert len(matched) > 4
    b, s, q = matched[0].tolist()
    query, template = (
        (picture.permute(1, 2, 0) * 255).byte().numpy()
        for picture in (batch["query"][b], batch["templates"][b, s])
    )
    detail = draw_patch_flow(
        labels.flow[b, s, q], labels.visible[b, s, q], query, template, q, int(labels.labels[b, s, q])
    )
    matches = draw_patch_matches(query, template, labels.labels[b, s])
    legend = draw_flow_wheel(64)
    assert all(picture.dtype == np.uint8 and picture.std() > 0 for picture in (detail, matches, legend))


def test_vpog_full_pipeline(dataset):
    """Encoder with batch data, forward pass, all losses, correspondences, a picture of the flow."""
    torch.manual_seed(0)
    batch = dataset.collate([dataset[index] for index in range(2)])
    model = VPOGModel(
        {"name": "tiny", "dim": 32, "depth": 1, "num_heads": 2},
        image_size=SIDE,
        depth=1,
        num_heads=2,
        flow_hidden_dim=32,
        flow_layers=1,
    )
    tokens, positions = model.encoder(batch["query"])
    assert tokens.shape == (2, 16, 32)
    assert positions.shape == (2, 16, 2)

    found = model(batch["query"], batch["templates"], batch["template_pose"], all_pairs=True)
    logits = found["classification_logits"]
    assert logits.shape == (2, 4, 16, 16 + 1)
    assert found["flow"].shape == (2, 4, 16, 16, PATCH, PATCH, 2)
    confidence = found["flow_confidence"].detach()
    assert 0 <= float(confidence.min()) <= float(confidence.max()) <= 1

    query, templates = queries_and_templates(batch)
    labels = FlowComputer(PATCH)(*query, *templates, batch["diameter"])
    builder = CorrespondenceBuilder(PATCH, flow_threshold=0.0, conf_threshold=0.0)
    matches = builder.matches_of_labels(labels.labels, GRID)
    prediction = model.predict_flow(found["features"], matches)
    where = (matches.batch, matches.template, matches.query_patch)
    surfaces = TemplateSurfaces(
        torch.where(templates.mask, templates.depth, 0.0),
        templates.K,
        templates.cam_from_obj,
        0.02 * batch["diameter"],
    )
    flat = builder.build(matches, surfaces, GRID, prediction.flow, prediction.confidence)
    points = flat.padded()
    pose_loss = EProPnPLoss(pixel_unit=float(PATCH))(
        points.points_3d, points.points_2d, points.weights, query.K, query.cam_from_obj, valid=points.valid
    )
    losses = {
        "classification": (1.0, classification_loss(logits, labels.labels, num_patches=16)),
        "flow": (1.0, flow_loss(prediction, labels.flow[where], labels.visible[where])),
        "regularization": (0.01, weight_regularization(model)),
        "epro_pnp": (0.5, pose_loss["loss"]),
    }
    assert all(bool(torch.isfinite(value)) for _, value in losses.values())
    sum(weight * value for weight, value in losses.values()).backward()
    heads = (model.encoder, model.attention, model.classification_head, model.flow_head)
    assert all(any(p.grad is not None and p.grad.any() for p in part.parameters()) for part in heads)

    predicted = builder.match(logits, GRID)
    records = builder.build(predicted, surfaces, GRID).records(batch["crop_from_image"])
    assert len(records) == 2
    assert all(record.points_3d.shape[1] == 3 for record in records)
    # true flow leads to true correspondences: what they say lies where the query's depth has it
    true = builder.build(matches, surfaces, GRID, labels.flow[where], labels.visible[where].float())
    K, pose = (each[true.batch] for each in (query.K, query.cam_from_obj))
    in_camera = (pose[:, :3, :3] @ true.points_3d[..., None])[..., 0] + pose[:, :3, 3]
    px = (K @ in_camera[..., None])[..., 0]
    assert float((px[:, :2] / px[:, 2:] - true.crop_px).norm(dim=-1).median()) < 0.5

    b, s, q = (int(each[0]) for each in where)
    picture = draw_flow(prediction.flow[0].detach(), ~labels.visible[b, s, q])
    assert picture.shape == (PATCH, PATCH, 3)
    assert (picture[~labels.visible[b, s, q].numpy()] == 128).all()
