"""The code blocks of the founding documents that the ground floor answers for, run as they were written.

Import lines name this package's addresses; what the documents leave undefined is supplied.
"""

import torch

from sightline.geometry.cameras import focal_mm_to_px
from sightline.geometry.depth import create_geom_from_predictions, create_geom_input


def test_creating_geometry_input_from_ground_truth():
    mask = (torch.rand(160, 160, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    depth_obj = torch.rand(160, 160, generator=torch.Generator().manual_seed(1)) * 5.0 + 0.1

    geom_input = create_geom_input(mask, depth_obj)

    assert geom_input.shape == (2, 160, 160)
    valid_depth = depth_obj[mask > 0]
    z_ref = valid_depth.median()
    depth_norm = mask * (torch.log(depth_obj + 1e-6) - torch.log(z_ref + 1e-6))
    written = torch.stack([mask.float(), depth_norm], dim=0)
    torch.testing.assert_close(geom_input, written, rtol=1e-4, atol=1e-4)


def test_an_empty_mask_gives_zeros():
    geom_input = create_geom_input(torch.zeros(8, 8), torch.zeros(8, 8))
    assert torch.equal(geom_input, torch.zeros(2, 8, 8))


def test_creating_geometry_from_predictions():
    bbox = torch.tensor([80.0, 80.0, 40.0, 40.0])
    mask_pred = torch.rand(160, 160, generator=torch.Generator().manual_seed(0))
    K = torch.tensor([600.0, 600.0, 320.0, 240.0])

    for depth_pred in (1.5, 2, torch.full((160, 160), 1.5)):
        geom_input = create_geom_from_predictions(bbox, mask_pred, depth_pred, K)
        assert geom_input.shape == (2, 160, 160)
        assert torch.equal(geom_input[0], (mask_pred > 0.5).float())
        assert float(geom_input[1].abs().max()) < 1e-6  # one depth everywhere is the reference everywhere


def test_focal_length_from_exif():
    focal_mm = torch.tensor([55.0, 35.0])
    image_width_px = torch.tensor([718.0, 6000.0])
    sensor_width_mm = torch.tensor([22.3, 23.5])

    f_px = focal_mm_to_px(focal_mm, image_width_px, sensor_width_mm)

    assert f_px.shape == (2,)
    torch.testing.assert_close(f_px, (focal_mm / sensor_width_mm) * image_width_px)
    assert float(focal_mm_to_px(55.0, 718, 22.3)) == 55.0 / 22.3 * 718
