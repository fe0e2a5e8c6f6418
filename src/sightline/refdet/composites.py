"""Training pictures made by pasting: cheap, endless, and the same for the same seed, epoch and index.

A composite shows its target never, once or a few times among other objects, some of them look-alikes, with
sizes, occlusion, backgrounds and sensor faults that cover those of the exam's scenes; templates show other
views of the target in another light. As in the exam a box goes around the *whole* silhouette, hidden parts
included, and half of the objects have little texture. A share of the pictures can be the slower real scenes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from sightline.geometry.boxes import clip
from sightline.nn.pictures import float_picture
from sightline.refdet.data import RefDetItem
from sightline.refdet.framing import (
    letterbox_affine,
    transform_boxes,
    warp_picture,
    whole_picture,
)
from sightline.refdet.template_pictures import TemplateSettings, draw_templates
from sightline.synthetic.backdrops import BackdropBank
from sightline.synthetic.crops import Crops, CropSettings
from sightline.synthetic.exam import ExamPictures, exam_object
from sightline.synthetic.exam_settings import EXAM
from sightline.synthetic.layers import Look, SceneLayers, draw_backdrop
from sightline.synthetic.pasting import Patch, make_patch
from sightline.synthetic.sensor import SensorSettings, expose
from sightline.synthetic.sprites import SpriteBank

_REFERENCE_WIDTH = 640  # sizes in pixels are those of a picture this wide
_NUM_SCENE_OBJECTS = 100


@dataclass(frozen=True)
class CompositeSettings:
    """What composites are like; each draws its own values. Pixels are those of a picture 640 wide.

    Args:
        image_size: ``(width, height)`` of the search picture.
        absent_share: share of pictures without the target.
        more_targets: chance that a picture with the target shows it once more, and again.
        max_targets: how often at most.
        distractors: (least, largest) number of other objects.
        lookalike_share: share of pictures with a look-alike of the target.
        size_px: (least, largest) longest side of an object's box, log-uniform.
        exam_size_px: the same, for ``exam_size_share`` of the objects.
        exam_size_share: share of the objects with a size as in the exam.
        min_visible: least visible share of a target's silhouette.
        cover: chance that another object is put before a target.
        cut_share: chance that a target may leave the picture by up to a third of its box.
        upright_share: share of pictures whose objects stand or lie, instead of being turned by any angle.
        shadow_share: share of pictures with shadows.
        recolor_share: chance that an object's colour channels are swapped, in templates and picture alike.
        mirror_share: chance that an object is mirrored, in templates and picture alike.
        gray_share: share of samples without colours, templates and picture alike.
        scene_share: share of pictures that are rendered scenes as in the exam (10 a second at most).
        sensor: the camera's faults at 640 pixels; smaller pictures have less blur and noise.
        templates: what templates are like.
        looks: what crops are like that are looked at twice; their size is that of the templates.
    """

    image_size: tuple[int, int] = (640, 480)
    absent_share: float = 1 / 3
    more_targets: float = 0.2
    max_targets: int = 4
    distractors: tuple[int, int] = (2, 7)
    lookalike_share: float = 0.4
    size_px: tuple[float, float] = (16.0, 300.0)
    exam_size_px: tuple[float, float] = (48.0, 230.0)
    exam_size_share: float = 0.7
    min_visible: float = 0.5
    cover: float = 0.25
    cut_share: float = 0.1
    upright_share: float = 0.5
    shadow_share: float = 0.5
    recolor_share: float = 0.3
    mirror_share: float = 0.5
    gray_share: float = 0.1
    scene_share: float = 0.0
    sensor: SensorSettings = field(
        default_factory=lambda: SensorSettings(exposure=(0.65, 1.3), cast=0.15, jpeg_quality=(60, 95))
    )
    templates: TemplateSettings = field(default_factory=TemplateSettings)
    looks: CropSettings = field(default_factory=CropSettings)

    def __post_init__(self) -> None:
        """Check the shares and ranges."""
        for name in (
            "absent_share",
            "more_targets",
            "lookalike_share",
            "min_visible",
            "cover",
            "gray_share",
            "scene_share",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected a share in [0, 1], got {getattr(self, name)}")
        for name in ("size_px", "exam_size_px"):
            low, high = getattr(self, name)
            if not 2 <= low <= high:
                raise ValueError(f"{name}: expected (least, largest) of at least 2 px, got {(low, high)}")

    @property
    def scale(self) -> float:
        """How large a pixel of the reference picture is here."""
        return self.image_size[0] / _REFERENCE_WIDTH


class _Thing(NamedTuple):
    """One object to be pasted: its views, which of them may be taken, its look, and whether it is wanted."""

    views: np.ndarray
    rows: np.ndarray
    look: Look
    wanted: bool


class CompositeDataset(Dataset):
    """Composites as a data set; ``set_epoch`` gives new ones, ``items`` never ends.

    Args:
        bank: the objects.
        backdrops: what lies behind them.
        settings: what the pictures are like.
        length: how many pictures an epoch has.
        seed: of everything.

    Example:
        >>> from sightline.synthetic.sprites import SpriteSettings
        >>> bank = SpriteBank(3, settings=SpriteSettings(32, 2, 1, 1))
        >>> small = CompositeSettings((96, 72), templates=TemplateSettings((32, 32)))
        >>> data = CompositeDataset(bank, BackdropBank(1, image_size=(96, 72)), small, length=2)
        >>> data[1].search.shape, torch.equal(data[1].search, data[1].search)
        (torch.Size([3, 72, 96]), True)
    """

    def __init__(
        self,
        bank: SpriteBank,
        backdrops: BackdropBank,
        settings: CompositeSettings | None = None,
        *,
        length: int = 10_000,
        seed: int = 0,
    ) -> None:
        if bank.split != backdrops.split:
            raise ValueError(f"backdrops: expected those of split {bank.split!r}, got {backdrops.split!r}")
        self.bank, self.backdrops, self.settings = bank, backdrops, settings or CompositeSettings()
        self.length, self.seed, self.epoch = length, seed, 0
        size = self.settings.templates.size[0]
        self._crops = Crops(bank, backdrops, replace(self.settings.looks, size=size))
        self._scenes: ExamPictures | None = None

    def __len__(self) -> int:
        return self.length

    def __getstate__(self) -> dict:
        """Workers make their own scenes."""
        return self.__dict__ | {"_scenes": None}

    def set_epoch(self, epoch: int) -> None:
        """Choose which pictures are next."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> RefDetItem:
        """A picture of the present epoch."""
        return self.sample(self.epoch, range(self.length)[index])

    def items(self, epoch: int = 0, start: int = 0, step: int = 1) -> Iterator[RefDetItem]:
        """Pictures without end.

        Args:
            epoch: which series.
            start: number of the first.
            step: from one number to the next, such as the number of workers.
        """
        return (self.sample(epoch, index) for index in itertools.count(start, step))

    def sample(self, epoch: int, index: int) -> RefDetItem:
        """The picture of an epoch and an index, whatever was made before."""
        rng = np.random.default_rng([self.seed, epoch, index])
        if rng.uniform() < self.settings.scene_share:
            return self._scene_item(rng)
        target = int(rng.integers(len(self.bank)))
        look = Look.draw(rng, self.settings.recolor_share, self.settings.mirror_share)
        rows = rng.permutation(len(self.bank[target].lit))
        seen, shown = np.array_split(rows, 2) if len(rows) > 1 else (rows, rows)
        search, boxes = self._draw_search(rng, target, look, seen)
        return self._item(rng, f"{epoch}-{index}", target, look, int(seen[0]), shown, search, boxes)

    def _item(
        self,
        rng: np.random.Generator,
        name: str,
        target: int,
        look: Look,
        seen: int,
        shown: np.ndarray,
        search: np.ndarray,
        boxes: torch.Tensor,
    ) -> RefDetItem:
        sprites = self.bank[target]
        pictures, masks = draw_templates(
            rng, sprites, look, self.backdrops, self.settings.templates, seen=seen, lit_rows=shown
        )
        identity = torch.eye(3, dtype=torch.float64)[:2]
        looks = self._crops.draw_pictures(target, rng, look, seen)
        shown_in = float_picture(search), pictures, looks
        if rng.uniform() < self.settings.gray_share:
            shown_in = tuple(_without_colors(each) for each in shown_in)
        picture, templates, looks = shown_in
        return RefDetItem(name, sprites.name, picture, templates, masks, boxes.float(), identity, looks)

    def _draw_search(
        self, rng: np.random.Generator, target: int, look: Look, seen: np.ndarray
    ) -> tuple[np.ndarray, torch.Tensor]:
        settings = self.settings
        layers = SceneLayers(draw_backdrop(rng, self.backdrops, settings.image_size), settings.min_visible)
        layers.draw_shadows(rng, settings.shadow_share, settings.scale)
        upright = bool(rng.uniform() < settings.upright_share)
        behind, wanted, before = self._choose_things(rng, target, look, seen)
        for thing in behind:
            self._paste(rng, layers, thing, upright)
        for thing in wanted:
            self._paste(rng, layers, thing, upright)
        for thing in before:
            self._paste(rng, layers, thing, upright, before=True)
        sensor = _scaled(settings.sensor, settings.scale)
        boxes = torch.tensor(layers.boxes(), dtype=torch.float64).reshape(-1, 4)
        return expose(layers.canvas, rng, sensor), clip(boxes, settings.image_size)

    def _choose_things(
        self, rng: np.random.Generator, target: int, look: Look, seen: np.ndarray
    ) -> tuple[list[_Thing], list[_Thing], list[_Thing]]:
        """What lies behind the targets, the targets, and what may lie before them."""
        settings, sprites = self.settings, self.bank[target]
        wanted: list[_Thing] = []
        if rng.uniform() >= settings.absent_share:
            wanted.append(_Thing(sprites.lit, seen[:1], look, True))
            while len(wanted) < settings.max_targets and rng.uniform() < settings.more_targets:
                wanted.append(_Thing(sprites.lit, seen, look, True))
        others: list[_Thing] = []
        if rng.uniform() < settings.lookalike_share:
            others.append(_any_view(sprites.lookalike, look))
        for _ in range(int(rng.integers(settings.distractors[0], settings.distractors[1] + 1))):
            other = (target + int(rng.integers(1, len(self.bank)))) % len(self.bank)
            other_look = Look.draw(rng, settings.recolor_share, settings.mirror_share)
            others.append(_any_view(self.bank[other].lit, other_look))
        before = [thing for thing in others if rng.uniform() < settings.cover]
        behind = [thing for thing in others if not any(thing is each for each in before)]
        return behind, wanted, before

    def _paste(
        self,
        rng: np.random.Generator,
        layers: SceneLayers,
        thing: _Thing,
        upright: bool,
        *,
        before: bool = False,
    ) -> None:
        settings = self.settings
        exam_like = rng.uniform() < settings.exam_size_share
        span = settings.exam_size_px if exam_like else settings.size_px
        size = settings.scale * float(np.exp(rng.uniform(*np.log(span))))
        # a target fits into the picture, whatever its wanted size
        size = min(size, 0.95 * min(settings.image_size)) if thing.wanted else size
        patch = self._patch(rng, thing, size, upright)
        if patch is None:
            return
        cut = 1 / 3 if thing.wanted and rng.uniform() < settings.cut_share else 0.0
        gain = float(rng.uniform(0.75, 1.2))
        layers.place(rng, patch, thing.look, gain, wanted=thing.wanted, cut=cut, before=before)

    def _patch(self, rng: np.random.Generator, thing: _Thing, size: float, upright: bool) -> Patch | None:
        view = np.asarray(thing.views[int(rng.choice(thing.rows))])
        angle = rng.uniform(0, 2 * np.pi)
        if (
            upright
        ):  # stands, lies on a side, or stands on its head, before a camera that is held nearly level
            resting = rng.choice([0.0, np.pi / 2, -np.pi / 2, np.pi], p=[0.6, 0.15, 0.15, 0.1])
            angle = resting + np.radians(rng.normal(0, 6))
        return make_patch(view, size, float(angle), mirrored=thing.look.mirrored)

    def _scene_item(self, rng: np.random.Generator) -> RefDetItem:
        """A rendered scene of this split, brought to the size of composites."""
        scenes = self._make_scenes()
        picture = scenes[int(rng.integers(len(scenes)))]
        target = picture.index % len(scenes.objects)
        affine = letterbox_affine(whole_picture(picture.scene.camera.image_size), self.settings.image_size)
        search = warp_picture(picture.scene.image, affine, self.settings.image_size)
        boxes = transform_boxes(picture.boxes, affine)
        shown = rng.permutation(len(self.bank[target].lit))
        name, seen = f"scene-{picture.index}", int(shown[0])
        return self._item(rng, name, target, Look(), seen, shown, search, boxes)

    def _make_scenes(self) -> ExamPictures:
        if self._scenes is None:
            count = min(len(self.bank), _NUM_SCENE_OBJECTS)
            objects = [exam_object(index, self.bank.split) for index in range(count)]
            first, stop = EXAM.picture_seeds[self.bank.split]
            # the second half of the seeds: the first pictures are what the split is measured on
            settings = replace(EXAM.tasks["detection"], seed_offset=(stop - first) // 2)
            self._scenes = ExamPictures(settings, self.bank.split, objects, (stop - first) // 4)
        return self._scenes


def _without_colors(images: Float[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n 3 h w"]:
    """Pictures as a camera without colours takes them (luma of ITU-R BT.601), still in three channels."""
    shares = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    return (images * shares).sum(-3, keepdim=True).expand_as(images).contiguous()


def _any_view(views: np.ndarray, look: Look) -> _Thing:
    return _Thing(views, np.arange(len(views)), look, False)


def _scaled(sensor: SensorSettings, scale: float) -> SensorSettings:
    """The faults of a picture that was shrunk after it was taken."""
    scale = min(scale, 1.0)
    blur, noise = ((low * scale, high * scale) for low, high in (sensor.blur_px, sensor.noise))
    return replace(sensor, blur_px=blur, noise=noise)
