"""Pictures of any size in, boxes and poses out: what the trained model says, as records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sightline.geometry.boxes import clip, denormalize, xyxy_from_cxcywh
from sightline.geometry.cameras import Camera
from sightline.geometry.rotations import rot6d_to_matrix
from sightline.geometry.symmetry import SymmetryGroup
from sightline.geometry.translation import correct_intrinsics
from sightline.nn.checkpoint import load_weights, read_config, save_model
from sightline.nn.pictures import float_picture
from sightline.records import Detections, PoseEstimate
from sightline.rtdetr_pose.class_json import classes_from_json, classes_to_json
from sightline.rtdetr_pose.model import RTDETRPose
from sightline.rtdetr_pose.pictures import ObjectClass
from sightline.training.processes import require_device

_CENTRE_PX = 1.0  # by which a predicted centre errs, network pixels: of the covariance across the ray


@dataclass(frozen=True)
class PosedDetections:
    """What is seen in one picture: detections and, row by row, their poses.

    Args:
        detections: boxes, scores and names, best first.
        poses: one a detection.
        K: ``(3, 3)`` float64 intrinsics as the model corrects them, pixels of the picture.
    """

    detections: Detections
    poses: tuple[PoseEstimate, ...]
    K: Float[Tensor, "3 3"]


class RTDETRPoseDetector:
    """Finds the objects that a model was trained for, with their poses, in one pass.

    Args:
        model: the network.
        objects: what it knows, in the order of its classes.
        input_size: ``(width, height)`` of the pictures that it sees; others are resized, each axis by itself.
        device: where it runs.
        name: of the weights, for people.

    Raises:
        ValueError: another number of objects than classes.
    """

    def __init__(
        self,
        model: RTDETRPose,
        objects: Sequence[ObjectClass],
        *,
        input_size: tuple[int, int],
        device: str | torch.device = "cpu",
        name: str = "untrained",
    ) -> None:
        if len(objects) != model.num_classes:
            raise ValueError(
                f"objects: expected one for each of the {model.num_classes} classes, got {len(objects)}"
            )
        self.model = model.to(device).eval()
        self.objects, self.input_size, self.name = tuple(objects), input_size, name
        self.device = torch.device(device)

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        *,
        device: str | torch.device = "cpu",
        input_size: tuple[int, int] | None = None,
    ) -> RTDETRPoseDetector:
        """A detector of a file of weights.

        Args:
            path: a ``.safetensors`` file of an :class:`RTDETRPose` that was trained by a recipe.
            device: where it runs.
            input_size: ``(width, height)`` that it sees; that of its training unless given.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds another model or foreign keys, it does not say what its classes are, or the
                device is not here.
        """
        try:
            require_device(str(device))
        except RuntimeError as error:  # a word that PyTorch does not know
            raise ValueError(f"device: expected cpu or cuda, got {device!r}") from error
        stored = read_config(path)
        if stored.kind != RTDETRPose.__name__:
            raise ValueError(f"{path}: expected weights of an {RTDETRPose.__name__}, got a {stored.kind}")
        objects, size = _objects_of(path, stored.extra)
        model = RTDETRPose(**stored.config)
        load_weights(model, path)
        return cls(model, objects, input_size=input_size or size, device=device, name=Path(path).stem)

    def save(self, path: str | Path) -> None:
        """Write the network as it is now, with all that reading it again needs.

        Args:
            path: a ``.safetensors`` file.

        Raises:
            ValueError: another suffix.
        """
        extra = {"objects": classes_to_json(self.objects), "input_size": list(self.input_size)}
        save_model(path, self.model, self.model.config, extra)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the objects that it knows."""
        return tuple(each.name for each in self.objects)

    @property
    def symmetries(self) -> tuple[SymmetryGroup, ...]:
        """Of the objects that it knows."""
        return tuple(each.symmetries for each in self.objects)

    def prepare(self, image: NDArray[np.uint8], camera: Camera) -> tuple[Tensor, Tensor]:
        """The picture and the intrinsics as the network takes them.

        Args:
            image: ``(h, w, 3)`` uint8 RGB.
            camera: its camera.

        Returns:
            ``(1, 3, H, W)`` float32 in [0, 1] and ``(1, 3, 3)`` float32 pixels of it.

        Raises:
            ValueError: a picture of another size than its camera's.
        """
        if image.shape[:2] != (camera.height, camera.width):
            raise ValueError(
                f"image: expected {camera.width}x{camera.height} pixels as its camera says, "
                f"got {image.shape[1]}x{image.shape[0]}"
            )
        K = camera.resize(*self.input_size).K[None].float()
        return float_picture(resize_picture(image, self.input_size))[None].to(self.device), K.to(self.device)

    @torch.inference_mode()
    def detect(
        self, image: NDArray[np.uint8], camera: Camera, *, min_score: float = 0.3, max_detections: int = 100
    ) -> PosedDetections:
        """Find objects and their poses.

        Args:
            image: ``(h, w, 3)`` uint8 RGB.
            camera: its camera.
            min_score: lowest score of a detection.
            max_detections: at most so many, the best.

        Returns:
            Detections, best first, and their poses in the frame of the camera.

        Raises:
            ValueError: a picture of another size than its camera's.
        """
        picture, K = self.prepare(image, camera)
        return self.read(
            self.model(picture, intrinsics=K), camera, min_score=min_score, max_detections=max_detections
        )

    def read(
        self,
        outputs: Mapping[str, Any],
        camera: Camera,
        *,
        row: int = 0,
        min_score: float = 0.3,
        max_detections: int = 100,
    ) -> PosedDetections:
        """What the model's outputs say of one picture, in its own pixels.

        Args:
            outputs: of the model.
            camera: of the whole picture.
            row: which picture of the batch.
            min_score: lowest score of a detection.
            max_detections: at most so many, the best.
        """
        scores, order = outputs["logits"][row].sigmoid().flatten().sort(descending=True)
        order = order[scores >= min_score][:max_detections]
        query, label = order // len(self.objects), order % len(self.objects)
        # One copy to the host for all that is read.
        kept = {
            name: outputs[name][row, query].double().cpu()
            for name in ("bbox", "log_z", "rot6d", "offsets", "log_sigma_z", "log_sigma_rot")
            if name in outputs
        }
        full = torch.tensor(camera.image_size, dtype=torch.float64)
        scale = full / torch.tensor(self.input_size, dtype=torch.float64)
        boxes = denormalize(xyxy_from_cxcywh(kept["bbox"]), camera.image_size)
        detections = Detections(
            clip(boxes, camera.image_size),
            scores[: len(order)].double().cpu(),
            tuple(self.objects[each].name for each in label.tolist()),
            camera.image_size,
        )
        delta = outputs["k_delta"][row].double().cpu() * torch.cat([torch.ones(2).double(), scale])
        K = correct_intrinsics(camera.K, delta)
        seen = Camera(K, camera.width, camera.height, camera.distortion)
        depth = kept["log_z"][:, 0].clamp(-20.0, 20.0).exp()
        centre = kept["bbox"][:, :2] * full - 0.5 + kept["offsets"] * scale
        t = seen.unproject(centre, depth)
        rotations = rot6d_to_matrix(kept["rot6d"])
        spread = _covariances(kept, t, K, float(scale.mean()))
        poses = tuple(
            PoseEstimate(
                R=rotations[i], t=t[i], score=float(scores[i]), valid=True, covariance=spread[i], name=name
            )
            if bool(t[i].isfinite().all() & rotations[i].isfinite().all())
            else PoseEstimate.failure("the network gives numbers that are no pose", name=name)
            for i, name in enumerate(detections.names)
        )
        return PosedDetections(detections, poses, K)


