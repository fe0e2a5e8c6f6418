"""A matcher over the targets of a BOP data set, to a results file that BOP's server takes.

What was found in each picture is written down at once beside the results file, so that a run that was stopped
goes on with the next picture. The time of a picture is what the detector says it took and what finding the
poses took here, from the decoded picture on; making the cards counts as onboarding and is left out, as BOP
wants it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sightline.formats.bop_dataset import BopDataset, Target
from sightline.formats.bop_detections import BopDetection, group_by_image, read_bop_detections
from sightline.formats.bop_models import object_name
from sightline.formats.bop_results import (
    UNKNOWN_TIME,
    BopResult,
    parse_results_name,
    results_from_poses,
    write_bop_results,
)
from sightline.formats.frames import Frame
from sightline.objects.card import ObjectCard
from sightline.objects.card_files import load_card, save_card
from sightline.objects.onboard import onboard_mesh
from sightline.pipeline.bop_journal import BopJournal, PictureResult
from sightline.pipeline.estimate import PoseEstimator
from sightline.pipeline.estimators import EstimatorMaker, MatcherChoice

Progress = Callable[[Iterable, str, int], Iterable]
_SPARE_BOXES = 2  # beside as many as there are instances: the surest box need not be the right one
_MOST_INSTANCES = 4  # of one object, where the targets do not say how many there are
_COUNTED_VISIBILITY = 0.1  # BOP asks for objects of which a tenth is seen


@dataclass(frozen=True)
class BopRun:
    """What a run did.

    Args:
        results: the file.
        method: what found the poses, and where it was told to look.
        num_pictures: with targets.
        num_resumed: of them, looked at by an earlier run.
        num_poses: rows of the file.
        onboarding_seconds: of all objects.
        pose_seconds: median time of finding the poses of a picture.
        detector_seconds: median time of its detections; NaN where none were given or their time is unknown.
        notes: what the user should know, a sentence each.
    """

    results: Path
    method: str
    num_pictures: int
    num_resumed: int
    num_poses: int
    onboarding_seconds: float
    pose_seconds: float
    detector_seconds: float
    notes: tuple[str, ...] = field(default=())

    def lines(self) -> list[str]:
        """What was done, for people."""
        detector = (
            "" if math.isnan(self.detector_seconds) else f" and {self.detector_seconds:.2f} s of detection"
        )
        resumed = f", {self.num_resumed} of them by an earlier run" if self.num_resumed else ""
        return [
            f"{self.results}: {self.num_poses} poses in {self.num_pictures} pictures{resumed}",
            f"found by {self.method}",
            f"a picture takes {self.pose_seconds:.2f} s{detector} (medians), onboarding took "
            f"{self.onboarding_seconds:.1f} s",
            *self.notes,
        ]


class _Wanted(NamedTuple):
    """Which objects to look for in a picture, and how many of each (None: as many as there are)."""

    scene_id: int
    im_id: int
    counts: Mapping[int, int | None]


class _GivenBoxes:
    """Boxes that are known beforehand, by the object's name."""

    def __init__(self, boxes: Mapping[str, Float[Tensor, "n 4"]]) -> None:
        self.boxes = boxes

    def find_boxes(
        self, image: NDArray[np.uint8], cards: Sequence[ObjectCard]
    ) -> dict[str, Float[Tensor, "n 4"]]:
        nothing = torch.zeros(0, 4, dtype=torch.float64)
        return {card.name: self.boxes.get(card.name, nothing) for card in cards}


