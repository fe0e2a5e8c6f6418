"""A large picture searched in parts: where the tiles lie, and what is one object where they meet.

Tiles overlap, and the whole picture is searched too. Two detections are of one object if their boxes agree
*in the pixels that both searches saw*: that is the IoU where both saw all of it, and finds the piece of an
object that a tile's border cut off in the box of a tile, or of the whole picture, that saw more. A box that
ends at an inner border is believed least.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sightline.geometry.boxes import iou, iou_matrix
from sightline.geometry.nms import nms_mask
from sightline.refdet.framing import whole_picture
from sightline.refdet.selection import Proposals

Tiles = int | Literal["auto", "off"]

_WORTHWHILE = 1.25  # by how much finer tiles must be for "auto" to make any
_CANDIDATES = 2000
_SLACK_PX, _SLACK_SHARE = 2.0, 0.05  # of the network's picture and of a box: nearer to a border it is cut


def check_tiles(tiles: int | str, overlap: float | int) -> None:
    """Refuse what cannot be tiled.

    Args:
        tiles: how many along the side that limits the whole picture, ``auto`` or ``off``.
        overlap: share of a tile.

    Raises:
        ValueError: another word, no tile, or an overlap outside [0, 0.9].

    Example:
        >>> check_tiles(0, 0.2)
        Traceback (most recent call last):
        ...
        ValueError: tiles: expected a number of at least 1, auto or off, got 0
    """
    if isinstance(tiles, bool) or (tiles not in ("auto", "off") if isinstance(tiles, str) else tiles < 1):
        raise ValueError(f"tiles: expected a number of at least 1, auto or off, got {tiles}")
    if not 0 <= overlap <= 0.9:
        raise ValueError(f"tile_overlap: expected a share in [0, 0.9], got {overlap}")


def plan_regions(
    image_size: tuple[int, int],
    search_size: tuple[int, int],
    tiles: int | str = "off",
    *,
    overlap: float = 0.2,
) -> Float[Tensor, "regions 4"]:
    """The parts of a picture that are searched: first the whole, then the tiles row by row.

    A tile has the form of the network's picture, so nothing of it is wasted. With ``auto`` it is as large as
    the network's picture, pixel for pixel, if that is a quarter finer than the whole; a number says how many
    tiles lie along the side that limits the whole. The tiles' distances are equal, and the last ends with
    the picture, whatever its size.

    Args:
        image_size: ``(width, height)`` pixels.
        search_size: ``(width, height)`` of the network's picture.
        tiles: a number, ``auto`` or ``off``.
        overlap: of neighbours, at least, in shares of a tile.

    Returns:
        ``(regions, 4)`` float64 xyxy pixels. A tile leaves a picture that is narrower than it.

    Raises:
        ValueError: see :func:`check_tiles`.

    Example:
        >>> plan_regions((150, 80), (100, 80), "auto").tolist()
        [[-0.5, -0.5, 149.5, 79.5], [-0.5, -0.5, 99.5, 79.5], [49.5, -0.5, 149.5, 79.5]]
    """
    check_tiles(tiles, overlap)
    whole = whole_picture(image_size)
    coarse = max(image_size[0] / search_size[0], image_size[1] / search_size[1])
    if tiles == "auto":
        fine = 1.0
        wanted = coarse >= _WORTHWHILE
    else:
        wanted = isinstance(tiles, int) and tiles > 1
        fine = coarse / (1 + (int(tiles) - 1) * (1 - overlap)) if wanted else coarse
    if not wanted:
        return whole[None]
    width, height = search_size[0] * fine, search_size[1] * fine
    left = _starts(image_size[0], width, overlap)
    top = _starts(image_size[1], height, overlap)
    corners = torch.cartesian_prod(top, left).view(-1, 2).flip(1) - 0.5
    return torch.cat(
        [whole[None], torch.cat([corners, corners + corners.new_tensor([width, height])], dim=1)]
    )


def _starts(extent: int, tile: float, overlap: float) -> Float[Tensor, " n"]:
    """Where tiles begin along one side; a tile that is longer than the side is centred on it."""
    if tile >= extent:
        return torch.tensor([(extent - tile) / 2], dtype=torch.float64)
    count = math.ceil((extent - tile * overlap) / (tile * (1 - overlap)) - 1e-9)
    starts = torch.linspace(0, extent - tile, max(count, 2), dtype=torch.float64)
    return starts.round() if float(tile).is_integer() else starts  # whole pixels need no interpolation


def find_cut(
    boxes: Float[Tensor, "n 4"],
    regions: Float[Tensor, "n 4"],
    image_size: tuple[int, int],
    search_size: tuple[int, int],
) -> Bool[Tensor, " n"]:
    """Which boxes end at a border of their region that is not one of the picture.

    Args:
        boxes: ``(n, 4)`` xyxy pixels of the picture.
        regions: ``(n, 4)`` where each was searched.
        image_size: ``(width, height)`` pixels.
        search_size: ``(width, height)`` of the network's picture, whose pixels are the measure.

    Returns:
        ``(n,)`` bool.

    Example:
        >>> region = torch.tensor([[49.5, -0.5, 149.5, 79.5]]).double()
        >>> find_cut(torch.tensor([[50.0, 9.0, 70.0, 30.0]]).double(), region, (150, 80), (100, 80))
        tensor([True])
    """
    extent = regions[:, 2:] - regions[:, :2]
    pixel = (extent / extent.new_tensor(search_size)).amax(1, keepdim=True)
    slack = (_SLACK_PX * pixel + _SLACK_SHARE * (boxes[:, 2:] - boxes[:, :2])).repeat(1, 2)
    whole = whole_picture(image_size)
    inner = torch.cat([regions[:, :2] > whole[:2] + pixel, regions[:, 2:] < whole[2:] - pixel], dim=1)
    return (inner & ((boxes - regions).abs() <= slack)).any(dim=1)


def shared_overlap(
    boxes_a: Float[Tensor, "n 4"],
    regions_a: Float[Tensor, "n 4"],
    boxes_b: Float[Tensor, "m 4"],
    regions_b: Float[Tensor, "m 4"],
) -> Float[Tensor, "n m"]:
    """The IoU of every pair within the pixels that both searches saw; 0 where they saw none.

    Args:
        boxes_a: ``(n, 4)`` xyxy pixels.
        regions_a: ``(n, 4)`` where each was searched.
        boxes_b: ``(m, 4)`` likewise.
        regions_b: ``(m, 4)`` likewise.

    Returns:
        ``(n, m)`` overlaps.

    Example:
        >>> left, right = torch.tensor([[0.0, 0.0, 60.0, 50.0]]), torch.tensor([[40.0, 0.0, 100.0, 50.0]])
        >>> a, b = torch.tensor([[20.0, 10.0, 60.0, 20.0]]), torch.tensor([[40.0, 10.0, 80.0, 20.0]])
        >>> shared_overlap(a, left, b, right)
        tensor([[1.]])
    """
    low = torch.maximum(regions_a[:, None, :2], regions_b[None, :, :2])
    high = torch.minimum(regions_a[:, None, 2:], regions_b[None, :, 2:])
    return iou(_within(boxes_a[:, None], low, high), _within(boxes_b[None], low, high))


def _within(boxes: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Boxes cut off at corners; without area where nothing is left."""
    return torch.cat([torch.maximum(boxes[..., :2], low), torch.minimum(boxes[..., 2:], high)], dim=-1)


