"""A folder of pictures, masks, depth and cameras, read as a stream: one picture in memory at a time.

Two layouts, told apart by what is there. The plain one::

    masks/ID.png  or  masks/ID_OBJECT.png   what is not black is the object
    images/ID.png .jpg ...                  may be absent where the camera says width and height
    depth/ID.png .tif .npy .npz             pictures of 16 bits in steps of depth_unit_mm; arrays in metres
    cameras/ID.json  or  camera.json        for one picture, for all; else the photo's EXIF

and a BOP scene (``scene_camera.json``, ``scene_gt.json``, ``rgb/``, ``depth/``, ``mask_visib/``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args, overload

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from sightline.depth_scale.depth_network import DepthModel
from sightline.depth_scale.folder_listing import ScaleEntry, list_folder
from sightline.depth_scale.options import DepthMode
from sightline.formats.camera_json import read_camera
from sightline.formats.depth_arrays import read_depth_array
from sightline.formats.exif import camera_from_exif
from sightline.formats.frames import load_mask
from sightline.formats.images import read_depth, read_image_size
from sightline.formats.json_files import Fields, read_json
from sightline.geometry.cameras import Camera

_ASPECT_TOLERANCE = 0.02


@dataclass(frozen=True, eq=False)
class ScaleSample:
    """One object in one picture, read: mask and depth on one grid, the coarser of theirs.

    Args:
        entry: the files that it comes from.
        mask: ``(h, w)`` float32 in [0, 1], the share of each cell that is object.
        depth: ``(h, w)`` float32 metres, or inverse depth; NaN where missing.
        camera: of the picture, whatever the grid.
        depth_source: in words.
    """

    entry: ScaleEntry
    mask: Float[Tensor, "h w"]
    depth: Float[Tensor, "h w"]
    camera: Camera
    depth_source: str


class ScaleFolder(Sequence[ScaleEntry]):
    """A folder's objects: listed when it is opened, read when they are asked for.

    Args:
        folder: in the plain layout, or a BOP scene.
        depth_mode: what the depth maps hold: ``"depth"``, in metres, or relative ``"inv_depth"``, which is
            taken as it is stored. None: depth, or what the depth model gives.
        depth_unit_mm: millimetres in one step of a depth picture; a BOP scene has its own.
        depth_model: estimates depth from the pictures, in place of the folder's.
        object_name: leaves all other objects out.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no masks; a mask that belongs to no picture; no object of that name; a depth mode that is
            not the depth model's.

    Example:
        >>> import tempfile
        >>> from sightline.formats.images import write_depth, write_mask
        >>> root = Path(tempfile.mkdtemp())
        >>> write_mask(root / "masks" / "a.png", np.eye(2, dtype=bool))
        >>> write_depth(root / "depth" / "a.png", np.full((2, 2), 1.5))
        >>> text = '{"width": 2, "height": 2, "fx": 2, "fy": 2, "cx": 0.5, "cy": 0.5}'
        >>> _ = (root / "camera.json").write_text(text)
        >>> [(s.entry.name, s.mask.sum().item(), s.depth.max().item()) for s in ScaleFolder(root).samples()]
        [('a', 2.0, 1.5)]
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        depth_mode: DepthMode | str | None = None,
        depth_unit_mm: float = 1.0,
        depth_model: DepthModel | None = None,
        object_name: str | None = None,
    ) -> None:
        if not (np.isfinite(depth_unit_mm) and depth_unit_mm > 0):
            raise ValueError(f"depth_unit_mm: expected a positive number, got {depth_unit_mm}")
        self.folder = Path(folder)
        self.depth_model = depth_model
        self.depth_mode: DepthMode = _agreed_mode(depth_mode, depth_model)
        entries, self.without_mask = list_folder(self.folder, depth_unit_mm)
        self.object_names = sorted({entry.object_name for entry in entries})
        if object_name is not None and object_name not in self.object_names:
            known = ", ".join(repr(name) for name in self.object_names)
            raise ValueError(f"{self.folder}: no object is called {object_name!r}, there are: {known}")
        self._entries = [e for e in entries if object_name in (None, e.object_name)]

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> ScaleEntry: ...
    @overload
    def __getitem__(self, index: slice) -> list[ScaleEntry]: ...
    def __getitem__(self, index: int | slice) -> ScaleEntry | list[ScaleEntry]:
        """The entry at a position, or several."""
        return self._entries[index]

    def samples(self) -> Iterator[ScaleSample]:
        """Read one object after another; what the objects of a picture share is read once.

        Yields:
            The samples in the folder's order.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is damaged, or mask, depth and camera are not of one picture; it is named.
        """
        name, camera, depth, source = None, None, None, ""
        for entry in self._entries:
            if camera is None or depth is None or entry.name != name:
                name = entry.name
                camera = _camera_of(self.folder, entry)
                depth, source = self._depth_of(entry, camera)
            where = self.folder / entry.mask_name
            mask = load_mask(entry.mask)
            _require_aspect(f"{where}: the mask", mask, camera)
            grid = min(mask.shape[1], depth.shape[1]), min(mask.shape[0], depth.shape[0])
            yield ScaleSample(
                entry=entry,
                mask=torch.from_numpy(_shrink(mask.astype(np.float32), grid)),
                depth=torch.from_numpy(_shrink_known(depth, _is_known(depth, self.depth_mode), grid)),
                camera=camera,
                depth_source=source,
            )

    def _depth_of(self, entry: ScaleEntry, camera: Camera) -> tuple[Float32[np.ndarray, "h w"], str]:
        if self.depth_model is not None:
            if entry.image is None:
                raise ValueError(f"{self.folder}: no picture {entry.name} whose depth could be estimated")
            focal = _mean_focal(camera) if self.depth_model.takes_focal else None
            estimate = self.depth_model.estimate(entry.image, focal_px=focal)
            return estimate.depth.numpy(force=True), estimate.source
        if entry.depth is None:
            raise ValueError(
                f"{self.folder}: expected a depth map of {entry.name} in depth/ (.png, .tif, .npy or .npz), "
                "or a depth model"
            )
        if entry.depth.suffix.lower() in (".npy", ".npz"):
            depth = read_depth_array(entry.depth)
        else:  # relative inverse depth has no unit: its steps are its values
            depth = read_depth(entry.depth, entry.depth_unit_mm if self.depth_mode == "depth" else 1000.0)
        _require_aspect(f"{entry.depth}: the depth map", depth, camera)
        return depth, entry.depth.relative_to(self.folder).as_posix()


