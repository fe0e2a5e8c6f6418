"""Where objects are put: floating before the camera or standing on a table, of wanted size, seen well enough.

Targets lie wholly in the picture and keep a wanted share of their silhouette; other objects fill the rest,
cover the targets a little and are moved, or left out, where they cover too much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sightline.geometry.cameras import Camera
from sightline.geometry.poses import look_at
from sightline.geometry.quaternions import matrix_from_quaternion_wxyz
from sightline.rendering import PreparedMesh
from sightline.synthetic.silhouettes import Silhouette, draw_silhouette, visible_masks

Array = np.ndarray

_TRIES = 60
_MARGIN_PX = 3.0
_BALL = 1.3  # a ball around an object is about this much larger than the box of its silhouette


@dataclass(frozen=True, eq=False)
class Placement:
    """A laid-out scene.

    Args:
        kept: ``(m,)`` indices of the meshes that found a place, in their order.
        cam_from_obj: ``(m, 4, 4)`` float64 poses, metres.
        silhouettes: one an object, alone in the picture.
        cam_from_table: ``(4, 4)`` pose of the table, its plane z = 0; None where objects float.
    """

    kept: tuple[int, ...]
    cam_from_obj: Array
    silhouettes: tuple[Silhouette, ...]
    cam_from_table: Array | None


@dataclass(eq=False)
class _Thing:
    mesh: PreparedMesh
    points: Array  # (v, 3) vertices, object frame
    diameter: float  # of the ball about the origin that holds them


class Arranger:
    """Proposes poses for one picture: in the air, or on a table that the camera looks down on.

    Args:
        camera: what looks at the scene.
        rng: draws everything.
        size_px: (least, largest) longest side of a target's box, pixels.
        table: whether objects stand on a table.
    """

    def __init__(
        self, camera: Camera, rng: np.random.Generator, *, size_px: tuple[float, float], table: bool
    ) -> None:
        self.camera, self.rng, self.size_px, self.table = camera, rng, size_px, table
        self.K = camera.K.numpy()
        self.cam_from_table: Array | None = None

    def look_at_table(self, things: Sequence[_Thing]) -> None:
        """Stand back so that these things have about the wanted size."""
        size = np.exp(self.rng.uniform(*np.log(self.size_px)))
        distance = self.K[0, 0] * float(np.median([thing.diameter for thing in things])) / (_BALL * size)
        rise, turn = np.radians(self.rng.uniform(22, 68)), self.rng.uniform(0, 2 * np.pi)
        eye = distance * np.array([np.cos(rise) * np.cos(turn), np.cos(rise) * np.sin(turn), np.sin(rise)])
        upright = look_at(torch.from_numpy(eye)).numpy()
        tilt = np.radians(self.rng.normal(0, 6))
        roll = np.eye(4)
        roll[:2, :2] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
        self.cam_from_table = roll @ upright

    def propose(self, thing: _Thing, pixel: Array, size: float) -> Array:
        """``cam_from_obj`` with the object's middle near a pixel; in the air ``size`` pixels large."""
        ray = np.linalg.solve(self.K, np.array([*pixel, 1.0]))
        pose = np.eye(4)
        if self.cam_from_table is None:
            quaternion = torch.from_numpy(self.rng.normal(size=4))
            pose[:3, :3] = matrix_from_quaternion_wxyz(quaternion).numpy()
            pose[:3, 3] = ray * self.K[0, 0] * thing.diameter / (_BALL * size)
            return pose
        pose[:3, :3] = _resting(self.rng)
        pose[2, 3] = -(thing.points @ pose[:3, :3].T)[:, 2].min()
        table_from_cam = np.linalg.inv(self.cam_from_table)
        eye, along = table_from_cam[:3, 3], table_from_cam[:3, :3] @ ray
        reach = (pose[2, 3] - eye[2]) / min(along[2], -1e-3)
        pose[:2, 3] = (eye + reach * along)[:2]
        return self.cam_from_table @ pose

    def fits(self, thing: _Thing, pose: Array) -> bool:
        """Whether a target lies wholly in the picture, in the wanted size."""
        box = self._box(thing, pose)
        if box is None:
            return False
        inside = (box[:2] >= _MARGIN_PX).all() and (
            box[2:] <= np.array(self.camera.image_size) - _MARGIN_PX
        ).all()
        return bool(inside and self.size_px[0] <= (box[2:] - box[:2]).max() <= self.size_px[1])

    def sensible(self, thing: _Thing, pose: Array) -> bool:
        """Whether any other object is before the camera and not far too large."""
        box = self._box(thing, pose)
        return box is not None and bool((box[2:] - box[:2]).max() <= 1.3 * self.size_px[1])

    def _box(self, thing: _Thing, pose: Array) -> Array | None:
        points = thing.points @ pose[:3, :3].T + pose[:3, 3]
        if points[:, 2].min() < 0.05:
            return None
        pixels = (points @ self.K.T)[:, :2] / points[:, 2:]
        return np.concatenate([pixels.min(0), pixels.max(0)])

    def clash(self, a: _Thing, pose_a: Array, b: _Thing, pose_b: Array) -> bool:
        """Whether two objects could touch (bounding balls, or footprints on the table)."""
        if self.cam_from_table is None:
            gap = np.linalg.norm(pose_a[:3, 3] - pose_b[:3, 3])
            return bool(gap < 0.45 * (a.diameter + b.diameter))
        table_from_cam = np.linalg.inv(self.cam_from_table)
        places = [table_from_cam @ pose for pose in (pose_a, pose_b)]
        feet = [_footprint(thing, place) for thing, place in zip((a, b), places, strict=True)]
        return bool(np.linalg.norm(places[0][:2, 3] - places[1][:2, 3]) < sum(feet))