def resize_picture(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture of another size, each axis by itself, smoothed where it shrinks.

    Args:
        image: ``(h, w, 3)`` uint8.
        size: ``(width, height)``.

    Example:
        >>> resize_picture(np.full((8, 12, 3), 7, np.uint8), (6, 4)).shape
        (4, 6, 3)
    """
    if image.shape[1::-1] == size:
        return image
    shrinks = size[0] < image.shape[1]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)  # type: ignore[return-value]


def _covariances(kept: Mapping[str, Tensor], t: Tensor, K: Tensor, scale: float) -> list[Tensor | None]:
    """Of rotation and translation, from what the network says of its errors; None where it says nothing."""
    if "log_sigma_z" not in kept:
        return [None] * len(t)
    along = kept["log_sigma_z"].clamp(-10, 3).exp() * t  # an error of log z moves the object along its ray
    across = _CENTRE_PX * scale * t[:, 2] / K[0, 0]
    turned = kept["log_sigma_rot"][:, 0].clamp(-10, math.log(math.pi)).exp()
    eye = torch.eye(3, dtype=torch.float64)
    spread = torch.zeros(len(t), 6, 6, dtype=torch.float64)
    spread[:, :3, :3] = turned[:, None, None] ** 2 * eye
    spread[:, 3:, 3:] = along[:, :, None] * along[:, None, :] + across[:, None, None] ** 2 * eye
    return list(spread)


def _objects_of(
    path: str | Path, extra: Mapping[str, Any]
) -> tuple[tuple[ObjectClass, ...], tuple[int, int]]:
    try:
        width, height = extra["input_size"]
        return classes_from_json(extra["objects"]), (int(width), int(height))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: the file does not say which objects its classes are; weights that a recipe of "
            f"train-rtdetr-pose made do ({error})"
        ) from error
