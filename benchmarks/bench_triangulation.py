"""Triangulation of all pairs of views against a loop of singular value decompositions, in one run.

16 frames of 6 views with 30 points make 15 pairs and 7,200 points, in float64. The reference is the common
way: a Python loop over frames and pairs, each with the SVD of its points' 4x4 equations. All get the same
pixels and normalise them within the time. One thread and its CPU time, so that other work on the machine
hardly counts; median and interquartile range of runs in turns. Errors are root mean squares, with 1 px of
noise and without.

    python benchmarks/bench_triangulation.py [--repeats 30]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from sightline.geometry.cameras import project
from sightline.geometry.poses import look_at, transform
from sightline.geometry.triangulation import triangulate, triangulate_pairs

NUM_FRAMES, NUM_VIEWS, NUM_POINTS = 16, 6, 30
WARM_UP = 5


def make_rig() -> tuple[Tensor, Tensor]:
    """K and cam_from_world of cameras on a ring of 2 m around the origin."""
    angle = torch.arange(NUM_VIEWS, dtype=torch.float64) * 2 * torch.pi / NUM_VIEWS
    eye = torch.stack([2 * angle.cos(), 2 * angle.sin(), 0.5 + 0.3 * angle.sin()], -1)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand(NUM_VIEWS, 3)
    K = torch.tensor([[800.0, 0, 320], [0, 800, 240], [0, 0, 1]], dtype=torch.float64).repeat(NUM_VIEWS, 1, 1)
    return K, look_at(eye, torch.zeros_like(eye), up)


def loop_of_svds(px: Tensor, K: Tensor, cam_from_world: Tensor) -> Tensor:
    """The reference: one SVD call a frame and pair."""
    xy = (px - K[:, None, :2, 2]) / K[:, None, [0, 1], [0, 1]]
    frames = []
    for frame in xy:
        pairs = []
        for i, j in itertools.combinations(range(len(K)), 2):
            rows = [frame[v, :, :, None] * cam_from_world[v, 2] - cam_from_world[v, :2] for v in (i, j)]
            null = torch.linalg.svd(torch.cat(rows, 1)).Vh[:, -1]
            pairs.append(null[:, :3] / null[:, 3:])
        frames.append(torch.stack(pairs))
    return torch.stack(frames)


def with_backward(solve: Callable[[Tensor], Tensor]) -> Callable[[Tensor], None]:
    """The same solver, with the gradient of a loss on its points."""

    def run(px: Tensor) -> None:
        px = px.detach().requires_grad_()
        solve(px).square().sum().backward()

    return run


def time_together(
    solvers: dict[str, Callable[[Tensor], object]], px: Tensor, repeats: int
) -> dict[str, list[float]]:
    """Milliseconds of CPU a call, of samples of some 30 ms taken in turns."""

    def sample(solve: Callable[[Tensor], object], calls: int) -> float:
        start = time.process_time()
        for _ in range(calls):
            solve(px)
        return 1e3 * (time.process_time() - start) / calls

    calls = {name: max(1, round(30 / sample(solve, WARM_UP))) for name, solve in solvers.items()}
    times: dict[str, list[float]] = {name: [] for name in solvers}
    for _ in range(repeats):
        for name, solve in solvers.items():
            times[name].append(sample(solve, calls[name]))
    return times


def main() -> None:
    """Print a table: forward and forward + backward time, ratio to the loop, and error."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(1)
    # A process that has held a picture keeps freed memory; one that has not may hand each call's memory back
    # to the system and pay for it again, which is noise here.
    torch.zeros(2 << 20, dtype=torch.float64)

    generator = torch.Generator().manual_seed(0)
    K, cam_from_world = make_rig()
    points = 0.4 * torch.randn(NUM_FRAMES, NUM_POINTS, 3, generator=generator, dtype=torch.float64).clamp(
        -1, 1
    )
    clean = project(transform(cam_from_world, points[:, None]), K)
    px = clean + torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    solvers: dict[str, Callable[[Tensor], Tensor]] = {
        "loop of SVDs": lambda p: loop_of_svds(p, K, cam_from_world),
        "triangulate_pairs dlt": lambda p: triangulate_pairs(p, K, cam_from_world, method="dlt").points,
        "triangulate_pairs linear": lambda p: triangulate_pairs(p, K, cam_from_world).points,
        "triangulate (one point of 6 views)": lambda p: triangulate(p, K, cam_from_world).points,
    }
    forward = time_together(solvers, px, options.repeats)
    both = time_together({name: with_backward(s) for name, s in solvers.items()}, px, options.repeats)

    print(f"{NUM_FRAMES} x {NUM_VIEWS} views x {NUM_POINTS} points, float64, 1 thread")
    heads = ("forward ms (IQR)", "ratio", "+ backward ms (IQR)", "ratio", "error m", "clean m")
    print(
        " " * 34
        + "".join(f"{head:>{width}}" for head, width in zip(heads, (19, 7, 21, 7, 10, 9), strict=True))
    )
    reference = [statistics.median(times["loop of SVDs"]) for times in (forward, both)]
    for name, solve in solvers.items():
        cells = ""
        for times, base in zip((forward[name], both[name]), reference, strict=True):
            low, middle, high = statistics.quantiles(times, n=4)
            cells += f"{f'{middle:.2f} ({high - low:.2f})':>{20}}{base / middle:7.1f}"
        truth = points if name.startswith("triangulate (") else points[:, None]
        errors = [float((solve(p) - truth).norm(dim=-1).square().mean().sqrt()) for p in (px, clean)]
        print(f"{name:34}{cells}{errors[0]:10.5f}{errors[1]:9.1e}")


if __name__ == "__main__":
    main()
