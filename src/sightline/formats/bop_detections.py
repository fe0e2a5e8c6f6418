"""Detections as BOP shares them: a JSON list with COCO boxes and run-length coded masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sightline.formats.bop_models import object_name
from sightline.formats.json_files import Fields, read_json, write_json
from sightline.formats.pixel_boxes import coco_from_xyxy, xyxy_from_coco
from sightline.formats.rle import Rle
from sightline.records import Detections


@dataclass(frozen=True, eq=False)
class BopDetection:
    """One detected object.

    Args:
        scene_id: of the picture.
        im_id: of the picture (``image_id`` in the file).
        obj_id: of the object (``category_id`` in the file).
        box: ``(4,)`` float64 xyxy pixels.
        score: higher is surer.
        mask: run-length coded, None where the file has none.
        time: seconds for the whole picture, -1 unknown.
    """

    scene_id: int
    im_id: int
    obj_id: int
    box: Float[Tensor, "4"]
    score: float
    mask: Rle | None = None
    time: float = -1.0


def read_bop_detections(path: str | Path) -> list[BopDetection]:
    """Read detections, with masks as text or as numbers, or with boxes alone.

    Args:
        path: the JSON file.

    Returns:
        The detections in order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no JSON, or a key that is missing or malformed; the entry and key are named.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "detections.json"
        >>> found = BopDetection(2, 3, 5, torch.tensor([9.5, 19.5, 14.5, 27.5], dtype=torch.float64), 0.9)
        >>> write_bop_detections(path, [found])
        >>> read_json(path)[0]["bbox"], read_bop_detections(path)[0].box.tolist()
        ([10.0, 20.0, 5.0, 8.0], [9.5, 19.5, 14.5, 27.5])
    """
    path = Path(path)
    entries = Fields({"detections": read_json(path)}, path, "top level").entries("detections")
    return [_parse(entry) for entry in entries]


def _parse(entry: Fields) -> BopDetection:
    return BopDetection(
        entry.integer("scene_id"),
        entry.integer("image_id"),
        entry.integer("category_id"),
        xyxy_from_coco(entry.tensor("bbox", 4)),
        entry.number("score"),
        rle_field(entry, "segmentation"),
        entry.number("time", -1.0),
    )


def rle_field(entry: Fields, key: str) -> Rle | None:
    """The run-length code under a key, or None where the key is absent.

    Args:
        entry: the JSON object.
        key: of the code.

    Returns:
        The mask's code.

    Raises:
        ValueError: the code is damaged.
    """
    if key not in entry:
        return None
    code = Fields.of(entry.require(key), entry.path, f"{entry.where}, {key}")
    try:
        return Rle.from_json(dict(code.values))
    except (ValueError, TypeError) as error:
        raise entry.fault(key, str(error)) from error


def write_bop_detections(
    path: str | Path, detections: Iterable[BopDetection], *, compressed: bool = True
) -> None:
    """Write detections.

    Args:
        path: where to.
        detections: in order.
        compressed: whether masks are written as text (else as numbers).
    """
    write_json(path, [_entry(found, compressed) for found in detections])


def _entry(found: BopDetection, compressed: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "scene_id": found.scene_id,
        "image_id": found.im_id,
        "category_id": found.obj_id,
        "bbox": coco_from_xyxy(found.box).tolist(),
        "score": found.score,
        "time": found.time,
    }
    if found.mask is not None:
        entry["segmentation"] = found.mask.to_json(compressed=compressed)
    return entry


def group_by_image(detections: Sequence[BopDetection]) -> dict[tuple[int, int], list[BopDetection]]:
    """Sort detections into their pictures.

    Args:
        detections: of any number of pictures.

    Returns:
        The detections of each ``(scene_id, im_id)``, the surest first.

    Example:
        >>> box = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64)
        >>> group_by_image([BopDetection(2, 3, 5, box, 0.9)]).keys()
        dict_keys([(2, 3)])
    """
    groups: dict[tuple[int, int], list[BopDetection]] = {}
    for found in sorted(detections, key=lambda found: -found.score):
        groups.setdefault((found.scene_id, found.im_id), []).append(found)
    return groups


def to_record(
    detections: Sequence[BopDetection],
    image_size: tuple[int, int],
    names: Mapping[int, str] | None = None,
) -> Detections:
    """Make the house's record of the detections of one picture.

    Args:
        detections: of one picture; either all with masks or none.
        image_size: ``(width, height)`` pixels.
        names: the name of each object number, ``obj_000005`` and so on unless given.

    Returns:
        The record.

    Raises:
        ValueError: some have masks and some have none, or a mask of another size.

    Example:
        >>> box = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64)
        >>> to_record([BopDetection(2, 3, 5, box, 0.9)], (64, 48)).names
        ('obj_000005',)
    """
    masks = [found.mask.decode() for found in detections if found.mask is not None]
    if masks and len(masks) != len(detections):
        raise ValueError(f"masks: expected {len(detections)} or none, got {len(masks)}")
    boxes = [found.box for found in detections]
    return Detections(
        torch.stack(boxes) if boxes else torch.zeros(0, 4, dtype=torch.float64),
        torch.tensor([found.score for found in detections], dtype=torch.float64),
        tuple((names or {}).get(found.obj_id, object_name(found.obj_id)) for found in detections),
        image_size,
        torch.from_numpy(np.stack(masks)) if masks else None,
    )
