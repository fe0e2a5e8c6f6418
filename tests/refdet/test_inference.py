"""The detector on files, as the document calls it: what comes back, what is written, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sightline.formats.images import write_image
from sightline.nn.checkpoint import save_model
from sightline.objects.card_files import load_card, save_card
from sightline.objects.onboard import onboard_mesh
from sightline.refdet.detector import ConvNeXtRefDet
from sightline.refdet.inference import RefDetInference, main
from sightline.refdet.reference_detector import DetectorSettings, ReferenceDetector
from sightline.synthetic import make_object


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = ConvNeXtRefDet(16, 8, 16, backbone="nano", detection_stride=8, template_scales=(1.0,))
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_model(path, model, model.config, {"search_size": [128, 96], "template_size": [64, 64]})
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two objects with three templates each, and pictures with labels, one of them empty."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name in ("object_1", "object_2"):
        for i in range(3):
            picture = rng.integers(30, 220, (40, 50, 3), dtype=np.uint8)
            write_image(root / "templates" / name / f"template_{i}.png", picture)
        for i in range(2):
            stem = f"{name}_frame_{i:04d}"
            picture = rng.integers(0, 255, (72, 128, 3), dtype=np.uint8)
            write_image(root / "test" / "search" / "images" / f"{stem}.jpg", picture)
            label = root / "test" / "search" / "labels" / f"{stem}.txt"
            label.parent.mkdir(exist_ok=True, parents=True)
            label.write_text("90 42 120.5 60\n" if i == 0 else "")
    return root


def test_predict_as_the_document_calls_it(checkpoint, data):
    inferencer = RefDetInference(
        checkpoint_path=checkpoint,
        device="cpu",
        score_threshold=0.001,
        search_size=(160, 96),
        template_size=(64, 64),
    )
    templates = sorted((data / "templates" / "object_1").iterdir())
    search = data / "test" / "search" / "images" / "object_1_frame_0000.jpg"
    detections, original_size = inferencer.predict(template_paths=templates, search_image_path=search)
    assert original_size == (72, 128)
    assert detections
    scores = [found["score"] for found in detections]
    assert scores == sorted(scores, reverse=True)
    for found in detections:
        x1, y1, x2, y2 = found["bbox"]
        assert 0 <= x1 <= x2 <= 127
        assert 0 <= y1 <= y2 <= 71
    assert len(inferencer.predict(templates, search, top_k=2)[0]) == 2


def test_sizes_of_the_training_hold_unless_given(checkpoint):
    assert RefDetInference(checkpoint).detector.settings.search_size == (128, 96)
    assert RefDetInference(checkpoint, search_size=(96, 64)).detector.settings.search_size == (96, 64)


def test_a_batch_names_what_it_cannot_read(checkpoint, data, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff no picture")
    good = data / "test" / "search" / "images" / "object_1_frame_0000.jpg"
    inference = RefDetInference(checkpoint, score_threshold=0.001)
    results = inference.predict_batch(data / "templates" / "object_1", [good, broken, good])
    assert [result["error"] is None for result in results] == [True, False, True]
    assert "broken.jpg" in results[1]["error"]
    assert results[0]["detections"] == results[2]["detections"]
    alone, _ = inference.predict(data / "templates" / "object_1", good)
    assert results[0]["detections"] == alone


def test_evaluation_counts_empty_pictures_and_writes_what_it_found(checkpoint, data, tmp_path):
    inference = RefDetInference(checkpoint, score_threshold=0.001)
    metrics = inference.evaluate_on_testset(data, save_results=True, output_dir=tmp_path / "eval")
    assert metrics["num_images"] == 4
    assert metrics["num_empty"] == 2
    assert set(metrics["per_object"]) == {"object_1", "object_2"}
    for name in ("precision", "recall", "mAP", "AP50"):
        assert 0 <= metrics[name] <= 1
    assert json.loads((tmp_path / "eval" / "metrics.json").read_text())["num_empty"] == 2
    assert len(json.loads((tmp_path / "eval" / "detections.json").read_text())) == 4


def test_the_command(checkpoint, data, tmp_path, capsys):
    arguments = [
        *("--checkpoint", str(checkpoint)),
        *("--templates", str(data / "templates" / "object_1")),
        *("--search", str(data / "test" / "search" / "images")),
        *("--output", str(tmp_path)),
        *("--score-threshold", "0.001"),
        "--visualize",
    ]
    assert main(arguments) == 0
    assert len(json.loads((tmp_path / "detections.json").read_text())) == 4
    assert (tmp_path / "vis_object_2_frame_0001.png").is_file()
    assert "the surest at" in capsys.readouterr().out
    assert main([*arguments[:-3], "--score-threshold", "0.999"]) == 0
    assert "lower the score threshold" in capsys.readouterr().out
    assert main(["--checkpoint", "none.safetensors", *arguments[2:]]) == 2
    assert "none.safetensors" in capsys.readouterr().err


def test_weights_of_another_class_are_refused(tmp_path):
    path = tmp_path / "linear.safetensors"
    save_model(path, torch.nn.Linear(2, 1), {"in_features": 2, "out_features": 1})
    with pytest.raises(
        ValueError, match=r"linear.safetensors: expected weights of a ConvNeXtRefDet, got a Linear"
    ):
        RefDetInference(path)


def test_no_templates_is_an_error(checkpoint, tmp_path):
    with pytest.raises(ValueError, match="templates"):
        RefDetInference(checkpoint).detector.onboard([])
    with pytest.raises(ValueError, match="expected pictures of the object"):
        RefDetInference(checkpoint).detector.onboard(tmp_path)


def test_orientation_matters():
    """A picture of 16:9 and the same turned give the same boxes, turned: no side is taken for the other."""
    torch.manual_seed(1)
    model = ConvNeXtRefDet(16, 8, 16, backbone="nano", detection_stride=8, template_scales=(1.0,))
    wide = ReferenceDetector(model, DetectorSettings((128, 64), (64, 64), score_threshold=0.0))
    picture = np.random.default_rng(0).integers(0, 255, (50, 100, 3), dtype=np.uint8)
    found = wide.detect(picture, {"a": wide.onboard([_template()])})
    assert found.image_size == (100, 50)
    assert found.boxes[:, 2].max() <= 99.5
    assert found.boxes[:, 3].max() <= 49.5
    assert found.boxes[:, 2].max() > 60  # further right than the picture is high


def test_a_card_is_encoded_once(checkpoint, tmp_path):
    card = save_card(
        onboard_mesh(make_object("can", 0).mesh, name="can", num_views=42, symmetries=None), tmp_path / "can"
    )
    detector = ReferenceDetector.from_checkpoint(checkpoint)
    bank = detector.onboard_card(card, max_templates=5)
    assert bank.num_templates == 5
    (kept,) = (tmp_path / "can" / "features").iterdir()
    stamp = kept.stat().st_mtime_ns
    again = detector.onboard_card(load_card(tmp_path / "can"), max_templates=5)
    assert kept.stat().st_mtime_ns == stamp
    for name, tensor in bank.to_tensors().items():
        assert torch.equal(tensor, again.to_tensors()[name])
    picture = np.full((60, 80, 3), 120, np.uint8)
    first, second = (detector.detect(picture, {"can": each}) for each in (bank, again))
    assert torch.equal(first.boxes, second.boxes)


def test_other_weights_of_the_same_name_are_other_features(checkpoint, tmp_path):
    card = save_card(onboard_mesh(make_object("can", 0).mesh, name="can", num_views=42), tmp_path / "can")
    config = ReferenceDetector.from_checkpoint(checkpoint).model.config
    prints = set()
    for seed in (1, 2):
        torch.manual_seed(seed)
        detector = ReferenceDetector(ConvNeXtRefDet(**config), DetectorSettings((96, 64), (64, 64)), name="a")
        bank = detector.onboard_card(card, max_templates=2)
        prints.add(float(bank.to_tensors()["level8.descriptors"].sum()))
    assert len(prints) == 2
    assert len(list((tmp_path / "can" / "features").iterdir())) == 2


def _template():
    from sightline.formats.refdet_templates import TemplatePicture

    return TemplatePicture(np.random.default_rng(1).integers(30, 220, (40, 40, 3), dtype=np.uint8))
