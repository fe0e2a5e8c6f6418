"""The detector as three graphs in files: templates to a bank, pictures to boxes, and crops to evidence.

``onboard`` is of one template size and any number of templates; ``detect`` of any number of pictures, whose
sides are multiples of 32, and of banks with any number of templates; ``look`` of any number of crops of the
templates' size, for the second look at the boxes of ``detect``. The bank's tensors go from one to the others
in order, in ONNX by their names. ``export.json`` beside them says all that a program has to know.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sightline.formats.json_files import write_json
from sightline.geometry.boxes import iou_matrix
from sightline.nn.late_interaction import Parts
from sightline.refdet.bank import PER_TEMPLATE, LevelBank, TemplateBank
from sightline.refdet.detector import ConvNeXtRefDet
from sightline.refdet.second_look import MARGIN, compare_crops, own_likeness

ExportFormat = Literal["onnx", "torchscript", "torch-export"]
EXPORT_FORMATS: tuple[str, ...] = get_args(ExportFormat)
MANIFEST = "export.json"

_SUFFIX = {"onnx": ".onnx", "torchscript": ".ts", "torch-export": ".pt2"}
_PER_TEMPLATE = ("part_valid", *PER_TEMPLATE)
_EXAMPLE_TEMPLATES = 3
_EXAMPLE_PICTURES = 2
_EXAMPLE_SIZE = (224, 160)
_CANDIDATES = 1000
_FACTORS = ("constant", "usual", "first", "second", "own")
_SIGMA = 2.0  # of the Gaussian decay


class OnboardGraph(nn.Module):
    """Templates of one object to the tensors of its bank.

    Args:
        model: the detector.

    Example:
        >>> model = ConvNeXtRefDet(8, 4, 8, backbone="nano", detection_stride=8).eval()
        >>> graph = OnboardGraph(model)
        >>> len(graph(torch.rand(2, 3, 64, 64), torch.ones(2, 64, 64))) == len(graph.outputs)
        True
    """

    def __init__(self, model: ConvNeXtRefDet) -> None:
        super().__init__()
        self.model = model

    @property
    def names(self) -> list[str]:
        """The names of the bank's tensors, in order."""
        names = [field.name for field in fields(LevelBank)]
        return ["part_valid", *(f"level{s}.{name}" for s in self.model.fpn.strides for name in names)]

    @property
    def outputs(self) -> list[str]:
        """What it gives, in order: the bank's tensors, and how much the templates are alike."""
        return [*self.names, "likeness"]

    def forward(
        self, templates: Float[Tensor, "n 3 h w"], masks: Float[Tensor, "n h w"]
    ) -> tuple[Tensor, ...]:
        """The bank's tensors and the own likeness, in the order of ``outputs``."""
        bank = self.model.encode_templates(templates, masks)
        tensors = bank.to_tensors()
        return (*(tensors[name] for name in self.names), own_likeness(self.model, bank))


