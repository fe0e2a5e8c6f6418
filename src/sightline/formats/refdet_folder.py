"""The folder of reference detection: templates of objects, pictures to search, and boxes.

::

    templates/<object>/*.jpg                      or  <split>/templates/..., or flat: <object>_ref_1.jpg
    <split>/search/images/<object>_frame_0001.jpg
    <split>/search/labels/<object>_frame_0001.txt     a box a line; an empty file: the object is absent

Labels are in one of the forms of :mod:`sightline.formats.box_labels`, or one COCO file in ``labels``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from torch import Tensor

from sightline.formats.box_labels import (
    LabelFile,
    LabelLine,
    LineFormat,
    convert_labels,
    find_line_format,
    read_label_file,
)
from sightline.formats.coco import CocoDataset
from sightline.formats.frames import Frame, FrameObject, FrameSet
from sightline.formats.image_stream import FileFault
from sightline.formats.images import read_image, read_image_size
from sightline.formats.json_files import Fields, read_json
from sightline.formats.pixel_boxes import coco_from_xyxy
from sightline.formats.refdet_templates import list_templates
from sightline.formats.yolo import list_pictures, read_class_names

LabelFormat = Literal["auto", "coco"] | LineFormat
LABEL_FORMATS: tuple[str, ...] = ("auto", "coco", *get_args(LineFormat))
NOTE = "refdet.json"
FRAME = "_frame_"


@dataclass(frozen=True, eq=False)
class RefDetSample:
    """One picture and one object that is to be found in it.

    Args:
        name: unique in the folder, such as ``mug_frame_0001``.
        object_id: whose templates belong to it.
        boxes: ``(n, 4)`` float64 xyxy pixels of all its instances; none where it is absent.
        image: the file, or ``(h, w, 3)`` uint8 RGB.
        image_size: ``(width, height)`` pixels.
    """

    name: str
    object_id: str
    boxes: Float[Tensor, "n 4"]
    image: Path | np.ndarray
    image_size: tuple[int, int]

    def read_image(self) -> np.ndarray:
        """The picture, ``(h, w, 3)`` uint8 RGB."""
        return read_image(self.image) if isinstance(self.image, Path) else self.image


@dataclass(frozen=True, eq=False)
class RefDetFolder:
    """One split of such a folder.

    Args:
        path: of the folder.
        samples: by name.
        templates: object -> its template pictures, at least one for each object of the samples.
        label_format: the form of the labels.
        faults: pictures and labels that could not be used, with reasons; the samples are the rest.
    """

    path: Path
    samples: tuple[RefDetSample, ...]
    templates: Mapping[str, tuple[Path, ...]]
    label_format: str
    faults: tuple[FileFault, ...] = ()

    @property
    def object_ids(self) -> tuple[str, ...]:
        """The objects that the samples ask for, in alphabetic order."""
        return tuple(sorted({sample.object_id for sample in self.samples}))

    def frame_set(self) -> FrameSet:
        """The samples as frames, each with the boxes of its object."""
        frames = [
            Frame(
                index,
                sample.image.name if isinstance(sample.image, Path) else sample.name,
                tuple(FrameObject(sample.object_id, box=box) for box in sample.boxes),
                image=sample.image,
                size=sample.image_size,
            )
            for index, sample in enumerate(self.samples)
        ]
        return FrameSet(frames, ignored=tuple(f"not read: {fault.reason}" for fault in self.faults))


def object_id_of(stem: str, known: Iterable[str] = ()) -> str:
    """The object of a picture's name: what stands before the last ``_frame_``.

    Args:
        stem: the name without suffix.
        known: ids of the objects that have templates; the longest that begins the name is taken where what
            stands before ``_frame_`` is none of them.

    Returns:
        The id; the whole name where nothing says more.

    Example:
        >>> object_id_of("object_1_frame_0001"), object_id_of("photo_frame_2_frame_7"), object_id_of("mug")
        ('object_1', 'photo_frame_2', 'mug')
        >>> object_id_of("mug_17", known=["mug", "mug_1"])
        'mug'
    """
    head = stem.rpartition(FRAME)[0] or stem
    known = set(known)
    if head in known:
        return head
    beginnings = [name for name in known if stem.startswith(f"{name}_") or stem == name]
    return max(beginnings, key=len, default=head)


def read_refdet_folder(
    root: str | Path, split: str | None = "train", *, label_format: LabelFormat | str = "auto"
) -> RefDetFolder:
    """List one split: samples with boxes, and templates; pictures are opened for their size alone.

    A damaged picture, a picture without a label file and a label without a picture become ``faults``, and the
    rest is there all the same. A label that is wrong stops the reading, because boxes would be wrong.

    Args:
        root: the folder.
        split: such as ``"train"`` or ``"val"``; None where ``search`` lies in ``root`` itself.
        label_format: ``"auto"`` (what the folder's ``refdet.json`` says, else what all its labels fit),
            ``"xyxy"``, ``"xyxy-normalised"``, ``"xywh"``, ``"yolo"`` or ``"coco"``.

    Returns:
        The split.

    Raises:
        FileNotFoundError: a folder is not there.
        ValueError: a wrong label (with file and line), labels that fit two forms, an object without
            templates, or nothing to read.

    Example:
        >>> import tempfile
        >>> read_refdet_folder(tempfile.mkdtemp(), "val")
        Traceback (most recent call last):
        FileNotFoundError: ...val/search/images: no such folder
    """
    root = Path(root)
    if label_format not in LABEL_FORMATS:
        raise ValueError(f"label_format: expected one of {', '.join(LABEL_FORMATS)}; got {label_format!r}")
    search, templates = _find_search(root, split), _find_templates(root, split)
    sizes, faults = _read_sizes(search / "images")
    if label_format == "auto":
        label_format = _noted_format(root)
    tables = sorted((search / "labels").glob("*.json"))
    has_lines = any((search / "labels").glob("*.txt"))
    if label_format == "auto" and tables and has_lines:
        raise ValueError(
            f"{search / 'labels'}: holds COCO (.json) and lines (.txt) alike; give label_format="
        )
    if label_format == "coco" or (label_format == "auto" and tables):
        if len(tables) != 1:
            raise ValueError(f"{search / 'labels'}: expected one COCO file (.json), found {len(tables)}")
        label_format, samples = "coco", _samples_of_coco(tables[0], sizes, templates, faults)
    else:
        label_format, samples = _samples_of_lines(search, sizes, templates, label_format, faults)
    if not samples:
        reasons = "".join(f"; {fault.reason}" for fault in faults[:3])
        raise ValueError(f"{search}: expected pictures with labels, there are none{reasons}")
    lacking = sorted({sample.object_id for sample in samples} - templates.keys())
    if lacking:
        there = ", ".join(sorted(templates)[:8])
        raise ValueError(f"{root}: no templates of {', '.join(lacking[:8])}; there are templates of {there}")
    return RefDetFolder(root, tuple(samples), templates, label_format, tuple(faults))


def _find_search(root: Path, split: str | None) -> Path:
    base = root if split is None else root / split
    for search in (base / "search", base):
        if (search / "images").is_dir():
            if not (search / "labels").is_dir():
                raise FileNotFoundError(f"{search / 'labels'}: no such folder; labels belong there")
            return search
    raise FileNotFoundError(f"{base / 'search' / 'images'}: no such folder")


def _find_templates(root: Path, split: str | None) -> dict[str, tuple[Path, ...]]:
    places = [root / "templates"] if split is None else [root / split / "templates", root / "templates"]
    found = {name: paths for place in reversed(places) for name, paths in list_templates(place).items()}
    if not found:
        looked = " or ".join(str(place) for place in places)
        raise FileNotFoundError(f"{looked}: expected <object>/*.jpg or <object>_ref_*.jpg, there are none")
    return found


def _read_sizes(folder: Path) -> tuple[dict[Path, tuple[int, int]], list[FileFault]]:
    sizes, faults = {}, []
    for path in list_pictures(folder):
        try:
            sizes[path] = read_image_size(path)
        except (OSError, ValueError) as error:
            faults.append(FileFault(path, str(error)))
    return sizes, faults


def _noted_format(root: Path) -> str:
    note = root / NOTE
    if not note.is_file():
        return "auto"
    entries = Fields.of(read_json(note), note, "top level")
    noted = entries.text("label_format")
    if noted not in LABEL_FORMATS:
        raise entries.fault("label_format", f"expected one of {', '.join(LABEL_FORMATS)}; got {noted!r}")
    return noted


def _samples_of_lines(
    search: Path,
    sizes: Mapping[Path, tuple[int, int]],
    templates: Mapping[str, Sequence[Path]],
    label_format: str,
    faults: list[FileFault],
) -> tuple[str, list[RefDetSample]]:
    pairs: list[tuple[Path, LabelFile]] = []
    for path, size in sizes.items():
        label = search / "labels" / f"{path.stem}.txt"
        if label.is_file():
            pairs.append((path, read_label_file(label, size)))
        else:
            faults.append(FileFault(path, f"{label}: no such label file; an empty one would mean absent"))
    stems = {path.stem for path in list_pictures(search / "images")}
    faults += [
        FileFault(label, f"{label}: no picture of this name in {search / 'images'}")
        for label in sorted((search / "labels").glob("*.txt"))
        if label.stem not in stems and label.name != "classes.txt"
    ]
    if label_format == "auto":
        label_format = find_line_format([file for _, file in pairs])
    names = read_class_names(search / "labels") or read_class_names(search.parent)
    samples = []
    for path, file in pairs:
        found = _samples_of(path, file, label_format, templates, names)
        samples += found or _nothing_asked(path, faults)
    return label_format, samples


def _nothing_asked(path: Path, faults: list[FileFault]) -> list[RefDetSample]:
    faults.append(FileFault(path, f"{path}: shows no object, and its name says none that could be absent"))
    return []


def _samples_of(
    path: Path,
    file: LabelFile,
    label_format: str,
    templates: Mapping[str, Sequence[Path]],
    names: dict[int, str],
) -> list[RefDetSample]:
    """One sample; of YOLO with class names one for each object in the picture."""
    boxes, classes = convert_labels(file, label_format)
    own = object_id_of(path.stem, templates)
    if classes is None or (len(set(classes)) <= 1 and not templates.keys() & set(names.values())):
        return [RefDetSample(path.stem, own, boxes, path, file.image_size)]
    unknown = sorted(set(classes) - names.keys())
    if unknown:
        raise ValueError(f"{file.path}: class {unknown[0]}: expected its name in classes.txt or data.yaml")
    of_line = [names[number] for number in classes]
    asked = sorted(set(of_line) | ({own} & templates.keys()))
    rows = {name: [row for row, label in enumerate(of_line) if label == name] for name in asked}
    return [
        RefDetSample(_named(path.stem, own, name), name, boxes[chosen], path, file.image_size)
        for name, chosen in rows.items()
    ]


def _named(stem: str, own: str, object_id: str) -> str:
    return stem if object_id == own else f"{stem}:{object_id}"


def _samples_of_coco(
    path: Path,
    sizes: Mapping[Path, tuple[int, int]],
    templates: Mapping[str, Sequence[Path]],
    faults: list[FileFault],
) -> list[RefDetSample]:
    """A sample for each picture and each object in it, and for the object of the picture's name."""
    by_name = {picture.name: picture for picture in sizes}
    samples = []
    for frame in CocoDataset(path, path.parent.parent / "images"):
        picture = by_name.get(Path(frame.name).name)
        if picture is None:
            faults.append(
                FileFault(path, f"{path}: image {frame.name}: not among the pictures that were read")
            )
            continue
        size = sizes[picture]
        if frame.image_size != size:
            raise ValueError(
                f"{path}: image {frame.name}: says {frame.image_size} pixels, the picture has {size}"
            )
        own = object_id_of(picture.stem, templates)
        asked = {found.name for found in frame.objects} | ({own} & templates.keys())
        if not asked:
            _nothing_asked(picture, faults)
        for name in sorted(asked):
            boxes = [e.box for e in frame.objects if e.name == name and e.box is not None]
            values = [tuple(coco_from_xyxy(box).tolist()) for box in boxes]
            lines = tuple(LabelLine(number, each) for number, each in enumerate(values, start=1))
            file = LabelFile(Path(f"{path}: image {frame.name}: {name}"), size, lines)
            within = convert_labels(file, "xywh").boxes
            samples.append(RefDetSample(_named(picture.stem, own, name), name, within, picture, size))
    return samples
