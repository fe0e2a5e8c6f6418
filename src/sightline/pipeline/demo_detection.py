"""The demo's second picture: the same scene through the reference detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sightline.formats.images import write_image
from sightline.geometry.boxes import iou_matrix
from sightline.objects.card import ObjectCard
from sightline.records import Detections
from sightline.refdet.reference_detector import ReferenceDetector
from sightline.refdet.shipped import shipped_weights
from sightline.refdet.thumbnails import template_thumbnails
from sightline.synthetic import Scene
from sightline.vis.overlays import draw_detections
from sightline.vis.palette import object_colors
from sightline.vis.reference_strip import draw_reference_strip


@dataclass(frozen=True, eq=False)
class DemoDetection:
    """What the reference detector made of the demo's scene.

    Args:
        found: at most one box an object.
        overlaps: of each box with the object's true one, intersection over union.
        num_objects: how many were looked for.
    """

    found: Detections
    overlaps: tuple[float, ...]
    num_objects: int

    def words(self) -> str:
        """One line for people."""
        right = sum(overlap >= 0.5 for overlap in self.overlaps)
        boxes = ", ".join(
            f"{name} {score:.2f} (IoU {overlap:.2f})"
            for name, score, overlap in zip(
                self.found.names, self.found.scores.tolist(), self.overlaps, strict=True
            )
        )
        return (
            f"the learned detector finds {right} of {self.num_objects} with an IoU of at least 0.5"
            f"{': ' * bool(boxes)}{boxes}"
        )


def detect_demo(cards: Sequence[ObjectCard], scene: Scene, output: Path) -> DemoDetection:
    """Look for the cards' objects with the weights that come with the package.

    Args:
        cards: the objects.
        scene: with one instance of each.
        output: folder for detections.png.

    Returns:
        The boxes, and how right they are.
    """
    detector = ReferenceDetector.from_checkpoint(shipped_weights())
    banks = {card.name: detector.onboard_card(card) for card in cards}
    found = detector.detect(scene.image, banks, max_instances=1)
    colors = object_colors(banks)
    thumbnails = {card.name: template_thumbnails(card) for card in cards}
    drawn = draw_detections(scene.image, found, colors=colors)
    write_image(output / "detections.png", draw_reference_strip(drawn, thumbnails, colors=colors))
    rows = torch.tensor([scene.names.index(name) for name in found.names], dtype=torch.long)
    overlaps = iou_matrix(found.boxes.double(), scene.boxes[rows].double()).diagonal()
    return DemoDetection(found, tuple(overlaps.tolist()), len(cards))
