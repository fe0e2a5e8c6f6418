"""Vision transformers of the library ``transformers`` as encoders: DINOv2, and others that keep to patches.

Tokens that stand for no patch (class, registers) come first in all of them and are left out; positional
embeddings learned at another size are interpolated by the networks themselves.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from sightline.nn.pictures import IMAGENET_MEAN, IMAGENET_STD
from sightline.vpog.encoder import Encoder, Licence

_log = logging.getLogger(__name__)

DINOV2 = Licence("Apache-2.0", commercial=True)
_DINOV3 = Licence("DINOv3 License, with conditions", commercial=None)
_UNKNOWN = Licence("unknown, see their source", commercial=None)
# what takes no part must not wait for a gradient, which DistributedDataParallel takes for an error
_IDLE = re.compile(r"(^|\.)(mask_token|head)(\.|$)")
_DINOV2_SIZES: dict[str, dict[str, Any]] = {
    "small": {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6},
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
    "large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
    "giant": {
        "hidden_size": 1536,
        "num_hidden_layers": 40,
        "num_attention_heads": 24,
        "use_swiglu_ffn": True,
    },
}


class TransformersEncoder(Encoder):
    """A vision transformer of ``transformers``.

    Args:
        network: gives ``last_hidden_state`` of ``pixel_values``, and has a ``config`` with ``patch_size``.
        licence: of its weights.
        config: see :class:`~sightline.vpog.encoder.Encoder`; by itself that of the network.
        mean: of each colour, as the network was trained.
        std: of each colour, likewise.

    Raises:
        ValueError: a network without patches.

    Example:
        >>> import torch
        >>> from transformers import Dinov2Config, Dinov2Model
        >>> small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 56}
        >>> encoder = TransformersEncoder(Dinov2Model(Dinov2Config(**small)), licence=DINOV2)
        >>> encoder.patch_size, encoder(torch.rand(2, 3, 70, 70))[0].shape
        (14, torch.Size([2, 25, 16]))
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        licence: Licence = _UNKNOWN,
        config: dict[str, Any] | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        form: Any = network.config
        patch_size = getattr(form, "patch_size", None)
        if not isinstance(patch_size, int) or not hasattr(form, "hidden_size"):
            raise ValueError(f"expected a vision transformer of square patches, got {form.model_type}")
        described = {"architecture": form.to_dict(), "mean": list(mean), "std": list(std)}
        config = config or {"name": "hf", **described}
        super().__init__(patch_size, form.hidden_size, licence, config, mean=mean, std=std)
        self.network = network
        if getattr(network, "pooler", None) is not None:
            network.register_module("pooler", None)
        for parameter_name, parameter in network.named_parameters():
            if _IDLE.search(parameter_name):
                parameter.requires_grad_(False)
        takes = inspect.signature(network.forward).parameters
        self._options = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in takes else {}

    def encode(self, pictures: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b n c"]:
        """See :meth:`~sightline.vpog.encoder.Encoder.encode`."""
        hidden = self.network(pixel_values=pictures, **self._options).last_hidden_state
        patches = self.grid(pictures.shape[-1]) ** 2
        if hidden.ndim != 3 or hidden.shape[1] < patches:
            raise ValueError(
                f"{self.config['name']}: expected a token for each of {patches} patches, the network gave "
                f"{tuple(hidden.shape)}"
            )
        return hidden[:, -patches:]


def build_dinov2(name: str, weights: str | Path | None = None) -> TransformersEncoder:
    """DINOv2 (Oquab et al., 2023) of a published size.

    Args:
        name: ``dinov2-small``, ``-base``, ``-large`` or ``-giant``, with ``-reg`` after it for registers.
        weights: a folder with ``config.json`` and ``model.safetensors``, or a name on the hub such as
            ``facebook/dinov2-base``; random otherwise.

    Returns:
        The encoder.

    Raises:
        ValueError: no such size, or weights of another network.
    """
    parts = re.fullmatch(r"dinov2-(\w+?)(-reg)?", name)
    if parts is None or parts[1] not in _DINOV2_SIZES:
        known = ", ".join(f"dinov2-{size}" for size in _DINOV2_SIZES)
        raise ValueError(f"encoder: expected {known}, or one of these with -reg, got {name!r}")
    architecture = _dinov2_architecture(_DINOV2_SIZES[parts[1]], registers=parts[2] is not None)
    if weights is None:
        network = _make(architecture)
    else:
        network = _read(str(weights))
        _require_architecture(str(weights), name, network.config.to_dict(), architecture)
    return TransformersEncoder(network, licence=DINOV2, config={"name": name})


def build_transformers_encoder(
    name: str,
    weights: str | Path | None = None,
    *,
    architecture: dict[str, Any] | None = None,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> TransformersEncoder:
    """Any vision transformer of a folder or the hub, or of a description with random weights.

    Args:
        name: ``hf:`` and a folder or hub name, whose ``preprocessor_config.json`` tells mean and deviation;
            or ``hf`` alone, with an architecture.
        weights: must be None; the name has them.
        architecture: ``network.config.to_dict()``.
        mean: of each colour, with an architecture.
        std: of each colour, with an architecture.

    Returns:
        The encoder.

    Raises:
        ValueError: no such model, an incomplete one, or one without patches.
    """
    source = name.partition(":")[2]
    if weights is not None or bool(source) == (architecture is not None):
        raise ValueError("encoder: expected hf:<name> and no weights, or hf with an architecture")
    if architecture is not None:
        network = _make(architecture)
    else:
        network = _read(source)
        mean, std = _statistics(source)
    licence = _DINOV3 if network.config.model_type.startswith("dinov3") else _UNKNOWN
    if source:
        _log.warning("%s: weights under a licence %s", source, licence.name)
    return TransformersEncoder(network, licence=licence, mean=mean, std=std)


def _dinov2_architecture(size: dict[str, Any], *, registers: bool) -> dict[str, Any]:
    form = {"patch_size": 14, "image_size": 518, "mlp_ratio": 4, **size}
    if registers:
        return {"model_type": "dinov2_with_registers", "num_register_tokens": 4, **form}
    return {"model_type": "dinov2", **form}


def _require_architecture(source: str, name: str, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    differing = [f"{key} {found.get(key)}" for key in wanted if found.get(key) != wanted[key]]
    if differing:
        raise ValueError(f"{source}: expected {name}, its config.json has {', '.join(differing)}")


def _make(architecture: dict[str, Any]) -> Any:  # noqa: ANN401  # as transformers types it
    from transformers import AutoConfig, AutoModel

    form = dict(architecture)
    return AutoModel.from_config(AutoConfig.for_model(form.pop("model_type"), **form))


def _read(source: str) -> Any:  # noqa: ANN401  # as transformers types it
    from transformers import AutoModel

    try:
        network, report = AutoModel.from_pretrained(
            source,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=Path(source).is_dir(),
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{source}: expected a folder with config.json and model.safetensors, or a model of the hub; "
            f"{reason}"
        ) from error
    missing = [key for key in report["missing_keys"] if not key.startswith("pooler.")]
    if missing:
        raise ValueError(f"{source}: {len(missing)} weights are missing, such as {min(missing)}")
    return network


def _statistics(source: str) -> tuple[Sequence[float], Sequence[float]]:
    from transformers import AutoImageProcessor

    try:
        processor: Any = AutoImageProcessor.from_pretrained(
            source, backend="pil", local_files_only=Path(source).is_dir()
        )
        return tuple(processor.image_mean), tuple(processor.image_std)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{source}: expected a preprocessor_config.json with the image_mean and image_std of its training"
        ) from error
