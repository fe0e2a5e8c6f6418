"""Where one view's pixels lie in another, and that in patch units: from a patch's centre, one unit a patch.

A picture is cut into square patches of ``patch_size`` pixels, counted row by row. As the centre of the
top-left pixel is (0, 0), patch i of a row covers [16 i - 0.5, 16 i + 15.5] and its centre is 16 i + 7.5.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from sightline.geometry.depth import is_measured

PATCH_SIZE = 16


def patch_centers(
    grid_size: tuple[int, int], patch_size: int = PATCH_SIZE, *, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "patches 2"]:
    """The pixel coordinates of the centres of all patches, row by row.

    Args:
        grid_size: ``(columns, rows)`` of the patch grid.
        patch_size: pixels.
        dtype: of the result.

    Returns:
        ``(columns * rows, 2)`` pixels ``(x, y)``.

    Example:
        >>> patch_centers((2, 1))
        tensor([[ 7.5000,  7.5000],
                [23.5000,  7.5000]])
    """
    columns, rows = (torch.arange(count, dtype=dtype) for count in grid_size)
    return torch.cartesian_prod(rows, columns).flip(-1) * patch_size + (patch_size - 1) / 2


def patch_index(
    px: Float[Tensor, "*points 2"], grid_size: tuple[int, int], patch_size: int = PATCH_SIZE
) -> Int[Tensor, "*points"]:
    """Which patch each pixel position lies in.

    Args:
        px: ``(*points, 2)`` pixels.
        grid_size: ``(columns, rows)`` of the patch grid.
        patch_size: pixels.

    Returns:
        ``(*points,)`` int64 ``row * columns + column``; -1 outside the grid or for NaN.

    Example:
        >>> patch_index(torch.tensor([[15.4, 0.0], [15.6, 0.0], [0.0, 16.0], [-1.0, 0.0]]), (14, 14)).tolist()
        [0, 1, 14, -1]
    """
    cell = ((px + 0.5) / patch_size).floor()
    inside = ((cell >= 0) & (cell < cell.new_tensor(grid_size))).all(-1)
    column, row = torch.where(inside[..., None], cell, 0.0).long().unbind(-1)
    return torch.where(inside, row * grid_size[0] + column, -1)


def pixels_to_flow(
    px: Float[Tensor, "... 2"], centers: Float[Tensor, "... 2"], patch_size: int = PATCH_SIZE
) -> Float[Tensor, "... 2"]:
    """Express pixels relative to patch centres, ``flow = (px - center) / patch_size``.

    Args:
        px: ``(..., 2)`` pixels.
        centers: ``(..., 2)`` pixels, broadcast against ``px``.
        patch_size: pixels.

    Returns:
        ``(..., 2)`` patch units, x then y.

    Example:
        >>> pixels_to_flow(torch.tensor([23.5, 7.5]), torch.tensor([7.5, 7.5]))
        tensor([1., 0.])
    """
    return (px - centers) / patch_size


def flow_to_pixels(
    flow: Float[Tensor, "... 2"], centers: Float[Tensor, "... 2"], patch_size: int = PATCH_SIZE
) -> Float[Tensor, "... 2"]:
    """Turn flow relative to patch centres back into pixels, ``px = center + patch_size flow``.

    Args:
        flow: ``(..., 2)`` patch units, x then y.
        centers: ``(..., 2)`` pixels, broadcast against ``flow``.
        patch_size: pixels.

    Returns:
        ``(..., 2)`` pixels.

    Example:
        >>> flow_to_pixels(torch.tensor([1.0, 0.0]), torch.tensor([7.5, 7.5]))
        tensor([23.5000,  7.5000])
    """
    return centers + flow * patch_size


def offsets_in_patch(
    patch_size: int = PATCH_SIZE, *, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "patch patch 2"]:
    """The flow of a patch's own pixels relative to its centre: what two identical views have.

    Args:
        patch_size: pixels.
        dtype: of the result.

    Returns:
        ``(patch_size, patch_size, 2)`` patch units, x then y, indexed by row and column.

    Example:
        >>> offsets_in_patch()[0, 0], offsets_in_patch()[0, 15]
        (tensor([-0.4688, -0.4688]), tensor([ 0.4688, -0.4688]))
    """
    steps = torch.arange(patch_size, dtype=dtype)
    return (torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1) - (patch_size - 1) / 2) / patch_size


def split_patches(
    maps: Shaped[Tensor, "*batch h w"], patch_size: int = PATCH_SIZE
) -> Shaped[Tensor, "*batch patches patch patch"]:
    """Cut maps into their patches, row by row.

    Args:
        maps: ``(*batch, h, w)`` whose sides are whole numbers of patches.
        patch_size: pixels.

    Returns:
        ``(*batch, patches, patch_size, patch_size)``.

    Raises:
        ValueError: a side that is no whole number of patches.

    Example:
        >>> split_patches(torch.arange(8).view(2, 4), 2).tolist()
        [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]
    """
    height, width = maps.shape[-2:]
    if height % patch_size or width % patch_size:
        raise ValueError(f"maps: expected sides that {patch_size} px patches fill, got {width}x{height}")
    cells = maps.unflatten(-1, (-1, patch_size)).unflatten(-3, (-1, patch_size))
    return cells.transpose(-3, -2).flatten(-4, -3)


def join_patches(
    patches: Shaped[Tensor, "*batch patches patch patch"], columns: int
) -> Shaped[Tensor, "*batch h w"]:
    """Put patches together again, the inverse of :func:`split_patches`.

    Args:
        patches: ``(*batch, patches, patch_size, patch_size)``, row by row.
        columns: how many stand side by side.

    Returns:
        ``(*batch, h, w)``.

    Example:
        >>> join_patches(split_patches(torch.arange(8).view(2, 4), 2), 2).tolist()
        [[0, 1, 2, 3], [4, 5, 6, 7]]
    """
    return patches.unflatten(-3, (-1, columns)).transpose(-3, -2).flatten(-4, -3).flatten(-2)


def reproject(
    depth: Float[Tensor, "*#batch h w"],
    K_a: Float[Tensor, "*#batch 3 3"],
    K_b: Float[Tensor, "*#batch 3 3"],
    b_from_a: Float[Tensor, "*#batch 4 4"],
) -> tuple[Float[Tensor, "*#batch h w 2"], Float[Tensor, "*#batch h w"]]:
    """Where every pixel of view a lies in view b, by its depth: ``z_b (u_b, 1) = z_a H (u_a, 1) + K_b t``.

    ``H = K_b R K_a^-1``: one matrix product for all pixels of a pair of views.

    Args:
        depth: ``(*batch, h, w)`` metres in view a; 0 where it is missing.
        K_a: ``(*batch, 3, 3)`` of view a, pixels.
        K_b: ``(*batch, 3, 3)`` of view b, pixels.
        b_from_a: ``(*batch, 4, 4)`` between the two cameras; all batches broadcast.

    Returns:
        ``(*batch, h, w, 2)`` pixels of view b and ``(*batch, h, w)`` metres, the depth there, in the dtype of
        the depth. NaN where the depth is missing or the point does not lie in front of camera b.

    Example:
        >>> K = torch.tensor([[100.0, 0, 0], [0, 100, 0], [0, 0, 1]])
        >>> aside = torch.eye(4).index_put((torch.tensor(0), torch.tensor(3)), torch.tensor(0.5))
        >>> px, z = reproject(torch.tensor([[2.0, 0.0]]), K, K, aside)
        >>> px, z
        (tensor([[[25.,  0.],
                 [nan, nan]]]), tensor([[2., nan]]))
    """
    height, width = depth.shape[-2:]
    to_b = K_b.double()
    turn = to_b @ b_from_a[..., :3, :3].double() @ torch.linalg.inv(K_a.double())
    shift = (to_b @ b_from_a[..., :3, 3:].double()).to(depth)
    columns, rows = (torch.arange(size, dtype=depth.dtype, device=depth.device) for size in (width, height))
    rays = torch.stack(
        [*torch.meshgrid(columns, rows, indexing="xy"), depth.new_ones(height, width)]
    ).flatten(1)
    x, y, z = (turn.to(depth) @ rays * depth.flatten(-2)[..., None, :] + shift).unbind(-2)
    known = is_measured(depth.flatten(-2)) & (z > 0)
    inverse = torch.where(known, 1 / torch.where(known, z, 1.0), torch.nan)
    px = torch.stack([x * inverse, y * inverse]).movedim(0, -1)  # x and y apart in memory: faster downstream
    z = torch.where(known, z, torch.nan)
    return px.unflatten(-2, (height, width)), z.unflatten(-1, (height, width))
