"""Thresholds of a detector from pictures without its objects, through the verbs, with untrained weights."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from sightline.cli.main import main
from sightline.formats.images import read_image, write_image
from sightline.nn.checkpoint import read_config, save_model
from sightline.objects.onboard import onboard_mesh
from sightline.pipeline import exam_refdet
from sightline.pipeline.refdet_banks import make_banks
from sightline.refdet.detector import ConvNeXtRefDet
from sightline.refdet.presence import PresenceCurve
from sightline.refdet.reference_detector import ReferenceDetector


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = ConvNeXtRefDet(16, 8, 16, backbone="nano", detection_stride=8, template_scales=(1.0,))
    torch.nn.init.normal_(model.head.objectness[-1].weight, std=0.5)  # scores that are well apart
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_model(
        path, model, model.config, {"search_size": [96, 64], "template_size": [64, 64], "note": "kept"}
    )
    return path


def write_noise(folder: Path, count: int, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    for i in range(count):
        write_image(folder / f"{i:02}.png", rng.integers(0, 255, (64, 96, 3), dtype=np.uint8))
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("photos")
    return [write_noise(root / name, 2, seed) for seed, name in enumerate(("mug", "can"))]


@pytest.fixture(scope="module")
def negatives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("negatives"), 12, seed=9)


def calibrate(weights: Path, output: Path, *more: str) -> int:
    return main(["calibrate-detector", "--weights", str(weights), "--output", str(output), *more])


def test_new_weights_alarm_as_rarely_as_asked(weights, photos, negatives, tmp_path, capsys):
    output = tmp_path / "calibrated.safetensors"
    cards = ["--card", *map(str, photos)]
    assert calibrate(weights, output, *cards, "--negatives", str(negatives), "--false-alarms", "0.2") == 0
    printed = capsys.readouterr().out
    assert "2 objects in 12 pictures without them" in printed
    assert "of 24" in printed

    detector = ReferenceDetector.from_checkpoint(output)
    banks = make_banks(detector, photos)
    pictures = [read_image(path) for path in sorted(negatives.iterdir())]
    found = [detector.detect(picture, {name: bank}) for picture in pictures for name, bank in banks.items()]
    assert sum(len(one) > 0 for one in found) == 3  # above rank ceil(0.8 * 13 * 2) = 21 of 24
    extra = read_config(output).extra
    assert extra["note"] == "kept"
    assert extra["score_threshold"] == detector.settings.score_threshold
    presence = PresenceCurve.from_extra(extra)
    assert presence.threshold_for(0.2) == detector.settings.score_threshold < presence.threshold_for(0.1)
    state, before = detector.model.state_dict(), ReferenceDetector.from_checkpoint(weights).model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in before.items())


def test_generated_task_gives_recall_too(weights, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(exam_refdet, "onboard_mesh", partial(onboard_mesh, template_size=64))
    output = tmp_path / "calibrated.safetensors"
    assert calibrate(weights, output, "--limit", "6", "--false-alarms", "0.4") == 0
    printed = capsys.readouterr().out
    assert "recall here" in printed
    assert "6 objects in 2 pictures without them" in printed

    results = tmp_path / "exam"
    options = ["--detector", "refdet", "--weights", str(output), "--split", "development", "--limit", "6"]
    assert main(["evaluate", "exam-detection", *options, "--output", str(results)]) == 0
    written = json.loads((results / "figures.json").read_text())
    # the same pictures: what was promised is found
    assert written["figures"]["all"]["empty"] == 2
    assert written["figures"]["all"]["false_alarms"] == 0
    assert len(written["by_object"]) == 6
    assert read_image(results / "precision_recall.png").shape == (480, 640, 3)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--false-alarms", "1.5"], "between 0 and 1"),
        (["--negatives", "nowhere"], "--card CARD ... and --negatives FOLDER together"),
        (["--card", "nowhere", "--negatives", "."], "nowhere"),
        (["--split", "exam"], "nothing is tuned on the exam"),
        (["--split", "moon"], "moon"),
        (["--limit", "3"], "at least 19 pictures without the object, got 1"),
        (["--min-iou", "0"], "min-iou"),
    ],
)
def test_bad_input_in_one_line(weights, tmp_path, negatives, capsys, options, complaint):
    options = [str(negatives) if option == "." else option for option in options]
    assert calibrate(weights, tmp_path / "new.safetensors", *options) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new.safetensors").exists()


def test_weights_are_never_their_own_output(weights, capsys):
    assert calibrate(weights, weights) == 2
    assert "another file than the weights" in capsys.readouterr().err
