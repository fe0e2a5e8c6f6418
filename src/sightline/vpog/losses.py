"""What the matcher learns by: which template patch each query patch shows, and where in it each pixel lies.

Every loss is a mean over what counts, and exactly 0, with a gradient of 0, where nothing does. No loss is
multiplied by a predicted confidence: that product is least where all confidence is gone. How sure the network
is of a flow it learns from the Laplace likelihood, whose logarithm makes doubt cost something too (Kendall
and Gal, NeurIPS 2017).
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sightline.nn.precision import at_least_float32
from sightline.vpog.flow_head import FlowPrediction

FlowLossKind = Literal["l1", "huber", "laplace"]


def classification_loss(
    logits: Float[Tensor, "*batch query classes"],
    labels: Int[Tensor, "*batch query"],
    *,
    num_patches: int | None = None,
    temperature: float = 1.0,
    weight_unseen: float = 1.0,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """The cross-entropy of naming each query patch's template patch, or that the template does not show it.

    Args:
        logits: ``(*batch, query, classes)``, the template's patches first, then its added tokens, the first
            of which stands for "unseen".
        labels: ``(*batch, query)`` -1 for background, which does not count; the template patch; or
            ``num_patches`` for unseen.
        num_patches: of a template; all classes but one unless given. Where it is all classes there is no
            class for unseen patches, and they do not count.
        temperature: divides the logits.
        weight_unseen: of unseen patches in the mean; the others have 1.
        label_smoothing: share of a label that is spread over all classes.

    Returns:
        The mean in nats; 0 where nothing counts.

    Raises:
        ValueError: a ``num_patches`` that the classes cannot hold.

    Example:
        >>> logits = torch.tensor([[9.0, 0.0, 0.0], [0.0, 0.0, 9.0]])
        >>> classification_loss(logits, torch.tensor([0, 2])) < 0.001
        tensor(True)
        >>> classification_loss(logits, torch.tensor([-1, -1]))
        tensor(0.)
    """
    counted, unseen = _counted(logits, labels, num_patches)
    kept = torch.where(counted[..., None], at_least_float32(logits) / temperature, 0.0)
    entropy = F.cross_entropy(
        kept.flatten(0, -2),
        labels.masked_fill(~counted, -1).flatten(),
        ignore_index=-1,
        label_smoothing=label_smoothing,
        reduction="none",
    )
    weights = counted.to(entropy.dtype).masked_fill(counted & unseen, weight_unseen)
    return _mean(entropy * weights.flatten(), weights)


class ClassificationAccuracy(NamedTuple):
    """Shares of query patches that are named rightly, NaN where there are none, and how many there are.

    Args:
        overall: of all that count.
        seen: of those that the template shows.
        unseen: of those that it does not.
        num_seen: how many the template shows.
        num_unseen: how many it does not.
    """

    overall: Float[Tensor, ""]
    seen: Float[Tensor, ""]
    unseen: Float[Tensor, ""]
    num_seen: Int[Tensor, ""]
    num_unseen: Int[Tensor, ""]


@torch.no_grad()
def classification_accuracy(
    logits: Float[Tensor, "*batch query classes"],
    labels: Int[Tensor, "*batch query"],
    *,
    num_patches: int | None = None,
) -> ClassificationAccuracy:
    """How often the class of the largest logit is the right one.

    Args:
        logits: see :func:`classification_loss`.
        labels: likewise.
        num_patches: likewise.

    Example:
        >>> logits = torch.tensor([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0]])
        >>> accuracy = classification_accuracy(logits, torch.tensor([0, 2]))
        >>> accuracy.overall.item(), accuracy.seen.item(), accuracy.unseen.item()
        (0.5, 1.0, 0.0)
    """
    counted, unseen = _counted(logits, labels, num_patches)
    right = (logits.argmax(-1) == labels) & counted
    num_seen, num_unseen = (counted & ~unseen).sum(), (counted & unseen).sum()
    right_seen, right_unseen = (right & ~unseen).sum(), (right & unseen).sum()
    return ClassificationAccuracy(
        overall=(right_seen + right_unseen) / (num_seen + num_unseen),
        seen=right_seen / num_seen,
        unseen=right_unseen / num_unseen,
        num_seen=num_seen,
        num_unseen=num_unseen,
    )


def flow_loss(
    prediction: FlowPrediction,
    target: Float[Tensor, "*patches r r 2"],
    visible: Bool[Tensor, "*patches r r"],
    kind: FlowLossKind | str = "laplace",
    *,
    huber_delta: float = 1.0,
    weight_invisible: float = 0.0,
) -> Float[Tensor, ""]:
    """The mean error of the flow of visible pixels.

    With e = flow - target in patches: ``l1`` is |e_x| + |e_y|; ``huber`` is |e|^2 / 2 where |e| is at most
    delta, else delta (|e| - delta / 2); ``laplace`` is (|e_x| + |e_y|) / b + 2 log b, the negative
    log-likelihood of two Laplace variables of scale b but for a constant. It is least at b = half the mean of
    |e_x| + |e_y|.

    Args:
        prediction: of matched pairs; its confidence is not read.
        target: ``(*patches, r, r, 2)`` true flow ``(x, y)`` in patches; anything, NaN too, where not visible.
        visible: ``(*patches, r, r)`` which pixels have a target; only they give ``flow`` a gradient.
        kind: ``l1``, ``huber`` or ``laplace``. The first two teach no scale.
        huber_delta: where Huber's loss becomes linear, patches.
        weight_invisible: of the mean of 1 / b over the pixels without a target, which teaches ``laplace``
            doubt where nothing can be seen; 0.1 is usual.

    Returns:
        The mean; 0 where nothing counts.

    Raises:
        ValueError: for another kind.

    Example:
        >>> flow, scale = torch.zeros(1, 2, 2, 2), torch.full((1, 2, 2), 0.5)
        >>> prediction = FlowPrediction(flow, scale, (-scale).exp())
        >>> flow_loss(prediction, flow + 0.25, torch.ones(1, 2, 2, dtype=torch.bool), "l1")
        tensor(0.5000)
    """
    if kind not in get_args(FlowLossKind):
        raise ValueError(f"kind: expected one of {', '.join(get_args(FlowLossKind))}, got {kind!r}")
    error = _visible_error(prediction.flow, target, visible)
    if kind == "huber":
        return _mean(_huber(error.square().sum(-1), huber_delta), visible)
    length = error.abs().sum(-1)
    if kind == "l1":
        return _mean(length, visible)
    scale = at_least_float32(prediction.scale)
    seen = torch.where(visible, scale, 1.0)
    loss = _mean(length / seen + 2 * seen.log(), visible)
    if weight_invisible:
        loss = loss + weight_invisible * _mean(torch.where(visible, 0.0, 1 / scale), ~visible)
    return loss


class FlowErrors(NamedTuple):
    """Errors over both components of all visible pixels, NaN where there are none.

    Args:
        mae: mean absolute error, patches.
        rmse: root of the mean squared error, patches.
        mae_px: the former in pixels.
        rmse_px: likewise.
        num_pixels: how many are visible.
    """

    mae: Float[Tensor, ""]
    rmse: Float[Tensor, ""]
    mae_px: Float[Tensor, ""]
    rmse_px: Float[Tensor, ""]
    num_pixels: Int[Tensor, ""]


@torch.no_grad()
def flow_errors(
    flow: Float[Tensor, "*patches r r 2"],
    target: Float[Tensor, "*patches r r 2"],
    visible: Bool[Tensor, "*patches r r"],
    *,
    patch_size: int = 16,
) -> FlowErrors:
    """How far the flow is from its target.

    Args:
        flow: ``(*patches, r, r, 2)`` in patches.
        target: likewise.
        visible: ``(*patches, r, r)`` which pixels have a target.
        patch_size: pixels.

    Example:
        >>> flow = torch.zeros(1, 2, 2, 2)
        >>> errors = flow_errors(flow, flow + 0.25, torch.ones(1, 2, 2, dtype=torch.bool))
        >>> errors.mae.item(), errors.rmse_px.item(), errors.num_pixels.item()
        (0.25, 4.0, 4)
    """
    error, number = _visible_error(flow, target, visible), visible.sum()
    mae = error.abs().sum() / (2 * number)
    rmse = (error.square().sum() / (2 * number)).sqrt()
    return FlowErrors(mae, rmse, mae * patch_size, rmse * patch_size, number)


def weight_regularization(module: nn.Module, strength: float = 1e-4) -> Float[Tensor, ""]:
    """``strength`` times the sum of the squares of all weights that learn, but biases and norms.

    An optimiser that decays weights does the same; use one of them.

    Args:
        module: the network. Tensors of fewer than two axes, which are biases, scales and temperatures, and
            all parameters of norms are left out, and so is what is frozen.
        strength: factor.

    Returns:
        The sum; 0 where there are no such weights.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> _ = nn.init.ones_(layer.weight)
        >>> weight_regularization(nn.Sequential(layer, nn.LayerNorm(2)), 0.5)
        tensor(2., grad_fn=<MulBackward0>)
    """
    kept = {
        id(parameter): at_least_float32(parameter)  # tied weights count once
        for part in module.modules()
        if not isinstance(part, nn.LayerNorm | nn.RMSNorm)
        for parameter in part.parameters(recurse=False)
        if parameter.ndim >= 2 and parameter.requires_grad
    }
    if not kept:
        return torch.zeros(())
    return strength * torch.stack([weight.square().sum() for weight in kept.values()]).sum()


def _counted(logits: Tensor, labels: Tensor, num_patches: int | None) -> tuple[Tensor, Tensor]:
    """Which labels count, and which are unseen."""
    classes = logits.shape[-1]
    patches = classes - 1 if num_patches is None else num_patches
    if not 0 < patches <= classes:
        raise ValueError(f"num_patches: expected 1 to {classes}, the number of classes, got {patches}")
    unseen = labels == patches
    counted = labels >= 0
    return (counted & ~unseen if patches == classes else counted), unseen


def _visible_error(flow: Tensor, target: Tensor, visible: Tensor) -> Tensor:
    """Flow minus target; 0, and without gradient, where not visible."""
    wide = at_least_float32(flow)
    return torch.where(visible[..., None], wide - target.to(wide.dtype), 0.0)


def _huber(squared: Tensor, delta: float) -> Tensor:
    """Written so that the root of 0 has no gradient."""
    beyond = delta * (squared.clamp_min(delta**2).sqrt() - delta / 2)
    return torch.where(squared <= delta**2, squared / 2, beyond)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """The sum of the values by the sum of the weights; 0 where that is 0."""
    total = weights.sum()
    return values.sum() / torch.where(total > 0, total, 1)
