"""What of a model changes: its parameters of the scope, the optimiser, and what a method remembers."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sightline.nn.fingerprint import weights_fingerprint
from sightline.rtdetr_pose.ttt.guards import Guards
from sightline.rtdetr_pose.ttt.objectives import Draws, Objective
from sightline.rtdetr_pose.ttt.snapshot import Snapshot, copy_all, model_tensors, optimiser_tensors, prime
from sightline.rtdetr_pose.ttt.spec import AdaptSpec
from sightline.rtdetr_pose.ttt.trust_region import Projection, TrustRegion


class Update(NamedTuple):
    """A step of the optimiser: the gradient's norm before it was scaled, and what the trust region saw."""

    grad_norm: Float[Tensor, ""]
    region: Projection


class Learner:
    """A model's parameters that adapt, and all that changes with them.

    Args:
        model: that adapts.
        parameters: of the scope, by name.
        spec: how.
        objective: what is lowered.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: dict[str, nn.Parameter],
        spec: AdaptSpec,
        objective: Objective,
    ) -> None:
        self.model, self.objective, self.reader = model, objective, objective.reader
        self.names, self.parameters = list(parameters), list(parameters.values())
        self.memory: dict[str, Tensor] = {}
        self.guards: Guards = spec.guards
        device = self.parameters[0].device
        self.draws = Draws(device=torch.Generator(device), host=torch.Generator())
        self._seed = spec.seed
        self.optimiser = _make_optimiser(spec, self.parameters)
        prime(self.optimiser)
        live, state = model_tensors(model, parameters), optimiser_tensors(self.optimiser)
        self.origin = Snapshot(live), Snapshot(state)
        self._checkpoint = Snapshot(live), Snapshot(state)
        self._region = TrustRegion(self.names, self.source, spec.guards.trust_radius)
        self.seed()
        self.checkpoint()

    @property
    def source(self) -> list[Tensor]:
        """The parameters as they were found."""
        return [self.origin[0].tensors[name] for name in self.names]

    @property
    def latest(self) -> list[Tensor]:
        """The parameters at the last checkpoint."""
        return [self._checkpoint[0].tensors[name] for name in self.names]

    def seed(self) -> None:
        """Begin the random numbers anew."""
        self.draws.device.manual_seed(self._seed)
        self.draws.host.manual_seed(self._seed)

    def reset(self) -> None:
        """Be what was found: parameters, buffers, optimiser, memory and random numbers, bit for bit."""
        for each in self.origin:
            each.restore()
        self.memory = {}
        self.seed()

    def checkpoint(self) -> None:
        """Keep everything as it is now."""
        for each in self._checkpoint:
            each.take()
        self._kept_memory = {name: each.clone() for name, each in self.memory.items()}
        self._kept_draws = self.draws.device.get_state(), self.draws.host.get_state()

    def roll_back(self) -> None:
        """Go back to the checkpoint."""
        self.draws.device.set_state(self._kept_draws[0])
        self.draws.host.set_state(self._kept_draws[1])
        for each in self._checkpoint:
            each.restore()
        self.memory = {name: each.clone() for name, each in self._kept_memory.items()}

    def state(self) -> dict[str, Any]:
        """Tensors to go on from, with a fingerprint of the source."""
        kept = {"model": self._checkpoint[0], "optimiser": self._checkpoint[1]}
        self.checkpoint()
        return {
            **{
                name: {key: each.clone() for key, each in part.tensors.items()} for name, part in kept.items()
            },
            "source": self._fingerprint(),
            "memory": {name: each.clone() for name, each in self.memory.items()},
            "draws": {"device": self.draws.device.get_state(), "host": self.draws.host.get_state()},
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            ValueError: it is of another source model.
        """
        if state["source"] != self._fingerprint():
            raise ValueError("adapter: the state is of another source model")
        self._checkpoint[0].load(state["model"])
        self._checkpoint[1].load(state["optimiser"])
        self.memory = {name: each.clone() for name, each in state["memory"].items()}
        self.draws.device.set_state(state["draws"]["device"])
        self.draws.host.set_state(state["draws"]["host"])

    def _fingerprint(self) -> str:
        with self.swapped(self.source):
            return weights_fingerprint(self.model, {"scope": self.names})

    def gradients(self, loss: Float[Tensor, ""]) -> list[Tensor]:
        """Of a loss, zeros where it does not depend on a parameter.

        Raises:
            ValueError: it depends on none.
        """
        if not loss.requires_grad:
            raise ValueError(
                f"adaptation: the objective depends on none of the {len(self.names)} parameters of the scope"
            )
        found = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        return [
            torch.zeros_like(parameter) if each is None else each
            for each, parameter in zip(found, self.parameters, strict=True)
        ]

    @torch.no_grad()
    def apply(self, gradients: Sequence[Tensor]) -> Update:
        """Scale gradients that are too long, let the optimiser step, and hold layers in their region."""
        norm = total_norm(gradients)
        if self.guards.max_grad_norm is not None:
            scale = (self.guards.max_grad_norm / (norm + 1e-12)).clamp(max=1.0)
            gradients = torch._foreach_mul(list(gradients), scale)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient.to(parameter.dtype)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return Update(norm, self._region.project(self.parameters))

    @contextmanager
    def swapped(self, tensors: Sequence[Tensor] | None) -> Generator[None]:
        """Let the parameters hold other values during the block; None changes nothing."""
        if tensors is None:
            yield
            return
        kept = [each.detach().clone() for each in self.parameters]
        copy_all(self.parameters, tensors)
        try:
            yield
        finally:
            copy_all(self.parameters, kept)


def total_norm(tensors: Sequence[Tensor]) -> Float[Tensor, ""]:
    """The norm of all entries of some tensors.

    Example:
        >>> total_norm([torch.tensor([3.0]), torch.tensor([[4.0]])])
        tensor(5.)
    """
    return torch.stack([each.float() for each in torch._foreach_norm(list(tensors))]).norm()


def _make_optimiser(spec: AdaptSpec, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if spec.optimiser == "sgd":
        return torch.optim.SGD(parameters, lr=spec.lr, momentum=0.9)
    kind = torch.optim.Adam if spec.optimiser == "adam" else torch.optim.AdamW
    return kind(parameters, lr=spec.lr)
