"""The command line as a user meets it: results in their place, and one clear line where input is bad."""

import json
from pathlib import Path

import numpy as np
import pytest

from sightline.cli.main import VERBS, main
from sightline.formats.images import read_image, write_image
from sightline.formats.meshes import write_mesh
from sightline.formats.videos import VideoReader, VideoWriter
from tests.printed_box import CAMERA, box_pose, picture_of, printed_box


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A card, a picture, a camera file and a short video."""
    root = tmp_path_factory.mktemp("world")
    write_mesh(root / "box.ply", printed_box())
    arguments = ["onboard", "--mesh", str(root / "box.ply"), "--output", str(root / "box")]
    assert main([*arguments, "--views", "42", "--template-size", "160", "--symmetries", "none"]) == 0
    write_image(root / "picture.png", picture_of(printed_box(), box_pose()))
    (root / "camera.json").write_text(json.dumps({"K": CAMERA.K.tolist(), "width": 320, "height": 240}))
    with VideoWriter(root / "clip.mp4", 10) as clip:
        for step in range(4):
            clip.write(picture_of(printed_box(), box_pose(turn=0.5 + 0.02 * step)))
    return root


def _fails(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """Run a verb that must fail with status 2 and one line, and return that line."""
    assert main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert error.startswith(f"sightline {arguments[0]}: ")
    return error


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "--config" in text
    assert "--min_score" not in text


def test_pose_of_a_picture(world: Path, tmp_path: Path):
    arguments = ["pose", str(world / "picture.png"), "--card", str(world / "box"), "--output", str(tmp_path)]
    assert main([*arguments, "--camera", str(world / "camera.json")]) == 0
    entry = json.loads((tmp_path / "poses.json").read_text())["predictions"][0]["detections"][0]
    assert entry["valid"] is True
    truth = box_pose()
    assert np.allclose(entry["R"], truth[:3, :3].numpy(), atol=0.01)
    assert np.allclose(entry["t_xyz"], truth[:3, 3].numpy(), atol=0.003)
    assert read_image(tmp_path / "overlay.png").shape == (240, 320, 3)
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "matches agree on this pose" in report
    assert "://" not in report.replace("http://www.w3.org", "")


def test_pose_with_an_unknown_focal_length(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    arguments = ["pose", str(world / "clip.mp4"), "--card", str(world / "box"), "--output", str(tmp_path)]
    assert main([*arguments, "--focal", "auto"]) == 0
    entry = json.loads((tmp_path / "poses.json").read_text())
    assert "estimated from" in entry["meta"]["camera"]
    focal = entry["predictions"][0]["camera"]["K"][0][0]
    assert abs(focal - 600) < max(3 * entry["meta"]["focal_std_px"], 30)
    assert "focal length" in capsys.readouterr().out


def test_track_a_video(world: Path, tmp_path: Path):
    arguments = ["track", str(world / "clip.mp4"), "--card", str(world / "box"), "--output", str(tmp_path)]
    assert main([*arguments, "--focal=600"]) == 0
    with VideoReader(tmp_path / "overlay.mp4") as overlay:
        assert overlay.count_frames() == 4
    assert (tmp_path / "timeline.png").is_file()
    frames = json.loads((tmp_path / "poses.json").read_text())["predictions"]
    assert [frame["detections"][0]["valid"] for frame in frames] == [True] * 4


def test_detect(world: Path, tmp_path: Path):
    arguments = [
        "detect",
        str(world / "picture.png"),
        "--card",
        str(world / "box"),
        "--output",
        str(tmp_path),
    ]
    assert main([*arguments, "--focal", "600"]) == 0
    entry = json.loads((tmp_path / "detections.json").read_text())["predictions"][0]["detections"][0]
    assert entry["name"] == "box"
    assert entry["segmentation"]["size"] == [240, 320]


def test_several_cards_and_a_config_file(world: Path, tmp_path: Path):
    config = tmp_path / "pose.yaml"
    config.write_text(f"source: {world / 'picture.png'}\ncard: [{world / 'box'}]\nfocal: 600\n")
    assert main(["pose", "--config", str(config), "--output", str(tmp_path / "out"), "--report=false"]) == 0
    assert not (tmp_path / "out" / "report.html").exists()


def test_misspelt_option_is_refused(world: Path):
    with pytest.raises(SystemExit) as stop:
        main(["pose", str(world / "picture.png"), "--card", str(world / "box"), "--focall", "600"])
    assert stop.value.code == 2


def test_missing_picture(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    line = _fails(capsys, "pose", tmp_path / "none.png", "--card", world / "box", "--focal", 600)
    assert "none.png: no such file or folder" in line


def test_truncated_picture(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    content = (world / "picture.png").read_bytes()
    (tmp_path / "half.png").write_bytes(content[: len(content) // 2])
    line = _fails(capsys, "pose", tmp_path / "half.png", "--card", world / "box", "--focal", 600)
    assert "half.png" in line


def test_no_card_there(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    line = _fails(capsys, "pose", world / "picture.png", "--card", tmp_path, "--focal", 600)
    assert "found no card.json in it" in line


def test_unknown_camera(world: Path, capsys: pytest.CaptureFixture):
    line = _fails(capsys, "pose", world / "picture.png", "--card", world / "box")
    assert "give --camera FILE, --focal PIXELS or --focal auto" in line


def test_camera_of_another_size(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "camera.json").write_text(json.dumps({"K": CAMERA.K.tolist(), "width": 640, "height": 480}))
    camera = tmp_path / "camera.json"
    line = _fails(capsys, "pose", world / "picture.png", "--card", world / "box", "--camera", camera)
    assert "the camera is for 640x480 pixels, the picture has 320x240" in line


def test_intrinsics_of_the_wrong_shape(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "camera.json").write_text(json.dumps({"K": [600.0, 600.0, 160.0, 120.0]}))
    camera = tmp_path / "camera.json"
    line = _fails(capsys, "pose", world / "picture.png", "--card", world / "box", "--camera", camera)
    assert "camera.json" in line


def test_transposed_intrinsics(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "camera.json").write_text(json.dumps({"K": CAMERA.K.T.tolist()}))
    camera = tmp_path / "camera.json"
    line = _fails(capsys, "pose", world / "picture.png", "--card", world / "box", "--camera", camera)
    assert "transposed" in line


def test_focal_length_cannot_be_found(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    write_image(tmp_path / "grey.png", np.full((240, 320, 3), 128, np.uint8))
    line = _fails(capsys, "pose", tmp_path / "grey.png", "--card", world / "box", "--focal", "auto")
    assert "no object was found" in line


def test_mesh_without_a_unit(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "box.obj").write_text(
        "v 0 0 0\nv 20 0 0\nv 0 15 0\nv 0 0 7\nf 1 3 2\nf 1 2 4\nf 2 3 4\nf 1 4 3\n"
    )
    line = _fails(capsys, "onboard", "--mesh", tmp_path / "box.obj", "--output", tmp_path / "card")
    assert "unit" in line
    assert not (tmp_path / "card").exists()


def test_mesh_without_faces(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "points.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\n")
    line = _fails(
        capsys, "onboard", "--mesh", tmp_path / "points.obj", "--unit", "m", "--output", tmp_path / "card"
    )
    assert "points.obj" in line


def test_bare_words_are_the_first_parameters(tmp_path: Path, capsys: pytest.CaptureFixture):
    arguments = ["synth", str(tmp_path / "bop"), "2", "3", "--split", "test", "--texture", "low"]
    assert main(arguments) == 0
    target = tmp_path / "scenes.json"
    assert main(["convert", str(tmp_path / "bop"), "bop", str(target), "json"]) == 0
    assert "2 frames, 6 objects" in capsys.readouterr().out
    assert len(json.loads(target.read_text())["predictions"]) == 2


def test_nothing_to_onboard(tmp_path: Path, capsys: pytest.CaptureFixture):
    line = _fails(capsys, "onboard", "--output", tmp_path / "card")
    assert "--mesh" in line


def test_bop_evaluation_without_results(capsys: pytest.CaptureFixture):
    assert "--results CSV" in _fails(capsys, "evaluate", "bop")
