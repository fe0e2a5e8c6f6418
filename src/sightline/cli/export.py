"""``sightline export``: a network as graphs in files that run without Sightline."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def export(
    model: Literal["refdet"],
    weights: Path | None = None,
    output: Path = Path("sightline-export"),
    format: Literal["onnx", "torchscript", "torch-export"] = "onnx",
    nms: bool = False,
    min_score: float | None = None,
    template_size: tuple[int, int] | None = None,
    max_detections: int = 100,
) -> None:
    """Write the reference detector as three graphs, and compare them with the network.

    One graph makes a bank of templates, one takes pictures of any size with a bank and gives boxes, and one
    looks at crops of these a second time. Writes export.json beside them, which says names, sizes and how
    both looks make a score. Takes a minute or more.

    Args:
        model: refdet.
        weights: a .safetensors file; those of the package unless given.
        output: folder for the files; created if need be.
        format: onnx, torchscript, or torch-export (.pt2).
        nms: whether overlapping boxes are suppressed within the graph; all of the best cells come otherwise.
        min_score: with --nms, scores below it become 0; that of the weights unless given.
        template_size: (width, height) pixels of a template, as in [128,128]; the weights' own unless given.
        max_detections: boxes of one picture.
    """
    from sightline.cli.console import make_console
    from sightline.refdet.export import MANIFEST, export_detector
    from sightline.refdet.export_check import CASES, check_export
    from sightline.refdet.reference_detector import ReferenceDetector
    from sightline.refdet.shipped import shipped_weights

    if min_score is not None and not (nms and 0 <= min_score <= 1):
        raise ValueError(f"--min-score: expected a score in [0, 1] together with --nms, got {min_score}")
    console = make_console()
    detector = ReferenceDetector.from_checkpoint(weights or shipped_weights())
    settings = detector.settings
    threshold = settings.score_threshold if min_score is None else min_score
    try:
        exported = export_detector(
            detector.model,
            output,
            file_format=format,
            template_size=template_size or settings.template_size,
            search_size=settings.search_size,
            max_detections=max_detections,
            suppress=nms,
            score_threshold=threshold if nms else 0.0,
        )
        difference = check_export(detector.model, exported)
    except ModuleNotFoundError as error:
        raise ValueError(f"--format {format}: {error}") from error
    for path in (exported.onboard, exported.detect, exported.look, output / MANIFEST):
        console.print(f"{path}: {path.stat().st_size / 1e6:.1f} MB", highlight=False, soft_wrap=True)
    counts = ", ".join(f"{n} templates with {b} pictures of {w}x{h}" for n, b, (w, h) in CASES)
    console.print(
        f"largest differences from the network: bank {difference.bank:.1e} of its largest number, scores "
        f"{difference.scores:.1e}, boxes {difference.boxes:.1e} px, evidence {difference.evidence:.1e} "
        f"({counts})",
        highlight=False,
        soft_wrap=True,
    )
    if not difference.agrees:
        raise ValueError(f"{output}: the graphs do not agree with the network; do not use them")
