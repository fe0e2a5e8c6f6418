"""The whole recipe of an inserted object: drawn as in the target, in its place, as large as depth asks."""

from __future__ import annotations

import math
from typing import TypedDict, get_args

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from sightline.depth_scale.batches import as_maps, as_pair, as_samples
from sightline.depth_scale.change_mask import ChangeMaskForm, FormName, named_form, soft_change_mask
from sightline.depth_scale.distance import DistanceConvention
from sightline.depth_scale.distance import signed_distance as signed_distance_of
from sightline.depth_scale.latent_losses import latent_weights, weighted_latent_error
from sightline.depth_scale.latents import GeometryWeighting, geometry_weight, squared_latent_distances
from sightline.depth_scale.loss import DepthScaleLossInfo, depth_aware_scale_loss
from sightline.depth_scale.mask_losses import MaskLoss, depth_consistency_loss, fill_losses
from sightline.depth_scale.options import Invalid, ScaleOptions
from sightline.depth_scale.regions import regions_of, soft_mask


class InsertionTerms(TypedDict):
    """What :class:`InsertionLoss` gives: the sum, each term before its weight, and what they were made of.

    ``valid`` says for each term which samples it is of; ``info`` is None where no depth was given.
    """

    loss: Float[Tensor, ""]
    loss_mse: Float[Tensor, ""]
    loss_bg: Float[Tensor, ""]
    loss_dice: Float[Tensor, ""]
    loss_area: Float[Tensor, ""]
    loss_bnd: Float[Tensor, ""]
    loss_depth: Float[Tensor, ""]
    loss_depth_consistency: Float[Tensor, ""]
    change_mask: Float[Tensor, "b 1 h w"]
    valid: dict[str, Bool[Tensor, "b"]]
    info: DepthScaleLossInfo | None


