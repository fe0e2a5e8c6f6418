"""Crop, scale, turn and mirror a labelled picture with all that belongs to it, exactly.

A turn of the picture about its principal point is a turn of the camera about its axis; a crop and a resize
only change K. So every move is ``pixel' ~ K' Rz K^-1 pixel``, an affine map, and R and t become Rz R, Rz t.
A mirrored picture shows a mirrored object, which no pose describes, unless it is its own mirror image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float64

from sightline.geometry import pixel_affine
from sightline.geometry.boxes import boxes_from_points
from sightline.rtdetr_pose.pictures import LabelledPicture, ObjectClass
from sightline.synthetic.pose_composites import projected_box

_FILL = (114, 114, 114)  # what is shown beyond the picture
_STRAIGHT = 1e-9


@dataclass(frozen=True, eq=False)
class PictureMove:
    """Where the pixels of a picture go.

    Args:
        affine: ``(2, 3)`` float64 new_from_old pixels.
        size: ``(width, height)`` of the new picture.
        K: ``(3, 3)`` of the new picture, pixels; None where the old one has no camera.
        turn: ``(3, 3)`` by which the camera turns; its determinant is -1 for a mirror.
    """

    affine: Float64[np.ndarray, "2 3"]
    size: tuple[int, int]
    K: Float64[np.ndarray, "3 3"] | None
    turn: Float64[np.ndarray, "3 3"]

    @property
    def mirrored(self) -> bool:
        """Whether left and right are swapped."""
        return bool(self.turn[0, 0] * self.turn[1, 1] - self.turn[0, 1] * self.turn[1, 0] < 0)

    def is_identity(self, size: tuple[int, int]) -> bool:
        """Whether a picture of that size stays as it is."""
        return size == self.size and bool(np.abs(self.affine - np.eye(3)[:2]).max() < _STRAIGHT)

    @property
    def straight(self) -> bool:
        """Whether nothing is turned: rows stay rows."""
        return bool(np.abs(self.affine[[0, 1], [1, 0]]).max() < _STRAIGHT)


def make_move(
    K: Float64[np.ndarray, "3 3"] | None,
    size: tuple[int, int],
    new_size: tuple[int, int],
    *,
    angle: float = 0.0,
    zoom: float = 1.0,
    shift: tuple[float, float] = (0.0, 0.0),
    mirrored: bool = False,
) -> PictureMove:
    """A turn and a mirror, then a crop by zoom and shift, then the resize to a new size.

    Args:
        K: of the picture, pixels; None for a picture without a camera, which is turned about its middle.
        size: ``(width, height)`` of the picture.
        new_size: ``(width, height)`` it is brought to, without borders: both axes have their own scale.
        angle: of the turn, radians, from the x axis towards the y axis.
        zoom: factor by which things become larger beside the resize.
        shift: of things in the new picture, in shares of its width and height.
        mirrored: whether left and right are swapped first.

    Returns:
        The move.

    Example:
        >>> K = np.array([[500.0, 0, 319.5], [0, 500, 239.5], [0, 0, 1]])
        >>> make_move(K, (640, 480), (320, 240)).K[0].tolist()
        [250.0, 0.0, 159.5]
    """
    middle = (np.array(size) - 1) / 2
    camera = K if K is not None else np.array([[1.0, 0, middle[0]], [0, 1, middle[1]], [0, 0, 1]])
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])
    flipped = camera.copy()
    if mirrored:
        turn = turn @ np.diag([-1.0, 1.0, 1.0])
        flipped[0, 2] = size[0] - 1 - camera[0, 2]
    resize = np.eye(3)
    resize[:2] = pixel_affine.resize(size, new_size).numpy()
    new_middle = (np.array(new_size) - 1) / 2
    closer = np.eye(3)
    closer[[0, 1], [0, 1]] = zoom
    closer[:2, 2] = (1 - zoom) * new_middle + np.array(shift) * new_size
    new_K = closer @ resize @ flipped
    affine = new_K @ turn @ np.linalg.inv(camera)
    return PictureMove(affine[:2], new_size, None if K is None else new_K, turn)


def move_picture(
    picture: LabelledPicture, move: PictureMove, classes: Sequence[ObjectClass]
) -> LabelledPicture:
    """Apply a move to image, boxes, masks, depth, K and poses together.

    Boxes of objects with a pose and known points are projected anew where the picture is turned; other boxes
    could only be guessed.

    Args:
        picture: what is moved.
        move: made for a picture of its size and camera.
        classes: what is known of its labels.

    Returns:
        The new picture.

    Raises:
        ValueError: a mirror of an object with a pose that is not its own mirror image, or a turn of a box
            whose object's points or pose are not known.
    """
    refused = refuse_move(picture, move, classes)
    if refused is not None:
        raise ValueError(f"{picture.name}: {refused}")
    if move.is_identity(picture.size):
        return picture
    poses = picture.cam_from_obj.copy()
    for row in np.flatnonzero(picture.pose_valid):
        pose = poses[row]
        if move.mirrored:
            reflection = classes[int(picture.labels[row])].reflection
            assert reflection is not None
            pose = pose @ reflection
        poses[row, :3] = move.turn @ pose[:3]
        poses[row, 3] = (0, 0, 0, 1)
    masks = None if picture.masks is None else _move_masks(picture.masks, move)
    return LabelledPicture(
        picture.name,
        _move_image(picture.image, move),
        picture.labels,
        _move_boxes(picture, move, poses, classes),
        move.K,
        poses,
        masks,
        None if picture.depth is None else _move_depth(picture.depth, move),
    )


def refuse_move(picture: LabelledPicture, move: PictureMove, classes: Sequence[ObjectClass]) -> str | None:
    """Why a move cannot be made truly, in words; None where it can."""
    if (picture.K is None) != (move.K is None):
        return "the move was made for another camera"
    for row, (label, posed) in enumerate(zip(picture.labels, picture.pose_valid, strict=True)):
        known = classes[int(label)]
        if move.mirrored and posed and known.reflection is None:
            return f"object {row} ({known.name}) mirrored is another object: no pose describes it"
        if not move.straight and not (posed and known.points is not None):
            return f"object {row} ({known.name}) has no pose or no points: its turned box is not known"
    return None


def _move_image(image: np.ndarray, move: PictureMove) -> np.ndarray:
    size, affine = (image.shape[1], image.shape[0]), move.affine
    whole = pixel_affine.resize(size, move.size).numpy()
    scale = abs(np.linalg.det(affine[:, :2])) ** 0.5
    if np.abs(affine - whole).max() < _STRAIGHT:
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        return cv2.resize(image, move.size, interpolation=way)
    block = int(1 / scale)
    if block > 1:  # average before interpolation takes single texels
        small = (max(size[0] // block, 1), max(size[1] // block, 1))
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        back = pixel_affine.invert(pixel_affine.resize(size, small))
        affine = pixel_affine.compose(torch.from_numpy(affine), back).numpy()
    return cv2.warpAffine(image, affine, move.size, flags=cv2.INTER_LINEAR, borderValue=_FILL)


def _move_masks(masks: np.ndarray, move: PictureMove) -> np.ndarray:
    moved = np.zeros((len(masks), move.size[1], move.size[0]), np.uint8)
    for row, mask in enumerate(masks):
        cv2.warpAffine(mask.view(np.uint8), move.affine, move.size, dst=moved[row], flags=cv2.INTER_NEAREST)
    return moved.view(bool)


def _move_depth(depth: np.ndarray, move: PictureMove) -> np.ndarray:
    """Depth along the axis, which no turn about it changes; the nearest pixel's, for edges stay edges."""
    known = np.where(np.isfinite(depth), depth, 0).astype(np.float32)
    return cv2.warpAffine(known, move.affine, move.size, flags=cv2.INTER_NEAREST)


def _move_boxes(
    picture: LabelledPicture, move: PictureMove, poses: np.ndarray, classes: Sequence[ObjectClass]
) -> np.ndarray:
    x1, y1, x2, y2 = picture.boxes.T
    corners = np.stack([np.stack([x1, x2, x2, x1], -1), np.stack([y1, y1, y2, y2], -1)], -1)
    moved = corners @ move.affine[:, :2].T + move.affine[:, 2]
    boxes = boxes_from_points(torch.from_numpy(moved)).numpy().reshape(-1, 4)
    if not move.straight and move.K is not None:
        for row, label in enumerate(picture.labels):
            points = classes[int(label)].points
            assert points is not None
            boxes[row] = projected_box(points, poses[row], move.K)
    return boxes
