"""EPro-PnP: poses of weighted correspondences as a distribution, to solve and to learn.

Chen et al., Generalized End-to-End Probabilistic Perspective-n-Points, CVPR 2022. From the ground up:

``problems``
    weighted residuals under an adaptive Huber loss, and the cost of many poses at once.
``solver``
    the analytic Jacobian, Levenberg-Marquardt with a trust region, plain and differentiable Gauss-Newton.
``initial``
    a first pose from random samples (RSLM).
``student_t``, ``angular_gaussian``
    the proposals of translations and of rotations.
``sampling``
    adaptive multiple importance sampling: weighted poses, their mean and covariance, log Z.
``losses``
    the Monte-Carlo pose loss and the derivative regularisation.
``failures``, ``face``
    when a pose may not be used; all of it as :class:`EProPnP`.

Inside, a pose is that of the points from their weighted centre; the face takes and gives poses of the object.
"""

from __future__ import annotations

from sightline.geometry.pnp.epropnp.angular_gaussian import AngularGaussian
from sightline.geometry.pnp.epropnp.face import EProPnP, EProPnPResult
from sightline.geometry.pnp.epropnp.losses import PoseLoss, StepLoss
from sightline.geometry.pnp.epropnp.problems import Pose
from sightline.geometry.pnp.epropnp.sampling import PoseSamples
from sightline.geometry.pnp.epropnp.student_t import StudentT

__all__ = [
    "AngularGaussian",
    "EProPnP",
    "EProPnPResult",
    "Pose",
    "PoseLoss",
    "PoseSamples",
    "StepLoss",
    "StudentT",
]
