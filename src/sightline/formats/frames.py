"""The common ground of the data sets: a frame with its camera, its pictures and the objects in it.

Every format reads to these and writes from these, so that any can become any other. Pictures, depth maps and
masks stay files until somebody looks at them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from sightline.formats.images import EncodedPicture, read_depth, read_image, read_image_size, read_mask
from sightline.formats.pixel_boxes import box_of_mask
from sightline.formats.rle import Rle
from sightline.geometry.cameras import Camera
from sightline.geometry.symmetry import SymmetryGroup

MaskSource = np.ndarray | Path | Rle


def load_mask(source: MaskSource) -> Bool[np.ndarray, "h w"]:
    """The pixels of a mask that is an array, a file or a run-length code.

    Args:
        source: ``(h, w)`` bool, a picture's path, or an :class:`~sightline.formats.rle.Rle`.

    Returns:
        ``(h, w)`` bool.

    Example:
        >>> load_mask(np.ones((1, 2), dtype=bool)).tolist()
        [[True, True]]
    """
    if isinstance(source, Rle):
        return source.decode()
    return read_mask(source) if isinstance(source, Path) else source


@dataclass(frozen=True, eq=False)
class FrameObject:
    """One object in a frame: what is annotated, or what was found.

    Args:
        name: of the object, as in ``obj_000005`` or ``mug``.
        obj_id: its number, where the format has one.
        cam_from_obj: ``(4, 4)`` float64, metres.
        box: ``(4,)`` xyxy pixels around the visible part.
        box_amodal: ``(4,)`` xyxy pixels around the whole silhouette; may leave the picture.
        mask: the visible pixels.
        mask_amodal: the silhouette's pixels, as if nothing stood before it.
        silhouette_px: how many pixels the silhouette has, those outside the picture too.
        visibility: the visible share of the silhouette, in [0, 1].
        score: how sure a method was.
    """

    name: str
    obj_id: int | None = None
    cam_from_obj: Float[Tensor, "4 4"] | None = None
    box: Float[Tensor, "4"] | None = None
    box_amodal: Float[Tensor, "4"] | None = None
    mask: MaskSource | None = None
    mask_amodal: MaskSource | None = None
    silhouette_px: int | None = None
    visibility: float | None = None
    score: float | None = None

    def visible_box(self) -> Float[Tensor, "4"] | None:
        """The given box, or that of the mask; None where there is neither."""
        if self.box is not None or self.mask is None:
            return self.box
        return box_of_mask(load_mask(self.mask))


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a data set with all that is known about it.

    Args:
        frame_id: its number in its scene.
        name: its name, such as the picture's file name.
        objects: what is in it.
        scene_id: the scene's number.
        camera: None where the format has none.
        image: ``(h, w, 3)`` uint8 RGB, or the file, on disk or in memory.
        depth: ``(h, w)`` float metres, 0 where missing, or the file, on disk or in memory.
        depth_scale_mm: millimetres in one step of a depth *file*.
        cam_from_world: ``(4, 4)`` float64, metres.
        size: ``(width, height)`` pixels, where the format says it beside camera and picture.
    """

    frame_id: int
    name: str
    objects: tuple[FrameObject, ...] = ()
    scene_id: int = 0
    camera: Camera | None = None
    image: np.ndarray | Path | EncodedPicture | None = None
    depth: np.ndarray | Path | EncodedPicture | None = None
    depth_scale_mm: float = 1.0
    cam_from_world: Float[Tensor, "4 4"] | None = None
    size: tuple[int, int] | None = None

    def read_image(self) -> UInt8[np.ndarray, "h w 3"]:
        """The picture, ``(h, w, 3)`` uint8 RGB.

        Raises:
            ValueError: the frame has none, or its file is damaged.
        """
        if self.image is None:
            raise ValueError(f"frame {self.name}: expected a picture, there is none")
        return self.image if isinstance(self.image, np.ndarray) else read_image(self.image)

    def read_depth(self) -> Float32[np.ndarray, "h w"] | None:
        """The depth map, ``(h, w)`` float32 metres, 0 where missing; None where the frame has none."""
        if self.depth is None or isinstance(self.depth, np.ndarray):
            return None if self.depth is None else self.depth.astype(np.float32)
        return read_depth(self.depth, self.depth_scale_mm)

    @property
    def image_size(self) -> tuple[int, int] | None:
        """``(width, height)`` as the camera, the format or the picture says, pixels."""
        if self.camera is not None:
            return self.camera.image_size
        if self.size is not None:
            return self.size
        if self.image is None or isinstance(self.image, np.ndarray):
            return None if self.image is None else (self.image.shape[1], self.image.shape[0])
        return read_image_size(self.image)


@runtime_checkable
class Frames(Protocol):
    """Numbered frames, made when they are asked for; every sequence of frames is such."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, index: int, /) -> Frame:
        """The frame of a number from 0."""
        ...


class MeshFile(NamedTuple):
    """A mesh file of a data set with the unit that its format prescribes (None: find out)."""

    path: Path
    unit: str | None


@dataclass(frozen=True, eq=False)
class FrameSet:
    """The frames of a data set with the meshes of its objects.

    Args:
        frames: made when they are asked for.
        meshes: by the object's name.
        symmetries: by the object's name.
        ignored: what the folder holds that is not read, in words.
    """

    frames: Sequence[Frame]
    meshes: Mapping[str, MeshFile] = field(default_factory=dict)
    symmetries: Mapping[str, SymmetryGroup] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


class Losses(Counter[str]):
    """What a format could not hold, counted while writing.

    Example:
        >>> losses = Losses()
        >>> losses["depth maps"] += 2
        >>> losses.lines()
        ['depth maps: 2']
    """

    def lines(self) -> list[str]:
        """One line a kind, the most frequent first."""
        return [f"{what}: {count}" for what, count in self.most_common() if count]
