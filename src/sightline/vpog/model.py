"""The whole network: encoder, learned tokens, attention, classification and flow.

Two classifiers share their form. The first compares the encoder's tokens, of which a card keeps those of all
templates, and so says at once which templates are worth attending to; the second compares what attention has
made of them. Flow is asked for only where patches match.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sightline.geometry.rotations import angle_between
from sightline.geometry.viewpoints import view_direction
from sightline.vpog.aa_module import AAMode, AAModule
from sightline.vpog.classification_head import ClassificationHead
from sightline.vpog.correspondence import PatchMatches
from sightline.vpog.encoder import build_encoder
from sightline.vpog.flow_head import FlowHead, FlowPrediction
from sightline.vpog.pose_scale import PoseScale
from sightline.vpog.template_cache import TemplateCache
from sightline.vpog.token_manager import TokenManager
from sightline.vpog.view_encoding import EncodingName


class Tokens(NamedTuple):
    """Tokens of pictures with what attention needs to know of them; added ones come last.

    Args:
        tokens: ``(*n, tokens, c)``.
        positions: ``(*n, tokens, 2)`` int64 places (y, x).
        rope_mask: ``(*n, tokens)`` False for added tokens.
    """

    tokens: Float[Tensor, "*n t c"]
    positions: Int[Tensor, "*n t 2"]
    rope_mask: Bool[Tensor, "*n t"]


class TemplateFeatures(NamedTuple):
    """All that a card keeps of the templates of one object.

    Args:
        coarse: ``(s, nt + a, d)`` unit projections of the encoder's tokens, for the first classifier.
        fine: ``(s, nt + a, d)`` unit projections of the tokens after attention, for the second.
        cache: keys, values and tokens of attention, of batch 1.
    """

    coarse: Float[Tensor, "s t d"]
    fine: Float[Tensor, "s t d"]
    cache: TemplateCache


class VPOGModel(nn.Module):
    """Matches a query's patches with those of templates, and each of their pixels.

    Args:
        encoder: arguments of :func:`~sightline.vpog.encoder.build_encoder`; the tiny one unless given.
        image_size: side of every crop, pixels.
        depth: layers of attention.
        num_heads: of attention.
        mlp_ratio: widening of its MLPs.
        window_size: the most patches on a side of a window.
        encoding: ``s2rope-fixed``, ``s2rope-compat`` or ``so3``.
        mode: ``asymmetric``, in which templates do not depend on the query and can be kept, or ``joint``.
        drop_path: of attention.
        proj_dim: channels of the classifiers' projections; the encoder's unless given.
        use_mlp: whether these have a hidden layer.
        temperature: of both classifiers, at first.
        learnable_temperature: whether it learns.
        flow_hidden_dim: channels of the flow head.
        flow_layers: layers of the flow head.
        num_query_added: learned tokens of the query.
        num_template_added: learned tokens of a template; the first is the class *unseen*.
        pose_log_scale: s of :class:`PoseScale` at the start, which the pose loss learns; None for a model
            without it, which cannot be trained with that loss.

    Raises:
        ValueError: sizes that do not go together, an unknown name.

    Example:
        >>> model = VPOGModel({"name": "tiny", "depth": 1}, image_size=64, depth=1, num_heads=4)
        >>> poses = torch.eye(4).expand(2, 3, 4, 4)
        >>> found = model(torch.rand(2, 3, 64, 64), torch.rand(2, 3, 3, 64, 64), poses)
        >>> found["classification_logits"].shape
        torch.Size([2, 3, 16, 17])
    """

    def __init__(
        self,
        encoder: Mapping[str, Any] | None = None,
        *,
        image_size: int = 128,
        depth: int = 4,
        num_heads: int = 4,
        mlp_ratio: float = 4.0,
        window_size: int = 7,
        encoding: EncodingName | str = "s2rope-fixed",
        mode: AAMode | str = "asymmetric",
        drop_path: float = 0.0,
        proj_dim: int | None = None,
        use_mlp: bool = False,
        temperature: float = 0.07,
        learnable_temperature: bool = True,
        flow_hidden_dim: int = 256,
        flow_layers: int = 3,
        num_query_added: int = 0,
        num_template_added: int = 1,
        pose_log_scale: float | None = None,
    ) -> None:
        super().__init__()
        if num_template_added < 1:
            raise ValueError(
                f"num_template_added: expected at least 1, the class unseen, got {num_template_added}"
            )
        self.encoder = build_encoder(**(encoder or {"name": "tiny"}))
        dim = self.encoder.dim
        self.image_size, self.patch_size = image_size, self.encoder.patch_size
        self.grid = self.encoder.grid(image_size)
        self.config: dict[str, Any] = {
            "encoder": dict(self.encoder.config),
            "image_size": image_size,
            "depth": depth,
            "num_heads": num_heads,
            "mlp_ratio": mlp_ratio,
            "window_size": window_size,
            "encoding": encoding,
            "mode": mode,
            "drop_path": drop_path,
            "proj_dim": proj_dim,
            "use_mlp": use_mlp,
            "temperature": temperature,
            "learnable_temperature": learnable_temperature,
            "flow_hidden_dim": flow_hidden_dim,
            "flow_layers": flow_layers,
            "num_query_added": num_query_added,
            "num_template_added": num_template_added,
            "pose_log_scale": pose_log_scale,
        }
        self.token_manager = TokenManager(dim, num_query_added, num_template_added)
        self.attention = AAModule(
            dim,
            depth,
            num_heads,
            mlp_ratio=mlp_ratio,
            window_size=window_size,
            encoding=encoding,
            mode=mode,
            drop_path=drop_path,
        )
        heads = (
            ClassificationHead(dim, proj_dim, use_mlp, temperature, learnable_temperature) for _ in range(2)
        )
        self.coarse_head, self.classification_head = heads
        self.flow_head = FlowHead(dim, flow_hidden_dim, flow_layers, self.patch_size)
        self.pose_scale = None if pose_log_scale is None else PoseScale(pose_log_scale)

    @property
    def num_patches(self) -> int:
        """Of a crop, which is also the number of the class *unseen*."""
        return self.grid**2

    def encode_query(self, query: Float[Tensor, "b 3 s s"]) -> Tokens:
        """Tokens of queries.

        Args:
            query: ``(b, 3, s, s)`` RGB in [0, 1].
        """
        return Tokens(*self.token_manager.add_query_tokens(*self.encoder(query)))

    def encode_templates(self, templates: Float[Tensor, "b n 3 s s"]) -> Tokens:
        """Tokens of templates.

        Args:
            templates: ``(b, n, 3, s, s)`` RGB in [0, 1] on black.
        """
        tokens, positions = self.encoder(templates.flatten(0, 1))
        shape = templates.shape[:2]
        return Tokens(
            *self.token_manager.add_template_tokens(tokens.unflatten(0, shape), positions.unflatten(0, shape))
        )

    def forward(
        self,
        query: Float[Tensor, "b 3 s s"],
        templates: Float[Tensor, "b n 3 s s"],
        poses: Float[Tensor, "b n 4 4"],
        d_ref: Float[Tensor, "b 3"] | None = None,
        *,
        template_valid: Bool[Tensor, "b n"] | None = None,
        all_pairs: bool = False,
    ) -> dict[str, Any]:
        """Match queries with their templates.

        Args:
            query: ``(b, 3, s, s)`` RGB in [0, 1].
            templates: ``(b, n, 3, s, s)`` RGB in [0, 1] on black.
            poses: ``(b, n, 4, 4)`` ``cam_from_obj`` of the templates.
            d_ref: ``(b, 3)`` unit direction from the object towards a camera that is near to the query's,
                object frame; that of the first template unless given.
            template_valid: ``(b, n)`` False for padding.
            all_pairs: whether flow is given for every pair of patches, which takes ``n * nq * nt`` times that
                of one; otherwise ask :meth:`predict_flow` for those that match.

        Returns:
            ``classification_logits`` and ``coarse_logits`` ``(b, n, nq, nt + a)``; ``features``, a dict of
            the tokens after attention, ``query`` ``(b, nq, c)`` and ``templates`` ``(b, n, nt, c)``; with
            ``all_pairs`` also ``flow`` ``(b, n, nq, nt, p, p, 2)`` and ``flow_confidence``.

        Raises:
            ValueError: pictures of another size.
        """
        self._require_size(query, templates)
        rotations = poses[..., :3, :3].to(query.dtype)
        first, second = self.encode_query(query), self.encode_templates(templates)
        after = self.attention(
            first.tokens,
            second.tokens,
            first.positions,
            second.positions,
            rotations,
            rotations[:, 0] if d_ref is None else _nearest_view(rotations, d_ref, template_valid),
            query_rope_mask=first.rope_mask,
            template_rope_mask=second.rope_mask,
            template_valid=template_valid,
            query_grid=(self.grid, self.grid),
            template_grid=(self.grid, self.grid),
        )
        own = slice(self.num_patches)
        features = dict(
            zip(("query", "templates"), self.token_manager.remove_added_tokens(*after), strict=True)
        )
        found = {
            "classification_logits": self.classification_head(after[0][:, own], after[1]),
            "coarse_logits": self.coarse_head(first.tokens[:, own], second.tokens),
            "features": features,
        }
        if all_pairs:
            found["flow"], found["flow_confidence"] = self.flow_head.all_pairs(**features)
        return found

    def predict_flow(self, features: Mapping[str, Tensor], matches: PatchMatches) -> FlowPrediction:
        """The flow of pairs of patches.

        Args:
            features: of :meth:`forward`.
            matches: m pairs.

        Returns:
            The flow ``(m, p, p, 2)`` with its scale and confidence.
        """
        return self.flow_head(
            features["query"][matches.batch, matches.query_patch],
            features["templates"][matches.batch, matches.template, matches.template_patch],
        )

    @torch.no_grad()
    def onboard(
        self, templates: Float[Tensor, "n 3 s s"], poses: Float[Tensor, "n 4 4"], *, batch_size: int = 32
    ) -> TemplateFeatures:
        """All that queries will need of an object's templates, computed once.

        Args:
            templates: ``(n, 3, s, s)`` RGB in [0, 1] on black.
            poses: ``(n, 4, 4)`` ``cam_from_obj``.
            batch_size: templates at a time.

        Raises:
            ValueError: a model of mode ``joint``, whose templates depend on the query; pictures of another
                size.
        """
        self._require_size(templates)
        parts = []
        for chunk, views in zip(templates.split(batch_size), poses.split(batch_size), strict=True):
            encoded = self.encode_templates(chunk[None])
            cache = self.attention.template_cache(
                encoded.tokens,
                encoded.positions,
                views[None, :, :3, :3].to(chunk.dtype),
                template_rope_mask=encoded.rope_mask,
                template_grid=(self.grid, self.grid),
            )
            coarse = self.coarse_head.project_templates(encoded.tokens)[0]
            parts.append((coarse, self.classification_head.project_templates(cache.tokens)[0], cache))
        coarse, fine, caches = zip(*parts, strict=True)
        return TemplateFeatures(torch.cat(coarse), torch.cat(fine), _joined(caches))

    def _require_size(self, *pictures: Tensor) -> None:
        for each in pictures:
            if tuple(each.shape[-2:]) != (self.image_size, self.image_size):
                width, height = each.shape[-1], each.shape[-2]
                raise ValueError(
                    f"expected crops of {self.image_size} px on each side, got {width} x {height}"
                )


def _nearest_view(rotations: Tensor, direction: Tensor, valid: Tensor | None) -> Tensor:
    """The rotation of the template that is nearest to a view direction."""
    angles = angle_between(view_direction(rotations), direction[:, None].to(rotations))
    if valid is not None:
        angles = angles.masked_fill(~valid, torch.inf)
    return rotations[torch.arange(len(rotations), device=rotations.device), angles.argmin(1)]


def _joined(caches: tuple[TemplateCache, ...]) -> TemplateCache:
    """One cache of all templates of one object."""
    return TemplateCache(
        keys=torch.cat([each.keys for each in caches], dim=2),
        values=torch.cat([each.values for each in caches], dim=2),
        tokens=torch.cat([each.tokens for each in caches], dim=1),
        positions=torch.cat([each.positions for each in caches], dim=1),
        rotations=torch.cat([each.rotations for each in caches], dim=1),
        rope_mask=torch.cat([each.rope_mask for each in caches], dim=1),
    )
