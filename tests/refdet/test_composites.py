from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from sightline.geometry.boxes import boxes_from_masks
from sightline.refdet.composites import CompositeDataset, CompositeSettings
from sightline.refdet.data import collate
from sightline.refdet.template_pictures import TemplateSettings
from sightline.synthetic.backdrops import BackdropBank
from sightline.synthetic.exam import exam_object, exam_objects
from sightline.synthetic.exam_settings import EXAM
from sightline.synthetic.layers import Look, SceneLayers
from sightline.synthetic.pasting import Patch, blend, make_patch
from sightline.synthetic.sensor import SensorSettings
from sightline.synthetic.sprites import SpriteBank, SpriteSettings

SIZE = (160, 120)
SPRITES = SpriteSettings(size_px=64, num_lit=3, num_plain=2, num_lookalike=1)
SMALL = CompositeSettings(SIZE, templates=TemplateSettings((32, 32)))


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bank")
    bank = SpriteBank(6, folder, settings=SPRITES)
    bank.build()
    return bank, BackdropBank(3, folder, image_size=(320, 240)), folder


@pytest.fixture(scope="module")
def data(parts):
    return CompositeDataset(parts[0], parts[1], SMALL, length=80)


def test_only_objects_of_the_training_split(parts):
    bank = parts[0]
    first, stop = EXAM.object_seeds["train"]
    names = [bank[index].name for index in range(len(bank))]
    seeds = [int(name.split("-")[2]) for name in names]
    assert all(first <= seed < stop for seed in seeds)
    assert [name.split("-")[1] for name in names] == ["rich", "low"] * 3
    for split in ("exam", "development"):
        assert not set(names) & {thing.name for thing in exam_objects("detection", split, limit=10)}
    with pytest.raises(ValueError, match="split: expected one of train, development; got 'exam'"):
        SpriteBank(6, split="exam")
    with pytest.raises(ValueError, match="split"):
        BackdropBank(6, split="exam")
    with pytest.raises(ValueError, match="backdrops: expected those of split 'train'"):
        CompositeDataset(bank, BackdropBank(1, split="development"))


def test_a_bank_is_kept_and_drawn_once(parts, monkeypatch):
    bank, _, folder = parts
    monkeypatch.setattr("sightline.synthetic.sprites.draw_object", None)  # drawing again would fail
    again = SpriteBank(4, folder, settings=SPRITES)
    assert np.array_equal(again[2].lit, bank[2].lit) and again[2].name == exam_object(2, "train").name
    assert np.array_equal(pickle.loads(pickle.dumps(bank))[3].plain, bank[3].plain)
    assert len(list(folder.glob("sprites-*/*.npy"))) == 6


def test_processes_draw_the_same(parts, tmp_path):
    bank, done = SpriteBank(2, tmp_path, settings=SPRITES), []
    bank.build(lambda *counts: done.append(counts), num_workers=1)
    assert done == [(1, 2), (2, 2)] and len(list(tmp_path.glob("sprites-*/*.npy"))) == 2
    assert np.array_equal(bank[1].lookalike, parts[0][1].lookalike)
    with pytest.raises(ValueError, match="num_workers: expected 0"):
        SpriteBank(2).build(num_workers=2)


def test_sprites_are_whole_and_premultiplied(parts):
    for index in range(6):
        sprites = parts[0][index]
        assert sprites.lit.shape == (3, 64, 64, 4) and sprites.plain.shape == (2, 64, 64, 4)
        for view in (*sprites.lit, *sprites.plain, *sprites.lookalike):
            assert (view[..., :3] <= view[..., 3:]).all()
            rim = np.concatenate([view[0], view[-1], view[:, 0], view[:, -1]])
            assert not (rim[:, 3] > 127).any() and (view[..., 3] > 127).mean() > 0.05


@pytest.mark.parametrize("size", [7.0, 20.0, 61.0, 150.0])
@pytest.mark.parametrize("angle", [0.0, 0.7, np.pi / 2, 3.0])
def test_a_patch_has_the_wanted_size(parts, size, angle):
    for index in range(3):
        patch = make_patch(np.asarray(parts[0][index].lit[0]), size, angle)
        assert abs(max(patch.size) - size) <= max(1.5, 0.02 * size)
        assert patch.solid[0].any() and patch.solid[:, -1].any()


