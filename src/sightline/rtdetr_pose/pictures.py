"""Labelled pictures of several objects, from generated scenes, BOP's data sets and COCO's: one form for all.

Classes are numbered from 0 without holes; what the numbers were in a data set, its source says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from sightline.formats.bop_dataset import BopDataset
from sightline.formats.bop_models import object_name
from sightline.formats.coco import CocoDataset
from sightline.formats.frames import Frame, FrameObject, load_mask
from sightline.geometry.symmetry import SymmetryGroup
from sightline.synthetic import Scene, SyntheticObject
from sightline.synthetic.pose_composites import PoseComposites


@dataclass(frozen=True, eq=False)
class ObjectClass:
    """What is known about a class of one object.

    Args:
        name: of the object.
        number: it has in its data set.
        diameter: metres; NaN where the object is not known, as in COCO.
        symmetries: under which it looks the same.
        points: ``(v, 3)`` metres, object frame, that span its convex hull; None where there is no mesh.
    """

    name: str
    number: int
    diameter: float = float("nan")
    symmetries: SymmetryGroup = field(default_factory=SymmetryGroup.none)
    points: Float64[np.ndarray, "v 3"] | None = None

    @property
    def reflection(self) -> Float64[np.ndarray, "4 4"] | None:
        """A reflection of the object frame under which it looks the same; None where none is known.

        A thing that may be turned about an axis at will has one in every plane through that axis.
        """
        group = self.symmetries
        if group.axis is None or group.offset is None:
            return None
        axis, offset = group.axis.numpy(), group.offset.numpy()
        normal = np.cross(axis, np.eye(3)[int(np.abs(axis).argmin())])
        normal /= np.linalg.norm(normal)
        mirror = np.eye(4)
        mirror[:3, :3] -= 2 * np.outer(normal, normal)
        mirror[:3, 3] = 2 * normal * (normal @ offset)
        return mirror


class LabelledPicture(NamedTuple):
    """A picture with ``n`` labelled objects.

    Args:
        name: says which it is, in messages.
        image: ``(h, w, 3)`` uint8 RGB.
        labels: ``(n,)`` classes from 0.
        boxes: ``(n, 4)`` float64 ``xyxy`` pixels around the whole silhouette where it is known, else around
            what is seen; may leave the picture.
        K: ``(3, 3)`` float64 pixels; None for a picture without a camera.
        cam_from_obj: ``(n, 4, 4)`` float64 metres, NaN where not known.
        masks: ``(n, h, w)`` bool, what is seen; None where not known.
        depth: ``(h, w)`` float32 metres of what the masks show at least, 0 where missing; None without.
    """

    name: str
    image: UInt8[np.ndarray, "h w 3"]
    labels: Int64[np.ndarray, " n"]
    boxes: Float64[np.ndarray, "n 4"]
    K: Float64[np.ndarray, "3 3"] | None
    cam_from_obj: Float64[np.ndarray, "n 4 4"]
    masks: Bool[np.ndarray, "n h w"] | None
    depth: Float32[np.ndarray, "h w"] | None

    @property
    def size(self) -> tuple[int, int]:
        """``(width, height)`` pixels."""
        return self.image.shape[1], self.image.shape[0]

    @property
    def pose_valid(self) -> Bool[np.ndarray, " n"]:
        """Which objects have a pose before a camera."""
        known = np.isfinite(self.cam_from_obj).all((1, 2)) & (self.cam_from_obj[:, 2, 3] > 0)
        return known & (self.K is not None)


@runtime_checkable
class PictureSource(Protocol):
    """Numbered labelled pictures of known classes."""

    @property
    def classes(self) -> Sequence[ObjectClass]:
        """What is known of the labels."""
        ...

    def __len__(self) -> int:
        """How many numbers there are."""
        ...

    def draw(self, number: int, rng: np.random.Generator) -> LabelledPicture:
        """The picture of a number; a generated one may take all from the generator."""
        ...


@runtime_checkable
class Scenes(Protocol):
    """Numbered scenes, made when they are asked for; every sequence of scenes is such."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, index: int, /) -> Scene:
        """The scene of a number from 0."""
        ...


