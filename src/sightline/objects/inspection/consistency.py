"""How well mesh, pose, camera, mask, box and depth agree: the object is drawn and laid over what was given.

An occluder hides a part of the silhouette: where the depth picture shows something nearer than the object, no
mask is expected, and without depth a mask may cover no more than a part of the silhouette.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from numpy.typing import NDArray
from torch import Tensor

from sightline.geometry.boxes import area, boxes_from_masks, iou
from sightline.geometry.depth import pixel_grid
from sightline.geometry.distortion import distort_pixels, undistort_pixels
from sightline.geometry.intrinsics import resize_intrinsics
from sightline.objects.inspection.inputs import Inputs
from sightline.records import TriangleMesh
from sightline.rendering import PreparedMesh, render_views

_LONGEST_PX = 320  # of the picture in which hypotheses are drawn ...
_OBJECT_PX = 72  # ... larger where the object would be smaller than this
_FEW_PX = 12  # measured pixels below which depth says nothing
_TOLERANCE_OF_DIAMETER = 0.08
_TOLERANCE_OF_DISTANCE = (0.008, 0.02)
_VISIBLE_WITHOUT_DEPTH, _VISIBLE_WITH_DEPTH = 0.5, 0.8  # of the silhouette that a whole mask must cover
_BOX_INSIDE, _BOX_VISIBLE = 0.92, 0.3  # of a box that may be that of a visible part, and of the whole
_PART = 0.66  # agreement of such a box
_UNHIDDEN = 0.35  # of the silhouette's depths that must not be nearer than the object

Mask = Bool[np.ndarray, "h w"]


@dataclass(frozen=True)
class Agreement:
    """How the drawn object and what was observed agree; None where there is nothing to compare.

    Args:
        mask_iou: of the mask with the part of the silhouette that depth does not show to be hidden.
        mask_fit: 1 where the mask lies inside the silhouette and covers what a visible object must.
        box_iou: of the box with the nearest of the silhouette's boxes (whole, in the picture, visible).
        box_fit: the same, where the box of a part that may be all that is visible passes too.
        depth_share: of the measured pixels on the object whose depth agrees.
        depth_fit: the same, forgiving what may be an occluder.
        depth_error: median difference of measured and drawn depth, metres.
        depth_ratio: median ratio of measured to drawn depth.

    Example:
        >>> Agreement(mask_iou=0.97, mask_fit=1.0).describe()
        'mask IoU 0.97'
    """

    mask_iou: float | None = None
    mask_fit: float | None = None
    box_iou: float | None = None
    box_fit: float | None = None
    depth_share: float | None = None
    depth_fit: float | None = None
    depth_error: float | None = None
    depth_ratio: float | None = None

    @property
    def fits(self) -> dict[str, float]:
        """How well each of mask, box and depth agrees, 0 to 1, forgiving what an occluder explains."""
        pairs = {"mask": self.mask_fit, "box": self.box_fit, "depth": self.depth_fit}
        return {name: value for name, value in pairs.items() if value is not None}

    @property
    def closeness(self) -> float:
        """Their mean, forgiving nothing: for ranking hypotheses."""
        values = [v for v in (self.mask_iou, self.box_iou, self.depth_share) if v is not None]
        return float(np.mean(values)) if values else 0.0

    def numbers(self) -> dict[str, float]:
        """The figures that are there, by name."""
        names = ("mask_iou", "box_iou", "depth_share", "depth_error", "depth_ratio")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def describe(self, *, depth: bool = True) -> str:
        """The figures in words."""
        parts = []
        if self.mask_iou is not None:
            parts.append(f"mask IoU {self.mask_iou:.2f}")
        if self.box_iou is not None:
            parts.append(f"box IoU {self.box_iou:.2f}")
        if self.depth_error is not None and depth:
            parts.append(f"depth off by {length_in_words(self.depth_error)}")
        return ", ".join(parts) or "nothing to compare"


def length_in_words(metres: float) -> str:
    """A length with a unit that suits it.

    Example:
        >>> length_in_words(0.0021), length_in_words(0.8), length_in_words(799.2)
        ('2.1 mm', '0.8 m', '799 m')
    """
    return f"{1000 * metres:.2g} mm" if abs(metres) < 0.1 else f"{metres:.3g} m"


class Views:
    """Draws one object under many hypotheses and compares it with what was observed; drawings are kept.

    Args:
        inputs: with a mesh and a picture size; they set how finely is drawn.
    """

    def __init__(self, inputs: Inputs) -> None:
        assert inputs.mesh is not None and inputs.image_size is not None
        self._mesh = PreparedMesh(TriangleMesh(inputs.mesh.vertices, inputs.mesh.faces))
        self.image_size = inputs.image_size
        width, height = inputs.image_size
        factor = min(1.0, max(_LONGEST_PX / max(width, height), _OBJECT_PX / _object_px(inputs)))
        self.size = (max(1, round(width * factor)), max(1, round(height * factor)))
        self._drawn: dict[bytes, Float32[np.ndarray, "h w"]] = {}

    def draw(self, inputs: Inputs) -> Float32[np.ndarray, "h w"]:
        """The object's depth at the working size, metres, 0 where it is not."""
        assert inputs.K is not None and inputs.cam_from_obj is not None
        pose = inputs.cam_from_obj.clone()
        pose[:3, 3] /= inputs.mesh_scale  # a mesh s times as large looks like one at 1/s of the distance
        key = pose.numpy().tobytes() + inputs.K.numpy().tobytes()
        if key not in self._drawn:
            K = resize_intrinsics(inputs.K, self.image_size, self.size)
            drawn = render_views(self._mesh, pose[None], K, self.size, outputs=("depth",))
            self._drawn[key] = drawn.depth[0].numpy()
        return self._drawn[key] * np.float32(inputs.mesh_scale)

    def draw_whole(self, inputs: Inputs) -> Mask:
        """The silhouette at the picture's own size, as the lens bends it."""
        assert inputs.K is not None and inputs.cam_from_obj is not None
        pose = inputs.cam_from_obj.clone()
        pose[:3, 3] /= inputs.mesh_scale
        drawn = render_views(self._mesh, pose[None], inputs.K, self.image_size, outputs=("mask",))
        mask = drawn.mask[0].numpy()
        if inputs.distortion is None:
            return mask
        ideal = undistort_pixels(pixel_grid(*self.image_size), inputs.K, inputs.distortion).xy
        return _take(mask, ideal.nan_to_num(-9.0).round().long().numpy())

    def compare(self, inputs: Inputs) -> Agreement:
        """How a hypothesis and what was observed agree.

        Args:
            inputs: the hypothesis; it must be able to render.
        """
        assert inputs.size_m is not None
        scene = _Scene(self.draw(inputs), self, inputs)
        agreement = _compare_depth(scene, inputs.size_m)
        mask_iou = mask_fit = None
        if scene.mask is not None:
            mask_iou, mask_fit = _compare_masks(scene)
        agreement = replace(agreement, mask_iou=mask_iou, mask_fit=mask_fit)
        if inputs.box is None:
            return agreement
        box_iou, box_fit = _compare_boxes(scene, inputs, trust_mask=mask_fit is not None and mask_fit > 0.8)
        return replace(agreement, box_iou=box_iou, box_fit=box_fit)

    def reduce(self, inputs: Inputs) -> Inputs:
        """The same with mask and depth at the working size, where no lens bends them.

        Each hypothesis is then compared without touching all pixels again.
        """
        if inputs.distortion is not None:
            return inputs
        depth, mask = (
            None if picture is None else torch.from_numpy(self.sample(picture, inputs))
            for picture in (inputs.depth, inputs.mask)
        )
        return replace(inputs, depth=depth, mask=mask)

    def sample(self, picture: Tensor, inputs: Inputs) -> NDArray:
        """A mask or depth picture at the working size, as an ideal lens would have seen it."""
        values = picture.numpy()
        height, width = values.shape
        if inputs.distortion is None or inputs.K is None:
            if (width, height) == self.size:
                return values
            across, down = (
                np.clip(np.rint((np.arange(n) + 0.5) * side / n - 0.5).astype(int), 0, side - 1)
                for n, side in zip(self.size, (width, height), strict=True)
            )
            return values[down[:, None], across[None, :]]
        ideal = (pixel_grid(*self.size) + 0.5) * torch.tensor([width, height]) / torch.tensor(self.size) - 0.5
        return _take(values, distort_pixels(ideal, inputs.K, inputs.distortion).round().long().numpy())


