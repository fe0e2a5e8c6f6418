"""The search picture of a composite while it is being laid: who covers whom, and by how much."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from sightline.synthetic.backdrops import BackdropBank
from sightline.synthetic.pasting import Patch, blend, darken, overlap

_TRIES = 6
_MARGIN_PX = 1


@dataclass(frozen=True)
class Look:
    """How an object differs from its sprites, alike wherever it is seen.

    Args:
        channels: which of the sprite's channels become red, green and blue.
        mirrored: whether left and right are swapped.
    """

    channels: tuple[int, int, int] = (0, 1, 2)
    mirrored: bool = False

    @classmethod
    def draw(cls, rng: np.random.Generator, recolor_share: float, mirror_share: float) -> Look:
        """A look with chances for other colours and for a mirror.

        Example:
            >>> Look.draw(np.random.default_rng(0), 0.0, 0.0) == Look()
            True
        """
        order = rng.permutation(3) if rng.uniform() < recolor_share else range(3)
        red, green, blue = (int(channel) for channel in order)
        return cls((red, green, blue), bool(rng.uniform() < mirror_share))


@dataclass(eq=False)
class _Laid:
    """A patch on the canvas; of one that is wanted what is still visible."""

    patch: Patch
    corner: tuple[int, int]
    wanted: bool
    visible: np.ndarray


class SceneLayers:
    """A canvas on which patches are laid one over the other, as long as targets stay visible enough.

    Args:
        canvas: ``(h, w, 3)`` float32 RGB, 0 to 255; drawn on.
        min_visible: least share of a target's silhouette that must stay visible.

    Example:
        >>> layers = SceneLayers(np.zeros((48, 64, 3), np.float32), 0.5)
        >>> square = Patch(np.full((8, 8, 4), 255, np.uint8), np.ones((8, 8), bool))
        >>> rng = np.random.default_rng(0)
        >>> layers.place(rng, square, Look(), 1.0, wanted=True), len(layers.boxes())
        (True, 1)
    """

    def __init__(self, canvas: np.ndarray, min_visible: float) -> None:
        self.canvas, self.min_visible = canvas, min_visible
        self.size = (canvas.shape[1], canvas.shape[0])
        self._laid: list[_Laid] = []
        self._shadow: tuple[float, float, float, float] | None = None

    def draw_shadows(self, rng: np.random.Generator, share: float, scale: float) -> None:
        """Choose whether what is laid from now on throws a shadow, and where it falls."""
        angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.3)
        strength, softness = rng.uniform(0.2, 0.55), rng.uniform(1.0, 8.0) * scale
        if rng.uniform() < share:
            self._shadow = (reach * np.cos(angle), reach * abs(np.sin(angle)), strength, softness)

    def place(
        self,
        rng: np.random.Generator,
        patch: Patch,
        look: Look,
        gain: float,
        *,
        wanted: bool,
        cut: float = 0.0,
        before: bool = False,
    ) -> bool:
        """Lay a patch where it hides no target too much, if such a place is found.

        Args:
            rng: draws the place.
            patch: what is laid.
            look: its colours.
            gain: factor on its brightness.
            wanted: whether it is a target.
            cut: share of its box by which a target may leave the picture; others may by half.
            before: whether to try the edge of what lies there already, targets first.

        Returns:
            Whether it was laid.
        """
        for _ in range(_TRIES):
            corner = self._spot_before(rng, patch) if before else None
            corner = corner or self._spot(rng, patch, cut if wanted else 0.5)
            shares = self._shares_after(patch, corner)
            own = _inside(patch, corner, self.size) / max(int(patch.solid.sum()), 1)
            if min([*shares, own if wanted else 1.0]) >= self.min_visible:
                self._lay(patch, corner, look, gain, wanted)
                return True
        return False

    def boxes(self) -> list[list[float]]:
        """``xyxy`` pixels around the whole silhouette of each target; may leave the picture."""
        return [
            [x - 0.5, y - 0.5, x + each.patch.size[0] - 0.5, y + each.patch.size[1] - 0.5]
            for each in self._laid
            if each.wanted
            for x, y in [each.corner]
        ]

    def visible_shares(self) -> list[float]:
        """Of each target's silhouette the share that is seen."""
        return [float(each.visible.sum() / each.patch.solid.sum()) for each in self._laid if each.wanted]

    def _spot(self, rng: np.random.Generator, patch: Patch, cut: float) -> tuple[int, int]:
        """A corner so that at most a share of the patch's width and height leaves the picture."""
        x, y = (
            _between(rng, _MARGIN_PX - round(cut * side), whole - side - _MARGIN_PX + round(cut * side))
            for side, whole in zip(patch.size, self.size, strict=True)
        )
        return x, y

    def _spot_before(self, rng: np.random.Generator, patch: Patch) -> tuple[int, int] | None:
        """A corner with which the patch lies at the edge of something, of a target if there is one."""
        below = [each for each in self._laid if each.wanted] or self._laid
        if not below:
            return None
        chosen = below[int(rng.integers(len(below)))]
        angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 1.0)
        way = (np.cos(angle), np.sin(angle))
        x, y = (
            int(corner + side / 2 - own / 2 + reach * step * (side + own) / 2)
            for corner, side, own, step in zip(chosen.corner, chosen.patch.size, patch.size, way, strict=True)
        )
        return x, y

    def _shares_after(self, patch: Patch, corner: tuple[int, int]) -> list[float]:
        """Visible shares of the targets, were the patch laid here."""
        return [
            float(
                (each.visible.sum() - (each.visible[there] & patch.solid[part]).sum())
                / each.patch.solid.sum()
            )
            for each in self._laid
            if each.wanted
            for there, part in [self._meeting(each, patch, corner)]
        ]

    def _lay(self, patch: Patch, corner: tuple[int, int], look: Look, gain: float, wanted: bool) -> None:
        if self._shadow is not None:
            dx, dy, strength, softness = self._shadow
            longer = max(patch.size)
            fallen = (corner[0] + round(dx * longer), corner[1] + round(dy * longer))
            darken(self.canvas, patch, fallen, strength=strength, softness=softness)
        blend(self.canvas, patch, corner, gain=gain, channels=look.channels)
        for each in self._laid:
            there, part = self._meeting(each, patch, corner)
            each.visible[there] &= ~patch.solid[part]
        visible = np.zeros_like(patch.solid)
        _, inside = overlap(corner, patch.size, self.size)
        visible[inside] = patch.solid[inside]
        self._laid.append(_Laid(patch, corner, wanted, visible))

    def _meeting(
        self, below: _Laid, patch: Patch, corner: tuple[int, int]
    ) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Where a patch lies on one that was laid before, and which part of it does."""
        place = (corner[0] - below.corner[0], corner[1] - below.corner[1])
        return overlap(place, patch.size, below.patch.size)


def _between(rng: np.random.Generator, low: int, high: int) -> int:
    """A whole number in [low, high]; the middle where there is none."""
    return int(rng.integers(low, high + 1)) if low <= high else (low + high) // 2


def _inside(patch: Patch, corner: tuple[int, int], frame: tuple[int, int]) -> int:
    _, part = overlap(corner, patch.size, frame)
    return int(patch.solid[part].sum())


def draw_backdrop(
    rng: np.random.Generator,
    backdrops: BackdropBank,
    size: tuple[int, int],
    *,
    zoom: tuple[float, float] = (1.0, 1.6),
) -> np.ndarray:
    """A part of one of the bank's pictures, perhaps mirrored, in other colours.

    Args:
        rng: draws it.
        backdrops: the bank.
        size: ``(width, height)`` pixels.
        zoom: how many times smaller than the whole picture the part is, at least and at most.

    Returns:
        ``(h, w, 3)`` float32 RGB, 0 to 255.

    Example:
        >>> bank = BackdropBank(1, image_size=(64, 48))
        >>> draw_backdrop(np.random.default_rng(0), bank, (32, 32)).shape
        (32, 32, 3)
    """
    picture = backdrops.pictures[int(rng.integers(len(backdrops)))]
    height, width = picture.shape[:2]
    scale = min(width / size[0], height / size[1]) / rng.uniform(*zoom)
    wide, tall = max(1, int(size[0] * scale)), max(1, int(size[1] * scale))
    x, y = int(rng.integers(0, width - wide + 1)), int(rng.integers(0, height - tall + 1))
    part = picture[y : y + tall, x : x + wide, :]
    way = cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR
    drawn = cv2.resize(part, size, interpolation=way)
    if rng.uniform() < 0.5:
        drawn = drawn[:, ::-1]
    if rng.uniform() < 0.3:
        drawn = drawn[..., rng.permutation(3)]
    return np.multiply(drawn, np.float32(rng.uniform(0.7, 1.15)), dtype=np.float32, order="C")
