import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sightline.cli.main import main
from sightline.formats.images import read_image
from sightline.geometry.symmetry import SymmetryGroup
from sightline.objects.card import ObjectCard
from sightline.objects.onboard import onboard_mesh
from sightline.pipeline.exam_files import write_exam_run
from sightline.pipeline.exam_run import ExamRun, _controlled
from sightline.synthetic import ExamReport
from tests.printed_box import printed_box


@pytest.fixture(scope="module")
def card() -> ObjectCard:
    none = SymmetryGroup.none()
    return onboard_mesh(printed_box(), name="box", num_views=42, template_size=64, symmetries=none)


def test_without_a_control_cards_stay_as_they_are(card: ObjectCard):
    (same,) = _controlled([card], None)
    assert same is card


def test_swapped_cards_are_those_of_another_of_the_same_texture(card: ObjectCard):
    cards = [
        replace(card, name=name, diameter=size)
        for name, size in zip("abcd", (0.1, 0.2, 0.3, 0.4), strict=True)
    ]
    swapped = _controlled(cards, "swapped")
    assert [each.name for each in swapped] == list("abcd")
    assert [each.diameter for each in swapped] == [0.3, 0.4, 0.1, 0.2]
    with pytest.raises(ValueError, match="at least 3 objects, these have 2"):
        _controlled(cards[:2], "swapped")


def test_shuffled_poses_leave_no_template_its_own(card: ObjectCard):
    (shuffled,) = _controlled([card], "shuffled-poses")
    own = torch.stack([each.cam_from_obj for each in card.templates])
    new = torch.stack([each.cam_from_obj for each in shuffled.templates])
    assert not bool((own == new).all((1, 2)).any())
    assert sorted(own[:, 0, 0].tolist()) == sorted(new[:, 0, 0].tolist())
    assert shuffled.templates[3].color is card.templates[3].color
    (again,) = _controlled([card], "shuffled-poses")
    assert torch.equal(new, torch.stack([each.cam_from_obj for each in again.templates]))


def test_a_control_that_is_none_is_refused(card: ObjectCard):
    with pytest.raises(ValueError, match="expected swapped or shuffled-poses, got 'upside-down'"):
        _controlled([card], "upside-down")


def test_claims_are_drawn_beside_the_figures(tmp_path: Path):
    levels = {
        "all": {"rotation": torch.rand(5)},
        "rich": {"rotation": torch.rand(5)},
        "low": {"rotation": torch.rand(0)},
    }
    report = ExamReport("pose", {"all": {"poses": 5.0, "ar": math.nan}}, ("texture",), (), levels=levels)
    paths = write_exam_run(tmp_path, ExamRun(report, 1, 2, 3.0, 0.4, 0.1), "sift")
    assert [path.name for path in paths] == ["figures.json", "coverage.png"]
    figures = json.loads(paths[0].read_text())
    assert (figures["object_seconds"], figures["figures"]["all"]["ar"]) == (0.1, None)
    assert read_image(paths[1]).shape == (480, 520, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["exam-pose", "--swapped", "--shuffled-poses"], "expected one control at a time"),
        (["exam-detection", "--with-depth"], "--with-depth: does not apply"),
        (["exam-detection", "--shuffled-poses"], "--shuffled-poses: does not apply"),
        (["exam-detection", "--swapped"], "--swapped: does not apply"),
        (["exam-pose", "--min-score", "0.5"], "--min-score: does not apply"),
        (["exam-pose", "--mode", "global"], "--mode: expected with --matcher vpog"),
        (["exam-detection", "--detector", "refdet", "--matcher", "vpog"], "--matcher: does not apply"),
        (["exam-pose", "--matcher", "vpog", "--weights", "none.safetensors"], "none.safetensors"),
        (["exam-detection", "--matcher", "vpog"], "--matcher: does not apply"),
    ],
)
def test_options_that_do_not_apply_are_named(options: list[str], message: str, capsys: pytest.CaptureFixture):
    assert main(["evaluate", *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_classical_matcher_sits_the_exam_with_depth(tmp_path: Path, capsys: pytest.CaptureFixture):
    arguments = ["evaluate", "exam-pose", "--limit", "1", "--split", "development", "--with-depth"]
    assert main([*arguments, "--output", str(tmp_path)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "sift with depth on exam-pose" in text
    assert "s an object in it" in text
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["figures"]["all"]["poses"] == 4
    assert figures["object_seconds"] > 0
    assert "coverage_all_rotation_90" in figures["figures"]["rich"]
