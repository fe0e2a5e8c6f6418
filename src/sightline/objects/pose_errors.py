"""How far poses are really off: the covariance that a solver claims, widened by what it does not know.

A solver knows the noise of its matches. It does not know that neighbouring matches err together, nor what
alignment, mesh and camera leave; a few numbers, fitted on objects whose poses are known, make up for that.
They describe poses near the truth. No covariance describes that an object is taken for its other side: that
is what the score of a pose is about.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.formats.json_files import Fields, null_if_not_finite, read_json, write_json
from sightline.geometry.rotations import hat


@dataclass(frozen=True)
class PoseErrors:
    """What is added to a claimed covariance, as standard deviations about the middle of the object.

    Args:
        scale: how many times larger the claimed standard deviations are in truth.
        turn: of the rotation at the least, radians about any axis.
        shift: of the position at the least, diameters in any direction.
        zoom: of the distance at the least, as a share of it.
        doubt: by how much all of these grow with what a verification score lacks: ``exp(doubt (1 - score))``.
        freedom: degrees of freedom of the Student's t that the errors follow, above 2: a few poses are much
            further off than most. Infinite for a normal distribution.

    Raises:
        ValueError: a negative number, or a freedom that leaves no covariance.

    Example:
        >>> errors = PoseErrors(scale=2.0, shift=0.01)
        >>> middle, pose = torch.zeros(3).double(), torch.eye(4).double()
        >>> wide = errors.widen(1e-4 * torch.eye(6).double(), pose, middle, torch.tensor(0.2).double())
        >>> round(wide[3, 3].item(), 6)
        0.000404
    """

    scale: float = 1.0
    turn: float = 0.0
    shift: float = 0.0
    zoom: float = 0.0
    doubt: float = 0.0
    freedom: float = math.inf

    def __post_init__(self) -> None:
        """Check the signs."""
        for name, value in asdict(self).items():
            if not value >= 0:
                raise ValueError(f"{name}: expected a number that is not negative, got {value}")
        if not self.freedom > 2:
            raise ValueError(f"freedom: expected a number above 2, got {self.freedom}")

    def widen(
        self,
        covariance: Float[Tensor, "*batch 6 6"],
        cam_from_obj: Float[Tensor, "*batch 4 4"],
        middle: Float[Tensor, "*batch 3"],
        diameter: Float[Tensor, "*batch"],
        score: Float[Tensor, "*batch"] | float = 1.0,
    ) -> Float[Tensor, "*batch 6 6"]:
        """The covariance of ``(w, v)`` in ``R' = exp(w) R``, ``t' = t + v``, by rad and m.

        Args:
            covariance: ``(*batch, 6, 6)`` as claimed.
            cam_from_obj: ``(*batch, 4, 4)`` the poses, metres.
            middle: ``(*batch, 3)`` of the objects, object frame, metres.
            diameter: ``(*batch,)`` metres.
            score: ``(*batch,)`` of verification, in [0, 1].

        Returns:
            ``(*batch, 6, 6)``.
        """
        arm = (cam_from_obj[..., :3, :3] @ middle[..., None])[..., 0]  # from the origin to the middle
        seen = arm + cam_from_obj[..., :3, 3]
        one = torch.eye(3).to(covariance).expand(*covariance.shape[:-2], 3, 3)
        # a turn about the middle moves the origin: v = v_middle + hat(arm) w
        floor = torch.zeros_like(covariance)
        floor[..., :3, :3] = self.turn**2 * one
        floor[..., 3:, 3:] = (self.shift * diameter).square()[..., None, None] * one + self.zoom**2 * (
            seen[..., :, None] * seen[..., None, :]
        )
        about_origin = torch.eye(6).to(covariance).repeat(*covariance.shape[:-2], 1, 1)
        about_origin[..., 3:, :3] = hat(arm)
        lacking = 1 - torch.as_tensor(score).to(covariance)
        factor = (2 * self.doubt * lacking).exp()[..., None, None]
        return factor * (self.scale**2 * covariance + about_origin @ floor @ about_origin.mT)


class ErrorModel(NamedTuple):
    """How far the poses of one matcher are off.

    Args:
        picture: those from colour alone.
        depth: those that a depth picture has confirmed or moved.
    """

    picture: PoseErrors = PoseErrors()
    depth: PoseErrors = PoseErrors()


def errors_file(weights: str | Path) -> Path:
    """Where the model of errors lies that belongs to a file of weights.

    Example:
        >>> errors_file("vpog-tiny.safetensors").name
        'vpog-tiny.errors.json'
    """
    return Path(weights).with_suffix(".errors.json")


def write_error_model(path: str | Path, model: ErrorModel, notes: dict[str, Any] | None = None) -> None:
    """Write a model of errors as JSON.

    Args:
        path: where to.
        model: what was fitted.
        notes: on what; for people.
    """
    parts = {
        name: {key: null_if_not_finite(value) for key, value in asdict(part).items()}
        for name, part in model._asdict().items()
    }
    write_json(path, {**parts, "fit": notes or {}})


def read_error_model(path: str | Path) -> ErrorModel:
    """Read what :func:`write_error_model` wrote.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no JSON, a number that is missing or negative; with its place.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.errors.json"
        >>> write_error_model(path, ErrorModel(PoseErrors(turn=0.02)))
        >>> read_error_model(path).picture.turn
        0.02
    """
    path = Path(path)
    whole = Fields.of(read_json(path), path, "model of errors")
    parts = []
    for name in ErrorModel._fields:
        entry = Fields.of(whole.require(name), path, name)
        values = {each.name: entry.number(each.name) for each in fields(PoseErrors) if each.name != "freedom"}
        values["freedom"] = entry.number("freedom", math.inf)
        try:
            parts.append(PoseErrors(**values))
        except ValueError as error:
            raise ValueError(f"{path}: {name}: {error}") from error
    return ErrorModel(*parts)
