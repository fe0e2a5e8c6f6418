"""The reference detector behind its verbs, with weights that have learned nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sightline.cli.main import main
from sightline.formats.images import write_image
from sightline.nn.checkpoint import save_model
from sightline.objects.card_files import save_card
from sightline.objects.onboard import onboard_mesh
from sightline.refdet.detector import ConvNeXtRefDet
from sightline.synthetic import make_object


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = ConvNeXtRefDet(16, 8, 16, backbone="nano", detection_stride=8, template_scales=(1.0,))
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    sizes = {"search_size": [128, 96], "template_size": [64, 64], "score_threshold": 0.001}
    save_model(path, model, model.config, sizes)
    return path


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "shelf.png"
    write_image(path, np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8))
    return path


def test_detect_with_a_card_and_with_photographs(weights, picture, tmp_path):
    save_card(onboard_mesh(make_object("can", 0).mesh, name="can", num_views=42), tmp_path / "can")
    photos = tmp_path / "mug"
    for i in range(2):
        write_image(
            photos / f"{i}.png", np.random.default_rng(i).integers(30, 220, (50, 40, 3), dtype=np.uint8)
        )
    arguments = ["detect", str(picture), "--card", str(tmp_path / "can"), str(photos)]
    options = ["--detector", "refdet", "--weights", str(weights), "--instances", "2"]
    assert main([*arguments, *options, "--output", str(tmp_path / "out")]) == 0
    written = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert "can" in json.dumps(written)
    assert "mug" in json.dumps(written)
    assert (tmp_path / "out" / "overlay.png").is_file()
    assert (tmp_path / "can" / "features").is_dir()


def test_the_package_s_weights_are_taken_unless_others_are_given(picture, tmp_path, capsys):
    photos = tmp_path / "mug"
    write_image(photos / "0.png", np.random.default_rng(0).integers(30, 220, (50, 40, 3), dtype=np.uint8))
    out = tmp_path / "out"
    assert (
        main(["detect", str(picture), "--card", str(photos), "--detector", "refdet", "--output", str(out)])
        == 0
    )
    assert "refdet-tiny" in (out / "detections.json").read_text()
    capsys.readouterr()
    assert main(["evaluate", "exam-pose", "--detector", "refdet", "--weights", "w.safetensors"]) == 2
    assert "exam-detection" in capsys.readouterr().err


def test_nothing_found_gives_a_hint(weights, picture, tmp_path, capsys):
    photos = tmp_path / "mug"
    write_image(photos / "0.png", np.full((50, 40, 3), 90, np.uint8))
    arguments = ["detect", str(picture), "--card", str(photos), "--detector", "refdet", "--min-score", "0.99"]
    assert main([*arguments, "--weights", str(weights), "--output", str(tmp_path / "out")]) == 0
    assert "--min-score" in capsys.readouterr().out


def test_the_exam_has_a_row_for_it(weights, capsys):
    assert (
        main(
            ["evaluate", "exam-detection", "--detector", "refdet", "--weights", str(weights), "--limit", "2"]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert "ap50" in out
    assert "refdet small on exam-detection" in out


def test_a_control_needs_objects_to_swap(weights, capsys):
    options = ["--detector", "refdet", "--weights", str(weights), "--limit", "1", "--swapped"]
    assert main(["evaluate", "exam-detection", *options]) == 2
    assert "at least 3 objects" in capsys.readouterr().err
