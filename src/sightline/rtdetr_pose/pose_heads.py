"""What a query says about space: depth, rotation, the origin's place in its box, and how sure it is.

The heads need no more than a query's features, its box, the camera and the class scores, so any detector with
queries can carry them. Each prediction starts where a careful guess would be: the depth at which an object of
the class's size fills the box, the rotation that faces the camera along the ray to the box, the box's centre.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sightline.geometry.boxes import denormalize
from sightline.geometry.rotations import matrix_to_rot6d, rot6d_to_matrix
from sightline.rtdetr_pose.box_detail import BoxDetail
from sightline.rtdetr_pose.priors import depth_prior

MAX_DEPTH_CHANGE = 4.0
"""Largest change of the log depth against the prior."""

MAX_OFFSET = 2.0
"""Largest distance of the origin from the box's centre, in sizes of the box."""

MAX_FOCAL_CHANGE = 0.2
MAX_CENTER_SHIFT = 0.05
"""Of the principal point, in widths of the picture."""

_MAX_LOG_SIGMA = 6.0
_MIN_ANGLE = 1e-3
_NUM_CONDITIONS = 8
_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


class MLP(nn.Sequential):
    """Linear layers with ReLU between; the last one starts at zero, so that the first output is its bias.

    Args:
        in_features: of the input.
        hidden: of the layers between.
        out_features: of the output.
        num_layers: linear layers.
        bias: what it gives at first; zeros if None.

    Example:
        >>> MLP(8, 16, 2, bias=(1.0, 0.0))(torch.rand(3, 8))[0].tolist()
        [1.0, 0.0]
    """

    def __init__(
        self,
        in_features: int,
        hidden: int,
        out_features: int,
        *,
        num_layers: int = 3,
        bias: tuple[float, ...] | None = None,
    ) -> None:
        sizes = [in_features, *[hidden] * (num_layers - 1)]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU()]
        last = nn.Linear(sizes[-1], out_features)
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            last.bias.copy_(torch.zeros(out_features) if bias is None else torch.tensor(bias))
        super().__init__(*layers, last)


def box_centers_px(
    boxes: Float[Tensor, "*batch 4"], image_size: tuple[int, int]
) -> Float[Tensor, "*batch 2"]:
    """Centres of normalised boxes in pixels: ``c * size - 0.5``.

    Args:
        boxes: ``(*batch, 4)`` cxcywh in [0, 1].
        image_size: ``(width, height)``.

    Example:
        >>> box_centers_px(torch.tensor([0.5, 0.5, 0.1, 0.1]), (64, 48))
        tensor([31.5000, 23.5000])
    """
    return denormalize(torch.cat([boxes[..., :2], boxes[..., :2]], -1), image_size)[..., :2]


