"""What was found in pictures: objects with boxes, masks and poses, as they go to and come from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sightline.formats.rle import Rle
from sightline.geometry.cameras import Camera
from sightline.records import Detections, PoseEstimate


@dataclass(frozen=True, eq=False)
class ObjectResult:
    """One object that was found, or looked for, in a picture.

    Args:
        name: of the object.
        score: of the detection; that of the pose where there was none.
        box: ``(4,)`` float64 xyxy pixels.
        mask: the visible pixels.
        pose: None where no pose was asked for; an invalid one where it failed.
        obj_id: the object's number in its data set.
    """

    name: str
    score: float
    box: Float[Tensor, "4"] | None = None
    mask: Rle | None = None
    pose: PoseEstimate | None = None
    obj_id: int | None = None


@dataclass(frozen=True, eq=False)
class ImageResult:
    """What was found in one picture.

    Args:
        image: the picture's name or path, as it shall stand in the file.
        objects: what was found.
        camera: the camera that was used.
        image_size: ``(width, height)`` pixels; the camera's where it is given.
        time: seconds for the picture.
    """

    image: str
    objects: tuple[ObjectResult, ...] = ()
    camera: Camera | None = None
    image_size: tuple[int, int] | None = None
    time: float | None = None

    @classmethod
    def of_records(
        cls,
        image: str,
        *,
        detections: Detections | None = None,
        poses: Sequence[PoseEstimate] | None = None,
        camera: Camera | None = None,
        time: float | None = None,
    ) -> ImageResult:
        """Put records together; where both are given, pose i belongs to detection i.

        Raises:
            ValueError: another number of poses than of detections, or of another name.
        """
        if detections is None:
            objects = [ObjectResult(pose.name, pose.score, pose=pose) for pose in poses or ()]
            return cls(image, tuple(objects), camera, None if camera is None else camera.image_size, time)
        if poses is not None and len(poses) != len(detections):
            raise ValueError(f"poses: expected one a detection, {len(detections)}, got {len(poses)}")
        objects = []
        for i, name in enumerate(detections.names):
            pose = None if poses is None else poses[i]
            if pose is not None and pose.name not in ("", name):
                raise ValueError(f"poses[{i}]: expected one of {name!r} as detected, got {pose.name!r}")
            mask = None if detections.masks is None else Rle.encode(detections.masks[i].cpu().numpy())
            box = detections.boxes[i].detach().cpu().double()
            objects.append(ObjectResult(name, float(detections.scores[i]), box, mask, pose))
        return cls(image, tuple(objects), camera, detections.image_size, time)

    @property
    def poses(self) -> tuple[PoseEstimate, ...]:
        """The poses of the objects that have one, invalid ones too."""
        return tuple(found.pose for found in self.objects if found.pose is not None)

    def detections(self) -> Detections:
        """The objects with a box as a record.

        Raises:
            ValueError: the size of the picture is not known, or only some objects have masks.
        """
        if self.image_size is None:
            raise ValueError(f"{self.image}: image_size: expected the size of the picture, it is not known")
        boxed = [found for found in self.objects if found.box is not None]
        masks = [found.mask.decode() for found in boxed if found.mask is not None]
        if masks and len(masks) != len(boxed):
            raise ValueError(f"{self.image}: masks: expected {len(boxed)} or none, got {len(masks)}")
        boxes = [found.box for found in boxed if found.box is not None]
        return Detections(
            torch.stack(boxes) if boxes else torch.zeros(0, 4, dtype=torch.float64),
            torch.tensor([found.score for found in boxed], dtype=torch.float64),
            tuple(found.name for found in boxed),
            self.image_size,
            torch.from_numpy(np.stack(masks)) if masks else None,
        )


@dataclass(frozen=True, eq=False)
class Results:
    """All of a results file.

    Args:
        images: one entry a picture, in order.
        meta: what the writer says of the run.
    """

    images: tuple[ImageResult, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)
