"""From what the network says to pixels with points: patches matched, their pixels moved by the flow, lifted.

Two steps, with the flow head between them, since it is asked about matched pairs only: :meth:`match
<CorrespondenceBuilder.match>` names the pairs, :meth:`build <CorrespondenceBuilder.build>` turns their flow
into 2-D to 3-D correspondences of all pictures of a batch in one flat list. A place in a template is lifted
with the depth around it, of one surface alone: nothing is interpolated across a silhouette or a jump.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sightline.geometry import pixel_affine
from sightline.geometry.cameras import unproject
from sightline.geometry.depth import sample_depth_of
from sightline.geometry.flow import flow_to_pixels, offsets_in_patch, patch_centers
from sightline.geometry.poses import invert, transform
from sightline.records import Correspondences

Level = Literal["pixel", "patch"]


class PatchMatches(NamedTuple):
    """``m`` pairs of a query patch and a template patch, of all pictures and templates of a batch.

    Args:
        batch: ``(m,)`` int64, which query.
        template: ``(m,)`` int64, which of its templates.
        query_patch: ``(m,)`` int64 in 0..Nq-1.
        template_patch: ``(m,)`` int64 in 0..Nt-1.
        probability: ``(m,)`` of the match.
        template_px: ``(m, 2)`` pixels of the template: the centre of the patch, with soft matching the mean
            of it and its neighbours by their probabilities.
    """

    batch: Int[Tensor, " m"]
    template: Int[Tensor, " m"]
    query_patch: Int[Tensor, " m"]
    template_patch: Int[Tensor, " m"]
    probability: Float[Tensor, " m"]
    template_px: Float[Tensor, "m 2"]

    def select(self, keep: Tensor) -> PatchMatches:
        """Those that a mask or indices name."""
        return PatchMatches(*(each[keep] for each in self))


class TemplateSurfaces(NamedTuple):
    """What the templates show, as geometry.

    Args:
        depth: ``(b, S, h, w)`` metres, 0 where the template does not show the object.
        K: ``(b, S, 3, 3)`` pixels.
        cam_from_obj: ``(b, S, 4, 4)`` metres.
        max_jump: ``(b,)`` metres; neighbouring pixels whose depths differ by more show two surfaces. A
            fiftieth of the diameter is what the labels are made with.
    """

    depth: Float[Tensor, "b s h w"]
    K: Float[Tensor, "b s 3 3"]
    cam_from_obj: Float[Tensor, "b s 4 4"]
    max_jump: Float[Tensor, " b"]


class PaddedCorrespondences(NamedTuple):
    """Correspondences of ``b`` pictures in one block; what pads has weight 0 and lies at 0.

    Args:
        points_2d: ``(b, n, 2)`` pixels of the crop.
        points_3d: ``(b, n, 3)`` metres, object frame.
        weights: ``(b, n)``.
        valid: ``(b, n)`` bool, False where padded.
    """

    points_2d: Float[Tensor, "b n 2"]
    points_3d: Float[Tensor, "b n 3"]
    weights: Float[Tensor, "b n"]
    valid: Bool[Tensor, "b n"]


class FlatCorrespondences(NamedTuple):
    """``m`` correspondences of all pictures of a batch, those of one picture together and in order.

    Args:
        batch: ``(m,)`` int64, which picture; ascending.
        crop_px: ``(m, 2)`` pixels of the crop, in the middle of a patch or over all of it.
        points_3d: ``(m, 3)`` metres, object frame; differentiable in the flow.
        weights: ``(m,)`` probability of the match times confidence of the flow.
        template: ``(m,)`` int64, which template.
        template_px: ``(m, 2)`` pixels of that template.
        batch_size: how many pictures.
    """

    batch: Int[Tensor, " m"]
    crop_px: Float[Tensor, "m 2"]
    points_3d: Float[Tensor, "m 3"]
    weights: Float[Tensor, " m"]
    template: Int[Tensor, " m"]
    template_px: Float[Tensor, "m 2"]
    batch_size: int

    def records(
        self,
        crop_from_image: Float[Tensor, "b 2 3"] | None = None,
        template_index: Int[Tensor, "b s"] | None = None,
    ) -> list[Correspondences]:
        """One record a picture, in pixels of the whole picture, from which the crop was cut.

        Args:
            crop_from_image: ``(b, 2, 3)`` what made the crops; undone in float64. None leaves crop pixels.
            template_index: ``(b, S)`` the templates' numbers on the object's card, by default 0..S-1.

        Returns:
            ``b`` records, empty where a picture has no correspondence.
        """
        px = self.crop_px.detach().double()
        if crop_from_image is not None:
            image_from_crop = pixel_affine.invert(crop_from_image.double())[self.batch]
            px = pixel_affine.apply(image_from_crop, px[:, None])[:, 0]
        template = self.template if template_index is None else template_index[self.batch, self.template]
        fields = (px, self.points_3d.detach(), self.weights.detach(), template, self.template_px.detach())
        counts = self.batch.bincount(minlength=self.batch_size).tolist()
        parts = zip(*(each.cpu().split(counts) for each in fields), strict=True)
        return [
            Correspondences.build(points, X, weights=weights, template=which, template_points=places)
            for points, X, weights, which, places in parts
        ]

    def padded(self, max_points: int | None = None) -> PaddedCorrespondences:
        """All pictures side by side, for solvers that work on a batch.

        Args:
            max_points: keep at most this many a picture, those of the largest weights; None for all.

        Returns:
            A block as wide as the largest picture's number.
        """
        rank = _rank_in_group(self.batch, self.weights.detach())
        kept = torch.ones_like(rank, dtype=torch.bool) if max_points is None else rank < max_points
        batch, rank = self.batch[kept], rank[kept]
        width = int(rank.max()) + 1 if len(rank) else 0
        shape = (self.batch_size, width)

        def block(values: Tensor) -> Tensor:
            return values.new_zeros(*shape, *values.shape[1:]).index_put((batch, rank), values[kept])

        valid = block(torch.ones_like(self.batch, dtype=torch.bool))
        return PaddedCorrespondences(block(self.crop_px), block(self.points_3d), block(self.weights), valid)


class CorrespondenceBuilder:
    """Turns class logits and flow into correspondences.

    Args:
        patch_size: p, pixels.
        level: ``"pixel"`` gives one correspondence a pixel of the flow, ``"patch"`` one a matched patch, the
            centroid of its pixels by their confidence, here and there.
        use_soft_matching: the probability of a match is that of the best template patch and its eight
            neighbours together, since a query patch that lies across several splits its probability among
            them; without flow the place in the template is their mean.
        conf_threshold: matches that are less probable are left out.
        flow_threshold: pixels, or patches, whose flow is less confident are left out.
        top_k: at most so many matches a picture, the most probable over all its templates; None for all.

    Raises:
        ValueError: an option out of its range.

    Example:
        >>> logits = torch.full((1, 1, 4, 5), -9.0)  # four patches, and one class for what is not seen
        >>> logits[0, 0, [0, 1, 2], [3, 1, 4]] = 9.0
        >>> builder = CorrespondenceBuilder(patch_size=8, level="patch")
        >>> matches = builder.match(logits, (2, 2))
        >>> matches.query_patch.tolist(), matches.template_patch.tolist()
        ([0, 1], [3, 1])
        >>> K, pose = torch.eye(3).expand(1, 1, 3, 3), torch.eye(4).expand(1, 1, 4, 4)
        >>> surfaces = TemplateSurfaces(torch.ones(1, 1, 16, 16), K, pose, torch.tensor([0.1]))
        >>> builder.build(matches, surfaces, (2, 2)).points_3d
        tensor([[11.5000, 11.5000,  1.0000],
                [11.5000,  3.5000,  1.0000]])
    """

    def __init__(
        self,
        patch_size: int = 16,
        level: Level = "pixel",
        *,
        use_soft_matching: bool = False,
        conf_threshold: float = 0.5,
        flow_threshold: float = 0.5,
        top_k: int | None = None,
    ) -> None:
        if patch_size < 1:
            raise ValueError(f"patch_size: expected at least 1, got {patch_size}")
        if level not in ("pixel", "patch"):
            raise ValueError(f"level: expected pixel or patch, got {level!r}")
        for name, share in (("conf_threshold", conf_threshold), ("flow_threshold", flow_threshold)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name}: expected a share in [0, 1], got {share}")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k: expected at least 1 or None, got {top_k}")
        self.patch_size = patch_size
        self.level = level
        self.use_soft_matching = use_soft_matching
        self.conf_threshold = conf_threshold
        self.flow_threshold = flow_threshold
        self.top_k = top_k

    def match(
        self,
        logits: Float[Tensor, "b s q ta"],
        grid: tuple[int, int],
        *,
        query_valid: Bool[Tensor, "b q"] | None = None,
        template_valid: Bool[Tensor, "b s"] | None = None,
    ) -> PatchMatches:
        """Name the patch of each template that a query patch shows; classes beyond Nt mean unseen.

        Args:
            logits: ``(b, S, Nq, Nt + a)``.
            grid: ``(columns, rows)`` of the templates' patches, ``columns * rows = Nt``.
            query_valid: ``(b, Nq)`` bool, patches that may be matched, such as those on the object's mask.
            template_valid: ``(b, S)`` bool, False for padding.

        Returns:
            The matches, by picture, template and query patch in order.

        Raises:
            ValueError: fewer classes than the grid has patches.
        """
        num_patches = grid[0] * grid[1]
        if logits.shape[-1] < num_patches:
            raise ValueError(f"logits: expected at least {num_patches} classes, got {logits.shape[-1]}")
        probabilities = logits.float().softmax(-1)
        best = probabilities.argmax(-1)
        seen = best < num_patches
        if query_valid is not None:
            seen = seen & query_valid[:, None]
        if template_valid is not None:
            seen = seen & template_valid[..., None]
        centers = self._centers(grid, probabilities)
        batch, template, query = seen.nonzero(as_tuple=True)
        patch, rows = best[seen], probabilities[seen][:, :num_patches]
        if self.use_soft_matching:
            apart = (centers[:, None] - centers).abs().amax(-1) <= 1.5 * self.patch_size
            rows = rows * apart[patch]
            chance = rows.sum(-1)
            px = rows @ centers / chance[:, None]
        else:
            chance, px = rows.gather(-1, patch[:, None])[:, 0], centers[patch]
        chance = chance.clamp_max(1.0)
        matches = PatchMatches(batch, template, query, patch, chance, px)
        matches = matches.select(chance >= self.conf_threshold)
        if self.top_k is None:
            return matches
        return matches.select(_rank_in_group(matches.batch, matches.probability.detach()) < self.top_k)

    def matches_of_labels(self, labels: Int[Tensor, "b s q"], grid: tuple[int, int]) -> PatchMatches:
        """The matches that labels name, each of probability 1: what the flow head is trained on.

        Args:
            labels: ``(b, S, Nq)`` of :class:`sightline.vpog.flow_computer.FlowLabels`.
            grid: ``(columns, rows)`` of the templates' patches.

        Returns:
            The matches, by picture, template and query patch in order.
        """
        seen = (labels >= 0) & (labels < grid[0] * grid[1])
        batch, template, query = seen.nonzero(as_tuple=True)
        centers = patch_centers(grid, self.patch_size).to(labels.device)
        patch = labels[seen]
        return PatchMatches(batch, template, query, patch, torch.ones_like(centers[patch, 0]), centers[patch])

    def build(
        self,
        matches: PatchMatches,
        surfaces: TemplateSurfaces,
        query_grid: tuple[int, int],
        flow: Float[Tensor, "m r r 2"] | None = None,
        confidence: Float[Tensor, "m r r"] | None = None,
    ) -> FlatCorrespondences:
        """Move the matches by their flow and lift them.

        Args:
            matches: ``m`` of them.
            surfaces: of the templates that the matches name.
            query_grid: ``(columns, rows)`` of the query's patches.
            flow: ``(m, r, r, 2)`` patch units, x then y, of r x r places spread evenly over each query patch,
                from the centre of the template patch. None gives one correspondence a match: the query
                patch's centre and ``matches.template_px``.
            confidence: ``(m, r, r)`` in [0, 1]; None for 1.

        Returns:
            The correspondences whose place in the template shows the object.
        """
        grid = (surfaces.depth.shape[-1] // self.patch_size, surfaces.depth.shape[-2] // self.patch_size)
        crop_px = self._centers(query_grid, matches.template_px)[matches.query_patch][:, None]
        template_px, weights = matches.template_px[:, None], matches.probability[:, None]
        if flow is not None:
            flow = flow.to(torch.promote_types(flow.dtype, torch.float32))
            sure = flow.new_ones(flow.shape[:-1]) if confidence is None else confidence.to(flow)
            here = offsets_in_patch(flow.shape[1], dtype=flow.dtype).to(flow.device).flatten(0, 1)
            there = self._centers(grid, flow)[matches.template_patch][:, None]
            crop_px, sure = flow_to_pixels(here, crop_px.to(flow), self.patch_size), sure.flatten(1)
            template_px = flow_to_pixels(flow.flatten(1, 2), there, self.patch_size)
            if self.level == "patch":
                crop_px, template_px, sure = _centroids(crop_px, template_px, sure)
            weights = torch.where(sure >= self.flow_threshold, sure, 0.0) * weights.to(flow)
        points = _lift(matches, template_px, surfaces)
        match, place = ((weights > 0) & points.isfinite().all(-1)).nonzero(as_tuple=True)
        return FlatCorrespondences(
            matches.batch[match],
            crop_px[match, place],
            points[match, place],
            weights[match, place],
            matches.template[match],
            template_px[match, place],
            len(surfaces.depth),
        )

    def _centers(self, grid: tuple[int, int], like: Tensor) -> Float[Tensor, "t 2"]:
        return patch_centers(grid, self.patch_size, dtype=like.dtype).to(like.device)


def _centroids(crop_px: Tensor, place: Tensor, sure: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One pair a match: the means by confidence, which an affine flow maps exactly onto each other."""
    share = (sure / sure.sum(-1, keepdim=True).clamp_min(1e-12))[..., None]
    mean = (share[..., 0] * sure).sum(-1, keepdim=True)
    return (share * crop_px).sum(1, keepdim=True), (share * place).sum(1, keepdim=True), mean


