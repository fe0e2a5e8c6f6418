"""The ONNX graph against the network, for other numbers of pictures than that of the export."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from sightline.rtdetr_pose.export import PoseGraph, export_onnx
from sightline.rtdetr_pose.model import RTDETRPose

# in a process of its own: exporting is many times slower under the tests' checks of argument types
_SCRIPT = """
import json, sys, warnings
warnings.simplefilter("ignore")
import onnx, onnxruntime, torch
from sightline.rtdetr_pose.export import PoseGraph, export_onnx
from sightline.rtdetr_pose.model import RTDETRPose

sampling, folder = sys.argv[1:]
torch.manual_seed(0)
small = {"backbone_config": {"hidden_sizes": [16, 16, 24, 32], "embedding_size": 16}}
model = RTDETRPose(4, 32, 12, True, backbone="tiny", detector=small, use_uncertainty=True)
with torch.no_grad():
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.05)  # scores apart, boxes off their anchors
exported = export_onnx(model, folder, image_size=(96, 64), sampling=sampling)
graph, session = PoseGraph(model), onnxruntime.InferenceSession(exported.graph)
worst = {}
for count in (1, 2, 3):
    pictures = torch.rand(count, 3, 64, 96)
    K = torch.tensor([[96.0, 0, 48], [0, 90, 32], [0, 0, 1]]).repeat(count, 1, 1)
    found = session.run(None, {"images": pictures.numpy(), "intrinsics": K.numpy()})
    with torch.no_grad():
        expected = graph(pictures, K)
    for name, one, two in zip(graph.outputs, found, expected, strict=True):
        worst[name] = max(worst.get(name, 0.0), float(abs(torch.from_numpy(one) - two).max()))
stored = onnx.load(exported.graph)
print(json.dumps({
    "worst": worst,
    "operators": sorted({node.op_type for node in stored.graph.node}),
    "weights": sorted(each.name for each in stored.graph.initializer),
    "opset": stored.opset_import[0].version,
    "training": model.training,
}))
"""


@pytest.mark.parametrize("sampling", ["gather", pytest.param("grid_sample", marks=pytest.mark.slow)])
def test_files_agree_with_the_network(tmp_path, sampling):
    command = [sys.executable, "-c", _SCRIPT, sampling, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    names = {"logits", "bbox", "log_z", "rot6d", "offsets", "k_delta", "log_sigma_z", "log_sigma_rot"}
    assert set(said["worst"]) == names | {"enc_logits", "enc_bbox"}
    assert all(value < (1e-3 if name == "offsets" else 1e-4) for name, value in said["worst"].items()), said
    assert ("GridSample" in said["operators"]) == (sampling == "grid_sample")
    assert not any("mim" in name or "teacher" in name for name in said["weights"])
    assert said["opset"] >= 18
    assert said["training"]
    manifest = json.loads((tmp_path / "export.json").read_text())
    assert manifest["inputs"]["images"] == ["pictures", 3, 64, 96]
    assert manifest["outputs"]["log_sigma_z"] == ["pictures", 12, 1]
    assert manifest["sampling"] == sampling


def test_the_graph_leaves_the_model_as_it_was():
    model = RTDETRPose(3, 64, 10, True, backbone="tiny")
    graph = PoseGraph(model, sampling="gather")
    assert graph.model.mim is None
    assert model.mim is not None
    assert model.training
    assert type(model.detector.decoder.layers[0].encoder_attn).__name__.startswith("RTDetrV2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": (100, 64)}, "multiples of 32"),
        ({"sampling": "nearest"}, "grid_sample, gather"),
        ({"opset_version": 17}, "at least 18"),
    ],
)
def test_exports_that_cannot_be(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        export_onnx(RTDETRPose(3, 64, 10, backbone="tiny"), tmp_path, **arguments)


def test_a_model_that_takes_depth(tmp_path):
    with pytest.raises(ValueError, match="depth is not exported"):
        export_onnx(RTDETRPose(3, 64, 10, backbone="tiny", depth_mode="fuse_mid"), tmp_path)
