"""Labels from depth: where every pixel of the query lies in each template, or why it is not to be seen.

The query's pixels are lifted with their depth, moved to the template's camera and projected there, once a
template. A pixel of the object has no target for one of three reasons: something else is in front of it
there (occlusion, a two-sided test of depth), it falls outside the picture (out of bounds), or too few pixels
of its patch are left (low visibility). Whether a template counts as positive or negative plays no part: a
negative that still shows a piece of the same surface is labelled as showing it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sightline.geometry.depth import is_measured, sample_depth
from sightline.geometry.flow import patch_centers, patch_index, pixels_to_flow, reproject, split_patches
from sightline.geometry.poses import relative

BACKGROUND = -1


class FlowLabels(NamedTuple):
    """What the matcher and the flow head should say about each query patch and each of its pixels.

    Args:
        labels: ``(b, S, Nq)`` int64: -1 background (fewer than ``min_visible_pixels`` of the object), the
            template patch that shows most of the query patch, or ``Nt`` where the template does not show it.
        flow: ``(b, S, Nq, p, p, 2)`` patch units, x then y: where each pixel lies in the template, from the
            centre of the labelled template patch; 0 where not ``visible``.
        visible: ``(b, S, Nq, p, p)`` bool, which pixels have such a target.
        unseen_mask: ``(b, S, Nq, p, p)`` bool, the object's pixels that have none.
    """

    labels: Int[Tensor, "b s q"]
    flow: Float[Tensor, "b s q p p 2"]
    visible: Bool[Tensor, "b s q p p"]
    unseen_mask: Bool[Tensor, "b s q p p"]


class View(NamedTuple):
    """Pictures of an object as geometry; the axes before ``h w`` or the matrix are the same in all four.

    Args:
        depth: ``(*batch, h, w)`` metres, 0 where unknown.
        mask: ``(*batch, h, w)`` bool, the object's visible pixels.
        K: ``(*batch, 3, 3)`` pixels.
        cam_from_obj: ``(*batch, 4, 4)`` metres.
    """

    depth: Float[Tensor, "*batch h w"]
    mask: Bool[Tensor, "*batch h w"]
    K: Float[Tensor, "*batch 3 3"]
    cam_from_obj: Float[Tensor, "*batch 4 4"]


class PixelTargets(NamedTuple):
    """Where each pixel of the query lies in each template, and which are not seen there and why.

    Args:
        px: ``(b, S, Nq, p, p, 2)`` pixels of the template, NaN where they are not known.
        on_object: ``(b, S, Nq, p, p)`` bool, the query shows the object there and its depth is known.
        out_of_bounds: likewise, outside the template's picture or behind its camera.
        occluded: likewise, the template shows something else there: another surface or none.
        grid: ``(columns, rows)`` of the templates' patches.
    """

    px: Float[Tensor, "b s q p p 2"]
    on_object: Bool[Tensor, "b s q p p"]
    out_of_bounds: Bool[Tensor, "b s q p p"]
    occluded: Bool[Tensor, "b s q p p"]
    grid: tuple[int, int]

    @property
    def seen(self) -> Bool[Tensor, "b s q p p"]:
        """The object's pixels that the template shows."""
        return self.on_object & ~self.out_of_bounds & ~self.occluded


class AllPairsFlow(NamedTuple):
    """Flow of each query patch to *every* template patch; large, and made for comparison only.

    Args:
        flow: ``(b, S, Nq, Nt, p, p, 2)`` patch units, x then y, from the centre of each template patch; 0
            where unseen.
        confidence: ``(b, S, Nq, Nt, p, p)``: 1 where the target lies in the template patch, falling as
            ``exp(-d)`` with its distance d from that patch in patches, 0 where unseen.
        unseen_mask: ``(b, S, Nq, Nt, p, p)`` bool: no target, one farther than ``max_flow`` patches, or fewer
            than ``min_visible_pixels`` others in this pair.
    """

    flow: Float[Tensor, "b s q t p p 2"]
    confidence: Float[Tensor, "b s q t p p"]
    unseen_mask: Bool[Tensor, "b s q t p p"]


