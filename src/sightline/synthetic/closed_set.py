"""The closed set: five generated objects that a network learns by heart, and what stands beside them.

Unlike the exam's other tasks the objects are known: training, development and exam show the same five, in
pictures of their own, among others that each split has for itself.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from sightline.synthetic.backdrops import BackdropBank
from sightline.synthetic.exam import exam_object
from sightline.synthetic.exam_settings import CLOSED_SET
from sightline.synthetic.objects import SyntheticObject, make_object
from sightline.synthetic.pose_composites import CompositeSettings, PoseComposites
from sightline.synthetic.pose_views import PoseViewSettings
from sightline.synthetic.view_bank import ViewBank

WANTED_VIEWS = PoseViewSettings(num_queries=1500, query_px=112, query_distance=(1.8, 9.5), query_aside=0.0)
OTHER_VIEWS = PoseViewSettings(num_queries=48, query_px=96, query_distance=(1.8, 9.5), query_aside=0.0)


@cache
def closed_set_objects() -> tuple[SyntheticObject, ...]:
    """The five objects, in the order of their labels.

    A printed box, a printed mug and a toy in a mosaic of colours, which look different from every side; a
    plain bottle that may be turned about its axis at will; a plain knob with five lobes.

    Example:
        >>> [thing.name.split("-")[0] for thing in closed_set_objects()]
        ['box', 'mug', 'toy', 'bottle', 'knob']
    """
    return tuple(make_object(kind, seed, texture=texture) for kind, texture, seed in CLOSED_SET.objects)


def closed_set_composites(
    folder: str | Path | None = None,
    *,
    split: str = "train",
    settings: CompositeSettings | None = None,
    views: PoseViewSettings = WANTED_VIEWS,
    num_others: int = 40,
    num_backdrops: int = 200,
) -> PoseComposites:
    """Training pictures of the closed set.

    Args:
        folder: where views and backdrops are kept between runs; in memory unless given.
        split: ``"train"`` or ``"development"``: whose other objects and backdrops.
        settings: what the pictures are like.
        views: how the five objects are drawn.
        num_others: how many other objects there are.
        num_backdrops: how many pictures of walls and tables.

    Returns:
        The pictures, made when they are drawn.

    Raises:
        ValueError: another split; the exam's own others are refused.
    """
    backdrops = BackdropBank(num_backdrops, folder, split=split, image_size=(400, 300))
    others = None
    if num_others > 0:
        others = ViewBank([exam_object(index, split) for index in range(num_others)], OTHER_VIEWS, folder)
    return PoseComposites(ViewBank(closed_set_objects(), views, folder), others, backdrops, settings)
