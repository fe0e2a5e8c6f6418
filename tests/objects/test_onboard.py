import pytest
import torch

from sightline.geometry.poses import transform
from sightline.geometry.symmetry import SymmetryGroup
from sightline.objects.onboard import onboard_mesh, render_templates
from sightline.records import TriangleMesh
from tests.printed_box import printed_box


@pytest.mark.parametrize("num_views", [42, 162])
def test_every_view_is_framed(num_views: int):
    templates = render_templates(printed_box(), num_views=num_views, template_size=96)
    assert len(templates) == num_views
    for view in templates:
        rows, columns = view.mask.any(1).nonzero()[:, 0], view.mask.any(0).nonzero()[:, 0]
        extent = max(int(rows[-1] - rows[0]), int(columns[-1] - columns[0])) + 1
        assert 0.83 < extent / 96 < 0.91
        # centred in both directions, so that nothing is cut off
        assert abs(int(rows[0]) + int(rows[-1]) - 95) <= 2
        assert abs(int(columns[0]) + int(columns[-1]) - 95) <= 2


def test_template_depth_lies_on_the_mesh():
    box = printed_box()
    view = render_templates(box, num_views=42, template_size=64)[7]
    rows, columns = view.mask.nonzero().unbind(1)
    pixels = torch.stack([columns, rows], dim=1).double()
    points = view.camera.unproject(pixels, view.depth[rows, columns].double())
    points = transform(torch.linalg.inv(view.cam_from_obj), points)
    # on a box, the largest coordinate relative to its half extent is 1
    ratio = (points.abs() / box.bounds[1]).amax(1)
    assert float((ratio - 1).abs().max()) < 1e-5


def test_origin_of_the_mesh_does_not_matter():
    box = printed_box()
    shift = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    moved = TriangleMesh(box.vertices + shift, box.faces, uv=box.uv, texture=box.texture)
    for a, b in zip(
        render_templates(box, num_views=42, template_size=48),
        render_templates(moved, num_views=42, template_size=48),
        strict=True,
    ):
        assert float((a.depth - b.depth).abs().max()) < 1e-4


def test_flat_mesh_without_extent_is_refused():
    point = TriangleMesh(torch.zeros(3, 3, dtype=torch.float64), torch.tensor([[0, 1, 2]]))
    with pytest.raises(ValueError, match="diameter of 0"):
        onboard_mesh(point, name="dot", symmetries=SymmetryGroup.none())


def test_bad_name_is_refused():
    with pytest.raises(ValueError, match="card name"):
        onboard_mesh(
            printed_box(), name="a/b", num_views=42, template_size=32, symmetries=SymmetryGroup.none()
        )
