"""``sightline doctor``: what is inconsistent in mesh, card, camera, image, depth, mask, box and pose."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def doctor(
    mesh: Path | None = None,
    unit: Literal["m", "cm", "mm", "in"] | None = None,
    card: Path | None = None,
    camera: Path | None = None,
    image: Path | None = None,
    depth: Path | None = None,
    depth_unit_mm: float | None = None,
    depth_missing: Literal["zero", "nan", "none"] = "zero",
    mask: Path | None = None,
    box: list[float] | None = None,
    pose: Path | None = None,
    index: int | None = None,
    object: str | None = None,
    picture: Path | None = None,
    json: Path | None = None,
) -> int:
    """Say what is inconsistent in any subset of an object's mesh, camera, picture, depth, mask, box and pose.

    Exits with status 1 where a fault is found, 0 where there is none, 2 where an input cannot be read.

    Args:
        mesh: PLY, OBJ, GLB or STL file.
        unit: of the mesh; inferred, with the reason printed, where the file or its size tells.
        card: object card, as onboard writes it.
        camera: JSON file with K (pixels), right or wrong; also BOP's.
        image: the picture.
        depth: depth picture of 16 bits, or a .npy file in metres.
        depth_unit_mm: millimetres in one step of the depth picture; else as the camera file says, or 1.
        depth_missing: which value of the depth picture means that nothing was measured.
        mask: picture that is not black where the object is.
        box: x0 y0 x1 y1, pixels.
        pose: of the object before the camera: JSON with cam_from_obj, R and t or quaternion_wxyz and t,
            BOP's scene_gt.json, poses.json, or a text file with 4x4 numbers.
        index: which picture of a pose file with several.
        object: which object of a pose file with several.
        picture: where to draw the object's outline, as given in red and repaired in green.
        json: where to write all that was found.
    """
    from sightline.cli.console import make_console
    from sightline.formats.json_files import write_json
    from sightline.pipeline.doctor import diagnose, draw_diagnosis
    from sightline.vis.tables import Table

    found = diagnose(
        mesh=mesh,
        unit=unit,
        card=card,
        camera=camera,
        image=image,
        depth=depth,
        depth_unit_mm=depth_unit_mm,
        depth_missing=depth_missing,
        mask=mask,
        box=box,
        pose=pose,
        index=index,
        object_name=object,
    )
    console = make_console()
    console.print(Table(("input", "understood as"), found.understood, (False, False)).rich(), markup=False)
    for note in found.notes:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    for line in found.comparisons:
        console.print(f"compared: {line}", highlight=False, markup=False, soft_wrap=True)
    if not found.comparisons:
        console.print("compared: nothing; these inputs only allow checks of each by itself", highlight=False)
    for fault in found.faults:
        text = f"fault: {fault}"
        console.print(text, highlight=False, markup=False, style="bold red", soft_wrap=True)
    if found.is_sound:
        console.print("nothing inconsistent found", highlight=False)
    if picture is not None:
        draw_diagnosis(found, picture)
    if json is not None:
        write_json(json, found.to_json())
    return 0 if found.is_sound else 1
