from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from sightline.vpog import template_scores
from sightline.vpog.classification_head import ClassificationHead
from sightline.vpog.template_scores import choose, score_templates


def features(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    query = normalize(torch.randn(3, 9, 8, generator=generator), dim=-1)
    templates = normalize(torch.randn(7, 10, 8, generator=generator), dim=-1)
    return query, templates


def test_the_score_is_the_sum_of_the_best_probabilities_of_patches():
    head, (query, templates) = ClassificationHead(8, temperature=0.2), features()
    with torch.no_grad():
        found = score_templates(head, query, templates, 9)
        for crop in range(3):
            for number in range(7):
                logits = query[crop] @ templates[number].mT * head.scale
                wanted = logits.softmax(-1)[:, :9].amax(-1).sum()
                assert float(found[crop, number]) == pytest.approx(float(wanted), rel=1e-5)


def test_it_does_not_depend_on_how_many_are_compared_at_a_time(monkeypatch):
    head, (query, templates) = ClassificationHead(8, temperature=0.2), features(1)
    with torch.no_grad():
        whole = score_templates(head, query, templates, 9)
        monkeypatch.setattr(template_scores, "_MOST_LOGITS", 3 * 9 * 10 * 2)
        assert torch.allclose(score_templates(head, query, templates, 9), whole, atol=1e-5)
        half = score_templates(head, query, templates.half(), 9)
    assert torch.allclose(half, whole, atol=0.02)


def test_a_patch_that_no_template_shows_gives_nothing():
    head = ClassificationHead(4, temperature=0.02)
    patches = torch.eye(4)
    with torch.no_grad():
        score = score_templates(head, patches[None, 3:], patches[None, [0, 1, 2, 3]], 3)
    assert float(score) < 1e-6


def test_turns_are_chosen_by_their_best_template_and_never_simply_the_first():
    scores = torch.tensor([[0.1, 0.2, 0.9, 0.3, 0.0], [0.5, 0.5, 0.5, 0.5, 0.5], [2.0, 0, 0, 1, 3]])
    chosen = choose(scores, 2, 3)
    assert chosen.turns.tolist() == [2, 0]
    assert chosen.templates.tolist() == [[4, 0, 3], [2, 3, 1]]
    assert choose(scores, 9, 9).templates.shape == (3, 5)
