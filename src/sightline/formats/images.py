"""Pictures, depth maps and masks as files: 8-bit RGB, 16-bit depth to metres, black-and-white masks."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image, ImageOps

from sightline.formats.atomic import atomic_write

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
_DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I")
_LOSSY_SUFFIXES = (".jpg", ".jpeg", ".webp")
_ORIENTATION = 274  # EXIF tag; 5 to 8 are quarter turns
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class EncodedPicture:
    """A picture file that lies in memory, such as a member of an archive.

    Args:
        name: where it comes from, for errors.
        data: the bytes of the file.
    """

    name: str
    data: bytes

    def __str__(self) -> str:
        return self.name

    @property
    def suffix(self) -> str:
        """Of its name, such as ``".jpg"``."""
        return Path(self.name).suffix


def open_header(path: str | Path | EncodedPicture) -> Image.Image:
    """Open a picture without decoding its pixels, as it is stored.

    Args:
        path: any picture that Pillow reads.

    Returns:
        The Pillow image, to be used in a ``with`` block.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a picture.
    """
    source = io.BytesIO(path.data) if isinstance(path, EncodedPicture) else Path(path)
    if isinstance(source, Path) and not source.is_file():
        raise FileNotFoundError(f"{path}: no such picture")
    try:
        return Image.open(source)
    except _BROKEN as error:
        raise _damaged(path, error) from error


def _damaged(path: str | Path | EncodedPicture, error: Exception) -> ValueError:
    return ValueError(f"{path}: expected a whole picture, it is damaged or none ({error})")


def open_upright(path: str | Path | EncodedPicture) -> Image.Image:
    """Decode a picture completely and turn it as its EXIF orientation says.

    Args:
        path: any picture that Pillow reads.

    Returns:
        The Pillow image in the mode it was stored in.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a picture or is truncated.
    """
    with open_header(path) as stored:
        try:
            stored.load()
            return ImageOps.exif_transpose(stored)
        except _BROKEN as error:
            raise _damaged(path, error) from error


def read_image_size(path: str | Path | EncodedPicture) -> tuple[int, int]:
    """The size of a picture, upright, from its header alone.

    Args:
        path: any picture that Pillow reads.

    Returns:
        ``(width, height)`` pixels.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a picture.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "dot.png"
        >>> write_image(path, np.zeros((2, 3, 3), dtype=np.uint8))
        >>> read_image_size(path)
        (3, 2)
    """
    with open_header(path) as stored:
        return stored.size[::-1] if stored.getexif().get(_ORIENTATION, 1) >= 5 else stored.size


def is_upright(path: str | Path | EncodedPicture) -> bool:
    """Whether a picture is stored as it is to be seen, without a turn that only EXIF tells.

    Args:
        path: any picture that Pillow reads.

    Returns:
        False where programs that do not know EXIF would see it turned or mirrored.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a picture.
    """
    with open_header(path) as stored:
        return stored.getexif().get(_ORIENTATION, 1) in (0, 1)


def read_image(path: str | Path | EncodedPicture) -> UInt8[np.ndarray, "h w 3"]:
    """Read a picture of any kind as 8-bit RGB, upright.

    The EXIF orientation is applied; grey becomes RGB; 16 bits become 8 by scaling; transparent pixels are
    laid over black.

    Args:
        path: a PNG, JPEG, TIFF, BMP, WebP... file.

    Returns:
        ``(h, w, 3)`` uint8 RGB.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a picture, is truncated, or holds floating-point numbers.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "dot.png"
        >>> write_image(path, np.full((2, 3, 3), 200, dtype=np.uint8))
        >>> read_image(path).shape
        (2, 3, 3)
    """
    image = open_upright(path)
    if image.mode in _DEEP_MODES:
        return np.repeat(_to_eight_bits(np.asarray(image), path)[..., None], 3, axis=2)
    if image.mode == "F":
        raise ValueError(f"{path}: expected a picture of 8 or 16 bits, got floating-point numbers")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer)
    return np.array(image.convert("RGB"))


def _to_eight_bits(values: np.ndarray, path: object) -> UInt8[np.ndarray, "h w"]:
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"{path}: expected 16-bit values, got [{values.min()}, {values.max()}]")
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write an 8-bit picture; the suffix chooses the format, and JPEG keeps full colour resolution.

    Args:
        path: where to; ``.png``, ``.jpg``, ``.bmp``, ``.webp`` or ``.tif``.
        image: ``(h, w, 3)`` RGB, ``(h, w, 4)`` RGBA or ``(h, w)`` grey, uint8.

    Raises:
        ValueError: another shape or dtype, or a suffix that names no picture format.

    Example:
        >>> write_image("dot.png", np.zeros((2, 2, 3)))
        Traceback (most recent call last):
        ValueError: dot.png: expected uint8 pixels of shape (h, w, 3), got float64 of shape (2, 2, 3)
    """
    path = Path(path)
    fits = image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))
    if image.dtype != np.uint8 or not fits or image.size == 0:
        raise ValueError(
            f"{path}: expected uint8 pixels of shape (h, w, 3), got {image.dtype} of shape {image.shape}"
        )
    if path.suffix.lower() not in _IMAGE_SUFFIXES:
        raise ValueError(f"{path}: expected one of {', '.join(_IMAGE_SUFFIXES)}, got {path.suffix!r}")
    options = _encoder_options(path)
    _save(path, lambda temporary: Image.fromarray(image).save(temporary, **options))


def _encoder_options(path: Path) -> dict:
    match path.suffix.lower():
        case ".jpg" | ".jpeg":
            return {"quality": 95, "subsampling": 0}
        case ".png":
            return {"compress_level": 3}
        case ".webp":
            return {"lossless": True}
    return {}


