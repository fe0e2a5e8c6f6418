"""Weights in safetensors files that know their model: class, config, and a report of every key loaded."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

FORMAT_VERSION = 1
_METADATA_KEY = "sightline"
_NAMES_SHOWN = 12

Rename = Mapping[str, str] | Callable[[str], str | None]


@dataclass(frozen=True)
class ModelFile:
    """What a file of weights says about its model.

    Args:
        kind: the name of the model's class.
        config: the values from which the model is constructed.
        extra: anything else: figures, steps, the licence of the data.

    Example:
        >>> ModelFile("Linear", {"in_features": 2, "out_features": 1}).kind
        'Linear'
    """

    kind: str
    config: Mapping[str, Any]
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LoadReport:
    """Where each key of a file and each key of a model went.

    Args:
        matched: keys that were loaded.
        missing: keys of the model that the weights lack.
        unexpected: keys of the weights that the model lacks, by the name they have in the weights.
        mismatched: keys of both with another shape or kind of number, with both in words.

    Example:
        >>> report = LoadReport(("weight",), ("bias",), (), {})
        >>> print(report)
        1 key matched; 1 missing: bias
        >>> report.complete
        False
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: Mapping[str, str]

    @property
    def complete(self) -> bool:
        """Whether every key of both sides found its partner."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        parts = [f"{len(self.matched)} key{'' if len(self.matched) == 1 else 's'} matched"]
        for word, names in (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("mismatched", tuple(f"{name} ({why})" for name, why in self.mismatched.items())),
        ):
            if names:
                more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
                parts.append(f"{len(names)} {word}: {', '.join(names[:_NAMES_SHOWN])}{more}")
        return "; ".join(parts)


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors as safetensors, whole or not at all: a temporary sibling, then one rename.

    Args:
        path: the file; missing parent folders are made.
        tensors: by name, on any device; names that share memory (tied weights) are each written.
        metadata: text by name.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.safetensors"
        >>> save_tensors(path, {"x": torch.arange(3)}, {"unit": "m"})
        >>> read_tensors(path)
        ({'x': tensor([0, 1, 2])}, {'unit': 'm'})
    """
    from safetensors.torch import save_file

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # ``nn`` stands on the floor of ``formats`` and cannot use its atomic writing.
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(6)}.tmp{path.suffix}")
    try:
        save_file(_apart(tensors), temporary, metadata=dict(metadata))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, contiguous, no two in one memory, as safetensors wants them."""
    result: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        flat = tensor.detach().cpu().contiguous()
        if flat.untyped_storage().data_ptr() in seen:
            flat = flat.clone()
        seen.add(flat.untyped_storage().data_ptr())
        result[name] = flat
    return result


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a safetensors file.

    Args:
        path: the file.

    Returns:
        Tensors on the CPU by name, and text by name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no safetensors file or is truncated; pickles are refused, never opened.
    """
    with _open(path) as stored:
        return {name: stored.get_tensor(name) for name in stored.keys()}, stored.metadata() or {}  # noqa: SIM118


def _open(path: str | Path) -> Any:  # noqa: ANN401  # safetensors types its handle so
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of weights")
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        hint = ", and pickled weights are not opened because they can run code" if _is_pickle(path) else ""
        raise ValueError(
            f"{path}: expected safetensors, damaged, truncated or another format{hint}"
        ) from error


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) in (b"PK", b"\x80\x02")


