"""Real pictures with the weights that come with the package; the figures are in the card of the weights."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch

from sightline.formats.images import read_image
from sightline.formats.refdet_templates import TemplatePicture
from sightline.formats.videos import VideoReader
from sightline.geometry.boxes import iou_matrix
from sightline.refdet.reference_detector import ReferenceDetector
from sightline.refdet.shipped import shipped_weights
from tests.real_data import real_path

pytestmark = pytest.mark.real


def test_the_box_of_cookies_in_a_hand_held_video():
    """From one photograph: in at least 70 % of the 45 frames with truth the surest box overlaps by half."""
    corners = json.loads(real_path("cookies_box/corners.json").read_text())
    photo = read_image(real_path("cookies_box") / corners["image"])
    mask = np.zeros(photo.shape[:2], np.uint8)
    outline = cv2.convexHull(np.array(corners["image_points_px"]).round().astype(np.int32))
    cv2.fillConvexPoly(mask, outline, 1)
    detector = ReferenceDetector.from_checkpoint(shipped_weights())
    bank = detector.onboard([TemplatePicture(photo, mask.astype(bool))])
    truth = json.loads(real_path("cookies_box/video_truth.json").read_text())
    frames = {frame["frame"]: np.array(frame["corners_px"]) for frame in truth["frames"]}
    overlaps = []
    with VideoReader(real_path("cookies_box/box.mp4")) as video:
        for index, image in video.frames(sorted(frames)):
            found = detector.detect(image, {"cookies": bank}, score_threshold=0.0, max_instances=1)
            low, high = frames[index].min(0), frames[index].max(0)
            true = torch.tensor([[*low, *high]], dtype=torch.float64)
            overlaps.append(float(iou_matrix(found.boxes.double(), true)[0, 0]))
    assert len(overlaps) == 45
    assert np.mean(np.array(overlaps) >= 0.5) >= 0.7
