"""Key-point errors: literals, the handling of unknown points, projection into several views."""

from __future__ import annotations

import math

import pytest
import torch

from sightline.geometry.cameras import project
from sightline.geometry.poses import look_at, transform
from sightline.metrics.keypoints import (
    bone_length_variation,
    bone_lengths,
    mpjpe,
    oks,
    pck,
    point_errors,
    report_keypoints,
    reprojection_errors,
    summarise_errors,
)
from sightline.records import Keypoints2D
from tests.tolerances import tolerance

F64 = torch.float64
NAN = math.nan


def tensor(*rows):
    return torch.tensor(rows, dtype=F64)


def test_point_errors():
    predicted, truth = tensor([3, 4], [NAN, 0], [1, 1]), tensor([0, 0], [0, 0], [1, NAN])
    errors = point_errors(predicted, truth)
    assert errors[0] == 5
    assert errors[1:].isnan().all()
    assert point_errors(tensor([1, 2, 2]), tensor([0, 0, 0])).item() == 3


def test_mpjpe():
    truth = tensor([0, 0, 0], [1, 0, 0], [NAN, 0, 0])
    moved = truth + tensor([0.0, 0.3, 0.4])
    assert mpjpe(moved, truth).item() == pytest.approx(0.5)
    assert mpjpe(moved, truth, root=1).item() == pytest.approx(0)
    assert mpjpe(torch.stack([moved, truth]), truth).tolist() == pytest.approx([0.5, 0])
    assert mpjpe(moved * NAN, truth).isnan()


def test_pck_counts_the_missing_as_wrong_and_leaves_out_what_is_not_asked_for():
    truth = tensor([0, 0], [0, 0], [0, 0], [NAN, 0])
    predicted = tensor([0, 2], [0, 2.1], [NAN, 0], [0, 0])
    assert pck(predicted, truth, 2.0).item() == pytest.approx(1 / 3)  # exactly at the limit is right
    limits = torch.tensor([1.0, 3.0, 9.0, 9.0], dtype=F64)
    assert pck(predicted, truth, limits).item() == pytest.approx(1 / 3)
    assert pck(predicted, truth * NAN, 2.0).isnan()
    assert pck(torch.stack([predicted, truth]), truth, 2.0).tolist() == pytest.approx([1 / 3, 1])


def test_oks():
    truth = tensor([0, 0], [10, 10], [NAN, 0])
    sigmas = torch.tensor([0.1, 0.05, 0.1], dtype=F64)
    area = torch.tensor(400.0, dtype=F64)
    predicted = tensor([4, 0], [10, 12], [0, 0])
    # 2 area (2 sigma)^2 is 32 and 8
    wanted = (math.exp(-16 / 32) + math.exp(-4 / 8)) / 2
    assert oks(predicted, truth, area, sigmas).item() == pytest.approx(wanted)
    lost = tensor([4, 0], [NAN, NAN], [0, 0])
    assert oks(lost, truth, area, sigmas).item() == pytest.approx(math.exp(-16 / 32) / 2)
    assert oks(truth, truth, area, sigmas).item() == 1
    two = oks(torch.stack([truth, predicted]), truth, torch.tensor([400.0, 1e12], dtype=F64), sigmas)
    assert two.tolist() == pytest.approx([1, 1])


def test_reprojection_errors_of_several_lenses():
    generator = torch.Generator().manual_seed(0)
    points = 0.2 * torch.randn(5, 7, 3, generator=generator, dtype=F64)
    eyes = 2 * torch.nn.functional.normalize(torch.randn(3, 3, generator=generator, dtype=F64), dim=-1)
    cam_from_world = look_at(eyes)
    K = tensor([800, 0, 320], [0, 790, 240], [0, 0, 1]) * tensor([[1.0]], [[1.1]], [[1.2]])
    K[:, 2, 2] = 1
    distortion = 0.01 * torch.randn(3, 5, generator=generator, dtype=F64)
    observed = torch.stack(
        [
            project(transform(cam_from_world[view], points), K[view], distortion[view]) + tensor([3.0, 4.0])
            for view in range(3)
        ],
        dim=1,
    )
    observed[0, 1, 2] = NAN
    errors = reprojection_errors(points, observed, cam_from_world, K, distortion)
    assert errors.shape == (5, 3, 7)
    assert errors.isnan().sum() == 1
    assert errors[0, 1, 2].isnan()
    torch.testing.assert_close(errors.nan_to_num(5), torch.full_like(errors, 5), **tolerance(F64, "pixel"))
    without_lens = reprojection_errors(points, observed, cam_from_world, K)
    assert (without_lens - errors).nan_to_num().abs().max() > 0.1


