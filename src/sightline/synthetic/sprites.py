"""Banks of pre-rendered parts for composites: objects seen from many sides, and backgrounds.

Rendering is slow and pasting is fast, so each object is drawn once from many views, lit and unlit, with its
look-alike; pictures of tables and walls likewise. What is drawn lies in a folder as ``.npy`` files that are
mapped, not read, and shared by all workers. Objects are those of the training or development split.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Float64, UInt8

from sightline.formats.atomic import atomic_write
from sightline.geometry.poses import look_at
from sightline.rendering import Lights, PreparedMesh, fit_camera, render_views
from sightline.synthetic.exam import exam_object
from sightline.synthetic.exam_settings import EXAM
from sightline.synthetic.lighting import LightSettings, draw_lights
from sightline.synthetic.objects import make_lookalike

Split = Literal["train", "development"]
SPLITS: tuple[str, ...] = get_args(Split)
_FORM = 2  # raised when what is drawn changes
_FILL = 0.97


@dataclass(frozen=True)
class SpriteSettings:
    """How each object is drawn.

    Args:
        size_px: side of each square sprite, pixels.
        num_lit: views under lamps, for search pictures and for templates.
        num_plain: views without lamps, as object cards have them, for templates; spread evenly.
        num_lookalike: views under lamps of an object of the same shape with another print.
        distance: of the camera, in diameters of the object.
        lights: of the lit views.
    """

    size_px: int = 192
    num_lit: int = 16
    num_plain: int = 8
    num_lookalike: int = 4
    distance: tuple[float, float] = (2.5, 8.0)
    lights: LightSettings = field(default_factory=lambda: LightSettings(ambient=(0.25, 0.7), tint=0.15))


class ObjectSprites(NamedTuple):
    """The views of one object: ``(n, s, s, 4)`` uint8 RGBA each, colours multiplied by alpha, z upwards.

    Args:
        name: of the object.
        lit: under lamps.
        plain: without.
        lookalike: another object of this shape.
        lit_from: ``(n, 3)`` unit directions from the object to the camera of each lit view, object frame.
        plain_from: ``(m, 3)`` the same of the plain ones.
    """

    name: str
    lit: UInt8[np.ndarray, "n s s 4"]
    plain: UInt8[np.ndarray, "m s s 4"]
    lookalike: UInt8[np.ndarray, "k s s 4"]
    lit_from: Float64[np.ndarray, "n 3"]
    plain_from: Float64[np.ndarray, "m 3"]

    def choose_views(
        self,
        rng: np.random.Generator,
        seen: int,
        count: int,
        *,
        plain: bool,
        near: int = 3,
        lit_rows: np.ndarray | None = None,
    ) -> list[np.ndarray]:
        """Views for the templates of a picture: first one that shows much of what it shows, then any.

        Args:
            rng: draws them.
            seen: number of the lit view in the picture, which is no template itself if there are others.
            count: how many; without repeats as long as there are enough.
            plain: whether they are plain or lit.
            near: the first is one of so many views nearest to the picture's.
            lit_rows: which of the lit views may be taken; all unless given.

        Returns:
            ``(s, s, 4)`` sprites.
        """
        views, directions = (self.plain, self.plain_from) if plain else (self.lit, self.lit_from)
        rows = np.arange(len(views)) if plain or lit_rows is None else lit_rows
        others = rows if plain else rows[rows != seen]
        rows = others if len(others) else rows
        rows = rows[np.argsort(-directions[rows] @ self.lit_from[seen], kind="stable")]
        first = int(rng.integers(min(near, len(rows))))
        chosen = np.resize([rows[first], *rng.permutation(np.delete(rows, first))], count)
        return [np.asarray(views[row]) for row in chosen]


class SpriteBank:
    """The sprites of the first objects of a split, each drawn when it is first wanted.

    Args:
        num_objects: how many; those of even number are rich in texture, the others are not, as in the exam.
        folder: where sprites are kept; in memory unless given. One folder may serve several banks.
        split: whose objects: ``"train"`` or ``"development"``. Those of the exam are refused.
        settings: how each is drawn.

    Raises:
        ValueError: another split, or fewer than two objects.

    Example:
        >>> tiny = SpriteSettings(size_px=32, num_lit=2, num_plain=1, num_lookalike=1)
        >>> bank = SpriteBank(2, settings=tiny)
        >>> bank[1].name, bank[1].lit.shape
        ('bracket-low-1', (2, 32, 32, 4))
    """

    def __init__(
        self,
        num_objects: int,
        folder: str | Path | None = None,
        *,
        split: Split | str = "train",
        settings: SpriteSettings | None = None,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split: expected one of {', '.join(SPLITS)}; got {split!r}")
        if num_objects < 2:
            raise ValueError(f"num_objects: expected at least 2, got {num_objects}")
        self.num_objects, self.split = num_objects, str(split)
        self.settings = settings or SpriteSettings()
        self._folder = None if folder is None else Path(folder) / _folder_name(self.settings)
        self._held: dict[int, ObjectSprites] = {}

    def __len__(self) -> int:
        return self.num_objects

    def __getstate__(self) -> dict:
        """Workers map the files themselves; what is in memory alone goes with the bank."""
        return self.__dict__ | ({} if self._folder is None else {"_held": {}})

    def __getitem__(self, index: int) -> ObjectSprites:
        """The sprites of one object, drawn now if they are not yet."""
        index = range(self.num_objects)[index]
        if index not in self._held:
            self._held[index] = self._load(index)
        return self._held[index]

    def build(self, progress: Callable[[int, int], None] | None = None, *, num_workers: int = 0) -> None:
        """Draw all that is missing.

        Args:
            progress: called with the number of objects that are done, and of all.
            num_workers: how many processes draw, where there is a folder; 0 for this one.

        Raises:
            ValueError: workers for a bank in memory.
        """
        if num_workers > 0 and self._folder is None:
            raise ValueError(f"num_workers: expected 0 for a bank without folder, got {num_workers}")
        with ExitStack() as stack:
            draw: Iterable[None] = map(self._ensure, range(self.num_objects))
            if num_workers > 0:
                # fresh processes: a fork would inherit locks of threads that draw
                pool = ProcessPoolExecutor(num_workers, get_context("spawn"), torch.set_num_threads, (1,))
                draw = stack.enter_context(pool).map(self._ensure, range(self.num_objects))
            for done, _ in enumerate(draw, start=1):
                if progress is not None:
                    progress(done, self.num_objects)

    def _ensure(self, index: int) -> None:
        self[index]

    def _load(self, index: int) -> ObjectSprites:
        if self._folder is None:
            name, stack = exam_object(index, self.split).name, draw_object(index, self.split, self.settings)
        else:
            name, stack = self._map(self._folder, index)
        ends = np.cumsum([self.settings.num_lit, self.settings.num_plain])
        lit, plain, lookalike = np.split(stack, ends)
        lit_from, plain_from, _ = np.split(view_directions(index, self.split, self.settings), ends)
        return ObjectSprites(name, lit, plain, lookalike, lit_from, plain_from)

    def _map(self, folder: Path, index: int) -> tuple[str, np.ndarray]:
        """Name and views from the object's file, which carries the name: making an object takes a while."""
        beginning = f"{self.split}-{index:06d}-"
        path = next(folder.glob(f"{beginning}*.npy"), None)
        if path is None:
            path = folder / f"{beginning}{exam_object(index, self.split).name}.npy"
            with atomic_write(path) as temporary:
                np.save(temporary, draw_object(index, self.split, self.settings))
        return path.stem.removeprefix(beginning), np.load(path, mmap_mode="r")


