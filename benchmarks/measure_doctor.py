"""How often the doctor finds each planted mistake, names the right one, and cries wolf.

    python -m benchmarks.measure_doctor [--seeds 20] [--real lmo_scene]

The folder of the real picture has ``rgb.png``, ``depth.png``, ``camera.json``, ``scene_gt.json`` and a mesh
``obj_*.ply``; its mask and box are made by drawing the true pose.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sightline.objects.inspection.diagnosis import diagnose_inputs
from sightline.objects.inspection.findings import Findings
from sightline.objects.inspection.inputs import Inputs
from sightline.pipeline.doctor import diagnose
from sightline.synthetic.mistakes import MISTAKES, Case, Mistake, complete_case, make_case
from sightline.vis.tables import Table

PARTS = ("mesh", "K", "cam_from_obj", "mask", "box", "depth")
PART_OF = {
    "mesh": "mesh",
    "camera": "K",
    "pose": "cam_from_obj",
    "mask": "mask",
    "box": "box",
    "depth": "depth",
}


def read_real_case(folder: Path) -> Case:
    """The case of a folder with one BOP picture."""
    mesh = next(iter(sorted(folder.glob("obj_*.ply"))))
    found = diagnose(
        mesh=mesh,
        image=folder / "rgb.png",
        depth=folder / "depth.png",
        camera=folder / "camera.json",
        pose=folder / "scene_gt.json",
    )
    return complete_case(folder.name, found.given)


def keep(inputs: Inputs, parts: Iterable[str]) -> Inputs:
    """The inputs with these parts only."""
    dropped: dict[str, Any] = {part: None for part in PARTS if part not in parts}
    if "mesh" in dropped:
        dropped["diameter"] = None
    return replace(inputs, **dropped)


def names(found: Findings, mistake: Mistake) -> bool:
    """Whether the mistake is the one fault that was found."""
    first = [(fault.what, fault.kind) for fault in found.faults]
    return first == [(mistake.what, mistake.kind)]


def main() -> None:
    """Print the table of mistakes, the false alarms, the margins and the times."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--real", type=Path)
    given = parser.parse_args()
    cases = [make_case(seed) for seed in range(given.seeds)]
    real = [read_real_case(given.real)] if given.real else []
    diagnose_inputs(cases[0].inputs)  # compiles the renderer
    rows, times = [], []
    columns = {
        "all inputs": PARTS,
        "no depth": tuple(part for part in PARTS if part != "depth"),
        "no mask": tuple(part for part in PARTS if part != "mask"),
        "no box": tuple(part for part in PARTS if part != "box"),
        "no pose": tuple(part for part in PARTS if part != "cam_from_obj"),
    }
    for name, mistake in MISTAKES.items():
        row = [name]
        for chosen, parts in [(cases, p) for p in columns.values()] + [(real, PARTS)]:
            found, right = 0, 0
            for case in chosen:
                start = time.perf_counter()
                result = diagnose_inputs(keep(case.with_mistake(name), parts))
                times.append(time.perf_counter() - start)
                found += not result.is_sound
                right += names(result, mistake)
            there = PART_OF[mistake.what] in parts and chosen
            row.append(f"{found} / {right}" if there else "")
        rows.append(tuple(row))
    header = ("mistake: found / named", *columns, "real")
    print(Table(header, tuple(rows), (False, *[True] * (len(header) - 1))).plain())
    print(f"of {len(cases)} generated and {len(real)} real pictures")
    alarms, looks = 0, 0
    for case in (*cases, *real):
        for count in range(1, len(PARTS) + 1):
            for parts in itertools.combinations(PARTS, count):
                alarms += not diagnose_inputs(keep(case.inputs, parts)).is_sound
                looks += 1
    print(f"{alarms} false alarms in {looks} subsets of the sound inputs")
    middle, most = np.median(times), max(times)
    print(f"seconds a diagnosis with a mistake: median {middle:.2f}, largest {most:.2f}")


if __name__ == "__main__":
    main()
