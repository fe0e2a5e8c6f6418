"""PnP against OpenCV's solvers, and the batched refinement against loops, on the same problems in one run.

Problems: points in a ball of 100 mm at 600 mm, f = 572 px, 640x480, 1 px of noise, outliers anywhere in the
    picture.
Solvers in turns on each problem, one thread, CPU time, so that other work on the machine hardly counts;
median and interquartile range over the problems. A solver that finds no pose counts as infinitely wrong.
OpenCV's RANSACs get what their users add, a Levenberg-Marquardt on their inliers, within the time.

    python benchmarks/bench_pnp.py [--problems 200] [--repeats 10]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
import poselib
import torch
from scipy.optimize import least_squares
from torch import Tensor

from sightline.geometry.cameras import project
from sightline.geometry.pnp import refine_poses, solve_pnp
from sightline.geometry.pnp.losses import LossName
from sightline.geometry.rotations import exp, log
from sightline.synthetic.problems import PnPProblems, make_pnp_problems, pose_errors, success_rate

Pose = tuple[Tensor, Tensor]
Solver = Callable[[Tensor, Tensor, PnPProblems], Pose]
LOST: Pose = (torch.full((3, 3), torch.nan).double(), torch.full((3,), torch.nan).double())
WARM_UP = 3


def solve_ours(x: Tensor, X: Tensor, problems: PnPProblems) -> Pose:
    """The face, defaults."""
    result = solve_pnp(x, X, problems.camera)
    return result.R, result.t


def solve_poselib(x: Tensor, X: Tensor, problems: PnPProblems) -> Pose:
    """PoseLib alone, with its own final refinement, 3 px."""
    camera = problems.camera
    params = [float(camera.K[row, column]) for row, column in ((0, 0), (1, 1), (0, 2), (1, 2))]
    model = {"model": "PINHOLE", "width": camera.width, "height": camera.height, "params": params}
    pose, _ = poselib.estimate_absolute_pose(x.numpy(), X.numpy(), model, {"max_reproj_error": 3.0}, {})
    return torch.from_numpy(pose.R.copy()), torch.from_numpy(pose.t.copy())


def opencv_ransac(flags: int, error_px: float) -> Solver:
    """1,000 iterations at a confidence of 0.99, then Levenberg-Marquardt on the inliers."""

    def solve(x: Tensor, X: Tensor, problems: PnPProblems) -> Pose:
        K = problems.camera.K.numpy()
        found, w, t, inliers = cv2.solvePnPRansac(
            X.numpy(), x.numpy(), K, None, None, None, False, 1000, error_px, 0.99, None, flags
        )
        return refine_opencv(x, X, K, w, t, inliers) if found else LOST

    return solve


def solve_magsac(x: Tensor, X: Tensor, problems: PnPProblems) -> Pose:
    """OpenCV's USAC framework scored by MAGSAC, then Levenberg-Marquardt on the inliers."""
    params = cv2.UsacParams()
    params.score, params.sampler = cv2.SCORE_METHOD_MAGSAC, cv2.SAMPLING_UNIFORM
    params.loMethod, params.threshold = cv2.LOCAL_OPTIM_SIGMA, 3.0
    params.maxIterations, params.confidence = 10_000, 0.99
    K = problems.camera.K.numpy()
    found, _, w, t, inliers = cv2.solvePnPRansac(X.numpy(), x.numpy(), K, np.zeros(5), params=params)
    return refine_opencv(x, X, K, w, t, inliers) if found else LOST


def refine_opencv(
    x: Tensor, X: Tensor, K: np.ndarray, w: np.ndarray, t: np.ndarray, inliers: np.ndarray | None
) -> Pose:
    """OpenCV's Levenberg-Marquardt on some of the points."""
    rows = np.arange(len(x)) if inliers is None else inliers.ravel()
    if len(rows) >= 4:
        w, t = cv2.solvePnPRefineLM(X.numpy()[rows], x.numpy()[rows], K, None, w.copy(), t.copy())
    return exp(torch.from_numpy(w.ravel().copy())), torch.from_numpy(t.ravel().copy())


SOLVERS: dict[str, Solver] = {
    "sightline solve_pnp": solve_ours,
    "PoseLib LO-RANSAC": solve_poselib,
    "OpenCV EPnP RANSAC 8 px": opencv_ransac(cv2.SOLVEPNP_EPNP, 8.0),
    "OpenCV SQPnP RANSAC 3 px": opencv_ransac(cv2.SOLVEPNP_SQPNP, 3.0),
    "OpenCV USAC MAGSAC": solve_magsac,
}


def spread(times: list[float]) -> str:
    """Median and interquartile range, milliseconds."""
    low, middle, high = statistics.quantiles(times, n=4)
    return f"{middle:.2f} ({high - low:.2f})"


