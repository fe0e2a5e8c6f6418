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
    matcher: Literal["sift", "vpog"] = "sift",
    weights: Path | None = None,
    mode: Literal["cluster", "global", "global-fast"] | None = None,
    detector: Literal["refdet", "rtdetr-pose", "off"] | None = None,
    device: str = "cpu",
    depth: Path | None = None,
    depth_unit_mm: float = 1.0,
    ttt: str | None = None,
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
        matcher: sift finds printed objects by their key points; vpog is learned and needs no print.
        weights: of vpog, a .safetensors file; those of the package unless given.
        mode: how vpog looks at a crop: global-fast scores all templates by what the card keeps and attends to
            the best, global attends to all, cluster to the neighbours of the best alone.
        detector: refdet finds boxes first, off looks in the whole picture; refdet with vpog and off with sift
            unless given. rtdetr-pose is trained for a closed set of objects and says their poses itself,
            which the cards then refine and verify; no matcher is used, and --weights are its own.
        device: of learned parts, cpu or cuda.
        depth: the depth picture of a picture, or a folder with one of each picture, named alike; 16 bits, 0
            where it is missing, as the colour camera sees it. Poses are moved onto it.
        depth_unit_mm: millimetres in one step of a depth picture.
        ttt: with rtdetr-pose, how it adapts itself to the pictures; see adapt.
    """
    from sightline.cli.console import make_console
    from sightline.pipeline.estimators import MatcherChoice
    from sightline.pipeline.run import run_poses

    if detector == "rtdetr-pose":
        _refuse_with_closed_set({"--matcher": matcher != "sift", "--mode": mode is not None})
        _run_closed_set(
            source, card, output, camera, focal, min_score, weights, device, ttt, depth, depth_unit_mm
        )
        return
    if ttt is not None:
        raise ValueError("--ttt: expected with --detector rtdetr-pose")
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
        choice=MatcherChoice(matcher, weights, mode, detector, device),
        depth=depth,
        depth_unit_mm=depth_unit_mm,
    )


def track(
    source: Path,
    card: list[Path],
    output: Path = Path("sightline-output"),
    camera: Path | None = None,
    focal: float | Literal["auto"] | None = None,
    min_score: float = 0.4,
    grow: bool = False,
    matcher: Literal["sift", "vpog"] = "sift",
    weights: Path | None = None,
    mode: Literal["cluster", "global", "global-fast"] | None = None,
    detector: Literal["refdet", "off"] | None = None,
    device: str = "cpu",
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
        matcher: sift finds printed objects by their key points; vpog is learned and needs no print.
        weights: of vpog, a .safetensors file; those of the package unless given.
        mode: how vpog looks at a crop; see pose.
        detector: refdet finds boxes first where an object is not followed, off looks in the whole picture;
            refdet with vpog and off with sift unless given.
        device: of vpog and refdet, cpu or cuda.
    """
    from sightline.cli.console import make_console
    from sightline.pipeline.estimators import MatcherChoice
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
        choice=MatcherChoice(matcher, weights, mode, detector, device),
    )


