"""Frames of any data set as the folder of reference detection, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from sightline.formats.frames import Frame, FrameSet, Losses
from sightline.formats.images import EncodedPicture
from sightline.formats.refdet_folder import FRAME, RefDetFolder, RefDetSample
from sightline.formats.refdet_templates import read_template
from sightline.formats.refdet_writing import write_refdet_folder
from sightline.geometry.boxes import clip


def frames_of_refdet(folder: RefDetFolder) -> FrameSet:
    """One frame a picture, with the boxes of all objects that are asked for in it.

    Args:
        folder: one split.

    Returns:
        The frames; which objects a picture is said to lack is not in them.
    """
    merged: dict[str, Frame] = {}
    whole = folder.frame_set()
    absent = sum(len(sample.boxes) == 0 for sample in folder.samples)
    for frame in whole.frames:
        known = merged.get(frame.name)
        objects = frame.objects if known is None else (*known.objects, *frame.objects)
        merged[frame.name] = replace(known or frame, objects=objects)
    lines = (f"not read: that an object is absent: {absent}",) if absent else ()
    return FrameSet(list(merged.values()), ignored=(*whole.ignored, *lines))


def write_refdet_frames(
    root: Path,
    frames: Sequence[Frame],
    templates: Mapping[str, Sequence[Path]],
    losses: Losses,
    *,
    split: str,
) -> None:
    """Write frames as samples, one for each object in each picture, with the templates of these objects.

    Args:
        root: the folder.
        frames: with pictures.
        templates: object -> its template pictures.
        losses: where what the folder cannot hold is counted.
        split: such as ``train``.

    Raises:
        ValueError: an object without templates, or a frame without picture.
    """
    names = {found.name for frame in frames for found in frame.objects}
    lacking = sorted(names - templates.keys())
    if lacking:
        raise ValueError(
            "templates: a folder of reference detection needs templates of each object; there are none of "
            f"{', '.join(lacking[:8])}: give a folder with <object>/*.jpg"
        )
    pictures = {name: [read_template(path) for path in templates[name]] for name in sorted(names)}
    write_refdet_folder(root, _samples(frames, losses), pictures, split=split)


def _samples(frames: Sequence[Frame], losses: Losses) -> Iterator[RefDetSample]:
    for frame in frames:
        size = frame.image_size
        if frame.image is None or size is None:
            raise ValueError(f"frame {frame.name}: expected a picture, there is none")
        image = frame.read_image() if isinstance(frame.image, EncodedPicture) else frame.image
        losses["pictures without objects"] += not frame.objects
        losses["cameras"] += frame.camera is not None
        losses["depth maps"] += frame.depth is not None
        boxes: dict[str, list] = {}
        for found in frame.objects:
            box = found.visible_box()
            if box is None or bool(box.isnan().any()):
                losses["objects without box and mask"] += 1
                continue
            boxes.setdefault(found.name, []).append(clip(box.double(), size))
            losses["masks"] += found.mask is not None
            losses["poses"] += found.cam_from_obj is not None
        for name, own in sorted(boxes.items()):
            stem = Path(frame.name).stem
            label = stem if stem.startswith(f"{name}{FRAME}") else f"{stem}:{name}"
            yield RefDetSample(label, name, torch.stack(own), image, size)
