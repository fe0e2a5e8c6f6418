"""An object's constant from a stream of samples, with what each of them says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from sightline.depth_scale.calibration import ScaleCalibrator, ScaleConstant
from sightline.depth_scale.folder import ScaleSample
from sightline.depth_scale.measures import ScaleMeasure, measure_scale
from sightline.depth_scale.options import REASONS, Invalid, ScaleOptions
from sightline.geometry.cameras import Camera

_HIDDEN = "too little of the object is visible"


@dataclass(frozen=True)
class SizeRow:
    """What one sample says of its object's constant.

    Args:
        mask: its file.
        reason: why it does not count, empty where it does; the numbers are None then.
        measured_px: size of the mask, image pixels.
        unit_px: size to be expected for a constant of 1: ``f d`` of inverse depth, ``f / Z`` of depth.
        k: the constant that this sample alone would give.
    """

    mask: str
    reason: str = ""
    measured_px: float | None = None
    unit_px: float | None = None
    k: float | None = None


@dataclass(frozen=True)
class Calibration:
    """A constant and what the samples say that it rests on."""

    constant: ScaleConstant
    rows: tuple[SizeRow, ...]


def calibrate_samples(
    samples: Iterable[ScaleSample], options: ScaleOptions, *, min_visibility: float = 0.9
) -> Calibration:
    """Calibrate an object's constant from a stream of samples, sizes in image pixels.

    Args:
        samples: of one object, with true masks.
        options: how size and depth are read.
        min_visibility: the visible share from which an object counts, where it is known: what is hidden
            makes it look small.

    Returns:
        The constant, and what each sample says.

    Raises:
        ValueError: no sample can be used; with the reasons.

    Example:
        >>> calibrate_samples([], ScaleOptions())
        Traceback (most recent call last):
        ValueError: k_obj: none of 0 samples can be used
    """
    calibrator = ScaleCalibrator(options)
    rows = []
    for sample in samples:
        if is_hidden(sample, min_visibility):
            rows.append(SizeRow(sample.entry.mask_name, _HIDDEN))
            continue
        focal, (width, height) = focal_for(sample.camera, options.scale_measure), sample.camera.image_size
        found = calibrator.update(
            sample.mask, sample.depth, focal, image_width_px=width, image_height_px=height
        )
        rows.append(_row(sample, options.scale_measure, float(found.k), Invalid(int(found.reason))))
    num_hidden = sum(row.reason == _HIDDEN for row in rows)
    if num_hidden and num_hidden == len(rows):
        raise ValueError(f"k_obj: none of {len(rows)} objects is visible by {100 * min_visibility:.0f} %")
    constant = calibrator.result()
    if num_hidden:
        dropped = {**constant.dropped, _HIDDEN: num_hidden}
        constant = replace(constant, num_given=len(rows), dropped=dropped)
    return Calibration(constant, tuple(rows))


def focal_for(camera: Camera, measure: ScaleMeasure | str) -> float:
    """The focal length that belongs to a measure: across for widths, upwards for heights, else their mean.

    Args:
        camera: of the picture.
        measure: the length that is measured.

    Returns:
        Pixels.

    Example:
        >>> import torch
        >>> camera = Camera(torch.tensor([[400.0, 0, 2], [0, 900.0, 2], [0, 0, 1]]), 4, 4)
        >>> [focal_for(camera, name) for name in ("bbox_width", "bbox_height", "sqrt_area")]
        [400.0, 900.0, 600.0]
    """
    across, upwards = float(camera.K[0, 0]), float(camera.K[1, 1])
    if measure.endswith("_width"):
        return across
    return upwards if measure.endswith("_height") else (across * upwards) ** 0.5


def is_hidden(sample: ScaleSample, min_visibility: float) -> bool:
    """Whether less of the object is visible than is needed; False where nobody knows.

    Args:
        sample: an object in a picture.
        min_visibility: the visible share that is needed.
    """
    return sample.entry.visibility is not None and sample.entry.visibility < min_visibility


def _row(sample: ScaleSample, measure: ScaleMeasure | str, k: float, reason: Invalid) -> SizeRow:
    if reason != Invalid.NO:
        return SizeRow(sample.entry.mask_name, REASONS[reason])
    rows, columns = sample.mask.shape
    cell = (sample.camera.width / columns, sample.camera.height / rows)
    measured = float(measure_scale(sample.mask, measure, cell=cell))
    return SizeRow(sample.entry.mask_name, "", measured, measured / k, k)
