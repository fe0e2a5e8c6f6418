"""What a matcher computes of an object's templates: once an object and checkpoint, kept in the card."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sightline.geometry.viewpoints import view_direction
from sightline.objects.card import ObjectCard
from sightline.objects.feature_cache import cached_features
from sightline.vpog.card_templates import FramedTemplates, frame_templates
from sightline.vpog.correspondence import TemplateSurfaces
from sightline.vpog.model import TemplateFeatures, VPOGModel
from sightline.vpog.template_cache import TemplateCache

_FORM = 1  # raised when what is kept changes
_JUMP = 0.02  # of the diameter, as in the labels
_HALVED = ("keys", "values", "tokens", "coarse", "fine")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class CardFeatures:
    """All that a picture of an object is matched with; ``n`` templates.

    Args:
        coarse: ``(n, nt + a, d)`` unit projections of the encoder's tokens.
        fine: ``(n, nt + a, d)`` unit projections of the tokens after attention.
        cache: of attention, of batch 1.
        depth: ``(n, s, s)`` float32 metres, 0 where unknown.
        K: ``(n, 3, 3)`` float64 pixels.
        cam_from_obj: ``(n, 4, 4)`` float64 metres; each looks at the middle of the object.
        card_from_framed: ``(n, 3, 3)`` float64 from these templates' pixels to those of the card's.
        max_jump: of the depth within one surface, metres.
    """

    coarse: Float[Tensor, "n t d"]
    fine: Float[Tensor, "n t d"]
    cache: TemplateCache
    depth: Float[Tensor, "n s s"]
    K: Float[Tensor, "n 3 3"]
    cam_from_obj: Float[Tensor, "n 4 4"]
    card_from_framed: Float[Tensor, "n 3 3"]
    max_jump: float

    def __len__(self) -> int:
        return len(self.coarse)

    @property
    def rotations(self) -> Float[Tensor, "n 3 3"]:
        """Of the templates."""
        return self.cam_from_obj[:, :3, :3]

    @property
    def directions(self) -> Float[Tensor, "n 3"]:
        """From the object to each template's camera, unit vectors of the object frame."""
        return view_direction(self.rotations)

    def surfaces(self, index: Int[Tensor, "b s"]) -> TemplateSurfaces:
        """What some templates show, as geometry.

        Args:
            index: ``(b, s)`` their numbers.
        """
        jump = torch.full((len(index),), self.max_jump, device=index.device)
        return TemplateSurfaces(self.depth[index], self.K[index], self.cam_from_obj[index], jump)

    def card_pixels(self, template: Int[Tensor, " m"], px: Float[Tensor, "m 2"]) -> Float[Tensor, "m 2"]:
        """Pixels of these templates as pixels of the card's.

        Args:
            template: ``(m,)`` numbers.
            px: ``(m, 2)`` pixels.
        """
        matrix = self.card_from_framed.to(px.device)[template]
        there = (matrix @ torch.cat([px, torch.ones_like(px[:, :1])], -1).double()[..., None])[..., 0]
        return there[:, :2] / there[:, 2:]


def card_features(model: VPOGModel, card: ObjectCard, fingerprint: str, device: torch.device) -> CardFeatures:
    """Read what the card keeps for these weights, or compute it and say so.

    Args:
        model: in mode ``asymmetric``.
        card: the object.
        fingerprint: of the weights.
        device: where the model is, and the features shall be.
    """

    def compute() -> dict[str, Tensor]:
        _log.info("%s: computing the features of %d templates", card.name, len(card.templates))
        return compute_features(model, card, device)

    key = f"vpog-{fingerprint}-{_FORM}"
    return _assemble(cached_features(card, key, compute), card, device)


def extended(features: CardFeatures, model: VPOGModel, card: ObjectCard) -> CardFeatures:
    """The features of a card that has grown; those of its older templates are not computed again.

    Args:
        features: of the card before.
        model: what computed them.
        card: with more templates at its end.
    """
    device = features.coarse.device
    old = _tensors(features)
    new = compute_features(model, card, device, first=len(features))
    joined = {name: torch.cat([old[name].cpu(), new[name]], _axis(name)) for name in new}
    return _assemble(joined, card, device)


@torch.no_grad()
def compute_features(
    model: VPOGModel, card: ObjectCard, device: torch.device, *, first: int = 0
) -> dict[str, Tensor]:
    """Frame and encode templates.

    Args:
        model: in mode ``asymmetric``.
        card: the object.
        device: where the model is.
        first: the number of the first template.

    Returns:
        Tensors by name, on the CPU, features in half precision.
    """
    framed = frame_templates(card, model.image_size, first=first)
    known: TemplateFeatures = model.onboard(framed.pictures.to(device), framed.cam_from_obj.to(device))
    tensors = {"coarse": known.coarse, "fine": known.fine} | {
        name: getattr(known.cache, name) for name in TemplateCache._fields if name != "valid"
    }
    tensors |= {name: getattr(framed, name) for name in FramedTemplates._fields if name != "pictures"}
    return {
        name: (tensor.half() if name in _HALVED else tensor).cpu().contiguous()
        for name, tensor in tensors.items()
    }


def _assemble(tensors: dict[str, Tensor], card: ObjectCard, device: torch.device) -> CardFeatures:
    on = {name: tensor.to(device) for name, tensor in tensors.items()}
    cache = TemplateCache(**{name: on[name] for name in TemplateCache._fields if name != "valid"})
    own = {field.name: on[field.name] for field in fields(CardFeatures) if field.name in on}
    return CardFeatures(**own, cache=cache, max_jump=_JUMP * card.diameter)


def _tensors(features: CardFeatures) -> dict[str, Tensor]:
    kept = features.cache._asdict() | vars(features)
    return {name: value for name, value in kept.items() if isinstance(value, Tensor)}


def _axis(name: str) -> int:
    """Along which the templates are counted."""
    if name in ("keys", "values"):
        return 2
    return 1 if name in ("tokens", "positions", "rotations", "rope_mask") else 0
