"""Poses that a depth picture suggests, verified by colour and depth."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sightline.geometry.cameras import Camera
from sightline.objects.alignment import align_pose
from sightline.objects.depth_search import search_by_depth
from sightline.objects.verification import Verification, verify_pose
from sightline.records import PoseEstimate, TriangleMesh

_MOST = 4  # poses that are verified
_ALIGNED = 2  # of them are moved onto the colour picture too
_FREE_TURN, _FREE_SHIFT = math.pi / 3, 0.5  # radians, diameters: of motions that the depth does not fix


def poses_by_depth(
    mesh: TriangleMesh,
    image: NDArray[np.uint8],
    camera: Camera,
    depth: Float[Tensor, "h w"],
    box: Float[Tensor, "4"],
    *,
    name: str,
) -> list[tuple[PoseEstimate, Verification]]:
    """Poses of an object in a box found by depth, each with what colour and depth say of it.

    Args:
        mesh: the object, metres.
        image: ``(h, w, 3)`` uint8 RGB.
        camera: of both pictures.
        depth: ``(h, w)`` metres, 0 or NaN where missing.
        box: ``xyxy`` pixels around the object.
        name: the object's.

    Returns:
        Poses with their covariance by depth, the best borne out first.
    """
    verified = []
    for fit in search_by_depth(mesh, depth, camera, box, image=image, most=_MOST):
        check = verify_pose(mesh, fit.cam_from_obj, image, camera, depth=depth)
        matrix = fit.cam_from_obj
        covariance = _covariance(fit.information, mesh.diameter)
        pose = PoseEstimate(
            matrix[:3, :3], matrix[:3, 3], check.score, True, covariance, reason="found by depth", name=name
        )
        verified.append((pose, check))
    verified.sort(key=_score, reverse=True)
    for place, (pose, check) in enumerate(verified[:_ALIGNED]):
        moved = align_pose(mesh, pose.cam_from_obj, image, camera, covariance=pose.covariance)
        better = verify_pose(mesh, moved, image, camera, depth=depth)
        if better.score > check.score:
            verified[place] = (_moved(pose, moved, better.score), better)
    return sorted(verified, key=_score, reverse=True)


def _score(verified: tuple[PoseEstimate, Verification]) -> float:
    return verified[1].score


def _moved(pose: PoseEstimate, cam_from_obj: Tensor, score: float) -> PoseEstimate:
    covariance = pose.covariance
    return PoseEstimate(
        cam_from_obj[:3, :3], cam_from_obj[:3, 3], score, True, covariance, reason=pose.reason, name=pose.name
    )


def _covariance(information: Float[Tensor, "6 6"], diameter: float) -> Float[Tensor, "6 6"]:
    """The covariance by depth; what it does not fix is somewhere in the object's reach."""
    free = torch.tensor([_FREE_TURN] * 3 + [_FREE_SHIFT * diameter] * 3, dtype=torch.float64)
    return torch.linalg.inv(information + torch.diag(free**-2))
