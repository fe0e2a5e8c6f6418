"""Crops of one object in a picture, with templates of it, for learning its pose: pasted, exact in 3-D.

The object of a bank's lit view is turned in its plane, cut out as a detector's box would cut it, laid on a
backdrop among other objects, partly hidden, and seen by a camera with faults. Pose, K, depth and the visible
mask are those of the crop. Objects that are mirrored or have other colours are other objects, alike in
templates and picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from sightline.geometry.poses import look_at
from sightline.geometry.symmetry import symmetric_align
from sightline.nn.pictures import float_picture
from sightline.synthetic.backdrops import BackdropBank
from sightline.synthetic.layers import Look, draw_backdrop
from sightline.synthetic.pasting import Patch, blend, darken, make_patch, overlap
from sightline.synthetic.pose_bank import PoseBank
from sightline.synthetic.pose_views import ObjectViews, PoseView
from sightline.synthetic.pose_warp import WarpedView, mirror_camera, mirror_pose, warp_view
from sightline.synthetic.sensor import SensorSettings, expose

_TRIES = 4
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601

ChooseTemplates = Callable[
    [np.random.Generator, Float[Tensor, "4 4"], Float[Tensor, "n 4 4"]],
    tuple[Int[Tensor, " t"], Int[Tensor, " t"]],
]
"""Which of n templates a query gets, and of which type each is (0 positive, 1 negative), from poses alone.

