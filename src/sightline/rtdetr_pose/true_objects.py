"""What the pictures of a batch truly show: the targets of a detector, checked and put side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

Target = Mapping[str, Any]

# per object, and per picture: the shape of one
_OF_OBJECT: dict[str, tuple[int, ...]] = {"z": (), "R": (3, 3), "t": (3,), "offsets": (2,)}
_OF_PICTURE: dict[str, tuple[int, ...]] = {
    "K": (3, 3),
    "k_delta": (4,),
    "image_size": (2,),
    "plane": (4,),
    "upright_range": (2, 2),
}


@dataclass(frozen=True)
class TrueObjects:
    """The n objects of b pictures, those of the first picture first; NaN stands for what is not known.

    Args:
        counts: objects of each picture.
        picture: ``(n,)`` the picture of each object.
        labels: ``(n,)`` classes.
        boxes: ``(n, 4)`` cxcywh, shares of the picture.
        z: ``(n,)`` depth of the object's origin, metres.
        R: ``(n, 3, 3)`` rotations of ``cam_from_obj``.
        t: ``(n, 3)`` translations of ``cam_from_obj``, metres.
        offsets: ``(n, 2)`` the origin's projection minus the box's centre, pixels.
        K: ``(b, 3, 3)`` intrinsics that the network is given, pixels.
        k_delta: ``(b, 4)`` what corrects them, see :func:`sightline.geometry.translation.correct_intrinsics`;
            0 where K is known and nothing else is said: a given K is a true one.
        image_size: ``(b, 2)`` width and height, pixels.
        plane: ``(b, 4)`` unit normal and distance of the table, camera frame: ``n . x + d = 0``, above it
            positive, metres.
        upright_range: ``(b, 2, 2)`` least and greatest roll, and pitch, radians.
    """

    counts: tuple[int, ...]
    picture: Int[Tensor, " n"]
    labels: Int[Tensor, " n"]
    boxes: Float[Tensor, "n 4"]
    z: Float[Tensor, " n"]
    R: Float[Tensor, "n 3 3"]
    t: Float[Tensor, "n 3"]
    offsets: Float[Tensor, "n 2"]
    K: Float[Tensor, "b 3 3"]
    k_delta: Float[Tensor, "b 4"]
    image_size: Float[Tensor, "b 2"]
    plane: Float[Tensor, "b 4"]
    upright_range: Float[Tensor, "b 2 2"]

    def __len__(self) -> int:
        """Objects of all pictures."""
        return sum(self.counts)


def gather_objects(targets: Sequence[Target], num_classes: int, like: Float[Tensor, "..."]) -> TrueObjects:
    """Put the targets of a batch side by side.

    Args:
        targets: one dict a picture: ``labels (n,)`` and ``boxes (n, 4)`` cxcywh in [0, 1]; where known ``z
            (n,)``, ``R (n, 3, 3)``, ``t (n, 3)`` metres, ``offsets (n, 2)`` pixels, ``pose_valid (n,)``,
            ``K (3, 3)`` and ``image_size (2,)`` pixels, ``k_delta (4,)``, ``plane (4,)``, ``upright_range
            (2, 2)``. Other keys are left alone.
        num_classes: that the detector knows.
        like: a tensor of the dtype and on the device of the result.

    Returns:
        The objects; what a picture does not say is NaN, and so is the pose where ``pose_valid`` is False.

    Raises:
        ValueError: a wrong shape, a missing key, or a label that is no class (looked at where reading it
            costs nothing, on the CPU); it names picture and key.

    Example:
        >>> target = {"labels": torch.tensor([2]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.1]])}
        >>> objects = gather_objects([target, target], 3, torch.zeros(()))
        >>> objects.counts, objects.labels.tolist(), objects.z.tolist()
        ((1, 1), [2, 2], [nan, nan])
    """
    counts = tuple(len(_required(target, "labels", i)) for i, target in enumerate(targets))
    labels = torch.cat([_labels(target["labels"], num_classes, i) for i, target in enumerate(targets)])
    boxes = [_shaped(_required(t, "boxes", i), (counts[i], 4), "boxes", i) for i, t in enumerate(targets)]
    objects = {key: _joined(targets, key, counts, shape, like) for key, shape in _OF_OBJECT.items()}
    pictures = {key: _joined(targets, key, None, shape, like) for key, shape in _OF_PICTURE.items()}
    known = pictures["K"].isfinite().flatten(1).all(1, keepdim=True)
    said = pictures["k_delta"].isfinite().all(1, keepdim=True)
    pictures["k_delta"] = torch.where(known & ~said, 0.0, pictures["k_delta"])
    picture = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts, dtype=torch.long))
    return TrueObjects(
        counts,
        picture.to(like.device),
        labels.to(like.device),
        torch.cat([b.to(like) for b in boxes]),
        **objects,
        **pictures,
    )


def _joined(
    targets: Sequence[Target],
    key: str,
    counts: tuple[int, ...] | None,
    shape: tuple[int, ...],
    like: Tensor,
) -> Tensor:
    """One key of all pictures, NaN where it is missing or, for poses, not valid."""
    parts: list[Tensor] = []
    for i, target in enumerate(targets):
        wanted = (1 if counts is None else counts[i], *shape)
        if target.get(key) is None:
            parts.append(like.new_full(wanted, torch.nan))
            continue
        value = torch.as_tensor(target[key])
        value = _shaped(value[None] if counts is None else value, wanted, key, i).to(like)
        if counts is not None and target.get("pose_valid") is not None:
            valid = _shaped(target["pose_valid"], (counts[i],), "pose_valid", i).to(like.device)
            value = torch.where(valid.view(-1, *[1] * len(shape)), value, torch.nan)
        parts.append(value)
    return torch.cat(parts)


def _required(target: Target, key: str, picture: int) -> Tensor:
    if key not in target:
        raise ValueError(f"targets[{picture}]: the key {key!r} is missing (there are: {', '.join(target)})")
    return torch.as_tensor(target[key])


def _shaped(value: Tensor, shape: tuple[int, ...], key: str, picture: int) -> Tensor:
    if tuple(value.shape) != shape:
        raise ValueError(f"targets[{picture}][{key!r}]: expected shape {shape}, got {tuple(value.shape)}")
    return value


def _labels(labels: Tensor, num_classes: int, picture: int) -> Tensor:
    _shaped(labels, (len(labels),), "labels", picture)
    if labels.device.type == "cpu" and not ((labels >= 0) & (labels < num_classes)).all():
        found = f"{int(labels.min())} to {int(labels.max())}"
        raise ValueError(f"targets[{picture}]['labels']: expected 0 to {num_classes - 1}, got {found}")
    return labels.long()
