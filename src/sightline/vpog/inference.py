"""The learned matcher: a picture and a card in, sets of correspondences out, for the pose estimator.

A crop is encoded at several turns in its plane, since the network knows small ones only; what a card keeps
of its templates says which turns and templates are alike, and only those are attended to. The turn is part of
the crop's affine and is undone exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from sightline.geometry.cameras import Camera
from sightline.geometry.poses import transform
from sightline.nn.checkpoint import load_weights, read_config
from sightline.nn.fingerprint import weights_fingerprint
from sightline.objects.card import ObjectCard, Template
from sightline.records import Correspondences
from sightline.training.processes import require_device
from sightline.vpog.attending import (
    attend,
    attend_to_all,
    find_correspondences,
    hypotheses,
    no_matches,
)
from sightline.vpog.card_features import CardFeatures, card_features, extended
from sightline.vpog.correspondence import CorrespondenceBuilder
from sightline.vpog.crops import FILL, Crops, box_affines, cut_crops, even_turns
from sightline.vpog.model import Tokens, VPOGModel
from sightline.vpog.prior_view import in_plane_turn, prior_affine, prior_view
from sightline.vpog.template_scores import Chosen, choose, score_templates
from sightline.vpog.template_selector import TemplateSelector

SearchMode = Literal["cluster", "global", "global-fast"]
_MODES = ("cluster", "global", "global-fast")
_OVERLAP = 1.4  # of the turns that neighbouring crops cover


@dataclass(frozen=True, kw_only=True)
class MatchSettings:
    """How a crop is searched.

    Args:
        mode: ``global-fast`` scores all templates by what a card keeps and attends to the best; ``global``
            attends to all of them, in chunks, before it chooses; ``cluster`` is ``global-fast`` for one turn,
            and where a direction is expected looks at its neighbours alone.
        num_angles: turns at which a crop is encoded, all around; as many as the training needs unless given.
        num_turns: of them, with how many it goes on.
        num_templates: with how many templates of each.
        chunk_size: templates at a time in mode ``global``.
        fill: longer side of a box in shares of its crop.
        conf_threshold: least probability of a match; see :class:`CorrespondenceBuilder`.
        flow_threshold: least confidence of a place.
        use_soft_matching: see :class:`CorrespondenceBuilder`.
        places: correspondences on each side of a patch.

    Raises:
        ValueError: an unknown mode, or a number below 1.
    """

    mode: SearchMode | str = "global-fast"
    num_angles: int | None = None
    num_turns: int = 3
    num_templates: int = 4
    chunk_size: int = 40
    fill: float = FILL
    conf_threshold: float = 0.3
    flow_threshold: float = 0.4
    use_soft_matching: bool = True
    places: int = 4

    def __post_init__(self) -> None:
        """Check the mode and the numbers."""
        if self.mode not in _MODES:
            raise ValueError(f"mode: expected {', '.join(_MODES)}; got {self.mode!r}")
        for name in ("num_angles", "num_turns", "num_templates", "chunk_size", "places"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")


class Hypotheses(NamedTuple):
    """What matching a crop gave.

    Args:
        groups: sets of correspondences that may each be the object, the best supported first.
        reason: why there are none; else empty.
    """

    groups: list[Correspondences]
    reason: str = ""


class VPOGMatcher:
    """Finds sets of 2-D to 3-D correspondences between a picture and the objects of cards.

    Args:
        model: the network, of mode ``asymmetric``.
        settings: how crops are searched.
        turn: how far the network's training turned a query against its templates, radians.
        device: where it runs.
        name: of the weights, for people.

    Raises:
        ValueError: a network of mode ``joint``.

    Example:
        >>> model = VPOGModel({"name": "tiny", "dim": 32, "depth": 1, "num_heads": 2}, image_size=64, depth=1,
        ...                   num_heads=2, flow_hidden_dim=32, flow_layers=1)
        >>> VPOGMatcher(model, turn=0.55).num_angles
        8
    """

    def __init__(
        self,
        model: VPOGModel,
        settings: MatchSettings | None = None,
        *,
        turn: float = math.pi,
        device: str | torch.device = "cpu",
        name: str = "untrained",
    ) -> None:
        if model.attention.mode != "asymmetric":
            raise ValueError(
                f"model: expected one of mode asymmetric, whose templates a card can keep, "
                f"got {model.attention.mode}"
            )
        self.settings = settings or MatchSettings()
        self.model = model.to(device).eval()
        self.device, self.name, self.turn = torch.device(device), name, turn
        self._builder = CorrespondenceBuilder(
            model.patch_size,
            use_soft_matching=self.settings.use_soft_matching,
            conf_threshold=self.settings.conf_threshold,
            flow_threshold=self.settings.flow_threshold,
        )
        self._known: dict[str, tuple[tuple[Template, ...], CardFeatures]] = {}

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        settings: MatchSettings | None = None,
        *,
        device: str | torch.device = "cpu",
    ) -> VPOGMatcher:
        """A matcher of a file of weights, which says how far its training turned the queries.

        Args:
            path: a ``.safetensors`` file of a :class:`VPOGModel`.
            settings: how crops are searched.
            device: where it runs.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds another model, one with another encoder, or foreign keys, which are listed;
                or the device is not here.
        """
        try:
            require_device(str(device))
        except RuntimeError as error:  # a word that PyTorch does not know
            raise ValueError(f"device: expected cpu or cuda, got {device!r}") from error
        stored = read_config(path)
        if stored.kind != VPOGModel.__name__:
            raise ValueError(f"{path}: expected weights of a {VPOGModel.__name__}, got a {stored.kind}")
        try:
            model = VPOGModel(**stored.config)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error
        load_weights(model, path)
        turn = float(stored.extra.get("turn", math.pi))
        return cls(model, settings, turn=turn, device=device, name=Path(path).stem)

    @property
    def num_angles(self) -> int:
        """Turns at which a crop is encoded."""
        if self.settings.num_angles is not None:
            return self.settings.num_angles
        return 1 if self.turn >= math.pi else math.ceil(_OVERLAP * math.pi / self.turn)

    @property
    def errors_in_common(self) -> float:
        """The places of one patch come from one pair of tokens, and err together."""
        return float(self.settings.places**2)

    @cached_property
    def fingerprint(self) -> str:
        """What tells these weights from all others: features that a card keeps are of one fingerprint."""
        return weights_fingerprint(self.model, self.model.config)

    def known(self, card: ObjectCard) -> CardFeatures:
        """What is known of a card's templates: computed once for these weights, and kept with the card."""
        held = self._known.get(card.name)
        if held is None or held[0] is not card.templates:
            held = card.templates, card_features(self.model, card, self.fingerprint, self.device)
            self._known[card.name] = held
        return held[1]

    def extend(self, card: ObjectCard) -> None:
        """Take in the newest templates of a card that has grown."""
        held = self._known.get(card.name)
        if held is not None and card.templates[: len(held[0])] == held[0]:
            self._known[card.name] = card.templates, extended(held[1], self.model, card)
        else:
            self.known(card)

    def describe(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """The picture itself: what is computed depends on where an object is looked for."""
        return image

    def match(
        self,
        features: UInt8[np.ndarray, "h w 3"],
        card: ObjectCard,
        *,
        box: Float[Tensor, "4"] | None = None,
        max_groups: int = 4,
    ) -> list[Correspondences]:
        """Sets of correspondences that may each be the object, the best supported first.

        Args:
            features: the picture, ``(h, w, 3)`` uint8 RGB.
            card: the object.
            box: ``xyxy`` pixels around the object; the whole picture when not given.
            max_groups: how many at the most.

        Returns:
            Them; :meth:`search` says why where there are none.
        """
        return self.search(features, card, box=box).groups[:max_groups]

    @torch.no_grad()
    def search(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        card: ObjectCard,
        *,
        box: Float[Tensor, "4"] | None = None,
        direction: Float[Tensor, "3"] | None = None,
    ) -> Hypotheses:
        """All hypotheses of a crop.

        Args:
            image: ``(h, w, 3)`` uint8 RGB.
            card: the object.
            box: ``xyxy`` pixels around the object; the whole picture when not given.
            direction: ``(3,)`` unit, from the object to where the camera is expected, object frame; in mode
                ``cluster`` its neighbours alone are looked at.

        Returns:
            Them, or the reason why there are none.

        Raises:
            ValueError: a direction in another mode.
        """
        if direction is not None and self.settings.mode != "cluster":
            raise ValueError(f"direction: expected mode cluster, got {self.settings.mode}")
        crops = self._crops(image, box)
        if isinstance(crops, str):
            return Hypotheses([], crops)
        known = self.known(card)
        tokens = self._encode(crops)
        if self.settings.mode == "global":
            chosen, attended = attend_to_all(
                self.model,
                tokens,
                known,
                num_turns=self.settings.num_turns,
                num_templates=self.settings.num_templates,
                chunk_size=self.settings.chunk_size,
            )
        else:
            near = None if direction is None else self._neighbours(direction, known)
            chosen = self._choose(tokens, known, near)
            attended = attend(self.model, tokens, known, chosen)
        affines = crops.crop_from_image[chosen.turns.cpu()]
        places = self.settings.places
        records = find_correspondences(self.model, attended, known, affines, self._builder, places=places)
        groups = hypotheses(records, known)
        if not groups:
            return Hypotheses([], _why_none(records, known))
        return Hypotheses(groups)

    @torch.no_grad()
    def rematch(
        self,
        features: UInt8[np.ndarray, "h w 3"],
        card: ObjectCard,
        camera: Camera,
        cam_from_obj: Float[Tensor, "4 4"],
        *,
        radius_px: float,
    ) -> Correspondences:
        """Match again where a pose expects the object, from its side and upright.

        Args:
            features: the picture, ``(h, w, 3)`` uint8 RGB.
            card: the object.
            camera: the picture's camera.
            cam_from_obj: the pose, metres.
            radius_px: how far a correspondence may lie from where the pose expects it, pixels.

        Returns:
            The correspondences of the neighbouring templates, none where the pose leaves the picture.
        """
        known = self.known(card)
        pose = cam_from_obj.detach().double().cpu()
        view = prior_view(pose, card.center.double())
        near = self._neighbours(view.direction, known)
        turn = in_plane_turn(pose[:3, :3], view, known.rotations[near[0]].cpu())
        affine = prior_affine(card, pose, camera, -float(turn), self.model.image_size)
        crops = None if affine is None else cut_crops(features, affine[None], self.model.image_size)
        if crops is None:
            return no_matches()
        chosen = Chosen(torch.zeros_like(near[:1]), near[None])
        attended = attend(self.model, self._encode(crops), known, chosen)
        found = find_correspondences(
            self.model, attended, known, crops.crop_from_image, self._builder, places=self.settings.places
        )[0]
        expected = camera.project(transform(pose, found.points_3d))
        return found.select((expected - found.points_2d).norm(dim=-1) <= radius_px)

    def _crops(self, image: np.ndarray, box: Tensor | None) -> Crops | str:
        """The turned crops of a box, or why there are none."""
        height, width = image.shape[:2]
        whole = torch.tensor([-0.5, -0.5, width - 0.5, height - 0.5], dtype=torch.float64)
        where = whole if box is None else box.double().cpu()
        if not bool(where.isfinite().all() & (where[2:] > where[:2]).all()):
            return f"the box has no extent: {where.tolist()}"
        if bool((where[2:] <= whole[:2]).any() | (where[:2] >= whole[2:]).any()):
            return f"the box lies outside the picture of {width}x{height}: {where.tolist()}"
        fill, size = (1.0 if box is None else self.settings.fill), self.model.image_size
        crops = cut_crops(image, box_affines(where, size, even_turns(self.num_angles), fill=fill), size)
        return "the box lies outside the picture" if crops is None else crops

    def _encode(self, crops: Crops) -> Tokens:
        return self.model.encode_query(crops.pictures.to(self.device))

    def _choose(self, tokens: Tokens, known: CardFeatures, near: Int[Tensor, " k"] | None) -> Chosen:
        """Turns and templates, of all or of some that are expected."""
        model, settings = self.model, self.settings
        query = model.coarse_head.project_query(tokens.tokens[:, : model.num_patches])
        among = known.coarse if near is None else known.coarse[near]
        scores = score_templates(model.coarse_head, query, among, model.num_patches)
        turns = 1 if settings.mode == "cluster" and near is None else settings.num_turns
        chosen = choose(scores, turns, settings.num_templates)
        return chosen if near is None else Chosen(chosen.turns, near[chosen.templates])

    def _neighbours(self, direction: Tensor, known: CardFeatures) -> Int[Tensor, " k"]:
        """The templates nearest to a direction, the nearest first."""
        selector = TemplateSelector(min(self.settings.num_templates, len(known)), 0)
        return selector.nearest(direction.to(known.cam_from_obj), known.cam_from_obj).indices


def _why_none(records: list[Correspondences], known: CardFeatures) -> str:
    most = max((len(each) for each in records), default=0)
    if most == 0:
        return f"none of {len(known)} templates shows what the crop shows"
    return f"{most} correspondences with a template at the most, at least 4 are needed"
