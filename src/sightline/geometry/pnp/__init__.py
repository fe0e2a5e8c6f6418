"""The pose of an object from 2-D to 3-D correspondences (perspective-n-point), many of which may be wrong.

From the ground up, each file importing only those before it:

``losses``
    robust losses by the squared residual.
``linearise``
    the reprojection residual, its analytic Jacobian and the normal equations, for many problems at once.
``levenberg``, ``covariance``, ``refine``
    the batched descent, how sure its result is, and both as one call; a differentiable Gauss-Newton step.
``solvers``
    what the shape of a point set says about its pose, and the second pose of a flat one.
``robust``
    PoseLib's LO-RANSAC, and how many inliers rule out chance.
``focal``
    an unknown focal length, of one picture or shared by many.
``candidates``, ``validity``
    the choice between several poses, and when the chosen one may be used.
``face``
    all of it for one picture: :func:`solve_pnp`.

A pose is ``X_cam = R X_obj + t``, metres, OpenCV's camera; its covariance is that of ``(w, v)`` in
``R' = exp(w) R``, ``t' = t + v``. A failure is NaN with a reason, never the identity.
"""

from __future__ import annotations

from sightline.geometry.pnp.face import PnPResult, solve_pnp
from sightline.geometry.pnp.focal import PosedView, SharedFocal, find_pose_and_focal, refine_shared_focal
from sightline.geometry.pnp.levenberg import PosePrior
from sightline.geometry.pnp.losses import LossName
from sightline.geometry.pnp.refine import RefinedPoses, gauss_newton_step, refine_poses
from sightline.geometry.pnp.robust import RansacOptions, find_pose
from sightline.geometry.pnp.solvers import mirrored_pose

__all__ = [
    "LossName",
    "PnPResult",
    "PosePrior",
    "PosedView",
    "RansacOptions",
    "RefinedPoses",
    "SharedFocal",
    "find_pose",
    "find_pose_and_focal",
    "gauss_newton_step",
    "mirrored_pose",
    "refine_poses",
    "refine_shared_focal",
    "solve_pnp",
]
