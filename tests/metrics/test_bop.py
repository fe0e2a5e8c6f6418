"""BOP's scores against a plain transcription of their rules, and the laws they obey."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from sightline.metrics.bop import bop_average_precision, bop_average_recall
from sightline.metrics.pose_pairs import PairErrors
from tests.tolerances import tolerance

F64 = torch.float64
SHARES = np.arange(0.05, 0.51, 0.05)
PIXELS = np.arange(5, 51, 5)
DIAMETERS = {"box": 0.3, "can": 0.1, "mug": 0.15}


@dataclass
class Picture:
    """One picture in plain Python: names, scores, visibilities, and tables of errors of all pairs."""

    truths: list[str]
    visibility: list[float]
    estimates: list[str]
    scores: list[float]
    mssd: np.ndarray  # (e, g) shares of the diameter
    mspd: np.ndarray
    vsd: np.ndarray  # (e, g, t)
    targets: dict[str, int] | None = None


def random_picture(dice, with_targets=False):
    truths = [dice.choice(["box", "can"]) for _ in range(dice.randrange(5))]
    estimates = [dice.choice(["box", "can", "mug"]) for _ in range(dice.randrange(7))]
    shape = len(estimates), len(truths)
    noise = np.random.default_rng(dice.randrange(10**6))
    targets = {name: dice.randrange(1, 3) for name in sorted(set(truths))} if with_targets else None
    return Picture(
        truths,
        [dice.choice([0.05, 0.1, 0.5, 0.9]) + 0.001 * dice.random() for _ in truths],
        estimates,
        [dice.random() for _ in estimates],
        noise.uniform(0, 0.7, shape),
        noise.uniform(0, 70, shape),
        np.sort(noise.uniform(0, 0.8, (*shape, 10)), axis=-1)[..., ::-1].copy(),
        targets,
    )


def as_pairs(pictures, with_vsd=True):
    pairs = []
    for index, picture in enumerate(pictures):
        order = sorted(range(len(picture.scores)), key=lambda e: -picture.scores[e])
        for name in sorted({*picture.truths, *picture.estimates, *(picture.targets or ())}):
            rank = [rank for rank, e in enumerate(order) if picture.estimates[e] == name]
            rows = [order[r] for r in rank]
            columns = [g for g, true_name in enumerate(picture.truths) if true_name == name]
            table = np.ix_(rows, columns)
            pairs.append(
                PairErrors(
                    picture=index,
                    name=name,
                    rank=torch.tensor(rank, dtype=torch.long),
                    scores=torch.tensor([picture.scores[e] for e in rows], dtype=F64),
                    visibility=torch.tensor([picture.visibility[g] for g in columns], dtype=F64),
                    target_count=None if picture.targets is None else picture.targets.get(name, 0),
                    diameter=DIAMETERS[name],
                    add=torch.from_numpy(picture.mssd[table]),
                    mssd=torch.from_numpy(picture.mssd[table]) * DIAMETERS[name],
                    mspd=torch.from_numpy(picture.mspd[table]),
                    vsd=torch.from_numpy(picture.vsd[table]).permute(2, 0, 1) if with_vsd else None,
                )
            )
    return pairs


def match(estimates, truths, errors, limit):
    """Estimate -> truth, greedily; estimates come sorted."""
    found = {}
    for e in estimates:
        free = [(errors[e, g], g) for g in truths if g not in found.values() and errors[e, g] < limit]
        if free:
            found[e] = min(free)[1]
    return found


def naive_recall(pictures):
    hits, wanted = {"vsd": [], "mssd": [], "mspd": []}, 0
    settings = [("vsd", t, limit) for t in range(10) for limit in SHARES]
    settings += [("mssd", None, limit) for limit in SHARES] + [("mspd", None, limit) for limit in PIXELS]
    for kind, tau, limit in settings:
        count, wanted = 0, 0
        for picture in pictures:
            for name in set(picture.truths):
                truths = [g for g, true_name in enumerate(picture.truths) if true_name == name]
                if picture.targets is None:
                    truths = [g for g in truths if picture.visibility[g] >= 0.1]
                else:
                    truths = sorted(truths, key=lambda g: -picture.visibility[g])[: picture.targets[name]]
                estimates = [e for e, est_name in enumerate(picture.estimates) if est_name == name]
                number = len(truths) if picture.targets is None else picture.targets[name]
                estimates = sorted(estimates, key=lambda e: -picture.scores[e])[:number]
                table = getattr(picture, kind)
                table = table if tau is None else table[..., tau]
                count += len(match(estimates, truths, table, limit))
                wanted += len(truths)
        hits[kind].append(count)
    return {kind: np.mean(counts) / wanted for kind, counts in hits.items()}


def naive_precision(pictures, max_estimates=100):
    result = {}
    for kind, limits in (("mssd", SHARES), ("mspd", PIXELS)):
        by_object = {}
        for name in DIAMETERS:
            values = []
            for limit in limits:
                verdicts, wanted = [], 0
                for picture in pictures:
                    order = sorted(range(len(picture.scores)), key=lambda e: -picture.scores[e])
                    estimates = [e for e in order[:max_estimates] if picture.estimates[e] == name]
                    truths = [g for g, true_name in enumerate(picture.truths) if true_name == name]
                    found = match(estimates, truths, getattr(picture, kind), limit)
                    wanted += sum(picture.visibility[g] >= 0.1 for g in truths)
                    for e in estimates:
                        if e not in found:
                            verdicts.append((picture.scores[e], 0))
                        elif picture.visibility[found[e]] >= 0.1:
                            verdicts.append((picture.scores[e], 1))
                right = np.cumsum([v for _, v in sorted(verdicts, reverse=True)])
                recall = right / wanted if wanted else right
                precision = right / np.arange(1, len(right) + 1)
                levels = np.linspace(0, 1, 101)
                values.append(np.mean([max(precision[recall >= level], default=0) for level in levels]))
            if wanted:
                by_object[name] = np.mean(values)
        result[kind] = by_object
    return result


@pytest.fixture(params=range(3))
def pictures(request):
    dice = random.Random(request.param)
    return [random_picture(dice) for _ in range(8)]


def test_average_recall_equals_transcription(pictures):
    wanted = naive_recall(pictures)
    score = bop_average_recall(as_pairs(pictures))
    assert score.by_error == pytest.approx(wanted, abs=1e-12)
    assert score.value == pytest.approx(np.mean(list(wanted.values())), abs=1e-12)
    assert score.num_truths == sum(v >= 0.1 for picture in pictures for v in picture.visibility)


def test_average_recall_with_target_counts_equals_transcription():
    dice = random.Random(7)
    pictures = [random_picture(dice, with_targets=True) for _ in range(10)]
    score = bop_average_recall(as_pairs(pictures))
    assert score.by_error == pytest.approx(naive_recall(pictures), abs=1e-12)


def test_average_precision_equals_transcription(pictures):
    wanted = naive_precision(pictures)
    score = bop_average_precision(as_pairs(pictures))
    assert score.by_error == pytest.approx(
        {kind: np.mean(list(values.values())) for kind, values in wanted.items()}, abs=1e-12
    )
    assert score.by_object == pytest.approx(
        {name: np.mean([values[name] for values in wanted.values()]) for name in wanted["mssd"]}, abs=1e-12
    )
    assert score.value == pytest.approx(np.mean(list(score.by_error.values())), abs=1e-12)


def test_estimates_beyond_the_permitted_number_are_not_looked_at(pictures):
    pairs = as_pairs(pictures)
    wanted = naive_precision(pictures, max_estimates=2)
    score = bop_average_precision(pairs, max_estimates=2)
    assert score.by_error["mssd"] == pytest.approx(np.mean(list(wanted["mssd"].values())), abs=1e-12)
    assert score.value != bop_average_precision(pairs).value


def test_score_of_each_object_is_that_without_the_others(pictures):
    pairs = as_pairs(pictures)
    for score in (bop_average_recall, bop_average_precision):
        for name, value in score(pairs).by_object.items():
            alone = score([pair for pair in pairs if pair.name == name])
            assert value == pytest.approx(alone.value, abs=1e-12)


def test_perfect_estimates_score_one_and_none_score_nothing(pictures):
    perfect = []
    for picture in pictures:
        same = np.where(np.eye(len(picture.truths)) > 0, 0.0, 1e3)
        perfect.append(
            replace(
                picture,
                estimates=picture.truths,
                scores=list(np.linspace(1, 0.5, len(picture.truths))),
                mssd=same,
                mspd=same,
                vsd=np.repeat(same[..., None], 10, -1),
            )
        )
    # sure estimates of what is hardly visible take the place of estimates of what counts in AR, as in BOP
    for picture in perfect:
        picture.scores = [v + 1e-3 * s for v, s in zip(picture.visibility, picture.scores, strict=True)]
    assert bop_average_recall(as_pairs(perfect)).value == 1
    assert bop_average_precision(as_pairs(perfect)).value == 1
    empty = [
        replace(p, estimates=[], scores=[], mssd=p.mssd[:0], mspd=p.mspd[:0], vsd=p.vsd[:0]) for p in perfect
    ]
    assert bop_average_recall(as_pairs(empty)).value == 0
    assert bop_average_precision(as_pairs(empty)).value == 0


def test_order_of_pictures_and_objects_does_not_matter(pictures):
    pairs = as_pairs(pictures)
    shuffled = random.Random(0).sample(pairs, len(pairs))
    for score in (bop_average_recall, bop_average_precision):
        assert score(shuffled).by_error == pytest.approx(score(pairs).by_error, abs=1e-12)
        assert score(shuffled).by_object == pytest.approx(score(pairs).by_object, abs=1e-12)


def one_pair(mssd=0.0, mspd=0.0, *, visibility=(1.0,), scores=(0.9,), vsd=0.0, picture=0, name="can"):
    shape = len(scores), len(visibility)
    return PairErrors(
        picture=picture,
        name=name,
        rank=torch.arange(len(scores)),
        scores=torch.tensor(scores, dtype=F64),
        visibility=torch.tensor(visibility, dtype=F64),
        target_count=None,
        diameter=DIAMETERS[name],
        add=torch.full(shape, mssd, dtype=F64),
        mssd=torch.full(shape, mssd, dtype=F64),
        mspd=torch.full(shape, mspd, dtype=F64),
        vsd=torch.full((10, *shape), vsd, dtype=F64),
    )


def test_an_error_equal_to_a_limit_is_wrong():
    assert bop_average_recall([one_pair(mspd=5.0)]).by_error["mspd"] == pytest.approx(0.9)
    assert bop_average_recall([one_pair(mspd=4.999)]).by_error["mspd"] == 1
    assert bop_average_recall([one_pair(mssd=0.0051)]).by_error["mssd"] == pytest.approx(0.9)
    assert bop_average_recall([one_pair(vsd=0.31)]).by_error["vsd"] == pytest.approx(0.4)
    assert bop_average_precision([one_pair(mspd=5.0)]).by_error["mspd"] == pytest.approx(0.9)


def test_hardly_visible_instances_need_not_be_found():
    hidden = one_pair(visibility=(0.09,))
    assert math.isnan(bop_average_recall([hidden]).value)
    assert math.isnan(bop_average_precision([hidden]).value)
    # found all the same, it is neither right nor wrong
    both = [one_pair(scores=(0.5,)), one_pair(visibility=(0.09,), scores=(0.9,), picture=1)]
    assert bop_average_precision(both).value == 1
    assert bop_average_precision([both[0], one_pair(visibility=(), scores=(0.9,), picture=1)]).value == 0.5


def test_false_alarms_of_an_object_that_is_nowhere_are_left_out():
    alarm = one_pair(visibility=(), name="mug", picture=1)
    score = bop_average_precision([one_pair(), alarm])
    assert score.value == 1
    assert list(score.by_object) == ["can"]


def test_industrial_limits_are_millimetres():
    assert bop_average_precision([one_pair(mssd=0.005)], errors=["mssd_mm"]).value == pytest.approx(0.8)


def test_without_vsd_there_is_no_average_recall(pictures):
    score = bop_average_recall(as_pairs(pictures, with_vsd=False))
    assert math.isnan(score.value)
    assert math.isnan(score.by_error["vsd"])
    wanted = naive_recall(pictures)
    assert score.by_error["mssd"] == pytest.approx(wanted["mssd"], abs=1e-12)


def test_vsd_of_some_pictures_is_refused():
    with pytest.raises(ValueError, match="missing for picture 1"):
        bop_average_recall([one_pair(), replace(one_pair(picture=1), vsd=None)])
    # a picture without a pair needs none
    absent = replace(one_pair(visibility=(), picture=1), vsd=None)
    assert bop_average_recall([one_pair(), absent]).value == 1


def test_unknown_errors_are_refused():
    with pytest.raises(ValueError, match="add"):
        bop_average_precision([one_pair()], errors=["add"])


def test_nothing_at_all():
    assert math.isnan(bop_average_recall([]).value)
    assert math.isnan(bop_average_precision([]).value)
    assert bop_average_recall([]).num_truths == 0


def test_intervals(pictures):
    pairs = as_pairs(pictures)
    for score in (bop_average_recall, bop_average_precision):
        result = score(pairs, resamples=200, seed=1)
        assert result.interval.low < result.value < result.interval.high
        assert result.interval == score(pairs, resamples=200, seed=1).interval
        assert score(pairs).interval is None
        certain = score([one_pair(picture=index) for index in range(5)], resamples=50)
        assert certain.interval == pytest.approx((1, 1))


def test_a_bootstrap_resample_equals_the_score_of_the_pictures_drawn(pictures, monkeypatch):
    weights = torch.tensor([[2.0, 0, 1, 1, 0, 3, 0, 1]], dtype=F64)
    monkeypatch.setattr("sightline.metrics.bop.bootstrap_weights", lambda *_: weights)
    drawn = [picture for picture, count in zip(pictures, weights[0], strict=True) for _ in range(int(count))]
    # equal scores would make the order of a picture's copies matter
    drawn = [replace(p, scores=[s + 1e-9 * i for s in p.scores]) for i, p in enumerate(drawn)]
    for score in (bop_average_recall, bop_average_precision):
        interval = score(as_pairs(pictures), resamples=1).interval
        torch.testing.assert_close(interval.low, score(as_pairs(drawn)).value, **tolerance(F64))
