"""From encoded features to refined queries: RT-DETR's selection of queries, and its decoder.

The steps are those of ``RTDetrV2Model.forward`` on its own modules, one after the other and bit for bit, in a
form that an exporter can follow for any number of pictures (that forward makes their number a constant).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Decoded(NamedTuple):
    """What the decoder gives: of all its layers first, of the selected queries before it last.

    ``dn_meta`` tells noisy copies of true objects, which stand first, from other queries; None without any.
    """

    hidden: Float[Tensor, "b layers q c"]
    logits: Float[Tensor, "b layers q classes"]
    boxes: Float[Tensor, "b layers q 4"]
    enc_logits: Float[Tensor, "b selected classes"]
    enc_boxes: Float[Tensor, "b selected 4"]
    dn_meta: dict[str, Any] | None


def decode_queries(
    detector: Any,  # noqa: ANN401  # its parts have no types
    neck: Sequence[Float[Tensor, "b c _ _"]],
    targets: Sequence[Mapping[str, Tensor]] | None = None,
) -> Decoded:
    """Select the cells that look most like objects and refine them.

    Args:
        detector: of :func:`~sightline.rtdetr_pose.detector.build_detector`.
        neck: the hybrid encoder's maps, strides 8, 16 and 32.
        targets: one dict a picture with ``labels`` and ``boxes``; in training noisy copies of them are
            decoded beside the selected queries.

    Raises:
        ValueError: pictures with fewer cells than queries.
    """
    maps = [layer(level) for layer, level in zip(detector.decoder_input_proj, neck, strict=True)]
    shapes = [(level.shape[-2], level.shape[-1]) for level in maps]
    memory = torch.cat([level.flatten(2).transpose(1, 2) for level in maps], 1)
    anchors, valid = detector.generate_anchors(tuple(shapes), device=memory.device, dtype=memory.dtype)
    cells = detector.enc_output(valid.to(memory.dtype) * memory)
    scores = detector.enc_score_head(cells)
    places = detector.enc_bbox_head(cells) + anchors
    if cells.shape[1] < detector.config.num_queries:
        raise ValueError(
            f"expected pictures of at least {detector.config.num_queries} cells, one a query, got "
            f"{cells.shape[1]}: take larger pictures or fewer queries"
        )
    best = scores.max(-1).values.topk(detector.config.num_queries, dim=1).indices[..., None]
    references, enc_logits = (_rows(values, best) for values in (places, scores))
    enc_boxes = references.sigmoid()
    content, references = _rows(cells, best).detach(), references.detach()
    noise = _noisy_copies(detector, targets) if targets is not None and detector.training else None
    mask, meta = None, None
    if noise is not None:
        noisy_content, noisy_references, mask, meta = noise
        content = torch.cat([noisy_content, content], 1)
        references = torch.cat([noisy_references, references], 1).detach()
    found = detector.decoder(
        inputs_embeds=content,
        encoder_hidden_states=memory,
        encoder_attention_mask=mask,
        reference_points=references,
        spatial_shapes=torch.tensor(shapes, device=memory.device),
        spatial_shapes_list=shapes,
    )
    return Decoded(
        found.intermediate_hidden_states,
        found.intermediate_logits,
        found.intermediate_reference_points,
        enc_logits,
        enc_boxes,
        meta,
    )


def _rows(values: Tensor, index: Tensor) -> Tensor:
    return values.gather(1, index.expand(-1, -1, values.shape[-1]))


def _noisy_copies(
    detector: Any,  # noqa: ANN401
    targets: Sequence[Mapping[str, Tensor]],
) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]] | None:
    """Content, references, attention mask and bookkeeping of contrastive denoising (DINO, ICLR 2023)."""
    from transformers.models.rt_detr_v2.modeling_rt_detr_v2 import get_contrastive_denoising_training_group

    config = detector.config
    copies = get_contrastive_denoising_training_group(
        targets=[{"class_labels": each["labels"], "boxes": each["boxes"]} for each in targets],
        num_classes=config.num_labels,
        num_queries=config.num_queries,
        class_embed=getattr(detector, "denoising_class_embed", None),
        num_denoising_queries=config.num_denoising,
        label_noise_ratio=config.label_noise_ratio,
        box_noise_scale=config.box_noise_scale,
    )
    return None if copies[3] is None else copies
