"""Random lights, and the shadows that the strongest one casts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from sightline.geometry.cameras import Camera
from sightline.geometry.poses import look_at
from sightline.rendering import Lights, PreparedMesh, render_scene

Range = tuple[float, float]

_MAP_SIZE = 512
_LAMP_DISTANCE = 5.0


@dataclass(frozen=True)
class LightSettings:
    """What lights a scene; a picture draws its own values.

    Args:
        lamps: (least, largest) number of directional lamps; the first is the strongest.
        ambient: share of light from everywhere.
        specular: strength of highlights.
        tint: largest relative deviation of a lamp's red and blue from white.
        shadow: how much light a shadow takes away; (0, 0) for no shadows.
    """

    lamps: tuple[int, int] = (1, 3)
    ambient: Range = (0.3, 0.6)
    specular: Range = (0.0, 0.3)
    tint: float = 0.1
    shadow: Range = (0.3, 0.55)


def draw_lights(
    rng: np.random.Generator, settings: LightSettings, cam_from_table: np.ndarray | None
) -> Lights:
    """Lamps above the table, or above and behind the camera where there is none.

    Args:
        rng: draws them.
        settings: their number and strength.
        cam_from_table: ``(4, 4)`` pose of the table, z up.

    Returns:
        Lights in the camera frame, the strongest lamp first.
    """
    count = int(rng.integers(settings.lamps[0], settings.lamps[1] + 1))
    ambient = rng.uniform(*settings.ambient)
    directions, colors = [], []
    for index in range(count):
        if cam_from_table is None:
            direction = np.array([rng.normal(0, 0.8), -rng.uniform(0.3, 1.2), -rng.uniform(0.2, 1.2)])
        else:
            direction = cam_from_table[:3, :3] @ (*rng.normal(0, 0.6, 2), rng.uniform(0.7, 1.3))
        strength = (1 - ambient) * (rng.uniform(0.7, 1.0) if index == 0 else rng.uniform(0.1, 0.3))
        warm = rng.uniform(-settings.tint, settings.tint)
        directions.append([*direction, 0.0])
        colors.append([strength * (1 + warm), strength, strength * (1 - warm)])
    return Lights(
        (ambient, ambient, ambient),
        torch.tensor(np.array(directions).reshape(-1, 4)),
        torch.tensor(np.array(colors).reshape(-1, 3)),
        specular=rng.uniform(*settings.specular),
        shininess=float(np.exp(rng.uniform(np.log(8), np.log(60)))),
    )


def cast_shadows(
    meshes: Sequence[PreparedMesh],
    cam_from_obj: torch.Tensor,
    depth: torch.Tensor,
    normals: torch.Tensor,
    camera: Camera,
    direction: torch.Tensor,
    *,
    softness_px: float = 1.6,
) -> np.ndarray:
    """How much each pixel lies in the shadow that objects throw (a shadow map, Williams 1978).

    Args:
        meshes: what throws shadows.
        cam_from_obj: ``(m, 4, 4)`` their poses, metres.
        depth: ``(h, w)`` float32 what the camera sees, metres, 0 where nothing is.
        normals: ``(h, w, 3)`` float32 unit normals of it, camera frame.
        camera: without distortion.
        direction: ``(3,)`` towards the lamp, camera frame.
        softness_px: blur of the shadow's edge, pixels of the picture.

    Returns:
        ``(h, w)`` float32, 0 in the light and 1 in the shadow.
    """
    middle = cam_from_obj[:, :3, 3].mean(0)
    spread = torch.linalg.vector_norm(cam_from_obj[:, :3, 3] - middle, dim=-1)
    balls = torch.stack([torch.linalg.vector_norm(each.mesh.vertices, dim=-1).max() for each in meshes])
    radius = float((spread + balls).max())
    unit = torch.nn.functional.normalize(direction.double(), dim=0)
    up = torch.eye(3, dtype=torch.float64)[int(unit.abs().argmin())]
    away = _LAMP_DISTANCE if radius < _LAMP_DISTANCE else 2 * radius  # never among the objects
    lamp_from_cam = look_at(middle + away * unit, middle, up)
    lamp = Camera.from_focal(0.5 * _MAP_SIZE * (away - radius) / radius, _MAP_SIZE, _MAP_SIZE)
    poses = lamp_from_cam @ cam_from_obj
    lit = render_scene(meshes, poses, lamp.K, lamp.image_size, outputs=("depth",)).depth[0].numpy()
    column, row, distance = _seen_from_lamp(depth.numpy(), camera, lamp, lamp_from_cam)
    inside = (column >= 0) & (row >= 0) & (column < _MAP_SIZE) & (row < _MAP_SIZE) & (depth.numpy() > 0)
    first = np.where(lit > 0, lit, np.inf)[row.clip(0, _MAP_SIZE - 1), column.clip(0, _MAP_SIZE - 1)]
    cosine = np.clip(normals.numpy() @ unit.float().numpy(), 0.0, 1.0)
    # one texel of the map spans more depth, the more the lamp grazes the surface
    slope = np.minimum(np.sqrt(1 - cosine**2) / np.maximum(cosine, 1e-3), 10.0)
    bias = 0.002 + slope * 2.0 * radius / _MAP_SIZE
    # what the lamp only grazes receives little light of it that a shadow could take away
    shade = np.minimum(4.0 * cosine, 1.0) * (inside & (distance > first + bias))
    return cv2.GaussianBlur(shade, (0, 0), softness_px)


def _seen_from_lamp(
    depth: np.ndarray, camera: Camera, lamp: Camera, lamp_from_cam: torch.Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Column and row in the lamp's map, and depth from the lamp, of each pixel: ``z A (u, v, 1) + b``."""
    A = (lamp.K @ lamp_from_cam[:3, :3] @ torch.linalg.inv(camera.K)).float().numpy()
    b = (lamp.K @ lamp_from_cam[:3, 3]).float().numpy()
    u = np.arange(depth.shape[1], dtype=np.float32)[None]
    v = np.arange(depth.shape[0], dtype=np.float32)[:, None]
    x, y, z = (depth * (A[k, 0] * u + A[k, 1] * v + A[k, 2]) + b[k] for k in range(3))
    safe = np.maximum(z, 1e-3)  # a floor may reach behind the lamp
    return np.rint(x / safe).astype(np.int32), np.rint(y / safe).astype(np.int32), z
