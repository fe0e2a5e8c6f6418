"""Each of the doctor's inputs read from a file or taken as an array, unjudged, with how it was understood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sightline.formats.camera_json import read_camera_numbers
from sightline.formats.images import read_depth, read_image, read_mask
from sightline.formats.mesh_units import UNIT_IN_METRES
from sightline.formats.meshes import read_mesh
from sightline.formats.pose_json import read_pose_numbers
from sightline.geometry.cameras import Camera
from sightline.objects.card import ObjectCard
from sightline.objects.card_files import load_card
from sightline.objects.inspection.consistency import length_in_words
from sightline.objects.inspection.diagnosis import diagnose_inputs
from sightline.objects.inspection.inputs import Inputs
from sightline.records import PoseEstimate, TriangleMesh

Given = Path | str | np.ndarray | Tensor | Camera | None
Missing = Literal["zero", "nan", "none"]


@dataclass(frozen=True, eq=False)
class Gathered:
    """What was read so far.

    Args:
        inputs: what is compared.
        rows: one an input: its name and how it was understood.
        notes: what was assumed.
        image: the picture itself.
        unit_is_open: whether the mesh's unit is not known and the other inputs must tell it.
    """

    inputs: Inputs
    rows: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    image: np.ndarray | None = None
    unit_is_open: bool = False

    def having(self, name: str, text: str, **parts: Any) -> Gathered:  # noqa: ANN401  # parts of the inputs
        """With one more input."""
        inputs = replace(self.inputs, **parts) if parts else self.inputs
        return replace(self, inputs=inputs, rows=(*self.rows, (name, text)))

    def noting(self, note: str) -> Gathered:
        """With one more note."""
        return replace(self, notes=(*self.notes, note))

    def with_box(self, box: Sequence[float] | np.ndarray | Tensor) -> Gathered:
        """With a box of four numbers."""
        values = torch.as_tensor(np.asarray(box, np.float64)).flatten()
        if values.shape != (4,):
            raise ValueError(f"box: expected four numbers x0 y0 x1 y1, got {len(values)}")
        return self.having(
            "box", ", ".join(f"{v:g}" for v in values.tolist()) + " px, x0 y0 x1 y1", box=values
        )


def gather_card(so_far: Gathered, card: Path | str | ObjectCard | None) -> Gathered:
    """Take in an object card: its mesh and its diameter."""
    if card is None:
        return so_far
    known = card if isinstance(card, ObjectCard) else load_card(card)
    text = f"{known.name}, diameter {length_in_words(known.diameter)}, {len(known.templates)} templates"
    return so_far.having("card", text, mesh=known.mesh, diameter=known.diameter)


def gather_mesh(so_far: Gathered, mesh: Path | str | TriangleMesh | None, unit: str | None) -> Gathered:
    """Take in a mesh; one whose unit cannot be told is read in metres and left to :func:`settle_size`."""
    if mesh is None:
        return so_far
    if isinstance(mesh, TriangleMesh):
        text = f"{len(mesh.faces)} faces, diameter {length_in_words(mesh.diameter)}, taken as metres"
        return so_far.having("mesh", text, mesh=mesh, diameter=mesh.diameter)
    unknown = ""
    try:
        loaded = read_mesh(mesh, unit, colors=False)
    except ValueError as error:
        if unit is not None:
            raise
        loaded, unknown = read_mesh(mesh, "m", colors=False), str(error)
    diameter = loaded.mesh.diameter
    size = f"{diameter:.4g} in an unknown unit" if unknown else length_in_words(diameter)
    text = f"{Path(mesh).name}, diameter {size}" + ("" if unknown else f", unit {loaded.unit}")
    found = so_far.having("mesh", text, mesh=loaded.mesh, diameter=diameter)
    if unknown:
        return replace(found, unit_is_open=True).noting(unknown)
    return found.noting(f"mesh: unit {loaded.unit}, {loaded.unit_reason}")


def gather_image(so_far: Gathered, image: Path | str | np.ndarray | None) -> Gathered:
    """Take in a picture, of which the size counts."""
    if image is None:
        return so_far
    pixels = image if isinstance(image, np.ndarray) else read_image(image)
    if pixels.ndim not in (2, 3):
        raise ValueError(f"image: expected an array (h, w, 3), got shape {pixels.shape}")
    height, width = pixels.shape[:2]
    name = "array" if isinstance(image, np.ndarray) else Path(image).name
    found = so_far.having("image", f"{name}, {width}x{height}", image_size=(width, height))
    is_picture = pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8
    return replace(found, image=pixels if is_picture else None)


def gather_camera(so_far: Gathered, camera: Given, index: int | None) -> tuple[Gathered, float | None]:
    """Take in a camera's numbers as they stand, and the depth scale that a BOP camera states."""
    if camera is None:
        return so_far, None
    size, distortion, scale = None, None, None
    if isinstance(camera, Camera):
        K, size, distortion, name = camera.K, camera.image_size, camera.distortion, "camera"
    elif isinstance(camera, Path | str):
        numbers = read_camera_numbers(camera, index)
        K, size, distortion = numbers.K, numbers.image_size, numbers.distortion
        scale, name = numbers.depth_scale_mm, Path(camera).name
    else:
        K, name = _tensor(camera, "camera").double(), "array"
        if tuple(K.shape) != (3, 3):
            raise ValueError(f"camera: expected K of shape (3, 3), got {tuple(K.shape)}")
    if distortion is not None and tuple(distortion.shape) != (5,):
        raise ValueError(f"camera: expected five distortion numbers, got {tuple(distortion.shape)}")
    if distortion is not None and not bool(distortion.any()):
        distortion = None
    text = f"{name}, focal length {float(K[0, 0]):.4g} px, principal point "
    text += f"({float(K[0, 2]):.4g}, {float(K[1, 2]):.4g})"
    text += "" if size is None else f", for {size[0]}x{size[1]}"
    text += "" if distortion is None else ", with distortion"
    parts = {"K": K, "camera_size": size, "distortion": distortion}
    return so_far.having("camera", text, **parts), scale


