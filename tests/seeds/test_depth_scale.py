"""The code blocks of the document on the depth-aware scale loss, run as they were written.

Import lines name this package's addresses; what the document leaves undefined is supplied.
"""

import pytest
import torch
import torch.nn.functional as F

from sightline.depth_scale import (
    DepthScaleLossInfo,
    depth_aware_scale_loss,
    estimate_k_obj_from_dataset,
    focal_mm_to_px,
)

B, H_lat, W_lat, H_img, W_img = 4, 32, 40, 256, 320


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Four pictures of one object: nearer ones show it larger."""
    generator = torch.Generator().manual_seed(0)
    depth_meters = torch.tensor([0.8, 1.0, 1.4, 2.0]).view(B, 1, 1, 1).expand(B, 1, H_img, W_img)
    M_lat = torch.zeros(B, 1, H_lat, W_lat)
    for mask, side in zip(M_lat, (20, 16, 11, 8), strict=True):
        mask[:, 5 : 5 + side, 8 : 8 + side] = 1.0
    M_hat = (0.96 * M_lat + 0.04 * torch.rand(M_lat.shape, generator=generator)).requires_grad_()
    return {
        "depth_meters": depth_meters,
        "M_lat": M_lat,
        "M_hat": M_hat,
        "f_px_batch": torch.full((B,), 300.0),
    }


def test_midas_at_latent_resolution(batch):
    depth_px, M_lat, M_hat = 1 / batch["depth_meters"], batch["M_lat"], batch["M_hat"]
    f_px_batch, L_total = batch["f_px_batch"], torch.tensor(1.0)

    depth_lat = F.interpolate(depth_px, size=(H_lat, W_lat), mode="bilinear", align_corners=False)

    k_obj = estimate_k_obj_from_dataset(
        gt_mask01=M_lat,
        depth_map=depth_lat,
        f_px=f_px_batch,
        depth_mode="inv_depth",
        depth_stat="median",
    )

    L_depth, info = depth_aware_scale_loss(
        pred_mask01=M_hat,
        depth_map=depth_lat,
        f_px=f_px_batch,
        k_obj=k_obj,
        depth_mode="inv_depth",
        depth_stat="median",
        detach_depth=True,
    )

    L_total = L_total + 0.10 * L_depth

    assert isinstance(k_obj, torch.Tensor)
    assert k_obj.ndim == 0
    assert k_obj.item() == pytest.approx(16 / 300, rel=0.04)
    assert isinstance(info, DepthScaleLossInfo)
    for name in ("s_pred", "s_exp", "depth_stat"):
        assert getattr(info, name).shape == (B, 1, 1, 1)
    assert L_depth.ndim == 0
    assert 0 < L_depth.item() < 0.05
    L_total.backward()
    assert M_hat.grad.abs().sum() > 0


def test_metric_depth(batch):
    depth_meters, M_lat, M_hat = batch["depth_meters"], batch["M_lat"], batch["M_hat"]
    f_px_batch, L_total = batch["f_px_batch"], torch.tensor(0.0)

    depth_lat = F.interpolate(depth_meters, size=(H_lat, W_lat), mode="bilinear", align_corners=False)

    k_obj = estimate_k_obj_from_dataset(
        gt_mask01=M_lat,
        depth_map=depth_lat,
        f_px=f_px_batch,
        depth_mode="depth",
    )

    L_depth, _ = depth_aware_scale_loss(
        pred_mask01=M_hat,
        depth_map=depth_lat,
        f_px=f_px_batch,
        k_obj=k_obj,
        depth_mode="depth",
    )

    L_total = L_total + 0.10 * L_depth

    inverse = estimate_k_obj_from_dataset(M_lat, 1 / depth_lat, f_px_batch)
    torch.testing.assert_close(k_obj, inverse)
    assert 0 < L_total.item() < 0.005


def test_exif_focal_length():
    focal_mm = torch.tensor([24.0, 50.0])
    sensor_width_mm = torch.tensor([36.0, 23.5])
    image_width_px = torch.tensor([6000.0, 4000.0])

    f_px = focal_mm_to_px(focal_mm, image_width_px, sensor_width_mm)

    torch.testing.assert_close(f_px, torch.tensor([4000.0, 50 / 23.5 * 4000]))


def test_the_sum_of_the_recipe():
    from sightline.depth_scale.insertion import InsertionLoss

    weights = InsertionLoss().weights
    named = {name: weights[name] for name in ("mse", "bg", "dice", "area", "bnd", "depth")}
    assert named == {"mse": 1.00, "bg": 0.60, "dice": 0.90, "area": 0.20, "bnd": 0.40, "depth": 0.10}
