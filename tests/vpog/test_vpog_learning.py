"""The matcher learns one object from eight views, down to its pose."""

from __future__ import annotations

import torch

from sightline.geometry.cameras import Camera
from sightline.geometry.pnp import solve_pnp
from sightline.geometry.rotations import geodesic_distance
from sightline.synthetic.pose_crops import PoseCropSettings
from sightline.synthetic.pose_views import PoseViewSettings
from sightline.vpog.correspondence import CorrespondenceBuilder, TemplateSurfaces
from sightline.vpog.losses import classification_accuracy
from sightline.vpog.model import VPOGModel
from sightline.vpog.training import PoseData, VPOGLoss, VPOGTask

STEPS = 160


def test_one_object_eight_views(tmp_path):
    torch.manual_seed(0)
    data = PoseData(
        folder=tmp_path,
        num_objects=2,
        num_backdrops=2,
        epoch_length=16,
        num_positives=1,
        num_negatives=1,
        range_deg=20.0,
        views=PoseViewSettings(num_templates=42, template_px=128, num_queries=8, query_px=128),
        crops=PoseCropSettings(turn=0.3, cover_share=0.0, cut_share=0.0),
    )
    model = VPOGModel(
        {"name": "tiny", "dim": 64, "depth": 1, "num_heads": 2},
        depth=1,
        num_heads=2,
        flow_hidden_dim=128,
        flow_layers=1,
    )
    task = VPOGTask(model, data, VPOGLoss(min_visible_pixels=64))
    samples = data.training()
    batch = samples.collate([samples[i] for i in range(0, 16, 2)])  # the objects take turns
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        task.losses(batch)["loss"].backward()
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        labels = task.label(batch)
        found = model(batch["query"], batch["templates"], batch["template_pose"])
        right = classification_accuracy(found["classification_logits"], labels.labels)
        builder = CorrespondenceBuilder(flow_threshold=0.5)
        matches = builder.match(
            found["classification_logits"], (8, 8), query_valid=(labels.labels >= 0).any(1)
        )
        flow = model.predict_flow(found["features"], matches)
        depth = torch.where(batch["template_mask"], batch["template_depth"], 0.0)
        surfaces = TemplateSurfaces(
            depth, batch["template_K"], batch["template_pose"], 0.02 * batch["diameter"]
        )
        records = builder.build(matches, surfaces, (8, 8), flow.flow, flow.confidence).records()
    assert float(right.overall) > 0.95
    errors = []
    for record, K, pose in zip(records, batch["query_K"], batch["query_pose"], strict=True):
        solved = solve_pnp(
            record.points_2d, record.points_3d, Camera(K.double(), 128, 128), weights=record.weights
        )
        assert solved.valid, solved.reason
        errors.append(float(torch.rad2deg(geodesic_distance(solved.R, pose[:3, :3].double()))))
    assert sorted(errors)[4] < 2.0, errors
    assert max(errors) < 6.0, errors
