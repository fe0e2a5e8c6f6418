"""A sitting of the exam as files: the figures as JSON, and curves as pictures."""

from __future__ import annotations

from pathlib import Path

from sightline.formats.images import write_image
from sightline.formats.json_files import null_if_not_finite, write_json
from sightline.pipeline.exam_run import ExamRun
from sightline.vis.plots import plot_coverage, plot_precision_recall


def write_exam_run(folder: str | Path, run: ExamRun, title: str) -> list[Path]:
    """Write what was found.

    Args:
        folder: where to; it is made.
        run: the figures.
        title: what sat the exam, for the plot.

    Returns:
        ``figures.json``; of detection also ``precision_recall.png`` with a curve for all objects, those rich
        and those low in texture; of poses that claim a covariance ``coverage.png``, which says in how many
        the truth lies within the ellipsoid of each level, of all poses and of those in the right mode.
    """
    folder, report = Path(folder), run.report
    tables = {"figures": report.figures, "by_object": report.by_object}
    paths = [folder / "figures.json"]
    write_json(
        paths[0],
        {
            "task": report.task,
            "num_objects": run.num_objects,
            "num_pictures": run.num_pictures,
            "onboarding_seconds": run.onboarding_seconds,
            "picture_seconds": null_if_not_finite(run.picture_seconds),
            "object_seconds": null_if_not_finite(run.object_seconds),
            **{
                what: {
                    row: {name: null_if_not_finite(value) for name, value in values.items()}
                    for row, values in table.items()
                }
                for what, table in tables.items()
            },
        },
    )
    curves = {
        f"{half}: AP50 of all objects as one {report.figures[half]['ap50_pooled']:.3f}": (
            curve.recall,
            curve.precision,
        )
        for half, curve in report.curves.items()
        if not bool(curve.recall.isnan().any()) and len(curve.recall)
    }
    if curves:
        paths.append(folder / "precision_recall.png")
        write_image(paths[1], plot_precision_recall(curves, title=title))
    levels = {claim: values for claim, values in report.levels.get("all", {}).items() if len(values)}
    if levels:
        paths.append(folder / "coverage.png")
        write_image(paths[-1], plot_coverage(levels, title=title))
    return paths
