"""Parts of a model that do not learn during the first epochs."""

from __future__ import annotations

from torch import nn

from sightline.training.optimiser import matching_part, require_parts


class FrozenParts:
    """Freezes named parts of a model, and lets them go.

    A frozen part gets no gradients and stays in evaluation mode, so that batch norm keeps its statistics and
    dropout rests.

    Args:
        model: whose parts.
        parts: leading parts of parameter names, such as ``("backbone",)``.

    Raises:
        ValueError: the model has no such part.

    Example:
        >>> model = nn.ModuleDict({"backbone": nn.BatchNorm1d(2), "head": nn.Linear(2, 2)})
        >>> frozen = FrozenParts(model, ("backbone",))
        >>> frozen.hold()
        >>> model["backbone"].training, model["backbone"].weight.requires_grad, model["head"].training
        (False, False, True)
        >>> frozen.release()
        >>> model["backbone"].training, model["backbone"].weight.requires_grad
        (True, True)
    """

    def __init__(self, model: nn.Module, parts: tuple[str, ...]) -> None:
        require_parts(model, "freeze", parts)
        self._modules = [module for name, module in model.named_modules() if matching_part(name, parts)]
        # What never learns, by the model's own decision, is not let go.
        self._parameters = [
            parameter
            for name, parameter in model.named_parameters()
            if matching_part(name, parts) and parameter.requires_grad
        ]

    def hold(self) -> None:
        """Freeze the parts; also needed after each ``model.train()``."""
        for module in self._modules:
            module.training = False
        for parameter in self._parameters:
            parameter.requires_grad_(False)
            parameter.grad = None

    def release(self) -> None:
        """Let the parts learn."""
        for module in self._modules:
            module.training = True
        for parameter in self._parameters:
            parameter.requires_grad_(True)
