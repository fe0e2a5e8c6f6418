"""The best detections rendered at their poses and compared with the picture, once for each symmetry."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sightline.geometry.cameras import Camera
from sightline.geometry.poses import make_pose
from sightline.geometry.symmetry import SymmetryGroup, symmetric_poses
from sightline.objects.silhouette import score_silhouette
from sightline.records import PoseEstimate, TriangleMesh


@dataclass(frozen=True, eq=False)
class KnownShape:
    """What a pose is rendered from.

    Args:
        mesh: metres.
        symmetries: of the object.
    """

    mesh: TriangleMesh
    symmetries: SymmetryGroup


@dataclass(frozen=True)
class TemplateCheck:
    """What the comparison says of one detection.

    Args:
        score: of the best of the poses that look the same, in [0, 1]; NaN where none was made.
        cam_from_obj: that pose; None where none was made.
    """

    score: float
    cam_from_obj: Float[Tensor, "4 4"] | None


def verify_best(
    poses: Sequence[PoseEstimate],
    scores: Sequence[float],
    shapes: Mapping[str, KnownShape],
    image: NDArray[np.uint8],
    camera: Camera,
    *,
    masks: Sequence[NDArray[np.bool_]] | None = None,
    depth: Float[Tensor, "h w"] | None = None,
    top_k: int = 10,
    samples: int = 8,
) -> list[TemplateCheck]:
    """Score the poses of the best detections by outline and depth.

    An object's true mesh looks the same at each of its symmetries; a card's mesh may not, by its texture or a
    handle that the symmetries leave out. The score is therefore the largest over the group, never below that
    of the pose itself.

    Args:
        poses: of the detections.
        scores: of the detections; the best ``top_k`` whose pose is valid and whose shape is known are looked
            at.
        shapes: by name.
        image: ``(h, w, 3)`` uint8 RGB.
        camera: the picture's camera.
        masks: of the detections, ``(h, w)`` bool; the picture's edges serve where there are none.
        depth: ``(h, w)`` float metres, 0 or NaN where missing.
        top_k: detections that are rendered, some 3 ms a pose.
        samples: turns about a continuous axis.

    Returns:
        One check a detection.

    Raises:
        ValueError: an image whose size is not the camera's.
    """
    order = sorted(range(len(poses)), key=lambda i: -scores[i])
    known = [i for i in order if poses[i].valid and poses[i].name in shapes][:top_k]
    checks = [TemplateCheck(math.nan, None)] * len(poses)
    for i in known:
        shape, pose = shapes[poses[i].name], make_pose(poses[i].R, poses[i].t)
        equal = symmetric_poses(pose, shape.symmetries, 2 * math.pi / samples)
        mask = None if masks is None else masks[i]
        found = [
            score_silhouette(shape.mesh, each, image, camera, mask=mask, depth=depth).score for each in equal
        ]
        best = int(torch.tensor(found).argmax())
        checks[i] = TemplateCheck(found[best], equal[best])
    return checks
