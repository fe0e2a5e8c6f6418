"""``scale-calibrate`` and ``scale-check`` as a user meets them."""

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from sightline.cli.main import main
from sightline.cli.scale import Kind, Measure, Mode
from sightline.depth_scale.depth_network import DepthKind
from sightline.depth_scale.measures import ScaleMeasure
from sightline.depth_scale.options import DepthMode
from sightline.formats.images import read_image, write_mask
from tests.depth_scale.scale_scenes import SIZE, write_folder
from tests.depth_scale.tiny_networks import save_dpt


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("planted"), {3: 1.4})


@pytest.fixture(scope="module")
def constant(good: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("constant") / "k.json"
    assert main(["scale-calibrate", str(good), "--output", str(path)]) == 0
    return path


def _run(capsys: pytest.CaptureFixture, *arguments: object) -> tuple[int, str]:
    status = main([str(argument) for argument in arguments])
    return status, capsys.readouterr().out


def _fails(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert error.startswith(f"sightline {arguments[0]}: ")
    return error


def test_calibration_says_what_it_rests_on(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    cut = np.zeros(SIZE[::-1], dtype=bool)
    cut[100:150, :60] = True
    source = tmp_path / "folder"
    source.mkdir()
    for kind in ("images", "depth", "cameras", "masks"):
        (source / kind).mkdir()
        for file in (good / kind).iterdir():
            (source / kind / file.name).write_bytes(file.read_bytes())
    write_mask(source / "masks" / "view_2.png", cut)
    (source / "masks" / "view_4.png").unlink()
    output, picture = tmp_path / "k.json", tmp_path / "k.png"
    arguments = (source, "--output", output, "--picture", picture, "--measure", "bbox_height")
    status, text = _run(capsys, "scale-calibrate", *arguments)
    assert status == 0
    stored = json.loads(output.read_text())
    assert f"k = {stored['value']:.5g} m, single samples lie" in text
    assert "(bbox_height, depth, median)" in text
    assert "5 of 6 masks used" in text
    assert "1 left out, the mask is cut off by the picture's border: masks/view_2.png" in text
    assert "1 left out, the picture has no mask: view_4" in text
    assert stored["spread"] < 0.03
    assert read_image(picture).shape == (520, 640, 3)


def test_planted_picture_makes_status_one(
    planted: Path, constant: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    output, pictures = tmp_path / "check.json", tmp_path / "pictures"
    arguments = (planted, "--constant", constant, "--output", output, "--picture", pictures)
    status, text = _run(capsys, "scale-check", *arguments)
    assert status == 1
    (line,) = [line for line in text.splitlines() if "times too large" in line]
    assert line.startswith("masks/view_3.png")
    assert "for its depth: expected" in line
    assert "6 fits, 1 too large, 0 too small, 0 not judged" in text
    content = json.loads(output.read_text())
    assert content["num_outside"] == 1
    assert len(content["rows"]) == 7
    assert sorted(path.name for path in pictures.iterdir()) == ["sizes.png", "view_3.png"]


def test_sound_folder_makes_status_zero(
    good: Path, constant: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    status, text = _run(
        capsys, "scale-check", good, "--constant", constant, "--output", tmp_path / "rows.csv"
    )
    assert status == 0
    assert "7 checked within 5 %: 7 fits" in text
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 8


def test_constant_as_a_number_and_a_tolerance(planted: Path, capsys: pytest.CaptureFixture):
    assert _run(capsys, "scale-check", planted, "--k", "0.1043")[0] == 1
    status, text = _run(capsys, "scale-check", planted, "--k", "0.1043", "--tolerance", "0.5")
    assert status == 0
    assert "within 50 %" in text


def test_depth_model_in_place_of_depth_maps(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    import torch

    torch.manual_seed(0)
    network = save_dpt(tmp_path / "dpt")
    output = tmp_path / "k.json"
    arguments = ("scale-calibrate", good, "--output", output, "--depth-model", network)
    status, text = _run(capsys, *arguments, "--depth-stat", "mean")
    assert status == 0
    assert "inv_depth, mean" in text
    assert json.loads(output.read_text())["options"]["depth_mode"] == "inv_depth"
    error = _fails(capsys, "scale-check", good, "--constant", output, "--depth-mode", "depth")
    assert "was calibrated for inv_depth" in error
    assert "gives 'inv_depth', not 'depth'" in _fails(capsys, *arguments, "--depth-mode", "depth")


def test_several_objects_need_a_choice(tmp_path: Path, good: Path, capsys: pytest.CaptureFixture):
    source = tmp_path / "folder"
    for kind in ("images", "depth", "cameras"):
        (source / kind).mkdir(parents=True)
        for file in (good / kind).iterdir():
            (source / kind / file.name).write_bytes(file.read_bytes())
    (source / "masks").mkdir()
    for file in (good / "masks").iterdir():
        for name in ("mug", "box"):
            (source / "masks" / f"{file.stem}_{name}.png").write_bytes(file.read_bytes())
    arguments = ("scale-calibrate", source, "--output", tmp_path / "k.json")
    assert "choose it with --object: box, mug" in _fails(capsys, *arguments)
    assert _run(capsys, *arguments, "--object", "mug")[0] == 0
    assert "no object is called 'cup'" in _fails(capsys, *arguments, "--object", "cup")


def test_bad_input(good: Path, constant: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert "expected --constant FILE" in _fails(capsys, "scale-check", good)
    assert "expected --constant FILE" in _fails(capsys, "scale-check", good, "--k", 1, "--constant", constant)
    assert "--k: expected a positive number" in _fails(capsys, "scale-check", good, "--k=-1")
    assert "no such file" in _fails(capsys, "scale-check", good, "--constant", tmp_path / "none.json")
    (tmp_path / "empty").mkdir()
    error = _fails(capsys, "scale-calibrate", tmp_path / "empty", "--output", tmp_path / "k.json")
    assert "expected a folder masks/" in error
    assert not (tmp_path / "k.json").exists()
    error = _fails(capsys, "scale-check", good, "--constant", constant, "--depth-model", "no/such/model")
    assert "expected a folder, or a model of the hub" in error
    arguments = ("scale-check", good, "--constant", constant)
    assert "expected .json or .csv" in _fails(capsys, *arguments, "--output", tmp_path / "rows.txt")
    assert "tolerance: expected a positive share" in _fails(capsys, *arguments, "--tolerance", 0)


def test_choices_are_those_of_the_library():
    """The command line spells them out, because it must not load torch to show its help."""
    assert get_args(Measure) == get_args(ScaleMeasure)
    assert set(get_args(Mode)) == {"auto", *get_args(DepthMode)}
    assert get_args(Kind) == get_args(DepthKind)
