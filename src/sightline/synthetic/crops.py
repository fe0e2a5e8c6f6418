"""Crops of one object, as a card shows it and as a picture does: what a descriptor learns from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sightline.nn.pictures import float_picture
from sightline.synthetic.backdrops import BackdropBank
from sightline.synthetic.layers import Look, draw_backdrop
from sightline.synthetic.pasting import Patch, blend, make_patch
from sightline.synthetic.sensor import SensorSettings, expose
from sightline.synthetic.sprites import SpriteBank

_COVER_FILL = (0.2, 0.45)  # longer side of what lies over the object, in shares of the crop


class CropSet(NamedTuple):
    """Crops of one object.

    Args:
        number: the object's, in its bank.
        templates: ``(t, 3, s, s)`` float32 RGB in [0, 1]; the first shows most of what the picture shows.
        template_masks: ``(t, s, s)`` float32 in [0, 1], where the object is.
        pictures: ``(2, 3, s, s)`` the object in a picture, and its look-alike in another.
    """

    number: int
    templates: Float[Tensor, "t 3 s s"]
    template_masks: Float[Tensor, "t s s"]
    pictures: Float[Tensor, "2 3 s s"]


@dataclass(frozen=True)
class CropSettings:
    """What crops are like; each draws its own values.

    Args:
        size: side of a crop, pixels.
        num_templates: templates of an object.
        near_views: the first template is one of so many views nearest to the picture's.
        template_fill: (least, largest) longer side of the object in a template, in shares of the crop.
        picture_fill: the same in a picture.
        plain_share: share of objects whose templates are unlit and on black, as in an object card.
        turn_share: chance that the object in a picture is turned by any angle.
        coarse_share: chance that a picture was taken from afar, with fewer pixels than the crop has.
        coarsest: least share of the crop's pixels on a side that such a picture has.
        cover_share: chance that another object hides a part of it in a picture.
        recolor_share: chance that a set's colour channels are swapped.
        mirror_share: chance that a set is mirrored.
        sensor: the camera's faults.
    """

    size: int = 96
    num_templates: int = 2
    near_views: int = 3
    template_fill: tuple[float, float] = (0.75, 0.95)
    picture_fill: tuple[float, float] = (0.5, 1.0)
    plain_share: float = 0.7
    turn_share: float = 0.6
    coarse_share: float = 0.4
    coarsest: float = 0.4
    cover_share: float = 0.3
    recolor_share: float = 0.4
    mirror_share: float = 0.5
    sensor: SensorSettings = field(
        default_factory=lambda: SensorSettings((0.7, 1.3), 0.15, (0.0, 0.8), (0.0, 5.0), jpeg_quality=None)
    )


class Crops:
    """Numbered sets of crops; a set depends on its number, the object's, and the generator alone.

    Args:
        bank: the objects.
        backdrops: what lies behind them.
        settings: what the crops are like.

    Example:
        >>> from sightline.synthetic.sprites import SpriteSettings
        >>> bank = SpriteBank(2, settings=SpriteSettings(32, 2, 2, 1))
        >>> crops = Crops(bank, BackdropBank(1, image_size=(64, 48)), CropSettings(size=32))
        >>> crops.draw(1, np.random.default_rng(0)).templates.shape
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

    def draw(self, number: int, rng: np.random.Generator) -> CropSet:
        """The crops of an object.

        Args:
            number: the object's.
            rng: draws everything.
        """
        settings, sprites = self.settings, self.bank[number]
        look = Look.draw(rng, settings.recolor_share, settings.mirror_share)
        seen = int(rng.integers(len(sprites.lit)))
        plain = bool(rng.uniform() < settings.plain_share)
        views = sprites.choose_views(rng, seen, settings.num_templates, plain=plain, near=settings.near_views)
        templates = [self._draw_template(rng, view, look, plain=plain) for view in views]
        pictures, masks = zip(*templates, strict=True)
        shown = self.draw_pictures(number, rng, look, seen)
        return CropSet(number, torch.stack(pictures), torch.stack(masks), shown)

    def draw_pictures(
        self, number: int, rng: np.random.Generator, look: Look, seen: int
    ) -> Float[Tensor, "2 3 s s"]:
        """The object in a picture, and its look-alike in another.

        Args:
            number: the object's.
            rng: draws the rest.
            look: of both.
            seen: which of the object's lit views is shown.
        """
        settings, sprites = self.settings, self.bank[number]
        fake = sprites.lookalike[int(rng.integers(len(sprites.lookalike)))]
        crops = []
        for view in (sprites.lit[seen], fake):
            turned = bool(rng.uniform() < settings.turn_share)
            crops.append(self._draw_picture(rng, number, view, look, turned=turned))
        return torch.stack(crops)

    def _draw_template(
        self, rng: np.random.Generator, view: np.ndarray, look: Look, *, plain: bool
    ) -> tuple[Tensor, Tensor]:
        """A template and where the object is in it."""
        settings, size = self.settings, self.settings.size
        canvas, mask = np.zeros((size, size, 3), np.float32), np.zeros((size, size, 3), np.float32)
        if not plain:
            canvas = draw_backdrop(rng, self.backdrops, (size, size), zoom=(1.5, 4.0))
        patch, place = self._lay(rng, canvas, view, look, settings.template_fill)
        white = replace(patch, layers=np.repeat(patch.layers[..., 3:], 4, axis=2))
        blend(mask, white, place)
        drawn = canvas.clip(0, 255).astype(np.uint8) if plain else expose(canvas, rng, settings.sensor)
        return float_picture(drawn), torch.from_numpy(mask[..., 0].copy()).div_(255)

    def _draw_picture(
        self, rng: np.random.Generator, number: int, view: np.ndarray, look: Look, *, turned: bool
    ) -> Tensor:
        """An object in a picture, over which another may be laid."""
        size = (self.settings.size, self.settings.size)
        canvas = draw_backdrop(rng, self.backdrops, size, zoom=(1.5, 4.0))
        self._lay(rng, canvas, view, look, self.settings.picture_fill, turned=turned)
        if rng.uniform() < self.settings.cover_share:
            other = (number + int(rng.integers(1, len(self.bank)))) % len(self.bank)
            cover = self.bank[other].lit
            over = cover[int(rng.integers(len(cover)))]
            self._lay(rng, canvas, over, Look(), _COVER_FILL, turned=True)
        return float_picture(self._expose(canvas, rng))

    def _expose(self, canvas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """What a camera makes of it, from afar at times."""
        settings, size = self.settings, (self.settings.size, self.settings.size)
        if rng.uniform() >= settings.coarse_share:
            return expose(canvas, rng, settings.sensor)
        side = round(settings.size * float(rng.uniform(settings.coarsest, 1.0)))
        few = cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA)
        return cv2.resize(expose(few, rng, settings.sensor), size, interpolation=cv2.INTER_LINEAR)

    def _lay(
        self,
        rng: np.random.Generator,
        canvas: np.ndarray,
        view: np.ndarray,
        look: Look,
        fill: tuple[float, float],
        *,
        turned: bool = False,
    ) -> tuple[Patch, tuple[int, int]]:
        """Lay an object over the canvas; what was laid, and where."""
        size = self.settings.size
        angle = rng.uniform(0, 2 * np.pi) if turned else np.radians(rng.normal(0, 8))
        patch = make_patch(
            np.asarray(view), size * float(rng.uniform(*fill)), float(angle), mirrored=look.mirrored
        )
        if patch is None:
            raise ValueError("sprites: expected views that show the object, got an empty one")
        room = [size - extent for extent in patch.size]
        x, y = (int(rng.integers(min(0, r), max(0, r) + 1)) for r in room)
        blend(canvas, patch, (x, y), gain=float(rng.uniform(0.75, 1.2)), channels=look.channels)
        return patch, (x, y)