def _agreed_mode(depth_mode: DepthMode | str | None, model: DepthModel | None) -> DepthMode:
    if depth_mode not in (None, *get_args(DepthMode)):
        raise ValueError(f"depth_mode: expected one of {', '.join(get_args(DepthMode))}, got {depth_mode!r}")
    if model is not None:
        own: DepthMode = "depth" if model.is_metric else "inv_depth"
        if depth_mode not in (None, own):
            raise ValueError(f"depth_mode: {model.name} gives {own!r}, not {depth_mode!r}")
        return own
    return "inv_depth" if depth_mode == "inv_depth" else "depth"


def _camera_of(folder: Path, entry: ScaleEntry) -> Camera:
    if isinstance(entry.camera, Camera):
        return entry.camera
    if isinstance(entry.camera, Path):
        size = _size_in(entry.camera, entry.name) if entry.image is None else read_image_size(entry.image)
        return read_camera(entry.camera, size)
    wanted = f"expected cameras/{entry.name}.json or camera.json, or a focal length in EXIF"
    if entry.image is None:
        raise ValueError(f"{folder}: {wanted}; there is no picture {entry.name} either")
    found = camera_from_exif(entry.image)
    if found is None:
        raise ValueError(f"{entry.image}: {wanted}; there is no such file, and EXIF tells no focal length")
    return found.camera


def _size_in(camera: Path, name: str) -> tuple[int, int]:
    fields = Fields.of(read_json(camera), camera, "the camera")
    if "width" not in fields or "height" not in fields:
        raise ValueError(f"{camera}: expected width and height, because images/ has no {name}")
    return fields.integer("width"), fields.integer("height")


def _mean_focal(camera: Camera) -> float:
    return float((camera.K[0, 0] * camera.K[1, 1]).sqrt())


def _require_aspect(what: str, values: np.ndarray, camera: Camera) -> None:
    """Resized maps fit the picture but for rounding; those of a turned or cropped picture do not."""
    height, width = values.shape
    change = (width / height) / (camera.width / camera.height)
    if abs(change - 1) > max(_ASPECT_TOLERANCE, 1 / min(width, height)):
        raise ValueError(
            f"{what} has {width}x{height} pixels, which is no resized picture of "
            f"{camera.width}x{camera.height}"
        )


def _is_known(depth: Float32[np.ndarray, "h w"], mode: DepthMode) -> Bool[np.ndarray, "h w"]:
    known = np.isfinite(depth)
    return known & (depth > 0) if mode == "depth" else known


def _shrink(values: Float32[np.ndarray, "h w"], size: tuple[int, int]) -> Float32[np.ndarray, "new_h new_w"]:
    import cv2

    same = values.shape == (size[1], size[0])
    return values if same else np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA))


def _shrink_known(
    values: Float32[np.ndarray, "h w"], known: Bool[np.ndarray, "h w"], size: tuple[int, int]
) -> Float32[np.ndarray, "new_h new_w"]:
    """The mean of what is known in each cell; holes are not mixed in. NaN where nothing is."""
    share = _shrink(known.astype(np.float32), size)
    total = _shrink(np.where(known, values, np.float32(0)), size)
    with np.errstate(invalid="ignore"):
        return np.where(share > 0, total / np.where(share > 0, share, np.float32(1)), np.float32(np.nan))
