"""Why a pose is believed: the template beside the picture, with the points that matched joined by lines."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from torch import Tensor

from sightline.geometry.cameras import Camera
from sightline.geometry.poses import transform
from sightline.records import Correspondences, PoseEstimate
from sightline.vis.canvas import (
    Picture,
    as_array,
    as_points,
    check_fits_camera,
    check_picture,
    fit_picture,
    text_px,
)
from sightline.vis.labels import Box, label_size, paint_label
from sightline.vis.palette import GREY, PLATE, ramp_colors
from sightline.vis.strokes import paint_dot, paint_polylines

_OUTLIER_ALPHA = 0.35
_MAX_OUTLIER_SHARE = 0.25  # of the lines that are drawn
_MIN_HEIGHT, _MAX_HEIGHT = 320, 720  # of the two pictures side by side, pixels


def draw_matches(
    template: np.ndarray,
    crop: np.ndarray,
    template_points: np.ndarray | Tensor,
    crop_points: np.ndarray | Tensor,
    *,
    inliers: np.ndarray | Tensor | None = None,
    residuals_px: np.ndarray | Tensor | None = None,
    worst_px: float = 3.0,
    max_lines: int = 60,
) -> Picture:
    """Draw a template beside a crop of the picture and join the points that matched.

    Inliers are coloured by their residual, from blue over yellow to red, and outliers are faint and grey. Of
    many matches a subset is joined that is spread evenly over the object; every inlier has its dot.

    Args:
        template: ``(h, w, 3)`` uint8 RGB.
        crop: ``(h, w, 3)`` uint8 RGB.
        template_points: ``(m, 2)`` pixels in the template; a match with a NaN is left out.
        crop_points: ``(m, 2)`` pixels in the crop.
        inliers: ``(m,)`` bool, by default all.
        residuals_px: ``(m,)`` reprojection errors, by default unknown (grey).
        worst_px: the residual of the last colour.
        max_lines: how many matches are joined at most.

    Returns:
        A new picture: template left, crop right, both of one height, and a line of figures below.

    Raises:
        ValueError: pictures or points that do not fit, or unequal lengths.

    Example:
        >>> grey = np.full((50, 40, 3), 90, dtype=np.uint8)
        >>> points = np.array([[10.0, 10.0], [30.0, 40.0]])
        >>> draw_matches(grey, grey, points, points).shape[2]
        3
    """
    check_picture(template, "template")
    check_picture(crop, "crop")
    left, right = as_points(template_points, "template_points"), as_points(crop_points, "crop_points")
    count = len(left)
    inlier = np.ones(count, dtype=bool) if inliers is None else as_array(inliers)
    residual = np.full(count, np.nan) if residuals_px is None else as_array(residuals_px).astype(np.float64)
    if not len(right) == len(inlier) == len(residual) == count:
        lengths = f"{count}, {len(right)}, {len(inlier)} and {len(residual)}"
        raise ValueError(f"matches: expected points, inliers and residuals of one length, got {lengths}")
    figures = _figures(inlier, residual, judged=inliers is not None)
    known = np.isfinite(left).all(axis=1) & np.isfinite(right).all(axis=1)
    left, right, inlier, residual = left[known], right[known], inlier[known], residual[known]

    height = min(max(template.shape[0], crop.shape[0], _MIN_HEIGHT), _MAX_HEIGHT)
    pane_left, pane_right = _Pane.fit(template, height), _Pane.fit(crop, height)
    shift = pane_left.picture.shape[1] + max(8, height // 20)
    canvas = np.full((height, shift + pane_right.picture.shape[1], 3), PLATE, dtype=np.uint8)
    for pane, x0 in ((pane_left, 0), (pane_right, shift)):
        rows, columns = pane.picture.shape[:2]
        canvas[:rows, x0 : x0 + columns] = pane.picture
    lines = np.stack([pane_left.place(left), pane_right.place(right) + np.array([shift, 0])], axis=1)
    faint = spread_subset(right, ~inlier, round(max_lines * _MAX_OUTLIER_SHARE))
    _paint_outliers(canvas, lines[faint])
    _paint_inliers(canvas, lines, inlier, spread_subset(right, inlier, max_lines), residual, worst_px)
    return np.concatenate(
        [canvas, _legend(canvas, figures, worst_px if np.isfinite(residual).any() else None)]
    )


def explain_matches(
    image: np.ndarray,
    camera: Camera,
    pose: PoseEstimate,
    correspondences: Correspondences,
    template: np.ndarray,
    *,
    template_index: int | None = None,
    worst_px: float = 3.0,
    max_lines: int = 60,
) -> Picture:
    """Draw the matches of one template that a pose rests on, with the part of the picture they lie in.

    Args:
        image: ``(h, w, 3)`` uint8 RGB, as the camera delivered it.
        camera: the camera that took it.
        pose: solved from these correspondences; an invalid one shows all matches, without residuals.
        correspondences: with template points; only those of the template are drawn.
        template: ``(h, w, 3)`` uint8 RGB, the template's picture.
        template_index: which template that is, by default :func:`most_used_template`.
        worst_px: the residual of the last colour.
        max_lines: how many matches are joined at most.

    Returns:
        A new picture, see :func:`draw_matches`.

    Raises:
        ValueError: sizes that do not fit, or inliers of another number than the correspondences.

    Example:
        >>> import torch
        >>> points = torch.tensor([[10.0, 10.0], [60.0, 50.0]])
        >>> matches = Correspondences.build(points, torch.zeros(2, 3), template_points=points / 2)
        >>> image, camera = np.zeros((80, 100, 3), dtype=np.uint8), Camera.from_focal(90.0, 100, 80)
        >>> explain_matches(image, camera, PoseEstimate.failure("2 matches"), matches, image[:40, :50]).ndim
        3
    """
    check_fits_camera(check_picture(image), camera)
    inliers = _inliers_of(pose, len(correspondences))
    index = most_used_template(correspondences, inliers) if template_index is None else template_index
    chosen = correspondences.template == index
    here, residuals = correspondences.select(chosen), None
    if pose.valid:
        points_cam = transform(pose.cam_from_obj, here.points_3d)
        residuals = (camera.project(points_cam) - here.points_2d).norm(dim=1).numpy(force=True)
    inlier = None if inliers is None else inliers[as_array(chosen)]
    points = as_array(here.points_2d)
    window = _window(points if inlier is None or not inlier.any() else points[inlier], image)
    return draw_matches(
        template,
        np.ascontiguousarray(image[window.y0 : window.y1, window.x0 : window.x1]),
        here.template_points,
        points - [window.x0, window.y0],
        inliers=inlier,
        residuals_px=residuals,
        worst_px=worst_px,
        max_lines=max_lines,
    )


def most_used_template(correspondences: Correspondences, inliers: np.ndarray | Tensor | None = None) -> int:
    """The template of a card that most of the matches came from.

    Args:
        correspondences: with the index of the template of each match.
        inliers: ``(m,)`` bool, by default all.

    Returns:
        Its index, the lowest of several; -1 where no match knows its template.

    Example:
        >>> import torch
        >>> template = torch.tensor([4, 7, 7, -1, -1, -1])
        >>> most_used_template(Correspondences.build(torch.zeros(6, 2), torch.zeros(6, 3), template=template))
        7
    """
    template = as_array(correspondences.template)
    chosen = template >= 0
    if inliers is not None and (chosen & as_array(inliers)).any():
        chosen &= as_array(inliers)
    return int(np.bincount(template[chosen]).argmax()) if chosen.any() else -1


def spread_subset(points: np.ndarray, among: np.ndarray, count: int) -> np.ndarray:
    """Choose points that are spread evenly: the first, then always the one farthest from all chosen.

    Farthest-point sampling, Gonzalez 1985; the first is the one nearest to the mean.

    Args:
        points: ``(m, 2)`` finite pixels.
        among: ``(m,)`` bool, those that may be chosen.
        count: how many at most.

    Returns:
        Indices into ``points``, in the order of their choice.

    Example:
        >>> line = np.array([[0.0, 0], [1, 0], [2, 0], [3, 0], [4, 0]])
        >>> spread_subset(line, np.ones(5, dtype=bool), 3).tolist()
        [2, 0, 4]
    """
    candidates = np.flatnonzero(among)
    if len(candidates) <= count:
        return candidates
    places = points[candidates]
    chosen = [int(np.linalg.norm(places - places.mean(axis=0), axis=1).argmin())][:count]
    gap = np.full(len(places), math.inf)
    while len(chosen) < count:
        gap = np.minimum(gap, np.linalg.norm(places - places[chosen[-1]], axis=1))
        chosen.append(int(gap.argmax()))
    return candidates[chosen]


def _inliers_of(pose: PoseEstimate, count: int) -> np.ndarray | None:
    if pose.inliers is not None and len(pose.inliers) != count:
        raise ValueError(
            f"inliers: expected one for each of {count} correspondences, got {len(pose.inliers)}"
        )
    return None if pose.inliers is None else as_array(pose.inliers)


def _window(points: np.ndarray, image: np.ndarray) -> Box:
    """The part of the picture around points, a quarter larger on each side."""
    height, width = image.shape[:2]
    if len(points) == 0:
        return Box(0, 0, width, height)
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 16 + 0.25 * (high - low)
    window = Box.around(np.stack([low - margin, high + margin])).clipped(image)
    return window if window.x1 > window.x0 and window.y1 > window.y0 else Box(0, 0, width, height)


class _Pane(NamedTuple):
    """A picture scaled for display, and how its pixels moved."""

    picture: Picture
    factor: np.ndarray

    @classmethod
    def fit(cls, picture: np.ndarray, height: int) -> _Pane:
        scaled = fit_picture(picture, 4 * height, height)
        return cls(scaled, np.array([scaled.shape[1] / picture.shape[1], scaled.shape[0] / picture.shape[0]]))

    def place(self, points: np.ndarray) -> np.ndarray:
        return (points + 0.5) * self.factor - 0.5  # pixel centres are whole numbers on both sides


def _paint_outliers(canvas: Picture, lines: np.ndarray) -> None:
    import cv2

    faint = canvas.copy()
    for line in lines:
        paint_polylines(faint, [line], GREY, 1, halo=False)
        for end in line:
            paint_dot(faint, end, GREY, 1.5, halo=False)
    cv2.addWeighted(faint, _OUTLIER_ALPHA, canvas, 1 - _OUTLIER_ALPHA, 0.0, dst=canvas)


def _paint_inliers(
    canvas: Picture,
    lines: np.ndarray,
    inlier: np.ndarray,
    joined: np.ndarray,
    residual: np.ndarray,
    worst_px: float,
) -> None:
    colors = [(int(r), int(g), int(b)) for r, g, b in ramp_colors(residual, 0.0, worst_px)]
    for index in joined:
        paint_polylines(canvas, [lines[index]], colors[index], 1, halo=False)
    for index in np.flatnonzero(inlier):
        for end in lines[index]:
            paint_dot(canvas, end, colors[index], 2.0)


def _figures(inlier: np.ndarray, residual: np.ndarray, *, judged: bool) -> str:
    errors = residual[inlier & np.isfinite(residual)]
    text = f"{int(inlier.sum())} of {len(inlier)} matches are inliers" if judged else f"{len(inlier)} matches"
    return f"{text}, median error {np.median(errors):.2f} px" if len(errors) else text


def _legend(canvas: Picture, figures: str, worst_px: float | None) -> Picture:
    """A strip for below the picture: the figures, and what the colours mean where there are residuals."""
    letters, width = text_px(canvas), canvas.shape[1]
    strip = np.full((round(2.4 * letters), width, 3), PLATE, dtype=np.uint8)
    text = paint_label(strip, figures, Box(0, 0, 1, 0), PLATE, letter_px=letters)
    if worst_px is None or text is None:
        return strip
    worst, bar = f"{worst_px:g} px or more", round(8 * letters)
    label_width, _ = label_size(worst, width, letters)
    zero_width, _ = label_size("0", width, letters)
    x1 = width - label_width
    if x1 - bar - zero_width <= text.x1:
        return strip
    paint_label(strip, worst, Box(x1, 0, width, 0), PLATE, letter_px=letters)
    paint_label(strip, "0", Box(x1 - bar - zero_width, 0, x1 - bar, 0), PLATE, letter_px=letters)
    top, bottom = round(0.8 * letters), round(1.6 * letters)
    strip[top:bottom, x1 - bar : x1] = ramp_colors(np.arange(bar), 0.0, bar - 1.0)
    return strip