class DetectGraph(nn.Module):
    """Pictures and the bank of one object to its best boxes.

    Args:
        model: the detector.
        names: of the bank's tensors, in the order in which they come.
        max_detections: boxes of each picture.
        suppress: lower the scores of boxes that overlap better ones
            (:func:`~sightline.geometry.nms.matrix_nms`), and cut boxes at the picture's edge, as
            :func:`~sightline.refdet.decode.decode_maps` does. Otherwise the best cells come as they are.
        score_threshold: with ``suppress``, scores below it become 0.

    Example:
        >>> model = ConvNeXtRefDet(8, 4, 8, backbone="nano", detection_stride=8).eval()
        >>> onboard = OnboardGraph(model)
        >>> *bank, likeness = onboard(torch.rand(2, 3, 64, 64), torch.ones(2, 64, 64))
        >>> detect = DetectGraph(model, onboard.names, max_detections=5)
        >>> boxes, scores = detect(torch.rand(2, 3, 64, 96), tuple(bank))
        >>> boxes.shape, scores.shape
        (torch.Size([2, 5, 4]), torch.Size([2, 5]))
    """

    def __init__(
        self,
        model: ConvNeXtRefDet,
        names: Sequence[str],
        *,
        max_detections: int = 100,
        suppress: bool = False,
        score_threshold: float = 0.0,
    ) -> None:
        super().__init__()
        self.model = model
        self.names = list(names)
        self.max_detections = max_detections
        self.suppress = suppress
        self.score_threshold = score_threshold

    def forward(self, search: Float[Tensor, "b 3 h w"], bank: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """``(b, k, 4)`` boxes in pixels and ``(b, k)`` falling scores; 0 where there are fewer boxes."""
        tensors = TemplateBank.from_tensors(dict(zip(self.names, bank, strict=True)))
        cells = self.model.detect_maps(search, tensors).cells()
        count = max(self.max_detections, _CANDIDATES) if self.suppress else self.max_detections
        # as many cells more, so that a small picture has enough of them
        logits = F.pad(cells.logits.float(), (0, count), value=-torch.inf)
        scores, index = logits.sigmoid().topk(count, dim=1)
        boxes = F.pad(cells.boxes, (0, 0, 0, count))
        boxes = boxes.gather(1, index[..., None].expand(-1, -1, 4))
        if not self.suppress:
            return boxes, scores
        boxes = _clip(boxes, search)
        scores = scores * _matrix_share(boxes)
        scores, order = scores.topk(self.max_detections, dim=1)
        boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4))
        return boxes, torch.where(scores >= self.score_threshold, scores, 0.0)


class LookGraph(nn.Module):
    """Crops and the bank of one object to the evidence of the second look.

    Args:
        model: the detector.

    Example:
        >>> model = ConvNeXtRefDet(8, 4, 8, backbone="nano", detection_stride=8).eval()
        >>> onboard, look = OnboardGraph(model), LookGraph(model)
        >>> bank = dict(zip(onboard.outputs, onboard(torch.rand(2, 3, 64, 64), torch.ones(2, 64, 64))))
        >>> look(torch.rand(5, 3, 64, 64), tuple(bank[name] for name in look.names)).shape
        torch.Size([5])
    """

    def __init__(self, model: ConvNeXtRefDet) -> None:
        super().__init__()
        self.model = model

    @property
    def names(self) -> list[str]:
        """The names of the bank's tensors that it needs, in order."""
        pairs = [(f"level{s}.cells", f"level{s}.cell_shares") for s in self.model.late_strides]
        return ["part_valid", *(name for pair in pairs for name in pair)]

    @property
    def outputs(self) -> list[str]:
        """What it gives, in order."""
        return ["evidence"] if self.model.refiner is None else ["evidence", "edges"]

    def forward(
        self, crops: Float[Tensor, "m 3 h w"], bank: tuple[Tensor, ...]
    ) -> Tensor | tuple[Tensor, Tensor]:
        """``(m,)`` evidence and, from a detector that refines boxes, ``(m, 4)`` edges in shares of a crop."""
        valid, rest = bank[0][..., 0], bank[1:]
        stored = {s: Parts(rest[2 * i], rest[2 * i + 1]) for i, s in enumerate(self.model.late_strides)}
        evidence, edges = compare_crops(self.model, crops, stored, valid)
        return evidence[0] if edges is None else (evidence[0], edges[0])


def _clip(boxes: Tensor, search: Tensor) -> Tensor:
    """``geometry.boxes.clip`` with a size that is known only at run time."""
    high, wide = search.shape[-2] - 0.5, search.shape[-1] - 0.5
    x, y = boxes[..., 0::2].clamp_min(-0.5).clamp_max(wide), boxes[..., 1::2].clamp_min(-0.5).clamp_max(high)
    return torch.stack([x, y], dim=-1).flatten(-2)


def _matrix_share(boxes: Tensor) -> Tensor:
    """What ``geometry.nms.matrix_nms`` leaves of the scores of boxes that come the best first, ``(b, n)``.

    ONNX has no stable sorting, which that one begins with.
    """
    overlap = iou_matrix(boxes, boxes).triu(1)  # row i is the better one
    own = overlap.amax(dim=-2).square()[..., :, None]
    share = (-_SIGMA * (overlap.square() - own)).exp()
    better = torch.ones_like(share).triu(1)
    return (share * better + (1 - better)).amin(dim=-2).clamp_max(1)


