"""Writing that happens whole or not at all: a temporary sibling, then one rename."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


def _sibling(path: Path) -> Path:
    # The suffix stays, because encoders choose the format by it; a sibling, because a rename
    # is only atomic inside one file system.
    return path.with_name(f".{path.stem}.{secrets.token_hex(6)}.tmp{path.suffix}")


@contextmanager
def atomic_write(path: str | Path) -> Generator[Path]:
    """Give a temporary path to write to, which becomes ``path`` when the block ends well.

    Whatever goes wrong inside the block (a full disk, an exception, an interrupt), an older file at ``path``
    stays as it was and the temporary file is removed. Missing parent folders are made.

    Args:
        path: the file to be written.

    Yields:
        A path in the same folder and with the same suffix, to which the block writes.

    Raises:
        IsADirectoryError: ``path`` is a folder.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "note.txt"
        >>> with atomic_write(target) as temporary:
        ...     _ = temporary.write_text("whole")
        >>> target.read_text()
        'whole'
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected a file to write, there is a folder of this name")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _sibling(path)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path, *, overwrite: bool = False) -> Generator[Path]:
    """Give a temporary folder to fill, which becomes ``path`` when the block ends well.

    When the block fails, the temporary folder is removed and an older folder at ``path`` stays whole.

    Args:
        path: the folder to be written.
        overwrite: whether an existing folder is replaced, content and all.

    Yields:
        An empty folder beside ``path``, which the block fills.

    Raises:
        FileExistsError: ``path`` exists and is not an empty folder, and ``overwrite`` was not asked for.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "card"
        >>> with atomic_folder(target) as temporary:
        ...     _ = (temporary / "card.json").write_text("{}")
        >>> [file.name for file in target.iterdir()]
        ['card.json']
    """
    path = Path(path)
    _refuse_existing(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _sibling(path)
    temporary.mkdir()
    try:
        yield temporary
        _swap_in(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _refuse_existing(path: Path, overwrite: bool) -> None:
    if path.is_dir():
        if not overwrite and any(path.iterdir()):
            raise FileExistsError(f"{path}: the folder exists and is not empty; ask to overwrite it")
    elif path.exists():
        raise FileExistsError(f"{path}: expected a folder to write, there is a file of this name")


def _swap_in(temporary: Path, path: Path) -> None:
    if not path.exists():
        temporary.replace(path)
        return
    # A folder with content cannot be replaced in one step: it steps aside and returns if the rename fails.
    aside = _sibling(path)
    path.replace(aside)
    try:
        temporary.replace(path)
    except BaseException:
        aside.replace(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)
