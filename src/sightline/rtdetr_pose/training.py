"""How the room learns: pictures with poses, the losses of detection, pose and reconstruction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from sightline.geometry.boxes import iou, xyxy_from_cxcywh
from sightline.geometry.rotations import rot6d_to_matrix
from sightline.geometry.symmetry import stack_symmetries, symmetric_distance
from sightline.rtdetr_pose.class_json import classes_to_json
from sightline.rtdetr_pose.data import PoseBatch, PoseSample, PoseScenes, collate
from sightline.rtdetr_pose.detector import STRIDES
from sightline.rtdetr_pose.losses import Losses
from sightline.rtdetr_pose.masking import generate_mask
from sightline.rtdetr_pose.matching import MatchCosts, match
from sightline.rtdetr_pose.model import Outputs, RTDETRPose
from sightline.rtdetr_pose.schedules import MaskSchedule, PoseSchedule, Ramp
from sightline.rtdetr_pose.training_data import PoseSceneData
from sightline.rtdetr_pose.true_objects import gather_objects
from sightline.training import TrainingTask


@dataclass(frozen=True, kw_only=True)
class PoseLoss:
    """What the losses weigh, and when.

    Args:
        weights: what differs from :data:`~sightline.rtdetr_pose.losses.DEFAULT_WEIGHTS`.
        costs: of the matcher; those of the pose enter at ``match_from``.
        k_from: share of the run from which the intrinsics count.
        pose_from: share of the run from which depth, rotation and translation count.
        match_from: share of the run from which the matcher looks at poses.
        ramp: share of the run that each takes to count in full.
        mask_ratio: share of the cells that are hidden, at first and at the end.
        mim_from: share of the run from which reconstruction counts.
        mim_share: share of the steps that reconstruct, where the model can.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    costs: MatchCosts = field(default_factory=MatchCosts)
    k_from: float = 0.0
    pose_from: float = 0.0
    match_from: float = 0.3
    ramp: float = 0.05
    mask_ratio: tuple[float, float] = (0.4, 0.6)
    mim_from: float = 0.1
    mim_share: float = 0.5

    def schedules(self) -> tuple[PoseSchedule, MaskSchedule]:
        """When what counts."""
        pose = PoseSchedule.staged(self.k_from, self.pose_from, match=self.match_from, length=self.ramp)
        weight = Ramp(0.0, 1.0, self.mim_from, self.mim_from + self.ramp)
        return pose, MaskSchedule(Ramp(*self.mask_ratio, 0.0, 0.5), weight)


