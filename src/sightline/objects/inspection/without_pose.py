"""What can be compared without drawing: mask with box, seen size with true size, depth with pose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch

from sightline.geometry.boxes import boxes_from_masks, iou
from sightline.geometry.depth import is_measured
from sightline.objects.checks import Fault
from sightline.objects.inspection.consistency import length_in_words
from sightline.objects.inspection.findings import Findings
from sightline.objects.inspection.input_checks import find_doubts
from sightline.objects.inspection.inputs import Inputs, is_intrinsic
from sightline.objects.inspection.repairs import Repair, find_repairs

_BOX_PASSES, _BOX_RESTORED = 0.35, 0.65
_INSIDE = 0.9  # share of a visible mask that lies inside the box of the whole object
_LEAST_OF_BOX = 0.15  # share of that box which a visible mask covers
_SEEN_OF_SIZE = (0.12, 1.35)  # seen size over diameter: end-on and half hidden, to a near diagonal
_ANOTHER_UNIT = 4.0  # seen size over diameter from which a unit explains it better than a camera
_DEPTH_OF_DISTANCE = (0.25, 4.0)  # depth at the object's origin over the pose's distance


@dataclass(frozen=True, eq=False)
class _Comparison:
    """One figure that must lie between two ends."""

    text: str
    faults: list[Fault] = field(default_factory=list)
    repaired: Inputs | None = None


def compare_without_drawing(inputs: Inputs, doubts: Sequence[Fault]) -> Findings:
    """Compare what can be compared where mesh, pose, camera and an observation are not all there.

    Args:
        inputs: any subset, each sound by itself.
        doubts: what was found doubtful in them.

    Returns:
        The doubts, now faults, and what the comparisons add.

    Example:
        >>> mask = torch.zeros(480, 640, dtype=torch.bool)
        >>> mask[100:200, 300:420] = True
        >>> box = torch.tensor([300.0, 100, 120, 100], dtype=torch.float64)
        >>> found = compare_without_drawing(Inputs(image_size=(640, 480), mask=mask, box=box), [])
        >>> found.faults[0].kind
        'box_format'
    """
    faults = list(doubts)
    comparisons: list[str] = []
    for compare in (_compare_mask_and_box, _compare_sizes, _compare_depth_and_pose):
        found = compare(inputs)
        if found is None:
            continue
        comparisons.append(found.text)
        # what a comparison explains is named once; a camera that is wrong by itself explains the rest
        known = {fault.what for fault in faults if fault.what == "camera"}
        named = {fault.kind for fault in found.faults}
        faults = [fault for fault in faults if fault.kind not in named]
        faults += [fault for fault in found.faults if fault.what not in known]
        inputs = found.repaired or inputs
    return Findings(tuple(faults), (), tuple(comparisons), inputs)


def _compare_mask_and_box(inputs: Inputs) -> _Comparison | None:
    if inputs.mask is None or inputs.box is None or inputs.image_size is None:
        return None
    given = _box_fit(inputs)
    text = f"box of the mask against the box: IoU {given:.2f}"
    if given >= _BOX_PASSES:
        return _Comparison(text)
    evidence = {"given_box_iou": given}
    repairs = [repair for repair in find_repairs(inputs) if repair.what in ("box", "mask")]
    tried = [(repair, _box_fit(repair.apply(inputs))) for repair in repairs]
    best, fit = max(tried, key=lambda pair: pair[1] - 0.05 * (pair[0].what == "mask"))
    if fit >= _BOX_RESTORED:
        message = f"{best.sentence} (IoU of mask's box and box {given:.2f} as given, {fit:.2f} undone)"
        fault = Fault(best.what, message, best.kind, evidence | {"repaired_box_iou": fit})
        return _Comparison(text, [fault], best.apply(inputs))
    message = f"mask and box are of different places: IoU {given:.2f}; one of them is of another picture"
    return _Comparison(text, [Fault("mask and box", message, "mask_other", evidence)])


def _box_fit(inputs: Inputs) -> float:
    """IoU of the mask's box and the box; 1 where the box can be that of a whole, half hidden object."""
    assert inputs.mask is not None and inputs.box is not None and inputs.image_size is not None
    size = torch.tensor((*inputs.image_size, *inputs.image_size)).double()
    shape = torch.tensor(inputs.mask.shape[::-1]).double().repeat(2)
    own = (boxes_from_masks(inputs.mask).double() + 0.5) * size / shape - 0.5
    if not bool((inputs.box[2:] > inputs.box[:2]).all()):
        return 0.0
    overlap = float(iou(own, inputs.box).nan_to_num(0.0))
    low, high = torch.maximum(own[:2], inputs.box[:2]), torch.minimum(own[2:], inputs.box[2:])
    inner = float((high - low).clamp(min=0).prod())
    areas = [float((box[2:] - box[:2]).prod()) for box in (own, inputs.box)]
    is_part = inner >= _INSIDE * areas[0] and areas[0] >= _LEAST_OF_BOX * areas[1]
    return max(overlap, _BOX_PASSES) if is_part else overlap


