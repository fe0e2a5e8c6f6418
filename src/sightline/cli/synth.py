"""``sightline synth``: generated scenes with known truth, as a BOP data set."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def synth(
    output: Path,
    pictures: int = 20,
    objects: int = 6,
    texture: Literal["rich", "low", "mixed"] = "mixed",
    seed: int = 0,
    split: str = "train",
) -> None:
    """Generate objects and cluttered scenes and write them in BOP's layout.

    Args:
        output: the data set's folder.
        pictures: how many scenes.
        objects: how many different objects.
        texture: printed labels, plain colours, or both in turn.
        seed: the same seed gives the same data set.
        split: train, val or test; a test split also gets its list of targets.
    """
    from rich.progress import track

    from sightline.cli.console import make_console
    from sightline.synthetic import OBJECT_KINDS, make_object, make_scene, write_bop_dataset

    if pictures < 1 or objects < 1:
        raise ValueError(f"expected at least one picture and one object, got {pictures} and {objects}")
    textures = {"rich": ("rich",), "low": ("low",), "mixed": ("rich", "low")}[texture]
    console = make_console()
    things = [
        make_object(
            OBJECT_KINDS[i % len(OBJECT_KINDS)],
            seed + i,
            texture="rich" if textures[i % len(textures)] == "rich" else "low",
        )
        for i in range(objects)
    ]
    scenes = (make_scene(things, [seed, i]) for i in range(pictures))
    shown = track(scenes, "scenes", total=pictures, console=console, transient=True)
    numbers = write_bop_dataset(output, things, shown, split=split)
    console.print(f"{output}: {pictures} pictures of {len(numbers)} objects, split {split}", highlight=False)
