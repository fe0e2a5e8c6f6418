"""Any data set into any other that can hold it, with a report of what could not be held."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from sightline.formats.atomic import atomic_folder
from sightline.formats.bop_dataset import BopDataset, Target, write_targets
from sightline.formats.bop_models import ModelInfo, object_name, write_models_info
from sightline.formats.bop_scene import BopScene
from sightline.formats.bop_shard_stream import read_whole_shards
from sightline.formats.bop_shard_writing import write_bop_shards
from sightline.formats.bop_writing import BopSceneWriter
from sightline.formats.coco import CocoDataset, write_coco
from sightline.formats.foundationpose import FoundationPoseFolder, write_foundationpose
from sightline.formats.frame_files import count_symmetric, load_mesh_file, put_image
from sightline.formats.frames import Frame, FrameObject, FrameSet, Losses, load_mask
from sightline.formats.megapose import read_megapose, write_megapose
from sightline.formats.meshes import write_mesh
from sightline.formats.refdet_folder import RefDetFolder, read_refdet_folder
from sightline.formats.refdet_frames import frames_of_refdet, write_refdet_frames
from sightline.formats.refdet_templates import list_templates
from sightline.formats.result_records import ImageResult, ObjectResult
from sightline.formats.results import read_results, write_results
from sightline.formats.rle import Rle
from sightline.formats.yolo import YoloDataset, write_yolo
from sightline.geometry.poses import split_pose
from sightline.records import PoseEstimate

FORMATS = ("bop", "bop-webdataset", "coco", "foundationpose", "megapose", "json", "yolo", "refdet")
_COUNTED_VISIBILITY = 0.1  # BOP asks for objects of which a tenth is seen


@dataclass(frozen=True)
class Conversion:
    """What a conversion wrote and what it had to leave out.

    Args:
        frames: how many pictures.
        objects: how many objects in them, as the source counts them.
        meshes: how many meshes.
        dropped: what the target cannot hold, in words with counts.
        notes: what was decided on the way, in words.
    """

    frames: int
    objects: int
    meshes: int
    dropped: tuple[str, ...]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report for people, one line a fact."""
        head = f"{self.frames} frames, {self.objects} objects, {self.meshes} meshes"
        return [head, *(f"left out: {line}" for line in self.dropped), *self.notes]


def convert(
    source: str | Path,
    source_format: str,
    target: str | Path,
    target_format: str,
    *,
    split: str = "test",
    templates: str | Path | None = None,
    overwrite: bool = False,
) -> Conversion:
    """Convert a data set; the target appears whole or not at all.

    Args:
        source: BOP: the data set or one scene; COCO and JSON: the file (or a folder with one JSON file);
            the others: the folder.
        source_format: one of ``bop``, ``bop-webdataset``, ``coco``, ``foundationpose``, ``megapose``,
            ``json``, ``yolo`` and ``refdet`` (:mod:`sightline.formats.refdet_folder`).
        target: a folder; for ``json`` a file.
        target_format: likewise.
        split: of a BOP, YOLO or refdet data set, read or written.
        templates: for ``refdet``, a folder with ``<object>/*.jpg``; those of the source if it has any.
        overwrite: whether an existing target is replaced.

    Returns:
        What was written, what was left out, and what was decided.

    Raises:
        FileNotFoundError: the source, or a part of it, is not there.
        FileExistsError: the target is, and ``overwrite`` was not asked for.
        ValueError: an unknown format, a fault in the source, or something essential is missing: a camera, or
            two cameras where the target holds one.
    """
    source, target = Path(source), Path(target)
    for name in (source_format, target_format):
        if name not in FORMATS:
            raise ValueError(f"format: expected one of {', '.join(FORMATS)}, got {name!r}")
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such file or folder")
    if source.resolve() == target.resolve():
        raise ValueError(f"{target}: expected another place than the source's")
    frames = read_frames(source, source_format, split=split)
    losses, notes = Losses(), list(frames.ignored)
    with _opened(target, target_format, overwrite) as place:
        if target_format == "refdet":
            pictures = _templates(source, source_format, split, templates)
            write_refdet_frames(place, frames.frames, pictures, losses, split=split)
            losses.update({"meshes": len(frames.meshes), "symmetries": count_symmetric(frames.symmetries)})
        else:
            notes += _WRITERS[target_format](place, frames, losses, split)
    count = sum(len(frame.objects) for frame in frames.frames)
    return Conversion(len(frames.frames), count, len(frames.meshes), tuple(losses.lines()), tuple(notes))


def _opened(target: Path, target_format: str, overwrite: bool):  # noqa: ANN202  # a context manager of a path
    if target_format != "json":
        return atomic_folder(target, overwrite=overwrite)
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target}: the file exists; ask to overwrite it")
    return nullcontext(target)


