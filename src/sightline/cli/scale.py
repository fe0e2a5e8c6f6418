"""``sightline scale-calibrate`` and ``scale-check``: an object's size against its depth, over a folder."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console

    from sightline.depth_scale.calibration import ScaleConstant
    from sightline.depth_scale.folder import ScaleFolder
    from sightline.depth_scale.folder_calibration import Calibration
    from sightline.depth_scale.scale_check import ScaleCheck

Measure = Literal[
    "sqrt_area", "bbox_height", "bbox_width", "diagonal", "moment_height", "moment_width", "perimeter"
]
Mode = Literal["auto", "depth", "inv_depth"]
Kind = Literal["metric_depth", "inverse_depth"]

_MOST_FILES = 5  # named for each reason


def scale_calibrate(
    folder: Path,
    output: Path,
    measure: Measure = "sqrt_area",
    depth_mode: Mode = "auto",
    depth_stat: Literal["median", "mean", "trimmed_mean", "threshold_median"] = "median",
    contact_band: float | None = None,
    border_policy: Literal["ignore", "keep"] = "ignore",
    object: str | None = None,
    min_visibility: float = 0.9,
    depth_unit_mm: float = 1.0,
    depth_model: str | None = None,
    depth_kind: Kind | None = None,
    canonical_focal_px: float | None = None,
    device: str = "cpu",
    picture: Path | None = None,
) -> None:
    """Find an object's constant: what turns focal length over depth into its size in the picture.

    Args:
        folder: masks/, depth/, images/ and camera.json, or a BOP scene.
        output: the constant as JSON, with what it rests on.
        measure: which length of the mask is the object's size.
        depth_mode: what the depth maps hold, metres or relative inverse depth; auto: metres, or what the
            depth model gives.
        depth_stat: how the depth under the mask becomes one number.
        contact_band: share of the mask's height, from below, in which depth is read; all of it unless given.
        border_policy: what becomes of a mask that the picture's border cuts off.
        object: which one, of a folder with several.
        min_visibility: visible share from which an object counts, where it is known.
        depth_unit_mm: millimetres in one step of a depth picture.
        depth_model: name on the Hugging Face hub, or folder, of a network that estimates the depth.
        depth_kind: what the network gives, where its configuration does not tell.
        canonical_focal_px: focal length of the network's training pictures at its input, if not known.
        device: where the network runs, such as cuda.
        picture: a plot of measured over expected sizes.
    """
    from sightline.cli.console import make_console
    from sightline.depth_scale.folder_calibration import calibrate_samples
    from sightline.depth_scale.options import ScaleOptions

    console = make_console()
    model = _load(depth_model, depth_kind, canonical_focal_px, device)
    source = _open(folder, depth_mode, object, depth_unit_mm, model)
    options = ScaleOptions(
        depth_mode=source.depth_mode,
        depth_stat=depth_stat,
        scale_measure=measure,
        contact_band=contact_band,
        border_policy=border_policy,
    )
    samples = _track(console, source, "measuring")
    calibration = calibrate_samples(samples, options, min_visibility=min_visibility)
    calibration.constant.save(output)
    _print_constant(console, calibration, source)
    console.print(f"written to {output}", highlight=False)
    if picture is not None:
        _plot_calibration(picture, calibration)


def scale_check(
    folder: Path,
    constant: Path | None = None,
    k: float | None = None,
    tolerance: float | None = None,
    measure: Measure = "sqrt_area",
    depth_mode: Mode = "auto",
    border_policy: Literal["ignore", "keep", "one_sided"] | None = None,
    object: str | None = None,
    min_visibility: float = 0.9,
    depth_unit_mm: float = 1.0,
    depth_model: str | None = None,
    depth_kind: Kind | None = None,
    canonical_focal_px: float | None = None,
    device: str = "cpu",
    output: Path | None = None,
    picture: Path | None = None,
) -> int:
    """Find objects that are too large or too small for their depth; the exit status is 1 if there are any.

    Args:
        folder: masks/, depth/, images/ and camera.json, or a BOP scene.
        constant: what scale-calibrate wrote; it says how sizes and depths are read.
        k: the constant as a number, in place of a file.
        tolerance: deviation that is accepted, as a share; three times the constant's spread and at least 0.05
            unless given, 0.1 with --k.
        measure: with --k, which length of the mask is the object's size.
        depth_mode: what the depth maps hold; with a file, it must be what the constant is made for.
        border_policy: what becomes of a mask that the picture's border cuts off; as when calibrating unless
            given, one_sided only finds it too large.
        object: which one, of a folder with several.
        min_visibility: visible share from which an object is judged, where it is known.
        depth_unit_mm: millimetres in one step of a depth picture.
        depth_model: name on the Hugging Face hub, or folder, of a network that estimates the depth.
        depth_kind: what the network gives, where its configuration does not tell.
        canonical_focal_px: focal length of the network's training pictures at its input, if not known.
        device: where the network runs, such as cuda.
        output: the rows as .json or .csv.
        picture: a folder for a picture of each object that is out of tolerance, and sizes.png.
    """
    from dataclasses import replace

    from sightline.cli.console import make_console
    from sightline.depth_scale.scale_check import ScaleCheck, check_samples, require_row_file, tolerance_of
    from sightline.depth_scale.size_pictures import draw_size
    from sightline.formats.images import write_image

    if (constant is None) == (k is None):
        raise ValueError("expected --constant FILE, which scale-calibrate writes, or --k NUMBER")
    if output is not None:
        require_row_file(output)
    console = make_console()
    held = None if constant is None else _load_constant(constant, depth_mode)
    mode = depth_mode if held is None else held.options.depth_mode
    source = _open(
        folder, mode, object, depth_unit_mm, _load(depth_model, depth_kind, canonical_focal_px, device)
    )
    held = held or _constant_of(k, measure, source)
    if border_policy is not None:
        held = replace(held, options=replace(held.options, border_policy=border_policy))
    if tolerance is None:
        tolerance = tolerance_of(held) if k is None else 0.1
    rows = []
    samples = _track(console, source, "checking")
    for sample, row in check_samples(samples, held, tolerance=tolerance, min_visibility=min_visibility):
        rows.append(row)
        if picture is not None and row.is_outside:
            write_image(picture / f"{Path(row.mask).stem}.png", draw_size(sample, row))
    check = ScaleCheck(held, tolerance, tuple(rows))
    _print_check(console, check)
    if output is not None:
        check.save(output)
    if picture is not None:
        _plot_check(picture / "sizes.png", check)
    return 1 if check.outside else 0


def _load(name: str | None, kind: Kind | None, canonical_focal_px: float | None, device: str) -> Any:  # noqa: ANN401 - transformers is loaded only here
    if name is None:
        return None
    from sightline.depth_scale.depth_models import load_depth_model

    return load_depth_model(name, kind=kind, canonical_focal_px=canonical_focal_px, device=device)


def _open(
    folder: Path,
    mode: str,
    object_name: str | None,
    depth_unit_mm: float,
    model: Any,  # noqa: ANN401 - transformers is loaded only where a model is asked for
) -> ScaleFolder:
    from sightline.depth_scale.folder import ScaleFolder

    source = ScaleFolder(
        folder,
        depth_mode=None if mode == "auto" else mode,
        depth_unit_mm=depth_unit_mm,
        depth_model=model,
        object_name=object_name,
    )
    if object_name is None and len(source.object_names) > 1:
        names = ", ".join(name or "''" for name in source.object_names)
        raise ValueError(f"{folder}: a constant belongs to one object, choose it with --object: {names}")
    return source


def _load_constant(path: Path, mode: Mode) -> ScaleConstant:
    from sightline.depth_scale.calibration import ScaleConstant

    held = ScaleConstant.load(path)
    if mode not in ("auto", held.options.depth_mode):
        raise ValueError(f"--depth-mode {mode}: {path} was calibrated for {held.options.depth_mode}")
    return held


def _constant_of(k: float | None, measure: Measure, source: ScaleFolder) -> ScaleConstant:
    from sightline.depth_scale.calibration import ScaleConstant
    from sightline.depth_scale.options import ScaleOptions

    if k is None or not 0 < k < float("inf"):
        raise ValueError(f"--k: expected a positive number, got {k}")
    options = ScaleOptions(depth_mode=source.depth_mode, scale_measure=measure, border_policy="ignore")
    return ScaleConstant(k, 0.0, 0, 0, options, in_image_pixels=True)


def _track(console: Console, source: ScaleFolder, text: str) -> Any:  # noqa: ANN401 - rich's own type
    from rich.progress import track

    quiet = not console.is_terminal
    return track(source.samples(), text, total=len(source), console=console, transient=True, disable=quiet)


def _print_constant(console: Console, calibration: Calibration, source: ScaleFolder) -> None:
    constant = calibration.constant
    unit = " m" if constant.options.depth_mode == "depth" else ""
    console.print(
        f"k = {constant.value:.5g}{unit}, single samples lie {100 * constant.spread:.2g} % from it "
        f"({constant.options.scale_measure}, {constant.options.depth_mode}, {constant.options.depth_stat})",
        highlight=False,
    )
    console.print(f"{constant.num_used} of {constant.num_given} masks used", highlight=False)
    files = defaultdict(list)
    for row in calibration.rows:
        if row.reason:
            files[row.reason].append(row.mask)
    if source.without_mask:
        files["the picture has no mask"] = source.without_mask
    for reason, names in files.items():
        more = f" and {len(names) - _MOST_FILES} more" if len(names) > _MOST_FILES else ""
        console.print(
            f"  {len(names)} left out, {reason}: {', '.join(names[:_MOST_FILES])}{more}", highlight=False
        )


def _print_check(console: Console, check: ScaleCheck) -> None:
    from sightline.vis.tables import Table

    rows = tuple((row.mask, "" if row.ratio is None else f"{row.ratio:.3f}", row.words) for row in check.rows)
    table = Table(("mask", "ratio", "verdict"), rows, (False, True, False))
    console.print(table.plain(), highlight=False, soft_wrap=True)
    console.print(f"k = {check.constant.value:.5g}; {check.summary()}", highlight=False)


def _plot_calibration(path: Path, calibration: Calibration) -> None:
    import numpy as np

    from sightline.depth_scale.scale_check import tolerance_of
    from sightline.formats.images import write_image
    from sightline.vis.plots import plot_sizes

    constant = calibration.constant
    pairs = [
        (constant.value * row.unit_px, row.measured_px)
        for row in calibration.rows
        if row.unit_px is not None and row.measured_px is not None
    ]
    expected, measured = np.array(pairs).T
    title = f"k = {constant.value:.4g}, spread {100 * constant.spread:.2g} %, {constant.num_used} masks"
    write_image(path, plot_sizes(expected, measured, tolerance=tolerance_of(constant), title=title))


def _plot_check(path: Path, check: ScaleCheck) -> None:
    import numpy as np

    from sightline.formats.images import write_image
    from sightline.vis.plots import plot_sizes

    pairs = [(row.expected_px, row.measured_px) for row in check.rows if row.ratio is not None]
    if pairs:
        expected, measured = np.array(pairs, dtype=np.float64).T
        title = f"{len(check.outside)} of {len(pairs)} beyond {100 * check.tolerance:.3g} %"
        write_image(path, plot_sizes(expected, measured, tolerance=check.tolerance, title=title))
