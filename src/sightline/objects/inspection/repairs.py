"""The usual mistakes with units, frames and cameras, each with the repair that undoes it.

A repair is tried where inputs disagree; the mistake is the one whose repair makes them agree. To know one
more mistake, add one row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.geometry.boxes import xyxy_from_cxcywh, xyxy_from_xywh
from sightline.geometry.intrinsics import resize_intrinsics
from sightline.geometry.poses import invert, make_pose
from sightline.geometry.quaternions import (
    matrix_from_quaternion_wxyz,
    matrix_from_quaternion_xyzw,
    quaternion_wxyz_from_matrix,
    quaternion_xyzw_from_matrix,
)
from sightline.objects.inspection.inputs import Inputs, is_intrinsic, is_rigid

# Standard picture sizes are these factors apart.
_PICTURE_FACTORS = (1 / 4, 1 / 3, 3 / 8, 1 / 2, 2 / 3, 3 / 4, 4 / 3, 3 / 2, 2, 8 / 3, 3, 4)
_NEW_FACTOR = 0.02  # by which a factor that centres the principal point must differ from those


@dataclass(frozen=True)
class Repair:
    """A mistake and how to undo it.

    Args:
        what: the input that it is in.
        kind: the sort of mistake, as in :class:`~sightline.objects.checks.Fault`.
        sentence: what is wrong, in words that go before the evidence.
        apply: inputs to inputs; the result may be no rigid pose or no K, and is then left out.
        cost: how much less likely than the others; the simplest mistake that explains everything is reported.
    """

    what: str
    kind: str
    sentence: str
    apply: Callable[[Inputs], Inputs]
    cost: int = 1


def find_repairs(inputs: Inputs) -> list[Repair]:
    """All mistakes that could have been made with what is given.

    Args:
        inputs: what is given.

    Returns:
        The repairs that can be applied to it, each leading to something that can be drawn where that could.

    Example:
        >>> box = torch.tensor([10.0, 20, 30, 40], dtype=torch.float64)
        >>> for repair in find_repairs(Inputs(image_size=(640, 480), box=box))[:2]:
        ...     print(repair.sentence, repair.apply(Inputs(box=box)).box.tolist())
        it looks like x, y, width, height, not two corners [10.0, 20.0, 40.0, 60.0]
        it looks like centre, width, height, not two corners [-5.0, 0.0, 25.0, 40.0]
    """
    found: list[Repair] = []
    if inputs.size_m is not None:
        found += _mesh_repairs()
    if inputs.cam_from_obj is not None:
        found += _pose_repairs()
        if inputs.size_m is not None:
            found.append(_shared_unit())
    if inputs.K is not None and inputs.image_size is not None and is_intrinsic(inputs.K):
        found += _camera_repairs(inputs.K, inputs.image_size)
    if inputs.depth is not None:
        found += [*_depth_repairs(), *_flips("depth")]
    if inputs.mask is not None:
        found += [*_flips("mask"), _inverted_mask()]
    if inputs.box is not None:
        found += _box_repairs()
    return [repair for repair in found if _makes_sense(repair.apply(inputs))]


def scale_focal(factor: float) -> Repair:
    """The repair of a focal length that has to be multiplied by a factor.

    Args:
        factor: above 1 where the given focal length is too short.

    Example:
        >>> scale_focal(2.1).sentence
        'the focal length is 2.10 times too short for the other inputs'
    """

    def apply(inputs: Inputs) -> Inputs:
        assert inputs.K is not None
        K = inputs.K.clone()
        K[0, :2] *= factor
        K[1, 1] *= factor
        return replace(inputs, K=K)

    too = f"{factor:.2f} times too short" if factor > 1 else f"{1 / factor:.2f} times too long"
    return Repair("camera", "camera_focal", f"the focal length is {too} for the other inputs", apply, cost=2)


def _makes_sense(inputs: Inputs) -> bool:
    rigid = inputs.cam_from_obj is None or is_rigid(inputs.cam_from_obj)
    return rigid and (inputs.K is None or is_intrinsic(inputs.K))


def _mesh_repairs() -> Iterator[Repair]:
    for factor, text in (
        (0.001, "it is 1000 times too large: it looks like millimetres read as metres"),
        (1000.0, "it is 1000 times too small: it looks like metres read as millimetres"),
        (0.01, "it is 100 times too large: it looks like centimetres read as metres"),
        (100.0, "it is 100 times too small: it looks like metres read as centimetres"),
        (0.1, "it is 10 times too large: it looks like millimetres read as centimetres"),
        (10.0, "it is 10 times too small: it looks like centimetres read as millimetres"),
        (0.0254, "it is 39.4 times too large: it looks like inches read as metres"),
        (25.4, "it is 25.4 times too small: it looks like inches read as millimetres"),
        (2.54, "it is 2.54 times too small: it looks like inches read as centimetres"),
        (1 / 2.54, "it is 2.54 times too large: it looks like centimetres read as inches"),
    ):
        yield Repair("mesh", "mesh_unit", text, partial(_scale_mesh, factor))


def _scale_mesh(factor: float, inputs: Inputs) -> Inputs:
    return replace(inputs, mesh_scale=inputs.mesh_scale * factor)


def _shared_unit() -> Repair:
    def apply(inputs: Inputs) -> Inputs:
        return _scale_mesh(0.001, _scale_translation(0.001, inputs))

    text = "mesh and pose look like millimetres read as metres, both of them"
    return Repair("mesh and pose", "mesh_and_pose_unit", text, apply)


def _pose_repairs() -> Iterator[Repair]:
    for factor, text in (
        (0.001, "its translation looks like millimetres read as metres"),
        (1000.0, "its translation looks like metres read as millimetres"),
        (0.01, "its translation looks like centimetres read as metres"),
        (100.0, "its translation looks like metres read as centimetres"),
        (0.1, "its translation looks like millimetres read as centimetres"),
        (10.0, "its translation looks like centimetres read as millimetres"),
    ):
        yield Repair("pose", "pose_unit", text, partial(_scale_translation, factor))
    turn = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
    gl = "it is a pose for an OpenGL or Blender camera (y up, z backward), not for an OpenCV one"
    yield _pose_repair("pose_opengl", gl, lambda pose: turn @ pose)
    both = "camera and object axes are those of OpenGL or Blender (y and z reversed), not OpenCV's"
    yield _pose_repair("pose_opengl", both, lambda pose: turn @ pose @ turn)
    inverse = "it takes camera to object; its inverse, cam_from_obj, was expected"
    yield _pose_repair("pose_inverse", inverse, invert)
    wxyz = "its quaternion is w, x, y, z but was read as x, y, z, w"
    yield _rotation_repair(
        "pose_quaternion", wxyz, lambda R: matrix_from_quaternion_wxyz(quaternion_xyzw_from_matrix(R))
    )
    xyzw = "its quaternion is x, y, z, w but was read as w, x, y, z"
    yield _rotation_repair(
        "pose_quaternion", xyzw, lambda R: matrix_from_quaternion_xyzw(quaternion_wxyz_from_matrix(R))
    )
    columns = "its rotation is transposed: written column by column, or obj_from_cam"
    yield _rotation_repair("pose_rotation_transposed", columns, lambda R: R.mT)
    for half in (1.0, -1.0):
        x_turn = torch.tensor([[1.0, 0, 0], [0, 0, -half], [0, half, 0]], dtype=torch.float64)
        text = "the mesh's up axis is another one than the pose's (y up against z up)"
        yield _rotation_repair("mesh_axes", text, lambda R, turn=x_turn: R @ turn, what="mesh")


def _scale_translation(factor: float, inputs: Inputs) -> Inputs:
    assert inputs.cam_from_obj is not None
    pose = inputs.cam_from_obj.clone()
    pose[:3, 3] *= factor
    return replace(inputs, cam_from_obj=pose)


def _pose_repair(
    kind: str, sentence: str, change: Callable[[Tensor], Tensor], *, what: str = "pose"
) -> Repair:
    def apply(inputs: Inputs) -> Inputs:
        assert inputs.cam_from_obj is not None
        return replace(inputs, cam_from_obj=change(inputs.cam_from_obj))

    return Repair(what, kind, sentence, apply)


def _rotation_repair(
    kind: str, sentence: str, change: Callable[[Tensor], Tensor], *, what: str = "pose"
) -> Repair:
    return _pose_repair(kind, sentence, lambda pose: make_pose(change(pose[:3, :3]), pose[:3, 3]), what=what)


def _camera_repairs(K: Float[Tensor, "3 3"], size: tuple[int, int]) -> Iterator[Repair]:
    width, height = size
    swap = torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    text = f"width and height are swapped: K is for {height}x{width}, the picture has {width}x{height}"
    yield Repair("camera", "camera_swapped", text, _with_K(swap @ K @ swap))
    across, down = width / (2 * float(K[0, 2]) + 1), height / (2 * float(K[1, 2]) + 1)
    factors = [(s, s) for s in _PICTURE_FACTORS]
    if min(across, down) > 0 and all(abs(across / s - 1) > _NEW_FACTOR for s in (*_PICTURE_FACTORS, 1.0)):
        factors.append((across, down))
    for sx, sy in factors:
        fits = (round(width / sx), round(height / sy))
        text = f"K is for a picture of {fits[0]}x{fits[1]}, this one has {width}x{height}"
        yield Repair("camera", "camera_size", text, _with_K(resize_intrinsics(K, fits, size)))


def _with_K(K: Float[Tensor, "3 3"]) -> Callable[[Inputs], Inputs]:
    return lambda inputs: replace(inputs, K=K)


def _depth_repairs() -> Iterator[Repair]:
    for factor, text in (
        (0.001, "it looks like millimetres read as metres"),
        (1000.0, "it looks like metres read as millimetres"),
        (0.1, "it looks like tenths of a millimetre read as millimetres"),
        (10.0, "it looks like millimetres read as tenths of a millimetre"),
        (0.0001, "it looks like tenths of a millimetre read as metres"),
        (0.01, "it looks like centimetres read as metres"),
        (100.0, "it looks like metres read as centimetres"),
        (0.2, "it looks like fifths of a millimetre (5000 steps a metre) read as millimetres"),
        (0.25, "it looks like quarters of a millimetre read as millimetres"),
    ):
        yield Repair("depth", "depth_unit", text, partial(_scale_depth, factor))


def _scale_depth(factor: float, inputs: Inputs) -> Inputs:
    assert inputs.depth is not None
    return replace(inputs, depth=inputs.depth * factor)


def _flips(what: str) -> Iterator[Repair]:
    for name, text, change in (
        ("mirrored", "it is mirrored, left to right", lambda picture: picture.flip(1)),
        ("mirrored", "it is upside down", lambda picture: picture.flip(0)),
        ("mirrored", "it is turned by 180 degrees", lambda picture: picture.flip(0, 1)),
        ("transposed", "its rows and columns are swapped", lambda picture: picture.mT),
    ):
        yield Repair(what, f"{what}_{name}", text, partial(_change, what, change))


def _inverted_mask() -> Repair:
    text = "it is inverted: it marks the background"
    return Repair("mask", "mask_inverted", text, partial(_change, "mask", lambda mask: ~mask))


def _box_repairs() -> Iterator[Repair]:
    for text, change in (
        ("it looks like x, y, width, height, not two corners", xyxy_from_xywh),
        ("it looks like centre, width, height, not two corners", xyxy_from_cxcywh),
        ("it looks like y, x, y, x, not x, y, x, y", lambda box: box[[1, 0, 3, 2]]),
    ):
        yield Repair("box", "box_format", text, partial(_change, "box", change))
    for factor in (0.5, 2.0):
        text = f"it is for a picture of {1 / factor:g} times the size"
        yield Repair("box", "box_size", text, partial(_change, "box", lambda box, s=factor: box * s))


def _change(what: str, change: Callable[[Tensor], Tensor], inputs: Inputs) -> Inputs:
    changed: dict[str, Any] = {what: change(getattr(inputs, what))}
    return replace(inputs, **changed)
