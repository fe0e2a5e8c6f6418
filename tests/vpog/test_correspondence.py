from __future__ import annotations

import math

import pytest
import torch

from sightline.geometry import pixel_affine
from sightline.geometry.cameras import Camera, project
from sightline.geometry.flow import offsets_in_patch, patch_centers
from sightline.geometry.pnp import solve_pnp
from sightline.geometry.poses import transform
from sightline.geometry.rotations import exp, geodesic_distance
from sightline.rendering import render_views
from sightline.vpog.correspondence import CorrespondenceBuilder, TemplateSurfaces
from sightline.vpog.flow_computer import FlowComputer, View
from tests.rendering.meshes import bumpy
from tests.tolerances import tolerance
from tests.vpog.ray_cast_views import DIAMETER, OBJECT, camera, pose, single, stack, view

PATCH, SIZE, GRID = 8, 128, (16, 16)
K = camera(380.0, SIZE)
IMAGE_K = Camera(torch.tensor([[500.0, 0, 330.0], [0, 505.0, 236.0], [0, 0, 1]]), 640, 480)


def turn(*vector: float):
    return exp(torch.tensor(vector, dtype=torch.float64))


def surfaces_of(templates: View, diameter: float = DIAMETER) -> TemplateSurfaces:
    depth = torch.where(templates.mask, templates.depth, 0.0)
    jump = torch.full((len(depth),), 0.02 * diameter, dtype=torch.float64)
    return TemplateSurfaces(depth, templates.K, templates.cam_from_obj, jump)


def perfect(query: View, templates: View, diameter: float = DIAMETER, level="pixel"):
    """Labels as a network would predict that makes no mistake: flow, and confidence 1 where it is known."""
    labels = FlowComputer(PATCH)(*query, *templates, torch.tensor([diameter], dtype=torch.float64))
    builder = CorrespondenceBuilder(PATCH, level)
    matches = builder.matches_of_labels(labels.labels, GRID)
    where = (matches.batch, matches.template, matches.query_patch)
    flow, sure = labels.flow[where], labels.visible[where].double()
    return builder.build(matches, surfaces_of(templates, diameter), GRID, flow, sure), labels


def errors(found, truth) -> tuple[float, float]:
    """Rotation in degrees and depth as a share."""
    assert found.valid, found.reason
    angle = geodesic_distance(found.R[None], truth[None, :3, :3])[0]
    return math.degrees(float(angle)), abs(float(found.t[2] / truth[2, 3]) - 1)


TEMPLATES = [pose(turn(0.1, 0.2, 0.0)), pose(turn(0.3, 0.1, 0.2)), pose(turn(-0.2, 0.4, 0.0))]


@pytest.mark.parametrize("level", ["pixel", "patch"])
def test_true_flow_of_exact_depth_gives_the_pose(level):
    truth = pose(turn(0.15, 0.3, 0.5), 0.58, (0.01, -0.005))  # turned in the plane by half a radian
    query, templates = view(OBJECT, K, truth, SIZE), [view(OBJECT, K, each, SIZE) for each in TEMPLATES]
    found, _ = perfect(single(query), stack(templates), level=level)
    record = found.records()[0]
    assert len(record) > (10_000 if level == "pixel" else 150)
    px = project(transform(truth, record.points_3d), K)
    assert float((px - record.points_2d).norm(dim=-1).quantile(0.95)) < 0.5
    solved = solve_pnp(record.points_2d, record.points_3d, Camera(K, SIZE, SIZE))
    degrees, share = errors(solved, truth)
    bound = 1 if level == "pixel" else 5  # a patch's centroid lies beside a surface that is bent
    assert degrees < 0.1 * bound and share < 0.001 * bound


def test_a_crop_that_shrinks_moves_and_turns_is_undone_exactly_and_negatives_say_nothing():
    """The picture is 640 x 480 with another camera; the crop turns it by 0.7 rad and shrinks it."""
    truth = pose(turn(0.15, 0.3, 0.2), 0.55, (0.06, -0.04))
    center = IMAGE_K.project(truth[None, :3, 3])[0]
    box = torch.cat([center - 95, center + 95])
    crop_from_image = pixel_affine.compose(
        pixel_affine.square_crop(box, SIZE), pixel_affine.rotate(0.7, (float(center[0]), float(center[1])))
    )
    crop = view(OBJECT, IMAGE_K.K, truth, SIZE, crop_from_image)
    # A turned crop is a pinhole's picture with a general upper left of K, which the labels take as it is.
    crop_K = torch.cat([crop_from_image, torch.tensor([[0.0, 0, 1]]).double()]) @ IMAGE_K.K
    query = single(crop._replace(K=crop_K))
    behind = view(OBJECT, K, pose(turn(0.15, 0.3, 0.2) @ turn(0.0, math.pi, 0.0)), SIZE)
    templates = stack([*(view(OBJECT, K, each, SIZE) for each in TEMPLATES), behind])
    found, labels = perfect(query, templates)
    matched = (labels.labels >= 0) & (labels.labels < GRID[0] * GRID[1])
    assert matched[0, :3].sum(-1).min() > 50
    assert labels.visible[0, 3].sum() < 0.03 * labels.visible[0, 0].sum()  # the rim alone
    record = found.records(crop_from_image[None], torch.tensor([[7, 8, 9, 161]]))[0]
    assert set(record.template.unique().tolist()) <= {7, 8, 9, 161}
    back = pixel_affine.apply(crop_from_image, record.points_2d)
    torch.testing.assert_close(back, found.crop_px, **tolerance(torch.float64, "iterative"))
    degrees, share = errors(solve_pnp(record.points_2d, record.points_3d, IMAGE_K), truth)
    assert degrees < 0.1 and share < 0.001


