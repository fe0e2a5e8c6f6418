import errno
import json
from pathlib import Path

import pytest
import torch

from sightline.geometry.symmetry import SymmetryGroup
from sightline.objects.card import ObjectCard, Template
from sightline.objects.card_files import CARD_VERSION, load_card, save_card
from sightline.objects.onboard import onboard_mesh
from tests.printed_box import printed_box


@pytest.fixture(scope="module")
def card() -> ObjectCard:
    group = SymmetryGroup.cyclic(2, (0, 0, 1))
    return onboard_mesh(printed_box(), name="box", num_views=42, template_size=64, symmetries=group)


@pytest.fixture
def saved(card: ObjectCard, tmp_path: Path) -> Path:
    save_card(card, tmp_path / "box")
    return tmp_path / "box"


def test_what_is_written_is_read_back(card: ObjectCard, saved: Path):
    read = load_card(saved)
    assert read.name == "box"
    assert read.folder == saved
    assert read.diameter == card.diameter
    assert torch.equal(read.bounds, card.bounds)
    assert torch.allclose(read.symmetries.discrete, card.symmetries.discrete)
    assert read.provenance == card.provenance
    assert len(read.templates) == len(card.templates) == 42
    for a, b in zip(read.templates, card.templates, strict=True):
        assert torch.equal(a.color, b.color)
        assert torch.equal(a.mask, b.mask)
        assert torch.equal(a.K, b.K)
        assert torch.equal(a.cam_from_obj, b.cam_from_obj)
        assert float((a.depth - b.depth).abs().max()) < 2e-5
    assert torch.equal(read.mesh.texture, card.mesh.texture)


def test_card_is_readable_without_sightline(saved: Path):
    manifest = json.loads((saved / "card.json").read_text())
    assert manifest["units"] == "m"
    assert len(manifest["symmetries_discrete"]) == 1  # the identity is left out, as in BOP
    assert (saved / manifest["mesh"]).is_file()
    assert all((saved / f"{view['picture']}.png").is_file() for view in manifest["templates"])


def test_newer_version_is_refused(saved: Path):
    path = saved / "card.json"
    manifest = json.loads(path.read_text())
    manifest["sightline_card"] = CARD_VERSION + 1
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"card\.json: expected a card of version 1 or older, got 2"):
        load_card(saved)


def test_wrong_hash_is_refused(saved: Path):
    picture = saved / "templates" / "000003.png"
    picture.write_bytes(picture.read_bytes() + b"x")
    with pytest.raises(ValueError, match=r"000003\.png: its SHA-256 is not the one"):
        load_card(saved)


def test_missing_file_is_named(saved: Path):
    (saved / "templates" / "000003_mask.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"000003_mask\.png"):
        load_card(saved)


def test_missing_key_is_named(saved: Path):
    path = saved / "card.json"
    manifest = json.loads(path.read_text())
    del manifest["diameter"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="'diameter' is missing"):
        load_card(saved)


def test_no_card_there(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no card\.json"):
        load_card(tmp_path)


def test_full_disk_leaves_nothing(card: ObjectCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sightline.objects.card_files.write_mesh", full)
    with pytest.raises(OSError, match="No space left"):
        save_card(card, tmp_path / "box")
    assert list(tmp_path.iterdir()) == []


def test_full_disk_keeps_the_older_card(card: ObjectCard, saved: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sightline.objects.card_files.write_mesh", full)
    with pytest.raises(OSError, match="No space left"):
        save_card(card, saved)
    assert load_card(saved).name == "box"
    assert [p.name for p in saved.parent.iterdir()] == ["box"]


def test_empty_mask_is_refused():
    with pytest.raises(ValueError, match="empty mask"):
        Template(
            torch.zeros(4, 4, 3, dtype=torch.uint8),
            torch.zeros(4, 4, dtype=torch.bool),
            torch.zeros(4, 4),
            torch.eye(3, dtype=torch.float64),
            torch.eye(4, dtype=torch.float64),
        )


def test_nan_in_depth_is_refused():
    with pytest.raises(ValueError, match="depth holds NaN"):
        Template(
            torch.zeros(4, 4, 3, dtype=torch.uint8),
            torch.ones(4, 4, dtype=torch.bool),
            torch.full((4, 4), torch.nan),
            torch.eye(3, dtype=torch.float64),
            torch.eye(4, dtype=torch.float64),
        )
