"""Compares two sets of descriptors part by part, and only then sums: what a mean over each would blur.

Every part of a template looks for its best match in the picture, wherever it lies there, and the template's
score is the mean of what they find (Khattab and Zaharia, ColBERT, 2020; SAM-6D's appearance score, 2024).
Background in the picture can be no part's best match unless it looks like the object, so that the picture
needs no mask.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.nn.pooling import area_pool, masked_pool

LARGEST_GRID = 12
_MIN_SHARE = 0.2
_LARGEST_SHARPNESS = 60.0


class Parts(NamedTuple):
    """Descriptors of the cells of maps.

    Args:
        descriptors: ``(*n, cells, d)`` unit vectors.
        shares: ``(*n, cells)`` share of the object in each cell; 0 where there is too little of it.
    """

    descriptors: Float[Tensor, "*n cells d"]
    shares: Float[Tensor, "*n cells"]


def parts_of_map(
    dense: Float[Tensor, "n d h w"],
    masks: Float[Tensor, "n mask_h mask_w"] | None = None,
    *,
    most: int = LARGEST_GRID,
) -> Parts:
    """The cells of maps as sets of parts.

    Args:
        dense: ``(n, d, h, w)`` descriptors.
        masks: ``(n, mask_h, mask_w)`` in [0, 1], of any size; all of the picture unless given.
        most: cells on a side; a larger map is averaged to so many, what lies outside the mask left out.

    Returns:
        The parts, row by row.

    Example:
        >>> parts_of_map(torch.ones(1, 4, 2, 30)).descriptors.shape
        torch.Size([1, 24, 4])
    """
    size = (min(int(dense.shape[-2]), most), min(int(dense.shape[-1]), most))
    if masks is None:
        dense = area_pool(dense, size)
        shares = torch.ones_like(dense[:, 0])
    else:
        fine = area_pool(masks.to(dense.dtype), (int(dense.shape[-2]), int(dense.shape[-1])))
        shares = area_pool(fine, size)
        dense = dense if fine.shape == shares.shape else masked_pool(dense, fine[:, None], size)
        shares = shares * (shares > _MIN_SHARE)
    return Parts(F.normalize(dense.flatten(2).transpose(1, 2), dim=-1), shares.flatten(1))


def late_interaction(
    templates: Float[Tensor, "t parts d"],
    shares: Float[Tensor, "t parts"],
    pictures: Float[Tensor, "b cells d"],
) -> Float[Tensor, "t b"]:
    """The mean over a template's parts of their best cosine in each picture.

    Args:
        templates: ``(t, parts, d)`` unit descriptors.
        shares: ``(t, parts)`` weight of each part, such as the share of the object in it.
        pictures: ``(b, cells, d)`` unit descriptors.

    Returns:
        ``(t, b)`` in [-1, 1]; 0 for a template without weight.

    Example:
        >>> import torch
        >>> parts = torch.eye(3)[None]
        >>> late_interaction(parts, torch.tensor([[1.0, 1.0, 0.0]]), torch.eye(3)[None, :1])
        tensor([[0.5000]])
    """
    weights = shares / shares.sum(1, keepdim=True).clamp_min(1e-6)
    with torch.no_grad():
        cosines = templates.flatten(0, 1) @ pictures.flatten(0, 1).T
        cosines = cosines.unflatten(1, pictures.shape[:2]).unflatten(0, templates.shape[:2])
    if not torch.is_grad_enabled():
        return (cosines.amax(-1) * weights[..., None]).sum(1)
    # the gradient of the whole product would be zeros but for the best cell of each part
    best = cosines.argmax(-1)
    weighted = templates * weights[..., None]
    chosen = [picture[best[:, :, b]] for b, picture in enumerate(pictures)]
    return torch.stack([(weighted * own).sum((1, 2)) for own in chosen], dim=1)


def any_template(
    cosines: Float[Tensor, "objects t pictures"],
    log_sharpness: Float[Tensor, ""],
    valid: Bool[Tensor, "objects t"] | None = None,
) -> Float[Tensor, "objects pictures"]:
    """One logit of all templates of an object: the soft maximum, less what their number alone would add.

    Args:
        cosines: ``(objects, t, pictures)`` of every template with every picture.
        log_sharpness: logarithm of a learned factor on the cosines, which is 60 at the most.
        valid: ``(objects, t)`` which templates are real; all unless given.

    Returns:
        ``(objects, pictures)``.

    Example:
        >>> any_template(torch.full((1, 4, 1), 0.5), torch.tensor(10.0).log())
        tensor([[5.]])
    """
    if valid is None:
        valid = torch.ones_like(cosines[..., 0], dtype=torch.bool)
    sharpness = log_sharpness.exp().clamp_max(_LARGEST_SHARPNESS)
    logits = (cosines * sharpness).masked_fill(~valid[..., None], torch.finfo(cosines.dtype).min)
    return logits.logsumexp(1) - valid.sum(1, keepdim=True).to(cosines.dtype).log()