def test_a_point_behind_a_camera_has_no_reprojection_error():
    K = tensor([100, 0, 50], [0, 100, 50], [0, 0, 1])[None]
    errors = reprojection_errors(
        tensor([0, 0, -1]), torch.zeros(1, 1, 2, dtype=F64), torch.eye(4, dtype=F64)[None], K
    )
    assert errors.isnan().all()


def test_bones():
    bones = torch.tensor([[0, 1], [1, 2]])
    frames = torch.stack(
        [
            tensor([0, 0, 0], [1, 0, 0], [1, 2, 0]),
            tensor([5, 0, 0], [5, 3, 0], [5, 3, 2]),
            tensor([0, 0, 0], [NAN, 0, 0], [0, 0, 0]),
        ]
    )
    lengths = bone_lengths(frames, bones)
    assert lengths[:2].tolist() == [[1, 2], [3, 2]]
    assert lengths[2].isnan().all()
    variation = bone_length_variation(frames, bones)
    assert variation.tolist() == pytest.approx([math.sqrt(2) / 2, 0])  # deviation with n - 1
    assert bone_length_variation(frames[1:], bones).isnan().all()  # one known frame says nothing
    both = bone_length_variation(torch.stack([frames, 10 * frames]), bones)
    torch.testing.assert_close(both[0], both[1], **tolerance(F64))


def test_summary():
    truth = torch.zeros(6, 2, dtype=F64)
    truth[5] = NAN
    predicted = tensor([0, 1], [0, 2], [0, 3], [0, 10], [NAN, 0], [0, 0])
    summary = summarise_errors(predicted, truth)
    assert (summary.mean, summary.median) == (4, 2.5)
    assert summary.percentile_95 == pytest.approx(3 + 0.85 * 7)
    assert (summary.num_known, summary.num_missed) == (4, 1)
    nothing = summarise_errors(predicted * NAN, truth)
    assert math.isnan(nothing.mean)
    assert (nothing.num_known, nothing.num_missed) == (0, 5)


def frame(points):
    points = torch.as_tensor(points, dtype=F64)
    return Keypoints2D(points, torch.ones(points.shape[:2], dtype=F64), ("nose", "tail"), ("top", "side"))


def test_report():
    truth = frame(torch.zeros(2, 2, 2))
    first = frame([[[1, 0], [2, 0]], [[3, 0], [4, 0]]])  # top: 1 2, side: 3 4
    second = frame([[[1, 0], [NAN, 0]], [[3, 0], [4, 0]]])
    report = report_keypoints([first, second], [truth, truth])
    assert report.by_name["nose"].mean == 2
    assert report.by_name["tail"].mean == pytest.approx(10 / 3)
    assert report.by_name["tail"].num_missed == 1
    assert report.by_view["top"].mean == pytest.approx(4 / 3)
    assert report.by_view["side"].median == 3.5
    assert report.overall.num_known == 7


def test_reports_of_other_points_are_refused():
    one = frame(torch.zeros(2, 2, 2))
    other = Keypoints2D(one.points, one.confidence, ("tail", "nose"), one.views)
    with pytest.raises(ValueError, match=r"frame 1: expected key points \('nose', 'tail'\)"):
        report_keypoints([one, other], [one, one])
    for predicted in ([one], []):
        with pytest.raises(ValueError, match="one record a frame"):
            report_keypoints(predicted, [])
