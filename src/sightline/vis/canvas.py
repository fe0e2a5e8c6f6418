"""What a picture is in this room, how it is checked, and how thick a line and how tall a letter are on it."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, UInt8
from torch import Tensor

from sightline.geometry.cameras import Camera

#: RGB, row-major; the centre of the top-left pixel is (0, 0). Two pictures of one call may differ in size.
Picture = UInt8[np.ndarray, "_height _width 3"]


def check_picture(image: np.ndarray, name: str = "image") -> Picture:
    """The picture itself, if it is one.

    Args:
        image: ``(h, w, 3)`` uint8 RGB, neither side 0.
        name: what to call it in the error.

    Returns:
        The same array.

    Raises:
        ValueError: another dtype or shape.

    Example:
        >>> check_picture(np.zeros((2, 3)), "overlay")
        Traceback (most recent call last):
        ...
        ValueError: overlay: expected uint8 RGB of shape (height, width, 3), got float64 of shape (2, 3)
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        got = f"{image.dtype} of shape {tuple(image.shape)}"
        raise ValueError(f"{name}: expected uint8 RGB of shape (height, width, 3), got {got}")
    return image


def start_canvas(image: np.ndarray, name: str = "image") -> Picture:
    """A copy of a checked picture to paint on, in the memory order that OpenCV wants.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        name: what to call it in the error.

    Returns:
        A contiguous copy.

    Raises:
        ValueError: it is no picture.

    Example:
        >>> picture = np.zeros((2, 3, 3), dtype=np.uint8)
        >>> start_canvas(picture[::-1, ::-1]).flags["C_CONTIGUOUS"]
        True
    """
    return np.array(check_picture(image, name), order="C", copy=True)


def check_fits_camera(image: np.ndarray, camera: Camera) -> None:
    """Refuse a picture that this camera cannot have taken.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        camera: the camera, which knows its width and height in pixels.

    Raises:
        ValueError: the sizes differ.

    Example:
        >>> check_fits_camera(np.zeros((4, 6, 3), dtype=np.uint8), Camera.from_focal(5.0, 6, 4))
    """
    height, width = image.shape[:2]
    if (width, height) != (camera.width, camera.height):
        raise ValueError(
            f"image: expected the camera's {camera.width} x {camera.height} pixels, got {width} x {height}; "
            "resize or crop the camera with the picture"
        )


def as_array(values: np.ndarray | Tensor) -> np.ndarray:
    """A NumPy view of an array, or of a tensor on any device.

    Args:
        values: numbers of any shape.

    Returns:
        The same numbers.

    Example:
        >>> import torch
        >>> as_array(torch.ones(2)).tolist()
        [1.0, 1.0]
    """
    return values.numpy(force=True) if isinstance(values, Tensor) else np.asarray(values)


def as_mask(mask: np.ndarray | Tensor, image: np.ndarray, name: str = "mask") -> Bool[np.ndarray, "h w"]:
    """A mask that fits a picture.

    Args:
        mask: ``(h, w)`` bool.
        image: ``(h, w, 3)`` the picture it belongs to.
        name: what to call it in the error.

    Returns:
        The mask as a NumPy array.

    Raises:
        ValueError: another dtype, or not the picture's size.

    Example:
        >>> as_mask(np.ones((2, 2), dtype=bool), np.zeros((2, 2, 3), dtype=np.uint8)).sum()
        np.int64(4)
    """
    array = as_array(mask)
    if array.dtype != np.bool_ or array.shape != image.shape[:2]:
        got = f"{array.dtype} of shape {tuple(array.shape)}"
        raise ValueError(f"{name}: expected bool of the picture's shape {image.shape[:2]}, got {got}")
    return array


def as_points(points: np.ndarray | Tensor, name: str) -> np.ndarray:
    """Pixels as ``(m, 2)`` float64; NaN is allowed.

    Args:
        points: ``(m, 2)`` pixels.
        name: what to call it in the error.

    Returns:
        ``(m, 2)`` float64 pixels.

    Raises:
        ValueError: another shape.

    Example:
        >>> as_points(np.array([[1, 2]]), "corners").dtype
        dtype('float64')
    """
    array = as_array(points).astype(np.float64)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"{name}: expected pixels of shape (m, 2), got {tuple(array.shape)}")
    return array


def stroke_px(image: np.ndarray) -> int:
    """How thick a normal line is on this picture: 3 px at 640 x 480, 5 px at 1920 x 1080.

    Args:
        image: ``(h, w, 3)`` picture.

    Returns:
        An odd number of pixels, which is what OpenCV can draw.

    Example:
        >>> stroke_px(np.zeros((480, 640, 3), dtype=np.uint8))
        3
    """
    return 1 + 2 * round(math.sqrt(image.shape[0] * image.shape[1]) / 640)


def text_px(image: np.ndarray) -> float:
    """How tall a capital letter is on this picture: 12 px at 640 x 480, 31 px at 1920 x 1080.

    Args:
        image: ``(h, w, 3)`` picture.

    Returns:
        Pixels, at least 8.

    Example:
        >>> round(text_px(np.zeros((480, 640, 3), dtype=np.uint8)))
        12
    """
    return max(8.0, math.sqrt(image.shape[0] * image.shape[1]) / 46)


def fit_picture(image: np.ndarray, width: int, height: int) -> Picture:
    """Scale a picture to the largest size that fits into a frame and keeps its shape.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        width: of the frame, pixels.
        height: of the frame, pixels.

    Returns:
        The scaled picture; one of its sides is the frame's.

    Raises:
        ValueError: it is no picture, or the frame is empty.

    Example:
        >>> fit_picture(np.zeros((50, 100, 3), dtype=np.uint8), 40, 40).shape
        (20, 40, 3)
    """
    import cv2

    check_picture(image)
    if width < 1 or height < 1:
        raise ValueError(f"frame: expected at least 1 x 1 pixels, got {width} x {height}")
    factor = min(width / image.shape[1], height / image.shape[0])
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC if factor > 1 else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(np.ascontiguousarray(image), size, interpolation=method))
