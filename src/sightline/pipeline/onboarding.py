"""Files in, object card out: reads meshes, photographs and symmetries, and says what it took for granted."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from sightline.formats.bop_models import read_models_info
from sightline.formats.images import read_image
from sightline.formats.meshes import LoadedMesh, read_mesh
from sightline.formats.posed_photos import PhotoEntry, read_posed_photos
from sightline.geometry.symmetry import SymmetryGroup
from sightline.objects.baking import PosedPhoto
from sightline.objects.card import ObjectCard, Provenance
from sightline.objects.checks import check_size, raise_faults
from sightline.objects.onboard import onboard_mesh
from sightline.objects.photos import onboard_flat, onboard_photos_on_mesh, solve_photo_pose
from sightline.sift import onboard_photos


@dataclass(frozen=True, eq=False)
class OnboardedCard:
    """A new card and what the user should know of its making.

    Args:
        card: the card, not yet saved.
        notes: one sentence a line.
    """

    card: ObjectCard
    notes: list[str]


def make_card(
    *,
    name: str,
    mesh: Path | None = None,
    unit: str | None = None,
    photos: list[Path] | None = None,
    flat: Path | None = None,
    width: float | None = None,
    num_views: int = 162,
    template_size: int = 224,
    symmetries: str | Path = "find",
    licence: str = "unstated",
) -> OnboardedCard:
    """Make a card from whatever is given.

    Args:
        name: the object's name.
        mesh: a mesh file.
        unit: its unit, where the file does not tell.
        photos: JSON files of posed photographs.
        flat: a frontal picture of a flat object.
        width: the flat object's width, metres.
        num_views: 42, 162 or 642 rendered views of a mesh.
        template_size: side of each rendered view, pixels.
        symmetries: ``find``, ``none`` or the path of a BOP ``models_info.json``.
        licence: of the object's data.

    Returns:
        The card and notes on its making.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: nothing to make a card from, or a source that cannot be used.
    """
    if flat is not None:
        if width is None:
            raise ValueError(f"{flat}: a flat picture needs its real --width in metres")
        return _from_flat(name, flat, width, template_size, licence)
    if mesh is None and not photos:
        raise ValueError("expected --mesh, --photos, both, or --flat with --width; got none of them")
    entries = [entry for path in photos or [] for entry in read_posed_photos(path)]
    if mesh is None:
        return _from_photos(name, entries, licence)
    loaded = read_mesh(mesh, unit=unit)
    raise_faults(check_size(loaded.mesh.diameter), source=str(mesh))
    notes = [f"{mesh}: unit {loaded.unit} ({loaded.unit_reason})"]
    files = {mesh.name: loaded.sha256, **{entry.path.name: _sha256(entry.path) for entry in entries}}
    provenance = Provenance(
        "mesh+photos" if entries else "mesh", files, loaded.unit, loaded.unit_reason, licence
    )
    if entries:
        posed = [_posed(entry) for entry in entries]
        card, share = onboard_photos_on_mesh(
            loaded.mesh,
            posed,
            name=name,
            num_views=num_views,
            template_size=template_size,
            provenance=provenance,
        )
        return OnboardedCard(card, [*notes, f"the photographs show {share:.0%} of the surface"])
    card = onboard_mesh(
        loaded.mesh,
        name=name,
        num_views=num_views,
        template_size=template_size,
        symmetries=_given_symmetries(symmetries, loaded),
        provenance=provenance,
    )
    return OnboardedCard(card, [*notes, f"symmetries: {describe_symmetries(card.symmetries)}"])


def describe_symmetries(group: SymmetryGroup) -> str:
    """A symmetry group in words."""
    if group.axis is not None:
        flip = " and upside down" if len(group.discrete) > 1 else ""
        return f"any turn about one axis{flip}"
    return "none" if len(group.discrete) == 1 else f"{len(group.discrete)} equivalent poses"


def _from_flat(name: str, path: Path, width: float, template_size: int, licence: str) -> OnboardedCard:
    picture = torch.from_numpy(read_image(path))
    provenance = Provenance("flat", {path.name: _sha256(path)}, licence=licence)
    card = onboard_flat(picture, width, name=name, template_size=template_size, provenance=provenance)
    return OnboardedCard(card, [f"{path}: taken as flat, {1000 * width:.0f} mm wide"])


def _from_photos(name: str, entries: list[PhotoEntry], licence: str) -> OnboardedCard:
    files = {entry.path.name: _sha256(entry.path) for entry in entries}
    provenance = Provenance("photos", files, unit_reason="as the photographs' poses", licence=licence)
    card = onboard_photos([_posed(entry) for entry in entries], name=name, provenance=provenance)
    known = sum(int((view.depth > 0).sum()) for view in card.templates)
    note = f"no mesh: {known} key points of {len(card.templates)} photographs; poses will not be verified"
    return OnboardedCard(card, [note])


def _posed(entry: PhotoEntry) -> PosedPhoto:
    pose = entry.cam_from_obj
    if pose is None:
        assert entry.object_points is not None and entry.image_points is not None
        pose = solve_photo_pose(entry.camera, entry.object_points, entry.image_points, name=str(entry.path))
    return PosedPhoto(entry.image, entry.camera, pose, entry.mask)


def _given_symmetries(symmetries: str | Path, loaded: LoadedMesh) -> SymmetryGroup | None:
    """None asks for a search."""
    if symmetries == "find":
        return None
    if symmetries == "none":
        return SymmetryGroup.none()
    infos = read_models_info(Path(symmetries))
    fitting = [info for info in infos.values() if abs(info.diameter / loaded.mesh.diameter - 1) < 0.02]
    if len(fitting) != 1:
        raise ValueError(
            f"{symmetries}: expected one object with the mesh's diameter of "
            f"{1000 * loaded.mesh.diameter:.1f} mm, found {len(fitting)}"
        )
    return fitting[0].symmetry


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
