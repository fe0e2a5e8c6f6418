"""Whether labels, poses, cameras, masks and depth of pictures agree, before anything learns from them.

What one value shows by itself `objects.checks` says; here the values are held against each other: the
object's points are projected with its pose and camera and must lie on its box and mask, and the depth that is
seen there must be that of the pose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from sightline.geometry.depth import center_depth
from sightline.objects.checks import (
    Fault,
    check_box,
    check_depth_values,
    check_intrinsics,
    check_mask,
    check_pose,
    suspect_camera,
)
from sightline.rtdetr_pose.pictures import LabelledPicture, ObjectClass, PictureSource
from sightline.synthetic.pose_composites import projected_box

Progress = Callable[[Iterable, str, int], Iterable]

_LEAST_INSIDE = 0.85  # share of a label's box, or mask, that the projected object must hold
_LEAST_AREA = 0.02  # of a label's box over the projected one: less is another size, not occlusion
_SLACK_PX = 2.0
_DEPTH_SLACK = 0.03


@dataclass(frozen=True)
class PictureFault:
    """Something in a picture that cannot be right.

    Args:
        picture: which, by name.
        row: of the object in it; None for the picture itself.
        name: of the object's class; empty for the picture itself.
        fault: what.
    """

    picture: str
    row: int | None
    name: str
    fault: Fault

    def __str__(self) -> str:
        where = self.picture if self.row is None else f"{self.picture}, object {self.row} ({self.name})"
        return f"{where}: {self.fault}"


@dataclass(frozen=True)
class ConsistencyReport:
    """What was looked at and what is wrong.

    Args:
        num_pictures: how many pictures were looked at.
        num_objects: how many labelled objects they have.
        counts: class -> how often it is there.
        notes: what the source says of itself, such as class ids with holes.
        faults: in the order of the pictures.
    """

    num_pictures: int
    num_objects: int
    counts: dict[str, int]
    notes: tuple[str, ...]
    faults: tuple[PictureFault, ...]

    def lines(self, most: int = 20) -> list[str]:
        """The report in plain words, first what it is about, then at most so many faults."""
        spoilt = len({each.picture for each in self.faults})
        lines = [
            f"{self.num_pictures} pictures with {self.num_objects} objects, {spoilt} pictures with faults"
        ]
        lines += self.notes
        lines += [f"{name}: in no picture" for name, count in self.counts.items() if count == 0]
        kinds = Counter(each.fault.kind for each in self.faults)
        lines += [f"{kind}: {count} times" for kind, count in kinds.most_common()]
        lines += [str(each) for each in self.faults[:most]]
        if len(self.faults) > most:
            lines.append(f"and {len(self.faults) - most} more")
        return lines


def check_pictures(
    source: PictureSource,
    *,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress = lambda items, *_: items,
) -> ConsistencyReport:
    """Look at the pictures of a source, or at some that are spread evenly over it.

    Args:
        source: of pictures.
        limit: how many to look at; all unless given.
        seed: of pictures that are generated.
        progress: wraps what takes long, with a text and a total.

    Returns:
        What is wrong; a file that cannot be read is a fault of its picture.

    Raises:
        ValueError: a limit below 1.

    Example:
        >>> from sightline.rtdetr_pose.pictures import ScenePictures
        >>> from sightline.synthetic import SceneSettings, make_object, make_scene
        >>> mug = make_object("mug", 0)
        >>> scene = make_scene([mug], 1, SceneSettings(image_size=(96, 72), size_px=(30, 60)))
        >>> check_pictures(ScenePictures([scene], [mug])).lines()
        ['1 pictures with 1 objects, 0 pictures with faults']
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit: expected at least 1, got {limit}")
    count = len(source) if limit is None else min(limit, len(source))
    numbers = np.linspace(0, len(source) - 1, count).round().astype(int).tolist() if count else []
    counts = {known.name: 0 for known in source.classes}
    faults: list[PictureFault] = []
    total = 0
    for number in progress(numbers, "pictures", count):
        try:
            picture = source.draw(number, np.random.default_rng([seed, number]))
        except (ValueError, FileNotFoundError) as error:
            faults.append(
                PictureFault(f"picture {number}", None, "", Fault("picture", str(error), "unreadable"))
            )
            continue
        faults += check_picture(picture, source.classes)
        total += len(picture.labels)
        for label in picture.labels.tolist():
            if 0 <= label < len(source.classes):
                counts[source.classes[label].name] += 1
    notes = tuple(getattr(source, "notes", ()))
    return ConsistencyReport(count, total, counts, notes, tuple(faults))


def check_picture(picture: LabelledPicture, classes: Iterable[ObjectClass]) -> list[PictureFault]:
    """Look at one picture.

    Args:
        picture: with labels.
        classes: what is known of them.

    Returns:
        What is wrong with the picture, then with each object.
    """
    known = tuple(classes)
    faults: list[PictureFault] = []
    for row, label in enumerate(picture.labels.tolist()):
        if not 0 <= label < len(known):
            text = f"expected a class from 0 to {len(known) - 1}, got {label}"
            faults.append(PictureFault(picture.name, row, "unknown", Fault("label", text, "label_range")))
            continue
        found = [*_check_parts(picture, row), *_check_together(picture, row, known[label])]
        faults += [PictureFault(picture.name, row, known[label].name, fault) for fault in found]
    whole = _check_whole(picture)
    if picture.K is not None and any(each.fault.kind == "box_projection" for each in faults):
        # no proof by itself, for a picture may have been cut; here it says what the reason may be
        whole += suspect_camera(torch.from_numpy(picture.K), picture.size)
    return [*(PictureFault(picture.name, None, "", fault) for fault in whole), *faults]


