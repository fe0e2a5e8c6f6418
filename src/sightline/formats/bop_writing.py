"""BOP scene folders, written: the inverse of :mod:`sightline.formats.bop_scene`, whole or not at all."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.formats.atomic import atomic_folder
from sightline.formats.bop_models import MM
from sightline.formats.frame_files import put_depth, put_image, require_plain_camera
from sightline.formats.frames import Frame, FrameObject, load_mask
from sightline.formats.images import EncodedPicture, read_image_size, write_image, write_mask
from sightline.formats.json_files import write_json
from sightline.formats.pixel_boxes import bop_from_xyxy, box_of_mask
from sightline.geometry.cameras import Camera

_INVISIBLE = [-1, -1, -1, -1]


class BopSceneWriter:
    """Write frames to a BOP scene folder; if the ``with`` block fails, no folder appears.

    ``scene_gt_info.json`` is made of the masks as BOP's own tool makes it: boxes join the first and the last
    pixel (``width = last - first``), ``px_count_all`` counts the silhouette outside the picture too where
    ``silhouette_px`` says so, ``visib_fract = px_count_visib / px_count_all``.

    Args:
        folder: such as ``test/000002``.
        overwrite: whether an existing scene is replaced.
        depth_scale_mm: millimetres in one step of the depth files; depth *files* that are copied keep theirs.
        image_suffix: of the pictures, ``".png"`` or ``".jpg"``; picture files that are copied keep theirs.

    Raises:
        FileExistsError: the folder is not empty and ``overwrite`` was not asked for.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "000001"
        >>> frame = Frame(3, "", camera=Camera.from_focal(100.0, 8, 6), image=np.zeros((6, 8, 3), np.uint8))
        >>> with BopSceneWriter(folder) as writer:
        ...     writer.add(frame)
        >>> sorted(path.name for path in folder.iterdir())
        ['rgb', 'scene_camera.json', 'scene_gt.json', 'scene_gt_info.json']
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        overwrite: bool = False,
        depth_scale_mm: float | int = 1.0,
        image_suffix: str = ".png",
    ) -> None:
        self.folder = Path(folder)
        self.overwrite = overwrite
        self.depth_scale_mm = float(depth_scale_mm)
        self.image_suffix = image_suffix
        self._exits = ExitStack()
        self._cameras: dict[int, dict[str, Any]] = {}
        self._truth: dict[int, list[dict[str, Any]]] = {}
        self._info: dict[int, list[dict[str, Any]]] = {}

    def __enter__(self) -> BopSceneWriter:
        self._temporary = self._exits.enter_context(atomic_folder(self.folder, overwrite=self.overwrite))
        self._exits.push(self._finish)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return self._exits.__exit__(kind, error, trace)

    def add(self, frame: Frame) -> None:
        """Write one frame.

        Args:
            frame: with a camera without distortion and a picture; each object with a number and a pose.

        Raises:
            ValueError: something is missing, the number was written before, the picture does not fit the
                camera, or the camera has a distortion, which BOP cannot hold.
        """
        where = f"{self.folder}: image {frame.frame_id}"
        camera = require_plain_camera(frame, "BOP")
        if frame.frame_id in self._cameras:
            raise ValueError(f"{where}: there is a frame of this number already")
        self._write_image(frame, camera, where)
        scale = self._write_depth(frame)
        self._cameras[frame.frame_id] = camera_entry(frame, camera, scale)
        depth = frame.read_depth()
        truth, info = [], []
        for index, found in enumerate(frame.objects):
            truth.append(truth_entry(found, f"{where}, object {index}"))
            info.append(self._write_masks(frame.frame_id, index, found, camera, depth))
        self._truth[frame.frame_id], self._info[frame.frame_id] = truth, info

    def _write_image(self, frame: Frame, camera: Camera, where: str) -> None:
        is_file = isinstance(frame.image, Path | EncodedPicture)
        size = read_image_size(frame.image) if is_file else frame.read_image().shape[1::-1]
        if size != camera.image_size:
            raise ValueError(f"{where}: expected a picture of {camera.image_size} pixels, got {size}")
        stem = self._temporary / "rgb" / f"{frame.frame_id:06d}"
        if is_file:
            put_image(frame, stem)
        else:
            write_image(stem.with_name(stem.name + self.image_suffix), frame.read_image())

    def _write_depth(self, frame: Frame) -> float:
        target = self._temporary / "depth" / f"{frame.frame_id:06d}.png"
        return put_depth(frame, target, self.depth_scale_mm if isinstance(frame.depth, np.ndarray) else None)

    def _write_masks(
        self, frame_id: int, index: int, found: FrameObject, camera: Camera, depth: np.ndarray | None
    ) -> dict[str, Any]:
        masks = {"mask": found.mask_amodal, "mask_visib": found.mask}
        loaded = {kind: load_mask(source) for kind, source in masks.items() if source is not None}
        for kind, mask in loaded.items():
            if mask.shape[::-1] != camera.image_size:
                raise ValueError(
                    f"{self.folder}: image {frame_id}, object {index}: expected a mask of "
                    f"{camera.image_size} pixels, got {mask.shape[::-1]}"
                )
            write_mask(self._temporary / kind / f"{frame_id:06d}_{index:06d}.png", mask)
        return info_entry(found, loaded.get("mask"), loaded.get("mask_visib"), depth)

    def _finish(self, kind: type[BaseException] | None, *_failure: object) -> None:
        if kind is None:
            write_json(self._temporary / "scene_camera.json", self._cameras)
            write_json(self._temporary / "scene_gt.json", self._truth)
            write_json(self._temporary / "scene_gt_info.json", self._info)


