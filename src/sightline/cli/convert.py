"""``sightline convert``: data sets and results from one layout to another."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Layout = Literal["bop", "bop-webdataset", "coco", "foundationpose", "megapose", "json", "yolo", "refdet"]


def convert(
    source: Path,
    source_format: Layout,
    target: Path,
    target_format: Layout,
    split: str = "test",
    templates: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Convert a data set; units, axes and quaternion orders change with the layout.

    Prints what was written, what the target cannot hold, and what was decided.

    Args:
        source: a BOP data set or scene, a COCO or results JSON, or a folder of the other layouts.
        source_format: the layout of the source.
        target: a folder, or a file for json; it appears whole or not at all.
        target_format: the layout of the target.
        split: of a BOP, YOLO or refdet data set, read or written.
        templates: for refdet, a folder with OBJECT/*.jpg; those of the source if it has any.
        overwrite: whether an existing target is replaced.
    """
    from sightline.formats.convert import convert as run

    done = run(
        source, source_format, target, target_format, split=split, templates=templates, overwrite=overwrite
    )
    print(f"{target}:", *done.lines(), sep="\n  ")
