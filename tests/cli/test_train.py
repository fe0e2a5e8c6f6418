"""Training from the command line: the recipe is read, weights are written that detect, a run goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sightline.cli.main import main
from sightline.nn.checkpoint import read_config, read_tensors
from sightline.refdet.recipe import read_refdet_recipe
from sightline.refdet.reference_detector import ReferenceDetector
from sightline.refdet.shipped import shipped_weights
from sightline.vpog.model import VPOGModel
from sightline.vpog.recipe import read_vpog_recipe

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = """
model:
  fpn_channels: 16
  corr_channels: 8
  det_channels: 16
  backbone: nano
  detection_stride: 8
  template_scales: [1.0]
data:
  num_objects: 3
  num_backdrops: 2
  epoch_length: 4
  num_validation_objects: 2
  num_validation: 2
  image_size: [96, 64]
  template_size: [32, 32]
  max_templates: 1
  validation_templates: 1
  sprites: {size_px: 48, num_lit: 3, num_plain: 1, num_lookalike: 1}
train: {batch_size: 2, steps: 2, lr: 1e-3, num_workers: 0, progress: false}
"""
SMALL_MATCHER = """
model:
  encoder: {name: tiny, dim: 32, depth: 1, num_heads: 2}
  image_size: 64
  depth: 1
  num_heads: 2
  flow_hidden_dim: 32
  flow_layers: 1
data:
  num_objects: 2
  num_backdrops: 2
  epoch_length: 2
  num_validation_objects: 2
  num_validation: 1
  num_positives: 1
  num_negatives: 1
  views: {num_templates: 42, template_px: 64, template_samples: 1, num_queries: 2, query_px: 64}
train: {batch_size: 2, steps: 1, lr: 1e-3, num_workers: 0, progress: false}
"""


@pytest.mark.parametrize("path", sorted((CONFIGS / "refdet").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_of_the_detector_builds(path: Path):
    task, settings, stage0, _ = read_refdet_recipe(path)
    assert sum(p.numel() for p in task.model.parameters()) < 2_000_000  # small enough for the package
    assert settings.max_minutes is not None
    assert stage0 is not None


def test_a_recipe_is_trained_and_detects(tmp_path, capsys):
    recipe = tmp_path / "small.yaml"
    recipe.write_text(SMALL)
    command = ["train-refdet", str(recipe), "--output", str(tmp_path / "run"), "--device", "cpu"]
    assert main(command) == 0
    assert "2 steps" in capsys.readouterr().out
    weights = tmp_path / "run" / "model.safetensors"
    assert read_config(weights).extra["search_size"] == [96, 64]
    assert ReferenceDetector.from_checkpoint(weights).settings.template_size == (32, 32)
    assert main([*command, "--steps", "3"]) == 0
    assert "3 steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("num_objects: 3", "num_object: 3"),
        ("size_px: 48", "size: 48"),
        ("steps: 2,", "step: 2,"),
    ],
)
def test_a_misspelt_key_is_named_with_the_nearest(tmp_path, capsys, change, message):
    recipe = tmp_path / "wrong.yaml"
    recipe.write_text(SMALL.replace(change, message))
    assert main(["train-refdet", str(recipe), "--output", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "wrong.yaml" in error
    assert message.split(":")[0] in error
    assert change.split(":")[0] in error


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_device_that_is_not_here_is_named(tmp_path, capsys):
    recipe = tmp_path / "small.yaml"
    recipe.write_text(SMALL)
    assert main(["train-refdet", str(recipe), "--output", str(tmp_path / "run"), "--device", "cuda"]) == 2
    assert "this machine has no cuda" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((CONFIGS / "vpog").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_of_the_matcher_builds(path: Path):
    task, settings = read_vpog_recipe(path)
    assert settings.batch_size > 0
    if path.stem == "tiny":
        assert sum(p.numel() for p in task.model.parameters()) < 2_000_000  # small enough for the package


def test_a_matcher_is_trained_from_the_descriptor_of_the_package(tmp_path, capsys):
    recipe = tmp_path / "small.yaml"
    recipe.write_text(SMALL_MATCHER)
    command = ["train-vpog", str(recipe), "--output", str(tmp_path / "run"), "--device", "cpu"]
    assert main(command) == 0
    assert "1 steps" in capsys.readouterr().out
    weights = tmp_path / "run" / "model.safetensors"
    stored = read_config(weights)
    assert stored.extra["turn"] > 0
    assert VPOGModel(**stored.config).image_size == 64
    trained_all, began_all = read_tensors(weights)[0], read_tensors(shipped_weights())[0]
    name = next(
        name for name in began_all if name.startswith("backbone.stages.0") and name.endswith("weight")
    )
    trained, began = trained_all[f"encoder.{name}"], began_all[name]
    assert float((trained - began).abs().max()) < 0.01  # one step away
    assert main([*command, "--steps", "2"]) == 0
    assert "2 steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--descriptor", "none.safetensors"], "none.safetensors"),
        (["--minutes=-1"], "minutes"),
        (["--steps", "0"], "steps"),
    ],
)
def test_a_matcher_that_cannot_be_trained_so(tmp_path, capsys, options, message):
    recipe = tmp_path / "small.yaml"
    recipe.write_text(SMALL_MATCHER)
    assert main(["train-vpog", str(recipe), "--output", str(tmp_path / "run"), *options]) == 2
    assert message in capsys.readouterr().err
