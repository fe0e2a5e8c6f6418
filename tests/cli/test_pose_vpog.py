"""``sightline pose`` with the learned matcher and with depth, as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sightline.cli.main import main
from sightline.formats.images import write_depth, write_image
from sightline.formats.meshes import write_mesh
from sightline.nn.checkpoint import save_model
from sightline.rendering import render_views
from sightline.vpog.model import VPOGModel
from tests.printed_box import CAMERA, box_pose, picture_of, printed_box


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A card, pictures with depth, and weights that have learned nothing."""
    root = tmp_path_factory.mktemp("world")
    write_mesh(root / "box.ply", printed_box())
    arguments = ["onboard", "--mesh", str(root / "box.ply"), "--output", str(root / "box")]
    assert main([*arguments, "--views", "42", "--template-size", "160", "--symmetries", "none"]) == 0
    for index, turn in enumerate((0.5, 0.7)):
        pose = box_pose(turn=turn)
        write_image(root / "rgb" / f"{index}.png", picture_of(printed_box(), pose))
        drawn = render_views(printed_box(), pose[None], CAMERA.K, CAMERA.image_size, outputs=("depth",))
        write_depth(root / "depth" / f"{index}.png", drawn.depth[0].numpy(), depth_scale_mm=0.1)
    torch.manual_seed(0)
    encoder = {"name": "tiny", "dim": 32, "depth": 1, "num_heads": 2}
    model = VPOGModel(encoder, image_size=64, depth=1, num_heads=2, flow_hidden_dim=32, flow_layers=1)
    save_model(root / "random.safetensors", model, model.config, {"turn": 0.55})
    return root


def _pose(world: Path, *options: str, source: str = "rgb/0.png") -> int:
    command = ["pose", str(world / source), "--card", str(world / "box"), "--focal", "600"]
    return main([*command, "--report=false", *options])


def test_weights_that_know_nothing_find_nothing(world: Path, tmp_path: Path):
    options = ["--matcher", "vpog", "--weights", str(world / "random.safetensors"), "--mode", "cluster"]
    assert _pose(world, *options, "--output", str(tmp_path)) == 0
    entry = json.loads((tmp_path / "poses.json").read_text())["predictions"][0]["detections"][0]
    assert entry["valid"] is False
    assert entry["reason"]


def test_the_detector_can_guide_the_classical_matcher(world: Path, tmp_path: Path):
    assert _pose(world, "--detector", "refdet", "--output", str(tmp_path)) == 0
    entry = json.loads((tmp_path / "poses.json").read_text())["predictions"][0]["detections"][0]
    assert entry["valid"] or entry["reason"] == "the detector sees it nowhere"


def test_depth_of_a_folder(world: Path, tmp_path: Path):
    options = ["--depth", str(world / "depth"), "--depth-unit-mm", "0.1", "--output", str(tmp_path)]
    assert _pose(world, *options, source="rgb") == 0
    entries = json.loads((tmp_path / "poses.json").read_text())["predictions"]
    for entry, turn in zip(entries, (0.5, 0.7), strict=True):
        found, truth = entry["detections"][0], box_pose(turn=turn)
        assert found["valid"]
        assert np.allclose(found["t_xyz"], truth[:3, 3].numpy(), atol=0.0015)


def _fails(world: Path, capsys: pytest.CaptureFixture, *options: object, source: str = "rgb/0.png") -> str:
    assert _pose(world, *[str(each) for each in options], source=source) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


def test_what_does_not_go_together(world: Path, capsys: pytest.CaptureFixture):
    assert "--mode: expected with --matcher vpog" in _fails(world, capsys, "--mode", "cluster")
    weights = world / "random.safetensors"
    assert "--weights: expected with --matcher vpog" in _fails(world, capsys, "--weights", weights)
    none = ("--matcher", "vpog", "--weights", world / "none.safetensors")
    assert "none.safetensors" in _fails(world, capsys, *none)
    text = ("--matcher", "vpog", "--weights", world / "box.ply")
    assert "box.ply" in _fails(world, capsys, *text)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_device_that_is_not_here(world: Path, capsys: pytest.CaptureFixture):
    options = ("--matcher", "vpog", "--weights", world / "random.safetensors", "--device", "cuda")
    assert "this machine has no cuda" in _fails(world, capsys, *options)


def test_depth_that_does_not_fit(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert "none: no such file or folder" in _fails(world, capsys, "--depth", world / "none")
    one = world / "depth" / "0.png"
    assert "expected a folder with the depth of 2 pictures" in _fails(
        world, capsys, "--depth", one, source="rgb"
    )
    assert "found no depth picture 0.png" in _fails(world, capsys, "--depth", tmp_path, source="rgb")
    write_depth(tmp_path / "small.png", np.full((24, 32), 0.4))
    small = tmp_path / "small.png"
    assert "small.png: expected 320x240 pixels as 0.png has, got 32x24" in _fails(
        world, capsys, "--depth", small
    )
    wrong_unit = ("--depth", one, "--depth-unit-mm", "100")
    assert "millimetres" in _fails(world, capsys, *wrong_unit)
    assert "0.png" in _fails(world, capsys, "--depth", world / "rgb" / "0.png")
    assert "depth_scale" in _fails(world, capsys, "--depth", one, "--depth-unit-mm", "0")