def test_a_patch_is_turned_from_x_to_y_and_mirrored_before():
    sprite = np.zeros((64, 64, 4), np.uint8)
    sprite[30:34, 8:56] = 255  # a bar with a flag at its right end, upwards
    sprite[14:34, 50:56] = 255
    turned = make_patch(sprite, 48, np.pi / 2)  # right becomes down, up becomes right
    assert turned.size[1] > turned.size[0]
    assert turned.solid[-4:].mean() > 0.9 and turned.solid[: turned.size[1] // 2, -4:].mean() < 0.1
    flipped = make_patch(sprite, 48, 0.0, mirrored=True)
    assert np.array_equal(flipped.solid, make_patch(sprite, 48, 0.0).solid[:, ::-1])
    assert make_patch(np.zeros((8, 8, 4), np.uint8), 5, 0.0) is None


def test_blending_is_that_of_coverage():
    canvas = np.full((4, 4, 3), 100, np.float32)
    layers = np.zeros((2, 2, 4), np.uint8)
    layers[0, 0] = (60, 0, 0, 255)
    layers[0, 1] = (30, 20, 10, 128)
    blend(canvas, Patch(layers, np.ones((2, 2), bool)), (3, 2), gain=0.5, channels=(2, 0, 1))
    np.testing.assert_allclose(canvas[2, 3], [0, 30, 0])
    assert (canvas[:2] == 100).all() and (canvas[:, :3] == 100).all()
    blend(canvas, Patch(layers, np.ones((2, 2), bool)), (-1, 0))
    np.testing.assert_allclose(canvas[0, 0], 100 * (1 - 128 / 255) + np.array([30, 20, 10]), rtol=1e-5)


def test_visible_shares_and_amodal_boxes():
    square = Patch(np.full((10, 10, 4), 255, np.uint8), np.ones((10, 10), bool))
    layers = SceneLayers(np.zeros((40, 40, 3), np.float32), 0.5)
    layers._lay(square, (5, 6), Look(), 1.0, wanted=True)
    layers._lay(square, (12, 6), Look(), 1.0, wanted=False)  # covers three of ten columns
    assert layers.visible_shares() == [pytest.approx(0.7)]
    assert layers.boxes() == [[4.5, 5.5, 14.5, 15.5]]
    assert layers._shares_after(square, (2, 6)) == [pytest.approx(0.0)]
    rng = np.random.default_rng(0)
    for _ in range(60):
        layers.place(rng, square, Look(), 1.0, wanted=False, before=True)
    assert 0.5 <= layers.visible_shares()[0] <= 0.7


def test_the_same_seed_epoch_and_index_give_the_same_bytes(parts, data):
    other = CompositeDataset(parts[0], parts[1], SMALL, length=10)
    for epoch, index in ((0, 3), (2, 7)):
        first, second = data.sample(epoch, index), other.sample(epoch, index)
        for a, b in zip(first[2:], second[2:], strict=True):
            assert torch.equal(a, b)
    assert not torch.equal(data.sample(0, 3).search, data.sample(1, 3).search)
    seeded = CompositeDataset(parts[0], parts[1], SMALL, seed=1)
    assert not torch.equal(data.sample(0, 3).search, seeded.sample(0, 3).search)
    stream = data.items(start=5, step=2)
    next(stream)
    assert next(stream).name == "0-7"
    other.set_epoch(2)
    assert torch.equal(other[7].search, data.sample(2, 7).search)


def test_samples_are_as_the_settings_say(data):
    items = [data[index] for index in range(80)]
    absent = sum(len(item.boxes) == 0 for item in items)
    assert 15 <= absent <= 40 and max(len(item.boxes) for item in items) > 1
    numbers = {len(item.templates) for item in items}
    assert min(numbers) == 1 and max(numbers) == 8
    sizes = torch.cat([item.boxes for item in items])
    longest = (sizes[:, 2:] - sizes[:, :2]).amax(1)
    assert float(longest.min()) >= 0.6 * 16 / 4 and float(longest.max()) <= 300 / 4 + 1
    for item in items:
        assert (
            item.search.shape == (3, 120, 160)
            and 0 <= float(item.search.min()) <= float(item.search.max()) <= 1
        )
        assert bool((item.boxes[:, :2] >= -0.5).all()) and bool((item.boxes[:, 2] <= 159.5).all())
        assert bool((item.boxes[:, 3] <= 119.5).all()) and item.templates.shape[1:] == (3, 32, 32)
        known = item.template_masks.flatten(1).mean(1)
        assert bool(((known > 0.03) & (known <= 1)).all())
    assert collate(items[:4])["search"].shape == (4, 3, 120, 160)


def plain_settings(**changes):
    """One target on its own, no faults of the camera."""
    quiet = {"absent_share": 0.0, "more_targets": 0.0, "distractors": (0, 0), "lookalike_share": 0.0}
    quiet |= {"sensor": SensorSettings.clean(), "recolor_share": 0.0, "mirror_share": 0.0}
    quiet |= {"cut_share": 0.0, "shadow_share": 0.0}
    return CompositeSettings(SIZE, templates=TemplateSettings((32, 32), plain_share=1.0), **(quiet | changes))


def test_the_box_is_around_what_was_pasted(parts, monkeypatch):
    black = np.zeros((120, 160, 3), np.float32)
    monkeypatch.setattr("sightline.refdet.composites.draw_backdrop", lambda *_: black.copy())
    data = CompositeDataset(parts[0], parts[1], plain_settings(size_px=(80, 300)))
    for index in range(20):
        item = data[index]
        seen = boxes_from_masks(item.search.amax(0) > 0.06)
        # a silhouette ends where half of a pixel is covered; what is darker there may hide a pixel or two
        assert float((seen - item.boxes[0]).abs().max()) <= 2.5, (index, seen, item.boxes)


def test_templates_show_the_target_in_its_look(parts):
    """The mean colour of target and templates agree, although channels are swapped."""
    settings = plain_settings(recolor_share=1.0, size_px=(200, 300), exam_size_share=0.0)
    data = CompositeDataset(parts[0], parts[1], settings)
    right, wrong = [], []
    for index in range(12):
        item = data[index]
        x1, y1, x2, y2 = (item.boxes[0] + 0.5).round().int().tolist()
        middle = item.search[
            :, (3 * y1 + y2) // 4 : (y1 + 3 * y2) // 4, (3 * x1 + x2) // 4 : (x1 + 3 * x2) // 4
        ]
        mask = item.template_masks * (item.templates.amax(1) > 0)
        own = (item.templates * mask[:, None]).sum((0, 2, 3)) / mask.sum()
        shade = middle.mean((1, 2))
        right.append(torch.cosine_similarity(own, shade, dim=0))
        wrong.append(torch.cosine_similarity(own.roll(1), shade, dim=0))
    assert float(torch.stack(right).mean()) > float(torch.stack(wrong).mean()) + 0.03


def test_templates_show_other_views_than_the_picture(parts, monkeypatch):
    taken = {"composites": set(), "template_pictures": set()}
    for room, held in taken.items():

        def record(view, *args, held=held, **options):
            held.add(view.tobytes())
            return make_patch(view, *args, **options)

        monkeypatch.setattr(f"sightline.refdet.{room}.make_patch", record)
    settings = plain_settings(more_targets=0.9)
    settings = replace(settings, templates=replace(settings.templates, plain_share=0.0))
    data = CompositeDataset(parts[0], parts[1], settings)
    for index in range(10):
        data[index]
        assert taken["composites"] and taken["template_pictures"]
        assert not taken["composites"] & taken["template_pictures"]
        for held in taken.values():
            held.clear()


def test_workers_make_the_same_pictures(parts, data):
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy[5].search, data[5].search) and copy._scenes is None