def merge_regions(
    found: Proposals,
    region: Int[Tensor, " n"],
    regions: Float[Tensor, "regions 4"],
    image_size: tuple[int, int],
    search_size: tuple[int, int],
    *,
    iou_threshold: float = 0.5,
) -> Proposals:
    """One proposal an object from those of all regions.

    Boxes that no inner border cuts come first: of two from different regions that overlap the surer stays,
    and neighbours within a region are left alone. A cut box gives way to an uncut one that agrees with it.
    Pieces that only agree with each other, of an object that no search saw whole, become one box. The 2000
    surest proposals are looked at, which bounds memory however many tiles there are.

    Args:
        found: what each region's search found.
        region: ``(n,)`` the number of the region of each.
        regions: ``(regions, 4)`` xyxy pixels.
        image_size: ``(width, height)`` pixels.
        search_size: ``(width, height)`` of the network's picture.
        iou_threshold: from which overlap two boxes are one object.

    Returns:
        The proposals that are left, the surest first.

    Example:
        >>> regions = plan_regions((150, 80), (100, 80), "auto")
        >>> boxes = torch.tensor([[80.0, 9.0, 99.5, 29.0], [80.0, 9.0, 120.0, 29.0]]).double()
        >>> found = Proposals(boxes, torch.tensor([0.9, 0.8]).double())
        >>> merge_regions(found, torch.tensor([1, 2]), regions, (150, 80), (100, 80)).boxes.tolist()
        [[80.0, 9.0, 120.0, 29.0]]
    """
    surest = found.scores.argsort(descending=True, stable=True)[:_CANDIDATES]
    found, region = found.select(surest), region[surest]
    own = regions[region]
    cut = find_cut(found.boxes, own, image_size, search_size)
    uncut = found.select(~cut)
    keep = nms_mask(uncut.boxes, uncut.scores, iou_threshold, groups=region[~cut], between_groups=True)
    sure, sure_regions = uncut.select(keep), own[~cut][keep]
    pieces, piece_regions = found.select(cut), own[cut]
    explained = shared_overlap(pieces.boxes, piece_regions, sure.boxes, sure_regions) >= iou_threshold
    left = ~explained.any(dim=1)
    joined = _join(pieces.select(left), piece_regions[left], region[cut][left], iou_threshold)
    doubled = iou_matrix(joined.boxes, sure.boxes) >= iou_threshold
    merged = Proposals.concatenate([sure, joined.select(~doubled.any(dim=1))])
    return merged.select(merged.scores.argsort(descending=True, stable=True))


def _join(pieces: Proposals, own: Tensor, region: Tensor, iou_threshold: float) -> Proposals:
    """Pieces that agree across a border, in chains of any length, as one box each with the best score."""
    if not len(pieces.scores):
        return pieces
    linked = shared_overlap(pieces.boxes, own, pieces.boxes, own) >= iou_threshold
    linked &= region[:, None] != region[None, :]
    linked |= torch.eye(len(linked), dtype=torch.bool)
    reached = None
    while reached is None or not torch.equal(reached, linked):
        reached, linked = linked, (linked.double() @ linked.double()) > 0
    return Proposals.concatenate([_around(pieces.select(group)) for group in linked.unique(dim=0)])


def _around(pieces: Proposals) -> Proposals:
    """The box around all of them, with the best score."""
    box = torch.cat([pieces.boxes[:, :2].amin(0), pieces.boxes[:, 2:].amax(0)])
    return Proposals(box[None], pieces.scores.amax()[None])
