"""Tar archives whose members belong together by key, read in order or by key, whole or up to a fault.

A member ``000004_000015.rgb.jpg`` is the part ``rgb.jpg`` of the sample ``000004_000015``. Python's reader of
archives stops without a word where one is damaged in its middle; here the end mark decides whether an archive
is whole, and what is wrong is said.
"""

from __future__ import annotations

import logging
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

_LOG = logging.getLogger(__name__)
_BLOCK = 512


class Fault(NamedTuple):
    """What was skipped, and why.

    Args:
        where: the archive, and the sample or member in it where not the whole archive is meant.
        what: what is wrong with it.
    """

    where: str
    what: str


class FaultReport(list[Fault]):
    """What was skipped so far; each new entry is logged as a warning, too.

    Example:
        >>> report = FaultReport([Fault("shard-000101.tar", "truncated")])
        >>> report.lines()
        ['shard-000101.tar: truncated']
    """

    def note(self, where: object, what: object) -> None:
        """Add an entry, unless it is there."""
        fault = Fault(str(where), str(what).removeprefix(f"{where}: "))
        if fault not in self:
            self.append(fault)
            _LOG.warning("skipped %s: %s", *fault)

    def lines(self) -> list[str]:
        """The entries, a line each."""
        return [f"{where}: {what}" for where, what in self]


class Part(NamedTuple):
    """Where a part of a sample lies in its archive, bytes."""

    offset: int
    size: int


Samples = dict[str, dict[str, Part]]
"""By key and part, in the order of the archive."""


def index_archive(path: Path) -> tuple[Samples, str]:
    """Find the samples of an archive without reading them.

    Args:
        path: an archive that is not compressed.

    Returns:
        The samples whose members are all there, and what is wrong with the archive, empty where it is whole.
        Of an archive that is damaged or truncated the sample at the fault is left out, and all behind it.

    Raises:
        FileNotFoundError: there is no such file.

    Example:
        >>> import io, tempfile
        >>> path = Path(tempfile.mkdtemp()) / "shard-000000.tar"
        >>> with tarfile.open(path, "w") as archive:
        ...     member = tarfile.TarInfo("000001_000002.gt.json")
        ...     member.size = 2
        ...     archive.addfile(member, io.BytesIO(b"[]"))
        >>> index_archive(path)
        ({'000001_000002': {'gt.json': Part(offset=512, size=2)}}, '')
    """
    samples: Samples = {}
    key, fault = "", ""
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if member.isfile():
                    key, part = split_name(member.name)
                    samples.setdefault(key, {})[part] = Part(member.offset_data, member.size)
            fault = _missing_end(path, archive.offset)
    except (tarfile.TarError, OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            raise FileNotFoundError(f"{path}: no such archive") from error
        fault = f"damaged or truncated ({error})"
    if fault:
        samples.pop(key, None)
    return samples, fault


def split_name(name: str) -> tuple[str, str]:
    """Key and part of a member's name.

    Example:
        >>> split_name("./000004_000015.rgb.jpg")
        ('000004_000015', 'rgb.jpg')
    """
    key, _, part = PurePosixPath(name).name.partition(".")
    return key, part


def read_parts(path: Path, samples: Samples) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Read samples of an archive, in the order given; that of the archive is read from front to back.

    Args:
        path: the archive.
        samples: of :func:`index_archive`, all or some.

    Yields:
        Key and parts.

    Raises:
        ValueError: the archive ends within a part; it has changed since it was looked through.
    """
    with path.open("rb") as file:
        for key, parts in samples.items():
            yield key, {name: _read(file, path, key, name, part) for name, part in parts.items()}


def _read(file, path: Path, key: str, name: str, part: Part) -> bytes:  # noqa: ANN001  # a binary file
    if file.tell() != part.offset:
        file.seek(part.offset)
    data = file.read(part.size)
    if len(data) != part.size:
        raise ValueError(f"{path}: {key}.{name}: truncated, {len(data)} of {part.size} bytes")
    return data


def _missing_end(path: Path, end: int) -> str:
    """What is wrong where the members end; an archive that is whole has a block of zeros there."""
    with path.open("rb") as file:
        file.seek(end)
        block = file.read(_BLOCK)
    if block == bytes(_BLOCK):
        return ""
    if not block:
        return "truncated, the end mark is missing"
    return f"damaged at byte {end}, no member begins there"
