"""The detector as two graphs: templates to a bank, and picture with bank to boxes.

The first is of one template size and any number of templates; the second of any number of pictures, whose
sides are multiples of 32, and of banks with any number of templates. The bank's tensors go between them by
their names. Boxes are not clipped to the picture.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sightline.refdet.bank import TemplateBank
from sightline.refdet.detector import ConvNeXtRefDet

_EXAMPLE_TEMPLATES = 3
_EXAMPLE_PICTURES = 2


class OnboardGraph(nn.Module):
    """Templates of one object to the tensors of its bank.

    Args:
        model: the detector.

    Example:
        >>> model = ConvNeXtRefDet(8, 4, 8, backbone="nano", detection_stride=8).eval()
        >>> graph = OnboardGraph(model)
        >>> len(graph(torch.rand(2, 3, 64, 64), torch.ones(2, 64, 64))) == len(graph.names)
        True
    """

    def __init__(self, model: ConvNeXtRefDet) -> None:
        super().__init__()
        self.model = model

    @property
    def names(self) -> list[str]:
        """The names of the tensors, in order."""
        fields = ("descriptors", "kernel", "kernel_mask", "context")
        return ["part_valid", *(f"level{s}.{field}" for s in self.model.fpn.strides for field in fields)]

    def forward(
        self, templates: Float[Tensor, "n 3 h w"], masks: Float[Tensor, "n h w"]
    ) -> tuple[Tensor, ...]:
        """The bank's tensors in the order of ``names``."""
        tensors = self.model.encode_templates(templates, masks).to_tensors()
        return tuple(tensors[name] for name in self.names)


class DetectGraph(nn.Module):
    """Pictures and the bank of one object to its best boxes, before suppression.

    Args:
        model: the detector.
        names: of the bank's tensors, in the order in which they come.
        max_detections: boxes of each picture.

    Example:
        >>> model = ConvNeXtRefDet(8, 4, 8, backbone="nano", detection_stride=8).eval()
        >>> onboard = OnboardGraph(model)
        >>> bank = onboard(torch.rand(2, 3, 64, 64), torch.ones(2, 64, 64))
        >>> detect = DetectGraph(model, onboard.names, max_detections=5)
        >>> boxes, scores = detect(torch.rand(2, 3, 64, 96), bank)
        >>> boxes.shape, scores.shape
        (torch.Size([2, 5, 4]), torch.Size([2, 5]))
    """

    def __init__(self, model: ConvNeXtRefDet, names: list[str], *, max_detections: int = 100) -> None:
        super().__init__()
        self.model = model
        self.names = names
        self.max_detections = max_detections

    def forward(self, search: Float[Tensor, "b 3 h w"], bank: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """``(b, k, 4)`` boxes in pixels and ``(b, k)`` falling scores."""
        tensors = TemplateBank.from_tensors(dict(zip(self.names, bank, strict=True)))
        maps = self.model.detect_maps(search, tensors)
        cells = maps.cells()
        scores, index = cells.logits.float().sigmoid().topk(self.max_detections, dim=1)
        boxes = cells.boxes.gather(1, index[..., None].expand(-1, -1, 4))
        return boxes, scores


def export_onnx(
    model: ConvNeXtRefDet,
    folder: str | Path,
    *,
    template_size: tuple[int, int] = (256, 256),
    max_detections: int = 100,
) -> tuple[Path, Path]:
    """Write ``onboard.onnx`` and ``detect.onnx``.

    Args:
        model: the detector; it is set to evaluation.
        folder: to write to; it is made.
        template_size: ``(width, height)`` of the templates.
        max_detections: boxes of each picture, best first; suppress overlaps among them afterwards.

    Returns:
        The two paths.

    Raises:
        ModuleNotFoundError: the packages of the ``export`` extra are not installed.
    """
    if find_spec("onnxscript") is None:
        raise ModuleNotFoundError("ONNX needs the package onnxscript: pip install 'sightline[export]'")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model = model.eval()
    width, height = template_size
    templates = torch.rand(_EXAMPLE_TEMPLATES, 3, height, width)
    onboard = OnboardGraph(model)
    number = torch.export.Dim("templates", min=1, max=64)
    inputs = (templates, torch.ones_like(templates[:, 0]))
    paths = folder / "onboard.onnx", folder / "detect.onnx"
    torch.onnx.export(
        onboard,
        inputs,
        paths[0],
        input_names=["templates", "masks"],
        output_names=onboard.names,
        dynamic_shapes=({0: number}, {0: number}),
        dynamo=True,
        verbose=False,
    )
    with torch.no_grad():
        bank = onboard(*inputs)
    pictures, count = torch.export.Dim("pictures", min=1, max=256), torch.export.Dim("count", min=1, max=64)
    rows, columns = (torch.export.Dim(name, min=2, max=256) for name in ("rows", "columns"))
    per_template = {"part_valid", *(name for name in onboard.names if name.endswith(".descriptors"))}
    torch.onnx.export(
        DetectGraph(model, onboard.names, max_detections=max_detections),
        (torch.rand(_EXAMPLE_PICTURES, 3, 160, 224), bank),
        paths[1],
        input_names=["search", *onboard.names],
        output_names=["boxes", "scores"],
        dynamic_shapes=(
            {0: pictures, 2: 32 * rows, 3: 32 * columns},
            tuple({1: count} if name in per_template else None for name in onboard.names),
        ),
        dynamo=True,
        verbose=False,
    )
    return paths
