"""How wrong predicted poses are, compared with the truth and with what was known before.

Each term is a sum over pairs, layer by layer, and the number of pairs whose truth is known. A truth that is
not known and a prediction that is not finite count nothing: both are replaced before anything is computed
from them, so that their gradient is zero and not NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.geometry.symmetry import symmetric_distance
from sightline.rtdetr_pose.pose_pairs import PosePairs
from sightline.rtdetr_pose.priors import depth_prior, height_above_plane, upright_violation
from sightline.rtdetr_pose.true_objects import TrueObjects

PRIOR_SLACK = 0.7
"""Log ratio by which depth may differ from that of an object's size in its box: a factor of two."""
_MAX_LOG_SIGMA = 7.0


@dataclass(frozen=True)
class Term:
    """The sum of a term over the pairs of each layer, and how many of a layer have a truth for it."""

    total: Float[Tensor, " layers"]
    count: Float[Tensor, ""]

    @classmethod
    def of(cls, values: Tensor, usable: Tensor, known: Tensor) -> Term:
        """Add up what is usable."""
        return cls(torch.where(usable, values, 0.0).sum(-1), known.to(values).sum(-1).mean())


def depth_term(pairs: PosePairs) -> Term:
    """``|log z - log z_gt|``, with a scale per instance where one is predicted."""
    log_z = pairs.outputs["log_z"][..., 0]
    known = pairs.z.isfinite() & (pairs.z > 0)
    usable = known & log_z.isfinite()
    error = (torch.where(usable, log_z, 0.0) - torch.where(usable, pairs.z, 1.0).log()).abs()
    return Term.of(with_uncertainty(error, pairs.outputs.get("log_sigma_z")), usable, known)


def rotation_term(pairs: PosePairs) -> Term:
    """The symmetric distance in radians, with a scale per instance where one is predicted."""
    R, known = pairs.predicted_R(), _finite(pairs.R, 2)
    usable = known & _finite(R, 2)
    identity = torch.eye(3).to(R)
    R, R_gt = (torch.where(usable[..., None, None], each, identity) for each in (R, pairs.R))
    error = symmetric_distance(R, R_gt, pairs.groups)
    return Term.of(with_uncertainty(error, pairs.outputs.get("log_sigma_rot")), usable, known)


def offset_term(pairs: PosePairs) -> Term:
    """The L1 distance of the offsets, in widths and heights of the true box."""
    offsets, size = pairs.outputs["offsets"], pairs.true_boxes[..., 2:] * pairs.image_size
    known = _finite(pairs.offsets, 1) & (size > 0).all(-1)
    usable = known & _finite(offsets, 1)
    error = (_kept(offsets, usable) - _kept(pairs.offsets, usable)).abs()
    return Term.of((error / torch.where(usable[..., None], size, 1.0)).sum(-1), usable, known)


def translation_term(pairs: PosePairs) -> Term:
    """The L1 distance of the recovered translation, relative to the true depth."""
    t, depth = pairs.predicted_t(), pairs.t[..., 2]
    known = _finite(pairs.t, 1) & (depth > 0) & pairs.has_camera
    usable = known & _finite(t, 1)
    error = (_kept(t, usable) - _kept(pairs.t, usable)).abs().sum(-1)
    return Term.of(error / torch.where(usable, depth, 1.0), usable, known)


def depth_prior_term(pairs: PosePairs) -> Term:
    """By how much depth differs from that of the object's size in the predicted box, beyond the slack.

    The prior is rough, for an object that is seen end on fills less of its box: hence the slack.
    """
    log_z, box_size = pairs.outputs["log_z"][..., 0], pairs.boxes[..., 2:] * pairs.image_size
    known = pairs.has_camera & _finite(pairs.object_size, 1)
    usable = known & log_z.isfinite() & _finite(box_size, 1)
    keep = usable[..., None]
    focal = pairs.K.diagonal(dim1=-2, dim2=-1)[..., :2]
    prior = depth_prior(*(torch.where(keep, each, 1.0) for each in (box_size, pairs.object_size, focal)))
    error = (torch.where(usable, log_z, 0.0) - prior.log()).abs()
    return Term.of((error - PRIOR_SLACK).clamp_min(0), usable, known)


def plane_term(pairs: PosePairs) -> Term:
    """How far below the table the predicted origin lies, relative to its depth."""
    t, known = pairs.predicted_t(), _finite(pairs.plane, 1) & pairs.has_camera
    usable = known & _finite(t, 1)
    height = height_above_plane(_kept(t, usable), _kept(pairs.plane, usable))
    depth = torch.where(usable, t[..., 2].detach(), 1.0)
    return Term.of((-height).clamp_min(0) / depth, usable, known)


def upright_term(pairs: PosePairs) -> Term:
    """By how much the predicted roll and pitch leave their ranges, radians."""
    R, known = pairs.predicted_R(), _finite(pairs.upright_range, 2)
    usable = known & _finite(R, 2)
    keep = usable[..., None, None]
    ranges = torch.where(keep, pairs.upright_range, 0.0)
    violation = upright_violation(torch.where(keep, R, torch.eye(3).to(R)), ranges)
    return Term.of(violation.sum(-1), usable, known)


POSE_TERMS: dict[str, tuple[Callable[[PosePairs], Term], frozenset[str]]] = {
    "z": (depth_term, frozenset({"log_z"})),
    "rot": (rotation_term, frozenset({"rot6d"})),
    "off": (offset_term, frozenset({"offsets"})),
    "t": (translation_term, frozenset({"log_z", "offsets"})),
    "z_prior": (depth_prior_term, frozenset({"log_z"})),
    "plane": (plane_term, frozenset({"log_z", "offsets"})),
    "upright": (upright_term, frozenset({"rot6d"})),
}
"""The terms by name, and the outputs that each needs."""


def intrinsics_term(k_delta: Float[Tensor, "b 4"], objects: TrueObjects) -> Term:
    """The L1 error of the intrinsics' correction, its shifts in shares of the picture's width."""
    width, truth = objects.image_size[:, :1], objects.k_delta
    known = _finite(truth, 1) & (width[:, 0] > 0)
    usable = known & _finite(k_delta, 1)
    unit = torch.cat([torch.ones_like(width), torch.where(known[:, None], width, 1.0)], 1)
    error = (_kept(k_delta, usable) - _kept(truth, usable)).abs() / unit[:, [0, 0, 1, 1]]
    return Term.of(error.sum(1)[None], usable[None], known[None])


def with_uncertainty(
    error: Float[Tensor, "*batch"], log_sigma: Float[Tensor, "*batch 1"] | None
) -> Float[Tensor, "*batch"]:
    """``exp(-s) L + s`` of each instance (Kendall and Gal, NeurIPS 2017); L where no s is predicted.

    It is least at ``s = log L``: an instance that is hard may say so, at a price.

    Args:
        error: ``(*batch)`` L, at least 0.
        log_sigma: ``(*batch, 1)`` s; not finite counts as 0.

    Example:
        >>> with_uncertainty(torch.tensor([2.0, 2.0]), torch.tensor([[0.0], [0.6931472]]))
        tensor([2.0000, 1.6931])
    """
    if log_sigma is None:
        return error
    s = torch.where(log_sigma.isfinite(), log_sigma, 0.0)[..., 0].clamp(-_MAX_LOG_SIGMA, _MAX_LOG_SIGMA)
    return (-s).exp() * error + s


def _finite(values: Tensor, axes: int) -> Tensor:
    return values.isfinite().flatten(-axes).all(-1)


def _kept(values: Tensor, usable: Tensor) -> Tensor:
    return torch.where(usable[..., None], values, 0.0)
