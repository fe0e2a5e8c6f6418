"""``sightline detect --detector refdet`` with everything that it can be told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sightline.cli.main import main
from sightline.formats.bop_detections import read_bop_detections
from sightline.formats.coco import CocoDataset, read_coco_results
from sightline.formats.images import read_image, write_image
from sightline.formats.results import read_results
from sightline.formats.videos import VideoReader, VideoWriter
from sightline.nn.checkpoint import save_model
from sightline.refdet.detector import ConvNeXtRefDet


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files of weights that learned nothing, photographs of three objects, pictures and a video."""
    root = tmp_path_factory.mktemp("world")
    for seed in range(2):
        torch.manual_seed(seed)
        model = ConvNeXtRefDet(16, 8, 16, backbone="nano", detection_stride=8, template_scales=(1.0,))
        sizes = {"search_size": [96, 64], "template_size": [64, 64], "score_threshold": 0.001}
        save_model(root / f"w{seed}.safetensors", model, model.config, sizes)
    rng = np.random.default_rng(0)
    for name in ("obj_000003", "obj_000008", "cup"):
        for i in range(2):
            write_image(root / name / f"{i}.png", rng.integers(30, 220, (40, 50, 3), dtype=np.uint8))
    for number in (7, 12):
        picture = rng.integers(0, 255, (90, 150, 3), dtype=np.uint8)
        write_image(root / "000048" / "rgb" / f"{number:06d}.png", picture)
    still = rng.integers(0, 255, (64, 96, 3), dtype=np.uint8)
    with VideoWriter(root / "still.mp4", 10) as video:
        for _ in range(5):
            video.write(still)
    return root


def detect(world: Path, output: Path, *options: str, source: str = "000048/rgb", weights: int = 1) -> int:
    files = [str(world / f"w{i}.safetensors") for i in range(weights)]
    cards = [str(world / "obj_000003"), str(world / "obj_000008")]
    arguments = ["detect", str(world / source), "--card", *cards, "--detector", "refdet"]
    return main([*arguments, "--weights", *files, "--output", str(output), *options])


def test_overlays_have_a_strip_of_templates(world, tmp_path):
    assert detect(world, tmp_path) == 0
    drawn = read_image(tmp_path / "000007_overlay.png")
    assert drawn.shape[0] == 90
    assert drawn.shape[1] > 150


def test_everything_at_once(world, tmp_path):
    options = ["--tiles", "2", "--flip", "--scales", "1", "1.5", "--negatives", str(world / "cup")]
    assert detect(world, tmp_path, *options, weights=2) == 0
    written = read_results(tmp_path / "detections.json")
    assert written.meta["detector"] == "refdet w0+w1"
    assert [image.image for image in written.images] == ["000007.png", "000012.png"]


def test_options_reach_the_detector(world, tmp_path):
    """With weights that learned nothing only the counts tell: what competes less is more."""
    counts = {}
    runs = {
        "off": [],
        "tiles": ["--tiles", "auto"],
        "shared": ["--share-places"],
        "negatives": ["--negatives", str(world / "cup")],
    }
    for name, options in runs.items():
        picture = "000048/rgb/000007.png"
        assert detect(world, tmp_path / name, "--instances", "100", *options, source=picture) == 0
        images = read_results(tmp_path / name / "detections.json").images
        counts[name] = sum(len(image.objects) for image in images)
    assert counts["tiles"] != counts["off"]
    assert counts["shared"] >= counts["off"]
    assert counts["negatives"] <= counts["off"]


def test_coco(world, tmp_path):
    assert detect(world, tmp_path, "--format", "coco") == 0
    numbers = CocoDataset(tmp_path / "coco_images.json")
    assert numbers.image_ids == [7, 12]
    assert numbers.categories == {3: "obj_000003", 8: "obj_000008"}
    found = read_coco_results(tmp_path / "coco_results.json")
    ours = read_results(tmp_path / "detections.json")
    assert len(found) == sum(len(image.objects) for image in ours.images) > 0
    first = ours.images[0].objects[0]
    assert found[0].image_id == 7
    assert f"obj_{found[0].category_id:06d}" == first.name
    torch.testing.assert_close(found[0].box, first.box)


def test_bop(world, tmp_path):
    assert detect(world, tmp_path, "--format", "bop") == 0
    found = read_bop_detections(tmp_path / "bop_detections.json")
    assert {one.scene_id for one in found} == {48}
    assert {one.im_id for one in found} == {7, 12}
    assert {one.obj_id for one in found} <= {3, 8}
    assert all(one.time > 0 for one in found)
    assert len({one.time for one in found}) == 2  # one for each picture


def test_a_still_video_gives_the_same_boxes(world, tmp_path):
    assert detect(world, tmp_path, "--instances", "1", source="still.mp4") == 0
    predictions = json.loads((tmp_path / "detections.json").read_text())["predictions"]
    assert [entry["index"] for entry in predictions] == list(range(5))
    assert [entry["time_s"] for entry in predictions] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert {track["state"] for track in predictions[0]["tracks"]} == {"searching"}
    shown = [entry["detections"] for entry in predictions[1:]]
    assert shown[0]
    for found in shown:
        assert [one["track_id"] for one in found] == [0] * len(found)
        for one, first in zip(found, shown[0], strict=True):
            assert one["box"] == pytest.approx(first["box"], abs=1.5)  # the codec's noise
    assert len(read_results(tmp_path / "detections.json").images) == 5
    assert VideoReader(tmp_path / "overlay.mp4").image_size == (96, 64)
    assert (tmp_path / "timeline.png").is_file()


def test_a_folder_as_a_sequence(world, tmp_path):
    options = ["--sequence", "--confirm-frames", "1", "--lose-frames", "1", "--window", "3"]
    assert detect(world, tmp_path, *options, "--instances", "1") == 0
    written = json.loads((tmp_path / "detections.json").read_text())
    assert [entry["image"] for entry in written["predictions"]] == ["000007.png", "000012.png"]
    assert [entry["time_s"] for entry in written["predictions"]] == [None, None]
    assert written["meta"]["frames_per_second"] is None


def test_nothing_in_a_video_gives_a_hint(world, tmp_path, capsys):
    assert detect(world, tmp_path, "--min-score", "0.99", source="still.mp4") == 0
    assert "--min-score and --confirm-frames" in " ".join(capsys.readouterr().out.split())
    predictions = json.loads((tmp_path / "detections.json").read_text())["predictions"]
    assert {track["state"] for entry in predictions for track in entry["tracks"]} == {"searching"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tiles", "0"], "tiles: expected a number of at least 1, auto or off"),
        (["--scales", "0"], "scales: expected positive numbers"),
        (["--negatives", "nowhere"], "nowhere"),
        (["--sequence", "--format", "coco"], "--format coco: expected pictures"),
        (["--sequence", "--window", "0.5"], "window: expected a factor above 1"),
        (["--sequence", "--keep-score", "0.9"], "kept_score: expected at most the found_score"),
        (["--sequence", "--lose-frames", "0"], "lose_frames: expected at least 1"),
        (["--device", "moon"], "device: expected cpu or cuda, got 'moon'"),
    ],
)
def test_bad_options(world, tmp_path, capsys, options, message):
    assert detect(world, tmp_path, *options) == 2
    assert message in capsys.readouterr().err


def test_options_of_the_other_detector(world, capsys):
    arguments = ["detect", str(world / "still.mp4"), "--card", str(world / "cup")]
    assert main([*arguments, "--tiles", "2", "--flip"]) == 2
    assert "--tiles, --flip: expected with --detector refdet" in capsys.readouterr().err
