"""Settings of which each can fire its guards, by the names that the field's tools use."""

from __future__ import annotations

from sightline.rtdetr_pose.ttt.guards import Guards
from sightline.rtdetr_pose.ttt.resets import Episodic, Every, OnTrigger
from sightline.rtdetr_pose.ttt.spec import AdaptSpec, Cotta, Eata, MaskedReconstruction, Sar, Scope, Tent
from sightline.training.choices import require_choice

_NORM, _ADAPTERS = Scope(), Scope(select=("adapters",))

PRESETS: dict[str, AdaptSpec] = {
    "safe": AdaptSpec(method=Tent(), scope=_NORM, lr=1e-3, reset=Episodic()),
    "adapter_only": AdaptSpec(method=Tent(), scope=_ADAPTERS, lr=1e-3, reset=OnTrigger()),
    # A decoder that learnt at test time would lower the loss in the features' place; a backbone that holds
    # still is run once a batch.
    "mim_safe": AdaptSpec(
        method=MaskedReconstruction(),
        scope=Scope(exclude=("mim.", "backbone")),
        lr=1e-3,
        steps=2,
        reset=Episodic(),
    ),
    "cotta_safe": AdaptSpec(
        method=Cotta(momentum=0.99, views=4, confidence=0.7), scope=_NORM, lr=1e-3, reset=Every(n=200)
    ),
    "eata_safe": AdaptSpec(method=Eata(diversity=0.4), scope=_NORM, lr=1e-3, reset=OnTrigger()),
    "sar_safe": AdaptSpec(
        method=Sar(),
        scope=_NORM,
        optimiser="sgd",
        lr=1e-3,
        reset=OnTrigger(),
        guards=Guards(max_grad_norm=None),
    ),
}
"""``mim_safe`` and the others adapt normalisation layers, so that they select something in any model;
``adapter_only`` needs :func:`~sightline.rtdetr_pose.ttt.lora.apply_adapters` first."""


def preset(name: str) -> AdaptSpec:
    """A preset by name.

    Raises:
        ValueError: there is none of that name.

    Example:
        >>> preset("eata_safe").options.diversity
        0.4
    """
    require_choice("preset", name, tuple(PRESETS))
    return PRESETS[name]
