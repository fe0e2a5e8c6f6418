"""A matcher over a BOP data set: the file that BOP takes, with honest times, from any place on."""

from __future__ import annotations

import json

import pytest
import torch

from sightline.cli.main import main
from sightline.formats.bop_dataset import BopDataset, Target, write_targets
from sightline.formats.bop_detections import BopDetection, write_bop_detections
from sightline.formats.bop_results import HEADER, read_bop_results
from sightline.nn.checkpoint import save_model
from sightline.pipeline import bop_run
from sightline.pipeline.bop_run import run_bop
from sightline.pipeline.estimators import EstimatorMaker, MatcherChoice
from sightline.records import Correspondences
from sightline.synthetic import SceneSettings, make_object, make_scene, write_bop_dataset
from sightline.vpog.model import VPOGModel


class TruthMatcher:
    """Correspondences of the instance whose box it is given, with an error of a twentieth of a pixel."""

    errors_in_common = 1.0

    def __init__(self, dataset):
        self.dataset, self.asked = dataset, []

    def describe(self, image):
        self.asked.append([])
        frames = self.dataset.frames
        return next(frame for frame in frames if (frame.read_image() == image).all())

    def extend(self, card):
        raise NotImplementedError

    def match(self, features, card, *, box=None, max_groups=4):
        self.asked[-1].append((card.name, None if box is None else box.tolist()))
        own = [one for one in features.objects if one.name == card.name]
        if box is not None:
            own = [one for one in own if torch.allclose(one.visible_box().double(), box, atol=3)]
        return [self._of(features, card, one.cam_from_obj) for one in own[:max_groups]]

    def rematch(self, features, card, camera, cam_from_obj, *, radius_px):
        return self._of(features, card, cam_from_obj)

    def _of(self, frame, card, pose):
        generator = torch.Generator().manual_seed(0)
        points = card.mesh.vertices.double()
        points = points[torch.randperm(len(points), generator=generator)[:60]]
        pixels = frame.camera.project(points @ pose[:3, :3].T + pose[:3, 3])
        pixels += 0.05 * torch.randn(pixels.shape, generator=generator, dtype=torch.float64)
        return Correspondences.build(pixels, points, weights=torch.ones(len(points)).double())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three pictures with a box twice and a can; the boxes of all visible instances as detections."""
    root = tmp_path_factory.mktemp("bop") / "toys"
    objects = [make_object("box", 1), make_object("can", 0)]
    settings = SceneSettings(image_size=(240, 180), size_px=(50.0, 80.0))
    scenes = [make_scene([objects[0], objects[1], objects[0]], seed, settings) for seed in (3, 4, 5)]
    write_bop_dataset(root, objects, scenes, split="test", scene_id=2)
    found = []
    for frame in BopDataset(root).frames:
        for rank, one in enumerate(frame.objects):
            found.append(
                BopDetection(
                    2, frame.frame_id, one.obj_id, one.visible_box().double(), 0.9 - rank / 10, time=0.25
                )
            )
    write_bop_detections(root.parent / "cnos.json", found)
    return root


@pytest.fixture
def matcher(folder, monkeypatch):
    made = TruthMatcher(BopDataset(folder))
    monkeypatch.setattr(EstimatorMaker, "matcher", lambda self, cards: made)
    return made


OPTIONS = {"num_views": 42, "template_size": 48}


def test_poses_become_a_file_that_bop_takes(folder, matcher, tmp_path):
    results = tmp_path / "sift_toys-test.csv"
    done = run_bop(folder, results, detections=folder.parent / "cnos.json", **OPTIONS)
    lines = results.read_text().splitlines()
    assert lines[0] == HEADER == "scene_id,im_id,obj_id,score,R,t,time"
    cells = lines[1].split(",")
    assert [len(cell.split()) for cell in cells] == [1, 1, 1, 1, 9, 3, 1]
    rows = read_bop_results(results)
    assert len(rows) == done.num_poses >= 8
    for row in rows:
        frame = BopDataset(folder).scenes[2].frame(row.im_id)
        own = [one.cam_from_obj for one in frame.objects if one.obj_id == row.obj_id]
        assert min(float((row.cam_from_obj[:3, 3] - pose[:3, 3]).norm()) for pose in own) < 0.01
    for im_id in range(3):
        [time] = {row.time for row in rows if row.im_id == im_id}
        assert time > 0.25
    assert done.detector_seconds == 0.25
    assert done.pose_seconds + 0.25 == pytest.approx(sorted({row.time for row in rows})[1])
    assert done.notes == ()
    assert not list(tmp_path.glob("*.partial.jsonl"))
    assert len(matcher.asked) == 3  # a picture is described once, whatever is looked for in it


def test_boxes_are_those_of_the_detections(folder, matcher, tmp_path):
    run_bop(folder, tmp_path / "sift_toys-test.csv", detections=folder.parent / "cnos.json", **OPTIONS)
    listed = json.loads((folder.parent / "cnos.json").read_text())
    boxes = {tuple(round(v, 3) for v in one["bbox"][:2]) for one in listed}
    asked = [box for picture in matcher.asked for _, box in picture]
    assert None not in asked
    assert {tuple(round(v + 0.5, 3) for v in box[:2]) for box in asked} <= boxes


def test_true_boxes_are_said_to_be_such(folder, matcher, tmp_path):
    done = run_bop(folder, tmp_path / "sift_toys-test.csv", true_boxes=True, **OPTIONS)
    assert "true boxes" in done.method
    assert "not to be compared" in "\n".join(done.lines())
    assert done.num_poses >= 8
    assert all(0 < row.time < 60 for row in read_bop_results(done.results))


def test_without_boxes_the_matcher_looks_everywhere(folder, matcher, tmp_path):
    done = run_bop(folder, tmp_path / "sift_toys-test.csv", **OPTIONS)
    assert {box for picture in matcher.asked for _, box in picture} == {None}
    assert done.num_poses >= 8


def test_no_more_poses_than_the_targets_ask_for(folder, matcher, tmp_path, monkeypatch):
    copy = tmp_path / "toys"
    copy.mkdir()
    for each in ("models", "test"):
        (copy / each).symlink_to(folder / each)
    write_targets(
        copy / "test_targets_bop19.json", [Target(2, 1, 1, 1), Target(2, 1, 2, 2), Target(2, 2, 2, 1)]
    )
    done = run_bop(copy, tmp_path / "sift_toys-test.csv", detections=folder.parent / "cnos.json", **OPTIONS)
    rows = read_bop_results(done.results)
    assert sorted((row.im_id, row.obj_id) for row in rows) == [(1, 1), (1, 2), (2, 2)]
    assert done.num_pictures == 2
    (copy / "test_targets_bop19.json").unlink()
    write_targets(copy / "test_targets_bop24.json", [Target(2, 0), Target(2, 1)])
    done = run_bop(copy, tmp_path / "sift_toys-test_2.csv", detections=folder.parent / "cnos.json", **OPTIONS)
    assert {row.im_id for row in read_bop_results(done.results)} == {0, 1}
    assert done.num_poses >= 5


def test_a_run_that_was_stopped_goes_on(folder, matcher, tmp_path, monkeypatch):
    results, look = tmp_path / "sift_toys-test.csv", bop_run._look
    calls = []

    def stop_at_the_third(frame, *rest, **options):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(frame.frame_id)
        return look(frame, *rest, **options)

    monkeypatch.setattr(bop_run, "_look", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run_bop(folder, results, true_boxes=True, **OPTIONS)
    assert not results.exists()
    [journal] = tmp_path.glob("*.partial.jsonl")
    with journal.open("a") as file:
        file.write("[2, 2, 0.1, 0.0, [[1, 0.5, [1")  # stopped within a line
    with pytest.raises(ValueError, match="the notes of another run"):
        run_bop(folder, results, detections=folder.parent / "cnos.json", **OPTIONS)
    monkeypatch.setattr(bop_run, "_look", look)
    done = run_bop(folder, results, true_boxes=True, **OPTIONS)
    assert done.num_resumed == 2
    whole = run_bop(folder, tmp_path / "sift_toys-test_9.csv", true_boxes=True, **OPTIONS)
    for one, other in zip(read_bop_results(results), read_bop_results(whole.results), strict=True):
        assert (one.im_id, one.obj_id) == (other.im_id, other.obj_id)
        assert torch.allclose(one.cam_from_obj, other.cam_from_obj)


def test_the_learned_matcher_runs_too(folder, tmp_path):
    model = VPOGModel(
        {"name": "tiny", "dim": 32, "depth": 1, "num_heads": 2},
        image_size=64,
        depth=1,
        num_heads=2,
        flow_hidden_dim=32,
        flow_layers=1,
    )
    save_model(tmp_path / "small.safetensors", model, model.config, {"turn": 0.55})
    make = EstimatorMaker(MatcherChoice("vpog", tmp_path / "small.safetensors"))
    done = run_bop(folder, tmp_path / "vpog_toys-test.csv", make=make, true_boxes=True, **OPTIONS)
    assert "small" in done.method
    assert done.method.endswith(", true boxes")
    assert done.num_pictures == 3
    assert done.num_poses == len(read_bop_results(done.results))  # by luck; it has learned nothing


def test_unknown_times_are_unknown(folder, matcher, tmp_path):
    found = []
    for frame in BopDataset(folder).frames:
        one = frame.objects[0]
        found.append(BopDetection(2, frame.frame_id, one.obj_id, one.visible_box().double(), 0.9))
    write_bop_detections(tmp_path / "untimed.json", found[:2])
    done = run_bop(folder, tmp_path / "sift_toys-test.csv", detections=tmp_path / "untimed.json", **OPTIONS)
    rows = read_bop_results(done.results)
    assert {row.time for row in rows} == {-1}
    assert {row.im_id for row in rows} == {0, 1}
    assert "3 pictures have no detection, or detections without a time" in done.notes[0]
    assert "1 pictures have no pose at all" in done.notes[1]


def test_the_verb_runs_and_scores(folder, matcher, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bop_run, "onboard_mesh", _small(bop_run.onboard_mesh))
    results = tmp_path / "sift_toys-test.csv"
    arguments = ["evaluate", "bop", "--dataset", str(folder), "--results", str(results)]
    assert main([*arguments, "--true-boxes", "true", "--cards", str(tmp_path / "cards")]) == 0
    out = capsys.readouterr().out
    assert "true boxes" in out
    recall = float(next(line for line in out.splitlines() if "AR " in line and "VSD" not in line).split()[-2])
    assert recall > 0.85
    assert (tmp_path / "cards" / "obj_000001" / "card.json").is_file()
    assert main([*arguments, "--true-boxes", "true"]) == 2
    assert "there is such a file" in capsys.readouterr().err
    assert main(arguments) == 0  # scored alone


def _small(onboard):
    return lambda mesh, **options: onboard(mesh, **(options | OPTIONS))


def test_bad_requests_are_named(folder, matcher, tmp_path):
    with pytest.raises(ValueError, match=r"expected METHOD_DATASET-SPLIT\.csv"):
        run_bop(folder, tmp_path / "my_method_toys-test.csv")
    with pytest.raises(ValueError, match="expected one source of boxes"):
        run_bop(folder, tmp_path / "a_toys-test.csv", true_boxes=True, detections=tmp_path / "cnos.json")
    with pytest.raises(FileNotFoundError, match="val"):
        run_bop(folder, tmp_path / "a_toys-val.csv")
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        run_bop(folder, tmp_path / "a_toys-test.csv", detections=tmp_path / "none.json")
