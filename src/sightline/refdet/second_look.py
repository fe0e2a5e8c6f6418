"""The second look: proposals are cut out of the picture and compared with the templates at one scale.

The first look sees the whole picture, small, and says where something like the object is. The second sees
each of these places at the size of the templates and at the picture's own resolution, part by part, and says
whether it *is* the object. What it finds must be seen beside what the object's own views find in one another:
those of a plain thing are alike, those of a printed one are not, and evidence that is much for one is little
for the other. A logistic regression on pictures with known truth joins all three to one probability
(:func:`fit_rescoring`); until then the first look counts alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from sightline.geometry.boxes import iou_matrix
from sightline.geometry.nms import matrix_nms
from sightline.nn.late_interaction import LARGEST_GRID, Parts, any_template, late_interaction
from sightline.refdet.bank import TemplateBank
from sightline.refdet.box_refinement import best_templates
from sightline.refdet.detector import ConvNeXtRefDet
from sightline.refdet.framing import grown_to_frame, prepare_search
from sightline.refdet.selection import Proposals, without_repeats

MARGIN = 0.1
"""Around a proposal in its crop, in shares of its longer side; as around the object in a template."""
_AGREEING_IOU = 0.6
_LEAST_SIDE_PX = 2.0
_EDGE = 1e-6
_NEWTON_STEPS, _RIDGE = 50, 1.0


class Comparison(NamedTuple):
    """What the second look says of crops.

    Args:
        evidence: ``(k, m)`` of each of k objects in each of m crops: cosines of the best template times a
            learned factor, summed over the levels.
        edges: ``(k, m, 4)`` x1 y1 x2 y2 of the object in shares of the crop; None from a detector that has
            not learned them.
    """

    evidence: Float[Tensor, "k m"]
    edges: Float[Tensor, "k m 4"] | None


class Looked(NamedTuple):
    """Places that were looked at twice, and what both looks say.

    Args:
        boxes: ``(n, 4)`` float64 xyxy pixels of the picture.
        logits: ``(n,)`` log odds of the first look.
        evidence: ``(n,)`` of the second.
        likeness: ``(n,)`` of the object's templates among themselves (:func:`own_likeness`).
    """

    boxes: Float[Tensor, "n 4"]
    logits: Float[Tensor, " n"]
    evidence: Float[Tensor, " n"]
    likeness: Float[Tensor, " n"]

    @property
    def columns(self) -> Float[Tensor, "n 3"]:
        """What :func:`fit_rescoring` weighs."""
        return torch.stack([self.logits, self.evidence, self.likeness], 1)


def crop_regions(boxes: Float[Tensor, "n 4"], template_size: tuple[int, int]) -> Float[Tensor, "n 4"]:
    """What a crop of each box shows: the box with its margin, grown to a template's form.

    Args:
        boxes: ``(n, 4)`` xyxy pixels, of positive size.
        template_size: ``(width, height)`` pixels.

    Returns:
        ``(n, 4)`` float64 xyxy pixels, which may lie outside the picture.

    Example:
        >>> crop_regions(torch.tensor([[0.0, 0.0, 20.0, 10.0]]), (32, 32)).round().tolist()
        [[-2.0, -7.0, 22.0, 17.0]]
    """
    regions = []
    for box in boxes.double():
        margin = MARGIN * (box[2:] - box[:2]).max()
        regions.append(grown_to_frame(torch.cat([box[:2] - margin, box[2:] + margin]), template_size))
    return torch.stack(regions) if regions else boxes.double()


def cut_crops(
    image: UInt8[np.ndarray, "h w 3"], regions: Float[Tensor, "n 4"], template_size: tuple[int, int]
) -> Float[Tensor, "n 3 th tw"]:
    """Cut places out of a picture, each fitted into a template's frame.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        regions: ``(n, 4)`` xyxy pixels, of :func:`crop_regions`.
        template_size: ``(width, height)`` pixels.

    Returns:
        ``(n, 3, th, tw)`` float32 RGB in [0, 1]; what lies outside the picture is filled.

    Example:
        >>> cut_crops(np.zeros((48, 64, 3), np.uint8), torch.tensor([[3.0, 4.0, 29.0, 30.0]]), (32, 32)).shape
        torch.Size([1, 3, 32, 32])
    """
    crops = [prepare_search(image, template_size, region=region).picture for region in regions]
    width, height = template_size
    return torch.stack(crops) if crops else torch.zeros(0, 3, height, width)


def look_again(model: ConvNeXtRefDet, crops: Float[Tensor, "m 3 h w"], bank: TemplateBank) -> Comparison:
    """Compare crops with templates part by part, at one scale.

    Args:
        model: the detector.
        crops: ``(m, 3, h, w)`` RGB in [0, 1], each of a place that may show an object, of about the
            templates' size.
        bank: of k objects.
    """
    stored = {s: Parts(bank.levels[s].cells, bank.levels[s].cell_shares) for s in model.late_strides}
    return compare_crops(model, crops, stored, bank.part_valid[..., 0])


def compare_crops(
    model: ConvNeXtRefDet,
    crops: Float[Tensor, "m 3 h w"],
    stored: Mapping[int, Parts],
    valid: Bool[Tensor, "k n"],
) -> Comparison:
    """:func:`look_again` with that part of a bank alone that it needs.

    Args:
        model: the detector.
        crops: ``(m, 3, h, w)`` RGB in [0, 1].
        stored: for each stride of the second look the templates' descriptors ``(k, n, cells, d)`` and shares.
        valid: ``(k, n)`` which templates are real.
    """
    levels = dict(zip(model.fpn.strides, model.extract_features(crops), strict=True))
    evidence = torch.zeros(1, device=crops.device)
    total = torch.zeros(1, device=crops.device)
    described = {}
    for stride, (cells, shares) in stored.items():
        own = model.matcher(stride).describe_parts(levels[stride]).descriptors.float()
        cosines = late_interaction(cells.flatten(0, 1).float(), shares.flatten(0, 1), own)
        cosines = cosines.unflatten(0, valid.shape)
        evidence = evidence + any_template(cosines, model.log_sharpness, valid)
        total, described[stride] = total + cosines, own
    if model.refiner is None:
        return Comparison(evidence, None)
    count = len(valid)
    templates = best_templates(total.masked_fill(~valid[..., None], -torch.inf), stored)
    grids = {s: tuple(min(int(side), LARGEST_GRID) for side in levels[s].shape[-2:]) for s in stored}
    edges = model.refiner(templates, {s: own.repeat(count, 1, 1) for s, own in described.items()}, grids)
    return Comparison(evidence, edges.unflatten(0, (count, -1)))


def own_likeness(model: ConvNeXtRefDet, bank: TemplateBank) -> Float[Tensor, " k"]:
    """The mean cosine of the templates of each object with one another, summed over the levels.

    Args:
        model: that made the bank.
        bank: of k objects.

    Returns:
        ``(k,)``; 0 for an object of one template, of which nothing can be said.
    """
    valid = bank.part_valid[..., 0]
    pairs = valid[:, :, None] & valid[:, None] & ~torch.eye(valid.shape[1], dtype=torch.bool).to(valid.device)
    levels = [bank.levels[stride] for stride in model.late_strides]
    likeness = []
    for index, others in enumerate(pairs):
        alike = sum(
            late_interaction(own.cells[index].float(), own.cell_shares[index], own.cells[index].float())
            for own in levels
        )
        likeness.append((alike * others).sum() / others.sum().clamp_min(1))
    return torch.stack(likeness)


def look_twice(
    model: ConvNeXtRefDet,
    image: UInt8[np.ndarray, "h w 3"],
    proposals: Proposals,
    bank: TemplateBank,
    template_size: tuple[int, int],
    *,
    most: int = 16,
) -> Looked:
    """Look again at the best proposals of one object.

    Args:
        model: the detector.
        image: ``(h, w, 3)`` uint8 RGB.
        proposals: of the first look.
        bank: of the object.
        template_size: ``(width, height)`` pixels.
        most: how many places; of proposals at one place the best counts, its box averaged with those that
            nearly agree. Where the detector has learned to, the second look then says the box.

    Returns:
        The places, at most so many.
    """
    sides = (proposals.boxes[:, 2:] - proposals.boxes[:, :2]).amin(1)
    wide = proposals.select(sides >= _LEAST_SIDE_PX)
    found = without_repeats(wide)
    found = found.select(found.scores.argsort(descending=True, stable=True)[:most])
    found = Proposals(_mean_boxes(found, wide), found.scores)
    logits = torch.logit(found.scores.double(), _EDGE)
    if not len(logits):
        return Looked(found.boxes, logits, logits, logits)
    regions = crop_regions(found.boxes, template_size)
    crops = cut_crops(image, regions, template_size).to(bank.part_valid.device)
    evidence, edges = look_again(model, crops, bank)
    boxes = found.boxes if edges is None else _placed(edges[0].cpu().double(), regions)
    likeness = own_likeness(model, bank) if bank.likeness is None else bank.likeness
    return Looked(boxes, logits, evidence[0].cpu().double(), likeness.cpu().double().expand(len(logits)))


def _placed(edges: Tensor, regions: Tensor) -> Tensor:
    """Boxes in pixels, of edges in shares of regions."""
    corner, size = regions[:, :2].repeat(1, 2), (regions[:, 2:] - regions[:, :2]).repeat(1, 2)
    boxes = corner + edges * size
    return torch.cat([boxes[:, :2], torch.maximum(boxes[:, 2:], boxes[:, :2] + _LEAST_SIDE_PX)], dim=1)


def _mean_boxes(found: Proposals, voters: Proposals) -> Tensor:
    """Boxes as the mean of all proposals that nearly agree, weighted by their scores.

    What neighbouring cells say of one object errs in different ways (Gidaris and Komodakis, ICCV 2015).
    """
    agree = (iou_matrix(found.boxes, voters.boxes) >= _AGREEING_IOU) * voters.scores.clamp_min(_EDGE)
    return agree @ voters.boxes / agree.sum(1, keepdim=True) if len(found.scores) else found.boxes


def joined_logits(
    columns: Float[Tensor, "n columns"], rescoring: Float[Tensor, " columns_and_2"]
) -> Float[Tensor, " n"]:
    """The log odds of being right that all columns give together.

    Args:
        columns: ``(n, columns)`` the first look's logits, the second's evidence, the own likeness, and what
            else there is.
        rescoring: of :func:`fit_rescoring`.

    Returns:
        ``(n,)`` float64. A likeness of 0, which nobody knows, counts as the usual one.
    """
    values = rescoring.double().cpu()
    return values[0] + _centred(columns, values[1]) @ values[2:]


def _centred(columns: Tensor, usual: Tensor) -> Tensor:
    likeness = columns[:, 2]
    away = torch.where(likeness == 0, 0.0, likeness - usual)
    return torch.cat([columns[:, :2], away[:, None], columns[:, 3:]], 1)


def rescored(model: ConvNeXtRefDet, looked: Looked) -> Proposals:
    """Proposals with the probability that both looks give together.

    Args:
        model: that knows how to join them.
        looked: the places.
    """
    scores = joined_logits(looked.columns, model.rescoring).sigmoid()
    return Proposals(looked.boxes, matrix_nms(looked.boxes, scores) if len(scores) else scores)


def fit_rescoring(
    columns: Float[Tensor, "n columns"], right: Bool[Tensor, " n"]
) -> Float[Tensor, " columns_and_2"]:
    """The logistic regression of being right on what both looks say, by Newton's method.

    Args:
        columns: ``(n, columns)`` the first look's logits, the second's evidence, the own likeness, and what
            else there is.
        right: ``(n,)`` whether the place is the object.

    Returns:
        ``(columns + 2,)`` float64: the constant, the usual own likeness, and a factor for each column.

    Raises:
        ValueError: places that are all right or all wrong.

    Example:
        >>> columns = torch.zeros(6, 3).double()
        >>> columns[:, 1] = torch.tensor([-2.0, -1.0, 0.5, -0.5, 1.0, 2.0])
        >>> weights = fit_rescoring(columns, torch.arange(6) >= 3)
        >>> bool(weights[3] > 0.5)
        True
    """
    if bool(right.all()) or not bool(right.any()):
        raise ValueError(
            f"right: expected places of both kinds, got {int(right.sum())} of {len(right)} right"
        )
    columns = columns.double()
    known = columns[:, 2][columns[:, 2] != 0]
    usual = known.mean() if len(known) else torch.zeros(()).double()
    columns = _centred(columns, usual)
    mean, std = columns.mean(0), columns.std(0).clamp_min(_EDGE)
    design = torch.cat([torch.ones(len(columns), 1).double(), (columns - mean) / std], 1)
    wanted = right.double()
    # a slight pull to zero, so that places that a line divides do not drive the factors to infinity
    ridge = _RIDGE * torch.eye(design.shape[1]).double()
    ridge[0, 0] = 0
    weights = torch.zeros(design.shape[1]).double()
    for _ in range(_NEWTON_STEPS):
        odds = (design @ weights).sigmoid()
        gradient = design.T @ (odds - wanted) + ridge @ weights
        curvature = (design * (odds * (1 - odds)).clamp_min(_EDGE)[:, None]).T @ design + ridge
        step = torch.linalg.solve(curvature, gradient)
        weights = weights - step
        if float(step.abs().max()) < _EDGE:
            break
    factors = weights[1:] / std
    return torch.cat([torch.stack([weights[0] - (factors * mean).sum(), usual]), factors])
