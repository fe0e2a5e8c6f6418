"""The code blocks of the document on the masked reconstruction branch, run as they were written.

Import lines name this package's addresses; what the document leaves undefined is supplied.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch

from sightline.rtdetr_pose import masking
from sightline.rtdetr_pose.losses import Losses, entropy_loss, mim_reconstruction_loss
from sightline.rtdetr_pose.masking import generate_mask
from sightline.rtdetr_pose.model import DecoderMIM, RenderTeacher, RTDETRPose


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return RTDETRPose(
        num_classes=80,
        hidden_dim=256,
        num_queries=300,
        enable_mim=True,  # Enable MIM branch
    ).eval()


@pytest.fixture(scope="module")
def outputs(model):
    # Prepare inputs
    image = torch.randn(1, 3, 640, 640)  # RGB image

    # Prepare geometry input (mask + normalized depth)
    mask = torch.rand(1, 1, 160, 160) > 0.5  # Binary mask
    depth = torch.rand(1, 1, 160, 160) * 5.0  # Depth in meters

    # Normalize depth
    z_ref = depth[mask].median()
    depth_norm = mask.float() * (torch.log(depth + 1e-6) - torch.log(z_ref + 1e-6))
    geom_input = torch.cat([mask.float(), depth_norm], dim=1)  # (1, 2, H, W)

    # Generate feature mask for MIM
    feature_mask = torch.rand(160, 160) < 0.6  # Mask 60% of features

    # Forward pass with MIM
    return model(
        image,
        geom_input=geom_input,
        feature_mask=feature_mask,
        return_mim=True,  # Enable MIM outputs
    )


def test_render_teacher():
    teacher = RenderTeacher(hidden_dim=256, in_channels=2)
    # Input: (B, 2, H, W) where channels are [mask, normalized_depth]
    # Output: (B, 256, H, W) geometry-derived features
    assert teacher(torch.rand(1, 2, 12, 16)).shape == (1, 256, 12, 16)


def test_decoder_mim():
    decoder = DecoderMIM(hidden_dim=256)
    # Input: (B, 256, H, W) masked features
    # Output: (B, 256, H, W) reconstructed features
    assert decoder(torch.rand(1, 256, 12, 16)).shape == (1, 256, 12, 16)


def test_inference_with_mim(outputs):
    # Standard outputs
    logits = outputs["logits"]
    bbox = outputs["bbox"]
    log_z = outputs["log_z"]
    rot6d = outputs["rot6d"]

    # MIM outputs
    mim = outputs["mim"]
    recon_feat = mim["recon_feat"]  # Reconstructed features
    teacher_feat = mim["teacher_feat"]  # Teacher features
    entropy = mim["entropy"]  # Prediction entropy

    shapes = [tuple(each.shape) for each in (logits, bbox, log_z, rot6d)]
    assert shapes == [(1, 300, 80), (1, 300, 4), (1, 300, 1), (1, 300, 6)]
    assert recon_feat.shape == teacher_feat.shape == (1, 256, 20, 20)
    assert mim["mask"].shape == (1, 20, 20)
    assert entropy.ndim == 0
    assert entropy.requires_grad
    assert bbox.min() >= 0
    assert bbox.max() <= 1


def test_computing_losses(outputs, capsys):
    targets = [
        {
            "labels": torch.tensor([3, 17]),
            "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.3], [0.2, 0.3, 0.1, 0.1]]),
            "z": torch.tensor([1.0, 2.0]),
            "R": torch.eye(3).repeat(2, 1, 1),
        }
    ]
    # Create loss module with MIM weights
    loss_module = Losses(
        weights={
            "cls": 1.0,
            "box": 1.0,
            "z": 1.0,
            "rot": 1.0,
            "mim": 0.1,  # MIM reconstruction weight
            "entropy": 0.01,  # Entropy weight
        }
    )

    # Compute losses
    losses = loss_module(outputs, targets)

    print(f"Total loss: {losses['loss']:.4f}")  # noqa: T201
    print(f"MIM loss: {losses['loss_mim']:.4f}")  # noqa: T201
    print(f"Entropy loss: {losses['loss_entropy']:.4f}")  # noqa: T201

    assert len(capsys.readouterr().out.splitlines()) == 3
    assert losses["loss"].isfinite()
    assert losses["loss_mim"] > 0
    expected = mim_reconstruction_loss(
        *(outputs["mim"][name] for name in ("recon_feat", "teacher_feat", "mask"))
    )
    torch.testing.assert_close(losses["loss_mim"], expected)
    assert entropy_loss(outputs["logits"]).isfinite()


def test_test_time_training():
    import torch.optim as optim

    torch.manual_seed(0)
    test_images = [torch.rand(1, 3, 128, 128) for _ in range(2)]
    prepare_geometry = partial(
        masking.prepare_geometry, mask=torch.rand(128, 128) > 0.5, depth=torch.rand(128, 128) + 1.0
    )

    # Create model with MIM enabled
    model = RTDETRPose(enable_mim=True)
    before = {name: value.clone() for name, value in model.named_parameters()}
    model.train()

    # Select parameters to update (e.g., batch norm only)
    params = [p for n, p in model.named_parameters() if "bn" in n or "norm" in n]
    optimizer = optim.Adam(params, lr=1e-4)

    # Test-time adaptation loop
    for test_image in test_images:
        # Prepare geometry input from predictions or priors
        geom_input = prepare_geometry(test_image)
        feature_mask = generate_mask(prob=0.6)

        # Forward with MIM
        outputs = model(test_image, geom_input=geom_input, feature_mask=feature_mask, return_mim=True)

        # Compute MIM + entropy loss
        mim_loss = mim_reconstruction_loss(
            outputs["mim"]["recon_feat"], outputs["mim"]["teacher_feat"], mask=outputs["mim"]["mask"]
        )
        ent_loss = outputs["mim"]["entropy"]
        loss = mim_loss + 0.1 * ent_loss

        # Update
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        # Now use adapted model for prediction
        model.eval()
        with torch.no_grad():
            pred = model(test_image, return_mim=False)
        model.train()

        assert pred["logits"].isfinite().all()
        assert "mim" not in pred

    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert any("encoder" in name for name in changed)
    assert all("bn" in name or "norm" in name for name in changed)
    assert not any("teacher" in name for name in changed)
