"""What a detector with pose learns by: classes, boxes, poses, priors, reconstruction and doubt in one number.

``Losses`` matches queries to objects, in every decoder layer and in the query selection, and adds up what
each pair gets wrong. Means are over true objects, of all processes; nothing is read back from the device but
the matcher's cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sightline.geometry.symmetry import SymmetryBatch, SymmetryGroup, stack_symmetries
from sightline.nn.precision import at_least_float32
from sightline.rtdetr_pose.detection_losses import class_and_box_losses
from sightline.rtdetr_pose.matching import MatchCosts, denoising_pairs, match
from sightline.rtdetr_pose.pose_losses import POSE_TERMS, Term, intrinsics_term
from sightline.rtdetr_pose.pose_pairs import (
    POSE_OUTPUTS,
    corrected_camera,
    nearest_truth,
    pair_poses,
    translations,
)
from sightline.rtdetr_pose.reconstruction_losses import (
    entropy_loss,
    foreground_entropy,
    masked_cells,
    mim_reconstruction_loss,
)
from sightline.rtdetr_pose.schedules import MaskSchedule, PoseSchedule
from sightline.rtdetr_pose.true_objects import Target, TrueObjects, gather_objects
from sightline.training.processes import average_over_processes

__all__ = ["Losses", "entropy_loss", "foreground_entropy", "mim_reconstruction_loss"]

Outputs = Mapping[str, Any]

DEFAULT_WEIGHTS: Mapping[str, float] = {
    "cls": 1.0,
    "box": 1.0,
    "z": 1.0,
    "rot": 1.0,
    "off": 1.0,
    "t": 0.1,
    "k": 1.0,
    "z_prior": 0.1,
    "plane": 0.1,
    "upright": 0.1,
    "mim": 0.1,
    "entropy": 0.01,
    "aux": 1.0,
    "dn": 1.0,
}
"""Weight of each term."""


class Losses(nn.Module):
    """All losses of a detector with pose.

    ``loss`` is the sum of ``weights[key] * loss_<key>``. ``cls`` is the varifocal loss and ``box`` ``5 L1 + 2
    (1 - GIoU)`` by the number of objects. The pose's terms, each a mean over the objects that know a truth:
    ``z`` the log ratio of depths, ``rot`` the symmetric distance in radians, ``off`` the offsets in sizes of
    the box, ``t`` the recovered translation by depth, ``k`` the intrinsics; ``z_prior``, ``plane`` and
    ``upright`` judge the prediction alone. ``mim`` and ``entropy`` are there when the masked branch ran.
    ``aux`` is the weighted sum of the same for the earlier layers and the query selection, ``dn`` that of the
    denoising queries.

    Args:
        weights: what differs from :data:`DEFAULT_WEIGHTS`.
        symmetries: one group a class; None for no symmetries.
        object_sizes: of each class the diameter, or ``(c, 2)`` width and height, metres; None switches the
            depth's prior off.
        costs: of the matcher.
        pose_schedule: when terms of the pose enter, see :meth:`at_progress`.
        mask_schedule: how the weight of ``mim`` grows.
        alpha: of the varifocal loss, weight of negatives.
        gamma: of the varifocal loss, how much easy negatives count less.
        l1_weight: of the L1 distance in ``box``.
        giou_weight: of ``1 - GIoU`` in ``box``.

    Raises:
        ValueError: an unknown weight; the known ones are listed.

    Example:
        >>> outputs = {"logits": torch.zeros(1, 5, 3), "bbox": torch.full((1, 5, 4), 0.5)}
        >>> targets = [{"labels": torch.tensor([2]), "boxes": torch.tensor([[0.5, 0.5, 0.5, 0.5]])}]
        >>> losses = Losses(weights={"cls": 2.0})(outputs, targets)
        >>> losses["loss_box"].item(), bool(losses["loss"] == 2 * losses["loss_cls"])
        (0.0, True)
    """

    discrete: Tensor
    axis: Tensor
    offset: Tensor
    continuous: Tensor
    object_sizes: Tensor

    def __init__(
        self,
        weights: Mapping[str, float] | None = None,
        *,
        symmetries: Sequence[SymmetryGroup] | None = None,
        object_sizes: Sequence[float] | Float[Tensor, "..."] | None = None,
        costs: MatchCosts | None = None,
        pose_schedule: PoseSchedule | None = None,
        mask_schedule: MaskSchedule | None = None,
        alpha: float = 0.75,
        gamma: float = 2.0,
        l1_weight: float = 5.0,
        giou_weight: float = 2.0,
    ) -> None:
        super().__init__()
        unknown = sorted(set(weights or {}) - set(DEFAULT_WEIGHTS))
        if unknown:
            raise ValueError(
                f"weights: unknown {', '.join(unknown)}; the known ones are {', '.join(DEFAULT_WEIGHTS)}"
            )
        self.weights = {**DEFAULT_WEIGHTS, **(weights or {})}
        self.costs = costs or MatchCosts()
        self.pose_schedule = pose_schedule or PoseSchedule()
        self.mask_schedule = mask_schedule or MaskSchedule()
        self._class_and_box = partial(
            class_and_box_losses, alpha=alpha, gamma=gamma, l1_weight=l1_weight, giou_weight=giou_weight
        )
        groups = stack_symmetries(symmetries or [SymmetryGroup.none()])
        for name in ("discrete", "axis", "offset", "continuous"):
            self.register_buffer(name, getattr(groups, name), persistent=False)
        beside = torch.linalg.cross(groups.offset, groups.axis)
        self._moves_origin = bool(groups.discrete[..., :3, 3].any() or beside.abs().max() > 1e-9)
        sizes = torch.tensor([torch.nan]) if object_sizes is None else torch.as_tensor(object_sizes).float()
        sizes = sizes[:, None].expand(-1, 2) if sizes.ndim == 1 else sizes
        self.register_buffer("object_sizes", sizes.contiguous(), persistent=False)
        self.at_progress(1.0)

    def at_progress(self, fraction: float) -> None:
        """Take the schedules' factors when a share of the run is done; at first they are those of its end."""
        factors = self.pose_schedule.factors(fraction)
        factors["mim"] = self.mask_schedule.weight.at(fraction)
        self._weights = {key: weight * factors.get(key, 1.0) for key, weight in self.weights.items()}
        late = self.pose_schedule.match.at(fraction)
        pose = {key: late * getattr(self.costs, key) for key in ("z", "rot", "t")}
        self._costs = MatchCosts(**{**vars(self.costs), **pose})

    def forward(self, outputs: Outputs, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Judge the predictions for a batch.

        Args:
            outputs: of the network: ``logits (b, q, c)``, ``bbox (b, q, 4)`` cxcywh in [0, 1]; as far as it
                has them ``log_z (b, q, 1)``, ``rot6d (b, q, 6)``, ``offsets (b, q, 2)`` pixels,
                ``log_sigma_z`` and ``log_sigma_rot (b, q, 1)``, ``k_delta (b, 4)``; ``aux_outputs``,
                ``enc_outputs``, ``dn_outputs`` with ``dn_meta``, ``mim``.
            targets: one dict a picture, see :func:`sightline.rtdetr_pose.true_objects.gather_objects`.

        Returns:
            ``loss`` and ``loss_<key>`` of each weight's key, before the weights and with gradient. A sample
            that is not finite counts nothing; where nothing finite is left to learn from, ``loss`` is NaN.

        Raises:
            ValueError: not one target a picture, or a target that :func:`gather_objects` refuses.
        """
        logits = outputs["logits"]
        if len(targets) != len(logits):
            raise ValueError(f"targets: expected one for each of {len(logits)} pictures, got {len(targets)}")
        with torch.autocast(logits.device.type, enabled=False):
            wide = at_least_float32(logits)
            objects = gather_objects(targets, logits.shape[-1], wide)
            terms = self._detection_and_pose(outputs, objects)
            terms["mim"], terms["entropy"] = _reconstruction(outputs.get("mim"), wide)
            loss = torch.stack([self._weights[key] * terms[key] for key in self.weights]).sum()
            loss = torch.where(wide.isfinite().any(), loss, torch.nan)
        return {"loss": loss, **{f"loss_{key}": terms[key] for key in self.weights}}

    def _detection_and_pose(self, outputs: Outputs, objects: TrueObjects) -> dict[str, Tensor]:
        decoder = [*outputs.get("aux_outputs", ()), outputs]
        selection = outputs.get("enc_outputs")
        layers = decoder if selection is None else [selection, *decoder]
        stacked = {name: _stack(layers, name) for name in ("logits", "bbox")}
        poses = {name: _stack(decoder, name) for name in POSE_OUTPUTS if name in outputs}
        groups = self._groups(objects)
        k_delta = outputs.get("k_delta")
        camera = corrected_camera(objects, None if k_delta is None else at_least_float32(k_delta))
        costly = dict(poses)
        if self._costs.t:
            costly["t"] = _all_translations(stacked["bbox"][-len(decoder) :], poses, camera)
        pairs = match({**stacked, **costly}, objects, self._costs, groups)
        cls, box = self._class_and_box(stacked["logits"], stacked["bbox"], pairs, objects)

        sizes = self.object_sizes.to(cls)[self._of_class(len(self.object_sizes), objects)]
        later = {**poses, "bbox": stacked["bbox"][-len(decoder) :]}
        matched = pair_poses(later, camera, pairs.last(len(decoder)), objects, groups, sizes)
        if self._moves_origin and "rot6d" in poses:
            matched = nearest_truth(matched)
        terms = {name: f(matched) for name, (f, needs) in POSE_TERMS.items() if needs <= poses.keys()}
        if k_delta is not None:
            terms["k"] = intrinsics_term(at_least_float32(k_delta), objects)
        boxes = cls.new_full((), float(len(objects)))
        means = _means({"cls": Term(cls, boxes), "box": Term(box, boxes), **terms})

        zero = cls.new_zeros(())
        final = {key: means[key][-1] if key in means else zero for key in self.weights}
        earlier = [self._weights[key] * mean[:-1].sum() for key, mean in means.items()]
        final["aux"] = torch.stack(earlier).sum()
        final["dn"] = self._denoising(outputs, objects)
        return final

    def _denoising(self, outputs: Outputs, objects: TrueObjects) -> Tensor:
        """The weighted class and box losses of the queries that were made from objects."""
        layers, meta = outputs.get("dn_outputs"), outputs.get("dn_meta")
        if not layers or meta is None:
            return _means({"dn": Term(objects.boxes.new_zeros(1), objects.boxes.new_zeros(()))})["dn"].sum()
        groups = meta["dn_num_group"]
        pairs = denoising_pairs(meta["dn_positive_idx"], groups, len(layers), objects)
        stacked = {name: _stack(layers, name) for name in ("logits", "bbox")}
        cls, box = self._class_and_box(stacked["logits"], stacked["bbox"], pairs, objects)
        total = self._weights["cls"] * cls + self._weights["box"] * box
        return _means({"dn": Term(total, total.new_full((), float(len(objects) * groups)))})["dn"].sum()

    def _groups(self, objects: TrueObjects) -> SymmetryBatch:
        groups = SymmetryBatch(self.discrete, self.axis, self.offset, self.continuous)
        return groups[self._of_class(len(self.discrete), objects)].to(objects.boxes)

    def _of_class(self, rows: int, objects: TrueObjects) -> Tensor:
        """The row of each object in a table with one row a class, or with one row for all."""
        return objects.labels if rows > 1 else torch.zeros_like(objects.labels)


def _means(terms: Mapping[str, Term]) -> dict[str, Float[Tensor, " layers"]]:
    """Sums by counts, which are averaged over processes in one message."""
    counts = torch.stack([term.count for term in terms.values()])
    counts = average_over_processes(counts).clamp_min(1)
    return {key: term.total / count for (key, term), count in zip(terms.items(), counts, strict=True)}


def _reconstruction(mim: Mapping[str, Any] | None, like: Tensor) -> tuple[Tensor, Tensor]:
    """The masked branch's two terms; a picture that is not finite in a masked cell is left out of them."""
    zero = like.new_zeros(())
    if mim is None:
        return zero, zero
    recon, teacher = at_least_float32(mim["recon_feat"]), mim.get("teacher_feat")
    cells = masked_cells(mim.get("mask"), recon)
    finite = recon.isfinite().all(1)
    if teacher is not None:
        finite = finite & teacher.isfinite().all(1)
    loss = mim_reconstruction_loss(recon, teacher, cells & finite)
    entropy = mim.get("entropy")
    return loss, zero if entropy is None else at_least_float32(entropy)


def _stack(layers: Sequence[Outputs], name: str) -> Tensor:
    return at_least_float32(torch.stack([layer[name] for layer in layers]))


def _all_translations(
    boxes: Tensor, poses: Mapping[str, Tensor], camera: tuple[Tensor, Tensor]
) -> Float[Tensor, "layers b q 3"]:
    with torch.no_grad():
        shape = boxes.shape[:-1]
        K, size = camera[0][:, None].expand(*shape, 3, 3), camera[1][:, None].expand(*shape, 2)
        return translations(boxes, poses["offsets"], poses["log_z"][..., 0], K, size)
