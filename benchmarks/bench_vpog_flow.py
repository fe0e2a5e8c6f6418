"""What the flow ground truth of one template costs, against its first form, which goes pair by pair.

One query and one template of 224 px with 16 px patches, 196 x 196 pairs, exact depth of a ball that fills
most of the picture. The first form (``seed_form_vpog_flow``) is timed on a sample of pairs, in turns with
ours, and scaled to all; flow and what is seen are compared on that sample.

    python -m benchmarks.bench_vpog_flow [--repeats 20] [--pairs 400] [--threads 1]
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor

from benchmarks.seed_form_vpog_flow import flow_of_pair
from sightline.geometry.cameras import unproject
from sightline.geometry.depth import pixel_grid
from sightline.geometry.poses import make_pose
from sightline.geometry.rotations import exp
from sightline.vpog.flow_computer import FlowComputer, FlowLabels, View

SIZE, PATCH, DIAMETER, DISTANCE = 224, 16, 0.2, 0.6
NUM_PATCHES = (SIZE // PATCH) ** 2
LIMIT_MS = 20.0


def make_view(turn: tuple[float, float, float]) -> View:
    """A ball of 20 cm, turned about its centre."""
    K = torch.tensor([[560.0, 0, 111.5], [0, 560, 111.5], [0, 0, 1]])
    way = unproject(pixel_grid(SIZE, SIZE, dtype=torch.float32), torch.ones(SIZE, SIZE), K)
    a, b, c = way.square().sum(-1), DISTANCE * way[..., 2], DISTANCE**2 - (DIAMETER / 2) ** 2
    inside = b * b - a * c
    depth = torch.where(inside > 0, (b - inside.clamp_min(0).sqrt()) / a, 0.0)
    pose = make_pose(exp(torch.tensor(turn)), torch.tensor([0.0, 0.0, DISTANCE]))
    return View(depth, depth > 0, K, pose)


def compute(query: View, template: View) -> FlowLabels:
    """Ours, for one pair of views."""
    batch = (*(each[None] for each in query), *(each[None, None] for each in template))
    return FlowComputer(PATCH)(*batch, torch.tensor([DIAMETER]))


def compare(found: FlowLabels, pairs: list[tuple[int, int]], flows: list[tuple[Tensor, Tensor]]) -> str:
    """How far both forms differ on the pairs that are labelled."""
    worst, differ = 0.0, 0
    for (q, _), (flow, seen) in zip(pairs, flows, strict=True):
        differ += int((seen != found.visible[0, 0, q]).sum())
        both = seen & found.visible[0, 0, q]
        worst = max(worst, float((flow - found.flow[0, 0, q])[both].abs().max()) if both.any() else 0.0)
    share = f"{differ} of {len(pairs) * PATCH**2} pixels seen by one alone"
    return f"largest difference {worst:.1e} patches, {share}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    query, template = make_view((0.0, 0.0, 0.0)), make_view((0.2, 0.3, 0.4))
    labels = compute(query, template).labels[0, 0]
    matched = [(q, int(t)) for q, t in enumerate(labels) if 0 <= int(t) < NUM_PATCHES]
    sample = torch.randint(
        NUM_PATCHES, (options.pairs, 2), generator=torch.Generator().manual_seed(0)
    ).tolist()
    ours, theirs = [], []
    turns = max(options.repeats, 1)
    for turn in range(turns):
        start = time.perf_counter()
        compute(query, template)
        ours.append(1e3 * (time.perf_counter() - start))
        part = sample[turn::turns]
        start = time.perf_counter()
        for q, t in part:
            flow_of_pair(query, template, q, t, PATCH, 0.02 * DIAMETER)
        if part:
            theirs.append(1e3 * (time.perf_counter() - start) / len(part))
    flows = [flow_of_pair(query, template, q, t, PATCH, 0.02 * DIAMETER) for q, t in matched]
    pair, whole = min(theirs), min(theirs) * NUM_PATCHES**2
    print(f"{'flow ground truth of one template, 224 px':44}{'best ms':>10}{'median':>9}")
    print(f"{'ours':44}{min(ours):10.1f}{statistics.median(ours):9.1f}   at most {LIMIT_MS:g}")
    print(f"{f'pair by pair, {1e3 * pair:.0f} us a pair, all {NUM_PATCHES**2}':44}{whole:10.0f}")
    print(f"{'times faster':44}{whole / min(ours):10.0f}")
    print(f"{len(matched)} matched patches: {compare(compute(query, template), matched, flows)}")


if __name__ == "__main__":
    main()
