"""Web data sets of tar shards: what is written comes back, and what is damaged is skipped and told."""

from __future__ import annotations

import io
import json
import logging
import pickle
import tarfile
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from sightline.formats.bop_shard_stream import ShardStream, read_whole_shards
from sightline.formats.bop_shard_writing import write_bop_shards
from sightline.formats.bop_webdataset import BopShards, read_object_names
from sightline.formats.convert import convert
from sightline.formats.frames import load_mask
from sightline.formats.tar_shards import index_archive
from tests.formats.dataset_factory import make_frame


@pytest.fixture
def frames(tmp_path):
    """Seven frames of three scenes; each shows one object twice and another one once."""
    (tmp_path / "source").mkdir()
    made = [make_frame(tmp_path / "source", i, ("mug", "can", "mug")) for i in range(7)]
    numbers = {"mug": 5, "can": 2}
    return [
        replace(
            frame,
            scene_id=3 - frame.frame_id % 3,
            image=frame.read_image(),
            depth=frame.read_depth(),
            objects=tuple(
                replace(one, obj_id=numbers[one.name], visibility=0.5, silhouette_px=2 * int(one.mask.sum()))
                for one in frame.objects
            ),
        )
        for frame in made
    ]


@pytest.fixture
def folder(tmp_path, frames):
    write_bop_shards(tmp_path / "web", frames, per_shard=3, image_suffix=".png", names={2: "Can", 5: "Mug"})
    return tmp_path / "web"


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.CRITICAL, "sightline")


def check_same(frame, other):
    assert (frame.scene_id, frame.frame_id) == (other.scene_id, other.frame_id)
    assert np.array_equal(frame.read_image(), other.read_image())
    assert np.allclose(frame.read_depth(), other.read_depth(), atol=1e-4)
    assert torch.allclose(frame.camera.K, other.camera.K)
    assert [one.obj_id for one in frame.objects] == [one.obj_id for one in other.objects] == [5, 2, 5]
    for one, its in zip(frame.objects, other.objects, strict=True):
        assert torch.allclose(one.cam_from_obj, its.cam_from_obj, atol=1e-9)
        assert torch.allclose(one.box, its.box)
        assert np.array_equal(load_mask(one.mask), load_mask(its.mask))
        assert one.visibility == its.visibility == 0.5


def test_pictures_come_back_by_number_and_by_key(folder, frames):
    shards = BopShards(folder)
    assert shards.shards == [0, 1, 2]
    assert len(shards) == 7
    for number, frame in enumerate(frames):
        check_same(shards[number], frame)
        check_same(shards.frame(f"{frame.scene_id:06d}_{frame.frame_id:06d}"), frame)
    assert shards.report == []
    with pytest.raises(KeyError, match="no picture 000009_000001"):
        shards.frame("000009_000001")
    assert read_object_names(folder / "gso_models.json") == {2: "Can", 5: "Mug"}


def test_members_are_named_and_measured_as_bop_does(folder):
    with tarfile.open(folder / "shard-000000.tar") as archive:
        names = archive.getnames()[:6]
        entries = {name.partition(".")[2]: archive.extractfile(name).read() for name in names}
    assert names[0] == "000003_000000.rgb.png"
    wanted = {"rgb.png", "depth.png", "camera.json", "gt.json", "gt_info.json", "mask_visib.json"}
    assert wanted <= set(entries)
    truth = json.loads(entries["gt.json"])
    assert [one["obj_id"] for one in truth] == [5, 2, 5]
    assert 500 < np.linalg.norm(truth[0]["cam_t_m2c"]) < 8000  # millimetres
    assert json.loads(entries["camera.json"])["depth_scale"] == 0.1
    codes = json.loads(entries["mask_visib.json"])
    assert sorted(codes) == ["0", "1", "2"]
    assert isinstance(codes["0"]["counts"], list)
    assert json.loads(entries["gt_info.json"])[0]["visib_fract"] == 0.5


