"""Thumbnails: a few of the templates, cut out and dimmed around the object."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.formats.images import write_image, write_mask
from sightline.formats.refdet_templates import TemplatePicture
from sightline.objects.onboard import onboard_mesh
from sightline.refdet.thumbnails import template_thumbnails
from sightline.synthetic import make_object


def test_of_a_folder_with_masks(tmp_path):
    for i in range(5):
        write_image(tmp_path / f"{i}.png", np.full((40, 40, 3), 40 * i + 40, np.uint8))
        mask = np.zeros((40, 40), bool)
        mask[10:30, 10:30] = True
        write_mask(tmp_path / f"{i}_mask.png", mask)
    small = template_thumbnails(tmp_path, count=3, size=48)
    assert [int(each[24, 24, 0]) for each in small] == [40, 120, 200]  # the first, middle and last
    assert [int(each[1, 1, 0]) for each in small] == [12, 36, 60]


def test_of_a_card_and_of_one_file(tmp_path):
    card = onboard_mesh(make_object("can", 0).mesh, name="can", num_views=42)
    assert len(template_thumbnails(card, count=4)) == 4
    write_image(tmp_path / "one.png", np.full((40, 40, 3), 90, np.uint8))
    assert len(template_thumbnails(tmp_path / "one.png")) == 1
    assert len(template_thumbnails([TemplatePicture(np.full((40, 40, 3), 90, np.uint8))], count=1)) == 1


def test_of_nothing(tmp_path):
    with pytest.raises(ValueError, match="templates"):
        template_thumbnails(tmp_path)
