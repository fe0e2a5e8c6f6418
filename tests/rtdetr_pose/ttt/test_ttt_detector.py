"""Queries have no order: whatever is compared is matched first."""

import math

import pytest
import torch

from sightline.rtdetr_pose.ttt import Adapter, Cotta, DetectorReader, Eata, Guards, Sar, Tent
from tests.rtdetr_pose.ttt.toys import Detector, bare, pictures, same, tensors

READER = DetectorReader()


def outputs_of(scores, boxes, **more):
    logits = torch.logit(torch.tensor(scores, dtype=torch.float64))[None]
    return {"logits": logits, "bbox": torch.tensor(boxes, dtype=torch.float64)[None], **more}


TWO = outputs_of(
    [[0.9, 0.1], [0.2, 0.8], [0.01, 0.02]],
    [[0.3, 0.3, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2], [0.31, 0.3, 0.2, 0.2]],
    log_z=torch.tensor([[[0.0], [1.0], [2.0]]], dtype=torch.float64),
    rot6d=torch.tensor([[[1.0, 0, 0, 0, 1, 0]] * 3], dtype=torch.float64),
)


def permuted(outputs, order):
    return {name: each[:, order] for name, each in outputs.items()}


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 2, 0]])
def test_an_order_of_queries_means_nothing(order):
    other = permuted(TWO, order)
    assert READER.kl(TWO, other).item() == pytest.approx(0, abs=1e-9)
    for drift in READER.drift(TWO, other).values():
        assert drift.item() == pytest.approx(0, abs=1e-9)
    torch.testing.assert_close(READER.consistency(TWO, TWO), READER.consistency(other, TWO))
    averaged = READER.average([TWO, other], [False, False])
    torch.testing.assert_close(averaged["logits"], TWO["logits"])
    assert READER.match(TWO, other).mutual.all()


def test_what_changes_is_seen():
    moved = {**TWO, "bbox": TWO["bbox"] + torch.tensor([0.1, 0, 0, 0]), "log_z": TWO["log_z"] + 0.3}
    quarter = torch.tensor([0.0, -1, 0, 1, 0, 0], dtype=torch.float64)
    moved["rot6d"] = quarter.expand(1, 3, 6)
    drift = READER.drift(TWO, moved)
    # each found box of width 0.2 moves by 0.1: IoU 1/3
    assert drift["box"].item() == pytest.approx(2 / 3, abs=1e-6)
    assert drift["depth"].item() == pytest.approx(0.3, abs=1e-6)
    assert drift["rotation"].item() == pytest.approx(math.pi / 2, abs=1e-6)
    lost = outputs_of([[0.01, 0.01]] * 3, [[0.1, 0.9, 0.05, 0.05]] * 3)
    assert READER.drift(outputs_of([[0.9, 0.1]], [[0.5, 0.5, 0.2, 0.2]]), lost)["box"].item() == 1
    assert READER.kl(TWO, lost) > 1


def test_kl_is_that_of_bernoulli_classes():
    a = outputs_of([[0.8]], [[0.5, 0.5, 0.2, 0.2]])
    b = outputs_of([[0.6]], [[0.5, 0.5, 0.2, 0.2]])
    expected = 0.8 * math.log(0.8 / 0.6) + 0.2 * math.log(0.2 / 0.4)
    assert READER.kl(a, b).item() == pytest.approx(expected, abs=1e-6)


def test_a_second_box_on_an_object_does_not_take_its_score():
    first = outputs_of([[0.9], [0.05]], [[0.5, 0.5, 0.2, 0.2], [0.51, 0.5, 0.2, 0.2]])
    # in the other view the second box is gone
    view = outputs_of([[0.8], [0.05]], [[0.505, 0.5, 0.2, 0.2], [0.1, 0.1, 0.05, 0.05]])
    scores = READER.average([first, view], [False, False])["logits"].sigmoid()[0, :, 0]
    torch.testing.assert_close(scores, torch.tensor([0.85, 0.05], dtype=torch.float64), rtol=1e-6, atol=1e-6)