def test_the_same_frames_give_the_same_bytes(folder, frames, tmp_path):
    write_bop_shards(tmp_path / "again", frames, per_shard=3, image_suffix=".png", names={2: "Can", 5: "Mug"})
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_duplicates_of_an_object_keep_their_own_masks(folder):
    first, other, second = BopShards(folder)[0].objects
    assert first.obj_id == second.obj_id != other.obj_id
    masks = [load_mask(each.mask) for each in (first, second)]
    assert not np.array_equal(*masks)
    assert not torch.equal(first.cam_from_obj, second.cam_from_obj)
    assert np.array_equal(load_mask(BopShards(folder)[0].objects[0].mask), masks[0])


def test_without_the_list_of_keys_shards_are_looked_through(folder, frames):
    (folder / "key_to_shard.json").unlink()
    shards = BopShards(folder)
    assert len(shards) == 7
    check_same(shards[4], frames[4])


def test_only_shards_that_are_there_count(folder):
    (folder / "shard-000001.tar").unlink()
    shards = BopShards(folder)
    keys = ["000003_000000", "000002_000001", "000001_000002", "000003_000006"]
    assert [shards.key(i) for i in range(len(shards))] == keys
    names = {
        key: f"shard-{n:06d}.tar" for key, n in json.loads((folder / "key_to_shard.json").read_text()).items()
    }
    (folder / "key_to_shard.json").write_text(json.dumps(names))
    assert len(BopShards(folder)) == 4
    with pytest.raises(FileNotFoundError, match="expected shards such as"):
        BopShards(folder.parent / "nothing")


def test_streams_share_the_shards_and_read_all_of_them(folder, frames):
    shards = BopShards(folder)
    seen = [[f.frame_id for f in ShardStream(shards, part=p, parts=2, seed=4, epoch=1)] for p in range(2)]
    assert sorted([*seen[0], *seen[1]]) == list(range(7))
    assert all(seen)
    again = [[f.frame_id for f in ShardStream(shards, part=p, parts=2, seed=4, epoch=1)] for p in range(2)]
    assert seen == again
    orders = {tuple(ShardStream(shards, seed=4, epoch=e).order) for e in range(6)}
    assert len(orders) > 1
    for one, frame in zip(ShardStream(shards), frames, strict=True):
        check_same(one, frame)
        assert isinstance(one.image, np.ndarray)
    with pytest.raises(ValueError, match="part: expected one of 2, from 0, got 2"):
        ShardStream(shards, part=2, parts=2)


@pytest.mark.parametrize("stop", range(8))
def test_a_stream_goes_on_where_it_stopped(folder, stop):
    whole = [f.frame_id for f in ShardStream(BopShards(folder), seed=1)]
    first = ShardStream(BopShards(folder), seed=1)
    begun = [frame.frame_id for frame in islice(first, stop)]
    rest = [f.frame_id for f in ShardStream(BopShards(folder), seed=1, start=first.position)]
    assert begun + rest == whole
    assert len(whole) == 7


