"""The depth-aware scale loss and the insertion loss, forward and backward, against plain forms, in one run.

A batch of 16 elliptic objects with noisy latents and a sloping ground for depth:

(a) the scale loss with the mean statistic against a Dice loss of the same masks: at most 3 times its time;
(b) with the weighted median against one ``torch.sort`` of the same depth maps: at most 1.5 times;
(c) ``InsertionLoss`` against the recipe written plainly, sample by sample, with SciPy's distance transform:
    at least 5 times faster at 128x128 cells (4 channels); and, for information, at 32x32 (16 channels, as
    FLUX has them), where what remains is the overhead of many small operations.

Medians and interquartile ranges of CPU time, of runs in turns, so that other work on the machine hardly
counts;
wall time with more than one thread. Every value and gradient of (c) is compared too.

    python benchmarks/bench_depth_scale.py [--repeats 30] [--threads 1]
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn import functional

from sightline.depth_scale.insertion import InsertionLoss
from sightline.depth_scale.loss import depth_aware_scale_loss
from sightline.depth_scale.options import ScaleOptions

BATCH = 16
WEIGHTS = {"mse": 1.0, "bg": 0.6, "dice": 0.9, "area": 0.2, "bnd": 0.4, "depth": 0.1}
FOCAL_PX, K_OBJ = 100.0, 0.6
WARM_UP = 3


@dataclass(frozen=True)
class Batch:
    """Latents, masks and metric depth of one size."""

    z_pred: Tensor
    z_tgt: Tensor
    z_ctx: Tensor
    mask: Tensor
    depth: Tensor


def make_batch(size: int, channels: int, seed: int = 0) -> Batch:
    """Ellipses of random place and size, weak and noisy insertions, depth that falls downwards."""
    g = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(size) / size, torch.arange(size) / size, indexing="ij")
    centre, radius = (
        0.35 + 0.3 * torch.rand(BATCH, 2, generator=g),
        0.1 + 0.15 * torch.rand(BATCH, 2, generator=g),
    )
    across, down = (
        (axis - c.view(-1, 1, 1, 1)) / r.view(-1, 1, 1, 1)
        for axis, c, r in zip((x, y), centre.unbind(1), radius.unbind(1), strict=True)
    )
    mask = (across.square() + down.square() < 1).float()
    z_ctx = torch.randn(BATCH, channels, size, size, generator=g)
    z_tgt = z_ctx + mask * torch.randn(BATCH, channels, 1, 1, generator=g)
    noise = 0.1 * torch.randn(BATCH, channels, size, size, generator=g)
    z_pred = torch.lerp(z_ctx, z_tgt, 0.5) + noise
    depth = 3.0 - 2.0 * y + 0.2 * torch.rand(BATCH, 1, size, size, generator=g)
    return Batch(z_pred, z_tgt, z_ctx, mask, depth)


def plain_insertion_loss(batch: Batch, z_pred: Tensor) -> dict[str, Tensor]:
    """The reference: the recipe with its corrected change mask, one sample after the other."""
    mse_sum = mse_weight = bg_sum = bg_count = torch.zeros(())
    dice, area, boundary, depth = [], [], [], []
    for zp, zt, zc, m, d in zip(z_pred, batch.z_tgt, batch.z_ctx, batch.mask, batch.depth, strict=True):
        inside = (m > 0.5).float()
        dilated = functional.max_pool2d(inside[None], 3, 1, 1)[0]
        eroded = 1 - functional.max_pool2d(1 - inside[None], 3, 1, 1)[0]
        outside = 1 - dilated
        weight = 1.0 * m + 6.0 * (dilated - eroded) + 0.2 * outside
        mse_sum = mse_sum + (weight * (zp - zt).square().mean(0, keepdim=True)).sum()
        mse_weight = mse_weight + weight.sum()
        change = (zp - zc).square()
        bg_sum = bg_sum + (outside * change.mean(0, keepdim=True)).sum()
        bg_count = bg_count + outside.sum()

        distance = change.sum(0, keepdim=True).clamp_min(1e-12).sqrt()
        with torch.no_grad():
            background = distance[outside > 0]
            mean = background.mean()
            spread = (background.var(correction=0) + 1e-4).sqrt()
            tau = mean + 4 * spread
            slope = torch.maximum(0.5 * spread, 0.05 * tau)
        changed = torch.sigmoid((distance - tau) / slope)
        changed = torch.where((outside > 0) & (distance < tau), changed.detach(), changed)

        dice.append(1 - (2 * (changed * m).sum() + 1e-6) / (changed.sum() + m.sum() + 1e-6))
        area.append((changed.sum() / m.sum()).log().square())
        binary = inside[0].numpy() > 0
        phi = np.where(binary, 0.5 - distance_transform_edt(binary), distance_transform_edt(~binary) - 0.5)
        boundary.append((changed * torch.from_numpy(phi).float()).mean())

        with torch.no_grad():
            values, order = d.flatten().sort()
            reached = changed.flatten()[order].cumsum(0)
            z = values[(reached < 0.5 * reached[-1]).sum()]
        depth.append(_scale_term(changed, z))
    return {
        "mse": mse_sum / mse_weight,
        "bg": bg_sum / bg_count,
        "dice": torch.stack(dice).mean(),
        "area": torch.stack(area).mean(),
        "bnd": torch.stack(boundary).mean(),
        "depth": torch.stack(depth).mean(),
    }


def _scale_term(changed: Tensor, z: Tensor) -> Tensor:
    ratio = changed.sum().sqrt().log() - (K_OBJ * FOCAL_PX / z).log()
    edge = torch.cat([changed[0, 0], changed[0, -1], changed[0, :, 0], changed[0, :, -1]])
    if edge.max() > 0.5:  # cut off by the border: only too large is wrong
        ratio = ratio.clamp_min(0)
    return torch.where(ratio.abs() < 3, ratio.square(), 6 * ratio.abs() - 9)


def dice(mask: Tensor, target: Tensor) -> Tensor:
    """The mean Dice loss of a batch, as it is commonly written."""
    shared = (mask * target).sum((1, 2, 3))
    return (1 - (2 * shared + 1e-6) / (mask.sum((1, 2, 3)) + target.sum((1, 2, 3)) + 1e-6)).mean()


def time_in_turns(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each, taken in turns."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(WARM_UP + repeats):
        for name, run in runs.items():
            start = clock()
            run()
            if turn >= WARM_UP:
                times[name].append(1e3 * (clock() - start))
    return times


def compare_scale_loss(repeats: int) -> None:
    """Print (a) and (b)."""
    batch = make_batch(128, 1)
    soft = (0.9 * batch.mask + 0.05 * torch.rand(batch.mask.shape)).requires_grad_()

    def scale(stat: str) -> None:
        loss, _ = depth_aware_scale_loss(soft, batch.depth, FOCAL_PX, K_OBJ, "depth", stat)
        torch.autograd.grad(loss, soft)

    times = time_in_turns(
        {
            "Dice loss": lambda: torch.autograd.grad(dice(soft, batch.mask), soft),
            "scale loss, mean": lambda: scale("mean"),
            "torch.sort of the depth": lambda: batch.depth.flatten(1).sort(-1),
            "scale loss, weighted median": lambda: scale("median"),
        },
        repeats,
    )
    print(f"\n{BATCH} masks of 128x128, forward + backward")
    for reference, name, limit in (
        ("Dice loss", "scale loss, mean", 3.0),
        ("torch.sort of the depth", "scale loss, weighted median", 1.5),
    ):
        print_row(reference, times[reference])
        ratio = statistics.median(times[name]) / statistics.median(times[reference])
        print_row(name, times[name], f"{ratio:6.2f} times that, at most {limit:g}")


def compare_insertion_loss(size: int, channels: int, repeats: int, limit: str = "") -> None:
    """Print (c) for one size, values beside speed."""
    batch = make_batch(size, channels)
    z_pred = batch.z_pred.requires_grad_()
    criterion = InsertionLoss(scale=ScaleOptions(depth_mode="depth", border_policy="one_sided"))

    def ours() -> tuple[dict[str, Tensor], Tensor]:
        terms = criterion(
            z_pred, batch.z_tgt, batch.z_ctx, batch.mask, depth=batch.depth, f_px=FOCAL_PX, k_obj=K_OBJ
        )
        gradient = torch.autograd.grad(terms["loss"], z_pred)[0]
        return {name: terms[f"loss_{name}"] for name in WEIGHTS}, gradient

    def plain() -> tuple[dict[str, Tensor], Tensor]:
        terms = plain_insertion_loss(batch, z_pred)
        loss = torch.stack([WEIGHTS[name] * term for name, term in terms.items()]).sum()
        return terms, torch.autograd.grad(loss, z_pred)[0]

    (terms, gradient), (expected, expected_gradient) = ours(), plain()
    worst = max(abs((terms[name] / expected[name]).item() - 1) for name in WEIGHTS)
    off = float((gradient - expected_gradient).norm() / expected_gradient.norm())
    times = time_in_turns({"plain": plain, "InsertionLoss": ours}, repeats)
    ratio = statistics.median(times["plain"]) / statistics.median(times["InsertionLoss"])
    print(f"\n{BATCH} latents of {channels}x{size}x{size}, forward + backward")
    print_row("SciPy and loops over samples", times["plain"])
    print_row("InsertionLoss", times["InsertionLoss"], f"{ratio:6.2f} times faster{limit}")
    print(f"greatest relative difference of a term {worst:.1e}, of the gradient {off:.1e}")
    if not (worst < 1e-3 and off < 1e-3 and math.isfinite(ratio)):
        raise SystemExit("the two forms do not agree")


def print_row(name: str, times: list[float], remark: str = "") -> None:
    """A row of the table."""
    low, middle, high = statistics.quantiles(times, n=4)
    print(f"{name:30}{f'{middle:.2f} ms ({high - low:.2f})':>20}  {remark}")


def main() -> None:
    """Print the three comparisons."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    # A process that has held a picture keeps freed memory; one that has not may hand each call's memory back
    # to the system and pay for it again, which is noise here.
    torch.zeros(2 << 20, dtype=torch.float64)
    print(f"{options.threads} thread(s); medians and interquartile ranges of {options.repeats} runs in turns")
    compare_scale_loss(options.repeats)
    compare_insertion_loss(128, 4, options.repeats, ", at least 5")
    compare_insertion_loss(32, 16, options.repeats)


if __name__ == "__main__":
    main()
