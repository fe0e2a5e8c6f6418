"""Pairs of crops of one object, as a card shows it and as a picture does: what a descriptor learns from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sightline.synthetic.backdrops import BackdropBank
from sightline.synthetic.layers import Look, draw_backdrop
from sightline.synthetic.pasting import blend, make_patch
from sightline.synthetic.sensor import SensorSettings, expose
from sightline.synthetic.sprites import SpriteBank


class CropPair(NamedTuple):
    """Two crops of one object, in different views.

    Args:
        number: the object's, in its bank.
        images: ``(2, 3, s, s)`` float32 RGB in [0, 1]: as a template, and in a picture.
        masks: ``(2, s, s)`` float32 in [0, 1], where the object is visible.
    """

    number: int
    images: Float[Tensor, "2 3 s s"]
    masks: Float[Tensor, "2 s s"]


@dataclass(frozen=True)
class CropSettings:
    """What crops are like; each draws its own values.

    Args:
        size: side of a crop, pixels.
        template_fill: (least, largest) longer side of the object in a template, in shares of the crop.
        picture_fill: the same in a picture.
        plain_share: share of templates that are unlit and on black, as in an object card.
        turn_share: chance that the object in a picture is turned by any angle.
        cover_share: chance that another object hides a part of it in a picture.
        recolor_share: chance that a pair's colour channels are swapped.
        mirror_share: chance that a pair is mirrored.
        sensor: the camera's faults.
    """

    size: int = 64
    template_fill: tuple[float, float] = (0.75, 0.95)
    picture_fill: tuple[float, float] = (0.35, 1.0)
    plain_share: float = 0.5
    turn_share: float = 0.6
    cover_share: float = 0.3
    recolor_share: float = 0.4
    mirror_share: float = 0.5
    sensor: SensorSettings = field(
        default_factory=lambda: SensorSettings((0.7, 1.3), 0.15, (0.0, 0.8), (0.0, 5.0), jpeg_quality=None)
    )


class CropPairs:
    """Numbered pairs; a pair depends on its number, the object's, and the generator alone.

    Args:
        bank: the objects.
        backdrops: what lies behind them.
        settings: what the crops are like.

    Example:
        >>> from sightline.synthetic.sprites import SpriteSettings
        >>> bank = SpriteBank(2, settings=SpriteSettings(32, 2, 1, 1))
        >>> pairs = CropPairs(bank, BackdropBank(1, image_size=(64, 48)), CropSettings(size=32))
        >>> pairs.draw(1, np.random.default_rng(0)).images.shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self, bank: SpriteBank, backdrops: BackdropBank, settings: CropSettings | None = None
    ) -> None:
        if bank.split != backdrops.split:
            raise ValueError(f"backdrops: expected those of split {bank.split!r}, got {backdrops.split!r}")
        self.bank, self.backdrops, self.settings = bank, backdrops, settings or CropSettings()

    def __len__(self) -> int:
        return len(self.bank)

    def draw(self, number: int, rng: np.random.Generator) -> CropPair:
        """A pair of an object.

        Args:
            number: the object's.
            rng: draws everything.
        """
        settings, sprites = self.settings, self.bank[number]
        look = Look.draw(rng, settings.recolor_share, settings.mirror_share)
        lit = rng.permutation(len(sprites.lit))
        plain = bool(rng.uniform() < settings.plain_share)
        view = sprites.plain[int(rng.integers(len(sprites.plain)))] if plain else sprites.lit[lit[0]]
        template = self._draw(rng, np.asarray(view), look, settings.template_fill, plain=plain)
        turned = bool(rng.uniform() < settings.turn_share)
        seen = np.asarray(sprites.lit[lit[-1]])
        picture = self._draw(rng, seen, look, settings.picture_fill, turned=turned, number=number)
        images, masks = zip(template, picture, strict=True)
        return CropPair(number, torch.stack(images), torch.stack(masks))

    def _draw(
        self,
        rng: np.random.Generator,
        view: np.ndarray,
        look: Look,
        fill: tuple[float, float],
        *,
        plain: bool = False,
        turned: bool = False,
        number: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """One crop with its mask; with a number another object may be laid over this one."""
        size = self.settings.size
        canvas = np.zeros((size, size, 3), np.float32)
        if not plain:
            canvas = draw_backdrop(rng, self.backdrops, (size, size), zoom=(1.5, 4.0))
        mask = np.zeros((size, size, 3), np.float32)
        self._lay(rng, canvas, mask, view, look, fill, turned=turned, white=True)
        if number is not None and rng.uniform() < self.settings.cover_share:
            other = (number + int(rng.integers(1, len(self.bank)))) % len(self.bank)
            cover = self.bank[other].lit
            over = np.asarray(cover[int(rng.integers(len(cover)))])
            self._lay(rng, canvas, mask, over, Look(), (0.2, 0.45), turned=True, white=False)
        drawn = canvas.clip(0, 255).astype(np.uint8) if plain else expose(canvas, rng, self.settings.sensor)
        picture = torch.from_numpy(np.ascontiguousarray(drawn.transpose(2, 0, 1))).float().div_(255)
        return picture, torch.from_numpy(mask[..., 0].copy()).div_(255)

    def _lay(
        self,
        rng: np.random.Generator,
        canvas: np.ndarray,
        mask: np.ndarray,
        view: np.ndarray,
        look: Look,
        fill: tuple[float, float],
        *,
        turned: bool,
        white: bool,
    ) -> None:
        """Lay an object over the canvas, and over the mask in white or black."""
        size = self.settings.size
        angle = rng.uniform(0, 2 * np.pi) if turned else np.radians(rng.normal(0, 8))
        patch = make_patch(view, size * float(rng.uniform(*fill)), float(angle), mirrored=look.mirrored)
        if patch is None:
            raise ValueError("sprites: expected views that show the object, got an empty one")
        room = [size - extent for extent in patch.size]
        x, y = (int(rng.integers(min(0, r), max(0, r) + 1)) for r in room)
        blend(canvas, patch, (x, y), gain=float(rng.uniform(0.75, 1.2)), channels=look.channels)
        layers = patch.layers.copy()
        layers[..., :3] = layers[..., 3:] if white else 0
        blend(mask, replace(patch, layers=layers), (x, y))
