"""Exported graphs against the network: other numbers and sizes than those that they were made with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from sightline.refdet.detector import ConvNeXtRefDet
from sightline.refdet.export import DetectGraph, ExportedDetector, LookGraph, OnboardGraph

CASES = ((1, 1, (224, 160)), (3, 2, (160, 224)), (7, 5, (128, 128)))
"""Templates, pictures and ``(width, height)`` of them."""

_ROUNDING = 1e-6

Runner = Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True)
class ExportDifference:
    """The largest differences between exported graphs and network, over all cases.

    Args:
        bank: of any number in a bank, as a share of the largest one of its tensor.
        scores: of the scores, by rank.
        boxes: of any corner, pixels, between boxes of the same score.
        evidence: of the second look.
    """

    bank: float
    scores: float
    boxes: float
    evidence: float

    @property
    def agrees(self) -> bool:
        """Whether the differences are those of rounding."""
        return max(self.bank, self.scores, self.evidence) < 1e-3 and self.boxes < 0.1


def check_export(
    model: ConvNeXtRefDet,
    exported: ExportedDetector,
    *,
    cases: Sequence[tuple[int, int, tuple[int, int]]] = CASES,
    seed: int = 0,
) -> ExportDifference:
    """Run files and network on random pictures.

    Args:
        model: the network that was exported.
        exported: its files.
        cases: numbers of templates and of pictures, and the pictures' ``(width, height)``.
        seed: of the pictures.

    Returns:
        The largest differences.

    Raises:
        ModuleNotFoundError: for ``onnx``, onnxruntime is not installed.
    """
    manifest = exported.manifest
    onboard = OnboardGraph(model.eval())
    detect = DetectGraph(
        model,
        onboard.names,
        max_detections=manifest["outputs"]["scores"][-1],
        suppress=manifest["suppression"] == "matrix",
        score_threshold=manifest["score_threshold"],
    )
    look = LookGraph(model)
    names = ["templates", "masks"], ["search", *onboard.names], ["crops", *look.names]
    run_onboard = _load(exported.onboard, manifest["format"], names[0])
    run_detect = _load(exported.detect, manifest["format"], names[1])
    run_look = _load(exported.look, manifest["format"], names[2])
    generator = torch.Generator().manual_seed(seed)
    width, height = manifest["template_size"]
    differences = []
    for count, batch, size in cases:
        templates = torch.rand(count, 3, height, width, generator=generator)
        masks = (torch.rand(count, height, width, generator=generator) > 0.3).float()
        search = torch.rand(batch, 3, size[1], size[0], generator=generator)
        with torch.no_grad():
            *bank, likeness = onboard(templates, masks)
            expected = detect(search, tuple(bank))
            *found_bank, found_likeness = run_onboard(templates, masks)
            found = run_detect(search, tuple(found_bank))
            parts = tuple(each for name, each in zip(onboard.names, bank, strict=True) if name in look.names)
            seen, run = look(templates, parts), run_look(templates, parts)
            evidence_error = float((seen - (run if isinstance(run, Tensor) else run[0])).abs().max())
        pairs = zip([*found_bank, found_likeness], [*bank, likeness], strict=True)
        bank_error = max(_relative(a, b) for a, b in pairs)
        differences.append((bank_error, *_box_difference(found, expected), evidence_error))
    return ExportDifference(*(max(column) for column in zip(*differences, strict=True)))


def _load(path: Path, file_format: str, names: Sequence[str]) -> Runner:
    if file_format == "torchscript":
        return torch.jit.load(path)
    if file_format == "torch-export":
        return torch.export.load(path).module()
    if find_spec("onnxruntime") is None:
        raise ModuleNotFoundError(
            "checking ONNX needs the package onnxruntime: pip install 'sightline[export]'"
        )
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(*inputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        flat = [t for each in inputs for t in (each if isinstance(each, tuple) else (each,))]
        fed = {name: tensor.numpy() for name, tensor in zip(names, flat, strict=True)}
        return tuple(torch.from_numpy(array) for array in session.run(None, fed))

    return run


def _relative(found: Tensor, expected: Tensor) -> float:
    expected = expected.float()
    scale = expected.abs().max().clamp_min(_ROUNDING)
    return float((found.float() - expected).abs().max() / scale)


def _box_difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> tuple[float, float]:
    """Of scores by rank, and of boxes whose scores are the same: equal ones may come in another order."""
    (boxes, scores), (true_boxes, true_scores) = found, expected
    score_error = float((scores - true_scores).abs().max())
    near = _ROUNDING + 2 * score_error
    apart = (boxes[:, None] - true_boxes[:, :, None]).abs().amax(-1)
    same = (scores[:, None] - true_scores[:, :, None]).abs() <= near
    nearest = torch.where(same, apart, torch.inf).amin(-1)
    # where the list is cut off among equal scores, either may have the other's neighbour
    counted = (true_scores > 0) & (true_scores > true_scores[:, -1:] + near)
    return score_error, float(nearest[counted].max()) if bool(counted.any()) else 0.0