class InsertionLoss(nn.Module):
    """The loss of a model that inserts one object into a place of a picture, in latents.

    Seven terms: the weighted error against the target, the background of the context, Dice, area and
    boundary of the soft change mask against the object's mask, its size against the depth, and on demand
    the consistency of estimated depth. It has no parameters and reads nothing back from the device.

    A sample without a target picture (a context, a place and a depth map) is judged by its background and by
    the depth term alone: that is how scale is learned at places for which no target exists.

    Args:
        weight_mse: of the weighted squared error of the latents.
        weight_bg: of the background's preservation.
        weight_dice: of Dice.
        weight_area: of the squared log ratio of areas.
        weight_bnd: of the boundary loss.
        weight_depth: of the depth-aware scale loss, 0.05 to 0.15.
        weight_depth_consistency: of the depth consistency, 0.1 to 0.3 where both depth maps are there.
        w_mask: weight of a cell of the mask within the squared error.
        w_band: likewise, of the band along its border.
        w_outside: likewise, beyond the band.
        band_radius: cells on each side of the border.
        change_mask: how the soft change mask is made, see
            :class:`sightline.depth_scale.change_mask.ChangeMaskForm`.
        boundary_convention: where the boundary loss has its zero.
        normalise_boundary: divide each signed distance by its greatest absolute value.
        scale: how size and depth are read. A change mask that the border cuts off is by default only asked
            not to be larger than expected.
        huber_delta: of the scale loss.
        depth_start_step: the step at which the depth term sets in, best after the mask terms have settled.
        depth_ramp_steps: steps until it has its full weight.
        geometry_weighting: how the terms of masks and depth fall with the noise, where a time is given.

    Raises:
        ValueError: a negative weight or number of steps, or an unknown choice.

    Example:
        >>> criterion = InsertionLoss(weight_depth=0.15)
        >>> z_ctx, mask = torch.randn(2, 4, 32, 32), torch.zeros(2, 1, 32, 32)
        >>> mask[..., 8:24, 8:24] = 1.0
        >>> z_tgt = z_ctx + 2.0 * mask
        >>> z_pred = (z_tgt + 0.05 * torch.randn(2, 4, 32, 32)).requires_grad_()
        >>> terms = criterion(z_pred, z_tgt, z_ctx, mask, depth=torch.ones(32, 32), f_px=40.0, k_obj=0.4)
        >>> terms["loss"].backward()
        >>> terms["loss_dice"].item() < 0.05, terms["info"].s_exp.flatten().tolist()
        (True, [16.0, 16.0])
    """

    def __init__(
        self,
        *,
        weight_mse: float = 1.0,
        weight_bg: float = 0.6,
        weight_dice: float = 0.9,
        weight_area: float = 0.2,
        weight_bnd: float = 0.4,
        weight_depth: float = 0.1,
        weight_depth_consistency: float = 0.0,
        w_mask: float = 1.0,
        w_band: float = 6.0,
        w_outside: float = 0.2,
        band_radius: int = 1,
        change_mask: FormName | ChangeMaskForm = "unbiased",
        boundary_convention: DistanceConvention = "symmetric",
        normalise_boundary: bool = False,
        scale: ScaleOptions | None = None,
        huber_delta: float | None = 3.0,
        depth_start_step: int = 0,
        depth_ramp_steps: int = 0,
        geometry_weighting: GeometryWeighting = "linear",
    ) -> None:
        super().__init__()
        self.weights = {
            "mse": weight_mse,
            "bg": weight_bg,
            "dice": weight_dice,
            "area": weight_area,
            "bnd": weight_bnd,
            "depth": weight_depth,
            "depth_consistency": weight_depth_consistency,
        }
        numbers = {f"weight_{name}": weight for name, weight in self.weights.items()} | {
            "w_mask": w_mask,
            "w_band": w_band,
            "w_outside": w_outside,
            "depth_start_step": depth_start_step,
            "depth_ramp_steps": depth_ramp_steps,
        }
        for name, number in numbers.items():
            if not (math.isfinite(number) and number >= 0):
                raise ValueError(f"{name}: expected a number that is not negative, got {number}")
        for name, choice, choices in (
            ("boundary_convention", boundary_convention, get_args(DistanceConvention)),
            ("geometry_weighting", geometry_weighting, get_args(GeometryWeighting)),
        ):
            if choice not in choices:
                raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {choice!r}")
        self.latent_weights = (w_mask, w_band, w_outside)
        self.band_radius = band_radius
        self.change_mask = named_form(change_mask)
        self.boundary_convention: DistanceConvention = boundary_convention
        self.normalise_boundary = normalise_boundary
        self.scale = ScaleOptions(border_policy="one_sided") if scale is None else scale
        self.huber_delta = huber_delta
        self.depth_start_step, self.depth_ramp_steps = depth_start_step, depth_ramp_steps
        self.geometry_weighting: GeometryWeighting = geometry_weighting

    def depth_factor(self, step: int | None) -> float:
        """The share of its weight that the depth term has at a step: 0 before it sets in, then up to 1.

        Args:
            step: of the training; None: the full weight.

        Example:
            >>> criterion = InsertionLoss(depth_start_step=100, depth_ramp_steps=50)
            >>> [criterion.depth_factor(step) for step in (99, 100, 125, 150, 1000, None)]
            [0.0, 0.0, 0.5, 1.0, 1.0, 1.0]
        """
        if step is None:
            return 1.0
        if self.depth_ramp_steps == 0:
            return float(step >= self.depth_start_step)
        return min(max((step - self.depth_start_step) / self.depth_ramp_steps, 0.0), 1.0)

    def forward(
        self,
        z_pred: Float[Tensor, "b c h w"],
        z_tgt: Float[Tensor, "b c h w"],
        z_ctx: Float[Tensor, "b c h w"],
        mask: Shaped[Tensor, "..."],
        *,
        place: Shaped[Tensor, "..."] | None = None,
        has_target: Bool[Tensor, "b"] | None = None,
        signed_distance: Shaped[Tensor, "..."] | None = None,
        depth: Shaped[Tensor, "..."] | None = None,
        f_px: Shaped[Tensor, "..."] | float | int | None = None,
        k_obj: Shaped[Tensor, "..."] | float | int | None = None,
        object_id: Int[Tensor, "..."] | None = None,
        image_width_px: Shaped[Tensor, "..."] | float | int | None = None,
        image_height_px: Shaped[Tensor, "..."] | float | int | None = None,
        depth_mask01: Shaped[Tensor, "..."] | None = None,
        pred_depth: Shaped[Tensor, "..."] | None = None,
        target_depth: Shaped[Tensor, "..."] | None = None,
        depth_confidence: Shaped[Tensor, "..."] | None = None,
        t: Shaped[Tensor, "..."] | float | int | None = None,
        step: int | None = None,
    ) -> InsertionTerms:
        """Judge predicted clean latents.

        Args:
            z_pred: ``(B, C, h, w)`` predicted clean latents.
            z_tgt: latents of the target; anything where there is none.
            z_ctx: latents of the context, the picture without the object.
            mask: the object's masks in the target in [0, 1], 2 to 4 dimensions; one serves a batch.
            place: masks of where the picture may change; those of the object unless given.
            has_target: ``(B,)`` which samples have a target and a mask; all unless given.
            signed_distance: of the masks, ``(B, 1, h, w)``, if it was computed before.
            depth: depth or inverse depth ``(B, 1, h, w)`` for the scale; without it that term is 0.
            f_px: focal length in pixels, as :func:`depth_aware_scale_loss` takes it.
            k_obj: the object's constant.
            object_id: ``(B,)`` rows of ``k_obj``, if it is a table.
            image_width_px: width of the picture; sizes are then in its pixels.
            image_height_px: its height, where the cells are not square.
            depth_mask01: where depth is read; under the change mask unless given.
            pred_depth: estimated depth of the predicted picture, for the consistency.
            target_depth: that of the target.
            depth_confidence: in [0, 1], how much each target depth counts.
            t: time of the flow: the terms of masks and depth weigh ``1 - t``.
            step: of the training, for the schedule of the depth term.

        Returns:
            ``loss``, ``loss_mse``, ..., each a scalar in float32 or float64, the terms not yet weighted; the
            soft ``change_mask``; ``valid`` by term; and the scale loss's ``info``.

        Raises:
            ValueError: shapes that do not fit each other, or inputs of a term that are not complete.
        """
        change, error = squared_latent_distances(z_pred, z_ctx, z_tgt)
        batch, channels = z_pred.shape[:2]
        object_mask = soft_mask(mask, change.squared, "mask")
        regions = regions_of(object_mask, self.band_radius)
        if place is None:
            background = regions.outside
        else:
            surroundings = regions_of(soft_mask(place, change.squared, "place"), self.band_radius)
            background = surroundings.outside
        changed, statistics, _ = soft_change_mask(change.squared, background, form=self.change_mask)
        sound = change.finite & statistics.valid
        targeted = as_maps(mask, "mask").sum((1, 2, 3)).isfinite().expand(batch)
        if has_target is not None:
            targeted = targeted & has_target
        if signed_distance is None:
            phi = signed_distance_of(
                object_mask, convention=self.boundary_convention, normalise=self.normalise_boundary
            )
        else:
            phi = as_pair(signed_distance.detach(), changed.detach(), ("signed_distance", "mask"))[0]
            phi = phi.nan_to_num(0.0, 0.0, 0.0)
        believed = None if t is None else geometry_weight(t, batch, weighting=self.geometry_weighting)
        fills = fill_losses(changed, object_mask, phi, counts=targeted & sound, sample_weight=believed)
        cell_weights = latent_weights(object_mask, regions, *self.latent_weights)
        terms = {
            "mse": weighted_latent_error(error, cell_weights, channels, targeted),
            "bg": weighted_latent_error(change, background, channels),
            **dict(zip(("dice", "area", "bnd"), fills, strict=True)),
        }
        info = None
        if depth is not None:
            if f_px is None or k_obj is None:
                raise ValueError("depth: expected f_px and k_obj beside it")
            # A sample whose change mask means nothing is left out through its focal length.
            focal = torch.where(sound, as_samples(f_px, batch, "f_px", like=changed), torch.nan)
            loss, info = depth_aware_scale_loss(
                changed,
                depth,
                focal,
                k_obj,
                **vars(self.scale),
                depth_mask01=depth_mask01,
                image_width_px=image_width_px,
                image_height_px=image_height_px,
                object_id=object_id,
                sample_weight=believed,
                huber_delta=self.huber_delta,
            )
            info = info._replace(reason=info.reason.masked_fill(~sound, Invalid.MASK_NOT_FINITE))
            terms["depth"] = MaskLoss(loss, info.valid)
        if pred_depth is not None and target_depth is not None:
            terms["depth_consistency"] = depth_consistency_loss(
                pred_depth,
                target_depth,
                object_mask,
                band_radius=self.band_radius,
                confidence=depth_confidence,
                counts=targeted,
                sample_weight=believed,
            )
        elif pred_depth is not None or target_depth is not None:
            raise ValueError("pred_depth, target_depth: expected both or none")
        return self._sum(terms, self.depth_factor(step), changed, info)

    def _sum(
        self,
        terms: dict[str, MaskLoss],
        depth_factor: float,
        changed: Tensor,
        info: DepthScaleLossInfo | None,
    ) -> InsertionTerms:
        none = MaskLoss(changed.new_zeros(()), changed.new_zeros(len(changed), dtype=torch.bool))
        terms = {name: terms.get(name, none) for name in self.weights}
        weights = self.weights | {"depth": self.weights["depth"] * depth_factor}
        loss = torch.stack([weights[name] * term.loss for name, term in terms.items()]).sum()
        return InsertionTerms(
            loss=loss,
            loss_mse=terms["mse"].loss,
            loss_bg=terms["bg"].loss,
            loss_dice=terms["dice"].loss,
            loss_area=terms["area"].loss,
            loss_bnd=terms["bnd"].loss,
            loss_depth=terms["depth"].loss,
            loss_depth_consistency=terms["depth_consistency"].loss,
            change_mask=changed,
            valid={name: term.valid for name, term in terms.items()},
            info=info,
        )
