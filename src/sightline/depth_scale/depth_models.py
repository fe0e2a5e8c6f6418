"""Pretrained depth networks by name or folder: what they give, and at what focal length they learned it."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sightline.depth_scale.depth_network import DepthEstimate, DepthKind, DepthModel, Picture, as_picture

DEFAULT_MODEL = "depth-anything/Depth-Anything-V2-Small-hf"

CANONICAL_FOCAL_PX = {20: 886.81 * 518 / 768, 80: 725.0087 * 518 / 375}
"""By the ``max_depth`` of Depth Anything V2's metric models, the focal length of what they saw in training,
pixels: Hypersim (886.81 px at 1024x768) and Virtual KITTI 2 (725.0087 px at 1242x375), both resized to a
shorter side of 518. ZoeDepth is not here: it is used with a padding that it was not trained with, and one of
its models learned from cameras of two focal lengths."""

# The first fusion layer has nothing to fuse with: published checkpoints leave out the weights it never uses.
_NEVER_USED = re.compile(r"fusion_stage\.layers\.0\.residual_layer1\.")


def estimate_depth(
    image: Picture,
    model: str | Path | DepthModel = DEFAULT_MODEL,
    *,
    focal_px: float | None = None,
    revision: str | None = None,
    kind: DepthKind | None = None,
    canonical_focal_px: float | None = None,
    device: str | torch.device = "cpu",
) -> DepthEstimate:
    """Estimate the depth of a picture.

    Args:
        image: a file, or ``(h, w, 3)`` uint8 RGB.
        model: a name on the Hugging Face hub, a folder, or what :func:`load_depth_model` gave, which is the
            way for many pictures.
        focal_px: of the picture as given, pixels; corrects the metres of a metric model.
        revision: of the model on the hub.
        kind: what the model gives, where its configuration does not tell or tells wrong.
        canonical_focal_px: see :func:`load_depth_model`.
        device: where the network runs and the result lies.

    Returns:
        Depth at the picture's own size, and whether it is metric or relative.

    Raises:
        ValueError: no picture; no such model; a model whose kind or focal length is needed and not known.

    Example:
        >>> import numpy as np
        >>> estimate_depth(np.zeros((4, 6)))
        Traceback (most recent call last):
        ValueError: image: expected uint8 RGB of shape (h, w, 3), got float64 of shape (4, 6)
    """
    picture = as_picture(image)
    if not isinstance(model, DepthModel):
        model = load_depth_model(
            model, revision=revision, kind=kind, canonical_focal_px=canonical_focal_px, device=device
        )
    elif (revision, kind, canonical_focal_px, str(device)) != (None, None, None, "cpu"):
        raise ValueError("revision, kind, canonical_focal_px, device: a loaded model has its own already")
    return model.estimate(picture, focal_px=focal_px)


def load_depth_model(
    model: str | Path = DEFAULT_MODEL,
    *,
    revision: str | None = None,
    kind: DepthKind | None = None,
    canonical_focal_px: float | None = None,
    device: str | torch.device = "cpu",
    local_files_only: bool = False,
) -> DepthModel:
    """Load a depth network for many pictures: safetensors alone, and no code from the hub.

    What it gives is read from its configuration: metres from ZoeDepth and from Depth Anything where it says
    ``"metric"``; relative inverse depth from Depth Anything else and from DPT, as MiDaS trained it.

    Args:
        model: a name on the Hugging Face hub, or a folder with ``config.json``, ``model.safetensors`` and
            ``preprocessor_config.json``. What was fetched before is used without asking the hub.
        revision: of the model on the hub.
        kind: overrides what the configuration says; needed for other architectures.
        canonical_focal_px: focal length of the training pictures at the size of the network's input, pixels;
            known for Depth Anything V2 (:data:`CANONICAL_FOCAL_PX`).
        device: where the network runs and the results lie.
        local_files_only: whether not to ask the hub.

    Returns:
        The model.

    Raises:
        ValueError: there is no such model, it is incomplete or no depth network, or its kind is not known.

    Example:
        >>> load_depth_model("no/such-folder/here")
        Traceback (most recent call last):
        ValueError: no/such-folder/here: expected a folder, or a model of the hub as in 'owner/name'
    """
    name = str(model)
    is_folder = bool(name) and Path(model).is_dir()
    if not is_folder and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise ValueError(f"{name}: expected a folder, or a model of the hub as in 'owner/name'")
    config, processor, network = _read_model(name, revision, local_files_only or is_folder)
    return DepthModel(
        network,
        processor=processor,
        kind=kind or _kind_of(name, config),
        canonical_focal_px=canonical_focal_px or _canonical_focal_of(config),
        name=Path(name).name,
        device=device,
    )


def _read_model(name: str, revision: str | None, offline: bool) -> tuple[Any, Any, nn.Module]:
    from transformers import AutoConfig, AutoImageProcessor, AutoModelForDepthEstimation

    reason = ""
    for local in (True,) if offline else (True, False):
        where: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False}
        where |= {} if revision is None else {"revision": revision}
        try:
            with _quiet():
                config = AutoConfig.from_pretrained(name, **where)
                processor = AutoImageProcessor.from_pretrained(name, backend="pil", **where)
                network, report = AutoModelForDepthEstimation.from_pretrained(
                    name, config=config, use_safetensors=True, output_loading_info=True, **where
                )
        except OSError as error:
            reason = str(error).partition("\n")[0]
            continue
        except (ValueError, KeyError, RuntimeError, ImportError) as error:
            raise ValueError(f"{name}: expected a whole network for depth estimation; {error}") from error
        missing = [key for key in report["missing_keys"] if not _NEVER_USED.search(key)]
        if missing:
            raise ValueError(f"{name}: {len(missing)} weights are missing, such as {min(missing)}")
        return config, processor, network
    raise ValueError(
        f"{name}: the model is not here and could not be fetched ({reason}); give the folder with its "
        "config.json, preprocessor_config.json and model.safetensors"
    )


@contextmanager
def _quiet() -> Generator[None]:
    """Without transformers' progress bars, and its setting as it was afterwards."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _kind_of(name: str, config: Any) -> DepthKind:  # noqa: ANN401
    match config.model_type:
        case "depth_anything":
            return "metric_depth" if config.depth_estimation_type == "metric" else "inverse_depth"
        case "zoedepth":
            return "metric_depth"
        case "dpt":
            return "inverse_depth"
    raise ValueError(
        f"{name}: whether a network of the type {config.model_type!r} gives metres is not known; give "
        "kind='metric_depth' or kind='inverse_depth'"
    )


def _canonical_focal_of(config: Any) -> float | None:  # noqa: ANN401
    metric = getattr(config, "depth_estimation_type", None) == "metric"
    return CANONICAL_FOCAL_PX.get(config.max_depth) if metric else None