def _compare_sizes(inputs: Inputs) -> _Comparison | None:
    """The largest distance across the mask, at the depth measured there, against the object's diameter."""
    seen, size = _seen_size(inputs), inputs.size_m
    if seen is None or size is None:
        return None
    ratio = seen / size
    text = f"size under the mask {length_in_words(seen)} of a diameter of {length_in_words(size)}"
    low, high = _SEEN_OF_SIZE
    if low <= ratio <= high:
        return _Comparison(text)
    evidence = {"seen_m": seen, "diameter_m": size, "ratio": ratio}
    if 1 < ratio < _ANOTHER_UNIT:
        message = f"the focal length is at least {ratio:.1f} times too short for this depth and this object"
        return _Comparison(text, [Fault("camera", f"{message} ({text})", "camera_focal", evidence)])
    named = _unit_repairs(inputs)
    if named:
        first, *others = named
        message = f"{first.sentence} ({text})"
        message += "".join(f"; or {other.what}: {other.sentence}" for other in others)
        return _Comparison(text, [Fault(first.what, message, first.kind, evidence)], first.apply(inputs))
    too = f"at least {ratio:.1f} times too short" if ratio > 1 else f"some {1 / ratio:.1f} times too long"
    message = f"the focal length is {too} for this depth and this object ({text})"
    return _Comparison(text, [Fault("camera", message, "camera_focal", evidence)])


def _unit_repairs(inputs: Inputs) -> list[Repair]:
    """The mistaken units of mesh or depth that give a plausible object of the seen size."""
    named: dict[str, tuple[int, float, Repair]] = {}
    for repair in find_repairs(inputs):
        if repair.kind not in ("mesh_unit", "depth_unit"):
            continue
        changed = repair.apply(inputs)
        seen, size = _seen_size(changed), changed.size_m
        if seen is None or size is None or not _SEEN_OF_SIZE[0] * 2 <= seen / size <= _SEEN_OF_SIZE[1]:
            continue
        doubts, surprise = len(find_doubts(changed)), abs(math.log(seen / size / 0.7))
        if repair.kind not in named or (doubts, surprise) < named[repair.kind][:2]:
            named[repair.kind] = (doubts, surprise, repair)
    fewest = min((doubts for doubts, _, _ in named.values()), default=0)
    if fewest > len(find_doubts(inputs)):
        return []
    return [repair for doubts, _, repair in named.values() if doubts == fewest]


def _seen_size(inputs: Inputs) -> float | None:
    if inputs.mask is None or inputs.depth is None or inputs.K is None or not is_intrinsic(inputs.K):
        return None
    if inputs.mask.shape != inputs.depth.shape:
        return None
    depths = inputs.depth[inputs.mask & is_measured(inputs.depth)]
    if len(depths) == 0:
        return None
    points = cv2.findNonZero(inputs.mask.numpy().astype(np.uint8))
    hull = cv2.convexHull(points)[:, 0].astype(np.float64)
    rays = hull / [float(inputs.K[0, 0]), float(inputs.K[1, 1])]
    across = np.linalg.norm(rays[:, None] - rays[None], axis=-1).max()
    return float(across * float(depths.median()))


def _compare_depth_and_pose(inputs: Inputs) -> _Comparison | None:
    """The depth where the pose puts the object's origin, against the pose's own distance."""
    if inputs.depth is None or inputs.cam_from_obj is None or inputs.K is None or inputs.image_size is None:
        return None
    if not is_intrinsic(inputs.K) or inputs.mesh is not None:
        return None
    origin = inputs.cam_from_obj[:3, 3]
    if float(origin[2]) <= 0:
        return None
    height, width = inputs.depth.shape
    px = (inputs.K @ origin / origin[2])[:2] * torch.tensor([width, height]) / torch.tensor(inputs.image_size)
    x, y = (int(v) for v in px.round())
    if not (0 <= x < width and 0 <= y < height):
        return None
    near = inputs.depth[max(y - 5, 0) : y + 6, max(x - 5, 0) : x + 6]
    near = near[is_measured(near)]
    if len(near) == 0:
        return None
    seen, said = float(near.median()), float(origin[2])
    text = f"depth at the object's origin {length_in_words(seen)}, its pose says {length_in_words(said)}"
    low, high = _DEPTH_OF_DISTANCE
    if low <= seen / said <= high:
        return _Comparison(text)
    message = f"it is {seen / said:.3g} times as far as the pose: one of them has another unit ({text})"
    return _Comparison(text, [Fault("depth", message, "depth_unit", {"ratio": seen / said})])
