"""Errors of estimated poses against true ones: ADD, ADD-S, MSSD, MSPD, projection, rotation, translation.

Each function takes two broadcasting batches of ``cam_from_obj`` transforms and returns one error a pair; a
pose of NaN, a failed one, has the error NaN. The definitions are those of the BOP toolkit, in metres.

Symmetries are sampled: :meth:`sightline.geometry.symmetry.SymmetryGroup.transforms`, 315 steps about an axis
as BOP has it. For the rotation and the translation error of a symmetric object bring the truth near the
estimate first, in closed form: :func:`sightline.geometry.symmetry.symmetric_align`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.geometry.cameras import project
from sightline.geometry.poses import invert, transform
from sightline.geometry.rotations import geodesic_distance
from sightline.geometry.viewpoints import icosphere_directions

Pose = Float[Tensor, "*#batch 4 4"]
Errors = Float[Tensor, "*batch"]

_MAX_POINTS = 2_000_000  # moved at a time
_CANDIDATES = 4  # symmetric copies compared in full at a time


def rotation_error_deg(estimate: Pose, truth: Pose) -> Errors:
    """The angle of the rotation that is left between two poses.

    Args:
        estimate: ``(*batch, 4, 4)`` estimated ``cam_from_obj``.
        truth: ``(*batch, 4, 4)`` true ``cam_from_obj``.

    Returns:
        ``(*batch,)`` degrees in [0, 180].

    Example:
        >>> half_turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0]))
        >>> rotation_error_deg(half_turn, torch.eye(4))
        tensor(180.)
    """
    return torch.rad2deg(geodesic_distance(estimate[..., :3, :3], truth[..., :3, :3]))


def translation_error(estimate: Pose, truth: Pose) -> Errors:
    """The distance between the object's origins.

    Args:
        estimate: ``(*batch, 4, 4)`` estimated ``cam_from_obj``.
        truth: ``(*batch, 4, 4)`` true ``cam_from_obj``.

    Returns:
        ``(*batch,)`` metres.

    Example:
        >>> moved = torch.eye(4)
        >>> moved[:3, 3] = torch.tensor([0.3, 0.0, 0.4])
        >>> translation_error(moved, torch.eye(4))
        tensor(0.5000)
    """
    return torch.linalg.vector_norm(estimate[..., :3, 3] - truth[..., :3, 3], dim=-1)


def add(estimate: Pose, truth: Pose, points: Float[Tensor, "n 3"]) -> Errors:
    """ADD: the mean distance between the object's points in the two poses.

    Hinterstoisser et al., "Model based training, detection and pose estimation of texture-less 3D objects in
    heavily cluttered scenes", ACCV 2012.

    Args:
        estimate: ``(*batch, 4, 4)`` estimated ``cam_from_obj``.
        truth: ``(*batch, 4, 4)`` true ``cam_from_obj``.
        points: ``(n, 3)`` points of the object, metres.

    Returns:
        ``(*batch,)`` metres.

    Example:
        >>> moved = torch.eye(4)
        >>> moved[0, 3] = 0.1
        >>> add(moved, torch.eye(4), torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.0, 0.1, 0.0]]))
        tensor(0.1000)
    """
    return _surface_distances(estimate, truth, points).mean(-1)


def adds(estimate: Pose, truth: Pose, points: Float[Tensor, "n 3"]) -> Errors:
    """ADD-S (ADI): the mean distance from each point in the true pose to the nearest in the estimated pose.

    Hinterstoisser et al., ACCV 2012. Exact: one k-d tree in the object's frame serves all pairs, because a
    rigid motion keeps distances.

    Args:
        estimate: ``(*batch, 4, 4)`` estimated ``cam_from_obj``.
        truth: ``(*batch, 4, 4)`` true ``cam_from_obj``.
        points: ``(n, 3)`` points of the object, metres.

    Returns:
        ``(*batch,)`` metres.

    Example:
        >>> moved = torch.eye(4)
        >>> moved[0, 3] = 0.1
        >>> adds(moved, torch.eye(4), torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.0, 0.1, 0.0]]))
        tensor(0.0667)
    """
    from scipy.spatial import KDTree

    tree = KDTree(points.detach().cpu().numpy())
    true_points = transform(truth, points)
    wanted = transform(invert(estimate), true_points)
    known = wanted.isfinite().all(-1)
    index = torch.zeros(known.shape, dtype=torch.long, device=points.device)
    nearest = tree.query(wanted[known].detach().cpu().numpy())[1]
    index[known] = torch.as_tensor(nearest, device=points.device)
    # measured in the camera's frame, so that rounding in the inverse touches the choice alone, not the
    # distance
    return torch.linalg.vector_norm(transform(estimate, points[index]) - true_points, dim=-1).mean(-1)


def projection_error(
    estimate: Pose, truth: Pose, points: Float[Tensor, "n 3"], K: Float[Tensor, "*#batch 3 3"]
) -> Errors:
    """The mean distance between the object's points in the picture in the two poses.

    Brachmann et al., "Uncertainty-driven 6D pose estimation of objects and scenes from a single RGB image",
    CVPR 2016.

    Args:
        estimate: ``(*batch, 4, 4)`` estimated ``cam_from_obj``.
        truth: ``(*batch, 4, 4)`` true ``cam_from_obj``.
        points: ``(n, 3)`` points of the object, metres.
        K: ``(*batch, 3, 3)`` intrinsics, pixels.

    Returns:
        ``(*batch,)`` pixels; infinite where a point is not in front of the camera.

    Example:
        >>> K = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
        >>> truth, moved = torch.eye(4), torch.eye(4)
        >>> truth[2, 3] = moved[2, 3] = 1.0
        >>> moved[0, 3] = 0.01
        >>> projection_error(moved, truth, torch.zeros(1, 3), K)
        tensor(5.)
    """
    return _picture_distances(estimate, truth, points, K).mean(-1)


def mssd(
    estimate: Pose,
    truth: Pose,
    points: Float[Tensor, "n 3"],
    symmetries: Float[Tensor, "s 4 4"] | None = None,
) -> Errors:
    """MSSD, the maximum symmetry-aware surface distance: ``min_S max_x |P_est x - P_true S x|``.

    Hodan et al., "BOP Challenge 2020 on 6D object localization", ECCV Workshops 2020, section 2.2.

    Args:
        estimate: ``(*batch, 4, 4)`` estimated ``cam_from_obj``.
        truth: ``(*batch, 4, 4)`` true ``cam_from_obj``.
        points: ``(n, 3)`` points of the object, metres.
        symmetries: ``(s, 4, 4)`` ``obj_from_obj`` transforms, the identity among them; None is the identity
            alone.

    Returns:
        ``(*batch,)`` metres.

    Example:
        >>> half_turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0]))
        >>> points = torch.tensor([[0.1, 0.0, 0.0], [-0.1, 0.0, 0.0]])
        >>> mssd(half_turn, torch.eye(4), points)
        tensor(0.2000)
        >>> mssd(half_turn, torch.eye(4), points, torch.stack([torch.eye(4), half_turn]))
        tensor(0.)
    """

    def worst(estimate: Tensor, copy: Tensor, _rows: Tensor, points: Tensor) -> Tensor:
        return _surface_distances(estimate, copy, points).amax(-1)

    return _least_over_symmetries(worst, estimate, truth, points, symmetries)


def mspd(
    estimate: Pose,
    truth: Pose,
    points: Float[Tensor, "n 3"],
    K: Float[Tensor, "*#batch 3 3"],
    symmetries: Float[Tensor, "s 4 4"] | None = None,
) -> Errors:
    """MSPD, the maximum symmetry-aware projection distance: ``min_S max_x |pi(P_est x) - pi(P_true S x)|``.

    Hodan et al., "BOP Challenge 2020 on 6D object localization", ECCV Workshops 2020, section 2.2.

    Args:
        estimate: ``(*batch, 4, 4)`` estimated ``cam_from_obj``.
        truth: ``(*batch, 4, 4)`` true ``cam_from_obj``.
        points: ``(n, 3)`` points of the object, metres.
        K: ``(*batch, 3, 3)`` intrinsics, pixels.
        symmetries: ``(s, 4, 4)`` ``obj_from_obj`` transforms, the identity among them; None is the identity
            alone.

    Returns:
        ``(*batch,)`` pixels; infinite where a point is not in front of the camera.

    Example:
        >>> K = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
        >>> truth, moved = torch.eye(4), torch.eye(4)
        >>> truth[2, 3] = moved[2, 3] = 1.0
        >>> moved[0, 3] = 0.01
        >>> mspd(moved, truth, torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, -0.5]]), K)
        tensor(10.)
    """
    batch = torch.broadcast_shapes(estimate.shape[:-2], truth.shape[:-2], K.shape[:-2])
    K_rows = K.expand(*batch, 3, 3).reshape(-1, 3, 3)

    def worst(estimate: Tensor, copy: Tensor, rows: Tensor, points: Tensor) -> Tensor:
        return _picture_distances(estimate, copy, points, K_rows[rows, None]).amax(-1)

    return _least_over_symmetries(worst, estimate, truth.expand(*batch, 4, 4), points, symmetries)


def complement_over_union(
    estimate: Bool[Tensor, "*#batch h w"], truth: Bool[Tensor, "*#batch h w"]
) -> Float[Tensor, "*batch"]:
    """CoU, one minus the intersection over union of two masks (of the object rendered in the two poses).

    Args:
        estimate: ``(*batch, h, w)`` mask in the estimated pose.
        truth: ``(*batch, h, w)`` mask in the true pose.

    Returns:
        ``(*batch,)`` float64 in [0, 1]; 1 where both are empty.

    Example:
        >>> complement_over_union(torch.tensor([[True, True]]), torch.tensor([[True, False]]))
        tensor(0.5000, dtype=torch.float64)
    """
    both = (estimate & truth).sum((-2, -1)).double()
    either = (estimate | truth).sum((-2, -1))
    return 1 - both / either.clamp(min=1)


def _surface_distances(estimate: Tensor, truth: Tensor, points: Tensor) -> Tensor:
    # the difference of two affine maps is one
    return torch.linalg.vector_norm(transform(estimate - truth, points), dim=-1)


def _picture_distances(estimate: Tensor, truth: Tensor, points: Tensor, K: Tensor) -> Tensor:
    seen, wanted = transform(estimate, points), transform(truth, points)
    distances = torch.linalg.vector_norm(project(seen, K) - project(wanted, K), dim=-1)
    behind = (seen[..., 2] <= 0) | (wanted[..., 2] <= 0)
    return torch.where(behind, torch.inf, distances)


def _least_over_symmetries(
    worst: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    estimate: Tensor,
    truth: Tensor,
    points: Tensor,
    symmetries: Tensor | None,
) -> Tensor:
    batch = torch.broadcast_shapes(estimate.shape[:-2], truth.shape[:-2])
    estimate = estimate.expand(*batch, 4, 4).reshape(-1, 4, 4)
    truth = truth.expand(*batch, 4, 4).reshape(-1, 4, 4)
    if symmetries is None:
        symmetries = torch.eye(4, dtype=truth.dtype, device=truth.device)[None]
    few = _support_points(points)
    at_a_time = max(1, _MAX_POINTS // max(len(symmetries) * len(few), _CANDIDATES * len(points)))
    rows = torch.arange(len(estimate), device=estimate.device).split(at_a_time)
    parts = [_best_first(worst, estimate, truth, row, points, few, symmetries) for row in rows]
    return torch.cat(parts).reshape(batch) if parts else estimate.new_zeros(batch)


def _best_first(
    worst: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    estimate: Tensor,
    truth: Tensor,
    rows: Tensor,
    points: Tensor,
    few: Tensor,
    symmetries: Tensor,
) -> Tensor:
    """The exact minimum over the symmetric copies, the promising ones first.

    The maximum over a few points is a lower bound of that over all; once the best copy found is no worse than
    the bound of the next, the rest need not be looked at.
    """
    copies = truth[rows, None] @ symmetries
    bound, order = worst(estimate[rows, None], copies, rows, few).sort(-1)
    least = bound.new_full((len(rows),), torch.inf)
    for start in range(0, len(symmetries), _CANDIDATES):
        # "not above" and not "below": a bound of NaN has to come through as NaN
        undecided = (~(bound[:, start] >= least)).nonzero()[:, 0]
        if len(undecided) == 0:
            break
        tried = copies[undecided[:, None], order[undecided, start : start + _CANDIDATES]]
        error = worst(estimate[rows[undecided], None], tried, rows[undecided], points).amin(-1)
        least = least.index_put((undecided,), torch.minimum(least[undecided], error))
    return least


def _support_points(points: Float[Tensor, "n 3"]) -> Float[Tensor, "k 3"]:
    """The points that reach furthest in 42 directions."""
    directions = icosphere_directions(42).to(points)
    return points[(points @ directions.mT).argmax(0).unique()]
