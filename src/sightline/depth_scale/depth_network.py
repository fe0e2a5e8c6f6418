"""A depth network with its preprocessing: pictures in, depth at their own size out, true to the focal length.

The network sees no focal length. One that gives metres has learned them from cameras of one focal length
``f_c``: an object of size S that is s pixels large in what the network sees gets ``z = f_c S / s``. Its true
depth is ``f_seen S / s``, so ``z_true = z f_seen / f_c``, where ``f_seen`` is the focal length of the picture
after it was resized for the network. Only resizing changes it, cropping and padding do not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from sightline.formats.images import read_image

DepthKind = Literal["metric_depth", "inverse_depth"]
"""Metres along the optical axis; or ``a / z + b`` with a > 0 and b unknown, other ones for each picture."""

Picture = str | Path | np.ndarray | Tensor
"""A file, or ``(h, w, 3)`` uint8 RGB."""


@dataclass(frozen=True, eq=False)
class DepthEstimate:
    """What a network says about the depth of a picture.

    Args:
        depth: ``(h, w)`` float32 at the picture's own size: metres, or relative inverse depth.
        kind: which of the two.
        focal_corrected: whether metres were corrected for the picture's focal length.
        source: in words, where the numbers come from.

    Example:
        >>> estimate = DepthEstimate(torch.ones(2, 3), "inverse_depth", False, "a network")
        >>> estimate.depth_mode, estimate.is_metric
        ('inv_depth', False)
    """

    depth: Float[Tensor, "h w"]
    kind: DepthKind
    focal_corrected: bool
    source: str

    @property
    def is_metric(self) -> bool:
        """Whether the depth is in metres."""
        return self.kind == "metric_depth"

    @property
    def depth_mode(self) -> Literal["depth", "inv_depth"]:
        """The mode in which the scale loss takes this depth."""
        return "depth" if self.is_metric else "inv_depth"


class _Seen(NamedTuple):
    """One picture as the network sees it: what was padded, by how much it was resized."""

    pixels: Float[Tensor, "3 net_h net_w"]
    size: tuple[int, int]
    padding: tuple[int, int]

    @property
    def scale(self) -> float:
        """Pixels of the network's picture on one of the photo's; the geometric mean of the two axes."""
        (height, width), (pad_y, pad_x) = self.size, self.padding
        net_height, net_width = self.pixels.shape[-2:]
        return math.sqrt(net_height / (height + 2 * pad_y) * net_width / (width + 2 * pad_x))


class DepthModel:
    """A depth network with its preprocessing, ready for many pictures.

    Args:
        network: a transformers model for depth estimation; its ``predicted_depth`` is taken as it is.
        processor: the transformers image processor that belongs to it.
        kind: what the network gives.
        canonical_focal_px: focal length of the pictures it was trained on, at the size of the network's
            input, pixels; None where it is not known.
        name: what to call it.
        device: where the network runs and the results lie.

    Raises:
        ValueError: a preprocessing that pads after resizing, or a focal length that is not positive.

    Example:
        >>> from types import SimpleNamespace
        >>> class Darkness(nn.Module):
        ...     def forward(self, pixel_values):
        ...         return SimpleNamespace(predicted_depth=1 - pixel_values.mean(1))
        >>> def scale(images, **_):
        ...     return {"pixel_values": [torch.from_numpy(images[0]).permute(2, 0, 1) / 255]}
        >>> model = DepthModel(Darkness(), processor=scale, kind="metric_depth", canonical_focal_px=50.0)
        >>> model.estimate(torch.zeros(1, 2, 3, dtype=torch.uint8)).depth
        tensor([[1., 1.]])
        >>> model.estimate(torch.zeros(1, 2, 3, dtype=torch.uint8), focal_px=100.0).depth
        tensor([[2., 2.]])
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        processor: Any,  # noqa: ANN401 - transformers is imported only when a model is loaded
        kind: DepthKind,
        canonical_focal_px: float | None = None,
        name: str = "depth network",
        device: str | torch.device = "cpu",
    ) -> None:
        if canonical_focal_px is not None:
            _require_focal("canonical_focal_px", canonical_focal_px)
        self.network = network.eval().requires_grad_(False).to(device)
        self.processor = processor
        self.kind: DepthKind = kind
        self.canonical_focal_px = canonical_focal_px
        self.name = name
        self.device = torch.device(device)
        # ZoeDepth alone pads before it resizes, and resizes corners onto corners.
        self._pads_first = type(processor).__name__.startswith("ZoeDepth")
        if getattr(processor, "do_pad", False) and not self._pads_first:
            raise ValueError(f"{name}: expected a preprocessing that does not pad after resizing")

    @property
    def is_metric(self) -> bool:
        """Whether the network gives metres."""
        return self.kind == "metric_depth"

    @property
    def takes_focal(self) -> bool:
        """Whether a focal length may be given: not to a metric network whose own is not known."""
        return not self.is_metric or self.canonical_focal_px is not None

    def estimate(self, image: Picture, *, focal_px: float | None = None) -> DepthEstimate:
        """Estimate the depth of one picture.

        Args:
            image: a file, or ``(h, w, 3)`` uint8 RGB.
            focal_px: of the picture as given, pixels; corrects metres, and has no meaning for relative depth,
                whose scale is unknown anyway.

        Returns:
            Depth at the picture's own size, resampled bilinearly so that pixel centres stay where they are
            (never beyond the network's own values).

        Raises:
            ValueError: no picture, or a focal length for a metric network whose own is not known.
        """
        return self.estimate_batch([image], focal_px=focal_px)[0]

    @torch.no_grad()  # not inference_mode, whose results could not take part in a loss
    def estimate_batch(
        self, images: Sequence[Picture], *, focal_px: float | Sequence[float | None] | None = None
    ) -> list[DepthEstimate]:
        """Estimate the depth of several pictures, those of one shape in one pass of the network.

        Args:
            images: as for :meth:`estimate`, of any sizes.
            focal_px: one for all, or one a picture, pixels.

        Returns:
            One estimate a picture, the same as one by one.

        Raises:
            ValueError: as for :meth:`estimate`, or another number of focal lengths than of pictures.
        """
        focals = list(focal_px) if isinstance(focal_px, Sequence) else [focal_px] * len(images)
        if len(focals) != len(images):
            raise ValueError(f"focal_px: expected one for each of {len(images)} pictures, got {len(focals)}")
        for focal in focals:
            self._check_focal(focal)
        seen = [self._prepare(image) for image in images]
        groups: dict[torch.Size, list[int]] = {}
        for i, picture in enumerate(seen):
            groups.setdefault(picture.pixels.shape, []).append(i)
        raw: dict[int, Tensor] = {}
        for members in groups.values():
            pixels = torch.stack([seen[i].pixels for i in members]).to(self.device)
            raw.update(zip(members, self.network(pixel_values=pixels).predicted_depth.float(), strict=True))
        return [self._finish(raw[i], seen[i], focals[i]) for i in range(len(images))]

    def _check_focal(self, focal_px: float | None) -> None:
        if focal_px is None:
            return
        _require_focal("focal_px", focal_px)
        if not self.takes_focal:
            raise ValueError(
                f"{self.name}: the focal length it was trained for is not known, so its metres cannot be "
                "corrected; give canonical_focal_px (pixels, at the network's input), or leave focal_px out"
            )

    def _prepare(self, image: Picture) -> _Seen:
        pixels = as_picture(image)
        height, width = pixels.shape[:2]
        padding = (0, 0)
        if self._pads_first and self.processor.do_pad:
            padding = (int(math.sqrt(height / 2) * 3), int(math.sqrt(width / 2) * 3))
        ready = self.processor(images=[pixels], return_tensors="pt", input_data_format="channels_last")
        return _Seen(ready["pixel_values"][0], (height, width), padding)

    def _finish(self, raw: Tensor, seen: _Seen, focal_px: float | None) -> DepthEstimate:
        (height, width), (pad_y, pad_x) = seen.size, seen.padding
        padded = nn.functional.interpolate(
            raw[None, None],
            (height + 2 * pad_y, width + 2 * pad_x),
            mode="bilinear",
            align_corners=self._pads_first,
        )[0, 0]
        depth = padded[pad_y : pad_y + height, pad_x : pad_x + width].contiguous()
        if not self.is_metric:
            return DepthEstimate(depth, self.kind, False, f"{self.name}: relative inverse depth")
        if focal_px is None or self.canonical_focal_px is None:
            source = f"{self.name}: metres, not corrected for the focal length"
            return DepthEstimate(depth, self.kind, False, source)
        factor = focal_px * seen.scale / self.canonical_focal_px
        source = (
            f"{self.name}: metres, times {factor:.3g} because the network sees a focal length of "
            f"{focal_px * seen.scale:.0f} px and was trained at {self.canonical_focal_px:.0f} px"
        )
        return DepthEstimate(depth * factor, self.kind, True, source)


def as_picture(image: Picture) -> np.ndarray:
    """The pixels of a picture that is a file, an array or a tensor.

    Args:
        image: a file, or ``(h, w, 3)`` uint8 RGB.

    Returns:
        ``(h, w, 3)`` uint8 RGB.

    Raises:
        ValueError: another dtype or shape, or a damaged file.

    Example:
        >>> as_picture(torch.zeros(2, 3, 3, dtype=torch.uint8)).shape
        (2, 3, 3)
    """
    if isinstance(image, str | Path):
        return read_image(image)
    pixels = image.numpy(force=True) if isinstance(image, Tensor) else np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise ValueError(
            f"image: expected uint8 RGB of shape (h, w, 3), got {pixels.dtype} of shape {pixels.shape}"
        )
    return pixels


def _require_focal(name: str, focal_px: float) -> None:
    if not (math.isfinite(focal_px) and focal_px > 0):
        raise ValueError(f"{name}: expected a positive focal length in pixels, got {focal_px}")
