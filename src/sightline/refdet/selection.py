"""From proposals to detections: who gives way at one place, and how many are reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.geometry.boxes import clip, iou_matrix
from sightline.geometry.nms import nms_mask
from sightline.records import Detections

_SAME_PLACE_IOU = 0.55


class Proposals(NamedTuple):
    """Where one object may be: ``boxes`` ``(n, 4)`` float64 xyxy pixels of the picture, and ``scores``."""

    boxes: Float[Tensor, "n 4"]
    scores: Float[Tensor, " n"]

    def select(self, keep: Tensor) -> Proposals:
        """Those that a mask or indices name."""
        return Proposals(self.boxes[keep], self.scores[keep])

    @classmethod
    def none(cls) -> Proposals:
        """No proposal at all."""
        return cls(torch.zeros(0, 4, dtype=torch.float64), torch.zeros(0, dtype=torch.float64))

    @classmethod
    def concatenate(cls, several: Sequence[Proposals]) -> Proposals:
        """All of them, in order."""
        given = [cls.none(), *several]
        return cls(torch.cat([p.boxes for p in given]), torch.cat([p.scores for p in given]))


def without_repeats(found: Proposals) -> Proposals:
    """Of proposals at one place, the best.

    Args:
        found: of one object.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [0.0, 0.0, 9.0, 8.0]])
        >>> without_repeats(Proposals(boxes, torch.tensor([0.4, 0.6]))).scores
        tensor([0.6000])
    """
    return found.select(nms_mask(found.boxes, found.scores, _SAME_PLACE_IOU))


def suppress_explained(
    found: Proposals, negatives: Sequence[Proposals], *, min_iou: float = 0.5
) -> Proposals:
    """Drop what a look-alike explains better: its own pictures score higher at the same place.

    The scores of both come from one network, so the comparison needs no threshold of its own; a look-alike
    elsewhere, or one that is less sure, changes nothing.

    Args:
        found: proposals of the object.
        negatives: proposals of each look-alike in the same picture.
        min_iou: from which overlap two boxes are at one place.

    Returns:
        What is left, in the order given.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [20.0, 0.0, 29.0, 9.0]])
        >>> mug, cup = Proposals(boxes, torch.tensor([0.8, 0.6])), Proposals(boxes, torch.tensor([0.5, 0.7]))
        >>> suppress_explained(mug, [cup]).scores
        tensor([0.8000])
    """
    other = Proposals.concatenate(negatives)
    here = iou_matrix(found.boxes.double(), other.boxes) >= min_iou
    better = other.scores[None, :] > found.scores[:, None]
    return found.select(~(here & better).any(dim=1))


def compete(found: Mapping[str, Proposals], min_iou: float) -> dict[str, Proposals]:
    """Let objects compete for the same place: the one of the highest score has it.

    Boxes of one object do not compete with each other.

    Args:
        found: proposals by the object's name.
        min_iou: objects whose boxes overlap by more are at one place.

    Returns:
        What is left, by name.

    Example:
        >>> box = torch.tensor([[0.0, 0.0, 9.0, 9.0]])
        >>> weak, strong = Proposals(box, torch.tensor([0.5])), Proposals(box, torch.tensor([0.7]))
        >>> left = compete({"a": weak, "b": strong}, 0.7)
        >>> {name: len(proposals.scores) for name, proposals in left.items()}
        {'a': 0, 'b': 1}
    """
    together = Proposals.concatenate(list(found.values()))
    counts = [len(proposals.scores) for proposals in found.values()]
    identity = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts, dtype=torch.long))
    keep = nms_mask(together.boxes, together.scores, min_iou, groups=identity, between_groups=True)
    masks = keep.split(counts) if counts else ()
    return {
        name: proposals.select(mask) for (name, proposals), mask in zip(found.items(), masks, strict=True)
    }


def select(
    found: Mapping[str, Proposals],
    image_size: tuple[int, int],
    *,
    negatives: Sequence[Proposals] = (),
    negative_iou: float = 0.5,
    rival_iou: float | None = None,
    max_instances: int = 100,
) -> Detections:
    """The detections of a picture from the proposals of all objects.

    Args:
        found: proposals by the object's name.
        image_size: ``(width, height)`` pixels.
        negatives: proposals of look-alikes of any of the objects.
        negative_iou: from which overlap a look-alike explains an object.
        rival_iou: above which overlap two objects compete for a place; None lets them share it.
        max_instances: of one object.

    Returns:
        Boxes within the picture, the surest first.

    Example:
        >>> mug = Proposals(torch.tensor([[-3.0, 0.0, 9.0, 9.0]]), torch.tensor([0.5]))
        >>> select({"mug": mug}, (64, 48)).boxes.tolist()
        [[-0.5, 0.0, 9.0, 9.0]]
    """
    left = {
        name: suppress_explained(each, negatives, min_iou=negative_iou) if negatives else each
        for name, each in found.items()
    }
    if rival_iou is not None and len(left) > 1:
        left = compete(left, rival_iou)
    best = {
        name: each.select(each.scores.argsort(descending=True, stable=True)[:max_instances])
        for name, each in left.items()
    }
    together = Proposals.concatenate(list(best.values()))
    names = [name for name, each in best.items() for _ in range(len(each.scores))]
    order = together.scores.argsort(descending=True, stable=True)
    return Detections(
        clip(together.boxes[order], image_size),
        together.scores[order],
        tuple(names[i] for i in order.tolist()),
        image_size,
    )