def test_a_mirrored_view_is_turned_back():
    mirrored = {**TWO, "bbox": TWO["bbox"] * torch.tensor([-1.0, 1, 1, 1]) + torch.tensor([1.0, 0, 0, 0])}
    averaged = READER.average([TWO, permuted(mirrored, [1, 2, 0])], [False, True])
    torch.testing.assert_close(averaged["logits"], TWO["logits"])
    assert torch.equal(averaged["rot6d"], TWO["rot6d"])
    lowered = {**mirrored, "logits": torch.logit(TWO["logits"].sigmoid() / 2)}
    scores = READER.average([TWO, lowered], [False, True])["logits"].sigmoid()
    torch.testing.assert_close(scores, 0.75 * TWO["logits"].sigmoid(), rtol=1e-5, atol=1e-5)


def test_readings_of_what_was_found():
    assert READER.counts(TWO).tolist() == [2]
    assert READER.histogram(TWO).tolist() == [1, 1]
    assert READER.confidence(TWO).item() == pytest.approx(0.85)
    found = torch.tensor([[1.1, 0.9]], dtype=torch.float64)
    torch.testing.assert_close(READER.probabilities(TWO), found / 2, rtol=1e-5, atol=1e-5)
    nothing = outputs_of([[0.01, 0.01]], [[0.5, 0.5, 0.1, 0.1]])
    assert READER.counts(nothing).tolist() == [0]
    assert READER.confidence(nothing).tolist() == [0]
    assert READER.probabilities(nothing)[0].tolist() == pytest.approx([0.5, 0.5])
    assert READER.kl(nothing, TWO).item() == READER.consistency(TWO, nothing).item() == 0


def test_entropy_of_a_bernoulli_and_of_nothing():
    one = outputs_of([[0.9], [0.001]], [[0.5, 0.5, 0.1, 0.1]] * 2)
    assert READER.entropy(one).item() == pytest.approx(0.4689956, abs=1e-6)
    assert READER.entropy(one).item() * math.log(2) == pytest.approx(0.3250830, abs=1e-6)
    logits = torch.full((1, 3, 2), -1e4, requires_grad=True)
    entropy = READER.entropy({"logits": logits}).sum()
    assert entropy.item() == 0
    assert torch.autograd.grad(entropy, logits)[0].abs().max() == 0
    assert READER.entropy({"logits": torch.tensor([[[1e4], [-1e4]]])}).item() == 0


METHODS = [
    Tent(),
    Eata(reliable=1.0, diversity=1.1),
    Sar(reliable=1.0, reset_entropy=0.0),
    Cotta(views=3, confidence=1.1, momentum=0.9),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.kind)
def test_every_method_adapts_a_detector(method):
    model = Detector()
    before = tensors(model)
    # without the pull to the source the entropy falls
    spec = bare(method=method, lr=3e-3, guards=Guards(max_rise=0.05, max_entropy=None))
    with Adapter(model, spec, reader=READER, source_batches=[pictures(seed=9)]) as a:
        reports = [a.step(pictures(seed=3))[1] for _ in range(4)]
        outputs, _ = a.step(pictures(seed=3))
        assert reports[0].updated
        assert outputs["bbox"].shape == (4, 4, 4)
        assert not same(tensors(model), before)
        assert {"kl", "drift_box", "drift_depth", "count_source"} <= set(reports[0].figures)
        a.reset()
        assert same(tensors(model), before)
    if method.kind == "tent":
        assert reports[-1].figures["loss_after"] < reports[0].figures["loss_before"]


def test_a_picture_without_objects_is_not_learnt_from():
    model = Detector()
    with torch.no_grad():
        model.head.bias.fill_(-30.0)
    with Adapter(model, bare(guards=Guards()), reader=READER) as a:
        outputs, report = a.step(pictures())
    assert report.skipped == "nothing found"
    assert outputs["logits"].shape == (4, 4, 3)


def test_boxes_that_drift_are_taken_back():
    model = Detector()
    torch.nn.init.normal_(model.box.weight, std=3.0)
    for limit, fires in ((1e-9, True), (0.99, False)):
        guards = Guards(**{**Guards.off().__dict__, "max_drift": limit})
        with Adapter(model, bare(lr=0.05, guards=guards), reader=READER) as a:
            _, report = a.step(pictures())
        assert ("drifted" in (report.rolled_back or "")) == fires
        if fires:
            assert report.rolled_back.startswith(("box", "depth"))
