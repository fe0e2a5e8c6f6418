"""Which triangle does each pixel see? ``raster_numba`` once more, in tensor operations for any device.

Triangles become rows, rows become fragments (exactly those between the row's edges), and the nearest fragment
of each pixel wins by a scattered minimum. The work is cut into pieces of bounded size. The arithmetic of
coverage and depth is that of ``raster_numba``, operation by operation.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_SPAN_SLACK_PX = 1e-3
_NO_TRIANGLE = torch.iinfo(torch.int32).max


def project_vertices(
    vertices: Float[Tensor, "v 3"], vertex_mesh: Int[Tensor, " v"], pixels_from_obj: Float[Tensor, "n m 3 4"]
) -> Float[Tensor, "n v 5"]:
    """Homogeneous pixels and pixels ``(z u, z v, z, u, v)`` of all vertices in all views."""
    matrix = pixels_from_obj[:, vertex_mesh]
    p = (
        matrix[..., 0] * vertices[:, :1]
        + matrix[..., 1] * vertices[:, 1:2]
        + matrix[..., 2] * vertices[:, 2:]
        + matrix[..., 3]
    )
    depth = torch.where(p[..., 2:] == 0, 1.0, p[..., 2:])
    return torch.cat([p, p[..., :2] / depth], -1)


def rasterise(
    p: Float[Tensor, "n v 5"],
    faces: Int[Tensor, "f 3"],
    near: float,
    image_size: tuple[int, int],
    max_fragments: int,
) -> tuple[Float[Tensor, "n h w"], Int[Tensor, "n h w"]]:
    """Depth and face index of each pixel.

    Args:
        p: homogeneous pixels from ``project_vertices``, float64.
        faces: indices into the vertices.
        near: nearest depth that is drawn, metres.
        image_size: ``(width, height)``.
        max_fragments: how many fragments may be tried at a time; bounds the memory.

    Returns:
        Depth (metres, infinity where nothing is) and face index (int32, -1 where nothing is).
    """
    width, height = image_size
    depth = p.new_full((len(p) * height * width,), torch.inf)
    triangle = torch.full_like(depth, _NO_TRIANGLE, dtype=torch.int32)
    low, high = _pixel_bounds(p, faces, near, image_size)
    view, face = ((low <= high).all(-1)).nonzero(as_tuple=True)
    low, high = low[view, face], high[view, face]
    edges, det = oriented_edges(p, view, faces[face])
    seen = det != 0
    view, face, low, high, edges, det = (x[seen] for x in (view, face, low, high, edges, det))
    num_rows = high[:, 1] - low[:, 1] + 1
    for piece in _pieces(num_rows, max_fragments):
        item, step = _expand(num_rows[piece])
        item += piece.start
        y = low[item, 1] + step
        first, count = _row_spans(edges[item], y, low[item, 0], high[item, 0])
        for part in _pieces(count, max_fragments):
            row, along = _expand(count[part])
            row += part.start
            i, x = item[row], first[row] + along
            inside, z = _cover(edges[i], det[i], x, y[row])
            inside &= z >= near
            i, x, z, row = i[inside], x[inside], z[inside], row[inside]
            pixel = (view[i] * height + y[row]) * width + x
            _keep_nearest(depth, triangle, pixel, z, face[i].int())
    triangle[triangle == _NO_TRIANGLE] = -1
    return depth.view(-1, height, width), triangle.view(-1, height, width)


def cross_edges(
    p: Float[Tensor, "n v 5"], view: Int[Tensor, " k"], corners: Int[Tensor, "k 3"]
) -> Float[Tensor, "k 3 3"]:
    """Edge functions ``(x, y, 1)`` coefficients opposite to each corner, not oriented."""

    def edge(a: Tensor, b: Tensor) -> Tensor:
        # Swapping the ends gives the same numbers to the last bit, but for their sign: neighbours agree.
        return torch.stack(
            [
                a[:, 1] * b[:, 2] - a[:, 2] * b[:, 1],
                a[:, 2] * b[:, 0] - a[:, 0] * b[:, 2],
                a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0],
            ],
            -1,
        )

    a, b, c = p[view[:, None], corners].unbind(1)
    return torch.stack([edge(b, c), edge(c, a), edge(a, b)], 1)


def determinant(
    p: Float[Tensor, "n v 5"],
    view: Int[Tensor, " k"],
    corners: Int[Tensor, "k 3"],
    edges: Float[Tensor, "k 3 3"],
) -> Float[Tensor, " k"]:
    """``det(a, b, c)`` of the homogeneous corners; negative where the face is seen from outside."""
    a, e = p[view, corners[:, 0]], edges[:, 0]
    return a[:, 0] * e[:, 0] + a[:, 1] * e[:, 1] + a[:, 2] * e[:, 2]


def oriented_edges(
    p: Float[Tensor, "n v 5"], view: Int[Tensor, " k"], corners: Int[Tensor, "k 3"]
) -> tuple[Float[Tensor, "k 3 3"], Float[Tensor, " k"]]:
    """Edge functions that are positive inside, and the determinant's magnitude."""
    edges = cross_edges(p, view, corners)
    det = determinant(p, view, corners, edges)
    return torch.where((det < 0)[:, None, None], -edges, edges), det.abs()


