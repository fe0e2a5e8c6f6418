"""Which query answers for which object: the assignment of least cost (Kuhn 1955), as DETR uses it.

The costs of all layers and pictures are one tensor, computed at once and copied to the processor once, where
SciPy solves one small problem a layer and picture. A query whose cost is not a number is the last to be
chosen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sightline.geometry.boxes import giou, pairwise, xyxy_from_cxcywh
from sightline.geometry.rotations import rot6d_to_matrix
from sightline.geometry.symmetry import SymmetryBatch
from sightline.rtdetr_pose.true_objects import TrueObjects

_WORST = 1e6  # of a pair whose cost is not a number; above every cost that is one


@dataclass(frozen=True)
class MatchCosts:
    """What makes a query a bad match of an object.

    Args:
        cls: weight of the class, in the form of the focal loss.
        l1: weight of the boxes' L1 distance, in shares of the picture.
        giou: weight of minus their generalised IoU.
        z: weight of the depths' log ratio.
        rot: weight of the rotations' symmetric distance, radians.
        t: weight of the translations' distance, relative to the depth.
        alpha: of the focal form, weight of the class being there; of its absence 1 - alpha.
        gamma: of the focal form.
    """

    cls: float = 2.0
    l1: float = 5.0
    giou: float = 2.0
    z: float = 0.0
    rot: float = 0.0
    t: float = 0.0
    alpha: float = 0.25
    gamma: float = 2.0


@dataclass(frozen=True)
class Pairs:
    """Queries and the objects that they answer for, the same number in each layer.

    Args:
        picture: ``(p,)`` picture of each pair.
        query: ``(layers, p)`` query of the picture.
        target: ``(layers, p)`` index into the true objects of all pictures.
    """

    picture: Int[Tensor, " p"]
    query: Int[Tensor, "layers p"]
    target: Int[Tensor, "layers p"]

    def last(self, layers: int) -> Pairs:
        """Those of the last layers."""
        return Pairs(self.picture, self.query[-layers:], self.target[-layers:])

    def of(self, predictions: Float[Tensor, "layers b q *d"]) -> Float[Tensor, "layers p *d"]:
        """What the queries of the pairs predict."""
        layer = torch.arange(len(self.query), device=self.query.device)[:, None]
        return predictions[layer, self.picture, self.query]


def solve_assignment(cost: Float[Tensor, "m n"]) -> tuple[Int[Tensor, " k"], Int[Tensor, " k"]]:
    """The pairs of rows and columns of least total cost, ``k = min(m, n)`` of them.

    Args:
        cost: ``(m, n)``; what is not finite counts as worse than anything finite.

    Returns:
        Rows in rising order, and their columns.

    Example:
        >>> rows, columns = solve_assignment(torch.tensor([[1.0, 9.0], [torch.nan, 2.0], [0.0, 9.0]]))
        >>> rows.tolist(), columns.tolist()
        ([1, 2], [1, 0])
    """
    rows, columns = _solve(_finite(cost).cpu().numpy())
    return torch.from_numpy(rows), torch.from_numpy(columns)


@torch.no_grad()
def match(
    outputs: Mapping[str, Float[Tensor, "_ b q _"]],
    objects: TrueObjects,
    costs: MatchCosts,
    groups: SymmetryBatch,
) -> Pairs:
    """Assign objects to queries, layer by layer.

    Args:
        outputs: stacked over layers: ``logits``, ``bbox`` (cxcywh in [0, 1]), and where the pose has a cost
            ``log_z``, ``rot6d`` or ``t`` of the last layers, or of all.
        objects: what the pictures show.
        costs: the weights.
        groups: symmetries of the objects, one each.

    Returns:
        ``min(n, q)`` pairs of each picture with n objects and q queries.
    """
    logits, counts = outputs["logits"], objects.counts
    layers, _, queries, _ = logits.shape
    most = max(counts, default=0)
    columns = _columns(counts, most)
    rows = min(queries, most)
    query = np.zeros((layers, len(counts), rows), dtype=np.int64)
    target = np.zeros_like(query)
    if most:
        cost = _pair_costs(outputs, objects, costs, groups, torch.from_numpy(columns).to(logits.device))
        table = _finite(cost).to("cpu", torch.float32).numpy()
        for layer in range(layers):
            for i, count in enumerate(counts):
                kept = min(queries, count)
                found = _solve(table[layer, i, :, :count])
                query[layer, i, :kept], target[layer, i, :kept] = found[0], columns[i, found[1]]
    kept = np.arange(rows) < np.array(counts)[:, None]
    picture = np.nonzero(kept)[0]
    joined = torch.from_numpy(np.stack([query[:, kept], target[:, kept]])).to(logits.device)
    return Pairs(torch.from_numpy(picture).to(logits.device), joined[0], joined[1])


def denoising_pairs(positive: tuple[Tensor, ...], groups: int, layers: int, objects: TrueObjects) -> Pairs:
    """The pairs of denoising queries, which are made from the objects that they answer for.

    Args:
        positive: of each picture the ``groups * n`` queries that shall find its n objects, group by group.
        groups: how often each object is there.
        layers: of the decoder.
        objects: what the pictures show.
    """
    device = objects.labels.device
    counts = np.array(objects.counts)
    columns = _columns(objects.counts, int(counts.max(initial=0)))
    target = np.concatenate([np.tile(row[:n], groups) for row, n in zip(columns, counts, strict=True)])
    picture = torch.from_numpy(np.repeat(np.arange(len(counts)), counts * groups)).to(device)
    shape = (layers, len(target))
    query = torch.cat([index.to(device) for index in positive])
    return Pairs(picture, query.expand(shape), torch.from_numpy(target).to(device).expand(shape))


def _columns(counts: tuple[int, ...], most: int) -> np.ndarray:
    """``(b, most)`` the number of each picture's objects among all, filled up with any."""
    first = np.cumsum([0, *counts])[:-1, None]
    return np.minimum(first + np.arange(most), max(sum(counts) - 1, 0))


