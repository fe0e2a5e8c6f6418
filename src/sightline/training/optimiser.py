"""AdamW with parameter groups, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sightline.training.settings import TrainSettings


def learning_rate(
    step: int, total_steps: int, *, lr: float, min_lr: float = 1e-6, warmup_steps: int = 0
) -> float:
    """Linear warm-up, then a cosine to the lowest rate (Loshchilov and Hutter, SGDR, without restarts).

    Args:
        step: steps already made.
        total_steps: steps of the whole run; the last of them, ``total_steps - 1``, has the rate ``min_lr``.
        lr: the highest rate.
        min_lr: the lowest rate.
        warmup_steps: step s of these has the rate ``lr (s + 1) / (warmup_steps + 1)``.

    Returns:
        The rate of the next step.

    Example:
        >>> [round(learning_rate(s, 7, lr=1.0, min_lr=0.0, warmup_steps=2), 3) for s in range(7)]
        [0.333, 0.667, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if step < warmup_steps:
        return lr * (step + 1) / (warmup_steps + 1)
    fraction = min(1.0, (step - warmup_steps) / max(1, total_steps - 1 - warmup_steps))
    return min_lr + (lr - min_lr) * (1 + math.cos(math.pi * fraction)) / 2


def matching_part(name: str, parts: Mapping[str, float] | tuple[str, ...]) -> str | None:
    """The longest of the parts with which a dotted name begins.

    Example:
        >>> matching_part("backbone.stem.weight", ("back", "backbone", "backbone.stem"))
        'backbone.stem'
        >>> matching_part("backbones.weight", ("backbone",)) is None
        True
    """
    fitting = [part for part in parts if name == part or name.startswith(f"{part}.")]
    return max(fitting, key=len, default=None)


def require_parts(model: nn.Module, option: str, parts: Mapping[str, float] | tuple[str, ...]) -> None:
    """Raise where a part names no parameter of the model.

    Raises:
        ValueError: with the parts that there are.

    Example:
        >>> require_parts(nn.ModuleDict({"head": nn.Linear(1, 1)}), "freeze", ("backbone",))
        Traceback (most recent call last):
        ValueError: freeze: the model has no parameters of 'backbone' (it has: head)
    """
    names = [name for name, _ in model.named_parameters()]
    for part in parts:
        if not any(matching_part(name, (part,)) for name in names):
            known = ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))
            raise ValueError(f"{option}: the model has no parameters of {part!r} (it has: {known})")


def parameter_groups(model: nn.Module, settings: TrainSettings) -> list[dict]:
    """Split a model's parameters by learning rate factor and by whether they decay.

    Weights of norms, biases and other tensors of fewer than two axes do not decay.

    Args:
        model: whose parameters, frozen ones as well.
        settings: ``lr``, ``lr_factors``, ``weight_decay``.

    Returns:
        Groups for the optimiser, each with its ``lr_factor`` beside the usual keys.

    Raises:
        ValueError: ``lr_factors`` names a part that the model does not have.

    Example:
        >>> model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
        >>> groups = parameter_groups(model, TrainSettings(lr_factors={"backbone": 0.1}))
        >>> [(group["lr_factor"], group["weight_decay"], len(group["params"])) for group in groups]
        [(0.1, 0.0001, 1), (0.1, 0.0, 1), (1.0, 0.0001, 1), (1.0, 0.0, 1)]
    """
    require_parts(model, "lr_factors", settings.lr_factors)
    norms = {
        id(parameter)
        for module in model.modules()
        if "norm" in type(module).__name__.lower()
        for parameter in module.parameters(recurse=False)
    }
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        part = matching_part(name, settings.lr_factors)
        factor = 1.0 if part is None else float(settings.lr_factors[part])
        decays = parameter.ndim >= 2 and id(parameter) not in norms and not name.endswith("bias")
        groups[factor, settings.weight_decay if decays else 0.0].append(parameter)
    return [
        {"params": parameters, "lr": settings.lr * factor, "weight_decay": decay, "lr_factor": factor}
        for (factor, decay), parameters in groups.items()
    ]


def build_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW over the parameter groups of a model.

    Args:
        model: whose parameters.
        settings: learning rates, decay, betas, precision.

    Returns:
        The optimiser; its kernel is fused unless fp16 needs to unscale gradients before they are clipped.
    """
    fused = settings.precision != "fp16"
    return torch.optim.AdamW(
        parameter_groups(model, settings), lr=settings.lr, betas=settings.betas, fused=fused
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give each group its share of a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_factor"]


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state as tensors by ``<parameter's name>/<key>``.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> optimizer = build_optimizer(model, TrainSettings())
        >>> _ = model(torch.ones(1, 1)).sum().backward(), optimizer.step()
        >>> sorted(optimizer_tensors(model, optimizer))[:3]
        ['bias/exp_avg', 'bias/exp_avg_sq', 'bias/step']
    """
    return {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Give an optimiser the state that :func:`optimizer_tensors` took.

    Args:
        model: whose parameters the optimiser has.
        optimizer: fresh, with the same groups.
        tensors: by ``<parameter's name>/<key>``.
    """
    by_name: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for path, tensor in tensors.items():
        name, _, key = path.rpartition("/")
        by_name[name][key] = tensor
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    ordered = [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    state = {place: by_name[name] for place, name in enumerate(ordered) if name in by_name}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
