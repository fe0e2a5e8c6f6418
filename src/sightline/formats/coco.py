"""COCO: data sets and results with boxes and masks; category numbers stay as sparse as they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from jaxtyping import Float
from torch import Tensor

from sightline.formats.bop_detections import rle_field
from sightline.formats.frames import Frame, FrameObject, Losses, load_mask
from sightline.formats.json_files import Fields, read_json, write_json
from sightline.formats.pixel_boxes import coco_from_xyxy, xyxy_from_coco
from sightline.formats.rle import Rle


class CocoDataset(Sequence[Frame]):
    """A COCO data set, a sequence of frames in the order of its file.

    COCO knows no cameras, depths or poses: the frames hold pictures, boxes and masks, and each object's
    ``obj_id`` is the number of its category. Polygons become masks; crowd regions are left out.

    Args:
        path: the JSON file of annotations.
        images: the folder of the pictures; that of the JSON file unless given.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no JSON, a key that is missing or malformed, a number that is used twice, or an
            annotation of a picture or category that is not there.
    """

    def __init__(self, path: str | Path, images: str | Path | None = None) -> None:
        self.path = Path(path)
        self.images_folder = self.path.parent if images is None else Path(images)
        top = Fields.of(read_json(self.path), self.path, "top level")
        self._images = _by_id(top, "images")
        self.categories: dict[int, str] = {
            number: entry.text("name") for number, entry in _by_id(top, "categories").items()
        }
        self.ignored: Losses = Losses()
        self._annotations: dict[int, list[Fields]] = {number: [] for number in self._images}
        for entry in top.entries("annotations"):
            self._place(entry)
        self.image_ids: list[int] = list(self._images)

    def _place(self, entry: Fields) -> None:
        image_id, category_id = entry.integer("image_id"), entry.integer("category_id")
        if image_id not in self._images:
            raise entry.fault("image_id", f"expected one of the images, there is none of number {image_id}")
        if category_id not in self.categories:
            raise entry.fault("category_id", f"expected one of {sorted(self.categories)}, got {category_id}")
        self.ignored["key points"] += int("keypoints" in entry)
        if entry.number("iscrowd", 0):
            self.ignored["crowd regions"] += 1
        else:
            self._annotations[image_id].append(entry)

    def __len__(self) -> int:
        return len(self.image_ids)

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> list[Frame]: ...
    def __getitem__(self, index: int | slice) -> Frame | list[Frame]:
        """The frame at a position (not of a number, see :meth:`frame`), or several."""
        if isinstance(index, slice):
            return [self.frame(image_id) for image_id in self.image_ids[index]]
        return self.frame(self.image_ids[index])

    def frame(self, image_id: int) -> Frame:
        """The frame of an image number.

        Raises:
            KeyError: no such image.
            ValueError: a key is missing or malformed; the entry and key are named.
        """
        if image_id not in self._images:
            raise KeyError(f"{self.path}: no image {image_id}")
        entry = self._images[image_id]
        size = (entry.integer("width"), entry.integer("height"))
        name = entry.text("file_name")
        return Frame(
            frame_id=image_id,
            name=name,
            objects=tuple(self._object(annotation, size) for annotation in self._annotations[image_id]),
            image=self.images_folder / name,
            size=size,
        )

    def _object(self, entry: Fields, size: tuple[int, int]) -> FrameObject:
        category_id = entry.integer("category_id")
        return FrameObject(
            name=self.categories[category_id],
            obj_id=category_id,
            box=xyxy_from_coco(entry.tensor("bbox", 4)),
            mask=_mask(entry, size),
            score=entry.number("score") if "score" in entry else None,
        )


def _by_id(top: Fields, key: str) -> dict[int, Fields]:
    numbered: dict[int, Fields] = {}
    for entry in top.entries(key):
        number = entry.integer("id")
        if number in numbered:
            raise entry.fault("id", f"expected each number once, got {number} again")
        numbered[number] = entry
    return numbered


def _mask(entry: Fields, size: tuple[int, int]) -> Rle | None:
    if not entry.values.get("segmentation"):
        return None
    if isinstance(entry.require("segmentation"), list):
        return _fill_polygons(entry, size)
    code = rle_field(entry, "segmentation")
    if code is not None and (code.width, code.height) != size:
        raise entry.fault("segmentation", f"expected a mask of {size} pixels, got {code.width, code.height}")
    return code


def _fill_polygons(entry: Fields, size: tuple[int, int]) -> Rle:
    from faster_coco_eval.core import mask as coco_mask

    polygons: list = entry.require("segmentation")
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise entry.fault("segmentation", "expected polygons of at least three points x y x y ...")
    codes: Any = coco_mask.frPyObjects(polygons, size[1], size[0])
    return Rle.from_json(coco_mask.merge(codes))


def write_coco(
    path: str | Path,
    frames: Iterable[Frame],
    *,
    categories: Mapping[int, str] | None = None,
    compressed: bool = True,
) -> Losses:
    """Write the annotations of frames.

    Image numbers are the frames' where they are unique, else 1, 2...; category numbers are those given, else
    the objects', else 1, 2... by name. File names are as the frames are called.

    Args:
        path: where to, a JSON file.
        frames: with a known size each.
        categories: the name of each number.
        compressed: whether masks are written as text (else as numbers).

    Returns:
        What COCO cannot hold, counted.

    Raises:
        ValueError: a frame of unknown size, or an object that is no category.

    Example:
        >>> import tempfile, torch
        >>> path = Path(tempfile.mkdtemp()) / "annotations.json"
        >>> box = torch.tensor([9.5, 19.5, 14.5, 27.5], dtype=torch.float64)
        >>> frame = Frame(7, "a.png", (FrameObject("mug", 90, box=box),), size=(64, 48))
        >>> write_coco(path, [frame]).lines()
        []
        >>> read_json(path)["annotations"][0]["bbox"], CocoDataset(path).categories
        ([10.0, 20.0, 5.0, 8.0], {90: 'mug'})
    """
    frames = list(frames)
    numbers = [frame.frame_id for frame in frames]
    if len(set(numbers)) < len(numbers):
        numbers = list(range(1, len(frames) + 1))
    names = _categories(frames) if categories is None else dict(categories)
    category_ids = {name: number for number, name in names.items()}
    losses, images, annotations = Losses(), [], []
    for number, frame in zip(numbers, frames, strict=True):
        images.append(_image_entry(number, frame, path))
        losses.update(_frame_losses(frame))
        for found in frame.objects:
            entry = _annotation(found, compressed)
            if entry is None:
                losses["objects without box and mask"] += 1
                continue
            if found.name not in category_ids:
                raise ValueError(f"{path}: categories: expected {found.name!r} among {sorted(category_ids)}")
            place = {"image_id": number, "category_id": category_ids[found.name]}
            annotations.append({"id": len(annotations) + 1, **place, **entry})
    listed = [{"id": number, "name": name} for number, name in sorted(names.items())]
    write_json(path, {"images": images, "annotations": annotations, "categories": listed})
    return losses


def _categories(frames: Sequence[Frame]) -> dict[int, str]:
    pairs = {(found.obj_id, found.name) for frame in frames for found in frame.objects}
    ids, names = {number for number, _ in pairs}, sorted({name for _, name in pairs})
    if None not in ids and len(pairs) == len(ids) == len(names):
        return {number: name for number, name in pairs if number is not None}
    return dict(enumerate(names, start=1))


def _image_entry(number: int, frame: Frame, path: str | Path) -> dict[str, Any]:
    if frame.image_size is None:
        raise ValueError(
            f"{path}: image {frame.name}: expected a frame with a camera or a picture, for its size"
        )
    width, height = frame.image_size
    return {"id": number, "file_name": frame.name, "width": width, "height": height}


def _frame_losses(frame: Frame) -> Losses:
    losses = Losses()
    losses["cameras"] += frame.camera is not None
    losses["depth maps"] += frame.depth is not None
    losses["poses"] += sum(found.cam_from_obj is not None for found in frame.objects)
    losses["silhouettes"] += sum(found.mask_amodal is not None for found in frame.objects)
    return losses


def _annotation(found: FrameObject, compressed: bool) -> dict[str, Any] | None:
    code = None if found.mask is None else found.mask
    if code is not None and not isinstance(code, Rle):
        code = Rle.encode(load_mask(code))
    box = found.visible_box()
    if box is None or bool(box.isnan().any()):
        return None
    xywh = coco_from_xyxy(box).tolist()
    entry: dict[str, Any] = {"bbox": xywh, "area": xywh[2] * xywh[3], "iscrowd": 0}
    if code is not None:
        entry |= {"segmentation": code.to_json(compressed=compressed), "area": code.area}
    return entry if found.score is None else entry | {"score": found.score}


@dataclass(frozen=True, eq=False)
class CocoResult:
    """One detected object, as COCO's evaluation takes it.

    Args:
        image_id: of the picture.
        category_id: of the category, sparse.
        box: ``(4,)`` float64 xyxy pixels.
        score: higher is surer.
        mask: None where there is none.
    """

    image_id: int
    category_id: int
    box: Float[Tensor, "4"]
    score: float
    mask: Rle | None = None


def read_coco_results(path: str | Path) -> list[CocoResult]:
    """Read detections as COCO's evaluation takes them.

    Args:
        path: the JSON file, a list.

    Returns:
        The detections in order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no JSON, or a key that is missing or malformed; the entry and key are named.

    Example:
        >>> import tempfile, torch
        >>> path = Path(tempfile.mkdtemp()) / "results.json"
        >>> write_coco_results(path, [CocoResult(1, 90, torch.tensor([0.5, 1, 2, 3]).double(), 0.9)])
        >>> read_coco_results(path)[0].box.tolist()
        [0.5, 1.0, 2.0, 3.0]
    """
    path = Path(path)
    return [
        CocoResult(
            entry.integer("image_id"),
            entry.integer("category_id"),
            xyxy_from_coco(entry.tensor("bbox", 4)),
            entry.number("score"),
            rle_field(entry, "segmentation"),
        )
        for entry in Fields({"results": read_json(path)}, path, "top level").entries("results")
    ]


def write_coco_results(path: str | Path, results: Iterable[CocoResult], *, compressed: bool = True) -> None:
    """Write detections as COCO's evaluation takes them.

    Args:
        path: where to.
        results: in order.
        compressed: whether masks are written as text (else as numbers).
    """
    entries = []
    for found in results:
        entry: dict[str, Any] = {"image_id": found.image_id, "category_id": found.category_id}
        entry |= {"bbox": coco_from_xyxy(found.box).tolist(), "score": found.score}
        if found.mask is not None:
            entry["segmentation"] = found.mask.to_json(compressed=compressed)
        entries.append(entry)
    write_json(path, entries)
