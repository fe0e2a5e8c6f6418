"""The code blocks of the document on reference detection that concern the model, run as they were written.

Import lines name this package's addresses; paths and what the document leaves undefined are supplied.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from sightline.refdet.model import (
    FPN,
    ConvNeXtTiny,
    DepthwiseCorrelation,
    DetectionHead,
    TemplateFusion,
    build_convnext_refdet,
    count_parameters,
    load_pretrained_convnext,
)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_convnext_refdet().eval()


def test_architecture_overview(model):
    """Template encoder -> P2, P3; fusion at each; correlation at stride 4 and 8; an anchor-free head."""
    assert isinstance(model.fpn, FPN)
    assert model.fpn.strides == (4, 8)
    assert all(isinstance(model.matcher(s).fusion, TemplateFusion) for s in (4, 8))
    assert all(isinstance(model.matcher(s).correlation, DepthwiseCorrelation) for s in (4, 8))
    assert isinstance(model.head, DetectionHead)
    assert model.stride == 4


def test_model_stats(model):
    assert count_parameters(ConvNeXtTiny()) == pytest.approx(28e6, rel=0.02)
    # the document's 35 to 40 M hold a head of full convolutions; ours is separable
    assert 29e6 < count_parameters(model) < 40e6


def test_python_model_py():
    done = subprocess.run(
        [sys.executable, "-m", "sightline.refdet.model"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "backbone" in done.stdout
    assert "total" in done.stdout


def test_pretrained_backbone(model, tmp_path):
    from transformers import ConvNextConfig, ConvNextModel

    ConvNextModel(ConvNextConfig()).save_pretrained(tmp_path)
    model = build_convnext_refdet(16, 8, 16)
    assert load_pretrained_convnext(model, tmp_path) is model


def test_adjust_fpn_channels():
    model = build_convnext_refdet(
        fpn_channels=128,  # Lower = faster, less accurate
        corr_channels=32,
        det_channels=128,
    )
    assert model.fpn.laterals[0].out_channels == 128


@pytest.mark.parametrize(("name", "millions"), [("small", 50), ("base", 88)])
def test_change_backbone(name, millions):
    model = build_convnext_refdet(16, 8, 16, backbone=name)
    assert count_parameters(model.backbone) == pytest.approx(millions * 1e6, rel=0.02)


def test_change_detection_stride():
    model = build_convnext_refdet(16, 8, 16, backbone="nano", detection_stride=8).eval()
    objectness, bbox = model(torch.rand(1, 3, 3, 64, 64), torch.rand(1, 3, 64, 96))
    assert model.stride == 8
    assert objectness.shape == (1, 1, 8, 12)
    assert bbox.shape == (1, 4, 8, 12)


# Tracing makes sizes tensors, which the tests' checks of argument types refuse: run it as a user does.
_PREAMBLE = """
import sys, warnings
warnings.simplefilter("ignore")
import torch
from sightline.nn.backbones import NanoBackbone
from sightline.refdet.model import build_convnext_refdet
torch.manual_seed(0)
model = build_convnext_refdet(16, 8, 16, backbone="nano", template_scales=(1.0,), num_head_convs=1)
model.backbone = NanoBackbone(depths=(1, 1, 1, 1))  # a shallow one: exporting takes a second a block
model.eval()
templates = torch.randn(1, 3, 3, 256, 256)  # [B, 3, C, H, W]
search = torch.randn(1, 3, 1024, 576)       # [B, C, H, W]
"""
_TORCHSCRIPT = """
traced_model = torch.jit.trace(model, (templates, search))
traced_model.save('model_traced.pt')
print("Model exported to model_traced.pt")

again = torch.jit.load('model_traced.pt')
for other in (search.flip(-1), search.transpose(-1, -2)):
    with torch.no_grad():
        objectness, bbox = again(templates, other)
        expected = model(templates, other)
    assert objectness.shape == (1, 1, other.shape[-2] // 4, other.shape[-1] // 4)
    torch.testing.assert_close(objectness, expected.objectness, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(bbox, expected.bbox, rtol=1e-3, atol=1e-4)
"""
_ONNX = """
torch.onnx.export(
    model,
    (templates, search),
    'model.onnx',
    input_names=['templates', 'search'],
    output_names=['objectness', 'bbox'],
    dynamic_axes={
        'templates': {0: 'batch'},
        'search': {0: 'batch'},
        'objectness': {0: 'batch'},
        'bbox': {0: 'batch'}
    },
    opset_version=14
)
print("Model exported to model.onnx")

import onnxruntime
session = onnxruntime.InferenceSession('model.onnx', providers=['CPUExecutionProvider'])
objectness, bbox = session.run(None, {'templates': templates.numpy(), 'search': search.numpy()})
with torch.no_grad():
    expected = model(templates, search)
torch.testing.assert_close(torch.from_numpy(objectness), expected.objectness, rtol=1e-3, atol=1e-4)
torch.testing.assert_close(torch.from_numpy(bbox), expected.bbox, rtol=1e-3, atol=1e-4)
"""


@pytest.mark.parametrize(("block", "file"), [(_TORCHSCRIPT, "model_traced.pt"), (_ONNX, "model.onnx")])
def test_model_export(block, file, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _PREAMBLE + block], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert f"Model exported to {file}" in done.stdout
    assert (tmp_path / file).is_file()
