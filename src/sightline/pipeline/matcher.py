"""What a pose estimator is put together from: a matcher, and what says where to look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sightline.geometry.cameras import Camera
from sightline.objects.card import ObjectCard
from sightline.records import Correspondences

PictureFeatures: TypeAlias = Any
"""What a matcher computes once a picture; each room has its own."""


@runtime_checkable
class Matcher(Protocol):
    """What a matcher room offers: ``sift`` is one, learned rooms are others."""

    @property
    def errors_in_common(self) -> float:
        """How many neighbouring correspondences err together and so count as one in a pose's covariance."""
        ...

    def describe(self, image: NDArray[np.uint8]) -> PictureFeatures:
        """Compute what is computed once a picture, ``(h, w, 3)`` uint8 RGB."""
        ...

    def extend(self, card: ObjectCard) -> None:
        """Take in the newest template of a card that has grown."""
        ...

    def match(
        self,
        features: PictureFeatures,
        card: ObjectCard,
        *,
        box: Float[Tensor, "4"] | None = None,
        max_groups: int = 4,
    ) -> list[Correspondences]:
        """Sets of correspondences, one a possible instance, the best supported first."""
        ...

    def rematch(
        self,
        features: PictureFeatures,
        card: ObjectCard,
        camera: Camera,
        cam_from_obj: Float[Tensor, "4 4"],
        *,
        radius_px: float,
    ) -> Correspondences:
        """Correspondences near where a pose expects them."""
        ...


@runtime_checkable
class BoxFinder(Protocol):
    """What says where to look: a detector that knows the objects."""

    def find_boxes(
        self, image: NDArray[np.uint8], cards: Sequence[ObjectCard]
    ) -> dict[str, Float[Tensor, "n 4"]]:
        """Boxes ``xyxy`` in pixels where each of some objects may be, by its name, the likeliest first."""
        ...
