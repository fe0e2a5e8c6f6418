from __future__ import annotations

import math

import pytest
import torch

from sightline.rendering import Lights, RenderResult, render_scene, render_views
from sightline.rendering.texture import fill_unused, mip_chain
from tests.rendering.meshes import camera_matrix, cube, random_poses

SIZE = (32, 24)


def _draw(**changes):
    request = {
        "mesh": cube(0.1),
        "cam_from_obj": random_poses(2, 0.4),
        "K": camera_matrix(50, *SIZE),
        "image_size": SIZE,
    }
    return render_views(**(request | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"outputs": ("depht",)}, "outputs: expected some of"),
        ({"outputs": "depth"}, "outputs: expected some of"),
        ({"outputs": ()}, "outputs: expected some of"),
        ({"samples": 5}, "samples: expected 1 to 4"),
        ({"near": 0.0}, "near: expected a distance above 0"),
        ({"image_size": (0, 24)}, "image_size: expected"),
        ({"cam_from_obj": torch.eye(4)}, r"cam_from_obj: expected shape \(n, 4, 4\), got \(4, 4\)"),
        ({"cam_from_obj": torch.full((1, 4, 4), math.nan)}, "cam_from_obj: expected finite"),
        ({"cam_from_obj": random_poses(2, 0.4).mT}, "transposed"),
        ({"K": camera_matrix(50, *SIZE).mT.contiguous()}, "transposed"),
        ({"K": torch.eye(4)}, r"K: expected shape \(3, 3\) or \(2, 3, 3\), got \(4, 4\)"),
        ({"K": torch.diag(torch.tensor([-5.0, 5.0, 1.0]))}, "focal"),
        ({"background": (0, 0, 300)}, "background: expected RGB"),
        ({"background": torch.zeros(24, 30, 3, dtype=torch.uint8)}, "background: expected a uint8 picture"),
        ({"background": torch.zeros(24, 32, 3)}, "background: expected a uint8 picture"),
    ],
)
def test_a_request_that_cannot_be_drawn_says_why(changes, words):
    with pytest.raises(ValueError, match=words):
        _draw(**changes)


def test_a_scene_needs_a_pose_for_each_mesh():
    K = camera_matrix(50, *SIZE)
    with pytest.raises(ValueError, match="one pose a mesh"):
        render_scene([cube(0.1)], random_poses(2, 0.4), K, SIZE)
    with pytest.raises(ValueError, match="one pose a mesh"):
        render_scene([], torch.zeros(0, 4, 4), K, SIZE)


def test_what_was_not_asked_for_is_not_there_and_says_so():
    result = _draw(outputs=("depth",))
    assert set(result.layers) == {"depth"}
    with pytest.raises(ValueError, match=r"color: not rendered.*add 'color' to outputs"):
        result.color  # noqa: B018


def test_pictures_have_the_types_that_the_room_promises():
    result = _draw(outputs=("color", "depth", "mask", "xyz", "normals", "instance"))
    assert isinstance(result, RenderResult) and len(result) == 2
    types = {name: (layer.dtype, tuple(layer.shape)) for name, layer in result.layers.items()}
    assert types == {
        "color": (torch.uint8, (2, 24, 32, 3)),
        "depth": (torch.float32, (2, 24, 32)),
        "mask": (torch.bool, (2, 24, 32)),
        "xyz": (torch.float32, (2, 24, 32, 3)),
        "normals": (torch.float32, (2, 24, 32, 3)),
        "instance": (torch.int32, (2, 24, 32)),
    }


def test_float32_poses_and_integer_backgrounds_are_welcome():
    assert torch.equal(
        _draw(cam_from_obj=random_poses(2, 0.4).float().double()).mask,
        _draw(cam_from_obj=random_poses(2, 0.4).float(), background=torch.tensor([0, 0, 0])).mask,
    )


def test_lights_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"positions: expected shape \(l, 4\)"):
        Lights(positions=torch.zeros(1, 3), colors=torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"colors: expected shape \(1, 3\)"):
        Lights(positions=torch.zeros(1, 4), colors=torch.zeros(2, 3))
    with pytest.raises(ValueError, match="at least 0"):
        Lights(ambient=(-0.1, 0.0, 0.0))
    with pytest.raises(ValueError, match="finite"):
        Lights(positions=torch.full((1, 4), math.nan), colors=torch.zeros(1, 3))


def test_a_mip_chain_halves_down_to_one_texel_and_keeps_the_mean():
    texture = torch.randint(0, 256, (48, 64, 3), dtype=torch.uint8).numpy()
    levels, texels = mip_chain(texture)
    assert levels[:, 1:].tolist() == [[48, 64], [24, 32], [12, 16], [6, 8], [3, 4], [1, 2], [1, 1]]
    for start, height, width in levels[:5]:
        level = texels[start : start + 3 * height * width].reshape(height, width, 3)
        assert abs(level.mean((0, 1)) - texture.mean((0, 1))).max() < 1
    assert len(texels) == 3 * (levels[:, 1] * levels[:, 2]).sum()


def test_unused_texels_are_filled_and_used_ones_kept():
    texture = torch.randint(1, 256, (40, 40, 3), dtype=torch.uint8).numpy()
    texture[:, 20:] = 0
    left = torch.tensor([[[0.0, 0], [0, 1], [0.5, 1]], [[0, 0], [0.5, 1], [0.5, 0]]]).numpy()
    filled = fill_unused(texture, left)
    assert (filled[:, :20] == texture[:, :20]).all()
    assert (filled[:, 20:] == filled[:, 19:20]).all()
    everything = torch.tensor([[[0.0, 0], [0, 1], [1, 1]], [[0, 0], [1, 1], [1, 0]]]).numpy()
    assert fill_unused(texture, everything) is texture
    assert fill_unused(texture, left * 3) is texture
