from __future__ import annotations

import errno
from pathlib import Path

import pytest

from sightline.formats.atomic import atomic_folder, atomic_write


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path):
    target = tmp_path / "poses.json"
    target.write_text("old")
    with pytest.raises(OSError, match="No space"), atomic_write(target) as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["poses.json"]


def test_a_failed_first_write_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "new.json") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_write_makes_parents_keeps_the_suffix_and_replaces(tmp_path):
    target = tmp_path / "a" / "b" / "picture.png"
    for text in ("first", "second"):
        with atomic_write(target) as temporary:
            assert temporary.suffix == ".png" and temporary.parent == target.parent
            temporary.write_text(text)
    assert target.read_text() == "second"


def test_a_folder_in_the_way_is_refused(tmp_path):
    with pytest.raises(IsADirectoryError, match="folder of this name"), atomic_write(tmp_path):
        pass


def test_a_failed_folder_leaves_the_old_one_whole(tmp_path):
    card = tmp_path / "card"
    card.mkdir()
    (card / "card.json").write_text("old")
    with pytest.raises(OSError, match="No space"), atomic_folder(card, overwrite=True) as temporary:
        (temporary / "card.json").write_text("new")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert (card / "card.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["card"]


def test_a_failed_rename_brings_the_old_folder_back(tmp_path, monkeypatch):
    import os

    card = tmp_path / "card"
    card.mkdir()
    (card / "card.json").write_text("old")
    rename = os.replace

    def refuse_the_new_one(source, target):
        if Path(target) == card and "tmp" in Path(source).name and (Path(source) / "new").exists():
            raise OSError("refused")
        rename(source, target)

    monkeypatch.setattr(os, "replace", refuse_the_new_one)
    with pytest.raises(OSError, match="refused"), atomic_folder(card, overwrite=True) as temporary:
        (temporary / "new").write_text("")
    assert (card / "card.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["card"]


def test_overwriting_a_folder_must_be_asked_for(tmp_path):
    card = tmp_path / "card"
    card.mkdir()
    (card / "old").write_text("")
    with pytest.raises(FileExistsError, match="overwrite"), atomic_folder(card):
        pass
    with atomic_folder(card, overwrite=True) as temporary:
        (temporary / "new").write_text("")
    assert [path.name for path in card.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["card"]


def test_a_file_in_the_folders_way_is_refused(tmp_path):
    (tmp_path / "card").write_text("")
    with pytest.raises(FileExistsError, match="file of this name"), atomic_folder(tmp_path / "card"):
        pass
