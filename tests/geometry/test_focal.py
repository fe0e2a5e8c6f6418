from __future__ import annotations

import pytest
import torch

from sightline.geometry.focal import focal_35mm_to_px, focal_from_exif, focal_mm_to_px


def test_millimetres_to_pixels_scalars_and_batches():
    assert float(focal_mm_to_px(18.0, 4000, 36.0)) == pytest.approx(2000)
    focal = torch.tensor([18.0, 50.0])
    px = focal_mm_to_px(focal, torch.tensor([4000, 6000]), 36.0)
    assert px.dtype == torch.float32
    torch.testing.assert_close(px, torch.tensor([2000.0, 8333.3333]))


def test_gradient():
    values = [
        torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in ([18.0, 50], [640.0, 800], 36.0)
    ]
    assert torch.autograd.gradcheck(focal_mm_to_px, values)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((0.0, 640, 36.0), "focal_mm"),
        ((18.0, -640, 36.0), "image_width_px"),
        ((18.0, 640, float("nan")), "sensor_width_mm"),
    ],
)
def test_a_number_that_is_not_positive_is_named(arguments, name):
    with pytest.raises(ValueError, match=name):
        focal_mm_to_px(*arguments)
    with pytest.raises(ValueError, match="focal_35mm"):
        focal_35mm_to_px(0, 640, 480)


def test_a_bad_entry_of_a_batch_is_nan_and_spoils_no_other():
    focal = focal_mm_to_px(torch.tensor([18.0, 0.0, 18.0]), 640, torch.tensor([36.0, 36.0, torch.nan]))
    assert focal.isnan().tolist() == [False, True, True]
    assert focal[0].item() == 320.0


def test_a_full_frame_camera_gives_the_same_by_width_and_by_diagonal():
    assert focal_35mm_to_px(50, 6000, 4000) == pytest.approx(float(focal_mm_to_px(50, 6000, 36)))


# A Canon 550D: 5184x3456 pixels, 5184000 / 905 an inch of the sensor; here the photo was made smaller.
CANON = {
    "focal_mm": 55.0,
    "plane_x_resolution": 5184000 / 905,
    "plane_resolution_unit": 2,
    "exif_size": (5184, 3456),
}


def test_the_focal_plane_of_a_resized_photo():
    found = focal_from_exif(718, 480, **CANON)
    assert found.focal_px == pytest.approx(float(focal_mm_to_px(55, 718, 22.3)), rel=0.04)
    assert found.focal_px == pytest.approx(55 * 5184000 / 905 / 25.4 * 718 / 5184)
    assert "pixels a millimetre" in found.source and "doubtful" not in found.source


def test_the_unit_of_the_resolution_counts():
    centimetres = CANON | {"plane_x_resolution": 5184000 / 905 / 2.54, "plane_resolution_unit": 3}
    assert focal_from_exif(718, 480, **centimetres).focal_px == pytest.approx(
        focal_from_exif(718, 480, **CANON).focal_px
    )
    assert focal_from_exif(718, 480, **CANON | {"plane_resolution_unit": 1}) is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photo_has_the_same_focal_length(orientation):
    upright = (480, 718) if orientation >= 5 else (718, 480)
    expected = focal_from_exif(718, 480, **CANON).focal_px
    found = focal_from_exif(*upright, orientation=orientation, **CANON)
    assert found.focal_px == pytest.approx(expected) and "doubtful" not in found.source
    by_sensor = focal_from_exif(*upright, orientation=orientation, focal_mm=55, sensor_width_mm=22.3)
    assert by_sensor.focal_px == pytest.approx(float(focal_mm_to_px(55, 718, 22.3)))
    by_film = focal_from_exif(*upright, orientation=orientation, focal_35mm=89)
    assert by_film.focal_px == pytest.approx(focal_35mm_to_px(89, 718, 480))


def test_a_cropped_photo_is_doubtful():
    assert "cropped" in focal_from_exif(480, 480, **CANON).source


def test_the_order_and_what_does_not_suffice():
    everything = CANON | {"focal_35mm": 88}
    assert "sensor 22.3" in focal_from_exif(718, 480, sensor_width_mm=22.3, **everything).source
    assert "pixels a millimetre" in focal_from_exif(718, 480, **everything).source
    assert "35 mm" in focal_from_exif(718, 480, focal_mm=55.0, focal_35mm=88).source
    assert focal_from_exif(718, 480, focal_mm=55.0) is None
    assert focal_from_exif(718, 480, focal_35mm=0) is None
    with pytest.raises(ValueError, match="orientation"):
        focal_from_exif(718, 480, orientation=9)
    with pytest.raises(ValueError, match="picture"):
        focal_from_exif(0, 480)
