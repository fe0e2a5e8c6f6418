"""A bank of pictures without objects, half of them with a table in perspective, as the exam's scenes have."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from sightline.formats.atomic import atomic_write
from sightline.geometry.cameras import Camera
from sightline.geometry.poses import look_at
from sightline.records import TriangleMesh
from sightline.rendering import render_scene
from sightline.synthetic.backgrounds import BACKGROUND_KINDS, TABLE_KINDS, make_background
from sightline.synthetic.exam_settings import EXAM
from sightline.synthetic.lighting import LightSettings, draw_lights
from sightline.synthetic.sprites import SPLITS, Split

_FORM = 1  # raised when what is drawn changes
_STREAM = 2  # of random numbers, beside those of pictures and sprites
_REACH_M, _TABLE_TEXELS, _REPEATS = 1.2, 768, 2.0


class BackdropBank:
    """Pictures of walls, rooms, pages and tables, drawn at the first use.

    Args:
        num_backdrops: how many.
        folder: where they are kept; in memory unless given.
        split: whose seeds they have: ``"train"`` or ``"development"``.
        image_size: ``(width, height)`` pixels.
        table_share: share of those with a table.

    Raises:
        ValueError: another split, or no pictures.

    Example:
        >>> BackdropBank(2, image_size=(64, 48)).pictures.shape
        (2, 48, 64, 3)
    """

    def __init__(
        self,
        num_backdrops: int,
        folder: str | Path | None = None,
        *,
        split: Split | str = "train",
        image_size: tuple[int, int] = (640, 480),
        table_share: float = 0.5,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split: expected one of {', '.join(SPLITS)}; got {split!r}")
        if num_backdrops < 1:
            raise ValueError(f"num_backdrops: expected at least 1, got {num_backdrops}")
        self.num_backdrops, self.split = num_backdrops, str(split)
        self.image_size, self.table_share = image_size, table_share
        said = json.dumps([_FORM, EXAM.version, split, num_backdrops, image_size, table_share])
        name = f"backdrops-{hashlib.sha256(said.encode()).hexdigest()[:12]}.npy"
        self._path = None if folder is None else Path(folder) / name
        self._held: np.ndarray | None = None

    def __len__(self) -> int:
        return self.num_backdrops

    def __getstate__(self) -> dict:
        """Workers map the file themselves."""
        return self.__dict__ | ({} if self._path is None else {"_held": None})

    @property
    def pictures(self) -> UInt8[np.ndarray, "n h w 3"]:
        """All pictures, ``(n, h, w, 3)`` uint8 RGB."""
        if self._held is None:
            self._held = self._load()
        return self._held

    def _load(self) -> np.ndarray:
        if self._path is None:
            return self._draw_all()
        if not self._path.is_file():
            with atomic_write(self._path) as temporary:
                np.save(temporary, self._draw_all())
        return np.load(self._path, mmap_mode="r")

    def _draw_all(self) -> np.ndarray:
        seed = EXAM.picture_seeds[self.split][0]
        pictures = []
        for index in range(self.num_backdrops):
            table = int((index + 1) * self.table_share) > int(index * self.table_share)
            pictures.append(self._draw(np.random.default_rng([seed, _STREAM, index]), table))
        return np.stack(pictures)

    def _draw(self, rng: np.random.Generator, table: bool) -> np.ndarray:
        wall = make_background(
            rng, self.image_size, BACKGROUND_KINDS[int(rng.integers(len(BACKGROUND_KINDS)))]
        )
        if not table:
            return wall
        kind = TABLE_KINDS[int(rng.integers(len(TABLE_KINDS)))]
        texture = make_background(rng, (_TABLE_TEXELS, _TABLE_TEXELS), kind)
        camera = Camera.from_focal(rng.uniform(0.9, 1.25) * self.image_size[0], *self.image_size)
        rise, turn = np.radians(rng.uniform(22, 68)), rng.uniform(0, 2 * np.pi)
        eye = np.array([np.cos(rise) * np.cos(turn), np.cos(rise) * np.sin(turn), np.sin(rise)])
        pose = look_at(torch.from_numpy(np.exp(rng.uniform(np.log(0.3), np.log(1.5))) * eye))
        lights = draw_lights(rng, LightSettings(), pose.numpy())
        drawn = render_scene(
            [_tabletop(texture)],
            pose[None],
            camera.K,
            camera.image_size,
            outputs=("color",),
            lights=lights,
            background=torch.from_numpy(wall),
        )
        return drawn.color[0].numpy()


def _tabletop(texture: UInt8[np.ndarray, "h w 3"]) -> TriangleMesh:
    """A square in the plane z = 0, papered with a picture that faces +z."""
    corners = torch.tensor([[-1.0, 1, 0], [1, 1, 0], [1, -1, 0], [-1, -1, 0]], dtype=torch.float64)
    uv = _REPEATS * torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    faces = torch.tensor([[0, 3, 2], [0, 2, 1]])
    return TriangleMesh(_REACH_M * corners, faces, uv=uv[faces], texture=torch.from_numpy(texture))
