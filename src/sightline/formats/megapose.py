"""MegaPose examples: one picture with its objects; meshes in millimetres, poses in metres, quaternions xyzw.

``image_rgb.png``, ``image_depth.png`` (millimetres), ``camera_data.json`` (``K``, ``resolution`` height
first), ``inputs/object_data.json`` (``label``, ``bbox_modal`` xyxy), ``outputs/object_data.json`` (``label``,
``TWO`` as quaternion and translation), ``meshes/<label>/<label>.ply``. The world is the camera unless ``TWC``
is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.formats.frame_files import (
    count_symmetric,
    load_mesh_file,
    put_depth,
    put_image,
    require_plain_camera,
)
from sightline.formats.frames import Frame, FrameObject, FrameSet, Losses, MeshFile
from sightline.formats.images import read_image_size
from sightline.formats.json_files import Fields, read_json, write_json
from sightline.formats.meshes import write_mesh
from sightline.formats.pixel_boxes import pixel_edges_from_xyxy, xyxy_from_pixel_edges
from sightline.geometry.poses import invert, make_pose
from sightline.geometry.quaternions import matrix_from_quaternion_xyzw, quaternion_xyzw_from_matrix

_MESH_SUFFIXES = (".ply", ".obj")


def read_megapose(folder: str | Path) -> FrameSet:
    """Read one MegaPose example, or a folder of such.

    Objects of ``inputs`` and ``outputs`` are joined by label, in order where a label occurs several times.

    Args:
        folder: with ``camera_data.json``, or with subfolders that have it.

    Returns:
        One frame an example, and the meshes.

    Raises:
        FileNotFoundError: no ``camera_data.json`` or picture.
        ValueError: a key is missing or malformed; file and key are named.
    """
    folder = Path(folder)
    if (folder / "camera_data.json").is_file():
        examples = [folder]
    else:
        examples = sorted(path.parent for path in folder.glob("*/camera_data.json"))
    if not examples:
        raise FileNotFoundError(f"{folder / 'camera_data.json'}: no such file, nor in a folder below")
    meshes: dict[str, MeshFile] = {}
    for example in examples:
        meshes |= _find_meshes(example)
    return FrameSet([_read_frame(example, i) for i, example in enumerate(examples)], meshes)


def _find_meshes(example: Path) -> dict[str, MeshFile]:
    files = sorted(example.glob("meshes/*/*"))
    return {path.parent.name: MeshFile(path, "mm") for path in files if path.suffix.lower() in _MESH_SUFFIXES}


def _read_frame(example: Path, index: int) -> Frame:
    camera_path = example / "camera_data.json"
    entry = Fields.of(read_json(camera_path), camera_path, "top level")
    height, width = (int(side) for side in entry.tensor("resolution", 2))
    camera = entry.camera("K", (width, height))
    picture = next((path for path in sorted(example.glob("image_rgb.*"))), example / "image_rgb.png")
    size = read_image_size(picture)
    if size != (width, height):
        raise entry.fault(
            "resolution", f"expected [height, width] of the picture, {size[::-1]}, got {height, width}"
        )
    cam_from_world = invert(_pose(entry, "TWC")) if "TWC" in entry else None
    depth = example / "image_depth.png"
    return Frame(
        frame_id=index,
        name=example.name,
        objects=_read_objects(example, cam_from_world),
        camera=camera,
        image=picture,
        depth=depth if depth.is_file() else None,
        cam_from_world=cam_from_world,
    )


def _read_objects(example: Path, cam_from_world: Float[Tensor, "4 4"] | None) -> tuple[FrameObject, ...]:
    boxes, poses = (_read_list(example / kind / "object_data.json") for kind in ("inputs", "outputs"))
    found = []
    for label in dict.fromkeys([*boxes, *poses]):
        rows = max(len(boxes.get(label, [])), len(poses.get(label, [])))
        for i in range(rows):
            box = _entry_or_none(boxes, label, i, "bbox_modal")
            pose = _entry_or_none(poses, label, i, "TWO") or _entry_or_none(boxes, label, i, "TWO")
            found.append(
                FrameObject(
                    label,
                    cam_from_obj=None if pose is None else _cam_from_obj(pose, cam_from_world),
                    box=None if box is None else xyxy_from_pixel_edges(box.tensor("bbox_modal", 4)),
                )
            )
    return tuple(found)


def _read_list(path: Path) -> dict[str, list[Fields]]:
    """The entries of each label; none where there is no such file."""
    if not path.is_file():
        return {}
    labelled: dict[str, list[Fields]] = {}
    for entry in Fields({"objects": read_json(path)}, path, "top level").entries("objects"):
        labelled.setdefault(entry.text("label"), []).append(entry)
    return labelled


def _entry_or_none(labelled: Mapping[str, list[Fields]], label: str, index: int, key: str) -> Fields | None:
    entries = labelled.get(label, [])
    return entries[index] if index < len(entries) and key in entries[index] else None


def _cam_from_obj(entry: Fields, cam_from_world: Float[Tensor, "4 4"] | None) -> Float[Tensor, "4 4"]:
    world_from_obj = _pose(entry, "TWO")
    return world_from_obj if cam_from_world is None else cam_from_world @ world_from_obj


def _pose(entry: Fields, key: str) -> Float[Tensor, "4 4"]:
    """A pose ``[[qx, qy, qz, qw], [x, y, z]]``, metres."""
    values = entry.tensor(key, 7)
    if not 0.99 < float(values[:4].norm()) < 1.01:
        raise entry.fault(key, f"expected a unit quaternion x y z w first, got {values[:4].tolist()}")
    return make_pose(matrix_from_quaternion_xyzw(values[:4]), values[4:])


def _pose_json(pose: Float[Tensor, "4 4"]) -> list[list[float]]:
    return [quaternion_xyzw_from_matrix(pose[:3, :3]).tolist(), pose[:3, 3].tolist()]


def write_megapose(folder: Path, frames: FrameSet, losses: Losses) -> None:
    """Write frames as MegaPose examples, one folder a frame where there are several.

    Args:
        folder: an empty folder.
        frames: with a camera without distortion each.
        losses: counts what the format cannot hold.

    Raises:
        ValueError: a frame without a camera, or a distortion.
    """
    single = len(frames.frames) == 1
    for frame in frames.frames:
        target = folder if single else folder / f"{frame.scene_id:06d}_{frame.frame_id:06d}"
        _write_frame(target, frame, losses)
        for name in sorted({found.name for found in frame.objects} & set(frames.meshes)):
            write_mesh(target / "meshes" / name / f"{name}.ply", load_mesh_file(frames.meshes[name]), "mm")
    losses["symmetries"] += count_symmetric(frames.symmetries)


def _write_frame(target: Path, frame: Frame, losses: Losses) -> None:
    camera = require_plain_camera(frame, "MegaPose")
    put_image(frame, target / "image_rgb", suffixes=(".png",))
    if frame.depth is not None:
        put_depth(frame, target / "image_depth.png", 1.0)
    entry: dict[str, Any] = {"K": camera.K.tolist(), "resolution": [camera.height, camera.width]}
    world_from_cam = torch.eye(4, dtype=torch.float64)
    if frame.cam_from_world is not None:
        world_from_cam = invert(frame.cam_from_world)
        entry["TWC"] = _pose_json(world_from_cam)
    write_json(target / "camera_data.json", entry)
    inputs, outputs = [], []
    for found in _joinable(frame.objects, losses):
        box = _box(found)
        if box is not None:
            inputs.append({"label": found.name, "bbox_modal": pixel_edges_from_xyxy(box).tolist()})
        if found.cam_from_obj is not None:
            outputs.append({"label": found.name, "TWO": _pose_json(world_from_cam @ found.cam_from_obj)})
        losses["masks"] += found.mask is not None
        losses["silhouettes"] += found.mask_amodal is not None
        losses["scores"] += found.score is not None
    write_json(target / "inputs" / "object_data.json", inputs)
    if outputs:
        write_json(target / "outputs" / "object_data.json", outputs)


def _box(found: FrameObject) -> Float[Tensor, "4"] | None:
    box = found.visible_box()
    return None if box is None or bool(box.isnan().any()) else box


def _joinable(objects: tuple[FrameObject, ...], losses: Losses) -> list[FrameObject]:
    """The objects in an order in which a reader joins each box with its own pose.

    Boxes and poses of one label are joined by their order: what has both comes first, and a box without pose
    must not meet the pose of another instance.
    """
    posed_alone = {found.name for found in objects if _box(found) is None and found.cam_from_obj is not None}
    kept = []
    for found in objects:
        if found.cam_from_obj is None and found.name in posed_alone:
            losses["boxes that would be taken for another instance's"] += 1
        else:
            kept.append(found)
    return sorted(kept, key=lambda found: _box(found) is None or found.cam_from_obj is None)