def detect(
    source: Path,
    card: list[Path] | None = None,
    output: Path = Path("sightline-output"),
    camera: Path | None = None,
    focal: float | Literal["auto"] | None = "auto",
    instances: int = 4,
    min_score: float | None = None,
    format: Literal["json", "coco", "bop"] = "json",
    detector: Literal["sift", "refdet", "hybrid", "rtdetr-pose"] = "sift",
    weights: list[Path] | None = None,
    device: str = "cpu",
    tiles: int | Literal["auto", "off"] = "off",
    flip: bool = False,
    scales: list[float] | None = None,
    negatives: list[Path] | None = None,
    share_places: bool = False,
    sequence: bool = False,
    keep_score: float | None = None,
    confirm_frames: int = 2,
    lose_frames: int = 3,
    window: float | None = None,
    ttt: str | None = None,
    depth: Path | None = None,
    depth_unit_mm: float = 1.0,
) -> None:
    """Find the boxes of known objects in pictures.

    Writes detections.json (boxes as xyxy pixels, score, run lengths of the silhouette where it is known) and
    an overlay of each picture. With refdet objects are followed through a video: detections.json then says of
    each frame which are searching, found or lost, and there is an overlay video and a timeline.

    Args:
        source: a picture, a folder of pictures, or a video.
        card: object cards, as onboard writes them; with refdet also folders of photographs of one object.
        output: folder for the results.
        camera: JSON file with K (pixels); not needed for boxes, which are found with an estimated one.
        focal: focal length in pixels, or auto to find it from the objects.
        instances: of one object in one picture, at the most.
        min_score: lowest score of a detection, 0 to 1; 0.4 of the verification unless given, or the
            detector's own.
        format: coco and bop add the files that these evaluations take to detections.json.
        detector: sift finds printed objects by their key points; refdet is learned and
            needs no print; hybrid is refdet that reads key points too, the surest of these; rtdetr-pose is
            trained for a closed set of objects, finds them without cards, and says their poses too, for which
            it needs the camera.
        weights: of rtdetr-pose or refdet, a .safetensors file; of several of refdet the opinions are fused.
            Those of the package unless given.
        device: of refdet, cpu or cuda.
        tiles: with refdet, search large pictures in parts too: how many along the limiting side, or auto for
            the picture's own resolution.
        flip: with refdet alone, search the mirrored picture too, with mirrored templates.
        scales: with refdet alone, search at these sizes, 1 being the trained one, and fuse the opinions.
        negatives: with refdet, cards or folders of photographs of look-alikes: what they explain better is
            not reported.
        share_places: with refdet, whether different objects may be reported at one place; otherwise the one
            of the highest score has it.
        sequence: with refdet, whether the pictures of a folder are the frames of a video.
        keep_score: in a video, lowest score of an object that is found already; 0.6 of --min-score unless
            given.
        confirm_frames: in a video, so many frames on end must show an object before it is found.
        lose_frames: in a video, so many frames on end must not show it before it is lost.
        window: in a video, look only so many times as far around what the last frame showed, above 1, once
            that was --instances of each object.
        ttt: with rtdetr-pose, how it adapts itself to the pictures; see adapt.
        depth: with rtdetr-pose, depth pictures, see pose.
        depth_unit_mm: millimetres in one step of a depth picture.
    """
    from sightline.cli.console import make_console

    if detector == "rtdetr-pose":
        if weights is not None and len(weights) != 1:
            raise ValueError(f"--weights: expected one file with rtdetr-pose, got {len(weights)}")
        known = None if focal == "auto" else focal
        chosen = None if weights is None else weights[0]
        _run_closed_set(
            source,
            card or [],
            output,
            camera,
            known,
            min_score,
            chosen,
            device,
            ttt,
            depth,
            depth_unit_mm,
            form=format,
        )
        return
    if ttt is not None or depth is not None:
        raise ValueError("--ttt, --depth: expected with --detector rtdetr-pose")
    if not card:
        raise ValueError("--card: expected at least one card, got none")

    if detector in ("refdet", "hybrid"):
        from sightline.pipeline.refdet_detection import open_detector, run_refdet_detection
        from sightline.pipeline.refdet_video import run_refdet_video
        from sightline.pipeline.sources import open_source
        from sightline.refdet.shipped import shipped_weights
        from sightline.refdet.video import TrackSettings

        followed = sequence or open_source(source).is_video
        if followed and format != "json":
            raise ValueError(f"--format {format}: expected pictures, the detections of a video are json")
        found_by = open_detector(
            weights or [shipped_weights()],
            with_key_points=detector == "hybrid",
            device=device,
            flip=flip,
            scales=scales,
            tiles=tiles,
            **({"rival_iou": None} if share_places else {}),
        )
        if followed:
            run_refdet_video(
                source,
                card,
                output,
                detector=found_by,
                settings=TrackSettings(
                    found_score=found_by.settings.score_threshold if min_score is None else min_score,
                    kept_score=keep_score,
                    confirm_frames=confirm_frames,
                    lose_frames=lose_frames,
                    max_instances=instances,
                ),
                negatives=negatives or [],
                window=window,
                console=make_console(),
            )
            return
        run_refdet_detection(
            source,
            card,
            output,
            detector=found_by,
            negatives=negatives or [],
            max_instances=instances,
            min_score=min_score,
            form=format,
            console=make_console(),
        )
        return
    learned = {
        "--weights": weights,
        "--device": device != "cpu",
        "--tiles": tiles != "off",
        "--flip": flip,
        "--scales": scales,
        "--negatives": negatives,
        "--share-places": share_places,
        "--sequence": sequence,
        "--keep-score": keep_score is not None,
        "--window": window is not None,
        "--confirm-frames": confirm_frames != 2,
        "--lose-frames": lose_frames != 3,
    }
    foreign = [name for name, given in learned.items() if given]
    if foreign:
        raise ValueError(f"{', '.join(foreign)}: expected with --detector refdet, got --detector {detector}")
    from sightline.pipeline.detection import run_detection

    run_detection(
        source,
        card,
        output,
        camera_file=camera,
        focal=focal,
        max_instances=instances,
        min_score=0.4 if min_score is None else min_score,
        form=format,
        console=make_console(),
    )


def _run_closed_set(
    source: Path,
    card: list[Path],
    output: Path,
    camera: Path | None,
    focal: float | str | None,
    min_score: float | None,
    weights: Path | None,
    device: str,
    ttt: str | None,
    depth: Path | None,
    depth_unit_mm: float,
    *,
    form: str = "json",
) -> None:
    """The closed-set network on a source."""
    from sightline.cli.console import make_console
    from sightline.pipeline.adaptation_choice import read_adaptation
    from sightline.pipeline.rtdetr_pose_detection import run_rtdetr_pose
    from sightline.rtdetr_pose.inference import RTDETRPoseDetector
    from sightline.rtdetr_pose.shipped import shipped_weights

    run_rtdetr_pose(
        source,
        output,
        detector=RTDETRPoseDetector.from_checkpoint(weights or shipped_weights(), device=device),
        card_folders=card,
        camera_file=camera,
        focal=focal,
        min_score=0.5 if min_score is None else min_score,
        adapt=None if ttt is None else read_adaptation(ttt),
        depth=depth,
        depth_unit_mm=depth_unit_mm,
        form=form,
        console=make_console(),
    )


def _refuse_with_closed_set(given: dict[str, bool]) -> None:
    foreign = [name for name, is_given in given.items() if is_given]
    if foreign:
        raise ValueError(f"{', '.join(foreign)}: does not apply to --detector rtdetr-pose")
