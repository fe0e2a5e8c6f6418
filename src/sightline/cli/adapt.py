"""``sightline adapt``: a network learns from the pictures that it meets, under guard."""

from __future__ import annotations

from pathlib import Path


def adapt(
    source: Path,
    output: Path = Path("sightline-output"),
    weights: Path | None = None,
    ttt: str = "mim_safe",
    camera: Path | None = None,
    focal: float | None = None,
    depth: Path | None = None,
    depth_unit_mm: float = 1.0,
    card: list[Path] | None = None,
    min_score: float = 0.5,
    save: Path | None = None,
    device: str = "cpu",
) -> None:
    """Let the closed-set network adapt itself to pictures, and say at each step what came of it.

    Writes detections.json, an overlay of each picture, and adaptation.json with a report a step: what was
    learned from, what changed and by how much, and which guard skipped, took back or reset it. The network's
    own file is never changed; --save keeps what it became.

    Args:
        source: a picture, a folder of pictures, or a video.
        output: folder for the results.
        weights: of the network; those of the package unless given.
        ttt: how: safe, mim_safe, eata_safe, sar_safe, cotta_safe or adapter_only, or a YAML file.
        camera: JSON file with K (pixels), and distortion if there is any.
        focal: focal length in pixels; otherwise it is read from EXIF.
        depth: the depth picture of a picture, or a folder with one of each picture, named alike; 16 bits, 0
            where it is missing: the geometry that mim_safe learns from.
        depth_unit_mm: millimetres in one step of a depth picture.
        card: cards of the network's objects, by which poses are refined.
        min_score: lowest score of a detection.
        save: file for the adapted weights, .safetensors; with resets after each picture they are those of the
            last.
        device: cpu or cuda.
    """
    from sightline.cli.console import make_console
    from sightline.pipeline.adaptation_choice import read_adaptation
    from sightline.pipeline.rtdetr_pose_detection import run_rtdetr_pose
    from sightline.rtdetr_pose.inference import RTDETRPoseDetector
    from sightline.rtdetr_pose.shipped import shipped_weights

    run_rtdetr_pose(
        source,
        output,
        detector=RTDETRPoseDetector.from_checkpoint(weights or shipped_weights(), device=device),
        card_folders=card or [],
        camera_file=camera,
        focal=focal,
        min_score=min_score,
        adapt=read_adaptation(ttt),
        depth=depth,
        depth_unit_mm=depth_unit_mm,
        save=save,
        console=make_console(),
    )
