"""The reference detector: any number of pictures of an object in, every instance in a picture out.

* ``model`` builds the network, which is in ``detector``. Its parts: ``fusion`` (of templates),
  ``correlation`` (depthwise, as a cosine), ``prototypes`` (cosines with descriptors), ``matching`` (these at
  one stride), ``head``.
* ``bank``: what is computed once for an object. ``reference_detector``: pictures and banks in, records out;
  ``inference``: files in, dicts and files out.
* ``decode``: cells and boxes, the best detections. ``assignment`` and ``losses``: what is learned.
* ``framing``: how pictures become the network's; ``data``: folders; ``composites`` with
  ``template_pictures``: made pictures; ``augmentation``; ``training``: the task.
"""

from sightline.refdet.assignment import Assignment, assign_boxes
from sightline.refdet.bank import LevelBank, TemplateBank
from sightline.refdet.decode import (
    Cells,
    DecodedBoxes,
    RefDetMaps,
    decode_boxes,
    decode_maps,
    decode_predictions,
    encode_boxes,
)
from sightline.refdet.losses import RefDetLoss, focal_loss
from sightline.refdet.model import (
    FPN,
    ConvNeXtRefDet,
    ConvNeXtTiny,
    DepthwiseCorrelation,
    DetectionHead,
    RefDetOutput,
    SearchFeatures,
    TemplateFusion,
    build_convnext_refdet,
    count_parameters,
    load_pretrained_convnext,
)

__all__ = [
    "FPN",
    "Assignment",
    "Cells",
    "ConvNeXtRefDet",
    "ConvNeXtTiny",
    "DecodedBoxes",
    "DepthwiseCorrelation",
    "DetectionHead",
    "LevelBank",
    "RefDetLoss",
    "RefDetMaps",
    "RefDetOutput",
    "SearchFeatures",
    "TemplateBank",
    "TemplateFusion",
    "assign_boxes",
    "build_convnext_refdet",
    "count_parameters",
    "decode_boxes",
    "decode_maps",
    "decode_predictions",
    "encode_boxes",
    "focal_loss",
    "load_pretrained_convnext",
]