def test_true_flow_of_rendered_16_bit_depth_gives_the_pose():
    mesh = bumpy(2000, radius=0.05)
    truth = pose(turn(0.15, 0.3, 0.4), 0.5)
    poses = torch.stack([truth, pose(turn(0.2, 0.1, 0.0), 0.5), pose(turn(-0.1, 0.5, 0.2), 0.45)])
    drawn = render_views(mesh, poses, K, (SIZE, SIZE), outputs=("depth", "mask"))
    depth = (drawn.depth * 10_000).round().to(torch.int32).float() / 10_000  # a tenth of a millimetre
    views = [View(depth[i].double(), drawn.mask[i], K, poses[i]) for i in range(3)]
    found, _ = perfect(single(views[0]), stack(views[1:]), mesh.diameter)
    record = found.records()[0]
    degrees, share = errors(solve_pnp(record.points_2d, record.points_3d, Camera(K, SIZE, SIZE)), truth)
    assert degrees < 0.5 and share < 0.001


def test_nothing_is_interpolated_across_a_silhouette_or_a_jump():
    """Every point lies on one of two walls, or there is none."""
    depth = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    depth[..., 4:12, 3:8], depth[..., 4:12, 8:13] = 0.5, 0.7
    flat = camera(100.0, 16)
    surfaces = TemplateSurfaces(
        depth, flat[None, None], torch.eye(4).double()[None, None], torch.tensor([0.02])
    )
    builder = CorrespondenceBuilder(8)
    matches = builder.matches_of_labels(torch.tensor([[[0, 1, 2, 3]]]), (2, 2))
    flow = offsets_in_patch(8, dtype=torch.float64).expand(4, -1, -1, -1) + 0.4 / 8
    found = builder.build(matches, surfaces, (2, 2), flow)
    z = found.points_3d[:, 2]
    assert ((z - 0.5).abs() < 1e-9).logical_xor((z - 0.7).abs() < 1e-9).all()
    assert len(z) == 10 * 8  # those whose nearest pixel shows the object
    torch.testing.assert_close(project(found.points_3d, flat), found.template_px, **tolerance(torch.float64))
    torch.testing.assert_close(found.template_px, found.crop_px + 0.4, **tolerance(torch.float64))


def test_batches_are_ragged_or_padded_and_top_k_is_a_picture():
    generator = torch.Generator().manual_seed(0)
    logits = 8 * torch.rand(3, 2, 4, 5, generator=generator)
    logits[1] = 0.0
    logits[1, ..., 4] = 9.0  # the second picture: all unseen
    builder = CorrespondenceBuilder(8, "patch", conf_threshold=0.0)
    identity = torch.eye(4).expand(3, 2, 4, 4)
    surfaces = TemplateSurfaces(
        torch.ones(3, 2, 16, 16), torch.eye(3).expand(3, 2, 3, 3), identity, torch.ones(3)
    )
    matches = builder.match(logits, (2, 2))
    chance = logits.softmax(-1)
    for b, s, q, t, p in zip(*matches[:5], strict=True):
        assert chance[b, s, q].argmax() == t and torch.isclose(chance[b, s, q, t], p)
    found = builder.build(matches, surfaces, (2, 2))
    records, block = found.records(), found.padded()
    assert [len(record) for record in records] == block.valid.sum(1).tolist() and len(records[1]) == 0
    assert block.points_2d.shape[1] == max(len(record) for record in records)
    assert (block.weights[~block.valid] == 0).all() and (block.weights[:, :-1] >= block.weights[:, 1:]).all()
    torch.testing.assert_close(block.weights.sum(1), torch.tensor([float(r.weights.sum()) for r in records]))
    few = CorrespondenceBuilder(8, conf_threshold=0.0, top_k=2).match(logits, (2, 2))
    assert few.batch.bincount(minlength=3).tolist() == [2, 0, 2]
    for b in (0, 2):
        kept = matches.probability[matches.batch == b].topk(2).values.sort().values
        assert torch.equal(few.probability[few.batch == b].sort().values, kept)
        assert torch.equal(found.padded(2).weights[b], block.weights[b, :2])
    nothing = builder.build(
        builder.match(logits[1:2], (2, 2)), TemplateSurfaces(*(e[1:2] for e in surfaces)), (2, 2)
    )
    assert len(nothing.records()[0]) == 0 and nothing.padded().points_2d.shape == (1, 0, 2)


