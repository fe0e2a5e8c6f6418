"""The two graphs in files against the model, for other numbers and sizes than those of the export."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from sightline.cli.main import main
from sightline.nn.checkpoint import save_model
from sightline.refdet.bank import TemplateBank
from sightline.refdet.decode import decode_maps
from sightline.refdet.detector import ConvNeXtRefDet
from sightline.refdet.export import DetectGraph, OnboardGraph, export_detector

# in a process of its own: exporting is many times slower under the tests' checks of argument types
_SCRIPT = """
import json, sys, warnings
warnings.simplefilter("ignore")
import torch
from sightline.nn.backbones import NanoBackbone
from sightline.refdet.detector import ConvNeXtRefDet
from sightline.refdet.export import export_detector
from sightline.refdet.export_check import check_export

file_format, suppress, stride, folder = sys.argv[1], sys.argv[2] == "nms", int(sys.argv[3]), sys.argv[4]
torch.manual_seed(0)
model = ConvNeXtRefDet(
    16, 8, 16, backbone="nano", detection_stride=stride, template_scales=(1.0,), num_head_convs=1
)
model.backbone = NanoBackbone(depths=(1, 1, 1, 1))  # a shallow one: exporting takes a second a block
for output in (model.head.objectness, model.head.box):
    torch.nn.init.normal_(output[-1].weight, std=0.3)  # scores that are well apart
exported = export_detector(
    model, folder, file_format=file_format, template_size=(64, 96), search_size=(128, 96),
    max_detections=20, suppress=suppress, score_threshold=0.001 * suppress,
)
cases = [(1, 1, (128, 96)), (3, 2, (96, 128)), (7, 5, (64, 64))]
same = check_export(model, exported, cases=cases)
torch.nn.init.normal_(model.head.box[-1].weight, std=0.31)
other = check_export(model, exported, cases=cases)
torch.nn.init.normal_(model.head.objectness[-1].weight, std=0.31)
another = check_export(model, exported, cases=cases)
print(json.dumps([vars(same), same.agrees, other.agrees, other.boxes, another.agrees, another.scores]))
"""


@pytest.mark.parametrize(
    ("file_format", "suppression", "stride", "suffix"),
    [
        ("onnx", "nms", 16, ".onnx"),
        ("torchscript", "nms", 8, ".ts"),
        ("torchscript", "none", 8, ".ts"),
        # these take about a minute together where nothing else runs
        pytest.param("onnx", "none", 8, ".onnx", marks=pytest.mark.slow),
        pytest.param("torch-export", "nms", 8, ".pt2", marks=pytest.mark.slow),
    ],
)
def test_files_agree_with_the_network(tmp_path, file_format, suppression, stride, suffix):
    command = [sys.executable, "-c", _SCRIPT, file_format, suppression, str(stride), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    same, agrees, others_agree, boxes, anothers_agree, scores = json.loads(done.stdout.splitlines()[-1])
    assert agrees, same
    assert max(same["bank"], same["scores"], same["evidence"]) < 1e-4
    assert same["boxes"] < 1e-2
    assert (others_agree, anothers_agree) == (False, False)
    assert boxes > 0.1
    assert scores > 1e-3
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"detect{suffix}",
        "export.json",
        f"look{suffix}",
        f"onboard{suffix}",
    ]
    manifest = json.loads((tmp_path / "export.json").read_text())
    assert manifest["inputs"]["onboard"]["templates"] == ["templates", 3, 96, 64]
    assert manifest["search_size"] == [128, 96]
    assert manifest["inputs"]["detect"]["bank"] == list(manifest["bank"])
    assert manifest["suppression"] == ("matrix" if suppression == "nms" else "none")


@pytest.fixture
def model() -> ConvNeXtRefDet:
    torch.manual_seed(0)
    model = ConvNeXtRefDet(16, 8, 16, backbone="nano", detection_stride=8, template_scales=(1.0,)).eval()
    for output in (model.head.objectness, model.head.box):
        torch.nn.init.normal_(output[-1].weight, std=0.3)
    return model


@torch.no_grad()
@pytest.mark.parametrize("size", [(96, 64), (64, 96), (32, 32)])
def test_suppression_in_the_graph_is_that_of_decoding(model, size):
    onboard = OnboardGraph(model)
    *bank, likeness = onboard(torch.rand(2, 3, 64, 64), torch.ones(2, 64, 64))
    assert 0 < float(likeness) < 2  # of two templates, summed over two levels
    search = torch.rand(2, 3, *size)
    threshold = 0.01
    graph = DetectGraph(model, onboard.names, max_detections=200, suppress=True, score_threshold=threshold)
    boxes, scores = graph(search, tuple(bank))
    assert boxes.shape == (2, 200, 4)
    maps = model.detect_maps(search, TemplateBank.from_tensors(dict(zip(onboard.names, bank, strict=True))))
    expected = decode_maps(maps, score_threshold=threshold, max_detections=200)
    count = expected.scores.shape[1]
    assert 0 < int(expected.valid.sum()) < min(expected.valid.numel(), 400)
    assert torch.equal(scores[:, :count] > 0, expected.valid)
    torch.testing.assert_close(scores[:, :count][expected.valid], expected.scores[expected.valid])
    torch.testing.assert_close(boxes[:, :count][expected.valid], expected.boxes[expected.valid])
    assert bool((scores[:, count:] == 0).all())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"file_format": "tensorrt"}, "onnx, torchscript, torch-export"),
        ({"template_size": (16, 64)}, "template_size"),
        ({"search_size": (16, 64)}, "search_size"),
        ({"max_detections": 0}, "max_detections"),
    ],
)
def test_what_cannot_be_exported(model, tmp_path, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        export_detector(model, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_onnx_is_missed_in_words(model, tmp_path, monkeypatch):
    monkeypatch.setattr("sightline.refdet.export.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"sightline\[export\]"):
        export_detector(model, tmp_path)


def test_bad_input_of_the_verb_in_one_line(model, tmp_path, capsys):
    weights = tmp_path / "small.safetensors"
    save_model(weights, model, model.config, {"template_size": [64, 64]})
    for options, complaint in (
        (["--weights", str(tmp_path / "none.safetensors")], "none.safetensors"),
        (["--weights", str(weights), "--min-score", "0.5"], "together with --nms"),
        (["--weights", str(weights), "--template-size", "[8,8]"], "template_size"),
    ):
        assert main(["export", "refdet", *options, "--output", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert complaint in error
        assert error.count("\n") == 1
