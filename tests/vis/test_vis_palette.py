from __future__ import annotations

import numpy as np
import pytest

from sightline.vis.palette import PALETTE, is_light, object_colors, palette_color, ramp_colors

# Viénot, Brettel and Mollon 1999: linear RGB as people without L cones, and without M cones, see it.
PROTANOPE = np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]])
DEUTERANOPE = np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]])


@pytest.mark.parametrize("sight", [np.eye(3), PROTANOPE, DEUTERANOPE])
def test_no_two_colours_look_alike_to_any_colour_vision(sight):
    linear = (np.array(list(PALETTE.values())) / 255) ** 2.2 @ sight.T
    seen = 255 * np.clip(linear, 0, 1) ** (1 / 2.2)
    gaps = np.linalg.norm(seen[:, None] - seen[None], axis=-1) + 1e9 * np.eye(len(seen))
    assert gaps.min() > 25


def test_colours_by_name_and_index():
    assert palette_color("blue") == (0, 114, 178)
    assert [palette_color(i) for i in range(7)] == list(PALETTE.values())
    assert palette_color(8) == palette_color(1)
    with pytest.raises(ValueError, match=r"expected one of orange.*'pink'"):
        palette_color("pink")


def test_objects_keep_their_colours_when_the_order_changes():
    colors = object_colors(["tea", "mug", "tea", "can"])
    assert colors == object_colors(["can", "tea", "mug"])
    assert len(set(colors.values())) == 3


def test_ramp_goes_from_blue_to_red_and_is_grey_for_nan():
    ramp = ramp_colors(np.array([[-1.0, 0.0, 1.5], [3.0, 99.0, np.nan]]), 0.0, 3.0)
    assert ramp.shape == (2, 3, 3)
    assert ramp[0, 0].tolist() == ramp[0, 1].tolist() == list(PALETTE["sky blue"])
    assert ramp[0, 2].tolist() == list(PALETTE["yellow"])
    assert ramp[1, 0].tolist() == ramp[1, 1].tolist() == list(PALETTE["vermillion"])
    assert ramp[1, 2].tolist() == [128, 128, 128]
    with pytest.raises(ValueError, match="low < high"):
        ramp_colors(np.zeros(2), 1.0, 1.0)


def test_letters_have_contrast_on_every_colour():
    def luminance(color):
        c = np.array(color) / 255
        return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    for color in PALETTE.values():
        letters = 0.0 if is_light(color) else 1.0
        low, high = sorted([luminance(color), letters])
        assert (high + 0.05) / (low + 0.05) > 4.5  # WCAG level AA
