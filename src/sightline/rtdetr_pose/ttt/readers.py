"""What methods and guards need to know of a model's outputs; and the reader of plain classifiers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

Outputs = Any


class OutputReader(ABC):
    """Reads a model's outputs; pictures are the first axis of all that it gives."""

    @abstractmethod
    def entropy(self, outputs: Outputs) -> Float[Tensor, "b"]:
        """How unsure the model is of each picture, with gradient."""

    @abstractmethod
    def max_entropy(self, outputs: Outputs) -> float:
        """The largest value that :meth:`entropy` can take."""

    @abstractmethod
    def probabilities(self, outputs: Outputs) -> Float[Tensor, "b c"]:
        """The classes that each picture shows."""

    @abstractmethod
    def confidence(self, outputs: Outputs) -> Float[Tensor, "b"]:
        """The mean score of what was found in each picture."""

    @abstractmethod
    def counts(self, outputs: Outputs) -> Float[Tensor, "b"]:
        """How many things were found in each picture."""

    @abstractmethod
    def histogram(self, outputs: Outputs) -> Float[Tensor, "c"]:
        """How often each class was found."""

    @abstractmethod
    def is_finite(self, outputs: Outputs) -> Bool[Tensor, ""]:
        """Whether the outputs can be used."""

    @abstractmethod
    def kl(self, source: Outputs, adapted: Outputs) -> Float[Tensor, ""]:
        """KL(source || adapted) of what was found, nats."""

    @abstractmethod
    def drift(self, source: Outputs, adapted: Outputs) -> dict[str, Float[Tensor, ""]]:
        """Mean changes of what was found, beside its class."""

    @abstractmethod
    def pseudo_loss(self, outputs: Outputs) -> Float[Tensor, "b"]:
        """The loss of each picture if what was found were true."""

    @abstractmethod
    def consistency(self, student: Outputs, teacher: Outputs) -> Float[Tensor, "b"]:
        """The cross-entropy of the teacher's classes under the student's, for each picture."""

    @abstractmethod
    def average(self, views: Sequence[Outputs], mirrored: Sequence[bool]) -> Outputs:
        """The mean of the outputs of several views of the same pictures, in terms of the first view.

        Args:
            views: outputs.
            mirrored: which views show the pictures mirrored left to right.
        """


class ClassifierReader(OutputReader):
    """Reads ``(b, c)`` logits of classes of which one is true.

    Args:
        key: of the logits, where the model gives a mapping.

    Example:
        >>> reader = ClassifierReader()
        >>> reader.entropy(torch.log(torch.tensor([[0.7, 0.2, 0.1]])))
        tensor([0.8018])
    """

    def __init__(self, key: str | None = None) -> None:
        self.key = key

    def logits(self, outputs: Outputs) -> Float[Tensor, "b c"]:
        """The logits among the outputs."""
        return outputs if self.key is None else outputs[self.key]

    def entropy(self, outputs: Outputs) -> Float[Tensor, "b"]:
        """Entropy of the softmax, nats."""
        log_p = F.log_softmax(self.logits(outputs), -1)
        return -(log_p.exp() * log_p).sum(-1)

    def max_entropy(self, outputs: Outputs) -> float:
        """``log c``."""
        return math.log(self.logits(outputs).shape[-1])

    def probabilities(self, outputs: Outputs) -> Float[Tensor, "b c"]:
        """The softmax."""
        return self.logits(outputs).softmax(-1)

    def confidence(self, outputs: Outputs) -> Float[Tensor, "b"]:
        """The largest probability."""
        return self.probabilities(outputs).amax(-1)

    def counts(self, outputs: Outputs) -> Float[Tensor, "b"]:
        """One a picture."""
        return torch.ones_like(self.logits(outputs)[:, 0])

    def histogram(self, outputs: Outputs) -> Float[Tensor, "c"]:
        """The best class of each picture."""
        logits = self.logits(outputs)
        best = logits.argmax(-1)
        return logits.new_zeros(logits.shape[-1]).index_add_(0, best, torch.ones_like(logits[:, 0]))

    def is_finite(self, outputs: Outputs) -> Bool[Tensor, ""]:
        """Whether all logits are."""
        return self.logits(outputs).isfinite().all()

    def kl(self, source: Outputs, adapted: Outputs) -> Float[Tensor, ""]:
        """Mean over the pictures."""
        log_p, log_q = (F.log_softmax(self.logits(each), -1) for each in (source, adapted))
        return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)

    def drift(self, source: Outputs, adapted: Outputs) -> dict[str, Float[Tensor, ""]]:
        """Nothing but the class can change."""
        return {}

    def pseudo_loss(self, outputs: Outputs) -> Float[Tensor, "b"]:
        """Cross-entropy of the best class."""
        logits = self.logits(outputs)
        return F.cross_entropy(logits, logits.detach().argmax(-1), reduction="none")

    def consistency(self, student: Outputs, teacher: Outputs) -> Float[Tensor, "b"]:
        """Softmax cross-entropy."""
        target = self.logits(teacher).detach().softmax(-1)
        return F.cross_entropy(self.logits(student), target, reduction="none")

    def average(self, views: Sequence[Outputs], mirrored: Sequence[bool]) -> Outputs:
        """Mean logits, as CoTTA has it; a mirrored picture shows the same class."""
        mean = torch.stack([self.logits(each) for each in views]).mean(0)
        return mean if self.key is None else {**views[0], self.key: mean}
