"""Rotary encodings of attention: where a token lies enters as a rotation, so that scores are relative.

``planar`` is RoPE2D, for places on a grid.
"""

from sightline.nn.rope.planar import RoPE2D, planar_phases, rope_2d, rope_encode, rotate_halves

__all__ = ["RoPE2D", "planar_phases", "rope_2d", "rope_encode", "rotate_halves"]
