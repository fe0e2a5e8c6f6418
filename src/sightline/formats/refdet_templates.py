"""Templates of objects as files: pictures, and beside them what says where in the picture the object is.

A mask ``<name>_mask.png``, an alpha channel that varies, a text file ``<name>.txt`` or the picture's entry in
``boxes.json`` (both ``x1 y1 x2 y2`` pixels from the picture's edge); the first of these that is there counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from sightline.formats.box_labels import (
    LabelFile,
    LabelLine,
    convert_labels,
    read_label_file,
    write_box_lines,
)
from sightline.formats.images import open_header, read_image, read_mask, write_image, write_mask
from sightline.formats.json_files import Fields, read_json
from sightline.formats.yolo import list_pictures

_FLAT = re.compile(r"(?P<id>.+)_ref(?:_.*)?$")
_MASK_END = "_mask"


@dataclass(frozen=True, eq=False)
class TemplatePicture:
    """One photograph of an object, and where in it the object is.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        mask: ``(h, w)`` bool, the object's pixels; None where unknown.
        box: ``(4,)`` float64 xyxy pixels around the object; None where unknown.

    Raises:
        ValueError: an empty mask, or a mask of another size than the picture's.
    """

    image: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "mask_h mask_w"] | None = None  # its size is checked below
    box: Float[Tensor, "4"] | None = None

    def __post_init__(self) -> None:
        """Check the mask."""
        if self.mask is None:
            return
        if self.mask.shape != self.image.shape[:2]:
            height, width = self.image.shape[:2]
            got = f"{self.mask.shape[1]}x{self.mask.shape[0]}"
            raise ValueError(f"mask: expected the picture's size of {width}x{height}, got {got}")
        if not self.mask.any():
            raise ValueError("mask: expected pixels of the object, the mask is empty")


def read_template(path: str | Path) -> TemplatePicture:
    """Read a template with its mask or box, if there is one.

    Args:
        path: the picture.

    Returns:
        The template.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a damaged picture, an empty mask, or a box that is none; the file is named.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "front.png"
        >>> write_image(path, np.zeros((8, 8, 3), np.uint8))
        >>> write_mask(path.with_name("front_mask.png"), np.eye(8, dtype=bool))
        >>> int(read_template(path).mask.sum())
        8
    """
    path = Path(path)
    image = read_image(path)
    size = (image.shape[1], image.shape[0])
    beside = path.with_name(f"{path.stem}{_MASK_END}.png")
    source = beside if beside.is_file() else path
    if source is beside or _has_alpha(path):
        try:
            return TemplatePicture(image, read_mask(source))
        except ValueError as error:
            raise ValueError(str(error) if str(source) in str(error) else f"{source}: {error}") from error
    return TemplatePicture(image, box=_read_box(path, size))


def _has_alpha(path: Path) -> bool:
    with open_header(path) as stored:
        if not stored.has_transparency_data:
            return False
        alpha = np.asarray(stored.convert("RGBA"))[..., 3]
    return bool(alpha.min() != alpha.max())


def _read_box(path: Path, size: tuple[int, int]) -> Float[Tensor, "4"] | None:
    text, table = path.with_suffix(".txt"), path.with_name("boxes.json")
    if text.is_file():
        file = read_label_file(text, size)
    elif table.is_file():
        entries = Fields.of(read_json(table), table, "top level")
        if path.name not in entries:
            return None
        values = tuple(entries.tensor(path.name, 4).tolist())
        file = LabelFile(Path(f"{table}: {path.name}"), size, (LabelLine(1, values),))
    else:
        return None
    boxes = convert_labels(file, "xyxy").boxes
    if len(boxes) != 1:
        raise ValueError(f"{file.path}: expected one box of the object in {path.name}, got {len(boxes)}")
    return boxes[0]


def list_templates(folder: str | Path) -> dict[str, tuple[Path, ...]]:
    """The template pictures of each object, from folders ``<object>/`` or flat files ``<object>_ref_*``.

    Args:
        folder: such as ``templates``.

    Returns:
        Object -> its pictures by name, masks left out; empty where there is no such folder.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_image(folder / "mug_ref_1.png", np.zeros((8, 8, 3), np.uint8))
        >>> {name: [path.name for path in paths] for name, paths in list_templates(folder).items()}
        {'mug': ['mug_ref_1.png']}
    """
    folder = Path(folder)
    if not folder.is_dir():
        return {}
    found: dict[str, list[Path]] = {}
    for picture in pictures_without_masks(folder):
        match = _FLAT.fullmatch(picture.stem)
        if match:
            found.setdefault(match["id"], []).append(picture)
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        pictures = pictures_without_masks(inner)
        if pictures:
            found.setdefault(inner.name, []).extend(pictures)
    return {name: tuple(paths) for name, paths in sorted(found.items())}


def pictures_without_masks(folder: Path) -> list[Path]:
    """The pictures of a folder that are not the mask of another one."""
    pictures = list_pictures(folder)
    stems = {path.stem for path in pictures}
    return [path for path in pictures if path.stem.removesuffix(_MASK_END) not in stems - {path.stem}]


def write_templates(folder: str | Path, templates: Mapping[str, Sequence[TemplatePicture]]) -> None:
    """Write templates as ``<object>/template_<i>.png`` with masks or boxes beside them.

    Args:
        folder: such as ``templates``.
        templates: object -> its templates.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_templates(folder, {"mug": [TemplatePicture(np.zeros((8, 8, 3), np.uint8))]})
        >>> list(list_templates(folder))
        ['mug']
    """
    for name, pictures in templates.items():
        for index, template in enumerate(pictures):
            path = Path(folder) / name / f"template_{index}.png"
            write_image(path, template.image)
            if template.mask is not None:
                write_mask(path.with_name(f"{path.stem}{_MASK_END}.png"), template.mask)
            elif template.box is not None:
                write_box_lines(path.with_suffix(".txt"), template.box[None])