def test_what_is_unseen_masked_padded_or_unlikely_is_left_out():
    logits = torch.zeros(1, 2, 4, 5)
    logits[..., torch.arange(4), torch.arange(4)] = 9.0
    logits[0, 0, 0, 0] = 0.5  # unlikely
    logits[0, 0, 1, 4] = 10.0  # unseen
    builder = CorrespondenceBuilder(8)
    valid = torch.tensor([[True, True, True, False]])
    found = builder.match(logits, (2, 2), query_valid=valid, template_valid=torch.tensor([[True, False]]))
    assert found.query_patch.tolist() == [2] and found.template.tolist() == [0]


def test_soft_matching_adds_up_the_neighbours():
    """A query patch in the middle of four template patches gives a quarter to each."""
    logits = torch.full((1, 1, 1, 17), -20.0)
    logits[..., [5, 6, 9, 10]] = 0.0
    logits[..., 15] = -1.0  # touches 10 alone
    hard, soft = CorrespondenceBuilder(8), CorrespondenceBuilder(8, use_soft_matching=True)
    assert len(hard.match(logits, (4, 4)).batch) == 0
    found = soft.match(logits, (4, 4))
    assert found.template_patch.tolist() == [5]
    assert float(found.probability) == pytest.approx(4 / (4 + math.exp(-1)), rel=1e-4)
    torch.testing.assert_close(found.template_px, patch_centers((4, 4), 8)[[5, 10]].mean(0, keepdim=True))


def test_weights_are_probability_times_confidence_and_the_unsure_are_left_out():
    logits = torch.zeros(1, 1, 4, 5)
    logits[0, 0, 2, 1] = 3.0
    builder = CorrespondenceBuilder(8)
    matches = builder.match(logits, (2, 2))
    identity = torch.eye(4).expand(1, 1, 4, 4)
    surfaces = TemplateSurfaces(torch.ones(1, 1, 16, 16), torch.eye(3)[None, None], identity, torch.ones(1))
    confidence = torch.full((1, 8, 8), 0.8)
    confidence[0, :4] = 0.3
    flow = offsets_in_patch(8)[None] * 0.5
    found = builder.build(matches, surfaces, (2, 2), flow, confidence)
    chance = math.exp(3) / (math.exp(3) + 4)
    assert len(found.weights) == 32
    torch.testing.assert_close(found.weights, torch.full((32,), 0.8 * chance))
    assert found.crop_px[0].tolist() == [0.0, 12.0] and found.crop_px[1].tolist() == [1.0, 12.0]
    patch = CorrespondenceBuilder(8, "patch", flow_threshold=0.0)
    one = patch.build(matches, surfaces, (2, 2), flow, (confidence > 0.5).float())
    torch.testing.assert_close(one.crop_px, torch.tensor([[3.5, 13.5]]))  # the middle of the lower half
    torch.testing.assert_close(one.template_px, torch.tensor([[11.5, 3.5 + 1.0]]))
    torch.testing.assert_close(one.weights, torch.tensor([chance]))


def test_points_are_differentiable_in_the_flow():
    template = single(view(OBJECT, K, TEMPLATES[0], SIZE))
    surfaces = surfaces_of(View(*(each[:, None] for each in template)))
    builder = CorrespondenceBuilder(PATCH)
    middle = 8 * 16 + 8
    labels = torch.full((1, 1, 256), -1)
    labels[0, 0, middle] = middle
    matches = builder.matches_of_labels(labels, GRID)
    flow = (offsets_in_patch(4, dtype=torch.float64)[None] * 0.7 + 0.013).requires_grad_()
    assert torch.autograd.gradcheck(lambda f: builder.build(matches, surfaces, GRID, f).points_3d, flow)


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="conf_threshold"):
        CorrespondenceBuilder(conf_threshold=1.5)
    with pytest.raises(ValueError, match="top_k"):
        CorrespondenceBuilder(top_k=0)
    with pytest.raises(ValueError, match="expected at least 4 classes, got 3"):
        CorrespondenceBuilder().match(torch.zeros(1, 1, 4, 3), (2, 2))
