"""Templates and pictures as files in, dicts, JSON and drawings out: the detector as the document calls it.

Run as ``python -m sightline.refdet.inference --checkpoint W --templates T --search S --output O``. What works
with records is :class:`sightline.refdet.reference_detector.ReferenceDetector`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sightline.formats.image_stream import FileFault, stream_images
from sightline.formats.images import read_image, write_image
from sightline.formats.json_files import null_if_not_finite, write_json
from sightline.formats.refdet_folder import read_refdet_folder
from sightline.formats.yolo import list_pictures
from sightline.metrics.coco import coco_scores
from sightline.metrics.detection import count_detections
from sightline.records import Detections
from sightline.refdet.bank import TemplateBank
from sightline.refdet.reference_detector import ReferenceDetector

Templates = str | Path | Sequence[str | Path]
_HINT = "nothing found: lower the score threshold, or check that the templates show the object"


class RefDetInference:
    """Detects the object of some templates in pictures.

    Args:
        checkpoint_path: a file of weights.
        device: ``cpu`` or ``cuda``.
        score_threshold: least score of a detection.
        search_size: ``(width, height)`` pixels that a picture is fitted into; that of the training unless
            given.
        template_size: likewise, of the templates.

    Raises:
        FileNotFoundError: there is no such file of weights.
        ValueError: it holds another model, or foreign keys.
    """

    def __init__(
        self,
        checkpoint_path: str | Path,
        device: str = "cpu",
        score_threshold: float = 0.3,
        search_size: tuple[int, int] | None = None,
        template_size: tuple[int, int] | None = None,
    ) -> None:
        self.detector = ReferenceDetector.from_checkpoint(checkpoint_path, device=device)
        trained = self.detector.settings
        self.detector.settings = replace(
            trained,
            search_size=search_size or trained.search_size,
            template_size=template_size or trained.template_size,
            score_threshold=score_threshold,
        )

    def predict(
        self, template_paths: Templates, search_image_path: str | Path, top_k: int | None = None
    ) -> tuple[list[dict[str, Any]], tuple[int, int]]:
        """Find an object in one picture.

        Args:
            template_paths: its pictures: files, or a folder.
            search_image_path: the picture.
            top_k: how many detections at most; all above the threshold unless given.

        Returns:
            Dicts with ``bbox`` ``[x1, y1, x2, y2]`` (pixels of the picture, within ``[0, size - 1]``),
            ``score`` and ``center``, the surest first; and the picture's ``(height, width)``.

        Raises:
            FileNotFoundError: a file is not there.
            ValueError: a file that is no picture, or templates that cannot be used.
        """
        bank = self.detector.onboard(template_paths)
        image = read_image(search_image_path)
        return self._predict(bank, image, top_k), image.shape[:2]

    def predict_batch(
        self,
        template_paths: Templates,
        search_image_paths: Sequence[str | Path],
        top_k: int | None = None,
    ) -> list[dict[str, Any]]:
        """Find an object in many pictures; its templates are encoded once.

        Args:
            template_paths: its pictures: files, or a folder.
            search_image_paths: the pictures.
            top_k: how many detections at most in each.

        Returns:
            For each picture ``search_path``, ``detections`` as of :meth:`predict`, ``original_size``
            ``(height, width)`` and ``error``: None, or why the picture could not be read.
        """
        bank = self.detector.onboard(template_paths)
        results = []
        for loaded in stream_images(search_image_paths):
            result: dict[str, Any] = {
                "search_path": str(loaded.path),
                "detections": [],
                "original_size": None,
                "error": None,
            }
            if isinstance(loaded, FileFault):
                result["error"] = loaded.reason
            else:
                result["original_size"] = loaded.image.shape[:2]
                result["detections"] = self._predict(bank, loaded.image, top_k)
            results.append(result)
        return results

    def evaluate_on_testset(
        self,
        test_data_root: str | Path,
        save_results: bool = True,
        output_dir: str | Path = "./eval_results",
        *,
        split: str | None = None,
        iou_threshold: float = 0.5,
        label_format: str = "xyxy",
    ) -> dict[str, Any]:
        """Judge the detector on a folder of templates, pictures and labels.

        Args:
            test_data_root: in the layout of :mod:`sightline.formats.refdet_folder`.
            save_results: whether ``metrics.json`` and ``detections.json`` are written.
            output_dir: where to.
            split: which one; ``test``, or else ``val``, unless given or the folder has none.
            iou_threshold: the overlap that makes a detection right.
            label_format: of the labels; ``auto`` finds it over the whole folder where it can.

        Returns:
            ``precision``, ``recall``, ``f1`` at the score threshold, ``mean_iou`` of what was matched,
            ``AP50`` and ``mAP`` (COCO, 0.5 to 0.95), each None where there is nothing to count;
            ``num_images``, ``num_empty`` pictures without the object, ``per_object`` with the same for each,
            and ``errors`` of files that could not be used.

        Raises:
            FileNotFoundError: there is no such folder.
            ValueError: its labels are damaged or ambiguous.
        """
        split = _find_split(Path(test_data_root)) if split is None else split
        folder = read_refdet_folder(test_data_root, split, label_format=label_format)
        banks = {name: self.detector.onboard(folder.templates[name]) for name in folder.object_ids}
        threshold = self.detector.settings.score_threshold
        found: list[Detections] = []
        truths: list[Detections] = []
        rows, errors = [], [fault.reason for fault in folder.faults]
        for sample in folder.samples:
            try:
                image = sample.read_image()
            except (OSError, ValueError) as error:
                errors.append(str(error))
                continue
            name = sample.object_id
            # AP counts everything, however unsure
            seen = self.detector.detect(image, {name: banks[name]}, score_threshold=0.0)
            found.append(seen)
            ones = torch.ones(len(sample.boxes))
            truths.append(Detections(sample.boxes, ones, (name,) * len(ones), sample.image_size))
            sure = [each for each in _as_dicts(seen) if each["score"] >= threshold]
            rows.append({"name": sample.name, "object": name, "detections": sure})
        metrics: dict[str, Any] = _figures(found, truths, threshold, iou_threshold)
        metrics["per_object"] = {}
        for name in sorted({row["object"] for row in rows}):
            own = [i for i, row in enumerate(rows) if row["object"] == name]
            pairs = [found[i] for i in own], [truths[i] for i in own]
            metrics["per_object"][name] = _figures(*pairs, threshold, iou_threshold)
        metrics["errors"] = errors
        if save_results:
            write_json(Path(output_dir) / "metrics.json", metrics)
            write_json(Path(output_dir) / "detections.json", rows)
        return metrics

    def _predict(self, bank: TemplateBank, image: np.ndarray, top_k: int | None) -> list[dict[str, Any]]:
        return _as_dicts(self.detector.detect(image, {"object": bank}))[:top_k]


def _find_split(root: Path) -> str | None:
    return next((name for name in ("test", "val") if (root / name).is_dir()), None)


def _as_dicts(found: Detections) -> list[dict[str, Any]]:
    limits = torch.tensor([found.image_size[0] - 1, found.image_size[1] - 1] * 2)
    boxes = torch.minimum(found.boxes.clamp_min(0), limits.to(found.boxes))
    return [
        {"bbox": box, "score": score, "center": [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]}
        for box, score in zip(boxes.tolist(), found.scores.tolist(), strict=True)
    ]


def _figures(
    found: Sequence[Detections], truths: Sequence[Detections], threshold: float, iou_threshold: float
) -> dict[str, Any]:
    if not found:
        raise ValueError("test_data_root: expected at least one picture that can be read")
    counts = count_detections(found, truths, min_score=threshold, min_iou=iou_threshold).overall
    scores = coco_scores(found, truths)
    shares = {
        "precision": counts.precision,
        "recall": counts.recall,
        "f1": counts.f1,
        "mean_iou": counts.mean_iou,
        "AP50": scores.ap50,
        "mAP": scores.ap,
    }
    return {name: null_if_not_finite(share) for name, share in shares.items()} | {
        "num_images": len(found),
        "num_empty": sum(len(truth) == 0 for truth in truths),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Detect from the command line; 2 when the input is bad."""
    parser = argparse.ArgumentParser(prog="python -m sightline.refdet.inference", description=main.__doc__)
    parser.add_argument("--checkpoint", required=True, type=Path, help="file of weights")
    parser.add_argument("--templates", required=True, type=Path, help="folder or picture of the object")
    parser.add_argument("--search", required=True, type=Path, help="picture, or folder of pictures")
    parser.add_argument("--output", type=Path, default=Path("./output"), help="folder for the results")
    parser.add_argument("--score-threshold", type=float, default=0.3, help="least score (default: 0.3)")
    parser.add_argument("--top-k", type=int, help="most detections in a picture (default: all)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--visualize", action="store_true", help="draw the detections")
    options = parser.parse_args(arguments)
    try:
        inference = RefDetInference(options.checkpoint, options.device, options.score_threshold)
        pictures = list_pictures(options.search) if options.search.is_dir() else [options.search]
        results = inference.predict_batch(options.templates, pictures, options.top_k)
        write_json(options.output / "detections.json", results)
        if options.visualize:
            _draw(results, options.templates, options.output)
    except (OSError, ValueError) as error:
        print(f"refdet: {error}", file=sys.stderr)  # noqa: T201  # this is a command
        return 2
    for result in results:
        print(f"{result['search_path']}: {_words(result)}")  # noqa: T201  # this is a command
    return 0


def _words(result: dict[str, Any]) -> str:
    if result["error"]:
        return result["error"]
    if not result["detections"]:
        return _HINT
    best = result["detections"][0]
    box = ", ".join(f"{edge:.0f}" for edge in best["bbox"])
    return f"{len(result['detections'])} found, the surest at [{box}] with {best['score']:.2f}"


def _draw(results: Sequence[dict[str, Any]], templates: Path, folder: Path) -> None:
    from sightline.refdet.thumbnails import template_thumbnails
    from sightline.vis import draw_detections, draw_reference_strip

    references = {"object": template_thumbnails(templates)}
    for result in results:
        if result["original_size"] is None:
            continue
        height, width = result["original_size"]
        boxes = torch.tensor([d["bbox"] for d in result["detections"]]).reshape(-1, 4)
        scores = torch.tensor([d["score"] for d in result["detections"]])
        found = Detections(boxes, scores, ("object",) * len(boxes), (width, height))
        path = Path(result["search_path"])
        drawn = draw_detections(read_image(path), found)
        write_image(folder / f"vis_{path.stem}.png", draw_reference_strip(drawn, references))


if __name__ == "__main__":
    sys.exit(main())
