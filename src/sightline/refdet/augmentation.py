"""Augmentation of whole batches by kornia, with boxes that go along exactly.

What happens to a sample depends on seed, epoch and its index alone, not on the batch it is in. The search
picture is mirrored, scaled, moved, recoloured, blurred, compressed and given noise; templates get colours,
blur, noise and a little turn of their own. A mirror takes picture and templates together: a mirrored object
is another object. A move that would take a box out of the picture is not made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sightline.geometry import pixel_affine
from sightline.geometry.boxes import area, clip
from sightline.refdet.data import RefDetBatch
from sightline.refdet.framing import FILL_RGB, transform_boxes

Range = tuple[float, float]


@dataclass(frozen=True)
class Appearance:
    """How much the look of a picture changes; each share is the chance that the change is made.

    Args:
        color_share: of other colours.
        brightness: largest relative change.
        contrast: largest relative change.
        saturation: largest relative change.
        hue: largest turn, in shares of the circle.
        blur_share: of blur.
        blur_px: sigma, pixels.
        jpeg_share: of compression.
        jpeg_quality: 1 to 100.
        noise_share: of noise.
        noise: standard deviation, of 1.
    """

    color_share: float = 0.5
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 0.05
    blur_share: float = 0.3
    blur_px: Range = (0.3, 1.5)
    jpeg_share: float = 0.2
    jpeg_quality: Range = (60.0, 100.0)
    noise_share: float = 0.2
    noise: Range = (0.005, 0.03)


@dataclass(frozen=True)
class AugmentationSettings:
    """What is done to samples.

    Args:
        flip_share: chance of a mirror, of picture and templates together.
        move_share: chance that the picture is scaled and moved.
        scale: least and largest factor.
        translate: largest move, in shares of width and height.
        min_visible: share of each box's area that must stay in the picture; else it is not moved.
        search: the look of search pictures.
        templates: the look of templates.
        template_turn: largest turn of a template, radians.
    """

    flip_share: float = 0.5
    move_share: float = 0.7
    scale: Range = (0.8, 1.2)
    translate: float = 0.1
    min_visible: float = 0.3
    search: Appearance = field(default_factory=Appearance)
    templates: Appearance = field(default_factory=lambda: Appearance(jpeg_share=0.0, blur_px=(0.3, 1.0)))
    template_turn: float = 0.15


class RefDetAugmentation:
    """Augments batches of :func:`sightline.refdet.data.collate`.

    Args:
        settings: what is done.
        seed: of the draws.

    Example:
        >>> batch = RefDetBatch(
        ...     search=torch.rand(1, 3, 48, 64), templates=torch.rand(1, 2, 3, 32, 32),
        ...     template_masks=torch.ones(1, 2, 32, 32), template_valid=torch.tensor([[True, False]]),
        ...     boxes=[torch.tensor([[9.5, 9.5, 29.5, 29.5]])], present=torch.tensor([True]),
        ...     search_from_image=torch.eye(3).double()[None, :2], names=["a"], object_ids=["mug"], faults=[])
        >>> mirror = AugmentationSettings(flip_share=1.0, move_share=0.0)
        >>> RefDetAugmentation(mirror)(batch, epoch=0, indices=[0])["boxes"][0].tolist()
        [[33.5, 9.5, 53.5, 29.5]]
    """

    def __init__(self, settings: AugmentationSettings | None = None, *, seed: int = 0) -> None:
        self.settings, self.seed = settings or AugmentationSettings(), seed

    def __call__(self, batch: RefDetBatch, *, epoch: int, indices: Sequence[int]) -> RefDetBatch:
        """Augment a batch; the given one stays as it is.

        Args:
            batch: float pictures in [0, 1].
            epoch: which draw.
            indices: of the samples in their data set, one each.

        Returns:
            The new batch.

        Raises:
            ValueError: another number of indices than of samples.
        """
        search = batch["search"]
        if len(indices) != len(search):
            raise ValueError(f"indices: expected one for each of {len(search)} samples, got {len(indices)}")
        draws = [np.random.default_rng([self.seed, epoch, index]) for index in indices]
        size = (search.shape[-1], search.shape[-2])
        flips = [bool(rng.uniform() < self.settings.flip_share) for rng in draws]
        pairs = zip(draws, flips, batch["boxes"], strict=True)
        moves = torch.stack([self._draw_move(rng, flip, boxes, size) for rng, flip, boxes in pairs])
        moved = _warp(search, moves, FILL_RGB)
        templates, masks = self._change_templates(batch, draws, flips)
        boxes = [
            clip(transform_boxes(each, move), size) for each, move in zip(batch["boxes"], moves, strict=True)
        ]
        from_image = pixel_affine.compose(moves, batch["search_from_image"].cpu())
        return batch | RefDetBatch(
            search=_change_look(moved, draws, self.settings.search),
            templates=templates,
            template_masks=masks,
            template_valid=batch["template_valid"],
            boxes=boxes,
            present=batch["present"],
            search_from_image=from_image.to(batch["search_from_image"]),
            looks=_flipped(batch.get("looks"), flips),
            names=batch["names"],
            object_ids=batch["object_ids"],
            faults=batch["faults"],
        )

    def _draw_move(
        self, rng: np.random.Generator, flip: bool, boxes: Tensor, size: tuple[int, int]
    ) -> Float[Tensor, "2 3"]:
        """Mirror, scale and shift, ``new_from_old``; the mirror alone where boxes would be lost."""
        settings = self.settings
        mirror = pixel_affine.flip_horizontal(size[0]) if flip else _identity()
        scale = rng.uniform(*settings.scale)
        shift = rng.uniform(-settings.translate, settings.translate, 2) * size
        if rng.uniform() >= settings.move_share:
            return mirror
        move = pixel_affine.compose(mirror, _about_middle(scale, 0.0, shift, size))
        moved = transform_boxes(boxes.cpu().double(), move)
        kept = area(clip(moved, size)) >= settings.min_visible * area(moved)
        return move if bool(kept.all()) else mirror

    def _change_templates(
        self, batch: RefDetBatch, draws: Sequence[np.random.Generator], flips: Sequence[bool]
    ) -> tuple[Tensor, Tensor]:
        valid = batch["template_valid"]
        templates, masks = batch["templates"].clone(), batch["template_masks"].clone()
        size = (templates.shape[-1], templates.shape[-2])
        owners = valid.nonzero()[:, 0].tolist()
        affines = []
        for owner in owners:
            angle = float(draws[owner].uniform(-1, 1)) * self.settings.template_turn
            turned = _about_middle(1.0, angle, np.zeros(2), size)
            mirror = pixel_affine.flip_horizontal(size[0]) if flips[owner] else _identity()
            affines.append(pixel_affine.compose(mirror, turned))
        if owners:
            warped = _warp(templates[valid], torch.stack(affines), FILL_RGB)
            streams = [draws[owner] for owner in owners]
            templates[valid] = _change_look(warped, streams, self.settings.templates)
            masks[valid] = _warp(masks[valid][:, None], torch.stack(affines), (0,))[:, 0]
        return templates, masks


def _flipped(looks: Tensor | None, flips: Sequence[bool]) -> Tensor | None:
    """The crops of a second look, mirrored where their pictures and templates are."""
    if looks is None:
        return None
    mirrored = torch.tensor(flips, device=looks.device).view(-1, 1, 1, 1, 1)
    return torch.where(mirrored, looks.flip(-1), looks)


def _identity() -> Float[Tensor, "2 3"]:
    return torch.eye(3, dtype=torch.float64)[:2]


def _about_middle(
    scale: float, angle: float, shift: np.ndarray, size: tuple[int, int]
) -> Float[Tensor, "2 3"]:
    """Scale and turn about the picture's middle, then shift by pixels."""
    middle = ((size[0] - 1) / 2, (size[1] - 1) / 2)
    turn = pixel_affine.rotate(angle, middle)
    pivot = torch.tensor(middle, dtype=torch.float64)
    move = torch.from_numpy(np.asarray(shift, dtype=np.float64))
    return torch.column_stack([scale * turn[:, :2], scale * (turn[:, 2] - pivot) + pivot + move])


