"""A bank of objects' views with poses, depth and cameras, for learning poses: drawn once, mapped, not read.

Each object is one safetensors file that is written whole or not at all, so that a build which was interrupted
goes on where it stopped, and several processes may build one folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from sightline.formats.atomic import atomic_write
from sightline.synthetic.exam_settings import EXAM
from sightline.synthetic.pose_views import ObjectViews, PoseViewSettings, draw_pose_views
from sightline.synthetic.sprites import SPLITS, Split

_FORM = "1"  # raised when what is drawn or how it is stored changes
_MOST_HELD = 512  # files mapped at a time
_DTYPES = {"U8": np.uint8, "U16": np.uint16, "I64": np.int64, "F64": np.float64}


class PoseBank:
    """The views of the first objects of a split, each drawn when it is first wanted.

    Args:
        num_objects: how many; those of even number are rich in texture, the others are not, as in the exam.
        folder: where views are kept; in memory unless given. One folder may serve several banks.
        split: whose objects: ``"train"`` or ``"development"``. Those of the exam are refused.
        settings: how each is drawn.
        draw: whether what is missing is drawn; otherwise it is an error.

    Raises:
        ValueError: another split, fewer than two objects, or no folder although nothing may be drawn.
        FileNotFoundError: nothing may be drawn and an object is missing.

    Example:
        >>> tiny = PoseViewSettings(num_templates=42, template_px=24, num_queries=2, query_px=32)
        >>> bank = PoseBank(2, settings=tiny)
        >>> bank[1].name, bank[1].templates.side
        ('bracket-low-1', 24)
    """

    def __init__(
        self,
        num_objects: int,
        folder: str | Path | None = None,
        *,
        split: Split | str = "train",
        settings: PoseViewSettings | None = None,
        draw: bool = True,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split: expected one of {', '.join(SPLITS)}; got {split!r}")
        if num_objects < 2:
            raise ValueError(f"num_objects: expected at least 2, got {num_objects}")
        if folder is None and not draw:
            raise ValueError("folder: expected one where nothing may be drawn, got none")
        self.num_objects, self.split, self.draw = num_objects, str(split), draw
        self.settings = settings or PoseViewSettings()
        self._folder = None if folder is None else Path(folder) / _folder_name(self.settings)
        self._held: dict[int, ObjectViews] = {}
        missing = [] if draw else self.missing()
        if missing:
            raise FileNotFoundError(
                f"{self._path(missing[0])}: {len(missing)} of {num_objects} objects are not drawn; "
                "call build() of the same bank with draw=True"
            )

    def __len__(self) -> int:
        return self.num_objects

    def __getstate__(self) -> dict:
        """Workers map the files themselves; what is in memory alone goes with the bank."""
        return self.__dict__ | ({} if self._folder is None else {"_held": {}})

    def __getitem__(self, index: int) -> ObjectViews:
        """The views of one object, drawn now if they are not yet.

        Raises:
            ValueError: its file is damaged, truncated or of another form.
        """
        index = range(self.num_objects)[index]
        if index not in self._held:
            if self._folder is not None and len(self._held) >= _MOST_HELD:
                self._held.pop(next(iter(self._held)))
            self._held[index] = self._load(index)
        return self._held[index]

    def missing(self) -> list[int]:
        """Numbers of the objects that are not drawn yet."""
        if self._folder is None:
            return [index for index in range(self.num_objects) if index not in self._held]
        return [index for index in range(self.num_objects) if not self._path(index).is_file()]

    def build(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Draw all that is missing, where there is a folder.

        Args:
            progress: called with the number of objects that are done, and of all.
        """
        for done, index in enumerate(range(self.num_objects), start=1):
            if self._folder is None:
                self[index]
            else:
                self._ensure(index)
            if progress is not None:
                progress(done, self.num_objects)

    def _path(self, index: int) -> Path:
        if self._folder is None:
            raise ValueError("folder: this bank is in memory")
        return self._folder / f"{self.split}-{index:06d}.safetensors"

    def _ensure(self, index: int) -> Path:
        path = self._path(index)
        if not path.is_file():
            if not self.draw:
                raise FileNotFoundError(f"{path}: no such views")
            write_views(path, draw_pose_views(index, self.split, self.settings))
        return path

    def _load(self, index: int) -> ObjectViews:
        if self._folder is None:
            return draw_pose_views(index, self.split, self.settings)
        return map_views(self._ensure(index))


def _folder_name(settings: PoseViewSettings) -> str:
    said = json.dumps([_FORM, EXAM.version, asdict(settings)], sort_keys=True)
    return f"pose-views-{hashlib.sha256(said.encode()).hexdigest()[:12]}"


def write_views(path: Path, views: ObjectViews) -> None:
    """Write the views of an object as safetensors, whole or not at all."""
    from safetensors.numpy import save_file

    arrays = {key: np.ascontiguousarray(array) for key, array in views.arrays().items()}
    with atomic_write(path) as temporary:
        save_file(arrays, temporary, metadata={"form": _FORM, "name": views.name})


def map_views(path: Path) -> ObjectViews:
    """Views whose arrays lie in the file: nothing is read before it is looked at.

    Raises:
        ValueError: a file that is damaged, truncated or of another form.
    """
    header, start = _read_header(path)
    said = header.pop("__metadata__", {})
    if said.get("form") != _FORM:
        raise ValueError(f"{path}: expected views of form {_FORM}, got {said.get('form')!r}; delete the file")
    stored = np.memmap(path, np.uint8, "r").view(np.ndarray)
    try:
        arrays = {
            name: stored[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]]
            .view(_DTYPES[entry["dtype"]])
            .reshape(entry["shape"])
            for name, entry in header.items()
        }
        return ObjectViews.from_arrays(said["name"], arrays)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: damaged views ({error}); delete the file") from error


def _read_header(path: Path) -> tuple[dict, int]:
    """The header of a safetensors file, and where its data begin; the file is as long as the header says."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(min(length, 1 << 20)))
            ends = [each["data_offsets"][1] for name, each in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: expected views in safetensors, damaged or another format") from error
    wanted, came = 8 + length + max(ends, default=0), path.stat().st_size
    if came != wanted:
        raise ValueError(f"{path}: truncated or damaged, {came} bytes instead of {wanted}; delete the file")
    return header, 8 + length
