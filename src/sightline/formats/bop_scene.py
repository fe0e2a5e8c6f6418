"""BOP scene folders, read: ``scene_camera``, ``scene_gt``, ``scene_gt_info``, pictures, depth and masks.

Millimetres and BOP's boxes end here. Pictures, depth maps and masks are not opened before they are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import overload

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.formats.bop_models import MM, object_name
from sightline.formats.frames import Frame, FrameObject, MaskSource
from sightline.formats.images import read_image_size
from sightline.formats.json_files import Fields, read_json
from sightline.formats.pixel_boxes import xyxy_from_bop

_PICTURE_FOLDERS = ("rgb", "gray")
_PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


class BopScene(Sequence[Frame]):
    """One scene of a BOP data set, a sequence of frames by ascending image number.

    Objects are named ``obj_000005``. Without ``scene_gt.json`` (test pictures without public truth) the
    frames hold no objects.

    Args:
        folder: such as ``test/000002``.

    Raises:
        FileNotFoundError: no ``scene_camera.json``.
        ValueError: a file is no JSON or its keys are no image numbers.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.scene_id = int(self.folder.name) if self.folder.name.isdigit() else 0
        self._cameras = self._load("scene_camera.json")
        has_truth = (self.folder / "scene_gt.json").is_file()
        has_info = (self.folder / "scene_gt_info.json").is_file()
        self._truth = self._load("scene_gt.json") if has_truth else {}
        self._info = self._load("scene_gt_info.json") if has_info else {}
        self.image_ids: list[int] = sorted(self._cameras)

    def __len__(self) -> int:
        return len(self.image_ids)

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> list[Frame]: ...
    def __getitem__(self, index: int | slice) -> Frame | list[Frame]:
        """The frame at a position (not of a number, see :meth:`frame`), or several."""
        if isinstance(index, slice):
            return [self.frame(image_id) for image_id in self.image_ids[index]]
        return self.frame(self.image_ids[index])

    def frame(self, image_id: int) -> Frame:
        """The frame of an image number.

        Raises:
            KeyError: no such image.
            FileNotFoundError: its picture is missing.
            ValueError: a key is missing or malformed; file, image and key are named.
        """
        if image_id not in self._cameras:
            raise KeyError(f"{self.folder}: no image {image_id} in scene_camera.json")
        entry = self._fields("scene_camera.json", f"image {image_id}", self._cameras[image_id])
        picture = self._picture(image_id)
        return Frame(
            frame_id=image_id,
            name=picture.relative_to(self.folder).as_posix(),
            objects=self._objects(image_id),
            scene_id=self.scene_id,
            camera=entry.camera("cam_K", read_image_size(picture)),
            image=picture,
            depth=self._find("depth", image_id),
            depth_scale_mm=entry.number("depth_scale", 1.0),
            cam_from_world=entry.pose("cam_R_w2c", "cam_t_w2c", MM) if "cam_R_w2c" in entry else None,
        )

    def visibility(self, image_id: int) -> list[tuple[int, float]]:
        """Number and visible share of each object of an image, 1 where that is not told; opens no picture.

        Raises:
            ValueError: a key is missing or malformed.
        """
        if image_id not in self._truth:
            return []
        listed = self._entries("scene_gt.json", image_id, self._truth[image_id])
        shares = [1.0] * len(listed)
        if image_id in self._info:
            infos = self._entries("scene_gt_info.json", image_id, self._info[image_id])
            shares = [info.number("visib_fract") for info in infos]
        return [(truth.integer("obj_id"), share) for truth, share in zip(listed, shares, strict=True)]

    def _load(self, name: str) -> dict[int, object]:
        path = self.folder / name
        content = Fields.of(read_json(path), path, "top level")
        for key in content.values:
            if not key.isdigit():
                raise ValueError(f"{path}: expected image numbers as keys, got {key!r}")
        return {int(key): value for key, value in content.values.items()}

    def _fields(self, name: str, where: str, value: object) -> Fields:
        return Fields.of(value, self.folder / name, where)

    def _find(self, kind: str, image_id: int) -> Path | None:
        stems = (self.folder / kind / f"{image_id:06d}{suffix}" for suffix in _PICTURE_SUFFIXES)
        return next((path for path in stems if path.is_file()), None)

    def _picture(self, image_id: int) -> Path:
        for kind in _PICTURE_FOLDERS:
            if (path := self._find(kind, image_id)) is not None:
                return path
        raise FileNotFoundError(f"{self.folder}: no picture of image {image_id} in rgb/ or gray/")

    def _objects(self, image_id: int) -> tuple[FrameObject, ...]:
        if not self._truth:
            return ()
        if image_id not in self._truth:
            raise ValueError(f"{self.folder / 'scene_gt.json'}: the key '{image_id}' is missing")
        listed = self._entries("scene_gt.json", image_id, self._truth[image_id])
        infos: list[Fields] | list[None] = [None] * len(listed)
        if image_id in self._info:
            infos = self._entries("scene_gt_info.json", image_id, self._info[image_id])
            if len(infos) != len(listed):
                raise ValueError(
                    f"{self.folder / 'scene_gt_info.json'}: image {image_id}: expected {len(listed)} objects "
                    f"as in scene_gt.json, got {len(infos)}"
                )
        return tuple(
            self._object(image_id, i, truth, info)
            for i, (truth, info) in enumerate(zip(listed, infos, strict=True))
        )

    def _entries(self, name: str, image_id: int, value: object) -> list[Fields]:
        if not isinstance(value, list):
            raise ValueError(f"{self.folder / name}: image {image_id}: expected a list of objects")
        return [self._fields(name, f"image {image_id}, object {i}", entry) for i, entry in enumerate(value)]

    def _object(self, image_id: int, index: int, truth: Fields, info: Fields | None) -> FrameObject:
        masks = [self._mask(kind, image_id, index) for kind in ("mask_visib", "mask")]
        return object_of_truth(truth, info, *masks)

    def _mask(self, kind: str, image_id: int, index: int) -> Path | None:
        path = self.folder / kind / f"{image_id:06d}_{index:06d}.png"
        return path if path.is_file() else None


