"""Rotary encodings of attention: where a token lies enters as a rotation, so that scores are relative.

``planar`` is RoPE2D, for places on a grid; ``sphere`` is S2RoPE, for places and view directions; ``so3``
turns channel triplets by whole rotations. All leave tokens alone where ``rope_mask`` is False.
"""

from sightline.nn.rope.planar import RoPE2D, angle_dtype, planar_phases, rope_2d, rope_encode, rotate_halves
from sightline.nn.rope.so3 import so3_channels, so3_rope
from sightline.nn.rope.sphere import S2RoPE, sphere_split

__all__ = [
    "RoPE2D",
    "S2RoPE",
    "angle_dtype",
    "planar_phases",
    "rope_2d",
    "rope_encode",
    "rotate_halves",
    "so3_channels",
    "so3_rope",
    "sphere_split",
]
