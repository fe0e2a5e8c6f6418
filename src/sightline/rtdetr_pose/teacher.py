"""Stage 0: the teacher of masked reconstruction learns to keep geometry, and is frozen afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from sightline.nn.checkpoint import read_tensors
from sightline.rtdetr_pose.data import PoseBatch, PoseScenes, collate
from sightline.rtdetr_pose.masked_branch import RenderTeacher, cell_geometry
from sightline.rtdetr_pose.model import RTDETRPose
from sightline.rtdetr_pose.training_data import PoseSceneData
from sightline.training import TrainingTask

_DEPTH_WEIGHT = 4.0  # log depths of one picture differ by some tenths, its mask by one


class GeometryAutoencoder(nn.Module):
    """A teacher, and one linear layer that reads the geometry back from its features.

    Args:
        hidden_dim: channels of the features.
        in_channels: of the geometry: 2 for mask and depth, 3 with the edge.

    Example:
        >>> net = GeometryAutoencoder(16)
        >>> net(torch.zeros(1, 2, 6, 8)).shape
        torch.Size([1, 2, 6, 8])
    """

    def __init__(self, hidden_dim: int = 256, in_channels: int = 2) -> None:
        super().__init__()
        self.config = {"hidden_dim": hidden_dim, "in_channels": in_channels}
        self.teacher = RenderTeacher(hidden_dim, in_channels)
        self.read = nn.Conv2d(hidden_dim, in_channels, 1)

    def forward(self, geom: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The geometry as it is read back: logits of mask and edge, and log depths."""
        return self.read(self.teacher(geom))


class TeacherTask(TrainingTask):
    """The training of a teacher.

    Args:
        model: what learns.
        data: the pictures whose geometry it sees.
    """

    def __init__(self, model: GeometryAutoencoder, data: PoseSceneData) -> None:
        super().__init__(model, model.config)
        self.net, self.data = model, data

    def training_samples(self) -> PoseScenes:
        """Pictures, of which the geometry counts."""
        return self.data.training()

    def collate(self, samples: Any) -> PoseBatch:  # noqa: ANN401  # what the samples are
        """A batch."""
        return collate(samples)

    def losses(self, batch: PoseBatch) -> Mapping[str, Tensor]:
        """How well mask, edge and depth are read back from the features."""
        geom = batch["geom"]
        if geom is None:
            raise ValueError("the teacher learns from masks and depth, which these data lack")
        size = (geom.shape[-2], geom.shape[-1])
        cells = cell_geometry(geom, size)[:, : self.net.teacher.in_channels]
        found = self.net(cells)
        shapes = [channel for channel in range(cells.shape[1]) if channel != 1]
        mask = binary_cross_entropy_with_logits(found[:, shapes], cells[:, shapes].clamp(0, 1))
        depth = mse_loss(found[:, 1], cells[:, 1])
        return {
            "loss": mask + _DEPTH_WEIGHT * depth,
            "loss_mask": mask.detach(),
            "loss_depth": depth.detach(),
        }


def begin_with_teacher(model: RTDETRPose, weights: str | Path) -> None:
    """Give a model the teacher of stage 0.

    Args:
        model: with a masked branch; its teacher stays frozen.
        weights: of a :class:`GeometryAutoencoder`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: weights of another teacher, or a model without a masked branch.
    """
    if model.mim is None:
        raise ValueError("model: expected one with a masked branch (enable_mim), got one without")
    tensors, _ = read_tensors(weights)
    own = {
        name.removeprefix("teacher."): tensor
        for name, tensor in tensors.items()
        if name.startswith("teacher.")
    }
    try:
        model.mim.teacher.load_state_dict(own)
    except RuntimeError as error:
        raise ValueError(f"{weights}: expected a teacher of this model's sizes: {error}") from error


def reconstruction_gain(
    model: RTDETRPose, batches: Iterable[PoseBatch], *, ratio: float = 0.6, seed: int = 0
) -> tuple[float, float]:
    """What masked reconstruction says about hidden cells, beside the best that a constant could say.

    Args:
        model: with a masked branch, in evaluation mode.
        batches: held-out pictures with geometry.
        ratio: share of the cells that are hidden.
        seed: of the masks.

    Returns:
        Mean absolute error of the reconstruction in hidden cells, and that of the median of each channel over
        all of these cells.
    """
    from sightline.rtdetr_pose.masking import generate_mask

    generator = torch.Generator().manual_seed(seed)
    said, meant = [], []
    with torch.inference_mode():
        for batch in batches:
            features = model.encode_backbone(batch["images"])
            rows, columns = features[-1].shape[-2:]
            mask = generate_mask(ratio, (columns, rows), batch=len(batch["images"]), generator=generator)
            found = model.reconstruct(features, batch["geom"], mask.to(batch["images"].device))
            said.append(found["recon_feat"].movedim(1, -1)[found["mask"]])
            meant.append(found["teacher_feat"].movedim(1, -1)[found["mask"]])
    truth = torch.cat(meant)
    constant = truth.median(0).values
    return float((torch.cat(said) - truth).abs().mean()), float((truth - constant).abs().mean())
