"""What matched queries say of an object's pose, beside the truth of that object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.geometry.boxes import denormalize
from sightline.geometry.cameras import project
from sightline.geometry.poses import make_pose
from sightline.geometry.rotations import rot6d_to_matrix
from sightline.geometry.symmetry import SymmetryBatch, symmetric_align
from sightline.geometry.translation import correct_intrinsics, recover_translation
from sightline.rtdetr_pose.matching import Pairs
from sightline.rtdetr_pose.true_objects import TrueObjects

POSE_OUTPUTS = ("log_z", "rot6d", "offsets", "log_sigma_z", "log_sigma_rot")
_MAX_LOG_Z = 7.0  # a kilometre; beyond, and below a millimetre, there is no translation


@dataclass(frozen=True)
class PosePairs:
    """Predictions and truth of each pair, ``*batch`` being layers and pairs; NaN for a truth not known.

    Args:
        outputs: by name, ``(*batch, d)``.
        boxes: ``(*batch, 4)`` predicted, cxcywh in shares of the picture.
        K: ``(*batch, 3, 3)`` corrected by the network, pixels; 0 where not known.
        image_size: ``(*batch, 2)`` width and height, pixels; 0 where not known.
        z: ``(*batch)`` true depth, metres.
        R: ``(*batch, 3, 3)`` true rotation.
        t: ``(*batch, 3)`` true translation, metres.
        offsets: ``(*batch, 2)`` true offsets, pixels.
        true_boxes: ``(*batch, 4)``.
        plane: ``(*batch, 4)`` of the picture.
        upright_range: ``(*batch, 2, 2)`` of the picture.
        groups: ``(*batch)`` symmetries of the object.
        object_size: ``(*batch, 2)`` width and height of the object, metres.
    """

    outputs: Mapping[str, Float[Tensor, "*batch _"]]
    boxes: Float[Tensor, "*batch 4"]
    K: Float[Tensor, "*batch 3 3"]
    image_size: Float[Tensor, "*batch 2"]
    z: Float[Tensor, "*batch"]
    R: Float[Tensor, "*batch 3 3"]
    t: Float[Tensor, "*batch 3"]
    offsets: Float[Tensor, "*batch 2"]
    true_boxes: Float[Tensor, "*batch 4"]
    plane: Float[Tensor, "*batch 4"]
    upright_range: Float[Tensor, "*batch 2 2"]
    groups: SymmetryBatch
    object_size: Float[Tensor, "*batch 2"]

    @property
    def has_camera(self) -> Bool[Tensor, "*batch"]:
        """Whether the picture's intrinsics are known."""
        return (self.K.diagonal(dim1=-2, dim2=-1) > 0).all(-1)

    def predicted_R(self) -> Float[Tensor, "*batch 3 3"]:
        """Rotations, NaN with zero gradient where the code is not finite."""
        return rot6d_to_matrix(self.outputs["rot6d"])

    def predicted_t(self) -> Float[Tensor, "*batch 3"]:
        """Translations, see :func:`translations`."""
        offsets, log_z = self.outputs["offsets"], self.outputs["log_z"][..., 0]
        return translations(self.boxes, offsets, log_z, self.K, self.image_size)


def pair_poses(
    outputs: Mapping[str, Float[Tensor, "layers b q _"]],
    camera: tuple[Float[Tensor, "b 3 3"], Float[Tensor, "b 2"]],
    pairs: Pairs,
    objects: TrueObjects,
    groups: SymmetryBatch,
    object_sizes: Float[Tensor, "n 2"],
) -> PosePairs:
    """Gather what belongs together.

    Args:
        outputs: ``bbox`` and :data:`POSE_OUTPUTS` of all layers, as far as they are there.
        camera: what :func:`corrected_camera` returned.
        pairs: which query answers for which object.
        objects: what the pictures show.
        groups: one an object.
        object_sizes: ``(n, 2)`` metres, NaN where not known.
    """
    K, image_size = (_of_picture(values, pairs) for values in camera)
    return PosePairs(
        {name: pairs.of(outputs[name]) for name in POSE_OUTPUTS if name in outputs},
        pairs.of(outputs["bbox"]),
        K,
        image_size,
        objects.z[pairs.target],
        objects.R[pairs.target],
        objects.t[pairs.target],
        objects.offsets[pairs.target],
        objects.boxes[pairs.target],
        _of_picture(objects.plane, pairs),
        _of_picture(objects.upright_range, pairs),
        groups[pairs.target],
        object_sizes[pairs.target],
    )


