from __future__ import annotations

import numpy as np
import pytest

from sightline.synthetic.bodies import BODIES
from sightline.synthetic.labels import make_palette
from sightline.synthetic.shapes import Panel, box, lathe
from sightline.synthetic.textures import (
    bands,
    brushed,
    large_shapes,
    paint_atlas,
    panel_points,
    patches,
    plain,
    tones,
)


def sample(texture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    height, width = texture.shape[:2]
    x = np.clip(np.floor(uv[..., 0] * width), 0, width - 1).astype(int)
    y = np.clip(np.floor(uv[..., 1] * height), 0, height - 1).astype(int)
    return texture[y, x]


@pytest.mark.parametrize("kind", BODIES)
def test_every_face_finds_the_picture_of_its_own_panel(kind: str):
    surface = BODIES[kind](np.random.default_rng(0)).surface
    colors = [(7 * k % 251, 13 * k % 241, k) for k in range(len(surface.panels))]
    uv, texture = paint_atlas(surface, [plain(color) for color in colors], texels=120)
    assert uv.shape == (len(surface.faces), 3, 2)
    wanted = np.array(colors)[surface.panel_of_face]
    assert (sample(texture, uv.mean(1)) == wanted).all()
    corner = 0.98 * uv + 0.02 * uv.mean(1, keepdims=True)
    assert (sample(texture, corner) == wanted[:, None]).all()


def test_texels_lie_where_the_panel_was_painted():
    surface = box((0.1, 0.1, 0.2), cells=1)

    def ramp(image: np.ndarray, panel: Panel) -> None:
        height, width = image.shape[:2]
        image[..., 0] = np.round(255 * (np.arange(width) + 0.5) / width)
        image[..., 1] = np.round(255 * (np.arange(height) + 0.5) / height)[:, None]

    uv, texture = paint_atlas(surface, [ramp] * 6, texels=200)
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(3), len(surface.faces))[..., None]
    seen = sample(texture, (uv * weights).sum(1))[:, :2] / 255.0
    assert np.abs(seen - (surface.uv * weights).sum(1)).max() < 0.02


def test_gutters_go_round_where_the_panel_does():
    surface = lathe([("low", [(0, 0), (1, 0)]), ("side", [(1, 0), (1, 2)]), ("top", [(1, 2), (0, 2)])])
    rng = np.random.default_rng(0)

    def stripes(image: np.ndarray, panel: Panel) -> None:
        image[:] = rng.integers(0, 255, (1, image.shape[1], 1))

    uv, texture = paint_atlas(surface, [stripes] * 3, texels=200)
    side = uv[surface.panel_of_face == 1]
    left, right = (
        np.round(side[..., 0].reshape(-1)[[k]] * texture.shape[1]).astype(int)[0]
        for k in (side[..., 0].argmin(), side[..., 0].argmax())
    )
    row = int(side[..., 1].mean() * texture.shape[0])
    assert (texture[row, left - 8 : left] == texture[row, right - 8 : right]).all()
    assert (texture[row, right : right + 8] == texture[row, left : left + 8]).all()


def test_patterns_in_space_run_over_panel_borders():
    surface = box((0.1, 0.1, 0.1), cells=6, bulge=lambda p: p / np.linalg.norm(p, axis=1, keepdims=True))
    rng = np.random.default_rng(3)
    painter = patches(make_palette(rng), surface.vertices, rng)
    edges = {}
    for panel in surface.panels[:2]:  # the front's right column is the right side's left column
        image = np.zeros((200, 200, 3), np.uint8)
        painter(image, panel)
        edges[panel.name] = image
    apart = np.abs(edges["front"][:, -1].astype(int) - edges["right"][:, 0].astype(int)).mean()
    unrelated = np.abs(edges["front"][:, -1].astype(int) - edges["right"][:, 100].astype(int)).mean()
    assert apart < 0.35 * unrelated


def test_panel_points_are_those_under_the_texels():
    panel = box((0.2, 0.1, 0.4), cells=4).panels[0]
    points = panel_points(np.zeros((40, 20, 3), np.uint8), panel)
    assert points[0, 0] == pytest.approx([-0.1 + 0.005, -0.05, 0.2 - 0.005], abs=1e-6)
    assert points[-1, -1] == pytest.approx([0.1 - 0.005, -0.05, -0.2 + 0.005], abs=1e-6)


def test_low_painters_use_few_colours():
    rng = np.random.default_rng(1)
    panel = box((0.1, 0.1, 0.1)).panels[0]
    colors = ((200, 10, 10), (10, 200, 10), (10, 10, 200))
    for painter in (plain(colors[0]), bands(colors, rng), large_shapes(colors, rng), tones(colors, 0.1, rng)):
        image = np.zeros((100, 100, 3), np.uint8)
        painter(image, panel)
        distance = np.abs(image[..., None, :].astype(int) - np.array(colors)).sum(-1).min(-1)
        assert (distance < 6).mean() > 0.9


def test_brushed_metal_is_grey_with_streaks():
    image = np.zeros((60, 60, 3), np.uint8)
    brushed((170, 170, 170), np.random.default_rng(0))(image, box((1, 1, 1)).panels[0])
    assert abs(image.mean() - 170) < 8
    assert image.mean(1).std() > 2 * image.mean(0).std()
