"""The room's objective: hidden features of a picture are reconstructed from what is around them.

It asks of a model ``forward(x, geom_input, feature_mask, return_mim)`` with the outputs of ``RTDETRPose``,
and uses ``encode_backbone``, ``forward_from_features`` and ``reconstruct`` where these exist: as long as the
backbone does not change, it is run once for all updates of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sightline.geometry.boxes import xyxy_from_cxcywh
from sightline.geometry.depth import create_geom_input
from sightline.rtdetr_pose.masking import generate_mask
from sightline.rtdetr_pose.reconstruction_losses import masked_cells
from sightline.rtdetr_pose.ttt.objectives import Draws, Objective, Prepared, Term, Terms
from sightline.rtdetr_pose.ttt.readers import OutputReader, Outputs
from sightline.rtdetr_pose.ttt.spec import MaskedReconstruction


class MaskedObjective(Objective):
    """Masked reconstruction beside the entropy of the predictions.

    Geometry of a sensor is what it should be given. Without one, and only with ``own_geometry``, boxes and
    depths that the model is sure of are drawn as geometry; the report says so. Pictures without geometry are
    not learnt from.

    Args:
        reader: of the detector's outputs.
        options: of the masks and of the geometry.
        stride: pixels to a cell of the features.
        terms: further terms.
        picture_key: of the pictures, where a batch is a mapping of the model's arguments.
    """

    def __init__(
        self,
        reader: OutputReader,
        options: MaskedReconstruction | None = None,
        *,
        stride: int = 32,
        terms: Mapping[str, Term] | None = None,
        picture_key: str = "x",
    ) -> None:
        super().__init__(reader, terms, picture_key=picture_key)
        self.options = options or MaskedReconstruction()
        self.stride = stride
        self._caches = self._reconstructs = False

    @property
    def names(self) -> tuple[str, ...]:
        """The terms that there are."""
        return ("mim", *super().names)

    def bind(self, model: nn.Module, weights: Mapping[str, float], changing: Mapping[str, Tensor]) -> None:
        """See :meth:`Objective.bind`; the backbone is run once a batch if nothing in it changes."""
        super().bind(model, weights, changing)
        if getattr(model, "mim", True) is None:
            raise ValueError("adaptation: mim: the model has no masked branch; build it with enable_mim=True")
        splits = all(hasattr(model, name) for name in ("encode_backbone", "forward_from_features"))
        self._caches = splits and not any("backbone" in name for name in changing)
        only_mim = {name for name, weight in weights.items() if weight} == {"mim"}
        self._reconstructs = self._caches and only_mim and hasattr(model, "reconstruct")

    def prepare(
        self,
        model: nn.Module,
        batch: Any,  # noqa: ANN401
        geom: Tensor | None,
        *,
        geometry_source: str,
        updates: int,
        draws: Draws,
    ) -> Prepared:
        """Encode the backbone, find geometry, and draw a mask for each update."""
        prepared = super().prepare(
            model, batch, geom, geometry_source=geometry_source, updates=updates, draws=draws
        )
        pictures = self.pictures(batch)
        if self._caches:
            prepared.features = model.encode_backbone(pictures)  # ty: ignore[not-callable]
        if geom is None:
            prepared.usable = torch.zeros_like(prepared.usable)
            if self.options.own_geometry:
                outputs = self.predict(model, prepared)
                prepared.geom, prepared.usable = self._own_geometry(outputs, pictures)
                prepared.geometry_source = "prediction"
        height, width = (-(-side // self.stride) for side in pictures.shape[-2:])
        options = self.options
        prepared.masks = [
            generate_mask(
                options.mask_prob,
                (width, height),
                batch=len(pictures),
                patch=options.mask_block,
                generator=draws.host,
                device=pictures.device,
            )
            for _ in range(updates)
        ]
        return prepared

    def predict(self, model: nn.Module, prepared: Prepared) -> Outputs:
        """What the model says of the batch, without masks."""
        if prepared.features is None:
            return self.call(model, prepared.batch)
        return model.forward_from_features(  # ty: ignore[not-callable]
            prepared.features, **self._further(prepared.batch)
        )

    def run(self, model: nn.Module, prepared: Prepared, update: int) -> tuple[Outputs, Terms]:
        """Reconstruct what the update's mask hides, and predict where a term or a guard needs it."""
        mask = prepared.masks[update]
        if prepared.geom is None:
            outputs = self.predict(model, prepared)
            return outputs, {
                "mim": outputs["logits"].sum((1, 2)) * 0.0,
                **self.output_terms(outputs, prepared),
            }
        if self._reconstructs:
            parts = model.reconstruct(prepared.features, prepared.geom, mask)  # ty: ignore[not-callable]
            return None, {"mim": reconstruction_error(**parts)}
        arguments = (prepared.geom, mask, True)
        if prepared.features is not None:
            outputs = model.forward_from_features(  # ty: ignore[not-callable]
                prepared.features, *arguments, **self._further(prepared.batch)
            )
        else:
            outputs = model(self.pictures(prepared.batch), *arguments, **self._further(prepared.batch))
        mim = {name: outputs["mim"][name] for name in ("recon_feat", "teacher_feat", "mask")}
        return outputs, {"mim": reconstruction_error(**mim), **self.output_terms(outputs, prepared)}

    def _further(self, batch: Any) -> dict[str, Any]:  # noqa: ANN401
        if not isinstance(batch, Mapping):
            return {}
        return {name: value for name, value in batch.items() if name != self.picture_key}

    @torch.no_grad()
    def _own_geometry(
        self, outputs: Mapping[str, Any], pictures: Tensor
    ) -> tuple[Float[Tensor, "b 2 h w"], Float[Tensor, "b"]]:
        return geometry_of_predictions(
            outputs,
            self._trusted(outputs),
            size=(-(-pictures.shape[-1] // 8), -(-pictures.shape[-2] // 8)),
        )

    def _trusted(self, outputs: Mapping[str, Any]) -> Bool[Tensor, "b q"]:
        scores = outputs["logits"].sigmoid().amax(-1)
        if "log_sigma_z" in outputs:
            sure = outputs["log_sigma_z"][..., 0] <= self.options.max_log_sigma
            return sure & (scores >= self.options.min_score)
        return scores >= self.options.min_score


def reconstruction_error(
    recon_feat: Float[Tensor, "b d h w"],
    teacher_feat: Float[Tensor, "b d h w"],
    mask: Bool[Tensor, "..."],
) -> Float[Tensor, "b"]:
    """The mean absolute error over the masked cells of each picture; 0 where nothing is masked.

    Args:
        recon_feat: reconstructed.
        teacher_feat: what they should be; no gradient goes there.
        mask: of the cells, in any form.

    Example:
        >>> mask = torch.tensor([[[True, False]], [[False, False]]])
        >>> reconstruction_error(torch.zeros(2, 8, 1, 2), torch.ones(2, 8, 1, 2), mask)
        tensor([1., 0.])
    """
    cells = masked_cells(mask, recon_feat)[:, None]
    error = torch.where(cells, recon_feat, 0.0) - torch.where(cells, teacher_feat.detach(), 0.0)
    return error.abs().mean(1).sum((1, 2)) / cells.sum((1, 2, 3)).clamp_min(1)


def geometry_of_predictions(
    outputs: Mapping[str, Any], trusted: Bool[Tensor, "b q"], *, size: tuple[int, int]
) -> tuple[Float[Tensor, "b 2 h w"], Float[Tensor, "b"]]:
    """Draw the boxes of trusted predictions with their depths, the nearest in front.

    It is as coarse as boxes are, and it is the model's own word: a sensor's depth is better in both.

    Args:
        outputs: ``bbox (b, q, 4)`` cxcywh in [0, 1] and ``log_z (b, q, 1)``.
        trusted: which queries.
        size: ``(width, height)`` of the geometry.

    Returns:
        Mask and log depth over its median, and 1 for pictures with a trusted prediction.

    Example:
        >>> outputs = {"bbox": torch.tensor([[[0.25, 0.5, 0.5, 1.0]]]), "log_z": torch.zeros(1, 1, 1)}
        >>> geometry_of_predictions(outputs, torch.tensor([[True]]), size=(4, 1))[0][0, 0]
        tensor([[1., 1., 0., 0.]])
    """
    x0, y0, x1, y1 = (each[..., None] for each in xyxy_from_cxcywh(outputs["bbox"]).unbind(-1))
    width, height = size
    x = (torch.arange(width, device=x0.device) + 0.5) / width
    y = (torch.arange(height, device=x0.device) + 0.5) / height
    columns, rows = (x >= x0) & (x <= x1), (y >= y0) & (y <= y1)
    inside = rows[..., :, None] & columns[..., None, :] & trusted[..., None, None]
    depth = torch.where(inside, outputs["log_z"].exp()[..., None], torch.inf).amin(1)
    mask = inside.any(1).to(depth)
    return create_geom_input(mask, torch.where(mask > 0, depth, 0.0)), trusted.any(1).to(depth)
