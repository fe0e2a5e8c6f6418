"""Lit views of given objects from random sides and distances, drawn once, kept in files that are mapped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64

from sightline.synthetic.exam_settings import EXAM
from sightline.synthetic.objects import SyntheticObject
from sightline.synthetic.pose_bank import map_views, write_views
from sightline.synthetic.pose_views import ObjectViews, PackedViews, PoseViewSettings, draw_lit_views

_FORM = 1  # raised when what is drawn changes
_STREAM = 5  # of random numbers, beside those of sprites and pose views


class ViewBank:
    """The lit views of some objects, each object's drawn when it is first wanted.

    Args:
        objects: which.
        settings: how each is drawn; of templates nothing is read.
        folder: where views are kept, a file an object; in memory unless given.

    Raises:
        ValueError: no objects, or two of one name.

    Example:
        >>> from sightline.synthetic.objects import make_object
        >>> bank = ViewBank([make_object("box", 0)], PoseViewSettings(num_queries=2, query_px=32))
        >>> bank.views(0).number, bank.extents(0).shape
        (2, (2,))
    """

    def __init__(
        self,
        objects: Sequence[SyntheticObject],
        settings: PoseViewSettings | None = None,
        folder: str | Path | None = None,
    ) -> None:
        names = [thing.name for thing in objects]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"objects: expected at least one, each once, got {names}")
        self.objects, self.settings = tuple(objects), settings or PoseViewSettings()
        self._folder = None if folder is None else Path(folder)
        self._held: dict[int, PackedViews] = {}
        self._extents: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.objects)

    def __getstate__(self) -> dict:
        """Workers map the files themselves; what is in memory alone goes with the bank."""
        return self.__dict__ | ({} if self._folder is None else {"_held": {}})

    def views(self, index: int) -> PackedViews:
        """The views of one object, drawn now if they are not yet.

        Raises:
            ValueError: its file is damaged.
        """
        if index not in self._held:
            self._held[index] = self._load(index)
        return self._held[index]

    def build(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Draw all that is missing.

        Args:
            progress: called with the number of objects that are done, and of all.
        """
        for index in range(len(self)):
            self.views(index)
            if progress is not None:
                progress(index + 1, len(self))

    def extents(self, index: int) -> Float64[np.ndarray, " n"]:
        """Longer side of each view's silhouette, in focal lengths: what it would be in pixels at focal 1."""
        if index not in self._extents:
            views = self.views(index)
            masks = np.unpackbits(views.bits, axis=-1, count=views.side).astype(bool)
            sides = [_spans(np.logical_or.reduce(masks, axis=axis)) for axis in (1, 2)]
            self._extents[index] = np.maximum(*sides) / views.K[:, 0, 0]
        return self._extents[index]

    @cached_property
    def hulls(self) -> tuple[Float64[np.ndarray, "v 3"], ...]:
        """The corners of each object's convex hull, metres: they span its box in every picture."""
        return tuple(_hull(thing.mesh.vertices.double().numpy()) for thing in self.objects)

    def _load(self, index: int) -> PackedViews:
        thing = self.objects[index]
        if self._folder is None:
            return self._draw(thing)
        path = self._folder / f"{thing.name}-{self._fingerprint()}.safetensors"
        if not path.is_file():
            views = self._draw(thing)
            empty = PackedViews(*(each[: int(key == "starts")] for key, each in views._asdict().items()))
            write_views(path, ObjectViews(thing.name, thing.mesh.diameter, thing.symmetries, empty, views))
        return map_views(path).queries

    def _draw(self, thing: SyntheticObject) -> PackedViews:
        rng = np.random.default_rng([thing.seed, thing.label_seed, _STREAM])
        return draw_lit_views(thing.prepared, rng, self.settings)

    def _fingerprint(self) -> str:
        said = json.dumps([_FORM, EXAM.version, asdict(self.settings)], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:12]


def _spans(occupied: Bool[np.ndarray, "n s"]) -> np.ndarray:
    """From the first to the last of each row's True."""
    return occupied.shape[1] - occupied[:, ::-1].argmax(1) - occupied.argmax(1)


def _hull(points: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "v 3"]:
    from scipy.spatial import ConvexHull

    return points[ConvexHull(points).vertices]
