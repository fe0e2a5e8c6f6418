import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from sightline.depth_scale.calibration import ScaleConstant
from sightline.depth_scale.folder import ScaleFolder, ScaleSample
from sightline.depth_scale.folder_calibration import calibrate_samples
from sightline.depth_scale.folder_listing import ScaleEntry
from sightline.depth_scale.options import ScaleOptions
from sightline.depth_scale.scale_check import ScaleCheck, check_samples, tolerance_of
from sightline.depth_scale.size_pictures import draw_size, scale_on_contact
from sightline.geometry.cameras import Camera
from tests.depth_scale.scale_scenes import VIEWS, write_folder

OPTIONS = ScaleOptions(depth_mode="depth", border_policy="ignore")
MEASURES = ["sqrt_area", "bbox_height", "bbox_width", "diagonal", "moment_height", "perimeter"]


def square(side=20, depth=2.0, *, camera=None, place=10, visibility=None, grid=(60, 80), name="a"):
    """A square of some cells in a picture of 80x60 pixels."""
    mask = torch.zeros(grid)
    mask[place : place + side, place : place + side] = 1.0
    camera = camera or Camera.from_focal(100.0, 80, 60)
    entry = ScaleEntry(
        name, "mug", mask.bool().numpy(), f"masks/{name}.png", None, None, 1.0, None, visibility
    )
    return ScaleSample(entry, mask, torch.full(grid, depth), camera, "made up")


def constant(value=0.4, spread=0.01, **options) -> ScaleConstant:
    return ScaleConstant(value, spread, 9, 9, replace(OPTIONS, **options), in_image_pixels=True)


def judge(sample, held=None, **options):
    ((_, row),) = check_samples([sample], held or constant(), **options)
    return row


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("planted"), {3: 1.4})


@pytest.mark.parametrize("measure", MEASURES)
def test_planted_picture_is_found_and_named(good, planted, measure):
    options = replace(OPTIONS, scale_measure=measure)
    calibration = calibrate_samples(ScaleFolder(good).samples(), options)
    assert calibration.constant.spread < 0.03
    assert calibration.constant.num_used == len(VIEWS)
    rows = [
        row for _, row in check_samples(ScaleFolder(planted).samples(), calibration.constant, tolerance=0.1)
    ]
    check = ScaleCheck(calibration.constant, 0.1, tuple(rows))
    assert [row.mask for row in check.outside] == ["masks/view_3.png"]
    assert check.outside[0].verdict == "too large"
    assert check.outside[0].ratio == pytest.approx(1.4, rel=0.05)
    assert check.summary() == "7 checked within 10 %: 6 fits, 1 too large, 0 too small, 0 not judged"


def test_one_bad_picture_does_not_move_the_constant(good, planted):
    right, wrong = (calibrate_samples(ScaleFolder(f).samples(), OPTIONS).constant for f in (good, planted))
    assert wrong.value == pytest.approx(right.value, rel=0.01)


