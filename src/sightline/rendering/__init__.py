"""Rendering: a mesh and cameras in; colour, depth, mask, object coordinates and normals out.

* ``render``: the face, ``render_views`` (one mesh, many cameras) and ``render_scene`` (many meshes, one camera).
* ``result``: ``RenderResult`` and ``Lights``.
* ``soup``: meshes laid out as flat arrays, with ``normals`` (smooth or sharp corners) and ``texture`` (mip chains).
* ``job``: one checked request to a backend.
* ``numba_backend``: the CPU, with ``raster_numba`` (which triangle is seen) and ``shade_numba`` (its colour).
"""

from sightline.rendering.render import render_scene, render_views
from sightline.rendering.result import Lights, RenderResult

__all__ = ["Lights", "RenderResult", "render_scene", "render_views"]