class RTDETRPoseTask(TrainingTask):
    """The training of an :class:`RTDETRPose`.

    Args:
        model: what learns.
        data: what from.
        loss: what it is judged by.

    Raises:
        ValueError: another number of classes than the data have.
    """

    best_figure: ClassVar[str] = "val_loss"
    exports_best: ClassVar[bool] = False

    def __init__(self, model: RTDETRPose, data: PoseSceneData, loss: PoseLoss | None = None) -> None:
        super().__init__(model, model.config)
        self.net, self.data, self.settings = model, data, loss or PoseLoss()
        classes = data.classes
        if len(classes) != model.num_classes:
            raise ValueError(
                f"num_classes: expected {len(classes)} as the data have, got {model.num_classes}: "
                f"{', '.join(each.name for each in classes)}"
            )
        self.symmetries = [each.symmetries for each in classes]
        sizes = torch.tensor([each.diameter for each in classes]).nan_to_num(nan=1.0)
        model.set_objects(sizes)
        pose, self.masks = self.settings.schedules()
        self.judge = Losses(
            self.settings.weights,
            symmetries=self.symmetries,
            object_sizes=sizes,
            costs=self.settings.costs,
            pose_schedule=pose,
            mask_schedule=self.masks,
        )
        self._ratio = self.masks.ratio.at(0.0)

    def notes(self) -> dict[str, Any]:
        """What the classes are, and how large the pictures were."""
        return {"objects": classes_to_json(self.data.classes), "input_size": list(self.data.image_size)}

    def at_progress(self, fraction: float) -> None:
        """Weights and masks change with the run."""
        self.judge.at_progress(fraction)
        self._ratio = self.masks.ratio.at(fraction)

    def training_samples(self) -> PoseScenes:
        """Pictures to learn from."""
        return self.data.training()

    def validation_samples(self) -> PoseScenes:
        """The same pictures in every epoch."""
        return self.data.validation()

    def collate(self, samples: Sequence[PoseSample]) -> PoseBatch:
        """A batch."""
        return collate(samples)

    def losses(self, batch: PoseBatch) -> Mapping[str, Tensor]:
        """The weighted sum, and its parts."""
        # convolutions of the CPU, and of GPUs in half precision, are a quarter faster in this order
        images = batch["images"].contiguous(memory_format=torch.channels_last)
        targets = batch["targets"]
        hidden = self._hidden(batch) if self.net.training else None
        outputs = self.net(
            images,
            None if hidden is None else batch["geom"],
            hidden,
            hidden is not None,
            intrinsics=batch["intrinsics"],
            targets=targets,
        )
        found = self.judge.to(images.device)(outputs, targets)
        return {name: value if name == "loss" else value.detach() for name, value in found.items()}

    def validate(self, batches: Iterable[PoseBatch]) -> dict[str, float]:
        """Losses, and how far the query that is matched with each object is off."""
        sums: dict[str, float] = defaultdict(float)
        rows: dict[str, list[Tensor]] = defaultdict(list)
        count = 0
        for batch in batches:
            count += 1
            targets = batch["targets"]
            outputs = self.net(batch["images"], intrinsics=batch["intrinsics"], targets=targets)
            for name, value in self.judge.to(batch["images"].device)(outputs, targets).items():
                sums[f"val_{name}"] += float(value)
            for name, values in self._errors(outputs, targets).items():
                rows[name].append(values.float().cpu())
        figures = {name: value / max(count, 1) for name, value in sums.items()}
        return {**figures, **{f"val_{name}": _median(torch.cat(each)) for name, each in rows.items()}}

    def _hidden(self, batch: PoseBatch) -> Tensor | None:
        """Which cells are hidden in this step; None in steps without reconstruction."""
        if self.net.mim is None or batch["geom"] is None or float(torch.rand(())) >= self.settings.mim_share:
            return None
        images = batch["images"]
        size = (images.shape[-1] // STRIDES[-1], images.shape[-2] // STRIDES[-1])
        return generate_mask(self._ratio, size, batch=len(images), device=images.device)

    def _errors(self, outputs: Outputs, targets: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Of the queries that are matched with objects, medians of which are shown."""
        logits, boxes = outputs["logits"].float(), outputs["bbox"].float()
        objects = gather_objects(targets, logits.shape[-1], logits)
        if not len(objects):
            return {}
        groups = stack_symmetries([self.symmetries[label] for label in objects.labels.tolist()])
        layer = {"logits": logits[None], "bbox": boxes[None]}
        pairs = match(layer, objects, MatchCosts(), groups)
        own, picture, query = pairs.target[0], pairs.picture, pairs.query[0]
        overlap = iou(xyxy_from_cxcywh(boxes[picture, query]), xyxy_from_cxcywh(objects.boxes[own]))
        score = logits[picture, query, objects.labels[own]].sigmoid()
        R = rot6d_to_matrix(outputs["rot6d"][picture, query].double())
        chosen = stack_symmetries([self.symmetries[label] for label in objects.labels[own].tolist()])
        turned = torch.rad2deg(symmetric_distance(R, objects.R[own].double(), chosen))
        depth = (outputs["log_z"][picture, query, 0] - objects.z[own].log()).abs()
        return {"iou": overlap, "score": score, "rotation_deg": turned, "log_depth": depth}


def _median(values: Tensor) -> float:
    """Of those that are numbers."""
    return float(values.nanmedian()) if len(values) else float("nan")
