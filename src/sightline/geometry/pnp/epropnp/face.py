"""EPro-PnP for a batch of weighted correspondences: solve, say how sure, learn (Chen et al., CVPR 2022)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.geometry.pnp.covariance import invert_information, residual_variance
from sightline.geometry.pnp.epropnp.failures import find_failures, find_missing
from sightline.geometry.pnp.epropnp.initial import find_start
from sightline.geometry.pnp.epropnp.losses import PoseLoss, StepLoss, pose_loss, step_loss
from sightline.geometry.pnp.epropnp.problems import (
    Pose,
    WeightedProblems,
    adapt_to_pose,
    pack_problems,
    pose_costs,
)
from sightline.geometry.pnp.epropnp.sampling import PoseSamples, draw_poses
from sightline.geometry.pnp.epropnp.solver import Minimum, descend_fast, find_minimum, linearise
from sightline.geometry.rotations import hat

_LEAST_EFFECTIVE = 20.0  # samples; below, a second moment of six parameters is noise


class EProPnPResult(NamedTuple):
    """What :meth:`EProPnP.solve` returns; a pose that is not valid is NaN.

    Args:
        R: ``(b, 3, 3)`` the most probable rotation, object to camera.
        t: ``(b, 3)`` metres.
        valid: ``(b,)`` whether the pose may be used.
        covariance: ``(b, 6, 6)`` of ``(w, v)`` in ``R' = exp(w) R``, ``t' = t + v``, rad and m.
        cost: ``(b,)`` half the robust cost, in squared weighted pixels.
        effective_samples: ``(b,)`` how many equally weighted samples of the posterior the covariance rests
            on; NaN where it was taken from the curvature of the cost.
        reason: b times why the pose is not valid; empty for a valid one.
    """

    R: Float[Tensor, "b 3 3"]
    t: Float[Tensor, "b 3"]
    valid: Bool[Tensor, " b"]
    covariance: Float[Tensor, "b 6 6"]
    cost: Float[Tensor, " b"]
    effective_samples: Float[Tensor, " b"]
    reason: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class EProPnP:
    """The probabilistic perspective-n-point layer: a distribution over poses instead of one pose.

    The weights of the pixels are inverse standard deviations, one for x and one for y, so that
    ``p(pose) ~ exp(-1/2 sum rho(|w o (pi(R X + t) - x)|))`` with an adaptive Huber loss. It is computed in
    float64 where an input is, else in float32, outside autocast.

    Args:
        relative_delta: where the Huber loss turns, as a share of the object's size in the picture; infinity
            for least squares.
        min_depth: metres; nearer points have no picture.
        num_proposals: random samples tried for a first pose; 0 where a start is always given.
        num_points: of such a sample.
        max_iterations: of Levenberg-Marquardt.
        fast: three plain Gauss-Newton steps instead, for starts that are near.
        num_adaptations: how often :meth:`solve` adapts the loss to the pose found, against outliers.
        num_samples: of the posterior.
        rounds: in which they are drawn.
        covariance: ``posterior`` for the second moment of the samples about the pose, ``curvature`` for the
            inverse of ``J^T J``, which costs nothing.
        noise: ``weights`` where they are inverse standard deviations; ``residuals`` where they are only
            relative, and what is left at the optimum says how large the noise is.
        beta: metres, of the smooth L1 loss of the derivative regularisation.

    Example:
        >>> from sightline.geometry.cameras import project
        >>> X = torch.rand(2, 20, 3, dtype=torch.float64) - 0.5
        >>> K = torch.tensor([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]]).double().expand(2, 3, 3)
        >>> x = project(X + torch.tensor([0.0, 0, 3]), K[0])
        >>> result = EProPnP().solve(X, x, torch.ones_like(x), K)
        >>> result.valid.tolist(), result.t[0].round(decimals=4).abs().tolist()
        ([True, True], [0.0, 0.0, 3.0])
    """

    relative_delta: float = 0.1
    min_depth: float = 0.01
    num_proposals: int = 64
    num_points: int = 16
    max_iterations: int = 20
    fast: bool = False
    num_adaptations: int = 2
    num_samples: int = 512
    rounds: int = 4
    covariance: Literal["posterior", "curvature"] = "posterior"
    noise: Literal["weights", "residuals"] = "weights"
    beta: float = 0.05

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        if self.covariance not in ("posterior", "curvature"):
            raise ValueError(f"covariance: expected 'posterior' or 'curvature', got {self.covariance!r}")
        if self.noise not in ("weights", "residuals"):
            raise ValueError(f"noise: expected 'weights' or 'residuals', got {self.noise!r}")
        if not self.relative_delta > 0 or not self.min_depth > 0:
            got = f"{self.relative_delta} and {self.min_depth}"
            raise ValueError(f"relative_delta and min_depth: expected positive numbers, got {got}")
        if self.num_samples < self.rounds or self.rounds < 1:
            raise ValueError(f"rounds: expected 1 to {self.num_samples} (num_samples), got {self.rounds}")

    @torch.no_grad()
    def solve(
        self,
        points_3d: Float[Tensor, "b n 3"],
        points_2d: Float[Tensor, "b n 2"],
        weights_2d: Float[Tensor, "b n 2"],
        K: Float[Tensor, "b 3 3"],
        *,
        start: Float[Tensor, "b 4 4"] | None = None,
        generator: torch.Generator | None = None,
    ) -> EProPnPResult:
        """Find the most probable poses and how sure they are.

        Args:
            points_3d: ``(b, n, 3)`` metres, object frame; anything, NaN included, where the weights are zero.
            points_2d: ``(b, n, 2)`` pixels of an undistorted picture; likewise.
            weights_2d: ``(b, n, 2)`` inverse standard deviations of x and y, 1/px; zero for padding. More
                weight on a point makes it count more.
            K: ``(b, 3, 3)`` pixels.
            start: ``(b, 4, 4)`` cam_from_obj to try beside the random ones.
            generator: of all random numbers; None for a seeded one: equal problems have equal results.

        Raises:
            ValueError: a negative weight, or neither a start nor proposals.
        """
        # The search takes as many random numbers as there are rows, padding included; the sampling must not.
        search, sampling = (generator or torch.Generator(points_3d.device).manual_seed(i) for i in (0, 1))
        with torch.autocast(points_3d.device.type, enabled=False):
            problems = self._pack(points_3d, points_2d, weights_2d, K)
            first = None if start is None else problems.to_centred(*_split(start, problems))
            minimum = self._find_mode(problems, first, search)
            for _ in range(0 if math.isinf(self.relative_delta) else self.num_adaptations):
                problems = adapt_to_pose(problems, minimum.pose, self.relative_delta)
                minimum = self._descend(problems, minimum.pose)
            reasons = find_failures(problems, minimum)
            problems = self._with_noise(problems, minimum)
            covariance, effective = self._uncertainty(problems, minimum.pose, sampling)
            pose = problems.to_object(minimum.pose)
        valid = torch.tensor([not reason for reason in reasons], device=covariance.device)
        lost = ~valid
        return EProPnPResult(
            torch.where(lost[:, None, None], torch.nan, pose.R),
            torch.where(lost[:, None], torch.nan, pose.t),
            valid,
            torch.where(lost[:, None, None], torch.inf, covariance),
            torch.where(lost, torch.nan, minimum.cost),
            torch.where(lost, torch.nan, effective),
            reasons,
        )

    def monte_carlo_loss(
        self,
        points_3d: Float[Tensor, "b n 3"],
        points_2d: Float[Tensor, "b n 2"],
        weights_2d: Float[Tensor, "b n 2"],
        K: Float[Tensor, "b 3 3"],
        pose_gt: Float[Tensor, "b 4 4"],
        *,
        generator: torch.Generator | None = None,
    ) -> PoseLoss:
        """The divergence of the posterior from the true pose, differentiable by points, pixels and weights.

        Args:
            points_3d: as for :meth:`solve`, as the next three.
            points_2d: pixels.
            weights_2d: 1/px.
            K: pixels.
            pose_gt: ``(b, 4, 4)`` cam_from_obj, from which the search starts, beside the random proposals.
            generator: the source of random numbers; None for torch's own.
        """
        with torch.autocast(points_3d.device.type, enabled=False):
            problems = self._pack(points_3d, points_2d, weights_2d, K)
            constant = problems.detach()
            truth = problems.to_centred(*_split(pose_gt, problems))
            minimum = self._find_mode(constant, truth, generator)
            samples = draw_poses(
                lambda pose: pose_costs(problems, pose),
                minimum.pose,
                minimum.information,
                num_samples=self.num_samples,
                rounds=self.rounds,
                generator=generator,
            )
            return pose_loss(problems, samples, truth, minimum.pose, ~find_missing(constant))

    def derivative_regularisation(
        self,
        points_3d: Float[Tensor, "b n 3"],
        points_2d: Float[Tensor, "b n 2"],
        weights_2d: Float[Tensor, "b n 2"],
        K: Float[Tensor, "b 3 3"],
        pose_gt: Float[Tensor, "b 4 4"],
        *,
        mode: Float[Tensor, "b 4 4"] | None = None,
        generator: torch.Generator | None = None,
    ) -> StepLoss:
        """How far a differentiable step from the most probable pose ends from the true one.

        Args:
            points_3d: as for :meth:`solve`, as the next three.
            points_2d: pixels.
            weights_2d: 1/px.
            K: pixels.
            pose_gt: ``(b, 4, 4)`` cam_from_obj.
            mode: ``(b, 4, 4)`` the most probable pose, where it is known already.
            generator: the source of random numbers of the search; None for torch's own.
        """
        with torch.autocast(points_3d.device.type, enabled=False):
            problems = self._pack(points_3d, points_2d, weights_2d, K)
            constant = problems.detach()
            truth = problems.to_centred(*_split(pose_gt, problems))
            if mode is None:
                found = self._find_mode(constant, truth, generator).pose
            else:
                found = problems.to_centred(*_split(mode, problems))
            return step_loss(problems, found, truth, ~find_missing(constant), self.beta)

    @torch.no_grad()
    def sample(
        self,
        points_3d: Float[Tensor, "b n 3"],
        points_2d: Float[Tensor, "b n 2"],
        weights_2d: Float[Tensor, "b n 2"],
        K: Float[Tensor, "b 3 3"],
        mode: Float[Tensor, "b 4 4"],
        *,
        generator: torch.Generator | None = None,
    ) -> PoseSamples:
        """Weighted samples of the posterior, whose ``mean()`` and ``second_moment(about)`` are to be had.

        Args:
            points_3d: as for :meth:`solve`, as the next three.
            points_2d: pixels.
            weights_2d: 1/px.
            K: pixels.
            mode: ``(b, 4, 4)`` the most probable cam_from_obj.
            generator: the source of random numbers; None for torch's own.
        """
        with torch.autocast(points_3d.device.type, enabled=False):
            problems = self._pack(points_3d, points_2d, weights_2d, K)
            centred = problems.to_centred(*_split(mode, problems))
            samples = self._draw(problems, centred, generator)
            return samples._replace(pose=problems.to_object(samples.pose))

    def _pack(self, points_3d: Tensor, points_2d: Tensor, weights_2d: Tensor, K: Tensor) -> WeightedProblems:
        inputs = (points_3d, points_2d, weights_2d, K)
        dtype = torch.float64 if any(part.dtype == torch.float64 for part in inputs) else torch.float32
        if bool((weights_2d < 0).any()):
            raise ValueError(f"weights_2d: expected non-negative numbers, got {float(weights_2d.min()):.3g}")
        return pack_problems(
            *(part.to(dtype) for part in inputs),
            relative_delta=self.relative_delta,
            min_depth=self.min_depth,
        )

    @torch.no_grad()
    def _find_mode(
        self, problems: WeightedProblems, start: Pose | None, generator: torch.Generator | None
    ) -> Minimum:
        if self.num_proposals == 0:
            if start is None:
                raise ValueError("num_proposals: expected at least 1 where no start is given, got 0")
            return self._descend(problems, start)
        found = self._descend(
            problems,
            find_start(
                problems,
                num_proposals=self.num_proposals,
                num_points=self.num_points,
                generator=generator,
            ),
        )
        if start is None:
            return found
        given = self._descend(problems, start)
        better = given.cost <= found.cost
        return Minimum(
            Pose(*(_choose(better, a, b) for a, b in zip(given.pose, found.pose, strict=True))),
            *(_choose(better, a, b) for a, b in zip(given[1:], found[1:], strict=True)),
        )

    def _descend(self, problems: WeightedProblems, start: Pose) -> Minimum:
        if self.fast:
            return descend_fast(problems, start)
        return find_minimum(problems, start, max_iterations=self.max_iterations)

    def _with_noise(self, problems: WeightedProblems, minimum: Minimum) -> WeightedProblems:
        if self.noise == "weights":
            return problems
        here = linearise(problems, minimum.pose)
        variance = residual_variance(here.terms, here.squared, problems.used, problems.delta, 6)
        return problems.with_noise(variance.clamp_min(1e-20).sqrt())

    def _draw(self, problems: WeightedProblems, mode: Pose, generator: torch.Generator | None) -> PoseSamples:
        return draw_poses(
            lambda pose: pose_costs(problems, pose),
            mode,
            linearise(problems, mode).hessian,
            num_samples=self.num_samples,
            rounds=self.rounds,
            generator=generator,
        )

    def _uncertainty(
        self, problems: WeightedProblems, mode: Pose, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The covariance by ``(w, v)`` of the object's pose, and how many samples it rests on."""
        curvature = invert_information(linearise(problems, mode).hessian.double()).to(mode.t.dtype)
        covariance, effective = curvature, torch.full_like(problems.delta, torch.nan)
        if self.covariance == "posterior":
            samples = self._draw(problems, mode, generator)
            enough = samples.effective >= _LEAST_EFFECTIVE
            covariance = _choose(enough, samples.second_moment(mode), curvature)
            effective = torch.where(enough, samples.effective, torch.nan)
        # The points' centre moves by v' = v + w x (R centre).
        about = torch.eye(6, dtype=covariance.dtype, device=covariance.device).repeat(len(covariance), 1, 1)
        about[:, 3:, :3] = hat((mode.R @ problems.centre[..., None])[..., 0])
        return about @ covariance @ about.mT, effective


def _split(pose: Float[Tensor, "b 4 4"], problems: WeightedProblems) -> Pose:
    pose = pose.to(problems.points_3d.dtype)
    return Pose(pose[:, :3, :3], pose[:, :3, 3])


def _choose(first: Bool[Tensor, " b"], a: Tensor, b: Tensor) -> Tensor:
    return torch.where(first.reshape(-1, *[1] * (a.ndim - 1)), a, b)
