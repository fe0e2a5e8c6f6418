"""A mesh's surface to be asked: how far is a point from it, and what colour is it there?"""

from __future__ import annotations

import cv2
import torch
from jaxtyping import Float, Int
from scipy.spatial import KDTree
from torch import Tensor
from torch.nn.functional import grid_sample, normalize

from sightline.geometry.triangles import areas, closest_on_triangles, sample_surface
from sightline.records import TriangleMesh
from sightline.rendering.texture import fill_unused

_NUM_SAMPLES = 20_000
_FEW_NEIGHBOURS, _MANY_NEIGHBOURS = 4, 32
_DOUBTFUL = 0.001  # of the diameter; a distance above it is looked at again
_FINEST_DETAIL = 0.005  # of the diameter; smaller print counts as its mean


class SurfaceIndex:
    """The surface of a mesh about its own centroid, for questions of distance and colour.

    Distances are exact to the triangles of the four nearest of 20,000 even samples, so a fine mesh, whose
    triangles are smaller than the samples' spacing, is answered to a fraction of that spacing.

    Args:
        mesh: metres.
        origin: ``(3,)`` metres, what all points are relative to.

    Example:
        >>> from sightline.records import TriangleMesh
        >>> corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=torch.float64)
        >>> surface = SurfaceIndex(TriangleMesh(corners, torch.tensor([[0, 1, 2]])), torch.zeros(3))
        >>> round(float(surface.distances(torch.tensor([[0.2, 0.2, 0.5]]).double())), 6)
        0.5
    """

    def __init__(self, mesh: TriangleMesh, origin: Float[Tensor, "3"]) -> None:
        self.mesh, self.diameter = mesh, mesh.diameter
        self.triangles = mesh.vertices.double()[mesh.faces] - origin.double()
        samples = sample_surface(self.triangles, _NUM_SAMPLES)
        self.face = samples.face
        self.tree = KDTree(samples.points.numpy())
        a, b, c = self.triangles.unbind(1)
        self.normals = torch.linalg.cross(b - a, c - a)
        self._texture = _coarse_texture(mesh, self.triangles, self.diameter)

    @property
    def has_color(self) -> bool:
        """Whether the mesh has colours of its own."""
        return self._texture is not None or self.mesh.vertex_colors is not None

    def rough_distances(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
        """Distances to the nearest sample, metres: quick, and too large by up to the samples' spacing."""
        return torch.from_numpy(self.tree.query(points.numpy())[0])

    def rough_planes(
        self, points: Float[Tensor, "*batch 3"]
    ) -> tuple[Float[Tensor, "*batch 3"], Float[Tensor, "*batch 3"]]:
        """The nearest sample of each point and the unit normal there."""
        index = torch.from_numpy(self.tree.query(points.numpy())[1])
        return torch.from_numpy(self.tree.data)[index], normalize(self.normals[self.face[index]], dim=-1)

    def nearest_planes(
        self, points: Float[Tensor, "*batch 3"]
    ) -> tuple[Float[Tensor, "*batch 3"], Float[Tensor, "*batch 3"]]:
        """The nearest place of the surface to each point and the unit normal there."""
        flat = points.reshape(-1, 3)
        distance, weights, face = self._closest(flat)
        best = distance.argmin(1, keepdim=True)
        face = face.take_along_dim(best, 1)[:, 0]
        foot = (weights.take_along_dim(best[..., None], 1)[:, 0, :, None] * self.triangles[face]).sum(1)
        normals = normalize(self.normals[face], dim=-1)
        return foot.reshape(points.shape), normals.reshape(points.shape)

    def distances(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Distances to the surface, metres."""
        return self.corrected(points, self._closest(points)[0].amin(1))

    def corrected(self, points: Float[Tensor, "n 3"], distance: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Distances from ``differences``, the larger ones looked at again.

        Among slender triangles the nearest may have none of the nearest few samples.
        """
        distance, doubtful = distance.clone(), distance > _DOUBTFUL * self.diameter
        if bool(doubtful.any()):
            distance[doubtful] = self._closest(points[doubtful], _MANY_NEIGHBOURS)[0].amin(1)
        return distance

    def differences(
        self, points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], colors: Float[Tensor, "n 3"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """How far points are from the surface, and how unlike their colours are to those found there.

        A colour is compared with those of the four nearest places that face the same way (a thin wall has two
        sides), which lie within some hundredth of the diameter, and the likest counts: where a pattern has an
        edge, it need not be met exactly.

        Args:
            points: metres.
            normals: of any length.
            colors: RGB in [0, 1].

        Returns:
            Distances, metres, not yet ``corrected``, and differences, the mean of the channels.
        """
        distance, weights, face = self._closest(points)
        found = self.colors(face.flatten(), weights.flatten(0, 1)).view(*face.shape, 3)
        difference = (found - colors[:, None]).abs().mean(-1)
        facing_away = (self.normals[face] * normals[:, None]).sum(-1) < 0
        facing_away &= ~facing_away.all(1, keepdim=True)
        return distance.amin(1), torch.where(facing_away, torch.inf, difference).amin(1)

    def colors(self, face: Int[Tensor, " n"], barycentric: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """RGB in [0, 1] at places of the surface; black for a mesh without colours."""
        if self._texture is not None and self.mesh.uv is not None:
            uv = (barycentric[..., None] * self.mesh.uv[face]).sum(1)
            uv = torch.where((uv < 0) | (uv > 1), uv - uv.floor(), uv)
            grid = (uv * 2 - 1).float()[None, None]
            seen = grid_sample(self._texture, grid, padding_mode="border", align_corners=False)
            return seen[0, :, 0].T.double()
        if self.mesh.vertex_colors is not None:
            return (barycentric[..., None] * self.mesh.vertex_colors[self.mesh.faces[face]]).sum(1).double()
        return torch.zeros(len(face), 3, dtype=torch.float64)

    def _closest(
        self, points: Float[Tensor, "n 3"], neighbours: int = _FEW_NEIGHBOURS
    ) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k 3"], Int[Tensor, "n k"]]:
        index = torch.from_numpy(self.tree.query(points.numpy(), k=neighbours)[1])
        face = self.face[index]
        triangles = self.triangles[face]
        weights = closest_on_triangles(points[:, None].expand(*face.shape, 3), triangles)
        foot = (weights[..., None] * triangles).sum(-2)
        return (foot - points[:, None]).norm(dim=-1), weights, face


def _coarse_texture(
    mesh: TriangleMesh, triangles: Float[Tensor, "f 3 3"], diameter: float
) -> Float[Tensor, "1 3 h w"] | None:
    # The texture with texels of about the finest detail that counts.
    if mesh.texture is None or mesh.uv is None:
        return None
    height, width = mesh.texture.shape[:2]
    pixels = torch.nn.functional.pad(mesh.uv.double() * torch.tensor([width, height]), (0, 1))
    texels_a_metre = (areas(pixels).sum() / areas(triangles).sum()).sqrt()
    factor = min(1.0, 1 / max(float(texels_a_metre) * _FINEST_DETAIL * diameter, 1e-9))
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    filled = fill_unused(mesh.texture.numpy(), mesh.uv.float().numpy())
    coarse = torch.from_numpy(cv2.resize(filled, size, interpolation=cv2.INTER_AREA))
    return coarse.permute(2, 0, 1)[None].float() / 255