def test_a_share_of_rendered_scenes(parts):
    data = CompositeDataset(parts[0], parts[1], CompositeSettings(SIZE, scene_share=1.0))
    item = data[0]
    assert item.name.startswith("scene-") and item.search.shape == (3, 120, 160)
    picture = data._scenes[int(item.name.removeprefix("scene-"))]
    assert picture.wanted == (item.object_id,)
    torch.testing.assert_close(item.boxes, ((picture.boxes + 0.5) / 4 - 0.5).float())
    first, stop = EXAM.picture_seeds["train"]
    seed = data._scenes.seed_of(picture.index)
    # the first pictures of the split are what it is measured on
    assert first + 2_000_000 < seed < stop


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="absent_share: expected a share"):
        CompositeSettings(absent_share=1.5)
    with pytest.raises(ValueError, match="size_px: expected"):
        CompositeSettings(size_px=(40, 20))
    with pytest.raises(ValueError, match="number: expected"):
        TemplateSettings(number=(0, 3))
    with pytest.raises(ValueError, match="num_objects"):
        SpriteBank(1)


def test_samples_without_colours_are_so_in_picture_and_templates(parts):
    gray = CompositeDataset(parts[0], parts[1], replace(SMALL, gray_share=1.0), length=4)
    item = gray[1]
    for images in (item.search, item.templates, item.looks):
        assert torch.equal(images[..., 0, :, :], images[..., 2, :, :])
    colored = CompositeDataset(parts[0], parts[1], replace(SMALL, gray_share=0.0), length=4)[1]
    assert not torch.equal(colored.search[0], colored.search[2])
    luma = (colored.search * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0)
    assert torch.allclose(item.search[0], luma, atol=1e-6)


def test_looks_are_the_target_and_its_look_alike(data):
    item = data[2]
    size = data.settings.templates.size[0]
    assert item.looks.shape == (2, 3, size, size)
    assert not torch.equal(item.looks[0], item.looks[1])
