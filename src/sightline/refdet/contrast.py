"""Teaches descriptors to tell the objects of a batch apart, before and while the head learns to use them.

The mean search descriptor inside each box is compared with the templates of every object of the batch, and
its own must be the nearest (InfoNCE, van den Oord et al., 2018). No rule of the form "this is some object"
can satisfy this, which is what a detector learns from nothing otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sightline.refdet.bank import TemplateBank
from sightline.refdet.decode import cell_centers
from sightline.refdet.detector import ConvNeXtRefDet, SearchFeatures


def contrast_loss(
    model: ConvNeXtRefDet,
    features: SearchFeatures,
    bank: TemplateBank,
    boxes: Sequence[Float[Tensor, "_ 4"]],
    *,
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """The mean over levels and boxes of the cross-entropy of naming a box's object.

    Args:
        model: the detector that made the features and the bank.
        features: of b pictures, with gradients.
        bank: of b different objects, one for each picture, with gradients.
        boxes: for each picture ``(n_i, 4)`` ``xyxy`` pixels of its object.
        temperature: of the softmax; cosines are divided by it.

    Returns:
        The loss, 0 where there are no boxes.

    Example:
        >>> model = ConvNeXtRefDet(8, 4, 8, backbone="nano", detection_stride=8)
        >>> features = model.search_features(torch.rand(2, 3, 64, 64))
        >>> bank = model.encode_templates(torch.rand(2, 1, 3, 64, 64))
        >>> loss = contrast_loss(model, features, bank, [torch.tensor([[9.0, 9.0, 50.0, 50.0]])] * 2)
        >>> loss.shape
        torch.Size([])
    """
    padded = pad_sequence(list(boxes), batch_first=True, padding_value=torch.nan)
    real = padded.isfinite().all(-1)
    padded = torch.where(real[..., None], padded, 0.0).to(features.levels[model.stride].device)
    terms = []
    for stride, level in bank.levels.items():
        unit = model.matcher(stride).prototypes.describe(features.levels[stride])
        inside = _share_of_cells(padded, unit, stride)
        pooled = F.normalize(inside @ unit.flatten(2).transpose(1, 2), dim=-1)
        terms.append(
            _naming(pooled, real, level.descriptors[:, :, :, 0], bank.part_valid[..., 0], temperature)
        )
    return torch.stack(terms).mean()


def _share_of_cells(boxes: Tensor, like: Tensor, stride: int) -> Tensor:
    """``(b, n, h w)``: 1 for cells whose centre is in the box and for the one nearest to the box's centre."""
    centers = cell_centers(like, stride).flatten(0, 1)
    low, high = boxes[..., None, :2], boxes[..., None, 2:]
    inside = ((centers >= low) & (centers <= high)).all(-1)
    nearest = (centers - (low + high) / 2).square().sum(-1).argmin(-1)
    return (inside | F.one_hot(nearest, len(centers)).bool()).to(like.dtype)


def _naming(
    pooled: Float[Tensor, "b n d"],
    real: Bool[Tensor, "b n"],
    descriptors: Float[Tensor, "b t s d"],
    valid: Bool[Tensor, "b t"],
    temperature: float,
) -> Tensor:
    """Cross-entropy of each box over the batch's objects, each by its most similar template."""
    cosines = torch.einsum("bnd,otsd->bnots", pooled, descriptors)
    best = cosines.masked_fill(~valid[None, None, :, :, None], -1.0).amax((-1, -2))
    own = torch.arange(len(pooled), device=pooled.device)[:, None].expand(real.shape)
    losses = F.cross_entropy(best.flatten(0, 1) / temperature, own.flatten(), reduction="none")
    weight = real.flatten().to(losses.dtype).to(losses.device)
    return (losses * weight).sum() / weight.sum().clamp_min(1)
