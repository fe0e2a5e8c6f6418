"""Errors of key points in the picture and in space, with unknown points as NaN.

A point whose truth is NaN is not asked for and counts nowhere. A point that was asked for and not given is
NaN in the list of errors, is counted as missed in a summary, and is wrong for PCK and OKS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sightline.geometry.cameras import project
from sightline.geometry.poses import transform
from sightline.records import Keypoints2D


def point_errors(
    predicted: Float[Tensor, "*#batch k d"], truth: Float[Tensor, "*#batch k d"]
) -> Float[Tensor, "*#batch k"]:
    """The distance of each point from where it should be: pixel error for d = 2, joint error for d = 3.

    Args:
        predicted: ``(*batch, k, d)`` pixels or metres.
        truth: ``(*batch, k, d)`` in the same unit.

    Returns:
        ``(*batch, k)`` in that unit, NaN where either is unknown.

    Example:
        >>> point_errors(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [torch.nan, 0.0]]))
        tensor([5., nan])
    """
    return torch.linalg.vector_norm(predicted - truth, dim=-1)


def mpjpe(
    predicted: Float[Tensor, "*#batch k 3"], truth: Float[Tensor, "*#batch k 3"], *, root: int | None = None
) -> Float[Tensor, "*#batch"]:
    """MPJPE, the mean per-joint position error over the points that both have.

    Ionescu et al., "Human3.6M", PAMI 2014.

    Args:
        predicted: ``(*batch, k, 3)`` metres.
        truth: ``(*batch, k, 3)`` metres.
        root: index of the point that is moved to the origin in both first; None compares absolute positions.

    Returns:
        ``(*batch,)`` metres, NaN where no point is known in both.

    Example:
        >>> truth = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        >>> mpjpe(truth + 0.5, truth, root=0)
        tensor(0.)
    """
    if root is not None:
        predicted = predicted - predicted[..., root : root + 1, :]
        truth = truth - truth[..., root : root + 1, :]
    return point_errors(predicted, truth).nanmean(-1)


def pck(
    predicted: Float[Tensor, "*#batch k d"], truth: Float[Tensor, "*#batch k d"], limit: float | Tensor
) -> Float[Tensor, "*#batch"]:
    """PCK, the share of the points asked for that are no further away than a limit.

    Yang and Ramanan, "Articulated human detection with flexible mixtures of parts", PAMI 2013.

    Args:
        predicted: ``(*batch, k, d)`` pixels or metres; NaN is wrong.
        truth: ``(*batch, k, d)`` in the same unit; NaN is not asked for.
        limit: in the same unit; a number, or a tensor that broadcasts against ``(*batch, k)``, for example a
            share of each animal's size.

    Returns:
        ``(*batch,)`` in [0, 1], NaN where nothing was asked for.

    Example:
        >>> truth = torch.zeros(4, 2)
        >>> pck(torch.tensor([[0.0, 1.0], [0.0, 2.0], [0.0, 3.0], [torch.nan, 0.0]]), truth, 2.0)
        tensor(0.5000)
    """
    asked = truth.isfinite().all(-1)
    right = point_errors(predicted, truth) <= limit
    return right.sum(-1).to(truth) / asked.expand_as(right).sum(-1)


def oks(
    predicted: Float[Tensor, "*#batch k 2"],
    truth: Float[Tensor, "*#batch k 2"],
    area: Float[Tensor, "*#batch"],
    sigmas: Float[Tensor, " k"],
) -> Float[Tensor, "*#batch"]:
    """OKS, COCO's object key-point similarity: the mean of ``exp(-d^2 / (2 area (2 sigma)^2))``.

    Args:
        predicted: ``(*batch, k, 2)`` pixels; NaN has similarity 0.
        truth: ``(*batch, k, 2)`` pixels; NaN is not asked for.
        area: ``(*batch,)`` of the object in the picture, square pixels.
        sigmas: ``(k,)`` how far off annotators are at each point, as a share of the square root of the area.

    Returns:
        ``(*batch,)`` in [0, 1], NaN where nothing was asked for.

    Example:
        >>> truth = torch.zeros(1, 2)
        >>> oks(truth + torch.tensor([20.0, 0.0]), truth, torch.tensor(10000.0), torch.tensor([0.1]))
        tensor(0.6065)
    """
    asked = truth.isfinite().all(-1)
    spread = 2 * area[..., None] * (2 * sigmas).square()
    similarity = torch.exp(-(predicted - truth).square().sum(-1) / spread).nan_to_num(nan=0.0)
    return (similarity * asked).sum(-1) / asked.expand_as(similarity).sum(-1)


def reprojection_errors(
    points_world: Float[Tensor, "*batch k 3"],
    observed: Float[Tensor, "*batch v k 2"],
    cam_from_world: Float[Tensor, "v 4 4"],
    K: Float[Tensor, "v 3 3"],
    distortion: Float[Tensor, "v 5"] | None = None,
) -> Float[Tensor, "*batch v k"]:
    """How far points in space, projected into each view, fall from where they were seen.

    Args:
        points_world: ``(*batch, k, 3)`` metres, world frame.
        observed: ``(*batch, v, k, 2)`` pixels, distorted as the cameras deliver them.
        cam_from_world: ``(v, 4, 4)`` the cameras' poses.
        K: ``(v, 3, 3)`` intrinsics, pixels.
        distortion: ``(v, 5)`` k1 k2 p1 p2 k3, or None for none.

    Returns:
        ``(*batch, v, k)`` pixels, NaN where a point is unknown, not seen, or not in front of the camera.

    Example:
        >>> K = torch.tensor([[[100.0, 0, 50], [0, 100, 50], [0, 0, 1]]])
        >>> point, seen = torch.tensor([[0.1, 0.0, 1.0]]), torch.tensor([[[63.0, 54.0]]])
        >>> reprojection_errors(point, seen, torch.eye(4)[None], K)
        tensor([[5.]])
    """
    points_cam = transform(cam_from_world, points_world[..., None, :, :])
    return point_errors(project(points_cam, K, distortion), observed)


def bone_lengths(points: Float[Tensor, "*batch k 3"], bones: Int[Tensor, "m 2"]) -> Float[Tensor, "*batch m"]:
    """The distances between connected points.

    Args:
        points: ``(*batch, k, 3)`` metres.
        bones: ``(m, 2)`` indices of the two ends of each bone.

    Returns:
        ``(*batch, m)`` metres, NaN where an end is unknown.

    Example:
        >>> bone_lengths(torch.tensor([[0.0, 0, 0], [0, 3.0, 4.0]]), torch.tensor([[0, 1]]))
        tensor([5.])
    """
    return point_errors(points[..., bones[:, 0], :], points[..., bones[:, 1], :])


def bone_length_variation(
    points: Float[Tensor, "*batch n k 3"], bones: Int[Tensor, "m 2"]
) -> Float[Tensor, "*batch m"]:
    """How much the length of each bone, which is rigid, varies over time: standard deviation over mean.

    Args:
        points: ``(*batch, n, k, 3)`` metres over n frames.
        bones: ``(m, 2)`` indices of the two ends of each bone.

    Returns:
        ``(*batch, m)`` coefficients of variation (0.01 is one per cent); NaN with fewer than two known
        frames.

    Example:
        >>> points = torch.tensor([[[0.0, 0, 0], [1.0, 0, 0]], [[0.0, 0, 0], [3.0, 0, 0]]])
        >>> bone_length_variation(points, torch.tensor([[0, 1]]))
        tensor([0.7071])
    """
    lengths = bone_lengths(points, bones)
    known = lengths.isfinite()
    mean = lengths.nanmean(-2, keepdim=True)
    squares = torch.where(known, lengths - mean, 0.0).square().sum(-2)
    freedom = known.sum(-2) - 1
    deviation = torch.sqrt(squares / freedom.clamp(min=1))
    return torch.where(freedom > 0, deviation / mean[..., 0, :], torch.nan)


@dataclass(frozen=True)
class ErrorSummary:
    """The errors of some key points in a few numbers; NaN where none was known.

    Args:
        mean: of the known errors.
        median: of the known errors.
        percentile_95: of the known errors.
        num_known: how many errors are known.
        num_missed: how many points were asked for and not given.
    """

    mean: float
    median: float
    percentile_95: float
    num_known: int
    num_missed: int


@dataclass(frozen=True)
class KeypointReport:
    """Pixel errors of key points over all frames.

    Args:
        overall: of all points in all views.
        by_name: key point -> its errors in all views.
        by_view: view -> the errors of all points in it.
    """

    overall: ErrorSummary
    by_name: dict[str, ErrorSummary]
    by_view: dict[str, ErrorSummary]


def summarise_errors(predicted: Float[Tensor, "*batch d"], truth: Float[Tensor, "*batch d"]) -> ErrorSummary:
    """Mean, median and 95th percentile of the distances, and how many points are missing.

    Args:
        predicted: ``(*batch, d)`` pixels or metres, NaN where not given.
        truth: ``(*batch, d)`` in the same unit, NaN where not asked for.

    Returns:
        The summary.

    Example:
        >>> truth = torch.zeros(3, 2)
        >>> summarise_errors(torch.tensor([[3.0, 4.0], [0.0, 1.0], [torch.nan, 0.0]]), truth).median
        3.0
    """
    errors = point_errors(predicted, truth).flatten()
    asked = int(truth.isfinite().all(-1).sum())
    known = errors[errors.isfinite()]
    if len(known) == 0:
        return ErrorSummary(torch.nan, torch.nan, torch.nan, 0, asked)
    median, high = torch.quantile(known, known.new_tensor([0.5, 0.95])).tolist()
    return ErrorSummary(float(known.mean()), median, high, len(known), asked - len(known))


def report_keypoints(predicted: Sequence[Keypoints2D], truth: Sequence[Keypoints2D]) -> KeypointReport:
    """Compare predicted with true key points, frame by frame.

    Args:
        predicted: one record a frame.
        truth: one record a frame, with the same key points and views in the same order.

    Returns:
        Pixel errors over all, of each key point and of each view.

    Raises:
        ValueError: no frames, lists of unequal length, or other names or views.

    Example:
        >>> seen = Keypoints2D(torch.zeros(1, 1, 2), torch.ones(1, 1), ("nose",), ("top",))
        >>> true = Keypoints2D(torch.ones(1, 1, 2), torch.ones(1, 1), ("nose",), ("top",))
        >>> round(report_keypoints([seen], [true]).by_name["nose"].mean, 3)
        1.414
    """
    if len(predicted) != len(truth) or not truth:
        raise ValueError(f"truth: expected one record a frame, {len(predicted)} > 0, got {len(truth)}")
    names, views = truth[0].names, truth[0].views
    for frame, record in enumerate([*predicted, *truth]):
        if (record.names, record.views) != (names, views):
            raise ValueError(
                f"frame {frame % len(truth)}: expected key points {names} in views {views}, "
                f"got {record.names} in {record.views}"
            )
    given = torch.stack([record.points for record in predicted]).double()
    wanted = torch.stack([record.points for record in truth]).double()
    return KeypointReport(
        summarise_errors(given, wanted),
        {name: summarise_errors(given[:, :, i], wanted[:, :, i]) for i, name in enumerate(names)},
        {view: summarise_errors(given[:, i], wanted[:, i]) for i, view in enumerate(views)},
    )
