"""Latents of a flow-matching model: how far two of them are apart, packed, and cleaned of noise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx

from sightline.depth_scale.batches import as_samples

GeometryWeighting = Literal["linear", "snr"]
"""How :func:`geometry_weight` falls with the noise."""


class LatentDistance(NamedTuple):
    """How far apart two latents lie in every cell.

    Args:
        squared: ``(B, 1, h, w)`` sum of the squared differences over the channels; what is not finite is 0.
        finite: ``(B,)`` which samples were finite everywhere; those of the others shall not count.
    """

    squared: Float[Tensor, "b 1 h w"]
    finite: Bool[Tensor, "b"]


def squared_latent_distances(
    z: Float[Tensor, "b c h w"], *references: Float[Tensor, "b c h w"]
) -> tuple[LatentDistance, ...]:
    """The squared distances of a latent to others, in one pass forward and one back.

    The references are constants: no gradient goes to them. The gradient to ``z`` is 0 wherever a value is
    not finite, so that a broken sample which a loss leaves out cannot spoil the others through the network.

    Args:
        z: ``(B, C, h, w)`` predicted latents; half precision is raised to float32.
        references: latents of the same shape.

    Returns:
        One distance a reference.

    Raises:
        ValueError: shapes that differ or are no ``(B, C, h, w)``.

    Example:
        >>> z = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
        >>> [d.squared.item() for d in squared_latent_distances(z, torch.zeros_like(z), z)]
        [25.0, 0.0]
    """
    for i, reference in enumerate(references):
        if z.ndim != 4 or reference.shape != z.shape:
            shapes = f"{tuple(z.shape)} and {tuple(reference.shape)}"
            raise ValueError(f"latents: expected two of the same shape (B, C, h, w), got {shapes} (pair {i})")
    dtype = torch.float64 if z.dtype == torch.float64 else torch.float32
    outputs = _SquaredDistances.apply(z.to(dtype), *(r.detach().to(dtype) for r in references))
    return tuple(LatentDistance(*pair) for pair in zip(outputs[::2], outputs[1::2], strict=True))


class _SquaredDistances(Function):
    @staticmethod
    def forward(ctx: FunctionCtx, z: Tensor, *references: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(z, *references)
        outputs: list[Tensor] = []
        for squared in _squared(z, references):
            # A sum is finite only if all its terms are, and costs a tenth of asking each of them.
            finite = squared.sum((1, 2, 3)).isfinite()
            outputs += [squared.nan_to_num_(0.0, 0.0, 0.0), finite]
        ctx.mark_non_differentiable(*outputs[1::2])
        return tuple(outputs)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        z, *references = ctx.saved_tensors  # ty: ignore[missing-attribute]
        return _gradient(z, references, gradients[::2]), *(None for _ in references)


def _squared(z: Tensor, references: Sequence[Tensor]) -> list[Tensor]:
    if not _is_compiled_for(z):
        return [(z - reference).square_().sum(1, keepdim=True) for reference in references]
    from sightline.depth_scale.latents_numba import fill_squared_distances

    squared = [z.new_empty(len(z), 1, *z.shape[2:]) for _ in references]
    fill_squared_distances(_flat(z), _all_flat(references), tuple(part[:, 0] for part in _all_flat(squared)))
    return squared


def _gradient(z: Tensor, references: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    if not _is_compiled_for(z):
        parts = [(z - reference).nan_to_num_(0.0, 0.0, 0.0) for reference in references]
        return torch.stack([part.mul_(2 * g) for part, g in zip(parts, gradients, strict=True)]).sum(0)
    from sightline.depth_scale.latents_numba import fill_distance_gradient

    total = torch.empty_like(z, memory_format=torch.contiguous_format)
    slopes = tuple(part[:, 0] for part in _all_flat(gradients))
    fill_distance_gradient(_flat(z), _all_flat(references), slopes, _flat(total))
    return total


def _is_compiled_for(z: Tensor) -> bool:
    return z.device.type == "cpu"


def _flat(maps: Tensor) -> NDArray[np.floating]:
    return maps.detach().contiguous().flatten(2).numpy()


def _all_flat(maps: Iterable[Tensor]) -> tuple[NDArray[np.floating], ...]:
    return tuple(_flat(each) for each in maps)


def pack_latents(z: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
    """Latents as a sequence of 2x2 blocks, as FLUX reads them.

    Tokens run row by row. A token's channels are ordered (channel, row, column) of its block, the channel
    slowest: entry ``4 c + 2 dy + dx``.

    Args:
        z: ``(B, C, h, w)``, such as ``(B, 16, H/8, W/8)`` of a picture.

    Returns:
        ``(B, h w / 4, 4 C)``, such as ``(B, H W / 256, 64)``.

    Raises:
        ValueError: an odd height or width.

    Example:
        >>> pack_latents(torch.arange(8.0).view(1, 1, 2, 4)).tolist()
        [[[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0]]]
    """
    if z.ndim != 4 or z.shape[-2] % 2 or z.shape[-1] % 2:
        raise ValueError(f"latents: expected (B, C, h, w) of even height and width, got {tuple(z.shape)}")
    batch, channels, height, width = z.shape
    blocks = z.reshape(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return blocks.reshape(batch, height * width // 4, channels * 4)


def unpack_latents(tokens: Float[Tensor, "b n d"], height: int, width: int) -> Float[Tensor, "b c h w"]:
    """The inverse of :func:`pack_latents`.

    Args:
        tokens: ``(B, h w / 4, 4 C)``.
        height: h of the latents, an eighth of the picture's.
        width: w of the latents.

    Returns:
        ``(B, C, h, w)``.

    Raises:
        ValueError: an odd size, or a sequence that does not fit it.

    Example:
        >>> z = torch.rand(2, 16, 6, 4)
        >>> torch.equal(unpack_latents(pack_latents(z), 6, 4), z)
        True
    """
    fits = tokens.ndim == 3 and tokens.shape[2] % 4 == 0 and 4 * tokens.shape[1] == height * width
    if height % 2 or width % 2 or not fits:
        raise ValueError(
            f"tokens: expected (B, h w / 4, 4 C) for latents of even height {height} and width {width}, "
            f"got {tuple(tokens.shape)}"
        )
    batch, _, channels = tokens.shape
    blocks = tokens.reshape(batch, height // 2, width // 2, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return blocks.reshape(batch, channels // 4, height, width)


def clean_latents_from_velocity(
    x_t: Float[Tensor, "b *rest"], velocity: Float[Tensor, "b *rest"], t: Shaped[Tensor, "..."] | float | int
) -> Float[Tensor, "b *rest"]:
    """The clean latents that a predicted velocity points to: ``x_0 = x_t - t v``.

    Flow matching goes straight from latents to noise, ``x_t = (1 - t) x_0 + t noise``, at ``v = noise - x_0``
    (Lipman et al., "Flow matching for generative modeling", 2023).

    Args:
        x_t: ``(B, ...)`` noisy latents, packed or not.
        velocity: the same shape, predicted.
        t: the time in [0, 1], 1 for pure noise: a number, or a tensor of shape ``()``, ``(1,)``, ``(B,)``.

    Returns:
        ``(B, ...)``.

    Raises:
        ValueError: shapes that differ, or a plain number outside [0, 1].

    Example:
        >>> x_0, noise, t = torch.rand(2, 4, 8, 8), torch.randn(2, 4, 8, 8), torch.tensor([0.2, 0.7])
        >>> x_t = torch.lerp(x_0, noise, t.view(2, 1, 1, 1))
        >>> torch.allclose(clean_latents_from_velocity(x_t, noise - x_0, t), x_0, atol=1e-6)
        True
    """
    if x_t.shape != velocity.shape:
        raise ValueError(
            f"x_t, velocity: expected the same shape, got {tuple(x_t.shape)} and {tuple(velocity.shape)}"
        )
    dtype = torch.float64 if x_t.dtype == torch.float64 else torch.float32
    x_t, velocity = x_t.to(dtype), velocity.to(dtype)
    return x_t - _times(t, len(x_t), like=x_t).view(-1, *[1] * (x_t.ndim - 1)) * velocity


def geometry_weight(
    t: Shaped[Tensor, "..."] | float | int,
    batch: int | None = None,
    *,
    weighting: GeometryWeighting = "linear",
    full_snr: float = 1.0,
) -> Float[Tensor, "b"]:
    """How much the shape of a predicted clean latent may be believed at a time of the flow.

    Masks and sizes mean something only where the prediction does. ``linear`` is ``1 - t``; ``snr`` is the
    ratio of signal to noise, ``((1 - t) / t)^2``, over the one that suffices, and at most 1.

    Args:
        t: the time in [0, 1], 1 for pure noise: a number, or a tensor of shape ``()``, ``(1,)``, ``(B,)``.
        batch: B, unless ``t`` says it.
        weighting: how the weight falls.
        full_snr: from which ratio on the weight is 1 with ``snr``.

    Returns:
        ``(B,)`` weights in [0, 1].

    Raises:
        ValueError: an unknown weighting, or a plain number outside [0, 1].

    Example:
        >>> geometry_weight(torch.tensor([0.0, 0.25, 1.0])).tolist()
        [1.0, 0.75, 0.0]
        >>> geometry_weight(torch.tensor([0.0, 0.5, 0.75]), weighting="snr")
        tensor([1.0000, 1.0000, 0.1111])
    """
    if weighting not in get_args(GeometryWeighting):
        known = ", ".join(get_args(GeometryWeighting))
        raise ValueError(f"weighting: expected one of {known}, got {weighting!r}")
    like = t if isinstance(t, Tensor) and t.is_floating_point() else torch.zeros(())
    size = batch if batch is not None else t.numel() if isinstance(t, Tensor) else 1
    clean = 1.0 - _times(t, size, like=like).clamp(0.0, 1.0)
    if weighting == "linear":
        return clean
    return ((clean / (1.0 - clean)).square() / full_snr).clamp_max(1.0)


def _times(t: Tensor | float, batch: int, *, like: Tensor) -> Float[Tensor, "b"]:
    if isinstance(t, Tensor):
        return as_samples(t, batch, "t", like=like)
    if not 0 <= t <= 1:
        raise ValueError(f"t: expected a time in [0, 1], got {t}")
    return like.new_full((batch,), float(t))
