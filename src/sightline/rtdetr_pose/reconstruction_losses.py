"""How well masked features are reconstructed, and how sure a detector is: what test-time training lowers."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor


def mim_reconstruction_loss(
    recon_feat: Float[Tensor, "b d h w"],
    teacher_feat: Float[Tensor, "..."] | None,
    mask: Shaped[Tensor, "..."] | None = None,
    *,
    cell_weights: Float[Tensor, "b h w"] | None = None,
) -> Float[Tensor, ""]:
    """The mean absolute error of reconstructed features over the masked cells.

    Cells that are not masked take no part, whatever they hold; the teacher gets no gradient.

    Args:
        recon_feat: ``(b, d, h, w)``.
        teacher_feat: ``(b, d, h, w)``, or None where there is nothing to compare with.
        mask: ``(h, w)``, ``(b, h, w)`` or ``(b, 1, h, w)``, bool or numbers above 0: the masked cells; None
            for all.
        cell_weights: ``(b, h, w)`` non-negative, for example larger along the object's outline.

    Returns:
        The mean over masked cells and channels; exactly 0, with a gradient of zero, where nothing is masked
        or there is no teacher.

    Raises:
        ValueError: a mask that fits no cells, features of unlike shapes.

    Example:
        >>> mask = torch.tensor([[True, False]])
        >>> mim_reconstruction_loss(torch.zeros(1, 8, 1, 2), torch.ones(1, 8, 1, 2), mask)
        tensor(1.)
    """
    if teacher_feat is None:
        return torch.where(torch.zeros_like(recon_feat, dtype=torch.bool), recon_feat, 0.0).sum()
    if teacher_feat.shape != recon_feat.shape:
        shapes = f"{tuple(recon_feat.shape)} and {tuple(teacher_feat.shape)}"
        raise ValueError(f"recon_feat, teacher_feat: expected the same shape, got {shapes}")
    cells = masked_cells(mask, recon_feat)[:, None]
    error = (torch.where(cells, recon_feat, 0.0) - torch.where(cells, teacher_feat.detach(), 0.0)).abs()
    weights = cells.to(error) if cell_weights is None else torch.where(cells, cell_weights[:, None], 0.0)
    total = weights.sum()
    return (error.mean(1, keepdim=True) * weights).sum() / torch.where(total > 0, total, 1.0)


def masked_cells(
    mask: Shaped[Tensor, "..."] | None, features: Float[Tensor, "b d h w"]
) -> Bool[Tensor, "b h w"]:
    """A mask in any of its forms as one bool a cell.

    Args:
        mask: ``(h, w)``, ``(b, h, w)`` or ``(b, 1, h, w)``, bool or numbers above 0; None for all cells.
        features: that are masked.

    Raises:
        ValueError: another shape.

    Example:
        >>> masked_cells(torch.eye(2), torch.zeros(3, 8, 2, 2)).shape
        torch.Size([3, 2, 2])
    """
    b, _, h, w = features.shape
    if mask is None:
        return torch.ones(b, h, w, dtype=torch.bool, device=features.device)
    if tuple(mask.shape) not in ((h, w), (b, h, w), (1, h, w), (b, 1, h, w), (1, 1, h, w)):
        wanted = f"({h}, {w}), ({b}, {h}, {w}) or ({b}, 1, {h}, {w})"
        raise ValueError(f"mask: expected shape {wanted}, got {tuple(mask.shape)}")
    cells = mask[:, 0] if mask.ndim == 4 else mask
    return (cells > 0).to(features.device).expand(b, h, w)


def entropy_loss(logits: Float[Tensor, "*batch c"], *, normalise: bool = False) -> Float[Tensor, ""]:
    """The mean entropy of the softmax over classes.

    Over all queries of a trained detector it is dominated by background; :func:`foreground_entropy` is what
    adaptation uses.

    Args:
        logits: ``(*batch, c)``.
        normalise: divide by ``log c``, so that 1 is complete doubt.

    Returns:
        Nats, or a share of ``log c``; 0 where there are no logits.

    Example:
        >>> entropy_loss(torch.log(torch.tensor([0.7, 0.2, 0.1])))
        tensor(0.8018)
    """
    log_p = F.log_softmax(logits, -1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    mean = entropy.sum() / max(entropy.numel(), 1)
    return mean / math.log(logits.shape[-1]) if normalise else mean


def foreground_entropy(
    logits: Float[Tensor, "b q c"], *, top_k: int = 30, min_score: float = 0.05
) -> Float[Tensor, ""]:
    """How unsure a detector of sigmoid classes is of what it takes for objects.

    Of each picture the ``top_k`` queries with the highest scores count whose score is at least ``min_score``.
    Each gives the Bernoulli entropy of its best class, ``-(p log p + (1 - p) log(1 - p)) / log 2``.

    Args:
        logits: ``(b, q, c)``.
        top_k: queries a picture at most.
        min_score: of queries that count, in [0, 1].

    Returns:
        The mean over all queries that count, in [0, 1]; exactly 0, with a gradient of zero, where none does.

    Example:
        >>> foreground_entropy(torch.logit(torch.tensor([[[0.9], [0.001]]])))
        tensor(0.4690)
    """
    best = logits.max(-1).values
    best = best.topk(min(top_k, best.shape[-1]), dim=-1).values
    counts = best.detach().sigmoid() >= min_score
    x = torch.where(counts, best, 0.0)
    # -log p = softplus(-x) and -log(1 - p) = softplus(x) stay finite where p is 0 or 1
    entropy = (x.sigmoid() * F.softplus(-x) + (-x).sigmoid() * F.softplus(x)) / math.log(2)
    return torch.where(counts, entropy, 0.0).sum() / counts.sum().clamp_min(1)
