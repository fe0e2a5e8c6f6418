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
from typing import Any

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


def seconds(run: Run) -> float:
    """Of one run."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


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
    print(f"{'first public form':44}{seed:10.1f}{seed / detector:8.1f}")


def compare_forward(model: RTDETRPose, size: int, repeats: int) -> None:
    """In turns: ours, the first form, ours again."""
    first, picture = SeedForm().eval(), torch.rand(1, 3, size, size)
    ours, theirs = [], []
    with torch.inference_mode():
        model(picture)
        first(torch.rand(1, 3, 64, 64))
        for _ in range(repeats):
            ours.append(seconds(lambda: model(picture)))
            theirs.append(seconds(lambda: first(picture)))
            ours.append(seconds(lambda: model(picture)))
    own, other = statistics.median(ours), statistics.median(theirs)
    print(f"\n{f'forward at {size} px, batch 1':44}{'seconds':>10}{'ratio':>8}")
    print(f"{'RTDETRPose R18':44}{own:10.3f}{1:8.1f}")
    print(f"{'first public form':44}{other:10.3f}{other / own:8.1f}   at least 20 at 640 px")


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
        passes.append(seconds(predict))
        steps.append(seconds(step))
    one, whole = statistics.median(steps), statistics.median(passes)
    print(f"\n{f'adaptation at {size} px, batch 1':44}{'seconds':>10}{'ratio':>8}")
    print(f"{'whole forward pass':44}{whole:10.3f}{1:8.2f}")
    print(f"{'step of masked reconstruction, cached':44}{one:10.3f}{one / whole:8.2f}   below 1.5")


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
