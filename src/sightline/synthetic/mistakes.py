"""The usual mistakes with units, frames and cameras, made on purpose: what the doctor must find and name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import cv2
import torch
from jaxtyping import Bool
from torch import Tensor

from sightline.geometry.boxes import boxes_from_masks, xywh_from_xyxy
from sightline.geometry.intrinsics import resize_intrinsics
from sightline.geometry.poses import make_pose
from sightline.geometry.quaternions import (
    matrix_from_quaternion_wxyz,
    matrix_from_quaternion_xyzw,
    quaternion_wxyz_from_matrix,
    quaternion_xyzw_from_matrix,
)
from sightline.objects.inspection.inputs import Inputs
from sightline.records import TriangleMesh
from sightline.rendering import render_views
from sightline.synthetic.objects import OBJECT_KINDS, make_object
from sightline.synthetic.scenes import Scene, SceneSettings, make_scene
from sightline.synthetic.sensor import SensorSettings

_SEEN_M = 0.03


@dataclass(frozen=True, eq=False)
class Mistake:
    """One mistake.

    Args:
        what: the input that it is in.
        kind: its name, as a fault's ``kind``.
        make: sound inputs, and a mask of another picture, to faulty ones.
    """

    what: str
    kind: str
    make: Callable[[Inputs, Bool[Tensor, "h w"]], Inputs]


@dataclass(frozen=True, eq=False)
class Case:
    """Sound inputs to make mistakes in.

    Args:
        name: of the object, for tables.
        inputs: all of mesh, camera, depth, mask, box and pose.
        other_mask: ``(h, w)`` bool, of another picture.
    """

    name: str
    inputs: Inputs
    other_mask: Bool[Tensor, "h w"]

    def with_mistake(self, name: str) -> Inputs:
        """The inputs with one mistake of ``MISTAKES``."""
        return MISTAKES[name].make(self.inputs, self.other_mask)


def make_case(seed: int) -> Case:
    """A generated object, often partly hidden, with noisy depth: all inputs sound.

    Args:
        seed: of everything.

    Returns:
        The case; kinds of objects follow one another with the seed.

    Example:
        >>> case = make_case(3)
        >>> case.name, case.inputs.can_render
        ('bottle-low-3', True)
    """
    kinds = [OBJECT_KINDS[(seed + 2 * i) % len(OBJECT_KINDS)] for i in range(3)]
    things = [make_object(kind, seed + 10 * i, texture="low") for i, kind in enumerate(kinds)]
    settings = SceneSettings(size_px=(90, 230), cover=1.0, sensor=SensorSettings(depth_noise=0.002))
    scenes = [make_scene(things, [seed, i], settings, num_targets=1) for i in range(2)]
    inputs = inputs_of_scene(scenes[0], 0, things[0].mesh)
    return Case(things[0].name, inputs, scenes[1].masks[0])


def complete_case(name: str, inputs: Inputs) -> Case:
    """A case of a real picture: mask and box are what is seen of the object drawn at its true pose.

    Args:
        name: for tables.
        inputs: sound, with mesh, camera, depth and pose.

    Returns:
        The case with a mask where drawn and measured depth agree to 3 cm; its other mask is that of the same
        object somewhere else.
    """
    assert inputs.mesh is not None and inputs.K is not None and inputs.image_size is not None
    assert inputs.depth is not None
    poses = _pose(inputs).repeat(2, 1, 1)
    poses[1, :3, 3] += torch.tensor([-0.15, -0.1, 0.1], dtype=torch.float64)
    drawn = render_views(inputs.mesh, poses, inputs.K, inputs.image_size, outputs=("depth",)).depth
    mask = (drawn[0] > 0) & ((inputs.depth - drawn[0]).abs() < _SEEN_M)
    known = replace(inputs, mask=mask, box=boxes_from_masks(mask).double())
    return Case(name, known, drawn[1] > 0)


def inputs_of_scene(scene: Scene, index: int, mesh: TriangleMesh) -> Inputs:
    """All that is known of one object of a generated picture, as the doctor takes it.

    Args:
        scene: the picture with its truth.
        index: of the instance.
        mesh: of its object.

    Returns:
        The inputs; the box is that of what is seen.

    Example:
        >>> from sightline.synthetic import SceneSettings, make_object, make_scene
        >>> mug = make_object("mug", 0)
        >>> scene = make_scene([mug], 1, SceneSettings(image_size=(96, 72), size_px=(30, 60)))
        >>> inputs_of_scene(scene, 0, mug.mesh).observed
        ('mask', 'box', 'depth')
    """
    return Inputs(
        image_size=scene.camera.image_size,
        K=scene.camera.K,
        camera_size=scene.camera.image_size,
        mesh=mesh,
        depth=scene.depth,
        mask=scene.masks[index],
        box=scene.boxes_visible[index],
        cam_from_obj=scene.cam_from_obj[index],
    )


def _mesh_in_millimetres(given: Inputs, _: Tensor) -> Inputs:
    assert given.mesh is not None
    return replace(given, mesh=given.mesh.scaled(1000.0), diameter=None)


def _scaled_depth(factor: float) -> Callable[[Inputs, Tensor], Inputs]:
    def make(given: Inputs, _: Tensor) -> Inputs:
        assert given.depth is not None
        return replace(given, depth=given.depth * factor)

    return make


def _pose_in_millimetres(given: Inputs, _: Tensor) -> Inputs:
    pose = _pose(given).clone()
    pose[:3, 3] *= 1000.0
    return replace(given, cam_from_obj=pose)


def _opengl_pose(given: Inputs, _: Tensor) -> Inputs:
    turn = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
    return replace(given, cam_from_obj=turn @ _pose(given))


def _wxyz_read_as_xyzw(given: Inputs, _: Tensor) -> Inputs:
    pose = _pose(given)
    R = matrix_from_quaternion_xyzw(quaternion_wxyz_from_matrix(pose[:3, :3]))
    return replace(given, cam_from_obj=make_pose(R, pose[:3, 3]))


def _xyzw_read_as_wxyz(given: Inputs, _: Tensor) -> Inputs:
    pose = _pose(given)
    R = matrix_from_quaternion_wxyz(quaternion_xyzw_from_matrix(pose[:3, :3]))
    return replace(given, cam_from_obj=make_pose(R, pose[:3, 3]))


def _transposed_camera(given: Inputs, _: Tensor) -> Inputs:
    return replace(given, K=_intrinsics(given).mT.contiguous())


def _camera_of_size(factor: float, *, stated: bool = False) -> Callable[[Inputs, Tensor], Inputs]:
    def make(given: Inputs, _: Tensor) -> Inputs:
        assert given.image_size is not None
        width, height = given.image_size
        other = (round(width * factor), round(height * factor))
        K = resize_intrinsics(_intrinsics(given), given.image_size, other)
        return replace(given, K=K, camera_size=other if stated else given.camera_size)

    return make


def _swapped_camera(given: Inputs, _: Tensor) -> Inputs:
    swap = torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    return replace(given, K=swap @ _intrinsics(given) @ swap)


def _swapped_camera_size(given: Inputs, _: Tensor) -> Inputs:
    assert given.image_size is not None
    return replace(given, camera_size=given.image_size[::-1])


def _scaled_focal(factor: float) -> Callable[[Inputs, Tensor], Inputs]:
    def make(given: Inputs, _: Tensor) -> Inputs:
        K = _intrinsics(given).clone()
        K[0, 0] *= factor
        K[1, 1] *= factor
        return replace(given, K=K)

    return make


def _box_as_xywh(given: Inputs, _: Tensor) -> Inputs:
    assert given.box is not None
    return replace(given, box=xywh_from_xyxy(given.box))


def _zeros_as_depth(given: Inputs, _: Tensor) -> Inputs:
    return replace(given, depth_is_complete=True)


def _blended_holes(given: Inputs, _: Tensor) -> Inputs:
    assert given.depth is not None
    depth = given.depth.nan_to_num(0.0).numpy().copy()
    height, width = depth.shape
    # a patch without depth, as a shiny or black surface makes it
    depth[height // 8 : height // 4, width // 8 : width // 3] = 0
    half = cv2.resize(depth, (width // 2, height // 2), interpolation=cv2.INTER_NEAREST)
    blended = cv2.resize(half, (width, height), interpolation=cv2.INTER_LINEAR)
    return replace(given, depth=torch.from_numpy(blended))


def _pose(given: Inputs) -> Tensor:
    assert given.cam_from_obj is not None
    return given.cam_from_obj


def _intrinsics(given: Inputs) -> Tensor:
    assert given.K is not None
    return given.K


MISTAKES: Mapping[str, Mistake] = {
    "mesh in millimetres": Mistake("mesh", "mesh_unit", _mesh_in_millimetres),
    "depth in millimetres": Mistake("depth", "depth_unit", _scaled_depth(1000.0)),
    "depth in tenths of a millimetre": Mistake("depth", "depth_unit", _scaled_depth(10.0)),
    "pose in millimetres": Mistake("pose", "pose_unit", _pose_in_millimetres),
    "K transposed": Mistake("camera", "camera_transposed", _transposed_camera),
    "K of a larger picture": Mistake("camera", "camera_size", _camera_of_size(2.0)),
    "K of a smaller picture": Mistake("camera", "camera_size", _camera_of_size(0.75)),
    "camera file of another picture": Mistake("camera", "camera_size", _camera_of_size(1.5, stated=True)),
    "K with width and height swapped": Mistake("camera", "camera_swapped", _swapped_camera),
    "width and height swapped": Mistake("camera", "camera_swapped", _swapped_camera_size),
    "OpenGL pose": Mistake("pose", "pose_opengl", _opengl_pose),
    "focal length 2.1 times too short": Mistake("camera", "camera_focal", _scaled_focal(1 / 2.1)),
    "focal length 2.1 times too long": Mistake("camera", "camera_focal", _scaled_focal(2.1)),
    "box as x, y, width, height": Mistake("box", "box_format", _box_as_xywh),
    "mask of another picture": Mistake("mask", "mask_other", lambda given, other: replace(given, mask=other)),
    "zeros taken for depth": Mistake("depth", "depth_zeros", _zeros_as_depth),
    "holes interpolated": Mistake("depth", "depth_zeros", _blended_holes),
    "quaternion wxyz read as xyzw": Mistake("pose", "pose_quaternion", _wxyz_read_as_xyzw),
    "quaternion xyzw read as wxyz": Mistake("pose", "pose_quaternion", _xyzw_read_as_wxyz),
}
"""Every mistake by its name."""
