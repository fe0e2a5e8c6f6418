from __future__ import annotations

import base64
import dataclasses
import math
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
import torch

from sightline.geometry.rotations import exp
from sightline.records import PoseEstimate
from sightline.vis.report import ReportItem, embed_picture, explain_pose, render_report
from sightline.vis.tables import PoseRow
from tests.vis.scenes import grey_picture, make_estimate

EVIL = "<script>alert('x')</script> & \"mug\""
VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Text, tags and pictures of a page; fails where tags do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.words, self.pictures = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "img":
            self.pictures.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def decode(address: str) -> np.ndarray:
    data = base64.b64decode(address.split(",", 1)[1])
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def noisy_picture(width: int, height: int) -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def item() -> ReportItem:
    inliers = torch.tensor([True] * 57 + [False] * 3)
    pose = make_estimate(t=(0.0, 0.0, 0.642), inliers=inliers, residual_px=0.82, name="mug")
    flipped = dataclasses.replace(pose, R=exp(torch.tensor([0.0, 0.0, math.pi]).double()), score=0.41)
    return ReportItem(
        name="mug",
        pose=pose,
        overlay=noisy_picture(320, 240),
        matches=noisy_picture(200, 80),
        template=noisy_picture(96, 96),
        scores={"silhouette": 0.91, "edges": 0.44, "depth": math.nan},
        timings={"match": 0.12, "PnP": 0.03},
        notes=["unit inferred: mm"],
        alternatives=[flipped],
    )


def test_the_report_explains_each_pose(item):
    lost = ReportItem(name="can", pose=PoseEstimate.failure("3 matches, at least 4 are needed", name="can"))
    page = Page(
        render_report(
            "Poses in scene.png",
            noisy_picture(320, 240),
            [item, lost],
            facts={"Camera": "640 x 480"},
            pictures={"Reliability": grey_picture()},
            footer="Sightline 0.1.0",
        )
    )
    for words in (
        "Poses in scene.png",
        "1 of 2 objects found",
        "57 of 60 matches agree on this pose, half of them within 0.82 px.",
        "The weakest part of its verification is edges (0.44).",
        "0.0, 0.0, 642.0 mm",
        "Quaternion w x y z 1.0000, 0.0000, 0.0000, 0.0000",
        "silhouette 0.91",
        "depth unknown",
        "unit inferred: mm",
        "match 120 ms 80.0 %",
        "total 150 ms 100 %",
        "0.41 180.0° 0 mm",
        "Not found: 3 matches, at least 4 are needed.",
        "Camera 640 x 480",
        "Sightline 0.1.0",
    ):
        assert words in page.text, words
    captions = [picture["alt"] for picture in page.pictures]
    assert captions == [
        "All poses in the whole picture",
        "mug: the pose in the picture",
        "Matched points, template left, picture right",
        "The template that matched",
        "Reliability",
    ]


def test_the_page_is_one_file_without_scripts_or_links(item):
    text = render_report("Poses", noisy_picture(320, 240), [item])
    page = Page(text)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "iframe", "object", "a"}
    assert "://" not in text and "url(" not in text and "@import" not in text
    assert all(picture["src"].startswith("data:image/") for picture in page.pictures)
    assert all(name[:2] != "on" for _, attributes in page.tags for name in attributes)
    policy = [a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert "prefers-color-scheme: dark" in text and "@media print" in text
    assert text.startswith("<!doctype html>") and '<meta charset="utf-8">' in text


def test_all_text_is_escaped_everywhere(item):
    pose = dataclasses.replace(item.pose, name=EVIL, reason=EVIL)
    wicked = dataclasses.replace(
        item,
        name=EVIL,
        pose=pose,
        scores={EVIL: 0.5, "b": 0.9},
        timings={EVIL: 1.0},
        notes=[EVIL],
        alternatives=[pose, PoseEstimate.failure(EVIL, name=EVIL)],
    )
    lost = ReportItem(name=EVIL, pose=PoseEstimate.failure(EVIL, name=EVIL))
    rows = [PoseRow(name=EVIL, score=0.5, found=True, note=EVIL)]
    image = noisy_picture(32, 32)
    text = render_report(
        EVIL, image, [wicked, lost], rows=rows, facts={EVIL: EVIL}, pictures={EVIL: image}, footer=EVIL
    )
    page = Page(text)
    assert "script" not in {tag for tag, _ in page.tags} and "<script" not in text
    assert page.text.count("alert('x')") >= 15  # it is shown as the text that it is
    assert {attribute for _, attributes in page.tags for attribute in attributes} <= {
        "lang", "charset", "http-equiv", "content", "name", "class", "id", "src", "width", "height",
        "alt", "style", "scope", "open",
    }  # fmt: skip


def test_pictures_come_back_as_they_went_in(item):
    page = Page(render_report("Poses", None, [item]))
    picture = decode(page.pictures[0]["src"])
    assert picture.shape == (240, 320, 3)
    assert (page.pictures[0]["width"], page.pictures[0]["height"]) == ("320", "240")
    assert np.abs(picture.astype(int) - item.overlay).mean() < 3
    red = np.zeros((20, 20, 3), dtype=np.uint8)
    red[..., 0] = 255
    address = embed_picture(red)
    assert address.startswith("data:image/png") and (decode(address) == red).all()  # red, not blue


def test_large_pictures_are_scaled_down():
    address = embed_picture(noisy_picture(2000, 1000), max_side=500)
    assert address.startswith("data:image/jpeg") and decode(address).shape == (250, 500, 3)


def test_bars_stay_in_their_track(item):
    text = render_report(
        "Poses", None, [dataclasses.replace(item, scores={"a": 1.7, "b": -0.5, "c": math.nan})]
    )
    assert re.findall(r"width:(\d+)%", text) == ["100", "0", "0"]


def test_what_is_not_known_is_left_out():
    page = Page(render_report("Poses", None, [ReportItem(name="mug", pose=make_estimate())]))
    for heading in ("Verification", "Notes", "Time", "Other poses considered", "About this run"):
        assert heading not in page.text
    assert page.pictures == []
    assert "Nothing is recorded about how this pose was found." in page.text
    assert "objects found" not in Page(render_report("Nothing", None, [])).text


def test_the_table_names_the_item_when_the_pose_has_no_name():
    pose = dataclasses.replace(make_estimate(), name="")
    page = Page(render_report("Poses", None, [ReportItem(name="tea box", pose=pose)]))
    assert "object score distance tea box 0.93" in page.text


def test_explanations():
    assert explain_pose(PoseEstimate.failure("")) == "Not found: no reason given."
    doubtful = make_estimate(reason="planar points")
    assert explain_pose(doubtful) == "Doubtful: planar points."
    assert (
        explain_pose(make_estimate(), {"edges": 0.4}) == "Nothing is recorded about how this pose was found."
    )


def test_what_is_no_picture_is_refused_by_its_caption(item):
    with pytest.raises(ValueError, match="The template that matched: expected uint8 RGB"):
        render_report("Poses", None, [dataclasses.replace(item, template=np.zeros((4, 4)))])
