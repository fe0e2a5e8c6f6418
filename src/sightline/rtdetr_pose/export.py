"""The model as one ONNX graph: any number of pictures with their intrinsics to classes, boxes and poses."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sightline.formats.json_files import write_json
from sightline.rtdetr_pose.box_detail import BoxDetail
from sightline.rtdetr_pose.deformable_sampling import Sampling, replace_attention
from sightline.rtdetr_pose.detector import STRIDES
from sightline.rtdetr_pose.model import RTDETRPose

MANIFEST = "export.json"
GRAPH = "pose.onnx"

_MIN_OPSET = 18
_EXAMPLE_PICTURES = 2


class PoseGraph(nn.Module):
    """A model whose outputs are a tuple, without aught that only training needs.

    Args:
        model: the model; the graph has a copy of its own, in evaluation and without the masked branch.
        sampling: ``gather`` replaces ``grid_sample`` in the deformable attention, as TensorRT needs it.

    Raises:
        ValueError: another way of sampling, or a model that takes depth.

    Example:
        >>> graph = PoseGraph(RTDETRPose(3, 64, 10, backbone="tiny"))
        >>> K = torch.tensor([[[64.0, 0, 31.5], [0, 64, 31.5], [0, 0, 1]]])
        >>> outputs = graph(torch.rand(1, 3, 64, 64), K)
        >>> dict(zip(graph.outputs, [tuple(each.shape) for each in outputs], strict=True))["log_z"]
        (1, 10, 1)
    """

    def __init__(self, model: RTDETRPose, *, sampling: Sampling | str = "grid_sample") -> None:
        super().__init__()
        if model.depth_fusion is not None:
            raise ValueError("a model that takes a sensor's depth is not exported")
        self.model = copy.deepcopy(model).eval()
        self.model.mim = None
        replace_attention(self.model.detector, sampling)
        for module in self.model.modules():
            if isinstance(module, BoxDetail):
                module.sampling = sampling

    @property
    def outputs(self) -> list[str]:
        """Their names, in order."""
        names = ["logits", "bbox", "log_z", "rot6d", "offsets", "k_delta"]
        spread = ["log_sigma_z", "log_sigma_rot"] if self.model.config["use_uncertainty"] else []
        return [*names, *spread, "enc_logits", "enc_bbox"]

    def forward(
        self, images: Float[Tensor, "b 3 h w"], intrinsics: Float[Tensor, "b 3 3"]
    ) -> tuple[Tensor, ...]:
        """The outputs in the order of their names."""
        found = self.model(images, intrinsics=intrinsics)
        found |= {f"enc_{name}": tensor for name, tensor in found["enc_outputs"].items()}
        return tuple(found[name] for name in self.outputs)


@dataclass(frozen=True)
class ExportedPose:
    """The files of an export.

    Args:
        graph: the ONNX file.
        manifest: what ``export.json`` says.
    """

    graph: Path
    manifest: dict[str, Any]


def export_onnx(
    model: RTDETRPose,
    folder: str | Path,
    *,
    image_size: tuple[int, int] = (640, 640),
    sampling: Sampling | str = "grid_sample",
    opset_version: int = _MIN_OPSET,
) -> ExportedPose:
    """Write ``pose.onnx`` and, beside it, ``export.json``, which says all that a program has to know.

    Args:
        model: the model, on the CPU; it stays as it is.
        folder: to write to; it is made.
        image_size: ``(width, height)`` of the pictures, multiples of 32. Their number is free.
        sampling: ``grid_sample``, or ``gather`` for runtimes without it or with a wrong one (TensorRT).
        opset_version: of ONNX, at least 18.

    Returns:
        The paths.

    Raises:
        ModuleNotFoundError: the packages of the ``export`` extra are not installed.
        ValueError: sizes, sampling or an opset that cannot be.
    """
    if find_spec("onnxscript") is None:
        raise ModuleNotFoundError("ONNX needs the package onnxscript: pip install 'sightline[export]'")
    if (
        len(image_size) != 2
        or min(image_size) < STRIDES[-1]
        or any(side % STRIDES[-1] for side in image_size)
    ):
        raise ValueError(
            f"image_size: expected (width, height), multiples of {STRIDES[-1]}, got {image_size}"
        )
    if opset_version < _MIN_OPSET:
        raise ValueError(f"opset_version: expected at least {_MIN_OPSET}, got {opset_version}")
    graph = PoseGraph(model, sampling=sampling)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    width, height = image_size
    K = torch.tensor([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]])
    inputs = (torch.rand(_EXAMPLE_PICTURES, 3, height, width), K.repeat(_EXAMPLE_PICTURES, 1, 1))
    _write(graph, inputs, folder / GRAPH, opset_version)
    manifest = _manifest(graph, image_size, str(sampling), opset_version)
    write_json(folder / MANIFEST, manifest)
    return ExportedPose(folder / GRAPH, manifest)


def _write(graph: PoseGraph, inputs: tuple[Tensor, Tensor], path: Path, opset_version: int) -> None:
    pictures = torch.export.Dim("pictures", min=1, max=1024)
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)  # it warns of packages that are not needed
    try:
        with torch.no_grad():
            torch.onnx.export(
                graph,
                inputs,
                path,
                input_names=["images", "intrinsics"],
                output_names=graph.outputs,
                opset_version=opset_version,
                dynamic_shapes=({0: pictures}, {0: pictures}),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    finally:
        log.setLevel(level)


def _manifest(
    graph: PoseGraph, image_size: tuple[int, int], sampling: str, opset_version: int
) -> dict[str, Any]:
    queries, classes = graph.model.config["num_queries"], graph.model.num_classes
    last = {"logits": classes, "bbox": 4, "log_z": 1, "rot6d": 6, "offsets": 2, "log_sigma_z": 1}
    last |= {"log_sigma_rot": 1, "enc_logits": classes, "enc_bbox": 4}
    shapes = {
        name: ["pictures", 4] if name == "k_delta" else ["pictures", queries, last[name]]
        for name in graph.outputs
    }
    width, height = image_size
    return {
        "format": "onnx",
        "file": GRAPH,
        "opset": opset_version,
        "sampling": sampling,
        "model": {"kind": type(graph.model).__name__, "config": graph.model.config},
        "object_sizes": graph.model.object_sizes.tolist(),
        "image_size": list(image_size),
        "inputs": {"images": ["pictures", 3, height, width], "intrinsics": ["pictures", 3, 3]},
        "pictures": "RGB in [0, 1], float32, channels first; not normalised",
        "intrinsics": "pixels of the pictures as they enter; the centre of the first pixel is (0, 0)",
        "outputs": shapes,
        "logits": "a sigmoid gives the score of each class; there is no background",
        "bbox": "centre x, y, width, height in shares of the picture",
        "log_z": "log of the depth of the object's origin in metres",
        "rot6d": "the first two rows of the rotation from object to camera",
        "offsets": "pixels from the box's centre to the projection of the object's origin",
        "k_delta": "changes of fx, fy (relative), cx, cy (pixels)",
    }
