"""A video, frame by frame: the last pose is the prior of the next; what is lost is looked for again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.geometry.cameras import Camera
from sightline.geometry.poses import invert
from sightline.objects.growing import grow_card, is_certain, shows_a_new_view
from sightline.pipeline.estimate import FoundObject, PoseEstimator
from sightline.pipeline.sources import Frame

TrackState = Literal["found", "tracked", "lost"]


@dataclass(frozen=True, eq=False)
class TrackedFrame:
    """What is known after one frame.

    Args:
        frame: the picture.
        found: one entry a card.
        states: by name: ``found`` (blind), ``tracked`` (from the last pose) or ``lost``.
    """

    frame: Frame
    found: list[FoundObject]
    states: dict[str, TrackState]


def track(
    frames: Iterable[Frame], estimator: PoseEstimator, camera: Camera, *, grow: bool = False
) -> Iterator[TrackedFrame]:
    """Follow one instance of each object through a video.

    An object is expected where constant velocity would bring it. When the picture does not bear that out, it
    is looked for in the whole frame; when that fails too it is lost, and looked for in each frame until found
    again. Memory is bounded by two poses an object.

    Args:
        frames: the video's frames in order.
        estimator: finds the objects, one instance each.
        camera: of all frames.
        grow: whether frames whose pose is certain become templates of the estimator's cards.

    Yields:
        The result of each frame.
    """
    history: dict[str, list[Float[Tensor, "4 4"]]] = {card.name: [] for card in estimator.cards}
    for frame in frames:
        priors = {name: _extrapolate(poses) for name, poses in history.items() if poses}
        found = estimator.find(frame.image, camera, priors=priors)
        states: dict[str, TrackState] = {}
        for one in found:
            name = one.card.name
            if one.pose.valid:
                states[name] = "tracked" if one.from_prior else "found"
                keep = history[name][-1:] if one.from_prior else []
                history[name] = [*keep, one.pose.cam_from_obj]
            else:
                states[name] = "lost"
                history[name] = []
            if grow and states[name] != "lost":
                _learn(one, frame, estimator, camera)
        yield TrackedFrame(frame, found, states)


def _learn(found: FoundObject, frame: Frame, estimator: PoseEstimator, camera: Camera) -> None:
    """Let a card grow by a frame that is certain and new."""
    pose = found.pose.cam_from_obj
    if found.verification is None or not is_certain(found.pose, found.verification):
        return
    if shows_a_new_view(found.card, pose):
        estimator.grow(grow_card(found.card, torch.from_numpy(frame.image), camera, pose))


def _extrapolate(poses: list[Float[Tensor, "4 4"]]) -> Float[Tensor, "4 4"]:
    """The next pose at constant velocity, from the last two."""
    if len(poses) < 2:
        return poses[-1]
    before, last = poses[-2:]
    step = last @ invert(before)
    expected = last.clone()
    expected[:3, :3] = step[:3, :3] @ last[:3, :3]
    expected[:3, 3] = 2 * last[:3, 3] - before[:3, 3]
    return expected
