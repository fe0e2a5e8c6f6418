"""Exact 2x3 maps between pixel grids: crop, resize, turn, mirror, and the warp of pictures by them.

An affine ``new_from_old`` maps pixels of the old picture to pixels of the new one; the centre of the
top-left pixel is (0, 0) in both. What a picture went through is one such matrix, whatever the number of
steps, and it can be undone exactly before undistortion: ``undistort(apply(invert(new_from_old), px))``.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def crop(x0: float | int, y0: float | int) -> Float[Tensor, "2 3"]:
    """The affine of a crop whose first pixel was ``(x0, y0)``.

    Args:
        x0: column, pixels; may be negative or fractional.
        y0: row, pixels.

    Returns:
        ``(2, 3)`` float64 crop_from_image.

    Example:
        >>> apply(crop(10, 20), torch.tensor([[15.0, 20.0]]))
        tensor([[5., 0.]])
    """
    return torch.tensor([[1, 0, -x0], [0, 1, -y0]], dtype=torch.float64)


def resize(size: tuple[int, int], new_size: tuple[int, int]) -> Float[Tensor, "2 3"]:
    """The affine of a resize, ``x' = (x + 0.5) s - 0.5``: the picture's edges stay edges.

    Args:
        size: ``(width, height)`` of the old picture.
        new_size: ``(width, height)`` of the new one.

    Returns:
        ``(2, 3)`` float64 new_from_old.

    Example:
        >>> apply(resize((640, 480), (320, 240)), torch.tensor([[0.5, 0.5]]))
        tensor([[0., 0.]])
    """
    sx, sy = new_size[0] / size[0], new_size[1] / size[1]
    return torch.tensor([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2]], dtype=torch.float64)


def flip_horizontal(width: int) -> Float[Tensor, "2 3"]:
    """The affine of a mirrored picture, ``x' = width - 1 - x``.

    Args:
        width: of the picture, pixels.

    Returns:
        ``(2, 3)`` float64 mirrored_from_image, its own inverse.

    Example:
        >>> apply(flip_horizontal(640), torch.tensor([[0.0, 7.0]]))
        tensor([[639.,   7.]])
    """
    return torch.tensor([[-1, 0, width - 1], [0, 1, 0]], dtype=torch.float64)


def rotate(angle: float | int, center: tuple[float, float]) -> Float[Tensor, "2 3"]:
    """The affine of a turn about a point.

    Args:
        angle: radians, from the x axis towards the y axis: clockwise on the screen (OpenCV's
            ``getRotationMatrix2D`` counts the other way).
        center: ``(x, y)`` pixels that stay where they are.

    Returns:
        ``(2, 3)`` float64 turned_from_image.

    Example:
        >>> apply(rotate(torch.pi / 2, (10.0, 10.0)), torch.tensor([[12.0, 10.0]])).round()
        tensor([[10., 12.]])
    """
    phi = torch.tensor(angle, dtype=torch.float64)
    matrix = torch.stack([phi.cos(), -phi.sin(), phi.sin(), phi.cos()]).view(2, 2)
    pivot = torch.tensor(center, dtype=torch.float64)
    return torch.cat([matrix, (pivot - matrix @ pivot)[:, None]], 1)


def square_crop(
    boxes: Float[Tensor, "*batch 4"], size: int, *, margin: float | int = 1.0
) -> Float[Tensor, "*batch 2 3"]:
    """The affine that brings boxes, widened to squares about their centres, to ``size`` x ``size`` pictures.

    Args:
        boxes: ``(*batch, 4)`` xyxy pixels.
        size: side of the new picture, pixels.
        margin: side of the square over the longer side of the box.

    Returns:
        ``(*batch, 2, 3)`` crop_from_image in the dtype of the boxes, differentiable in them. The box's centre
        lands on the new picture's, ``(size - 1) / 2``.

    Raises:
        ValueError: a box without extent, or not finite.

    Example:
        >>> square_crop(torch.tensor([10.0, 10.0, 30.0, 20.0]), 200)
        tensor([[  10.0000,    0.0000, -100.5000],
                [   0.0000,   10.0000,  -50.5000]])
    """
    side = (boxes[..., 2:] - boxes[..., :2]).amax(-1) * margin
    if not bool(((side > 0) & boxes.isfinite().all(-1)).all()):
        raise ValueError("boxes: expected finite xyxy with x1 < x2 or y1 < y2, got a box without extent")
    center = (boxes[..., :2] + boxes[..., 2:]) / 2
    scale = size / side
    shift = (size - 1) / 2 - scale[..., None] * center
    zero = torch.zeros_like(scale)
    linear = torch.stack([scale, zero, zero, scale], -1).unflatten(-1, (2, 2))
    return torch.cat([linear, shift[..., None]], -1)


def compose(*affines: Float[Tensor, "... 2 3"]) -> Float[Tensor, "... 2 3"]:
    """Chain affines as matrices are chained: ``compose(c_from_b, b_from_a)`` is ``c_from_a``.

    Args:
        affines: ``(*batch, 2, 3)`` each, at least one; batches broadcast.

    Returns:
        ``(*batch, 2, 3)`` in the widest dtype.

    Example:
        >>> half_of_crop = compose(resize((200, 100), (100, 50)), crop(10, 20))
        >>> apply(half_of_crop, torch.tensor([[10.5, 20.5]]))
        tensor([[0., 0.]])
    """
    whole = affines[-1]
    for affine in reversed(affines[:-1]):
        dtype = torch.promote_types(affine.dtype, whole.dtype)
        whole = affine.to(dtype) @ _homogeneous(whole.to(dtype))
    return whole


def invert(new_from_old: Float[Tensor, "*batch 2 3"]) -> Float[Tensor, "*batch 2 3"]:
    """The affine that undoes another one.

    Args:
        new_from_old: ``(*batch, 2, 3)``.

    Returns:
        ``(*batch, 2, 3)`` old_from_new.

    Example:
        >>> invert(crop(10, 20))
        tensor([[ 1.,  0., 10.],
                [ 0.,  1., 20.]], dtype=torch.float64)
    """
    linear = torch.linalg.inv(new_from_old[..., :2])
    return torch.cat([linear, -linear @ new_from_old[..., 2:]], -1)


def apply(new_from_old: Float[Tensor, "... 2 3"], px: Float[Tensor, "*points 2"]) -> Float[Tensor, "... 2"]:
    """Move pixels of the old picture to the new one.

    Args:
        new_from_old: ``(2, 3)`` for all points, or ``(*batch, 2, 3)`` with points ``(*batch, n, 2)``.
        px: ``(*points, 2)`` pixels of the old picture.

    Returns:
        ``(*points, 2)`` pixels of the new picture, in the dtype of ``px``.

    Example:
        >>> apply(flip_horizontal(100), torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]]))[1]
        tensor([[96.,  4.]])
    """
    matrix = new_from_old.to(px)
    if matrix.ndim > 2:
        matrix = matrix.unsqueeze(-3)
    return (matrix[..., :2] @ px[..., None])[..., 0] + matrix[..., 2]


def apply_to_intrinsics(
    new_from_old: Float[Tensor, "... 2 3"], K: Float[Tensor, "... 3 3"]
) -> Float[Tensor, "... 3 3"]:
    """K of the new picture, where it still is one of a pinhole: after crop, resize and mirroring.

    A mirrored picture is a pinhole's picture of the mirrored scene, X to -X for a horizontal flip and Y to -Y
    for a vertical one; K is given for that scene, so its focal lengths stay positive (and the coefficient p2,
    or p1, of a distortion changes its sign).

    Args:
        new_from_old: ``(*batch, 2, 3)`` pixels.
        K: ``(*batch, 3, 3)`` of the old picture, pixels.

    Returns:
        ``(*batch, 3, 3)`` of the new picture, in the dtype of K.

    Raises:
        ValueError: the affine turns or shears; undo it on the pixels instead.

    Example:
        >>> K = torch.tensor([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]])
        >>> apply_to_intrinsics(crop(100, 40), K)[:2, 2]
        tensor([220., 200.])
    """
    affine = new_from_old.to(K)
    turn = max(float(affine[..., 0, 1].abs().max()), float(affine[..., 1, 0].abs().max()))
    if turn > 1e-9:
        raise ValueError(f"new_from_old: expected crop, resize or flip, got a turn or shear of {turn:.3g}")
    new = _homogeneous(affine) @ K
    mirror = torch.stack([affine[..., 0, 0].sign(), affine[..., 1, 1].sign()], -1)
    return new * functional.pad(mirror, (0, 1), value=1.0)[..., None, :]


def warp(
    images: Float[Tensor, "*batch c h w"],
    new_from_old: Float[Tensor, "... 2 3"],
    new_size: tuple[int, int],
    *,
    mode: Literal["bilinear", "nearest"] = "bilinear",
    fill: float | int = 0.0,
) -> Float[Tensor, "*batch c new_h new_w"]:
    """Draw pictures or maps in their new pixel grids.

    Bilinear interpolation is not averaging: to shrink by more than a factor of two, average first. Masks and
    depth maps want ``mode="nearest"``, which never mixes two values.

    Args:
        images: ``(*batch, c, h, w)`` floats.
        new_from_old: ``(2, 3)`` for all pictures or ``(*batch, 2, 3)``.
        new_size: ``(width, height)`` of the new pictures.
        mode: ``"bilinear"`` or ``"nearest"``.
        fill: what stands where the old picture had nothing.

    Returns:
        ``(*batch, c, new_h, new_w)``, differentiable in the images and, if bilinear, in the affines.

    Example:
        >>> warp(torch.arange(6.0).view(1, 2, 3), crop(1, 0), (3, 1), fill=-1)
        tensor([[[ 1.,  2., -1.]]])
    """
    height, width = images.shape[-2:]
    dtype, device = new_from_old.dtype, images.device
    rows = torch.arange(new_size[1], dtype=dtype, device=device)
    columns = torch.arange(new_size[0], dtype=dtype, device=device)
    new_px = torch.cartesian_prod(rows, columns).flip(-1)
    old_from_new = invert(new_from_old.to(device)).expand(*images.shape[:-3], 2, 3).reshape(-1, 2, 3)
    old_px = apply(old_from_new, new_px.expand(len(old_from_new), -1, -1))
    size = torch.tensor([width, height], dtype=dtype, device=device)
    grid = ((2 * old_px + 1) / size - 1).view(-1, new_size[1], new_size[0], 2)
    flat = images.reshape(-1, *images.shape[-3:]) - fill
    drawn = functional.grid_sample(flat, grid.to(images.dtype), mode=mode, align_corners=False)
    return (drawn + fill).view(*images.shape[:-2], new_size[1], new_size[0])


def _homogeneous(affine: Tensor) -> Tensor:
    last = affine.new_tensor([0.0, 0.0, 1.0]).expand(*affine.shape[:-2], 1, 3)
    return torch.cat([affine, last], -2)
