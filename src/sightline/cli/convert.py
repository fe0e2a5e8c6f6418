"""``sightline convert``: data sets and results from one layout to another."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Layout = Literal["bop", "coco", "foundationpose", "megapose", "json"]


def convert(
    source: Path,
    source_format: Layout,
    target: Path,
    target_format: Layout,
    split: str = "test",
    overwrite: bool = False,
) -> None:
    """Convert a data set; units, axes and quaternion orders change with the layout.

    Prints what was written, what the target cannot hold, and what was decided.

    Args:
        source: a BOP data set or scene, a COCO or results JSON, a FoundationPose or MegaPose folder.
        source_format: the layout of the source.
        target: a folder, or a file for json; it appears whole or not at all.
        target_format: the layout of the target.
        split: of a BOP data set, read or written.
        overwrite: whether an existing target is replaced.
    """
    from sightline.formats.convert import convert as run

    done = run(source, source_format, target, target_format, split=split, overwrite=overwrite)
    print(f"{target}:", *done.lines(), sep="\n  ")
