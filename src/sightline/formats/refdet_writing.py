"""Writing the folder of reference detection, which :mod:`sightline.formats.refdet_folder` reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sightline.formats.atomic import atomic_folder
from sightline.formats.box_labels import write_box_lines
from sightline.formats.images import open_upright, write_image
from sightline.formats.json_files import write_json
from sightline.formats.refdet_folder import FRAME, NOTE, RefDetSample
from sightline.formats.refdet_templates import TemplatePicture, list_templates, write_templates


def write_refdet_folder(
    root: str | Path,
    samples: Iterable[RefDetSample],
    templates: Mapping[str, Sequence[TemplatePicture]],
    *,
    split: str = "train",
    overwrite: bool = False,
) -> None:
    """Write one split and the templates; other splits and templates in the folder stay.

    Args:
        root: where to.
        samples: taken one by one; their names become file names ``<object>_frame_<number>`` unless they
            are of that form already.
        templates: object -> its templates, for ``templates/<object>/``.
        split: whose folder appears whole or not at all.
        overwrite: whether an existing split is replaced.

    Raises:
        FileExistsError: the split exists.
        ValueError: a sample of an object without templates, or a box outside its picture.

    Example:
        >>> import tempfile, numpy as np, torch
        >>> from sightline.formats.refdet_folder import read_refdet_folder
        >>> box, picture = torch.tensor([[9.5, 19.5, 29.5, 59.5]]), np.zeros((80, 40, 3), np.uint8)
        >>> sample = RefDetSample("mug_frame_7", "mug", box.double(), picture, (40, 80))
        >>> root = tempfile.mkdtemp()
        >>> write_refdet_folder(root, [sample], {"mug": [TemplatePicture(picture)]})
        >>> read_refdet_folder(root).samples[0].boxes.tolist()
        [[9.5, 19.5, 29.5, 59.5]]
    """
    root = Path(root)
    known = templates.keys() | list_templates(root / "templates").keys()
    with atomic_folder(root / split, overwrite=overwrite) as folder:
        for place in ("images", "labels"):
            (folder / "search" / place).mkdir(parents=True)
        for index, sample in enumerate(samples):
            if sample.object_id not in known:
                raise ValueError(
                    f"sample {sample.name}: expected templates of {sample.object_id!r}, got none"
                )
            _write_sample(folder / "search", sample, index)
    write_templates(root / "templates", templates)
    write_json(root / NOTE, {"label_format": "xyxy"})


def _write_sample(search: Path, sample: RefDetSample, index: int) -> None:
    own_form = sample.name.startswith(f"{sample.object_id}{FRAME}") and ":" not in sample.name
    stem = sample.name if own_form else f"{sample.object_id}{FRAME}{index:06d}"
    suffix = sample.image.suffix if isinstance(sample.image, Path) else ".png"
    picture = search / "images" / f"{stem}{suffix}"
    if isinstance(sample.image, Path):
        open_upright(sample.image).close()  # whole, before it is copied
        picture.write_bytes(sample.image.read_bytes())
    else:
        write_image(picture, sample.image)
    width, height = sample.image_size
    limit = sample.boxes.new_tensor([width, height]) - 0.5
    if bool((sample.boxes[:, :2] < -0.5).any() or (sample.boxes[:, 2:] > limit).any()):
        raise ValueError(
            f"sample {sample.name}: expected boxes within {width}x{height}, got {sample.boxes.tolist()}"
        )
    write_box_lines(search / "labels" / f"{stem}.txt", sample.boxes)
