"""What a rendering is made of: the lights that shine on it and the pictures that come out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

OUTPUTS = ("color", "depth", "mask", "xyz", "normals", "instance")


@dataclass(frozen=True, eq=False)
class RenderResult:
    """The pictures of ``n`` views, each asked for by its name in ``outputs``.

    A picture that was not asked for raises a ``ValueError`` that says so, instead of being None.

    Args:
        layers: the tensors by name, all ``(n, h, w, ...)`` on one device.

    Example:
        >>> import torch
        >>> result = RenderResult({"depth": torch.zeros(1, 4, 6)})
        >>> len(result), result.depth.shape
        (1, torch.Size([1, 4, 6]))
    """

    layers: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.layers.values())))

    def _layer(self, name: str) -> Tensor:
        if name not in self.layers:
            have = ", ".join(self.layers)
            raise ValueError(f"{name}: not rendered; outputs were ({have}), add {name!r} to outputs")
        return self.layers[name]

    @property
    def color(self) -> UInt8[Tensor, "n h w 3"]:
        """RGB, uint8."""
        return self._layer("color")

    @property
    def depth(self) -> Float[Tensor, "n h w"]:
        """Depth z along the optical axis, metres, float32; 0 where nothing is."""
        return self._layer("depth")

    @property
    def mask(self) -> Bool[Tensor, "n h w"]:
        """True where the ray through the pixel's centre meets a surface."""
        return self._layer("mask")

    @property
    def xyz(self) -> Float[Tensor, "n h w 3"]:
        """The surface point in its object's frame, metres, float32; 0 where nothing is."""
        return self._layer("xyz")

    @property
    def normals(self) -> Float[Tensor, "n h w 3"]:
        """Unit surface normals in the camera frame, on the visible side, float32; 0 where nothing is."""
        return self._layer("normals")

    @property
    def instance(self) -> Int[Tensor, "n h w"]:
        """Which mesh of the scene is seen, int32; -1 where nothing is."""
        return self._layer("instance")


def _no_sources(width: int) -> Tensor:
    return torch.zeros(0, width)


@dataclass(frozen=True, eq=False)
class Lights:
    """Ambient light and any number of directional or point sources, in the *camera* frame.

    Lambert and Blinn-Phong: a surface point has the colour ``albedo (ambient + sum_l color_l max(0, n.l)) +
    specular sum_l color_l max(0, n.h)^shininess``, in the picture's own (not linearised) values. Distance
    does not weaken a light, and nothing casts shadows.

    Args:
        ambient: RGB of the light from everywhere; 1 leaves the surface's colour as it is.
        positions: ``(l, 4)`` homogeneous in the camera frame: ``(x, y, z, 1)`` a point in metres,
            ``(x, y, z, 0)`` the direction *towards* a source infinitely far away.
        colors: ``(l, 3)`` RGB strength of each source.
        specular: strength of the highlights, 0 for none.
        shininess: the highlights' exponent; larger is smaller and sharper.

    Raises:
        ValueError: the numbers of positions and colours differ, or a light is negative or not finite.

    Example:
        >>> Lights.headlight(ambient=0.3).colors.tolist()[0][0]
        0.699999988079071
    """

    ambient: tuple[float, float, float] = (1.0, 1.0, 1.0)
    positions: Tensor = field(default_factory=lambda: _no_sources(4))
    colors: Tensor = field(default_factory=lambda: _no_sources(3))
    specular: float = 0.0
    shininess: float = 32.0

    def __post_init__(self) -> None:
        """Check the shapes and signs."""
        if self.positions.ndim != 2 or self.positions.shape[1] != 4:
            raise ValueError(f"positions: expected shape (l, 4), got {tuple(self.positions.shape)}")
        count = len(self.positions)
        if tuple(self.colors.shape) != (count, 3):
            raise ValueError(f"colors: expected shape ({count}, 3), got {tuple(self.colors.shape)}")
        table = self.table()
        if not np.isfinite(table).all():
            raise ValueError("lights: expected finite numbers, got NaN or infinity")
        if (table[0] < 0).any() or (table[1:, 4:] < 0).any():
            raise ValueError("lights: expected strengths of at least 0, got a negative one")

    @classmethod
    def headlight(cls, ambient: float = 0.4, strength: float | None = None) -> Lights:
        """Light from the camera itself: what faces it is brightest, nothing visible is dark.

        Args:
            ambient: the share of light from everywhere.
            strength: the lamp's strength, ``1 - ambient`` unless given.
        """
        lamp = 1.0 - ambient if strength is None else strength
        at_camera = torch.tensor([[0.0, 0.0, 0.0, 1.0]])
        return cls((ambient, ambient, ambient), at_camera, torch.full((1, 3), lamp))

    @property
    def change_colors(self) -> bool:
        """Whether the surface's colours come out other than they are."""
        return len(self.positions) > 0 or tuple(self.ambient) != (1.0, 1.0, 1.0)

    def table(self) -> NDArray[np.float64]:
        """All of it as ``(1 + l, 7)``, the form that the backends read (see ``RenderJob``)."""
        table = np.zeros((1 + len(self.positions), 7))
        table[0, :5] = (*self.ambient, self.specular, self.shininess)
        table[1:, :4] = self.positions.detach().double().cpu().numpy()
        table[1:, 4:] = self.colors.detach().double().cpu().numpy()
        return table