def _resting(rng: np.random.Generator) -> Array:
    """Upright most of the time, else upside down or on a side; turned by any angle."""
    yaw = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1.0]])
    pick = rng.uniform()
    if pick < 0.6:
        return turn
    quarter = np.radians(180 if pick < 0.7 else rng.choice([90, -90]))
    c, s = np.cos(quarter), np.sin(quarter)
    lay = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    if rng.uniform() < 0.5:
        lay = lay[[2, 0, 1]][:, [2, 0, 1]]  # about y instead of x
    return turn @ lay


def _footprint(thing: _Thing, table_from_obj: Array) -> float:
    flat = (thing.points @ table_from_obj[:3, :3].T)[:, :2]
    return float(np.linalg.norm(flat, axis=1).max())


def arrange(
    meshes: Sequence[PreparedMesh],
    num_targets: int,
    camera: Camera,
    rng: np.random.Generator,
    *,
    size_px: tuple[float, float],
    min_visible: float,
    table: bool,
    cover: float,
) -> Placement:
    """Give every target, and as many of the other objects as possible, a place.

    Args:
        meshes: the objects, targets first, metres.
        num_targets: how many of them are targets.
        camera: what looks at the scene.
        rng: draws everything.
        size_px: (least, largest) longest side of a target's box, pixels.
        min_visible: least visible share of a target's silhouette.
        table: whether objects stand on a table.
        cover: chance that another object is put before a target.

    Returns:
        The placement; targets are always among ``kept``.

    Raises:
        ValueError: the targets do not fit into the picture in the wanted size.
    """
    points = [each.mesh.vertices.numpy() for each in meshes]
    balls = [2 * float(np.linalg.norm(cloud, axis=1).max()) for cloud in points]
    things = [_Thing(*parts) for parts in zip(meshes, points, balls, strict=True)]
    for _ in range(_TRIES):
        arranger = Arranger(camera, rng, size_px=size_px, table=table)
        if table:
            arranger.look_at_table(things[: max(num_targets, 1)])
        poses: dict[int, Array] = {}
        for index in range(len(things)):
            pose = _find_place(arranger, things, index, num_targets, poses, cover)
            if pose is not None:
                poses[index] = pose
            elif index < num_targets:
                break
        else:
            drawn = _uncover(arranger, things, poses, num_targets, min_visible, cover)
            if drawn is not None:
                kept = tuple(sorted(poses))
                stacked = np.stack([poses[index] for index in kept]) if kept else np.zeros((0, 4, 4))
                return Placement(kept, stacked, tuple(drawn[i] for i in kept), arranger.cam_from_table)
    raise ValueError(
        f"num_targets: {num_targets} objects of {size_px[0]:g} to {size_px[1]:g} px, visible to at least "
        f"{min_visible:g}, do not fit into a picture of {camera.width}x{camera.height}"
    )


