"""Features that are hidden from the encoder, and what they must be told from: the geometry of the picture.

A share of the coarsest cells is replaced by a learned token before attention sees them, so that the encoder
has to fill them in. The target of each cell comes from geometry: a frozen network's view of mask and depth
(``RenderTeacher``), or the cell's occupancy, mean depth and edge themselves.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

MimTarget = Literal["teacher", "cells"]
NUM_CELL_CHANNELS = 3
"""Occupancy, mean normalised depth, edge."""


class ConvNormAct(nn.Sequential):
    """A 3x3 convolution, batch norm and SiLU.

    Args:
        in_channels: of the input.
        out_channels: of the output.

    Example:
        >>> ConvNormAct(2, 4)(torch.rand(1, 2, 5, 5)).shape
        torch.Size([1, 4, 5, 5])
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.act = nn.SiLU()


class RenderTeacher(nn.Module):
    """Geometry to features: three 3x3 convolutions with a quarter, half and all of the channels.

    Args:
        hidden_dim: channels of the features.
        in_channels: 2 for mask and normalised depth, 3 with the mask's edge.

    Example:
        >>> RenderTeacher(hidden_dim=256, in_channels=2)(torch.rand(1, 2, 20, 20)).shape
        torch.Size([1, 256, 20, 20])
    """

    def __init__(self, hidden_dim: int = 256, in_channels: int = 2) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.layers = nn.Sequential(
            ConvNormAct(in_channels, hidden_dim // 4),
            ConvNormAct(hidden_dim // 4, hidden_dim // 2),
            ConvNormAct(hidden_dim // 2, hidden_dim),
        )

    def forward(self, geom: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """Features of each place of ``geom``: mask, normalised depth and, with three channels, edge."""
        return self.layers(geom)


class DecoderMIM(nn.Module):
    """Encoded features to reconstructed ones: two 3x3 convolutions and a linear one.

    Args:
        hidden_dim: channels of the encoded features.
        out_channels: of the reconstruction; ``hidden_dim`` if None.

    Example:
        >>> DecoderMIM(hidden_dim=256)(torch.rand(1, 256, 20, 20)).shape
        torch.Size([1, 256, 20, 20])
    """

    def __init__(self, hidden_dim: int = 256, out_channels: int | None = None) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ConvNormAct(hidden_dim, hidden_dim),
            ConvNormAct(hidden_dim, hidden_dim),
            nn.Conv2d(hidden_dim, hidden_dim if out_channels is None else out_channels, 1),
        )

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """The reconstruction at each cell."""
        return self.layers(features)


def cell_geometry(geom: Float[Tensor, "b c gh gw"], size: tuple[int, int]) -> Float[Tensor, "b 3 h w"]:
    """What geometry says about each cell of a grid.

    Args:
        geom: as ``geometry.depth.create_geom_input`` makes it: mask, normalised depth and, with three
            channels, where the depth is known (without the third, under the whole mask).
        size: ``(h, w)`` cells.

    Returns:
        Occupancy (share of the cell in the mask), mean normalised depth over the pixels where it is known (0
        without any), and edge (0 for a cell all in or all out, 1 for one half in).

    Example:
        >>> mask = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
        >>> geom = torch.stack([mask, torch.tensor([[0.2, 0.4, 0.6, 0.0]])])[None]
        >>> cell_geometry(geom, (1, 2))[0, :, 0].T
        tensor([[1.0000, 0.3000, 0.0000],
                [0.5000, 0.6000, 1.0000]])
    """
    if geom.ndim != 4 or geom.shape[1] not in (2, 3):
        raise ValueError(f"geom_input: expected (B, 2 or 3, h, w), got {tuple(geom.shape)}")
    mask, depth = geom[:, :1], geom[:, 1:2]
    known = (geom[:, 2:] if geom.shape[1] == 3 else mask) > 0
    known = known & depth.isfinite()
    maps = torch.cat([mask, torch.where(known, depth, 0.0), known.to(mask)], 1)
    occupancy, total, share = F.adaptive_avg_pool2d(maps, size).split(1, 1)
    mean = total / torch.where(share > 0, share, 1.0)
    return torch.cat([occupancy, mean, 4 * occupancy * (1 - occupancy)], 1)


def resize_mask(mask: Shaped[Tensor, "..."], batch: int, size: tuple[int, int]) -> Bool[Tensor, "b h w"]:
    """A mask of any of the three shapes for each picture of a batch, each cell hidden or not.

    Args:
        mask: ``(h, w)`` for all, ``(B, h, w)`` or ``(B, 1, h, w)``; bool, or numbers of which those above 0.5
            hide. Read at the cells' centres.
        batch: pictures.
        size: ``(h, w)`` cells.

    Raises:
        ValueError: another shape, or masks for another number of pictures.

    Example:
        >>> resize_mask(torch.tensor([[True, False]]), 2, (2, 4))[1].tolist()
        [[True, True, False, False], [True, True, False, False]]
    """
    given = tuple(mask.shape)
    if mask.ndim == 4 and mask.shape[1] == 1:
        mask = mask[:, 0]
    elif mask.ndim == 2:
        mask = mask[None]
    if mask.ndim != 3 or mask.shape[0] not in (1, batch):
        raise ValueError(f"feature_mask: expected (h, w), ({batch}, h, w) or ({batch}, 1, h, w), got {given}")
    hidden = mask if mask.dtype == torch.bool else mask > 0.5
    rows, columns = (_nearest(old, new, mask.device) for old, new in zip(mask.shape[1:], size, strict=True))
    return hidden[:, rows[:, None], columns].expand(batch, *size)


def _nearest(old: int, new: int, device: torch.device) -> Tensor:
    return ((torch.arange(new, device=device) + 0.5) * (old / new)).long().clamp_max(old - 1)


class MaskedBranch(nn.Module):
    """Token, teacher and decoder of masked reconstruction; the teacher is frozen and always in evaluation.

    Args:
        hidden_dim: channels of the coarsest features.
        geom_channels: of the teacher's input: 2 for mask and depth, 3 with the edge.
        target: ``teacher`` for the teacher's features, ``cells`` for :func:`cell_geometry` itself.

    Example:
        >>> branch = MaskedBranch(16).train()
        >>> branch.teacher.training, any(p.requires_grad for p in branch.teacher.parameters())
        (False, False)
    """

    def __init__(
        self, hidden_dim: int = 256, geom_channels: int = 2, target: MimTarget | str = "teacher"
    ) -> None:
        super().__init__()
        if target not in get_args(MimTarget):
            raise ValueError(f"mim_target: expected one of {', '.join(get_args(MimTarget))}, got {target!r}")
        if geom_channels not in (2, 3):
            raise ValueError(
                f"mim_geom_channels: expected 2 (mask, depth) or 3 (and edge), got {geom_channels}"
            )
        self.target = target
        self.token = nn.Parameter(torch.randn(hidden_dim) * 0.02)
        self.decoder = DecoderMIM(hidden_dim, None if target == "teacher" else NUM_CELL_CHANNELS)
        self.teacher = RenderTeacher(hidden_dim, geom_channels).eval().requires_grad_(False)

    def train(self, mode: bool = True) -> MaskedBranch:
        """Set all but the teacher to training or evaluation."""
        super().train(mode)
        self.teacher.eval()
        return self

    def hide(self, features: Float[Tensor, "b c h w"], mask: Bool[Tensor, "b h w"]) -> Tensor:
        """Put the token where the mask is; the hidden features get no gradient."""
        return torch.where(mask[:, None], self.token[:, None, None].to(features), features)

    @torch.no_grad()
    def teach(self, geom: Float[Tensor, "b c gh gw"], size: tuple[int, int]) -> Float[Tensor, "b d h w"]:
        """The target of each cell."""
        cells = cell_geometry(geom, size)
        if self.target == "cells":
            return cells
        return self.teacher(cells[:, : self.teacher.in_channels])
