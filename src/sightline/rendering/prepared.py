"""A mesh with what drawing it needs beyond the mesh: corner normals and a filtered texture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sightline.records import TriangleMesh

# Numba and OpenCV are imported where they are used: they take half a second, and may not be wanted at all.


class MipChain(NamedTuple):
    """A texture, its half, its quarter, down to one texel.

    Args:
        levels: ``(k, 3)`` int64: each level's first byte in ``texels``, its height and its width.
        texels: ``(t,)`` uint8, the levels one after the other, RGB interleaved.
    """

    levels: NDArray[np.int64]
    texels: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class PreparedMesh:
    """A mesh that is drawn more than once: normals and texture are prepared at the first drawing and kept.

    The faces of the room take it wherever they take a ``TriangleMesh``; the pictures are the same.

    Args:
        mesh: the mesh, not to be changed afterwards.

    Example:
        >>> import torch
        >>> triangle = TriangleMesh(torch.eye(3, dtype=torch.float64), torch.tensor([[0, 1, 2]]))
        >>> PreparedMesh(triangle).normals.shape
        (1, 3, 3)
    """

    mesh: TriangleMesh

    @cached_property
    def normals(self) -> NDArray[np.float32]:
        """``(f, 3, 3)`` unit corner normals, object frame."""
        from sightline.rendering.normals import corner_normals

        return corner_normals(self.mesh.vertices.double().cpu().numpy(), self.mesh.faces.cpu().numpy())

    @cached_property
    def mips(self) -> MipChain:
        """The texture's mip chain; empty for a mesh without texture."""
        if self.mesh.texture is None or self.mesh.uv is None:
            return MipChain(np.zeros((0, 3), np.int64), np.zeros(0, np.uint8))
        from sightline.rendering.texture import fill_unused, mip_chain

        texture = self.mesh.texture.cpu().numpy()
        return mip_chain(fill_unused(texture, self.mesh.uv.float().cpu().numpy()))
