"""One checked request to a backend: the soup, the cameras and what is wanted of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sightline.geometry.intrinsics import validate_intrinsics
from sightline.records import TriangleMesh
from sightline.rendering.prepared import PreparedMesh
from sightline.rendering.result import OUTPUTS, Lights
from sightline.rendering.soup import Soup, build_soup

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
        light_table: ``(1 + l, 7)`` float64: ``(r, g, b, specular, shininess, 0, 0)`` of the ambient light,
            then a row ``(x, y, z, w, r, g, b)`` a source.
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
        """K of the grid of ``samples x samples`` points a pixel, whose mean is the pixel's centre."""
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


def build_job(
    meshes: Sequence[TriangleMesh | PreparedMesh],
    cam_from_obj: Tensor,
    K: Tensor,
    image_size: tuple[int, int],
    *,
    outputs: Sequence[str],
    lights: Lights | None,
    background: Tensor | Sequence[float],
    samples: int,
    near: float,
) -> RenderJob:
    """Check a request and lay it out for the backends.

    Args:
        meshes: ``m`` meshes.
        cam_from_obj: ``(n, m, 4, 4)`` poses.
        K: ``(3, 3)`` or ``(n, 3, 3)``.
        image_size: ``(width, height)``.
        outputs: the pictures' names.
        lights: None for none.
        background: RGB or a picture.
        samples: points along a pixel's side.
        near: the nearest depth drawn, metres.

    Raises:
        ValueError: what was expected, what came, and of which argument.
    """
    width, height = (int(side) for side in image_size)
    _require(width > 0 and height > 0, f"image_size: expected (width, height) above 0, got {image_size}")
    _require(samples in (1, 2, 3, 4), f"samples: expected 1 to 4 points a pixel's side, got {samples}")
    _require(near > 0, f"near: expected a distance above 0 m, got {near}")
    wanted = _check_outputs(outputs)
    lit = "color" in wanted and lights is not None and lights.change_colors
    soup = build_soup(
        [mesh if isinstance(mesh, PreparedMesh) else PreparedMesh(mesh) for mesh in meshes],
        with_color="color" in wanted,
        with_normals="normals" in wanted or lit,
    )
    return RenderJob(
        soup,
        _check_poses(cam_from_obj),
        _check_intrinsics(K, len(cam_from_obj)),
        (width, height),
        wanted,
        (lights or Lights()).table(),
        lit,
        _check_background(background, width, height),
        samples,
        near,
    )


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _check_outputs(outputs: Sequence[str]) -> tuple[str, ...]:
    known = not isinstance(outputs, str) and len(outputs) > 0 and set(outputs) <= set(OUTPUTS)
    _require(known, f"outputs: expected some of {OUTPUTS}, got {outputs!r}")
    return tuple(dict.fromkeys(outputs))


def _check_poses(cam_from_obj: Tensor) -> NDArray[np.float64]:
    poses = cam_from_obj.detach().cpu().double().contiguous().numpy()
    _require(
        bool(np.isfinite(poses).all()),
        "cam_from_obj: expected finite numbers, got NaN or infinity (an invalid pose?)",
    )
    last = poses[..., 3, :]
    if not np.allclose(last, [0, 0, 0, 1], rtol=0, atol=1e-6):
        raise ValueError(
            f"cam_from_obj: expected a last row (0, 0, 0, 1), got {last.reshape(-1, 4)[0]} (transposed?)"
        )
    return poses


def _check_intrinsics(K: Tensor, num_views: int) -> NDArray[np.float64]:
    if tuple(K.shape) not in ((3, 3), (num_views, 3, 3)):
        raise ValueError(f"K: expected shape (3, 3) or ({num_views}, 3, 3), got {tuple(K.shape)}")
    for each in K.reshape(-1, 3, 3).detach().cpu():
        validate_intrinsics(each)
    return K.detach().cpu().double().expand(num_views, 3, 3).contiguous().numpy()


def _check_background(background: Tensor | Sequence[float], width: int, height: int) -> NDArray[np.uint8]:
    if isinstance(background, Tensor) and background.ndim == 3:
        got = f"{background.dtype} {tuple(background.shape)}"
        fits = tuple(background.shape) == (height, width, 3) and background.dtype == torch.uint8
        _require(fits, f"background: expected a uint8 picture ({height}, {width}, 3), got {got}")
        return background.cpu().contiguous().numpy()
    color = np.asarray(background, np.float64)
    fits = color.shape == (3,) and bool(((color >= 0) & (color <= 255)).all())
    _require(fits, f"background: expected RGB in [0, 255] or a picture, got {background!r}")
    return np.rint(color).astype(np.uint8).reshape(1, 1, 3)
