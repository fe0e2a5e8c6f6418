"""What a crop costs in each mode of the learned matcher, with a card whose features are kept.

The modes are timed in turns on crops of generated objects: ``cluster`` with an expected direction, the fast
and the exact global mode over 162 templates, and matching again from a pose. Operations are counted (a
multiplication with its addition as two). With weights, it is also said how often the fast mode's best
hypothesis has the pose of the exact mode's.

    python -m benchmarks.bench_vpog_modes [--weights FILE] [--objects 2] [--crops 4] [--repeats 3]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sightline.geometry.cameras import Camera
from sightline.geometry.pnp import solve_pnp
from sightline.geometry.poses import look_at, transform
from sightline.geometry.rotations import geodesic_distance
from sightline.objects.card import ObjectCard
from sightline.objects.onboard import onboard_mesh
from sightline.records import TriangleMesh
from sightline.rendering import render_views
from sightline.synthetic.exam import exam_object
from sightline.vpog.inference import MatchSettings, VPOGMatcher
from sightline.vpog.model import VPOGModel
from sightline.vpog.prior_view import prior_view

RECIPE = Path(__file__).parents[1] / "configs" / "vpog" / "tiny.yaml"
CAMERA = Camera.from_focal(600.0, 640, 480)
TURN = 0.55  # of the recipe: eight crops all around
SAME_DEG = 5.0
LIMITS = "fast: at most 2 times cluster, 10 times faster than exact, 400 ms on two cores"


class Crop(NamedTuple):
    """A picture of an object with its true pose and box."""

    card: ObjectCard
    mesh: TriangleMesh
    picture: np.ndarray
    pose: Tensor
    box: Tensor

    @property
    def direction(self) -> Tensor:
        """From the object to the camera."""
        return prior_view(self.pose, self.card.center.double()).direction


def make_matchers(weights: Path | None) -> dict[str, VPOGMatcher]:
    """One of each mode; without weights every patch counts as matched, which costs the most."""
    if weights is None:
        model = VPOGModel(**yaml.safe_load(RECIPE.read_text())["model"])
        free: dict[str, Any] = {"conf_threshold": 0.0, "flow_threshold": 0.0}
        return {
            mode: VPOGMatcher(model, MatchSettings(mode=mode, **free), turn=TURN)
            for mode in ("cluster", "global-fast", "global")
        }
    return {
        mode: VPOGMatcher.from_checkpoint(weights, MatchSettings(mode=mode))
        for mode in ("cluster", "global-fast", "global")
    }


def make_crops(number: int, per_object: int) -> list[Crop]:
    """Pictures of development objects before a plain background, turned any way."""
    rng, crops = np.random.default_rng(0), []
    for index in range(number):
        thing = exam_object(index, "development")
        card = onboard_mesh(
            thing.mesh, name=f"object-{index}", template_size=160, symmetries=thing.symmetries
        )
        for _ in range(per_object):
            eye = rng.normal(size=3)
            eye *= rng.uniform(3, 6) * thing.mesh.diameter / np.linalg.norm(eye)
            pose = look_at(torch.from_numpy(eye), up=torch.from_numpy(rng.normal(size=3)))
            drawn = render_views(
                thing.mesh, pose[None], CAMERA.K, CAMERA.image_size, background=(120, 125, 130)
            )
            px = CAMERA.project(transform(pose, thing.mesh.vertices.double()))
            box = torch.cat([px.amin(0), px.amax(0)])
            crops.append(Crop(card, thing.mesh, drawn.color[0].numpy(), pose, box))
    return crops


def time_modes(matchers: dict[str, VPOGMatcher], crops: list[Crop], repeats: int) -> None:
    """One line a mode, the modes in turns; features are computed before and do not count."""
    for matcher in matchers.values():
        for crop in crops:
            matcher.known(crop.card)
    forms: dict[str, Callable[[Crop], Any]] = {
        "cluster, direction given": lambda crop: matchers["cluster"].search(
            crop.picture, crop.card, box=crop.box, direction=crop.direction
        ),
        "global-fast": lambda crop: matchers["global-fast"].search(crop.picture, crop.card, box=crop.box),
        "global": lambda crop: matchers["global"].search(crop.picture, crop.card, box=crop.box),
        "rematch": lambda crop: matchers["global-fast"].rematch(
            crop.picture, crop.card, CAMERA, crop.pose, radius_px=20.0
        ),
    }
    times: dict[str, list[float]] = {form: [] for form in forms}
    for turn in range(-1, repeats):
        for crop in crops:
            for form, run in forms.items():
                start = time.perf_counter()
                run(crop)
                if turn >= 0:
                    times[form].append(1e3 * (time.perf_counter() - start))
    middle = {form: statistics.median(each) for form, each in times.items()}
    cost = {form: count_operations(lambda: run(crops[0])) for form, run in forms.items()}  # noqa: B023
    print(f"{'a crop':26}{'ms':>8}{'GFLOP':>8}{'of fast':>9}")
    for form in forms:
        share = middle[form] / middle["global-fast"]
        print(f"{form:26}{middle[form]:8.0f}{cost[form]:8.2f}{share:9.2f}")
    print(LIMITS)


def count_operations(run: Callable[[], Any]) -> float:
    """Of one run, in GFLOP."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 1e9


def compare_poses(matchers: dict[str, VPOGMatcher], crops: list[Crop]) -> None:
    """How often fast and exact mode have the same best pose, and how often it is the true one."""
    same = right = solved = 0
    for crop in crops:
        poses = []
        for mode in ("global-fast", "global"):
            groups = matchers[mode].match(crop.picture, crop.card, box=crop.box, max_groups=1)
            found = [
                solve_pnp(g.points_2d, g.points_3d, CAMERA, weights=g.weights, max_error_px=4.0)
                for g in groups
            ]
            poses.append(found[0].R if found and found[0].valid else None)
        fast, exact = poses
        if exact is None:
            continue
        solved += 1
        same += fast is not None and _degrees(fast, exact) < SAME_DEG
        right += _degrees(exact, crop.pose[:3, :3]) < SAME_DEG
    print(f"of {len(crops)} crops the exact mode solves {solved}, {right} of them rightly;", end=" ")
    print(f"the fast mode has the same pose in {same} (within {SAME_DEG:g} degrees)")


def _degrees(a: Tensor, b: Tensor) -> float:
    return float(torch.rad2deg(geodesic_distance(a, b)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--objects", type=int, default=2)
    parser.add_argument("--crops", type=int, default=4, help="of each object")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    matchers, crops = make_matchers(options.weights), make_crops(options.objects, options.crops)
    time_modes(matchers, crops, options.repeats)
    if options.weights is not None:
        compare_poses(matchers, crops)


if __name__ == "__main__":
    main()
