"""Results of Sightline as JSON: what was found in each picture, with poses that may have failed.

A file is ``{"schema_version": 1, "classes", "predictions", "meta"}``; a prediction is one picture with its
camera and its ``detections``. A detection has ``name``, ``score`` and what is known of ``box`` (xyxy pixels,
the centre of the first pixel is 0), ``bbox`` (the same as centre and size in shares of the picture),
``segmentation`` (COCO run lengths) and the pose: ``valid``, ``R``, ``t_xyz`` in metres, ``covariance``... NaN
is written as null. Files of other programs with the same keys, as a plain list or as a map from picture to
detections, are read too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.formats.bop_detections import rle_field
from sightline.formats.json_files import Fields, null_if_not_finite, read_json, write_json
from sightline.formats.result_records import ImageResult, ObjectResult, Results
from sightline.geometry.boxes import cxcywh_from_xyxy, denormalize, normalize, xyxy_from_cxcywh
from sightline.geometry.cameras import Camera
from sightline.records import PoseEstimate

SCHEMA_VERSION = 1
_SHARE_KEYS = ("cx", "cy", "w", "h")


def write_results(
    path: str | Path, images: Iterable[ImageResult], meta: Mapping[str, Any] | None = None
) -> None:
    """Write results as JSON.

    Args:
        path: where to.
        images: one entry a picture.
        meta: about the run: command, version, times. NaN in it becomes null.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "poses.json"
        >>> lost = PoseEstimate.failure("3 matches, at least 4 are needed", name="mug")
        >>> write_results(path, [ImageResult.of_records("a.png", poses=[lost])])
        >>> pose = read_results(path).images[0].poses[0]
        >>> pose.valid, pose.reason, bool(pose.t.isnan().all())
        (False, '3 matches, at least 4 are needed', True)
    """
    images = list(images)
    classes = sorted({found.name for image in images for found in image.objects})
    content = {
        "schema_version": SCHEMA_VERSION,
        "classes": classes,
        "predictions": [image_entry(image, classes) for image in images],
        "meta": _without_nan(dict(meta or {})),
    }
    write_json(path, content)


def image_entry(image: ImageResult, classes: Sequence[str]) -> dict[str, Any]:
    """One picture as it stands in the file.

    Args:
        image: what was found in it.
        classes: the names that ``class_id`` counts.

    Returns:
        The JSON object.

    Example:
        >>> image_entry(ImageResult("a.png"), [])["detections"]
        []
    """
    size = image.image_size if image.camera is None else image.camera.image_size
    return {
        "image": image.image,
        "image_size": None if size is None else list(size),
        "camera": None if image.camera is None else camera_entry(image.camera),
        "time": null_if_not_finite(image.time),
        "detections": [_object_entry(found, classes, size) for found in image.objects],
    }


def camera_entry(camera: Camera) -> dict[str, Any]:
    """A camera as JSON, as :func:`~sightline.formats.camera_json.read_camera` reads it.

    Args:
        camera: any camera.

    Returns:
        ``K`` (3x3 rows), ``width``, ``height`` and ``distortion`` (five numbers or None).

    Example:
        >>> camera_entry(Camera.from_focal(100.0, 5, 3))["K"]
        [[100.0, 0.0, 2.0], [0.0, 100.0, 1.0], [0.0, 0.0, 1.0]]
    """
    distortion = None if camera.distortion is None else camera.distortion.tolist()
    return {"K": camera.K.tolist(), "width": camera.width, "height": camera.height, "distortion": distortion}


def _object_entry(
    found: ObjectResult, classes: Sequence[str], size: tuple[int, int] | None
) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": found.name, "class_id": classes.index(found.name)}
    entry["score"] = null_if_not_finite(found.score)
    if found.obj_id is not None:
        entry["obj_id"] = found.obj_id
    if found.box is not None:
        entry["box"] = found.box.tolist()
        if size is not None:
            entry["bbox"] = _shares(found.box, size)
    if found.mask is not None:
        entry["segmentation"] = found.mask.to_json()
    return entry if found.pose is None else entry | _pose_entry(found.pose)


def _shares(box: Float[Tensor, "4"], size: tuple[int, int]) -> dict[str, float]:
    shares = cxcywh_from_xyxy(normalize(box, size)).tolist()
    return dict(zip(_SHARE_KEYS, shares, strict=True))


def _pose_entry(pose: PoseEstimate) -> dict[str, Any]:
    covariance = None if pose.covariance is None else _without_nan(pose.covariance.tolist())
    others = {"alternatives": [_pose_entry(each) for each in pose.alternatives]} if pose.alternatives else {}
    return {
        "valid": pose.valid,
        "R": pose.R.tolist() if pose.valid else None,
        "t_xyz": pose.t.tolist() if pose.valid else None,
        "pose_score": null_if_not_finite(pose.score),
        "covariance": covariance,
        "covariance_freedom": null_if_not_finite(pose.covariance_freedom),
        "residual_px": null_if_not_finite(pose.residual_px),
        "focal_px": null_if_not_finite(pose.focal_px),
        "inliers": _inlier_entry(pose.inliers),
        "reason": pose.reason,
        **others,
    }


def _inlier_entry(inliers: Bool[Tensor, " m"] | None) -> dict[str, Any] | None:
    if inliers is None:
        return None
    return {"matches": len(inliers), "indices": inliers.nonzero().flatten().tolist()}


def _without_nan(value: object) -> object:
    match value:
        case float():
            return null_if_not_finite(value)
        case dict():
            return {key: _without_nan(entry) for key, entry in value.items()}
        case list() | tuple():
            return [_without_nan(entry) for entry in value]
    return value


def read_results(path: str | Path, names: Sequence[str] | None = None) -> Results:
    """Read results, ours or of the same form.

    Args:
        path: the JSON file.
        names: the name of each ``class_id``, for files without names.

    Returns:
        The pictures in order, and the meta data.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no JSON, a newer schema, or a key that is missing or malformed; with its place.
    """
    path = Path(path)
    content = read_json(path)
    meta: Mapping[str, Any] = {}
    if isinstance(content, dict) and "predictions" in content:
        top = Fields.of(content, path, "top level")
        version = top.number("schema_version", SCHEMA_VERSION)
        if version > SCHEMA_VERSION:
            raise top.fault("schema_version", f"made by a newer version, {version:g}; this one reads 1")
        meta = top.values.get("meta") or {}
        content = content["predictions"]
    if isinstance(content, dict):
        content = [{"image": image, "detections": found} for image, found in content.items()]
    entries = Fields({"predictions": content}, path, "top level").entries("predictions")
    return Results(tuple(_read_image(entry, names) for entry in entries), meta)


def _read_image(entry: Fields, names: Sequence[str] | None) -> ImageResult:
    size = None
    if "image_size" in entry:
        width, height = (int(side) for side in entry.tensor("image_size", 2))
        size = (width, height)
    camera = None
    if "camera" in entry:
        inner = Fields.of(entry.require("camera"), entry.path, f"{entry.where}, camera")
        distortion = inner.tensor("distortion", 5) if "distortion" in inner else None
        camera = inner.camera("K", (inner.integer("width"), inner.integer("height")), distortion)
        size = camera.image_size
    found = tuple(_read_object(item, names, size) for item in entry.entries("detections"))
    return ImageResult(entry.text("image"), found, camera, size, _optional(entry, "time"))


def _optional(entry: Fields, key: str) -> float | None:
    return entry.number(key) if key in entry else None


def _read_object(entry: Fields, names: Sequence[str] | None, size: tuple[int, int] | None) -> ObjectResult:
    name = _read_name(entry, names)
    score = entry.number("score", math.nan)
    obj_id = entry.integer("obj_id") if "obj_id" in entry else None
    pose = _read_pose(entry, name, score) if "valid" in entry or "R" in entry else None
    return ObjectResult(name, score, _read_box(entry, size), rle_field(entry, "segmentation"), pose, obj_id)


def _read_name(entry: Fields, names: Sequence[str] | None) -> str:
    if "name" in entry:
        return entry.text("name")
    number = entry.integer("class_id")
    if names is None:
        return f"class_{number}"
    if not 0 <= number < len(names):
        raise entry.fault("class_id", f"expected one of {len(names)} classes, got {number}")
    return names[number]


def _read_box(entry: Fields, size: tuple[int, int] | None) -> Float[Tensor, "4"] | None:
    if "box" in entry:
        return entry.tensor("box", 4)
    if "bbox" not in entry:
        return None
    shares = Fields.of(entry.require("bbox"), entry.path, f"{entry.where}, bbox")
    numbers = torch.tensor([shares.number(key) for key in _SHARE_KEYS], dtype=torch.float64)
    if size is None:
        raise entry.fault("bbox", "given in shares of the picture, whose image_size is missing")
    if float(numbers.abs().max()) > 2:
        raise entry.fault("bbox", f"expected shares of the picture, got {numbers.tolist()}")
    return denormalize(xyxy_from_cxcywh(numbers), size)


def _read_pose(entry: Fields, name: str, score: float) -> PoseEstimate:
    reason = entry.text("reason") if "reason" in entry else ""
    covariance = entry.tensor("covariance", 6, 6) if "covariance" in entry else None
    pose = PoseEstimate.failure(reason, name=name)
    if entry.values.get("valid", True):
        R, t = entry.rotation("R"), entry.tensor("t_xyz", 3)
        pose = replace(pose, R=R, t=t, score=entry.number("pose_score", score), valid=True)
    return replace(
        pose,
        covariance=covariance,
        covariance_freedom=entry.number("covariance_freedom", math.inf),
        inliers=_read_inliers(entry),
        residual_px=entry.number("residual_px", math.nan),
        focal_px=_optional(entry, "focal_px"),
        alternatives=_read_alternatives(entry, name, score),
    )


def _read_alternatives(entry: Fields, name: str, score: float) -> tuple[PoseEstimate, ...]:
    if "alternatives" not in entry:
        return ()
    where = f"{entry.where}, alternatives"
    return tuple(
        _read_pose(Fields.of(each, entry.path, where), name, score) for each in entry.require("alternatives")
    )


def _read_inliers(entry: Fields) -> Bool[Tensor, " m"] | None:
    if "inliers" not in entry:
        return None
    inner = Fields.of(entry.require("inliers"), entry.path, f"{entry.where}, inliers")
    inliers = torch.zeros(inner.integer("matches"), dtype=torch.bool)
    indices = inner.require("indices")
    inliers[inner.tensor("indices", len(indices)).long()] = True
    return inliers
