"""Augmentation of labelled pictures: their look, and where their pixels are, with all that goes along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from sightline.geometry.boxes import area, clip
from sightline.rtdetr_pose.picture_moves import PictureMove, make_move, refuse_move
from sightline.rtdetr_pose.pictures import LabelledPicture, ObjectClass
from sightline.synthetic.corruptions import blur, fog, jpeg

Range = tuple[float, float]

_GRAIN = 1 << 20
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


@dataclass(frozen=True)
class PoseAugmentationSettings:
    """What is done to pictures; each share is the chance that it is done.

    Args:
        move_share: of a move: turn, zoom and shift.
        turn: largest turn, radians.
        zoom: least and largest factor.
        shift: largest shift, in shares of width and height.
        min_inside: share of each box that must stay in the picture; else the picture is not moved.
        flip_share: of a mirror, where every object of the picture is its own mirror image or has no pose.
        color_share: of other brightness, contrast, saturation and colours.
        brightness: largest relative change.
        contrast: largest relative change.
        saturation: largest relative change.
        cast: largest relative change of a channel.
        gamma: least and largest exponent.
        blur_share: of blur.
        blur_px: sigma, in pixels of a picture 640 wide.
        haze_share: of haze, where there is depth.
        haze: optical depth of what is farthest.
        noise_share: of noise.
        noise: standard deviation, in steps of 255.
        jpeg_share: of compression.
        jpeg_quality: 1 to 100.

    Raises:
        ValueError: a share that is none, or a range that is empty.
    """

    move_share: float = 0.5
    turn: float = 0.6
    zoom: Range = (0.8, 1.25)
    shift: float = 0.12
    min_inside: float = 0.8
    flip_share: float = 0.3
    color_share: float = 0.6
    brightness: float = 0.25
    contrast: float = 0.25
    saturation: float = 0.3
    cast: float = 0.1
    gamma: Range = (0.8, 1.25)
    blur_share: float = 0.25
    blur_px: Range = (0.5, 2.5)
    haze_share: float = 0.08
    haze: Range = (0.1, 0.8)
    noise_share: float = 0.5
    noise: Range = (0.5, 6.0)
    jpeg_share: float = 0.15
    jpeg_quality: Range = (40.0, 95.0)

    def __post_init__(self) -> None:
        """Check the shares and ranges."""
        for name, value in vars(self).items():
            if (name.endswith("_share") or name == "min_inside") and not 0 <= value <= 1:
                raise ValueError(f"{name}: expected a share in [0, 1], got {value}")
            if isinstance(value, tuple) and not 0 <= value[0] <= value[1]:
                raise ValueError(f"{name}: expected (least, largest) of at least 0, got {value}")

    @classmethod
    def of_generated(cls) -> PoseAugmentationSettings:
        """For pictures that are pasted anew each time, in all places and turns already: only their look."""
        return cls(move_share=0.0, flip_share=0.0)


class PoseAugmentation:
    """Draws moves and looks.

    Args:
        settings: what is done.

    Example:
        >>> image, K = np.full((64, 96, 3), 90, np.uint8), np.array([[80.0, 0, 47], [0, 80, 31], [0, 0, 1]])
        >>> nothing = (np.zeros(0, np.int64), np.zeros((0, 4)), K, np.zeros((0, 4, 4)), None, None)
        >>> picture = LabelledPicture("a wall", image, *nothing)
        >>> PoseAugmentation().draw_move(np.random.default_rng(0), picture, (96, 64), []).size
        (96, 64)
    """

    def __init__(self, settings: PoseAugmentationSettings | None = None) -> None:
        self.settings = settings or PoseAugmentationSettings()

    def draw_move(
        self,
        rng: np.random.Generator,
        picture: LabelledPicture,
        new_size: tuple[int, int],
        classes: Sequence[ObjectClass],
    ) -> PictureMove:
        """A move to a picture of a new size that loses no box and is true; the plain resize otherwise.

        Args:
            rng: draws it.
            picture: what will be moved.
            new_size: ``(width, height)``.
            classes: what is known of its labels.
        """
        settings = self.settings
        mirrored = bool(rng.uniform() < settings.flip_share)
        moved = bool(rng.uniform() < settings.move_share)
        angle = float(rng.uniform(-settings.turn, settings.turn))
        zoom = float(np.exp(rng.uniform(*np.log(settings.zoom))))
        across, down = (float(s) for s in rng.uniform(-settings.shift, settings.shift, 2))
        plain = make_move(picture.K, picture.size, new_size)
        if mirrored:
            flip = make_move(picture.K, picture.size, new_size, mirrored=True)
            mirrored = refuse_move(picture, flip, classes) is None
            plain = flip if mirrored else plain
        if not moved:
            return plain
        for turn in (angle, 0.0):  # boxes that could not be turned can still be cropped
            move = make_move(
                picture.K,
                picture.size,
                new_size,
                angle=turn,
                zoom=zoom,
                shift=(across, down),
                mirrored=mirrored,
            )
            if refuse_move(picture, move, classes) is None and self._keeps_boxes(picture, move):
                return move
        return plain

    def _keeps_boxes(self, picture: LabelledPicture, move: PictureMove) -> bool:
        """Whether boxes stay inside; of turned ones the box about their corners, which is larger."""
        import torch

        x1, y1, x2, y2 = picture.boxes.T
        corners = np.stack([np.stack([x1, x2, x2, x1], -1), np.stack([y1, y1, y2, y2], -1)], -1)
        moved = corners @ move.affine[:, :2].T + move.affine[:, 2]
        boxes = torch.from_numpy(np.concatenate([moved.min(1), moved.max(1)], -1).reshape(-1, 4))
        return bool((area(clip(boxes, move.size)) >= self.settings.min_inside * area(boxes)).all())

    def change_look(self, rng: np.random.Generator, picture: LabelledPicture) -> LabelledPicture:
        """The same picture in other light, through another camera.

        Args:
            rng: draws it.
            picture: stays as it is.
        """
        settings, image = self.settings, picture.image
        draws = rng.uniform(size=5)
        if draws[0] < settings.haze_share and picture.depth is not None:
            image = fog(image, float(rng.uniform(*settings.haze)), picture.depth)
        if draws[1] < settings.color_share:
            image = self._change_colors(rng, image)
        if draws[2] < settings.blur_share:
            image = blur(image, float(rng.uniform(*settings.blur_px)))
        if draws[3] < settings.noise_share:
            image = _add_grain(rng, image, float(rng.uniform(*settings.noise)))
        if draws[4] < settings.jpeg_share:
            image = jpeg(image, int(rng.uniform(*settings.jpeg_quality)))
        return picture._replace(image=image)

    def _change_colors(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        """Gamma, brightness and contrast by a table a channel, saturation by a matrix of the channels."""
        import cv2

        settings = self.settings
        gains = 1 + rng.uniform(-settings.cast, settings.cast, 3)
        factor = (1 + rng.uniform(-settings.brightness, settings.brightness)) * gains
        slope = 1 + rng.uniform(-settings.contrast, settings.contrast)
        power = np.exp(rng.uniform(*np.log(settings.gamma)))
        values = (np.arange(256) / 255) ** power
        middle = float(image[::4, ::4].mean()) / 255
        tables = middle + slope * (values[:, None] * factor - middle)
        table = np.clip(np.rint(255 * tables), 0, 255).astype(np.uint8)[None]
        image = cv2.LUT(image, table)
        saturation = np.float32(1 + rng.uniform(-settings.saturation, settings.saturation))
        mix = saturation * np.eye(3, dtype=np.float32) + (1 - saturation) * np.tile(_LUMA, (3, 1))
        return cv2.transform(image, mix)


@cache
def _grain() -> np.ndarray:
    """White noise that is drawn once; pictures take parts of it."""
    return np.random.default_rng(0).standard_normal(_GRAIN, dtype=np.float32)


def _add_grain(rng: np.random.Generator, image: np.ndarray, deviation: float) -> np.ndarray:
    grain = _grain()
    if image.size >= len(grain):
        grain = np.resize(grain, 2 * image.size)
    start = int(rng.integers(0, len(grain) - image.size))
    noise = (grain[start : start + image.size] * np.float32(deviation)).reshape(image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)
