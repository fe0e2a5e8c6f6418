"""Videos through PyAV: frames in and out one at a time, so that memory does not grow with length."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import av.container
import av.video.stream
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from jaxtyping import UInt8

from sightline.formats.atomic import atomic_write

_ENCODERS = ("libx264", "libopenh264", "mpeg4")
# Containers often claim a frame or two more than an edit list or a trailing B-frame lets out.
_CLAIM_SLACK = 2


class VideoReader:
    """Read the frames of a video in the order in which they are shown, upright and as RGB.

    Frames are counted as they come out of the decoder, from 0; time stamps, which are wrong in many files,
    are not used. One frame is held at a time. Random access decodes onwards from the last frame that was
    asked for, or from the start.

    Args:
        path: a video that FFmpeg reads.
        strict: whether a video that ends early or is damaged raises at that point. Otherwise reading stops
            there and ``problem`` says what was wrong.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a video, or damaged beyond opening.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "grey.mp4"
        >>> with VideoWriter(path, fps=25) as writer:
        ...     for _ in range(3):
        ...         writer.write(np.full((32, 48, 3), 128, dtype=np.uint8))
        >>> with VideoReader(path) as reader:
        ...     reader.image_size, reader.fps, sum(1 for frame in reader)
        ((48, 32), 25.0, 3)
    """

    def __init__(self, path: str | Path, *, strict: bool = True) -> None:
        self.path = Path(path)
        self.strict = strict
        self.problem = ""
        self.frames_read = 0
        self._access: Generator[av.VideoFrame] | None = None  # the running pass of random access
        self._held: tuple[int, av.VideoFrame] | None = None  # its last frame and that frame's number
        self._read_header()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        """End a pass of random access and close its file."""
        if self._access is not None:
            self._access.close()
        self._access = self._held = None

    def __iter__(self) -> Generator[UInt8[np.ndarray, "h w 3"]]:
        """Give every frame from the first on, ``(h, w, 3)`` uint8 RGB.

        Raises:
            ValueError: the video ends early or is damaged, and ``strict`` was asked for.
        """
        for frame in self._decode():
            yield self._upright_rgb(frame)

    def count_frames(self) -> int:
        """Count the frames by decoding them all, the only count that is always true."""
        return sum(1 for _ in self._decode())

    def frames(self, indices: Iterable[int]) -> Generator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
        """Give chosen frames with their numbers in one pass, sorted and each once.

        Args:
            indices: frame numbers from 0.

        Yields:
            ``(index, frame)`` in ascending order.

        Raises:
            IndexError: a number is negative or beyond the last frame.
        """
        for index in sorted(set(indices)):
            yield index, self[index]

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """The frame of this number; cheap for ascending numbers, a fresh pass for a step back.

        Raises:
            IndexError: the number is negative or beyond the last frame.
        """
        if index < 0:
            raise IndexError(f"{self.path}: expected a frame number of at least 0, got {index}")
        if self._access is None or (self._held is not None and index < self._held[0]):
            self.close()
            self._access = self._decode()
        position = -1 if self._held is None else self._held[0]
        while position < index:
            frame = next(self._access, None)
            if frame is None:
                self.close()
                raise IndexError(f"{self.path}: frame {index} was asked for, there are {position + 1}")
            position += 1
            self._held = (position, frame)
        assert self._held is not None
        return self._upright_rgb(self._held[1])

    def _read_header(self) -> None:
        container, stream = _open_video(self.path)
        try:
            first = next(container.decode(stream), None)
        except av.FFmpegError as error:
            raise ValueError(f"{self.path}: no frame can be decoded ({error.strerror})") from error
        finally:
            container.close()
        if first is None:
            raise ValueError(f"{self.path}: expected a video, it has no frame")
        rate = stream.average_rate or stream.guessed_rate
        self.fps = float(rate) if rate else float("nan")
        self.claimed_frames = stream.frames
        # PyAV gives the counter-clockwise turn that brings the stored frame upright.
        self._quarter_turns = round(first.rotation / 90) % 4
        size = (first.width, first.height)
        self.image_size = size[::-1] if self._quarter_turns % 2 else size

    def _decode(self) -> Generator[av.VideoFrame]:
        container, stream = _open_video(self.path)
        self.problem, count, last_s = "", 0, 0.0
        try:
            for frame in container.decode(stream):
                count += 1
                self.frames_read = count
                last_s = max(last_s, frame.time or 0.0)
                yield frame
        except av.FFmpegError as error:
            self._report(f"{self.path}: damaged after {count} frames of {self._claim()} ({error.strerror})")
        else:
            if count < self.claimed_frames - _CLAIM_SLACK and not self._reaches_end(stream, last_s):
                self._report(f"{self.path}: truncated, {count} frames of {self._claim()} can be read")
        finally:
            container.close()

    def _reaches_end(self, stream: av.video.stream.VideoStream, last_s: float) -> bool:
        """Whether the last frame lies at the end of the shown time: a trimmed clip keeps frames it hides."""
        if stream.duration is None or stream.time_base is None or not self.fps > 0:
            return False
        return last_s >= float(stream.duration * stream.time_base) - (_CLAIM_SLACK + 1) / self.fps

    def _report(self, problem: str) -> None:
        self.problem = problem
        if self.strict:
            raise ValueError(problem)

    def _claim(self) -> str:
        return str(self.claimed_frames or "an unknown number")

    def _upright_rgb(self, frame: av.VideoFrame) -> UInt8[np.ndarray, "h w 3"]:
        pixels = frame.to_ndarray(format="rgb24")
        return np.ascontiguousarray(np.rot90(pixels, self._quarter_turns)) if self._quarter_turns else pixels


def _open_video(path: Path) -> tuple[av.container.InputContainer, av.video.stream.VideoStream]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such video")
    try:
        container = av.open(str(path))
    except av.FFmpegError as error:
        raise ValueError(f"{path}: expected a video, it is damaged or none ({error.strerror})") from error
    if not container.streams.video:
        container.close()
        raise ValueError(f"{path}: expected a video, the file has no picture stream")
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    return container, stream


class VideoWriter:
    """Write frames to an H.264 video that browsers and players open; whole or not at all.

    Frames of odd width or height are padded by repeating their last column or row, because the pixel format
    needs even sizes. If the ``with`` block fails, no file appears.

    Args:
        path: where to; ``.mp4``, ``.mkv`` or ``.mov``.
        fps: frames a second.
        quality: x264's constant rate factor, 0 (lossless luma) to 51; 18 looks lossless.

    Raises:
        ValueError: a rate that is not positive, an unknown suffix, frames of another shape, no frame at all.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "grey.mp4"
        >>> with VideoWriter(path, fps=29.97) as writer:
        ...     writer.write(np.full((33, 47, 3), 128, dtype=np.uint8))
        >>> VideoReader(path).image_size
        (48, 34)
    """

    def __init__(self, path: str | Path, fps: float | int, *, quality: int = 18) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in (".mp4", ".mkv", ".mov"):
            raise ValueError(f"{path}: expected .mp4, .mkv or .mov, got {self.path.suffix!r}")
        if not (np.isfinite(fps) and fps > 0):
            raise ValueError(f"{path}: expected a positive number of frames a second, got {fps}")
        self.fps = Fraction(fps).limit_denominator(1001)
        self.quality = quality
        self.num_frames = 0
        self._exits = ExitStack()
        self._shape: tuple[int, ...] | None = None
        self._container: av.container.OutputContainer | None = None
        self._stream: av.video.stream.VideoStream | None = None

    def __enter__(self) -> VideoWriter:
        self._temporary = self._exits.enter_context(atomic_write(self.path))
        self._exits.push(self._finish)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return self._exits.__exit__(kind, error, trace)

    def write(self, frame: np.ndarray) -> None:
        """Append one frame.

        Args:
            frame: ``(h, w, 3)`` uint8 RGB, of the size of the first frame.

        Raises:
            ValueError: another shape or dtype.
        """
        fits = frame.shape == self._shape if self._shape else frame.ndim == 3 and frame.shape[2] == 3
        if frame.dtype != np.uint8 or not fits:
            wanted = self._shape or "(h, w, 3)"
            raise ValueError(f"{self.path}: expected uint8 {wanted}, got {frame.dtype} {frame.shape}")
        if self._shape is None:
            self._shape = frame.shape
            self._open(height=frame.shape[0], width=frame.shape[1])
        self._encode(np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge"))
        self.num_frames += 1

    def _open(self, height: int, width: int) -> None:
        options = {"movflags": "+faststart"} if self.path.suffix.lower() != ".mkv" else {}
        self._container = av.open(str(self._temporary), "w", options=options)
        codec = next(name for name in _ENCODERS if name in av.codecs_available)
        self._stream = self._container.add_stream(codec, rate=self.fps)
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = "yuv420p"
        # Say which matrix was used: players guess another one for high definition.
        self._stream.codec_context.colorspace = Colorspace.ITU601
        self._stream.codec_context.color_range = ColorRange.MPEG
        if codec == "libx264":
            self._stream.options = {"crf": str(self.quality)}
        else:
            self._stream.bit_rate = int(width * height * float(self.fps) * 0.25)

    def _encode(self, pixels: np.ndarray) -> None:
        assert self._container is not None and self._stream is not None
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def _finish(self, kind: type[BaseException] | None, *_failure: object) -> None:
        if self._container is None or self._stream is None:
            if kind is None:
                raise ValueError(f"{self.path}: expected at least one frame, none was written")
            return
        try:
            if kind is None:
                self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()