@dataclass(frozen=True)
class ExportedDetector:
    """The files of an export.

    Args:
        onboard: the graph from templates to a bank.
        detect: the graph from pictures with a bank to boxes.
        look: the graph from crops with a bank to evidence.
        manifest: what ``export.json`` says.
    """

    onboard: Path
    detect: Path
    look: Path
    manifest: dict[str, Any]


def export_detector(
    model: ConvNeXtRefDet,
    folder: str | Path,
    *,
    file_format: ExportFormat | str = "onnx",
    template_size: tuple[int, int] = (256, 256),
    search_size: tuple[int, int] = (1024, 576),
    max_detections: int = 100,
    suppress: bool = False,
    score_threshold: float = 0.0,
) -> ExportedDetector:
    """Write the three graphs and ``export.json``.

    Args:
        model: the detector, on the CPU; it is set to evaluation.
        folder: to write to; it is made.
        file_format: ``onnx``, ``torchscript`` (traced) or ``torch-export`` (a ``.pt2`` of ``torch.export``).
        template_size: ``(width, height)`` of the templates, which the first graph is made for.
        search_size: ``(width, height)`` that the detector was trained for; any multiples of 32 do.
        max_detections: boxes of each picture, best first.
        suppress: whether overlapping boxes are suppressed in the graph, as :class:`DetectGraph` says.
        score_threshold: likewise.

    Returns:
        The paths.

    Raises:
        ModuleNotFoundError: for ``onnx``, the packages of the ``export`` extra are not installed.
        ValueError: another format, sizes or a number of boxes that cannot be.
    """
    if file_format not in EXPORT_FORMATS:
        raise ValueError(f"file_format: expected one of {', '.join(EXPORT_FORMATS)}, got {file_format!r}")
    if file_format == "onnx" and find_spec("onnxscript") is None:
        raise ModuleNotFoundError("ONNX needs the package onnxscript: pip install 'sightline[export]'")
    for name, size in (("template_size", template_size), ("search_size", search_size)):
        if len(size) != 2 or min(size) < 32:
            raise ValueError(f"{name}: expected (width, height) of at least 32 px, got {size}")
    if max_detections < 1:
        raise ValueError(f"max_detections: expected at least 1, got {max_detections}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    onboard = OnboardGraph(model.eval())
    detect = DetectGraph(
        model,
        onboard.names,
        max_detections=max_detections,
        suppress=suppress,
        score_threshold=score_threshold,
    )
    paths = [folder / f"{name}{_SUFFIX[file_format]}" for name in ("onboard", "detect", "look")]
    templates = torch.rand(_EXAMPLE_TEMPLATES, 3, template_size[1], template_size[0])
    inputs = (templates, torch.ones_like(templates[:, 0]))
    with torch.no_grad():
        bank = onboard(*inputs)[:-1]
        searched = (torch.rand(_EXAMPLE_PICTURES, 3, _EXAMPLE_SIZE[1], _EXAMPLE_SIZE[0]), bank)
        look = LookGraph(model)
        by_name = dict(zip(onboard.names, bank, strict=True))
        looked = (torch.rand(_EXAMPLE_PICTURES, *templates.shape[1:]), tuple(by_name[n] for n in look.names))
        if file_format == "torchscript":
            _trace(onboard, inputs, paths[0])
            _trace(detect, searched, paths[1])
            _trace(look, looked, paths[2])
        else:
            write = _write_onnx if file_format == "onnx" else _write_program
            write(onboard, inputs, paths[0], _onboard_shapes(), (["templates", "masks"], onboard.outputs))
            names = (["search", *onboard.names], ["boxes", "scores"])
            write(detect, searched, paths[1], _detect_shapes(onboard.names), names)
            names = (["crops", *look.names], look.outputs)
            write(look, looked, paths[2], _look_shapes(look.names), names)
    manifest = _manifest(model, detect, file_format, paths, template_size, search_size, bank)
    write_json(folder / MANIFEST, manifest)
    return ExportedDetector(*paths, manifest)


def _onboard_shapes() -> tuple:
    number = torch.export.Dim("templates", min=1, max=64)
    return ({0: number}, {0: number})


def _look_shapes(names: Sequence[str]) -> tuple:
    crops, count = torch.export.Dim("crops", min=1, max=256), torch.export.Dim("count", min=1, max=64)
    return ({0: crops}, tuple({1: count} if _is_per_template(name) else None for name in names))


def _detect_shapes(names: Sequence[str]) -> tuple:
    pictures, count = torch.export.Dim("pictures", min=1, max=256), torch.export.Dim("count", min=1, max=64)
    rows, columns = (torch.export.Dim(name, min=2, max=256) for name in ("rows", "columns"))
    bank = tuple({1: count} if _is_per_template(name) else None for name in names)
    return ({0: pictures, 2: 32 * rows, 3: 32 * columns}, bank)


def _is_per_template(name: str) -> bool:
    return name.split(".")[-1] in _PER_TEMPLATE


def _write_onnx(graph: nn.Module, inputs: tuple, path: Path, shapes: tuple, names: tuple) -> None:
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)  # it warns of packages that are not needed
    try:
        torch.onnx.export(
            graph,
            inputs,
            path,
            input_names=names[0],
            output_names=names[1],
            dynamic_shapes=shapes,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    finally:
        log.setLevel(level)


def _write_program(graph: nn.Module, inputs: tuple, path: Path, shapes: tuple, names: tuple) -> None:
    torch.export.save(torch.export.export(graph, inputs, dynamic_shapes=shapes), path)


def _trace(graph: nn.Module, inputs: tuple, path: Path) -> None:
    with warnings.catch_warnings():
        # what the tracer cannot follow is constant here: one object, one size of template
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.trace(graph, inputs, check_trace=False), path)


