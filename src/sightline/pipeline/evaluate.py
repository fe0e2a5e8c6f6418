"""A BOP results file scored against a BOP data set, without OpenGL and without the toolkit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.formats.bop_dataset import BopDataset
from sightline.formats.bop_models import object_name
from sightline.formats.bop_results import BopResult, parse_results_name, read_bop_results
from sightline.formats.frames import Frame
from sightline.geometry.cameras import Camera
from sightline.metrics import (
    BOP_SHARES,
    BopScore,
    ObjectShape,
    PicturePoses,
    average_distance_scores,
    bop_average_precision,
    bop_average_recall,
    pair_errors,
    vsd,
)
from sightline.records import PoseEstimate, TriangleMesh
from sightline.rendering import render_views

Progress = Callable[[Iterable, str, int], Iterable]


@dataclass(frozen=True, eq=False)
class BopEvaluation:
    """The scores of one results file.

    Args:
        recall: AR of 6D localisation; its ``value`` is NaN where VSD was left out.
        precision: AP of 6D detection (MSSD and MSPD).
        add_recall: share of instances with ADD(-S) below a tenth of the diameter.
        seconds: mean time a picture as the file says; NaN if unknown.
        num_pictures: how many pictures were scored.
    """

    recall: BopScore
    precision: BopScore
    add_recall: float
    seconds: float
    num_pictures: int


def evaluate_bop(
    dataset_folder: Path,
    results_file: Path,
    *,
    split: str | None = None,
    with_vsd: bool = True,
    progress: Progress = lambda items, *_: items,
) -> BopEvaluation:
    """Score poses as BOP does: AR over VSD, MSSD and MSPD; AP over MSSD and MSPD.

    Args:
        dataset_folder: a data set in BOP's layout, with models.
        results_file: ``METHOD_DATASET-SPLIT.csv``.
        split: of the data set; as the file's name says unless given.
        with_vsd: whether to render for VSD, which needs depth pictures.
        progress: wraps what takes long, with a text and a total.

    Returns:
        The scores.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: a malformed file, or results for objects or pictures that the data set lacks.
    """
    dataset = BopDataset(dataset_folder, split or parse_results_name(results_file).split)
    rows = _by_picture(read_bop_results(results_file), results_file, dataset)
    meshes = {obj_id: dataset.mesh(obj_id).mesh for obj_id in dataset.models_info}
    infos = dataset.models_info
    shapes = {
        object_name(obj_id): ObjectShape.from_mesh(mesh, infos[obj_id].symmetry)
        for obj_id, mesh in meshes.items()
    }
    by_name = {object_name(obj_id): mesh for obj_id, mesh in meshes.items()}
    targets = _targets(dataset)
    pictures = []
    frames = dataset.frames
    for frame in progress(frames, "pictures", len(frames)):
        wanted = targets.get((frame.scene_id, frame.frame_id)) if targets else None
        if targets and wanted is None:
            continue
        estimates = [_estimate(row) for row in rows.get((frame.scene_id, frame.frame_id), [])]
        pictures.append(_picture(frame, estimates, by_name, shapes, wanted, with_vsd=with_vsd))
    pairs = pair_errors(pictures, shapes)
    times = [found[0].time for found in rows.values() if found[0].time >= 0]
    return BopEvaluation(
        bop_average_recall(pairs),
        bop_average_precision(pairs),
        average_distance_scores(pairs).overall.recall,
        sum(times) / len(times) if times else float("nan"),
        len(pictures),
    )


def _by_picture(
    rows: list[BopResult], path: Path, dataset: BopDataset
) -> dict[tuple[int, int], list[BopResult]]:
    known = {(frame.scene_id, frame.frame_id) for frame in dataset.frames}
    result: dict[tuple[int, int], list[BopResult]] = defaultdict(list)
    for row in rows:
        place = (row.scene_id, row.im_id)
        if place not in known:
            raise ValueError(f"{path}: scene {row.scene_id}, image {row.im_id} is not in {dataset.root}")
        if row.obj_id not in dataset.models_info:
            raise ValueError(f"{path}: object {row.obj_id} is not among the models of {dataset.root}")
        result[place].append(row)
    return result


def _targets(dataset: BopDataset) -> dict[tuple[int, int], dict[str, int]]:
    try:
        listed = dataset.targets()
    except FileNotFoundError:
        return {}
    result: dict[tuple[int, int], dict[str, int]] = defaultdict(dict)
    for target in listed:
        if target.obj_id is not None and target.inst_count is not None:
            result[target.scene_id, target.im_id][object_name(target.obj_id)] = target.inst_count
    return result


def _estimate(row: BopResult) -> PoseEstimate:
    pose = row.cam_from_obj
    return PoseEstimate(pose[:3, :3], pose[:3, 3], row.score, valid=True, name=object_name(row.obj_id))


def _picture(
    frame: Frame,
    estimates: list[PoseEstimate],
    meshes: dict[str, TriangleMesh],
    shapes: dict[str, ObjectShape],
    targets: dict[str, int] | None,
    *,
    with_vsd: bool,
) -> PicturePoses:
    if frame.camera is None:
        raise ValueError(f"{frame.name}: expected a camera, the data set gives none")
    truths, visibility = [], []
    for one in frame.objects:
        if one.cam_from_obj is not None:
            pose = one.cam_from_obj
            truths.append(PoseEstimate(pose[:3, :3], pose[:3, 3], 1.0, valid=True, name=one.name))
            visibility.append(1.0 if one.visibility is None else one.visibility)
    surfaces = None
    if with_vsd:
        depth = frame.read_depth()
        if depth is None:
            raise ValueError(f"{frame.name}: VSD needs a depth picture, there is none; leave VSD out")
        surfaces = _surface_errors(frame.camera, torch.from_numpy(depth), estimates, truths, meshes, shapes)
    return PicturePoses.from_records(
        frame.camera,
        truths,
        estimates,
        visibility=torch.tensor(visibility, dtype=torch.float64),
        vsd=surfaces,
        targets=targets,
    )


def _surface_errors(
    camera: Camera,
    depth: Float[Tensor, "h w"],
    estimates: list[PoseEstimate],
    truths: list[PoseEstimate],
    meshes: dict[str, TriangleMesh],
    shapes: dict[str, ObjectShape],
) -> Float[Tensor, "e g t"]:
    """VSD of each estimate against each truth of the same object; 1 for other pairs, which are not read."""
    errors = torch.ones(len(estimates), len(truths), len(BOP_SHARES), dtype=torch.float64)
    drawn = [_draw(meshes[pose.name], pose, camera) for pose in truths]
    for e, estimate in enumerate(estimates):
        same = [g for g, truth in enumerate(truths) if truth.name == estimate.name]
        if not same:
            continue
        view = _draw(meshes[estimate.name], estimate, camera)
        for g in same:
            errors[e, g] = vsd(depth, drawn[g], view, camera.K, shapes[estimate.name].diameter)
    return errors


def _draw(mesh: TriangleMesh, pose: PoseEstimate, camera: Camera) -> Float[Tensor, "h w"]:
    return render_views(mesh, pose.cam_from_obj[None], camera.K, camera.image_size, outputs=("depth",)).depth[
        0
    ]