def test_a_truncated_shard_is_read_up_to_its_end_and_told(folder):
    path = folder / "shard-000001.tar"
    data = path.read_bytes()
    samples, fault = index_archive(path)
    assert fault == ""
    last = max(part.offset for part in samples["000001_000005"].values())
    for length, kept in ((last + 5, 2), (len(data) // 2, 1), (100, 0), (0, 0)):
        path.write_bytes(data[:length])
        shards = BopShards(folder)
        frames = list(ShardStream(shards))
        assert len(frames) == 4 + kept
        assert len(shards.report) == 1
        assert str(path) in shards.report.lines()[0]
        assert f"{kept} pictures before that are read" in shards.report.lines()[0]
    with pytest.raises(ValueError, match=r"shard-000001.tar/000001_000005: the shard does not hold"):
        shards.frame("000001_000005")


def test_a_shard_that_is_damaged_in_its_middle_is_not_taken_for_whole(folder):
    path = folder / "shard-000000.tar"
    data = bytearray(path.read_bytes())
    samples, _ = index_archive(path)
    header = samples["000002_000001"]["rgb.png"].offset - 512
    data[header : header + 512] = b"\x07" * 512
    path.write_bytes(data)
    kept, fault = index_archive(path)
    assert "damaged at byte" in fault
    assert "000001_000002" not in kept
    shards = BopShards(folder)
    assert len(list(ShardStream(shards))) < 7
    assert len(shards.report) == 1


@pytest.mark.parametrize(
    ("part", "data", "message"),
    [
        ("gt.json", b'[{"obj_id": 5}, {"obj_id": 5}, {"obj_id": 5}]', "cam_R_m2c"),
        ("gt.json", b'[{"obj', "expected JSON, damaged or truncated"),
        ("gt_info.json", b"[]", "gt.json has 3 objects, gt_info.json 0"),
        ("camera.json", b'{"cam_K": [1, 2]}', "expected 3 x 3 numbers, got 2"),
        ("camera.json", None, "camera.json is missing"),
        ("rgb.png", None, "expected one of rgb.jpg"),
        ("rgb.png", b"no picture", "expected a whole picture"),
        ("depth.png", b"\x89PNG", "expected a whole picture"),
        ("mask_visib.json", b'{"0": {"size": [2, 2], "counts": [3]}}', "expected runs that fill 2 x 2"),
    ],
)
def test_damaged_members_are_skipped_and_named(folder, part, data, message):
    path = folder / "shard-000002.tar"
    with tarfile.open(path) as archive:
        members = {name: archive.extractfile(name).read() for name in archive.getnames()}
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            content = data if name.endswith(f".{part}") else content
            if content is not None:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    shards = BopShards(folder)
    assert [frame.frame_id for frame in ShardStream(shards)] == list(range(6))
    assert len(shards.report) == 1
    assert "000003_000006" in shards.report.lines()[0]
    assert message in shards.report.lines()[0]


def test_nothing_is_unpickled(folder, monkeypatch):
    monkeypatch.setattr(pickle, "loads", None)
    monkeypatch.setattr(pickle, "load", None)
    assert len(list(ShardStream(BopShards(folder)))) == 7


def test_data_sets_become_shards_and_shards_data_sets(folder, tmp_path):
    done = convert(folder, "bop-webdataset", tmp_path / "bop", "bop", split="train")
    assert (done.frames, done.objects) == (7, 21)
    back = convert(tmp_path / "bop", "bop", tmp_path / "back", "bop-webdataset", split="train")
    assert back.frames == 7
    originals, again = BopShards(folder), BopShards(tmp_path / "back" / "train")
    for i in range(7):
        check_same(originals.frame(again.key(i)), again[i])


def test_conversion_tells_what_it_skipped(folder, tmp_path):
    path = folder / "shard-000001.tar"
    path.write_bytes(path.read_bytes()[:3000])
    frames = read_whole_shards(folder)
    assert len(frames.frames) == len(frames.frames[:]) == 4
    assert "shard-000001.tar" in frames.ignored[0]
    done = convert(folder, "bop-webdataset", tmp_path / "bop", "bop")
    assert "shard-000001.tar" in "\n".join(done.lines())


def test_what_cannot_be_written_is_refused(frames, tmp_path):
    with pytest.raises(ValueError, match="scene 3 has two frames 0"):
        write_bop_shards(tmp_path / "twice", [frames[0], frames[0]])
    assert not (tmp_path / "twice").exists()
    nameless = replace(frames[0], objects=(replace(frames[0].objects[0], obj_id=None),))
    with pytest.raises(ValueError, match="expected a pose and an object number"):
        write_bop_shards(tmp_path / "nameless", [nameless])