def read_frames(source: str | Path, source_format: str, *, split: str = "test") -> FrameSet:
    """Read a data set of any format as frames.

    Args:
        source: as in :func:`convert`.
        source_format: as in :func:`convert`.
        split: of a BOP, YOLO or refdet data set; the last two may have none.

    Returns:
        The frames, made when they are asked for, and the meshes.

    Raises:
        FileNotFoundError: a part is not there.
        ValueError: a fault in the source.
    """
    source = Path(source)
    match source_format:
        case "bop":
            if (source / "scene_camera.json").is_file():
                return FrameSet(BopScene(source))
            return BopDataset(source, split).frame_set()
        case "bop-webdataset":
            return read_whole_shards(source if any(source.glob("shard-*.tar")) else source / split)
        case "coco":
            dataset = CocoDataset(_json_file(source))
            return FrameSet(dataset, ignored=tuple(f"not read: {line}" for line in dataset.ignored.lines()))
        case "foundationpose":
            return FoundationPoseFolder(source).frame_set()
        case "megapose":
            return read_megapose(source)
        case "yolo":
            found = any((source / place).is_dir() for place in (f"images/{split}", f"{split}/images"))
            return FrameSet(YoloDataset(source, split if found else ""))
        case "refdet":
            return frames_of_refdet(_read_refdet(source, split))
    return _frames_of_results(_json_file(source))


def _read_refdet(source: Path, split: str) -> RefDetFolder:
    return read_refdet_folder(source, split if (source / split).is_dir() else None)


def _templates(
    source: Path, source_format: str, split: str, templates: str | Path | None
) -> Mapping[str, Sequence[Path]]:
    if templates is not None:
        found = list_templates(templates)
        if not found:
            raise FileNotFoundError(f"{templates}: expected <object>/*.jpg or <object>_ref_*.jpg, none there")
        return found
    return _read_refdet(source, split).templates if source_format == "refdet" else {}


def _json_file(source: Path) -> Path:
    if source.is_file():
        return source
    files = sorted(source.glob("*.json"))
    if len(files) != 1:
        raise ValueError(
            f"{source}: expected one JSON file in this folder, found {len(files)}; name the file"
        )
    return files[0]


def _frames_of_results(path: Path) -> FrameSet:
    images = read_results(path).images
    failed = sum(not pose.valid for image in images for pose in image.poses)
    frames = [_frame_of_result(path, i, image) for i, image in enumerate(images)]
    return FrameSet(frames, ignored=(f"not read: {failed} poses that failed",) if failed else ())


def _frame_of_result(path: Path, index: int, image: ImageResult) -> Frame:
    objects = []
    for found in image.objects:
        pose = None if found.pose is None or not found.pose.valid else found.pose.cam_from_obj
        objects.append(
            FrameObject(found.name, found.obj_id, pose, found.box, mask=found.mask, score=found.score)
        )
    return Frame(
        frame_id=index,
        name=image.image,
        objects=tuple(objects),
        camera=image.camera,
        image=path.parent / image.image,
        size=image.image_size,
    )


def _write_bop(folder: Path, frames: FrameSet, losses: Losses, split: str) -> list[str]:
    numbers = _object_numbers(frames)
    notes = [
        f"numbered: {name} is object {number}"
        for name, number in numbers.items()
        if name != object_name(number)
    ]
    targets: list[Target] = []
    scenes: dict[int, list[int]] = {}
    for position, frame in enumerate(frames.frames):
        scenes.setdefault(frame.scene_id, []).append(position)
    for scene_id, positions in scenes.items():
        with BopSceneWriter(folder / split / f"{scene_id:06d}") as writer:
            for position in positions:
                frame = _numbered(frames.frames[position], numbers, losses)
                writer.add(frame)
                targets += _targets(frame)
    write_targets(folder / "test_targets_bop19.json", targets)
    models = {}
    for name in frames.meshes:
        mesh = load_mesh_file(frames.meshes[name])
        write_mesh(folder / "models" / f"{object_name(numbers[name])}.ply", mesh, "mm")
        models[numbers[name]] = ModelInfo.of_mesh(mesh, frames.symmetries.get(name))
    if models:
        write_models_info(folder / "models" / "models_info.json", models)
    return notes


def _object_numbers(frames: FrameSet) -> dict[str, int]:
    """The number of each name: its own, or that in it, where all differ; else by the alphabet."""
    known: dict[str, set[int | None]] = {name: {None} for name in frames.meshes}
    for frame in frames.frames:
        for found in frame.objects:
            known.setdefault(found.name, {None}).add(found.obj_id)
    own = {name: (numbers - {None}) or _number_in(name) for name, numbers in sorted(known.items())}
    single = [next(iter(numbers)) for numbers in own.values() if len(numbers) == 1]
    if len(set(single)) == len(own):
        return {name: number for name, number in zip(own, single, strict=True) if number is not None}
    return {name: number for number, name in enumerate(own, start=1)}


def _number_in(name: str) -> set[int | None]:
    found = re.fullmatch(r"obj_(\d+)", name)
    return {int(found.group(1))} if found else set()


