"""Rendering 162 views against Embree's rays and the torch backend, on the same object in one run.

A dented ball of 10,000 triangles with a texture of 512x256 that fills 87 % of 224x224 pixels, from all
around. Ours draws colour, depth and mask, without and with lights. Embree (float32, robust) only finds what
is hit: one scene is built, and a view's rays are turned into the object's frame within the time. Contenders
run in turns, after a warm-up that compiles; wall time with all threads that PyTorch may use, and CPU time,
which other work on the machine hardly changes; median and interquartile range. Accuracy is the median
difference of the depths and the intersection over union of the masks, against Embree.

    python benchmarks/bench_rendering.py [--repeats 9] [--slow-repeats 2]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from embreex import rtcore_scene
from embreex.mesh_construction import TriangleMesh as EmbreeMesh
from torch import Tensor

from sightline.geometry.viewpoints import view_poses
from sightline.records import TriangleMesh
from sightline.rendering import Lights, fit_poses, render_views

SIZE = (224, 224)
ROWS, COLUMNS = 51, 100  # 50 strips of 100 quadrilaterals: 10,000 triangles


def make_object() -> TriangleMesh:
    """The dented ball, 10 cm across."""
    polar, around = np.meshgrid(
        np.linspace(0, np.pi, ROWS), np.linspace(0, 2 * np.pi, COLUMNS + 1), indexing="ij"
    )
    radius = 0.05 * (1 + 0.25 * np.sin(5 * around) * np.sin(4 * polar) * np.sin(polar))
    ball = np.stack([np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)], -1)
    index = np.arange(ROWS * (COLUMNS + 1)).reshape(ROWS, COLUMNS + 1)
    a, b, c, d = (x.ravel() for x in (index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]))
    faces = torch.from_numpy(np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]))
    uv = torch.from_numpy(np.stack([around / (2 * np.pi), polar / np.pi], -1)).reshape(-1, 2).float()
    generator = torch.Generator().manual_seed(0)
    texture = torch.randint(0, 256, (256, 512, 3), dtype=torch.uint8, generator=generator)
    vertices = torch.from_numpy((radius[..., None] * ball).reshape(-1, 3))
    return TriangleMesh(vertices, faces, uv=uv[faces], texture=texture)


def embree_depths(mesh: TriangleMesh, cam_from_obj: Tensor, K: Tensor) -> np.ndarray:
    """Depth ``(n, h, w)``, 0 where nothing is hit."""
    scene = rtcore_scene.EmbreeScene(robust=True)
    EmbreeMesh(scene, mesh.vertices[mesh.faces].numpy().astype(np.float32))
    y, x = torch.meshgrid(torch.arange(SIZE[1]), torch.arange(SIZE[0]), indexing="ij")
    rays = torch.stack([x, y, torch.ones_like(x)], -1).double().view(-1, 3) @ torch.linalg.inv(K).mT
    depths = []
    for pose in cam_from_obj:
        turned = (rays @ pose[:3, :3]).numpy().astype(np.float32)
        eye = (-pose[:3, 3] @ pose[:3, :3]).numpy().astype(np.float32)
        hit = scene.run(np.tile(eye, (len(turned), 1)), turned, query="INTERSECT", output=True)
        depths.append(np.where(hit["primID"] >= 0, hit["tfar"], 0.0).reshape(SIZE[1], SIZE[0]))
    return np.stack(depths)


def on_one_thread(run: Callable[[], object]) -> None:
    """The torch backend's small operations lose by more threads where other work holds one of them up."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run()
    torch.set_num_threads(threads)


def measure(contenders: dict[str, Callable[[], object]], repeats: dict[str, int]) -> dict[str, np.ndarray]:
    """Wall and CPU seconds ``(repeats, 2)`` of each, in turns."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for turn in range(max(repeats.values())):
        for name, run in contenders.items():
            if turn < repeats[name]:
                wall, cpu = time.perf_counter(), time.process_time()
                run()
                times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: np.array(pairs) for name, pairs in times.items()}


def spread(values: np.ndarray) -> str:
    """Median and interquartile range."""
    low, middle, high = statistics.quantiles(values.tolist(), n=4, method="inclusive")
    return f"{middle:7.3f} s ({low:.3f} to {high:.3f})"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=9, help="runs of the fast ones")
    parser.add_argument("--slow-repeats", type=int, default=2, help="runs of Embree and of torch")
    arguments = parser.parse_args()
    mesh = make_object()
    K = torch.tensor([[500.0, 0, 111.5], [0, 500, 111.5], [0, 0, 1]], dtype=torch.float64)
    poses = fit_poses(mesh, view_poses(162, 0.5), K, SIZE)
    draw = partial(render_views, mesh, poses, K, SIZE)
    contenders: dict[str, Callable[[], object]] = {
        "ours": draw,
        "ours, lit": partial(draw, lights=Lights.headlight()),
        "ours, 2x2 samples": partial(draw, samples=2),
        "ours, depth and mask": partial(draw, outputs=("depth", "mask")),
        "Embree, depth": partial(embree_depths, mesh, poses, K),
        "torch, one thread": partial(on_one_thread, partial(draw, backend="torch")),
    }
    slow = ("Embree, depth", "torch, one thread")
    for name, run in contenders.items():
        if name not in slow:
            run()
    repeats = {name: arguments.slow_repeats if name in slow else arguments.repeats for name in contenders}
    times = measure(contenders, repeats)
    reference, ours = embree_depths(mesh, poses, K), draw()
    seen, mask = reference > 0, ours.mask.numpy()
    both = seen & mask
    print(
        f"{len(mesh.faces)} triangles, {len(poses)} views of {SIZE[0]}x{SIZE[1]}, {mask.mean():.0%} covered"
    )
    print(f"{torch.get_num_threads()} threads; wall time, CPU time, wall time over ours")
    base = np.median(times["ours"][:, 0])
    for name, pairs in times.items():
        ratio = np.median(pairs[:, 0]) / base
        print(f"{name:22s} {spread(pairs[:, 0])}  {spread(pairs[:, 1])}  {ratio:6.2f}")
    error = np.abs(ours.depth.numpy() - reference)[both]
    print(f"depth against Embree: median {np.median(error):.1e} m, largest {error.max():.1e} m")
    print(f"mask against Embree: intersection over union {both.sum() / (seen | mask).sum():.6f}")


if __name__ == "__main__":
    main()