def test_rows_of_a_calibration(good):
    calibration = calibrate_samples(ScaleFolder(good).samples(), OPTIONS)
    ks = sorted(row.k for row in calibration.rows)
    assert ks[len(ks) // 2] == pytest.approx(calibration.constant.value)
    for row, (depth, focal) in zip(calibration.rows, VIEWS, strict=True):
        assert row.unit_px == pytest.approx(focal / depth, rel=0.06)
        assert row.measured_px == pytest.approx(row.k * row.unit_px)


def test_words_of_a_verdict():
    # k f / Z = 0.4 * 100 / 2 = 20 px
    assert judge(square(20)).words == "fits its depth: expected 20 px, measured 20 px"
    large, small = judge(square(30)), judge(square(16))
    assert large.words == "1.50 times too large for its depth: expected 20 px, measured 30 px"
    assert small.words == "1.25 times too small for its depth: expected 20 px, measured 16 px"
    assert (large.verdict, small.verdict) == ("too large", "too small")
    assert (large.image, large.object_name, large.mask) == ("a", "mug", "masks/a.png")
    assert (large.depth, large.focal_px) == (2.0, 100.0)


def test_tolerance_is_the_same_factor_both_ways():
    for side, outside in ((21, False), (23, True), (19, False), (18, True)):
        assert judge(square(side), tolerance=0.1).is_outside == outside, side
    assert not judge(square(22), tolerance=0.2).is_outside
    assert not judge(square(17), tolerance=0.2).is_outside  # 20 / 1.2 = 16.7
    assert judge(square(16), tolerance=0.2).is_outside


def test_tolerance_from_the_spread():
    assert tolerance_of(constant(spread=0.0)) == 0.05
    assert tolerance_of(constant(spread=0.1)) == pytest.approx(np.exp(0.3) - 1)
    assert judge(square(22), constant(spread=0.01)).is_outside
    assert not judge(square(22), constant(spread=0.1)).is_outside


def test_size_is_in_image_pixels_whatever_the_grid():
    fine, coarse = square(20), square(10, grid=(30, 40), place=5)
    assert judge(fine).measured_px == judge(coarse).measured_px == 20.0
    ks = [calibrate_samples([s], OPTIONS).constant.value for s in (fine, coarse)]
    assert ks[0] == pytest.approx(0.4)
    assert ks[1] == pytest.approx(0.4)


def test_each_measure_uses_its_own_focal_length():
    camera = Camera(torch.tensor([[100.0, 0, 40], [0, 225.0, 30], [0, 0, 1]]), 80, 60)
    for measure, focal in (("bbox_width", 100.0), ("bbox_height", 225.0), ("sqrt_area", 150.0)):
        row = judge(square(20, camera=camera), constant(scale_measure=measure))
        assert row.focal_px == pytest.approx(focal)
        assert row.expected_px == pytest.approx(0.4 * focal / 2)


def test_inverse_depth():
    held = constant(value=0.1, depth_mode="inv_depth")  # 0.1 * 100 * 2 = 20 px
    assert judge(square(20), held).words == "fits its depth: expected 20 px, measured 20 px"


def test_what_cannot_be_judged_says_why():
    for sample, why in (
        (square(0), "the mask is empty"),
        (square(depth=0.0), "there is no depth under the mask"),
        (square(place=0), "the mask is cut off by the picture's border"),
        (square(visibility=0.62), "only 62 % of it is visible"),
    ):
        row = judge(sample)
        assert (row.verdict, row.words, row.is_outside) == ("not judged", why, False)
        assert row.ratio is None


def test_cut_off_mask_can_still_be_too_large():
    held = constant(border_policy="one_sided")
    assert judge(square(30, place=0), held).verdict == "too large"
    assert judge(square(10, place=0), held).verdict == "fits"
    assert judge(square(10), held).verdict == "too small"


def test_calibration_leaves_out_and_counts():
    samples = [
        square(20, name="a"),
        square(20, place=0, name="b"),
        square(20, visibility=0.3, name="c"),
        square(20, visibility=0.95, name="d"),
        square(0, name="e"),
    ]
    calibration = calibrate_samples(samples, OPTIONS)
    assert (calibration.constant.num_used, calibration.constant.num_given) == (2, 5)
    assert [bool(row.reason) for row in calibration.rows] == [False, True, True, False, True]
    assert sum(calibration.constant.dropped.values()) == 3
    assert set(calibration.constant.dropped) == {row.reason for row in calibration.rows if row.reason}


def test_nothing_to_calibrate_from():
    with pytest.raises(ValueError, match=r"none of 1 samples can be used \(1: the mask is empty\)"):
        calibrate_samples([square(0)], OPTIONS)
    with pytest.raises(ValueError, match="none of 2 objects is visible by 90 %"):
        calibrate_samples([square(visibility=0.2)] * 2, OPTIONS)


def test_bad_constant_and_tolerance():
    with pytest.raises(ValueError, match="expected one in image pixels"):
        judge(square(), replace(constant(), in_image_pixels=False))
    for tolerance in (0.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="tolerance: expected a positive share"):
            judge(square(), tolerance=tolerance)


def test_rows_as_files(tmp_path):
    rows = tuple(judge(square(side, name=f"m{side}"), tolerance=0.1) for side in (20, 40, 12, 0))
    check = ScaleCheck(constant(), 0.1, rows)
    assert [row.mask for row in check.outside] == ["masks/m40.png", "masks/m12.png"]
    check.save(tmp_path / "check.json")
    content = json.loads((tmp_path / "check.json").read_text())
    assert (content["num_outside"], content["tolerance"]) == (2, 0.1)
    assert content["constant"]["value"] == 0.4
    assert [row["verdict"] for row in content["rows"]] == ["fits", "too large", "too small", "not judged"]
    check.save(tmp_path / "check.csv")
    with (tmp_path / "check.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert read[1]["words"].startswith("2.00 times too large")
    assert (read[1]["ratio"], read[3]["ratio"]) == ("2.0", "")
    with pytest.raises(ValueError, match=r"expected \.json or \.csv, got '\.txt'"):
        check.save(tmp_path / "check.txt")


def test_scaled_outline_stands_where_the_object_stands():
    mask = np.zeros((60, 80), dtype=bool)
    mask[20:50, 30:50] = True
    for factor in (0.5, 1.5):
        scaled = scale_on_contact(mask, factor)
        rows, columns = np.flatnonzero(scaled.any(1)), np.flatnonzero(scaled.any(0))
        assert rows[-1] == 49
        assert len(rows) == pytest.approx(30 * factor, abs=1)
        assert len(columns) == pytest.approx(20 * factor, abs=1)
        assert columns.mean() == pytest.approx(39.5, abs=0.5)
    assert not scale_on_contact(np.zeros((4, 4), dtype=bool), 2.0).any()


def test_picture_shows_both_outlines(planted):
    folder = ScaleFolder(planted)
    held = constant(value=0.1043)
    sample, row = next((s, r) for s, r in check_samples(folder.samples(), held) if r.is_outside)
    drawn = draw_size(sample, row)
    assert drawn.shape == (240, 320, 3)
    pixels = drawn.reshape(-1, 3).astype(int)
    for color in ((213, 94, 0), (86, 180, 233)):
        assert (np.abs(pixels - color).max(axis=1) < 60).sum() > 40
    bare = replace(sample, entry=replace(sample.entry, image=None))
    assert draw_size(bare, row).shape == (240, 320, 3)
