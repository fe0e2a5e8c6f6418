"""An unknown focal length: searched for in one picture, and refined over the poses of many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.geometry.cameras import Camera
from sightline.geometry.pnp.covariance import state_covariance
from sightline.geometry.pnp.levenberg import Objective, State
from sightline.geometry.pnp.linearise import NormalEquations, pack_problems
from sightline.geometry.pnp.refine import refine_poses
from sightline.geometry.pnp.robust import Hypothesis, RansacOptions, find_pose, sample_by_weight
from sightline.geometry.poses import make_pose, split_pose

_SHORTEST, _LONGEST = 0.4, 4.0  # focal lengths that are tried, in units of the picture's longer side
_NUM_TRIED = 8
_SAMPLE = 500  # correspondences for RANSAC at each of them
_TUKEY_SCALE = 2.0  # times the error of an inlier: where the loss gives up
_MAX_LOG_STEP = 0.3  # of a focal length, so that a bad start cannot throw it away
_INITIAL_DAMPING, _MOST_DAMPING = 1e-4, 1e8
_RELATIVE_GAIN = 1e-12


class PosedView(NamedTuple):
    """One picture of the object for :func:`refine_shared_focal`.

    Args:
        points_2d: ``(m, 2)`` pixels.
        points_3d: ``(m, 3)`` metres, object frame.
        cam_from_obj: ``(4, 4)`` its pose, found with the camera's present focal length.
    """

    points_2d: Float[Tensor, "m 2"]
    points_3d: Float[Tensor, "m 3"]
    cam_from_obj: Float[Tensor, "4 4"]


class SharedFocal(NamedTuple):
    """The focal length that several pictures agree on.

    Args:
        focal_px: fx, pixels; fy keeps its ratio to fx.
        std_px: its standard deviation, pixels: from the residuals, and larger where the views disagree by
            more than their residuals explain; infinite where they do not fix it.
        camera: the camera with that focal length.
        cam_from_obj: ``(f, 4, 4)`` the poses that go with it.
        converged: whether no further step promised anything.
    """

    focal_px: float
    std_px: float
    camera: Camera
    cam_from_obj: Float[Tensor, "f 4 4"]
    converged: bool


class _Schur(NamedTuple):
    """The focal length's own equation after the poses were eliminated, one term a view."""

    curvature: Float[Tensor, " f"]
    gradient: Float[Tensor, " f"]
    poses_by_focal: Float[Tensor, "f 6"]  # -A^-1 b
    poses_alone: Float[Tensor, "f 6"]  # -A^-1 g


def find_pose_and_focal(
    points_2d: Float[Tensor, "m 2"],
    points_3d: Float[Tensor, "m 3"],
    camera: Camera,
    options: RansacOptions | None = None,
) -> tuple[Camera, Hypothesis] | None:
    """Find a pose and the focal length: RANSAC at several of them, then descent over both.

    A wrong focal length costs few of the inliers of a small object, so that focal lengths 40 % apart, from
    0.4 to 4 times the picture's longer side, are near enough for the robust descent to find the rest.

    Args:
        points_2d: ``(m, 2)`` pixels.
        points_3d: ``(m, 3)`` metres, object frame.
        camera: gives principal point, ratio of the focal lengths and distortion; its focal length is one more
            start.
        options: how to search at each focal length; None for the defaults.

    Returns:
        The camera with the focal length found, and the pose; None where no focal length has one.
    """
    options = options or RansacOptions()
    few = sample_by_weight(torch.ones(len(points_2d)), _SAMPLE, seed=options.seed)
    fx = float(camera.K[0, 0])
    longer = max(camera.image_size)
    tried = torch.logspace(0, 1, _NUM_TRIED, base=_LONGEST / _SHORTEST, dtype=torch.float64)
    cameras = [scale_focal(camera, float(focal) * _SHORTEST * longer / fx) for focal in tried] + [camera]
    found = [
        (one, pose)
        for one in cameras
        if (pose := find_pose(points_2d[few], points_3d[few], one.K, one.distortion, options)) is not None
    ]
    if not found:
        return None
    count = len(found)
    refined = refine_poses(
        points_2d.expand(count, -1, -1),
        points_3d.expand(count, -1, -1),
        torch.stack([one.K for one, _ in found]),
        torch.stack([pose.R for _, pose in found]),
        torch.stack([pose.t for _, pose in found]),
        distortion=camera.distortion,
        loss="tukey",
        scale_px=_TUKEY_SCALE * options.max_error_px,
        refine_focal=True,
        graduation=1,
        tolerance=1e-6,
    )
    best = int(refined.cost.argmin())
    iterations = sum(pose.iterations for _, pose in found)
    focal_camera = scale_focal(found[best][0], float(refined.focal_scale[best]))
    return focal_camera, Hypothesis(refined.R[best], refined.t[best], iterations)


