"""The soft mask of what a model has changed: where its latents have left those of the context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from sightline.depth_scale.latents import squared_latent_distances
from sightline.depth_scale.regions import regions_of, soft_mask
from sightline.depth_scale.statistics import weighted_quantile

MAD_TO_SIGMA = 1.4826  # of a normal distribution


@dataclass(frozen=True, kw_only=True)
class ChangeMaskForm:
    r"""How a distance becomes a soft mask: :math:`\sigma((D - \tau) / s)`, from the background's statistics.

    With mu and sigma of D over the background, :math:`\tau = \mu + n \sigma` and s the larger of a share of
    sigma and a share of tau. The defaults leave next to nothing on the background, and no gradient in the
    noise: neither in the statistics, which a model could rescale, nor in background that has not changed.
    Without the latter an object that is still too small would pull up all of the background, and tau with it.

    Args:
        num_sigmas: n, how far tau lies above the background's mean.
        slope_sigmas: s in sigmas, at least.
        slope_floor: s as a share of tau, at least.
        spread_floor: the least sigma, in the unit of the latents, for a background without any change.
        robust: take the median and 1.4826 times the median absolute deviation for mu and sigma.
        detach: no gradient through tau and s, nor to cells of the background below tau. Cells that *have*
            changed there keep theirs: they can be taken back.
        graded: None, or the logit that the mask has on an object of full strength: with A the strength of
            the change in the place (the mean of D weighted with D itself), tau is at least half way from mu
            to A, and s so wide that A lies ``graded`` slopes above tau. A mask without this saturates on a
            strong change and then gives no gradient to shrink what was drawn too large; in exchange, cells
            that differ from the context by less than half of A count for less than one half.
    """

    num_sigmas: float = 4.0
    slope_sigmas: float = 0.5
    slope_floor: float = 0.05
    spread_floor: float = 1e-2
    robust: bool = False
    detach: bool = True
    graded: float | None = None


ORIGINAL_FORM = ChangeMaskForm(
    num_sigmas=2.0, slope_sigmas=1.0, slope_floor=0.0, spread_floor=1e-4, detach=False
)
"""The recipe as first published: it leaves an eighth on every pixel of the background."""

FormName = Literal["unbiased", "graded", "original"]
_FORMS = {
    "unbiased": ChangeMaskForm(),
    "graded": ChangeMaskForm(graded=6.0),
    "original": ORIGINAL_FORM,
}


def named_form(form: FormName | ChangeMaskForm) -> ChangeMaskForm:
    """The form of a name.

    Args:
        form: a name, or a form, which is returned as it is.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> named_form("original").num_sigmas
        2.0
    """
    if isinstance(form, ChangeMaskForm):
        return form
    if form not in _FORMS:
        raise ValueError(f"change mask: expected {', '.join(_FORMS)} or a ChangeMaskForm, got {form!r}")
    return _FORMS[form]


class ChangeMaskStatistics(NamedTuple):
    """What a soft change mask rests on.

    Args:
        mean: ``(B, 1, 1, 1)`` mu, distance of background from the context.
        spread: ``(B, 1, 1, 1)`` sigma.
        tau: ``(B, 1, 1, 1)`` distance at which the mask is one half.
        slope: ``(B, 1, 1, 1)`` distance over which it rises.
        valid: ``(B,)`` finite latents, and a background to measure on.
    """

    mean: Float[Tensor, "b 1 1 1"]
    spread: Float[Tensor, "b 1 1 1"]
    tau: Float[Tensor, "b 1 1 1"]
    slope: Float[Tensor, "b 1 1 1"]
    valid: Bool[Tensor, "b"]


def soft_change_mask_from_latents(
    z_pred: Float[Tensor, "b c h w"],
    z_ctx: Float[Tensor, "b c h w"],
    place: Shaped[Tensor, "..."] | None = None,
    *,
    form: FormName | ChangeMaskForm = "unbiased",
    band_radius: int = 1,
) -> tuple[Float[Tensor, "b 1 h w"], ChangeMaskStatistics, Float[Tensor, "b 1 h w"]]:
    """A soft mask of where predicted latents have left those of the context.

    Args:
        z_pred: ``(B, C, h, w)`` predicted clean latents.
        z_ctx: latents of the picture without the object; a constant.
        place: masks of where the object goes, 2 to 4 dimensions: what lies beyond them is the background.
            None takes the whole picture for it.
        form: the recipe: ``"original"`` is the published one, ``"graded"`` does not saturate; see
            :class:`ChangeMaskForm`.
        band_radius: cells around the place that are not surely background.

    Returns:
        The mask ``(B, 1, h, w)``; its statistics; and the distance map D ``(B, 1, h, w)``, the norm over the
        channels.

    Raises:
        ValueError: shapes that do not fit each other, or an unknown form.

    Example:
        >>> z_ctx, place = torch.randn(1, 4, 32, 32), torch.zeros(32, 32)
        >>> place[8:24, 8:24] = 1.0
        >>> z_pred = z_ctx + 0.05 * torch.randn(1, 4, 32, 32) + 2.0 * place
        >>> mask, statistics, _ = soft_change_mask_from_latents(z_pred, z_ctx, place)
        >>> abs(mask.sum().item() - 256) < 12, statistics.valid.tolist()
        (True, [True])
    """
    squared, finite = squared_latent_distances(z_pred, z_ctx)[0]
    if place is None:
        background = torch.ones_like(squared)
    else:
        background = regions_of(soft_mask(place, squared, "place"), band_radius).outside
    mask, statistics, distance = soft_change_mask(squared, background, form=form)
    return mask, statistics._replace(valid=statistics.valid & finite), distance


def soft_change_mask(
    squared: Float[Tensor, "b 1 h w"],
    background: Float[Tensor, "b 1 h w"],
    *,
    form: FormName | ChangeMaskForm = "unbiased",
) -> tuple[Float[Tensor, "b 1 h w"], ChangeMaskStatistics, Float[Tensor, "b 1 h w"]]:
    """The soft mask of a map of squared distances.

    Args:
        squared: ``(B, 1, h, w)`` squared distances of latents.
        background: ``(B, 1, h, w)`` 0 or 1, what surely is background. Where there is none, mu and sigma
            are 0 and the sample is not valid.
        form: as in :func:`soft_change_mask_from_latents`.

    Returns:
        The mask, its statistics, and the distances.

    Raises:
        ValueError: an unknown form.

    Example:
        >>> soft_change_mask(torch.tensor([[[[0.0, 0.0, 25.0]]]]), torch.tensor([[[[1.0, 1.0, 0.0]]]]))[0]
        tensor([[[[3.3535e-04, 3.3535e-04, 1.0000e+00]]]])
    """
    form = named_form(form)
    # The norm has no slope at 0; so it has one of 0.
    distance = (squared + 1e-12).sqrt()
    observed = distance.detach() if form.detach else distance
    count = background.sum((1, 2, 3), keepdim=True)
    mean, variance = (_robust_spread if form.robust else _spread)(observed, background, count)
    spread = (variance + form.spread_floor**2).sqrt()
    tau = mean + form.num_sigmas * spread
    slope = (form.slope_sigmas * spread).maximum(form.slope_floor * tau)
    if form.graded is not None:
        halfway = (_strength(observed, background) - mean) / 2
        tau, slope = tau.maximum(mean + halfway), slope.maximum(halfway / form.graded)
    steepness = slope.reciprocal()
    mask = torch.addcmul(-tau * steepness, distance, steepness).sigmoid()
    if form.detach:
        # 1 where there is a change or no background, else 0; in place, for memory is what it costs.
        seen = mask.detach().round().sub_(1.0).mul_(background).add_(1.0)
        mask = torch.lerp(mask.detach(), mask, seen)
    shown = (value.detach() for value in (mean, spread, tau, slope))
    return mask, ChangeMaskStatistics(*shown, count.flatten() >= 1.0), distance


def _strength(distance: Tensor, background: Tensor) -> Tensor:
    changed = (1.0 - background) * distance
    total = changed.sum((1, 2, 3), keepdim=True)
    return (changed * distance).sum((1, 2, 3), keepdim=True) / total.clamp_min(1e-12)


def _spread(distance: Tensor, background: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    count = count.clamp_min(1.0)
    mean = (background * distance).sum((1, 2, 3), keepdim=True) / count
    variance = (distance - mean).square_().mul_(background).sum((1, 2, 3), keepdim=True) / count
    return mean, variance


def _robust_spread(distance: Tensor, background: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    values, weights = distance.flatten(1), background.flatten(1)
    middle = weighted_quantile(values, weights)[:, None]
    deviation = MAD_TO_SIGMA * weighted_quantile((values - middle).abs(), weights)
    known = count > 0
    middle, deviation = middle[..., None, None], deviation[:, None, None, None]
    return torch.where(known, middle, 0.0), torch.where(known, deviation, 0.0).square()
