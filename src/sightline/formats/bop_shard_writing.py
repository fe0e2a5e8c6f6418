"""Web data sets, written: the inverse of :mod:`sightline.formats.bop_webdataset`, whole or not at all."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from sightline.formats.atomic import atomic_folder
from sightline.formats.bop_webdataset import KEYS_FILE, key_of, shard_name
from sightline.formats.bop_writing import camera_entry, info_entry, truth_entry
from sightline.formats.frame_files import put_depth, put_image, require_plain_camera
from sightline.formats.frames import Frame, load_mask
from sightline.formats.images import write_image
from sightline.formats.json_files import write_json
from sightline.formats.rle import Rle

_MASKS = {"mask_visib": "mask", "mask": "mask_amodal"}


def write_bop_shards(
    folder: str | Path,
    frames: Iterable[Frame],
    *,
    names: Mapping[int, str] | None = None,
    per_shard: int = 1000,
    depth_scale_mm: float | int = 0.1,
    image_suffix: str = ".jpg",
    compressed: bool = False,
    overwrite: bool = False,
) -> int:
    """Write frames as a web data set: shards, ``key_to_shard.json`` and, if wanted, the objects' names.

    The same frames give the same bytes.

    Args:
        folder: where to.
        frames: each with a camera without distortion and a picture; each object with a number and a pose.
        names: by the object's number its name, for ``gso_models.json``.
        per_shard: pictures in a shard.
        depth_scale_mm: millimetres in one step of the depth files; files that are copied keep theirs.
        image_suffix: of pictures, ``".jpg"`` or ``".png"``; files that are copied keep theirs.
        compressed: whether masks are coded as text (else as numbers, as BOP's tool does).
        overwrite: whether an existing folder is replaced.

    Returns:
        How many shards there are.

    Raises:
        FileExistsError: the folder is not empty and ``overwrite`` was not asked for.
        ValueError: something is missing in a frame, or two frames have one number.

    Example:
        >>> import tempfile
        >>> from sightline.geometry.cameras import Camera
        >>> folder = Path(tempfile.mkdtemp()) / "train_pbr_web"
        >>> frame = Frame(3, "", camera=Camera.from_focal(100.0, 8, 6), image=np.zeros((6, 8, 3), np.uint8))
        >>> write_bop_shards(folder, [frame])
        1
        >>> sorted(path.name for path in folder.iterdir())
        ['key_to_shard.json', 'shard-000000.tar']
    """
    shards: dict[str, int] = {}
    archive: tarfile.TarFile | None = None
    with atomic_folder(folder, overwrite=overwrite) as work:
        try:
            for number, frame in enumerate(frames):
                if number % per_shard == 0:
                    if archive is not None:
                        archive.close()
                    archive = tarfile.open(work / shard_name(number // per_shard), "w")  # noqa: SIM115
                assert archive is not None
                key = key_of(frame.scene_id, frame.frame_id)
                if key in shards:
                    raise ValueError(f"{folder}: scene {frame.scene_id} has two frames {frame.frame_id}")
                shards[key] = number // per_shard
                for name, data in _members(
                    frame, f"{folder}: {key}", depth_scale_mm, image_suffix, compressed
                ):
                    _add(archive, f"{key}.{name}", data)
        finally:
            if archive is not None:
                archive.close()
        write_json(work / KEYS_FILE, shards)
        if names is not None:
            models = [{"obj_id": number, "gso_id": name} for number, name in sorted(names.items())]
            write_json(work / "gso_models.json", models)
    return len(set(shards.values()))


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def _members(
    frame: Frame, where: str, depth_scale_mm: float, image_suffix: str, compressed: bool
) -> Iterable[tuple[str, bytes]]:
    """Names and bytes, the picture first."""
    camera = require_plain_camera(frame, "BOP")
    with TemporaryDirectory() as temporary:
        place = Path(temporary)
        if isinstance(frame.image, np.ndarray):
            write_image(place / f"rgb{image_suffix}", frame.image)
        else:
            put_image(frame, place / "rgb")
        own = depth_scale_mm if isinstance(frame.depth, np.ndarray) else None
        scale = put_depth(frame, place / "depth.png", own)
        for path in sorted(place.iterdir(), reverse=True):
            yield path.name, path.read_bytes()
    yield "camera.json", _json(camera_entry(frame, camera, scale))
    yield "gt.json", _json([truth_entry(one, f"{where}, object {i}") for i, one in enumerate(frame.objects)])
    depth = frame.read_depth()
    masks = {
        name: [
            None if (source := getattr(one, field)) is None else load_mask(source) for one in frame.objects
        ]
        for name, field in _MASKS.items()
    }
    pairs = zip(frame.objects, masks["mask"], masks["mask_visib"], strict=True)
    yield "gt_info.json", _json([info_entry(one, whole, seen, depth) for one, whole, seen in pairs])
    for name, own_masks in masks.items():
        codes = {
            str(i): Rle.encode(mask).to_json(compressed=compressed)
            for i, mask in enumerate(own_masks)
            if mask is not None
        }
        if codes or not frame.objects:
            yield f"{name}.json", _json(codes)


def _json(value: object) -> bytes:
    return json.dumps(value, allow_nan=False).encode()
