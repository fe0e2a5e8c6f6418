"""What a room gives to be trained: a model, samples, losses, and figures that say how good it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from torch import Tensor, nn


@runtime_checkable
class Samples(Protocol):
    """Numbered samples that are drawn with randomness of their own.

    ``sample`` must take all its randomness from ``rng``, or from the generators of ``random``, ``numpy`` and
    ``torch``, which are seeded alike before each call. Then a sample depends on the run's seed, the epoch and
    its number alone: not on workers, processes or what was drawn before.
    """

    def __len__(self) -> int:
        """How many samples an epoch has; generated data choose a number."""
        ...

    def sample(self, index: int, rng: np.random.Generator) -> Any:  # noqa: ANN401  # what ``collate`` takes
        """Draw sample ``index``."""
        ...


class TrainingTask(ABC):
    """What a room gives to be trained.

    Adding a recipe means: name the model and its config, give samples, write ``losses``. Overwrite
    ``collate`` where samples are more than dicts of tensors, and ``validate`` where losses do not say how
    good the model is. The model's weights are initialised before; over several processes those of the first
    count.

    Args:
        model: what learns.
        config: the values from which the model is constructed; they go into the files of weights.

    Example:
        >>> import torch
        >>> class Points:
        ...     def __len__(self):
        ...         return 64
        ...
        ...     def sample(self, index, rng):
        ...         x = torch.from_numpy(rng.normal(size=2)).float()
        ...         return {"x": x, "y": x.sum(0, keepdim=True)}
        >>> class SumTask(TrainingTask):
        ...     def training_samples(self):
        ...         return Points()
        ...
        ...     def losses(self, batch):
        ...         return {"loss": (self.model(batch["x"]) - batch["y"]).square().mean()}
        >>> task = SumTask(nn.Linear(2, 1), {"in_features": 2, "out_features": 1})
        >>> task.best_figure, task.best_is_high
        ('val_loss', False)
    """

    best_figure: ClassVar[str] = "val_loss"
    """The figure of ``validate`` by which the best weights are kept."""
    best_is_high: ClassVar[bool] = False
    """Whether a high value of it is good."""
    exports_best: ClassVar[bool] = True
    """Whether the run is for its best weights; False where ``validate`` sees but a part of the job."""

    def __init__(self, model: nn.Module, config: Mapping[str, Any]) -> None:
        self.model = model
        self.config = config

    @abstractmethod
    def training_samples(self) -> Samples:
        """What is learned from."""

    @abstractmethod
    def losses(self, batch: Any) -> Mapping[str, Tensor]:  # noqa: ANN401  # what ``collate`` returns
        """Run the model on a batch and judge it.

        Args:
            batch: what ``collate`` returned, on the model's device.

        Returns:
            Scalars by name, the same names each time; ``"loss"`` is the one that is minimised, the others are
            shown. Over processes gradients are averaged, which is right for means over the batch; a loss that
            divides by a count takes that count's
            :func:`sightline.training.processes.average_over_processes`.
        """

    def validation_samples(self) -> Samples | None:
        """What ``validate`` is judged on; None where there is no validation."""
        return None

    def collate(self, samples: Sequence[Any]) -> Any:  # noqa: ANN401  # what ``losses`` takes
        """Make a batch of samples; runs in the workers, so that heavy work on whole batches belongs here."""
        from torch.utils.data import default_collate

        return default_collate(list(samples))

    def validate(self, batches: Iterable[Any]) -> dict[str, float]:
        """Judge the model, which is in evaluation mode and holds the averaged weights; no gradients are kept.

        Only the first process validates; the others wait.

        Args:
            batches: the validation samples in order, on the model's device, in the run's precision.

        Returns:
            Figures by name; unless overwritten, of each loss the mean over the batches as ``val_<name>``.
        """
        sums: dict[str, float] = defaultdict(float)
        count = 0
        for batch in batches:
            count += 1
            for name, value in self.losses(batch).items():
                sums[f"val_{name}"] += float(value)
        return {name: value / count for name, value in sums.items()}

    def notes(self) -> dict[str, Any]:
        """What the users of the weights need to know beside the config, as JSON holds it."""
        return {}

    def at_progress(self, fraction: float) -> None:  # noqa: B027  # most tasks need none
        """Told before each forward pass which share of the run is done, for weights that change with it."""
