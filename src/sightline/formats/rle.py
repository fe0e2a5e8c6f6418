"""Masks as COCO's run-length codes: runs of 0 and 1 in turn, down the columns, as numbers or as a text.

The text packs each number in groups of five bits from the lowest, the sixth bit for "more follows", offset
by 48 to printable letters; from the fourth run on it holds the difference to the run two before. Both are
decoded and written here with numpy alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

_OFFSET, _MORE, _PAYLOAD, _SIGN = 48, 0x20, 0x1F, 0x10


@dataclass(frozen=True, eq=False)
class Rle:
    """A run-length coded mask.

    Args:
        height: of the picture, pixels.
        width: of the picture, pixels.
        counts: ``(r,)`` int64, lengths of the runs in column-major order, the first one of zeros (maybe 0).

    Raises:
        ValueError: negative runs, or runs that do not fill the picture exactly.

    Example:
        >>> mask = np.array([[False, True], [False, True], [False, False]])
        >>> Rle.encode(mask).counts.tolist()
        [3, 2, 1]
    """

    height: int
    width: int
    counts: Int[np.ndarray, " r"]

    def __post_init__(self) -> None:
        """Check that the runs fill the picture."""
        total = int(self.counts.sum())
        if (self.counts < 0).any() or total != self.height * self.width:
            raise ValueError(
                f"counts: expected runs that fill {self.width} x {self.height} pixels, they fill {total}"
            )

    @classmethod
    def encode(cls, mask: Bool[np.ndarray, "h w"]) -> Rle:
        """Code a mask ``(h, w)`` bool."""
        flat = mask.ravel(order="F")
        changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        starts = np.concatenate([[0], changes, [flat.size]])
        counts = np.diff(starts)
        if flat.size and flat[0]:
            counts = np.concatenate([[0], counts])
        return cls(mask.shape[0], mask.shape[1], counts)

    def decode(self) -> Bool[np.ndarray, "h w"]:
        """The mask, ``(h, w)`` bool."""
        values = np.arange(len(self.counts)) % 2 == 1
        flat = np.repeat(values, self.counts)
        return np.ascontiguousarray(flat.reshape(self.width, self.height).T)

    @property
    def area(self) -> int:
        """The number of pixels that are set."""
        return int(self.counts[1::2].sum())

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Rle:
        """Read ``{"size": [height, width], "counts": numbers or text}``.

        Raises:
            ValueError: a key is missing, the text is damaged, or the runs do not fill the picture.
        """
        for key in ("size", "counts"):
            if key not in value:
                raise ValueError(f"the key {key!r} is missing")
        counts = value["counts"]
        numbers = np.asarray(counts, np.int64) if isinstance(counts, list) else unpack_counts(counts)
        height, width = (int(side) for side in value["size"])
        return cls(height, width, numbers)

    def to_json(self, *, compressed: bool = True) -> dict[str, Any]:
        """``{"size": [height, width], "counts": ...}``, the counts as text or as numbers."""
        counts = pack_counts(self.counts) if compressed else self.counts.tolist()
        return {"size": [self.height, self.width], "counts": counts}


def unpack_counts(text: str | bytes) -> Int[np.ndarray, " r"]:
    """Decode the text of a compressed run-length code.

    Args:
        text: printable ASCII from ``0`` (48) to ``o`` (111).

    Returns:
        ``(r,)`` int64 run lengths.

    Raises:
        ValueError: another letter, or an end within a number.

    Example:
        >>> unpack_counts("321").tolist()
        [3, 2, 1]
    """
    encoded = text.encode("latin-1", "replace") if isinstance(text, str) else text
    codes = np.frombuffer(encoded, np.uint8).astype(np.int64) - _OFFSET
    if not codes.size:
        return np.zeros(0, np.int64)
    if codes.min() < 0 or codes.max() > 63:
        raise ValueError("counts: expected a compressed run-length code, got another letter in it")
    last = codes & _MORE == 0
    if not last[-1]:
        raise ValueError("counts: the compressed run-length code ends within a number, it is truncated")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    which = np.repeat(np.arange(len(ends)), ends - starts + 1)
    place = np.arange(codes.size) - starts[which]
    numbers = np.add.reduceat((codes & _PAYLOAD) << (5 * place), starts)
    negative = codes[ends] & _SIGN != 0
    numbers -= negative.astype(np.int64) << (5 * (ends - starts + 1))
    return _undo_differences(numbers)


def _undo_differences(numbers: Int[np.ndarray, " r"]) -> Int[np.ndarray, " r"]:
    """From the fourth on a run holds its difference to the run two before: two interleaved running sums."""
    counts = numbers.copy()
    counts[1::2] = np.cumsum(numbers[1::2])
    counts[2::2] = np.cumsum(numbers[2::2])
    return counts


def pack_counts(counts: Int[np.ndarray, " r"]) -> str:
    """Code run lengths as text, the inverse of :func:`unpack_counts`.

    Args:
        counts: ``(r,)`` run lengths.

    Returns:
        Printable ASCII.

    Example:
        >>> pack_counts(np.array([3, 2, 1]))
        '321'
    """
    numbers = counts.astype(np.int64)
    numbers[3:] -= counts[1:-2]
    # A number needs as many groups of five bits as leave its sign bit equal to the bits that were cut off.
    groups = np.arange(13)
    rest = numbers[:, None] >> (5 * groups)
    payload = rest & _PAYLOAD
    tail = rest >> 5
    done = ((tail == 0) & (payload & _SIGN == 0)) | ((tail == -1) & (payload & _SIGN != 0))
    length = done.argmax(axis=1)
    letters = payload | np.where(groups < length[:, None], _MORE, 0)
    return (letters[groups <= length[:, None]] + _OFFSET).astype(np.uint8).tobytes().decode("ascii")
