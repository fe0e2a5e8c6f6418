"""Weights of ConvNeXt from the four schemes of names in which they are published, every key accounted for.

``transformers`` (``encoder.stages.0.layers.1.dwconv``), Facebook's own (``stages.0.1.dwconv``), timm
(``stages.0.blocks.1.conv_dw``) and torchvision (``features.1.1.block.0``) number and name the same tensors
differently; some keep pointwise layers as 1x1 convolutions or layer scales as ``(c, 1, 1)``. Names are
translated one by one, and what does not find its place is an error, not a silent partial match.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sightline.nn.backbones import ConvNeXtBackbone

_BLOCK_PARTS = {
    "dwconv": "dwconv",
    "conv_dw": "dwconv",
    "norm": "layernorm",
    "layernorm": "layernorm",
    "pwconv1": "pwconv1",
    "pwconv2": "pwconv2",
    "mlp.fc1": "pwconv1",
    "mlp.fc2": "pwconv2",
    "block.0": "dwconv",
    "block.2": "layernorm",
    "block.3": "pwconv1",
    "block.5": "pwconv2",
}
_STEM_PARTS = ("patch_embeddings", "layernorm")
_UNUSED = re.compile(r"(convnext\.)?(layernorm|norm|head|classifier)\b")


def _block(stage: str, block: str, part: str, end: str) -> str:
    return f"stages.{stage}.layers.{block}.{_BLOCK_PARTS[part]}.{end}"


def _scale(stage: str, block: str) -> str:
    return f"stages.{stage}.layers.{block}.layer_scale_parameter"


def _step(stage: int, part: str, end: str) -> str:
    """The step down before a stage; that before the first is the stem."""
    if stage == 0:
        return f"embeddings.{_STEM_PARTS[int(part)]}.{end}"
    return f"stages.{stage}.downsampling_layer.{part}.{end}"


_PART = "|".join(re.escape(part) for part in _BLOCK_PARTS)
_RULES: tuple[tuple[re.Pattern[str], Callable[..., str]], ...] = tuple(
    (re.compile(pattern), rename)
    for pattern, rename in [
        # transformers
        (r"(?:convnext\.)?(embeddings\.(?:patch_embeddings|layernorm)\.(?:weight|bias))", lambda key: key),
        (r"(?:convnext\.)?encoder\.(stages\.\d\..+)", lambda key: key),
        # Facebook
        (rf"stages\.(\d)\.(\d+)\.({_PART})\.(weight|bias)", _block),
        (r"stages\.(\d)\.(\d+)\.gamma", _scale),
        (r"downsample_layers\.(\d)\.([01])\.(weight|bias)", lambda s, p, e: _step(int(s), p, e)),
        # timm
        (rf"stages\.(\d)\.blocks\.(\d+)\.({_PART})\.(weight|bias)", _block),
        (r"stages\.(\d)\.blocks\.(\d+)\.gamma", _scale),
        (r"stem\.([01])\.(weight|bias)", lambda p, e: _step(0, p, e)),
        (r"stages\.(\d)\.downsample\.([01])\.(weight|bias)", lambda s, p, e: _step(int(s), p, e)),
        # torchvision: stages are the odd entries of features, the steps before them the even ones
        (
            rf"features\.([1357])\.(\d+)\.({_PART})\.(weight|bias)",
            lambda s, b, p, e: _block(str(int(s) // 2), b, p, e),
        ),
        (r"features\.([1357])\.(\d+)\.layer_scale", lambda s, b: _scale(str(int(s) // 2), b)),
        (r"features\.([0246])\.([01])\.(weight|bias)", lambda s, p, e: _step(int(s) // 2, p, e)),
    ]
)


@dataclass(frozen=True)
class PretrainedReport:
    """What became of every key of a file of weights.

    Args:
        matched: keys of the backbone that were filled.
        missing: keys of the backbone that the file lacks.
        unexpected: keys of the file that no rule knows, or that name a tensor that the backbone lacks.
        mismatched: keys of the backbone whose tensor in the file has another shape.
        unused: keys of the file that belong to its classifier.
        new: keys of the backbone's output norms, which no classification weights have.

    Example:
        >>> PretrainedReport(("a",), (), (), (), ("head.weight",), ("norms.0.weight",)).summary()
        '1 matched, 0 missing, 0 unexpected, 0 mismatched; 1 of the classifier unused, 1 output norms new'
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    unused: tuple[str, ...]
    new: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every tensor of the backbone was filled and every key of the file was understood."""
        return not (self.missing or self.unexpected or self.mismatched)

    def summary(self) -> str:
        """One line of counts."""
        return (
            f"{len(self.matched)} matched, {len(self.missing)} missing, {len(self.unexpected)} unexpected, "
            f"{len(self.mismatched)} mismatched; {len(self.unused)} of the classifier unused, "
            f"{len(self.new)} output norms new"
        )

    def complaint(self) -> str:
        """Every key that is at fault, by kind."""
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": self.mismatched}
        return "; ".join(f"{kind}: {', '.join(keys)}" for kind, keys in kinds.items() if keys)


def rename_convnext_key(key: str) -> str | None:
    """The backbone's name of a tensor that is published under another.

    Args:
        key: a name of ``transformers``, Facebook's, timm's or torchvision's.

    Returns:
        The key of :class:`~sightline.nn.backbones.ConvNeXtBackbone`, or None where no rule knows it.

    Example:
        >>> rename_convnext_key("stages.0.1.dwconv.weight")
        'stages.0.layers.1.dwconv.weight'
        >>> rename_convnext_key("stages.0.blocks.1.conv_dw.weight")
        'stages.0.layers.1.dwconv.weight'
    """
    for pattern, rename in _RULES:
        match = pattern.fullmatch(key)
        if match:
            return rename(*match.groups())
    return None


def load_convnext_weights(
    backbone: ConvNeXtBackbone, source: str | Path | Mapping[str, Tensor], *, strict: bool = True
) -> PretrainedReport:
    """Fill a backbone with published weights, and say what became of every key.

    Args:
        backbone: the backbone to fill.
        source: a name on the Hugging Face hub or a folder that ``ConvNextModel.from_pretrained`` reads, or
            a state dict in any of the four schemes.
        strict: refuse weights that do not fit entirely; the backbone is then as it was before.

    Returns:
        The report.

    Raises:
        ValueError: if ``strict`` and keys are missing, unexpected or of another shape; all are listed.

    Example:
        >>> small = {"depths": (1, 1, 1, 1), "hidden_sizes": (8, 8, 8, 8)}
        >>> backbone, other = ConvNeXtBackbone(**small), ConvNeXtBackbone(**small)
        >>> stages = {f"encoder.{k}": v for k, v in other.state_dict().items() if k.startswith("stages")}
        >>> report = load_convnext_weights(backbone, stages, strict=False)
        >>> report.missing[0]
        'embeddings.patch_embeddings.weight'
    """
    weights = source if isinstance(source, Mapping) else _read(source)
    own = backbone.state_dict()
    found: dict[str, Tensor] = {}
    unexpected, mismatched, unused = [], [], []
    for key, tensor in weights.items():
        name = rename_convnext_key(key)
        if name is None or name not in own:
            (unused if _UNUSED.match(key) else unexpected).append(key)
        elif name in found:
            unexpected.append(key)  # two names of one tensor: the file is a mixture
        elif not _same_tensor(tensor, own[name]):
            mismatched.append(f"{name} {tuple(tensor.shape)} for {tuple(own[name].shape)}")
            found[name] = own[name]
        else:
            found[name] = tensor.reshape(own[name].shape)
    new = tuple(key for key in own if key.startswith("norms."))
    report = PretrainedReport(
        matched=tuple(key for key in own if key in found and found[key] is not own[key]),
        missing=tuple(key for key in own if key not in found and key not in new),
        unexpected=tuple(unexpected),
        mismatched=tuple(mismatched),
        unused=tuple(unused),
        new=new,
    )
    if strict and not report.complete:
        raise ValueError(f"these weights do not fit ConvNeXt {backbone.variant}: {report.complaint()}")
    backbone.load_state_dict(found, strict=False)
    return report


def _same_tensor(given: Tensor, own: Tensor) -> bool:
    """Whether two shapes differ only by axes of length one: a 1x1 convolution is a linear layer."""
    return [n for n in given.shape if n > 1] == [n for n in own.shape if n > 1]


def _read(source: str | Path) -> dict[str, Tensor]:
    from transformers import ConvNextModel

    loaded: Any = ConvNextModel.from_pretrained(source, output_loading_info=True)
    model, info = loaded
    if info["missing_keys"]:
        raise ValueError(f"{source} lacks weights of ConvNeXt: {', '.join(sorted(info['missing_keys']))}")
    return model.state_dict()
