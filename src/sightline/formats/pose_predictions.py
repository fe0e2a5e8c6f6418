"""What a detector with pose says of pictures, number by number: the predictions of RT-DETR pose as JSON.

A detection has ``class_id``, ``score``, ``bbox`` (centre and size in shares of the picture) and what the
network gave beside it: ``log_z``, ``rot6d`` (two rows), ``R``, ``t_xyz`` in metres, ``offsets`` in pixels of
the network's input, ``k_delta``... An entry has the picture's name and, for whoever recovers translations,
``image_size`` and ``intrinsics`` of that input. Three forms are read: a list of entries, ``{"schema_version",
"predictions", "meta"}``, and a map from picture to detections. Keys that are not known are kept and written
again. Poses as results, with failures, covariances and masks, are :mod:`sightline.formats.results`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path, PureWindowsPath
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.formats.json_files import Fields, read_json, write_json
from sightline.geometry.rotations import rot6d_to_matrix

SCHEMA_VERSION = 1
_BOX_KEYS = ("cx", "cy", "w", "h")
_FOCAL_KEYS = ("fx", "fy", "cx", "cy")
_SHAPES: dict[str, tuple[int, ...]] = {
    "rot6d": (6,),
    "R": (3, 3),
    "t_xyz": (3,),
    "offsets": (2,),
    "k_delta": (4,),
}
_NUMBERS = ("log_z", "log_sigma_z", "log_sigma_rot")


@dataclass(frozen=True, eq=False)
class PosePrediction:
    """One detection.

    Args:
        class_id: number of the class.
        score: in [0, 1].
        bbox: ``(4,)`` cxcywh, shares of the picture.
        values: what else is known of ``log_z``, ``log_sigma_z``, ``log_sigma_rot`` (numbers), ``rot6d (6,)``,
            ``R (3, 3)``, ``t_xyz (3,)`` metres, ``offsets (2,)`` pixels and ``k_delta (4,)``; float64.
        others: further keys as they stand in the file.
    """

    class_id: int
    score: float
    bbox: Float[Tensor, "4"]
    values: Mapping[str, Tensor | float] = field(default_factory=dict)
    others: Mapping[str, Any] = field(default_factory=dict)

    def rotation(self) -> Float[Tensor, "3 3"] | None:
        """``R``, or the rotation of ``rot6d``; None where neither is given."""
        for name in ("R", "rot6d"):
            value = self.values.get(name)
            if isinstance(value, Tensor):
                return value if name == "R" else rot6d_to_matrix(value)
        return None


@dataclass(frozen=True, eq=False)
class PicturePredictions:
    """The detections of one picture.

    Args:
        image: name or path of the picture.
        detections: what was found.
        image_size: ``(width, height)`` of the network's input, pixels.
        K: ``(3, 3)`` float64 intrinsics of that input.
        others: further keys as they stand in the file.
    """

    image: str
    detections: tuple[PosePrediction, ...] = ()
    image_size: tuple[int, int] | None = None
    K: Float[Tensor, "3 3"] | None = None
    others: Mapping[str, Any] = field(default_factory=dict)

    def with_scores(self, scores: Sequence[float]) -> PicturePredictions:
        """The same entry, detections with other scores; all that it says of the picture stays.

        Raises:
            ValueError: not one score a detection.
        """
        if len(scores) != len(self.detections):
            raise ValueError(f"scores: expected one a detection, {len(self.detections)}, got {len(scores)}")
        pairs = zip(self.detections, scores, strict=True)
        return replace(self, detections=tuple(replace(found, score=float(score)) for found, score in pairs))


@dataclass(frozen=True, eq=False)
class PredictionFile:
    """All of a file.

    Args:
        pictures: in order.
        meta: what the writer says of the run; empty where the form has none.
    """

    pictures: tuple[PicturePredictions, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)


def read_pose_predictions(path: str | Path) -> PredictionFile:
    """Read predictions in any of the three forms.

    Args:
        path: the JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no JSON, a newer schema, a key that is missing, or a list of another length; with its
            place.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "predictions.json"
        >>> _ = path.write_text('{"a.png": [{"class_id": 2, "score": 0.5, "log_z": 0, '
        ...                     '"bbox": {"cx": 0.5, "cy": 0.5, "w": 0.1, "h": 0.2}}]}')
        >>> found = read_pose_predictions(path).pictures[0].detections[0]
        >>> found.class_id, found.values["log_z"], found.rotation() is None
        (2, 0.0, True)
    """
    path = Path(path)
    content, meta = read_json(path), {}
    if isinstance(content, dict) and "predictions" in content:
        top = Fields.of(content, path, "top level")
        version = top.number("schema_version", SCHEMA_VERSION)
        if version > SCHEMA_VERSION:
            raise top.fault("schema_version", f"made by a newer version, {version:g}; this one reads 1")
        content, meta = content["predictions"], top.values.get("meta") or {}
    if isinstance(content, dict):
        content = [{"image": image, "detections": found} for image, found in content.items()]
    entries = Fields({"predictions": content}, path, "top level").entries("predictions")
    return PredictionFile(tuple(_read_picture(entry) for entry in entries), meta)


def write_pose_predictions(
    path: str | Path,
    pictures: Iterable[PicturePredictions],
    meta: Mapping[str, Any] | None = None,
    *,
    form: Literal["wrapped", "list", "map"] = "wrapped",
) -> None:
    """Write predictions.

    Args:
        path: where to.
        pictures: one entry a picture.
        meta: of the run, for the wrapped form: ``adapter``, ``config``, ``tta``, ``ttt``... What of these is
            not given, the time and the number of pictures are filled in.
        form: ``wrapped`` with meta; ``list``; ``map``, which holds detections and nothing of the picture.

    Raises:
        ValueError: numbers that are not finite.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "predictions.json"
        >>> write_pose_predictions(path, [PicturePredictions("a.png")], {"adapter": "rtdetr_pose"})
        >>> sorted(read_pose_predictions(path).meta)
        ['adapter', 'config', 'images', 'timestamp', 'tta', 'ttt']
    """
    pictures = list(pictures)
    entries = [_picture_entry(picture) for picture in pictures]
    match form:
        case "list":
            write_json(path, entries)
        case "map":
            write_json(path, {entry["image"]: entry["detections"] for entry in entries})
        case _:
            about = {
                "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
                "adapter": None,
                "config": None,
                "images": len(pictures),
                "tta": {"enabled": False},
                "ttt": {"enabled": False},
                **(meta or {}),
            }
            write_json(path, {"schema_version": SCHEMA_VERSION, "predictions": entries, "meta": about})


def join_by_image(
    pictures: Sequence[PicturePredictions], images: Sequence[str]
) -> list[PicturePredictions | None]:
    r"""Find the predictions of each picture: by its whole name, then by the last part of its path.

    Args:
        pictures: predictions, their paths with either slash.
        images: names or paths of the pictures.

    Returns:
        One entry a picture; None where there are no predictions of it.

    Raises:
        ValueError: two entries of the same name, or two whose last part alone would have to decide.

    Example:
        >>> found = join_by_image([PicturePredictions(r"C:\data\a.png")], ["/mnt/a.png", "b.png"])
        >>> [each and each.image for each in found]
        ['C:\\data\\a.png', None]
    """
    whole: dict[str, PicturePredictions] = {}
    last: dict[str, list[PicturePredictions]] = {}
    for picture in pictures:
        if picture.image in whole:
            raise ValueError(f"image: expected each picture once, got {picture.image!r} twice")
        whole[picture.image] = picture
        last.setdefault(_last_part(picture.image), []).append(picture)
    return [whole.get(image) or _only(image, last.get(_last_part(image), [])) for image in images]


def _only(image: str, found: Sequence[PicturePredictions]) -> PicturePredictions | None:
    if len(found) > 1:
        names = ", ".join(each.image for each in found)
        raise ValueError(f"image: expected one entry for {image!r}, its last part fits {names}")
    return found[0] if found else None


def _last_part(image: str) -> str:
    return PureWindowsPath(image).name  # splits at either slash


def _read_picture(entry: Fields) -> PicturePredictions:
    size = None
    if "image_size" in entry:
        width, height = (int(side) for side in entry.tensor("image_size", 2))
        size = (width, height)
    K = _read_intrinsics(entry) if "intrinsics" in entry else None
    found = tuple(_read_detection(each) for each in entry.entries("detections"))
    known = {"image", "detections", "image_size", "intrinsics"}
    return PicturePredictions(entry.text("image"), found, size, K, _without(entry, known))


def _read_intrinsics(entry: Fields) -> Float[Tensor, "3 3"]:
    value = entry.require("intrinsics")
    if isinstance(value, dict):
        inner = Fields.of(value, entry.path, f"{entry.where}, intrinsics")
        fx, fy, cx, cy = (inner.number(key) for key in _FOCAL_KEYS)
    elif isinstance(value, list) and len(value) == 4:
        fx, fy, cx, cy = entry.tensor("intrinsics", 4).tolist()
    else:
        return entry.tensor("intrinsics", 3, 3)
    return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)


def _read_detection(entry: Fields) -> PosePrediction:
    shares = Fields.of(entry.require("bbox"), entry.path, f"{entry.where}, bbox")
    box = torch.tensor([shares.number(key) for key in _BOX_KEYS], dtype=torch.float64)
    values: dict[str, Tensor | float] = {}
    values |= {name: entry.tensor(name, *shape) for name, shape in _SHAPES.items() if name in entry}
    values |= {name: entry.number(name) for name in _NUMBERS if name in entry}
    known = {"class_id", "score", "bbox", *_SHAPES, *_NUMBERS}
    return PosePrediction(
        entry.integer("class_id"), entry.number("score"), box, values, _without(entry, known)
    )


def _without(entry: Fields, known: set[str]) -> dict[str, Any]:
    return {key: value for key, value in entry.values.items() if key not in known}


def _picture_entry(picture: PicturePredictions) -> dict[str, Any]:
    entry: dict[str, Any] = {"image": picture.image}
    if picture.image_size is not None:
        entry["image_size"] = list(picture.image_size)
    if picture.K is not None:
        numbers = (picture.K[0, 0], picture.K[1, 1], picture.K[0, 2], picture.K[1, 2])
        entry["intrinsics"] = dict(zip(_FOCAL_KEYS, (float(each) for each in numbers), strict=True))
    return {**entry, **picture.others, "detections": [_detection_entry(each) for each in picture.detections]}


def _detection_entry(found: PosePrediction) -> dict[str, Any]:
    values = {
        key: value.tolist() if isinstance(value, Tensor) else value for key, value in found.values.items()
    }
    box = dict(zip(_BOX_KEYS, found.bbox.tolist(), strict=True))
    return {"class_id": found.class_id, "score": found.score, "bbox": box, **values, **found.others}
