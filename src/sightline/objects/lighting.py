"""The light in which templates are drawn, and in which a pose is compared with the picture."""

from __future__ import annotations

from sightline.records import TriangleMesh
from sightline.rendering import Lights


def template_lights(mesh: TriangleMesh) -> Lights:
    """Even light for a mesh with colours of its own; a lamp at the camera for a plain one.

    The lamp makes the shape of a mesh without colours visible; baked or printed colours need none, and a
    wrong shading would only weaken their match with a picture whose light is unknown.
    """
    plain = mesh.texture is None and mesh.vertex_colors is None
    return Lights.headlight(ambient=0.4) if plain else Lights()
