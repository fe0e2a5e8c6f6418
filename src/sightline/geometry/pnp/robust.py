"""A first pose among many wrong correspondences: PoseLib's LO-RANSAC, and what support rules out chance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

if TYPE_CHECKING:
    import poselib

from sightline.geometry.distortion import undistort
from sightline.geometry.intrinsics import to_normalised

MAX_SAMPLE = 2000  # correspondences that take part in RANSAC; more cost time and find nothing else
_MIN_ITERATIONS = 200
_SUCCESS_PROBABILITY = 0.9999


class RansacOptions(NamedTuple):
    """How RANSAC searches.

    Args:
        max_error_px: the reprojection error of an inlier, pixels.
        max_iterations: samples at most; 20,000 find a pose among 92 % outliers with a probability of 0.9999.
        seed: of the sampling; the same seed gives the same pose.
    """

    max_error_px: float = 3.0
    max_iterations: int = 20_000
    seed: int = 0


class Hypothesis(NamedTuple):
    """A pose from RANSAC, and how many samples were drawn for it."""

    R: Float[Tensor, "3 3"]
    t: Float[Tensor, "3"]
    iterations: int


def find_pose(
    points_2d: Float[Tensor, "m 2"],
    points_3d: Float[Tensor, "m 3"],
    K: Float[Tensor, "3 3"],
    distortion: Float[Tensor, "5"] | None = None,
    options: RansacOptions | None = None,
    *,
    prior: tuple[Tensor, Tensor] | None = None,
) -> Hypothesis | None:
    """Find a pose that many correspondences agree on: LO-RANSAC over P3P (Chum et al., DAGM 2003).

    Pixels are undistorted first, so that errors are measured in pixels of the ideal camera with the same
    focal lengths; what the lens cannot have imaged is left out.

    Args:
        points_2d: ``(m, 2)`` pixels.
        points_3d: ``(m, 3)`` metres, object frame.
        K: ``(3, 3)`` pixels.
        distortion: ``(5,)`` k1 k2 p1 p2 k3, or None.
        options: how to search; None for the defaults.
        prior: ``(R, t)`` to try first.

    Returns:
        The pose, or None where no three correspondences agree with a fourth.

    Example:
        >>> X = torch.rand(20, 3, dtype=torch.float64)
        >>> x = X[:, :2] / (X[:, 2:] + 3)
        >>> found = find_pose(600 * x, X, torch.diag(torch.tensor([600.0, 600.0, 1.0])).double())
        >>> found.t.round(decimals=6).abs()
        tensor([0., 0., 3.], dtype=torch.float64)
    """
    import poselib

    rays = to_normalised(points_2d, K)
    usable = rays.isfinite().all(-1)
    if distortion is not None:
        rays, usable = undistort(rays, distortion)
    focal = K.diagonal()[:2]
    ideal_px, object_points = (rays * focal)[usable].numpy(), points_3d[usable].numpy()
    if len(ideal_px) < 4:
        return None
    # The principal point is at zero; the size of the picture is not used by the solver.
    camera = {"model": "PINHOLE", "width": 0, "height": 0, "params": [*focal.tolist(), 0.0, 0.0]}
    max_error_px, max_iterations, seed = options or RansacOptions()
    ransac = {
        "max_reproj_error": max_error_px,
        "min_iterations": min(_MIN_ITERATIONS, max_iterations),
        "max_iterations": max_iterations,
        "success_prob": _SUCCESS_PROBABILITY,
        "seed": seed,
    }
    start = None if prior is None else _as_camera_pose(*prior)
    pose, info = poselib.estimate_absolute_pose(ideal_px, object_points, camera, ransac, {}, start)
    if info["num_inliers"] < 4 or not np.isfinite(pose.Rt).all():
        return None
    return Hypothesis(
        torch.from_numpy(pose.R.copy()), torch.from_numpy(pose.t.copy()), max(info["iterations"], 1)
    )


def sample_by_weight(
    weights: Float[Tensor, " m"], limit: int = MAX_SAMPLE, *, seed: int = 0
) -> Int[Tensor, " k"]:
    """Choose correspondences without replacement, heavier ones rather; all of them where there are few.

    Args:
        weights: ``(m,)`` non-negative; those of weight zero are never chosen.
        limit: k at most.
        seed: of the choice.

    Returns:
        ``(k,)`` their numbers, rising.

    Example:
        >>> sample_by_weight(torch.tensor([1.0, 0.0, 2.0]))
        tensor([0, 2])
    """
    positive = weights.nonzero()[:, 0]
    if len(positive) <= limit:
        return positive
    generator = torch.Generator().manual_seed(seed)
    return positive[torch.multinomial(weights[positive], limit, generator=generator)].sort().values


def least_support(
    points_2d: Float[Tensor, "m 2"], max_error_px: float, trials: int, *, expected: float = 0.1
) -> tuple[Int[Tensor, " m"], int]:
    """How many inliers a pose needs before chance is ruled out (a-contrario, Moisan and Stival, IJCV 2004).

    Correspondences in one cell of ``max_error_px`` are one witness, however many there are. If all were
    wrong, each other witness would agree with a pose drawn from three of them with the probability ``p = pi
    max_error^2 / area`` (area: the box that the pixels span), so that of ``trials`` poses ``trials
    P(Binomial(n - 3, p) >= k - 3)`` would have k witnesses. The least k is returned for which that number is
    below ``expected``.

    Args:
        points_2d: ``(m, 2)`` pixels of all correspondences.
        max_error_px: the reprojection error of an inlier, pixels.
        trials: poses that were tried.
        expected: bound of the expected number of such poses by chance.

    Returns:
        ``(m,)`` each correspondence's witness, and k, at least 4 (n + 1 where even all are too few).

    Example:
        >>> least_support(torch.rand(100, 2) * 500, 3.0, 1000)[1]
        6
    """
    cells = ((points_2d - points_2d.amin(0)) / max_error_px).floor().long()
    numbers = cells[:, 0] * (int(cells[:, 1].max()) + 1) + cells[:, 1]
    distinct, witness = numbers.unique(return_inverse=True)
    n = len(distinct)
    if n < 4:
        return witness, n + 1
    sides = points_2d.amax(0) - points_2d.amin(0) + 2 * max_error_px
    # Several correspondences in one cell give a wrong witness as many chances to agree.
    chance = math.pi * max_error_px**2 / float(sides.prod()) * len(points_2d) / n
    trials = min(trials, math.comb(n, 3))
    others = torch.arange(1, n - 2, dtype=torch.float64)  # 1 .. n - 3 beyond the sample
    log_tail = _log_binomial_tail(others, n - 3, min(chance, 1 - 1e-9))
    enough = (log_tail + math.log(4 * trials) < math.log(expected)).nonzero()[:, 0]
    return witness, int(others[enough[0]]) + 3 if len(enough) else n + 1


def count_support(witness: Int[Tensor, " m"], inliers: Bool[Tensor, " m"]) -> int:
    """How many different witnesses (see :func:`least_support`) the inliers are.

    Args:
        witness: ``(m,)`` each correspondence's witness.
        inliers: ``(m,)``.

    Example:
        >>> count_support(torch.tensor([0, 0, 1, 2]), torch.tensor([True, True, True, False]))
        2
    """
    return len(witness[inliers].unique())


def _log_binomial_tail(counts: Float[Tensor, " k"], n: int, p: float) -> Float[Tensor, " k"]:
    """``log P(Binomial(n, p) >= count)`` for the counts 1 .. n."""
    log_choose = math.lgamma(n + 1) - torch.lgamma(counts + 1) - torch.lgamma(n - counts + 1)
    log_mass = log_choose + counts * math.log(p) + (n - counts) * math.log1p(-p)
    return log_mass.flip(0).logcumsumexp(0).flip(0)


def _as_camera_pose(R: Tensor, t: Tensor) -> poselib.CameraPose:
    import poselib

    pose = poselib.CameraPose()
    pose.R, pose.t = R.numpy(), t.numpy()
    return pose