def _find_place(
    arranger: Arranger,
    things: Sequence[_Thing],
    index: int,
    num_targets: int,
    poses: dict[int, Array],
    cover: float,
) -> Array | None:
    rng, thing = arranger.rng, things[index]
    targets = [other for other in poses if other < num_targets and other != index]
    before = index >= num_targets and bool(targets) and rng.uniform() < cover
    for _ in range(_TRIES):
        size = np.exp(rng.uniform(*np.log(arranger.size_px)))
        pixel = rng.uniform(0, 1, 2) * arranger.camera.image_size
        if before:
            pixel, size = _spot_before(arranger, things, poses, targets, thing, size)
        pose = arranger.propose(thing, pixel, size)
        usable = arranger.fits if index < num_targets else arranger.sensible
        if not usable(thing, pose):
            continue
        others = ((things[other], poses[other]) for other in poses if other != index)
        if not any(arranger.clash(thing, pose, other, placed) for other, placed in others):
            return pose
    return None


def _spot_before(
    arranger: Arranger,
    things: Sequence[_Thing],
    poses: dict[int, Array],
    targets: Sequence[int],
    thing: _Thing,
    size: float,
) -> tuple[Array, float]:
    """A pixel at the edge of a target, and a size with which the object comes to lie just before it."""
    rng = arranger.rng
    target = targets[int(rng.integers(len(targets)))]
    place, focal = poses[target][:3, 3], arranger.K[0, 0]
    span = focal * things[target].diameter / place[2]
    angle = rng.uniform(0, 2 * np.pi)
    offset = rng.uniform(0.3, 0.7) * span * np.array([np.cos(angle), abs(np.sin(angle))])
    nearer = place[2] - 0.5 * (thing.diameter + things[target].diameter) * rng.uniform(1.0, 1.4)
    pixel = (arranger.K @ place)[:2] / place[2] + offset
    return pixel, focal * thing.diameter / (_BALL * nearer) if nearer > 0.1 else size


def _uncover(
    arranger: Arranger,
    things: Sequence[_Thing],
    poses: dict[int, Array],
    num_targets: int,
    min_visible: float,
    cover: float,
) -> dict[int, Silhouette] | None:
    """Move, in the end remove, what covers targets too much; None where targets cover each other."""
    drawn = {i: draw_silhouette(things[i].mesh, pose, arranger.camera) for i, pose in poses.items()}
    for attempt in range(4 * len(things) + 1):
        order = sorted(poses)
        masks, owner = visible_masks([drawn[i] for i in order], arranger.camera.image_size)
        shares = {i: masks[k].sum() / max(drawn[i].num_pixels, 1) for k, i in enumerate(order)}
        hidden = [i for i in order if i < num_targets and shares[i] < min_visible]
        if not hidden:
            return drawn
        full = drawn[hidden[0]].depth_in(arranger.camera.image_size) > 0
        covering = owner[full & ~masks[order.index(hidden[0])]]
        culprit = order[int(np.bincount(covering).argmax())]
        pose = None
        if attempt < 2 * len(things):
            pose = _find_place(arranger, things, culprit, num_targets, poses, cover / 2)
        if pose is not None:
            poses[culprit] = pose
            drawn[culprit] = draw_silhouette(things[culprit].mesh, pose, arranger.camera)
        elif culprit >= num_targets:
            del poses[culprit], drawn[culprit]
        else:
            return None
    return None
