"""Crops of objects in pictures of scenes, with templates, for learning poses from BOP's data sets and shards.

A picture is turned about its principal point, so that the object stands in it as in its templates up to the
turn that training allows, and cut around what is seen of the object; pose and K of the crop are exact. Depth
is that of the mesh at its pose, or the picture's own where that is exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8

from sightline.formats.frames import Frame, FrameObject, Frames, load_mask
from sightline.formats.tar_shards import FaultReport
from sightline.geometry.rotations import twist_about_z
from sightline.rendering import render_views
from sightline.synthetic.layers import Look
from sightline.synthetic.pose_crops import (
    ChooseTemplates,
    PoseCrop,
    PoseCropSettings,
    join_crop,
    nearest_equivalents,
    segmented,
    upright_pose,
    without_colors,
)
from sightline.synthetic.pose_views import PoseView
from sightline.synthetic.pose_warp import TurnedCrop, WarpedView, resample_view, turned_crop
from sightline.synthetic.sensor import expose
from sightline.vpog.crops import cut_part
from sightline.vpog.scene_objects import SceneObjects

DepthSource = Literal["mesh", "picture"]

_MOST_SKIPPED = 200  # samples in a row that cannot be used
_FEWEST_PIXELS = 20  # that must show the object
_LEAST_AGREEMENT = 0.5  # share of the visible mask that the object covers at its pose


class SceneCrops:
    """Numbered crops of what is to be seen of objects in frames.

    Where `places` are known beforehand each number stands for one instance in one frame, else for a frame, of
    whose visible instances one is drawn. What cannot be used is skipped for the next number's and noted in
    ``report``.

    Args:
        frames: with cameras, poses and visible masks.
        objects: templates and meshes; instances of other objects are passed over.
        settings: of turn, framing, looks and the camera's faults; what is said of pasting is not used.
        places: ``(frame, object)`` of each number, both from 0.
        depth_from: ``mesh``, or ``picture`` where a picture's depth is exact, as in rendered data sets.
        min_visible: share of the silhouette that must be seen, at least.
        report: of what is skipped; a new one unless given.

    Raises:
        ValueError: nothing to draw from, or depth from meshes where there are none.
    """

    def __init__(
        self,
        frames: Frames,
        objects: SceneObjects,
        settings: PoseCropSettings | None = None,
        *,
        places: Sequence[tuple[int, int]] | None = None,
        depth_from: DepthSource | str = "mesh",
        min_visible: float = 0.1,
        report: FaultReport | None = None,
    ) -> None:
        if depth_from not in ("mesh", "picture"):
            raise ValueError(f"depth_from: expected mesh or picture, got {depth_from!r}")
        if depth_from == "mesh" and not objects.meshes:
            raise ValueError("depth_from: expected picture, because there are no meshes to take it from")
        self.frames, self.objects, self.settings = frames, objects, settings or PoseCropSettings()
        self.places = None if places is None else np.asarray(places, np.int64).reshape(-1, 2)
        self.depth_from, self.min_visible = depth_from, min_visible
        self.report = FaultReport() if report is None else report
        if not len(self):
            raise ValueError("scenes: expected visible objects of which there are templates, found none")

    def __len__(self) -> int:
        return len(self.frames) if self.places is None else len(self.places)

    @property
    def side(self) -> int:
        """Of each crop, pixels."""
        return self.objects.settings.template_px

    def draw(self, number: int, rng: np.random.Generator, choose: ChooseTemplates) -> PoseCrop:
        """The crop of a number, or of the next that can be used, with templates.

        Args:
            number: from 0.
            rng: draws everything.
            choose: the templates.

        Raises:
            ValueError: too many in a row cannot be used; says why the last one could not.
        """
        last = "no visible instance of an object with templates"
        for step in range(min(len(self), _MOST_SKIPPED)):
            index = (number + step) % len(self)
            try:
                found = self._instance(index, rng)
                if found is not None:
                    return self._draw(*found, rng, choose)
            except (ValueError, FileNotFoundError) as error:
                last = str(error)
                self.report.note(f"sample {index}", last)
        raise ValueError(f"scenes: expected something to learn from near sample {number}, found none: {last}")

    def _instance(self, index: int, rng: np.random.Generator) -> tuple[Frame, FrameObject] | None:
        if self.places is not None:
            row, which = self.places[index].tolist()
            frame = self.frames[row]
            return frame, frame.objects[which]
        frame = self.frames[index]
        seen = [
            one
            for one in frame.objects
            if one.obj_id in self.objects and (one.visibility is None or one.visibility > self.min_visible)
        ]
        return (frame, seen[int(rng.integers(len(seen)))]) if seen else None

    def _draw(
        self, frame: Frame, found: FrameObject, rng: np.random.Generator, choose: ChooseTemplates
    ) -> PoseCrop:
        if frame.camera is None or found.cam_from_obj is None or found.obj_id is None:
            raise ValueError(f"{frame.name}: {found.name}: expected a camera, a pose and a number")
        settings, views = self.settings, self.objects.views(found.obj_id)
        look = Look.draw(rng, settings.recolor_share, settings.mirror_share)
        gray = bool(rng.uniform() < settings.gray_share)
        pose = found.cam_from_obj.numpy()
        upright = upright_pose(pose)
        level = float(twist_about_z(upright[:3, :3] @ found.cam_from_obj[:3, :3].T))
        angle = level + float(rng.uniform(-settings.turn, settings.turn))
        fill = float(rng.uniform(*settings.fill))
        shift = tuple(rng.uniform(-settings.shift, settings.shift, size=2))
        mask = _visible(frame, found)
        rows, columns = np.nonzero(mask)
        pixels = np.stack([columns, rows], axis=-1).astype(np.float64)
        made = turned_crop(frame.camera.K.numpy(), pixels, angle, fill, shift, self.side)
        depth, seen = self._depth(frame, found, mask, made, views.diameter)
        picture = expose(self._cut(frame, made), rng, settings.sensor)
        if rng.uniform() >= settings.background_share:
            picture[~segmented(rng, seen)] = 0
        poses = nearest_equivalents(views, upright)
        chosen, types = choose(rng, upright, poses)
        templates = [views.templates.view(int(row)) for row in chosen]
        layers = np.dstack([picture, seen.astype(np.uint8) * 255])
        warped = WarpedView(layers, depth, seen, made.K, made.pose(pose), made.affine)
        picture = np.ascontiguousarray(picture[..., list(look.channels)])
        crop = join_crop(
            found.obj_id, views.diameter, warped, picture, seen, templates, poses[chosen], types, look
        )
        return without_colors(crop) if gray else crop

    def _cut(self, frame: Frame, made: TurnedCrop) -> UInt8[np.ndarray, "s s 3"]:
        """The crop's picture, black where the frame ends; averaged where it shrinks."""
        back = np.linalg.inv(np.vstack([made.affine, [0, 0, 1]]))
        edge = self.side - 0.5
        corners = np.array([[-0.5, -0.5, 1], [edge, -0.5, 1], [-0.5, edge, 1], [edge, edge, 1]]) @ back.T
        region = torch.from_numpy(np.concatenate([corners[:, :2].min(0), corners[:, :2].max(0)]))
        scale = math.sqrt(abs(np.linalg.det(made.affine[:, :2])))
        part = cut_part(frame.read_image(), region, scale)
        if part is None:
            raise ValueError(f"{frame.name}: the object lies outside the picture")
        image, part_from_image = part
        to_image = np.linalg.inv(np.vstack([part_from_image.numpy(), [0, 0, 1]]))
        size = (self.side, self.side)
        return cv2.warpAffine(
            np.ascontiguousarray(image), made.affine @ to_image, size, flags=cv2.INTER_LINEAR
        )

    def _depth(
        self,
        frame: Frame,
        found: FrameObject,
        mask: Bool[np.ndarray, "h w"],
        made: TurnedCrop,
        diameter: float,
    ) -> tuple[Float32[np.ndarray, "s s"], Bool[np.ndarray, "s s"]]:
        """Depth of the object in the crop, and where it is seen."""
        assert found.cam_from_obj is not None
        size = (self.side, self.side)
        inside = cv2.warpAffine(mask.view(np.uint8), made.affine, size, flags=cv2.INTER_NEAREST) > 0
        if self.depth_from == "mesh":
            assert found.obj_id is not None
            pose = torch.from_numpy(made.pose(found.cam_from_obj.numpy()))[None]
            mesh = self.objects.mesh(found.obj_id)
            drawn = render_views(mesh, pose, torch.from_numpy(made.K)[None], size, outputs=("depth",))
            depth = drawn.depth[0].numpy()
        else:
            depth = self._own_depth(frame, found, mask, made, diameter)
        seen = inside & (depth > 0)
        if seen.sum() < max(_FEWEST_PIXELS, _LEAST_AGREEMENT * inside.sum()):
            raise ValueError(
                f"{frame.name}: {found.name}: {int(seen.sum())} of the {int(inside.sum())} pixels of its "
                "mask show the object at its pose"
            )
        return depth, seen

    def _own_depth(
        self, frame: Frame, found: FrameObject, mask: np.ndarray, made: TurnedCrop, diameter: float
    ) -> Float32[np.ndarray, "s s"]:
        depth = frame.read_depth()
        if depth is None or depth.shape != mask.shape:
            raise ValueError(f"{frame.name}: expected a depth map of the picture's size")
        assert found.cam_from_obj is not None and frame.camera is not None
        x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
        part = np.s_[y : y + height, x : x + width]
        known = mask[part] & (depth[part] > 0)
        view = PoseView(
            np.zeros((*known.shape, 3), np.uint8),
            np.where(known, depth[part], np.float32(0)),
            known,
            frame.camera.K.numpy(),
            found.cam_from_obj.numpy(),
        )
        affine = made.affine.copy()
        affine[:, 2] += affine[:, :2] @ [x, y]  # from the part's pixels
        return resample_view(view, affine, self.side, diameter)[1]


def _visible(frame: Frame, found: FrameObject) -> Bool[np.ndarray, "h w"]:
    """What is seen of an object; all of its box where no mask says more."""
    assert frame.camera is not None
    width, height = frame.camera.image_size
    if found.mask is not None:
        mask = load_mask(found.mask)
    else:
        mask = np.zeros((height, width), bool)
        box = found.box
        if box is not None and bool(box.isfinite().all()):
            x1, y1, x2, y2 = (round(value + 0.5) for value in box.tolist())
            mask[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)] = True
    if mask.shape != (height, width) or not mask.any():
        raise ValueError(f"{frame.name}: {found.name}: expected a visible mask or box of the picture's size")
    return mask
