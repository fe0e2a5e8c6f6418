"""Losses of latents: is the object drawn as in the target, and is the background of the context kept?"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from sightline.depth_scale.latents import LatentDistance, squared_latent_distances
from sightline.depth_scale.mask_losses import MaskLoss
from sightline.depth_scale.regions import Regions, regions_of, soft_mask


def weighted_masked_mse_latent(
    z_pred: Float[Tensor, "b c h w"],
    z_tgt: Float[Tensor, "b c h w"],
    mask: Shaped[Tensor, "..."],
    *,
    w_mask: float = 1.0,
    w_band: float = 6.0,
    w_outside: float = 0.2,
    band_radius: int = 1,
    counts: Bool[Tensor, "b"] | None = None,
) -> MaskLoss:
    """The squared error of latents, heavier in the mask and heaviest along its border.

    ``sum(W e) / sum(W)`` over the whole batch, with e the mean over the channels and ``W = w_mask m + w_band
    band + w_outside (1 - dilated m)``; so a cell of the object's rim weighs 7.

    Args:
        z_pred: ``(B, C, h, w)`` predicted clean latents.
        z_tgt: latents of the target; a constant.
        mask: the object's masks in [0, 1], 2 to 4 dimensions.
        w_mask: weight of the mask.
        w_band: weight of the band. An object that shrinks wants 8 to 10.
        w_outside: weight beyond the band.
        band_radius: cells on each side of the border.
        counts: ``(B,)`` samples to leave out where False.

    Returns:
        The loss, and the samples with finite latents.

    Raises:
        ValueError: shapes that do not fit each other.

    Example:
        >>> z_pred, z_tgt, mask = torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 8, 8), torch.zeros(8, 8)
        >>> mask[2:6, 2:6] = 1.0
        >>> z_pred[..., 3:5, 3:5] = 2.0
        >>> round(weighted_masked_mse_latent(z_pred, z_tgt, mask).loss.item(), 4)
        0.0749
    """
    error = squared_latent_distances(z_pred, z_tgt)[0]
    soft = soft_mask(mask, error.squared, "mask")
    weights = latent_weights(soft, regions_of(soft, band_radius), w_mask, w_band, w_outside)
    return weighted_latent_error(error, weights, z_pred.shape[1], counts)


def background_preservation_mse_latent(
    z_pred: Float[Tensor, "b c h w"],
    z_ctx: Float[Tensor, "b c h w"],
    mask: Shaped[Tensor, "..."],
    *,
    band_radius: int = 1,
    counts: Bool[Tensor, "b"] | None = None,
) -> MaskLoss:
    """The squared error against the context, where nothing may change: outside the dilated mask.

    Args:
        z_pred: ``(B, C, h, w)`` predicted clean latents.
        z_ctx: latents of the picture without the object; a constant.
        mask: masks of where it may change, 2 to 4 dimensions.
        band_radius: cells around the mask that are not judged.
        counts: ``(B,)`` samples to leave out where False.

    Returns:
        The mean over all cells outside of the whole batch, and the samples with finite latents.

    Raises:
        ValueError: shapes that do not fit each other.

    Example:
        >>> mask = torch.zeros(8, 8)
        >>> mask[2:6, 2:6] = 1.0
        >>> background_preservation_mse_latent(0.1 + mask.expand(1, 4, 8, 8), torch.zeros(1, 4, 8, 8), mask)
        MaskLoss(loss=tensor(0.0100), valid=tensor([True]))
    """
    change = squared_latent_distances(z_pred, z_ctx)[0]
    soft = soft_mask(mask, change.squared, "mask")
    outside = regions_of(soft, band_radius).outside
    return weighted_latent_error(change, outside, z_pred.shape[1], counts)


def latent_weights(
    mask: Float[Tensor, "b 1 h w"], regions: Regions, w_mask: float, w_band: float, w_outside: float
) -> Float[Tensor, "b 1 h w"]:
    """The weights of :func:`weighted_masked_mse_latent`.

    Args:
        mask: soft, in [0, 1].
        regions: of that mask.
        w_mask: weight of the mask.
        w_band: weight of the band.
        w_outside: weight beyond the band.

    Example:
        >>> mask = torch.tensor([[[[0.0, 0.0, 0.0, 1.0, 1.0, 1.0]]]])
        >>> latent_weights(mask, regions_of(mask, 1), 1.0, 6.0, 0.5).flatten().tolist()
        [0.5, 0.5, 6.0, 7.0, 1.0, 1.0]
    """
    weights = torch.add(w_mask * mask, regions.dilated, alpha=w_band - w_outside)
    return weights.sub_(regions.core, alpha=w_band).add_(w_outside)


def weighted_latent_error(
    distance: LatentDistance,
    weights: Float[Tensor, "b 1 h w"],
    num_channels: int,
    counts: Bool[Tensor, "b"] | None = None,
) -> MaskLoss:
    """``sum(W e) / sum(W)`` over the batch, e the squared distance over the number of channels.

    Args:
        distance: of predicted latents to the wanted ones.
        weights: W, not negative.
        num_channels: of the latents.
        counts: ``(B,)`` samples to leave out where False.

    Example:
        >>> distance = LatentDistance(torch.tensor([[[[8.0, 4.0]]]]), torch.tensor([True]))
        >>> weighted_latent_error(distance, torch.tensor([[[[1.0, 3.0]]]]), 4).loss.item()
        1.25
    """
    valid = distance.finite if counts is None else distance.finite & counts
    # Distances are finite, those that do not count are 0 or taken out here.
    share = valid.to(weights.dtype)
    error = (share * (weights * distance.squared).sum((1, 2, 3))).sum()
    total = (share * weights.sum((1, 2, 3))).sum()
    return MaskLoss(error / (num_channels * total).clamp_min(torch.finfo(total.dtype).tiny), valid)
