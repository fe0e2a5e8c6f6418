"""Video with a detector that sees painted rectangles: states, numbers, gates and memory."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from sightline.geometry.boxes import boxes_from_masks
from sightline.records import Detections
from sightline.refdet.bank_detector import BankDetector, DetectorSettings
from sightline.refdet.selection import Proposals
from sightline.refdet.video import ObjectTracker, TrackedInstance, TrackSettings, follow

SIZE = (96, 64)


class PaintDetector(BankDetector[int]):
    """A bank is a channel: each level above 0 in it is an instance, whose score is its share of 255."""

    def __init__(self) -> None:
        super().__init__(DetectorSettings(), "paint")
        self.regions: list[Tensor | None] = []

    def onboard(self, templates, *, require_mask=False):
        raise NotImplementedError

    def onboard_card(self, card, *, max_templates=42):
        raise NotImplementedError

    def propose(self, image, banks, *, score_threshold=None, region=None):
        self.regions.append(region)
        found = []
        for channel in banks:
            layer = torch.from_numpy(image[..., channel].astype(np.int64))
            levels = [v for v in layer.unique().tolist() if v / 255 >= max(score_threshold, 1 / 255)]
            masks = torch.stack([layer == v for v in levels]) if levels else torch.zeros(0, *layer.shape) > 0
            boxes = boxes_from_masks(masks).double()
            inside = torch.ones(len(boxes), dtype=torch.bool)
            if region is not None:
                inside = (boxes[:, :2] > region[:2]).all(1) & (boxes[:, 2:] < region[2:]).all(1)
            scores = torch.tensor(levels, dtype=torch.float64) / 255
            found.append(Proposals(boxes[inside], scores[inside]))
        return found


def frame(*squares: tuple[int, int, int, int]) -> np.ndarray:
    """Squares of 10 px: left, top, channel, level."""
    image = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    for x, y, channel, level in squares:
        image[y : y + 10, x : x + 10, channel] = level
    return image


def run(frames: list[np.ndarray], banks=None, window=None, **settings) -> list[list[TrackedInstance]]:
    settings = {"found_score": 0.5, "confirm_frames": 1, "lose_frames": 1, **settings}
    followed = follow(frames, PaintDetector(), banks or {"mug": 0}, TrackSettings(**settings), window=window)
    return [each.instances for each in followed]


def states(reports: list[list[TrackedInstance]]) -> list[str]:
    return [report[0].state for report in reports]


def test_a_static_video_gives_the_same_boxes_in_each_frame():
    reports = run([frame((20, 20, 0, 200))] * 6)
    assert states(reports) == ["found"] * 6
    assert all(report[0].box.tolist() == [19.5, 19.5, 29.5, 29.5] for report in reports)
    assert {report[0].track_id for report in reports} == {0}


def test_hidden_is_lost_and_comes_back_with_its_number():
    seen, hidden = frame((20, 20, 0, 200)), frame()
    reports = run([hidden, seen, seen, hidden, hidden, frame((70, 40, 0, 200))])
    assert states(reports) == ["searching", "found", "found", "lost", "lost", "found"]
    assert [report[0].track_id for report in reports] == [None, 0, 0, 0, 0, 0]
    assert [report[0].box is None for report in reports] == [True, False, False, True, True, False]


def test_two_thresholds():
    levels = [100, 140, 100, 100, 60, 100, 140]  # found from 0.5 = 128, kept from 0.3 = 77
    reports = run([frame((20, 20, 0, level)) for level in levels])
    expected = ["searching", "found", "found", "found", "lost", "lost", "found"]
    assert states(reports) == expected


def test_gates():
    seen, hidden = frame((20, 20, 0, 200)), frame()
    frames = [seen, hidden, seen, seen, seen, hidden, hidden, seen, hidden, hidden, hidden]
    reports = run(frames, confirm_frames=3, lose_frames=3)
    expected = ["searching"] * 4 + ["found"] * 6 + ["lost"]
    assert states(reports) == expected
    shown = [report[0].box is not None for report in reports]
    assert shown == [False] * 4 + [True, False, False, True, False, False, False]


def test_moving_instances_keep_their_numbers():
    frames = [frame((5 + 6 * t, 10, 0, 200), (80 - 6 * t, 40, 0, 220)) for t in range(12)]
    reports = run(frames, max_instances=2)
    first = {each.track_id: each.box[1].item() for each in reports[0]}
    for report in reports:
        assert {each.track_id: each.box[1].item() for each in report} == first


def test_a_lost_instance_gives_its_number_to_the_nearest():
    both = frame((5, 10, 0, 200), (80, 40, 0, 220))
    again = frame((75, 45, 0, 200))
    reports = run([both, frame(), again], max_instances=2)
    number = next(each.track_id for each in reports[0] if each.box[0] > 70)
    states_then = {each.track_id: each.state for each in reports[2]}
    assert states_then == {number: "found", 1 - number: "lost"}


def test_no_more_numbers_than_instances():
    rng = np.random.default_rng(0)
    frames = [
        frame(*((int(rng.integers(0, 85)), int(rng.integers(0, 50)), 0, 130 + 20 * i) for i in range(5)))
        for _ in range(60)
    ]
    reports = run(frames, max_instances=3)
    assert max(len(report) for report in reports) == 3
    assert {each.track_id for report in reports for each in report} <= {0, 1, 2, None}


def test_objects_do_not_know_each_other():
    reports = run([frame((20, 20, 0, 200)), frame((60, 20, 1, 200))], {"mug": 0, "can": 1})
    assert [[(each.name, each.state) for each in report] for report in reports] == [
        [("mug", "found"), ("can", "searching")],
        [("mug", "lost"), ("can", "found")],
    ]


def test_a_second_box_of_a_known_instance_is_no_instance():
    tracker = ObjectTracker(["mug"], TrackSettings(confirm_frames=1, max_instances=2))
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 0.0, 10.0, 10.0]])
    found = Detections(boxes, torch.tensor([0.9, 0.8]), ("mug", "mug"), SIZE)
    tracker.update(Detections(boxes[:1], torch.tensor([0.9]), ("mug",), SIZE))
    assert len(tracker.update(found)) == 1


def test_smoothing_is_asked_for():
    frames = [frame((20, 20, 0, 200)), frame((24, 20, 0, 200))]
    assert run(frames)[1][0].box[0] == 23.5
    assert run(frames, smoothing=0.5)[1][0].box[0] == 21.5


def test_frames_are_not_kept():
    alive: list[weakref.ref] = []

    def frames() -> Iterator[np.ndarray]:
        for t in range(20):
            image = frame((20 + t, 20, 0, 200))
            alive.append(weakref.ref(image))
            yield image
            del image

    for _ in follow(frames(), PaintDetector(), {"mug": 0}):
        assert sum(each() is not None for each in alive) <= 2


def test_a_window_sees_what_the_whole_frame_sees():
    positions = [(20, 20), (22, 21), (24, 22), (80, 50), (80, 50), None, (10, 5), (11, 5)]
    frames = [frame() if p is None else frame((*p, 0, 200)) for p in positions]
    detector = PaintDetector()
    settings = TrackSettings(found_score=0.5, confirm_frames=1, lose_frames=1)
    windowed = list(follow(frames, detector, {"mug": 0}, settings, window=3.0))
    assert [each.index for each in windowed] == list(range(len(frames)))
    for (_, _, one), other in zip(windowed, run(frames), strict=True):
        assert one[0].state == other[0].state
        assert (one[0].box is None) == (other[0].box is None)
        assert one[0].box is None or torch.equal(one[0].box, other[0].box)
    whole = [region is None for region in detector.regions]
    # frame by frame: whole; window; window; window fails, whole; window; window fails, whole; whole; window
    assert whole == [True, False, False, False, True, False, False, True, True, False]
    assert torch.equal(detector.regions[1], torch.tensor([9.5, 9.5, 39.5, 39.5]).double())


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"found_score": 2.0}, "found_score"),
        ({"kept_score": 0.9}, "kept_score: expected at most the found_score"),
        ({"confirm_frames": 0}, "confirm_frames"),
        ({"lose_frames": 0}, "lose_frames"),
        ({"max_instances": 0}, "max_instances"),
        ({"smoothing": 1.0}, "smoothing"),
    ],
)
def test_settings_that_cannot_be(bad, message):
    with pytest.raises(ValueError, match=message):
        TrackSettings(**bad)


def test_a_window_is_larger_than_what_it_holds():
    with pytest.raises(ValueError, match="window: expected a factor above 1"):
        next(follow([frame()], PaintDetector(), {"mug": 0}, window=1.0))
