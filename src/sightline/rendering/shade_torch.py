"""From the triangle that each pixel sees to its colour, coordinates and normal: ``shade_numba`` in tensors.

All functions work on ``k`` visible points of the picture at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import normalize

from sightline.rendering.raster_torch import cross_edges, determinant

MAX_PROBES = 8


@dataclass(frozen=True, eq=False)
class Points:
    """Where the rays of ``k`` pixels meet triangles.

    Args:
        face: the triangle.
        mesh: the triangle's mesh.
        weights: barycentric coordinates.
        slopes: their numerators' change by one pixel in x and in y.
        scale: one over their denominator.
        det: the triangle's determinant; negative where it is seen from outside.
    """

    face: Int[Tensor, " k"]
    mesh: Int[Tensor, " k"]
    weights: Float[Tensor, "k 3"]
    slopes: Float[Tensor, "k 3 2"]
    scale: Float[Tensor, " k"]
    det: Float[Tensor, " k"]


def find_points(
    p: Float[Tensor, "n v 5"],
    faces: Int[Tensor, "f 3"],
    face_mesh: Int[Tensor, " f"],
    view: Int[Tensor, " k"],
    face: Int[Tensor, " k"],
    x: Int[Tensor, " k"],
    y: Int[Tensor, " k"],
) -> Points:
    """Meet the rays of pixels ``(x, y)`` of their views with the triangles that they see."""
    corners = faces[face]
    edges = cross_edges(p, view, corners)
    det = determinant(p, view, corners, edges)
    value = edges[..., 0] * x[:, None] + edges[..., 1] * y[:, None] + edges[..., 2]
    scale = 1.0 / (value[:, 0] + value[:, 1] + value[:, 2])
    return Points(face, face_mesh[face].long(), value * scale[:, None], edges[..., :2], scale, det)


def interpolate(points: Points, corner_values: Float[Tensor, "k 3 c"]) -> Float[Tensor, "k c"]:
    """Values at the points from those at the triangles' corners, float64."""
    return (points.weights[..., None] * corner_values).sum(1)


def camera_normals(
    points: Points, normals: Float[Tensor, "f 3 3"], rotation: Float[Tensor, "k 3 3"]
) -> Float[Tensor, "k 3"]:
    """Unit normals in the camera frame, on the visible side."""
    unit = normalize(interpolate(points, normals[points.face].double()), dim=-1, eps=1e-30)
    return torch.where(points.det > 0, -1.0, 1.0)[:, None] * (rotation @ unit[..., None])[..., 0]


def sample_textures(
    points: Points,
    uv: Float[Tensor, "f 3 2"],
    mesh_levels: Int[Tensor, "m 2"],
    levels: Int[Tensor, "l 3"],
    texels: UInt8[Tensor, " t"],
) -> Float[Tensor, "k 3"]:
    """Texture colours in [0, 255], filtered over each pixel's footprint."""
    corner_uv = uv[points.face].double()
    place = interpolate(points, corner_uv)
    # jacobian[:, c, d]: the change of texture coordinate c by one pixel in direction d.
    jacobian = ((corner_uv - place[:, None]).mT @ points.slopes) * points.scale[:, None, None]
    first, count = mesh_levels[points.mesh].long().unbind(-1)
    probes, lod, step = _footprint(jacobian, levels[first, 1:].flip(-1).double())
    lod = torch.minimum(lod, count - 1.0)
    low = lod.long()
    share = (lod - low)[:, None]
    total = torch.zeros(len(place), 3, dtype=torch.float64, device=place.device)
    for probe in range(int(probes.max()) if len(place) else 0):
        active = (probes > probe).nonzero()[:, 0]
        at = place[active] + (probe - 0.5 * (probes[active] - 1))[:, None] * step[active]
        level, w = (first + low)[active], share[active]
        color = (1.0 - w) * _bilinear(texels, levels, level, at)
        color += w * _bilinear(texels, levels, torch.where(w[:, 0] > 0, level + 1, level), at)
        total[active] += color
    return total / probes[:, None]


def _footprint(
    jacobian: Float[Tensor, "k 2 2"], size: Float[Tensor, "k 2"]
) -> tuple[Int[Tensor, " k"], Float[Tensor, " k"], Float[Tensor, "k 2"]]:
    texel_jacobian = jacobian * size[..., None]
    (xx, yy) = texel_jacobian.square().sum(1).unbind(-1)
    xy = texel_jacobian.prod(-1).sum(-1)
    spread = (0.25 * (xx - yy).square() + xy.square()).sqrt()
    longer, shorter = 0.5 * (xx + yy) + spread, 0.5 * (xx + yy) - spread
    probes = ((longer / shorter.clamp_min(1.0)).sqrt() + 0.5).long().clamp(1, MAX_PROBES)
    mantissa, exponent = torch.frexp((longer / probes.square()).clamp_min(1.0))
    lod = 0.5 * (exponent - 2.0 + 2.0 * mantissa)
    along = torch.where(
        (xx >= yy)[:, None],
        torch.stack([0.5 * (xx - yy) + spread, xy], -1),
        torch.stack([xy, 0.5 * (yy - xx) + spread], -1),
    )
    axis = normalize(along, dim=-1, eps=1e-30) / probes[:, None]
    return probes, lod, (jacobian @ axis[..., None])[..., 0]


def _bilinear(
    texels: UInt8[Tensor, " t"],
    levels: Int[Tensor, "l 3"],
    level: Int[Tensor, " k"],
    uv: Float[Tensor, "k 2"],
) -> Float[Tensor, "k 3"]:
    start, height, width = levels[level].unbind(-1)
    # Outside [0, 1] the texture repeats; exactly 1 stays the far border.
    uv = torch.where(uv < 0, uv - uv.floor(), torch.where(uv > 1, uv - uv.ceil() + 1, uv))
    size = torch.stack([width, height], -1)
    place = (uv * size - 0.5).clamp_min(0).minimum(size - 1.0)
    corner = place.long()
    (fx, fy), (x, y) = (place - corner).unbind(-1), corner.unbind(-1)
    right = 3 * (x + 1 < width)
    below = 3 * width * (y + 1 < height)
    index = (start + 3 * (y * width + x))[:, None] + torch.arange(3, device=texels.device)
    color = 0.0
    for weight, offset in (
        ((1 - fx) * (1 - fy), 0 * right),
        (fx * (1 - fy), right),
        ((1 - fx) * fy, below),
        (fx * fy, below + right),
    ):
        color = color + weight[:, None] * texels[index + offset[:, None]]
    return color


def apply_lights(
    albedo: Float[Tensor, "k 3"],
    normal: Float[Tensor, "k 3"],
    position: Float[Tensor, "k 3"],
    lights: Float[Tensor, "l 7"],
) -> Float[Tensor, "k 3"]:
    """Lambert and Blinn-Phong, see ``Lights``; positions and normals in the camera frame."""
    light = lights[0, :3].expand_as(albedo)
    shine = torch.zeros_like(albedo)
    specular, shininess = lights[0, 3], lights[0, 4]
    to_eye = -normalize(position, dim=-1)
    for source in lights[1:]:
        towards = normalize(source[:3] - source[3] * position, dim=-1, eps=1e-30)
        cosine = (normal * towards).sum(-1, keepdim=True).clamp_min(0)
        light = light + cosine * source[4:]
        half = normalize(towards + to_eye, dim=-1, eps=1e-30)
        gloss = specular * (normal * half).sum(-1, keepdim=True).clamp_min(0) ** shininess
        shine = shine + 255.0 * torch.where(cosine > 0, gloss, 0.0) * source[4:]
    return albedo * light + shine
