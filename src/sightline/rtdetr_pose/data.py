"""What the room learns from: pictures of the network's size with boxes, depths, rotations and geometry.

A picture is resized without borders, each axis by its own factor, and K with it: the centre of the top-left
pixel is (0, 0) before and after. Boxes are those of whole silhouettes, cut at the picture's edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NotRequired, TypedDict

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sightline.geometry.boxes import cxcywh_from_xyxy, normalize
from sightline.geometry.depth import create_geom_input
from sightline.geometry.symmetry import SymmetryGroup
from sightline.rtdetr_pose.augmentation import PoseAugmentation
from sightline.rtdetr_pose.picture_moves import make_move, move_picture
from sightline.rtdetr_pose.pictures import LabelledPicture, ObjectClass, PictureSource

_THINNEST_PX = 2.0  # side of a box that is still one


class PoseTarget(TypedDict):
    """What one picture shows; ``n`` may be 0, and the keys of poses are missing where there is no camera.

    Keys:
        labels: ``(n,)`` int64 classes from 0.
        boxes: ``(n, 4)`` float32 cxcywh in [0, 1].
        image_size: ``(2,)`` float32 width and height of the network's picture, pixels.
        K: ``(3, 3)`` float32 of the network's picture, pixels.
        z: ``(n,)`` float32 depth of the object's origin, metres; NaN where the pose is not known.
        R: ``(n, 3, 3)`` float32 of ``cam_from_obj``.
        t: ``(n, 3)`` float32 of ``cam_from_obj``, metres.
        offsets: ``(n, 2)`` float32 pixels of the network's picture from the box's centre to the projection of
            the object's origin.
        pose_valid: ``(n,)`` bool.
        diameters: ``(n,)`` float32 metres.
        geom: ``(2 | 3, h, w)`` float32 geometry tensor, a cell for each ``stride`` pixels.
        masks: ``(n, H, W)`` bool, what is seen of each.
        depth: ``(H, W)`` float32 metres, 0 where missing.
    """

    labels: Int[Tensor, " n"]
    boxes: Float[Tensor, "n 4"]
    image_size: Float[Tensor, "2"]
    K: NotRequired[Float[Tensor, "3 3"]]
    z: NotRequired[Float[Tensor, " n"]]
    R: NotRequired[Float[Tensor, "n 3 3"]]
    t: NotRequired[Float[Tensor, "n 3"]]
    offsets: NotRequired[Float[Tensor, "n 2"]]
    pose_valid: NotRequired[Bool[Tensor, " n"]]
    diameters: NotRequired[Float[Tensor, " n"]]
    geom: NotRequired[Float[Tensor, "c h w"]]
    masks: NotRequired[Bool[Tensor, "n H W"]]
    depth: NotRequired[Float[Tensor, "H W"]]


class PoseSample(TypedDict):
    """One picture, float32 RGB ``(3, H, W)`` in [0, 1], and its target."""

    image: Float[Tensor, "3 H W"]
    target: PoseTarget


class PoseBatch(TypedDict):
    """Pictures of one size with their targets.

    Keys:
        images: ``(b, 3, H, W)`` float32 RGB in [0, 1].
        targets: one a picture.
        intrinsics: ``(b, 3, 3)`` float32 pixels; None where some picture has no camera.
        geom: ``(b, c, h, w)`` float32; None where some picture has no masks or no depth.
    """

    images: Float[Tensor, "b 3 H W"]
    targets: list[PoseTarget]
    intrinsics: Float[Tensor, "b 3 3"] | None
    geom: Float[Tensor, "b c h w"] | None


class PoseScenes:
    """Samples of a source of labelled pictures, as the trainer takes them.

    Args:
        source: of pictures.
        image_size: ``(width, height)`` of the network's picture, pixels, multiples of ``stride``.
        augmentation: of look and place; None for none.
        stride: pixels to a cell of the geometry tensor.
        with_validity: whether that has a third channel, 1 where depth is known.
        with_maps: whether targets hold masks and depth at full size.
        fixed: whether ``sample`` ignores its generator and gives the same each time, as validation wants it.
        seed: of that.

    Raises:
        ValueError: a size that is no multiple of the stride.

    Example:
        >>> from sightline.rtdetr_pose.pictures import GeneratedPictures
        >>> from sightline.synthetic import make_object
        >>> from sightline.synthetic.backdrops import BackdropBank
        >>> from sightline.synthetic.pose_composites import CompositeSettings, PoseComposites
        >>> from sightline.synthetic.pose_views import PoseViewSettings
        >>> from sightline.synthetic.view_bank import ViewBank
        >>> bank = ViewBank([make_object("box", 0)], PoseViewSettings(num_queries=8, query_px=48))
        >>> small = CompositeSettings((96, 64), empty_share=0.0)
        >>> pictures = PoseComposites(bank, None, BackdropBank(1, image_size=(64, 48)), small)
        >>> scenes = PoseScenes(GeneratedPictures(pictures), (96, 64))
        >>> batch = scenes.collate([scenes.sample(0, np.random.default_rng(0))])
        >>> batch["images"].shape, batch["geom"].shape, batch["targets"][0]["labels"].tolist()
        (torch.Size([1, 3, 64, 96]), torch.Size([1, 2, 2, 3]), [0])
    """

    def __init__(
        self,
        source: PictureSource,
        image_size: tuple[int, int] = (256, 192),
        *,
        augmentation: PoseAugmentation | None = None,
        stride: int = 32,
        with_validity: bool = False,
        with_maps: bool = False,
        fixed: bool = False,
        seed: int = 0,
    ) -> None:
        if min(image_size) < stride or any(side % stride for side in image_size):
            raise ValueError(f"image_size: expected multiples of the stride {stride}, got {image_size}")
        self.source, self.image_size, self.augmentation = source, tuple(image_size), augmentation
        self.stride, self.with_validity, self.with_maps = stride, with_validity, with_maps
        self.fixed, self.seed = fixed, seed

    def __len__(self) -> int:
        return len(self.source)

    @property
    def classes(self) -> Sequence[ObjectClass]:
        """What is known of the labels."""
        return self.source.classes

    @property
    def symmetries(self) -> list[SymmetryGroup]:
        """One a class, as the losses take them."""
        return [each.symmetries for each in self.classes]

    @property
    def diameters(self) -> list[float]:
        """One a class, metres, as the model's ``set_objects`` takes them."""
        return [each.diameter for each in self.classes]

    def sample(self, index: int, rng: np.random.Generator) -> PoseSample:
        """A sample of the trainer.

        Args:
            index: from 0.
            rng: draws what is random.
        """
        if self.fixed:
            rng = np.random.default_rng([self.seed, index])
        moved = self.picture(index, rng)
        return PoseSample(image=_as_tensor(moved.image), target=self._target(moved))

    def picture(self, index: int, rng: np.random.Generator) -> LabelledPicture:
        """The same in the network's pixels, before it becomes tensors."""
        picture = self.source.draw(index, rng)
        if self.augmentation is None:
            move = make_move(picture.K, picture.size, self.image_size)
        else:
            move = self.augmentation.draw_move(rng, picture, self.image_size, self.classes)
        moved = move_picture(picture, move, self.classes)
        return moved if self.augmentation is None else self.augmentation.change_look(rng, moved)

    def collate(self, samples: Sequence[PoseSample]) -> PoseBatch:
        """A batch of samples; see :func:`collate`."""
        return collate(samples)

    def _target(self, picture: LabelledPicture) -> PoseTarget:
        size = np.array(self.image_size)
        boxes = np.concatenate([picture.boxes[:, :2].clip(-0.5), picture.boxes[:, 2:]], -1)
        boxes[:, 2:] = np.minimum(boxes[:, 2:], size - 0.5)
        rows = np.flatnonzero(((boxes[:, 2:] - boxes[:, :2]) >= _THINNEST_PX).all(-1))
        boxes = boxes[rows]
        shares = cxcywh_from_xyxy(normalize(torch.from_numpy(boxes), self.image_size))
        target = PoseTarget(
            labels=torch.from_numpy(picture.labels[rows]),
            boxes=shares.float().clamp(0, 1),
            image_size=torch.from_numpy(size.astype(np.float32)),
        )
        if picture.K is not None:
            self._add_poses(target, picture, picture.K, rows, boxes)
        if picture.masks is not None and picture.depth is not None:
            seen = np.logical_or.reduce(picture.masks[rows], axis=0)
            target["geom"] = picture_geometry(
                seen, picture.depth, self.stride, with_validity=self.with_validity
            )
        if self.with_maps and picture.masks is not None:
            target["masks"] = torch.from_numpy(picture.masks[rows])
        if self.with_maps and picture.depth is not None:
            target["depth"] = torch.from_numpy(picture.depth)
        return target

    def _add_poses(
        self, target: PoseTarget, picture: LabelledPicture, K: np.ndarray, rows: np.ndarray, boxes: np.ndarray
    ) -> None:
        valid = picture.pose_valid[rows]
        pose = np.where(valid[:, None, None], picture.cam_from_obj[rows], np.nan)
        t = pose[:, :3, 3]
        seen = t @ K.T
        offsets = seen[:, :2] / seen[:, 2:] - (boxes[:, :2] + boxes[:, 2:]) / 2
        sizes = np.array([self.classes[int(label)].diameter for label in picture.labels[rows]])
        target["K"], target["pose_valid"] = _floats(K), torch.from_numpy(valid)
        target["z"], target["R"], target["t"] = _floats(t[:, 2]), _floats(pose[:, :3, :3]), _floats(t)
        target["offsets"], target["diameters"] = _floats(offsets), _floats(sizes)


