"""What RT-DETR with pose costs, against other forms of it, and what its adaptation costs.

Operations: at 640 px with R18, counted as a multiplication with its addition as two, within 5 % of
    transformers' own R18 detector.
Forward: at least 20 times faster than the first public constructor's form (``seed_form_rtdetr_pose``) at
    640 px, in turns in one process, the fast path of attention off.
Adaptation: one step of masked reconstruction on cached features of the backbone (forward, backward, update of
    the encoder's norms) against one whole forward pass; below 1.5.

    python -m benchmarks.bench_rtdetr_pose [--size 640] [--repeats 3] [--threads 2] [--skip-seed-form]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.seed_form_rtdetr_pose import SeedForm
from sightline.rtdetr_pose.detector import detector_config
from sightline.rtdetr_pose.masking import generate_mask
from sightline.rtdetr_pose.model import RTDETRPose
from sightline.rtdetr_pose.reconstruction_losses import mim_reconstruction_loss

Run = Callable[[], Any]


def count_operations(run: Run) -> float:
    """Of one run, in GFLOP."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops() / 1e9


class Took(NamedTuple):
    """Seconds on the clock, and of all processors: the second is fair where other programs run too."""

    clock: float
    processors: float


def measure(run: Run) -> Took:
    """One run."""
    clock, processors = time.perf_counter(), time.process_time()
    run()
    return Took(time.perf_counter() - clock, time.process_time() - processors)


def print_times(title: str, rows: dict[str, list[Took]], bound: str) -> None:
    """Medians, and the ratio of the second row to the first."""
    print(f"\n{title:44}{'seconds':>10}{'ratio':>8}{'CPU s':>10}{'ratio':>8}", flush=True)
    first: Took | None = None
    for name, taken in rows.items():
        middle = Took(*(statistics.median(column) for column in zip(*taken, strict=True)))
        first = first or middle
        cells = (f"{a:10.3f}{a / b:8.2f}" for a, b in zip(middle, first, strict=True))
        print(f"{name:44}{''.join(cells)}   {bound if middle is not first else ''}", flush=True)


def compare_operations(model: RTDETRPose) -> None:
    """The whole model with its pose heads against the detector alone, and the first form."""
    from transformers import RTDetrV2ForObjectDetection

    theirs = RTDetrV2ForObjectDetection(detector_config("r18", hidden_dim=256)).eval()
    picture = torch.rand(1, 3, 640, 640)
    detector = count_operations(lambda: theirs(picture))
    own = count_operations(lambda: model(picture))
    with torch.device("meta"):
        first, blank = SeedForm().eval().requires_grad_(False), torch.empty(1, 3, 640, 640)
    seed = count_operations(lambda: first(blank))
    print(f"{'operations at 640 px':44}{'GFLOP':>10}{'ratio':>8}")
    print(f"{'transformers RT-DETRv2 R18, no pose':44}{detector:10.1f}{1:8.2f}")
    print(f"{'RTDETRPose R18':44}{own:10.1f}{own / detector:8.3f}   at most 1.05")
    print(f"{'first public form':44}{seed:10.1f}{seed / detector:8.1f}", flush=True)


def compare_forward(model: RTDETRPose, size: int, repeats: int) -> None:
    """In turns: ours, the first form, ours again."""
    first, picture = SeedForm().eval(), torch.rand(1, 3, size, size)
    ours, theirs = [], []
    with torch.inference_mode():
        model(picture)
        first(torch.rand(1, 3, 64, 64))
        for _ in range(repeats):
            ours.append(measure(lambda: model(picture)))
            theirs.append(measure(lambda: first(picture)))
            ours.append(measure(lambda: model(picture)))
    rows = {"RTDETRPose R18": ours, "first public form": theirs}
    print_times(f"forward at {size} px, batch 1", rows, "at least 20 at 640 px")


def compare_adaptation(model: RTDETRPose, size: int, repeats: int) -> None:
    """A step on cached features updates the norms of the encoder and all that only reconstructs."""
    picture, geom = torch.rand(1, 3, size, size), torch.rand(1, 2, size // 4, size // 4)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("norm" in name and "encoder." in name and "backbone" not in name)
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(learnt, lr=1e-4)
    mask = generate_mask(0.6, (size // 32, size // 32), seed=0)
    with torch.no_grad():
        features = model.encode_backbone(picture)

    def step() -> None:
        found = model.reconstruct(features, geom, mask)
        loss = mim_reconstruction_loss(found["recon_feat"], found["teacher_feat"], found["mask"])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    def predict() -> None:
        with torch.inference_mode():
            model(picture)

    step()
    steps, passes = [], []
    for _ in range(2 * repeats):
        passes.append(measure(predict))
        steps.append(measure(step))
    rows = {"whole forward pass": passes, "step of masked reconstruction, cached": steps}
    print_times(f"adaptation at {size} px, batch 1", rows, "below 1.5")


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--skip-seed-form", action="store_true", help="leave out the long timing")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.backends.mha.set_fastpath_enabled(False)
    torch.manual_seed(0)
    model = RTDETRPose(enable_mim=True).eval()
    compare_operations(model)
    compare_adaptation(model, arguments.size, arguments.repeats)
    if not arguments.skip_seed_form:
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        compare_forward(model, arguments.size, arguments.repeats)


if __name__ == "__main__":
    main()
