"""What a folder of pictures, masks, depth and cameras holds: an entry for each object in each picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sightline.formats.bop_scene import BopScene
from sightline.formats.frames import MaskSource
from sightline.geometry.cameras import Camera

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
DEPTH_SUFFIXES = (".png", ".tif", ".tiff", ".npy", ".npz")


@dataclass(frozen=True, eq=False)
class ScaleEntry:
    """One object in one picture, as files.

    Args:
        name: of the picture, unique in the folder.
        object_name: of the object; empty where the files do not say.
        mask: its visible pixels.
        mask_name: the mask's file within the folder.
        image: the picture's file, if there is one.
        depth: the depth map's file, if there is one.
        depth_unit_mm: millimetres in one step of a depth picture.
        camera: its file, or the camera itself; None: the picture's EXIF is to tell.
        visibility: the visible share of the silhouette, where it is known.
    """

    name: str
    object_name: str
    mask: MaskSource
    mask_name: str
    image: Path | None
    depth: Path | None
    depth_unit_mm: float
    camera: Camera | Path | None
    visibility: float | None = None


class Listing(NamedTuple):
    """The entries of a folder, sorted, and the names of its pictures that have no mask."""

    entries: list[ScaleEntry]
    without_mask: list[str]


def list_folder(folder: str | Path, depth_unit_mm: float = 1.0) -> Listing:
    """List a folder in the plain layout (see :mod:`sightline.depth_scale.folder`) or a BOP scene.

    Args:
        folder: which of the two it is, is seen by ``scene_camera.json``.
        depth_unit_mm: millimetres in one step of a depth picture of the plain layout.

    Returns:
        What there is; no picture is opened but for its size.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: there are no masks, or a mask belongs to no picture.

    Example:
        >>> import tempfile
        >>> list_folder(tempfile.mkdtemp())
        Traceback (most recent call last):
        ValueError: ...: expected a folder masks/ beside images/ and depth/, or a BOP scene...; it is empty
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    if (folder / "scene_camera.json").is_file():
        return _list_bop(folder)
    if not (folder / "masks").is_dir():
        held = ", ".join(sorted(path.name for path in folder.iterdir())[:8])
        raise ValueError(
            f"{folder}: expected a folder masks/ beside images/ and depth/, or a BOP scene with "
            f"scene_camera.json; it {f'holds {held}' if held else 'is empty'}"
        )
    return _list_plain(folder, depth_unit_mm)


def _list_plain(folder: Path, depth_unit_mm: float) -> Listing:
    masks = _files(folder / "masks", PICTURE_SUFFIXES)
    if not masks:
        raise ValueError(f"{folder / 'masks'}: expected mask pictures, there are none")
    images = _files(folder / "images", PICTURE_SUFFIXES)
    depths = _files(folder / "depth", DEPTH_SUFFIXES)
    cameras = _files(folder / "cameras", (".json",))
    common = folder / "camera.json"
    names = images.keys() | depths.keys() | cameras.keys()
    entries = []
    for stem, mask in masks.items():
        name = _picture_of(stem, names)
        if name is None:
            raise ValueError(f"{mask}: no picture of this name in images/, depth/ or cameras/")
        entries.append(
            ScaleEntry(
                name=name,
                object_name=stem[len(name) + 1 :],
                mask=mask,
                mask_name=mask.relative_to(folder).as_posix(),
                image=images.get(name),
                depth=depths.get(name),
                depth_unit_mm=depth_unit_mm,
                camera=cameras.get(name, common if common.is_file() else None),
            )
        )
    entries.sort(key=lambda entry: (entry.name, entry.object_name))
    return Listing(entries, sorted(images.keys() - {entry.name for entry in entries}))


def _files(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    paths = (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))
    return {path.stem: path for path in paths if path.suffix.lower() in suffixes}


def _picture_of(stem: str, names: set[str]) -> str | None:
    """ID of ``ID`` or ``ID_OBJECT``; an ID may hold underscores itself, the longest that fits is meant."""
    place = len(stem)
    while place > 0:
        if stem[:place] in names:
            return stem[:place]
        place = stem.rfind("_", 0, place)
    return None


def _list_bop(folder: Path) -> Listing:
    if not (folder / "mask_visib").is_dir():
        raise ValueError(f"{folder}: expected a BOP scene's masks in mask_visib/, there is no such folder")
    entries, without = [], []
    for frame in BopScene(folder):
        seen = [found for found in frame.objects if isinstance(found.mask, Path)]
        if not seen:
            without.append(frame.name)
        entries += [
            ScaleEntry(
                name=frame.name,
                object_name=found.name,
                mask=found.mask,
                mask_name=found.mask.relative_to(folder).as_posix(),
                image=frame.image if isinstance(frame.image, Path) else None,
                depth=frame.depth if isinstance(frame.depth, Path) else None,
                depth_unit_mm=frame.depth_scale_mm,
                camera=frame.camera,
                visibility=found.visibility,
            )
            for found in seen
            if isinstance(found.mask, Path)
        ]
    if not entries:
        raise ValueError(f"{folder}: mask_visib/ holds no mask of the objects in scene_gt.json")
    return Listing(entries, without)
