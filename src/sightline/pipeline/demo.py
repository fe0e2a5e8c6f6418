"""The main job on the embedded example: onboard three objects, find them in a cluttered picture, compare."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from sightline.formats.bop_results import results_from_poses, results_name, write_bop_results
from sightline.formats.images import write_image
from sightline.geometry.symmetry import symmetric_align
from sightline.metrics import rotation_error_deg
from sightline.objects.card import ObjectCard
from sightline.objects.card_files import load_card, save_card
from sightline.objects.onboard import onboard_mesh
from sightline.pipeline.demo_detection import DemoDetection, detect_demo
from sightline.pipeline.estimate import FoundObject
from sightline.pipeline.estimators import make_estimator
from sightline.pipeline.explain import write_report
from sightline.pipeline.focal import ChosenCamera
from sightline.pipeline.pictures import draw_found
from sightline.pipeline.results import PoseLog
from sightline.pipeline.sources import Frame
from sightline.synthetic import Scene, SyntheticObject, demo_objects, demo_scene
from sightline.vis.tables import PoseRow


@dataclass(frozen=True, eq=False)
class ScoredPose:
    """One object of a scene with known truth, and how far off it was found.

    Args:
        seed: of the scene.
        found: what was found.
        visible: share of the object's silhouette that is visible, [0, 1].
        rotation_error: radians, NaN where not found.
        translation_error: metres, NaN where not found.
        distance: of the object, metres.
        seconds: for this object.
    """

    seed: int
    found: FoundObject
    visible: float
    rotation_error: float
    translation_error: float
    distance: float
    seconds: float

    @property
    def right(self) -> bool:
        """Within 2 degrees and 1 % of the distance."""
        close = self.translation_error < 0.01 * self.distance
        return bool(self.rotation_error < torch.pi / 90 and close)

    def row(self) -> PoseRow:
        """One line of the demo's table."""
        valid = self.found.pose.valid
        return PoseRow(
            name=self.found.card.name,
            score=self.found.pose.score,
            found=valid,
            rotation_error=self.rotation_error if valid else None,
            translation_error=self.translation_error if valid else None,
            distance=self.distance,
            seconds=self.seconds,
            note=self.found.pose.reason,
        )


class DemoResult(NamedTuple):
    """What the demo found: the pose of each object, and the boxes of the reference detector."""

    poses: list[ScoredPose]
    boxes: DemoDetection


def demo_cards(folder: Path, progress: Callable[[str], None] = lambda _: None) -> list[ObjectCard]:
    """The cards of the three embedded objects, made and saved where they are not there yet.

    Args:
        folder: where the cards are kept.
        progress: is told the name of each object that is onboarded.

    Returns:
        One card an object.
    """
    cards = []
    for thing in demo_objects():
        place = folder / thing.name
        try:
            cards.append(load_card(place))
        except (FileNotFoundError, ValueError):  # none yet, or one of an older state
            progress(thing.name)
            card = onboard_mesh(thing.mesh, name=thing.name, symmetries=thing.symmetries)
            cards.append(save_card(card, place))
    return cards


def run_demo(output: Path, seed: int, progress: Callable[[str], None] = lambda _: None) -> DemoResult:
    """Onboard, make a scene, find, compare with the truth, and write everything a user would look at.

    Args:
        output: folder for ``cards/``, scene.png, overlay.png, detections.png, report.html, poses.json and the
            BOP CSV.
        seed: of the scene.
        progress: is told what is being done.

    Returns:
        The poses, and the boxes of the reference detector.
    """
    output.mkdir(parents=True, exist_ok=True)
    cards = demo_cards(output / "cards", lambda name: progress(f"onboarding {name}"))
    progress("extracting the features of the templates")
    estimator = make_estimator(cards)
    progress("finding the objects")
    scene = demo_scene(seed)
    started = time.perf_counter()
    found = estimator.find(scene.image, scene.camera)
    seconds = time.perf_counter() - started
    scored = score_scene(seed, scene, found)
    progress("writing pictures and tables")
    chosen = ChosenCamera(scene.camera, "known, the scene is generated")
    frame = Frame(0, "scene.png", scene.image)
    log = PoseLog(chosen)
    log.add(frame, found, seconds)
    log.write(output / "poses.json")
    write_image(output / "scene.png", scene.image)
    write_image(output / "overlay.png", draw_found(scene.image, scene.camera, found))
    write_report(
        output / "report.html", frame, chosen, found, title="Sightline demo", rows=[s.row() for s in scored]
    )
    obj_ids = {thing.name: number for number, thing in enumerate(demo_objects(), start=1)}
    rows = results_from_poses(1, seed, [one.pose for one in found], obj_ids, seconds)
    write_bop_results(output / results_name("sightline-sift", "demo"), rows)
    progress("detecting with the learned detector")
    return DemoResult(scored, detect_demo(cards, scene, output))


def measure_demo(
    output: Path, seeds: Sequence[int], progress: Callable[[str], None] = lambda _: None
) -> Iterator[list[ScoredPose]]:
    """The demo's job on many scenes, for figures.

    Args:
        output: folder whose ``cards/`` are used.
        seeds: of the scenes.
        progress: is told what is being done.

    Yields:
        The poses of each scene.
    """
    estimator = make_estimator(demo_cards(output / "cards", progress))
    for seed in seeds:
        scene = demo_scene(seed)
        yield score_scene(seed, scene, estimator.find(scene.image, scene.camera))


def score_scene(seed: int, scene: Scene, found: list[FoundObject]) -> list[ScoredPose]:
    """Compare what was found in a scene with its truth.

    Args:
        seed: of the scene.
        scene: with the truth; one instance of each object.
        found: one entry an object.

    Returns:
        One entry for each of ``found`` that the scene shows.
    """
    objects = {thing.name: thing for thing in demo_objects()}
    places = {name: index for index, name in enumerate(scene.names)}
    return [
        _score(seed, scene, one, places[one.card.name], objects[one.card.name])
        for one in found
        if one.card.name in places
    ]


def _score(seed: int, scene: Scene, found: FoundObject, place: int, thing: SyntheticObject) -> ScoredPose:
    truth = scene.cam_from_obj[place]
    turn = shift = float("nan")
    if found.pose.valid:
        pose = found.pose.cam_from_obj
        nearest = symmetric_align(truth, pose, thing.symmetries)
        turn = float(rotation_error_deg(pose, nearest)) * torch.pi / 180
        shift = float((pose[:3, 3] - nearest[:3, 3]).norm())
    return ScoredPose(
        seed,
        found,
        float(scene.visib_fract[place]),
        turn,
        shift,
        float(truth[:3, 3].norm()),
        sum(found.seconds.values()),
    )
