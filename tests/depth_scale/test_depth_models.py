import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sightline.depth_scale.depth_models import CANONICAL_FOCAL_PX, estimate_depth, load_depth_model
from sightline.depth_scale.depth_network import DepthModel
from sightline.formats.images import write_image
from tests.depth_scale.tiny_networks import save_depth_anything, save_dpt, save_glpn, save_zoe


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    metric = {"depth_estimation_type": "metric"}
    return {
        "relative": save_depth_anything(root / "relative"),
        "indoor": save_depth_anything(root / "indoor", max_depth=20, **metric),
        "other": save_depth_anything(root / "other", max_depth=33, **metric),
        "dpt": save_dpt(root / "dpt"),
        "zoe": save_zoe(root / "zoe"),
    }


@pytest.fixture(scope="module")
def models(folders) -> dict[str, DepthModel]:
    return {name: load_depth_model(folder) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, 91, 3), dtype=np.uint8)


KINDS = {
    "relative": "inverse_depth",
    "dpt": "inverse_depth",
    "indoor": "metric_depth",
    "other": "metric_depth",
    "zoe": "metric_depth",
}


@pytest.mark.parametrize("name", KINDS)
def test_depth_has_the_size_of_the_picture_and_a_kind(models, photo, name):
    estimate = models[name].estimate(photo)
    assert estimate.depth.shape == (60, 91)
    assert estimate.depth.dtype == torch.float32
    assert bool(estimate.depth.isfinite().all())
    assert float(estimate.depth.std()) > 0
    assert estimate.kind == KINDS[name]
    assert estimate.is_metric == (KINDS[name] == "metric_depth")
    assert estimate.depth_mode == ("depth" if estimate.is_metric else "inv_depth")
    assert not estimate.focal_corrected
    assert ("metres" in estimate.source) == estimate.is_metric


@pytest.mark.parametrize("name", KINDS)
def test_batch_of_mixed_sizes_equals_one_by_one(models, photo, name):
    pictures = [photo, photo[:40, :50].copy(), photo[::-1].copy()]
    together = models[name].estimate_batch(pictures)
    for picture, estimate in zip(pictures, together, strict=True):
        alone = models[name].estimate(picture).depth
        torch.testing.assert_close(estimate.depth, alone, rtol=1e-4, atol=1e-5)


def test_file_array_and_tensor_are_one_picture(models, photo, tmp_path):
    write_image(tmp_path / "photo.png", photo)
    expected = models["relative"].estimate(photo).depth
    for image in (tmp_path / "photo.png", str(tmp_path / "photo.png"), torch.from_numpy(photo)):
        assert torch.equal(models["relative"].estimate(image).depth, expected)


def test_correction_is_linear_in_the_focal_length(models, photo):
    plain, once, twice = (models["indoor"].estimate(photo, focal_px=f) for f in (None, 70.0, 140.0))
    assert once.focal_corrected and twice.focal_corrected
    torch.testing.assert_close(twice.depth, 2 * once.depth)
    # 60 rows are resized to 56 and 91 columns to 84, so a photo's pixel is 0.928 of the network's
    seen = 70.0 * (56 / 60 * 84 / 91) ** 0.5
    torch.testing.assert_close(once.depth, plain.depth * seen / CANONICAL_FOCAL_PX[20])


def test_enlarged_photo_keeps_its_corrected_depth(models, photo):
    """Twice the pixels and twice the focal length are the same view."""
    # 96 rows and 144 columns by the network's size: both photos are resized to 56x84
    small = np.kron(photo[:48, :72], np.ones((2, 2, 1), dtype=np.uint8))
    large = np.kron(small, np.ones((2, 2, 1), dtype=np.uint8))
    near, far = (
        models["indoor"].estimate(picture, focal_px=focal)
        for picture, focal in ((small, 200.0), (large, 400.0))
    )
    assert abs(float(near.depth.mean() / far.depth.mean()) - 1) < 0.02


def test_canonical_focal_lengths_are_those_of_the_training_data():
    # field of view of Hypersim: pi / 3 over 1024 pixels, resized from 768 to 518 rows
    assert CANONICAL_FOCAL_PX[20] == pytest.approx(512 / np.tan(np.pi / 6) * 518 / 768, rel=1e-5)
    assert CANONICAL_FOCAL_PX[80] == pytest.approx(1001.48, abs=0.01)


def test_unknown_canonical_focal_length_is_asked_for(models, folders, photo):
    for name in ("zoe", "other"):
        with pytest.raises(ValueError, match="canonical_focal_px"):
            models[name].estimate(photo, focal_px=80.0)
    zoe = load_depth_model(folders["zoe"], canonical_focal_px=50.0)
    corrected = zoe.estimate(photo, focal_px=80.0)
    # ZoeDepth pads 60x91 by 16 and 20 on each side and resizes 92x131 to 64x96
    factor = 80.0 * (64 / 92 * 96 / 131) ** 0.5 / 50.0
    torch.testing.assert_close(corrected.depth, models["zoe"].estimate(photo).depth * factor)


