"""Folders of rendered templates as GigaPose lays them out; millimetres in the files, metres here.

``templates/DATASET/{obj:06d}/{view:06d}.png`` is the object with its mask as alpha, ``{view:06d}_depth.png``
its depth in millimetres (16 bits), and ``templates/DATASET/object_poses/{obj:06d}.npy`` holds a ``(n, 4, 4)``
``cam_from_obj`` of all n views. Nowhere is the camera written: it is the one with which GigaPose draws, 640 x
480 pixels with the focal lengths of LineMOD. Objects of Google Scanned Objects and ShapeNet are drawn ten
times as large as they are in the data sets' pictures; ``scale`` undoes that, because a camera sees no
difference between an object and one that is ten times as large and as far away.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from sightline.formats.atomic import atomic_write
from sightline.formats.bop_models import MM
from sightline.formats.images import open_upright, read_depth, write_depth, write_image
from sightline.formats.json_files import clean_rotations
from sightline.geometry.cameras import Camera

GIGAPOSE_CAMERA = Camera(
    torch.tensor([[572.4114, 0, 320], [0, 573.57043, 240], [0, 0, 1]], dtype=torch.float64), 640, 480
)
"""The camera of all templates."""


class DrawnView(NamedTuple):
    """One view of an object.

    Args:
        color: ``(h, w, 3)`` uint8 RGB, black outside the object.
        mask: ``(h, w)`` bool; nothing where the object was not drawn, which happens with broken meshes.
        depth: ``(h, w)`` float32 metres, 0 outside the object.
        K: ``(3, 3)`` float64 pixels.
        cam_from_obj: ``(4, 4)`` float64 metres.
    """

    color: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"]
    depth: Float32[np.ndarray, "h w"]
    K: Float[Tensor, "3 3"]
    cam_from_obj: Float[Tensor, "4 4"]


class GigaPoseViews(Sequence[DrawnView]):
    """The views of one object, read when they are asked for.

    Args:
        folder: ``templates/DATASET``.
        obj_id: the object's number.
        scale: how many times as large as the object its drawing is: 10 for Google Scanned Objects and
            ShapeNet, else 1.

    Raises:
        FileNotFoundError: no poses, or no folder of pictures.
        ValueError: poses of another shape or type, that are not rigid, or behind the camera.

    Example:
        >>> import tempfile
        >>> view = DrawnView(
        ...     np.full((480, 640, 3), 9, np.uint8), np.ones((480, 640), bool),
        ...     np.full((480, 640), 0.4, np.float32), GIGAPOSE_CAMERA.K,
        ...     torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0.4], [0, 0, 0, 1]]).double(),
        ... )
        >>> folder = Path(tempfile.mkdtemp()) / "templates" / "lmo"
        >>> write_gigapose_views(folder, 5, [view])
        >>> views = GigaPoseViews(folder, 5, scale=10)
        >>> len(views), round(float(views[0].cam_from_obj[2, 3]), 6), round(float(views[0].depth[0, 0]), 6)
        (1, 0.04, 0.04)
    """

    def __init__(self, folder: str | Path, obj_id: int, *, scale: float | int = 1.0) -> None:
        if not scale > 0:
            raise ValueError(f"scale: expected a number above 0, got {scale}")
        root = Path(folder)
        self.folder, self.scale = root / f"{obj_id:06d}", float(scale)
        self.poses = _read_poses(_poses_path(root, obj_id), self.scale)
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{self.folder}: no such folder of templates")

    def __len__(self) -> int:
        return len(self.poses)

    @overload
    def __getitem__(self, index: int) -> DrawnView: ...
    @overload
    def __getitem__(self, index: slice) -> list[DrawnView]: ...
    def __getitem__(self, index: int | slice) -> DrawnView | list[DrawnView]:
        """One view, or several.

        Raises:
            FileNotFoundError: a picture is missing.
            ValueError: it is damaged, without alpha, or of another size than the camera's.
        """
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        index = range(len(self))[index]
        path = self.folder / f"{index:06d}.png"
        color, mask = _read_cut_out(path)
        depth = read_depth(path.with_name(f"{index:06d}_depth.png"))
        if depth.shape != mask.shape:
            raise ValueError(f"{path}: its depth map is {depth.shape[1]} x {depth.shape[0]} pixels")
        metres = np.where(mask, depth / np.float32(self.scale), np.float32(0))
        return DrawnView(color, mask, metres, GIGAPOSE_CAMERA.K, self.poses[index])


def write_gigapose_views(
    folder: str | Path, obj_id: int, views: Iterable[DrawnView], *, scale: float | int = 1.0
) -> None:
    """Write the views of one object.

    Args:
        folder: ``templates/DATASET``.
        obj_id: the object's number.
        views: of 640 x 480 pixels, with the camera that the layout takes for granted.
        scale: how many times as large as the object it shall be drawn.

    Raises:
        ValueError: no view, or one of another camera or size, which the layout cannot hold.
    """
    root, poses = Path(folder), []
    for index, view in enumerate(views):
        path = root / f"{obj_id:06d}" / f"{index:06d}.png"
        if view.mask.shape[::-1] != GIGAPOSE_CAMERA.image_size or not torch.equal(view.K, GIGAPOSE_CAMERA.K):
            raise ValueError(f"{path}: GigaPose's templates have one camera, {GIGAPOSE_CAMERA.K.tolist()}")
        color = np.where(view.mask[..., None], view.color, np.uint8(0))
        write_image(path, np.dstack([color, view.mask.astype(np.uint8) * 255]))
        depth = np.where(view.mask, view.depth * scale, 0)
        write_depth(path.with_name(f"{index:06d}_depth.png"), depth)
        pose = view.cam_from_obj.double().numpy().copy()
        pose[:3, 3] *= scale / MM
        poses.append(pose)
    if not poses:
        raise ValueError(f"{root}: object {obj_id}: expected at least one view, got none")
    with atomic_write(_poses_path(root, obj_id)) as temporary:
        np.save(temporary, np.stack(poses))


def _poses_path(root: Path, obj_id: int) -> Path:
    return root / "object_poses" / f"{obj_id:06d}.npy"


def _read_poses(path: Path, scale: float) -> Float[Tensor, "n 4 4"]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such poses of templates")
    try:
        stored = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(
            f"{path}: expected an array of numbers, damaged or another format: {error}"
        ) from error
    if not isinstance(stored, np.ndarray) or stored.ndim != 3 or stored.shape[1:] != (4, 4):
        raise ValueError(
            f"{path}: expected poses of shape (n, 4, 4), got {getattr(stored, 'shape', 'no array')}"
        )
    poses = torch.from_numpy(stored.astype(np.float64))
    if not bool(poses.isfinite().all()):
        raise ValueError(f"{path}: expected finite numbers")
    places = [f"{path}: view {view}" for view in range(len(poses))]
    poses[:, :3, :3] = clean_rotations(poses[:, :3, :3], places)
    poses[:, :3, 3] *= MM / scale
    behind = (poses[:, 2, 3] <= 0).nonzero()
    if len(behind):
        raise ValueError(f"{places[int(behind[0])]}: expected the object before the camera, z is not above 0")
    return poses


def _read_cut_out(path: Path) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    image = open_upright(path)
    if image.mode != "RGBA" or image.size != GIGAPOSE_CAMERA.image_size:
        size = "{} x {}".format(*GIGAPOSE_CAMERA.image_size)
        raise ValueError(f"{path}: expected RGBA of {size} pixels, got {image.mode} of {image.size}")
    layers = np.asarray(image)
    mask = layers[..., 3] > 127
    return np.where(mask[..., None], layers[..., :3], np.uint8(0)), mask
