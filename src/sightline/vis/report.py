"""A report of one HTML file that explains each pose: nothing to load, no script, light, dark and on paper."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sightline.geometry.rotations import geodesic_distance
from sightline.records import PoseEstimate
from sightline.vis.canvas import check_picture, fit_picture
from sightline.vis.report_style import STYLE
from sightline.vis.tables import PoseRow, Table, pose_table, timing_table
from sightline.vis.words import describe_pose, format_angle, format_length

_MAX_SIDE_PX = 1600  # of a picture in the report
_JPEG_QUALITY = 90
_FLAT_COLORS = 200  # a picture of fewer colours is a plot, which PNG keeps smaller and crisper
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True, kw_only=True)
class ReportItem:
    """One object of a report and all that explains its pose; what is not known is left out.

    Args:
        name: the object.
        pose: where it is, or why it was not found.
        overlay: the picture with the pose drawn, uint8 RGB.
        matches: the template beside the crop with the matched points, uint8 RGB.
        template: the template that matched, uint8 RGB.
        scores: how well each part of the verification went, in [0, 1].
        timings: the seconds that each stage took.
        notes: warnings and remarks in words.
        alternatives: other poses that were considered, best first.

    Example:
        >>> ReportItem(name="mug", pose=PoseEstimate.failure("hidden")).pose.valid
        False
    """

    name: str
    pose: PoseEstimate
    overlay: np.ndarray | None = None
    matches: np.ndarray | None = None
    template: np.ndarray | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()
    alternatives: Sequence[PoseEstimate] = ()


def render_report(
    title: str,
    overview: np.ndarray | None,
    items: Sequence[ReportItem],
    *,
    rows: Sequence[PoseRow] = (),
    facts: Mapping[str, str] | None = None,
    pictures: Mapping[str, np.ndarray] | None = None,
    footer: str = "",
) -> str:
    """Write the report as the text of one HTML file; all pictures are inside it and all texts are escaped.

    Args:
        title: of the page.
        overview: the whole picture with all poses drawn, uint8 RGB.
        items: the objects, found or not.
        rows: of the table of poses, by default made from the items.
        facts: names and values about the run, for example the camera and the command.
        pictures: further pictures by caption, for example plots, uint8 RGB.
        footer: a last line, for example the version.

    Returns:
        The text of the file; its encoding is UTF-8.

    Raises:
        ValueError: something given as a picture is none.

    Example:
        >>> lost = ReportItem(name="<mug>", pose=PoseEstimate.failure("hidden"))
        >>> page = render_report("Poses", None, [lost])
        >>> "<mug>" in page, "&lt;mug&gt;" in page, "://" in page
        (False, True, False)
    """
    rows = list(rows) or [PoseRow.from_pose(replace(item.pose, name=item.name)) for item in items]
    found = sum(item.pose.valid for item in items)
    parts = [
        f"<header><h1>{_text(title)}</h1>",
        f'<p class="soft">{found} of {len(items)} objects found</p></header>' if items else "</header>",
        _overview(overview, rows, facts or {}),
        *(_item(item, f"object-{number}") for number, item in enumerate(items, start=1)),
        _gallery(pictures or {}),
        f"<footer>{_text(footer)}</footer>" if footer else "",
    ]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )


def embed_picture(image: np.ndarray, *, max_side: int = _MAX_SIDE_PX) -> str:
    """A picture as a ``data:`` address that an HTML file can hold.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        max_side: a larger picture is scaled down to this many pixels.

    Returns:
        JPEG, or PNG where the picture has few colours, in base64.

    Raises:
        ValueError: it is no picture.

    Example:
        >>> embed_picture(np.zeros((4, 4, 3), dtype=np.uint8))[:22]
        'data:image/png;base64,'
    """
    import cv2

    check_picture(image)
    if max(image.shape[:2]) > max_side:
        image = fit_picture(image, max_side, max_side)
    sample = image[:: max(1, image.shape[0] // 64), :: max(1, image.shape[1] // 64)].reshape(-1, 3)
    flat = len(np.unique(sample, axis=0)) < _FLAT_COLORS
    # Colour at full resolution: thin coloured lines would smear otherwise.
    sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    kind, options = ("png", []) if flat else ("jpeg", [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY, *sampling])
    written, data = cv2.imencode(f".{kind}", np.ascontiguousarray(image[..., ::-1]), options)
    if not written:
        raise ValueError(f"image: OpenCV could not encode {image.shape} pixels as {kind}")
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode('ascii')}"


def explain_pose(pose: PoseEstimate, scores: Mapping[str, float] | None = None) -> str:
    """Say in one or two sentences why a pose is believed, or why there is none.

    Args:
        pose: an estimate.
        scores: how well each part of the verification went, in [0, 1].

    Returns:
        Plain text.

    Example:
        >>> explain_pose(PoseEstimate.failure("3 matches, at least 4 are needed"))
        'Not found: 3 matches, at least 4 are needed.'
    """
    if not pose.valid:
        return f"Not found: {(pose.reason or 'no reason given').rstrip('.')}."
    sentences = []
    if pose.inliers is not None:
        agreed = f"{pose.num_inliers} of {len(pose.inliers)} matches agree on this pose"
        error = f", half of them within {pose.residual_px:.2f} px" if math.isfinite(pose.residual_px) else ""
        sentences.append(f"{agreed}{error}.")
    finite = {part: score for part, score in (scores or {}).items() if math.isfinite(score)}
    if len(finite) > 1:
        weakest = min(finite, key=finite.__getitem__)
        sentences.append(f"The weakest part of its verification is {weakest} ({finite[weakest]:.2f}).")
    if pose.reason:
        sentences.append(f"Doubtful: {pose.reason.rstrip('.')}.")
    return " ".join(sentences) or "Nothing is recorded about how this pose was found."


def _overview(overview: np.ndarray | None, rows: Sequence[PoseRow], facts: Mapping[str, str]) -> str:
    parts = [_figure(overview, "All poses in the whole picture")]
    if rows:
        parts.append(f'<h3>Poses</h3><div class="scroll">{pose_table(rows).html()}</div>')
    if facts:
        parts.append(f"<h3>About this run</h3>{_definitions(facts)}")
    content = "".join(parts)
    return f'<section class="card">{content}</section>' if content else ""


def _item(item: ReportItem, anchor: str) -> str:
    pose = item.pose
    badge = f"found, score {pose.score:.2f}" if pose.valid else "not found"
    pictures = (
        _figure(item.overlay, f"{item.name}: the pose in the picture")
        + _figure(item.matches, "Matched points, template left, picture right")
        + _figure(item.template, "The template that matched")
    )
    words = f"<h3>Pose</h3>{_definitions(describe_pose(pose))}" + _scores(item.scores)
    if item.notes:
        words += "<h3>Notes</h3><ul>" + "".join(f"<li>{_text(note)}</li>" for note in item.notes) + "</ul>"
    if item.timings:
        words += f"<h3>Time</h3>{timing_table(list(item.timings.items())).html()}"
    words += _alternatives(item)
    body = f'<div class="columns"><div>{pictures}</div><div>{words}</div></div>' if pictures else words
    state = "card" if pose.valid else "card lost"
    head = f'<h2>{_text(item.name)} <span class="badge">{badge}</span></h2>'
    why = f"<p>{_text(explain_pose(pose, item.scores))}</p>"
    return f'<section class="{state}" id="{anchor}">{head}{why}{body}</section>'


def _scores(scores: Mapping[str, float]) -> str:
    if not scores:
        return ""
    bars = "".join(
        f'<div class="score"><span>{_text(part)}</span><span class="track">'
        f'<span class="fill" style="width:{_percent(score):.0f}%"></span></span>'
        f'<span class="number">{_text(f"{score:.2f}" if math.isfinite(score) else "unknown")}</span></div>'
        for part, score in scores.items()
    )
    return f"<h3>Verification</h3>{bars}"


def _alternatives(item: ReportItem) -> str:
    if not item.alternatives:
        return ""
    rows = []
    for number, other in enumerate(item.alternatives, start=1):
        turned = moved = ""
        if other.valid and item.pose.valid:
            turned = format_angle(float(geodesic_distance(other.R.double(), item.pose.R.double())))
            moved = format_length(float((other.t - item.pose.t).norm()))
        rows.append((str(number), f"{other.score:.2f}", turned, moved, other.reason))
    header = ("", "score", "turned by", "moved by", "remark")
    table = Table(header, tuple(rows), (True, True, True, True, False))
    return f"<details open><summary>Other poses considered</summary>{table.html()}</details>"


def _gallery(pictures: Mapping[str, np.ndarray]) -> str:
    figures = "".join(_figure(picture, caption) for caption, picture in pictures.items())
    return f'<section class="card">{figures}</section>' if figures else ""


def _figure(image: np.ndarray | None, caption: str) -> str:
    if image is None:
        return ""
    height, width = check_picture(image, caption).shape[:2]
    text = _text(caption)
    return (
        f'<figure><img src="{embed_picture(image)}" width="{width}" height="{height}" alt="{text}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def _definitions(facts: Mapping[str, str]) -> str:
    return "<dl>" + "".join(f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>" for k, v in facts.items()) + "</dl>"


def _percent(score: float) -> float:
    return 100 * min(max(score, 0.0), 1.0) if math.isfinite(score) else 0.0


def _text(value: str) -> str:
    return html.escape(str(value), quote=True)
