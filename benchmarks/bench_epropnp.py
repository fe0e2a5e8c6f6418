"""EPro-PnP's cost, solver and loss against loops of OpenCV and SciPy, on the same problems in one run.

Problems: points in a ball of 100 mm at 600 mm, f = 572 px, 1 px of noise. The references minimise the same
least squares from the same starts, one problem after the other; the reference of the cost is its formula, one
pose after the other. Wall and CPU time (of all threads; other work on the machine hardly counts in it),
median and interquartile range.

    python benchmarks/bench_epropnp.py [--repeats 20] [--threads 2]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch
from scipy.optimize import least_squares
from torch import Tensor

from sightline.geometry.cameras import project
from sightline.geometry.pnp.epropnp import EProPnP, Pose
from sightline.geometry.pnp.epropnp.problems import pack_problems, pose_costs
from sightline.geometry.pnp.epropnp.solver import find_minimum
from sightline.geometry.poses import make_pose
from sightline.geometry.rotations import exp, log
from sightline.synthetic.problems import make_pnp_problems, pose_errors, success_rate


def measure(work: Callable[[], object], repeats: int) -> str:
    """Wall and CPU milliseconds, median and interquartile range."""
    walls, cpus = [], []
    for turn in range(-1, repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        if turn >= 0:
            walls.append(1e3 * (time.perf_counter() - wall))
            cpus.append(1e3 * (time.process_time() - cpu))
    parts = []
    for times in (walls, cpus):
        low, middle, high = statistics.quantiles(times, n=4)
        parts.append(f"{middle:9.1f} ({high - low:.1f})")
    return "".join(f"{part:>20}" for part in parts)


def costs_in_a_loop(points_3d: Tensor, points_2d: Tensor, K: Tensor, pose: Pose, delta: Tensor) -> Tensor:
    """The Huber cost of k poses of each problem, one pose after the other."""
    columns = []
    for k in range(pose.t.shape[1]):
        residual = project(points_3d @ pose.R[:, k].mT + pose.t[:, k, None], K[0]) - points_2d
        length = torch.linalg.vector_norm(residual, dim=-1)
        near = torch.minimum(length, delta[:, None])
        columns.append((near * (length - near / 2)).sum(-1))
    return torch.stack(columns, 1)


def benchmark_loss(repeats: int) -> None:
    """Print the times of cost and loss, 8 problems x 512 points x 512 samples in float32."""
    problems = make_pnp_problems(8, 512)
    points_3d, points_2d = problems.points_3d.float().requires_grad_(), problems.points_2d.float()
    K = problems.camera.K.float().expand(8, 3, 3)
    weights, pose_gt = torch.ones_like(points_2d), make_pose(problems.R, problems.t).float()
    problem = points_3d, points_2d, weights, K
    packed = pack_problems(*problem, relative_delta=0.1, min_depth=0.01).detach()
    generator = torch.Generator().manual_seed(0)
    R = exp(0.05 * torch.randn(8, 512, 3, generator=generator)) @ problems.R[:, None].float()
    t = problems.t[:, None].float() + 0.01 * torch.randn(8, 512, 3, generator=generator)
    layer = EProPnP(num_proposals=4)

    def train() -> None:
        layer.monte_carlo_loss(*problem, pose_gt).loss.mean().backward()

    pose, plain = packed.to_centred(R, t), points_3d.detach()
    looped = costs_in_a_loop(plain, points_2d, K, Pose(R, t), packed.delta)
    batched = pose_costs(packed, pose)
    error = float(((batched - looped).abs() / looped).max())
    rows: dict[str, Callable[[], object]] = {
        "cost, batched": lambda: pose_costs(packed, pose),
        "cost, loop over poses": lambda: costs_in_a_loop(plain, points_2d, K, Pose(R, t), packed.delta),
        "loss forward": lambda: layer.monte_carlo_loss(*problem, pose_gt),
        "loss forward and backward": train,
        "solve with posterior": lambda: EProPnP().solve(*(part.detach() for part in problem)),
    }
    print(f"8 x 512 points x 512 samples, float32; batched and looped cost differ by {error:.1e} of it")
    print(f"{'':30}{'wall ms (IQR)':>20}{'CPU ms (IQR)':>20}")
    for name, work in rows.items():
        print(f"{name:30}{measure(work, repeats)}")


def benchmark_solver(repeats: int) -> None:
    """Print time and error of the solver beside loops over the same least squares."""
    problems = make_pnp_problems(40, 200)
    generator = torch.Generator().manual_seed(1)
    start_R = exp(0.05 * torch.randn(40, 3, generator=generator, dtype=torch.float64)) @ problems.R
    start_t = problems.t + 0.005 * torch.randn(40, 3, generator=generator, dtype=torch.float64)
    K = problems.camera.K
    packed = pack_problems(
        problems.points_3d,
        problems.points_2d,
        torch.ones_like(problems.points_2d),
        K.expand(40, 3, 3),
        relative_delta=torch.inf,
        min_depth=0.01,
    )

    def ours() -> tuple[Tensor, Tensor]:
        start = packed.to_centred(start_R, start_t)
        return packed.to_object(find_minimum(packed, start, max_iterations=50).pose)

    def opencv() -> tuple[Tensor, Tensor]:
        found = [
            cv2.solvePnPRefineLM(
                problems.points_3d[i].numpy(),
                problems.points_2d[i].numpy(),
                K.numpy(),
                None,
                log(start_R[i]).numpy().reshape(3, 1).copy(),
                start_t[i].numpy().reshape(3, 1).copy(),
            )
            for i in range(40)
        ]
        w, t = (torch.from_numpy(np.stack([pose[part].ravel() for pose in found])) for part in (0, 1))
        return exp(w), t

    def scipy() -> tuple[Tensor, Tensor]:
        steps = []
        for i in range(40):

            def residuals(step: np.ndarray, i: int = i) -> np.ndarray:
                delta = torch.from_numpy(step)
                points = problems.points_3d[i] @ (exp(delta[:3]) @ start_R[i]).mT + start_t[i] + delta[3:]
                return (project(points, K) - problems.points_2d[i]).flatten().numpy()

            steps.append(torch.from_numpy(least_squares(residuals, np.zeros(6), method="lm").x))
        step = torch.stack(steps)
        return exp(step[:, :3]) @ start_R, start_t + step[:, 3:]

    reference = scipy()
    print("\n40 poses x 200 points, least squares")
    print(f"{'':30}{'wall ms (IQR)':>20}{'CPU ms (IQR)':>20}{'from SciPy deg':>16}")
    for name, work, count in (("EPro-PnP", ours, repeats), ("OpenCV", opencv, repeats), ("SciPy", scipy, 2)):
        away = float(pose_errors(*work(), *reference).rotation_deg.max())
        print(f"{name:30}{measure(work, count)}{away:16.1e}")


def benchmark_outliers() -> None:
    """Print how many problems are solved from random starts alone, weights all equal."""
    print(
        f"\n200 problems from random starts\n{'outliers':>10}{'points':>8}{'median deg':>12}{'< 5 deg':>10}"
    )
    for outliers in (0.0, 0.3, 0.5, 0.6):
        for num_points in (100, 500):
            problems = make_pnp_problems(200, num_points, outlier_fraction=outliers)
            K = problems.camera.K.expand(200, 3, 3)
            weights = torch.ones_like(problems.points_2d)
            result = EProPnP(covariance="curvature").solve(problems.points_3d, problems.points_2d, weights, K)
            errors = pose_errors(result.R, result.t, problems.R, problems.t)
            middle = float(errors.rotation_deg.median())
            print(f"{outliers:10.0%}{num_points:8d}{middle:12.3f}{success_rate(errors, 5.0):10.1%}")


def main() -> None:
    """Print three tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    benchmark_loss(options.repeats)
    benchmark_solver(options.repeats)
    benchmark_outliers()


if __name__ == "__main__":
    main()
