"""Depth maps as NumPy files: one array of floating-point numbers, whatever unit they are in."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Float32

_BROKEN = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)


def read_depth_array(path: str | Path) -> Float32[np.ndarray, "h w"]:
    """Read a depth map of a ``.npy`` file, or of a ``.npz`` with one array or one that is called ``depth``.

    Args:
        path: the file; axes of length 1 before or behind height and width are dropped.

    Returns:
        ``(h, w)`` float32, the numbers as they are.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: damaged, several arrays of which none is called ``depth``, not a map, or integers, whose
            unit nobody knows.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "depth.npy"
        >>> np.save(path, np.array([[[0.5, 1.25]]]))
        >>> read_depth_array(path).tolist()
        [[0.5, 1.25]]
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such depth map")
    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            values = content if isinstance(content, np.ndarray) else _array_of(path, content)
    except _BROKEN as error:
        text = str(error)
        raise ValueError(
            text if text.startswith(f"{path}:") else f"{path}: expected a whole NumPy file ({text})"
        ) from error
    if not np.issubdtype(values.dtype, np.floating):
        raise ValueError(f"{path}: expected floating-point depth, got {values.dtype} of unknown unit")
    given = values.shape
    while values.ndim > 2 and values.shape[0] == 1:
        values = values[0]
    while values.ndim > 2 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"{path}: expected a depth map (h, w), got shape {given}")
    return values.astype(np.float32)


def _array_of(path: Path, archive: np.lib.npyio.NpzFile) -> np.ndarray:
    names = archive.files
    name = "depth" if "depth" in names else names[0] if len(names) == 1 else None
    if name is None:
        held = ", ".join(names) or "none"
        raise ValueError(f"{path}: expected one array, or one that is called 'depth', got {held}")
    return archive[name]
