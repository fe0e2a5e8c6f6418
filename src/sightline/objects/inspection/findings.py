"""What comparing inputs showed."""

from __future__ import annotations

from dataclasses import dataclass

from sightline.objects.checks import Fault
from sightline.objects.inspection.inputs import Inputs


@dataclass(frozen=True, eq=False)
class Findings:
    """What is wrong with inputs that belong together, and what was compared to say so.

    Args:
        faults: what is wrong; none for sound inputs.
        notes: what is unusual but borne out by the rest.
        comparisons: what was compared, with the figures, so that silence says something.
        repaired: the inputs with all faults undone that could be.

    Example:
        >>> Findings((), (), ("mask IoU 0.97",), Inputs()).is_sound
        True
    """

    faults: tuple[Fault, ...]
    notes: tuple[str, ...]
    comparisons: tuple[str, ...]
    repaired: Inputs

    @property
    def is_sound(self) -> bool:
        """Whether nothing wrong was found."""
        return not self.faults
