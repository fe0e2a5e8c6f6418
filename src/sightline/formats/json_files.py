"""JSON with faults that name the file, the place and the key; written whole or not at all."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.formats.atomic import atomic_write
from sightline.geometry.cameras import Camera
from sightline.geometry.poses import make_pose
from sightline.geometry.rotations import project_to_so3


def read_json(path: str | Path) -> Any:  # noqa: ANN401  # what JSON holds
    """Read a JSON file.

    Args:
        path: the file.

    Returns:
        Its content.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON or is truncated; with line and column.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.json"
        >>> write_json(path, {"3": [1, 2]})
        >>> read_json(path)
        {'3': [1, 2]}
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected JSON, the file is not text ({error.reason})") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"{path}: expected JSON, damaged or truncated at {where}: {error.msg}") from error


def write_json(path: str | Path, value: object) -> None:
    """Write JSON with one line for each entry of the outermost list or object.

    Args:
        path: where to.
        value: dicts, lists, numbers, texts; NaN and infinity are refused, because they are no JSON.

    Raises:
        ValueError: NaN or infinity.

    Example:
        >>> write_json("a.json", [float("nan")])
        Traceback (most recent call last):
        ValueError: a.json: JSON holds no NaN and no infinity
    """
    try:
        match value:
            case dict() if value:
                entries = (f"{json.dumps(str(key))}: {_dump(entry)}" for key, entry in value.items())
                text = "{\n  " + ",\n  ".join(entries) + "\n}\n"
            case list() if value:
                text = "[\n  " + ",\n  ".join(map(_dump, value)) + "\n]\n"
            case _:
                text = _dump(value) + "\n"
    except ValueError as error:
        raise ValueError(f"{path}: JSON holds no NaN and no infinity") from error
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _dump(value: object) -> str:
    return json.dumps(value, allow_nan=False)


def null_if_not_finite(number: float | int | None) -> float | None:
    """A number as JSON can hold it: None for NaN and infinity.

    Example:
        >>> null_if_not_finite(float("nan")) is None, null_if_not_finite(2)
        (True, 2.0)
    """
    return None if number is None or not math.isfinite(number) else float(number)


