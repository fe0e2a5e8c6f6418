"""Detections as files: Sightline's own, and those that COCO's and BOP's evaluations take."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from sightline.formats.bop_detections import BopDetection, write_bop_detections
from sightline.formats.coco import CocoResult, write_coco, write_coco_results
from sightline.formats.frames import Frame
from sightline.formats.result_records import ImageResult
from sightline.formats.results import write_results

DetectionFormat = Literal["json", "coco", "bop"]

_OBJECT = re.compile(r"obj_0*(\d+)")


def write_detections(
    output: Path,
    results: Sequence[ImageResult],
    meta: Mapping[str, Any],
    *,
    names: Sequence[str],
    source: Path,
    form: DetectionFormat | str = "json",
) -> None:
    """Write ``detections.json``, and beside it what another evaluation takes.

    ``coco`` adds ``coco_results.json`` and, so that its numbers can be read, ``coco_images.json`` with the
    pictures and categories. ``bop`` adds ``bop_detections.json``.

    Numbers are those that a data set has already: of a picture its file name, if all are numbers
    (``000012.png``); of a category that of ``obj_000005``, if all objects are called so; of a BOP scene the
    folder of the pictures, or the one above (``000048/rgb``). Otherwise pictures and categories are counted
    from 1 in order, and the scene is 0.

    Args:
        output: a folder.
        results: one entry a picture.
        meta: about the run.
        names: of all objects that were looked for.
        source: where the pictures are.
        form: ``json``, ``coco`` or ``bop``.

    Raises:
        ValueError: another form.
    """
    if form not in ("json", "coco", "bop"):
        raise ValueError(f"format: expected json, coco or bop, got {form!r}")
    write_results(output / "detections.json", results, meta)
    if form == "json":
        return
    numbers = _picture_numbers([result.image for result in results])
    categories = _category_numbers(names)
    if form == "coco":
        pictures = [
            Frame(number, result.image, size=result.image_size)
            for number, result in zip(numbers, results, strict=True)
        ]
        by_number = {number: name for name, number in categories.items()}
        write_coco(output / "coco_images.json", pictures, categories=by_number)
        found = [
            CocoResult(number, categories[one.name], one.box, one.score, one.mask)
            for number, result in zip(numbers, results, strict=True)
            for one in result.objects
            if one.box is not None
        ]
        write_coco_results(output / "coco_results.json", found)
        return
    scene = _scene_number(source)
    write_bop_detections(
        output / "bop_detections.json",
        [
            BopDetection(
                scene,
                number,
                categories[one.name],
                one.box,
                one.score,
                one.mask,
                -1.0 if result.time is None else result.time,
            )
            for number, result in zip(numbers, results, strict=True)
            for one in result.objects
            if one.box is not None
        ],
    )


def _picture_numbers(names: Sequence[str]) -> list[int]:
    stems = [Path(name).stem for name in names]
    if all(stem.isdecimal() for stem in stems) and len({int(stem) for stem in stems}) == len(stems):
        return [int(stem) for stem in stems]
    return list(range(1, len(names) + 1))


def _category_numbers(names: Sequence[str]) -> dict[str, int]:
    matches = {name: _OBJECT.fullmatch(name) for name in names}
    known = {name: int(match[1]) for name, match in matches.items() if match}
    if len(known) == len(matches) == len(set(known.values())):
        return known
    return {name: number for number, name in enumerate(sorted(set(names)), start=1)}


def _scene_number(source: Path) -> int:
    folder = source.resolve() if source.is_dir() else source.resolve().parent
    return next((int(each.name) for each in (folder, folder.parent) if each.name.isdecimal()), 0)
