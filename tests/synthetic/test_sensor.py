from __future__ import annotations

from dataclasses import replace

import numpy as np

from sightline.synthetic.sensor import SensorSettings, expose, sense_depth

CLEAN = SensorSettings.clean()
RNG = np.random.default_rng


def grey(value: int = 120) -> np.ndarray:
    return np.full((64, 64, 3), value, np.uint8)


def test_a_clean_camera_changes_nothing():
    image = RNG(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    assert (expose(image, RNG(1), CLEAN) == image).all()


def test_exposure_scales_and_clips():
    bright = expose(grey(), RNG(0), replace(CLEAN, exposure=(1.5, 1.5)))
    assert (bright == 180).all()
    assert (expose(grey(200), RNG(0), replace(CLEAN, exposure=(2.0, 2.0))) == 255).all()


def test_a_cast_warms_or_cools():
    images = [expose(grey(), RNG(seed), replace(CLEAN, cast=0.2)) for seed in range(20)]
    balance = np.array([image[0, 0, 0] - float(image[0, 0, 2]) for image in images])
    assert balance.min() < -10 < 10 < balance.max()
    assert all((image[..., 1] == 120).all() for image in images)


def test_noise_has_the_wanted_strength_and_grows_with_light():
    settings = replace(CLEAN, noise=(4.0, 4.0))
    dark, mid = (expose(grey(value), RNG(0), settings).astype(float) for value in (20, 128))
    assert abs(mid.std() - 4.0) < 0.3
    assert dark.std() < 0.8 * mid.std()
    assert abs(mid.mean() - 128) < 0.2


def test_blur_and_jpeg_soften_but_keep_the_mean():
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 32:] = 200
    soft = expose(image, RNG(0), replace(CLEAN, blur_px=(2.0, 2.0)))
    assert 20 < soft[32, 31, 0] < 180
    image[:, 28:32] = 200  # the edge within a block of 8 pixels
    coded = expose(image, RNG(0), replace(CLEAN, jpeg_quality=(50, 50)))
    assert (coded != image).any()
    assert abs(coded.mean() - image.mean()) < 2


def test_depth_noise_grows_with_the_square_and_edges_tear():
    depth = np.full((100, 200), 1.0, np.float32)
    depth[:, 100:] = 2.0
    depth[:5] = 0.0
    noisy = sense_depth(depth, RNG(0), SensorSettings(depth_noise=0.002))
    assert (noisy[:5] == 0).all()
    near, far = (part[part > 0] for part in (noisy[10:, 5:95], noisy[10:, 105:195]))
    assert abs(near.std() - 0.002) < 2e-4
    assert abs(far.std() - 0.008) < 8e-4
    assert (noisy[10:, 99:101] == 0).mean() > 0.4
    assert (noisy[10:, 5:95] == 0).mean() < 0.02
    assert noisy.dtype == np.float32


def test_without_depth_noise_depth_is_exact():
    depth = RNG(0).uniform(0, 2, (8, 8)).astype(np.float32)
    assert sense_depth(depth, RNG(0), CLEAN) is depth