def _rotation_and_mm(pose: Float[Tensor, "4 4"]) -> tuple[list[float], list[float]]:
    return pose[:3, :3].flatten().tolist(), (pose[:3, 3] / MM).tolist()


def camera_entry(frame: Frame, camera: Camera, depth_scale_mm: float) -> dict[str, Any]:
    """What ``scene_camera.json`` says of a frame."""
    entry: dict[str, Any] = {"cam_K": camera.K.flatten().tolist(), "depth_scale": depth_scale_mm}
    if frame.cam_from_world is not None:
        entry["cam_R_w2c"], entry["cam_t_w2c"] = _rotation_and_mm(frame.cam_from_world)
    return entry


def truth_entry(found: FrameObject, where: str) -> dict[str, Any]:
    """One object of ``scene_gt.json``; `where` it is, for the error where it has no pose or number."""
    if found.cam_from_obj is None or found.obj_id is None:
        raise ValueError(f"{where} ({found.name}): expected a pose and an object number")
    R, t_mm = _rotation_and_mm(found.cam_from_obj)
    return {"cam_R_m2c": R, "cam_t_m2c": t_mm, "obj_id": found.obj_id}


def info_entry(
    found: FrameObject,
    silhouette: Bool[np.ndarray, "h w"] | None,
    visible: Bool[np.ndarray, "h w"] | None,
    depth: np.ndarray | None,
) -> dict[str, Any]:
    """One object of ``scene_gt_info.json``; where one of its masks is not there the other stands in."""
    visible = silhouette if visible is None else visible
    seen = 0 if visible is None else int(visible.sum())
    whole = _silhouette_px(found, silhouette, seen)
    silhouette = visible if silhouette is None else silhouette
    measured = 0 if silhouette is None or depth is None else int((depth[silhouette] > 0).sum())
    hidden = visible is not None and not seen  # BOP's tool gives no boxes then
    visible_box = found.box if visible is None else box_of_mask(visible)
    whole_box = (
        box_of_mask(silhouette) if found.box_amodal is None and silhouette is not None else found.box_amodal
    )
    return {
        "bbox_obj": _INVISIBLE if hidden else _bop_box(whole_box),
        "bbox_visib": _INVISIBLE if hidden else _bop_box(visible_box),
        "px_count_all": whole,
        "px_count_valid": measured,
        "px_count_visib": seen,
        "visib_fract": seen / whole if whole else found.visibility or 0.0,
    }


def _silhouette_px(found: FrameObject, silhouette: Bool[np.ndarray, "h w"] | None, seen: int) -> int:
    inside = seen if silhouette is None else int(silhouette.sum())
    if found.silhouette_px is not None:
        return max(found.silhouette_px, inside)
    if silhouette is None and found.visibility:
        return max(round(seen / found.visibility), inside)
    return inside


def _bop_box(box: Float[Tensor, "4"] | None) -> list[int]:
    return _INVISIBLE if box is None else torch.round(bop_from_xyxy(box)).int().tolist()
