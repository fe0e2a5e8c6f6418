from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sightline.geometry.boxes import iou
from sightline.geometry.rotations import geodesic_distance
from sightline.geometry.symmetry import SymmetryGroup
from sightline.nn.checkpoint import save_model
from sightline.objects.card import ObjectCard
from sightline.objects.onboard import onboard_mesh
from sightline.pipeline.estimate import PoseEstimator
from sightline.pipeline.estimators import EstimatorMaker, MatcherChoice, make_estimator
from sightline.pipeline.matcher import BoxFinder, Matcher
from sightline.pipeline.refdet_boxes import DetectedBoxes
from sightline.refdet.bank_detector import BankDetector, DetectorSettings
from sightline.refdet.selection import Proposals
from sightline.refdet.shipped import shipped_weights
from sightline.rendering import render_views
from sightline.sift import SiftMatcher
from sightline.vpog.model import VPOGModel
from tests.printed_box import CAMERA, box_pose, picture_of, printed_box


@pytest.fixture(scope="module")
def card() -> ObjectCard:
    none = SymmetryGroup.none()
    return onboard_mesh(printed_box(), name="box", num_views=42, template_size=160, symmetries=none)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny matcher that has learned nothing."""
    torch.manual_seed(0)
    encoder = {"name": "tiny", "dim": 32, "depth": 1, "num_heads": 2}
    model = VPOGModel(encoder, image_size=64, depth=1, num_heads=2, flow_hidden_dim=32, flow_layers=1)
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_model(path, model, model.config, {"turn": 0.55})
    return path


class SeenBoxes:
    """A detector that says what it is told, and remembers what it was asked."""

    def __init__(self, *boxes: list[float]) -> None:
        self.boxes, self.asked = boxes, []

    def find_boxes(self, image: np.ndarray, cards: list[ObjectCard]) -> dict[str, torch.Tensor]:
        self.asked.append([each.name for each in cards])
        return {each.name: torch.tensor(self.boxes).double().reshape(-1, 4) for each in cards}


def _two_boxes() -> np.ndarray:
    left, right = box_pose(distance=0.6), box_pose(tilt=0.8, distance=0.6)
    left[0, 3], right[0, 3] = -0.08, 0.08
    picture = picture_of(printed_box(), left)
    picture[:, 160:] = picture_of(printed_box(), right)[:, 160:]
    return picture


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"matcher": "loftr"}, "--matcher: expected sift or vpog, got 'loftr'"),
        ({"detector": "yolo"}, "--detector: expected refdet or off, got 'yolo'"),
        ({"weights": Path("w.safetensors")}, "--weights: expected with --matcher vpog"),
        ({"mode": "global", "device": "cuda"}, "--mode, --device: expected with --matcher vpog"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        MatcherChoice(**options)


def test_a_detector_says_where_the_learned_matcher_looks_and_not_the_classical_one():
    assert MatcherChoice("vpog").box_source == "refdet"
    assert MatcherChoice("sift").box_source == "off"
    assert MatcherChoice("sift", detector="refdet", device="cuda").box_source == "refdet"
    assert MatcherChoice("vpog", detector="off").box_source == "off"


def test_the_parts_have_the_form_of_their_protocols(card: ObjectCard, weights: Path):
    assert isinstance(SiftMatcher([]), Matcher)
    assert isinstance(EstimatorMaker(MatcherChoice("vpog", weights)).matcher([]), Matcher)
    assert isinstance(DetectedBoxes(_Proposer(Proposals.none())), BoxFinder)
    assert not isinstance(SiftMatcher([]), BoxFinder)


def test_weights_that_are_not_there_or_another_model_are_named(tmp_path: Path):
    for weights, error, message in (
        (tmp_path / "none.safetensors", FileNotFoundError, "none.safetensors"),
        (shipped_weights(), ValueError, "expected weights of a VPOGModel, got a ConvNeXtRefDet"),
    ):
        with pytest.raises(error, match=message):
            EstimatorMaker(MatcherChoice("vpog", weights))


def test_a_matcher_without_knowledge_finds_no_pose_and_says_why(card: ObjectCard, weights: Path):
    for mode in ("cluster", "global", "global-fast"):
        estimator = EstimatorMaker(MatcherChoice("vpog", weights, mode, "off"))([card])
        assert estimator.box_finder is None
        box = torch.tensor([100.0, 60, 220, 180])
        (found,) = estimator.find(picture_of(printed_box(), box_pose()), CAMERA, boxes={"box": box})
        assert not found.pose.valid
        assert found.pose.reason
        assert bool(found.pose.R.isnan().all())


def test_the_object_is_looked_for_where_the_detector_says(card: ObjectCard):
    picture = _two_boxes()
    right = [165.0, 20.0, 319.0, 230.0]
    matcher = SiftMatcher([card])
    seen = SeenBoxes(right)
    estimator = PoseEstimator([card], matcher, max_instances=3, box_finder=seen)
    found = estimator.find(picture, CAMERA)
    assert [one.pose.valid for one in found] == [True]
    assert float(found[0].pose.t[0]) > 0
    assert found[0].seconds["detect"] >= 0
    both = PoseEstimator([card], matcher, max_instances=3, box_finder=SeenBoxes([0.0, 20, 155, 230], right))
    assert len([one for one in both.find(picture, CAMERA) if one.pose.valid]) == 2
    one = PoseEstimator([card], matcher, max_instances=1, box_finder=SeenBoxes([0.0, 20, 155, 230], right))
    assert len(one.find(picture, CAMERA)) == 1


def test_a_given_box_or_a_prior_needs_no_detector(card: ObjectCard):
    seen = SeenBoxes([0.0, 0, 319, 239])
    estimator = PoseEstimator([card], SiftMatcher([card]), box_finder=seen)
    picture, pose = picture_of(printed_box(), box_pose()), box_pose()
    (found,) = estimator.find(picture, CAMERA, boxes={"box": torch.tensor([0.0, 0, 319, 239])})
    assert found.pose.valid
    (found,) = estimator.find(picture, CAMERA, priors={"box": pose})
    assert found.from_prior
    assert seen.asked == []
    (found,) = estimator.find(np.full_like(picture, 128), CAMERA, priors={"box": pose})
    assert not found.pose.valid
    assert seen.asked == [["box"]]


def test_an_object_that_the_detector_does_not_see_is_not_searched(card: ObjectCard):
    estimator = PoseEstimator([card], SiftMatcher([card]), box_finder=SeenBoxes())
    (found,) = estimator.find(picture_of(printed_box(), box_pose()), CAMERA)
    assert not found.pose.valid
    assert found.pose.reason == "the detector sees it nowhere"


class _Proposer(BankDetector[Any]):
    """Proposes the same for every object; its banks are their names."""

    def __init__(self, found: Proposals) -> None:
        super().__init__(DetectorSettings(), "fixed")
        self.found, self.onboarded = found, []

    def onboard(self, templates: Any, *, require_mask: bool = False) -> str:
        raise NotImplementedError

    def onboard_card(self, card: ObjectCard, *, max_templates: int = 42) -> str:
        self.onboarded.append(card.name)
        return card.name

    def propose(
        self, image: np.ndarray, banks: Any, *, score_threshold: Any = None, region: Any = None
    ) -> Any:
        keep = self.found.scores >= score_threshold
        return [self.found.select(keep) for _ in banks]


def test_the_likeliest_boxes_come_first_and_few(card: ObjectCard):
    boxes = torch.tensor([[0.0, 0, 9, 9], [1.0, 0, 9, 9], [2.0, 0, 9, 9], [3.0, 0, 9, 9]]).double()
    detector = _Proposer(Proposals(boxes, torch.tensor([0.2, 0.9, 0.05, 0.4]).double()))
    finder = DetectedBoxes(detector, most=2)
    image = np.zeros((9, 9, 3), np.uint8)
    for _ in range(2):
        assert finder.find_boxes(image, [card])["box"][:, 0].tolist() == [1.0, 3.0]
    assert detector.onboarded == ["box"]  # once


def test_depth_makes_a_pose_exact(card: ObjectCard):
    truth = box_pose()
    depth = render_views(printed_box(), truth[None], CAMERA.K, CAMERA.image_size, outputs=("depth",)).depth[0]
    depth = torch.where(depth > 0, depth, 0.7)
    blurred = picture_of(printed_box(), truth)
    noise = np.random.default_rng(0).normal(0, 12, blurred.shape)
    blurred = np.clip(blurred + noise, 0, 255).astype(np.uint8)
    estimator = make_estimator([card])
    (alone,) = estimator.find(blurred, CAMERA)
    (helped,) = estimator.find(blurred, CAMERA, depth=depth)
    assert helped.pose.valid
    assert helped.verification is not None
    assert helped.verification.depth > 0.9
    assert float((helped.pose.t - truth[:3, 3]).norm()) < 0.0015
    assert float(geodesic_distance(helped.pose.R, truth[:3, :3])) < np.radians(0.6)
    assert helped.pose.covariance is not None
    assert alone.pose.covariance is not None
    assert bool((helped.pose.covariance.diagonal() <= alone.pose.covariance.diagonal() * 1.5).all())
    assert float(iou(helped.box, alone.box)) > 0.9
