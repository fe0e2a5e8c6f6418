"""Which templates a crop resembles, at which turn: what is worth attending to."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sightline.vpog.classification_head import ClassificationHead

_MOST_LOGITS = 1 << 19  # at a time: 2 MiB stay in the cache of a core, which is twice as fast


class Chosen(NamedTuple):
    """``r`` turns with ``k`` templates each, the best first in both.

    Args:
        turns: ``(r,)`` int64 rows of the crops.
        templates: ``(r, k)`` int64 numbers of templates.
    """

    turns: Int[Tensor, " r"]
    templates: Int[Tensor, "r k"]


def score_templates(
    head: ClassificationHead,
    query: Float[Tensor, "b nq d"],
    templates: Float[Tensor, "n t d"],
    num_patches: int,
) -> Float[Tensor, "b n"]:
    """How much of each crop each template shows.

    The sum over a crop's patches of the probability of the best patch of the template, by a softmax over its
    patches and the class of what it does not show.

    Args:
        head: a classifier, for its temperature.
        query: ``(b, nq, d)`` projections of crops.
        templates: ``(n, nt + a, d)`` projections of templates, in any precision.
        num_patches: nt.

    Returns:
        ``(b, n)`` from 0 to nq.

    Example:
        >>> head = ClassificationHead(4, temperature=0.02)
        >>> patches = torch.eye(4)
        >>> template = torch.stack([patches[:3], patches[1:]])  # two patches and the class unseen
        >>> score_templates(head, patches[None, :2], template, 2).round().tolist()
        [[2.0, 1.0]]
    """
    rows, tokens = query.shape[0] * query.shape[1], templates.shape[1]
    flat = query.reshape(1, rows, -1)
    step = max(1, _MOST_LOGITS // (rows * tokens))
    scores = []
    for chunk in templates.split(step):
        logits = head.compare(flat, chunk.reshape(1, 1, -1, chunk.shape[-1]))[0, 0]
        logits = logits.unflatten(-1, (len(chunk), tokens))
        best = (logits[..., :num_patches].amax(-1) - logits.logsumexp(-1)).exp()
        scores.append(best.unflatten(0, query.shape[:2]).sum(1))
    return torch.cat(scores, dim=-1)


def choose(scores: Float[Tensor, "b n"], num_turns: int, num_templates: int) -> Chosen:
    """The best turns, and the best templates of each.

    Args:
        scores: ``(b, n)`` of crops at b turns against n templates.
        num_turns: at most.
        num_templates: at most, of each turn.

    Example:
        >>> choose(torch.tensor([[1.0, 2, 0], [0, 1, 4]]), 1, 2)
        Chosen(turns=tensor([1]), templates=tensor([[2, 1]]))
    """
    turns = scores.amax(1).topk(min(num_turns, len(scores))).indices
    return Chosen(turns, scores[turns].topk(min(num_templates, scores.shape[1]), dim=1).indices)