def compare_solvers(num_points: int, outliers: float, num_problems: int) -> None:
    """Print one line a solver."""
    problems = make_pnp_problems(num_problems, num_points, outlier_fraction=outliers)
    times: dict[str, list[float]] = {name: [] for name in SOLVERS}
    poses: dict[str, list[Pose]] = {name: [] for name in SOLVERS}
    for i in range(-WARM_UP, num_problems):
        for name, solve in SOLVERS.items():
            start = time.process_time()
            pose = solve(problems.points_2d[i], problems.points_3d[i], problems)
            if i >= 0:
                times[name].append(1e3 * (time.process_time() - start))
                poses[name].append(pose)
    for name in SOLVERS:
        R, t = (torch.stack(parts) for parts in zip(*poses[name], strict=True))
        errors = pose_errors(R, t, problems.R, problems.t)
        middle, worst = float(errors.rotation_deg.median()), float(errors.rotation_deg.max())
        print(
            f"{outliers:8.0%}{num_points:7d}  {name:26}{spread(times[name]):>18}{middle:12.3f}{worst:9.2f}"
            f"{1e3 * float(errors.translation_m.median()):10.2f}{success_rate(errors, 2.0):10.1%}"
        )


def loop_of_opencv(x: Tensor, X: Tensor, K: Tensor, R: Tensor, t: Tensor) -> Pose:
    """One solvePnPRefineLM after the other."""
    found = [
        refine_opencv(
            x[i], X[i], K.numpy(), log(R[i]).numpy().reshape(3, 1), t[i].numpy().reshape(3, 1), None
        )
        for i in range(len(t))
    ]
    return torch.stack([pose[0] for pose in found]), torch.stack([pose[1] for pose in found])


def loop_of_scipy(x: Tensor, X: Tensor, K: Tensor, R: Tensor, t: Tensor) -> Pose:
    """One scipy.optimize.least_squares after the other, its Jacobian by differences."""
    found = []
    for i in range(len(t)):

        def residuals(step: np.ndarray, i: int = i) -> np.ndarray:
            delta = torch.from_numpy(step)
            return (project(X[i] @ (exp(delta[:3]) @ R[i]).mT + t[i] + delta[3:], K) - x[i]).flatten().numpy()

        step = torch.from_numpy(least_squares(residuals, np.zeros(6), method="lm").x)
        found.append((exp(step[:3]) @ R[i], t[i] + step[3:]))
    return torch.stack([pose[0] for pose in found]), torch.stack([pose[1] for pose in found])


def compare_refinements(num_poses: int, num_points: int, repeats: int) -> None:
    """Print one line a way of refining many poses; the loops run on fewer and are scaled up."""
    problems = make_pnp_problems(num_poses, num_points)
    generator = torch.Generator().manual_seed(1)
    turn = 0.05 * torch.randn(num_poses, 3, generator=generator, dtype=torch.float64)
    shift = torch.randn(num_poses, 3, generator=generator, dtype=torch.float64)
    start = exp(turn) @ problems.R, problems.t + shift * torch.tensor([0.005, 0.005, 0.02])
    K = problems.camera.K

    def ours(loss: LossName) -> Callable[..., Pose]:
        return lambda x, X, K, R, t: refine_poses(x, X, K, R, t, loss=loss, scale_px=2.0)[:2]

    ways: dict[str, tuple[int, Callable[..., Pose]]] = {
        "sightline squared": (num_poses, ours("squared")),
        "sightline huber 2 px": (num_poses, ours("huber")),
        "sightline cauchy 2 px": (num_poses, ours("cauchy")),
        "loop of cv2.solvePnPRefineLM": (num_poses // 5, loop_of_opencv),
        "loop of scipy least_squares": (num_poses // 50, loop_of_scipy),
    }
    print(f"\n{num_poses} poses x {num_points} points, 1 px noise; the loops on fewer, scaled up")
    print(f"{'':30}{'CPU ms (IQR)':>20}{'median deg':>12}{'worst':>9}")
    for name, (count, refine) in ways.items():
        part = problems.points_2d[:count], problems.points_3d[:count], K, start[0][:count], start[1][:count]
        R, t = refine(*part)
        times = []
        for _ in range(repeats if count == num_poses else 3):
            begin = time.process_time()
            refine(*part)
            times.append(1e3 * (time.process_time() - begin) * num_poses / count)
        errors = pose_errors(R, t, problems.R[:count], problems.t[:count]).rotation_deg
        print(f"{name:30}{spread(times):>20}{float(errors.median()):12.3f}{float(errors.max()):9.2f}")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    print(
        f"{'outliers':8}{'points':>7}  {'solver':26}{'CPU ms (IQR)':>18}{'median deg':>12}{'worst':>9}"
        f"{'median mm':>10}{'< 2 deg':>10}"
    )
    for num_points in (100, 1000):
        for outliers in (0.0, 0.3, 0.6, 0.8):
            compare_solvers(num_points, outliers, options.problems)
    compare_refinements(1000, 200, options.repeats)


if __name__ == "__main__":
    main()
