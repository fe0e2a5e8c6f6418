import pytest
import torch

from sightline.geometry.pnp.epropnp import EProPnP
from sightline.geometry.poses import make_pose
from sightline.synthetic.problems import make_pnp_problems
from sightline.vpog.pose_loss import EProPnPLoss, normalise_weights
from sightline.vpog.pose_scale import PoseScale


def crops(num_points=80, outliers=0.3, seed=0):
    problems = make_pnp_problems(4, num_points, outlier_fraction=outliers, seed=seed)
    K = problems.camera.K.expand(4, 3, 3).float()
    pose = make_pose(problems.R, problems.t).float()
    return problems.points_3d.float(), problems.points_2d.float(), K, pose, problems.inliers


def test_confidences_learn_who_is_an_inlier():
    torch.manual_seed(0)
    points_3d, points_2d, K, pose, inliers = crops()
    logits = torch.zeros(4, 80, requires_grad=True)
    criterion = EProPnPLoss(EProPnP(num_proposals=4, num_samples=128))
    optimiser = torch.optim.Adam([logits, *criterion.parameters()], lr=0.15)
    first = None
    for _ in range(25):
        outputs = criterion(points_3d, points_2d, logits.sigmoid(), K, pose)
        first = first or outputs
        optimiser.zero_grad()
        outputs["loss"].backward()
        optimiser.step()
    assert outputs["loss"] < first["loss"]
    confidence = logits.detach().sigmoid()
    assert confidence[inliers].mean() > confidence[~inliers].mean() + 0.3
    assert outputs["rotation_deg"] < first["rotation_deg"]


def test_more_confidence_is_more_weight():
    weights = normalise_weights(torch.tensor([[[1.0, 1.0], [3.0, 2.0]]]), torch.tensor([20.0]), 2.0)
    assert (weights[0, 1] > weights[0, 0]).all()
    torch.testing.assert_close(weights.sum(1), torch.tensor([[10.0, 10.0]]))


def test_rows_that_are_not_valid_do_not_matter():
    points_3d, points_2d, K, pose, inliers = crops(60)
    criterion = EProPnPLoss().eval()
    confidence = torch.rand(4, 60)
    seeded = torch.Generator()
    clean = criterion(
        points_3d, points_2d, confidence, K, pose, valid=inliers, generator=seeded.manual_seed(0)
    )
    spoilt = torch.where(inliers[..., None], points_3d, torch.nan)
    other = criterion(spoilt, points_2d, confidence, K, pose, valid=inliers, generator=seeded.manual_seed(0))
    torch.testing.assert_close(clean["loss"], other["loss"])


def test_no_points_give_zero_and_no_nan():
    points_3d, points_2d, K, pose, _ = crops(10)
    confidence = torch.rand(4, 10, requires_grad=True)
    criterion = EProPnPLoss()
    valid = torch.zeros(4, 10, dtype=torch.bool)
    outputs = criterion(points_3d, points_2d, confidence, K, pose, valid=valid)
    outputs["loss"].backward()
    assert outputs["loss"] == 0
    assert outputs["solved"] == 0
    assert confidence.grad is not None
    assert confidence.grad.isfinite().all()


def test_norm_follows_the_scale_in_training_only():
    points_3d, points_2d, K, pose, _ = crops(20)
    criterion = EProPnPLoss(scale=PoseScale(0.0, momentum=0.1))
    scale = torch.full((4,), 3.0).log()
    criterion(points_3d, points_2d, torch.ones(4, 20), K, pose, log_scale=scale)
    assert float(criterion.scale.norm_factor) == pytest.approx(1.2)
    criterion.eval()(points_3d, points_2d, torch.ones(4, 20), K, pose, log_scale=scale)
    assert float(criterion.scale.norm_factor) == pytest.approx(1.2)


def test_many_points_are_sampled_among_the_valid_ones():
    points_3d, points_2d, K, pose, inliers = crops(200, outliers=0.5)
    criterion = EProPnPLoss(num_points=64)
    outputs = criterion(points_3d, points_2d, torch.ones(4, 200), K, pose, valid=inliers)
    assert outputs["solved"] == 1
    assert outputs["rotation_deg"] < 2