def _warp(
    pictures: Float[Tensor, "n c h w"], new_from_old: Float[Tensor, "n 2 3"], fill: tuple[int, ...]
) -> Float[Tensor, "n c h w"]:
    from kornia.geometry.transform import warp_affine

    still = (new_from_old == _identity()).all(-1).all(-1)
    if bool(still.all()):
        return pictures.clone()
    color = pictures.new_tensor(fill) / 255
    # kornia fills with three channels or none, so the filling is taken off and put back
    zeroed = pictures - color[:, None, None]
    height, width = pictures.shape[-2:]
    drawn = warp_affine(zeroed, new_from_old.to(pictures), (height, width), padding_mode="zeros")
    return (drawn + color[:, None, None]).clamp(0, 1)


def _change_look(
    pictures: Float[Tensor, "n 3 h w"], draws: Sequence[np.random.Generator], look: Appearance
) -> Float[Tensor, "n 3 h w"]:
    """Colours, blur, compression and noise; each picture's draws come from its own stream."""
    import kornia

    rows = [_draw_look(rng, look) for rng in draws]
    drawn = {key: torch.tensor([row[key] for row in rows], dtype=pictures.dtype) for key in rows[0]}
    drawn = {key: values.to(pictures.device) for key, values in drawn.items()}
    pictures = pictures.clone()
    color = drawn["color"] > 0
    if bool(color.any()):
        some = kornia.enhance.adjust_brightness_accumulative(pictures[color], drawn["brightness"][color])
        some = kornia.enhance.adjust_contrast_with_mean_subtraction(some, drawn["contrast"][color])
        some = kornia.enhance.adjust_saturation(some, drawn["saturation"][color])
        pictures[color] = kornia.enhance.adjust_hue(some, drawn["hue"][color])
    blurred = drawn["blur"] > 0
    if bool(blurred.any()):
        sigma = drawn["blur"][blurred, None].expand(-1, 2)
        side = 2 * int(np.ceil(3 * look.blur_px[1])) + 1
        pictures[blurred] = kornia.filters.gaussian_blur2d(pictures[blurred], (side, side), sigma)
    coded = drawn["jpeg"] > 0
    if bool(coded.any()):
        pictures[coded] = kornia.enhance.jpeg_codec_differentiable(pictures[coded], drawn["jpeg"][coded])
    for row, rng in enumerate(draws):
        if rows[row]["noise"] > 0:
            grain = rng.standard_normal(tuple(pictures.shape[1:]), dtype=np.float32) * rows[row]["noise"]
            pictures[row] += torch.from_numpy(grain).to(pictures)
    return pictures.clamp(0, 1)


def _draw_look(rng: np.random.Generator, look: Appearance) -> dict[str, float]:
    """The values of one picture; 0 for what is not done, factors of 1 for what changes nothing."""
    around = {
        name: 1 + getattr(look, name) * rng.uniform(-1, 1)
        for name in ("brightness", "contrast", "saturation")
    }
    values = {
        **around,
        "hue": 2 * np.pi * look.hue * rng.uniform(-1, 1),
        "blur": rng.uniform(*look.blur_px),
        "jpeg": rng.uniform(*look.jpeg_quality),
        "noise": rng.uniform(*look.noise),
        "color": 1.0,
    }
    for name in ("color", "blur", "jpeg", "noise"):
        values[name] *= rng.uniform() < getattr(look, f"{name}_share")
    return values
