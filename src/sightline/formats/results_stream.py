"""Results of a long video as JSON, written frame by frame: the form of :mod:`sightline.formats.results`."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from sightline.formats.atomic import atomic_write
from sightline.formats.results import SCHEMA_VERSION


class WriteEntry(Protocol):
    """Writes the entry of one picture."""

    def __call__(self, entry: Mapping[str, Any], /) -> None: ...  # noqa: D102


@contextmanager
def stream_results(
    path: str | Path, classes: Sequence[str], meta: Mapping[str, Any] | None = None
) -> Generator[WriteEntry]:
    """Write a results file picture by picture; whole or not at all.

    Args:
        path: where to.
        classes: the names that ``class_id`` counts.
        meta: about the run.

    Yields:
        What takes the entry of each picture (:func:`~sightline.formats.results.image_entry`, and any other
        keys) and keeps none of it.

    Raises:
        ValueError: NaN or infinity in an entry.

    Example:
        >>> import tempfile
        >>> from sightline.formats.results import ImageResult, image_entry, read_results
        >>> path = Path(tempfile.mkdtemp()) / "detections.json"
        >>> with stream_results(path, ["mug"]) as write:
        ...     for index in range(2):
        ...         write({**image_entry(ImageResult(f"frame {index}"), ["mug"]), "index": index})
        >>> [image.image for image in read_results(path).images]
        ['frame 0', 'frame 1']
    """
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        head = {"schema_version": SCHEMA_VERSION, "classes": list(classes), "meta": dict(meta or {})}
        fields = ",\n  ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items())
        file.write(f'{{\n  {fields},\n  "predictions": [')
        separator = "\n    "

        def write(entry: Mapping[str, Any], /) -> None:
            nonlocal separator
            try:
                text = json.dumps(entry, allow_nan=False)
            except ValueError as error:
                raise ValueError(f"{path}: JSON holds no NaN and no infinity") from error
            file.write(separator + text)
            separator = ",\n    "

        yield write
        file.write("\n  ]\n}\n")