class _Scene:
    """One drawing beside what was observed, at the working size."""

    def __init__(self, drawn: Float32[np.ndarray, "h w"], views: Views, inputs: Inputs) -> None:
        self.drawn, self.views = drawn, views
        self.silhouette: Mask = drawn > 0
        self.mask: Mask | None = None if inputs.mask is None else views.sample(inputs.mask, inputs)
        self.measured: Float32[np.ndarray, "h w"] | None = None
        if inputs.depth is not None:
            depth = views.sample(inputs.depth, inputs)
            self.measured = np.where(np.isfinite(depth), depth, 0.0)
        low, high = _TOLERANCE_OF_DISTANCE
        size = _TOLERANCE_OF_DIAMETER * (inputs.size_m or 0.0)
        self.tolerance = np.clip(size, low * drawn, high * drawn)

    @cached_property
    def visible(self) -> Mask:
        """The silhouette without what depth shows to be hidden."""
        if self.measured is None:
            return self.silhouette
        hidden = (self.measured > 0) & (self.measured < self.drawn - self.tolerance)
        return self.silhouette & ~hidden


def _compare_masks(scene: _Scene) -> tuple[float, float]:
    mask, whole, visible = scene.mask, scene.silhouette, scene.visible
    assert mask is not None
    union = float((mask | visible).sum())
    overlap = float((mask & whole).sum())
    if not mask.any() or not visible.any():
        return overlap / max(union, 1.0), 0.0
    inside = float((mask & _grown(whole)).sum()) / float(mask.sum())
    covered = float((visible & _grown(mask)).sum()) / float(visible.sum())
    expected = _VISIBLE_WITHOUT_DEPTH if scene.measured is None else _VISIBLE_WITH_DEPTH
    return overlap / union, inside * min(1.0, covered / expected)


