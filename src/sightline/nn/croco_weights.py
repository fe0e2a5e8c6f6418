"""Encoders of CroCo v2 from a file that the user has: its tensors alone, every key accounted for.

The weights are published by Naver under CC BY-NC-SA 4.0, which forbids commercial use, so they are neither
part of this package nor ever fetched by it. A file is a pickle of ``{"croco_kwargs": {...}, "model": {...}}``
and is read with ``weights_only``, which runs no code of it.
"""

from __future__ import annotations

import logging
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sightline.nn.checkpoint import LoadReport, load_weights
from sightline.nn.vit import ViT

CROCO_LICENCE = "CC BY-NC-SA 4.0"

_log = logging.getLogger(__name__)
_ENCODER = re.compile(r"(patch_embed|enc_blocks|enc_norm)\.")
_DECODER = re.compile(r"(decoder_embed|dec_blocks|dec_norm|prediction_head)\.|mask_token$")
# what a file leaves out has the value that CroCo's own constructor would give it
_DEFAULTS = {
    "enc_embed_dim": 768,
    "enc_depth": 12,
    "enc_num_heads": 12,
    "patch_size": 16,
    "mlp_ratio": 4,
    "pos_embed": "cosine",
}
_FOREIGN = {
    "DUSt3R or MASt3R": r"(dec_blocks2|downstream_head\d?)\.",
    "a stereo or flow model made from CroCo": r"head\.dpt\.",
    "VGGT": r"aggregator\.",
    "a Vision Transformer of transformers": r"(vit\.|dinov2\.)?(encoder\.)?layers?\.\d+\.|embeddings\.",
    "DINO or timm": r"(module\.|backbone\.)?(blocks\.\d+\.|cls_token$|pos_embed$)",
    "a convolutional network": r"(conv1|bn1|stages|downsample_layers|features)\.",
}


@dataclass(frozen=True)
class CroCoReport:
    """Where each key of a CroCo file went.

    Args:
        encoder: of the encoder; complete, or loading fails.
        unused: keys of the decoder, which a single picture does not need.
        licence: of the weights.

    Example:
        >>> print(CroCoReport(LoadReport(("enc_norm.weight",), (), (), {}), ("mask_token",)))
        1 key matched; 1 of the decoder unused; licence CC BY-NC-SA 4.0, not for commercial use
    """

    encoder: LoadReport
    unused: tuple[str, ...]
    licence: str = CROCO_LICENCE

    def __str__(self) -> str:
        unused = f"{len(self.unused)} of the decoder unused"
        return f"{self.encoder}; {unused}; licence {self.licence}, not for commercial use"


def load_croco_encoder(path: str | Path) -> tuple[ViT, CroCoReport]:
    """The encoder of a CroCo v2 file, of whatever size the file says.

    Logs a warning that the weights must not be used commercially.

    Args:
        path: a file such as ``CroCo_V2_ViTBase_BaseDecoder.pth``.

    Returns:
        The encoder, and where each key went.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, holds more than tensors and plain values, is of CroCo v1 or another
            network (named where it is known), or its encoder lacks keys or has others.
    """
    path = Path(path)
    options, tensors = _read(path)
    try:
        vit = _build(options)
        # a decoder's keys belong to no encoder; all others must fit
        report = load_weights(vit, tensors, rename=lambda key: None if _DECODER.match(key) else key)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
    found = CroCoReport(report, tuple(key for key in tensors if _DECODER.match(key)))
    _log.warning("%s: CroCo v2, %s", path, found)
    return vit, found


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The constructor's values and the tensors of a file that is CroCo v2's."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of weights")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path}: expected a CroCo v2 file; this one holds more than tensors and plain values and is not "
            "opened, because that can run code (files of DUSt3R and MASt3R are so), or is no file of weights"
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{path}: expected a CroCo v2 file, damaged or truncated") from error
    tensors = content.get("model", content) if isinstance(content, Mapping) else {}
    if not isinstance(tensors, Mapping) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise ValueError(f"{path}: expected a CroCo v2 file with the entries croco_kwargs and model")
    _refuse_foreign(path, list(tensors))
    options = _DEFAULTS | dict(content.get("croco_kwargs") or {})
    if options["pos_embed"] == "cosine":
        raise ValueError(f"{path}: expected CroCo v2, this is CroCo v1, with cosine positions")
    return options, dict(tensors)


def _refuse_foreign(path: Path, keys: list[str]) -> None:
    for network, pattern in _FOREIGN.items():
        strange = next((key for key in keys if re.match(pattern, key)), None)
        if strange is not None:
            raise ValueError(f"{path}: expected CroCo v2, the key {strange} is of {network}")
    if not any(_ENCODER.match(key) for key in keys):
        some = ", ".join(map(str, keys[:3])) or "none"
        raise ValueError(f"{path}: expected CroCo v2, no key is of its encoder (the first are: {some})")


def _build(options: Mapping[str, Any]) -> ViT:
    base = re.fullmatch(r"RoPE(\d+(?:\.\d+)?)", str(options["pos_embed"]))
    if base is None:
        raise ValueError(f"pos_embed: expected RoPE100 or alike, got {options['pos_embed']!r}")
    return ViT(
        options["enc_embed_dim"],
        options["enc_depth"],
        options["enc_num_heads"],
        patch_size=options["patch_size"],
        mlp_ratio=options["mlp_ratio"],
        rope_base=float(base[1]),
    )
