"""Pictures become tokens: one form for every encoder, and the builders that know them by name.

An encoder takes pictures as they are, RGB in [0, 1], and normalises them itself; it says its patch size, its
channels and the licence of its weights. Constructors make random weights and read no file;
:func:`build_encoder` reads the one that it is given.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sightline.nn.backbones import NanoBackbone
from sightline.nn.checkpoint import LoadReport, load_weights, read_tensors
from sightline.nn.croco_weights import CROCO_LICENCE, load_croco_encoder
from sightline.nn.pictures import IMAGENET_MEAN, IMAGENET_STD
from sightline.nn.vit import Block, ViT, grid_phases, grid_positions

_log = logging.getLogger(__name__)


class Licence(NamedTuple):
    """Under which terms an encoder's weights may be used.

    Args:
        name: of the licence, or what is known of it.
        commercial: whether it allows commercial use; None where that is not known.
    """

    name: str
    commercial: bool | None


OWN = Licence("Apache-2.0", commercial=True)
CROCO = Licence(CROCO_LICENCE, commercial=False)


class Encoder(nn.Module, ABC):
    """The form of every encoder; :meth:`encode` is what differs.

    Args:
        patch_size: pixels.
        dim: channels of a token.
        licence: of the weights.
        config: what :func:`build_encoder` needs to build the same network with random weights.
        mean: of each colour, taken away from the pictures.
        std: of each colour, divides them then.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        patch_size: int,
        dim: int,
        licence: Licence,
        config: dict[str, Any],
        *,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.patch_size, self.dim, self.licence, self.config = patch_size, dim, licence, config
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def grid(self, image_size: int) -> int:
        """How many patches a square picture's side has.

        Args:
            image_size: pixels.

        Raises:
            ValueError: for a side that is no multiple of the patch size.
        """
        if image_size <= 0 or image_size % self.patch_size:
            below = max(image_size // self.patch_size, 1) * self.patch_size
            raise ValueError(
                f"image_size: expected a multiple of the patch size {self.patch_size}, such as {below} or "
                f"{below + self.patch_size}, got {image_size}"
            )
        return image_size // self.patch_size

    def forward(
        self, images: Float[Tensor, "b 3 s s"]
    ) -> tuple[Float[Tensor, "b n c"], Int[Tensor, "b n 2"]]:
        """Tokens of patches, row by row, and their places.

        Args:
            images: ``(b, 3, s, s)`` RGB in [0, 1], s a multiple of ``patch_size``.

        Returns:
            Tokens ``(b, n, dim)`` with ``n = grid(s)^2``, none added, and places ``(b, n, 2)`` int64 (y, x).
        """
        cells = self.grid(images.shape[-1])
        tokens = self.encode((images - self.mean) / self.std)
        places = grid_positions(cells, cells, device=images.device)
        return tokens, places.expand(len(images), -1, -1)

    @abstractmethod
    def encode(self, pictures: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b n c"]:
        """Tokens of normalised pictures.

        Args:
            pictures: ``(b, 3, s, s)``.
        """


class CroCoEncoder(Encoder):
    """A ViT with RoPE2D, as CroCo v2 has it.

    Args:
        vit: the network.
        licence: of its weights; those of CroCo must not be used commercially.

    Example:
        >>> tokens, positions = CroCoEncoder(ViT(32, 1, 2))(torch.rand(2, 3, 64, 64))
        >>> tokens.shape, positions[0, :5].tolist()
        (torch.Size([2, 16, 32]), [[0, 0], [0, 1], [0, 2], [0, 3], [1, 0]])
    """

    def __init__(self, vit: ViT, *, licence: Licence = CROCO) -> None:
        super().__init__(vit.patch_size, vit.dim, licence, {"name": "croco", **vit.config})
        self.vit = vit

    def encode(self, pictures: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b n c"]:
        """See :meth:`Encoder.encode`."""
        return self.vit(pictures)


class TinyEncoder(Encoder):
    """Three stages of the small convolutional backbone, then a few blocks of attention; for CPUs.

    The convolutions are those of :class:`~sightline.nn.descriptor.DescriptorNet`, whose pre-training on
    generated objects is where this encoder starts; see :func:`begin_with_descriptor`. A token is made of the
    2x2 cells of stride 8 and the one of stride 16 that lie in its patch, so that detail finer than a patch
    is not lost.

    Args:
        dim: channels of a token.
        depth: blocks.
        num_heads: of each.
        mlp_ratio: widening inside a block.

    Example:
        >>> encoder = TinyEncoder()
        >>> tokens, positions = encoder(torch.rand(2, 3, 128, 128))
        >>> tokens.shape, sum(p.numel() for p in encoder.parameters()) < 1_000_000
        (torch.Size([2, 64, 128]), True)
    """

    def __init__(self, dim: int = 128, depth: int = 2, num_heads: int = 4, *, mlp_ratio: float = 4.0) -> None:
        config = {"name": "tiny", "dim": dim, "depth": depth, "num_heads": num_heads, "mlp_ratio": mlp_ratio}
        super().__init__(16, dim, OWN, config)
        # stride 4 gets no norm because nobody reads it, and stride 32 is not there at all
        self.backbone = NanoBackbone(norm_strides=(8, 16))
        self.backbone.stages, self.backbone.norms = self.backbone.stages[:3], self.backbone.norms[:3]
        _, fine, coarse, _ = self.backbone.channels
        self.join = nn.Conv2d(4 * fine + coarse, dim, 1)
        self.blocks = nn.ModuleList(Block(dim, num_heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self._head_dim = dim // num_heads

    def encode(self, pictures: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b n c"]:
        """See :meth:`Encoder.encode`."""
        _, fine, coarse = self.backbone(pictures)
        cells = coarse.shape[-1]
        tokens = self.join(torch.cat([nn.functional.pixel_unshuffle(fine, 2), coarse], dim=1))
        tokens = tokens.flatten(2).mT
        phases = grid_phases(cells, cells, self._head_dim, like=tokens)
        for block in self.blocks:
            tokens = block(tokens, phases)
        return self.norm(tokens)


def begin_with_descriptor(encoder: TinyEncoder, weights: str | Path) -> LoadReport:
    """Fill a tiny encoder's convolutions with those of a pre-trained descriptor, or of what began as one.

    Args:
        encoder: what begins.
        weights: safetensors of a :class:`~sightline.nn.descriptor.DescriptorNet` or a reference detector,
            with the backbone ``nano``.

    Returns:
        Where each key went: ``missing`` are the parts that no descriptor has (``join``, ``blocks`` and
        ``norm``), ``unexpected`` those of the file that this encoder has no use for.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file lacks convolutions, or has them in other shapes; they are named.
    """
    tensors, _ = read_tensors(weights)
    matched = {name: f"backbone.{name}" for name in encoder.backbone.state_dict()}
    found = {name: tensors[there] for name, there in matched.items() if there in tensors}
    try:
        load_weights(encoder.backbone, found)
    except ValueError as error:
        raise ValueError(f"{weights}: expected a descriptor whose backbone is nano; {error}") from error
    filled = set(matched.values())
    return LoadReport(
        matched=tuple(matched.values()),
        missing=tuple(name for name in encoder.state_dict() if name not in filled),
        unexpected=tuple(name for name in tensors if name not in filled),
        mismatched={},
    )


_CROCO_SIZES = {
    "croco-base": {"dim": 768, "depth": 12, "num_heads": 12},
    "croco-large": {"dim": 1024, "depth": 24, "num_heads": 16},
}


def build_encoder(name: str, *, weights: str | Path | None = None, **options: Any) -> Encoder:  # noqa: ANN401
    """An encoder by its name.

    Args:
        name: ``tiny``; ``croco-base`` or ``croco-large``, or ``croco`` of the size that the file has or the
            options say; ``dinov2-small``, ``-base``, ``-large`` or ``-giant``, with ``-reg`` after it for the
            one with registers; or ``hf:`` and a folder or hub name of any vision transformer of transformers.
        weights: where they are, random otherwise. For ``tiny`` safetensors of a descriptor
            (:func:`begin_with_descriptor`); for ``croco`` a file of CroCo v2; for ``dinov2`` a folder or hub
            name. ``hf:`` names them already.
        **options: of the constructor, for ``tiny`` and ``croco`` without weights; see also
            :attr:`Encoder.config`.

    Returns:
        The encoder. ``build_encoder(**encoder.config)`` is the same network with random weights.

    Raises:
        FileNotFoundError: there is no such file of weights.
        ValueError: no such name, weights of another network or another size, or options that do not apply.

    Example:
        >>> build_encoder("tiny", dim=64).dim
        64
        >>> build_encoder("clip")
        Traceback (most recent call last):
        ValueError: encoder: expected tiny, croco, croco-base, croco-large, dinov2-<size>[-reg] or \
hf:<name>, got 'clip'
    """
    kind = name.partition(":")[0].partition("-")[0]
    if name == "tiny":
        encoder = TinyEncoder(**options)
        if weights is not None:
            _log.info("%s: %s", weights, begin_with_descriptor(encoder, weights))
        return encoder
    if name == "croco" or name in _CROCO_SIZES:
        return _build_croco(name, weights, options)
    if kind in ("dinov2", "hf"):
        from sightline.vpog.transformers_encoder import build_dinov2, build_transformers_encoder

        build = build_dinov2 if kind == "dinov2" else build_transformers_encoder
        return build(name, weights, **options)
    known = ", ".join(["tiny", "croco", *_CROCO_SIZES])
    raise ValueError(f"encoder: expected {known}, dinov2-<size>[-reg] or hf:<name>, got {name!r}")


def _build_croco(name: str, weights: str | Path | None, options: dict[str, Any]) -> CroCoEncoder:
    wanted = _CROCO_SIZES.get(name, {}) | options
    if weights is None:
        return CroCoEncoder(ViT(**wanted))
    vit, _ = load_croco_encoder(weights)
    differing = [f"{key} {vit.config.get(key)}" for key in wanted if vit.config.get(key) != wanted[key]]
    if differing:
        raise ValueError(f"{weights}: expected {name} with {wanted}, the file has {', '.join(differing)}")
    return CroCoEncoder(vit)
