"""The object's constant: recovered from scenes, robust against bad samples, the same at any resolution."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from sightline.depth_scale import (
    ScaleCalibrator,
    ScaleConstant,
    ScaleOptions,
    depth_aware_scale_loss,
    estimate_k_obj_from_dataset,
)

SIDE_M = 0.3


def squares(depths: list[float], focal: float = 400.0, size: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    """A square of 0.3 m at some depths, seen from the front."""
    masks = torch.zeros(len(depths), 1, size, size)
    for mask, depth in zip(masks, depths, strict=True):
        side = round(SIDE_M * focal / depth)
        first = (size - side) // 2
        mask[:, first : first + side, first : first + side] = 1.0
    return masks, torch.tensor(depths).view(-1, 1, 1, 1).expand_as(masks)


def test_of_metric_depth_it_is_a_length() -> None:
    masks, depth = squares([0.6, 0.8, 1.0, 1.5, 2.0])
    k = estimate_k_obj_from_dataset(masks, depth, 400.0, depth_mode="depth")
    assert k.ndim == 0
    assert k.item() == pytest.approx(SIDE_M, rel=0.01)
    inverse = estimate_k_obj_from_dataset(masks, 1 / depth, 400.0)
    assert inverse.item() == pytest.approx(SIDE_M, rel=0.01)
    loss, _ = depth_aware_scale_loss(masks, 1 / depth, 400.0, inverse)
    assert loss.item() < 1e-4


def test_bad_samples_are_left_out_and_counted() -> None:
    masks, depth = squares([0.6, 0.8, 1.0, 1.5, 2.0, 1.0, 1.0])
    masks, depth = masks.clone(), depth.clone()
    masks[5] = 0.0
    depth[6] = math.nan
    focal = torch.tensor([400.0, 400, 400, 400, -1, 400, 400])
    assert estimate_k_obj_from_dataset(masks, depth, focal, "depth").item() == pytest.approx(SIDE_M, rel=0.01)
    calibrator = ScaleCalibrator()
    calibrator.update(masks, depth, focal)
    found = calibrator.result()
    assert (found.num_used, found.num_given) == (4, 7)
    assert found.value == pytest.approx(SIDE_M, rel=0.01)
    assert 0 <= found.spread < 0.01


def test_spread_is_that_of_the_samples() -> None:
    masks, depth = squares([1.0] * 400)
    generator = torch.Generator().manual_seed(0)
    noisy = depth * (0.1 * torch.randn(400, 1, 1, 1, generator=generator)).exp()
    calibrator = ScaleCalibrator()
    calibrator.update(masks, noisy, 400.0)
    assert calibrator.result().spread == pytest.approx(0.1, rel=0.15)
    assert calibrator.result().value == pytest.approx(SIDE_M, rel=0.02)


def test_none_left_is_an_error_with_the_reasons() -> None:
    with pytest.raises(ValueError, match=r"none of 3 samples can be used \(3: the mask is empty\)"):
        estimate_k_obj_from_dataset(torch.zeros(3, 8, 8), torch.ones(3, 8, 8), 400.0)
    with pytest.raises(ValueError, match="none of 0 samples"):
        ScaleCalibrator().result()


def test_the_same_constant_at_pixel_and_at_latent_resolution() -> None:
    masks, depth = squares([0.6, 0.75, 1.0, 1.5], size=256)
    small = functional.interpolate(masks, size=(32, 32), mode="area")
    options = {"depth_mode": "depth", "image_width_px": 256}
    fine = estimate_k_obj_from_dataset(masks, depth, 400.0, **options)
    coarse = estimate_k_obj_from_dataset(small, depth[..., ::8, ::8], 400.0, **options)
    torch.testing.assert_close(fine, coarse)
    plain = estimate_k_obj_from_dataset(small, depth[..., ::8, ::8], 400.0, "depth")
    assert plain.item() == pytest.approx(fine.item() / 8, rel=1e-4)


def test_a_stream_gives_what_one_batch_gives() -> None:
    masks, depth = squares([0.6, 0.7, 0.8, 1.0, 1.3, 1.5, 2.0])
    calibrator = ScaleCalibrator(ScaleOptions(depth_mode="depth"))
    for i in range(len(masks)):
        calibrator.update(masks[i], depth[i], 400.0)
    whole = estimate_k_obj_from_dataset(masks, depth, 400.0, "depth")
    assert calibrator.result().value == pytest.approx(whole.item(), rel=1e-6)


def test_a_stream_does_not_mix_units() -> None:
    masks, depth = squares([1.0])
    calibrator = ScaleCalibrator()
    calibrator.update(masks, depth, 400.0)
    with pytest.raises(ValueError, match="image_width_px: expected for all batches or for none"):
        calibrator.update(masks, depth, 400.0, image_width_px=256)


def test_cut_off_masks_do_not_calibrate_a_stream() -> None:
    masks, depth = squares([0.6, 1.0])
    masks = torch.cat([masks, masks[:1].roll(-70, -1)])
    masks[2, :, :, 200:] = 0.0
    calibrator = ScaleCalibrator()
    calibrator.update(masks, depth[:1].expand(3, -1, -1, -1), 400.0)
    result = calibrator.result()
    assert (result.num_used, result.num_given) == (2, 3)
    assert result.dropped == {"the mask is cut off by the picture's border": 1}


def test_small_masks_are_named_with_what_helps() -> None:
    mask = torch.zeros(1, 16, 16)
    mask[:, 5:8, 5:8] = 1.0
    with pytest.warns(UserWarning, match="bbox_height"):
        estimate_k_obj_from_dataset(mask, torch.ones(1, 16, 16), 100.0)


def test_a_file_holds_all_of_it(tmp_path: Path) -> None:
    masks, depth = squares([0.6, 1.0, 1.5])
    calibrator = ScaleCalibrator(
        ScaleOptions(depth_mode="depth", scale_measure="bbox_height", contact_band=0.2)
    )
    calibrator.update(masks, depth, 400.0, image_width_px=256)
    constant = calibrator.result()
    constant.save(tmp_path / "k.json")
    assert ScaleConstant.load(tmp_path / "k.json") == constant
    assert constant.in_image_pixels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other/1"}, "format: expected 'sightline-scale-constant/1', got 'other/1'"),
        ({"value": -1.0}, "value: expected a positive number, got -1.0"),
        ({"options": {"depth_mode": "disparity"}}, "depth_mode: expected one of inv_depth, depth"),
        ({"options": {"colour": 1}}, "unknown keys colour"),
    ],
)
def test_a_foreign_file_is_named(tmp_path: Path, change: dict, message: str) -> None:
    file = tmp_path / "k.json"
    ScaleConstant(0.2, 0.01, 3, 3, ScaleOptions(depth_mode="depth")).save(file)
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ValueError, match=message) as caught:
        ScaleConstant.load(file)
    assert "k.json" in str(caught.value)
