from __future__ import annotations

import pytest
import torch

from benchmarks.seed_form_vpog_flow import flow_of_pair
from sightline.geometry.flow import join_patches, offsets_in_patch, patch_centers
from sightline.geometry.rotations import exp
from sightline.vpog.flow_computer import FlowComputer, FlowLabels, View
from tests.tolerances import tolerance
from tests.vpog.ray_cast_views import DIAMETER, OBJECT, Solids, camera, pose, single, stack, view

PATCH, SIZE, GRID = 8, 64, 8
UNSEEN = GRID * GRID
EXACT = tolerance(torch.float64, "pixel")
FULL = Solids(boxes=(((-1.0, -1.0, 0.0), (1.0, 1.0, 1.0)),))  # a wall that fills the picture


def turn(*vector: float):
    return exp(torch.tensor(vector, dtype=torch.float64))


def label(query: View, *templates: View, diameter: float = DIAMETER, **options) -> FlowLabels:
    computer = FlowComputer(PATCH, **options)
    return computer(*single(query), *stack(list(templates)), torch.tensor([diameter], dtype=torch.float64))


@pytest.fixture(scope="module")
def views() -> list[View]:
    """The object from five sides: as the query, near, turned in the plane, aside and from behind."""
    K = camera(190.0, SIZE)
    sides = [(0.2, 0.3, 0.0), (0.35, 0.2, 0.1), (0.2, 0.3, 1.2), (0.2, 1.1, 0.0), (0.2, 3.4, 0.0)]
    return [view(OBJECT, K, pose(turn(*side)), SIZE) for side in sides]


def test_identical_views_show_the_pattern_of_a_patch(views):
    found = label(views[0], views[0])
    labels, on_object = found.labels[0, 0], found.visible[0, 0] | found.unseen_mask[0, 0]
    enough = on_object.sum((-2, -1)) >= 4
    assert enough.sum() > 20 and (~enough).sum() > 10
    assert torch.equal(labels, torch.where(enough, torch.arange(UNSEEN), -1))
    assert torch.equal(found.visible[0, 0], on_object & enough[:, None, None])
    pattern = offsets_in_patch(PATCH, dtype=torch.float64).expand(UNSEEN, -1, -1, -1)
    shown = found.visible[0, 0]
    torch.testing.assert_close(found.flow[0, 0][shown], pattern[shown], **EXACT)
    assert float(pattern[0, 0, 0, 0]) == -(PATCH - 1) / 2 / PATCH
    assert not found.flow[0, 0][~shown].any()


def test_a_shift_by_one_patch_names_the_neighbour_and_keeps_the_offsets():
    K, front = camera(100.0, SIZE), pose(torch.eye(3))
    moved = K.clone()
    moved[0, 2] += PATCH  # the template's picture lies one patch to the right
    query, template = view(FULL, K, front, SIZE), view(FULL, moved, front, SIZE)
    found = label(query, template)
    columns = torch.arange(UNSEEN) % GRID
    expected = torch.where(columns < GRID - 1, torch.arange(UNSEEN) + 1, UNSEEN)
    assert torch.equal(found.labels[0, 0], expected)  # the last column leaves the picture
    same = found.flow[0, 0][columns < GRID - 1]
    torch.testing.assert_close(same, offsets_in_patch(PATCH, dtype=torch.float64).expand_as(same), **EXACT)
    assert found.unseen_mask[0, 0][columns == GRID - 1].all()


def test_x_and_y_are_in_this_order():
    K, front = camera(100.0, SIZE), pose(torch.eye(3))
    wide = K.clone()
    wide[0, 0], wide[0, 2], wide[1, 2] = 150.0, K[0, 2] + 3, K[1, 2] - 1  # only x grows, both shift
    found = label(view(FULL, K, front, SIZE), view(FULL, wide, front, SIZE))
    middle = GRID // 2 * GRID + GRID // 2
    patch = int(found.labels[0, 0, middle])
    there = found.flow[0, 0, middle] * PATCH + patch_centers((GRID, GRID), PATCH)[patch].double()
    here = PATCH * offsets_in_patch(PATCH, dtype=torch.float64) + patch_centers((GRID, GRID), PATCH)[middle]
    expected = torch.stack([1.5 * (here[..., 0] - 31.5) + 34.5, here[..., 1] - 1], -1)
    torch.testing.assert_close(there, expected, **EXACT)


