"""A BOP data set: its scenes, models, and the targets on which methods are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import overload

from sightline.formats.bop_models import ModelInfo, object_name, read_models_info
from sightline.formats.bop_scene import BopScene
from sightline.formats.frames import Frame, FrameSet, MeshFile
from sightline.formats.json_files import Fields, read_json, write_json
from sightline.formats.meshes import LoadedMesh, read_mesh

_TARGET_FILES = ("test_targets_bop19.json", "test_targets_bop24.json")


@dataclass(frozen=True)
class Target:
    """What a method shall look for in one picture.

    Args:
        scene_id: of the picture.
        im_id: of the picture.
        obj_id: the object, None where the task is to detect whatever there is (BOP 2024).
        inst_count: how many of it there are, None where that is not told.
    """

    scene_id: int
    im_id: int
    obj_id: int | None = None
    inst_count: int | None = None


def read_targets(path: str | Path) -> list[Target]:
    """Read ``test_targets_bop19.json`` (with objects and counts) or ``test_targets_bop24.json`` (pictures).

    Args:
        path: the file.

    Returns:
        The targets in the order of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no JSON, or a key that is missing or malformed.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "test_targets_bop19.json"
        >>> write_targets(path, [Target(2, 3, 5, 1)])
        >>> read_targets(path)
        [Target(scene_id=2, im_id=3, obj_id=5, inst_count=1)]
    """
    path = Path(path)
    listed = Fields({"targets": read_json(path)}, path, "top level").entries("targets")
    return [
        Target(
            entry.integer("scene_id"),
            entry.integer("im_id"),
            entry.integer("obj_id") if "obj_id" in entry else None,
            entry.integer("inst_count") if "inst_count" in entry else None,
        )
        for entry in listed
    ]


def write_targets(path: str | Path, targets: Sequence[Target]) -> None:
    """Write targets; what is None is left out.

    Args:
        path: where to.
        targets: in the order of the file.
    """
    entries = [{key: value for key, value in vars(target).items() if value is not None} for target in targets]
    write_json(path, entries)


class BopFrames(Sequence[Frame]):
    """The frames of several scenes one after the other, made when they are asked for.

    Args:
        scenes: in order.
    """

    def __init__(self, scenes: Sequence[BopScene]) -> None:
        self.scenes = list(scenes)
        self._places = [(scene, image_id) for scene in self.scenes for image_id in scene.image_ids]

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> list[Frame]: ...
    def __getitem__(self, index: int | slice) -> Frame | list[Frame]:
        """The frame at a position, or several."""
        if isinstance(index, slice):
            return [scene.frame(image_id) for scene, image_id in self._places[index]]
        scene, image_id = self._places[index]
        return scene.frame(image_id)


class BopDataset:
    """A BOP data set on disk.

    Args:
        root: its folder, with the splits and ``models``.
        split: the folder of the scenes, such as ``"test"`` or ``"train_pbr"``.
        models: the folder of the meshes; the first of ``models``, ``models_cad`` and ``models_eval`` that is
            there, unless given.

    Raises:
        FileNotFoundError: no such folder, or no scene in the split.
    """

    def __init__(self, root: str | Path, split: str = "test", models: str | None = None) -> None:
        self.root = Path(root)
        self.split = split
        if not (self.root / split).is_dir():
            there = ", ".join(sorted(path.name for path in self.root.glob("*/"))) or "nothing"
            raise FileNotFoundError(f"{self.root / split}: no such folder of scenes (there is: {there})")
        folders = [path for path in (self.root / split).iterdir() if path.is_dir() and path.name.isdigit()]
        self.scenes = {int(path.name): BopScene(path) for path in sorted(folders, key=lambda p: int(p.name))}
        if not self.scenes:
            raise FileNotFoundError(f"{self.root / split}: expected scene folders such as 000001, found none")
        candidates = (models,) if models else ("models", "models_cad", "models_eval")
        found = (self.root / name for name in candidates if (self.root / name).is_dir())
        self.models_folder = next(found, None)

    @property
    def frames(self) -> BopFrames:
        """All frames of the split."""
        return BopFrames(list(self.scenes.values()))

    @cached_property
    def models_info(self) -> dict[int, ModelInfo]:
        """Size and symmetries of each object by its number; empty without ``models_info.json``."""
        if self.models_folder is None or not (self.models_folder / "models_info.json").is_file():
            return {}
        return read_models_info(self.models_folder / "models_info.json")

    def mesh_path(self, obj_id: int) -> Path:
        """The mesh file of an object.

        Raises:
            FileNotFoundError: the data set has no models.
        """
        if self.models_folder is None:
            raise FileNotFoundError(f"{self.root}: no folder of models")
        return self.models_folder / f"{object_name(obj_id)}.ply"

    def mesh(self, obj_id: int) -> LoadedMesh:
        """The mesh of an object, from millimetres to metres."""
        return read_mesh(self.mesh_path(obj_id), unit="mm")

    def targets(self) -> list[Target]:
        """The targets of the challenge, of 2019 if there are such, else of 2024.

        Raises:
            FileNotFoundError: the data set names none.
        """
        for name in _TARGET_FILES:
            if (self.root / name).is_file():
                return read_targets(self.root / name)
        raise FileNotFoundError(f"{self.root}: expected one of {', '.join(_TARGET_FILES)}")

    def frame_set(self) -> FrameSet:
        """The data set as frames, meshes and symmetries, to be written as another format."""
        files = [] if self.models_folder is None else sorted(self.models_folder.glob("obj_*.ply"))
        meshes = {path.stem: MeshFile(path, "mm") for path in files}
        symmetries = {object_name(obj_id): info.symmetry for obj_id, info in self.models_info.items()}
        return FrameSet(self.frames, meshes, symmetries)
