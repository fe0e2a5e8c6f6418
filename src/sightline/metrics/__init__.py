"""How good estimates are: pose errors and BOP's scores, COCO's detection scores, key-point errors.

``pose`` has the errors of one pose against another (ADD, ADD-S, MSSD, MSPD), ``visible_surface`` the one that
needs depth maps; ``pose_pairs`` lays estimates beside truths picture by picture, ``bop`` and
``average_distance`` turn those pairs into scores. ``coco`` is COCO's AP of boxes and masks, ``detection``
what a user meets at one threshold, ``detected_poses`` how good the poses are of what is detected.
``keypoints`` has errors in pixels and metres. Below them all: ``matching`` (who found whom), ``curves``
(areas below precision and recall), ``intervals`` (how sure a figure is), ``breakdown`` (overall and by
object), ``calibration`` (whether claimed covariances are right).

Nothing here reads a file or renders: records and tensors in, numbers out. Metres, pixels, degrees where a
name says so; float64 throughout.
"""

from sightline.metrics.average_distance import DistanceScore, average_distance_scores
from sightline.metrics.bop import BOP_PIXELS, BopScore, bop_average_precision, bop_average_recall
from sightline.metrics.breakdown import Breakdown
from sightline.metrics.calibration import coverage, ellipsoid_levels, in_right_mode
from sightline.metrics.coco import CocoScore, coco_scores
from sightline.metrics.curves import (
    area_under_recall,
    average_precision,
    interpolated_precision,
    recall_below,
    recall_levels,
)
from sightline.metrics.detected_poses import (
    SUCCESS_LIMITS,
    DetectedPoses,
    DetectedPoseScore,
    KnownShape,
    ObjectErrors,
    detected_pose_errors,
    score_detected_poses,
)
from sightline.metrics.detection import (
    DetectionCounts,
    FalseAlarms,
    PrecisionRecall,
    count_detections,
    count_false_alarms,
    precision_recall_curves,
)
from sightline.metrics.intervals import Interval, bootstrap_weights, percentile_interval, wilson_interval
from sightline.metrics.keypoints import (
    ErrorSummary,
    KeypointReport,
    bone_length_variation,
    bone_lengths,
    mpjpe,
    oks,
    pck,
    point_errors,
    report_keypoints,
    reprojection_errors,
    summarise_errors,
)
from sightline.metrics.matching import match_greedily, match_groups
from sightline.metrics.pose import (
    add,
    adds,
    complement_over_union,
    mspd,
    mssd,
    projection_error,
    rotation_error_deg,
    translation_error,
)
from sightline.metrics.pose_pairs import ObjectShape, PairErrors, PicturePoses, pair_errors
from sightline.metrics.visible_surface import BOP_DELTA, BOP_SHARES, distance_from_depth, visible_mask, vsd

__all__ = [
    "BOP_DELTA",
    "BOP_PIXELS",
    "BOP_SHARES",
    "SUCCESS_LIMITS",
    "BopScore",
    "Breakdown",
    "CocoScore",
    "DetectedPoseScore",
    "DetectedPoses",
    "DetectionCounts",
    "DistanceScore",
    "ErrorSummary",
    "FalseAlarms",
    "Interval",
    "KeypointReport",
    "KnownShape",
    "ObjectErrors",
    "ObjectShape",
    "PairErrors",
    "PicturePoses",
    "PrecisionRecall",
    "add",
    "adds",
    "area_under_recall",
    "average_distance_scores",
    "average_precision",
    "bone_length_variation",
    "bone_lengths",
    "bootstrap_weights",
    "bop_average_precision",
    "bop_average_recall",
    "coco_scores",
    "complement_over_union",
    "count_detections",
    "count_false_alarms",
    "coverage",
    "detected_pose_errors",
    "distance_from_depth",
    "ellipsoid_levels",
    "in_right_mode",
    "interpolated_precision",
    "match_greedily",
    "match_groups",
    "mpjpe",
    "mspd",
    "mssd",
    "oks",
    "pair_errors",
    "pck",
    "percentile_interval",
    "point_errors",
    "precision_recall_curves",
    "projection_error",
    "recall_below",
    "recall_levels",
    "report_keypoints",
    "reprojection_errors",
    "rotation_error_deg",
    "score_detected_poses",
    "summarise_errors",
    "translation_error",
    "visible_mask",
    "vsd",
    "wilson_interval",
]