def test_vectorised_is_the_plain_loop(views):
    """Every pair of patches one by one, as the first form does it."""
    computer = FlowComputer(PATCH)
    query, templates = single(views[0]), stack([*views[1:3], views[4]])
    targets = computer.targets(query, templates, torch.tensor([DIAMETER], dtype=torch.float64))
    every = computer.all_pairs(targets)
    labels = computer.label(targets)
    on_object = targets.on_object[0, 0]
    some = [int(q) for q in on_object.any(-1).any(-1).nonzero()[::5, 0]]
    counts = torch.zeros(3, 2, dtype=torch.long)
    for s, template in enumerate([*views[1:3], views[4]]):
        for q in some:
            for t in range(UNSEEN):
                flow, seen = flow_of_pair(views[0], template, q, t, PATCH, 0.02 * DIAMETER)
                assert torch.equal(~every.unseen_mask[0, s, q, t], seen)
                assert torch.allclose(every.flow[0, s, q, t], flow, **EXACT)
                if labels.labels[0, s, q] == t:
                    assert torch.equal(labels.visible[0, s, q], seen)
                    assert torch.allclose(labels.flow[0, s, q], flow, **EXACT)
                    counts[s, 0] += 1
            counts[s, 1] += int(labels.labels[0, s, q] == UNSEEN)
    assert counts[:2, 0].min() > 3 and counts[2, 1] > 0  # matched from near, unseen from behind


def test_confidence_of_all_pairs_is_one_inside_the_patch_and_falls_outside(views):
    computer = FlowComputer(PATCH)
    targets = computer.targets(single(views[0]), stack(views[1:2]), torch.tensor([DIAMETER]))
    every = computer.all_pairs(targets)
    inside = ~every.unseen_mask & (every.flow.abs().amax(-1) <= 0.5)
    assert inside.any() and (every.confidence[inside] == 1).all()
    outside = ~every.unseen_mask & ~inside
    assert (every.confidence[outside] < 1).all() and (every.confidence[outside] > 0.1).all()
    assert not every.confidence[every.unseen_mask].any()


def test_labels_and_pixels_are_partitioned(views):
    found = label(views[0], *views)
    on_object = (views[0].mask)[None].expand(5, -1, -1)
    shown = join_patches(found.visible[0], GRID)
    unseen = join_patches(found.unseen_mask[0], GRID)
    assert not (shown & unseen).any() and torch.equal(shown | unseen, on_object)
    background, missing = found.labels == -1, found.labels == UNSEEN
    matched = (found.labels >= 0) & (found.labels < UNSEEN)
    assert (background.int() + missing.int() + matched.int() == 1).all()
    assert (found.visible.sum((-2, -1))[matched] >= 4).all()
    assert not found.visible[background | missing].any()
    assert torch.equal(background[0, 0], background[0, 4])  # what is background depends on the query alone
    assert missing[0, 4].any() and found.visible[0, 1].sum() > found.visible[0, 3].sum()


def test_the_opposite_side_is_all_unseen():
    """A flat box from the front and from the back share no surface."""
    card = Solids(boxes=(((-0.05, -0.04, -0.002), (0.05, 0.04, 0.002)),))
    K = camera(190.0, SIZE)
    front, back = view(card, K, pose(torch.eye(3)), SIZE), view(card, K, pose(turn(0, torch.pi, 0)), SIZE)
    found = label(front, back, diameter=0.128)
    assert (found.labels == UNSEEN).sum() > 10 and set(found.labels.unique().tolist()) == {-1, UNSEEN}


def test_occlusion_of_one_ball_by_another():
    """From the side both balls show; from the front the near one hides the middle of the far one."""
    balls = Solids(spheres=(((0.0, 0.0, 0.1), 0.06), ((0.0, 0.0, -0.1), 0.03)))
    K = camera(150.0, SIZE)
    aside = view(balls, K, pose(turn(0, 0.5, 0)), SIZE)
    front = view(balls, K, pose(torch.eye(3)), SIZE)
    computer = FlowComputer(PATCH)
    found = computer.targets(single(aside), stack([front]), torch.tensor([0.3], dtype=torch.float64))
    far = join_patches(found.on_object[0], GRID)[0]
    points = torch.where(aside.mask, aside.depth, torch.nan)
    px = torch.stack(torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="xy"), -1).double()
    rays = torch.cat([px, torch.ones_like(px[..., :1])], -1) @ torch.linalg.inv(K).mT
    X = (rays * points[..., None] - aside.cam_from_obj[:3, 3]) @ aside.cam_from_obj[:3, :3]
    # By hand: a point is hidden if its segment to the front camera's eye meets the near ball.
    eye = torch.tensor([0.0, 0.0, -0.6], dtype=torch.float64)
    on_far = far & (X[..., 2] > 0)
    way = X - eye
    middle = torch.tensor([0.0, 0.0, -0.1], dtype=torch.float64) - eye
    along = (way @ middle) / way.square().sum(-1)
    distance = (middle - along[..., None] * way).norm(dim=-1)
    self_hidden = ((X - torch.tensor([0.0, 0.0, 0.1])) * (eye - X)).sum(-1) <= 0
    hidden = on_far & ((distance < 0.03) | self_hidden)
    occluded = join_patches(found.occluded[0], GRID)[0]
    margin = (distance - 0.03).abs() > 0.006  # a pixel of the far ball is 5 mm wide
    facing = ((X - torch.tensor([0.0, 0.0, 0.1])) * (eye - X)).sum(-1).abs() > 0.016  # not grazing
    judged = on_far & margin & facing
    assert (judged & hidden).sum() > 30 and (judged & ~hidden).sum() > 30
    assert torch.equal(occluded[judged], hidden[judged])


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_test_of_depth_has_two_sides(sign):
    K, front = camera(100.0, SIZE), pose(torch.eye(3))
    wall = view(FULL, K, front, SIZE)
    within, beyond = (wall._replace(depth=wall.depth + sign * 0.02 * share) for share in (0.9, 1.1))
    found = label(wall, within, beyond, diameter=1.0)
    assert torch.equal(found.labels[0, 0], torch.arange(UNSEEN))
    assert (found.labels[0, 1] == UNSEEN).all() and found.unseen_mask[0, 1].all()
    wider = label(wall, beyond, diameter=1.0, tolerance_m=0.03)
    assert torch.equal(wider.labels[0, 0], torch.arange(UNSEEN))


