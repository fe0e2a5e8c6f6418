"""The object's constant ``k_obj``: what turns focal length over depth into the size of its mask."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from sightline.depth_scale.measures import ScaleMeasure
from sightline.depth_scale.observation import expected_size, observe, warn_of_small_masks
from sightline.depth_scale.options import REASONS, BorderPolicy, DepthMode, DepthOf, Invalid, ScaleOptions
from sightline.depth_scale.statistics import DepthStat
from sightline.formats.json_files import Fields, read_json, write_json

FORMAT = "sightline-scale-constant/1"
_MAD_TO_STD = 1.4826  # of a normal distribution


@dataclass(frozen=True)
class ScaleConstant:
    """A calibrated constant with what it rests on; of metric depth its unit is metres.

    Args:
        value: the median of ``size / (f d)`` or ``size Z / f``.
        spread: how far single samples lie from it, as a share: 1.4826 times the median of
            ``|log(k_i / value)|``.
        num_used: samples that counted.
        num_given: samples that were offered.
        options: how size and depth were read; a check must read them in the same way.
        in_image_pixels: whether sizes were measured in image pixels, so that it holds at any resolution.
        dropped: how many samples did not count for each reason, in words.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "k.json"
        >>> ScaleConstant(0.21, 0.02, 38, 40, ScaleOptions(depth_mode="depth"), True).save(file)
        >>> ScaleConstant.load(file).value
        0.21
    """

    value: float
    spread: float
    num_used: int
    num_given: int
    options: ScaleOptions
    in_image_pixels: bool = False
    dropped: dict[str, int] = field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        """Write it as JSON, whole or not at all."""
        write_json(path, {"format": FORMAT, **asdict(self)})

    @classmethod
    def load(cls, path: str | Path) -> ScaleConstant:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds something else, named with its key.
        """
        entry = Fields.of(read_json(path), Path(path), "scale constant")
        if entry.require("format") != FORMAT:
            raise entry.fault("format", f"expected {FORMAT!r}, got {entry.values['format']!r}")
        value, spread = entry.number("value"), entry.number("spread")
        if value <= 0:
            raise entry.fault("value", f"expected a positive number, got {value}")
        given = Fields.of(entry.require("options"), Path(path), "scale constant, options").values
        unknown = sorted(set(given) - {option.name for option in fields(ScaleOptions)})
        if unknown:
            raise entry.fault("options", f"unknown keys {', '.join(unknown)}")
        try:
            options = ScaleOptions(**given)
        except ValueError as error:
            raise entry.fault("options", str(error)) from error
        return cls(
            value,
            spread,
            entry.integer("num_used"),
            entry.integer("num_given"),
            options,
            bool(entry.require("in_image_pixels")),
            dict(entry.require("dropped")),
        )


class SampleConstants(NamedTuple):
    """The constant that each sample alone would give, NaN with its reason where it gives none."""

    k: Float[Tensor, "b"]
    reason: Int[Tensor, "b"]


def sample_constants(
    gt_mask01: Shaped[Tensor, "..."],
    depth_map: Shaped[Tensor, "..."],
    f_px: Shaped[Tensor, "..."] | float | int,
    options: ScaleOptions,
    *,
    depth_mask01: Shaped[Tensor, "..."] | None = None,
    image_width_px: Shaped[Tensor, "..."] | float | int | None = None,
    image_height_px: Shaped[Tensor, "..."] | float | int | None = None,
) -> SampleConstants:
    """The constant that each sample alone would give: ``s / (f d)``, or ``s Z / f`` of depth.

    Args:
        gt_mask01: true masks, 2 to 4 dimensions.
        depth_map: depth or inverse depth, of the same height and width.
        f_px: focal length in pixels.
        options: how size and depth are read.
        depth_mask01: where depth is read, if not under the mask.
        image_width_px: width of the picture; sizes are then in its pixels.
        image_height_px: its height, where the cells are not square.

    Example:
        >>> mask, depth = torch.ones(2, 10, 10), torch.tensor([2.0, 0.0]).view(2, 1, 1).expand(2, 10, 10)
        >>> sample_constants(mask, depth, 100.0, ScaleOptions(depth_mode="depth")).k
        tensor([0.2000,    nan])
    """
    with torch.no_grad():
        seen = observe(
            gt_mask01,
            depth_map,
            f_px,
            options,
            mask_name="gt_mask01",
            depth_mask01=depth_mask01,
            image_width_px=image_width_px,
            image_height_px=image_height_px,
        )
        if options.scale_measure == "sqrt_area":
            warn_of_small_masks(seen)
        k = seen.size / expected_size(1.0, seen.focal, seen.depth, options.depth_mode)
        return SampleConstants(torch.where(seen.reason == 0, k, torch.nan), seen.reason)


