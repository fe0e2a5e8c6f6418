"""FoundationPose folders: one object, one camera; ``rgb/ depth/ masks/ cam_K.txt mesh/``, metres.

Poses stand in ``ob_in_cam/<frame>.txt`` (what FoundationPose writes) or ``annotated_poses/<frame>.txt`` (what
its data sets bring) as 4x4 matrices, camera from object.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sightline.formats.atomic import atomic_write
from sightline.formats.frame_files import (
    count_symmetric,
    load_mesh_file,
    put_depth,
    put_image,
    require_plain_camera,
)
from sightline.formats.frames import Frame, FrameObject, FrameSet, Losses, MeshFile, load_mask
from sightline.formats.images import read_image_size, write_mask
from sightline.formats.json_files import clean_rotation
from sightline.formats.meshes import write_mesh
from sightline.geometry.cameras import Camera
from sightline.geometry.poses import make_pose

_POSE_FOLDERS = ("ob_in_cam", "annotated_poses", "debug/ob_in_cam")
_MESH_SUFFIXES = (".obj", ".ply", ".glb", ".gltf", ".stl")
_PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
# FoundationPose's examples call each mesh so, which says nothing about the object.
_NAMELESS = ("textured", "textured_simple", "textured_mesh", "model", "mesh", "object")


class FoundationPoseFolder(Sequence[Frame]):
    """A FoundationPose folder, a sequence of frames in the order of their names.

    Args:
        folder: with ``rgb/`` and ``cam_K.txt``.
        name: of the object; that of the mesh or, where this is called ``textured_simple`` or so, of the
            folder, unless given.

    Raises:
        FileNotFoundError: no ``cam_K.txt`` or no picture.
        ValueError: ``cam_K.txt`` is no intrinsic matrix.
    """

    def __init__(self, folder: str | Path, name: str | None = None) -> None:
        self.folder = Path(folder)
        self._K = read_matrix(self.folder / "cam_K.txt", 3)
        self._pictures = _pictures(self.folder / "rgb")
        if not self._pictures:
            raise FileNotFoundError(f"{self.folder / 'rgb'}: expected pictures, found none")
        self.camera(self._pictures[0])
        meshes = sorted(self.folder.glob("mesh/*"))
        self.mesh_path = next((path for path in meshes if path.suffix.lower() in _MESH_SUFFIXES), None)
        self.name = name or self._object_name()
        poses = (self.folder / kind for kind in _POSE_FOLDERS)
        self._poses = next((path for path in poses if path.is_dir()), None)

    def _object_name(self) -> str:
        if self.mesh_path is None or self.mesh_path.stem.lower() in _NAMELESS:
            return self.folder.resolve().name
        return self.mesh_path.stem

    def camera(self, picture: Path) -> Camera:
        """The camera for the size of a picture."""
        try:
            return Camera(self._K, *read_image_size(picture))
        except ValueError as error:
            raise ValueError(f"{self.folder / 'cam_K.txt'}: {error}") from error

    def __len__(self) -> int:
        return len(self._pictures)

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> list[Frame]: ...
    def __getitem__(self, index: int | slice) -> Frame | list[Frame]:
        """The frame at a position, or several."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        picture = self._pictures[index]
        depth = self.folder / "depth" / f"{picture.stem}.png"
        return Frame(
            frame_id=index % len(self),
            name=f"rgb/{picture.name}",
            objects=self._objects(picture.stem),
            camera=self.camera(picture),
            image=picture,
            depth=depth if depth.is_file() else None,
        )

    def _objects(self, stem: str) -> tuple[FrameObject, ...]:
        mask = self.folder / "masks" / f"{stem}.png"
        pose = None if self._poses is None else self._poses / f"{stem}.txt"
        if not mask.is_file() and (pose is None or not pose.is_file()):
            return ()
        cam_from_obj = read_pose_text(pose) if pose is not None and pose.is_file() else None
        found = FrameObject(self.name, cam_from_obj=cam_from_obj, mask=mask if mask.is_file() else None)
        return (found,)

    def frame_set(self) -> FrameSet:
        """The folder as frames and a mesh, to be written as another format."""
        meshes = {} if self.mesh_path is None else {self.name: MeshFile(self.mesh_path, "m")}
        return FrameSet(self, meshes)


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _PICTURE_SUFFIXES)