def picture_geometry(
    mask: Bool[np.ndarray, "H W"], depth: np.ndarray, stride: int, *, with_validity: bool = False
) -> Float[Tensor, "c h w"]:
    """The geometry tensor of all objects of a picture, made at the size in which it is used.

    Args:
        mask: what is seen of the objects.
        depth: ``(H, W)`` metres, 0 or NaN where missing.
        stride: pixels to a cell.
        with_validity: add a channel, 1 where a cell's depth is known.

    Returns:
        ``(2 | 3, H / stride, W / stride)``: the share of each cell that objects cover, and that share times
        the logarithm of the mean depth of what is seen of them over the median of all cells: one reference
        for a picture, so that objects keep their depths relative to each other.

    Example:
        >>> mask = np.zeros((4, 8), bool)
        >>> mask[:, :2] = mask[:, 4:] = True
        >>> depth = np.full((4, 8), 2.0, np.float32)
        >>> depth[:, 4:] = 4.0
        >>> picture_geometry(mask, depth, 4)
        tensor([[[0.5000, 1.0000]],
        <BLANKLINE>
                [[0.0000, 0.6931]]])
    """
    height, width = mask.shape
    size = (width // stride, height // stride)
    known = mask & (depth > 0) & np.isfinite(depth)
    maps = np.dstack([mask, known, np.where(known, depth, 0)]).astype(np.float32)
    cells = cv2.resize(maps, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], 3)
    covered, measured, total = (torch.from_numpy(np.ascontiguousarray(cells[..., k])) for k in range(3))
    mean = torch.where(measured > 0, total / measured.clamp(min=1e-9), 0.0)
    return create_geom_input(covered, mean, with_validity=with_validity)


def collate(samples: Sequence[PoseSample]) -> PoseBatch:
    """A batch of samples of one size.

    Args:
        samples: at least one.

    Raises:
        ValueError: no samples.
    """
    if not samples:
        raise ValueError("samples: expected at least one, got none")
    targets = [sample["target"] for sample in samples]
    cameras = [target["K"] for target in targets if "K" in target]
    geometry = [target["geom"] for target in targets if "geom" in target]
    return PoseBatch(
        images=torch.stack([sample["image"] for sample in samples]),
        targets=targets,
        intrinsics=torch.stack(cameras) if len(cameras) == len(targets) else None,
        geom=torch.stack(geometry) if len(geometry) == len(targets) else None,
    )


def _floats(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))


def _as_tensor(image: np.ndarray) -> Float[Tensor, "3 H W"]:
    """``(3, H, W)`` float32 in [0, 1], contiguous."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float().div_(255)
