"""What a model computed once for a card, kept in the card's ``features/`` folder as safetensors."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from sightline.formats.atomic import atomic_write
from sightline.objects.card import ObjectCard
from sightline.objects.card_files import card_hash


def cached_features(
    card: ObjectCard, key: str, compute: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Read the features that ``key`` names, or compute them and keep them for the next time.

    A file that was computed from another state of the card is ignored and replaced. A card without a folder,
    or in a place that cannot be written, is computed without being kept.

    Args:
        card: the object.
        key: ``<room>-<hash of checkpoint or parameters>``.
        compute: makes the tensors.

    Returns:
        The tensors by name.
    """
    if card.folder is None:
        return compute()
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

    path = card.folder / "features" / f"{key}.safetensors"
    state = card_hash(card.folder)
    if path.is_file():
        try:
            with safe_open(path, framework="pt") as stored:
                if (stored.metadata() or {}).get("card_sha256") == state:
                    return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        except SafetensorError:
            pass  # a damaged cache is worth no more than an absent one
    tensors = {name: tensor.contiguous() for name, tensor in compute().items()}
    try:
        path.parent.mkdir(exist_ok=True)
        with atomic_write(path) as temporary:
            save_file(tensors, temporary, metadata={"card_sha256": state})
    except OSError:
        pass  # a read-only card still works, only slower the next time
    return tensors