def test_relative_depth_is_not_touched_by_the_focal_length(models, photo):
    estimate = models["relative"].estimate(photo, focal_px=500.0)
    assert not estimate.focal_corrected
    assert torch.equal(estimate.depth, models["relative"].estimate(photo).depth)


class Reflector(torch.nn.Module):
    """Gives the first channel of what it sees: the depth map must lie on the photo again."""

    def forward(self, pixel_values):
        return type("Output", (), {"predicted_depth": pixel_values[:, 0]})()


@pytest.mark.parametrize("name", ["relative", "dpt", "zoe"])
def test_map_lies_on_the_photo(models, name):
    ramp = np.linspace(0, 255, 300)[None, :, None] * np.ones((200, 1, 3))
    model = DepthModel(Reflector(), processor=models[name].processor, kind="metric_depth")
    depth = model.estimate(np.rint(ramp).astype(np.uint8)).depth
    mean, std = model.processor.image_mean[0], model.processor.image_std[0]
    seen = (depth * std + mean) * 299
    inner = slice(20, -20)
    expected = torch.arange(300.0).expand(200, 300)
    # a shift of half a pixel of the network's 32 to 96 columns would be 1.5 to 4.7 px
    assert float((seen - expected)[inner, inner].abs().max()) < 0.8


def test_estimate_takes_part_in_a_loss(models, photo):
    mask = torch.ones(60, 91, requires_grad=True)
    (models["relative"].estimate(photo).depth * mask).sum().backward()
    assert mask.grad is not None


def test_kind_can_be_stated(folders, photo):
    estimate = estimate_depth(photo, folders["dpt"], kind="metric_depth")
    assert estimate.is_metric
    assert estimate.depth_mode == "depth"


def test_unknown_architecture_asks_for_its_kind(tmp_path):
    folder = save_glpn(tmp_path / "glpn")
    with pytest.raises(ValueError, match=r"'glpn' gives metres is not known; give kind="):
        load_depth_model(folder)
    assert load_depth_model(folder, kind="metric_depth").is_metric


def test_missing_model_is_named_without_the_network():
    with pytest.raises(ValueError, match=r"nobody/nothing: the model is not here .* give the folder"):
        load_depth_model("nobody/nothing", local_files_only=True)


def test_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(ValueError, match=rf"{tmp_path}: .*config\.json"):
        load_depth_model(tmp_path)


def test_incomplete_checkpoint_is_refused(tmp_path, folders):
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    broken.mkdir()
    for file in folders["relative"].iterdir():
        if file.suffix == ".json":
            (broken / file.name).write_bytes(file.read_bytes())
    weights = load_file(folders["relative"] / "model.safetensors")
    unused = [key for key in weights if "fusion_stage.layers.0.residual_layer1." in key]
    kept = {key: value for key, value in weights.items() if key not in unused}
    save_file(kept, broken / "model.safetensors", metadata={"format": "pt"})
    assert unused
    load_depth_model(broken)  # published checkpoints lack weights that are never used
    del kept["head.conv1.weight"]
    save_file(kept, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 weights are missing, such as head\.conv1\.weight"):
        load_depth_model(broken)
    (broken / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="safetensors"):
        load_depth_model(broken)


def test_network_of_another_task_is_refused(tmp_path, folders):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    processor = (folders["dpt"] / "preprocessor_config.json").read_text()
    (tmp_path / "preprocessor_config.json").write_text(processor)
    with pytest.raises(ValueError, match="depth estimation"):
        load_depth_model(tmp_path)


@pytest.mark.parametrize("name", ["", "a b", "https://example.org/model", "../nothing/here"])
def test_name_that_is_none_is_refused(name):
    with pytest.raises(ValueError, match="expected a folder, or a model of the hub"):
        load_depth_model(name)


@pytest.mark.parametrize("focal", [0.0, -5.0, float("nan"), float("inf")])
def test_bad_focal_length(models, photo, focal):
    with pytest.raises(ValueError, match="focal_px: expected a positive focal length"):
        models["indoor"].estimate(photo, focal_px=focal)


def test_bad_pictures_and_counts(models, photo):
    with pytest.raises(ValueError, match="uint8 RGB"):
        models["dpt"].estimate(photo[..., 0])
    with pytest.raises(ValueError, match="one for each of 2 pictures, got 1"):
        models["dpt"].estimate_batch([photo, photo], focal_px=[50.0])
    with pytest.raises(ValueError, match="a loaded model has its own"):
        estimate_depth(photo, models["dpt"], kind="metric_depth")
    assert models["dpt"].estimate_batch([]) == []


def test_import_does_not_load_transformers():
    code = "import sys, sightline.depth_scale.depth_models as d; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