def object_of_truth(
    truth: Fields, info: Fields | None, mask: MaskSource | None, mask_amodal: MaskSource | None
) -> FrameObject:
    """One object as BOP annotates it.

    Args:
        truth: its entry of ``scene_gt``.
        info: its entry of ``scene_gt_info``, where there is one.
        mask: its visible pixels.
        mask_amodal: its silhouette.

    Raises:
        ValueError: a key is missing or malformed.

    Example:
        >>> entry = {"obj_id": 5, "cam_R_m2c": [1, 0, 0, 0, 1, 0, 0, 0, 1], "cam_t_m2c": [0, 0, 700]}
        >>> found = object_of_truth(Fields(entry, Path("scene_gt.json"), "image 3"), None, None, None)
        >>> found.name, round(float(found.cam_from_obj[2, 3]), 6)
        ('obj_000005', 0.7)
    """
    obj_id = truth.integer("obj_id")
    found = FrameObject(
        name=object_name(obj_id),
        obj_id=obj_id,
        cam_from_obj=truth.pose("cam_R_m2c", "cam_t_m2c", MM),
        mask=mask,
        mask_amodal=mask_amodal,
    )
    if info is None:
        return found
    return replace(
        found,
        box=_seen_box(info, "bbox_visib"),
        box_amodal=_seen_box(info, "bbox_obj"),
        silhouette_px=info.integer("px_count_all") if "px_count_all" in info else None,
        visibility=info.number("visib_fract"),
    )


def _seen_box(info: Fields, key: str) -> Float[Tensor, "4"] | None:
    box = xyxy_from_bop(info.tensor(key, 4))
    return None if bool(torch.isnan(box).any()) else box
