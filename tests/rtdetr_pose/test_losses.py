from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from sightline.geometry.rotations import matrix_to_rot6d, random_rotations
from sightline.geometry.symmetry import SymmetryGroup
from sightline.rtdetr_pose.detection_losses import varifocal_loss
from sightline.rtdetr_pose.losses import DEFAULT_WEIGHTS, Losses
from sightline.rtdetr_pose.matching import MatchCosts
from sightline.rtdetr_pose.schedules import MaskSchedule, PoseSchedule, Ramp

K = torch.tensor([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]])
SYMMETRIES = [SymmetryGroup.none(), SymmetryGroup.cyclic(4, (0, 0, 1)), SymmetryGroup.continuous((0, 0, 1))]


def make_targets(counts, g):
    targets = []
    for n in counts:
        t = torch.rand(n, 3, generator=g) * 0.2 + torch.tensor([0.0, 0.0, 0.7])
        pose = {"z": t[:, 2], "R": random_rotations(n, generator=g).float(), "t": t}
        pose |= {"offsets": torch.randn(n, 2, generator=g), "K": K, "image_size": torch.tensor([640, 480])}
        boxes = torch.rand(n, 4, generator=g) * 0.3 + 0.2
        targets.append({"labels": torch.randint(0, 3, (n,), generator=g), "boxes": boxes, **pose})
    return targets


def make_layer(b, q, g, pose=True):
    layer = {
        "logits": torch.randn(b, q, 3, generator=g),
        "bbox": torch.rand(b, q, 4, generator=g) * 0.3 + 0.2,
    }
    if pose:
        layer |= {
            "log_z": torch.randn(b, q, 1, generator=g) * 0.1,
            "offsets": torch.randn(b, q, 2, generator=g),
        }
        layer["rot6d"] = matrix_to_rot6d(random_rotations((b, q), generator=g).float())
    return {key: value.requires_grad_() for key, value in layer.items()}


def make_batch(counts=(2, 0, 3), queries=12, seed=0):
    """Outputs of three layers, the query selection, two denoising groups and the masked branch."""
    g = torch.Generator().manual_seed(seed)
    b, most = len(counts), max(max(counts), 1)
    outputs = make_layer(b, queries, g)
    outputs["k_delta"] = torch.zeros(b, 4, requires_grad=True)
    outputs["aux_outputs"] = [make_layer(b, queries, g) for _ in range(2)]
    outputs["enc_outputs"] = make_layer(b, queries, g, pose=False)
    outputs["dn_outputs"] = [make_layer(b, 4 * most, g, pose=False) for _ in range(3)]
    positive = tuple(torch.cat([torch.arange(n), torch.arange(n) + 2 * most]) for n in counts)
    outputs["dn_meta"] = {"dn_positive_idx": positive, "dn_num_group": 2, "dn_num_split": [4 * most, queries]}
    recon = torch.randn(b, 4, 2, 3, generator=g).requires_grad_()
    mask, entropy = torch.ones(b, 2, 3, dtype=torch.bool), torch.tensor(0.5, requires_grad=True)
    outputs["mim"] = {
        "recon_feat": recon,
        "teacher_feat": torch.zeros(b, 4, 2, 3),
        "mask": mask,
        "entropy": entropy,
    }
    return outputs, make_targets(counts, g)


def leaves_of(value):
    if isinstance(value, torch.Tensor):
        return [value] if value.requires_grad else []
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [leaf for each in values for leaf in leaves_of(each)]


def test_the_seeds_constructor_and_keys():
    weights = {"cls": 1.0, "box": 1.0, "z": 1.0, "rot": 1.0, "mim": 0.1, "entropy": 0.01}
    losses = Losses(weights=weights)(*make_batch())
    assert set(losses) == {"loss", *(f"loss_{key}" for key in DEFAULT_WEIGHTS)}
    for key in ("loss", "loss_mim", "loss_entropy"):
        assert float(f"{losses[key].detach():.4f}") > 0
    total = sum(weight * losses[f"loss_{key}"] for key, weight in (DEFAULT_WEIGHTS | weights).items())
    assert torch.allclose(losses["loss"], total)