def _numbered(frame: Frame, numbers: dict[str, int], losses: Losses) -> Frame:
    posed = [found for found in frame.objects if found.cam_from_obj is not None]
    losses["objects without a pose"] += len(frame.objects) - len(posed)
    losses["scores"] += sum(found.score is not None for found in posed)
    return replace(frame, objects=tuple(replace(found, obj_id=numbers[found.name]) for found in posed))


def _targets(frame: Frame) -> list[Target]:
    counts: dict[int, int] = {}
    for found in frame.objects:
        if found.obj_id is not None and (found.visibility is None or found.visibility >= _COUNTED_VISIBILITY):
            counts[found.obj_id] = counts.get(found.obj_id, 0) + 1
    return [Target(frame.scene_id, frame.frame_id, obj_id, n) for obj_id, n in sorted(counts.items())]


def _write_shards(folder: Path, frames: FrameSet, losses: Losses, split: str) -> list[str]:
    numbers = _object_numbers(frames)
    numbered = (_numbered(frame, numbers, losses) for frame in frames.frames)
    names = {number: name for name, number in numbers.items()}
    count = write_bop_shards(folder / split, numbered, names=names)
    losses["meshes"] += len(frames.meshes)
    losses["symmetries"] += count_symmetric(frames.symmetries)
    return [f"{count} shards"]


def _write_coco(folder: Path, frames: FrameSet, losses: Losses, split: str) -> list[str]:
    named = []
    scenes = len({frame.scene_id for frame in frames.frames}) > 1
    for frame in frames.frames:
        stem = f"{frame.scene_id:06d}_{frame.frame_id:06d}" if scenes else f"{frame.frame_id:06d}"
        picture = put_image(frame, folder / "images" / stem)
        named.append(replace(frame, name=picture.relative_to(folder).as_posix()))
    losses.update(write_coco(folder / "annotations.json", named))
    losses["meshes"] += len(frames.meshes)
    losses["symmetries"] += count_symmetric(frames.symmetries)
    return ["pictures were numbered anew: COCO's are unique over all scenes"] if scenes else []


def _write_yolo(folder: Path, frames: FrameSet, losses: Losses, split: str) -> list[str]:
    scenes = len({frame.scene_id for frame in frames.frames}) > 1
    named = []
    for frame in frames.frames:
        stem = f"{frame.scene_id:06d}_{frame.frame_id:06d}" if scenes else Path(frame.name).stem
        named.append(replace(frame, name=f"{stem}.png"))
    losses.update(write_yolo(folder, named, split=split))
    losses["meshes"] += len(frames.meshes)
    losses["symmetries"] += count_symmetric(frames.symmetries)
    return ["pictures were numbered anew: YOLO's names are unique over all scenes"] if scenes else []


def _write_json(path: Path, frames: FrameSet, losses: Losses, split: str) -> list[str]:
    images = []
    for frame in frames.frames:
        objects = tuple(_result(found) for found in frame.objects)
        losses["depth maps"] += frame.depth is not None
        losses["camera poses"] += frame.cam_from_world is not None
        losses["silhouettes"] += sum(found.mask_amodal is not None for found in frame.objects)
        images.append(ImageResult(_relative(frame, path), objects, frame.camera, frame.image_size))
    write_results(path, images, {"converted": True})
    losses["meshes"] += len(frames.meshes)
    losses["symmetries"] += count_symmetric(frames.symmetries)
    return []


def _relative(frame: Frame, path: Path) -> str:
    if not isinstance(frame.image, Path):
        return frame.name
    try:
        return Path(os.path.relpath(frame.image.resolve(), path.parent.resolve())).as_posix()
    except ValueError:  # another drive of Windows
        return frame.image.resolve().as_posix()


def _result(found: FrameObject) -> ObjectResult:
    mask = (
        found.mask if found.mask is None or isinstance(found.mask, Rle) else Rle.encode(load_mask(found.mask))
    )
    score = 1.0 if found.score is None else found.score
    pose = None
    if found.cam_from_obj is not None:
        R, t = split_pose(found.cam_from_obj)
        pose = PoseEstimate(R, t, score, valid=True, name=found.name)
    return ObjectResult(found.name, score, found.visible_box(), mask, pose, found.obj_id)


def _write_foundationpose(folder: Path, frames: FrameSet, losses: Losses, split: str) -> list[str]:
    write_foundationpose(folder, frames, losses)
    return []


def _write_megapose(folder: Path, frames: FrameSet, losses: Losses, split: str) -> list[str]:
    write_megapose(folder, frames, losses)
    return []


_WRITERS: dict[str, Callable[[Path, FrameSet, Losses, str], list[str]]] = {
    "bop": _write_bop,
    "bop-webdataset": _write_shards,
    "coco": _write_coco,
    "foundationpose": _write_foundationpose,
    "megapose": _write_megapose,
    "json": _write_json,
    "yolo": _write_yolo,
}
