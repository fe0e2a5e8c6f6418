"""Views of one object with their geometry: drawn once, packed to the object's own pixels, unpacked on demand.

Of a view only the pixels that show the object are kept, with a bit a pixel that says which: a view of 128 px
takes some 25 KB instead of 82. Depth is stored in 65535 steps between the nearest and the farthest pixel of
its view, which is finer than 0.002 % of the object's diameter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, UInt8
from torch import Tensor

from sightline.geometry.poses import look_at, make_pose
from sightline.geometry.rotations import exp
from sightline.geometry.symmetry import SymmetryGroup
from sightline.geometry.viewpoints import view_poses
from sightline.records import TriangleMesh
from sightline.rendering import PreparedMesh, RenderResult, fit_camera, render_views
from sightline.synthetic.exam import exam_object
from sightline.synthetic.exam_settings import EXAM
from sightline.synthetic.lighting import LightSettings, draw_lights

_STEPS = 65535
_STREAM = 3  # of random numbers, beside those of sprites


@dataclass(frozen=True)
class PoseViewSettings:
    """How each object is drawn.

    Args:
        num_templates: views all around the object, 42, 162 or 642; the first 42 of 162 are those of 42.
        template_px: side of a template, pixels.
        template_fill: diameter of the object's bounding sphere in a template, in shares of its side.
        template_distance: of the template's camera, in diameters of the object.
        template_samples: as in ``render_views``.
        num_queries: views under lamps from random sides.
        query_px: side of such a view, pixels; the object fills it.
        query_distance: (least, largest) distance of its camera in diameters of the object, log-uniform.
        query_aside: tangent of the largest angle between the optical axis and the object: things are seldom
            in the middle of a picture.
        lights: of the queries.
    """

    num_templates: int = 162
    template_px: int = 128
    template_fill: float = 0.87
    template_distance: float = 4.0
    template_samples: int = 2
    num_queries: int = 40
    query_px: int = 128
    query_distance: tuple[float, float] = (2.2, 9.0)
    query_aside: float = 0.45
    lights: LightSettings = field(default_factory=lambda: LightSettings(ambient=(0.25, 0.7), tint=0.15))


class PoseView(NamedTuple):
    """One view, whole.

    Args:
        color: ``(h, w, 3)`` uint8 RGB, black outside the object.
        depth: ``(h, w)`` float32 metres, 0 outside the object.
        mask: ``(h, w)`` bool.
        K: ``(3, 3)`` float64 pixels.
        cam_from_obj: ``(4, 4)`` float64 metres.
    """

    color: UInt8[np.ndarray, "h w 3"]
    depth: Float32[np.ndarray, "h w"]
    mask: Bool[np.ndarray, "h w"]
    K: Float64[np.ndarray, "3 3"]
    cam_from_obj: Float64[np.ndarray, "4 4"]


class PackedViews(NamedTuple):
    """``n`` views of one size; ``p`` pixels of them show the object.

    Args:
        bits: ``(n, s, ceil(s / 8))`` uint8, the masks, a bit a pixel.
        starts: ``(n + 1,)`` int64, where each view's pixels begin.
        colors: ``(p, 3)`` uint8 RGB.
        depths: ``(p,)`` uint16, in steps from the nearest pixel of the view.
        ranges: ``(n, 2)`` float64, depth of the nearest pixel and one step, metres.
        K: ``(n, 3, 3)`` float64 pixels.
        cam_from_obj: ``(n, 4, 4)`` float64 metres.
    """

    bits: np.ndarray
    starts: np.ndarray
    colors: np.ndarray
    depths: np.ndarray
    ranges: np.ndarray
    K: np.ndarray
    cam_from_obj: np.ndarray

    @property
    def number(self) -> int:
        """How many views there are."""
        return len(self.bits)

    @property
    def side(self) -> int:
        """Of each view, pixels."""
        return self.bits.shape[1]

    def view(self, row: int) -> PoseView:
        """Unpack one view."""
        mask = np.unpackbits(self.bits[row], axis=-1, count=self.side).view(bool)
        pixels = slice(int(self.starts[row]), int(self.starts[row + 1]))
        color = np.zeros((*mask.shape, 3), np.uint8)
        depth = np.zeros(mask.shape, np.float32)
        where = np.flatnonzero(mask)
        nearest, step = self.ranges[row]
        color.reshape(-1, 3)[where] = self.colors[pixels]
        depth.reshape(-1)[where] = nearest + step * self.depths[pixels].astype(np.float64)
        return PoseView(color, depth, mask, np.array(self.K[row]), np.array(self.cam_from_obj[row]))

    @property
    def directions(self) -> Float64[np.ndarray, "n 3"]:
        """From the object's origin to each camera, unit vectors of the object's frame."""
        R, t = self.cam_from_obj[:, :3, :3], self.cam_from_obj[:, :3, 3]
        centers = -np.einsum("nij,ni->nj", R, t)
        return centers / np.linalg.norm(centers, axis=-1, keepdims=True)


def pack_views(drawn: RenderResult, K: Tensor, cam_from_obj: Tensor) -> PackedViews:
    """Keep the object's pixels of rendered square views.

    Args:
        drawn: with colour, depth and mask.
        K: ``(n, 3, 3)`` pixels.
        cam_from_obj: ``(n, 4, 4)`` metres.

    Returns:
        The packed views.

    Raises:
        ValueError: a view that does not show the object.
    """
    mask, depth = drawn.mask.numpy(), drawn.depth.numpy().astype(np.float64)
    counts = mask.sum((1, 2))
    if (counts == 0).any():
        raise ValueError(f"views: expected the object in each, view {int(counts.argmin())} is empty")
    near = np.where(mask, depth, np.inf).min((1, 2))
    step = np.maximum(np.where(mask, depth, 0).max((1, 2)) - near, 1e-12) / _STEPS
    levels = np.rint((depth - near[:, None, None]) / step[:, None, None])[mask]
    return PackedViews(
        np.packbits(mask, axis=-1),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        drawn.color.numpy()[mask],
        levels.clip(0, _STEPS).astype(np.uint16),
        np.stack([near, step], axis=-1),
        K.double().numpy(),
        cam_from_obj.double().numpy(),
    )


class ObjectViews(NamedTuple):
    """All views of one object.

    Args:
        name: of the object.
        diameter: metres.
        symmetries: of shape and colours.
        templates: without lamps, from all around, z upwards.
        queries: under lamps, from random sides, z upwards; the camera looks past the object.
    """

    name: str
    diameter: float
    symmetries: SymmetryGroup
    templates: PackedViews
    queries: PackedViews

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything but the name, as it is stored."""
        group = self.symmetries
        packed = {"template": self.templates, "query": self.queries}
        arrays = {f"{kind}.{key}": a for kind, views in packed.items() for key, a in views._asdict().items()}
        arrays["symmetry.discrete"] = group.discrete.numpy()
        if group.axis is not None and group.offset is not None:
            arrays["symmetry.axis"], arrays["symmetry.offset"] = group.axis.numpy(), group.offset.numpy()
        return arrays | {"diameter": np.array([self.diameter])}

    @classmethod
    def from_arrays(cls, name: str, arrays: Mapping[str, np.ndarray]) -> ObjectViews:
        """The views of `arrays`, which are not copied.

        Raises:
            KeyError: an array is missing.
        """
        templates, queries = (
            PackedViews(*(arrays[f"{kind}.{key}"] for key in PackedViews._fields))
            for kind in ("template", "query")
        )
        group = [
            torch.from_numpy(np.array(arrays[key])) if key in arrays else None
            for key in ("symmetry.axis", "symmetry.offset")
        ]
        symmetries = SymmetryGroup(torch.from_numpy(np.array(arrays["symmetry.discrete"])), *group)
        return cls(name, float(arrays["diameter"][0]), symmetries, templates, queries)