def save_model(
    path: str | Path, model: nn.Module, config: Mapping[str, Any], extra: Mapping[str, Any] | None = None
) -> None:
    """Write a model's weights with its class and config.

    Args:
        path: the file, ``.safetensors``.
        model: the model; its ``state_dict`` is written.
        config: the values from which the model is constructed, as JSON holds them.
        extra: anything else to keep beside them.

    Raises:
        ValueError: another suffix, or a config that JSON cannot hold.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "small.safetensors"
        >>> save_model(path, nn.Linear(2, 1), {"in_features": 2, "out_features": 1}, {"steps": 10})
        >>> read_config(path)
        ModelFile(kind='Linear', config={'in_features': 2, 'out_features': 1}, extra={'steps': 10})
        >>> print(load_weights(nn.Linear(2, 1), path))
        2 keys matched
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: expected a file of the suffix .safetensors")
    card = {
        "format": FORMAT_VERSION,
        "kind": type(model).__name__,
        "config": dict(config),
        "extra": dict(extra or {}),
    }
    try:
        text = json.dumps(card, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: the config must be plain values that JSON holds: {error}") from error
    save_tensors(path, model.state_dict(), {_METADATA_KEY: text})


def read_config(path: str | Path) -> ModelFile:
    """Read class and config of a file of weights, without reading the weights.

    Args:
        path: a file of :func:`save_model`.

    Returns:
        What the file says about its model.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no safetensors, no such config in it, or a newer version of the format.
    """
    with _open(path) as stored:
        card = _card(path, stored.metadata() or {})
    if card is None:
        raise ValueError(
            f"{path}: the file has weights but no class and config; it was not written by Sightline"
        )
    return card


def _card(path: str | Path, metadata: Mapping[str, str]) -> ModelFile | None:
    if _METADATA_KEY not in metadata:
        return None
    try:
        card = json.loads(metadata[_METADATA_KEY])
        version, kind, config, extra = (card[key] for key in ("format", "kind", "config", "extra"))
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: damaged description of the model: {error}") from error
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{path}: written in version {version} of the format, this Sightline reads up to {FORMAT_VERSION}"
        )
    return ModelFile(kind, config, extra)


def load_weights(
    model: nn.Module,
    source: str | Path | Mapping[str, Tensor],
    *,
    rename: Rename | None = None,
    strict: bool = True,
) -> LoadReport:
    """Load weights into a model: all of them, or what fits, but never silently and never half.

    Args:
        model: the model; nothing in it changes where an error is raised.
        source: a safetensors file, or tensors by name.
        rename: from names of the source to names of the model: a mapping of leading parts
            (``{"backbone.": ""}``, first match), or a function; a name that becomes None is left out.
        strict: whether class and keys must agree. Without it what fits is loaded and the report says what did
            not, as pretrained backbones need it.

    Returns:
        Where each key went.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no safetensors file, a newer version, two names that become one; if strict also another
            class, and keys that are missing, unexpected or of another shape, all listed.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> weights = {"head.weight": torch.ones(1, 2), "head.scale": torch.ones(1)}
        >>> print(load_weights(model, weights, rename={"head.": ""}, strict=False))
        1 key matched; 1 missing: bias; 1 unexpected: head.scale
        >>> load_weights(model, weights)
        Traceback (most recent call last):
        ValueError: the weights do not fit Linear: 0 keys matched; 2 missing: weight, bias; 2 unexpected: \
head.weight, head.scale
    """
    where = ""
    if isinstance(source, str | Path):
        tensors, metadata = read_tensors(source)
        where = f"{source}: "
        card = _card(source, metadata)
        if strict and card is not None and card.kind != type(model).__name__:
            raise ValueError(
                f"{where}expected weights of {type(model).__name__}, the file holds those of {card.kind}"
            )
    else:
        tensors = dict(source)
    named = _renamed(tensors, rename, where)
    report = _compare(model.state_dict(), named)
    if strict and not report.complete:
        raise ValueError(f"{where}the weights do not fit {type(model).__name__}: {report}")
    with torch.no_grad():
        model.load_state_dict({name: named[name][1] for name in report.matched}, strict=False)
    return report


def _renamed(
    tensors: Mapping[str, Tensor], rename: Rename | None, where: str
) -> dict[str, tuple[str, Tensor]]:
    """Source name and tensor by the model's name."""
    named: dict[str, tuple[str, Tensor]] = {}
    for old, tensor in tensors.items():
        new = _new_name(old, rename)
        if new is None:
            continue
        if new in named:
            raise ValueError(f"{where}{old} and {named[new][0]} both become {new}")
        named[new] = (old, tensor)
    return named


def _new_name(name: str, rename: Rename | None) -> str | None:
    if rename is None:
        return name
    if isinstance(rename, Mapping):
        for old, new in rename.items():
            if name.startswith(old):
                return new + name.removeprefix(old)
        return name
    return rename(name)


def _compare(wanted: Mapping[str, Tensor], named: Mapping[str, tuple[str, Tensor]]) -> LoadReport:
    mismatched: dict[str, str] = {}
    matched: list[str] = []
    for name in wanted:
        if name not in named:
            continue
        ours, theirs = wanted[name], named[name][1]
        if ours.shape != theirs.shape:
            mismatched[name] = f"{list(theirs.shape)} in the weights, {list(ours.shape)} in the model"
        elif ours.is_floating_point() != theirs.is_floating_point():
            mismatched[name] = f"{theirs.dtype} in the weights, {ours.dtype} in the model"
        else:
            matched.append(name)
    return LoadReport(
        matched=tuple(matched),
        missing=tuple(name for name in wanted if name not in named),
        unexpected=tuple(old for new, (old, _) in named.items() if new not in wanted),
        mismatched=mismatched,
    )
