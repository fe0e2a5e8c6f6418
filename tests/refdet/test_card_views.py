"""Which views of a card a bank is made of."""

from __future__ import annotations

from dataclasses import replace

import torch

from sightline.objects.onboard import onboard_mesh
from sightline.refdet.card_views import choose_views, filled_share
from sightline.synthetic import make_object


def test_views_that_are_mostly_filled_are_left_out_of_cards_of_photographs():
    card = onboard_mesh(make_object("can", 0).mesh, name="can", num_views=42, template_size=96)
    assert choose_views(card, 100) == list(range(42))
    flat = [
        replace(t, color=torch.where(t.mask[..., None], torch.tensor([90, 60, 20]).byte(), t.color))
        if i % 2
        else t
        for i, t in enumerate(card.templates)
    ]
    rendered = replace(card, templates=tuple(flat))
    assert filled_share(flat[1]) == 1.0
    assert filled_share(flat[0]) < 0.5
    assert choose_views(rendered, 100) == list(range(42))  # a plain object is plain
    photo = replace(flat[0], source="photo")
    baked = replace(card, templates=(photo, *flat[1:]))
    assert choose_views(baked, 100) == list(range(0, 42, 2))
    assert choose_views(baked, 3) == [0, 20, 40]
    all_flat = replace(card, templates=(replace(flat[1], source="photo"), *flat[1::2]))
    assert len(choose_views(all_flat, 100)) == 22  # better than none
