"""A small data set with everything that a format may hold, for the tests of formats."""

from __future__ import annotations

import numpy as np
import torch

from sightline.formats.frames import Frame, FrameObject, FrameSet, MeshFile
from sightline.formats.images import write_depth, write_image
from sightline.formats.meshes import write_mesh
from sightline.formats.pixel_boxes import box_of_mask
from sightline.geometry.cameras import Camera
from sightline.geometry.poses import make_pose
from sightline.geometry.rotations import exp
from sightline.records import TriangleMesh

WIDTH, HEIGHT = 24, 16
K = torch.tensor([[30.0, 0, 11.5], [0, 31.0, 7.25], [0, 0, 1]], dtype=torch.float64)
MESH = TriangleMesh(
    torch.tensor([[0, 0, 0], [0.2, 0, 0], [0, 0.1, 0], [0, 0, 0.05]], dtype=torch.float64),
    torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]),
)


def make_pose_at(seed):
    w, t = torch.randn(2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return make_pose(exp(w), t + torch.tensor([0, 0, 3.0], dtype=torch.float64))


def make_mask(columns, rows):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


def make_frame(folder, frame_id, names=("mug",), **changes):
    """A frame whose picture and depth are files in ``folder``."""
    random = np.random.default_rng(frame_id)
    image, depth = folder / f"picture{frame_id}.png", folder / f"depth{frame_id}.png"
    write_image(image, random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    write_depth(depth, random.integers(500, 3000, (HEIGHT, WIDTH)) / 1000)
    masks = [make_mask((3 + 2 * i, 12 + 3 * i), (2 + i, 7 + 2 * i)) for i in range(len(names))]
    objects = tuple(
        FrameObject(name, cam_from_obj=make_pose_at(frame_id + 10 * i), box=box_of_mask(mask), mask=mask)
        for i, (name, mask) in enumerate(zip(names, masks, strict=True))
    )
    values = {
        "frame_id": frame_id,
        "name": f"frame{frame_id}",
        "objects": objects,
        "camera": Camera(K, WIDTH, HEIGHT),
        "image": image,
        "depth": depth,
    }
    return Frame(**(values | changes))


def make_frame_set(folder, names=("mug",), num_frames=2):
    """Frames with the mesh of each object."""
    folder.mkdir(parents=True, exist_ok=True)
    meshes = {}
    for name in names:
        write_mesh(folder / f"{name}.ply", MESH, "mm")
        meshes[name] = MeshFile(folder / f"{name}.ply", "mm")
    return FrameSet([make_frame(folder, i, names) for i in range(num_frames)], meshes)