def classes_of_objects(objects: Iterable[SyntheticObject]) -> tuple[ObjectClass, ...]:
    """Generated objects as classes, in their order.

    Example:
        >>> from sightline.synthetic import make_object
        >>> classes_of_objects([make_object("box", 0)])[0].name
        'box-rich-0'
    """
    return tuple(
        ObjectClass(
            thing.name,
            number,
            float(thing.mesh.diameter),
            thing.symmetries,
            thing.mesh.vertices.double().numpy(),
        )
        for number, thing in enumerate(objects)
    )


class GeneratedPictures:
    """Pictures that are pasted when they are drawn.

    Args:
        composites: what draws them.
        length: of an epoch.
    """

    def __init__(self, composites: PoseComposites, length: int = 10_000) -> None:
        self.composites, self.length = composites, length
        self.classes = classes_of_objects(composites.wanted.objects)

    def __len__(self) -> int:
        return self.length

    def draw(self, number: int, rng: np.random.Generator) -> LabelledPicture:
        """A picture; its number only names it."""
        made = self.composites.draw(rng)
        return LabelledPicture(
            f"picture {number}",
            made.image,
            made.labels,
            made.boxes,
            made.K,
            made.cam_from_obj,
            made.masks,
            made.depth,
        )


class ScenePictures:
    """Rendered scenes as pictures; instances of other objects are passed over.

    Args:
        scenes: numbered, such as ``ClosedSetScenes``.
        objects: the classes, in the order of their labels.
    """

    def __init__(self, scenes: Scenes, objects: Sequence[SyntheticObject]) -> None:
        self.scenes = scenes
        self.classes = classes_of_objects(objects)
        self._labels = {each.name: label for label, each in enumerate(self.classes)}

    def __len__(self) -> int:
        return len(self.scenes)

    def draw(self, number: int, rng: np.random.Generator) -> LabelledPicture:
        """The scene of a number; nothing is random."""
        scene = self.scenes[number]
        rows = [row for row, name in enumerate(scene.names) if name in self._labels]
        return LabelledPicture(
            f"scene {number}",
            scene.image,
            np.array([self._labels[scene.names[row]] for row in rows], np.int64),
            scene.boxes[rows].numpy(),
            scene.camera.K.numpy(),
            scene.cam_from_obj[rows].numpy(),
            scene.masks[rows].numpy(),
            scene.depth.numpy(),
        )


class BopPictures:
    """Pictures of a data set in BOP's layout, with all their objects that are seen well enough.

    Args:
        dataset: with poses; its models give diameters, symmetries and points where they are there.
        min_visible: share of an object's silhouette that must be seen.
        obj_ids: the objects that are classes, in this order; all of the pictures' unless given.

    Raises:
        ValueError: no pictures, or an object that is asked for twice.
    """

    def __init__(
        self, dataset: BopDataset, *, min_visible: float = 0.1, obj_ids: Sequence[int] | None = None
    ) -> None:
        self.dataset, self.min_visible = dataset, min_visible
        if not len(dataset.frames):
            raise ValueError(f"{dataset.root}: expected pictures, found none")
        scenes = dataset.scenes.values()
        if obj_ids is None:
            places = ((scene, image_id) for scene in scenes for image_id in scene.image_ids)
            obj_ids = sorted({number for scene, place in places for number, _ in scene.visibility(place)})
        self.labels, self.notes = number_classes(obj_ids)
        self.classes = tuple(self._class(obj_id) for obj_id in obj_ids)

    def __len__(self) -> int:
        return len(self.dataset.frames)

    def draw(self, number: int, rng: np.random.Generator) -> LabelledPicture:
        """The picture of a number; nothing is random.

        Raises:
            ValueError: a file that is damaged; it is named.
        """
        return _read_frame(self.dataset.frames[number], self.labels, self.min_visible)

    def _class(self, obj_id: int) -> ObjectClass:
        info = self.dataset.models_info.get(obj_id)
        folder = self.dataset.models_folder
        points = None
        if folder is not None and self.dataset.mesh_path(obj_id).is_file():
            points = self.dataset.mesh(obj_id).mesh.vertices.double().numpy()
        if info is None:
            return ObjectClass(object_name(obj_id), obj_id, points=points)
        return ObjectClass(object_name(obj_id), obj_id, info.diameter, info.symmetry, points)


