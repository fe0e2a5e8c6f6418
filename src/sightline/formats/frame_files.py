"""Pictures, depth maps and meshes of frames into the folders of a data set, copied where they fit."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from sightline.formats.frames import Frame, MeshFile
from sightline.formats.images import EncodedPicture, is_upright, write_depth, write_image
from sightline.formats.meshes import read_mesh
from sightline.geometry.cameras import Camera
from sightline.geometry.symmetry import SymmetryGroup
from sightline.records import TriangleMesh


def require_plain_camera(frame: Frame, format_name: str) -> Camera:
    """The camera of a frame for a format that knows no lens distortion.

    Args:
        frame: with a camera.
        format_name: for the error.

    Returns:
        The camera.

    Raises:
        ValueError: there is no camera, or it has a distortion.
    """
    if frame.camera is None:
        raise ValueError(f"frame {frame.name}: {format_name} needs a camera, there is none")
    if frame.camera.distortion is not None and bool(frame.camera.distortion.any()):
        raise ValueError(
            f"frame {frame.name}: {format_name} holds no lens distortion; undistort the picture first"
        )
    return frame.camera


def put_image(frame: Frame, stem: Path, suffixes: Sequence[str] = (".png", ".jpg", ".jpeg")) -> Path:
    """Copy a picture file as it is where its format fits and EXIF does not turn it, else write it as PNG.

    Args:
        frame: with a picture.
        stem: where to, without suffix.
        suffixes: the formats that fit.

    Returns:
        What was written.
    """
    if isinstance(frame.image, Path | EncodedPicture):
        suffix = frame.image.suffix.lower()
        if suffix in suffixes and is_upright(frame.image):
            return _copy(frame.image, stem.with_name(stem.name + suffix))
    target = stem.with_name(f"{stem.name}.png")
    write_image(target, frame.read_image())
    return target


def put_depth(frame: Frame, target: Path, depth_scale_mm: float | None) -> float:
    """Copy a depth file as it is where its scale fits, else write it.

    Args:
        frame: with a depth map or without.
        target: a PNG.
        depth_scale_mm: what the format prescribes; None where a file may keep its own.

    Returns:
        The scale that the written file has, millimetres a step.
    """
    keeps = depth_scale_mm is None or depth_scale_mm == frame.depth_scale_mm
    is_file = isinstance(frame.depth, Path | EncodedPicture)
    if keeps and is_file and frame.depth.suffix.lower() == ".png":
        _copy(frame.depth, target)
        return frame.depth_scale_mm
    scale = frame.depth_scale_mm if depth_scale_mm is None else depth_scale_mm
    if (depth := frame.read_depth()) is not None:
        write_depth(target, depth, scale)
    return scale


def _copy(source: Path | EncodedPicture, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(source, EncodedPicture):
        target.write_bytes(source.data)
        return target
    if not source.is_file():
        raise FileNotFoundError(f"{source}: no such file")
    shutil.copyfile(source, target)
    return target


def load_mesh_file(file: MeshFile) -> TriangleMesh:
    """Read a mesh in the unit that its data set prescribes.

    Args:
        file: the path and the unit.

    Returns:
        The mesh in metres.

    Raises:
        ValueError: the file itself says another unit.
    """
    loaded = read_mesh(file.path, file.unit)
    if "against" in loaded.unit_reason:
        raise ValueError(
            f"{file.path}: expected {file.unit} as in all data sets of this form, {loaded.unit_reason}"
        )
    return loaded.mesh


def count_symmetric(symmetries: Mapping[str, SymmetryGroup]) -> int:
    """How many objects have a symmetry at all.

    Args:
        symmetries: by the object's name.

    Example:
        >>> count_symmetric({"mug": SymmetryGroup.none(), "can": SymmetryGroup.continuous((0, 0, 1))})
        1
    """
    return sum(len(group.discrete) > 1 or group.axis is not None for group in symmetries.values())
