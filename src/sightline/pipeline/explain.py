"""The report of one picture: what was found, and why it is or is not believed."""

from __future__ import annotations

import math
from pathlib import Path

import sightline
from sightline.formats.atomic import atomic_write
from sightline.geometry.cameras import Camera
from sightline.objects.verification import Verification
from sightline.pipeline.estimate import FoundObject
from sightline.pipeline.focal import ChosenCamera
from sightline.pipeline.pictures import draw_evidence, draw_found
from sightline.pipeline.sources import Frame
from sightline.vis.report import ReportItem, render_report
from sightline.vis.tables import PoseRow


def write_report(
    path: Path,
    frame: Frame,
    chosen: ChosenCamera,
    found: list[FoundObject],
    *,
    title: str = "Poses",
    rows: list[PoseRow] | None = None,
) -> None:
    """Write one HTML file that explains every pose of a picture.

    Args:
        path: the file.
        frame: the picture.
        chosen: its camera.
        found: what was found in it.
        title: of the page.
        rows: of the table; made from ``found`` when not given.

    Raises:
        OSError: the file cannot be written; nothing half-written stays.
    """
    text = render_report(
        f"{title}: {frame.name}",
        draw_found(frame.image, chosen.camera, found),
        [_item(frame, chosen.camera, one) for one in found],
        rows=rows or (),
        facts={
            "picture": f"{frame.name}, {chosen.camera.width} x {chosen.camera.height}",
            "camera": chosen.reason,
        },
        footer=f"Sightline {sightline.__version__}",
    )
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _item(frame: Frame, camera: Camera, found: FoundObject) -> ReportItem:
    check = found.verification
    return ReportItem(
        name=found.card.name,
        pose=found.pose,
        overlay=draw_found(frame.image, camera, [found]) if found.pose.valid else None,
        matches=draw_evidence(frame.image, camera, found),
        scores={} if check is None else _scores(check),
        timings=found.seconds,
        notes=_notes(found),
        alternatives=found.pose.alternatives,
    )


def _scores(check: Verification) -> dict[str, float]:
    parts = {
        "texture as rendered": check.appearance,
        "outline on edges": check.contour,
        "surface seen": check.support,
        "inside the picture": check.inside,
        "depth as rendered": check.depth,
    }
    return {name: value for name, value in parts.items() if math.isfinite(value)}


def _notes(found: FoundObject) -> list[str]:
    check = found.verification
    notes = []
    if check is not None and found.pose.valid:
        if check.texture < 0.15:
            notes.append("The object shows little texture here; the outline decides.")
        if check.support < 0.5:
            notes.append(
                f"Only {check.support:.0%} of its textured surface is seen as expected: is it covered?"
            )
    discrete = len(found.card.symmetries.discrete)
    if discrete > 1 or found.card.symmetries.axis is not None:
        notes.append("The object is symmetric; this is one of several equivalent poses.")
    return notes