def test_unknown_weights_and_targets_of_another_number():
    with pytest.raises(ValueError, match=r"weights: unknown mask; the known ones are cls, box, z, rot"):
        Losses({"mask": 1.0})
    outputs, targets = make_batch()
    with pytest.raises(ValueError, match="expected one for each of 3 pictures, got 2"):
        Losses()(outputs, targets[:2])


def test_every_output_learns():
    outputs, targets = make_batch()
    Losses(symmetries=SYMMETRIES)(outputs, targets)["loss"].backward()
    leaves = leaves_of(outputs)
    assert len(leaves) == 5 * 3 + 1 + 2 + 2 * 3 + 2
    for leaf in leaves:
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
        assert leaf.grad.abs().sum() > 0


def test_varifocal_loss_of_the_table():
    logits = torch.logit(torch.tensor([0.3, 0.3], dtype=torch.float64))
    losses = varifocal_loss(logits, torch.tensor([0.8, 0.0]).double(), torch.tensor([1.0, 0.0]).double())
    assert torch.allclose(losses, torch.tensor([0.8276106, 0.0240756], dtype=torch.float64), atol=1e-7)


def test_class_and_box_losses_as_transformers_has_them():
    from transformers import RTDetrV2Config
    from transformers.loss.loss_rt_detr import RTDetrLoss

    outputs, targets = make_batch()
    ours = Losses({"z": 0, "rot": 0, "off": 0, "t": 0, "k": 0, "mim": 0, "entropy": 0})(outputs, targets)

    def renamed(layer):
        return {"logits": layer["logits"], "pred_boxes": layer["bbox"]}

    theirs = RTDetrLoss(RTDetrV2Config(num_labels=3, backbone_config=None))(
        {
            **renamed(outputs),
            "auxiliary_outputs": [renamed(x) for x in [*outputs["aux_outputs"], outputs["enc_outputs"]]],
            "dn_auxiliary_outputs": [renamed(x) for x in outputs["dn_outputs"]],
            "denoising_meta_values": outputs["dn_meta"],
        },
        [{"class_labels": t["labels"], "boxes": t["boxes"]} for t in targets],
    )
    assert torch.allclose(ours["loss_cls"], theirs["loss_vfl"])
    assert torch.allclose(ours["loss_box"], theirs["loss_bbox"] + theirs["loss_giou"])
    aux = sum(value for key, value in theirs.items() if "_aux_" in key)
    dn = sum(value for key, value in theirs.items() if "_dn_" in key)
    assert torch.allclose(ours["loss_aux"], aux)
    assert torch.allclose(ours["loss_dn"], dn)
    assert torch.allclose(ours["loss"], sum(theirs.values()))


def test_pictures_without_objects_teach_background_only():
    outputs, targets = make_batch((0, 0))
    outputs.pop("dn_outputs")
    outputs.pop("mim")
    losses = Losses()(outputs, targets)
    losses["loss"].backward()
    assert losses["loss_cls"] > 0
    p = outputs["logits"].detach().sigmoid()
    assert torch.allclose(
        losses["loss_cls"].detach(), (-0.75 * p**2 * F.logsigmoid(-outputs["logits"])).sum()
    )
    for key in ("box", "z", "rot", "off", "t", "z_prior", "dn", "mim"):
        assert losses[f"loss_{key}"] == 0
    # each head has a gradient, if one of zero: processes that share gradients must agree on who has one
    assert torch.equal(outputs["rot6d"].grad, torch.zeros_like(outputs["rot6d"]))


def test_more_objects_than_queries_and_a_detector_without_pose():
    outputs, targets = make_batch((20, 1), queries=6)
    outputs.pop("dn_outputs")
    assert Losses()(outputs, targets)["loss"].isfinite()
    plain = {key: outputs[key] for key in ("logits", "bbox")}
    losses = Losses()(plain, targets)
    assert torch.allclose(losses["loss"], losses["loss_cls"] + losses["loss_box"])


def test_the_order_of_the_objects_does_not_matter():
    outputs, targets = make_batch((4, 3))
    outputs.pop("dn_outputs")
    costs = MatchCosts(z=1.0, rot=1.0, t=1.0)
    judge = Losses(symmetries=SYMMETRIES, costs=costs)
    turned = [
        {
            k: v.flip(0) if len(v) == len(t["labels"]) and k not in ("K", "image_size") else v
            for k, v in t.items()
        }
        for t in targets
    ]
    assert torch.allclose(judge(outputs, targets)["loss"], judge(outputs, turned)["loss"])