def ray_rotation(slopes: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 3 3"]:
    """The smallest turn that takes the optical axis to a ray.

    Args:
        slopes: ``(*batch, 2)`` x / z and y / z of the ray.

    Example:
        >>> ray_rotation(torch.tensor([1.0, 0.0])) @ torch.tensor([0.0, 0.0, 1.0])
        tensor([0.7071, 0.0000, 0.7071])
    """
    length = (1 + slopes.square().sum(-1)).sqrt()
    x, y = (slopes / length[..., None]).unbind(-1)
    z = 1 / length
    xx, xy, yy = (part / (1 + z) for part in (x * x, x * y, y * y))
    rows = [1 - xx, -xy, x, -xy, 1 - yy, y, -x, -y, z]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


class PoseHeads(nn.Module):
    """Depth, rotation and origin of each query, from 3-layer MLPs on its features.

    Args:
        hidden_dim: of the query features.
        use_uncertainty: also predict the log standard deviations of the log depth and of the rotation.
        fine_channels: of a map whose layout within the boxes is read too; 0 for none.

    Example:
        >>> heads = PoseHeads(16)
        >>> K = torch.tensor([[[64.0, 0, 31.5], [0, 64, 31.5], [0, 0, 1]]])
        >>> boxes, sizes = torch.full((1, 2, 4), 0.5), torch.ones(3)
        >>> pose = heads(torch.rand(1, 2, 16), boxes, K, torch.rand(1, 2, 3), sizes, (64, 64))
        >>> pose["log_z"].exp().flatten().tolist(), pose["rot6d"][0, 0].tolist()
        ([2.0, 2.0], [1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
    """

    def __init__(
        self, hidden_dim: int = 256, *, use_uncertainty: bool = False, fine_channels: int = 0
    ) -> None:
        super().__init__()
        self.detail = BoxDetail(fine_channels, hidden_dim) if fine_channels else None
        self.condition = nn.Linear(_NUM_CONDITIONS, hidden_dim)
        self.depth = MLP(hidden_dim, hidden_dim, 1)
        self.rotation = MLP(hidden_dim, hidden_dim, 6, bias=_IDENTITY)
        self.offset = MLP(hidden_dim, hidden_dim, 2)
        self.spread = MLP(hidden_dim, hidden_dim, 2) if use_uncertainty else None

    def forward(
        self,
        query_feat: Float[Tensor, "b q c"],
        ref_box: Float[Tensor, "b q 4"],
        K: Float[Tensor, "b 3 3"],
        class_logits: Float[Tensor, "b q classes"],
        object_sizes: Float[Tensor, "classes"],
        image_size: tuple[int, int],
        fine: Float[Tensor, "b _ _ _"] | None = None,
    ) -> dict[str, Tensor]:
        """What the queries say about space.

        Args:
            query_feat: of one decoder layer.
            ref_box: the layer's boxes, cxcywh in [0, 1]; no gradient goes through them.
            K: pixels of the network's input.
            class_logits: the layer's scores; the best class gives the size, without a gradient.
            object_sizes: of each class, metres.
            image_size: ``(width, height)`` of the network's input.
            fine: the map whose layout is read, over the whole picture.

        Returns:
            ``log_z (b, q, 1)`` log metres, ``rot6d (b, q, 6)``, ``offsets (b, q, 2)`` pixels, and with
            uncertainty ``log_sigma_z``, ``log_sigma_rot (b, q, 1)``.
        """
        box, size = ref_box.detach(), object_sizes[class_logits.detach().argmax(-1)]
        slopes = _slopes(box_centers_px(box, image_size), K)
        sides = box[..., 2:] * box.new_tensor(image_size)
        focal = torch.stack([K[:, 0, 0], K[:, 1, 1]], -1)[:, None]
        prior = depth_prior(sides, size[..., None].expand_as(sides), focal)
        features = query_feat + self.condition(_conditions(box, slopes, sides / focal))
        if self.detail is not None and fine is not None:
            features = features + self.detail(fine, box)
        seen = rot6d_to_matrix(self.rotation(features))
        pose = {
            "log_z": prior.log()[..., None] + _bounded(self.depth(features), MAX_DEPTH_CHANGE),
            "rot6d": matrix_to_rot6d(ray_rotation(slopes) @ seen),
            "offsets": _bounded(self.offset(features), MAX_OFFSET) * sides,
        }
        if self.spread is not None:
            spread = _bounded(self.spread(features), _MAX_LOG_SIGMA)
            pose["log_sigma_z"], pose["log_sigma_rot"] = spread.split(1, -1)
        return pose


class IntrinsicsHead(nn.Module):
    """A bounded correction of the camera of each picture, from the mean of its queries; none at first.

    Args:
        hidden_dim: of the query features.

    Example:
        >>> IntrinsicsHead(16)(torch.rand(2, 5, 16), (64, 64)).abs().sum().item()
        0.0
    """

    def __init__(self, hidden_dim: int = 256) -> None:
        super().__init__()
        self.change = MLP(hidden_dim, hidden_dim, 4)

    def forward(
        self, query_feat: Float[Tensor, "b q c"], image_size: tuple[int, int]
    ) -> Float[Tensor, "b 4"]:
        """``(b, 4)`` changes of fx and fy, relative, and of cx and cy, pixels."""
        shift = MAX_CENTER_SHIFT * image_size[0]
        limits = query_feat.new_tensor([MAX_FOCAL_CHANGE, MAX_FOCAL_CHANGE, shift, shift])
        return self.change(query_feat.mean(1)).tanh() * limits


def _bounded(values: Tensor, limit: float) -> Tensor:
    """Nearly the identity around zero, within ``limit`` everywhere."""
    return limit * torch.tanh(values / limit)


def _slopes(px: Tensor, K: Tensor) -> Tensor:
    """Horizontal and vertical slope, x / z and y / z, of the rays through pixels."""
    y = (px[..., 1] - K[:, None, 1, 2]) / K[:, None, 1, 1]
    x = (px[..., 0] - K[:, None, 0, 2] - K[:, None, 0, 1] * y) / K[:, None, 0, 0]
    return torch.stack([x, y], -1)


def _conditions(box: Tensor, slopes: Tensor, angles: Tensor) -> Tensor:
    """The box in the picture and in the camera's angles: eight numbers of about one."""
    return torch.cat([box * 2 - 1, slopes, angles.clamp_min(_MIN_ANGLE).log() / 4], -1)
