"""Files of weights: what is written comes back, what does not fit is listed, nothing is unpickled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sightline.nn.checkpoint import load_weights, read_config, save_model, save_tensors

CONFIG = {"width": 4, "sizes": [64, 48]}


class Small(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.first = nn.Linear(3, width)
        self.norm = nn.BatchNorm1d(width)
        self.second = nn.Linear(width, 3)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 3)
        self.b = nn.Linear(3, 3)
        self.b.weight = self.a.weight
        self.register_buffer("view", torch.arange(12.0).reshape(3, 4).T)  # not contiguous


class Opens:
    """A pickle of this calls ``Path.touch``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("kind", [Small, Tied])
def test_round_trip(tmp_path: Path, kind: type[nn.Module]) -> None:
    path = tmp_path / "new" / "folder" / "a.safetensors"
    model = kind()
    save_model(path, model, CONFIG, {"figures": {"ap": 0.5}})
    card = read_config(path)
    assert (card.kind, card.config, card.extra) == (kind.__name__, CONFIG, {"figures": {"ap": 0.5}})
    other = kind()
    report = load_weights(other, path)
    assert report.complete
    assert set(report.matched) == set(model.state_dict())
    assert equal(state(model), state(other))
    assert [file.name for file in path.parent.iterdir()] == ["a.safetensors"]


def test_another_class_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path / "a.safetensors", Tied(), {})
    with pytest.raises(ValueError, match=r"a\.safetensors: expected weights of Small.*those of Tied"):
        load_weights(Small(), tmp_path / "a.safetensors")


def test_every_key_is_listed_and_nothing_changes() -> None:
    model = Small()
    weights = state(Small())
    weights["foreign.key"] = weights.pop("first.bias")
    weights["second.weight"] = torch.zeros(7, 4)
    weights["norm.num_batches_tracked"] = torch.tensor(1.0)
    before = state(model)
    with pytest.raises(ValueError, match="do not fit Small") as caught:
        load_weights(model, weights)
    for part in (
        "missing: first.bias",
        "unexpected: foreign.key",
        "second.weight ([7, 4] in the weights, [3, 4] in the model)",
        "norm.num_batches_tracked (torch.float32 in the weights, torch.int64 in the model)",
    ):
        assert part in str(caught.value)
    assert equal(before, state(model))

    report = load_weights(model, weights, strict=False)
    assert report.missing == ("first.bias",)
    assert report.unexpected == ("foreign.key",)
    assert set(report.mismatched) == {"second.weight", "norm.num_batches_tracked"}
    assert torch.equal(model.first.weight, weights["first.weight"])
    assert torch.equal(model.second.weight, before["second.weight"])


def test_names_are_translated() -> None:
    source = Small()
    weights = {f"module.{name}": tensor for name, tensor in source.state_dict().items()} | {
        "module.head": torch.ones(1)
    }
    model = Small()
    report = load_weights(model, weights, rename={"module.": ""}, strict=False)
    assert report.unexpected == ("module.head",)
    assert equal(state(source), state(model))

    def without_head(name: str) -> str | None:
        return None if name.endswith("head") else name.removeprefix("module.")

    assert load_weights(Small(), weights, rename=without_head).complete
    with pytest.raises(ValueError, match="both become x"):
        load_weights(model, weights, rename=lambda name: "x")


def test_half_precision_is_read_into_full() -> None:
    model = Small()
    weights = {n: t.half() if t.is_floating_point() else t for n, t in Small().state_dict().items()}
    assert load_weights(model, weights).complete
    assert model.first.weight.dtype == torch.float32
    assert torch.equal(model.first.weight.half(), weights["first.weight"])


def test_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    card = {"format": 99, "kind": "Small", "config": {}, "extra": {}}
    save_tensors(path, Small().state_dict(), {"sightline": json.dumps(card)})
    for strict in (True, False):
        with pytest.raises(ValueError, match=r"a\.safetensors: written in version 99"):
            load_weights(Small(), path, strict=strict)
    with pytest.raises(ValueError, match="version 99"):
        read_config(path)


def test_plain_weights_have_no_config_but_load(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(dict(Small().state_dict()), path)
    assert load_weights(Small(), path).complete
    with pytest.raises(ValueError, match="not written by Sightline"):
        read_config(path)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    path, touched = tmp_path / "a.pth", tmp_path / "touched"
    torch.save({"weight": Opens(touched)}, path)
    with pytest.raises(ValueError, match=r"a\.pth: expected safetensors.*can run code"):
        load_weights(Small(), path)
    assert not touched.exists()


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        load_weights(Small(), tmp_path / "absent.safetensors")
    path = tmp_path / "a.safetensors"
    save_model(path, Small(), {})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"a\.safetensors: expected safetensors, damaged"):
        load_weights(Small(), path)
    save_tensors(path, {}, {"sightline": "{"})
    with pytest.raises(ValueError, match="damaged description"):
        read_config(path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_model(path, Small(), {})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="plain values"):
        save_model(path, Small(), {"bad": object()})
    with pytest.raises(ValueError, match="plain values"):
        save_model(path, Small(), {"bad": float("nan")})
    with pytest.raises(TypeError):
        save_tensors(path, {"x": torch.ones(1)}, {"bad": 3})  # ty: ignore[invalid-argument-type]
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]
    with pytest.raises(ValueError, match="suffix"):
        save_model(tmp_path / "a.pth", Small(), {})
