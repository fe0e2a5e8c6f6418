"""The picture of an object that is too large or too small: its outline, and the one it should have."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, UInt8

from sightline.depth_scale.folder import ScaleSample
from sightline.depth_scale.scale_check import ScaleRow
from sightline.formats.images import read_image
from sightline.vis.depth_pictures import draw_depth
from sightline.vis.overlays import draw_contour, draw_notes
from sightline.vis.palette import palette_color


def draw_size(sample: ScaleSample, row: ScaleRow) -> UInt8[np.ndarray, "_h _w 3"]:
    """Draw an object's outline and that of the size to be expected, which stands on the same spot.

    Args:
        sample: the object in its picture; without a picture its depth is drawn.
        row: the verdict on it.

    Returns:
        The picture, the mask's outline orange and the expected one blue.

    Raises:
        ValueError: the picture is damaged.
    """
    import cv2

    size = sample.camera.image_size
    if sample.entry.image is not None:
        image = read_image(sample.entry.image)
    else:
        image = cv2.resize(draw_depth(sample.depth), size, interpolation=cv2.INTER_NEAREST)
    mask = cv2.resize(sample.mask.numpy(force=True), size, interpolation=cv2.INTER_LINEAR) >= 0.5
    outlines, colors = [mask], [palette_color("vermillion")]
    if row.ratio is not None:
        outlines.insert(0, scale_on_contact(mask, 1 / row.ratio))
        colors.insert(0, palette_color("sky blue"))
    drawn = draw_contour(image, np.stack(outlines), color=colors)
    return draw_notes(drawn, [row.mask, row.words, "orange: as it is; blue: as expected"])


def scale_on_contact(mask: Bool[np.ndarray, "h w"], factor: float) -> Bool[np.ndarray, "h w"]:
    """Enlarge or shrink a mask about the middle of its lowest row, where an object stands.

    Args:
        mask: bool.
        factor: more than 1 enlarges.

    Returns:
        The mask, of the same size; what leaves the picture is lost.

    Example:
        >>> mask = np.zeros((8, 9), dtype=bool)
        >>> mask[2:8, 2:7] = True
        >>> scale_on_contact(mask, 0.5).sum(axis=0).tolist()
        [0, 0, 0, 3, 3, 3, 0, 0, 0]
    """
    import cv2

    if not mask.any():
        return mask.copy()
    bottom = int(np.flatnonzero(mask.any(axis=1))[-1])
    x = float(np.flatnonzero(mask[bottom]).mean())
    y = bottom + 0.5  # the lower edge of the lowest row
    affine = np.array([[factor, 0, (1 - factor) * x], [0, factor, (1 - factor) * y]])
    height, width = mask.shape
    warped = cv2.warpAffine(mask.astype(np.float32), affine, (width, height), flags=cv2.INTER_LINEAR)
    return np.asarray(warped) >= 0.5
