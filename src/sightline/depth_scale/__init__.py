"""How large an object must be: its size in the picture against its depth and the focal length.

``observation`` reads size (``measures``) and depth (``statistics``) of each sample as ``options`` say, and
tells which cannot be used; ``loss`` compares them with what a pinhole camera shows; ``calibration`` finds
the object's constant; ``normalisation`` makes relative depth usable. ``insertion`` joins the loss with those
that say *where* an inserted object is (``mask_losses``, ``distance``, ``latents``). ``depth_models``
estimates depth from a picture; ``folder`` and ``scale_check`` judge a folder of pictures.
"""

from sightline.depth_scale.calibration import (
    ScaleCalibrator,
    ScaleConstant,
    estimate_k_obj_from_dataset,
    sample_constants,
)
from sightline.depth_scale.depth_models import estimate_depth, load_depth_model
from sightline.depth_scale.depth_network import DepthEstimate, DepthModel
from sightline.depth_scale.folder import ScaleFolder, ScaleSample
from sightline.depth_scale.folder_calibration import calibrate_samples
from sightline.depth_scale.insertion import InsertionLoss, InsertionTerms
from sightline.depth_scale.loss import DepthScaleLossInfo, depth_aware_scale_loss, relative_scale_loss
from sightline.depth_scale.measures import ScaleMeasure, hard_box_size, measure_scale
from sightline.depth_scale.normalisation import align_depth, normalise_relative_depth
from sightline.depth_scale.observation import expected_size
from sightline.depth_scale.options import Invalid, ScaleOptions
from sightline.depth_scale.scale_check import ScaleCheck, ScaleRow, check_samples
from sightline.depth_scale.statistics import depth_statistic, weighted_quantile
from sightline.geometry.focal import focal_mm_to_px

__all__ = [
    "DepthEstimate",
    "DepthModel",
    "DepthScaleLossInfo",
    "InsertionLoss",
    "InsertionTerms",
    "Invalid",
    "ScaleCalibrator",
    "ScaleCheck",
    "ScaleConstant",
    "ScaleFolder",
    "ScaleMeasure",
    "ScaleOptions",
    "ScaleRow",
    "ScaleSample",
    "align_depth",
    "calibrate_samples",
    "check_samples",
    "depth_aware_scale_loss",
    "depth_statistic",
    "estimate_depth",
    "estimate_k_obj_from_dataset",
    "expected_size",
    "focal_mm_to_px",
    "hard_box_size",
    "load_depth_model",
    "measure_scale",
    "normalise_relative_depth",
    "relative_scale_loss",
    "sample_constants",
    "weighted_quantile",
]
