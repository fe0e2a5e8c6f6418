"""An object card as a folder: readable without Sightline, written whole or not at all, never unpickled."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from sightline.formats.atomic import atomic_folder
from sightline.formats.images import read_image, read_mask, write_image, write_mask
from sightline.formats.meshes import read_mesh, write_mesh
from sightline.objects.card import ObjectCard, Provenance, Template
from sightline.objects.depth_png import read_scaled_depth, write_scaled_depth
from sightline.objects.symmetry_json import symmetries_from_json, symmetries_to_json

CARD_VERSION = 1


def save_card(card: ObjectCard, folder: str | Path) -> ObjectCard:
    """Write a card and return it with its folder set.

    The folder appears under its name only when every file in it is written. An older card of that name is
    replaced; its cached features go with it, since they describe other templates.

    Args:
        card: the card.
        folder: where to write it.

    Returns:
        The same card, with ``folder`` set.

    Raises:
        OSError: the disk is full or the place cannot be written; nothing half-written stays.
    """
    target = Path(folder)
    with atomic_folder(target, overwrite=True) as work:
        (work / "templates").mkdir()
        views = [_write_template(work, index, view) for index, view in enumerate(card.templates)]
        mesh_file = None
        if card.mesh is not None:
            mesh_file = "mesh.ply"
            write_mesh(work / mesh_file, card.mesh)
        manifest = {
            "sightline_card": CARD_VERSION,
            "name": card.name,
            "units": "m",
            "diameter": card.diameter,
            "bounds": card.bounds.tolist(),
            **symmetries_to_json(card.symmetries),
            "mesh": mesh_file,
            "provenance": asdict(card.provenance),
            "templates": views,
            "files": {name: _sha256(work / name) for name in _files_of(work)},
        }
        (work / "card.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return replace(card, folder=target)


def load_card(folder: str | Path) -> ObjectCard:
    """Read a card and check every file of it against its hash.

    Args:
        folder: the card's folder.

    Returns:
        The card.

    Raises:
        FileNotFoundError: no such folder, or no ``card.json`` in it, or a file that it lists is missing.
        ValueError: a newer version, a file whose hash differs, or a field that is missing or malformed.
    """
    root = Path(folder)
    path = root / "card.json"
    if not path.is_file():
        raise FileNotFoundError(f"{root}: expected an object card, found no card.json in it")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected JSON, {error}") from error
    version = manifest.get("sightline_card")
    if not isinstance(version, int) or version > CARD_VERSION:
        raise ValueError(
            f"{path}: expected a card of version {CARD_VERSION} or older, got {version!r}; "
            "a newer Sightline wrote it"
        )
    _check_hashes(root, manifest)
    try:
        mesh_file = manifest["mesh"]
        return ObjectCard(
            name=manifest["name"],
            templates=tuple(_read_template(root, view) for view in manifest["templates"]),
            bounds=torch.tensor(manifest["bounds"], dtype=torch.float64),
            diameter=float(manifest["diameter"]),
            symmetries=symmetries_from_json(manifest),
            mesh=None if mesh_file is None else read_mesh(root / mesh_file, unit="m").mesh,
            provenance=Provenance(**manifest["provenance"]),
            folder=root,
        )
    except KeyError as error:
        raise ValueError(f"{path}: the key {error.args[0]!r} is missing") from error
    except TypeError as error:
        raise ValueError(f"{path}: {error}") from error


def card_hash(folder: Path) -> str:
    """The SHA-256 of the card's manifest, which lists the hash of every other file but the features."""
    return _sha256(folder / "card.json")


def _files_of(root: Path) -> list[str]:
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _check_hashes(root: Path, manifest: dict[str, Any]) -> None:
    for name, wanted in manifest.get("files", {}).items():
        path = root / name
        if not path.is_file():
            raise FileNotFoundError(f"{path}: the card lists this file, but it is missing")
        if _sha256(path) != wanted:
            raise ValueError(
                f"{path}: its SHA-256 is not the one that card.json states; the file was changed"
            )


def _write_template(root: Path, index: int, view: Template) -> dict[str, Any]:
    stem = f"templates/{index:06d}"
    write_image(root / f"{stem}.png", view.color.numpy())
    write_mask(root / f"{stem}_mask.png", view.mask.numpy())
    unit_m = write_scaled_depth(root / f"{stem}_depth.png", view.depth)
    return {
        "picture": stem,
        "K": view.K.flatten().tolist(),
        "cam_from_obj": view.cam_from_obj.flatten().tolist(),
        "depth_unit_m": unit_m,
        "source": view.source,
    }


def _read_template(root: Path, entry: dict[str, Any]) -> Template:
    stem = root / entry["picture"]
    return Template(
        color=torch.from_numpy(read_image(stem.with_name(f"{stem.name}.png"))),
        mask=torch.from_numpy(read_mask(stem.with_name(f"{stem.name}_mask.png"))),
        depth=read_scaled_depth(stem.with_name(f"{stem.name}_depth.png"), entry["depth_unit_m"]),
        K=torch.tensor(entry["K"], dtype=torch.float64).reshape(3, 3),
        cam_from_obj=torch.tensor(entry["cam_from_obj"], dtype=torch.float64).reshape(4, 4),
        source=entry["source"],
    )