def _compare_boxes(scene: _Scene, inputs: Inputs, *, trust_mask: bool) -> tuple[float, float]:
    assert inputs.box is not None and inputs.image_size is not None
    masks = [scene.silhouette, scene.visible]
    if trust_mask and scene.mask is not None:
        masks.append(scene.mask)
    boxes = torch.tensor([_box_of(mask) for mask in masks], dtype=torch.float64)
    factor = torch.tensor(inputs.image_size).double() / torch.tensor(scene.views.size)
    candidates = (boxes + 0.5) * factor.repeat(2) - 0.5
    if _touches_border(scene.silhouette):
        candidates = torch.cat([candidates, _whole_box(inputs)[None]])
    nearest = float(iou(candidates, inputs.box[None]).nan_to_num(0.0).max())
    overlap = torch.minimum(candidates[0, 2:], inputs.box[2:]) - torch.maximum(
        candidates[0, :2], inputs.box[:2]
    )
    inner, own = float(overlap.clamp(min=0).nan_to_num(0.0).prod()), float(area(inputs.box))
    is_part = inner >= _BOX_INSIDE * own and own >= _BOX_VISIBLE * float(area(candidates[0]))
    return nearest, max(nearest, _PART) if is_part else nearest


def _box_of(mask: Mask) -> list[float]:
    """``boxes_from_masks`` of one mask, whose reductions of bool tensors are ten times slower."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if len(columns) == 0:
        return [np.nan] * 4
    return [columns[0] - 0.5, rows[0] - 0.5, columns[-1] + 0.5, rows[-1] + 0.5]


def _whole_box(inputs: Inputs) -> Float[Tensor, "4"]:
    """The box of the whole silhouette, also outside the picture; NaN where a vertex is behind the camera."""
    assert inputs.mesh is not None and inputs.cam_from_obj is not None and inputs.K is not None
    R, t = inputs.cam_from_obj[:3, :3], inputs.cam_from_obj[:3, 3]
    points = inputs.mesh.vertices.double() * inputs.mesh_scale @ R.mT + t
    if float(points[:, 2].min()) <= 0:
        return torch.full((4,), torch.nan, dtype=torch.float64)
    px = (points @ inputs.K.mT)[:, :2] / points[:, 2:]
    return torch.cat([px.amin(0), px.amax(0)])


def _compare_depth(scene: _Scene, size_m: float) -> Agreement:
    if scene.measured is None:
        return Agreement()
    if not scene.silhouette.any():
        return Agreement(depth_share=0.0, depth_fit=0.0)
    area = scene.silhouette if scene.mask is None else scene.silhouette & scene.mask
    inner = _shrunk(area)  # at the border, depth and colour cameras disagree by a pixel
    area = (inner if inner.sum() >= _FEW_PX else area) & (scene.measured > 0)
    if area.sum() < _FEW_PX:
        return Agreement()
    measured, drawn, tolerance = scene.measured[area], scene.drawn[area], scene.tolerance[area]
    agreeing = float((np.abs(measured - drawn) <= tolerance).mean())
    unhidden = float((measured >= drawn - tolerance).mean())
    fit = agreeing / max(unhidden, 1e-9) * min(1.0, unhidden / _UNHIDDEN)
    return Agreement(
        depth_share=agreeing,
        depth_fit=fit,
        depth_error=float(np.median(np.abs(measured - drawn))),
        depth_ratio=float(np.median(measured / drawn)),
    )


def _take(picture: NDArray, px: NDArray[np.int64]) -> NDArray:
    """The values at pixels; 0 for those outside the picture."""
    size = picture.shape[::-1]
    inside = ((px >= 0) & (px < size)).all(-1)
    x, y = (np.clip(px[..., i], 0, side - 1) for i, side in enumerate(size))
    return np.where(inside, picture[y, x], picture.dtype.type(0))


def _object_px(inputs: Inputs) -> float:
    """The longer side of the object as mask or box tell it; large where neither does."""
    box = inputs.box
    if inputs.mask is not None and bool(inputs.mask.any()):
        box = boxes_from_masks(inputs.mask)
    if box is None or not bool((box[2:] > box[:2]).all()):
        return float(_LONGEST_PX)
    return max(1.0, float((box[2:] - box[:2]).max()))


def _grown(mask: Mask) -> Mask:
    return cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0


def _shrunk(mask: Mask) -> Mask:
    return cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0) > 0


def _touches_border(mask: Mask) -> bool:
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())
