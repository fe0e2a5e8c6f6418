from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest

from sightline.formats.videos import VideoReader, VideoWriter
from tests.real_data import real_path

COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 40), (255, 255, 255), (0, 0, 0), (20, 200, 180)]


def plain(color, height=48, width=64):
    return np.tile(np.uint8(color), (height, width, 1))


@pytest.fixture
def colors_video(tmp_path):
    path = tmp_path / "colors.mp4"
    with VideoWriter(path, fps=30) as writer:
        for color in COLORS:
            writer.write(plain(color))
    return path


def test_write_then_read_keeps_count_rate_size_and_colours(colors_video):
    reader = VideoReader(colors_video)
    assert (reader.image_size, reader.fps, reader.claimed_frames) == ((64, 48), 30.0, len(COLORS))
    frames = list(reader)
    assert reader.frames_read == len(frames) == reader.count_frames() == len(COLORS)
    for frame, color in zip(frames, COLORS, strict=True):
        assert frame.dtype == np.uint8 and frame.shape == (48, 64, 3)
        assert np.abs(frame[24, 32].astype(int) - color).max() <= 3  # limited range and chroma rounding


def test_red_stays_red_so_the_channels_are_not_swapped(colors_video):
    assert VideoReader(colors_video)[0][0, 0, 0] > 240


def test_random_access_in_any_order(colors_video):
    with VideoReader(colors_video) as reader:
        for index in (3, 3, 0, 6, 2):
            assert np.abs(reader[index][24, 32].astype(int) - COLORS[index]).max() <= 3
        assert [index for index, _ in reader.frames([5, 1, 5])] == [1, 5]


def test_random_access_during_a_pass_does_not_disturb_it(colors_video):
    reader = VideoReader(colors_video)
    count = 0
    for _ in reader:
        assert reader[0][24, 32, 0] > 240
        count += 1
    assert count == len(COLORS)


@pytest.mark.parametrize("index", [-1, len(COLORS)])
def test_frames_that_are_not_there(colors_video, index):
    with pytest.raises(IndexError, match=r"colors\.mp4"):
        VideoReader(colors_video)[index]


def test_odd_sizes_are_padded_with_their_last_row_and_column(tmp_path):
    path = tmp_path / "odd.mp4"
    with VideoWriter(path, fps=25) as writer:
        writer.write(plain((200, 120, 40), 33, 47))
    reader = VideoReader(path)
    assert reader.image_size == (48, 34)
    assert np.abs(reader[0][-1, -1].astype(int) - (200, 120, 40)).max() <= 6


@pytest.mark.parametrize("fps", [23.976, 29.97, 60.0, 12.5])
def test_broken_rates_survive(tmp_path, fps):
    path = tmp_path / "rate.mp4"
    with VideoWriter(path, fps=fps) as writer:
        for _ in range(3):
            writer.write(plain((9, 9, 9)))
    assert VideoReader(path).fps == pytest.approx(fps, rel=1e-4)


def test_a_failure_in_the_block_leaves_no_file(tmp_path):
    with pytest.raises(RuntimeError, match="stop"), VideoWriter(tmp_path / "a.mp4", fps=25) as writer:
        writer.write(plain((1, 2, 3)))
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


def test_no_frame_or_a_changed_size_is_refused_and_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="at least one frame"), VideoWriter(tmp_path / "a.mp4", fps=25):
        pass
    with (
        pytest.raises(ValueError, match=r"expected uint8 \(48, 64, 3\)"),
        VideoWriter(tmp_path / "a.mp4", fps=25) as writer,
    ):
        writer.write(plain((1, 2, 3)))
        writer.write(plain((1, 2, 3), width=32))
    assert list(tmp_path.iterdir()) == []


def test_wrong_arguments_of_the_writer(tmp_path):
    with pytest.raises(ValueError, match="positive number of frames"):
        VideoWriter(tmp_path / "a.mp4", fps=0)
    with pytest.raises(ValueError, match=r"expected \.mp4"):
        VideoWriter(tmp_path / "a.gif", fps=10)


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.mp4: no such video"):
        VideoReader(tmp_path / "absent.mp4")
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.mp4: expected a video"):
        VideoReader(tmp_path / "text.mp4")


def test_a_truncated_video_is_reported_with_the_frames_read(tmp_path):
    path = tmp_path / "whole.mp4"
    noise = np.random.default_rng(0)
    with VideoWriter(path, fps=25) as writer:
        for _ in range(30):
            writer.write(noise.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"cut\.mp4: .*\d+ frames of 30"):
        list(VideoReader(cut))
    lenient = VideoReader(cut, strict=False)
    assert 5 < len(list(lenient)) == lenient.frames_read < 25
    assert "of 30" in lenient.problem


def test_phone_rotation_is_applied(tmp_path):
    path = tmp_path / "phone.mp4"
    stored = plain((0, 0, 0))
    stored[:24, :32] = 255  # the top-left quarter
    with VideoWriter(path, fps=25) as writer:
        writer.write(stored)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # ISO 14496-12, 8.3.2, version 0
    one = 1 << 16
    # (x, y) -> (height - y, x): a quarter turn clockwise, as a phone held upright writes it.
    data[matrix : matrix + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 48 * one, 0, 1 << 30)
    path.write_bytes(data)
    reader = VideoReader(path)
    assert reader.image_size == (48, 64)
    assert np.abs(reader[0].astype(int) - np.rot90(stored, -1)).mean() < 8


def test_memory_does_not_grow_with_length(tmp_path):
    path = tmp_path / "long.mp4"
    with VideoWriter(path, fps=25) as writer:
        for _ in range(60):
            writer.write(plain((50, 60, 70), 240, 320))
    reader = VideoReader(path)
    tracemalloc.start()
    for _ in reader:
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 240 * 320 * 3


@pytest.mark.real
def test_the_real_video_has_455_frames_in_shown_order():
    # Its container claims 456 and its time stamps are not ascending.
    reader = VideoReader(real_path("cookies_box/box.mp4"))
    assert reader.count_frames() == 455
    assert reader.image_size == (640, 480)
    assert reader.fps == pytest.approx(29.97, abs=0.01)
    previous, jumps = None, []
    for _, frame in reader.frames(range(40)):
        small = frame[::8, ::8].astype(float)
        if previous is not None:
            jumps.append(np.abs(small - previous).mean())
        previous = small
    assert max(jumps) < 12


def test_a_trimmed_clip_is_not_taken_for_a_truncated_one(tmp_path):
    path = tmp_path / "trimmed.mp4"
    with VideoWriter(path, fps=25) as writer:
        for i in range(30):
            writer.write(plain((8 * i, 8 * i, 8 * i)))
    data = bytearray(path.read_bytes())
    entry = data.index(b"elst") + 4 + 8  # ISO 14496-12, 8.6.6, version 0: duration, media time
    duration, media_time = struct.unpack_from(">Ii", data, entry)
    media_timescale = struct.unpack_from(">I", data, data.index(b"mdhd") + 4 + 12)[0]
    struct.pack_into(">Ii", data, entry, duration // 2, media_time + media_timescale * 15 // 25)
    path.write_bytes(data)
    reader = VideoReader(path)
    frames = list(reader)
    assert reader.claimed_frames == 30 and len(frames) < 20 and not reader.problem
    assert int(frames[0][0, 0, 0]) == pytest.approx(15 * 8, abs=9)  # what is hidden is not shown