def _check_whole(picture: LabelledPicture) -> list[Fault]:
    faults: list[Fault] = []
    if picture.K is not None:
        faults += check_intrinsics(torch.from_numpy(picture.K), picture.size)
    if picture.depth is not None:
        height, width = picture.depth.shape
        if (width, height) != picture.size:
            size = "{}x{}".format(*picture.size)
            faults.append(Fault("depth", f"it has {width}x{height} pixels, the picture {size}", "depth_size"))
        elif len(picture.labels):
            faults += check_depth_values(torch.from_numpy(picture.depth))
    return faults


def _check_parts(picture: LabelledPicture, row: int) -> list[Fault]:
    """Box, mask and pose, each by itself."""
    faults = check_box(torch.from_numpy(picture.boxes[row]), picture.size)
    if picture.masks is not None:
        faults += check_mask(torch.from_numpy(picture.masks[row]))
    pose = picture.cam_from_obj[row]
    if picture.K is not None and not np.isnan(pose).all():
        faults += check_pose(torch.from_numpy(pose))
    return faults


def _check_together(picture: LabelledPicture, row: int, known: ObjectClass) -> list[Fault]:
    """What pose and camera say against box, mask and depth."""
    if picture.K is None or not picture.pose_valid[row]:
        return []
    pose, K = picture.cam_from_obj[row], picture.K
    faults = _check_depth(picture, row, known)
    if known.points is None:
        return faults
    if (known.points @ pose[2, :3] + pose[2, 3]).min() <= 0:
        return [*faults, Fault("pose", "some of the object's points lie behind the camera", "points_behind")]
    box = projected_box(known.points, pose, K)
    faults += _check_box_holds(picture.boxes[row], box)
    if picture.masks is not None and picture.masks[row].any():
        faults += _check_mask_held(picture.masks[row], known.points, pose, K)
    return faults


def _check_box_holds(label: np.ndarray, box: np.ndarray) -> list[Fault]:
    if not np.isfinite(label).all() or (label[2:] <= label[:2]).any():
        return []
    wide = box + np.array([-1, -1, 1, 1]) * _SLACK_PX
    both = np.minimum(label[2:], wide[2:]) - np.maximum(label[:2], wide[:2])
    area, whole = float(np.prod(label[2:] - label[:2])), float(np.prod(wide[2:] - wide[:2]))
    inside = float(np.prod(np.maximum(both, 0))) / area
    if inside >= _LEAST_INSIDE and area >= _LEAST_AREA * whole:
        return []
    shown, wanted = (", ".join(f"{value:.0f}" for value in each) for each in (box, label))
    text = f"its points project into ({shown}), its box is ({wanted}): {100 * inside:.0f} % of it lie inside"
    if inside < _LEAST_INSIDE and area > 4 * whole:
        text += "; is the mesh in another unit?"
    return [Fault("box", text, "box_projection", {"inside": inside, "ratio": area / whole})]


def _check_mask_held(mask: np.ndarray, points: np.ndarray, pose: np.ndarray, K: np.ndarray) -> list[Fault]:
    seen = (points @ pose[:3, :3].T + pose[:3, 3]) @ K.T
    limit = 10.0 * max(mask.shape)
    pixels = np.clip(seen[:, :2] / seen[:, 2:], -limit, limit)
    outline = cv2.convexHull(np.rint(pixels).astype(np.int32))
    hull = cv2.fillConvexPoly(np.zeros(mask.shape, np.uint8), outline, 1)
    reach = 2 * int(_SLACK_PX) + 1
    hull = cv2.dilate(hull, np.ones((reach, reach), np.uint8)).astype(bool)
    inside = float((mask & hull).sum() / mask.sum())
    if inside >= _LEAST_INSIDE:
        return []
    text = f"{100 * inside:.0f} % of its pixels lie within the projected object"
    return [Fault("mask", text, "mask_projection", {"inside": inside})]


def _check_depth(picture: LabelledPicture, row: int, known: ObjectClass) -> list[Fault]:
    if picture.depth is None or picture.depth.shape != picture.image.shape[:2]:
        return []
    if not np.isfinite(known.diameter) or not np.isfinite(picture.boxes[row]).all():
        return []
    mask = None if picture.masks is None else picture.masks[row]
    if mask is None:  # what else is there at its middle may be anything
        return []
    depth = torch.from_numpy(picture.depth)
    seen = center_depth(depth, torch.from_numpy(picture.boxes[row]).float(), torch.from_numpy(mask))
    where = "at its middle"
    if seen is None:
        values = picture.depth[mask]
        values = values[np.isfinite(values) & (values > 0)]
        if not len(values):
            return [Fault("depth", "no pixel of its mask has a depth above zero", "depth_missing")]
        seen, where = float(np.median(values)), "of its mask"
    z = float(picture.cam_from_obj[row, 2, 3])
    if abs(seen - z) <= 0.6 * known.diameter + _DEPTH_SLACK * z:
        return []
    text = f"{seen:.3g} m {where}, its pose says {z:.3g} m"
    for factor, unit in ((1000.0, "millimetres"), (100.0, "centimetres")):
        if abs(seen / factor - z) <= 0.1 * z:
            text += f"; {factor:g} times too large: {unit} read as metres?"
    return [Fault("depth", text, "depth_pose", {"seen": seen, "z": z})]
