"""How far the corners of an object's box lie off in a video with known truth.

    python benchmarks/measure_video.py out/poses.json video_truth.json

The truth is JSON with ``corners_cm`` (n x 3, object frame) and ``frames``, each with ``frame`` (a number) and
``corners_px`` (n x 2).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from sightline.formats.results import read_results
from sightline.geometry.poses import transform


def main() -> None:
    """Print the share of valid frames and the errors of the valid ones that the truth knows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("poses", type=Path)
    parser.add_argument("truth", type=Path)
    given = parser.parse_args()
    images = read_results(given.poses).images
    truth = json.loads(given.truth.read_text(encoding="utf-8"))
    corners = torch.tensor(truth["corners_cm"], dtype=torch.float64) / 100
    errors = []
    for frame in truth["frames"]:
        image = images[frame["frame"]]
        pose = image.poses[0]
        if pose.valid and image.camera is not None:
            pixels = image.camera.project(transform(pose.cam_from_obj, corners)).numpy()
            errors.append(np.linalg.norm(pixels - np.array(frame["corners_px"]), axis=1).mean())
    valid = sum(image.poses[0].valid for image in images)
    focal = images[0].camera.K[0, 0] if images[0].camera is not None else float("nan")
    times = [image.time for image in images if image.time is not None]
    print(f"{valid} of {len(images)} frames have a valid pose; focal length {focal:.0f} px")
    middle, worst = np.median(errors), max(errors)
    print(f"corner error on {len(errors)} frames: median {middle:.2f} px, largest {worst:.2f} px")
    print(f"median time of a frame {np.median(times):.2f} s")


if __name__ == "__main__":
    main()