class CocoPictures:
    """Pictures of a COCO data set: boxes and masks alone, no camera and no poses.

    Args:
        dataset: whose categories are the classes.
    """

    def __init__(self, dataset: CocoDataset) -> None:
        self.dataset = dataset
        self.labels, self.notes = number_classes(sorted(dataset.categories))
        self.classes = tuple(ObjectClass(dataset.categories[number], number) for number in self.labels)

    def __len__(self) -> int:
        return len(self.dataset)

    def draw(self, number: int, rng: np.random.Generator) -> LabelledPicture:
        """The picture of a number; nothing is random.

        Raises:
            ValueError: a file that is damaged; it is named.
        """
        return _read_frame(self.dataset[number], self.labels, 0.0)


def number_classes(numbers: Iterable[int]) -> tuple[dict[int, int], list[str]]:
    """Labels without holes for the numbers of a data set, and what to say about it.

    Args:
        numbers: as the data set has them, in the order of the labels.

    Returns:
        Number -> label, and a line where the two differ.

    Raises:
        ValueError: a number twice.

    Example:
        >>> number_classes([1, 5, 9])
        ({1: 0, 5: 1, 9: 2}, ['class ids 1, 5, 9 have holes or do not begin at 0: they become 0 to 2'])
        >>> number_classes([0, 1])
        ({0: 0, 1: 1}, [])
    """
    listed = list(numbers)
    labels = {number: label for label, number in enumerate(listed)}
    if len(labels) < len(listed):
        raise ValueError(f"numbers: expected each class once, got {listed}")
    if listed == list(range(len(listed))):
        return labels, []
    shown = ", ".join(map(str, listed if len(listed) <= 8 else [*listed[:4], "...", *listed[-3:]]))
    text = f"class ids {shown} have holes or do not begin at 0: they become 0 to {len(listed) - 1}"
    return labels, [text]


def _read_frame(frame: Frame, labels: dict[int, int], min_visible: float) -> LabelledPicture:
    kept = [one for one in frame.objects if one.obj_id in labels and _seen(one, min_visible)]
    boxes = [_box(one) for one in kept]
    kept = [one for one, box in zip(kept, boxes, strict=True) if box is not None]
    image = frame.read_image()
    masks = None
    if kept and all(one.mask is not None for one in kept):
        masks = np.stack([load_mask(one.mask) for one in kept if one.mask is not None])
        if masks.shape[1:] != image.shape[:2]:
            raise ValueError(f"{frame.name}: expected masks of {image.shape[:2]}, got {masks.shape[1:]}")
    unknown = np.full((4, 4), np.nan)
    poses = [unknown if one.cam_from_obj is None else one.cam_from_obj.double().numpy() for one in kept]
    return LabelledPicture(
        frame.name,
        image,
        np.array([labels[one.obj_id] for one in kept if one.obj_id is not None], np.int64),
        np.array([box for box in boxes if box is not None], np.float64).reshape(-1, 4),
        None if frame.camera is None else frame.camera.K.double().numpy(),
        np.array(poses, np.float64).reshape(-1, 4, 4),
        masks,
        frame.read_depth(),
    )


def _seen(one: FrameObject, least: float) -> bool:
    return one.visibility is None or one.visibility >= least


def _box(one: FrameObject) -> np.ndarray | None:
    box = one.box_amodal if one.box_amodal is not None else one.visible_box()
    return None if box is None or not bool(box.isfinite().all()) else box.double().numpy()
