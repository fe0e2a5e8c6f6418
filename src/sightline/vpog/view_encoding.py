"""What global attention knows of places and views: one rotary encoding for the query and the templates.

A view is a rotation ``cam_from_obj`` and is told relative to the *reference* view. The query's own view is
what the network is to find; its tokens are encoded as if it were the reference view, the best guess at hand:
the reference direction for S2RoPE, the identity for relative rotations. Places are encoded on both sides
alike, so scores are relative in y and x between any two pictures.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sightline.geometry.poses import look_at
from sightline.geometry.viewpoints import view_direction
from sightline.nn.rope import S2RoPE, planar_phases, rotate_halves, so3_channels, so3_rope, sphere_split

EncodingName = Literal["s2rope-fixed", "s2rope-compat", "so3"]
Prepared = tuple[Tensor, ...]


class SphereEncoding(nn.Module):
    """S2RoPE of view directions and places.

    Args:
        head_dim: channels of a head.
        mode: ``fixed`` or ``compat``.

    Example:
        >>> SphereEncoding(32).rope.ps
        1
    """

    def __init__(self, head_dim: int, mode: str = "fixed") -> None:
        super().__init__()
        self.rope = S2RoPE(head_dim, *sphere_split(head_dim), mode=mode)

    def prepare(
        self,
        positions: Int[Tensor, "b p n 2"] | Float[Tensor, "b p n 2"],
        rotations: Float[Tensor, "b p 3 3"],
        reference: Float[Tensor, "*some 3 3"],
        rope_mask: Bool[Tensor, "b p n"] | None = None,
    ) -> Prepared:
        """What all layers need to turn the tokens of pictures.

        Args:
            positions: ``(b, p, n, 2)`` places (y, x).
            rotations: ``(b, p, 3, 3)`` views ``cam_from_obj``.
            reference: ``(b, 3, 3)`` reference views, or ``(b, p, 3, 3)`` one a picture.
            rope_mask: ``(b, p, n)`` False for tokens that lie nowhere.

        Returns:
            Input of ``rotate``.
        """
        directions, up = view_direction(rotations), -reference[..., 1, :]
        phases = self.rope.phases(positions, directions, view_direction(reference), up)
        if rope_mask is not None:
            phases = phases.masked_fill(~rope_mask[..., None], 0.0)
        return (phases,)

    def rotate(self, x: Float[Tensor, "b p heads n d"], prepared: Prepared) -> Tensor:
        """Turns queries or keys.

        Args:
            x: ``(b, p, heads, n, d)``.
            prepared: of ``prepare``.

        Returns:
            A new tensor like ``x``.
        """
        return self.rope.rotate(x, prepared[0])


class RotationEncoding(nn.Module):
    """Channel triplets turned by the rotation from the reference view, the other channels by places (RoPE2D).

    Args:
        head_dim: channels of a head.

    Example:
        >>> RotationEncoding(64).channels
        24
    """

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.channels = so3_channels(head_dim)
        self.planar = head_dim - self.channels

    def prepare(
        self,
        positions: Int[Tensor, "b p n 2"] | Float[Tensor, "b p n 2"],
        rotations: Float[Tensor, "b p 3 3"],
        reference: Float[Tensor, "*some 3 3"],
        rope_mask: Bool[Tensor, "b p n"] | None = None,
    ) -> Prepared:
        """What all layers need to turn the tokens of pictures; see ``SphereEncoding.prepare``.

        Args:
            positions: ``(b, p, n, 2)`` places (y, x).
            rotations: ``(b, p, 3, 3)`` views ``cam_from_obj``.
            reference: ``(b, 3, 3)`` reference views, or ``(b, p, 3, 3)`` one a picture.
            rope_mask: ``(b, p, n)`` False for tokens that lie nowhere.

        Returns:
            Input of ``rotate``.
        """
        if reference.ndim == 3:
            reference = reference[:, None]
        # R_i R_ref^T, so that what is not turned does not see the object's frame either; written out, as
        # autocast would round a product of matrices
        relative = (rotations[..., :, None, :] * reference[..., None, :, :]).sum(-1)
        if rope_mask is None:
            rope_mask = torch.ones(positions.shape[:-1], dtype=torch.bool, device=positions.device)
        return (
            relative[..., None, :, :],
            planar_phases(positions, self.planar, dtype=relative.dtype),
            rope_mask,
        )

    def rotate(self, x: Float[Tensor, "b p heads n d"], prepared: Prepared) -> Tensor:
        """Turns queries or keys.

        Args:
            x: ``(b, p, heads, n, d)``.
            prepared: of ``prepare``.

        Returns:
            A new tensor like ``x``.
        """
        rotations, phases, rope_mask = prepared
        turned = so3_rope(x[..., : self.channels], rotations, self.channels, rope_mask)
        placed = rotate_halves(x[..., self.channels :], phases, rope_mask)
        return torch.cat([turned, placed.expand(*turned.shape[:-1], -1)], dim=-1)


def build_encoding(name: EncodingName | str, head_dim: int) -> SphereEncoding | RotationEncoding:
    """The encoding of a name.

    Args:
        name: ``s2rope-fixed``, ``s2rope-compat`` or ``so3``.
        head_dim: channels of a head, a multiple of 4 and at least 16.

    Returns:
        The module, without parameters.

    Raises:
        ValueError: if the name is unknown or the channels cannot be split.

    Example:
        >>> build_encoding("s2rope-fixed", 64).rope
        S2RoPE(64, px=7, py=7, ps=3, mode=fixed)
    """
    if name not in get_args(EncodingName):
        raise ValueError(f"encoding: expected one of {', '.join(get_args(EncodingName))}, got {name!r}")
    if name == "so3":
        return RotationEncoding(head_dim)
    return SphereEncoding(head_dim, name.removeprefix("s2rope-"))


def as_rotations(views: Float[Tensor, "b s *view"]) -> Float[Tensor, "b s 3 3"]:
    """Views as rotations; of a direction alone the camera's turn around it is any.

    Args:
        views: ``(b, s, 3, 3)`` rotations ``cam_from_obj``, or ``(b, s, 3)`` unit view directions.

    Returns:
        ``(b, s, 3, 3)``.

    Example:
        >>> view_direction(as_rotations(torch.tensor([[[0.0, -1.0, 0.0]]])))
        tensor([[[-0., -1., -0.]]])
    """
    return views if views.ndim == 4 else look_at(views)[..., :3, :3]


def reference_view(
    reference: Float[Tensor, "b *view"],
    rotations: Float[Tensor, "b s 3 3"],
    valid: Bool[Tensor, "b s"] | None = None,
) -> Float[Tensor, "b 3 3"]:
    """The reference as a whole rotation: what its direction leaves open is taken from the nearest template.

    So it turns with the object and depends neither on the order of the templates nor on padded ones.

    Args:
        reference: ``(b, 3)`` unit directions, or ``(b, 3, 3)`` rotations, which are returned.
        rotations: ``(b, s, 3, 3)`` views of the templates.
        valid: ``(b, s)`` which templates are real; all unless given.

    Returns:
        ``(b, 3, 3)`` rotations ``cam_from_obj``.

    Example:
        >>> R = torch.eye(3)[None, None]
        >>> reference_view(torch.tensor([[0.0, 0.0, -1.0]]), R)[0].abs()
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 1.]])
    """
    if reference.ndim == 3:
        return reference
    reference = reference.to(rotations.dtype)
    cosines = (view_direction(rotations) * reference[:, None]).sum(-1)
    if valid is not None:
        cosines = cosines.masked_fill(~valid, -2.0)
    nearest = rotations.take_along_dim(cosines.argmax(-1)[:, None, None, None], dim=1)[:, 0]
    return look_at(reference, up=-nearest[..., 1, :])[..., :3, :3]
