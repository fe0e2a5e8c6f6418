"""The pose as a teacher of matches: EPro-PnP on query pixels whose points the templates have told.

Confidences become the weights of the pixels. What counts among the points of one crop are their shares,
``c_i / sum c`` (the softmax of the logarithms), times one global scale ``exp(s)`` over the pixel's unit: the
more two pixels agree with the true pose, the more weight they are taught, and s says how precise they are
together. A weight is a weight, an inverse standard deviation; nothing is inverted on the way.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sightline.geometry.pnp.epropnp import EProPnP
from sightline.geometry.poses import make_pose
from sightline.geometry.rotations import geodesic_distance
from sightline.vpog.pose_scale import PoseScale


class EProPnPLoss(nn.Module):
    """The Monte-Carlo pose loss and the derivative regularisation of a batch of crops.

    Args:
        solver: what solves and samples; None for 4 proposals beside the true pose and 512 samples.
        scale: s and the running mean of ``exp(s)``, of the model that learns; the loss's own unless given.
        monte_carlo_weight: of ``(cost(truth) + log Z) / norm``, with the norm a running mean of ``exp(s)``.
        rotation_weight: of ``1 - cos`` of the angle to the truth after the regularising step.
        translation_weight: of the smooth L1 distance, metres, after that step.
        num_points: points of each crop that take part, drawn at random where there are more; None for all.
        pixel_unit: pixels in which ``exp(s)`` is meant; a patch's size makes it independent of the picture's.

    Example:
        >>> criterion = EProPnPLoss()
        >>> X = torch.rand(1, 30, 3) - 0.5
        >>> pose = make_pose(torch.eye(3), torch.tensor([0.0, 0.0, 3.0]))[None]
        >>> K = torch.tensor([[[600.0, 0, 320], [0, 600, 240], [0, 0, 1]]])
        >>> x = (X[..., :2] / (X[..., 2:] + 3)) * 600 + torch.tensor([320.0, 240.0])
        >>> sorted(criterion(X, x, torch.rand(1, 30), K, pose))[:3]
        ['loss', 'loss_monte_carlo', 'loss_rotation']
    """

    def __init__(
        self,
        solver: EProPnP | None = None,
        scale: PoseScale | None = None,
        *,
        monte_carlo_weight: float = 0.2,
        rotation_weight: float = 1.0,
        translation_weight: float = 1.0,
        num_points: int | None = 512,
        pixel_unit: float = 1.0,
    ) -> None:
        super().__init__()
        self.solver = solver or EProPnP(num_proposals=4)
        self.monte_carlo_weight = monte_carlo_weight
        self.rotation_weight = rotation_weight
        self.translation_weight = translation_weight
        self.num_points = num_points
        self.pixel_unit = pixel_unit
        self.scale = scale or PoseScale()

    def forward(
        self,
        points_3d: Float[Tensor, "b n 3"],
        points_2d: Float[Tensor, "b n 2"],
        confidence: Float[Tensor, "b n *axes"],
        K: Float[Tensor, "b 3 3"],
        cam_from_obj: Float[Tensor, "b 4 4"],
        *,
        valid: Bool[Tensor, "b n"] | None = None,
        log_scale: Float[Tensor, " b"] | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Compare the posterior of every crop's pose with its truth.

        Args:
            points_3d: ``(b, n, 3)`` metres, object frame: what the matched template shows of each pixel.
            points_2d: ``(b, n, 2)`` query pixels.
            confidence: ``(b, n)``, or ``(b, n, 2)`` for x and y; non-negative, higher is surer.
            K: ``(b, 3, 3)`` pixels, of the crop.
            cam_from_obj: ``(b, 4, 4)`` the true poses.
            valid: ``(b, n)`` which rows are points; None for all.
            log_scale: ``(b,)`` s of each crop where a network predicts it; None for the learned one.
            generator: of the random numbers; None for torch's own.

        Returns:
            ``loss``, a mean over the crops whose points fix a pose (zero where none does). Without gradient:
            its parts ``loss_monte_carlo``, ``loss_rotation`` and ``loss_translation``; ``rotation_deg`` and
            ``translation_m``, the mean errors of the most probable poses; ``solved``, the share of crops that
            take part.
        """
        weights = confidence if confidence.ndim == 3 else confidence[..., None].expand(-1, -1, 2)
        if valid is not None:
            weights = torch.where(valid[..., None], weights, 0.0)
        points_3d, points_2d, weights = self._chosen(points_3d, points_2d, weights, generator)
        scale = self.scale(log_scale)
        weights_2d = normalise_weights(weights, scale.expand(len(K)), self.pixel_unit)
        problem = points_3d, points_2d, weights_2d, K, cam_from_obj
        posterior = self.solver.monte_carlo_loss(*problem, generator=generator)
        mode = make_pose(posterior.R, posterior.t)
        step = self.solver.derivative_regularisation(*problem, mode=mode)
        count = posterior.valid.sum().clamp_min(1)
        monte_carlo = posterior.loss.sum() / count / self.scale.norm_factor
        rotation, translation = step.rotation.sum() / count, step.translation.sum() / count
        loss = (
            self.monte_carlo_weight * monte_carlo
            + self.rotation_weight * rotation
            + self.translation_weight * translation
        )
        parts = {"loss_monte_carlo": monte_carlo, "loss_rotation": rotation, "loss_translation": translation}
        return {
            "loss": loss,
            **{name: part.detach() for name, part in parts.items()},
            **_pose_metrics(mode, cam_from_obj, posterior.valid),
        }

    def _chosen(
        self, points_3d: Tensor, points_2d: Tensor, weights: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """At most ``num_points`` rows of each crop, at random among those with a weight."""
        if self.num_points is None or weights.shape[1] <= self.num_points:
            return points_3d, points_2d, weights
        rank = torch.rand(weights.shape[:2], generator=generator, device=weights.device)
        rank = rank + (weights.detach() > 0).any(-1)
        rows = rank.topk(self.num_points, dim=1).indices[..., None]
        points_3d, points_2d, weights = (
            field.take_along_dim(rows, dim=1) for field in (points_3d, points_2d, weights)
        )
        return points_3d, points_2d, weights


def normalise_weights(
    confidence: Float[Tensor, "b n 2"], scale: Float[Tensor, " b"], pixel_unit: float = 1.0
) -> Float[Tensor, "b n 2"]:
    """Turn confidences into weights of pixels: each axis's shares of a sum, times the scale per pixel.

    Args:
        confidence: ``(b, n, 2)`` non-negative.
        scale: ``(b,)`` the sum of the weights of each axis, in units of one over ``pixel_unit``.
        pixel_unit: pixels.

    Returns:
        ``(b, n, 2)`` 1/px; zero where all confidences are.

    Example:
        >>> normalise_weights(torch.tensor([[[1.0, 1.0], [3.0, 1.0]]]), torch.tensor([4.0]))
        tensor([[[1., 2.],
                 [3., 2.]]])
    """
    total = confidence.sum(1, keepdim=True)
    share = confidence / torch.where(total > 0, total, 1.0)
    return share * (scale / pixel_unit)[:, None, None]


@torch.no_grad()
def _pose_metrics(mode: Tensor, truth: Tensor, valid: Tensor) -> dict[str, Tensor]:
    truth = truth.to(mode)
    count = valid.sum().clamp_min(1)
    angle = torch.rad2deg(geodesic_distance(mode[:, :3, :3], truth[:, :3, :3]))
    distance = torch.linalg.vector_norm(mode[:, :3, 3] - truth[:, :3, 3], dim=-1)
    return {
        "rotation_deg": torch.where(valid, angle, 0.0).sum() / count,
        "translation_m": torch.where(valid, distance, 0.0).sum() / count,
        "solved": valid.to(angle).mean(),
    }