def _pair_costs(
    outputs: Mapping[str, Tensor],
    objects: TrueObjects,
    costs: MatchCosts,
    groups: SymmetryBatch,
    columns: Int[Tensor, "b m"],
) -> Float[Tensor, "layers b q m"]:
    cost = costs.cls * _class_cost(outputs["logits"], objects.labels[columns], costs)
    boxes, wanted = outputs["bbox"], objects.boxes[columns]
    cost = cost + costs.l1 * torch.cdist(boxes, wanted.expand(len(boxes), -1, -1, -1), p=1)
    cost = cost - costs.giou * pairwise(giou, xyxy_from_cxcywh(boxes), xyxy_from_cxcywh(wanted))
    pose = torch.stack(list(_pose_costs(outputs, objects, costs, groups, columns)) or [cost.new_zeros(1)])
    return torch.cat([cost[: -len(pose[0])], cost[-len(pose[0]) :] + pose.sum(0)])


def _pose_costs(
    outputs: Mapping[str, Tensor],
    objects: TrueObjects,
    costs: MatchCosts,
    groups: SymmetryBatch,
    columns: Int[Tensor, "b m"],
) -> Iterator[Float[Tensor, "decoder_layers b q m"]]:
    """Of the objects whose pose is known; the others are matched by their boxes."""
    if costs.z:
        log_z = objects.z[columns].log()[:, None]
        yield costs.z * torch.where(log_z.isnan(), 0.0, (outputs["log_z"] - log_z).abs())
    if costs.rot:
        R, R_gt = rot6d_to_matrix(outputs["rot6d"]), objects.R[columns]
        angle = rotation_cost(R, R_gt, groups[columns])
        yield costs.rot * torch.where(R_gt.isnan().flatten(2).any(-1)[:, None], 0.0, angle)
    if costs.t:
        t_gt = objects.t[columns][:, None]
        apart = torch.linalg.vector_norm(outputs["t"][..., None, :] - t_gt, dim=-1) / t_gt[..., 2]
        yield costs.t * torch.where(t_gt.isnan().any(-1), 0.0, apart)


def _class_cost(logits: Tensor, labels: Int[Tensor, "b m"], costs: MatchCosts) -> Tensor:
    """What the focal loss would gain if the query were of the class."""
    index = labels[:, None].expand(*logits.shape[:-1], -1)
    x = logits.gather(-1, index)
    p = x.sigmoid()
    there = -costs.alpha * (1 - p).pow(costs.gamma) * torch.nn.functional.logsigmoid(x)
    absent = -(1 - costs.alpha) * p.pow(costs.gamma) * torch.nn.functional.logsigmoid(-x)
    return there - absent


def rotation_cost(
    R: Float[Tensor, "*layers b q 3 3"], R_gt: Float[Tensor, "b m 3 3"], groups: SymmetryBatch
) -> Float[Tensor, "*layers b q m"]:
    """The symmetric distance of every query from every object, by one matrix product.

    Of both kinds of symmetry the cosine is linear in the prediction: ``(tr(R^T R_gt S) - 1) / 2`` for a
    motion S, ``a^T S R^T R_gt a`` for the turns about an axis a. The greatest cosine is the least angle. It
    has no useful gradient at 0 and at pi; losses use :func:`sightline.geometry.symmetry.symmetric_distance`.

    Args:
        R: ``(*layers, b, q, 3, 3)`` predicted rotations.
        R_gt: ``(b, m, 3, 3)`` true ones.
        groups: ``(b, m)`` of the objects.

    Returns:
        ``(*layers, b, q, m)`` radians.

    Example:
        >>> from sightline.geometry.symmetry import SymmetryGroup, stack_symmetries
        >>> groups = stack_symmetries([SymmetryGroup.cyclic(2, (0, 0, 1))])[torch.tensor([[0]])]
        >>> half_turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0]))[None, None]
        >>> rotation_cost(half_turn, torch.eye(3)[None, None], groups.to(half_turn))
        tensor([[[0.]]])
    """
    S = groups.discrete[..., :3, :3]
    axis = groups.axis[..., None, :, None]
    axial = R_gt[..., None, :, :] @ axis @ (S.mT @ axis).mT
    continuous = groups.continuous[..., None, None, None]
    patterns = torch.where(continuous, axial, R_gt[..., None, :, :] @ S / 2)  # (b, m, k, 3, 3)
    b, m, k = patterns.shape[:3]
    cosine = R.flatten(-2) @ patterns.reshape(b, m * k, 9).mT
    cosine = cosine.unflatten(-1, (m, k)) - torch.where(groups.continuous, 0.0, 0.5)[:, None, :, None]
    return cosine.amax(-1).clamp(-1, 1).acos()


def _finite(cost: Tensor) -> Tensor:
    return torch.where(cost.isfinite(), cost.clamp(-_WORST, _WORST), _WORST)


def _solve(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(cost)
