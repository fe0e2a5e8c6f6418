"""The intrinsic matrix K: pixels to normalised coordinates and back, and what crop, resize and flip do to it.

Pixels follow the house convention: the centre of the top-left pixel is (0, 0), so a picture of width w covers
[-0.5, w - 0.5] and resizing by s maps x to (x + 0.5) s - 0.5.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def validate_intrinsics(K: Float[Tensor, "..."]) -> None:
    """Check that one matrix is the intrinsic matrix of a pinhole camera.

    Args:
        K: what should be ``[[fx, skew, cx], [0, fy, cy], [0, 0, 1]]``, pixels.

    Raises:
        ValueError: a wrong shape, numbers that are not finite, a transposed K (named as such), a last row
            other than 0 0 1, an entry below the diagonal, or a focal length that is not positive.

    Example:
        >>> validate_intrinsics(torch.tensor([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]]).T)
        Traceback (most recent call last):
        ...
        ValueError: K: this is a transposed intrinsic matrix, the principal point stands in the last row
    """
    if K.shape != (3, 3):
        raise ValueError(f"K: expected shape (3, 3), got {tuple(K.shape)}")
    rows = [[float(entry) for entry in row] for row in K.detach()]
    if not torch.isfinite(K).all():
        raise ValueError(f"K: expected finite numbers, got {rows}")
    if rows[0][2] == rows[1][2] == 0 and (rows[2][0] != 0 or rows[2][1] != 0) and rows[2][2] == 1:
        raise ValueError(
            "K: this is a transposed intrinsic matrix, the principal point stands in the last row"
        )
    if rows[2] != [0.0, 0.0, 1.0]:
        raise ValueError(f"K: expected the last row 0 0 1, got {rows[2]}")
    if rows[1][0] != 0:
        raise ValueError(f"K: expected 0 in row 2, column 1, got {rows[1][0]}")
    if rows[0][0] <= 0 or rows[1][1] <= 0:
        raise ValueError(f"K: expected positive focal lengths, got fx {rows[0][0]}, fy {rows[1][1]}")


def per_point(parameters: Float[Tensor, "... d"], trailing: int) -> Float[Tensor, "... d"]:
    """Give the parameters of a batch of cameras a point axis; those of one camera fit any points.

    Args:
        parameters: a tensor whose last ``trailing`` axes belong to one camera.
        trailing: how many axes one camera's parameters have.
    """
    return parameters if parameters.ndim == trailing else parameters.unsqueeze(-1 - trailing)


def to_pixels(xy: Float[Tensor, "*points 2"], K: Float[Tensor, "..."]) -> Float[Tensor, "... 2"]:
    """Map normalised image coordinates to pixels, ``u = fx x + skew y + cx``, ``v = fy y + cy``.

    Args:
        xy: ``(*points, 2)`` normalised coordinates ``(X/Z, Y/Z)``.
        K: ``(3, 3)`` for all points, or ``(*batch, 3, 3)`` with points ``(*batch, n, 2)``; pixels.

    Returns:
        ``(*points, 2)`` pixels in the dtype of ``xy``.

    Example:
        >>> K = torch.tensor([[600.0, 0, 320], [0, 500, 240], [0, 0, 1]])
        >>> to_pixels(torch.tensor([0.1, -0.2]), K)
        tensor([380., 140.])
    """
    fx, skew, cx, fy, cy = _entries(K, xy)
    x, y = xy.unbind(-1)
    return torch.stack([fx * x + skew * y + cx, fy * y + cy], -1)


def to_normalised(px: Float[Tensor, "*points 2"], K: Float[Tensor, "..."]) -> Float[Tensor, "... 2"]:
    """Map pixels to normalised image coordinates, the inverse of :func:`to_pixels`.

    Args:
        px: ``(*points, 2)`` pixels.
        K: ``(3, 3)`` for all points, or ``(*batch, 3, 3)`` with points ``(*batch, n, 2)``; pixels.

    Returns:
        ``(*points, 2)`` coordinates ``(X/Z, Y/Z)`` in the dtype of ``px``.

    Example:
        >>> K = torch.tensor([[600.0, 0, 320], [0, 500, 240], [0, 0, 1]])
        >>> to_normalised(torch.tensor([380.0, 140.0]), K)
        tensor([ 0.1000, -0.2000])
    """
    fx, skew, cx, fy, cy = _entries(K, px)
    u, v = px.unbind(-1)
    y = (v - cy) / fy
    return torch.stack([(u - cx - skew * y) / fx, y], -1)


def crop_intrinsics(
    K: Float[Tensor, "*batch 3 3"], x0: float | int, y0: float | int
) -> Float[Tensor, "*batch 3 3"]:
    """K of the part of the picture whose top-left pixel was ``(x0, y0)``.

    Args:
        K: ``(*batch, 3, 3)`` pixels.
        x0: column of the crop's first pixel, may be negative or fractional.
        y0: row of the crop's first pixel.

    Returns:
        ``(*batch, 3, 3)`` pixels of the crop.

    Example:
        >>> crop_intrinsics(torch.tensor([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]]), 100, 40)[:2, 2]
        tensor([220., 200.])
    """
    shift = torch.zeros_like(K)
    shift[..., 0, 2], shift[..., 1, 2] = x0, y0
    return K - shift


def resize_intrinsics(
    K: Float[Tensor, "*batch 3 3"], size: tuple[int, int], new_size: tuple[int, int]
) -> Float[Tensor, "*batch 3 3"]:
    """K of the picture resized from ``size`` to ``new_size``, ``x' = (x + 0.5) s - 0.5``.

    Args:
        K: ``(*batch, 3, 3)`` pixels of the original.
        size: ``(width, height)`` of the original.
        new_size: ``(width, height)`` of the result.

    Returns:
        ``(*batch, 3, 3)`` pixels of the resized picture.

    Example:
        >>> K = torch.tensor([[600.0, 0, 319.5], [0, 600, 239.5], [0, 0, 1]])
        >>> resize_intrinsics(K, (640, 480), (320, 240))[0]
        tensor([300.0000,   0.0000, 159.5000])
    """
    sx, sy = new_size[0] / size[0], new_size[1] / size[1]
    affine = [[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1]]
    return torch.tensor(affine, dtype=K.dtype, device=K.device) @ K


def flip_intrinsics(K: Float[Tensor, "*batch 3 3"], width: int) -> Float[Tensor, "*batch 3 3"]:
    """K of the mirrored picture, ``x' = width - 1 - x``, of the mirrored scene (X to -X).

    Args:
        K: ``(*batch, 3, 3)`` pixels.
        width: of the picture, pixels.

    Returns:
        ``(*batch, 3, 3)`` with the same, positive focal lengths.

    Example:
        >>> flip_intrinsics(torch.tensor([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]]), 640)[:2, 2]
        tensor([319., 240.])
    """
    flipped = K.clone()
    flipped[..., 0, 1] = -K[..., 0, 1]
    flipped[..., 0, 2] = width - 1 - K[..., 0, 2]
    return flipped


def _entries(K: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    if K.shape[-2:] != (3, 3):
        raise ValueError(f"K: expected shape (3, 3) or (*batch, 3, 3), got {tuple(K.shape)}")
    K = per_point(K, 2).to(points)
    return K[..., 0, 0], K[..., 0, 1], K[..., 0, 2], K[..., 1, 1], K[..., 1, 2]
