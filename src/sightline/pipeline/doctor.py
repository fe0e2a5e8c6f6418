"""The doctor: files or arrays of one object in one picture to what is inconsistent in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sightline.formats.images import write_image
from sightline.formats.json_files import null_if_not_finite
from sightline.objects.card import ObjectCard
from sightline.objects.checks import Fault
from sightline.objects.inspection.consistency import Views, length_in_words
from sightline.objects.inspection.diagnosis import diagnose_inputs
from sightline.objects.inspection.inputs import Inputs
from sightline.pipeline.doctor_inputs import (
    Gathered,
    Given,
    Missing,
    gather_camera,
    gather_card,
    gather_depth,
    gather_image,
    gather_mask,
    gather_mesh,
    gather_pose,
    settle_size,
)
from sightline.records import PoseEstimate, TriangleMesh
from sightline.vis import draw_contour, draw_notes, draw_quadrilateral

_GIVEN_COLOR, _REPAIRED_COLOR, _MASK_COLOR = (235, 60, 50), (60, 205, 90), (250, 205, 60)
_DIFFERENT_SIZES = 1.2  # ratio of the diameters of a mesh and a card of one object
_STEP_MM = 1.0  # of a depth picture whose unit nothing states


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """All that the doctor says.

    Args:
        faults: what is wrong, with the evidence; none for sound inputs.
        notes: what was assumed, and what is unusual but borne out by the rest.
        comparisons: what was compared, with the figures, so that silence says something.
        understood: one row an input: its name and how it was read.
        given: the inputs as they were given.
        repaired: the inputs with all faults undone that could be.
        image: the picture, for drawing; None where none was given.
    """

    faults: tuple[Fault, ...]
    notes: tuple[str, ...]
    comparisons: tuple[str, ...]
    understood: tuple[tuple[str, str], ...]
    given: Inputs
    repaired: Inputs
    image: np.ndarray | None = None

    @property
    def is_sound(self) -> bool:
        """Whether nothing wrong was found."""
        return not self.faults

    def to_json(self) -> dict[str, Any]:
        """Everything but pictures, for a JSON file."""
        return {
            "sound": self.is_sound,
            "faults": [
                {
                    "what": fault.what,
                    "kind": fault.kind,
                    "message": fault.message,
                    "evidence": {name: null_if_not_finite(value) for name, value in fault.evidence.items()},
                }
                for fault in self.faults
            ],
            "notes": list(self.notes),
            "comparisons": list(self.comparisons),
            "understood": dict(self.understood),
        }


def diagnose(
    *,
    mesh: Path | str | TriangleMesh | None = None,
    unit: str | None = None,
    card: Path | str | ObjectCard | None = None,
    camera: Given = None,
    image: Path | str | np.ndarray | None = None,
    image_size: tuple[int, int] | None = None,
    depth: Given = None,
    depth_unit_mm: float | None = None,
    depth_missing: Missing = "zero",
    mask: Given = None,
    box: Sequence[float] | np.ndarray | None = None,
    pose: Given | PoseEstimate = None,
    index: int | None = None,
    object_name: str | None = None,
) -> Diagnosis:
    """Say what is inconsistent in any subset of mesh, card, camera, image, depth, mask, box and pose.

    Args:
        mesh: a mesh file, or a mesh in metres.
        unit: of the mesh file; inferred where not given.
        card: an object card or its folder; its mesh and size count where no mesh is given.
        camera: a JSON file, or ``(3, 3)`` K in pixels, or a :class:`~sightline.geometry.cameras.Camera`.
        image: a picture file, or ``(h, w, 3)`` uint8; its size counts.
        image_size: ``(width, height)`` where there is no picture.
        depth: a picture file of 16 bits, a ``.npy`` file, or ``(h, w)``; arrays are taken for metres.
        depth_unit_mm: millimetres in one step of the depth file; else as the camera file says, or 1.
        depth_missing: which value means that nothing was measured: 0, NaN, or none at all.
        mask: a picture file, or ``(h, w)`` bool.
        box: x0, y0, x1, y1 in pixels.
        pose: ``cam_from_obj``: a file, see :mod:`sightline.formats.pose_json`, or ``(4, 4)`` in metres.
        index: which picture of a pose or camera file with several.
        object_name: which object of a pose file with several.

    Returns:
        The faults with their evidence, what was compared, what was assumed, and how each input was read.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an input that cannot be read, with its file; or no input at all.

    Example:
        >>> import torch
        >>> corners = torch.tensor([[-0.1, -0.1, 0], [0.1, -0.1, 0], [0, 0.1, 0]], dtype=torch.float64)
        >>> triangle = TriangleMesh(corners, torch.tensor([[0, 2, 1]]))
        >>> K = np.array([[600.0, 0, 319.5], [0, 600, 239.5], [0, 0, 1]])
        >>> pose = np.eye(4)
        >>> pose[2, 3] = 800.0
        >>> box = (245, 165, 394, 314)
        >>> wrong = diagnose(mesh=triangle, camera=K, image_size=(640, 480), pose=pose, box=box)
        >>> wrong.faults[0].kind, wrong.faults[0].message[:54]
        ('pose_unit', 'its translation looks like millimetres read as metres ')
    """
    gathered = gather_card(Gathered(Inputs(image_size=image_size)), card)
    card_size = gathered.inputs.diameter
    gathered = gather_mesh(gathered, mesh, unit)
    gathered = gather_image(gathered, image)
    gathered, stated_step = gather_camera(gathered, camera, index)
    steps = (depth_unit_mm, stated_step, _STEP_MM)
    step = next(step for step in steps if step is not None)
    gathered = gather_depth(gathered, depth, step, depth_missing)
    gathered = gather_mask(gathered, mask)
    gathered = gather_pose(gathered, pose, index, object_name)
    if box is not None:
        gathered = gathered.with_box(box)
    if not gathered.rows:
        raise ValueError("expected at least one of mesh, card, camera, image, depth, mask, box and pose")
    gathered = settle_size(gathered)
    found = diagnose_inputs(gathered.inputs)
    faults = found.faults
    if card_size is not None and mesh is not None:
        faults = (*_compare_with_card(gathered.inputs, card_size, faults), *faults)
    return Diagnosis(
        faults,
        (*gathered.notes, *found.notes),
        found.comparisons,
        gathered.rows,
        gathered.inputs,
        found.repaired,
        gathered.image,
    )


def _compare_with_card(inputs: Inputs, card_size: float, faults: Sequence[Fault]) -> list[Fault]:
    size = inputs.size_m
    if size is None or any(fault.kind == "mesh_unit" for fault in faults):
        return []
    ratio = size / card_size
    if 1 / _DIFFERENT_SIZES < ratio < _DIFFERENT_SIZES:
        return []
    sizes = f"{length_in_words(size)} against {length_in_words(card_size)}"
    text = f"its diameter is {ratio:.4g} times that of the card: {sizes}"
    numbers = {"diameter": size, "card_diameter": card_size, "ratio": ratio}
    return [Fault("mesh", text, "mesh_unit", numbers)]


def draw_diagnosis(diagnosis: Diagnosis, path: Path) -> None:
    """Draw the object's outline as given (red) and repaired (green) over the picture, with mask and box.

    Args:
        diagnosis: what :func:`diagnose` found.
        path: where to; ``.png`` or another picture format.

    Raises:
        ValueError: no picture size is known.
    """
    given, repaired = diagnosis.given, diagnosis.repaired
    size = repaired.image_size
    if size is None:
        raise ValueError("picture: expected an image, depth, mask or camera size, none of them was given")
    width, height = size
    canvas = np.zeros((height, width, 3), np.uint8)
    if diagnosis.image is not None and diagnosis.image.shape == canvas.shape:
        canvas = diagnosis.image
    elif repaired.depth is not None and tuple(repaired.depth.shape) == (height, width):
        canvas = _grey(repaired.depth.nan_to_num(0.0, 0.0, 0.0).numpy())
    lines = []
    if repaired.mask is not None and tuple(repaired.mask.shape) == (height, width):
        canvas = draw_contour(canvas, repaired.mask, color=_MASK_COLOR)
        lines.append("yellow: mask and box")
    box = None if repaired.box is None else repaired.box.numpy()
    if box is not None and np.isfinite(box).all():
        corners = box[[0, 1, 2, 1, 2, 3, 0, 3]].reshape(4, 2)
        canvas = draw_quadrilateral(canvas, corners, color=_MASK_COLOR)
    changed = not diagnosis.is_sound
    for inputs, color, words in (
        (given, _GIVEN_COLOR, "red: mesh at its pose as given"),
        (repaired, _REPAIRED_COLOR, "green: repaired" if changed else "green: mesh at its pose"),
    ):
        if inputs.can_render and inputs.image_size == size and (changed or inputs is repaired):
            silhouette = Views(inputs).draw_whole(inputs)
            canvas = draw_contour(canvas, silhouette, color=color)
            lines.append(words if silhouette.any() else f"{words} (outside the picture)")
    write_image(path, draw_notes(canvas, lines) if lines else canvas)


def _grey(depth: np.ndarray) -> np.ndarray:
    known = depth[depth > 0]
    low, high = np.percentile(known, [2, 98]) if len(known) else (0.0, 1.0)
    shade = np.clip((high - depth) / max(high - low, 1e-9), 0, 1) * (depth > 0)
    return np.repeat((40 + 180 * shade).astype(np.uint8)[..., None], 3, axis=2)