The query's pose is that of its camera turned upright and towards the object, so that turns in the plane and
the place in the picture do not count; the templates' poses are, of a symmetric object's equal ones, those
nearest to it.
"""


class PoseCrop(NamedTuple):
    """A query and its templates; metres and pixels, ``s`` is the side of every crop.

    Args:
        query: ``(3, s, s)`` float32 RGB in [0, 1].
        query_depth: ``(s, s)`` float32 metres of what is seen of the object, 0 elsewhere.
        query_mask: ``(s, s)`` bool, what is seen of the object.
        query_K: ``(3, 3)`` float64 of the crop.
        query_pose: ``(4, 4)`` float64 ``cam_from_obj``.
        templates: ``(t, 3, s, s)`` float32 RGB in [0, 1] on black.
        template_depth: ``(t, s, s)`` float32 metres, 0 outside the object.
        template_mask: ``(t, s, s)`` bool.
        template_K: ``(t, 3, 3)`` float64.
        template_pose: ``(t, 4, 4)`` float64 ``cam_from_obj``; of a symmetric object's equal poses the one
            nearest to the query's.
        template_types: ``(t,)`` int64, 0 for positives and 1 for negatives.
        diameter: of the object, metres.
        object_index: its number in the bank.
        crop_from_image: ``(2, 3)`` float64 from the picture that was cropped: a scale and a shift, and a turn
            where a picture with objects in it was turned.
    """

    query: Float[Tensor, "3 s s"]
    query_depth: Float[Tensor, "s s"]
    query_mask: Bool[Tensor, "s s"]
    query_K: Float[Tensor, "3 3"]
    query_pose: Float[Tensor, "4 4"]
    templates: Float[Tensor, "t 3 s s"]
    template_depth: Float[Tensor, "t s s"]
    template_mask: Bool[Tensor, "t s s"]
    template_K: Float[Tensor, "t 3 3"]
    template_pose: Float[Tensor, "t 4 4"]
    template_types: Int[Tensor, " t"]
    diameter: float
    object_index: int
    crop_from_image: Float[Tensor, "2 3"]


@dataclass(frozen=True)
class PoseCropSettings:
    """What queries are like; each draws its own values.

    Args:
        fill: longer side of the silhouette's box, in shares of the crop.
        shift: largest error of the crop's middle along x and y, in shares of that side.
        turn: largest turn in the picture's plane, radians; pi for any.
        size_px: (least, largest) longer side of the box in the picture before it was cropped, log-uniform:
            smaller ones have fewer pixels than the crop, larger ones less noise and blur.
        behind: (least, largest) number of other objects behind.
        cover_share: chance that another object lies before, and again for a second one.
        cut_share: chance that the picture ends within the crop, with black beyond.
        min_visible: least share of the silhouette that stays visible.
        shadow_share: chance of a shadow on what lies behind.
        background_share: share of queries that keep their background; the others are black around what a
            segmentation took for the object.
        recolor_share: chance that the object's colour channels are swapped.
        mirror_share: chance that everything is mirrored.
        gray_share: chance that query and templates have no colours.
        sensor: the camera's faults.

    Raises:
        ValueError: a share that is none, or a range that is empty.
    """

    fill: tuple[float, float] = (0.62, 0.98)
    shift: float = 0.08
    turn: float = np.pi
    size_px: tuple[float, float] = (56.0, 240.0)
    behind: tuple[int, int] = (0, 2)
    cover_share: float = 0.45
    cut_share: float = 0.08
    min_visible: float = 0.45
    shadow_share: float = 0.4
    background_share: float = 0.7
    recolor_share: float = 0.4
    mirror_share: float = 0.5
    gray_share: float = 0.08
    sensor: SensorSettings = field(
        default_factory=lambda: SensorSettings((0.65, 1.3), 0.15, (0.2, 1.1), (0.5, 6.0), (60, 95))
    )

    def __post_init__(self) -> None:
        """Check the shares and ranges."""
        for name, value in vars(self).items():
            if name.endswith("_share") or name == "min_visible":
                if not 0 <= value <= 1:
                    raise ValueError(f"{name}: expected a share in [0, 1], got {value}")
            elif isinstance(value, tuple) and not 0 <= value[0] <= value[1]:
                raise ValueError(f"{name}: expected (least, largest) of at least 0, got {value}")
        if self.fill[0] <= 0 or self.size_px[0] < 8:
            raise ValueError(
                f"fill, size_px: expected above 0 and from 8 px, got {self.fill}, {self.size_px}"
            )


class PoseCrops:
    """Numbered crops; one depends on its number, the object's, and the generator alone.

    Args:
        bank: the objects; crops are as large as its templates.
        backdrops: what lies behind them.
        settings: what the queries are like.

    Raises:
        ValueError: objects and backdrops of different splits.

    Example:
        >>> from sightline.synthetic.pose_views import PoseViewSettings
        >>> tiny = PoseViewSettings(num_templates=42, template_px=32, num_queries=2, query_px=32)
        >>> crops = PoseCrops(PoseBank(2, settings=tiny), BackdropBank(1, image_size=(64, 48)))
        >>> first = lambda rng, query, templates: (torch.arange(2), torch.zeros(2, dtype=torch.int64))
        >>> crops.draw(1, np.random.default_rng(0), first).templates.shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self, bank: PoseBank, backdrops: BackdropBank, settings: PoseCropSettings | None = None
    ) -> None:
        if bank.split != backdrops.split:
            raise ValueError(f"backdrops: expected those of split {bank.split!r}, got {backdrops.split!r}")
        self.bank, self.backdrops, self.settings = bank, backdrops, settings or PoseCropSettings()

    def __len__(self) -> int:
        return len(self.bank)

    @property
    def side(self) -> int:
        """Of each crop, pixels."""
        return self.bank.settings.template_px

    def draw(self, number: int, rng: np.random.Generator, choose: ChooseTemplates) -> PoseCrop:
        """The crop of an object with templates.

        Args:
            number: the object's.
            rng: draws everything.
            choose: the templates.
        """
        settings, views = self.settings, self.bank[number]
        look = Look.draw(rng, settings.recolor_share, settings.mirror_share)
        gray = bool(rng.uniform() < settings.gray_share)
        shown = views.queries.view(int(rng.integers(views.queries.number)))
        angle = float(rng.uniform(-settings.turn, settings.turn))
        fill = float(rng.uniform(*settings.fill))
        shift = tuple(rng.uniform(-settings.shift, settings.shift, size=2))
        warped = warp_view(shown, angle, fill, shift, self.side, views.diameter)
        picture, seen = self._compose(rng, number, warped, look, fill)
        upright = upright_pose(shown.cam_from_obj)
        poses = nearest_equivalents(views, upright)
        rows, types = choose(rng, upright, poses)
        templates = [views.templates.view(int(row)) for row in rows]
        crop = join_crop(number, views.diameter, warped, picture, seen, templates, poses[rows], types, look)
        return without_colors(crop) if gray else crop

    def _compose(
        self, rng: np.random.Generator, number: int, warped: WarpedView, look: Look, fill: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """The picture, and what is seen of the object in it."""
        settings, size = self.settings, (self.side, self.side)
        canvas = draw_backdrop(rng, self.backdrops, size, zoom=(1.5, 4.0))
        for _ in range(int(rng.integers(settings.behind[0], settings.behind[1] + 1))):
            self._lay_other(rng, number, canvas, None)
        patch = Patch(warped.layers, warped.layers[..., 3] >= 128)
        if rng.uniform() < settings.shadow_share:
            _draw_shadow(rng, canvas, patch)
        blend(canvas, patch, (0, 0), gain=float(rng.uniform(0.75, 1.2)), channels=look.channels)
        seen = warped.mask.copy()
        least = settings.min_visible * seen.sum()
        for _ in range(2):
            if rng.uniform() >= settings.cover_share:
                break
            self._lay_other(rng, number, canvas, seen, least)
        beyond = self._cut(rng, seen, least)
        picture = self._expose(canvas, rng, fill)
        picture[beyond] = 0
        seen &= ~beyond
        if rng.uniform() >= settings.background_share:
            picture[~segmented(rng, seen)] = 0
        return picture, seen

    def _lay_other(
        self,
        rng: np.random.Generator,
        number: int,
        canvas: np.ndarray,
        seen: np.ndarray | None,
        least: float = 0.0,
    ) -> None:
        """Lay another object over the canvas: anywhere, or over a part of what is still seen."""
        other = (number + int(rng.integers(1, len(self.bank)))) % len(self.bank)
        queries = self.bank[other].queries
        view = queries.view(int(rng.integers(queries.number)))
        alpha = view.mask.view(np.uint8) * np.uint8(255)
        extent = self.side * float(np.exp(rng.uniform(np.log(0.3), np.log(1.1))))
        patch = make_patch(np.dstack([view.color, alpha]), extent, float(rng.uniform(0, 2 * np.pi)))
        if patch is None:
            return
        look, gain = Look.draw(rng, self.settings.recolor_share, 0.0), float(rng.uniform(0.75, 1.2))
        for _ in range(_TRIES):
            middle = rng.uniform(0, self.side, size=2) if seen is None else _any_pixel(rng, seen)
            reach = 0.0 if seen is None else rng.uniform(-0.5, 0.5, size=2)
            corner = (middle - np.array(patch.size) / 2 + reach * np.array(patch.size)).round().astype(int)
            place = (int(corner[0]), int(corner[1]))
            if seen is not None:
                where, part = overlap(place, patch.size, (self.side, self.side))
                if seen.sum() - (seen[where] & patch.solid[part]).sum() < least:
                    continue
                seen[where] &= ~patch.solid[part]
            blend(canvas, patch, place, gain=gain, channels=look.channels)
            return

    def _cut(self, rng: np.random.Generator, seen: np.ndarray, least: float) -> np.ndarray:
        """What lies beyond the picture's border: a strip along one side of the crop, mostly nothing."""
        beyond = np.zeros_like(seen)
        if rng.uniform() < self.settings.cut_share:
            strip = int(self.side * rng.uniform(0.05, 0.4))
            edge = np.rot90(beyond, int(rng.integers(4)))  # a view
            edge[:strip] = True
            if (seen & ~beyond).sum() < least:
                beyond[:] = False
        return beyond

    def _expose(self, canvas: np.ndarray, rng: np.random.Generator, fill: float) -> np.ndarray:
        """What a camera makes of it with the pixels that it has."""
        low, high = np.log(self.settings.size_px)
        pixels = float(np.exp(rng.uniform(low, high))) / fill  # of the crop's side before it was resized
        if pixels >= self.side:
            share, sensor = self.side / pixels, self.settings.sensor
            blur, noise = (tuple(share * end for end in ends) for ends in (sensor.blur_px, sensor.noise))
            return expose(canvas, rng, replace(sensor, blur_px=blur, noise=noise))
        few = cv2.resize(canvas, (round(pixels), round(pixels)), interpolation=cv2.INTER_AREA)
        taken = expose(few, rng, self.settings.sensor)
        return cv2.resize(taken, (self.side, self.side), interpolation=cv2.INTER_LINEAR)


def upright_pose(cam_from_obj: Float64[np.ndarray, "4 4"]) -> Float[Tensor, "4 4"]:
    """The pose of the same camera turned towards the object's origin, with the object's z upwards.

    Example:
        >>> aside = look_at(torch.tensor([0.0, -2, 0]), torch.tensor([0.5, 0, 0])).double().numpy()
        >>> round(float(upright_pose(aside)[2, 3]), 6)
        2.0
    """
    center = -cam_from_obj[:3, :3].T @ cam_from_obj[:3, 3]
    return look_at(torch.from_numpy(center))


def nearest_equivalents(views: ObjectViews, upright: Float[Tensor, "4 4"]) -> Float[Tensor, "n 4 4"]:
    """The templates' poses; of equal ones of a symmetric object those nearest to an upright camera's.

    What a symmetry makes look alike must not be told apart by its pose: a can is seen from its nearest side
    wherever its camera stands.

    Args:
        views: of the object.
        upright: ``(4, 4)`` ``cam_from_obj`` of the camera.

    Returns:
        ``(n, 4, 4)`` float64 ``cam_from_obj``.
    """
    poses = torch.from_numpy(np.array(views.templates.cam_from_obj))
    group = views.symmetries
    if group.axis is None and len(group.discrete) == 1:
        return poses
    return symmetric_align(poses, upright.expand_as(poses), group)


def join_crop(
    number: int,
    diameter: float,
    warped: WarpedView,
    picture: np.ndarray,
    seen: np.ndarray,
    templates: list[PoseView],
    poses: Tensor,
    types: Tensor,
    look: Look,
) -> PoseCrop:
    """All of a crop as tensors, mirrored if the look is.

    Args:
        number: of the object.
        diameter: of the object, metres.
        warped: its geometry.
        picture: ``(s, s, 3)`` uint8 RGB, in the look's colours.
        seen: ``(s, s)`` bool, what is seen of the object.
        templates: in the object's own colours.
        poses: ``(t, 4, 4)`` of the templates.
        types: ``(t,)`` 0 for positives and 1 for negatives.
        look: how the object differs from its templates.
    """
    side = len(seen)
    K, pose, crop = warped.K, warped.cam_from_obj, warped.crop_from_image
    template_K, template_pose = np.stack([each.K for each in templates]), poses.numpy()
    query, depth = float_picture(picture), torch.from_numpy(np.where(seen, warped.depth, 0))
    pictures = torch.stack([float_picture(each.color) for each in templates])[:, list(look.channels)]
    depths = torch.from_numpy(np.stack([each.depth for each in templates]))
    masks = torch.from_numpy(np.stack([each.mask for each in templates]))
    mask = torch.from_numpy(seen)
    if look.mirrored:
        K, template_K = mirror_camera(K, side), mirror_camera(template_K, side)
        pose, template_pose = mirror_pose(pose), mirror_pose(template_pose)
        # the picture that was cropped is mirrored about its own first column
        crop = crop * [[1, -1, -1], [-1, 1, 1]] + [[0, 0, side - 1], [0, 0, 0]]
        layers = (query, depth, mask, pictures, depths, masks)
        query, depth, mask, pictures, depths, masks = (each.flip(-1) for each in layers)
    return PoseCrop(
        query,
        depth,
        mask,
        torch.from_numpy(K),
        torch.from_numpy(pose),
        pictures,
        depths,
        masks,
        torch.from_numpy(template_K),
        torch.from_numpy(template_pose),
        types,
        diameter,
        number,
        torch.from_numpy(crop),
    )


def without_colors(crop: PoseCrop) -> PoseCrop:
    """The same crop and templates in grey."""
    shares = torch.tensor(_LUMA).view(3, 1, 1)
    query, templates = (
        (each * shares).sum(-3, keepdim=True).expand_as(each).contiguous()
        for each in (crop.query, crop.templates)
    )
    return crop._replace(query=query, templates=templates)


def _any_pixel(rng: np.random.Generator, seen: np.ndarray) -> np.ndarray:
    """``(x, y)`` of one of the pixels that are seen."""
    row, column = divmod(int(rng.choice(np.flatnonzero(seen))), seen.shape[1])
    return np.array([column, row])


def _draw_shadow(rng: np.random.Generator, canvas: np.ndarray, patch: Patch) -> None:
    side = canvas.shape[0]
    angle, reach = rng.uniform(0, 2 * np.pi), side * rng.uniform(0.03, 0.2)
    place = (round(reach * np.cos(angle)), round(reach * np.sin(angle)))
    darken(canvas, patch, place, strength=rng.uniform(0.2, 0.55), softness=side * rng.uniform(0.01, 0.05))


def segmented(rng: np.random.Generator, seen: np.ndarray) -> np.ndarray:
    """What a segmentation takes for the object: right, or a little too much or too little."""
    kernel = np.ones((3, 3), np.uint8)
    change = (None, cv2.dilate, cv2.erode)[int(rng.integers(3))]
    if change is None:
        return seen
    return change(seen.view(np.uint8), kernel, iterations=int(rng.integers(1, 3))).view(bool)
