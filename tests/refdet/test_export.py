"""The two graphs in ONNX Runtime against the model, for other numbers and sizes than those of the export."""

from __future__ import annotations

import subprocess
import sys

# in a process of its own: tracing is many times slower under the tests' checks of argument types
_SCRIPT = """
import sys, warnings
warnings.simplefilter("ignore")
import onnxruntime, torch
from sightline.nn.backbones import NanoBackbone
from sightline.refdet.export import DetectGraph, OnboardGraph, export_onnx
from sightline.refdet.model import ConvNeXtRefDet

torch.manual_seed(0)
model = ConvNeXtRefDet(
    16, 8, 16, backbone="nano", detection_stride=8, template_scales=(1.0,), num_head_convs=1
)
model.backbone = NanoBackbone(depths=(1, 1, 1, 1))  # a shallow one: exporting takes a second a block
model.eval()
for output in (model.head.objectness, model.head.box):
    torch.nn.init.normal_(output[-1].weight, std=0.3)  # scores that are well apart
onboard = OnboardGraph(model)
detect = DetectGraph(model, onboard.names, max_detections=5)
paths = export_onnx(model, sys.argv[1], template_size=(64, 64), max_detections=5)
sessions = [onnxruntime.InferenceSession(str(p), providers=["CPUExecutionProvider"]) for p in paths]
for count, batch, height, width in ((1, 1, 96, 128), (3, 2, 128, 96), (7, 5, 64, 64)):
    templates, masks = torch.rand(count, 3, 64, 64), (torch.rand(count, 64, 64) > 0.3).float()
    search = torch.rand(batch, 3, height, width)
    with torch.no_grad():
        expected_bank = onboard(templates, masks)
        expected = detect(search, expected_bank)
    bank = sessions[0].run(None, {"templates": templates.numpy(), "masks": masks.numpy()})
    for a, b in zip(bank, expected_bank):
        torch.testing.assert_close(torch.from_numpy(a), b, rtol=1e-3, atol=1e-4)
    found = sessions[1].run(None, {"search": search.numpy(), **dict(zip(onboard.names, bank))})
    torch.testing.assert_close(torch.from_numpy(found[1]), expected[1], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(torch.from_numpy(found[0]), expected[0], rtol=1e-3, atol=1e-2)
print("agreed")
"""


def test_onnx_runtime_agrees(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "agreed" in done.stdout