def nearest_truth(pairs: PosePairs) -> PosePairs:
    """The truths that look the same as the given ones and are nearest to what is predicted.

    Needed where a symmetry moves the object's origin: a turn of a prism about an axis beside the origin
    gives another translation, depth and offset, and any of them is as true.
    """
    R, t = pairs.predicted_R().detach(), pairs.t
    known = pairs.has_camera & (t[..., 2] > 0) & (pairs.R + R).isfinite().flatten(-2).all(-1)
    keep, identity = known[..., None], torch.eye(3).to(R)
    R, R_gt = (torch.where(keep[..., None], each, identity) for each in (R, pairs.R))
    truth = make_pose(R_gt, torch.where(keep, t, identity[2]))
    nearest = symmetric_align(truth, make_pose(R, torch.zeros_like(t)), pairs.groups)[..., :3, 3]
    K = torch.where(keep[..., None], pairs.K.detach(), identity)
    shift = project(nearest[..., None, :], K)[..., 0, :] - project(truth[..., None, :3, 3], K)[..., 0, :]
    return replace(
        pairs,
        t=torch.where(keep, nearest, t),
        z=torch.where(known, nearest[..., 2], pairs.z),
        offsets=torch.where(keep, pairs.offsets + shift, pairs.offsets),
    )


def corrected_camera(
    objects: TrueObjects, k_delta: Float[Tensor, "b 4"] | None
) -> tuple[Float[Tensor, "b 3 3"], Float[Tensor, "b 2"]]:
    """The intrinsics corrected by the network, and the pictures' sizes.

    What is not known is 0: no translation can be recovered from it, and, unlike NaN, it turns a gradient of
    zero into nothing else.
    """
    sized = (objects.image_size > 0).all(1, keepdim=True)
    known = sized & objects.K.isfinite().flatten(1).all(1, keepdim=True)
    image_size, K = torch.where(sized, objects.image_size, 0.0), torch.where(known[..., None], objects.K, 0.0)
    if k_delta is not None:
        K = correct_intrinsics(K, torch.where(known & k_delta.isfinite(), k_delta, 0.0))
    return K, image_size


def translations(
    boxes: Float[Tensor, "*batch 4"],
    offsets: Float[Tensor, "*batch 2"],
    log_z: Float[Tensor, "*batch"],
    K: Float[Tensor, "*batch 3 3"],
    image_size: Float[Tensor, "*batch 2"],
) -> Float[Tensor, "*batch 3"]:
    """The translation of objects from box, offset and depth, with gradients to all of them.

    Args:
        boxes: ``(*batch, 4)`` cxcywh, shares of the picture.
        offsets: ``(*batch, 2)`` the origin's projection minus the box's centre, pixels.
        log_z: ``(*batch)`` log metres.
        K: ``(*batch, 3, 3)`` pixels.
        image_size: ``(*batch, 2)`` width and height, pixels.

    Returns:
        ``(*batch, 3)`` metres; NaN with zero gradient where something is not finite, or the depth is not
        between a millimetre and a kilometre.

    Example:
        >>> K = torch.tensor([[630.0, 0, 324], [0, 490, 237], [0, 0, 1]])
        >>> box = torch.tensor([256.5 / 640, 288.5 / 480, 0.1, 0.1])
        >>> offsets, size = torch.tensor([3.5, -2.5]), torch.tensor([640.0, 480.0])
        >>> translations(box, offsets, torch.tensor(1.25).log(), K, size)
        tensor([-0.1280,  0.1237,  1.2500])
    """
    in_range = log_z.abs() < _MAX_LOG_Z
    depth = torch.where(in_range, torch.where(in_range, log_z, 0.0).exp(), torch.nan)
    center = denormalize(boxes[..., [0, 1, 0, 1]], image_size)[..., :2]
    return recover_translation(center, offsets, depth, K).t


def _of_picture(values: Float[Tensor, "b *d"], pairs: Pairs) -> Float[Tensor, "layers p *d"]:
    chosen = values[pairs.picture]
    return chosen.expand(len(pairs.query), *chosen.shape)
