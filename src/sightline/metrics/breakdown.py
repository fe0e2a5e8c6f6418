"""One kind of figure over everything and for each object alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

Figure = TypeVar("Figure")


@dataclass(frozen=True, eq=False)
class Breakdown(Generic[Figure]):
    """A figure over everything and for each object alone.

    Args:
        overall: the figure over all objects together (not the mean of theirs).
        by_object: object -> its figure, in alphabetical order.

    Example:
        >>> Breakdown(overall=3, by_object={"mug": 1, "box": 2}).by_object["box"]
        2
    """

    overall: Figure
    by_object: dict[str, Figure]
