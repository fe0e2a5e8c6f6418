"""What a camera does to a picture: exposure, colour cast, blur, noise, JPEG; and to a depth map."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

Range = tuple[float, float]


@dataclass(frozen=True)
class SensorSettings:
    """How far each fault may go; a picture draws its own values between the two ends.

    Args:
        exposure: factor on brightness.
        cast: largest relative gain of red over blue, or blue over red.
        blur_px: sigma of the lens' blur, pixels.
        noise: standard deviation at mid grey, in steps of 255.
        jpeg_quality: of the compression, 1 to 100; None for none.
        depth_noise: standard deviation of depth at one metre, metres; it grows with the square of depth. 0
            leaves the depth map exact and whole, otherwise depth edges are torn and a few pixels are missing.

    Example:
        >>> SensorSettings.clean().noise
        (0.0, 0.0)
    """

    exposure: Range = (0.75, 1.2)
    cast: float = 0.12
    blur_px: Range = (0.3, 1.0)
    noise: Range = (1.0, 5.0)
    jpeg_quality: tuple[int, int] | None = (70, 95)
    depth_noise: float = 0.0

    @classmethod
    def clean(cls) -> SensorSettings:
        """A camera without faults."""
        return cls((1.0, 1.0), 0.0, (0.0, 0.0), (0.0, 0.0), None, 0.0)


def expose(image: np.ndarray, rng: np.random.Generator, settings: SensorSettings) -> np.ndarray:
    """The picture that the camera delivers.

    Args:
        image: ``(h, w, 3)`` uint8 or float RGB, 0 to 255, as rendered.
        rng: draws the faults.
        settings: how far they may go.

    Returns:
        ``(h, w, 3)`` uint8 RGB.

    Example:
        >>> import numpy as np
        >>> grey = np.full((8, 8, 3), 100, np.uint8)
        >>> bool((expose(grey, np.random.default_rng(0), SensorSettings.clean()) == grey).all())
        True
    """
    warm = rng.uniform(-settings.cast, settings.cast)
    gain = rng.uniform(*settings.exposure) * np.array([1 + warm, 1.0, 1 - warm], np.float32)
    picture = image.astype(np.float32) * gain.astype(np.float32)
    sigma = rng.uniform(*settings.blur_px)
    if sigma > 0.05:
        picture = cv2.GaussianBlur(picture, (0, 0), sigma)
    strength = rng.uniform(*settings.noise)
    if strength > 0:
        grain = rng.standard_normal(picture.shape, dtype=np.float32)
        picture += grain * (strength * np.sqrt(0.3 + 0.7 * np.maximum(picture, 0.0) / 128.0))
    delivered = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    if settings.jpeg_quality is None:
        return delivered
    quality = int(rng.integers(settings.jpeg_quality[0], settings.jpeg_quality[1] + 1))
    return _through_jpeg(delivered, quality)


def _through_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    coded, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    back = cv2.imdecode(data, cv2.IMREAD_COLOR) if coded else None
    if back is None:
        raise RuntimeError(f"JPEG: OpenCV could not code a picture of shape {image.shape}")
    return np.ascontiguousarray(back[..., ::-1])


def sense_depth(depth: np.ndarray, rng: np.random.Generator, settings: SensorSettings) -> np.ndarray:
    """The depth map that a depth camera delivers.

    Args:
        depth: ``(h, w)`` float32 metres, 0 where nothing is.
        rng: draws the faults.
        settings: of them ``depth_noise``.

    Returns:
        ``(h, w)`` float32 metres, 0 where depth is missing.

    Example:
        >>> import numpy as np
        >>> flat = np.ones((8, 8), np.float32)
        >>> noisy = sense_depth(flat, np.random.default_rng(0), SensorSettings(depth_noise=0.01))
        >>> bool(0 < abs(noisy[noisy > 0] - 1).max() < 0.05)
        True
    """
    if settings.depth_noise <= 0:
        return depth
    noisy = depth + rng.standard_normal(depth.shape, dtype=np.float32) * settings.depth_noise * depth**2
    kernel = np.ones((3, 3), np.uint8)
    step = cv2.dilate(depth, kernel) - cv2.erode(depth, kernel)
    draw = rng.uniform(size=depth.shape)
    lost = (depth <= 0) | (draw < 0.005) | ((step > 0.05 * depth) & (draw < 0.6))
    return np.where(lost, 0, noisy).astype(np.float32)
