"""Pictures of several objects with everything known: poses, masks, visible shares, boxes, depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sightline.geometry.boxes import boxes_from_masks
from sightline.geometry.cameras import Camera
from sightline.records import TriangleMesh
from sightline.rendering import PreparedMesh, render_scene
from sightline.synthetic.backgrounds import BACKGROUND_KINDS, TABLE_KINDS, make_background
from sightline.synthetic.layout import Placement, arrange
from sightline.synthetic.lighting import LightSettings, cast_shadows, draw_lights
from sightline.synthetic.objects import SyntheticObject
from sightline.synthetic.sensor import SensorSettings, expose, sense_depth
from sightline.synthetic.silhouettes import visible_masks

Range = tuple[float, float]

_TABLE_REACH, _TABLE_TEXELS = 1.2, 768
_OUTPUTS = ("color", "depth", "normals")


@dataclass(frozen=True)
class SceneSettings:
    """What pictures are like; each draws its own values between two ends.

    Args:
        image_size: (width, height), pixels.
        focal: focal length in widths of the picture.
        size_px: longest side of a target's box, pixels.
        min_visible: least visible share of a target's silhouette.
        cover: chance that an object that is no target is put before one.
        table_share: chance that objects stand on a table instead of floating.
        backgrounds: kinds of what lies behind.
        lights: lamps and shadows.
        sensor: the camera's faults.

    Example:
        >>> SceneSettings(image_size=(320, 240), size_px=(40, 120)).min_visible
        0.5
    """

    image_size: tuple[int, int] = (640, 480)
    focal: Range = (0.9, 1.25)
    size_px: Range = (70.0, 230.0)
    min_visible: float = 0.5
    cover: float = 0.5
    table_share: float = 0.5
    backgrounds: tuple[str, ...] = BACKGROUND_KINDS
    lights: LightSettings = field(default_factory=LightSettings)
    sensor: SensorSettings = field(default_factory=SensorSettings)


@dataclass(frozen=True, eq=False)
class Scene:
    """One picture and the truth about it; ``m`` objects found a place in it.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        depth: ``(h, w)`` float32 metres as the sensor gives it, 0 where missing.
        camera: pinhole, without distortion.
        names: the object of each instance.
        object_indices: which of the objects that were asked for each instance is.
        cam_from_obj: ``(m, 4, 4)`` float64 poses, metres.
        masks: ``(m, h, w)`` bool, what is seen of each.
        masks_full: ``(m, h, w)`` bool, what each would cover alone, within the picture.
        silhouette_px: ``(m,)`` int64 pixels of the whole silhouette, those outside the picture too.
        visib_fract: ``(m,)`` float64 share of the whole silhouette that is seen.
        boxes: ``(m, 4)`` float64 ``xyxy`` pixels of the whole silhouette; may leave the picture.
        boxes_visible: ``(m, 4)`` float64 ``xyxy`` pixels of what is seen; NaN where nothing is.
        cam_from_table: ``(4, 4)`` float64 pose of the table, whose plane is z = 0; None where objects float.
    """

    image: np.ndarray
    depth: Float[Tensor, "h w"]
    camera: Camera
    names: tuple[str, ...]
    object_indices: tuple[int, ...]
    cam_from_obj: Float[Tensor, "m 4 4"]
    masks: Bool[Tensor, "m h w"]
    masks_full: Bool[Tensor, "m h w"]
    silhouette_px: Int[Tensor, " m"]
    visib_fract: Float[Tensor, " m"]
    boxes: Float[Tensor, "m 4"]
    boxes_visible: Float[Tensor, "m 4"]
    cam_from_table: Float[Tensor, "4 4"] | None = None

    def __len__(self) -> int:
        return len(self.object_indices)


def make_scene(
    objects: Sequence[SyntheticObject],
    seed: int | Sequence[int],
    settings: SceneSettings | None = None,
    *,
    num_targets: int | None = None,
) -> Scene:
    """Make one picture; the same arguments give the same bytes.

    Args:
        objects: what is in the picture, targets first; one given twice stands in it twice.
        seed: of poses, lights, background and sensor.
        settings: what the picture is like.
        num_targets: how many of the first objects are wholly in the picture, of the wanted size and visible
            to the wanted share; all unless given. The others fill the picture, cover targets, and are left
            out where there is no room.

    Returns:
        The picture with its truth.

    Raises:
        ValueError: the targets do not fit into the picture.

    Example:
        >>> from sightline.synthetic.objects import make_object
        >>> small = SceneSettings(image_size=(96, 72), size_px=(30, 60))
        >>> scene = make_scene([make_object("mug", 0)], 1, small)
        >>> scene.image.shape, bool(scene.visib_fract[0] == 1)
        ((72, 96, 3), True)
    """
    settings = settings or SceneSettings()
    rng = np.random.default_rng(seed)
    meshes = [thing.prepared for thing in objects]
    camera = _draw_camera(rng, settings)
    placement = arrange(
        meshes,
        len(objects) if num_targets is None else num_targets,
        camera,
        rng,
        size_px=settings.size_px,
        min_visible=settings.min_visible,
        table=bool(rng.uniform() < settings.table_share),
        cover=settings.cover,
    )
    clean, depth = _draw(meshes, placement, camera, rng, settings)
    masks, _ = visible_masks(placement.silhouettes, camera.image_size)
    drawn = placement.silhouettes
    whole = torch.tensor([silhouette.num_pixels for silhouette in drawn], dtype=torch.int64)
    full = np.array([s.depth_in(camera.image_size) > 0 for s in drawn], bool).reshape(masks.shape)
    return Scene(
        expose(clean, rng, settings.sensor),
        torch.from_numpy(sense_depth(depth, rng, settings.sensor)),
        camera,
        tuple(objects[index].name for index in placement.kept),
        placement.kept,
        torch.from_numpy(placement.cam_from_obj),
        torch.from_numpy(masks),
        torch.from_numpy(full),
        whole,
        torch.from_numpy(masks).sum((1, 2)).double() / whole.clamp(min=1),
        torch.stack([s.box for s in drawn]) if drawn else torch.zeros(0, 4, dtype=torch.float64),
        boxes_from_masks(torch.from_numpy(masks)).double(),
        None if placement.cam_from_table is None else torch.from_numpy(placement.cam_from_table),
    )


def _draw_camera(rng: np.random.Generator, settings: SceneSettings) -> Camera:
    width, height = settings.image_size
    camera = Camera.from_focal(float(rng.uniform(*settings.focal)) * width, width, height)
    shift = rng.uniform(-0.02, 0.02, 2) * width
    return camera.crop(float(shift[0]), float(shift[1]), width, height)


def _draw(
    meshes: Sequence[PreparedMesh],
    placement: Placement,
    camera: Camera,
    rng: np.random.Generator,
    settings: SceneSettings,
) -> tuple[np.ndarray, np.ndarray]:
    """The lit picture before the sensor, and its exact depth."""
    kind = settings.backgrounds[int(rng.integers(len(settings.backgrounds)))]
    background = torch.from_numpy(make_background(rng, settings.image_size, kind))
    lights = draw_lights(rng, settings.lights, placement.cam_from_table)
    render = partial(render_scene, K=camera.K, image_size=camera.image_size, lights=lights, outputs=_OUTPUTS)
    depth, normals = torch.zeros(camera.height, camera.width), torch.zeros(camera.height, camera.width, 3)
    if placement.cam_from_table is not None:
        # alone and without supersampling: its texture is filtered anyway, and nothing hides behind it
        pose = torch.from_numpy(placement.cam_from_table)[None]
        table = render([_make_table(rng)], pose, background=background)
        background, depth, normals = table.color[0], table.depth[0], table.normals[0]
    shown = [meshes[index] for index in placement.kept]
    if not shown:
        return background.numpy(), depth.numpy()
    poses = torch.from_numpy(placement.cam_from_obj)
    result = render(shown, poses, background=background, samples=2)
    front = result.depth[0] > 0
    depth = torch.where(front, result.depth[0], depth)
    normals = torch.where(front[..., None], result.normals[0], normals)
    image = result.color[0].numpy()
    darkness = float(rng.uniform(*settings.lights.shadow))
    if darkness > 0:
        shadow = cast_shadows(shown, poses, depth, normals, camera, lights.positions[0, :3])
        image = image * (1.0 - darkness * shadow[..., None])
    return image, depth.numpy()


def _make_table(rng: np.random.Generator) -> TriangleMesh:
    kind = TABLE_KINDS[int(rng.integers(len(TABLE_KINDS)))]
    picture = make_background(rng, (_TABLE_TEXELS, _TABLE_TEXELS), kind)
    reach = _TABLE_REACH
    corners = torch.tensor([[-reach, reach, 0], [reach, reach, 0], [reach, -reach, 0], [-reach, -reach, 0]])
    uv = torch.tensor([[0.0, 0], [2, 0], [2, 2], [0, 2]])
    faces = torch.tensor([[0, 3, 2], [0, 2, 1]])
    return TriangleMesh(corners.double(), faces, uv=uv[faces], texture=torch.from_numpy(picture))
