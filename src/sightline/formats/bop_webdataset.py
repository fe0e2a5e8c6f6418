"""BOP's web data sets: pictures with their truth in tar shards, as MegaPose-GSO and ShapeNetCore come.

A folder holds ``shard-000000.tar``, ``shard-000001.tar`` and so on, each with some thousand pictures in
random order, and ``key_to_shard.json``, which says in which of them a picture is. Of a picture there are the
members ``{scene:06d}_{frame:06d}.`` ``rgb.jpg`` (or ``rgb.png``, ``gray.tiff``), ``depth.png``,
``camera.json``, ``gt.json``, ``gt_info.json``, ``mask_visib.json`` and ``mask.json`` (run-length codes by
instance). Nobody needs to have all shards. What is damaged is skipped and told.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int

from sightline.formats.bop_detections import rle_field
from sightline.formats.bop_models import MM
from sightline.formats.bop_scene import object_of_truth
from sightline.formats.frames import Frame, FrameObject
from sightline.formats.images import EncodedPicture, read_image_size
from sightline.formats.json_files import Fields, read_json
from sightline.formats.rle import Rle
from sightline.formats.tar_shards import FaultReport, Samples, index_archive, read_parts

PICTURES = ("rgb.jpg", "rgb.png", "rgb.jpeg", "gray.tiff", "gray.tif", "gray.png", "gray.jpg")
DEPTHS = ("depth.png", "depth.tiff", "depth.tif")
KEYS_FILE = "key_to_shard.json"
_SHARD = re.compile(r"shard-(\d+)\.tar")
_KEY = re.compile(r"(\d+)_(\d+)")
_MOST_INDEXED = 64  # shards whose members are known at a time


def shard_name(number: int) -> str:
    """The file name of a shard.

    Example:
        >>> shard_name(7)
        'shard-000007.tar'
    """
    return f"shard-{number:06d}.tar"


def key_of(scene_id: int, frame_id: int) -> str:
    """The key of a picture.

    Example:
        >>> key_of(4, 15)
        '000004_000015'
    """
    return f"{scene_id:06d}_{frame_id:06d}"


def frame_of_parts(path: Path, key: str, parts: Mapping[str, bytes]) -> Frame:
    """A sample as a frame; picture, depth and masks stay coded until somebody looks at them.

    Args:
        path: of the shard, for errors.
        key: ``SCENE_FRAME``.
        parts: the members' bytes by the end of their names.

    Returns:
        The frame, metres; without ``gt.json`` it holds no objects.

    Raises:
        ValueError: a member or a key of one is missing or malformed; shard, picture and key are named.
    """
    numbers = _KEY.fullmatch(key)
    if numbers is None:
        raise ValueError(f"{path}: expected SCENE_FRAME in numbers as the key of a picture, got {key!r}")
    place = path / key
    picture = _picture(place, parts, PICTURES)
    if picture is None:
        raise ValueError(
            f"{place}: expected one of {', '.join(PICTURES)}, got {', '.join(parts) or 'nothing'}"
        )
    if "camera.json" not in parts:
        raise ValueError(f"{place}: camera.json is missing")
    camera = _object(place, "camera.json", parts)
    pose = camera.pose("cam_R_w2c", "cam_t_w2c", MM) if "cam_R_w2c" in camera else None
    return Frame(
        frame_id=int(numbers[2]),
        name=key,
        objects=_objects(place, parts),
        scene_id=int(numbers[1]),
        camera=camera.camera("cam_K", read_image_size(picture)),
        image=picture,
        depth=_picture(place, parts, DEPTHS),
        depth_scale_mm=camera.number("depth_scale", 1.0),
        cam_from_world=pose,
    )


def _picture(place: Path, parts: Mapping[str, bytes], names: Sequence[str]) -> EncodedPicture | None:
    found = next((name for name in names if name in parts), None)
    return None if found is None else EncodedPicture(f"{place}.{found}", parts[found])


def _load(place: Path, name: str, parts: Mapping[str, bytes]) -> tuple[Path, object]:
    path = place.with_name(f"{place.name}.{name}")
    try:
        return path, json.loads(parts[name])
    except ValueError as error:  # no UTF-8, or no JSON
        raise ValueError(f"{path}: expected JSON, damaged or truncated: {error}") from error


def _object(place: Path, name: str, parts: Mapping[str, bytes]) -> Fields:
    path, value = _load(place, name, parts)
    return Fields.of(value, path, "top level")


def _list(place: Path, name: str, parts: Mapping[str, bytes]) -> list[Fields]:
    path, value = _load(place, name, parts)
    return Fields({"objects": value}, path, "top level").entries("objects")


def _objects(place: Path, parts: Mapping[str, bytes]) -> tuple[FrameObject, ...]:
    if "gt.json" not in parts:
        return ()
    truths = _list(place, "gt.json", parts)
    infos: Sequence[Fields | None] = [None] * len(truths)
    if "gt_info.json" in parts:
        infos = _list(place, "gt_info.json", parts)
    if len(infos) != len(truths):
        raise ValueError(f"{place}: gt.json has {len(truths)} objects, gt_info.json {len(infos)}")
    visible, whole = (_masks(place, name, parts) for name in ("mask_visib.json", "mask.json"))
    return tuple(
        object_of_truth(truth, info, visible.get(i), whole.get(i))
        for i, (truth, info) in enumerate(zip(truths, infos, strict=True))
    )


def _masks(place: Path, name: str, parts: Mapping[str, bytes]) -> dict[int, Rle | None]:
    """By the number of the instance, which tells apart several of one object."""
    if name not in parts:
        return {}
    codes = _object(place, name, parts)
    return {int(key): rle_field(codes, key) for key in codes.values if key.isdigit()}


class BopShards:
    """The pictures of a web data set by number or by key.

    Numbers follow ``key_to_shard.json``; pictures of shards that are not there are left out. Without that
    file all shards are looked through. Asking for a picture that is damaged raises an error; in the order of
    the shards, with damage skipped, :class:`~sightline.formats.bop_shard_stream.ShardStream` reads.

    Args:
        folder: with the shards; ``key_to_shard.json`` lies there or one folder above.

    Raises:
        FileNotFoundError: no such folder, or no shard in it.
        ValueError: a ``key_to_shard.json`` that is none.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.report = FaultReport()
        self._indexed: dict[int, Samples] = {}
        found = (_SHARD.fullmatch(path.name) for path in self.folder.glob("shard-*.tar"))
        self.shards = sorted(int(name[1]) for name in found if name)
        if not self.shards:
            raise FileNotFoundError(f"{self.folder}: expected shards such as {shard_name(0)}, found none")
        self._keys, self._places = self._listed()

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> Frame:
        """The frame of a number.

        Raises:
            IndexError: no such number.
            ValueError: the picture is damaged.
        """
        index = range(len(self))[index]
        return self._frame(int(self._places[index]), self.key(index))

    def key(self, index: int) -> str:
        """The key of a number."""
        return self._keys[index].decode()

    def frame(self, key: str) -> Frame:
        """The frame of a key.

        Raises:
            KeyError: no such picture.
            ValueError: it is damaged.
        """
        order = self._order
        at = int(np.searchsorted(self._keys, key.encode(), sorter=order))
        if at == len(order) or self.key(int(order[at])) != key:
            raise KeyError(f"{self.folder}: no picture {key} in the shards that are there")
        return self[int(order[at])]

    def path(self, shard: int) -> Path:
        """The file of a shard."""
        return self.folder / shard_name(shard)

    def samples(self, shard: int) -> Samples:
        """Where the pictures of a shard lie in it; what is wrong with it goes into the report."""
        if shard not in self._indexed:
            while len(self._indexed) >= _MOST_INDEXED:
                self._indexed.pop(next(iter(self._indexed)))
            samples, fault = index_archive(self.path(shard))
            if fault:
                self.report.note(self.path(shard), f"{fault}; {len(samples)} pictures before that are read")
            self._indexed[shard] = samples
        return self._indexed[shard]

    @cached_property
    def _order(self) -> Int[np.ndarray, " n"]:
        return np.argsort(self._keys)

    def _frame(self, shard: int, key: str) -> Frame:
        samples, path = self.samples(shard), self.path(shard)
        if key not in samples:
            raise ValueError(f"{path / key}: the shard does not hold this picture, or not whole")
        _, parts = next(read_parts(path, {key: samples[key]}))
        return frame_of_parts(path, key, parts)

    def _listed(self) -> tuple[np.ndarray, np.ndarray]:
        """Keys and their shards, as arrays: a million of them take 17 MB."""
        listing = next((p for p in (self.folder, self.folder.parent) if (p / KEYS_FILE).is_file()), None)
        if listing is None:
            pairs = [(key, shard) for shard in self.shards for key in self.samples(shard)]
        else:
            pairs = _read_listing(listing / KEYS_FILE, set(self.shards))
        return _as_arrays(pairs)


