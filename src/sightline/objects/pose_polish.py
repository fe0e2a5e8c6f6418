"""A pose that is some tens of degrees off, moved to where the rendered object fits the picture best."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sightline.geometry.cameras import Camera
from sightline.geometry.poses import transform
from sightline.geometry.rotations import exp
from sightline.objects.alignment import align_pose
from sightline.objects.verification import Verification, verify_pose
from sightline.records import TriangleMesh

_TURNS = tuple(math.radians(degrees) for degrees in (16.0, 8.0))
_STRETCH = 0.04  # of the distance, beside the first turn; half of it beside the second
_MOST_MOVES = 3  # of one size


class PolishedPose(NamedTuple):
    """A pose ``(4, 4)`` metres and what the picture says of it."""

    cam_from_obj: Float[Tensor, "4 4"]
    check: Verification


def polish_pose(
    mesh: TriangleMesh,
    cam_from_obj: Float[Tensor, "4 4"],
    image: NDArray[np.uint8],
    camera: Camera,
    *,
    depth: Float[Tensor, "h w"] | None = None,
) -> PolishedPose:
    """Climb from a rough pose, by turns about the camera's axes and steps along the ray, and align the end.

    What a network predicts, say 15 degrees and 4 % of the distance off, is far for an alignment of pixels
    and near enough for a search of its neighbours. The verification decides on each step, so that the result
    is never borne out worse than the start.

    Args:
        mesh: the object with its colours, metres.
        cam_from_obj: the rough pose, metres.
        image: ``(h, w, 3)`` uint8 RGB.
        camera: the picture's camera.
        depth: ``(h, w)`` metres, 0 or NaN where missing.

    Returns:
        The better pose, or the given one.

    Raises:
        ValueError: an image whose size is not the camera's.

    Cost: some 25 to 55 verifications of 3 ms and up to three alignments.
    """

    def judge(pose: Tensor) -> PolishedPose:
        return PolishedPose(pose, verify_pose(mesh, pose, image, camera, depth=depth))

    def aligned(start: PolishedPose) -> PolishedPose:
        moved = judge(align_pose(mesh, start.cam_from_obj, image, camera))
        return max(start, moved, key=_score)

    centre = mesh.bounds.double().mean(0)
    best = aligned(judge(cam_from_obj.double()))
    for level, turn in enumerate(_TURNS):
        for _ in range(_MOST_MOVES):
            neighbours = _neighbours(best.cam_from_obj, centre, turn, _STRETCH / 2**level)
            better = max((judge(each) for each in neighbours), key=_score)
            if _score(better) <= _score(best):
                break
            best = better
        best = aligned(best)
    return best


def _score(pose: PolishedPose) -> float:
    return pose.check.score


def _neighbours(pose: Tensor, centre: Tensor, turn: float, stretch: float) -> Float[Tensor, "n 4 4"]:
    """Turned about each axis of the camera through the object's centre, and nearer or farther on its ray."""
    middle = transform(pose, centre[None])[0]
    axes = torch.eye(3, dtype=torch.float64)
    turns = exp(turn * torch.cat([axes, -axes]))
    moved = pose.repeat(len(turns) + 2, 1, 1)
    moved[:6, :3, :3] = turns @ pose[:3, :3]
    moved[:6, :3, 3] = turns @ (pose[:3, 3] - middle) + middle
    moved[6:, :3, 3] += torch.tensor([[stretch], [-stretch]], dtype=torch.float64) * middle
    return moved