def _lift(
    matches: PatchMatches, px: Float[Tensor, "m n 2"], surfaces: TemplateSurfaces
) -> Float[Tensor, "m n 3"]:
    """The object's points at pixels of the matches' templates, NaN where these do not show it."""
    which = matches.batch * surfaces.depth.shape[1] + matches.template
    jump = surfaces.max_jump.to(px)[matches.batch, None]
    depth = sample_depth_of(surfaces.depth.flatten(0, 1).to(px), which[:, None], px, max_jump=jump)
    seen = depth.isfinite()
    # a gradient of 0 times a NaN would be one
    depth = torch.where(seen, depth, 1.0)
    obj_from_cam = invert(surfaces.cam_from_obj.double()).flatten(0, 1).to(px)[which]
    points = transform(obj_from_cam, unproject(px, depth, surfaces.K.flatten(0, 1).to(px)[which]))
    return torch.where(seen[..., None], points, torch.nan)


def _rank_in_group(group: Int[Tensor, " m"], score: Float[Tensor, " m"]) -> Int[Tensor, " m"]:
    """The rank of each by falling score among those of its group, 0 the best; equal ones in order."""
    by_score = score.argsort(descending=True, stable=True)
    order = by_score[group[by_score].argsort(stable=True)]
    counts = group.bincount()
    first = counts.cumsum(0) - counts
    rank = torch.empty_like(group)
    rank[order] = torch.arange(len(group), device=group.device) - first[group[order]]
    return rank
