"""Masked reconstruction on the room's model: it lowers its loss, on features that are computed once."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sightline.rtdetr_pose.model import RTDETRPose
from sightline.rtdetr_pose.reconstruction_losses import mim_reconstruction_loss
from sightline.rtdetr_pose.ttt import (
    Adapter,
    AdaptSpec,
    DetectorReader,
    Guards,
    MaskedObjective,
    MaskedReconstruction,
    Scope,
    apply_adapters,
    preset,
    select_parameters,
)
from sightline.rtdetr_pose.ttt.masked import geometry_of_predictions, reconstruction_error
from tests.rtdetr_pose.ttt.toys import bare, pictures, same, tensors

ENCODER = Scope(include=("detector.encoder.",))


def model_of(**values) -> RTDETRPose:
    torch.manual_seed(0)
    return RTDETRPose(3, 32, 8, enable_mim=True, backbone="tiny", **values).eval()


def geometry(batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    mask = (torch.rand(batch, 1, 16, 16, generator=generator) < 0.5).float()
    return torch.cat([mask, mask * torch.randn(batch, 1, 16, 16, generator=generator)], 1)


def objective(**options) -> MaskedObjective:
    return MaskedObjective(DetectorReader(), MaskedReconstruction(**options))


def masked_spec(**values) -> AdaptSpec:
    return bare(**{"method": "mim", "objective": {"mim": 1.0}, "scope": ENCODER, **values})


@pytest.mark.parametrize("weights", [{"mim": 1.0}, {"mim": 1.0, "entropy": 0.1}])
@pytest.mark.parametrize("scope", [ENCODER, Scope()], ids=["encoder", "all norms"])
def test_five_steps_lower_the_masked_loss(weights, scope):
    model = model_of()
    before = tensors(model)
    x = pictures(2, size=64)
    spec = masked_spec(objective=weights, steps=5, lr=3e-3, scope=scope)
    with Adapter(model, spec, objective=objective(mask_prob=0.5)) as a:
        outputs, report = a.step(x, geometry())
        changed = {name for name, each in tensors(model).items() if not torch.equal(each, before[name])}
    assert report.figures["loss_after"] < report.figures["loss_before"]
    assert report.geometry_source == "sensor"
    assert outputs["bbox"].shape == (2, 8, 4)
    assert changed
    assert changed <= set(select_parameters(model, scope))
    assert not any("teacher" in name or "running" in name for name in changed)
    assert same(tensors(model), before)


def test_the_backbone_runs_once_unless_it_adapts():
    passes = []
    model = model_of()
    model.detector.backbone.register_forward_hook(lambda *_: passes.append(1))
    model.detector.backbone.model.register_forward_hook(lambda *_: passes.append(1))
    results = []
    for scope in (ENCODER, Scope()):
        passes.clear()
        with Adapter(model, masked_spec(steps=3, scope=scope, lr=0.0), objective=objective()) as a:
            results.append((a.step(pictures(2, size=64), geometry()), len(passes)))
    assert results[0][1] == 1
    assert results[1][1] > 3
    (cached, _), (whole, _) = results[0][0], results[1][0]
    torch.testing.assert_close(cached["logits"], whole["logits"])


@pytest.mark.parametrize(("weights", "limit"), [({"mim": 1.0}, 0.6), ({"mim": 1.0, "entropy": 0.1}, 1.5)])
def test_a_step_on_cached_features_costs_less_than_one_and_a_half_forwards(weights, limit):
    torch.manual_seed(0)
    model = RTDETRPose(5, 64, 50, enable_mim=True, backbone="tiny").eval()
    x = pictures(1, size=192)
    with torch.no_grad():
        forward = operations(lambda: model(x))
    counts = []
    for steps in (1, 2):
        spec = masked_spec(objective=weights, scope=preset("mim_safe").scope, steps=steps, repredict=False)
        with Adapter(model, spec, objective=objective()) as a:
            counts.append(operations(lambda a=a: a.step(x, geometry(1))))
    assert 0.1 * forward < counts[1] - counts[0] < limit * forward


def operations(call) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def test_one_picture_at_a_time_is_the_mean_of_the_losses():
    torch.manual_seed(1)
    recon, teacher = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    mask = torch.rand(2, 3, 3) < 0.5
    error = reconstruction_error(recon, teacher, mask)
    for i in range(2):
        torch.testing.assert_close(
            error[i], mim_reconstruction_loss(recon[i : i + 1], teacher[i : i + 1], mask[i])
        )


def test_only_masked_cells_count():
    recon = torch.zeros(1, 4, 2, 2, requires_grad=True)
    mask = torch.zeros(1, 2, 2, dtype=torch.bool)
    mask[0, 0, 0] = True
    assert reconstruction_error(recon, torch.ones(1, 4, 2, 2), mask).item() == 1.0
    for poison in (100.0, math.nan, math.inf):
        spoiled = torch.ones(1, 4, 2, 2)
        spoiled[..., 1, 1] = poison
        loss = reconstruction_error(recon, spoiled, mask).sum()
        (found,) = torch.autograd.grad(loss, recon)
        assert loss.item() == 1.0
        assert found[..., 0, 0].abs().min() > 0
        assert found.abs().sum() == found[..., 0, 0].abs().sum()
        nothing = reconstruction_error(recon, spoiled, mask & False).sum()
        assert nothing.item() == 0
        assert torch.autograd.grad(nothing, recon)[0].abs().max() == 0
    shapes = (
        torch.tensor([[True, False]]),
        torch.tensor([[[True, False]]]),
        torch.tensor([[[[True, False]]]]),
    )
    flat = torch.zeros(1, 4, 1, 2), torch.ones(1, 4, 1, 2)
    assert [reconstruction_error(*flat, each).item() for each in shapes] == [1.0, 1.0, 1.0]


def test_without_geometry_nothing_is_learnt():
    model = model_of()
    before = tensors(model)
    for spec in (masked_spec(), preset("mim_safe")):
        with Adapter(model, spec, objective=objective()) as a:
            outputs, report = a.step(pictures(2, size=64))
            assert report.geometry_source == "none"
            assert report.skipped is not None
            assert outputs["logits"].isfinite().all()
            assert same(tensors(model), before)
    with Adapter(model, masked_spec(lr=0.0), objective=objective()) as a:
        assert a.step(pictures(2, size=64))[1].skipped == "no picture can be learnt from"
        assert a.step(pictures(2, size=64), geometry())[1].updated


def test_own_geometry_only_where_the_model_is_sure_and_it_is_said():
    model = model_of(use_uncertainty=True)
    x = pictures(2, size=64)
    sure = {"own_geometry": True, "min_score": 0.0, "max_log_sigma": 100.0}
    for options, expected in (
        (sure, None),
        ({**sure, "max_log_sigma": -100.0}, "no picture can be learnt from"),
    ):
        with Adapter(model, masked_spec(), objective=objective(**options)) as a:
            _, report = a.step(x)
        assert (report.skipped, report.geometry_source) == (expected, "prediction")
    with Adapter(model, masked_spec(), objective=objective(**sure)) as a:
        assert a.step(x, geometry())[1].geometry_source == "sensor"
        assert a.step(x, geometry(), geometry_source="prediction")[1].geometry_source == "prediction"


def test_the_nearest_prediction_lies_in_front():
    outputs = {
        "bbox": torch.tensor([[[0.5, 0.5, 1.0, 1.0], [0.25, 0.5, 0.5, 1.0], [0.9, 0.5, 0.1, 1.0]]]),
        "log_z": torch.log(torch.tensor([[[4.0], [2.0], [1.0]]])),
    }
    geom, usable = geometry_of_predictions(outputs, torch.tensor([[True, True, False]]), size=(4, 1))
    torch.testing.assert_close(geom[0, 1, 0], torch.log(torch.tensor([1.0, 1.0, 2.0, 2.0])))
    assert usable.tolist() == [1.0]
    assert geometry_of_predictions(outputs, torch.zeros(1, 3, dtype=torch.bool), size=(4, 1))[1].tolist() == [
        0.0
    ]


def test_intrinsics_go_to_the_model():
    model = model_of()
    K = torch.tensor([[90.0, 0, 31.5], [0, 90.0, 31.5], [0, 0, 1]]).expand(2, 3, 3)
    batch = {"x": pictures(2, size=64), "intrinsics": K}
    for scope in (ENCODER, Scope()):
        with Adapter(model, masked_spec(scope=scope, lr=0.0), objective=objective()) as a:
            outputs, _ = a.step(batch, geometry())
        torch.testing.assert_close(outputs["intrinsics"], K)


def test_the_seeds_selection_finds_something_and_a_model_without_the_branch_is_an_error():
    model = model_of()
    chosen = [p for n, p in model.named_parameters() if "bn" in n or "norm" in n]
    assert chosen
    plain = RTDETRPose(3, 32, 8, backbone="tiny")
    with pytest.raises(ValueError, match="enable_mim=True"):
        Adapter(plain, masked_spec(), objective=objective())


def test_adapters_in_the_rooms_model():
    model = model_of()
    x = pictures(1, size=64)
    expected = model(x)["logits"]
    apply_adapters(model, rank=2, layers=("linear", "conv1x1"), include=("detector.encoder",))
    torch.testing.assert_close(model(x)["logits"], expected, rtol=0, atol=0)
    spec = masked_spec(scope=Scope(select=("adapters",)), lr=1e-2, steps=2)
    with Adapter(model, spec, objective=objective()) as a:
        _, report = a.step(x, geometry(1))
    assert report.updated
    assert report.figures["loss_after"] < report.figures["loss_before"]


@pytest.mark.parametrize("method", ["tent", "sar", "cotta"])
def test_other_methods_run_on_the_rooms_model(method):
    model = model_of()
    before = tensors(model)
    spec = AdaptSpec(method=method, lr=1e-3, guards=Guards(max_entropy=None, min_count=0))
    with Adapter(model, spec, reader=DetectorReader(threshold=0.01)) as a:
        outputs, report = a.step(pictures(1, size=64))
        assert {"log_z", "rot6d", "offsets"} <= outputs.keys()
    assert not outputs["logits"].requires_grad
    assert report.figures
    assert same(tensors(model), before)
