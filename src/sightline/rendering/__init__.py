"""Rendering: a mesh and cameras in; colour, depth, mask, object coordinates and normals out.

``render``         the face: ``render_views`` (one mesh, many cameras), ``render_scene`` (many meshes, one
camera) ``result``         ``RenderResult`` and ``Lights``
``framing``        cameras that an object fills: ``fit_distance``, ``fit_poses``, ``fit_camera``
``prepared``       ``PreparedMesh``, a mesh that is drawn again and again; from ``normals`` and ``texture``
``soup``, ``job``  meshes as flat arrays, and one checked request to a backend
``numba_backend``  the CPU: ``raster_numba`` (which triangle is seen), ``shade_numba`` (its colour)
``torch_backend``  any device with float64, the same picture: ``raster_torch``, ``shade_torch``
"""

from sightline.rendering.framing import fit_camera, fit_distance, fit_poses
from sightline.rendering.prepared import PreparedMesh
from sightline.rendering.render import render_scene, render_views
from sightline.rendering.result import Lights, RenderResult

__all__ = [
    "Lights",
    "PreparedMesh",
    "RenderResult",
    "fit_camera",
    "fit_distance",
    "fit_poses",
    "render_scene",
    "render_views",
]
