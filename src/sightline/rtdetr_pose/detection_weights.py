"""Published detection weights in an :class:`RTDETRPose`: every key accounted for, or nothing changes."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sightline.nn.checkpoint import LoadReport, read_tensors
from sightline.rtdetr_pose.detection_names import Layout, Named, name_detection_weights
from sightline.rtdetr_pose.model import RTDETRPose

_CLASS_HEADS = re.compile(
    r"denoising_class_embed\.weight|(enc_score_head|decoder\.class_embed\.\d+)\.(weight|bias)"
)
_CONSTANTS = re.compile(r".*\.(num_batches_tracked|n_points_scale)")
_FILE = "model.safetensors"
_HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class DetectionLoadReport(LoadReport):
    """What became of every key of a file of detection weights, and of every key of the detector.

    Args:
        matched: keys of the detector that were filled.
        missing: keys of the detector that the file lacks.
        unexpected: keys of the file that the detector lacks.
        mismatched: keys of both with another shape, with both in words.
        layout: whose names the file has.
        reinitialised: the heads of classes that stay as they were drawn, because the classes are others.
        ignored: keys of the file that hold nothing to learn, or again what another key holds.
        constant: keys of the detector that the file need not have: counters and constants.

    Example:
        >>> print(DetectionLoadReport(("a",), (), (), {}, reinitialised=("enc_score_head.bias",)))
        1 key matched; 1 for other classes, drawn anew: enc_score_head.bias
    """

    layout: Layout = "sightline"
    reinitialised: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    constant: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [super().__str__()]
        for words, names in (
            ("for other classes, drawn anew", self.reinitialised),
            ("not needed", self.ignored),
        ):
            if names:
                parts.append(f"{len(names)} {words}: {', '.join(names)}")
        return "; ".join(parts)


def load_detection_weights(
    model: RTDETRPose | nn.Module,
    source: str | Path | Mapping[str, Tensor],
    *,
    keep_classes: bool = True,
) -> DetectionLoadReport:
    """Fill the detector of a model with published weights of RT-DETR or RT-DETRv2 of the same size.

    Only the heads of classes may stay as they were drawn (``denoising_class_embed``, ``enc_score_head`` and
    ``class_embed``), and only where the classes are others. Everything else has to fit.

    Args:
        model: an :class:`RTDETRPose`, or its ``detector``.
        source: a folder or file of ``safetensors``; a ``.pth`` of the authors, of which nothing but tensors
            is unpickled; a name on the Hugging Face hub, whose ``model.safetensors`` is fetched; or tensors
            by name.
        keep_classes: False draws the heads of classes anew even where their number is the same.

    Returns:
        Where each key went.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another format, or keys that are missing, unexpected or of another shape, all listed; the
            model is then as it was.

    Example:
        >>> of_80, of_5 = (RTDETRPose(n, 64, 10, backbone="tiny") for n in (80, 5))
        >>> report = load_detection_weights(of_5, of_80.detector.state_dict())
        >>> report.complete, report.reinitialised[0]
        (True, 'denoising_class_embed.weight')
    """
    detector: Any = model.detector if isinstance(model, RTDETRPose) else model
    tensors = source if isinstance(source, Mapping) else _read(source)
    where = "" if isinstance(source, Mapping) else f"{source}: "
    named = name_detection_weights(tensors)
    report = _compare(detector.state_dict(), named, keep_classes)
    if not report.complete:
        raise ValueError(f"{where}the weights do not fit this detector: {report}")
    detector.load_state_dict({name: named.tensors[name][1] for name in report.matched}, strict=False)
    return report


def _compare(wanted: Mapping[str, Tensor], named: Named, keep_classes: bool) -> DetectionLoadReport:
    matched, missing, constant, anew = [], [], [], []
    mismatched: dict[str, str] = {}
    for name, ours in wanted.items():
        if name not in named.tensors:
            (constant if _CONSTANTS.fullmatch(name) else missing).append(name)
            continue
        theirs = named.tensors[name][1]
        of_classes = _CLASS_HEADS.fullmatch(name) is not None and theirs.shape[1:] == ours.shape[1:]
        if of_classes and (theirs.shape != ours.shape or not keep_classes):
            anew.append(name)
        elif theirs.shape != ours.shape:
            mismatched[name] = f"{list(theirs.shape)} in the weights, {list(ours.shape)} in the model"
        else:
            matched.append(name)
    foreign = {new: old for new, (old, _) in named.tensors.items() if new not in wanted}
    counters = tuple(old for new, old in foreign.items() if _CONSTANTS.fullmatch(new))
    return DetectionLoadReport(
        tuple(matched),
        tuple(missing),
        tuple(old for old in foreign.values() if old not in counters),
        mismatched,
        layout=named.layout,
        reinitialised=tuple(anew),
        ignored=(*named.ignored, *counters),
        constant=tuple(constant),
    )


def _read(source: str | Path) -> dict[str, Tensor]:
    path = Path(source)
    if path.is_dir():
        files = sorted(path.glob("*.safetensors"))
        if not files:
            raise FileNotFoundError(f"{path}: no file of weights with the suffix .safetensors in this folder")
        return {name: tensor for file in files for name, tensor in read_tensors(file)[0].items()}
    if path.suffix in (".pth", ".pt"):
        return _read_official(path)
    is_hub_name = not path.exists() and path.suffix != ".safetensors" and _HUB_NAME.fullmatch(str(source))
    return read_tensors(_fetch(str(source)) if is_hub_name else path)[0]


def _fetch(name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(name, _FILE))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise FileNotFoundError(
            f"{name}: neither a file or folder here nor weights that the hub gives ({type(error).__name__})"
        ) from error


def _read_official(path: Path) -> dict[str, Tensor]:
    """The averaged weights of a training checkpoint of the authors, else the plain ones."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of weights")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path}: damaged, or it holds more than tensors and plain values") from error
    for keys in (("ema", "module"), ("model",), ("state_dict",)):
        inner = stored
        for key in keys:
            inner = inner.get(key) if isinstance(inner, Mapping) else None
        if isinstance(inner, Mapping):
            stored = inner
            break
    if not isinstance(stored, Mapping) or not all(isinstance(value, Tensor) for value in stored.values()):
        raise ValueError(
            f'{path}: expected tensors by name, at the top or under ["ema"]["module"] or ["model"]'
        )
    return dict(stored)