class FlowComputer:
    """Makes :class:`FlowLabels` from depth, masks, cameras and poses.

    Args:
        patch_size: p, pixels.
        tolerance_rel: by how much the depth of a point and that of the template at its place may differ, in
            either direction, as a share of the object's diameter.
        tolerance_m: the same in metres, for the noise of measured depth; the larger of the two holds.
        min_visible_pixels: how many pixels a patch must show to be matched.
        max_flow: pixels farther than this from the centre of the labelled template patch, in patches along x
            or y, are no targets; they belong to another surface than most of their patch.

    Raises:
        ValueError: an option out of its range.

    Example:
        >>> depth = torch.full((1, 8, 8), 1.0)
        >>> K = torch.tensor([[[8.0, 0, 3.5], [0, 8, 3.5], [0, 0, 1]]])
        >>> pose, mask, diameter = torch.eye(4)[None], depth > 0, torch.ones(1)
        >>> template = depth[None], mask[None], K[None], pose[None]
        >>> found = FlowComputer(patch_size=4)(depth, mask, K, pose, *template, diameter)
        >>> found.labels.tolist(), found.flow[0, 0, 0, 0, 0].tolist()
        ([[[0, 1, 2, 3]]], [-0.375, -0.375])
    """

    def __init__(
        self,
        patch_size: int = 16,
        *,
        tolerance_rel: float = 0.02,
        tolerance_m: float = 0.0,
        min_visible_pixels: int = 4,
        max_flow: float = 2.0,
    ) -> None:
        for name, value in (("patch_size", patch_size), ("min_visible_pixels", min_visible_pixels)):
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        if tolerance_rel < 0 or tolerance_m < 0 or max(tolerance_rel, tolerance_m) == 0:
            raise ValueError(
                "tolerance_rel, tolerance_m: expected one above 0 and none below, "
                f"got {tolerance_rel} and {tolerance_m}"
            )
        if not max_flow >= 0.5:
            raise ValueError(f"max_flow: expected at least half a patch, got {max_flow}")
        self.patch_size = patch_size
        self.tolerance_rel = tolerance_rel
        self.tolerance_m = tolerance_m
        self.min_visible_pixels = min_visible_pixels
        self.max_flow = max_flow

    def __call__(
        self,
        query_depth: Float[Tensor, "b h w"],
        query_mask: Bool[Tensor, "b h w"],
        query_K: Float[Tensor, "b 3 3"],
        query_pose: Float[Tensor, "b 4 4"],
        template_depth: Float[Tensor, "b s th tw"],
        template_mask: Bool[Tensor, "b s th tw"],
        template_K: Float[Tensor, "b s 3 3"],
        template_pose: Float[Tensor, "b s 4 4"],
        diameter: Float[Tensor, " b"],
    ) -> FlowLabels:
        """Label every patch of ``b`` queries against their S templates.

        Args:
            query_depth: ``(b, h, w)`` metres, 0 where unknown.
            query_mask: ``(b, h, w)`` bool, the object's visible pixels.
            query_K: ``(b, 3, 3)`` of the crop, pixels.
            query_pose: ``(b, 4, 4)`` cam_from_obj, metres.
            template_depth: ``(b, S, th, tw)`` metres, 0 where unknown.
            template_mask: ``(b, S, th, tw)`` bool.
            template_K: ``(b, S, 3, 3)`` pixels.
            template_pose: ``(b, S, 4, 4)`` cam_from_obj, metres.
            diameter: ``(b,)`` of the object, metres.

        Returns:
            The labels.

        Raises:
            ValueError: pictures that are no whole number of patches wide or high.
        """
        query = View(query_depth, query_mask, query_K, query_pose)
        templates = View(template_depth, template_mask, template_K, template_pose)
        return self.label(self.targets(query, templates, diameter))

    def targets(self, query: View, templates: View, diameter: Float[Tensor, " b"]) -> PixelTargets:
        """Reproject the query's pixels, once a template.

        Args:
            query: of batch ``(b,)``.
            templates: of batch ``(b, S)``.
            diameter: ``(b,)`` of the object, metres.

        Returns:
            Their places in the templates' pictures, with the reasons where they are not seen there.

        Raises:
            ValueError: pictures that are no whole number of patches wide or high.
        """
        height, width = templates.depth.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"template_depth: expected sides that {self.patch_size} px patches fill, got {width}x{height}"
            )
        between = relative(query.cam_from_obj[:, None].double(), templates.cam_from_obj.double())
        px, z = reproject(query.depth[:, None], query.K[:, None], templates.K, between)
        tolerance = (self.tolerance_rel * diameter.to(z)).clamp_min(self.tolerance_m)[:, None, None]
        surface = torch.where(templates.mask, templates.depth, 0.0)
        jump = tolerance[..., 0].expand(surface.shape[:2])
        shown = sample_depth(surface, px.flatten(-3, -2), max_jump=jump).view_as(z)
        agrees = (z - shown).abs() <= tolerance[..., None]  # False for NaN, as the next line
        x, y = px.unbind(-1)
        inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
        on_object = (query.mask & is_measured(query.depth))[:, None].expand_as(z)

        def cut(maps: Tensor) -> Tensor:
            return split_patches(maps, self.patch_size)

        return PixelTargets(
            torch.stack([cut(x), cut(y)]).movedim(0, -1),
            cut(on_object),
            cut(on_object & ~inside),
            cut(on_object & inside & ~agrees),
            (width // self.patch_size, height // self.patch_size),
        )

    def label(self, targets: PixelTargets) -> FlowLabels:
        """Choose for each query patch the template patch that shows most of it, and give its pixels' flow.

        Args:
            targets: of :meth:`targets`.

        Returns:
            The labels.
        """
        seen, num_patches = targets.seen, math.prod(targets.grid)
        patch = self._most_shown(targets)
        flow = pixels_to_flow(targets.px, self._centers(targets)[patch][..., None, None, :], self.patch_size)
        visible = seen & (flow.abs().amax(-1) <= self.max_flow)
        matched = visible.sum((-2, -1)) >= self.min_visible_pixels
        visible = visible & matched[..., None, None]
        enough = targets.on_object.sum((-2, -1)) >= self.min_visible_pixels
        labels = torch.where(enough, torch.where(matched, patch, num_patches), BACKGROUND)
        flow = torch.where(visible[..., None], flow, 0.0)
        return FlowLabels(labels, flow, visible, targets.on_object & ~visible)

    def all_pairs(self, targets: PixelTargets) -> AllPairsFlow:
        """The flow of each query patch to every template patch.

        At 224 px and 16 px patches it holds 79 MB a template, of which the labels need one part in 196.

        Args:
            targets: of :meth:`targets`.

        Returns:
            Flow, confidence and what is unseen, of all pairs.
        """
        centers = self._centers(targets)[:, None, None]
        flow = pixels_to_flow(targets.px[..., None, :, :, :], centers, self.patch_size)
        near = targets.seen[..., None, :, :] & (flow.abs().amax(-1) <= self.max_flow)
        near = near & (near.sum((-2, -1), keepdim=True) >= self.min_visible_pixels)
        beyond = torch.linalg.vector_norm((flow.abs() - 0.5).clamp_min(0), dim=-1)
        return AllPairsFlow(
            torch.where(near[..., None], flow, 0.0), torch.where(near, (-beyond).exp(), 0.0), ~near
        )

    def _centers(self, targets: PixelTargets) -> Float[Tensor, "t 2"]:
        return patch_centers(targets.grid, self.patch_size, dtype=targets.px.dtype).to(targets.px.device)

    def _most_shown(self, targets: PixelTargets) -> Int[Tensor, "b s q"]:
        """The template patch in which most seen pixels of each query patch lie; any where none is seen."""
        cell = patch_index(targets.px, targets.grid, self.patch_size).flatten(-2)
        counted = targets.seen.flatten(-2).to(torch.int32)
        counts = counted.new_zeros(*cell.shape[:-1], math.prod(targets.grid))
        return counts.scatter_add(-1, cell.clamp_min(0), counted).argmax(-1)