def refine_shared_focal(
    views: Sequence[PosedView | tuple[Tensor, Tensor, Tensor]],
    camera: Camera,
    *,
    max_error_px: float = 3.0,
    graduation: int = 2,
    max_iterations: int = 50,
) -> SharedFocal:
    """Find the one focal length of many pictures, together with all of their poses.

    Levenberg-Marquardt on Tukey's loss over 6 f + 1 unknowns; the poses are eliminated by the Schur
    complement, ``sum (c - b^T A^-1 b) d = -sum (g - b^T A^-1 g_pose)``, so that a step costs no more than f
    single ones. A single picture of a small or frontal object says little about the focal length, many tilted
    ones say much.

    Args:
        views: pictures with a pose each; NaN poses are left out.
        camera: the camera of all of them; its focal length is where the search starts.
        max_error_px: the reprojection error of an inlier, pixels.
        graduation: how often to halve the loss's scale on the way; each doubles the errors that a wrong start
            may have.
        max_iterations: at each scale.

    Returns:
        The focal length with its standard deviation, and the poses.

    Raises:
        ValueError: no view with a pose.

    Example:
        >>> from sightline.geometry.rotations import random_rotations
        >>> camera = Camera.from_focal(600.0, 640, 480)
        >>> R = random_rotations(8, generator=torch.Generator().manual_seed(0))
        >>> pose = make_pose(R, torch.tensor([0.0, 0.0, 0.5], dtype=torch.float64))
        >>> X = 0.1 * torch.rand(30, 3, dtype=torch.float64)
        >>> views = [(camera.project(X @ one[:3, :3].mT + one[:3, 3]), X, one) for one in pose]
        >>> round(refine_shared_focal(views, Camera.from_focal(540.0, 640, 480)).focal_px, 3)
        600.0
    """
    usable = [PosedView(*view) for view in views if bool(view[2].isfinite().all())]
    if not usable:
        raise ValueError(f"views: expected at least one with a pose, got none among {len(views)}")
    objective, state = _pack_views(usable, camera, _TUKEY_SCALE * max_error_px)
    converged = False
    for halving in range(graduation, -1, -1):
        coarse = objective._replace(scale_px=objective.scale_px * 2.0**halving)
        state, converged = _minimise_shared(coarse, state, max_iterations)
    scale = float(state.log_focal[0].exp())
    focal_px = float(camera.K[0, 0]) * scale
    std_px = focal_px * _shared_std(objective, state)
    return SharedFocal(focal_px, std_px, scale_focal(camera, scale), make_pose(state.R, state.t), converged)


def scale_focal(camera: Camera, factor: float) -> Camera:
    """The camera with both focal lengths (and the skew) multiplied by a factor.

    Args:
        camera: any.
        factor: positive.

    Example:
        >>> scale_focal(Camera.from_focal(600.0, 640, 480), 0.5).K[0]
        tensor([300.0000,   0.0000, 319.5000], dtype=torch.float64)
    """
    K = camera.K.clone()
    K[:2, :2] *= factor
    return Camera(K, camera.width, camera.height, camera.distortion)


def _pack_views(views: list[PosedView], camera: Camera, scale_px: float) -> tuple[Objective, State]:
    """Pad the views to the same number of points, with weight zero."""
    points_2d, points_3d, weights = (
        torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        for rows in (
            [view.points_2d.double() for view in views],
            [view.points_3d.double() for view in views],
            [view.points_2d.new_ones(len(view.points_2d), dtype=torch.float64) for view in views],
        )
    )
    problems = pack_problems(points_2d, points_3d, camera.K, weights, camera.distortion)
    R, t = split_pose(torch.stack([view.cam_from_obj.double() for view in views]))
    none = t.new_zeros(len(views))
    return Objective(problems, "tukey", none + scale_px, with_focal=True), State(R, t, none)


def _minimise_shared(objective: Objective, state: State, max_iterations: int) -> tuple[State, bool]:
    equations = objective.equations(state)
    damping = _INITIAL_DAMPING
    for _ in range(max_iterations):
        schur = _eliminate_poses(equations, damping)
        log_focal = -float(schur.gradient.sum() / schur.curvature.sum().clamp_min(1e-300))
        log_focal = min(max(log_focal, -_MAX_LOG_STEP), _MAX_LOG_STEP)
        poses = schur.poses_alone + schur.poses_by_focal * log_focal
        step = torch.cat([poses, poses.new_full((len(poses), 1), log_focal)], 1)
        change = 2 * equations.gradient + (equations.hessian @ step[..., None])[..., 0]
        cost = float(equations.cost.sum())
        if -float((step * change).sum()) <= _RELATIVE_GAIN * cost:
            return state, True
        trial_state = state.moved(step)
        trial = objective.equations(trial_state)
        if float(trial.cost.sum()) < cost:
            state, equations, damping = trial_state, trial, damping / 10
        elif damping < _MOST_DAMPING:
            damping *= 10
        else:
            break
    return state, False


def _eliminate_poses(equations: NormalEquations, damping: float) -> _Schur:
    diagonal = equations.hessian.diagonal(dim1=-2, dim2=-1)
    # A view without inliers at this focal length has no curvature: it then stays where it is.
    floor = 1e-12 * diagonal.amax(-1, keepdim=True) + 1e-12
    damped = equations.hessian + torch.diag_embed(damping * diagonal + floor)
    by_focal = damped[:, :6, 6]
    right = torch.stack([by_focal, equations.gradient[:, :6]], -1)
    solved = -torch.linalg.solve_ex(damped[:, :6, :6], right).result
    poses_by_focal, poses_alone = solved.unbind(-1)
    return _Schur(
        damped[:, 6, 6] + (by_focal * poses_by_focal).sum(-1),
        equations.gradient[:, 6] + (by_focal * poses_alone).sum(-1),
        poses_by_focal,
        poses_alone,
    )


def _shared_std(objective: Objective, state: State) -> float:
    """The deviation of log f: each view's own information added up, and enlarged by the views' scatter."""
    own = 1 / state_covariance(objective, state)[:, 6, 6]  # zero for a view that says nothing
    schur = _eliminate_poses(objective.equations(state), 0.0)
    own_change = -schur.gradient / schur.curvature  # where each view alone would put the focal length
    telling = (own > 0) & own_change.isfinite()
    if not bool(telling.any()):
        return float("inf")
    information = own[telling]
    scatter = float((information * own_change[telling].square()).sum()) / max(len(information) - 1, 1)
    return float(information.sum()) ** -0.5 * max(1.0, scatter) ** 0.5  # Birge's ratio
