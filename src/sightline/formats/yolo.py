"""YOLO: a data set of pictures and text files with ``class cx cy w h`` in shares of the picture.

``images/<name>.jpg`` belongs to ``labels/<name>.txt``, directly or in folders of splits; class names stand in
``classes.txt`` (one a line) or under ``names`` in ``data.yaml``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import overload

from sightline.formats.atomic import atomic_write
from sightline.formats.box_labels import convert_labels, read_label_file
from sightline.formats.frames import Frame, FrameObject, Losses
from sightline.formats.images import read_image_size, write_image
from sightline.geometry.boxes import cxcywh_from_xyxy, normalize

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


class YoloDataset(Sequence[Frame]):
    """A YOLO data set, a sequence of frames in the order of the pictures' names.

    A picture without a label file shows nothing that is labelled, as YOLO has it. Boxes alone: YOLO's
    outlines and key points are refused.

    Args:
        folder: holds ``images`` and ``labels``.
        split: the folder in each of them (``images/train``), or before them (``train/images``).

    Raises:
        FileNotFoundError: there are no pictures.
        ValueError: class names that cannot be read.
    """

    def __init__(self, folder: str | Path, split: str = "") -> None:
        self.folder = Path(folder)
        images, self._labels = _find_pair(self.folder, split)
        self._pictures = list_pictures(images)
        if not self._pictures:
            raise FileNotFoundError(f"{images}: expected pictures, there are none")
        self.categories: dict[int, str] = read_class_names(self.folder)

    def __len__(self) -> int:
        return len(self._pictures)

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> list[Frame]: ...
    def __getitem__(self, index: int | slice) -> Frame | list[Frame]:
        """The frame at a position, or several.

        Raises:
            ValueError: a label that is none, with file and line.
        """
        if isinstance(index, slice):
            return [self[position] for position in range(len(self))[index]]
        index = range(len(self))[index]
        picture = self._pictures[index]
        size = read_image_size(picture)
        objects: tuple[FrameObject, ...] = ()
        label = self._labels / f"{picture.stem}.txt"
        if label.is_file():
            found = convert_labels(read_label_file(label, size), "yolo")
            pairs = zip(found.boxes, found.classes or (), strict=True)
            objects = tuple(FrameObject(self.name_of(number), number, box=box) for box, number in pairs)
        return Frame(index, picture.name, objects, image=picture, size=size)

    def name_of(self, number: int) -> str:
        """The name of a class; ``class_3`` where the data set gives none."""
        return self.categories.get(number, f"class_{number}")


def _find_pair(folder: Path, split: str) -> tuple[Path, Path]:
    """The folders of pictures and of labels."""
    for images, labels in (
        (folder / "images" / split, folder / "labels" / split),
        (folder / split / "images", folder / split / "labels"),
    ):
        if images.is_dir():
            return images, labels
    raise FileNotFoundError(f"{folder}: expected a folder images/{split} beside labels/{split}")


def list_pictures(folder: Path) -> list[Path]:
    """The pictures of a folder by name; files that begin with a dot are none."""
    if not folder.is_dir():
        return []
    files = (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))
    return [path for path in files if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file()]


def read_class_names(folder: str | Path) -> dict[int, str]:
    r"""The names of the classes, by number.

    Args:
        folder: holds ``classes.txt`` or ``data.yaml``.

    Returns:
        The names; empty where there is neither file.

    Raises:
        ValueError: a ``data.yaml`` without a list or table ``names``.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "classes.txt").write_text("mug\ncan\n")
        >>> read_class_names(folder)
        {0: 'mug', 1: 'can'}
    """
    folder = Path(folder)
    listed, table = folder / "classes.txt", folder / "data.yaml"
    if listed.is_file():
        return dict(enumerate(listed.read_text(encoding="utf-8").splitlines()))
    if not table.is_file():
        return {}
    import yaml

    try:
        names = (yaml.safe_load(table.read_text(encoding="utf-8")) or {}).get("names")
    except (yaml.YAMLError, AttributeError) as error:
        raise ValueError(f"{table}: expected YAML with the key names ({error})") from error
    if isinstance(names, list):
        return {number: str(name) for number, name in enumerate(names)}
    if isinstance(names, Mapping) and all(isinstance(number, int) for number in names):
        return {int(number): str(name) for number, name in names.items()}
    raise ValueError(f"{table}: names: expected a list, or a table of numbers to names, got {names!r}")


def write_yolo(folder: str | Path, frames: Iterable[Frame], *, split: str = "") -> Losses:
    r"""Write frames as pictures, labels and ``classes.txt``; a picture without objects gets an empty file.

    Args:
        folder: where to.
        frames: with pictures; class numbers are those of the names in alphabetic order.
        split: the folder in ``images`` and ``labels``; none if empty.

    Returns:
        What YOLO cannot hold, counted.

    Raises:
        ValueError: a frame without a picture, or two of one name.

    Example:
        >>> import tempfile, numpy as np, torch
        >>> folder = Path(tempfile.mkdtemp())
        >>> box = torch.tensor([9.5, 19.5, 29.5, 59.5], dtype=torch.float64)
        >>> mug = FrameObject("mug", box=box)
        >>> frame = Frame(0, "a.png", (mug,), image=np.zeros((80, 40, 3), np.uint8))
        >>> write_yolo(folder, [frame]).lines(), (folder / "labels" / "a.txt").read_text()
        ([], '0 0.5 0.5 0.5 0.5\n')
    """
    frames, folder, losses = list(frames), Path(folder), Losses()
    stems = [Path(frame.name).stem for frame in frames]
    if len(set(stems)) < len(stems):
        raise ValueError(f"{folder}: frames: expected names that differ, got some twice")
    names = sorted({found.name for frame in frames for found in frame.objects})
    numbers = {name: number for number, name in enumerate(names)}
    for stem, frame in zip(stems, frames, strict=True):
        lines = []
        for found in frame.objects:
            box = found.visible_box()
            if box is None or frame.image_size is None or bool(box.isnan().any()):
                losses["objects without box and mask"] += 1
                continue
            shares = cxcywh_from_xyxy(normalize(box, frame.image_size)).tolist()
            lines.append(" ".join([str(numbers[found.name]), *(f"{share:.8g}" for share in shares)]))
            losses["masks"] += found.mask is not None
            losses["poses"] += found.cam_from_obj is not None
        losses["cameras"] += frame.camera is not None
        losses["depth maps"] += frame.depth is not None
        suffix = Path(frame.name).suffix or ".png"
        write_image(folder / "images" / split / f"{stem}{suffix}", frame.read_image())
        _write_lines(folder / "labels" / split / f"{stem}.txt", lines)
    _write_lines(folder / "classes.txt", names)
    return losses


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