def _as_arrays(pairs: Iterable[tuple[str, int]]) -> tuple[np.ndarray, np.ndarray]:
    keys, shards = zip(*pairs, strict=True) if (pairs := list(pairs)) else ((), ())
    return np.array([key.encode() for key in keys], "S"), np.array(shards, np.int32)


def _read_listing(path: Path, there: set[int]) -> list[tuple[str, int]]:
    """Key and shard of the pictures whose shard is there; shards are numbers or file names."""
    listed = Fields.of(read_json(path), path, "top level")
    pairs = []
    for key, value in listed.values.items():
        name = _SHARD.fullmatch(value) if isinstance(value, str) else None
        shard = int(name[1]) if name else listed.integer(key)
        if shard in there:
            pairs.append((key, shard))
    return pairs


def read_object_names(path: str | Path) -> dict[int, str]:
    """What the objects of a web data set are called, of ``gso_models.json`` or ``shapenet_models.json``.

    Args:
        path: the file, a list of objects with ``obj_id`` and ``gso_id``, or ``shapenet_synset_id`` and
            ``shapenet_source_id``.

    Returns:
        By the object's number its name, of ShapeNet ``SYNSET/SOURCE``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no JSON, or a key that is missing.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "gso_models.json"
        >>> _ = path.write_text('[{"obj_id": 3, "gso_id": "Mug_Red"}]')
        >>> read_object_names(path)
        {3: 'Mug_Red'}
    """
    path = Path(path)
    entries = Fields({"models": read_json(path)}, path, "top level").entries("models")
    return {entry.integer("obj_id"): _name(entry) for entry in entries}


def _name(entry: Fields) -> str:
    if "shapenet_synset_id" in entry:
        return f"{entry.text('shapenet_synset_id')}/{entry.text('shapenet_source_id')}"
    return entry.text("gso_id")
