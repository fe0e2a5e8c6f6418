"""Test-time adaptation of any model, that cannot silently ruin it.

``spec`` says what an adaptation is, with ``resets``, ``guards`` and ``presets``; ``adapter`` runs it:
``selection`` and ``lora`` give what may change, ``batch_norm`` the statistics, ``objectives`` what is
lowered, ``methods`` and ``cotta`` (with ``views``) how, ``learner`` with ``snapshot`` and ``trust_region``
what changes and how it comes back, ``measures``, ``verdicts`` and ``report`` what is asked and told.
``readers`` and ``detections`` know what models put out, ``masked`` the room's masked reconstruction.
``stream`` goes through many pictures.
"""

from sightline.rtdetr_pose.ttt.adapter import Adapter
from sightline.rtdetr_pose.ttt.detections import DetectorReader
from sightline.rtdetr_pose.ttt.guards import Guards
from sightline.rtdetr_pose.ttt.lora import apply_adapters, remove_adapters
from sightline.rtdetr_pose.ttt.masked import MaskedObjective
from sightline.rtdetr_pose.ttt.objectives import Objective
from sightline.rtdetr_pose.ttt.presets import PRESETS, preset
from sightline.rtdetr_pose.ttt.readers import ClassifierReader, OutputReader
from sightline.rtdetr_pose.ttt.report import StepReport
from sightline.rtdetr_pose.ttt.resets import Episodic, Every, OnTrigger, Stream
from sightline.rtdetr_pose.ttt.selection import select_parameters
from sightline.rtdetr_pose.ttt.spec import AdaptSpec, Cotta, Eata, MaskedReconstruction, Sar, Scope, Tent
from sightline.rtdetr_pose.ttt.stream import StreamItem, compare_on_streams, run_stream, summarise

__all__ = [
    "PRESETS",
    "AdaptSpec",
    "Adapter",
    "ClassifierReader",
    "Cotta",
    "DetectorReader",
    "Eata",
    "Episodic",
    "Every",
    "Guards",
    "MaskedObjective",
    "MaskedReconstruction",
    "Objective",
    "OnTrigger",
    "OutputReader",
    "Sar",
    "Scope",
    "StepReport",
    "Stream",
    "StreamItem",
    "Tent",
    "apply_adapters",
    "compare_on_streams",
    "preset",
    "remove_adapters",
    "run_stream",
    "select_parameters",
    "summarise",
]