def draw_pose_views(index: int, split: str, settings: PoseViewSettings) -> ObjectViews:
    """Draw the views of one object of a split.

    Args:
        index: the object's number in its split.
        split: ``"train"`` or ``"development"``.
        settings: how.

    Returns:
        The same for the same arguments.

    Example:
        >>> tiny = PoseViewSettings(num_templates=42, template_px=24, num_queries=2, query_px=32)
        >>> views = draw_pose_views(0, "train", tiny)
        >>> views.name, views.templates.number, views.queries.view(1).color.shape
        ('box-rich-0', 42, (32, 32, 3))
    """
    rng = np.random.default_rng([EXAM.object_seeds[split][0] + index, _STREAM])
    thing = exam_object(index, split)
    lit = draw_lit_views(thing.prepared, rng, settings)
    templates = draw_templates(thing.prepared, settings)
    return ObjectViews(thing.name, float(thing.mesh.diameter), thing.symmetries, templates, lit)


def draw_lit_views(
    prepared: PreparedMesh, rng: np.random.Generator, settings: PoseViewSettings
) -> PackedViews:
    """Draw a mesh under lamps from random sides and distances; the object fills each view.

    Args:
        prepared: the mesh, metres.
        rng: draws sides, distances and lamps.
        settings: how.

    Returns:
        The views.

    Raises:
        ValueError: a view that does not show the object.
    """
    poses = _draw_poses(rng, prepared.mesh.diameter, settings)
    size = (settings.query_px, settings.query_px)
    K = fit_camera(prepared.mesh, poses, size, 0.97)
    layers: list[RenderResult] = []
    for pose, camera in zip(poses, K, strict=True):
        lights = draw_lights(rng, settings.lights, None)
        layers.append(render_views(prepared, pose[None], camera[None], size, lights=lights))
    names = ("color", "depth", "mask")
    lit = RenderResult({name: torch.cat([each.layers[name] for each in layers]) for name in names})
    return pack_views(lit, K, poses)