def _save(path: Path, save: Callable[[Path], None]) -> None:
    with atomic_write(path) as temporary:
        save(temporary)


def read_depth(
    path: str | Path | EncodedPicture, depth_scale_mm: float | int = 1.0
) -> Float32[np.ndarray, "h w"]:
    """Read a depth map of 16-bit (or 32-bit) integers as metres along the optical axis.

    Args:
        path: a one-channel PNG or TIFF.
        depth_scale_mm: millimetres in one step of the file (BOP's ``depth_scale``; 1 for plain millimetres).

    Returns:
        ``(h, w)`` float32 metres, 0 where the depth is missing.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: damaged, 8 bits deep, several channels, or a scale that is not positive.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "depth.png"
        >>> write_depth(path, np.array([[0.0, 1.25]]))
        >>> read_depth(path).tolist()
        [[0.0, 1.25]]
    """
    _require_scale(path, depth_scale_mm)
    image = open_upright(path)
    if image.mode not in _DEEP_MODES:
        raise ValueError(
            f"{path}: expected a depth map of one channel and 16 bits, got a picture of mode {image.mode!r}"
        )
    values = np.asarray(image)
    if values.min() < 0:
        raise ValueError(f"{path}: expected depths of at least 0, got {values.min()}")
    return (values.astype(np.float64) * (depth_scale_mm / 1000.0)).astype(np.float32)


def write_depth(path: str | Path, depth: np.ndarray, depth_scale_mm: float | int = 1.0) -> None:
    """Write a depth map as 16-bit PNG, refusing what the file cannot hold.

    Args:
        path: where to; ``.png`` or ``.tif``.
        depth: ``(h, w)`` float metres; 0 or NaN where missing (both become 0).
        depth_scale_mm: millimetres in one step of the file.

    Raises:
        ValueError: negative or infinite depths, depths beyond 65535 steps, or depths so small that they would
            round to "missing".

    Example:
        >>> write_depth("far.png", np.array([[70.0]]))
        Traceback (most recent call last):
        ValueError: far.png: 70 m does not fit into 16 bits at 1 mm a step; depth_scale_mm >= 1.07 would
    """
    path = Path(path)
    _require_scale(path, depth_scale_mm)
    if path.suffix.lower() not in (".png", ".tif", ".tiff"):
        raise ValueError(f"{path}: expected .png or .tif for a depth map, got {path.suffix!r}")
    if depth.ndim != 2 or not np.issubdtype(depth.dtype, np.floating):
        raise ValueError(f"{path}: expected float metres of shape (h, w), got {depth.dtype} {depth.shape}")
    metres = np.where(np.isnan(depth), 0.0, depth.astype(np.float64))
    if metres.min() < 0 or np.isinf(metres).any():
        raise ValueError(f"{path}: expected finite depths >= 0, got [{metres.min()}, {metres.max()}]")
    steps = np.rint(metres * (1000.0 / depth_scale_mm))
    if steps.max() > 65535:
        needed = np.ceil(metres.max() * 1e5 / 65535) / 100
        raise ValueError(
            f"{path}: {metres.max():.4g} m does not fit into 16 bits at {depth_scale_mm:g} mm a step; "
            f"depth_scale_mm >= {needed:g} would"
        )
    if ((steps == 0) & (metres > 0)).any():
        raise ValueError(f"{path}: depths below half a step ({depth_scale_mm:g} mm) would become missing")
    _save(path, lambda temporary: Image.fromarray(steps.astype(np.uint16)).save(temporary))


def _require_scale(path: object, depth_scale_mm: float | int) -> None:
    if not (np.isfinite(depth_scale_mm) and depth_scale_mm > 0):
        raise ValueError(f"{path}: expected a positive depth_scale_mm, got {depth_scale_mm}")


def read_mask(path: str | Path) -> Bool[np.ndarray, "h w"]:
    """Read a mask: what is not black is object; of a lossy file, what is brighter than half.

    A picture whose alpha channel varies (a cut-out) gives its alpha instead.

    Args:
        path: a mask picture.

    Returns:
        ``(h, w)`` bool.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a picture or is truncated.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "mask.png"
        >>> write_mask(path, np.array([[True, False]]))
        >>> read_mask(path).tolist()
        [[True, False]]
    """
    image = open_upright(path)
    threshold = 127 if Path(path).suffix.lower() in _LOSSY_SUFFIXES else 0
    if image.has_transparency_data:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        if alpha.min() != alpha.max():
            return alpha > 127
    if image.mode == "P":  # a palette of labels: the index counts, not the colour
        return np.asarray(image) > 0
    values = np.asarray(image if image.mode in _DEEP_MODES else image.convert("RGB"))
    return (values.max(axis=2) if values.ndim == 3 else values) > threshold


def write_mask(path: str | Path, mask: np.ndarray) -> None:
    """Write a mask as a PNG of 0 and 255.

    Args:
        path: where to; ``.png``.
        mask: ``(h, w)`` bool.

    Raises:
        ValueError: not a bool array of two axes, or a suffix other than ``.png``.

    Example:
        >>> write_mask("mask.jpg", np.ones((2, 2), dtype=bool))
        Traceback (most recent call last):
        ValueError: mask.jpg: expected .png, because a lossy mask is none
    """
    path = Path(path)
    if mask.dtype != np.bool_ or mask.ndim != 2:
        raise ValueError(f"{path}: expected bool of shape (h, w), got {mask.dtype} of shape {mask.shape}")
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path}: expected .png, because a lossy mask is none")
    write_image(path, mask.astype(np.uint8) * 255)
