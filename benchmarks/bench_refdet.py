"""What a frame costs the reference detector, and non-maximum suppression, each against its reference.

Frames: one picture of 1024x576 and one object whose three templates of 256x256 are in a cached bank, against
    the detector's first form (``seed_form_refdet``), which encodes its templates with every frame. Random
    weights, the networks in turns; the best and the median wall time of a frame. GFLOP count a
    multiplication with its addition as two.
Suppression: 1,000 boxes in clusters, against loops over plain numbers; the answers are compared.

    python -m benchmarks.bench_refdet [--repeats 5] [--threads 2]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.seed_form_refdet import SeedFormRefDet
from sightline.geometry.nms import matrix_nms, nms_mask
from sightline.refdet.detector import ConvNeXtRefDet

RECIPE = Path(__file__).parent.parent / "configs" / "refdet" / "tiny.yaml"
SEARCH, TEMPLATES = (1, 3, 576, 1024), (3, 3, 256, 256)
SEED_FORM = "first form, no cache"
LIMITS = {
    SEED_FORM: "about 533 GFLOP",
    "ConvNeXt-Tiny 128, stride 4": "at most 160 GFLOP",
    "ConvNeXt-Tiny 256, stride 4": "at most 300 GFLOP",
    "nano of the recipe": "at most 25 GFLOP, 200 ms on two free cores",
}

Frame = Callable[[], Any]


def make_frames() -> dict[str, tuple[nn.Module, Frame]]:
    """Each network with what it does in a frame; banks are made beforehand."""
    torch.manual_seed(0)
    search, templates = torch.rand(SEARCH), torch.rand(TEMPLATES)
    first = SeedFormRefDet().eval()
    frames: dict[str, tuple[nn.Module, Frame]] = {SEED_FORM: (first, lambda: first(templates[None], search))}
    options = {
        "ConvNeXt-Tiny 128, stride 4": {"fpn_channels": 128, "corr_channels": 64, "det_channels": 128},
        "ConvNeXt-Tiny 256, stride 4": {"fpn_channels": 256, "corr_channels": 64, "det_channels": 256},
        "nano of the recipe": yaml.safe_load(RECIPE.read_text())["model"],
    }
    for name, values in options.items():
        model = ConvNeXtRefDet(**values).eval()
        bank = model.encode_templates(templates)
        frames[name] = (model, lambda model=model, bank=bank: model.detect_maps(search, bank))
    return frames


def count_gflop(run: Frame) -> float:
    """Of one frame."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 1e9


def compare_frames(repeats: int) -> None:
    """Print one line a network."""
    frames = make_frames()
    times: dict[str, list[float]] = {name: [] for name in frames}
    for turn in range(-1, repeats):
        for name, (_, run) in frames.items():
            start = time.perf_counter()
            run()
            if turn >= 0:
                times[name].append(1e3 * (time.perf_counter() - start))
    heading = "a frame of 1024x576"
    print(f"{heading:30}{'M params':>9}{'GFLOP':>8}{'best ms':>10}{'median':>9}{'times faster':>14}")
    slowest = min(times[SEED_FORM])
    for name, (model, run) in frames.items():
        parameters = sum(p.numel() for p in model.parameters()) / 1e6
        best, middle = min(times[name]), statistics.median(times[name])
        cost = f"{parameters:9.1f}{count_gflop(run):8.1f}{best:10.0f}{middle:9.0f}"
        print(f"{name:30}{cost}{slowest / best:14.1f}   {LIMITS[name]}")


def make_boxes(num_boxes: int) -> tuple[Tensor, Tensor]:
    """Boxes in clusters of about five, and their scores."""
    generator = torch.Generator().manual_seed(0)
    centers = 1000 * torch.rand(num_boxes // 5, 2, generator=generator)
    chosen = centers[torch.randint(len(centers), (num_boxes,), generator=generator)]
    corner = chosen + 6 * torch.randn(num_boxes, 2, generator=generator)
    size = 40 + 10 * torch.rand(num_boxes, 2, generator=generator)
    return torch.cat([corner, corner + size], dim=-1), torch.rand(num_boxes, generator=generator)


def iou(a: list[float], b: list[float]) -> float:
    """Of two boxes as numbers."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    shared = width * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def loop_greedy(boxes: list[list[float]], scores: list[float]) -> list[bool]:
    """Keep a box unless a kept better one covers it."""
    kept: list[int] = []
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        if all(iou(boxes[i], boxes[k]) <= 0.5 for k in kept):
            kept.append(i)
    return [i in set(kept) for i in range(len(scores))]


def loop_matrix(boxes: list[list[float]], scores: list[float]) -> list[float]:
    """Lower each score by the better boxes that overlap it."""
    from math import exp

    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    own, result = {}, [0.0] * len(scores)
    for place, j in enumerate(order):
        overlaps = [(i, iou(boxes[i], boxes[j])) for i in order[:place]]
        own[j] = max((overlap for _, overlap in overlaps), default=0.0)
        shares = (exp(-2 * (overlap**2 - own[i] ** 2)) for i, overlap in overlaps)
        result[j] = scores[j] * min(1.0, *shares, 1.0)
    return result


def best_ms(run: Frame, repeats: int) -> float:
    """The least time of several, after one that does not count."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return min(times)


def compare_suppression(num_boxes: int, repeats: int) -> None:
    """Print one line a rule."""
    boxes, scores = make_boxes(num_boxes)
    plain = boxes.tolist(), scores.tolist()
    kept, listed = nms_mask(boxes, scores, 0.5), torch.tensor(loop_greedy(*plain))
    lowered, looped = matrix_nms(boxes, scores), torch.tensor(loop_matrix(*plain))
    agreement = {
        "greedy": f"{int(kept.sum())} kept, {int((kept != listed).sum())} differ",
        "matrix": f"largest difference {float((lowered - looped).abs().max()):.1e}",
    }
    rules: dict[str, tuple[Frame, Frame]] = {
        "greedy": (lambda: nms_mask(boxes, scores, 0.5), lambda: loop_greedy(*plain)),
        "matrix": (lambda: matrix_nms(boxes, scores), lambda: loop_matrix(*plain)),
    }
    print(f"\n{f'{num_boxes} boxes':30}{'ms':>9}{'loop ms':>10}{'times faster':>14}")
    for name, (ours, loop) in rules.items():
        fast, slow = best_ms(ours, 4 * repeats), best_ms(loop, max(repeats // 2, 1))
        print(f"{name:30}{fast:9.2f}{slow:10.1f}{slow / fast:14.1f}   at least 10; {agreement[name]}")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with torch.inference_mode():
        compare_frames(options.repeats)
        compare_suppression(1000, options.repeats)


if __name__ == "__main__":
    main()
