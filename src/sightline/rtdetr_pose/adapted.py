"""A detector that adapts itself to the pictures that it is shown, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sightline.geometry.boxes import xyxy_from_cxcywh
from sightline.geometry.cameras import Camera
from sightline.geometry.depth import create_geom_input, downsample_depth, is_measured
from sightline.rtdetr_pose.inference import PosedDetections, RTDETRPoseDetector
from sightline.rtdetr_pose.ttt import (
    Adapter,
    AdaptSpec,
    DetectorReader,
    MaskedObjective,
    MaskedReconstruction,
    Objective,
    StepReport,
)

_GEOMETRY_STRIDE = 4  # pixels of the network's picture to a cell of sensed geometry
_SEEN = 0.3  # score of what counts as an object in sensed geometry


class AdaptedDetector:
    """A detector as long as it adapts itself; afterwards it is what it was.

    Args:
        detector: whose network changes.
        spec: how.
        source: pictures like those of its training with their cameras, which EATA needs.

    Raises:
        ValueError: a scope that selects nothing, or masked reconstruction with a network without its branch.
    """

    def __init__(
        self,
        detector: RTDETRPoseDetector,
        spec: AdaptSpec,
        *,
        source: Iterable[tuple[NDArray[np.uint8], Camera]] | None = None,
    ) -> None:
        self.detector, self.spec = detector, spec
        self.reports: list[StepReport] = []
        reader = DetectorReader()
        options = spec.options
        objective = Objective(reader)
        if isinstance(options, MaskedReconstruction):
            objective = MaskedObjective(reader, options)
        batches = None if source is None else [self._batch(*each) for each in source]
        self.adapter = Adapter(
            detector.model, spec, reader=reader, objective=objective, source_batches=batches
        )

    def __enter__(self) -> AdaptedDetector:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self, *, keep: bool = False) -> None:
        """End the adaptation.

        Args:
            keep: whether the network stays as it is now, instead of as it was.
        """
        self.adapter.close(keep=keep)

    def detect(
        self,
        image: NDArray[np.uint8],
        camera: Camera,
        *,
        depth: Float[Tensor, "h w"] | None = None,
        min_score: float = 0.3,
        max_detections: int = 100,
    ) -> PosedDetections:
        """Find objects and their poses, and learn from the picture; the report is in ``reports``.

        Args:
            image: ``(h, w, 3)`` uint8 RGB.
            camera: its camera.
            depth: ``(h, w)`` metres of a sensor, 0 or NaN where missing: geometry for masked reconstruction.
            min_score: lowest score of a detection.
            max_detections: at most so many, the best.

        Raises:
            ValueError: a picture of another size than its camera's.
        """
        batch = self._batch(image, camera)
        geom = None
        if depth is not None and isinstance(self.spec.options, MaskedReconstruction):
            geom = sensed_geometry(self.adapter.predict(batch), depth, self.detector.input_size)
        outputs, report = self.adapter.step(batch, geom, geometry_source="sensor")
        self.reports.append(report)
        return self.detector.read(outputs, camera, min_score=min_score, max_detections=max_detections)

    def _batch(self, image: NDArray[np.uint8], camera: Camera) -> dict[str, Tensor]:
        picture, K = self.detector.prepare(image, camera)
        return {"x": picture, "intrinsics": K}


def sensed_geometry(
    outputs: Mapping[str, Any], depth: Float[Tensor, "h w"], input_size: tuple[int, int]
) -> Float[Tensor, "1 2 gh gw"] | None:
    """The geometry of what was found, with the depth of a sensor.

    An object is where the sensor's depth within its box lies as near to the predicted depth as the object is
    large; how deep it is there says the sensor alone.

    Args:
        outputs: of the model for this picture, with ``bbox`` and ``log_z``.
        depth: ``(h, w)`` metres of the whole picture, 0 or NaN where missing.
        input_size: ``(width, height)`` of the network's picture.

    Returns:
        Mask and normalised depth; None where nothing was found that the sensor sees.
    """
    size = (input_size[0] // _GEOMETRY_STRIDE, input_size[1] // _GEOMETRY_STRIDE)
    seen = downsample_depth(depth.float(), size)
    scores = outputs["logits"][0].sigmoid().amax(-1)
    rows = torch.nonzero(scores >= _SEEN)[:, 0]
    boxes = xyxy_from_cxcywh(outputs["bbox"][0, rows].float().cpu())
    middle = outputs["log_z"][0, rows, 0].float().cpu().exp()
    # about the object's size, for a picture about as wide as it is deep
    reach = middle * (boxes[:, 2:] - boxes[:, :2]).amax(-1)
    x = (torch.arange(size[0]) + 0.5) / size[0]
    y = (torch.arange(size[1]) + 0.5) / size[1]
    columns = (x >= boxes[:, :1]) & (x <= boxes[:, 2:3])
    across = (y >= boxes[:, 1:2]) & (y <= boxes[:, 3:4])
    near = (seen - middle[:, None, None]).abs() <= reach[:, None, None]
    mask = (columns[:, None, :] & across[:, :, None] & near).any(0) & is_measured(seen)
    if not bool(mask.any()):
        return None
    return create_geom_input(mask.float(), torch.where(mask, seen, 0.0))[None].to(outputs["bbox"].device)