def read_matrix(path: str | Path, side: int) -> Float[Tensor, "side side"]:
    """Read a square matrix of numbers between spaces.

    Args:
        path: the text file.
        side: how many rows and columns it should have.

    Returns:
        ``(side, side)`` float64.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not so many numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        values = [float(word) for word in path.read_text(encoding="utf-8").replace(",", " ").split()]
    except ValueError as error:
        raise ValueError(f"{path}: expected numbers between spaces ({error})") from error
    if len(values) != side * side:
        raise ValueError(f"{path}: expected {side} x {side} numbers, got {len(values)}")
    return torch.tensor(values, dtype=torch.float64).reshape(side, side)


def read_pose_text(path: str | Path) -> Float[Tensor, "4 4"]:
    """Read a pose, a 4x4 matrix of numbers between spaces, metres.

    Args:
        path: the text file.

    Returns:
        ``(4, 4)`` float64 ``cam_from_obj``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not 16 finite numbers, another last row than 0 0 0 1, or no rotation.
    """
    matrix = read_matrix(path, 4)
    if matrix[3].tolist() != [0, 0, 0, 1] or not bool(matrix.isfinite().all()):
        raise ValueError(f"{path}: expected a pose of finite numbers with the last row 0 0 0 1")
    return make_pose(clean_rotation(matrix[:3, :3], str(path)), matrix[:3, 3])


def write_matrix(path: str | Path, matrix: Float[Tensor, "rows columns"]) -> None:
    """Write a matrix as numbers between spaces, exactly.

    Args:
        path: where to.
        matrix: any size.
    """
    text = "\n".join(" ".join(map(repr, row)) for row in matrix.double().tolist())
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def write_foundationpose(folder: Path, frames: FrameSet, losses: Losses) -> None:
    """Write frames as FoundationPose folders, one a kind of object where there are several.

    Args:
        folder: an empty folder.
        frames: all with one camera without distortion.
        losses: counts what the format cannot hold.

    Raises:
        ValueError: a frame without a camera, cameras that differ, or a distortion.
    """
    names = sorted({found.name for frame in frames.frames for found in frame.objects})
    if len(names) <= 1:
        _write_object(folder, names[0] if names else None, frames, losses)
        return
    for name in names:
        _write_object(folder / name, name, frames, losses)


def _write_object(folder: Path, name: str | None, frames: FrameSet, losses: Losses) -> None:
    camera = None
    scenes = len({frame.scene_id for frame in frames.frames}) > 1
    for frame in frames.frames:
        camera = _same_camera(camera, frame)
        stem = f"{frame.scene_id:06d}_{frame.frame_id:06d}" if scenes else f"{frame.frame_id:06d}"
        put_image(frame, folder / "rgb" / stem)
        if frame.depth is not None:
            put_depth(frame, folder / "depth" / f"{stem}.png", 1.0)
        losses["camera poses"] += frame.cam_from_world is not None
        instances = [found for found in frame.objects if found.name == name]
        instances.sort(key=lambda found: -(found.visibility or 0.0))
        losses["further instances of an object in a frame"] += max(len(instances) - 1, 0)
        for found in instances[:1]:
            _write_found(folder, stem, found, losses)
    if camera is not None:
        write_matrix(folder / "cam_K.txt", camera.K)
    if name is not None and name in frames.meshes:
        mesh = load_mesh_file(frames.meshes[name])
        write_mesh(folder / "mesh" / f"{name}.obj", mesh, "m")
    elif name is not None and name != folder.name:
        losses["object names"] += 1  # a folder without a mesh names its object by its own name
    if name is not None and name in frames.symmetries:
        losses["symmetries"] += count_symmetric({name: frames.symmetries[name]})


def _same_camera(camera: Camera | None, frame: Frame) -> Camera:
    own = require_plain_camera(frame, "FoundationPose")
    if camera is None:
        return own
    if own.image_size != camera.image_size or not torch.equal(own.K, camera.K):
        raise ValueError(
            f"frame {frame.name}: FoundationPose holds one camera for all frames, this one differs"
        )
    return camera


def _write_found(folder: Path, stem: str, found: FrameObject, losses: Losses) -> None:
    if found.mask is not None:
        write_mask(folder / "masks" / f"{stem}.png", np.asarray(load_mask(found.mask)))
    if found.cam_from_obj is not None:
        write_matrix(folder / "ob_in_cam" / f"{stem}.txt", found.cam_from_obj)
    losses["silhouettes"] += found.mask_amodal is not None
    losses["boxes without a mask"] += found.box is not None and found.mask is None
    losses["scores"] += found.score is not None