class ScaleCalibrator:
    """Calibrates one object's constant from batches of any size; keeps one number a sample.

    Args:
        options: how size and depth are read. A mask that the border cuts off does not count, unless
            ``border_policy`` is ``"keep"``.

    Example:
        >>> calibrator = ScaleCalibrator(ScaleOptions(depth_mode="depth"))
        >>> for depth in (1.0, 2.0, 4.0):
        ...     mask = torch.zeros(64, 64)
        ...     mask[10:10 + int(40 / depth), 20:20 + int(40 / depth)] = 1.0
        ...     _ = calibrator.update(mask, torch.full((64, 64), depth), f_px=200.0)
        >>> round(calibrator.result().value, 6)
        0.2
    """

    def __init__(self, options: ScaleOptions | None = None) -> None:
        self.options = options or ScaleOptions(depth_mode="depth", border_policy="ignore")
        self._logs: list[Tensor] = []
        self._reasons: Counter[int] = Counter()
        self._in_image_pixels: bool | None = None

    def update(
        self,
        gt_mask01: Shaped[Tensor, "..."],
        depth_map: Shaped[Tensor, "..."],
        f_px: Shaped[Tensor, "..."] | float | int,
        *,
        depth_mask01: Shaped[Tensor, "..."] | None = None,
        image_width_px: Shaped[Tensor, "..."] | float | int | None = None,
        image_height_px: Shaped[Tensor, "..."] | float | int | None = None,
    ) -> SampleConstants:
        """Take in a batch; arguments as :func:`sample_constants`.

        Raises:
            ValueError: shapes that do not broadcast, or sizes in cells and in image pixels are mixed.
        """
        in_pixels = image_width_px is not None
        if self._in_image_pixels not in (None, in_pixels):
            raise ValueError("image_width_px: expected for all batches or for none")
        self._in_image_pixels = in_pixels
        found = sample_constants(
            gt_mask01,
            depth_map,
            f_px,
            self.options,
            depth_mask01=depth_mask01,
            image_width_px=image_width_px,
            image_height_px=image_height_px,
        )
        self._reasons.update(found.reason.tolist())
        self._logs.append(found.k[found.reason == 0].double().log().cpu())
        return found

    def result(self) -> ScaleConstant:
        """The constant of all samples so far.

        Raises:
            ValueError: no sample counts; with the reasons.
        """
        num_given = self._reasons.total()
        dropped = {REASONS[Invalid(r)]: n for r, n in sorted(self._reasons.items()) if r}
        logs = torch.cat(self._logs) if self._logs else torch.empty(0)
        if len(logs) == 0:
            why = "; ".join(f"{n}: {words}" for words, n in dropped.items())
            raise ValueError(f"k_obj: none of {num_given} samples can be used" + f" ({why})" * bool(why))
        middle = logs.median()
        spread = _MAD_TO_STD * (logs - middle).abs().median()
        return ScaleConstant(
            math.exp(float(middle)),
            float(spread),
            len(logs),
            num_given,
            self.options,
            bool(self._in_image_pixels),
            dropped,
        )


def estimate_k_obj_from_dataset(
    gt_mask01: Shaped[Tensor, "..."],
    depth_map: Shaped[Tensor, "..."],
    f_px: Shaped[Tensor, "..."] | float | int,
    depth_mode: DepthMode | str = "inv_depth",
    depth_stat: DepthStat | str = "median",
    scale_measure: ScaleMeasure | str = "sqrt_area",
    *,
    quantile: float = 0.5,
    depth_of: DepthOf | str = "target",
    depth_mask01: Shaped[Tensor, "..."] | None = None,
    contact_band: float | None = None,
    image_width_px: Shaped[Tensor, "..."] | float | int | None = None,
    image_height_px: Shaped[Tensor, "..."] | float | int | None = None,
    border_policy: BorderPolicy | str = "keep",
    zero_is_missing: bool | None = None,
) -> Float[Tensor, ""]:
    """Calibrate an object's constant: the median of ``s / (f d)``, or of ``s Z / f`` of depth.

    Samples that cannot be used (an empty mask, no depth, no focal length) are left out. For a data set that
    does not fit into memory, and for the spread and the counts, use :class:`ScaleCalibrator`.

    Args:
        gt_mask01: true masks, 2 to 4 dimensions.
        depth_map: depth or inverse depth, of the same height and width.
        f_px: focal length in pixels: a number or one a sample.
        depth_mode: what the depth maps hold.
        depth_stat: how they are reduced to one number.
        scale_measure: which length of the mask is its size.
        quantile: of the median.
        depth_of: of which picture the depth is.
        depth_mask01: where depth is read, if not under the mask.
        contact_band: share of the height, from below, in which depth is read.
        image_width_px: width of the picture; sizes are then in its pixels.
        image_height_px: its height, where the cells are not square.
        border_policy: ``"ignore"`` leaves out masks that the border cuts off; they look too small.
        zero_is_missing: whether depth that is not positive is missing; None: in ``"depth"`` mode.

    Returns:
        The constant as a scalar tensor, on the masks' device.

    Raises:
        ValueError: no sample can be used, shapes that do not broadcast, or an unknown mode.

    Example:
        >>> mask, depth = torch.zeros(2, 1, 32, 32), torch.full((2, 1, 32, 32), 0.5)
        >>> mask[0, :, 8:24, 8:24] = 1.0
        >>> estimate_k_obj_from_dataset(mask, depth, 320.0)
        tensor(0.1000)
    """
    options = ScaleOptions(
        depth_mode=depth_mode,
        depth_stat=depth_stat,
        scale_measure=scale_measure,
        quantile=quantile,
        depth_of=depth_of,
        contact_band=contact_band,
        border_policy=border_policy,
        zero_is_missing=zero_is_missing,
    )
    calibrator = ScaleCalibrator(options)
    found = calibrator.update(
        gt_mask01,
        depth_map,
        f_px,
        depth_mask01=depth_mask01,
        image_width_px=image_width_px,
        image_height_px=image_height_px,
    )
    calibrator.result()  # raises where there is none
    return found.k.nanmedian()