def _pixel_bounds(
    p: Float[Tensor, "n v 5"], faces: Int[Tensor, "f 3"], near: float, image_size: tuple[int, int]
) -> tuple[Int[Tensor, "n f 2"], Int[Tensor, "n f 2"]]:
    corners = p[:, faces]
    beyond = corners[..., 2] >= near
    following, following_beyond = corners.roll(-1, 2), beyond.roll(-1, 2)
    crosses = beyond != following_beyond
    step = (near - corners[..., 2]) / torch.where(crosses, following[..., 2] - corners[..., 2], 1.0)
    cut = (corners[..., :2] + step[..., None] * (following[..., :2] - corners[..., :2])) / near
    points = torch.cat([corners[..., 3:], cut], 2)
    counts = torch.cat([beyond, crosses], 2)[..., None]
    limit = torch.tensor(image_size, device=p.device) - 1
    low = torch.where(counts, points, torch.inf).amin(2)
    high = torch.where(counts, points, -torch.inf).amax(2)
    empty = ~counts.any(2)
    # Clamped before they become integers: a point far outside does not fit into one.
    low = (low - 1e-6).clamp_min(0).minimum(limit + 1.0).ceil().long()
    high = (high + 1e-6).clamp_min(-1).minimum(limit.double()).floor().long()
    return torch.where(empty, 1, low), torch.where(empty, 0, high)


def _pieces(counts: Int[Tensor, " k"], limit: int) -> list[slice]:
    # Runs of items whose counts sum to at most `limit` (or one item that is larger alone).
    if len(counts) == 0:
        return []
    total = counts.cumsum(0)
    piece = (total - 1).clamp_min(0) // limit
    starts = torch.cat([piece.new_zeros(1), (piece.diff() > 0).nonzero()[:, 0] + 1]).tolist()
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], len(counts)], strict=True)]


def _expand(counts: Int[Tensor, " k"]) -> tuple[Int[Tensor, " s"], Int[Tensor, " s"]]:
    # (0, 0, 1, 1, 1) and (0, 1, 0, 1, 2) for counts (2, 3).
    item = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    start = counts.cumsum(0) - counts
    return item, torch.arange(len(item), device=counts.device) - start[item]


def _row_spans(
    edges: Float[Tensor, "r 3 3"], y: Int[Tensor, " r"], left: Int[Tensor, " r"], right: Int[Tensor, " r"]
) -> tuple[Int[Tensor, " r"], Int[Tensor, " r"]]:
    # Where between `left` and `right` can all three edge functions be positive? A little wider than that.
    slope, offset = edges[..., 0], edges[..., 1] * y[:, None] + edges[..., 2]
    root = -offset / torch.where(slope == 0, 1.0, slope)
    low = torch.where(slope > 0, root, -torch.inf).amax(1) - _SPAN_SLACK_PX
    high = torch.where(slope < 0, root, torch.inf).amin(1) + _SPAN_SLACK_PX
    first = torch.maximum(low.ceil(), left).minimum(right + 1.0).long()
    last = torch.minimum(high.floor(), right).maximum(left - 1.0).long()
    return first, (last - first + 1).clamp_min(0)


def _cover(
    edges: Float[Tensor, "s 3 3"], det: Float[Tensor, " s"], x: Int[Tensor, " s"], y: Int[Tensor, " s"]
) -> tuple[Bool[Tensor, " s"], Float[Tensor, " s"]]:
    value = edges[..., 0] * x[:, None] + (edges[..., 1] * y[:, None] + edges[..., 2])
    owns = (edges[..., 0] > 0) | ((edges[..., 0] == 0) & (edges[..., 1] > 0))
    inside = ((value > 0) | ((value == 0) & owns)).all(1)
    return inside, det / (value[:, 0] + value[:, 1] + value[:, 2])


def _keep_nearest(
    depth: Float[Tensor, " q"],
    triangle: Int[Tensor, " q"],
    pixel: Int[Tensor, " s"],
    z: Float[Tensor, " s"],
    face: Int[Tensor, " s"],
) -> None:
    before = depth[pixel]
    depth.scatter_reduce_(0, pixel, z, "amin")
    now = depth[pixel]
    triangle[pixel[now < before]] = _NO_TRIANGLE
    nearest = z == now
    triangle.scatter_reduce_(0, pixel[nearest], face[nearest], "amin")
