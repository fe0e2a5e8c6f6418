"""Every input looked at by itself: what is wrong beyond doubt, undone for the rest; and what is doubtful."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from sightline.geometry.boxes import denormalize
from sightline.geometry.intrinsics import resize_intrinsics
from sightline.objects import checks
from sightline.objects.checks import Fault, ImageSize
from sightline.objects.inspection.depth_holes import check_holes, check_zeros
from sightline.objects.inspection.inputs import Inputs, is_intrinsic

_SAME_SHAPE = 0.02  # relative difference of two pictures' aspects


class Certainties(NamedTuple):
    """What is wrong beyond doubt, and the inputs without those mistakes that could be undone."""

    faults: list[Fault]
    inputs: Inputs


def undo_certain(inputs: Inputs) -> Certainties:
    """Find what one input shows beyond doubt, and undo it, so that the rest can be compared.

    An input that is beyond repair is left out of what is returned.

    Args:
        inputs: as they were given.

    Returns:
        The faults and the inputs for all further checks.

    Example:
        >>> from sightline.geometry.cameras import Camera
        >>> K = Camera.from_focal(600.0, 640, 480).K
        >>> faults, repaired = undo_certain(Inputs(image_size=(640, 480), K=K.T.contiguous()))
        >>> faults[0].kind, bool((repaired.K == K).all())
        ('camera_transposed', True)
    """
    faults: list[Fault] = []
    for step in (_undo_sizes, _undo_camera, _undo_depth, _undo_mask, _undo_box, _undo_pose):
        found, inputs = step(inputs)
        faults += found
    return Certainties(faults, inputs)


def find_doubts(inputs: Inputs) -> list[Fault]:
    """Find what is implausible, though another input may bear it out: units, and the camera's numbers.

    Args:
        inputs: after :func:`undo_certain`.

    Returns:
        The doubts, as faults.

    Example:
        >>> [str(doubt) for doubt in find_doubts(Inputs(diameter=0.2))]
        []
    """
    doubts: list[Fault] = []
    if inputs.size_m is not None:
        doubts += checks.check_size(inputs.size_m)
    if inputs.cam_from_obj is not None:
        doubts += checks.check_pose(inputs.cam_from_obj)
    if inputs.depth is not None:
        doubts += checks.check_depth_values(inputs.depth)
    if inputs.box is not None:
        doubts += checks.check_box(inputs.box, inputs.image_size)
    if inputs.K is not None and inputs.image_size is not None and is_intrinsic(inputs.K):
        suspicions = checks.suspect_camera(inputs.K, inputs.image_size)
        known = checks.check_intrinsics(inputs.K, inputs.image_size)
        doubts += [fault for fault in known if fault.kind != "camera_size" or not suspicions]
        doubts += suspicions
    return doubts


def _undo_sizes(inputs: Inputs) -> Certainties:
    sizes = {
        name: size
        for name, size in (
            ("image", inputs.image_size),
            ("depth", _size_of(inputs.depth)),
            ("mask", _size_of(inputs.mask)),
            ("camera", inputs.camera_size),
        )
        if size is not None
    }
    if not sizes:
        return Certainties([], inputs)
    # that of most inputs; where they are even, that of the first
    (size, _), *_ = Counter(sizes.values()).most_common()
    faults = []
    for name, other in sizes.items():
        if other != size:
            faults.append(_size_fault(name, other, size))
            inputs = _fit_size(inputs, name, other, size)
    return Certainties(faults, replace(inputs, image_size=size))


def _size_of(picture: torch.Tensor | None) -> ImageSize | None:
    return None if picture is None else (picture.shape[1], picture.shape[0])


def _size_fault(name: str, other: ImageSize, size: ImageSize) -> Fault:
    numbers = {"width": other[0], "height": other[1], "expected_width": size[0], "expected_height": size[1]}
    text = f"it is for {other[0]}x{other[1]} pixels, the other inputs for {size[0]}x{size[1]}"
    if other == size[::-1]:
        return Fault(name, f"width and height are swapped: {text}", f"{name}_swapped", numbers)
    if _same_shape(other, size):
        text += f", {size[0] / other[0]:.3g} times as large"
    return Fault(name, text, f"{name}_size", numbers)


def _same_shape(first: ImageSize, second: ImageSize) -> bool:
    return abs(first[0] * second[1] / (first[1] * second[0]) - 1) < _SAME_SHAPE


def _fit_size(inputs: Inputs, name: str, other: ImageSize, size: ImageSize) -> Inputs:
    if name == "camera":
        if inputs.K is not None and _same_shape(other, size) and is_intrinsic(inputs.K):
            inputs = replace(inputs, K=resize_intrinsics(inputs.K, other, size))
        return replace(inputs, camera_size=size)
    if name in ("mask", "depth"):
        picture = getattr(inputs, name)
        changed: dict[str, Any] = {name: None}
        if other == size[::-1]:
            changed = {name: picture.mT}
        elif _same_shape(other, size):
            changed = {name: picture}  # it is sampled at the picture's own spacing
        return replace(inputs, **changed)
    return inputs


def _undo_camera(inputs: Inputs) -> Certainties:
    if inputs.K is None:
        return Certainties([], inputs)
    faults = [f for f in checks.check_intrinsics(inputs.K) if f.what == "camera"]
    kinds = {fault.kind for fault in faults}
    if "camera_transposed" in kinds:
        return Certainties(faults, replace(inputs, K=inputs.K.mT.contiguous()))
    if "camera_normalised" in kinds and inputs.image_size is not None:
        width, height = inputs.image_size
        K = torch.diag(torch.tensor([width, height, 1.0], dtype=torch.float64)) @ inputs.K
        K[:2, 2] -= 0.5
        return Certainties(faults, replace(inputs, K=K))
    return Certainties(faults, inputs.without("K") if faults else inputs)


def _undo_depth(inputs: Inputs) -> Certainties:
    if inputs.depth is None:
        return Certainties([], inputs)
    faults = check_holes(inputs.depth)
    if inputs.depth_is_complete:
        faults = check_zeros(inputs.depth) + faults
    return Certainties(faults[:1], inputs)  # zeros never count as measured in what follows


def _undo_mask(inputs: Inputs) -> Certainties:
    faults = [] if inputs.mask is None else checks.check_mask(inputs.mask)
    return Certainties(faults, inputs.without("mask") if faults else inputs)


def _undo_box(inputs: Inputs) -> Certainties:
    if inputs.box is None:
        return Certainties([], inputs)
    faults = [f for f in checks.check_box(inputs.box) if f.kind in ("box_normalised", "box_values")]
    if not faults:
        return Certainties([], inputs)
    if faults[0].kind == "box_normalised" and inputs.image_size is not None:
        return Certainties(faults, replace(inputs, box=denormalize(inputs.box, inputs.image_size)))
    return Certainties(faults, inputs.without("box"))


def _undo_pose(inputs: Inputs) -> Certainties:
    if inputs.cam_from_obj is None:
        return Certainties([], inputs)
    doubtful = ("pose_unit", "pose_opengl")
    faults = [f for f in checks.check_pose(inputs.cam_from_obj) if f.kind not in doubtful]
    if not faults:
        return Certainties([], inputs)
    kind = faults[0].kind
    if kind == "pose_transposed":
        return Certainties(faults, replace(inputs, cam_from_obj=inputs.cam_from_obj.mT.contiguous()))
    if kind == "pose_scaled":
        pose = inputs.cam_from_obj.clone()
        pose[:3, :3] /= faults[0].evidence["scale"]
        repaired = replace(inputs, cam_from_obj=pose)
        return Certainties(faults, replace(repaired, mesh_scale=faults[0].evidence["scale"]))
    return Certainties(faults, inputs.without("cam_from_obj"))