@dataclass(frozen=True)
class Fields:
    """A JSON object that knows where it stands, so that each fault can say so.

    Args:
        values: the object's keys and values.
        path: the file.
        where: the place in it, such as ``"image 3, object 0"``.

    Raises:
        ValueError: from each method, for a key that is missing or holds something else.

    Example:
        >>> Fields({"score": "high"}, Path("a.json"), "entry 2").number("score")
        Traceback (most recent call last):
        ValueError: a.json: entry 2: score: expected a number, got 'high'
    """

    values: Mapping[str, Any]
    path: Path
    where: str

    @classmethod
    def of(cls, value: object, path: Path, where: str) -> Fields:
        """Wrap a value that should be a JSON object."""
        if not isinstance(value, dict):
            raise ValueError(f"{path}: {where}: expected an object with keys, got {_shorten(value)}")
        return cls(value, path, where)

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def fault(self, key: str, message: str) -> ValueError:
        """The error that says what is wrong with a key."""
        return ValueError(f"{self.path}: {self.where}: {key}: {message}")

    def require(self, key: str) -> Any:  # noqa: ANN401  # what JSON holds
        """The value of a key that must be there."""
        if key not in self.values:
            present = ", ".join(self.values) or "none"
            raise ValueError(f"{self.path}: {self.where}: the key {key!r} is missing (there are: {present})")
        return self.values[key]

    def number(self, key: str, default: float | int | None = None) -> float:
        """A finite number, or the default where the key is absent."""
        if default is not None and key not in self:
            return float(default)
        value = self.require(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.fault(key, f"expected a number, got {_shorten(value)}")
        return float(value)

    def integer(self, key: str) -> int:
        """A whole number; ``"5"`` and ``5.0`` count as such."""
        value = self.require(key)
        if isinstance(value, str) and value.lstrip("-").isdigit():
            return int(value)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not float(value).is_integer():
            raise self.fault(key, f"expected a whole number, got {_shorten(value)}")
        return int(value)

    def text(self, key: str) -> str:
        """A text."""
        value = self.require(key)
        if not isinstance(value, str):
            raise self.fault(key, f"expected a text, got {_shorten(value)}")
        return value

    def entries(self, key: str) -> list[Fields]:
        """A list of JSON objects."""
        value = self.require(key)
        if not isinstance(value, list):
            raise self.fault(key, f"expected a list, got {_shorten(value)}")
        return [Fields.of(entry, self.path, f"{self.where}, {key}[{i}]") for i, entry in enumerate(value)]

    def tensor(self, key: str, *shape: int) -> Float[Tensor, "..."]:
        """Numbers as float64 of a shape; nested or flat (row by row) in the file."""
        value = self.require(key)
        wanted = " x ".join(map(str, shape))
        try:
            numbers = torch.tensor(list(_flatten(value)), dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise self.fault(key, f"expected {wanted} numbers, got {_shorten(value)}") from error
        if len(numbers) != math.prod(shape):
            raise self.fault(key, f"expected {wanted} numbers, got {len(numbers)}")
        if not bool(numbers.isfinite().all()):
            raise self.fault(key, f"expected finite numbers, got {_shorten(value)}")
        return numbers.reshape(shape)

    def rotation(self, key: str) -> Float[Tensor, "3 3"]:
        """A rotation, row by row; rounding errors of a few digits are taken out."""
        return clean_rotation(self.tensor(key, 3, 3), f"{self.path}: {self.where}: {key}")

    def pose(self, rotation_key: str, translation_key: str, unit_m: float = 1.0) -> Float[Tensor, "4 4"]:
        """A pose of a rotation and a translation, with the translation's unit in metres."""
        return make_pose(self.rotation(rotation_key), self.tensor(translation_key, 3) * unit_m)

    def camera(self, key: str, image_size: tuple[int, int], distortion: Tensor | None = None) -> Camera:
        """A camera of an intrinsic matrix, row by row, and the size of its picture."""
        K = self.tensor(key, 3, 3)
        try:
            return Camera(K, *image_size, distortion)
        except ValueError as error:
            raise self.fault(key, str(error)) from error


def clean_rotation(R: Float[Tensor, "3 3"], where: str) -> Float[Tensor, "3 3"]:
    """Check a rotation of a file and take out the rounding of its digits.

    Args:
        R: ``(3, 3)`` float64.
        where: file, place and key, for the fault.

    Returns:
        ``(3, 3)`` the rotation itself, or the nearest one where it misses orthogonality by 1e-6 to 1e-2.

    Raises:
        ValueError: a mirror, or nothing near a rotation.

    Example:
        >>> clean_rotation(torch.eye(3, dtype=torch.float64) * 2, "a.json: image 3: cam_R_m2c")
        Traceback (most recent call last):
        ValueError: a.json: image 3: cam_R_m2c: expected a rotation, R R^T misses the identity by 3
    """
    return clean_rotations(R[None], [where])[0]


def clean_rotations(R: Float[Tensor, "n 3 3"], where: Sequence[str]) -> Float[Tensor, "n 3 3"]:
    """Check many rotations at once, as :func:`clean_rotation` does.

    Args:
        R: ``(n, 3, 3)`` float64.
        where: n places, for the fault.

    Returns:
        ``(n, 3, 3)`` rotations.

    Raises:
        ValueError: a mirror, or nothing near a rotation.
    """
    errors = (R @ R.mT - torch.eye(3, dtype=R.dtype)).abs().flatten(1).amax(1)
    mirrored = torch.linalg.det(R) < 0
    faulty = ~(errors <= 1e-2) | mirrored
    if bool(faulty.any()):
        i = int(faulty.nonzero()[0])
        if bool(mirrored[i]) and float(errors[i]) <= 1e-2:
            raise ValueError(f"{where[i]}: expected a rotation, got a mirror (determinant -1)")
        error = float(errors[i])
        raise ValueError(f"{where[i]}: expected a rotation, R R^T misses the identity by {error:.2g}")
    rounded = errors > 1e-6
    if not bool(rounded.any()):
        return R
    cleaned = R.clone()
    cleaned[rounded] = project_to_so3(R[rounded])
    return cleaned


def _flatten(value: object) -> Iterable[float]:
    if isinstance(value, list):
        for entry in value:
            yield from _flatten(entry)
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("not a number")
    else:
        yield value


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
