"""One checked request to a backend: the soup, the cameras and what is wanted of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sightline.rendering.result import OUTPUTS, Lights
from sightline.rendering.soup import Soup

_SHAPES = {"color": (3,), "depth": (), "mask": (), "xyz": (3,), "normals": (3,), "instance": ()}
_DTYPES = {
    "color": torch.uint8,
    "depth": torch.float32,
    "mask": torch.bool,
    "xyz": torch.float32,
    "normals": torch.float32,
    "instance": torch.int32,
}


@dataclass(frozen=True, eq=False)
class RenderJob:
    """What a backend draws: ``n`` views of the ``m`` meshes of a soup.

    Args:
        soup: the triangles.
        cam_from_obj: ``(n, m, 4, 4)`` float64.
        K: ``(n, 3, 3)`` float64.
        image_size: ``(width, height)`` pixels.
        outputs: the pictures' names.
        light_table: ``(1 + l, 7)`` float64: ``(r, g, b, specular, shininess, 0, 0)`` of the ambient light, then a row
            ``(x, y, z, w, r, g, b)`` a source.
        lit: whether light changes the colours at all.
        background: ``(h, w, 3)`` or ``(1, 1, 3)`` uint8.
        samples: points along a pixel's side.
        near: the nearest depth drawn, metres.
    """

    soup: Soup
    cam_from_obj: NDArray[np.float64]
    K: NDArray[np.float64]
    image_size: tuple[int, int]
    outputs: tuple[str, ...]
    light_table: NDArray[np.float64]
    lit: bool
    background: NDArray[np.uint8]
    samples: int
    near: float

    @property
    def num_views(self) -> int:
        """How many pictures are drawn."""
        return len(self.cam_from_obj)

    def finer_intrinsics(self, k: NDArray[np.float64]) -> NDArray[np.float64]:
        """K of the grid of ``samples x samples`` points a pixel; pixel centres stay the mean of their points."""
        scale = np.diag([self.samples, self.samples, 1.0])
        scale[:2, 2] = (self.samples - 1) / 2
        return scale @ k

    def empty_layers(self, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """Uninitialised pictures of all outputs."""
        size = (self.num_views, self.image_size[1], self.image_size[0])
        return {
            name: torch.empty(*size, *_SHAPES[name], dtype=_DTYPES[name], device=device)
            for name in self.outputs
        }


def check_outputs(outputs: Sequence[str]) -> tuple[str, ...]:
    """The outputs as a tuple, or a ``ValueError`` that names the unknown one."""
    unknown = [name for name in outputs if name not in OUTPUTS]
    if unknown or not outputs:
        raise ValueError(f"outputs: expected some of {OUTPUTS}, got {tuple(outputs)}")
    return tuple(dict.fromkeys(outputs))


def check_cameras(
    cam_from_obj: Tensor, K: Tensor, num_views: int, num_meshes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Poses as ``(n, m, 4, 4)`` and K as ``(n, 3, 3)``, float64 on the CPU, or a ``ValueError``."""
    poses = cam_from_obj.detach().cpu().double().reshape(num_views, num_meshes, 4, 4).contiguous().numpy()
    if not np.isfinite(poses).all():
        raise ValueError("cam_from_obj: expected finite numbers, got NaN or infinity (an invalid pose?)")
    if not np.allclose(poses[..., 3, :], [0, 0, 0, 1], rtol=0, atol=1e-6):
        raise ValueError(
            f"cam_from_obj: expected last rows (0, 0, 0, 1), got {poses[..., 3, :].tolist()[:1]}"
        )
    if tuple(K.shape) not in ((3, 3), (num_views, 3, 3)):
        raise ValueError(f"K: expected shape (3, 3) or ({num_views}, 3, 3), got {tuple(K.shape)}")
    k = K.detach().cpu().double().expand(num_views, 3, 3).contiguous().numpy()
    if not np.isfinite(k).all():
        raise ValueError("K: expected finite numbers, got NaN or infinity")
    if not np.array_equal(k[:, 2], np.tile([0.0, 0.0, 1.0], (num_views, 1))):
        raise ValueError(f"K: expected a last row (0, 0, 1), got {k[0, 2].tolist()}; is it transposed?")
    if num_views and (k[:, 0, 0].min() <= 0 or k[:, 1, 1].min() <= 0):
        raise ValueError("K: expected positive focal lengths")
    return poses, k


def check_background(background: Tensor | Sequence[float], image_size: tuple[int, int]) -> NDArray[np.uint8]:
    """A colour as ``(1, 1, 3)``, a picture as ``(h, w, 3)``, uint8, or a ``ValueError``."""
    if not isinstance(background, Tensor):
        color = np.asarray(background, np.float64)
        if color.shape != (3,) or not ((color >= 0) & (color <= 255)).all():
            raise ValueError(f"background: expected RGB in [0, 255] or a picture, got {background!r}")
        return np.rint(color).astype(np.uint8).reshape(1, 1, 3)
    width, height = image_size
    if tuple(background.shape) != (height, width, 3) or background.dtype != torch.uint8:
        raise ValueError(
            f"background: expected uint8 ({height}, {width}, 3), got {background.dtype} {tuple(background.shape)}"
        )
    return background.cpu().contiguous().numpy()


def light_table(lights: Lights) -> NDArray[np.float64]:
    """The lights as one table, see ``RenderJob``."""
    table = np.zeros((1 + len(lights.positions), 7))
    table[0, :5] = (*lights.ambient, lights.specular, lights.shininess)
    table[1:, :4] = lights.positions.double().cpu().numpy()
    table[1:, 4:] = lights.colors.double().cpu().numpy()
    return table