@pytest.mark.parametrize("name", ["logits", "bbox", "rot6d", "log_z", "offsets"])
def test_a_picture_that_is_not_finite_costs_only_itself(name):
    outputs, targets = make_batch((2, 3))
    with torch.no_grad():
        outputs[name][0] = torch.nan
        outputs["aux_outputs"][0][name][0] = torch.inf
    losses = Losses(symmetries=SYMMETRIES, costs=MatchCosts(z=1.0, rot=1.0, t=1.0))(outputs, targets)
    losses["loss"].backward()
    assert all(value.isfinite() for value in losses.values())
    assert all(leaf.grad.isfinite().all() for leaf in leaves_of(outputs))
    assert outputs[name].grad[1].abs().sum() > 0
    assert outputs[name].grad[0].abs().sum() == 0


def test_a_target_that_is_not_finite_costs_only_itself():
    outputs, targets = make_batch((2, 3))
    for key in ("boxes", "z", "R", "t", "offsets"):
        broken = copy.deepcopy(targets)
        broken[0][key][0] = torch.nan
        losses = Losses(symmetries=SYMMETRIES)(outputs, broken)
        assert all(value.isfinite() for value in losses.values()), key
        for leaf in leaves_of(outputs):
            leaf.grad = None
        losses["loss"].backward()
        assert all(leaf.grad.isfinite().all() for leaf in leaves_of(outputs)), key


def test_where_nothing_is_finite_the_loss_says_so():
    outputs, targets = make_batch()
    outputs["logits"] = torch.full_like(outputs["logits"], torch.nan)
    assert Losses()(outputs, targets)["loss"].isnan()


def test_symmetries_belong_to_classes():
    outputs, targets = make_batch((1,), queries=1)
    plain = {key: outputs[key] for key in ("logits", "bbox")}
    angle = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    plain["rot6d"] = matrix_to_rot6d(targets[0]["R"] @ angle)[None]
    found = []
    for label in range(3):
        targets[0]["labels"] = torch.tensor([label])
        found.append(Losses(symmetries=SYMMETRIES)(plain, targets)["loss_rot"].item())
    assert found == pytest.approx([torch.pi / 2, 0.0, 0.0], abs=1e-5)


def test_terms_enter_with_the_run():
    outputs, targets = make_batch()
    schedule = PoseSchedule.staged(0.1, 0.2, match=0.5, length=0.1)
    masks = MaskSchedule(weight=Ramp(0.0, 1.0, 0.6, 0.8))
    judge = Losses(costs=MatchCosts(rot=4.0), pose_schedule=schedule, mask_schedule=masks)

    def parts(fraction):
        judge.at_progress(fraction)
        losses = judge(outputs, targets)
        keys = ("cls", "box", "off", "k", "z", "rot", "t", "mim", "entropy", "aux", "dn")
        return losses, {key: losses[f"loss_{key}"] for key in keys}

    for fraction, active in (
        (0.0, "off"),
        (0.2, "off k"),
        (0.3, "off k z rot t"),
        (0.8, "off k z rot t mim"),
    ):
        losses, part = parts(fraction)
        keys = ["cls", "box", "entropy", "aux", "dn", *active.split()]
        expected = sum(DEFAULT_WEIGHTS[key] * part[key] for key in keys)
        assert torch.allclose(losses["loss"], expected), fraction
    _, before = parts(0.5)
    _, after = parts(0.6)
    assert after["rot"] < before["rot"]  # the matcher prefers queries whose rotation fits


def test_half_precision_is_added_up_in_full():
    outputs, targets = make_batch((2, 3), queries=30)
    half = {key: outputs[key].detach().bfloat16() for key in ("logits", "bbox", "log_z", "rot6d", "offsets")}
    full = {key: value.float() for key, value in half.items()}
    with torch.autocast("cpu", torch.bfloat16):
        losses = Losses()(half, targets)
    assert losses["loss"].dtype == torch.float32
    assert torch.allclose(losses["loss"], Losses()(full, targets)["loss"])
