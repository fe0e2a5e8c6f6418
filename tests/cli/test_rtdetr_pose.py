"""The closed-set network as a user meets it: detect, pose, adapt, and its rows in the exam."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sightline.cli.main import main
from sightline.formats.images import write_depth, write_image
from sightline.formats.meshes import write_mesh
from sightline.nn.checkpoint import read_tensors
from sightline.rendering import render_views
from sightline.rtdetr_pose.inference import RTDETRPoseDetector
from sightline.rtdetr_pose.model import RTDETRPose
from sightline.rtdetr_pose.pictures import ObjectClass, classes_of_objects
from sightline.synthetic import closed_set_objects
from tests.printed_box import CAMERA, box_pose, picture_of, printed_box


def _weights(path: Path, classes: tuple[ObjectClass, ...]) -> Path:
    torch.manual_seed(0)
    model = RTDETRPose(len(classes), 64, 12, True, backbone="tiny", use_uncertainty=True)
    RTDETRPoseDetector(model, classes, input_size=(128, 96)).save(path)
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with depth, a card, and weights that have learned nothing."""
    root = tmp_path_factory.mktemp("world")
    write_mesh(root / "box.ply", printed_box())
    arguments = ["onboard", "--mesh", str(root / "box.ply"), "--output", str(root / "box")]
    assert main([*arguments, "--views", "42", "--template-size", "160", "--symmetries", "none"]) == 0
    for index, turn in enumerate((0.5, 0.7)):
        pose = box_pose(turn=turn)
        write_image(root / "rgb" / f"{index}.png", picture_of(printed_box(), pose))
        drawn = render_views(printed_box(), pose[None], CAMERA.K, CAMERA.image_size, outputs=("depth",))
        write_depth(root / "depth" / f"{index}.png", drawn.depth[0].numpy(), depth_scale_mm=0.1)
    classes = (ObjectClass("box", 0, printed_box().diameter), ObjectClass("mug", 1, 0.1))
    _weights(root / "random.safetensors", classes)
    _weights(root / "exam.safetensors", classes_of_objects(closed_set_objects()))
    return root


def _options(world: Path, output: Path) -> list[str]:
    weights = str(world / "random.safetensors")
    return ["--focal", "600", "--weights", weights, "--output", str(output), "--min-score", "0"]


def test_detect_needs_no_cards_and_says_poses(world, tmp_path):
    source = str(world / "rgb")
    assert main(["detect", source, "--detector", "rtdetr-pose", *_options(world, tmp_path)]) == 0
    written = json.loads((tmp_path / "detections.json").read_text())
    entry = written["predictions"][0]["detections"][0]
    assert entry["valid"] is True
    assert len(entry["t_xyz"]) == 3
    assert (tmp_path / "0_overlay.png").is_file()


def test_pose_refines_by_the_cards_and_verifies(world, tmp_path):
    source, card = str(world / "rgb" / "0.png"), str(world / "box")
    command = ["pose", source, "--card", card, "--detector", "rtdetr-pose"]
    assert main([*command, *_options(world, tmp_path)]) == 0
    assert (tmp_path / "overlay.png").is_file()


def test_a_card_of_an_object_that_it_does_not_know_is_refused(world, tmp_path, capsys):
    other = tmp_path / "other"
    mesh = str(world / "box.ply")
    onboard = ["onboard", "--mesh", mesh, "--name", "vase", "--output", str(other), "--views", "42"]
    assert main([*onboard, "--template-size", "64", "--symmetries", "none"]) == 0
    source = str(world / "rgb" / "0.png")
    command = ["pose", source, "--card", str(other), "--detector", "rtdetr-pose"]
    assert main([*command, *_options(world, tmp_path / "out")]) == 2
    assert "does not know 'vase'; it knows box, mug" in capsys.readouterr().err


def test_adapt_reports_each_step_and_keeps_the_file_of_weights(world, tmp_path):
    before, _ = read_tensors(world / "random.safetensors")
    command = ["adapt", str(world / "rgb"), "--ttt", "mim_safe", "--depth", str(world / "depth")]
    kept = tmp_path / "adapted.safetensors"
    options = ["--depth-unit-mm", "0.1", "--save", str(kept)]
    assert main([*command, *options, *_options(world, tmp_path)]) == 0
    report = json.loads((tmp_path / "adaptation.json").read_text())
    assert report["summary"]["steps"] == len(report["steps"]) == 2
    after, _ = read_tensors(world / "random.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert RTDETRPoseDetector.from_checkpoint(kept).names == ("box", "mug")


def test_adaptation_from_a_file_and_a_misspelt_key(world, tmp_path, capsys):
    spec = tmp_path / "spec.yaml"
    spec.write_text("method: tent\nlr: 0.001\nreset: stream\n")
    source = str(world / "rgb" / "0.png")
    command = ["detect", source, "--detector", "rtdetr-pose", "--ttt", str(spec)]
    assert main([*command, *_options(world, tmp_path / "out")]) == 0
    spec.write_text("metod: tent\n")
    assert main([*command, *_options(world, tmp_path / "out")]) == 2
    assert "unknown key 'metod'" in capsys.readouterr().err
    assert main([*command[:-1], "nowhere", *_options(world, tmp_path / "out")]) == 2
    assert "one of the presets safe," in capsys.readouterr().err


def test_options_of_others_are_refused(world, tmp_path, capsys):
    source = str(world / "rgb" / "0.png")
    assert main(["detect", source, "--card", str(world / "box"), "--ttt", "safe"]) == 2
    assert "--ttt, --depth: expected with --detector rtdetr-pose" in capsys.readouterr().err
    assert main(["detect", source]) == 2
    assert "--card: expected at least one card" in capsys.readouterr().err


def test_the_exam_takes_it_as_it_is_and_refined(world, tmp_path, capsys):
    weights = ["--weights", str(world / "exam.safetensors"), "--limit", "2", "--split", "development"]
    assert main(["evaluate", "exam-closed-set-pose", *weights, "--output", str(tmp_path)]) == 0
    assert (tmp_path / "figures.json").is_file()
    assert main(["evaluate", "exam-closed-set-pose", *weights, "--corruption", "fog", "--ttt", "safe"]) == 0
    assert "on fog 3" in capsys.readouterr().out
    wrong = ["--weights", str(world / "random.safetensors"), "--limit", "1"]
    assert main(["evaluate", "exam-closed-set-pose", *wrong]) == 2
    assert "expected weights for the exam's objects" in capsys.readouterr().err


def test_methods_beside_the_source(world, capsys, tmp_path):
    weights = ["--weights", str(world / "exam.safetensors"), "--limit", "2", "--split", "development"]
    command = ["evaluate", "exam-adaptation", *weights, "--corruption", "noise", "--ttt", "safe"]
    assert main([*command, "--output", str(tmp_path)]) == 0
    assert "safe: " in capsys.readouterr().out
    rows = json.loads((tmp_path / "adaptation.json").read_text())
    assert [row["method"] for row in rows] == ["source", "safe"]
    assert rows[0]["gain"] == 0
