"""Objects that are too large or too small for their depth: a verdict on each, in words and numbers."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from sightline.depth_scale.calibration import ScaleConstant
from sightline.depth_scale.folder import ScaleSample
from sightline.depth_scale.folder_calibration import focal_for, is_hidden
from sightline.depth_scale.observation import expected_size, observe
from sightline.depth_scale.options import REASONS, Invalid
from sightline.formats.atomic import atomic_write
from sightline.formats.json_files import write_json

FORMAT = "sightline-scale-check/1"

LEAST_TOLERANCE = 0.05
"""Less is within the rounding of masks and depth maps."""

_SPREADS = 3.0  # of a normal distribution, 1 in 370 lies farther out

Verdict = Literal["fits", "too large", "too small", "not judged"]


@dataclass(frozen=True)
class ScaleRow:
    """The verdict on one object in one picture.

    Args:
        image: the picture's name.
        object_name: the object's; empty where the files do not say.
        mask: the mask's file.
        verdict: in one or two words.
        words: in a sentence with its numbers, or why it could not be judged.
        measured_px: size of the mask, image pixels; None, as all that follow, where it was not judged.
        expected_px: size to be expected of depth and focal length, image pixels.
        ratio: measured over expected.
        depth: the statistic under the mask: metres, or inverse depth.
        focal_px: of the picture.
    """

    image: str
    object_name: str
    mask: str
    verdict: Verdict
    words: str
    measured_px: float | None = None
    expected_px: float | None = None
    ratio: float | None = None
    depth: float | None = None
    focal_px: float | None = None

    @property
    def is_outside(self) -> bool:
        """Whether the size is out of tolerance."""
        return self.verdict in ("too large", "too small")


@dataclass(frozen=True)
class ScaleCheck:
    """The verdicts on a folder.

    Args:
        constant: what sizes were held against.
        tolerance: the deviation that is accepted, as a share: from ``1 / (1 + tolerance)`` to
            ``1 + tolerance``.
        rows: one an object and picture.

    Example:
        >>> from sightline.depth_scale.options import ScaleOptions
        >>> row = ScaleRow("a", "mug", "masks/a.png", "fits", "fits its depth", 80.0, 82.0, 0.976, 1.5, 600.0)
        >>> ScaleCheck(ScaleConstant(0.2, 0.01, 9, 9, ScaleOptions()), 0.1, (row,)).summary()
        '1 checked within 10 %: 1 fits, 0 too large, 0 too small, 0 not judged'
    """

    constant: ScaleConstant
    tolerance: float
    rows: tuple[ScaleRow, ...]

    @property
    def outside(self) -> tuple[ScaleRow, ...]:
        """The rows that are out of tolerance, the worst first."""
        rows = (row for row in self.rows if row.is_outside)
        return tuple(sorted(rows, key=lambda row: -abs(math.log(row.ratio or 1.0))))

    def count(self, verdict: Verdict) -> int:
        """How many rows got a verdict."""
        return sum(row.verdict == verdict for row in self.rows)

    def summary(self) -> str:
        """One line of counts."""
        kinds: tuple[Verdict, ...] = ("fits", "too large", "too small", "not judged")
        counts = ", ".join(f"{self.count(kind)} {kind}" for kind in kinds)
        return f"{len(self.rows)} checked within {100 * self.tolerance:.3g} %: {counts}"

    def save(self, path: str | Path) -> None:
        """Write the rows: with all that they rest on as ``.json``, or alone as ``.csv``.

        Raises:
            ValueError: another suffix.
        """
        path = require_row_file(path)
        rows = [asdict(row) for row in self.rows]
        if path.suffix.lower() == ".json":
            head = {"format": FORMAT, "tolerance": self.tolerance, "num_outside": len(self.outside)}
            write_json(path, {**head, "constant": asdict(self.constant), "rows": rows})
            return
        with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(ScaleRow)])
            writer.writeheader()
            writer.writerows(rows)


def require_row_file(path: str | Path) -> Path:
    """The path itself, if rows can be written to it; to be asked before the work is done.

    Args:
        path: a ``.json`` or ``.csv`` file.

    Raises:
        ValueError: another suffix.

    Example:
        >>> require_row_file("rows.txt")
        Traceback (most recent call last):
        ValueError: rows.txt: expected .json or .csv, got '.txt'
    """
    path = Path(path)
    if path.suffix.lower() not in (".json", ".csv"):
        raise ValueError(f"{path}: expected .json or .csv, got {path.suffix!r}")
    return path


def tolerance_of(constant: ScaleConstant) -> float:
    """The deviation that a constant's own spread makes usual: three times it, at least 5 %.

    Args:
        constant: calibrated.

    Returns:
        A share, for :func:`check_samples`.

    Example:
        >>> from sightline.depth_scale.options import ScaleOptions
        >>> round(tolerance_of(ScaleConstant(0.2, 0.03, 9, 9, ScaleOptions())), 3)
        0.094
    """
    return max(LEAST_TOLERANCE, math.expm1(_SPREADS * constant.spread))


def check_samples(
    samples: Iterable[ScaleSample],
    constant: ScaleConstant,
    *,
    tolerance: float | None = None,
    min_visibility: float = 0.9,
) -> Iterator[tuple[ScaleSample, ScaleRow]]:
    """Hold the size of each object against its depth and the focal length.

    Args:
        samples: of the object that the constant belongs to.
        constant: in image pixels; its options say how size and depth are read.
        tolerance: the deviation that is accepted, as a share; None: see :func:`tolerance_of`.
        min_visibility: the visible share from which an object is judged, where it is known.

    Yields:
        Each sample with its verdict.

    Raises:
        ValueError: a constant in cells of masks of some resolution, or a tolerance that is not positive.

    Example:
        >>> from sightline.depth_scale.options import ScaleOptions
        >>> list(check_samples([], ScaleConstant(0.2, 0.03, 9, 9, ScaleOptions(), in_image_pixels=True)))
        []
    """
    if not constant.in_image_pixels:
        raise ValueError(
            "constant: expected one in image pixels; this one was calibrated in cells of masks, whose "
            "resolution is not known"
        )
    accepted = tolerance_of(constant) if tolerance is None else tolerance
    if not (math.isfinite(accepted) and accepted > 0):
        raise ValueError(f"tolerance: expected a positive share such as 0.1, got {tolerance}")
    for sample in samples:
        yield sample, _judge(sample, constant, accepted, min_visibility)


def _judge(sample: ScaleSample, constant: ScaleConstant, tolerance: float, min_visibility: float) -> ScaleRow:
    entry = sample.entry
    if is_hidden(sample, min_visibility):
        words = f"only {100 * (entry.visibility or 0):.0f} % of it is visible"
        return ScaleRow(entry.name, entry.object_name, entry.mask_name, "not judged", words)
    options = constant.options
    focal = focal_for(sample.camera, options.scale_measure)
    seen = observe(
        sample.mask,
        sample.depth,
        focal,
        options,
        mask_name=entry.mask_name,
        image_width_px=sample.camera.width,
        image_height_px=sample.camera.height,
    )
    if reason := int(seen.reason):
        words = REASONS[Invalid(reason)]
        return ScaleRow(entry.name, entry.object_name, entry.mask_name, "not judged", words)
    measured, depth = float(seen.size), float(seen.depth)
    expected = float(expected_size(constant.value, focal, seen.depth, options.depth_mode))
    ratio = measured / expected
    verdict: Verdict = "fits"
    if ratio > 1 + tolerance:
        verdict = "too large"
    elif ratio < 1 / (1 + tolerance) and not (options.border_policy == "one_sided" and bool(seen.truncated)):
        verdict = "too small"
    words = _describe(verdict, measured, expected)
    numbers = (measured, expected, ratio, depth, focal)
    return ScaleRow(entry.name, entry.object_name, entry.mask_name, verdict, words, *numbers)


def _describe(verdict: Verdict, measured: float, expected: float) -> str:
    sizes = f"expected {expected:.3g} px, measured {measured:.3g} px"
    if verdict == "fits":
        return f"fits its depth: {sizes}"
    factor = max(measured / expected, expected / measured)
    return f"{factor:.2f} times {verdict} for its depth: {sizes}"
