"""COCO's average precision of boxes or masks, computed by faster-coco-eval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.records import Detections

COCO_IOUS = tuple(0.5 + 0.05 * index for index in range(10))
"""COCO's ten limits of intersection over union."""

_OUTSIDE = -1.0  # an area in none of COCO's ranges


@dataclass(frozen=True, eq=False)
class CocoScore:
    """COCO's figures, each averaged over the objects that there were to find; NaN where there were none.

    Args:
        ap: average precision over the ten IoU limits 0.5 to 0.95.
        ap50: at IoU 0.5.
        ap75: at IoU 0.75.
        ap_small: of truths below 32 x 32 pixels.
        ap_medium: of truths of 32 x 32 to 96 x 96 pixels.
        ap_large: of larger truths.
        ar: average recall over the IoU limits, all detections of a picture counted.
        by_object: ap of each object alone.
        by_object50: ap50 of each object alone.
        precision: object -> ``(10, 101)`` interpolated precision at the IoU limits and at recall 0, 0.01 ...
            1.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar: float
    by_object: dict[str, float]
    by_object50: dict[str, float]
    precision: dict[str, Float[Tensor, "10 101"]]


def coco_scores(
    detections: Sequence[Detections],
    truths: Sequence[Detections],
    *,
    ignored: Sequence[Bool[Tensor, " n"]] | None = None,
    max_detections: int = 100,
    kind: Literal["boxes", "masks"] = "boxes",
) -> CocoScore:
    """COCO's average precision and recall.

    A picture without any truth belongs in both lists: what is detected there is wrong. Detections of an
    object that occurs in no picture do not count, as in COCO; :mod:`sightline.metrics.detection` counts them.

    Args:
        detections: one record a picture.
        truths: one record a picture, in the same order; their scores are not read.
        ignored: ``(n,)`` one mask a picture of truths that need not be found (BOP: less than 10 % visible); a
            detection that finds one counts neither way.
        max_detections: how many detections, the surest of each object in a picture, are looked at.
        kind: whether to compare boxes or masks.

    Returns:
        The figures.

    Raises:
        ValueError: lists of unequal length, or masks asked for and not there.

    Example:
        >>> found = Detections(torch.tensor([[10.0, 10, 50, 60]]), torch.tensor([0.9]), ("mug",), (64, 64))
        >>> coco_scores([found], [found]).ap
        1.0
    """
    from faster_coco_eval import COCO, COCOeval_faster

    if len(detections) != len(truths):
        raise ValueError(f"truths: expected one record a picture, {len(detections)}, got {len(truths)}")
    ids = _category_ids(detections, truths)
    frame = {
        "images": [_describe(index, truth) for index, truth in enumerate(truths, start=1)],
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
    }
    wanted = _annotations(truths, ids, kind)
    _exclude(wanted, truths, ignored)
    evaluation = COCOeval_faster(
        COCO({**frame, "annotations": wanted}, print_function=_say_nothing),
        COCO({**frame, "annotations": _annotations(detections, ids, kind)}, print_function=_say_nothing),
        iouType="bbox" if kind == "boxes" else "segm",
        print_function=_say_nothing,
    )
    evaluation.params.maxDets = [max_detections]
    evaluation.evaluate()
    evaluation.accumulate()
    return _summarise(evaluation.eval, list(ids))


def _category_ids(*records: Sequence[Detections]) -> dict[str, int]:
    names = {name for group in records for record in group for name in record.names}
    return {name: number for number, name in enumerate(sorted(names), start=1)}


def _describe(index: int, record: Detections) -> dict[str, Any]:
    width, height = record.image_size
    return {"id": index, "width": width, "height": height}


def _annotations(records: Sequence[Detections], ids: dict[str, int], kind: str) -> list[dict[str, Any]]:
    annotations: list[dict[str, Any]] = []
    for picture, record in enumerate(records, start=1):
        sizes = record.boxes[:, 2:] - record.boxes[:, :2]
        boxes = torch.cat([record.boxes[:, :2], sizes], -1).double()
        columns = zip(boxes.tolist(), record.scores.tolist(), record.names, strict=True)
        for row, (box, score, name) in enumerate(columns):
            annotation = {
                "id": len(annotations) + 1,
                "image_id": picture,
                "category_id": ids[name],
                "bbox": box,
                "area": box[2] * box[3],
                "score": score,
                "iscrowd": 0,
            }
            if kind == "masks":
                annotation |= _encode(record, picture, row)
            annotations.append(annotation)
    return annotations


def _encode(record: Detections, picture: int, row: int) -> dict[str, Any]:
    from faster_coco_eval.core import mask

    if record.masks is None:
        raise ValueError(f"masks: expected for each picture, picture {picture - 1} has none")
    pixels = record.masks[row].cpu().numpy()
    return {"segmentation": mask.encode(np.asfortranarray(pixels, np.uint8)), "area": float(pixels.sum())}


def _exclude(
    annotations: list[dict[str, Any]], truths: Sequence[Detections], ignored: Sequence[Tensor] | None
) -> None:
    """Mark truths that need not be found.

    An area outside all ranges makes COCO ignore a truth and nothing else; its flag for crowds would also
    change the IoU and let many detections share one truth.
    """
    if ignored is None:
        return
    lengths = [len(truth) for truth in truths]
    if [len(mask) for mask in ignored] != lengths:
        raise ValueError("ignored: expected one mask a picture, as long as its truths")
    for annotation, skip in zip(annotations, torch.cat(list(ignored)).tolist(), strict=True):
        annotation["area"] = _OUTSIDE if skip else annotation["area"]


def _summarise(evaluation: dict[str, Any], names: list[str]) -> CocoScore:
    # (IoU limits, recall levels, objects, areas: all small medium large), -1 where there was nothing to find
    precision = _missing_as_nan(evaluation["precision"])[..., -1]
    recall = _missing_as_nan(evaluation["recall"])[..., 0, -1]
    every = precision[..., 0]
    sizes = precision.transpose(3, 0)[1:].flatten(1).nanmean(-1).tolist()
    to_find = [index for index in range(len(names)) if not every[:, :, index].isnan().all()]
    return CocoScore(
        float(every.nanmean()),
        float(every[0].nanmean()),
        float(every[5].nanmean()),
        *sizes,
        ar=float(recall.nanmean()),
        by_object={names[index]: float(every[:, :, index].mean()) for index in to_find},
        by_object50={names[index]: float(every[0, :, index].mean()) for index in to_find},
        precision={names[index]: every[:, :, index] for index in to_find},
    )


def _missing_as_nan(figures: np.ndarray) -> Tensor:
    tensor = torch.from_numpy(np.asarray(figures, np.float64))
    return torch.where(tensor > -1, tensor, torch.nan)


def _say_nothing(*_message: object) -> None:
    """Stand in for the evaluator's print."""
