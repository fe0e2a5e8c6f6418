"""Which of a model's parameters a scope selects; everything else holds still."""

from __future__ import annotations

from torch import nn

from sightline.rtdetr_pose.ttt.lora import LowRank
from sightline.rtdetr_pose.ttt.spec import Scope


def select_parameters(model: nn.Module, scope: Scope) -> dict[str, nn.Parameter]:
    """The parameters of a scope by name.

    Parameters that the model holds frozen, such as a teacher's, are not among them, unless all are frozen.

    Args:
        model: any.
        scope: which.

    Raises:
        ValueError: none; with what the model has.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.LayerNorm(4))
        >>> list(select_parameters(model, Scope(exclude=("2.",))))
        ['1.weight', '1.bias']
        >>> select_parameters(model, Scope(select=("adapters",)))
        Traceback (most recent call last):
        ValueError: scope: adapters selects none of the model's 6 parameters (norm 4, adapters 0); ...
    """
    chosen: dict[str, nn.Parameter] = {}
    inference = not any(each.requires_grad for each in model.parameters())
    found = {"norm": 0, "adapters": 0, "all": 0}
    for owner, module in model.named_modules():
        kinds = {"all"} | ({"norm"} if is_norm(module) else set())
        kinds |= {"adapters"} if isinstance(module, LowRank) else set()
        for own_name, parameter in module.named_parameters(recurse=False):
            name = f"{owner}.{own_name}" if owner else own_name
            if not (parameter.requires_grad or inference):
                continue
            for kind in kinds:
                found[kind] += 1
            if kinds.intersection(scope.select) and _named(name, scope):
                chosen[name] = parameter
    # A parameter that two modules share counts once, under its first name.
    unique = {id(each): name for name, each in reversed(chosen.items())}
    chosen = {name: each for name, each in chosen.items() if unique[id(each)] == name}
    if not chosen:
        raise ValueError(_nothing(scope, found))
    return chosen


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalises: by its class, or by the name of its class.

    Example:
        >>> is_norm(nn.GroupNorm(1, 4)), is_norm(nn.Linear(1, 1))
        (True, False)
    """
    return "Norm" in type(module).__name__


def _named(name: str, scope: Scope) -> bool:
    wanted = not scope.include or any(text in name for text in scope.include)
    return wanted and not any(text in name for text in scope.exclude)


def _nothing(scope: Scope, found: dict[str, int]) -> str:
    wanted = " and ".join(scope.select)
    if scope.include or scope.exclude:
        wanted += f" with {list(scope.include) or 'any name'} without {list(scope.exclude)}"
    have = f"the model's {found['all']} parameters (norm {found['norm']}, adapters {found['adapters']})"
    advice = ""
    if "adapters" in scope.select and not found["adapters"]:
        advice = "; call apply_adapters first"
    elif "norm" in scope.select and not found["norm"]:
        advice = "; its normalisation is frozen into buffers, or it has none: make it trainable first"
    return f"scope: {wanted} selects none of {have}{advice}"


class Flags:
    """What a model's modules and parameters were set to, to be put back.

    Args:
        model: any.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modes = [(module, module.training) for module in model.modules()]
        self._gradients = [(each, each.requires_grad) for each in model.parameters()]

    def restore(self) -> None:
        """Put them back."""
        for module, mode in self._modes:
            module.training = mode
        for parameter, flag in self._gradients:
            parameter.requires_grad_(flag)
            parameter.grad = None
