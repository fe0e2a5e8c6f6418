"""The verb ``doctor``: what it prints, what it writes, and its three exit statuses."""

import json
from pathlib import Path

import numpy as np
import pytest

from sightline.cli.main import main
from sightline.formats.images import read_image, write_image
from sightline.formats.meshes import write_mesh
from sightline.objects.card_files import save_card
from sightline.pipeline.onboarding import make_card
from tests.printed_box import CAMERA, box_pose, picture_of, printed_box


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mesh, picture, camera and pose, all sound; the pose also in millimetres; the camera also transposed."""
    root = tmp_path_factory.mktemp("given")
    write_mesh(root / "box.ply", printed_box(), unit="mm")
    write_image(root / "picture.png", picture_of(printed_box(), box_pose()))
    (root / "camera.json").write_text(json.dumps({"K": CAMERA.K.tolist()}))
    (root / "turned.json").write_text(json.dumps({"K": CAMERA.K.T.tolist()}))
    pose = box_pose()
    (root / "pose.json").write_text(json.dumps({"cam_from_obj": pose.tolist()}))
    pose[:3, 3] *= 1000
    (root / "pose_mm.json").write_text(json.dumps({"cam_from_obj": pose.tolist()}))
    return root


def _run(given: Path, *arguments: object, camera: str = "camera.json", pose: str = "pose.json") -> int:
    files = ["--mesh", given / "box.ply", "--image", given / "picture.png"]
    files += ["--camera", given / camera, "--pose", given / pose]
    return main(["doctor", *[str(argument) for argument in (*files, *arguments)]])


def _box_of(given: Path) -> list[str]:
    seen = (read_image(given / "picture.png") != read_image(given / "picture.png")[0, 0]).any(-1)
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    return ["--box", *(str(v) for v in (columns[0] - 0.5, rows[0] - 0.5, columns[-1] + 0.5, rows[-1] + 0.5))]


def test_sound_inputs_exit_with_0(given: Path, capsys: pytest.CaptureFixture):
    assert _run(given, *_box_of(given)) == 0
    text = capsys.readouterr().out
    assert "box.ply, diameter 0.153 m, unit mm" in text
    assert "note: mesh: unit mm, stated" in text
    assert "compared: drawn at its pose, against what was given: box IoU 0.9" in text
    assert text.endswith("nothing inconsistent found\n")


def test_a_fault_exits_with_1(given: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    files = ["--picture", tmp_path / "drawn.png", "--json", tmp_path / "found.json"]
    assert _run(given, *_box_of(given), *files, pose="pose_mm.json") == 1
    text = capsys.readouterr().out
    assert "fault: pose: its translation looks like millimetres read as metres (as given box IoU 0.0" in text
    assert "nothing inconsistent" not in text
    assert read_image(tmp_path / "drawn.png").shape == (240, 320, 3)
    entry = json.loads((tmp_path / "found.json").read_text())
    assert [fault["kind"] for fault in entry["faults"]] == ["pose_unit"]
    assert set(entry["understood"]) == {"mesh", "image", "camera", "pose", "box"}


def test_a_camera_that_no_other_verb_reads(given: Path, capsys: pytest.CaptureFixture):
    assert _run(given, *_box_of(given), camera="turned.json") == 1
    assert "fault: camera: K is transposed" in capsys.readouterr().out


def test_nothing_to_compare_is_said(given: Path, capsys: pytest.CaptureFixture):
    assert main(["doctor", "--mesh", str(given / "box.ply")]) == 0
    assert "compared: nothing" in capsys.readouterr().out


def test_a_card_against_another_mesh(given: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    made = make_card(name="box", mesh=given / "box.ply", num_views=42, template_size=64, symmetries="none")
    save_card(made.card, tmp_path / "box")
    assert main(["doctor", "--card", str(tmp_path / "box")]) == 0
    both = ["doctor", "--card", str(tmp_path / "box"), "--mesh", str(given / "box.ply")]
    assert main(both) == 0
    assert main([*both, "--unit", "cm"]) == 1
    assert "its diameter is 10 times that of the card" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "expected at least one of mesh"),
        (["--mesh", "absent.ply"], "absent.ply: no such mesh"),
        (["--pose", "absent.json"], "absent.json: no such file"),
        (["--box", "1", "2", "3"], "expected four numbers"),
    ],
)
def test_what_cannot_be_read_exits_with_2(arguments: list[str], words: str, capsys: pytest.CaptureFixture):
    assert main(["doctor", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("sightline doctor: ")
    assert words in error
    assert error.count("\n") == 1
