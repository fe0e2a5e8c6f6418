"""Which estimate found which truth: greedy matching in the order of the estimates' scores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

_MAX_ELEMENTS = 4_000_000


def match_greedily(
    errors: Float[Tensor, "*batch e g"], limits: Float[Tensor, " c"], *, inclusive: bool = False
) -> Int[Tensor, "*batch c e"]:
    """Match estimates to truths one to one, the surest estimate first, under each of several limits.

    Each estimate takes, of the truths that no surer one took, that with the least error, if the error is
    below the limit. This is BOP's and, up to ties, COCO's rule.

    Args:
        errors: ``(*batch, e, g)`` of e estimates, by falling score, against g truths; NaN never matches.
        limits: ``(c,)`` the limits of what counts as found.
        inclusive: whether an error equal to the limit is found (COCO's IoU) or not (BOP's pose errors).

    Returns:
        ``(*batch, c, e)`` int64, the truth that each estimate found, or -1.

    Example:
        >>> errors = torch.tensor([[0.1, 0.2], [0.0, 0.3]])
        >>> match_greedily(errors, torch.tensor([0.25, 0.5]))
        tensor([[ 0, -1],
                [ 0,  1]])
    """
    *batch, num_estimates, num_truths = errors.shape
    # a last truth that nobody can find keeps the minimum defined where there is none at all
    errors = torch.nn.functional.pad(
        errors.nan_to_num(nan=torch.inf, posinf=torch.inf), (0, 1), value=torch.inf
    )
    free = torch.ones(*batch, len(limits), num_truths + 1, dtype=torch.bool, device=errors.device)
    found = torch.full((*batch, len(limits), num_estimates), -1, device=errors.device)
    for index in range(num_estimates):
        least, truth = torch.where(free, errors[..., None, index, :], torch.inf).min(-1)
        hit = (least <= limits) if inclusive else (least < limits)
        found[..., index] = torch.where(hit & least.isfinite(), truth, -1)
        free.scatter_(-1, truth[..., None], ~hit[..., None] & free.gather(-1, truth[..., None]))
    return found


def match_groups(
    errors: Sequence[Float[Tensor, "k _ _"]], limits: Float[Tensor, " c"], *, inclusive: bool = False
) -> list[Int[Tensor, "k c _"]]:
    """Match many groups, one a picture and object, each with its own numbers of estimates and truths.

    Groups of like size are padded and matched together, so that the cost is that of the largest group and not
    of their number.

    Args:
        errors: one ``(k, e, g)`` tensor a group, estimates by falling score; k kinds of error side by side.
        limits: ``(c,)`` as in :func:`match_greedily`.
        inclusive: as in :func:`match_greedily`.

    Returns:
        One ``(k, c, e)`` int64 tensor a group, in the order given.

    Example:
        >>> groups = [torch.zeros(1, 1, 1), torch.ones(1, 2, 1)]
        >>> [found.tolist() for found in match_groups(groups, torch.tensor([0.5]))]
        [[[[0]]], [[[-1, -1]]]]
    """
    found: list[Tensor] = [torch.empty(0)] * len(errors)
    order = sorted(range(len(errors)), key=lambda index: errors[index].shape[1])
    while order:
        chunk = _largest_that_fit(errors, order, len(limits))
        del order[-len(chunk) :]
        matched = match_greedily(_pad([errors[index] for index in chunk]), limits, inclusive=inclusive)
        for index, rows in zip(chunk, matched, strict=True):
            found[index] = rows[..., : errors[index].shape[1]]
    return found


def _largest_that_fit(errors: Sequence[Tensor], order: list[int], num_limits: int) -> list[int]:
    kinds, num_estimates, _ = errors[order[-1]].shape
    truths = max(errors[index].shape[2] for index in order) + 1
    room = _MAX_ELEMENTS // (kinds * max(num_estimates, 1) * truths * num_limits)
    return order[-max(1, room) :]


def _pad(errors: list[Tensor]) -> Float[Tensor, "n k e g"]:
    kinds, dtype = errors[0].shape[0], errors[0].dtype
    estimates, truths = max(e.shape[1] for e in errors), max(e.shape[2] for e in errors)
    padded = torch.full((len(errors), kinds, estimates, truths), torch.inf, dtype=dtype)
    for row, group in zip(padded, errors, strict=True):
        row[:, : group.shape[1], : group.shape[2]] = group
    return padded
