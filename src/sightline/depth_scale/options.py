"""How size and depth are read, checked once, and why a sample may not count."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, get_args

from sightline.depth_scale.measures import ScaleMeasure
from sightline.depth_scale.statistics import DepthStat

DepthMode = Literal["inv_depth", "depth"]
"""Whether a depth map holds inverse depth, larger where nearer, or depth."""

DepthOf = Literal["target", "pred", "context"]
"""The picture that a depth map is of: with the object as it should be, as predicted, or without it."""

BorderPolicy = Literal["keep", "ignore", "one_sided"]
"""What becomes of a mask that the picture's border cuts off."""

CONTEXT_BAND = 0.15  # of the mask's height: the feet of a standing object, some rows at least


class Invalid(IntEnum):
    """Why a sample does not count; 0 where it does."""

    NO = 0
    MASK_NOT_FINITE = 1
    MASK_EMPTY = 2
    NO_DEPTH = 3
    DEPTH_NOT_POSITIVE = 4
    FOCAL = 5
    CONSTANT = 6
    TRUNCATED = 7


REASONS = {
    Invalid.MASK_NOT_FINITE: "the mask holds NaN or infinity",
    Invalid.MASK_EMPTY: "the mask is empty",
    Invalid.NO_DEPTH: "there is no depth under the mask",
    Invalid.DEPTH_NOT_POSITIVE: "the depth under the mask is not positive; a z-score makes it so",
    Invalid.FOCAL: "the focal length is not a positive number",
    Invalid.CONSTANT: "the object's constant is not a positive number, or the table has no such object",
    Invalid.TRUNCATED: "the mask is cut off by the picture's border",
}
"""Each reason in words."""


@dataclass(frozen=True, kw_only=True)
class ScaleOptions:
    """How size and depth are read; checked once, where it is made.

    Args:
        depth_mode: what the depth maps hold.
        depth_stat: how they are reduced to one number, see
            :func:`sightline.depth_scale.statistics.depth_statistic`.
        scale_measure: which length of the mask is its size.
        quantile: of the median.
        midpoint: whether an even median is the middle of both.
        trim: share left out on each side by the trimmed mean.
        depth_of: of which picture the depth maps are. ``context`` reads depth in the contact band, because
            behind the mask that picture shows the background and not the object.
        contact_band: share of the mask's height, from below, in which depth is read; None reads all of it,
            but a band of 0.15 with ``depth_of="context"``.
        border_policy: ``keep`` counts a mask that the border cuts off, ``ignore`` makes it invalid,
            ``one_sided`` takes its size for a lower bound of the true one.
        zero_is_missing: whether depth that is not positive is missing; None: in ``depth`` mode, where no
            depth can be 0, but not in ``inv_depth`` mode, where 0 is very far.
        detach_depth: stop gradients into the depth map.
        detach_stat: stop gradients into the mask through *where* depth is read. Without it a mask can change
            its expected size by sliding to nearer or farther pixels.

    Raises:
        ValueError: an unknown mode, statistic, measure or policy.
    """

    depth_mode: DepthMode | str = "inv_depth"
    depth_stat: DepthStat | str = "median"
    scale_measure: ScaleMeasure | str = "sqrt_area"
    quantile: float = 0.5
    midpoint: bool = False
    trim: float = 0.1
    depth_of: DepthOf | str = "target"
    contact_band: float | None = None
    border_policy: BorderPolicy | str = "keep"
    zero_is_missing: bool | None = None
    detach_depth: bool = True
    detach_stat: bool = True

    def __post_init__(self) -> None:
        for name, choices in (
            ("depth_mode", DepthMode),
            ("depth_stat", DepthStat),
            ("scale_measure", ScaleMeasure),
            ("depth_of", DepthOf),
            ("border_policy", BorderPolicy),
        ):
            if getattr(self, name) not in get_args(choices):
                expected = ", ".join(get_args(choices))
                raise ValueError(f"{name}: expected one of {expected}, got {getattr(self, name)!r}")

    @property
    def band(self) -> float | None:
        """The contact band that holds: the one given, or that of a context picture."""
        return CONTEXT_BAND if self.contact_band is None and self.depth_of == "context" else self.contact_band

    @property
    def drops_zeros(self) -> bool:
        """Whether depth that is not positive counts as missing."""
        return self.depth_mode == "depth" if self.zero_is_missing is None else self.zero_is_missing
