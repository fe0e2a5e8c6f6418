"""``sightline onboard``: a mesh, photographs or a flat picture become an object card."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def onboard(
    output: Path,
    mesh: Path | None = None,
    unit: Literal["m", "cm", "mm", "in"] | None = None,
    photos: list[Path] | None = None,
    flat: Path | None = None,
    width: float | None = None,
    name: str | None = None,
    views: Literal[42, 162, 642] = 162,
    template_size: int = 224,
    symmetries: Literal["find", "none"] | Path = "find",
    licence: str = "unstated",
) -> None:
    """Make an object card from a mesh, from posed photographs, from both, or from a flat picture.

    Args:
        output: the card's folder; its last part names the object unless --name does.
        mesh: PLY, OBJ, GLB or STL file.
        unit: of the mesh; inferred, with the reason printed, where the file or its size tells.
        photos: JSON files that give picture, K and pose, or K and pairs of points (metres, or with a unit).
        flat: a frontal picture of a flat object, from edge to edge; needs --width.
        width: real width of the flat object, metres.
        name: of the object.
        views: how many views of a mesh are rendered.
        template_size: side of each rendered view, pixels.
        symmetries: find them in the mesh, take none, or read them from a BOP models_info.json.
        licence: of the object's data, as it shall stand in the card.
    """
    from sightline.cli.console import make_console
    from sightline.objects.card_files import save_card
    from sightline.pipeline.onboarding import make_card

    console = make_console()
    with console.status("onboarding"):
        made = make_card(
            name=name or output.name,
            mesh=mesh,
            unit=unit,
            photos=photos or [],
            flat=flat,
            width=width,
            num_views=views,
            template_size=template_size,
            symmetries=symmetries,
            licence=licence,
        )
        card = save_card(made.card, output)
    for line in made.notes:
        console.print(line, highlight=False)
    extent = " x ".join(f"{1000 * float(s):.0f}" for s in card.bounds[1] - card.bounds[0])
    console.print(
        f"{output}: {len(card.templates)} templates of {card.name}, {extent} mm, "
        f"diameter {1000 * card.diameter:.0f} mm",
        highlight=False,
        soft_wrap=True,
    )
