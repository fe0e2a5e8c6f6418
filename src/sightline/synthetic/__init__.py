"""Synthetic: procedural objects, scenes with their truth, the frozen exam, problems for the solvers.

* ``problems``: random PnP, triangulation and registration problems with their validators.
* ``lettering``, ``labels``: letters and printed labels; ``shapes``, ``bodies``: surfaces with panels, and the
  kinds of things; ``textures``: the panels' painters and the atlas; ``objects``: `make_object`, all of that.
* ``backgrounds``, ``lighting``, ``sensor``: what lies behind, what shines, what the camera spoils.
* ``silhouettes``, ``layout``: what covers what, and where objects are put; ``scenes``: `make_scene`.
* ``datasets``: scenes as a BOP data set.
* ``exam_settings``, ``exam``: the frozen exam's values, its pictures; ``exam_scores``, ``exam_pose_scores``,
  ``exam_report``: its scorers.
* ``demo``: the embedded example. ``insertion``: rooms without and with an object.
* ``sprites``, ``backdrops``: objects and what lies behind them, drawn once; ``pasting``, ``layers``: put
  together; ``crops``: pairs of views of one object.
* ``view_bank``, ``view_turning``, ``pose_composites``: views with poses, shown anywhere, many in a picture.
  ``closed_set``: the five objects that a network learns by heart; ``closed_set_exam``: their exam and scorer.
* ``corruptions``: eight faults of pictures in five strengths.
* ``mistakes``: inputs of one object with a planted fault of unit, frame or file.

The same seed gives the same bytes. Metres; the object's z is up, its front looks to -y.
"""

from sightline.synthetic.backgrounds import BACKGROUND_KINDS, make_background
from sightline.synthetic.closed_set import closed_set_composites, closed_set_objects
from sightline.synthetic.closed_set_exam import (
    ClosedSetPictures,
    ClosedSetScenes,
    ClosedSetScorer,
    FoundPose,
    closed_set_pictures,
)
from sightline.synthetic.corruptions import CORRUPTIONS, corrupt
from sightline.synthetic.datasets import frame_of_scene, write_bop_dataset
from sightline.synthetic.demo import demo_distractors, demo_objects, demo_scene
from sightline.synthetic.exam import ExamPicture, ExamPictures, exam_object, exam_objects, exam_pictures
from sightline.synthetic.exam_pose_scores import PoseScorer
from sightline.synthetic.exam_report import ExamReport
from sightline.synthetic.exam_scores import DetectionScorer
from sightline.synthetic.exam_settings import EXAM, ExamSettings, TaskSettings
from sightline.synthetic.lighting import LightSettings
from sightline.synthetic.objects import OBJECT_KINDS, SyntheticObject, make_lookalike, make_object
from sightline.synthetic.scenes import Scene, SceneSettings, make_scene
from sightline.synthetic.sensor import SensorSettings

__all__ = [
    "BACKGROUND_KINDS",
    "CORRUPTIONS",
    "EXAM",
    "OBJECT_KINDS",
    "ClosedSetPictures",
    "ClosedSetScenes",
    "ClosedSetScorer",
    "DetectionScorer",
    "ExamPicture",
    "ExamPictures",
    "ExamReport",
    "ExamSettings",
    "FoundPose",
    "LightSettings",
    "PoseScorer",
    "Scene",
    "SceneSettings",
    "SensorSettings",
    "SyntheticObject",
    "TaskSettings",
    "closed_set_composites",
    "closed_set_objects",
    "closed_set_pictures",
    "corrupt",
    "demo_distractors",
    "demo_objects",
    "demo_scene",
    "exam_object",
    "exam_objects",
    "exam_pictures",
    "frame_of_scene",
    "make_background",
    "make_lookalike",
    "make_object",
    "make_scene",
    "write_bop_dataset",
]