def _folder_name(settings: SpriteSettings) -> str:
    said = json.dumps([_FORM, EXAM.version, asdict(settings)], sort_keys=True)
    return f"sprites-{hashlib.sha256(said.encode()).hexdigest()[:12]}"


def view_directions(index: int, split: str, settings: SpriteSettings) -> Float64[np.ndarray, "n 3"]:
    """Where the camera of each view of an object stands; the sprites' files need not say it.

    Args:
        index: the object's number in its split.
        split: ``"train"`` or ``"development"``.
        settings: how many views there are.

    Returns:
        ``(n, 3)`` unit directions from the object to the camera, of lit views (random), plain ones (a
        Fibonacci lattice, turned at random) and those of the look-alike (random).

    Example:
        >>> view_directions(0, "train", SpriteSettings(num_lit=2, num_plain=5, num_lookalike=1)).shape
        (8, 3)
    """
    rng = np.random.default_rng([EXAM.object_seeds[split][0] + index, 2])
    lit, turn, fakes = (rng.normal(size=(n, 3)) for n in (settings.num_lit, 3, settings.num_lookalike))
    steps = np.arange(settings.num_plain)
    height = 1 - (2 * steps + 1) / settings.num_plain
    around = steps * np.pi * (3 - np.sqrt(5))
    radius = np.sqrt(1 - height**2)
    lattice = np.column_stack([radius * np.cos(around), radius * np.sin(around), height])
    directions = np.concatenate([lit, lattice @ np.linalg.qr(turn)[0], fakes])
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def draw_object(index: int, split: str, settings: SpriteSettings) -> UInt8[np.ndarray, "n s s 4"]:
    """Draw the lit, the plain and the look-alike's views of one object, in this order.

    Args:
        index: the object's number in its split.
        split: ``"train"`` or ``"development"``.
        settings: how.

    Returns:
        ``(n, s, s, 4)`` uint8 RGBA, colours multiplied by alpha.

    Example:
        >>> sprites = draw_object(0, "train", SpriteSettings(size_px=32, num_lit=1, num_plain=1))
        >>> sprites.shape, bool((sprites[..., :3] <= sprites[..., 3:]).all())
        ((6, 32, 32, 4), True)
    """
    rng = np.random.default_rng([EXAM.object_seeds[split][0] + index, 1])
    thing = exam_object(index, split)
    other = make_lookalike(thing, EXAM.print_seeds[split][0] + 100 * index)
    directions = view_directions(index, split, settings)
    ends = np.cumsum([settings.num_lit, settings.num_plain])
    views = []
    for row, toward in enumerate(directions):
        mesh = thing.prepared if row < ends[1] else other.prepared
        views.append(_draw_view(mesh, toward, rng, settings, lit=not ends[0] <= row < ends[1]))
    return np.stack(views)


def _draw_view(
    mesh: PreparedMesh,
    toward: np.ndarray,
    rng: np.random.Generator,
    settings: SpriteSettings,
    *,
    lit: bool,
) -> UInt8[np.ndarray, "s s 4"]:
    """One view, drawn at twice the size, so that its outline has true shares of coverage."""
    import cv2

    distance = np.exp(rng.uniform(*np.log(settings.distance))) * mesh.mesh.diameter
    pose = look_at(torch.from_numpy(toward * distance))[None]
    size = (2 * settings.size_px, 2 * settings.size_px)
    K = fit_camera(mesh.mesh, pose, size, _FILL)
    lights = draw_lights(rng, settings.lights, None) if lit else Lights()
    drawn = render_views(mesh, pose, K, size, outputs=("color", "mask"), lights=lights)
    mask = drawn.mask[0].numpy()
    layers = np.dstack([drawn.color[0].numpy() * mask[..., None], mask.astype(np.uint8) * 255])
    half = cv2.resize(layers, (settings.size_px, settings.size_px), interpolation=cv2.INTER_AREA)
    half[..., :3] = np.minimum(half[..., :3], half[..., 3:])
    return half
