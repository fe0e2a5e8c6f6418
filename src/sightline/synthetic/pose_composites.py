"""Training pictures of a closed set of objects with exact poses, pasted in some milliseconds.

Views of a bank are turned to their places (`view_turning`), laid over a backdrop from the farthest to the
nearest, and seen by a camera with faults. Nearness is that of the objects' origins, in picture, masks and
depth alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from sightline.synthetic.backdrops import BackdropBank
from sightline.synthetic.layers import draw_backdrop
from sightline.synthetic.pasting import Patch, blend, darken, overlap
from sightline.synthetic.sensor import SensorSettings, expose
from sightline.synthetic.view_bank import ViewBank
from sightline.synthetic.view_turning import TurnedView, turn_view

Range = tuple[float, float]

_TRIES = 8
_RIVALS = 48  # views nearest in size, of which one is drawn
_MARGIN_PX = 1.0
_FAINTEST = 6  # pixels of the silhouette that an object must show


@dataclass(frozen=True)
class CompositeSettings:
    """What pictures are like; each draws its own values between two ends.

    Args:
        image_size: (width, height), pixels.
        focal: focal length in widths of the picture.
        off_centre: largest distance of the principal point from the middle, in widths.
        wanted: (least, largest) number of wanted objects, each once.
        empty_share: chance of a picture without any.
        others: (least, largest) number of other objects, which are left out where there is no room.
        extent: longer side of a silhouette, in widths of the picture, log-uniform.
        min_visible: least share of a wanted object's silhouette that is seen.
        cut_share: chance that a wanted object may leave the picture, by as much as ``min_visible`` allows.
        shadow_share: chance that objects throw a shadow on what lies behind them.
        gain: factor on an object's brightness.
        zoom: how many times smaller than a whole backdrop the part is that is shown.
        sensor: the camera's faults.

    Raises:
        ValueError: a share that is none, or a range that is empty.
    """

    image_size: tuple[int, int] = (256, 192)
    focal: Range = (0.85, 1.3)
    off_centre: float = 0.03
    wanted: tuple[int, int] = (1, 4)
    empty_share: float = 0.06
    others: tuple[int, int] = (0, 4)
    extent: Range = (0.1, 0.37)
    min_visible: float = 0.4
    cut_share: float = 0.08
    shadow_share: float = 0.5
    gain: Range = (0.8, 1.2)
    zoom: Range = (1.0, 2.0)
    sensor: SensorSettings = field(
        default_factory=lambda: SensorSettings((0.7, 1.25), 0.14, (0.0, 0.6), (0.0, 0.0), None)
    )

    def __post_init__(self) -> None:
        """Check the shares and ranges."""
        for name, value in vars(self).items():
            if name.endswith("_share") or name == "min_visible":
                if not 0 <= value <= 1:
                    raise ValueError(f"{name}: expected a share in [0, 1], got {value}")
            elif isinstance(value, tuple) and name != "image_size" and not 0 <= value[0] <= value[1]:
                raise ValueError(f"{name}: expected (least, largest) of at least 0, got {value}")
        if min(self.image_size) < 16 or self.extent[0] <= 0 or self.focal[0] <= 0:
            raise ValueError(
                "image_size, extent, focal: expected at least 16 px and shares above 0, got "
                f"{self.image_size}, {self.extent}, {self.focal}"
            )


class PoseComposite(NamedTuple):
    """One picture and the truth about its ``n`` wanted objects.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        depth: ``(h, w)`` float32 metres of all objects, 0 where none is.
        K: ``(3, 3)`` float64 pixels.
        labels: ``(n,)`` numbers of the objects in the bank.
        cam_from_obj: ``(n, 4, 4)`` float64 metres.
        boxes: ``(n, 4)`` float64 ``xyxy`` pixels around the whole silhouette; may leave the picture.
        masks: ``(n, h, w)`` bool, what is seen.
        visib_fract: ``(n,)`` float64 share of the whole silhouette that is seen.
    """

    image: UInt8[np.ndarray, "h w 3"]
    depth: Float32[np.ndarray, "h w"]
    K: Float64[np.ndarray, "3 3"]
    labels: Int64[np.ndarray, " n"]
    cam_from_obj: Float64[np.ndarray, "n 4 4"]
    boxes: Float64[np.ndarray, "n 4"]
    masks: Bool[np.ndarray, "n h w"]
    visib_fract: Float64[np.ndarray, " n"]


class _Laid(NamedTuple):
    """An object at its place; ``seen`` changes as others are laid before it."""

    label: int  # -1 for one that is not wanted
    turned: TurnedView
    seen: np.ndarray
    least: float  # pixels of it that must be seen


class PoseComposites:
    """Draws pictures of wanted objects among others.

    Args:
        wanted: the objects with labels, in the order of these.
        others: objects that only fill the pictures; None for none.
        backdrops: what lies behind.
        settings: what the pictures are like.

    Example:
        >>> from sightline.synthetic.objects import make_object
        >>> from sightline.synthetic.pose_views import PoseViewSettings
        >>> bank = ViewBank([make_object("box", 0)], PoseViewSettings(num_queries=8, query_px=48))
        >>> small = CompositeSettings((96, 72), empty_share=0.0)
        >>> drawn = PoseComposites(bank, None, BackdropBank(1, image_size=(64, 48)), small)
        >>> picture = drawn.draw(np.random.default_rng(0))
        >>> picture.image.shape, picture.labels.tolist(), bool(picture.visib_fract[0] > 0.9)
        ((72, 96, 3), [0], True)
    """

    def __init__(
        self,
        wanted: ViewBank,
        others: ViewBank | None,
        backdrops: BackdropBank,
        settings: CompositeSettings | None = None,
    ) -> None:
        self.wanted, self.others, self.backdrops = wanted, others, backdrops
        self.settings = settings or CompositeSettings()

    def draw(self, rng: np.random.Generator) -> PoseComposite:
        """One picture.

        Args:
            rng: draws everything.
        """
        settings = self.settings
        K = self._draw_camera(rng)
        laid: list[_Laid] = []
        for label in self._draw_labels(rng):
            self._lay(rng, laid, K, self.wanted, label, wanted=True)
        if self.others is not None:
            for _ in range(int(rng.integers(settings.others[0], settings.others[1] + 1))):
                self._lay(rng, laid, K, self.others, int(rng.integers(len(self.others))), wanted=False)
        image, depth = self._compose(rng, laid)
        return self._describe(expose(image, rng, settings.sensor), depth, K, laid)

    def _draw_camera(self, rng: np.random.Generator) -> np.ndarray:
        width, height = self.settings.image_size
        focal = width * rng.uniform(*self.settings.focal)
        reach = self.settings.off_centre * width
        x, y = (np.array([width, height]) - 1) / 2 + rng.uniform(-reach, reach, 2)
        return np.array([[focal, 0, x], [0, focal, y], [0, 0, 1]])

    def _draw_labels(self, rng: np.random.Generator) -> list[int]:
        if rng.uniform() < self.settings.empty_share:
            return []
        least, most = (min(end, len(self.wanted)) for end in self.settings.wanted)
        return rng.permutation(len(self.wanted))[: int(rng.integers(least, most + 1))].tolist()

    def _lay(
        self,
        rng: np.random.Generator,
        laid: list[_Laid],
        K: np.ndarray,
        bank: ViewBank,
        index: int,
        *,
        wanted: bool,
    ) -> None:
        """Give an object a place where it hides nothing too much, if one is found."""
        frame = self.settings.image_size
        cut = not wanted or rng.uniform() < self.settings.cut_share
        for _ in range(_TRIES):
            turned = self._propose(rng, K, bank, index, cut=cut)
            _, part = overlap(turned.corner, turned.solid.shape[::-1], frame)
            whole = int(turned.solid.sum())
            seen = np.zeros_like(turned.solid)
            seen[part] = turned.solid[part]
            if wanted and not cut and int(seen.sum()) < whole:
                continue
            least = max(self.settings.min_visible * whole, _FAINTEST) if wanted else 1.0
            new = _Laid(index if wanted else -1, turned, seen, least)
            after = [_covered(each, new) for each in laid]
            for each in laid:
                _hide(new, each)
            pairs = list(zip(laid, after, strict=True))
            if new.seen.sum() >= least and all(rest.sum() >= each.least for each, rest in pairs):
                laid[:] = [each._replace(seen=rest) for each, rest in pairs]
                laid.append(new)
                return

    def _propose(
        self, rng: np.random.Generator, K: np.ndarray, bank: ViewBank, index: int, *, cut: bool
    ) -> TurnedView:
        """A view of about a drawn size somewhere in the picture."""
        size = np.array(self.settings.image_size)
        extents = bank.extents(index) * (K[0, 0] / size[0])
        extent = np.exp(rng.uniform(*np.log(self.settings.extent)))
        near = np.argpartition(np.abs(np.log(extents / extent)), min(_RIVALS, len(extents) - 1))[:_RIVALS]
        view = bank.views(index).view(int(near[int(rng.integers(len(near)))]))
        room = -0.1 * size[0] if cut else 0.5 * extent * size[0] + _MARGIN_PX
        low = np.minimum(room, (size - 1) / 2)
        pixel = rng.uniform(low, np.maximum(size - 1 - low, low + 1e-6))
        return turn_view(view, K, (float(pixel[0]), float(pixel[1])), float(rng.uniform(-np.pi, np.pi)))

    def _compose(self, rng: np.random.Generator, laid: list[_Laid]) -> tuple[np.ndarray, np.ndarray]:
        settings, size = self.settings, self.settings.image_size
        canvas = draw_backdrop(rng, self.backdrops, size, zoom=settings.zoom)
        depth = np.zeros(canvas.shape[:2], np.float32)
        shadow = rng.uniform() < settings.shadow_share
        towards, strength = rng.uniform(0, 2 * np.pi), float(rng.uniform(0.2, 0.5))
        for each in sorted(laid, key=_distance, reverse=True):
            turned = each.turned
            patch = Patch(turned.layers, turned.solid)
            if shadow:
                reach = rng.uniform(0.05, 0.3) * max(patch.size)
                away = np.rint(reach * np.array([np.cos(towards), np.sin(towards)])).astype(int)
                place = (turned.corner[0] + int(away[0]), turned.corner[1] + int(away[1]))
                darken(canvas, patch, place, strength=strength, softness=float(rng.uniform(0.5, 3.0)))
            blend(canvas, patch, turned.corner, gain=float(rng.uniform(*settings.gain)))
            where, part = overlap(turned.corner, patch.size, size)
            np.copyto(depth[where], turned.depth[part], where=turned.solid[part])
        return canvas, depth

    def _describe(
        self, image: np.ndarray, depth: np.ndarray, K: np.ndarray, laid: list[_Laid]
    ) -> PoseComposite:
        wanted = [each for each in laid if each.label >= 0]
        masks = np.zeros((len(wanted), *depth.shape), bool)
        poses, boxes = np.zeros((len(wanted), 4, 4)), np.zeros((len(wanted), 4))
        for row, each in enumerate(wanted):
            where, part = overlap(each.turned.corner, each.seen.shape[::-1], self.settings.image_size)
            masks[row][where] = each.seen[part]
            poses[row] = each.turned.cam_from_obj
            boxes[row] = projected_box(self.wanted.hulls[each.label], poses[row], K)
        shares = [each.seen.sum() / each.turned.solid.sum() for each in wanted]
        labels = np.array([each.label for each in wanted], np.int64)
        return PoseComposite(image, depth, K, labels, poses, boxes, masks, np.array(shares, np.float64))


def projected_box(
    points: Float64[np.ndarray, "v 3"],
    cam_from_obj: Float64[np.ndarray, "4 4"],
    K: Float64[np.ndarray, "3 3"],
) -> Float64[np.ndarray, "4"]:
    """The box around projected points, ``xyxy`` pixels.

    Args:
        points: object frame, metres, all before the camera.
        cam_from_obj: metres.
        K: pixels.

    Example:
        >>> K = np.array([[100.0, 0, 50], [0, 100, 40], [0, 0, 1]])
        >>> projected_box(np.array([[0.0, 0, 2], [1, 1, 2]]), np.eye(4), K).tolist()
        [50.0, 40.0, 100.0, 90.0]
    """
    pixels = (points @ cam_from_obj[:3, :3].T + cam_from_obj[:3, 3]) @ K.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    return np.concatenate([pixels.min(0), pixels.max(0)])


def _distance(each: _Laid) -> float:
    return float(each.turned.cam_from_obj[2, 3])


def _covered(each: _Laid, new: _Laid) -> np.ndarray:
    """What stays seen of an object once another is there."""
    if _distance(new) >= _distance(each):
        return each.seen
    rest = _Laid(each.label, each.turned, each.seen.copy(), each.least)
    _hide(rest, new)
    return rest.seen


def _hide(each: _Laid, other: _Laid) -> None:
    """Take away from what is seen of an object what another one hides, if that is nearer."""
    if _distance(other) >= _distance(each):
        return
    corner, (height, width) = other.turned.corner, other.turned.solid.shape
    own = each.turned.corner
    place = (corner[0] - own[0], corner[1] - own[1])
    where, part = overlap(place, (width, height), each.seen.shape[::-1])
    each.seen[where] &= ~other.turned.solid[part]
