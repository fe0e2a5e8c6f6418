"""From crops and templates that were chosen for them to correspondences in the picture, by hypothesis.

A hypothesis is a turn of the crop with a template, or with several neighbouring ones whose correspondences
can be true together; the pose estimator tries the best supported first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sightline.geometry.rotations import angle_between
from sightline.records import Correspondences
from sightline.vpog.card_features import CardFeatures
from sightline.vpog.correspondence import CorrespondenceBuilder
from sightline.vpog.flow_head import FlowPrediction
from sightline.vpog.model import Tokens, VPOGModel
from sightline.vpog.template_scores import Chosen, choose, score_templates

FEWEST = 4  # correspondences that can fix a pose
_TOGETHER = math.radians(35.0)  # views that show much of the same; two neighbours of 42 are 32 degrees apart


class Attended(NamedTuple):
    """``r`` crops after attention to ``k`` templates each.

    Args:
        logits: ``(r, k, nq, nt + a)`` of the second classifier.
        features: ``query`` ``(r, nq, c)`` and ``templates`` ``(r, k, nt, c)`` for the flow head.
        templates: ``(r, k)`` int64 their numbers.
    """

    logits: Float[Tensor, "r k q t"]
    features: Mapping[str, Tensor]
    templates: Int[Tensor, "r k"]


def attend(model: VPOGModel, tokens: Tokens, known: CardFeatures, chosen: Chosen) -> Attended:
    """Let crops attend to the templates that were chosen for them.

    Args:
        model: the network.
        tokens: of all crops.
        known: of the object.
        chosen: which crops, which templates; the first of each is the reference of the views.
    """
    own = slice(model.num_patches)
    rows = Tokens(*(each[chosen.turns] for each in tokens))
    cache = known.cache.select(chosen.templates)
    query, templates = model.attention.forward_cached(
        rows.tokens,
        cache,
        rows.positions,
        cache.rotations[:, 0].to(rows.tokens.dtype),
        query_rope_mask=rows.rope_mask,
        query_grid=(model.grid, model.grid),
    )
    projected = model.classification_head.project_query(query[:, own])
    logits = model.classification_head.compare(projected, known.fine[chosen.templates])
    features = {"query": query[:, own], "templates": templates[:, :, own].to(query.dtype)}
    return Attended(logits, features, chosen.templates)


def attend_to_all(
    model: VPOGModel,
    tokens: Tokens,
    known: CardFeatures,
    *,
    num_turns: int,
    num_templates: int,
    chunk_size: int,
) -> tuple[Chosen, Attended]:
    """Let every crop attend to all templates, and choose by what that gives.

    Args:
        model: the network.
        tokens: of all crops.
        known: of the object.
        num_turns: how many crops are chosen.
        num_templates: how many templates of each.
        chunk_size: templates at a time; changes nothing in the result.

    Returns:
        The choice and what attention gave for it.
    """
    own, head = slice(model.num_patches), model.classification_head
    coarse = model.coarse_head.project_query(tokens.tokens[:, own])
    nearest = score_templates(model.coarse_head, coarse, known.coarse, model.num_patches).argmax(1)
    query, _ = model.attention.forward_cached(
        tokens.tokens,
        known.cache,
        tokens.positions,
        known.cache.rotations[0, nearest].to(tokens.tokens.dtype),
        query_rope_mask=tokens.rope_mask,
        query_grid=(model.grid, model.grid),
        chunk=chunk_size,
    )
    projected = head.project_query(query[:, own])
    scores = score_templates(head, projected, known.fine, model.num_patches)
    chosen = choose(scores, num_turns, num_templates)
    logits = head.compare(projected[chosen.turns], known.fine[chosen.templates])
    templates = known.cache.tokens[0, chosen.templates][:, :, own].to(query.dtype)
    features = {"query": query[chosen.turns][:, own], "templates": templates}
    return chosen, Attended(logits, features, chosen.templates)


def find_correspondences(
    model: VPOGModel,
    attended: Attended,
    known: CardFeatures,
    crop_from_image: Float[Tensor, "r 2 3"],
    builder: CorrespondenceBuilder,
    *,
    places: int,
) -> list[Correspondences]:
    """One record a crop, of all its templates, in pixels of the picture.

    Args:
        model: the network.
        attended: of it.
        known: of the object.
        crop_from_image: ``(r, 2, 3)``.
        builder: with its thresholds.
        places: correspondences on each side of a patch; must divide it.
    """
    grid = (model.grid, model.grid)
    matches = builder.match(attended.logits, grid)
    flow = _thinned(model.predict_flow(attended.features, matches), places)
    flat = builder.build(matches, known.surfaces(attended.templates), grid, flow.flow, flow.confidence)
    records = flat.records(crop_from_image.to(flat.crop_px.device), attended.templates)
    return [
        replace(each, template_points=known.card_pixels(each.template, each.template_points))
        for each in records
    ]


def hypotheses(records: list[Correspondences], known: CardFeatures) -> list[Correspondences]:
    """Sets that may each be the object, the best supported first.

    Of each crop: every template's own set, and that of its best template with all neighbouring ones.

    Args:
        records: one a crop.
        known: of the object.
    """
    groups = []
    for record in records:
        groups += _of_crop(record, known.directions.cpu())
    kept = [group for group in groups if len(group) >= FEWEST]
    return sorted(kept, key=lambda group: float(group.weights.sum()), reverse=True)


def _of_crop(record: Correspondences, directions: Float[Tensor, "n 3"]) -> list[Correspondences]:
    support = torch.zeros(len(directions), dtype=torch.float64)
    support = support.index_add(0, record.template, record.weights)
    seen = support.nonzero()[:, 0]
    if len(seen) == 0:
        return []
    groups = [record.select(record.template == number) for number in seen]
    best = support.argmax()
    together = seen[angle_between(directions[best], directions[seen]) <= _TOGETHER]
    if len(together) > 1:
        groups.append(record.select(torch.isin(record.template, together)))
    return groups


def _thinned(prediction: FlowPrediction, places: int) -> FlowPrediction:
    """The mean flow of square blocks of pixels, which an affine flow has at their middles."""
    side = prediction.flow.shape[1]
    if side % places:
        raise ValueError(f"places: expected a divisor of the flow's {side} px, got {places}")

    def mean(maps: Tensor) -> Tensor:
        blocks = maps.unflatten(2, (places, -1)).unflatten(1, (places, -1))
        return blocks.mean((2, 4))

    return FlowPrediction(*(mean(each) for each in prediction))


def no_matches() -> Correspondences:
    """None at all."""
    return Correspondences.build(torch.zeros(0, 2), torch.zeros(0, 3))