def _manifest(
    model: ConvNeXtRefDet,
    detect: DetectGraph,
    file_format: str,
    paths: Sequence[Path],
    template_size: tuple[int, int],
    search_size: tuple[int, int],
    bank: Sequence[Tensor],
) -> dict[str, Any]:
    width, height = template_size
    mean, std = (buffer.flatten().tolist() for buffer in (model.mean, model.std))
    tensors = {
        name: {
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": [*tensor.shape[:1], "templates", *tensor.shape[2:]]
            if _is_per_template(name)
            else list(tensor.shape),
        }
        for name, tensor in zip(detect.names, bank, strict=True)
    }
    boxes = ["pictures", detect.max_detections]
    return {
        "format": file_format,
        "files": {path.stem: path.name for path in paths},
        "model": {"kind": type(model).__name__, "config": model.config},
        "template_size": list(template_size),
        "search_size": list(search_size),
        "search_multiple": 32,
        "pictures": "RGB in [0, 1], float32, channels first; the graphs normalise them",
        "normalisation": {"mean": [round(v, 6) for v in mean], "std": [round(v, 6) for v in std]},
        "inputs": {
            "onboard": {"templates": ["templates", 3, height, width], "masks": ["templates", height, width]},
            "detect": {"search": ["pictures", 3, "height", "width"], "bank": list(tensors)},
            "look": {"crops": ["crops", 3, height, width], "bank": LookGraph(model).names},
        },
        "bank": tensors,
        "outputs": {"boxes": [*boxes, 4], "scores": boxes}
        | {"evidence": ["crops"], "likeness": [1]}
        | ({} if model.refiner is None else {"edges": ["crops", 4]}),
        "second_look": {
            "crop": "the box with the margin on each side, grown to the form of a template, in its size",
            "margin": MARGIN,
            "edges": "x1 y1 x2 y2 of the object in shares of the crop, where there are any",
            "log_odds": "constant + first * log(score / (1 - score)) + second * evidence + own * "
            "(likeness - usual), without the last term for a single template",
            **dict(zip(_FACTORS, model.rescoring.tolist(), strict=True)),
        },
        "boxes": "x1 y1 x2 y2 pixels of the search picture; the centre of its first pixel is (0, 0)",
        "suppression": "matrix" if detect.suppress else "none",
        "score_threshold": detect.score_threshold,
    }
