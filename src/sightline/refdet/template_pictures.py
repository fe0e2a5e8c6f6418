"""The templates of a composite: other views of its target, as object cards or as photographs show them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sightline.nn.pictures import float_picture
from sightline.synthetic.backdrops import BackdropBank
from sightline.synthetic.layers import Look, draw_backdrop
from sightline.synthetic.pasting import Patch, blend, make_patch
from sightline.synthetic.sensor import SensorSettings, expose
from sightline.synthetic.sprites import ObjectSprites


@dataclass(frozen=True)
class TemplateSettings:
    """What templates are like.

    Args:
        size: ``(width, height)`` pixels.
        number: (least, largest) number of templates.
        near_views: the first template is one of so many views nearest to the picture's.
        plain_share: share of samples whose templates are unlit, as in an object card, on black.
        mask_share: share of samples with masks; the others know nothing of where the object is.
        margin: (least, largest) margin around the object, in shares of its longer side.
        turn_share: chance that a template is turned by any angle; the others are upright.
        sensor: the camera's faults of lit templates.
    """

    size: tuple[int, int] = (128, 128)
    number: tuple[int, int] = (1, 8)
    near_views: int = 3
    plain_share: float = 0.5
    mask_share: float = 0.85
    margin: tuple[float, float] = (0.05, 0.2)
    turn_share: float = 0.2
    sensor: SensorSettings = field(
        default_factory=lambda: SensorSettings((0.75, 1.25), 0.12, (0.0, 0.8), (0.0, 4.0), jpeg_quality=None)
    )

    def __post_init__(self) -> None:
        """Check the number."""
        if not 1 <= self.number[0] <= self.number[1]:
            raise ValueError(f"number: expected (least, largest) of at least 1, got {self.number}")


def draw_templates(
    rng: np.random.Generator,
    sprites: ObjectSprites,
    look: Look,
    backdrops: BackdropBank,
    settings: TemplateSettings,
    *,
    seen: int = 0,
    lit_rows: np.ndarray | None = None,
) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n h w"]]:
    """Draw the templates of one sample.

    Args:
        rng: draws everything.
        sprites: the object.
        look: how it differs from its sprites, as in the search picture.
        backdrops: what lies behind it where templates are photographs.
        settings: what they are like.
        seen: the lit view in the search picture, to which one template is near.
        lit_rows: which of the lit views may be shown; all unless given.

    Returns:
        ``(n, 3, h, w)`` float32 RGB in [0, 1] and ``(n, h, w)`` float32 masks in [0, 1].

    Example:
        >>> from sightline.synthetic.sprites import SpriteBank, SpriteSettings
        >>> sprites = SpriteBank(2, settings=SpriteSettings(32, 2, 1, 1))[0]
        >>> backdrops = BackdropBank(1, image_size=(64, 48))
        >>> few = TemplateSettings((24, 32), number=(3, 3))
        >>> draw_templates(np.random.default_rng(0), sprites, Look(), backdrops, few)[1].shape
        torch.Size([3, 32, 24])
    """
    count = int(rng.integers(settings.number[0], settings.number[1] + 1))
    plain, masked = rng.uniform() < settings.plain_share, rng.uniform() < settings.mask_share
    views = sprites.choose_views(
        rng, seen, count, plain=bool(plain), near=settings.near_views, lit_rows=lit_rows
    )
    pictures, masks = [], []
    for view in views:
        picture, mask = _draw(rng, view, look, backdrops, settings, plain=bool(plain))
        pictures.append(float_picture(picture))
        masks.append(torch.from_numpy(mask) if masked else torch.ones(*mask.shape))
    return torch.stack(pictures), torch.stack(masks)


def _draw(
    rng: np.random.Generator,
    view: np.ndarray,
    look: Look,
    backdrops: BackdropBank,
    settings: TemplateSettings,
    *,
    plain: bool,
) -> tuple[np.ndarray, np.ndarray]:
    angle = rng.uniform(0, 2 * np.pi) if rng.uniform() < settings.turn_share else np.radians(rng.normal(0, 8))
    patch = _fitted(view, float(angle), look, settings.size, float(rng.uniform(*settings.margin)))
    if patch is None:
        raise ValueError("sprites: expected views that show the object, got an empty one")
    width, height = settings.size
    corner = ((width - patch.size[0]) // 2, (height - patch.size[1]) // 2)
    canvas = np.zeros((height, width, 3), np.float32)
    if not plain:
        canvas = draw_backdrop(rng, backdrops, settings.size, zoom=(2.0, 4.0))
    blend(canvas, patch, corner, channels=look.channels)
    drawn = canvas.clip(0, 255).astype(np.uint8) if plain else expose(canvas, rng, settings.sensor)
    mask = np.zeros((height, width), np.float32)
    mask[corner[1] : corner[1] + patch.size[1], corner[0] : corner[0] + patch.size[0]] = (
        patch.layers[..., 3] / 255
    )
    return drawn, mask


def _fitted(view: np.ndarray, angle: float, look: Look, size: tuple[int, int], margin: float) -> Patch | None:
    """The patch that fills the template but for the margin, whichever of its sides is the tighter one."""
    longer = min(size) / (1 + 2 * margin)
    patch = make_patch(view, longer, angle, mirrored=look.mirrored)
    if patch is None or size[0] == size[1]:
        return patch
    ratio = min(s / (own + 2 * margin * max(patch.size)) for s, own in zip(size, patch.size, strict=True))
    return make_patch(view, longer * ratio, angle, mirrored=look.mirrored)
