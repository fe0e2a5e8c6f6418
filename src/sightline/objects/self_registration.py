"""A mesh held against itself, turned: how far apart they are, in shape and in colour."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from scipy.spatial import KDTree
from torch import Tensor

from sightline.geometry.rotations import exp
from sightline.geometry.triangles import sample_surface, surface_moments
from sightline.objects.surface_index import SurfaceIndex
from sightline.records import TriangleMesh

_NUM_PROBES = 2000
_ROUGH_STRIDE, _REFINING_STRIDE, _EARLY_STRIDE = 13, 5, 7
_PATCH = 12  # probes in a patch; its radius is some 7 % of the diameter
_ROUGH_ROUNDS, _EXACT_ROUNDS = 8, 3


class Fit(NamedTuple):
    """How well a turned mesh lies on itself.

    Args:
        distance: the largest distance of a point from the surface, as a share of the diameter.
        color_difference: the largest mean difference of colour over a patch, RGB in [0, 1].
    """

    distance: float
    color_difference: float


class SelfRegistration:
    """A mesh about its surface's centroid, to be laid on itself.

    Args:
        mesh: metres.

    Example:
        >>> import trimesh
        >>> cube = trimesh.creation.box(extents=(0.1, 0.1, 0.1))
        >>> vertices, faces = torch.tensor(cube.vertices.tolist()).double(), torch.tensor(cube.faces.tolist())
        >>> cube = SelfRegistration(TriangleMesh(vertices, faces))
        >>> quarter_turn = exp(torch.tensor([0.0, 0.0, torch.pi / 2], dtype=torch.float64))
        >>> cube.fit(quarter_turn).distance < 1e-6
        True
    """

    def __init__(self, mesh: TriangleMesh) -> None:
        triangles = mesh.vertices.double()[mesh.faces]
        samples = sample_surface(triangles, _NUM_PROBES)
        self.centroid, covariance = surface_moments(triangles)
        self.moments, axes = torch.linalg.eigh(covariance)
        self.principal_axes = axes.T
        self.surface = SurfaceIndex(mesh, self.centroid)
        self.diameter = self.surface.diameter
        self.probes = samples.points - self.centroid
        self.normals = self.surface.normals[samples.face]
        self.colors = self.surface.colors(samples.face, samples.barycentric)
        self._patches = torch.from_numpy(KDTree(self.probes.numpy()).query(self.probes.numpy(), k=_PATCH)[1])
        self._spacing = float(self.rough_distances(torch.eye(3, dtype=torch.float64)[None]))

    @property
    def slack(self) -> float:
        """By how much ``rough_distances`` may be too large, as a share of the diameter."""
        return 2 * self._spacing

    def rough_distances(self, rotations: Float[Tensor, "c 3 3"]) -> Float[Tensor, " c"]:
        """Mean distances of a few points from the surface's samples, as shares of the diameter."""
        turned = self.probes[::_ROUGH_STRIDE] @ rotations.mT
        return self.surface.rough_distances(turned).mean(1) / self.diameter

    def refine(self, rotations: Float[Tensor, "c 3 3"], *, exact: bool = False) -> Float[Tensor, "c 3 3"]:
        """Turn each rotation on by point-to-plane steps until the surface lies on itself.

        With the point x on the plane through q with normal n the step w solves
        ``sum (n.(x - q) + w.(x cross n))^2 -> min``; what the surface does not fix stays as it is.

        Args:
            rotations: where to begin.
            exact: whether planes are those of the nearest places, for few rotations that are nearly right, or
                of the nearest samples.
        """
        find_planes = self.surface.nearest_planes if exact else self.surface.rough_planes
        for _ in range(_EXACT_ROUNDS if exact else _ROUGH_ROUNDS):
            turned = self.probes[::_REFINING_STRIDE] @ rotations.mT
            foot, normal = find_planes(turned)
            lever = torch.linalg.cross(turned, normal) / self.diameter
            gap = (normal * (turned - foot)).sum(-1) / self.diameter
            system = lever.mT @ lever
            damped = system + 1e-6 * torch.eye(3, dtype=system.dtype)
            step = torch.linalg.solve(damped, -(lever * gap[..., None]).sum(1))
            rotations = exp(step.clamp(-0.3, 0.3)) @ rotations
        return rotations

    def fit(self, rotation: Float[Tensor, "3 3"], enough: float = float("inf")) -> Fit:
        """Compare shape and colour at all points.

        Args:
            rotation: the turn.
            enough: a distance, share of the diameter, beyond which the answer need not be exact.
        """
        few = float(self.surface.distances(self.probes[::_EARLY_STRIDE] @ rotation.mT).max()) / self.diameter
        if few > enough:
            return Fit(few, float("nan"))
        turned, normals = self.probes @ rotation.mT, self.normals @ rotation.mT
        distance, difference = self.surface.differences(turned, normals, self.colors)
        farthest = self.surface.corrected(turned, distance).max()
        return Fit(float(farthest) / self.diameter, float(difference[self._patches].mean(1).max()))

    def color_differences(self, rotations: Float[Tensor, "c 3 3"]) -> Float[Tensor, " c"]:
        """The mean differences of colour at a few points, RGB in [0, 1]."""
        few = slice(None, None, _EARLY_STRIDE)
        turned, normals = self.probes[few] @ rotations.mT, self.normals[few] @ rotations.mT
        colors = self.colors[few].expand_as(turned)
        difference = self.surface.differences(*(x.reshape(-1, 3) for x in (turned, normals, colors)))[1]
        return difference.view(len(rotations), -1).mean(1)

    def color_axes(self) -> Float[Tensor, "3 3"]:
        """The principal axes of what stands out in colour, the strongest last."""
        weight = (self.colors - self.colors.mean(0)).abs().sum(1)
        weighted = self.probes * weight[:, None]
        return torch.linalg.eigh(self.probes.T @ weighted)[1].T
