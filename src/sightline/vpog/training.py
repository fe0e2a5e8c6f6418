"""How the matcher learns: crops with templates, labels from depth, losses on matches, flow and pose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.synthetic.backdrops import BackdropBank
from sightline.synthetic.pose_bank import PoseBank
from sightline.synthetic.pose_crops import PoseCrop, PoseCrops, PoseCropSettings
from sightline.synthetic.pose_views import PoseViewSettings
from sightline.training import TrainingTask
from sightline.vpog.correspondence import CorrespondenceBuilder, PatchMatches, TemplateSurfaces
from sightline.vpog.data import MixedCrops, PoseCropBatch, VPOGTrainDataset, collate
from sightline.vpog.flow_computer import BACKGROUND, FlowComputer, FlowLabels
from sightline.vpog.flow_head import FlowPrediction
from sightline.vpog.losses import (
    FlowLossKind,
    classification_accuracy,
    classification_loss,
    flow_errors,
    flow_loss,
    weight_regularization,
)
from sightline.vpog.model import VPOGModel
from sightline.vpog.pose_loss import EProPnPLoss
from sightline.vpog.scene_data import SceneData
from sightline.vpog.template_selector import SelectionMode, TemplateSelector


@dataclass(frozen=True, kw_only=True)
class PoseData:
    """What a run learns from and is judged on: generated objects, and data sets of scenes if there are any.

    Args:
        folder: where the drawn views are kept between runs; in memory unless given.
        num_objects: training objects.
        num_backdrops: training backdrops.
        num_validation_objects: unseen objects that the model is judged on.
        num_validation: crops that it is judged on.
        epoch_length: crops of an epoch.
        num_positives: templates near to the query, S_p.
        num_negatives: templates from at least ``min_negative_angle_deg`` away, S_n.
        selection: ``nearest`` or ``random_within_range``.
        range_deg: how far a positive may be, degrees.
        min_negative_angle_deg: degrees.
        views: how objects are drawn; the side of their templates is that of every crop.
        crops: what the queries are like.
        scenes: data sets that are learned from, too.
        scene_share: how often crops are of these; with 1 none are generated.
        validation_scenes: data sets that the model is judged on, instead of generated objects.
    """

    folder: str | Path | None = None
    num_objects: int = 400
    num_backdrops: int = 60
    num_validation_objects: int = 20
    num_validation: int = 120
    epoch_length: int = 20_000
    num_positives: int = 4
    num_negatives: int = 2
    selection: SelectionMode = "random_within_range"
    range_deg: float = 30.0
    min_negative_angle_deg: float = 90.0
    views: PoseViewSettings = field(default_factory=PoseViewSettings)
    crops: PoseCropSettings = field(default_factory=PoseCropSettings)
    scenes: tuple[SceneData, ...] = ()
    scene_share: float = 0.5
    validation_scenes: tuple[SceneData, ...] = ()

    def __post_init__(self) -> None:
        """Check the share."""
        if not 0 <= self.scene_share <= 1:
            raise ValueError(f"scene_share: expected a share in [0, 1], got {self.scene_share}")

    def training(self) -> VPOGTrainDataset:
        """Crops of training objects, and of the data sets of scenes."""
        if not self.scenes:
            crops = self._crops("train", self.num_objects, self.num_backdrops)
        elif self.scene_share == 1:
            crops = self._scenes(self.scenes)
        else:
            generated = self._crops("train", self.num_objects, self.num_backdrops)
            shares = (1 - self.scene_share, self.scene_share)
            crops = MixedCrops([generated, self._scenes(self.scenes)], shares)
        return VPOGTrainDataset(crops, self._selector(), length=self.epoch_length)

    def validation(self) -> VPOGTrainDataset:
        """Crops of objects that training never shows, the same in each epoch."""
        if self.validation_scenes:
            crops = self._scenes(self.validation_scenes)
        else:
            crops = self._crops("development", self.num_validation_objects, max(self.num_backdrops // 4, 4))
        return VPOGTrainDataset(crops, self._selector(), length=self.num_validation, fixed=True)

    def _scenes(self, scenes: Sequence[SceneData]) -> MixedCrops:
        kept = None if self.folder is None else Path(self.folder) / "scene-templates"
        opened = [each.open(self.views, self.crops, kept=kept) for each in scenes]
        return MixedCrops(opened, [each.share for each in scenes])

    def _selector(self) -> TemplateSelector:
        return TemplateSelector(
            self.num_positives,
            self.num_negatives,
            mode=self.selection,
            range_deg=self.range_deg,
            min_negative_angle_deg=self.min_negative_angle_deg,
        )

    def _crops(self, split: str, num_objects: int, num_backdrops: int) -> PoseCrops:
        return PoseCrops(
            PoseBank(num_objects, self.folder, split=split, settings=self.views),
            BackdropBank(num_backdrops, self.folder, split=split, image_size=(320, 240)),
            self.crops,
        )


@dataclass(frozen=True, kw_only=True)
class VPOGLoss:
    """What the losses weigh, and their options.

    Args:
        classification: of naming the template patch of each query patch, after attention.
        coarse: of naming it before.
        flow: of the flow in matched patches.
        regularization: of the squared weights, where the optimiser does not decay them.
        epro_pnp: of the pose of the crop by the flow of its true matches; 0 leaves it out.
        weight_unseen: of patches that a template does not show, beside those that it does.
        weight_background: of patches without the object, which then count as not shown; 0 ignores them.
        label_smoothing: of both classifications.
        flow_kind: ``l1``, ``huber`` or ``laplace``.
        weight_invisible: teaches doubt where a pixel has no target; see
            :func:`~sightline.vpog.losses.flow_loss`.
        tolerance_rel: of depth in the labels, shares of the diameter.
        min_visible_pixels: of a patch that is matched.
    """

    classification: float = 1.0
    coarse: float = 0.5
    flow: float = 1.0
    regularization: float = 0.0
    epro_pnp: float = 0.0
    weight_unseen: float = 1.0
    weight_background: float = 0.5
    label_smoothing: float = 0.0
    flow_kind: FlowLossKind | str = "laplace"
    weight_invisible: float = 0.1
    tolerance_rel: float = 0.02
    min_visible_pixels: int = 16


class Judgement(NamedTuple):
    """What a batch taught.

    Args:
        losses: the weighted sum and its parts.
        found: what the network returned.
        labels: what was right.
        flow: predicted in the true matches.
        target: the true flow there.
        visible: where there is one.
    """

    losses: dict[str, Tensor]
    found: dict[str, Any]
    labels: FlowLabels
    flow: FlowPrediction
    target: Float[Tensor, "m p p 2"]
    visible: Bool[Tensor, "m p p"]


class VPOGTask(TrainingTask):
    """The training of a :class:`VPOGModel`.

    Args:
        model: what learns.
        data: what from.
        loss: what it is judged by.

    Raises:
        ValueError: the pose loss for a model without ``pose_log_scale``.
    """

    best_figure: ClassVar[str] = "val_loss"

    def __init__(self, model: VPOGModel, data: PoseData | None = None, loss: VPOGLoss | None = None) -> None:
        super().__init__(model, model.config)
        self.net, self.data, self.weights = model, data or PoseData(), loss or VPOGLoss()
        self.flow_computer = FlowComputer(
            model.patch_size,
            tolerance_rel=self.weights.tolerance_rel,
            min_visible_pixels=self.weights.min_visible_pixels,
        )
        self.builder = CorrespondenceBuilder(model.patch_size, flow_threshold=0.0)
        if self.weights.epro_pnp and model.pose_scale is None:
            raise ValueError("epro_pnp: expected a model with a pose_log_scale, which this loss learns")
        self.pose_loss = EProPnPLoss(scale=model.pose_scale, pixel_unit=float(model.patch_size))

    def notes(self) -> dict[str, Any]:
        """How far a query may be turned against its templates: what inference has to make up for."""
        return {"turn": self.data.crops.turn}

    def training_samples(self) -> VPOGTrainDataset:
        """New crops in every epoch."""
        return self.data.training()

    def validation_samples(self) -> VPOGTrainDataset:
        """The same crops of unseen objects in every epoch."""
        return self.data.validation()

    def collate(self, samples: Sequence[PoseCrop]) -> PoseCropBatch:
        """A batch."""
        return collate(samples)

    def losses(self, batch: PoseCropBatch) -> Mapping[str, Tensor]:
        """The weighted sum, and its parts."""
        return self._judge(batch).losses

    def validate(self, batches: Iterable[PoseCropBatch]) -> dict[str, float]:
        """Losses, how often patches are matched rightly, and the flow's error in true matches, pixels."""
        rows: dict[str, list[tuple[Tensor, float]]] = {}

        def note(name: str, value: Tensor, weight: float) -> None:
            rows.setdefault(f"val_{name}", []).append((value.detach(), weight))

        for batch in batches:
            judged = self._judge(batch)
            for name, value in judged.losses.items():
                note(name, value, len(batch["query"]))
            for name, key in (("", "classification_logits"), ("coarse_", "coarse_logits")):
                right = classification_accuracy(
                    judged.found[key], judged.labels.labels, num_patches=self.net.num_patches
                )
                note(f"{name}accuracy_seen", right.seen, float(right.num_seen))
                note(f"{name}accuracy_unseen", right.unseen, float(right.num_unseen))
            errors = flow_errors(
                judged.flow.flow, judged.target, judged.visible, patch_size=self.net.patch_size
            )
            note("flow_px", errors.mae_px, float(errors.num_pixels))
        return {
            name: float(
                sum(v.double().nan_to_num() * w for v, w in values) / max(sum(w for _, w in values), 1)
            )
            for name, values in rows.items()
        }

    def label(self, batch: PoseCropBatch) -> FlowLabels:
        """What is right, from the depth of query and templates.

        Args:
            batch: of crops.
        """
        return self.flow_computer(
            batch["query_depth"],
            batch["query_mask"],
            batch["query_K"],
            batch["query_pose"],
            batch["template_depth"],
            batch["template_mask"],
            batch["template_K"],
            batch["template_pose"],
            batch["diameter"],
        )

    def _judge(self, batch: PoseCropBatch) -> Judgement:
        weights, grid = self.weights, (self.net.grid, self.net.grid)
        with torch.no_grad():
            labels = self.label(batch)
        found = self.net(batch["query"], batch["templates"], batch["template_pose"])
        fine = self._classification(found["classification_logits"], labels.labels)
        coarse = self._classification(found["coarse_logits"], labels.labels)
        matches = self.builder.matches_of_labels(labels.labels, grid)
        prediction = self.net.predict_flow(found["features"], matches)
        where = (matches.batch, matches.template, matches.query_patch)
        target, visible = labels.flow[where], labels.visible[where]
        flow = flow_loss(
            prediction, target, visible, weights.flow_kind, weight_invisible=weights.weight_invisible
        )
        losses = {"loss_classification": fine, "loss_coarse": coarse, "loss_flow": flow}
        total = weights.classification * fine + weights.coarse * coarse + weights.flow * flow
        if weights.regularization:
            losses["loss_regularization"] = weight_regularization(self.net)
            total = total + weights.regularization * losses["loss_regularization"]
        if weights.epro_pnp:
            losses["loss_pose"] = self._pose(batch, matches, prediction)
            total = total + weights.epro_pnp * losses["loss_pose"]
        parts = {name: value.detach() for name, value in losses.items()}
        return Judgement({"loss": total, **parts}, found, labels, prediction, target, visible)

    def _classification(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Of the object's patches, and of those without it that nothing shows them."""
        weights, patches = self.weights, self.net.num_patches
        options = {"num_patches": patches, "label_smoothing": weights.label_smoothing}
        own = classification_loss(logits, labels, weight_unseen=weights.weight_unseen, **options)
        if not weights.weight_background:
            return own
        background = torch.where(labels == BACKGROUND, patches, BACKGROUND)
        return own + weights.weight_background * classification_loss(logits, background, **options)

    def _pose(self, batch: PoseCropBatch, matches: PatchMatches, prediction: FlowPrediction) -> Tensor:
        """EPro-PnP on what the flow of the true matches says."""
        depth = torch.where(batch["template_mask"], batch["template_depth"], 0.0)
        surfaces = TemplateSurfaces(
            depth,
            batch["template_K"],
            batch["template_pose"],
            self.weights.tolerance_rel * batch["diameter"],
        )
        grid = (self.net.grid, self.net.grid)
        flat = self.builder.build(matches, surfaces, grid, prediction.flow, prediction.confidence)
        points = flat.padded()
        return self.pose_loss(
            points.points_3d,
            points.points_2d,
            points.weights,
            batch["query_K"],
            batch["query_pose"],
            valid=points.valid,
        )["loss"]
