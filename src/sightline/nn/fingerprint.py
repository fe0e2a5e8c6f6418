"""What tells some weights from all others, so that what was computed with them can be kept under a name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from torch import nn


def weights_fingerprint(model: nn.Module, config: Mapping[str, Any], *, without: tuple[str, ...] = ()) -> str:
    """Sixteen letters that change with any weight and any value of the config.

    Args:
        model: the model, on any device.
        config: the values from which it is constructed, as JSON holds them.
        without: beginnings of names of weights that do not count.

    Example:
        >>> import torch
        >>> model = nn.Linear(2, 1)
        >>> before = weights_fingerprint(model, {})
        >>> with torch.no_grad():
        ...     _ = model.bias.add_(1)
        >>> before == weights_fingerprint(model, {})
        False
    """
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if name.startswith(without):
            continue
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
