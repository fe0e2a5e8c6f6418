"""The reader of DETR-like detectors: sigmoid classes and boxes of queries that have no order.

Two passes over the same picture may return its objects in different queries, because the encoder chooses the
queries anew. Before anything is compared, queries are matched by ``IoU (1 - largest difference of a class
score)``. Where something is averaged or learnt, both queries must prefer each other (mutual nearest), which
is one to one as Hungarian matching is, but computed where the outputs are: nothing waits for the host, and a
second box on the same object never takes over the first one's score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sightline.geometry.boxes import iou_matrix, xyxy_from_cxcywh
from sightline.geometry.rotations import geodesic_distance, rot6d_to_matrix
from sightline.rtdetr_pose.reconstruction_losses import foreground_entropy
from sightline.rtdetr_pose.ttt.readers import OutputReader

Entropy = Callable[[Float[Tensor, "b q c"]], Float[Tensor, ""]]
_EPS = 1e-6


class QueryMatch(NamedTuple):
    """For each query of one pass the best of another, the boxes' IoU, and whether both prefer each other."""

    index: Int[Tensor, "b q"]
    iou: Float[Tensor, "b q"]
    mutual: Bool[Tensor, "b q"]


class DetectorReader(OutputReader):
    """Reads mappings with ``logits (b, q, c)`` of sigmoid classes and ``bbox (b, q, 4)``, cxcywh in [0, 1].

    Args:
        threshold: score of what counts as found.
        entropy: mean entropy over the foreground queries of ``(1, q, c)`` logits, in [0, 1]; by default
            :func:`~sightline.rtdetr_pose.reconstruction_losses.foreground_entropy`.
        min_iou: of boxes that show the same object.

    Example:
        >>> logits = torch.logit(torch.tensor([[[0.9, 0.1], [0.001, 0.001]]]))
        >>> outputs = {"logits": logits, "bbox": torch.tensor([[[0.5, 0.5, 0.2, 0.2], [0.1, 0.1, 0.1, 0.1]]])}
        >>> reader = DetectorReader()
        >>> reader.entropy(outputs), reader.counts(outputs), reader.histogram(outputs)
        (tensor([0.4690]), tensor([1.]), tensor([1., 0.]))
    """

    def __init__(
        self, threshold: float = 0.3, *, entropy: Entropy = foreground_entropy, min_iou: float = 0.5
    ) -> None:
        self.threshold = threshold
        self.min_iou = min_iou
        self._entropy = entropy

    def entropy(self, outputs: Mapping[str, Any]) -> Float[Tensor, "b"]:
        """Normalised Bernoulli entropy over the foreground queries."""
        return torch.stack([self._entropy(each[None]) for each in outputs["logits"]])

    def max_entropy(self, outputs: Mapping[str, Any]) -> float:
        """1."""
        return 1.0

    def probabilities(self, outputs: Mapping[str, Any]) -> Float[Tensor, "b c"]:
        """Shares of the classes in the scores of what was found; all alike where nothing was."""
        found = self._scores(outputs) * self._is_found(outputs)[..., None]
        weights = found.sum(1) + _EPS
        return weights / weights.sum(-1, keepdim=True)

    def confidence(self, outputs: Mapping[str, Any]) -> Float[Tensor, "b"]:
        """Mean score of what was found, 0 where nothing was."""
        found = self._is_found(outputs)
        return (self._scores(outputs).amax(-1) * found).sum(1) / found.sum(1).clamp_min(1)

    def counts(self, outputs: Mapping[str, Any]) -> Float[Tensor, "b"]:
        """Queries whose score reaches the threshold."""
        return self._is_found(outputs).to(outputs["logits"]).sum(1)

    def histogram(self, outputs: Mapping[str, Any]) -> Float[Tensor, "c"]:
        """Classes of what was found."""
        logits = outputs["logits"]
        best = logits.argmax(-1).flatten()
        found = self._is_found(outputs).to(logits).flatten()
        return logits.new_zeros(logits.shape[-1]).index_add_(0, best, found)

    def is_finite(self, outputs: Mapping[str, Any]) -> Bool[Tensor, ""]:
        """Whether scores and boxes are."""
        return outputs["logits"].isfinite().all() & outputs["bbox"].isfinite().all()

    def kl(self, source: Mapping[str, Any], adapted: Mapping[str, Any]) -> Float[Tensor, ""]:
        """Of the classes of each object that the source found, summed over classes, weighted by its score."""
        match = self.match(source, adapted)
        p = self._scores(source).clamp(_EPS, 1 - _EPS)
        q = take(self._scores(adapted), match.index).clamp(_EPS, 1 - _EPS)
        divergence = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
        return self._mean_over_found(divergence.sum(-1), source)

    def drift(self, source: Mapping[str, Any], adapted: Mapping[str, Any]) -> dict[str, Float[Tensor, ""]]:
        """Of what the source found: ``box`` 1 - IoU, ``depth`` abs(log ratio), ``rotation`` rad."""
        match = self.match(source, adapted)
        changes = {"box": 1 - match.iou}
        if "log_z" in source:
            changes["depth"] = (take(adapted["log_z"], match.index) - source["log_z"])[..., 0].abs()
        if "rot6d" in source:
            adapted_R = rot6d_to_matrix(take(adapted["rot6d"], match.index))
            changes["rotation"] = geodesic_distance(rot6d_to_matrix(source["rot6d"]), adapted_R)
        return {name: self._mean_over_found(change, source) for name, change in changes.items()}

    def pseudo_loss(self, outputs: Mapping[str, Any]) -> Float[Tensor, "b"]:
        """Binary cross-entropy of the best class of each query that was found, mean over them."""
        best = outputs["logits"].amax(-1)
        found = self._is_found(outputs)
        return (F.softplus(-best) * found).sum(1) / found.sum(1).clamp_min(1)

    def consistency(self, student: Mapping[str, Any], teacher: Mapping[str, Any]) -> Float[Tensor, "b"]:
        """Binary cross-entropy of the classes of what the teacher found, where the student has it too."""
        match = self.match(teacher, student)
        target = self._scores(teacher).detach()
        logits = take(student["logits"], match.index)
        cost = F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(-1)
        shared = match.mutual & (match.iou >= self.min_iou) & self._is_found(teacher)
        return (cost * shared).sum(1) / shared.sum(1).clamp_min(1)

    def average(self, views: Sequence[Mapping[str, Any]], mirrored: Sequence[bool]) -> dict[str, Any]:
        """Mean scores of each query of the first view and those of the others that show the same object.

        All but the scores comes from the first view: the pose in a mirrored picture is none of the object's.
        """
        first = views[0]
        total, number = self._scores(first), torch.ones_like(first["logits"][..., :1])
        for view, flipped in zip(views[1:], mirrored[1:], strict=True):
            box = view["bbox"]
            upright = torch.cat([1 - box[..., :1], box[..., 1:]], -1) if flipped else box
            match = self.match(first, {"logits": view["logits"], "bbox": upright})
            same = (match.mutual & (match.iou >= self.min_iou)).to(total)[..., None]
            total = total + same * take(self._scores(view), match.index)
            number = number + same
        return {**first, "logits": torch.logit(total / number, eps=_EPS)}

    @torch.no_grad()
    def match(self, a: Mapping[str, Any], b: Mapping[str, Any]) -> QueryMatch:
        """For each query of ``a`` the one of ``b`` that shows the same object, if any does."""
        iou = iou_matrix(xyxy_from_cxcywh(a["bbox"]), xyxy_from_cxcywh(b["bbox"]))
        scores_a, scores_b = self._scores(a), self._scores(b)
        unlike = torch.cdist(scores_a, scores_b, p=float("inf"))
        affinity = iou * (1 - unlike)
        index, back = affinity.argmax(2), affinity.argmax(1)
        order = torch.arange(index.shape[1], device=index.device)
        return QueryMatch(index, iou.gather(2, index[..., None])[..., 0], back.gather(1, index) == order)

    def _scores(self, outputs: Mapping[str, Any]) -> Float[Tensor, "b q c"]:
        return outputs["logits"].sigmoid()

    def _is_found(self, outputs: Mapping[str, Any]) -> Bool[Tensor, "b q"]:
        return self._scores(outputs).amax(-1).detach() >= self.threshold

    def _mean_over_found(self, values: Float[Tensor, "b q"], outputs: Mapping[str, Any]) -> Tensor:
        weights = self._scores(outputs).amax(-1) * self._is_found(outputs)
        # An object that is not there weighs nothing, also where its values are not finite.
        return torch.where(weights > 0, values * weights, 0.0).sum() / weights.sum().clamp_min(_EPS)


def take(values: Float[Tensor, "b q n"], index: Int[Tensor, "b k"]) -> Float[Tensor, "b k n"]:
    """The rows of each picture in another order.

    Example:
        >>> take(torch.tensor([[[1.0], [2.0]]]), torch.tensor([[1, 1]]))[..., 0]
        tensor([[2., 2.]])
    """
    return values.gather(1, index[..., None].expand(*index.shape, values.shape[-1]))
