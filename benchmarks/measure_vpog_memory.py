"""The peak memory of the matcher's global mode with a ViT-Base and all 162 templates of a card.

Random weights, one crop at eight turns, on the CPU. Features of the templates are computed in one process and
kept in the card, the crop is searched in a second one, so that each has a peak of its own.

    python -m benchmarks.measure_vpog_memory [--recipe configs/vpog/gpu.yaml] [--mode global]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import yaml

from sightline.objects.card_files import load_card, save_card
from sightline.objects.onboard import onboard_mesh
from sightline.synthetic.exam import exam_object
from sightline.vpog.inference import MatchSettings, VPOGMatcher
from sightline.vpog.model import VPOGModel

RECIPES = Path(__file__).parents[1] / "configs" / "vpog"
TURN = 0.55  # of the recipes: eight crops all around
LIMIT_GIB = 4.0
STEPS = ("features", "search")


def measure(step: str, card_folder: Path, recipe: Path, mode: str) -> None:
    """Do one step in this process and print its time and peak."""
    torch.manual_seed(0)
    model = VPOGModel(**{**yaml.safe_load(recipe.read_text())["model"], "mode": "asymmetric"})
    free = {"conf_threshold": 0.0, "flow_threshold": 0.0}  # with random weights nothing is sure
    matcher = VPOGMatcher(model, MatchSettings(mode=mode, **free), turn=TURN)
    card = load_card(card_folder)
    started = time.perf_counter()
    known = matcher.known(card)
    if step == "search":
        picture = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
        matcher.search(picture, card, box=torch.tensor([200.0, 120.0, 420.0, 340.0], dtype=torch.float64))
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{step:9} {len(known)} templates {seconds:7.1f} s, peak {peak:.2f} GiB (limit {LIMIT_GIB:g})")


def main() -> None:
    """Print a line a step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", type=Path, default=RECIPES / "base.yaml")
    parser.add_argument("--mode", default="global")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--card", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step is not None:
        measure(given.step, given.card, given.recipe, given.mode)
        return
    with tempfile.TemporaryDirectory() as folder:
        card = Path(folder) / "object.card"
        thing = exam_object(0, "development")
        save_card(onboard_mesh(thing.mesh, name="object", template_size=160), card)
        options = ["--card", str(card), "--recipe", str(given.recipe), "--mode", given.mode]
        for step in STEPS:
            subprocess.run([sys.executable, __file__, "--step", step, *options], check=True)


if __name__ == "__main__":
    main()
