"""Faults of unit, frame and camera in plain words: what one input shows by itself; inference raises them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.geometry.cameras import Camera
from sightline.geometry.depth import is_measured

ImageSize = tuple[int, int]

SMALLEST_M, LARGEST_M = 0.003, 5.0  # objects that a camera looks at on a table or in a room
NEAREST_M, FARTHEST_M = 0.05, 50.0  # what depth cameras measure, and where objects are looked at
_NARROWEST, _WIDEST = 0.3, 8.0  # focal length over the picture's longer side: 118 and 7 degrees
_OFF_CENTRE = 0.12  # of the picture's side, beyond which a principal point is no lens's
_SAME_FACTOR = 0.03  # by which the two axes of a K for another size may differ
_ORTHOGONAL = 1e-2


@dataclass(frozen=True)
class Fault:
    """Something that cannot be right.

    Args:
        what: the thing, such as ``camera`` or ``depth``.
        message: what is wrong and what it looks like, in plain words.
        kind: the sort of fault, one word for programs, such as ``pose_unit``.
        evidence: the numbers that show it; lengths in metres, the rest in pixels or shares.

    Example:
        >>> print(Fault("mesh", "a diameter of 150 m", "mesh_unit", {"diameter": 150.0}))
        mesh: a diameter of 150 m
    """

    what: str
    message: str
    kind: str = ""
    evidence: Mapping[str, float] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return f"{self.what}: {self.message}"


def check_camera(camera: Camera) -> list[Fault]:
    """Look for intrinsics that belong to another picture or another layout.

    Args:
        camera: the camera.

    Returns:
        What is wrong, nothing for a plausible camera.

    Example:
        >>> [str(fault) for fault in check_camera(Camera.from_focal(600.0, 640, 480))]
        []
        >>> wrong = Camera(Camera.from_focal(600.0, 1920, 1080).K, 640, 480)
        >>> print(*check_camera(wrong))
        camera: the principal point (959.5, 539.5) is outside the picture of 640x480; K is for another size?
    """
    K, longer = camera.K, max(camera.image_size)
    faults = []
    fx, fy, cx, cy = (float(K[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    if not (-0.5 <= cx <= camera.width - 0.5 and -0.5 <= cy <= camera.height - 0.5):
        text = (
            f"the principal point ({cx:g}, {cy:g}) is outside the picture of "
            f"{camera.width}x{camera.height}; K is for another size?"
        )
        faults.append(Fault("camera", text, "camera_size", {"cx": cx, "cy": cy}))
    if not 0.5 < fx / fy < 2.0:
        text = f"the focal lengths {fx:g} and {fy:g} px differ by a factor of two"
        faults.append(Fault("camera", text, "camera_focal", {"fx": fx, "fy": fy}))
    if not _NARROWEST < fx / longer < _WIDEST:
        angle = math.degrees(2 * math.atan(longer / 2 / fx))
        text = f"a focal length of {fx:g} px for {longer} px means an angle of view of {angle:.1f} degrees"
        faults.append(Fault("camera", text, "camera_focal", {"fx": fx, "angle_deg": angle}))
    return faults


def check_intrinsics(K: Float[Tensor, "3 3"], image_size: ImageSize | None = None) -> list[Fault]:
    """Look at a matrix that should be K, also at one that :class:`Camera` refuses, and say what it is.

    Args:
        K: ``(3, 3)`` as it was found.
        image_size: ``(width, height)`` of the picture, where known.

    Returns:
        What is wrong; with a size, what :func:`check_camera` says of it too.

    Example:
        >>> K = Camera.from_focal(600.0, 640, 480).K
        >>> print(*check_intrinsics(K.T.contiguous(), (640, 480)))
        camera: K is transposed: the principal point (319.5, 239.5) stands in the last row
    """
    if not bool(K.isfinite().all()):
        return [Fault("camera", "K holds NaN or infinity", "camera_matrix")]
    fx, fy, cx, cy = (float(K[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    if cx == cy == 0 and float(K[2, :2].abs().max()) > 0:
        px, py = float(K[2, 0]), float(K[2, 1])
        text = f"K is transposed: the principal point ({px:g}, {py:g}) stands in the last row"
        return [Fault("camera", text, "camera_transposed", {"cx": px, "cy": py})]
    if min(fx, fy) <= 0:
        text = f"the focal lengths {fx:g} and {fy:g} px are not positive: K of an OpenGL or Blender camera?"
        return [Fault("camera", text, "camera_matrix", {"fx": fx, "fy": fy})]
    if K[2].tolist() != [0.0, 0.0, 1.0] or float(K[1, 0]) != 0:
        text = f"K is no intrinsic matrix: its rows are {[[round(v, 3) for v in r] for r in K.tolist()]}"
        return [Fault("camera", text, "camera_matrix")]
    if max(fx, fy, cx, cy) < 10:
        text = f"K is in shares of the picture (focal length {fx:g}, principal point {cx:g}, {cy:g}), not px"
        return [Fault("camera", text, "camera_normalised", {"fx": fx, "cx": cx, "cy": cy})]
    if image_size is None:
        return []
    return check_camera(Camera(K, *image_size))


def suspect_camera(K: Float[Tensor, "3 3"], image_size: ImageSize) -> list[Fault]:
    """Look for a principal point that is the middle of another picture: no proof, for the picture may be cut.

    Args:
        K: ``(3, 3)`` intrinsics, pixels.
        image_size: ``(width, height)`` of the picture.

    Returns:
        The suspicion, with the size that K fits; nothing for a principal point near the middle.

    Example:
        >>> print(*suspect_camera(Camera.from_focal(300.0, 320, 240).K, (640, 480)))
        camera: the principal point (159.5, 119.5) is the middle of 320x240, not of the picture's 640x480
    """
    (width, height), (cx, cy) = image_size, (float(K[0, 2]), float(K[1, 2]))
    across, down = (cx + 0.5) / width, (cy + 0.5) / height
    if max(abs(across - 0.5), abs(down - 0.5)) < _OFF_CENTRE:
        return []
    fits = (round(2 * cx + 1), round(2 * cy + 1))
    where = (
        f"the principal point ({cx:g}, {cy:g}) is the middle of {fits[0]}x{fits[1]}, "
        f"not of the picture's {width}x{height}"
    )
    swapped = (cx + 0.5) / height, (cy + 0.5) / width
    evidence = {"cx": cx, "cy": cy, "width": width, "height": height}
    if max(abs(share - 0.5) for share in swapped) < 0.5 * _OFF_CENTRE:
        return [Fault("camera", f"{where}: width and height swapped?", "camera_swapped", evidence)]
    if abs(across / down - 1) < _SAME_FACTOR and across > 0:
        return [Fault("camera", where, "camera_size", evidence | {"factor": 0.5 / across})]
    return []


def check_size(diameter: float, *, what: str = "mesh") -> list[Fault]:
    """Look for an object of impossible size, as a wrong unit makes it.

    Args:
        diameter: metres.
        what: how to call it.

    Returns:
        What is wrong, nothing for 3 mm to 5 m.

    Example:
        >>> print(*check_size(150.0))
        mesh: a diameter of 150 m; 1000 times smaller it would be 0.15 m: millimetres read as metres?
    """
    if SMALLEST_M <= diameter <= LARGEST_M:
        return []
    text = f"a diameter of {diameter:g} m" + _other_unit(diameter, SMALLEST_M, LARGEST_M)
    return [Fault(what, text, f"{what}_unit", {"diameter": diameter})]


def check_depth(depth: Float[Tensor, "h w"], camera: Camera) -> list[Fault]:
    """Look for a depth picture of another size, in another unit, or without any measurement.

    Args:
        depth: ``(h, w)`` metres, 0 or NaN where missing.
        camera: the camera that it belongs to.

    Returns:
        What is wrong.

    Example:
        >>> print(*check_depth(torch.full((480, 640), 800.0), Camera.from_focal(600.0, 640, 480)))
        depth: a median of 800 m; 1000 times smaller it would be 0.8 m: millimetres read as metres?
    """
    height, width = depth.shape
    if (width, height) != camera.image_size:
        text = f"it has {width}x{height} pixels, its camera {camera.width}x{camera.height}"
        return [Fault("depth", text, "depth_size", {"width": width, "height": height})]
    return check_depth_values(depth)


def check_depth_values(depth: Float[Tensor, "h w"]) -> list[Fault]:
    """Look for a depth picture in another unit, or without any measurement.

    Args:
        depth: ``(h, w)`` metres, 0 or NaN where missing.

    Returns:
        What is wrong.

    Example:
        >>> print(*check_depth_values(torch.zeros(4, 4)))
        depth: no pixel has a depth above zero
    """
    known = depth[is_measured(depth)]
    if len(known) == 0:
        return [Fault("depth", "no pixel has a depth above zero", "depth_empty")]
    middle = float(known.median())
    if NEAREST_M <= middle <= FARTHEST_M:
        return []
    text = f"a median of {middle:g} m" + _other_unit(middle, NEAREST_M, FARTHEST_M)
    return [Fault("depth", text, "depth_unit", {"median": middle})]


def check_mask(mask: Bool[Tensor, "h w"]) -> list[Fault]:
    """Look for a mask that is empty or everything.

    Args:
        mask: ``(h, w)``.

    Returns:
        What is wrong.

    Example:
        >>> print(*check_mask(torch.zeros(4, 4, dtype=torch.bool)))
        mask: it is empty
    """
    share = float(mask.float().mean())
    if share == 0:
        return [Fault("mask", "it is empty", "mask_empty")]
    if share == 1:
        return [Fault("mask", "it covers every pixel of the picture", "mask_full")]
    return []


def check_box(box: Float[Tensor, "4"], image_size: ImageSize | None = None) -> list[Fault]:
    """Look for a box that is not xyxy in pixels.

    Args:
        box: ``(4,)`` what should be x0, y0, x1, y1 in pixels.
        image_size: ``(width, height)`` of the picture, where known.

    Returns:
        What is wrong.

    Example:
        >>> print(*check_box(torch.tensor([300.0, 200, 80, 60]), (640, 480)))
        box: its corners (300, 200) and (80, 60) are not in order; is it x, y, width, height?
    """
    x0, y0, x1, y1 = (float(v) for v in box)
    if not all(map(math.isfinite, (x0, y0, x1, y1))):
        return [Fault("box", "it holds NaN or infinity", "box_values")]
    if max(abs(v) for v in (x0, y0, x1, y1)) <= 1.5:
        text = f"({x0:g}, {y0:g}, {x1:g}, {y1:g}) looks like shares of the picture, not pixels"
        return [Fault("box", text, "box_normalised", {"largest": max(x0, y0, x1, y1)})]
    if x1 <= x0 or y1 <= y0:
        text = f"its corners ({x0:g}, {y0:g}) and ({x1:g}, {y1:g}) are not in order"
        if x1 > 0 and y1 > 0:
            text += "; is it x, y, width, height?"
        return [Fault("box", text, "box_format", {"width": x1 - x0, "height": y1 - y0})]
    if image_size is None:
        return []
    width, height = image_size
    if x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
        text = f"({x0:g}, {y0:g}, {x1:g}, {y1:g}) lies outside the picture of {width}x{height}"
        return [Fault("box", text, "box_outside", {"x0": x0, "y0": y0, "x1": x1, "y1": y1})]
    return []


def check_pose(cam_from_obj: Float[Tensor, "4 4"]) -> list[Fault]:
    """Look for what is no rigid pose before an OpenCV camera, in metres.

    Args:
        cam_from_obj: ``(4, 4)`` as it was found.

    Returns:
        What is wrong.

    Example:
        >>> pose = torch.eye(4, dtype=torch.float64)
        >>> pose[2, 3] = -0.8
        >>> print(*check_pose(pose))
        pose: the object is behind the camera, at z = -0.8 m: a pose for an OpenGL or Blender camera?
    """
    if not bool(cam_from_obj.isfinite().all()):
        return [Fault("pose", "it holds NaN or infinity", "pose_values")]
    if cam_from_obj[3].tolist() != [0.0, 0.0, 0.0, 1.0]:
        last = [round(v, 4) for v in cam_from_obj[3].tolist()]
        if cam_from_obj[:, 3].tolist() == [0.0, 0.0, 0.0, 1.0]:
            text = f"the 4x4 is transposed: the translation {last[:3]} stands in the last row"
            return [Fault("pose", text, "pose_transposed")]
        return [Fault("pose", f"expected the last row 0 0 0 1, got {last}", "pose_matrix")]
    faults = _check_rotation(cam_from_obj[:3, :3])
    distance, z = float(cam_from_obj[:3, 3].norm()), float(cam_from_obj[2, 3])
    low, high = SMALLEST_M, FARTHEST_M
    if distance > 0 and not low <= distance <= high:
        text = f"a distance of {distance:g} m" + _other_unit(distance, low, high)
        faults.append(Fault("pose", text, "pose_unit", {"distance": distance}))
    if z < 0:
        text = f"the object is behind the camera, at z = {z:g} m: a pose for an OpenGL or Blender camera?"
        faults.append(Fault("pose", text, "pose_opengl", {"z": z}))
    return faults


def _check_rotation(R: Tensor) -> list[Fault]:
    gram, determinant = R @ R.mT, float(torch.linalg.det(R))
    size = abs(determinant) ** (1 / 3)
    eye = torch.eye(3, dtype=R.dtype)
    if size == 0 or float((gram / size**2 - eye).abs().max()) > _ORTHOGONAL:
        error = float((gram - eye).abs().max())
        text = f"its rotation is none: R R^T misses the identity by {error:.2g}"
        return [Fault("pose", text, "pose_rotation", {"error": error})]
    if abs(size - 1) > _ORTHOGONAL:
        text = f"its rotation carries a scale of {size:g}: a mesh's unit multiplied into the pose?"
        return [Fault("pose", text, "pose_scaled", {"scale": size})]
    if determinant < 0:
        text = "its rotation is a reflection (determinant -1): axes of a left-handed frame?"
        return [Fault("pose", text, "pose_reflection", {"determinant": determinant})]
    return []


def _other_unit(length: float, low: float, high: float) -> str:
    """The guess that a length outside [low, high] is off by a thousand, where that explains it."""
    smaller, larger = length / 1000, length * 1000
    if low <= smaller <= high:
        return f"; 1000 times smaller it would be {smaller:g} m: millimetres read as metres?"
    if low <= larger <= high:
        return f"; 1000 times larger it would be {larger:g} m: metres read as millimetres?"
    return ""


def raise_faults(faults: Iterable[Fault], *, source: str = "") -> None:
    """Turn faults into one error.

    Args:
        faults: what was found.
        source: the file that they were found in.

    Raises:
        ValueError: there is at least one.

    Example:
        >>> raise_faults([])
    """
    lines = [str(fault) for fault in faults]
    if lines:
        raise ValueError(f"{source}: " * bool(source) + "; ".join(lines))
