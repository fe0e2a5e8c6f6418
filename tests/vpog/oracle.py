"""A network that makes no mistake: its pictures' colours are the object's coordinates, and it reads them.

All else of the matcher is as it is: crops, turns, affines, framed templates, choice, lifting. A pixel's
colour names its point of the object; patches match where their mean points are near, and a pixel's flow is
where its point lies in the template.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from sightline.geometry.cameras import Camera, project
from sightline.geometry.flow import patch_centers, pixels_to_flow, split_patches
from sightline.geometry.poses import transform
from sightline.geometry.symmetry import SymmetryGroup
from sightline.objects.card import ObjectCard, Template
from sightline.objects.onboard import onboard_mesh
from sightline.records import TriangleMesh
from sightline.rendering import render_views
from sightline.vpog.card_templates import frame_templates
from sightline.vpog.classification_head import ClassificationHead
from sightline.vpog.correspondence import PatchMatches
from sightline.vpog.flow_head import FlowPrediction
from sightline.vpog.model import Tokens, VPOGModel
from sightline.vpog.template_cache import TemplateCache

SIZE = 64
SHARPNESS, REACH = 300.0, 0.17  # of mean colours: patches that are farther apart are not alike
UNSEEN = -1


def coordinate_colors(xyz: Tensor, mask: Tensor, bounds: Tensor) -> Tensor:
    """Coordinates as colours from 40 to 255; 0 where the object is not."""
    share = (xyz.double() - bounds[0]) / (bounds[1] - bounds[0])
    return torch.where(mask[..., None], (40 + 215 * share).round(), 0.0).to(torch.uint8)


def coordinate_card(mesh: TriangleMesh, num_views: int = 42, size: int = 160) -> ObjectCard:
    """A card whose templates show coordinates."""
    card = onboard_mesh(
        mesh, name="thing", num_views=num_views, template_size=size, symmetries=SymmetryGroup.none()
    )
    templates = []
    for view in card.templates:
        drawn = render_views(
            mesh, view.cam_from_obj[None], view.K, (size, size), outputs=("xyz", "depth", "mask")
        )
        color = coordinate_colors(drawn.xyz[0], drawn.mask[0], card.bounds)
        templates.append(Template(color, drawn.mask[0], drawn.depth[0], view.K, view.cam_from_obj))
    return ObjectCard(
        card.name, tuple(templates), card.bounds, card.diameter, card.symmetries, mesh=card.mesh
    )


def coordinate_picture(card: ObjectCard, cam_from_obj: Tensor, camera: Camera) -> np.ndarray:
    """A picture that shows coordinates."""
    drawn = render_views(card.mesh, cam_from_obj[None], camera.K, camera.image_size, outputs=("xyz", "mask"))
    return coordinate_colors(drawn.xyz[0], drawn.mask[0], card.bounds).numpy()


class _ByPoints(ClassificationHead):
    """Logits by the distance of mean points: all that counts of a token are its last five numbers."""

    def __init__(self) -> None:
        super().__init__(4)

    def project_query(self, tokens: Tensor) -> Tensor:
        return tokens[..., -5:]

    def project_templates(self, tokens: Tensor) -> Tensor:
        return tokens[..., -5:]

    def compare(self, query: Tensor, templates: Tensor) -> Tensor:
        a, b = query[:, None, :, None].double(), templates[:, :, None].double()
        logits = -SHARPNESS * (a[..., :3] - b[..., :3]).square().sum(-1)
        logits = logits.masked_fill((a[..., 3] < 0.2) | (b[..., 3] < 0.2), -1e3)
        return torch.where(b[..., 4] == UNSEEN, -SHARPNESS * REACH**2, logits).float()


class _Untouched(nn.Module):
    """Attention that leaves all tokens as they are."""

    mode = "asymmetric"

    def template_cache(self, templates, template_pos, views, *, template_rope_mask, template_grid):
        nothing = torch.zeros(1, *templates.shape[:2], 1, templates.shape[2], 1)
        return TemplateCache(nothing, nothing, templates, template_pos, views, template_rope_mask)

    def forward_cached(self, query, cache, query_pos, reference, *, query_rope_mask, query_grid, chunk=None):
        assert torch.allclose(reference.det(), torch.ones(len(query)), atol=1e-4)
        return query, cache.tokens.expand(len(query), *cache.tokens.shape[1:])


class Oracle(VPOGModel):
    """Of one card."""

    def __init__(self, card: ObjectCard) -> None:
        super().__init__(
            {"name": "tiny", "dim": 32, "depth": 1, "num_heads": 2},
            image_size=SIZE,
            depth=1,
            num_heads=2,
            flow_hidden_dim=32,
            flow_layers=1,
        )
        self.bounds = card.bounds.double()
        framed = frame_templates(card, SIZE)
        self.K, self.poses = framed.K, framed.cam_from_obj
        self.attention = _Untouched()
        self.coarse_head, self.classification_head = _ByPoints(), _ByPoints()
        self.encoded_templates = 0
        self.queries: list[Tensor] = []

    def encode_query(self, query: Tensor) -> Tokens:
        self.queries.append(query)
        tokens = self._tokens(query, torch.zeros(len(query)))
        positions = torch.zeros(*tokens.shape[:2], 2, dtype=torch.int64)
        return Tokens(tokens, positions, torch.ones(tokens.shape[:2], dtype=torch.bool))

    def encode_templates(self, templates: Tensor) -> Tokens:
        numbers = (self.encoded_templates + torch.arange(templates.shape[1])) % len(self.poses)
        self.encoded_templates += templates.shape[1]
        tokens = self._tokens(templates[0], numbers)
        added = torch.zeros_like(tokens[:, :1])
        added[..., -1] = UNSEEN
        tokens = torch.cat([tokens, added], 1)[None]
        positions = torch.zeros(*tokens.shape[:3], 2, dtype=torch.int64)
        return Tokens(tokens, positions, torch.ones(tokens.shape[:3], dtype=torch.bool))

    def predict_flow(self, features, matches: PatchMatches) -> FlowPrediction:
        p = self.patch_size
        query = features["query"][matches.batch, matches.query_patch]
        number = features["templates"][matches.batch, matches.template, matches.template_patch, -1].long()
        colors = query[:, : p * p * 3].reshape(-1, p, p, 3).double() * 255
        points = self.bounds[0] + (colors - 40) / 215 * (self.bounds[1] - self.bounds[0])
        px = project(transform(self.poses[number], points.flatten(1, 2)), self.K[number])
        centers = patch_centers((self.grid, self.grid), p, dtype=px.dtype)[matches.template_patch]
        flow = pixels_to_flow(px, centers[:, None], p).view(-1, p, p, 2).float()
        sure = (colors >= 40).all(-1) & (flow.abs().amax(-1) < 2)
        return FlowPrediction(flow, (~sure).float() + 0.01, sure.float())

    def _tokens(self, pictures: Tensor, numbers: Tensor) -> Tensor:
        patches = split_patches(pictures, self.patch_size).movedim(1, -1)  # n g p p 3
        there = (patches > 0.1).all(-1)
        share = there.double().mean((-2, -1))
        total = (patches * there[..., None]).sum((-3, -2))
        mean = total / there.sum((-2, -1)).clamp_min(1)[..., None]
        number = numbers.to(mean)[:, None, None].expand(*mean.shape[:2], 1)
        return torch.cat([patches.flatten(2), mean, share[..., None].float(), number], -1).float()
