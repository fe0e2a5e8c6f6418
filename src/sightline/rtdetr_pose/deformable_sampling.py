"""Deformable attention for export, with ``grid_sample`` or with plain gathers that compute the same.

TensorRT has compiled the ``GridSample`` of this attention wrongly without saying so (NVIDIA/TensorRT issue
4813), and other runtimes lack the operator. The gathers take the four neighbours of all points of all levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

Sampling = Literal["grid_sample", "gather"]


def sample_levels(
    value: Float[Tensor, "b tokens heads c"],
    shapes: Sequence[tuple[int, int]],
    locations: Float[Tensor, "b q heads points 2"],
    weights: Float[Tensor, "b q heads points"],
) -> Float[Tensor, "b q features"]:
    """Weighted sum of bilinear samples of several maps; outside of a map is zero.

    Args:
        value: the maps' cells one after the other, level by level, row by row.
        shapes: ``(h, w)`` of each level.
        locations: x, y in [0, 1] across a map; the points of a level stand together, equally many a level.
        weights: of the points.

    Returns:
        ``(b, q, heads * c)``.

    Raises:
        ValueError: points that the levels do not share equally.

    Example:
        >>> cells = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)
        >>> middle = torch.tensor([0.5, 0.5]).view(1, 1, 1, 1, 2)
        >>> sample_levels(cells, [(1, 2)], middle, torch.ones(1, 1, 1, 1)).item()
        2.0
    """
    queries, points = locations.shape[1], locations.shape[3]
    if points % len(shapes):
        raise ValueError(f"locations: expected as many points a level of {len(shapes)}, got {points} points")
    size, start = _point_constants(shapes, points // len(shapes), locations)
    place = locations * size - 0.5
    corner = place.floor()
    share = place - corner
    cells = value.permute(0, 2, 3, 1)  # b heads c tokens
    total = torch.zeros((), dtype=value.dtype, device=value.device)
    for step in ((0, 0), (1, 0), (0, 1), (1, 1)):
        at = corner + corner.new_tensor(step)
        inside = ((at >= 0) & (at < size)).all(-1)
        at = torch.minimum(at.clamp_min(0), size - 1)
        index = (start + at[..., 1] * size[..., 0] + at[..., 0]).long()
        nearness = [share[..., i] if step[i] else 1 - share[..., i] for i in (0, 1)]
        strength = nearness[0] * nearness[1] * inside.to(weights) * weights
        index, strength = (part.transpose(1, 2).flatten(2)[:, :, None] for part in (index, strength))
        total = total + cells.gather(3, index.expand(-1, -1, cells.shape[2], -1)) * strength
    summed = total.unflatten(-1, (queries, points)).sum(-1)  # b heads c q
    return summed.flatten(1, 2).transpose(1, 2)


def _point_constants(
    shapes: Sequence[tuple[int, int]], points: int, like: Tensor
) -> tuple[Float[Tensor, "points 2"], Float[Tensor, "points"]]:
    """Width and height of the level of each point, and where its cells begin."""
    sizes, starts, begun = [], [], 0
    for h, w in shapes:
        sizes += [[w, h]] * points
        starts += [begun] * points
        begun += h * w
    return like.new_tensor(sizes), like.new_tensor(starts)


class DeformableAttention(nn.Module):
    """The deformable attention of a decoder layer of transformers, as exporters can follow it.

    It has no check of values while it runs, which ONNX has no word for, and a choice of how to sample.

    Args:
        attention: an ``RTDetrV2MultiscaleDeformableAttention``; its parts become this one's, by their names.
        sampling: how to sample.

    Raises:
        ValueError: another way of sampling, or attention of v2's discrete kind, which has no bilinear form.
    """

    n_points_scale: Tensor

    def __init__(self, attention: Any, sampling: Sampling | str) -> None:  # noqa: ANN401  # not public
        super().__init__()
        if sampling not in get_args(Sampling):
            raise ValueError(f"sampling: expected one of {', '.join(get_args(Sampling))}, got {sampling!r}")
        if attention.method != "default":
            raise ValueError(f"decoder_method: expected default, got {attention.method}")
        self.sampling, self.points = sampling, attention.n_points_list
        self.num_heads, self.offset_scale = attention.n_heads, attention.offset_scale
        self.sampling_offsets = attention.sampling_offsets
        self.attention_weights = attention.attention_weights
        self.value_proj = attention.value_proj
        self.output_proj = attention.output_proj
        self.register_buffer("n_points_scale", attention.n_points_scale)

    def forward(
        self,
        hidden_states: Float[Tensor, "b q c"],
        encoder_hidden_states: Float[Tensor, "b tokens c"],
        position_embeddings: Float[Tensor, "b q c"],
        reference_points: Float[Tensor, "b q 1 4"],
        spatial_shapes_list: Sequence[tuple[int, int]],
        **_: Any,  # noqa: ANN401  # the layer hands over what other variants need
    ) -> tuple[Tensor, Tensor]:
        """What the queries read around their boxes, and the weights of their points."""
        queries = hidden_states + position_embeddings
        value = self.value_proj(encoder_hidden_states).unflatten(-1, (self.num_heads, -1))
        offsets = self.sampling_offsets(queries).unflatten(-1, (self.num_heads, -1, 2))
        weights = self.attention_weights(queries).unflatten(-1, (self.num_heads, -1)).softmax(-1)
        center, sides = reference_points[:, :, None].split(2, -1)
        reach = offsets * self.n_points_scale[:, None].to(offsets) * self.offset_scale
        locations = center + reach * sides
        if self.sampling == "gather":
            summed = sample_levels(value, spatial_shapes_list, locations, weights)
        else:
            summed = self._sample_grids(value, spatial_shapes_list, locations, weights)
        return self.output_proj(summed), weights

    def _sample_grids(
        self, value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
    ) -> Tensor:
        from transformers.models.rt_detr_v2.modeling_rt_detr_v2 import multi_scale_deformable_attention_v2

        shapes = list(shapes)
        return multi_scale_deformable_attention_v2(value, shapes, locations, weights, self.points)  # ty: ignore


def replace_attention(detector: Any, sampling: Sampling | str) -> None:  # noqa: ANN401
    """Make a detector's decoder exportable, keeping weights and their names.

    Args:
        detector: of :func:`~sightline.rtdetr_pose.detector.build_detector`; changed in place.
        sampling: how its deformable attention samples.

    Example:
        >>> from sightline.rtdetr_pose.model import RTDETRPose
        >>> model, picture = RTDETRPose(3, 64, 10, backbone="tiny").eval(), torch.rand(1, 3, 64, 64)
        >>> before = model(picture)["logits"]
        >>> replace_attention(model.detector, "gather")
        >>> torch.allclose(model(picture)["logits"], before, atol=1e-5)
        True
    """
    for layer in detector.decoder.layers:
        layer.encoder_attn = DeformableAttention(layer.encoder_attn, sampling)