def test_too_few_pixels_are_unseen_and_none_is_background():
    K, front = camera(100.0, SIZE), pose(torch.eye(3))
    wall = view(FULL, K, front, SIZE)
    few, nothing = wall.mask.clone(), wall.mask.clone()
    few[:PATCH, :PATCH] = False
    few[0, :3] = True  # the template shows three pixels of the first patch
    nothing[:PATCH, :PATCH] = False
    nothing[0, :3] = True
    found = label(wall, wall._replace(mask=few))
    assert found.labels[0, 0, 0] == UNSEEN and found.unseen_mask[0, 0, 0].all()
    assert found.labels[0, 0, 1:].tolist() == list(range(1, UNSEEN))
    assert label(wall, wall._replace(mask=few), min_visible_pixels=3).labels[0, 0, 0] == 0
    assert label(wall._replace(mask=nothing), wall).labels[0, 0, 0] == -1


def test_a_patch_over_a_jump_takes_the_surface_that_most_of_it_shows():
    """Pixels of the other surface land far away in the template and are no targets."""
    steps = Solids(boxes=(((-1.0, -1.0, 0.0), (0.0, 1.0, 0.1)), ((0.0, -1.0, 0.45), (1.0, 1.0, 0.5))))
    K = camera(100.0, SIZE)
    query = view(steps, K, pose(torch.eye(3), aside=(0.005, 0.0)), SIZE)
    template = view(steps, K, pose(torch.eye(3), aside=(-0.25, 0.0)), SIZE)
    found = label(query, template, diameter=1.0, max_flow=1.0)
    split = GRID * 4 + 4  # the edge lies at 31.5 + 100 * 0.005 / 0.6 = 32.3: one column is the near wall
    assert found.visible[0, 0, split].sum() == PATCH * (PATCH - 1)
    assert found.unseen_mask[0, 0, split, :, 0].all()
    assert (found.flow[0, 0, split][found.visible[0, 0, split]].abs() <= 1).all()


def test_batch_is_loop_and_float32_will_do(views):
    diameter = torch.tensor([DIAMETER, DIAMETER], dtype=torch.float64)
    queries = View(*(torch.stack(pair) for pair in zip(views[0], views[1], strict=True)))
    templates = View(*(torch.cat(pair) for pair in zip(stack(views[1:3]), stack(views[2:4]), strict=True)))
    together = FlowComputer(PATCH)(*queries, *templates, diameter)
    for i, alone in enumerate([label(views[0], *views[1:3]), label(views[1], *views[2:4])]):
        for ours, theirs in zip(together, alone, strict=True):
            torch.testing.assert_close(ours[i], theirs[0], **EXACT)
    single_precision = FlowComputer(PATCH)(
        *(each if each.dtype == torch.bool else each.float() for each in (*queries, *templates)),
        diameter.float(),
    )
    assert single_precision.flow.dtype == torch.float32
    same = (
        together.visible
        & single_precision.visible
        & (together.labels == single_precision.labels)[..., None, None]
    )
    assert same.sum() > 0.999 * together.visible.sum()
    torch.testing.assert_close(single_precision.flow[same].double(), together.flow[same], atol=1e-4, rtol=0)


def test_other_sizes_of_template_and_bad_options(views):
    K = camera(95.0, SIZE // 2)
    small = view(OBJECT, K, pose(turn(0.2, 0.3, 0.0)), SIZE // 2)
    found = label(views[0], small)
    assert found.labels.max() <= 16 and (found.labels == 5).any()
    with pytest.raises(ValueError, match="8 px patches fill, got 60x60"):
        label(views[0], view(OBJECT, camera(190.0, 60), pose(turn(0.2, 0.3, 0.0)), 60))
    with pytest.raises(ValueError, match="tolerance_rel, tolerance_m"):
        FlowComputer(tolerance_rel=0.0)
    with pytest.raises(ValueError, match="patch_size"):
        FlowComputer(0)
    with pytest.raises(ValueError, match="max_flow"):
        FlowComputer(max_flow=0.2)