def run_bop(
    dataset_folder: Path,
    results_file: Path,
    *,
    make: EstimatorMaker | None = None,
    detections: Path | None = None,
    true_boxes: bool = False,
    split: str | None = None,
    with_depth: bool = False,
    num_views: int = 162,
    template_size: int = 224,
    cards_folder: Path | None = None,
    progress: Progress = lambda items, *_: items,
) -> BopRun:
    """Find the poses that a data set's targets ask for, and write them as BOP takes them.

    Args:
        dataset_folder: a data set in BOP's layout, with models and targets.
        results_file: ``METHOD_DATASET-SPLIT.csv``; it appears when all pictures are done.
        make: what finds the poses; the classical matcher unless given.
        detections: where to look: a JSON file of detections as BOP shares them (CNOS and others).
        true_boxes: look where the truth says, which no method may that is compared with others.
        split: of the data set; as the results' name says unless given.
        with_depth: give the depth pictures, too.
        num_views: 42, 162 or 642 templates of each object.
        template_size: side of each, pixels.
        cards_folder: where cards are kept, with what matchers computed for them; nowhere unless given.
        progress: wraps what takes long, with a text and a total.

    Returns:
        What was done. Without detections and true boxes the matcher's own detector looks, or it looks
        everywhere.

    Raises:
        FileExistsError: there is a results file already.
        FileNotFoundError: the data set, its targets, models or the detections are not there.
        ValueError: a name that BOP would misread, both sources of boxes, or notes of another run.
    """
    name = parse_results_name(results_file)
    if results_file.exists():
        raise FileExistsError(f"{results_file}: there is such a file; choose another name or delete it")
    if detections is not None and true_boxes:
        raise ValueError("--detections, --true-boxes: expected one source of boxes, got both")
    dataset = BopDataset(dataset_folder, split or name.split)
    wanted = _wanted(dataset)
    given = None if detections is None else group_by_image(read_bop_detections(detections))
    make = make or EstimatorMaker()
    source = "true boxes" if true_boxes else "own boxes" if detections is None else detections.name
    method = f"{make.name}, {source}{', depth' * with_depth}"
    started = time.perf_counter()
    cards = _cards(dataset, wanted, num_views, template_size, cards_folder, progress)
    if true_boxes or given is not None:  # no detector of its own is made then
        estimator = PoseEstimator(list(cards.values()), make.matcher(list(cards.values())), min_score=0.0)
    else:
        estimator = make(list(cards.values()), min_score=0.0, max_instances=_MOST_INSTANCES)
    onboarding = time.perf_counter() - started
    journal = BopJournal(
        results_file, _said(method, dataset, detections, make.choice, num_views, template_size)
    )
    resumed = len(journal.done)
    for place in progress(wanted, "pictures", len(wanted)):
        if (place.scene_id, place.im_id) in journal.done:
            continue
        frame = dataset.scenes[place.scene_id].frame(place.im_id)
        seen = None if given is None else given.get((place.scene_id, place.im_id), [])
        boxes = _true_boxes(frame, place) if true_boxes else _boxes(seen, place)
        journal.add(_look(frame, place, cards, estimator, boxes, _detector_time(seen), with_depth=with_depth))
    ordered = [journal.done[place.scene_id, place.im_id] for place in wanted]
    rows = [row for picture in ordered for row in _rows(picture)]
    write_bop_results(results_file, rows)
    journal.remove()
    return BopRun(
        results_file,
        method,
        len(wanted),
        resumed,
        len(rows),
        onboarding,
        _median([each.pose_seconds for each in ordered]),
        _median([each.detector_seconds for each in ordered if each.detector_seconds >= 0])
        if given is not None
        else math.nan,
        _notes(ordered, true_boxes=true_boxes),
    )


def _wanted(dataset: BopDataset) -> list[_Wanted]:
    """The targets by picture, in the order of the file."""
    pictures: dict[tuple[int, int], list[Target]] = {}
    for target in dataset.targets():
        pictures.setdefault((target.scene_id, target.im_id), []).append(target)
    absent = sorted({scene_id for scene_id, _ in pictures} - set(dataset.scenes))
    if absent:
        raise FileNotFoundError(
            f"{dataset.root / dataset.split}: the targets name scene {absent[0]}, not there"
        )
    every = dict.fromkeys(sorted(dataset.models_info))
    return [
        _Wanted(*place, {t.obj_id: t.inst_count for t in targets if t.obj_id is not None} or every)
        for place, targets in pictures.items()
    ]


def _cards(
    dataset: BopDataset,
    wanted: Sequence[_Wanted],
    num_views: int,
    template_size: int,
    folder: Path | None,
    progress: Progress,
) -> dict[int, ObjectCard]:
    """The card of each object that a target names, made or read."""
    numbers = sorted({number for place in wanted for number in place.counts})
    cards = {}
    for number in progress(numbers, "onboarding", len(numbers)):
        kept = None if folder is None else folder / object_name(number)
        if kept is not None and (kept / "card.json").is_file():
            cards[number] = load_card(kept)
            continue
        if number not in dataset.models_info:
            raise ValueError(
                f"{dataset.models_folder or dataset.root}: no models_info.json of object {number}"
            )
        card = onboard_mesh(
            dataset.mesh(number).mesh,
            name=object_name(number),
            num_views=num_views,
            template_size=template_size,
            symmetries=dataset.models_info[number].symmetry,
        )
        cards[number] = card if kept is None else save_card(card, kept)
    return cards


