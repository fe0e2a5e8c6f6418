"""The classical matcher: needs no weights, and is the baseline that learned matchers must beat."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sightline.geometry.cameras import Camera
from sightline.objects.card import ObjectCard
from sightline.records import Correspondences
from sightline.sift.bank import FeatureBank, build_bank, extend_bank
from sightline.sift.features import Features, extract_features
from sightline.sift.hypotheses import group_matches
from sightline.sift.matching import guided_matches, match_features


class SiftMatcher:
    """Finds groups of 2-D to 3-D correspondences between a picture and the objects of some cards.

    Args:
        cards: the objects; their feature banks are read or built once.
        max_features: of a picture.
        max_ratio: of Lowe's test.

    Example:
        >>> matcher = SiftMatcher([])
        >>> len(matcher.describe(np.zeros((32, 32, 3), np.uint8)))
        0
    """

    def __init__(self, cards: list[ObjectCard], *, max_features: int = 4000, max_ratio: float = 0.85) -> None:
        self._banks = {card.name: build_bank(card) for card in cards}
        self._max_features = max_features
        self._max_ratio = max_ratio

    @property
    def errors_in_common(self) -> float:
        """Each correspondence errs by itself."""
        return 1.0

    def bank(self, card: ObjectCard) -> FeatureBank:
        """The feature bank of a card."""
        return self._banks[card.name]

    def extend(self, card: ObjectCard) -> None:
        """Take in the newest template of a card that has grown."""
        self._banks[card.name] = extend_bank(self._banks[card.name], card)

    def describe(self, image: NDArray[np.uint8]) -> Features:
        """The features of a picture, ``(h, w, 3)`` uint8 RGB; once a picture, for all objects."""
        return extract_features(image, max_features=self._max_features)

    def match(
        self,
        features: Features,
        card: ObjectCard,
        *,
        box: Float[Tensor, "4"] | None = None,
        max_groups: int = 4,
    ) -> list[Correspondences]:
        """Groups of matches that may each be one instance of an object, the best supported first.

        Args:
            features: the picture's.
            card: the object.
            box: ``xyxy`` pixels to look in; the whole picture when not given.
            max_groups: how many at the most.

        Returns:
            Up to ``max_groups`` sets of correspondences, none where nothing agrees.
        """
        if box is not None:
            x, y = features.points.unbind(1)
            features = features.select((x >= box[0]) & (y >= box[1]) & (x <= box[2]) & (y <= box[3]))
        bank = self._banks[card.name]
        matches = match_features(features, bank, diameter=card.diameter, max_ratio=self._max_ratio)
        groups = group_matches(matches, features, bank, max_groups=max_groups)
        return [matches.select(group).correspondences(features, bank) for group in groups]

    def rematch(
        self,
        features: Features,
        card: ObjectCard,
        camera: Camera,
        cam_from_obj: Float[Tensor, "4 4"],
        *,
        radius_px: float,
    ) -> Correspondences:
        """Match again near where a pose expects the object's features.

        Args:
            features: the picture's.
            card: the object.
            camera: the picture's camera.
            cam_from_obj: the pose, metres.
            radius_px: how far off a feature may lie, pixels.

        Returns:
            At most one correspondence for each feature of the picture.
        """
        bank = self._banks[card.name]
        matches = guided_matches(features, bank, camera, cam_from_obj, radius_px=radius_px)
        return matches.correspondences(features, bank)
