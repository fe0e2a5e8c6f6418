"""Files to records and records to files; the one place where other people's conventions are known.

Millimetres, boxes that count from the picture's edge, quaternions in either order and depth in steps end
here: what comes out is in metres, radians and pixels of the house, what goes in is written as each format
wants it. Every file is written whole or not at all.

==================  =======================================================================================
``atomic``          writing that leaves nothing half-written, for files and for folders
``images``          pictures, 16-bit depth maps, masks; ``depth_arrays``: depth as NumPy files
``exif``            what a photograph tells of its camera
``videos``          frames in and out through PyAV
``meshes``          PLY, OBJ, GLB, STL to a ``TriangleMesh`` in metres, and back; beside it ``mesh_units``
                    (which unit, and why), ``mesh_appearance`` (all colours to one source),
                    ``mesh_headers``, ``mesh_sidecars`` and ``mesh_writing``
``camera_json``     one camera; ``pose_json``: one pose; ``posed_photos``: photographs with poses
``frames``          the common ground of the data sets: ``Frame``, ``FrameObject``, ``FrameSet``
``bop_scene``       BOP, read; ``bop_writing`` written; ``bop_dataset`` with ``bop_models`` and targets
``bop_results``     pose results as CSV; ``bop_detections``: detections as JSON
``coco``            boxes and masks; ``rle``: run-length codes; ``pixel_boxes``: whose box begins where
``foundationpose``  folders of FoundationPose; ``megapose``: examples of MegaPose
``results``         results of Sightline as JSON; ``result_records``: what they hold
``convert``         any of these data sets to any other: ``from sightline.formats.convert import convert``
``json_files``      JSON whose faults name file, place and key; ``frame_files``: pictures that are copied
==================  =======================================================================================
"""

from sightline.formats.atomic import atomic_folder, atomic_write
from sightline.formats.bop_dataset import BopDataset, BopFrames, Target, read_targets, write_targets
from sightline.formats.bop_detections import BopDetection, read_bop_detections, write_bop_detections
from sightline.formats.bop_models import ModelInfo, read_models_info, write_models_info
from sightline.formats.bop_results import (
    BopResult,
    parse_results_name,
    read_bop_results,
    results_from_poses,
    results_name,
    write_bop_results,
)
from sightline.formats.bop_scene import BopScene
from sightline.formats.bop_writing import BopSceneWriter
from sightline.formats.camera_json import read_camera
from sightline.formats.coco import CocoDataset, CocoResult, read_coco_results, write_coco, write_coco_results
from sightline.formats.convert import Conversion, read_frames
from sightline.formats.exif import ExifCamera, ExifFocal, camera_from_exif, read_exif_focal
from sightline.formats.foundationpose import FoundationPoseFolder, write_foundationpose
from sightline.formats.frames import Frame, FrameObject, FrameSet, MeshFile
from sightline.formats.images import (
    read_depth,
    read_image,
    read_image_size,
    read_mask,
    write_depth,
    write_image,
    write_mask,
)
from sightline.formats.json_files import read_json, write_json
from sightline.formats.megapose import read_megapose, write_megapose
from sightline.formats.meshes import LoadedMesh, read_mesh, write_mesh
from sightline.formats.posed_photos import read_posed_photos
from sightline.formats.result_records import ImageResult, ObjectResult, Results
from sightline.formats.results import read_results, write_results
from sightline.formats.rle import Rle
from sightline.formats.videos import VideoReader, VideoWriter

__all__ = [
    "BopDataset",
    "BopDetection",
    "BopFrames",
    "BopResult",
    "BopScene",
    "BopSceneWriter",
    "CocoDataset",
    "CocoResult",
    "Conversion",
    "ExifCamera",
    "ExifFocal",
    "FoundationPoseFolder",
    "Frame",
    "FrameObject",
    "FrameSet",
    "ImageResult",
    "LoadedMesh",
    "MeshFile",
    "ModelInfo",
    "ObjectResult",
    "Results",
    "Rle",
    "Target",
    "VideoReader",
    "VideoWriter",
    "atomic_folder",
    "atomic_write",
    "camera_from_exif",
    "parse_results_name",
    "read_bop_detections",
    "read_bop_results",
    "read_camera",
    "read_coco_results",
    "read_depth",
    "read_exif_focal",
    "read_frames",
    "read_image",
    "read_image_size",
    "read_json",
    "read_mask",
    "read_megapose",
    "read_mesh",
    "read_models_info",
    "read_posed_photos",
    "read_results",
    "read_targets",
    "results_from_poses",
    "results_name",
    "write_bop_detections",
    "write_bop_results",
    "write_coco",
    "write_coco_results",
    "write_depth",
    "write_foundationpose",
    "write_image",
    "write_json",
    "write_mask",
    "write_megapose",
    "write_mesh",
    "write_models_info",
    "write_results",
    "write_targets",
]