def gather_depth(so_far: Gathered, depth: Given, unit_mm: float, missing: Missing) -> Gathered:
    """Take in a depth picture in metres as its unit says, with how much of it is measured."""
    if depth is None:
        return so_far
    if isinstance(depth, Path | str) and Path(depth).suffix.lower() == ".npy":
        values, text = _load_array(Path(depth)), f"{Path(depth).name}, as metres"
    elif isinstance(depth, Path | str):
        values = torch.from_numpy(read_depth(depth, unit_mm))
        text = f"{Path(depth).name}, steps of {unit_mm:g} mm"
    else:
        values, text = _tensor(depth, "depth").float(), "array, as metres"
    if values.ndim != 2:
        raise ValueError(f"depth: expected an array (h, w), got shape {tuple(values.shape)}")
    measured = values[(values > 0) & values.isfinite()]
    size = f"{values.shape[1]}x{values.shape[0]}"
    if len(measured):
        text += f", {size}, median {length_in_words(float(measured.median()))}"
        text += f", {100 * (1 - len(measured) / values.numel()):.2g} % missing"
    return so_far.having("depth", text, depth=values, depth_is_complete=missing != "zero")


def gather_mask(so_far: Gathered, mask: Given) -> Gathered:
    """Take in a mask."""
    if mask is None:
        return so_far
    if isinstance(mask, Path | str):
        values, name = torch.from_numpy(read_mask(mask)), Path(mask).name
    else:
        values, name = _tensor(mask, "mask") > 0, "array"
    if values.ndim != 2:
        raise ValueError(f"mask: expected an array (h, w), got shape {tuple(values.shape)}")
    text = f"{name}, {values.shape[1]}x{values.shape[0]}, {int(values.sum())} pixels"
    return so_far.having("mask", text, mask=values)


def gather_pose(
    so_far: Gathered, pose: Given | PoseEstimate, index: int | None, object_name: str | None
) -> Gathered:
    """Take in a pose as it stands, be it rigid or not."""
    if pose is None:
        return so_far
    if isinstance(pose, PoseEstimate):
        if not pose.valid:
            raise ValueError(f"pose: it is a failure: {pose.reason}")
        matrix, text = pose.cam_from_obj.double(), "estimate"
    elif isinstance(pose, Path | str):
        numbers = read_pose_numbers(pose, index=index, name=object_name)
        matrix, text = numbers.matrix, f"{Path(pose).name}, {numbers.layout}"
        text += f", of {numbers.name}" if numbers.name else ""
    else:
        matrix, text = _tensor(pose, "pose").double(), "array, as metres"
        if tuple(matrix.shape) != (4, 4):
            raise ValueError(f"pose: expected cam_from_obj of shape (4, 4), got {tuple(matrix.shape)}")
    text += f", at {length_in_words(float(matrix[:3, 3].norm()))}"
    return so_far.having("pose", text, cam_from_obj=matrix)


def settle_size(gathered: Gathered) -> Gathered:
    """Choose the unit of a mesh whose file leaves it open: the one with which least is inconsistent."""
    if not gathered.unit_is_open:
        return gathered
    fewest: tuple[int, str] | None = None
    for unit, metres in UNIT_IN_METRES.items():
        found = diagnose_inputs(replace(gathered.inputs, mesh_scale=metres))
        if found.comparisons and (fewest is None or len(found.faults) < fewest[0]):
            fewest = len(found.faults), unit
    if fewest is None:
        without = replace(gathered.inputs, mesh=None, diameter=None)
        return replace(gathered, inputs=without).noting("mesh: not compared, no other input tells its unit")
    settled = replace(gathered, inputs=replace(gathered.inputs, mesh_scale=UNIT_IN_METRES[fewest[1]]))
    return settled.noting(f"mesh: unit {fewest[1]}, with which it agrees best with the other inputs")


def _tensor(values: Any, name: str) -> Tensor:  # noqa: ANN401  # an array of any library
    if isinstance(values, Tensor):
        return values.detach().cpu()
    if isinstance(values, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(values))
    raise ValueError(f"{name}: expected a file or an array, got {type(values).__name__}")


def _load_array(path: Path) -> Tensor:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False)).float()
    except (ValueError, TypeError, EOFError) as error:
        raise ValueError(f"{path}: expected an array of numbers ({error})") from error
