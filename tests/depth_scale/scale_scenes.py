"""A folder of rendered pictures of one object at several depths and focal lengths, and what may be wrong."""

import json
from pathlib import Path

import numpy as np
import torch

from sightline.formats.images import write_depth, write_image, write_mask
from sightline.geometry.cameras import Camera
from sightline.geometry.poses import make_pose
from sightline.geometry.rotations import exp
from sightline.rendering import render_views
from tests.printed_box import printed_box

SIZE = (320, 240)
BACKGROUND_M = 4.0
VIEWS = [(0.5, 300.0), (0.7, 300.0), (0.7, 420.0), (0.9, 420.0), (1.1, 420.0), (1.1, 600.0), (1.4, 600.0)]
"""Depth in metres and focal length in pixels of each picture."""


def render_box(depth: float, focal: float, factor: float = 1.0):
    """Picture, mask and depth map; a factor other than 1 shows the box larger than its depth allows."""
    camera = Camera.from_focal(focal, *SIZE)
    R = exp(torch.tensor([0.5, 0.7, 0.1], dtype=torch.float64))
    place = torch.tensor([0.0, 0.0, depth / factor], dtype=torch.float64)
    seen = render_views(printed_box(), make_pose(R, place)[None], camera.K, SIZE)
    assert seen.color is not None and seen.mask is not None and seen.depth is not None
    mask = seen.mask[0].numpy()
    image = np.where(mask[..., None], seen.color[0].numpy(), np.uint8(70))
    return image, mask, np.where(mask, seen.depth[0].numpy() * factor, BACKGROUND_M)


def write_folder(root: Path, factors: dict[int, float] | None = None) -> Path:
    """The plain layout: ``images``, ``masks``, ``depth`` in millimetres and ``cameras``."""
    for index, (depth, focal) in enumerate(VIEWS):
        image, mask, metres = render_box(depth, focal, (factors or {}).get(index, 1.0))
        name = f"view_{index}"
        write_image(root / "images" / f"{name}.png", image)
        write_mask(root / "masks" / f"{name}.png", mask)
        write_depth(root / "depth" / f"{name}.png", metres)
        write_camera(root / "cameras" / f"{name}.json", focal)
    return root


def write_camera(path: Path, focal: float) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    K = Camera.from_focal(focal, *SIZE).K.tolist()
    path.write_text(json.dumps({"K": K, "width": SIZE[0], "height": SIZE[1]}))
