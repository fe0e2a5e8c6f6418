"""The objects of a data set as training needs them: templates from all around, size, symmetries, a mesh.

Templates are rendered from the mesh or taken from a folder of GigaPose's, when an object is first wanted, and
kept in files between runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from sightline.formats.bop_models import ModelInfo, object_name
from sightline.formats.gigapose_templates import DrawnView, GigaPoseViews
from sightline.formats.meshes import read_mesh
from sightline.geometry.poses import invert, transform
from sightline.geometry.rotations import twist_about_z
from sightline.geometry.symmetry import SymmetryGroup
from sightline.records import TriangleMesh
from sightline.rendering import PreparedMesh, RenderResult
from sightline.synthetic.pose_bank import map_views, write_views
from sightline.synthetic.pose_crops import upright_pose
from sightline.synthetic.pose_views import (
    ObjectViews,
    PackedViews,
    PoseView,
    PoseViewSettings,
    draw_templates,
    pack_views,
)
from sightline.synthetic.pose_warp import warp_view

_MOST_VIEWS, _MOST_MESHES = 256, 32  # held at a time
_MESHES = (  # where the data sets keep the mesh of an object of a number and a name
    "obj_{number:06d}.ply",
    "{name}/meshes/model.ply",
    "{name}/meshes/model.obj",
    "{name}/models/model_normalized_scaled.obj",
    "{name}/models/model_normalized.obj",
)
_Held = TypeVar("_Held")


def find_meshes(folder: str | Path, names: Mapping[int, str] | None = None) -> dict[int, Path]:
    """The mesh files of a data set by the numbers of their objects.

    Args:
        folder: with ``obj_000005.ply`` and so on, or with the folders of Google Scanned Objects or
            ShapeNetCore, ``NAME/meshes/model.obj`` and ``SYNSET/SOURCE/models/model_normalized.obj``.
        names: what objects are called; without names only files with numbers are found.

    Returns:
        Those that are there.

    Raises:
        FileNotFoundError: no such folder, or no mesh in it.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "Mug_Red" / "meshes").mkdir(parents=True)
        >>> (folder / "Mug_Red" / "meshes" / "model.obj").touch()
        >>> [path.name for path in find_meshes(folder, {3: "Mug_Red"}).values()]
        ['model.obj']
    """
    root, found = Path(folder), {}
    for path in root.glob("obj_*.ply"):
        if path.stem[4:].isdigit():
            found[int(path.stem[4:])] = path
    for number, name in (names or {}).items():
        places = (root / pattern.format(number=number, name=name) for pattern in _MESHES)
        path = next((place for place in places if place.is_file()), None)
        if path is not None:
            found[number] = path
    if not found:
        raise FileNotFoundError(f"{root}: expected meshes such as obj_000001.ply or NAME/meshes/model.obj")
    return dict(sorted(found.items()))


class SceneObjects:
    """Objects by number.

    Args:
        meshes: the file of each object's mesh, where there is one.
        unit_mm: millimetres in one unit of these files; BOP's are in millimetres, the normalised meshes of
            Google Scanned Objects and ShapeNet in tenths of a metre (100).
        infos: size and symmetries; measured, and none, where not given.
        templates: ``templates/DATASET`` of GigaPose; rendered from the meshes unless given.
        template_scale: as in :class:`~sightline.formats.gigapose_templates.GigaPoseViews`.
        settings: how templates are drawn; of GigaPose's, how large the object is in them.
        folder: where templates are kept between runs; in memory unless given.

    Raises:
        ValueError: neither meshes nor templates.
    """

    def __init__(
        self,
        meshes: Mapping[int, Path],
        *,
        unit_mm: float | int = 1.0,
        infos: Mapping[int, ModelInfo] | None = None,
        templates: str | Path | None = None,
        template_scale: float | int = 1.0,
        settings: PoseViewSettings | None = None,
        folder: str | Path | None = None,
    ) -> None:
        if not meshes and templates is None:
            raise ValueError("objects: expected meshes or a folder of templates, got neither")
        self.meshes, self.unit_mm, self.infos = dict(meshes), float(unit_mm), dict(infos or {})
        self.templates = None if templates is None else Path(templates)
        self.template_scale = float(template_scale)
        self.settings = settings or PoseViewSettings()
        self._folder = None if folder is None else Path(folder)
        self._views: dict[int, ObjectViews] = {}
        self._meshes: dict[int, PreparedMesh] = {}

    def __contains__(self, obj_id: object) -> bool:
        """Whether there are templates of an object, or a mesh to draw them from."""
        if self.templates is None:
            return obj_id in self.meshes
        return isinstance(obj_id, int) and (self.templates / f"{obj_id:06d}").is_dir()

    def __getstate__(self) -> dict:
        """Workers read and draw for themselves."""
        return self.__dict__ | {"_views": {}, "_meshes": {}}

    def views(self, obj_id: int) -> ObjectViews:
        """Templates, size and symmetries of an object.

        Raises:
            FileNotFoundError: there is neither a mesh nor a template of it.
            ValueError: a file that is damaged.
        """
        return _hold(self._views, obj_id, _MOST_VIEWS, self._kept)

    def mesh(self, obj_id: int) -> PreparedMesh:
        """The mesh of an object, metres.

        Raises:
            FileNotFoundError: there is none.
            ValueError: its file is damaged.
        """
        return _hold(self._meshes, obj_id, _MOST_MESHES, self._read)

    def _read(self, obj_id: int) -> PreparedMesh:
        if obj_id not in self.meshes:
            raise FileNotFoundError(f"objects: no mesh of object {obj_id}")
        mesh = read_mesh(self.meshes[obj_id], unit="mm").mesh
        return PreparedMesh(mesh if self.unit_mm == 1 else mesh.scaled(self.unit_mm))

    def _kept(self, obj_id: int) -> ObjectViews:
        if self._folder is None:
            return self._make(obj_id)
        path = self._folder / f"{object_name(obj_id)}-{self._fingerprint(obj_id)}.safetensors"
        if not path.is_file():
            write_views(path, self._make(obj_id))
        return map_views(path)

    def _fingerprint(self, obj_id: int) -> str:
        """Of everything that the views depend on; of files, their place, size and age."""
        poses = None if self.templates is None else self.templates / "object_poses" / f"{obj_id:06d}.npy"
        files = [path for path in (self.meshes.get(obj_id), poses) if path is not None and path.is_file()]
        stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        info = self.infos.get(obj_id)
        symmetry = "" if info is None else repr((info.diameter, info.symmetry))
        said = [stats, asdict(self.settings), self.unit_mm, self.template_scale, symmetry]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]

    def _make(self, obj_id: int) -> ObjectViews:
        info, drawn = self.infos.get(obj_id), None
        if self.templates is not None:
            drawn = GigaPoseViews(self.templates, obj_id, scale=self.template_scale)
        if info is not None:
            diameter = info.diameter
        else:
            diameter = (
                self.mesh(obj_id).mesh.diameter if obj_id in self.meshes else diameter_of_views(drawn or ())
            )
        templates = (
            draw_templates(self.mesh(obj_id), self.settings)
            if drawn is None
            else frame_views(drawn, diameter, self.settings)
        )
        symmetries = SymmetryGroup.none() if info is None else info.symmetry
        return ObjectViews(object_name(obj_id), diameter, symmetries, templates, _none_of(templates))


def frame_views(drawn: Iterable[DrawnView], diameter: float, settings: PoseViewSettings) -> PackedViews:
    """Cut squares around the object out of views, turned so that the object's z is upwards.

    Args:
        drawn: of one object; those that do not show it are left out.
        diameter: of the object, metres.
        settings: side of a template and how much of it the object fills.

    Raises:
        ValueError: none shows the object.
    """
    warped = []
    for view in drawn:
        if view.mask.any():
            pose = view.cam_from_obj.numpy()
            own = PoseView(view.color, view.depth, view.mask & (view.depth > 0), view.K.numpy(), pose)
            angle = twist_about_z(upright_pose(pose)[:3, :3] @ view.cam_from_obj[:3, :3].T)
            fill, side = settings.template_fill, settings.template_px
            warped.append(warp_view(own, float(angle), fill, (0.0, 0.0), side, diameter))
    if not warped:
        raise ValueError("templates: expected the object in at least one of them, all are empty")
    masks = np.stack([each.mask for each in warped])
    colors = np.stack([each.layers[..., :3] for each in warped]) * masks[..., None]
    layers = {"color": colors, "depth": np.stack([each.depth for each in warped]), "mask": masks}
    result = RenderResult({name: torch.from_numpy(layer) for name, layer in layers.items()})
    K, poses = (np.stack([getattr(each, name) for each in warped]) for name in ("K", "cam_from_obj"))
    return pack_views(result, torch.from_numpy(K), torch.from_numpy(poses))


def diameter_of_views(drawn: Iterable[DrawnView]) -> float:
    """The diameter of what views show, by their depth, metres; right to a pixel or two.

    Raises:
        ValueError: none shows the object.
    """
    points = []
    for view in drawn:
        rows, columns = np.nonzero(view.mask & (view.depth > 0))
        px = torch.from_numpy(np.stack([columns, rows, np.ones_like(rows)], axis=-1)[::5].astype(np.float64))
        z = torch.from_numpy(view.depth[rows, columns][::5].astype(np.float64))
        in_camera = px @ torch.linalg.inv(view.K).T * z[:, None]
        points.append(transform(invert(view.cam_from_obj), in_camera))
    cloud = torch.cat(points) if points else torch.zeros(0, 3, dtype=torch.float64)
    if len(cloud) < 3:
        raise ValueError("templates: expected the object in at least one of them, all are empty")
    corners = torch.arange(len(cloud) - len(cloud) % 3).view(-1, 3)
    return TriangleMesh(cloud, corners).diameter


def _none_of(views: PackedViews) -> PackedViews:
    """No views, of the same side."""
    nothing = {name: getattr(views, name)[:0] for name in PackedViews._fields}
    return PackedViews(**nothing | {"starts": views.starts[:1]})


def _hold(held: dict[int, _Held], key: int, most: int, make: Callable[[int], _Held]) -> _Held:
    """What is held under a key, made if it is not; the oldest goes when there are too many."""
    if key not in held:
        while len(held) >= most:
            held.pop(next(iter(held)))
        held[key] = make(key)
    return held[key]