def draw_templates(prepared: PreparedMesh, settings: PoseViewSettings) -> PackedViews:
    """Draw the templates of a mesh: without lamps, from all around, z upwards.

    Args:
        prepared: the mesh, metres.
        settings: how.

    Returns:
        The views.

    Raises:
        ValueError: a view that does not show the object.
    """
    mesh, side = prepared.mesh, settings.template_px
    distance = settings.template_distance * mesh.diameter
    poses = view_poses(settings.num_templates, distance)
    K = sphere_camera(_radius(mesh), distance, side, settings.template_fill).expand(len(poses), 3, 3)
    drawn = render_views(prepared, poses, K, (side, side), samples=settings.template_samples)
    return pack_views(drawn, K, poses)


def sphere_camera(radius: float, distance: float, side: int, fill: float) -> Tensor:
    """K of a square picture that a sphere on the optical axis fills to a share of its side.

    A sphere of radius r at distance d appears as a circle of ``f r / sqrt(d^2 - r^2)`` pixels.

    Args:
        radius: metres.
        distance: of its centre from the camera, metres, above the radius.
        side: of the picture, pixels.
        fill: diameter of the circle over the side.

    Returns:
        ``(3, 3)`` float64 pixels, principal point in the middle.

    Raises:
        ValueError: a camera inside the sphere.

    Example:
        >>> sphere_camera(0.3, 0.5, 100, 0.9)[0].tolist()
        [60.0, 0.0, 49.5]
    """
    if not distance > radius > 0:
        raise ValueError(f"distance: expected more than the radius {radius} m, got {distance}")
    focal = fill * side / 2 * (distance**2 - radius**2) ** 0.5 / radius
    center = (side - 1) / 2
    return torch.tensor([[focal, 0, center], [0, focal, center], [0, 0, 1]], dtype=torch.float64)


def _radius(mesh: TriangleMesh) -> float:
    """Of the sphere around the origin that holds the mesh."""
    return float(mesh.vertices.double().norm(dim=-1).max())


def _draw_poses(rng: np.random.Generator, diameter: float, settings: PoseViewSettings) -> Tensor:
    """Cameras on random sides that look past the object, their x axis level before that turn aside."""
    count = settings.num_queries
    toward = rng.normal(size=(count, 3))
    toward /= np.linalg.norm(toward, axis=1, keepdims=True)
    distance = diameter * np.exp(rng.uniform(*np.log(settings.query_distance), size=(count, 1)))
    around = rng.uniform(0, 2 * np.pi, size=count)
    angle = np.arctan(settings.query_aside * np.sqrt(rng.uniform(size=count)))
    turn = np.stack([angle * np.cos(around), angle * np.sin(around), np.zeros(count)], axis=-1)
    aside = make_pose(exp(torch.from_numpy(turn)), torch.zeros(count, 3, dtype=torch.float64))
    return aside @ look_at(torch.from_numpy(toward * distance))
