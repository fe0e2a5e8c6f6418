"""Pairs of a room without and with an object: what a model that inserts objects into pictures learns from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from sightline.geometry.cameras import Camera
from sightline.geometry.poses import look_at, make_pose, transform
from sightline.records import TriangleMesh
from sightline.rendering import Lights, render_scene
from sightline.synthetic.backgrounds import TABLE_KINDS, make_background
from sightline.synthetic.objects import SyntheticObject

_TEXELS = 192
_CAMERA_HEIGHT_M, _LOOKS_AT_M = (0.45, 0.8), (1.2, 2.0)
_WALL_M, _ROOM_M = (2.4, 3.6), 6.0
STANDS_M = (0.7, 2.2)  # from the camera's foot, as far as a picture of 128 pixels shows something
_FOCAL = (0.8, 1.5)  # widths of the picture
_PLACE_WIDTH, _PLACE_HEIGHT = (0.5, 0.7), (0.65, 0.85)  # shares of the picture
_PLACE_MARGIN = 0.12
_FOOT_PX = 3.0
_TRIES = 200


@dataclass(frozen=True, eq=False)
class InsertionScene:
    """A room, a place in it to fill, and the same room with the object there.

    Args:
        context: ``(h, w, 3)`` uint8 RGB, the room alone.
        target: ``(h, w, 3)`` uint8 RGB, with the object.
        context_depth: ``(h, w)`` float32 metres of the room alone.
        target_depth: ``(h, w)`` float32 metres with the object.
        mask: ``(h, w)`` bool, the object in the target.
        places: ``(1 + n, h, w)`` bool, generous regions for an object, whose size says nothing about its own.
            The first is the one that the target fills; for the others no target exists.
        feet: ``(1 + n, h, w)`` bool, a spot of some pixels where an object in that place meets the floor.
        camera: pinhole.
        cam_from_obj: ``(4, 4)`` float64 metres.
    """

    context: UInt8[Tensor, "h w 3"]
    target: UInt8[Tensor, "h w 3"]
    context_depth: Float[Tensor, "h w"]
    target_depth: Float[Tensor, "h w"]
    mask: Bool[Tensor, "h w"]
    places: Bool[Tensor, "n h w"]
    feet: Bool[Tensor, "n h w"]
    camera: Camera
    cam_from_obj: Float[Tensor, "4 4"]


def make_insertion_scene(
    thing: SyntheticObject,
    seed: int,
    *,
    height_m: float = 0.3,
    image_size: tuple[int, int] = (128, 128),
    num_free_places: int = 3,
    stands_m: tuple[float, float] = STANDS_M,
) -> InsertionScene:
    """Make one pair; the same arguments give the same bytes.

    Args:
        thing: the object that is inserted; it stands upright.
        seed: of the room, the camera, and where the object stands.
        height_m: how high the object is made.
        image_size: (width, height), pixels.
        num_free_places: further places in the same room, at any distance.
        stands_m: how far from the camera's foot the object stands in the target, metres.

    Returns:
        The pair; the object is wholly in the picture.

    Raises:
        ValueError: no place for the object was found in the picture.

    Example:
        >>> from sightline.synthetic.objects import make_object
        >>> scene = make_insertion_scene(make_object("can", 0), 0)
        >>> bool(scene.mask.any()), bool((scene.mask & ~scene.places[0]).any())
        (True, False)
    """
    rng = np.random.default_rng([seed, 77])
    extent = thing.mesh.vertices.amax(0) - thing.mesh.vertices.amin(0)
    mesh = thing.mesh.scaled(height_m / float(extent[2]))
    camera = Camera.from_focal(float(rng.uniform(*_FOCAL)) * image_size[0], *image_size)
    cam_from_world = _draw_view(rng)
    wall_m = float(rng.uniform(*_WALL_M))
    room = [_quad(_FLOOR, rng), _quad(_WALL, rng)]
    shift = make_pose(torch.eye(3, dtype=torch.float64), torch.tensor([0, wall_m, 0], dtype=torch.float64))
    poses = [cam_from_world, cam_from_world @ shift]
    ranges = [stands_m, *[STANDS_M] * num_free_places]
    spots = [_find_spot(rng, mesh, camera, cam_from_world, (low, min(high, wall_m))) for low, high in ranges]
    yaw = float(rng.uniform(0, 2 * np.pi))
    cam_from_obj = cam_from_world @ _standing(spots[0], height_m, yaw)
    lights = Lights.headlight(ambient=float(rng.uniform(0.5, 0.8)))
    before = render_scene(room, torch.stack(poses), camera.K, image_size, lights=lights, samples=2)
    meshes, all_poses = [*room, mesh], torch.stack([*poses, cam_from_obj])
    after = render_scene(meshes, all_poses, camera.K, image_size, lights=lights, samples=2)
    feet = camera.project(transform(cam_from_world, torch.stack(spots))).tolist()
    return InsertionScene(
        before.color[0],
        after.color[0],
        before.depth[0],
        after.depth[0],
        after.instance[0] == 2,
        torch.stack([_place(rng, foot, image_size) for foot in feet]),
        torch.stack([_spot_mask(foot, image_size) for foot in feet]),
        camera,
        cam_from_obj,
    )


_FLOOR = torch.tensor([[-_ROOM_M, 0, 0], [_ROOM_M, 0, 0], [_ROOM_M, _ROOM_M, 0], [-_ROOM_M, _ROOM_M, 0]])
_WALL = torch.tensor([[-_ROOM_M, 0, 0], [_ROOM_M, 0, 0], [_ROOM_M, 0, _ROOM_M], [-_ROOM_M, 0, _ROOM_M]])


def _quad(corners: Tensor, rng: np.random.Generator) -> TriangleMesh:
    kind = TABLE_KINDS[int(rng.integers(len(TABLE_KINDS)))]
    picture = torch.from_numpy(make_background(rng, (_TEXELS, _TEXELS), kind))
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    # four repetitions: a texel is then about a pixel, and no hint at the distance by itself
    uv = 4 * torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    return TriangleMesh(corners.double(), faces, uv=uv[faces], texture=picture)


def _draw_view(rng: np.random.Generator) -> Float[Tensor, "4 4"]:
    eye = torch.tensor([0.0, 0.0, rng.uniform(*_CAMERA_HEIGHT_M)], dtype=torch.float64)
    target = torch.tensor([0.0, rng.uniform(*_LOOKS_AT_M), 0.0], dtype=torch.float64)
    return look_at(eye, target, torch.tensor([0.0, 0, 1], dtype=torch.float64))


def _standing(spot: Tensor, height_m: float, yaw: float) -> Float[Tensor, "4 4"]:
    turn = torch.tensor(
        [[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]], dtype=torch.float64
    )
    return make_pose(turn, spot + torch.tensor([0, 0, height_m / 2], dtype=torch.float64))


def _find_spot(
    rng: np.random.Generator,
    mesh: TriangleMesh,
    camera: Camera,
    cam_from_world: Tensor,
    stands_m: tuple[float, float],
) -> Float[Tensor, "3"]:
    """A point of the floor on which the object, however turned, is wholly in the picture."""
    extent = mesh.vertices.amax(0) - mesh.vertices.amin(0)
    radius, height = float(extent[:2].norm()) / 2, float(extent[2])
    size = torch.tensor(camera.image_size)
    corners = torch.tensor(
        [[x, y, z] for x in (-radius, radius) for y in (-radius, radius) for z in (0.0, height)],
        dtype=torch.float64,
    )
    for _ in range(_TRIES):
        y = float(rng.uniform(*stands_m))
        spot = torch.tensor([rng.uniform(-0.5, 0.5) * y, y, 0.0], dtype=torch.float64)
        px = camera.project(transform(cam_from_world, corners + spot))
        if bool(((px > 0) & (px < size - 1)).all()):
            return spot
    raise ValueError(f"the object of {height:g} m height finds no place in {size.tolist()} pixels")


def _place(rng: np.random.Generator, foot: list[float], image_size: tuple[int, int]) -> Bool[Tensor, "h w"]:
    """A rectangle that reaches a little below the point where the object meets the floor."""
    width, height = image_size
    half = rng.uniform(*_PLACE_WIDTH) * width / 2
    bottom = foot[1] + _PLACE_MARGIN * height
    top = bottom - rng.uniform(*_PLACE_HEIGHT) * height
    x, y = _grid(image_size)
    return (y >= top) & (y <= bottom) & ((x - foot[0]).abs() <= half)


def _spot_mask(foot: list[float], image_size: tuple[int, int]) -> Bool[Tensor, "h w"]:
    x, y = _grid(image_size)
    return ((x - foot[0]).abs() <= _FOOT_PX) & ((y - foot[1]).abs() <= _FOOT_PX)


def _grid(image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    width, height = image_size
    return torch.arange(width)[None], torch.arange(height)[:, None]
