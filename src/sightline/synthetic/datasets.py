"""Scenes as files: a data set in BOP's layout, with its models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sightline.formats.bop_models import ModelInfo, object_name, write_models_info
from sightline.formats.bop_writing import BopSceneWriter
from sightline.formats.frames import Frame, FrameObject
from sightline.formats.json_files import write_json
from sightline.formats.mesh_writing import write_mesh
from sightline.synthetic.objects import SyntheticObject
from sightline.synthetic.scenes import Scene


def frame_of_scene(scene: Scene, obj_ids: Mapping[str, int], frame_id: int, *, scene_id: int = 0) -> Frame:
    """A scene as the formats know it; an instance without an object number is left out.

    Args:
        scene: the picture with its truth.
        obj_ids: object name -> its number.
        frame_id: the frame's number.
        scene_id: the scene's number.

    Returns:
        The frame with picture, depth, camera, poses, masks and boxes.

    Example:
        >>> from sightline.synthetic import make_object, make_scene, SceneSettings
        >>> mug = make_object("mug", 0)
        >>> scene = make_scene([mug], 1, SceneSettings(image_size=(96, 72), size_px=(30, 60)))
        >>> [found.obj_id for found in frame_of_scene(scene, {mug.name: 5}, 0).objects]
        [5]
    """
    objects = tuple(
        FrameObject(
            name=name,
            obj_id=obj_ids[name],
            cam_from_obj=scene.cam_from_obj[row],
            box=None if scene.boxes_visible[row].isnan().any() else scene.boxes_visible[row],
            box_amodal=scene.boxes[row],
            mask=scene.masks[row].numpy(),
            mask_amodal=scene.masks_full[row].numpy(),
            silhouette_px=int(scene.silhouette_px[row]),
            visibility=float(scene.visib_fract[row]),
        )
        for row, name in enumerate(scene.names)
        if name in obj_ids
    )
    return Frame(
        frame_id,
        f"{frame_id:06d}",
        objects,
        scene_id=scene_id,
        camera=scene.camera,
        image=scene.image,
        depth=scene.depth.numpy(),
        cam_from_world=scene.cam_from_table,
    )


def write_bop_dataset(
    folder: str | Path,
    objects: Sequence[SyntheticObject],
    scenes: Iterable[Scene],
    *,
    split: str = "test",
    scene_id: int = 1,
    image_suffix: str = ".png",
    min_visible: float = 0.1,
) -> dict[str, int]:
    """Write models and pictures in BOP's layout, and for a test split the list of targets.

    ``models/`` holds meshes (millimetres) and ``models_info.json`` with the known symmetries,
    ``<split>/<scene_id>/`` the pictures, ``<split>_targets_bop19.json`` which objects are to be found where.

    Args:
        folder: of the data set; other splits and scenes in it stay.
        objects: they get the numbers 1, 2, ... in their order.
        scenes: the pictures, taken one by one.
        split: such as ``"train"`` or ``"test"``.
        scene_id: number of the scene folder, which must not exist.
        image_suffix: ``".png"`` or ``".jpg"``.
        min_visible: the least visible share of a target.

    Returns:
        Object name -> number.

    Raises:
        FileExistsError: the scene exists.
    """
    root = Path(folder)
    obj_ids = {thing.name: number for number, thing in enumerate(objects, start=1)}
    models = root / "models"
    models.mkdir(parents=True, exist_ok=True)
    for thing in objects:
        write_mesh(models / f"{object_name(obj_ids[thing.name])}.ply", thing.mesh, "mm")
    infos = {obj_ids[t.name]: ModelInfo.of_mesh(t.mesh, t.symmetries) for t in objects}
    write_models_info(models / "models_info.json", infos)
    targets = []
    scene_folder = root / split / f"{scene_id:06d}"
    with BopSceneWriter(scene_folder, depth_scale_mm=0.1, image_suffix=image_suffix) as writer:
        for frame_id, scene in enumerate(scenes):
            writer.add(frame_of_scene(scene, obj_ids, frame_id, scene_id=scene_id))
            targets += _targets(scene, obj_ids, scene_id, frame_id, min_visible)
    if split.startswith(("test", "val")):
        write_json(root / f"{split}_targets_bop19.json", targets)
    return obj_ids


def _targets(
    scene: Scene, obj_ids: Mapping[str, int], scene_id: int, frame_id: int, min_visible: float
) -> list[dict[str, int]]:
    seen = [n for n, v in zip(scene.names, scene.visib_fract.tolist(), strict=True) if v >= min_visible]
    return [
        {"im_id": frame_id, "inst_count": seen.count(name), "obj_id": obj_ids[name], "scene_id": scene_id}
        for name in sorted(set(seen) & set(obj_ids), key=obj_ids.__getitem__)
    ]