def _said(
    method: str,
    dataset: BopDataset,
    detections: Path | None,
    choice: MatcherChoice,
    num_views: int,
    template_size: int,
) -> dict[str, object]:
    """What must be the same for a run to go on."""
    weights = choice.weights
    return {
        "method": method,
        "dataset": str(dataset.root.resolve()),
        "split": dataset.split,
        "detections": None if detections is None else _state(detections),
        "weights": None if weights is None else _state(weights),
        "mode": choice.mode,
        "detector": choice.detector,
        "templates": [num_views, template_size],
    }


def _state(path: Path) -> list[object]:
    return [str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns]


def _boxes(seen: Sequence[BopDetection] | None, place: _Wanted) -> dict[str, Tensor] | None:
    """The surest detections of each object, some more than there are instances; None where none are given."""
    if seen is None:
        return None
    boxes = {}
    for number, count in place.counts.items():
        own = [one.box for one in seen if one.obj_id == number and bool((one.box[2:] > one.box[:2]).all())]
        most = (_MOST_INSTANCES if count is None else count) + _SPARE_BOXES
        if own:
            boxes[object_name(number)] = torch.stack(own[:most])
    return boxes


def _true_boxes(frame: Frame, place: _Wanted) -> dict[str, Tensor]:
    boxes: dict[str, list[Tensor]] = {}
    for one in frame.objects:
        box = one.visible_box() if one.obj_id in place.counts else None
        visible = one.visibility is None or one.visibility >= _COUNTED_VISIBILITY
        if visible and box is not None and bool(box.isfinite().all()):
            boxes.setdefault(one.name, []).append(box.double())
    return {name: torch.stack(own) for name, own in boxes.items()}


def _detector_time(seen: Sequence[BopDetection] | None) -> float:
    """Of the whole picture; 0 without a detector, and -1 where the detections do not say it."""
    return 0.0 if seen is None else max((one.time for one in seen), default=UNKNOWN_TIME)


def _look(
    frame: Frame,
    place: _Wanted,
    cards: Mapping[int, ObjectCard],
    estimator: PoseEstimator,
    boxes: Mapping[str, Tensor] | None,
    detector_seconds: float,
    *,
    with_depth: bool,
) -> PictureResult:
    if frame.camera is None:
        raise ValueError(f"{frame.name}: expected a camera, the data set gives none")
    image, depth = frame.read_image(), frame.read_depth() if with_depth else None
    counts = {number: count or _MOST_INSTANCES for number, count in place.counts.items()}
    started = time.perf_counter()
    finder = PoseEstimator(
        [cards[number] for number in place.counts],
        estimator.matcher,
        min_score=estimator.min_score,
        max_instances=max(counts.values()),
        box_finder=estimator.box_finder if boxes is None else _GivenBoxes(boxes),
    )
    found = finder.find(image, frame.camera, depth=None if depth is None else torch.from_numpy(depth))
    seconds = time.perf_counter() - started
    numbers = {card.name: number for number, card in cards.items()}
    rows = results_from_poses(place.scene_id, place.im_id, [one.pose for one in found], numbers)
    best = sorted(rows, key=lambda row: -row.score)
    kept = [
        row
        for rank, row in enumerate(best)
        if sum(other.obj_id == row.obj_id for other in best[:rank]) < counts[row.obj_id]
    ]
    return PictureResult(place.scene_id, place.im_id, seconds, detector_seconds, tuple(kept))


def _rows(picture: PictureResult) -> list[BopResult]:
    """The rows of a picture with its whole time, unknown where a part of it is."""
    whole = UNKNOWN_TIME
    if picture.detector_seconds >= 0:
        whole = picture.detector_seconds + picture.pose_seconds
    return [BopResult(r.scene_id, r.im_id, r.obj_id, r.score, r.cam_from_obj, whole) for r in picture.rows]


def _notes(pictures: Sequence[PictureResult], *, true_boxes: bool) -> tuple[str, ...]:
    notes = []
    if true_boxes:
        notes.append("true boxes: not to be compared with methods that detect; times hold no detector")
    unknown = sum(each.detector_seconds < 0 for each in pictures)
    if unknown:
        notes.append(f"{unknown} pictures have no detection, or detections without a time: their time is -1")
    empty = sum(not each.rows for each in pictures)
    if empty:
        notes.append(f"{empty} pictures have no pose at all; BOP's mean time leaves them out")
    return tuple(notes)


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else math.nan
