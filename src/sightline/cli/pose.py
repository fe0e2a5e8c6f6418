"""``sightline pose``, ``track`` and ``detect``: known objects in a picture, a folder or a video."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def pose(
    source: Path,
    card: list[Path],
    output: Path = Path("sightline-output"),
    camera: Path | None = None,
    focal: float | Literal["auto"] | None = None,
    instances: int = 1,
    min_score: float = 0.4,
    report: bool = True,
) -> None:
    """Find where known objects are in a picture, each picture of a folder, or each frame of a video.

    Writes poses.json (metres, OpenCV camera), an overlay of each picture or an overlay video, and for
    pictures a report.html that explains each pose. What has too little support is flagged, not guessed.

    Args:
        source: a picture, a folder of pictures, or a video.
        card: object cards, as onboard writes them.
        output: folder for the results.
        camera: JSON file with K (pixels), and distortion if there is any.
        focal: focal length in pixels, or auto to find it from the objects; otherwise it is read from EXIF.
        instances: of one object in one picture, at the most.
        min_score: lowest verification score of a valid pose, 0 to 1.
        report: whether pictures get a report.html.
    """
    from sightline.cli.console import make_console
    from sightline.pipeline.run import run_poses

    run_poses(
        source,
        card,
        output,
        camera_file=camera,
        focal=focal,
        max_instances=instances,
        min_score=min_score,
        console=make_console(),
        report=report,
    )


def track(
    source: Path,
    card: list[Path],
    output: Path = Path("sightline-output"),
    camera: Path | None = None,
    focal: float | Literal["auto"] | None = None,
    min_score: float = 0.4,
    grow: bool = False,
) -> None:
    """Follow known objects through a video: the last pose is the prior of the next frame.

    An object that is lost is looked for in each frame until it is found again. Writes poses.json, an overlay
    video and a timeline of scores.

    Args:
        source: a video, or a folder of pictures in order.
        card: object cards, as onboard writes them.
        output: folder for the results.
        camera: JSON file with K (pixels), and distortion if there is any.
        focal: focal length in pixels, or auto to find it from the objects.
        min_score: lowest verification score of a valid pose, 0 to 1.
        grow: whether frames whose pose is certain become templates; the grown cards go to OUTPUT/cards.
    """
    from sightline.cli.console import make_console
    from sightline.pipeline.run import run_poses

    run_poses(
        source,
        card,
        output,
        camera_file=camera,
        focal=focal,
        min_score=min_score,
        console=make_console(),
        follow=True,
        grow=grow,
    )


def detect(
    source: Path,
    card: list[Path],
    output: Path = Path("sightline-output"),
    camera: Path | None = None,
    focal: float | Literal["auto"] | None = "auto",
    instances: int = 4,
    min_score: float | None = None,
    detector: Literal["sift", "refdet"] = "sift",
    weights: Path | None = None,
) -> None:
    """Find the boxes of known objects in pictures.

    Writes detections.json (COCO results: xywh pixels, score, RLE of the silhouette) and an overlay of each
    picture.

    Args:
        source: a picture, a folder of pictures, or a video.
        card: object cards, as onboard writes them; with refdet also folders of photographs of one object.
        output: folder for the results.
        camera: JSON file with K (pixels); not needed for boxes, which are found with an estimated one.
        focal: focal length in pixels, or auto to find it from the objects.
        instances: of one object in one picture, at the most.
        min_score: lowest score of a detection, 0 to 1; 0.4 of the verification unless given, or the
            detector's own.
        detector: sift finds printed objects by their key points; refdet is learned and needs --weights.
        weights: of refdet, a .safetensors file.
    """
    from sightline.cli.console import make_console

    if detector == "refdet":
        from sightline.pipeline.refdet_detection import run_refdet_detection

        if weights is None:
            raise ValueError("--detector refdet: expected --weights FILE")
        run_refdet_detection(
            source,
            card,
            output,
            weights=weights,
            max_instances=instances,
            min_score=min_score,
            console=make_console(),
        )
        return
    from sightline.pipeline.detection import run_detection

    run_detection(
        source,
        card,
        output,
        camera_file=camera,
        focal=focal,
        max_instances=instances,
        min_score=0.4 if min_score is None else min_score,
        console=make_console(),
    )
