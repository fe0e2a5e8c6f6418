"""Estimates beside truths, picture by picture and object by object: what BOP's scores are computed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sightline.geometry.cameras import Camera
from sightline.geometry.symmetry import SymmetryGroup
from sightline.metrics.pose import add, adds, mspd, mssd
from sightline.records import PoseEstimate, TriangleMesh

REFERENCE_WIDTH = 640
"""BOP states projection errors for pictures this wide, pixels."""

_ALL = slice(None)


@dataclass(frozen=True, eq=False)
class ObjectShape:
    """What the pose errors have to know of an object.

    Args:
        points: ``(n, 3)`` float64 points of its surface (BOP: all vertices), metres, object frame.
        diameter: metres.
        symmetries: ``(s, 4, 4)`` float64 ``obj_from_obj``, the identity among them; None for none.

    Raises:
        ValueError: no points, or a diameter that is not positive.

    Example:
        >>> ObjectShape(torch.eye(3, dtype=torch.float64), 1.4142).is_symmetric
        False
    """

    points: Float[Tensor, "n 3"]
    diameter: float
    symmetries: Float[Tensor, "s 4 4"] | None = None

    def __post_init__(self) -> None:
        """Check that errors can be divided by the diameter."""
        if len(self.points) == 0:
            raise ValueError("points: expected at least one, got none")
        if not self.diameter > 0:
            raise ValueError(f"diameter: expected a positive length in metres, got {self.diameter}")

    @classmethod
    def from_mesh(cls, mesh: TriangleMesh, symmetry: SymmetryGroup | None = None) -> ObjectShape:
        """The shape of a mesh: all its vertices, and its symmetries sampled as BOP samples them."""
        return cls(mesh.vertices, mesh.diameter, None if symmetry is None else symmetry.transforms())

    @property
    def is_symmetric(self) -> bool:
        """Whether there is a symmetry beside the identity."""
        return self.symmetries is not None and len(self.symmetries) > 1


@dataclass(frozen=True, eq=False)
class PicturePoses:
    """The true and the estimated poses of one picture.

    Args:
        K: ``(3, 3)`` float64 intrinsics, pixels.
        width: of the picture, pixels.
        true_names: the g objects in the picture, one an instance.
        true_cam_from_obj: ``(g, 4, 4)`` float64.
        visibility: ``(g,)`` float64 visible share of each instance's surface.
        names: the e objects that were estimated.
        cam_from_obj: ``(e, 4, 4)`` float64.
        scores: ``(e,)`` float64, higher is surer.
        vsd: ``(e, g, t)`` float64 VSD of each pair of the same object for t tolerances (others are not read);
            None where nothing was rendered.
        targets: how many instances of which object to find, BOP's ``inst_count``; None: as many as are
            visible.

    Raises:
        ValueError: unequal lengths.

    Example:
        >>> camera = Camera.from_focal(600.0, 640, 480)
        >>> pose = PoseEstimate(torch.eye(3), torch.tensor([0.0, 0.0, 1.0]), 0.9, valid=True, name="mug")
        >>> lost = PoseEstimate.failure("no correspondences", name="mug")
        >>> picture = PicturePoses.from_records(camera, [pose], [pose, lost])
        >>> picture.names, picture.visibility
        (('mug',), tensor([1.], dtype=torch.float64))
    """

    K: Float[Tensor, "3 3"]
    width: int
    true_names: tuple[str, ...]
    true_cam_from_obj: Float[Tensor, "_ 4 4"]
    visibility: Float[Tensor, "_"]
    names: tuple[str, ...]
    cam_from_obj: Float[Tensor, "_ 4 4"]
    scores: Float[Tensor, "_"]
    vsd: Float[Tensor, "_ _ t"] | None = None
    targets: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        """Check that everything has as many rows as there are names."""
        truths, estimates = len(self.true_names), len(self.names)
        for name, rows, wanted in (
            ("true_cam_from_obj", len(self.true_cam_from_obj), truths),
            ("visibility", len(self.visibility), truths),
            ("cam_from_obj", len(self.cam_from_obj), estimates),
            ("scores", len(self.scores), estimates),
        ):
            if rows != wanted:
                raise ValueError(f"{name}: expected {wanted} rows, one a name, got {rows}")
        if self.vsd is not None and self.vsd.shape[:2] != (estimates, truths):
            raise ValueError(f"vsd: expected ({estimates}, {truths}, t), got {tuple(self.vsd.shape)}")

    @classmethod
    def from_records(
        cls,
        camera: Camera,
        truths: Sequence[PoseEstimate],
        estimates: Sequence[PoseEstimate],
        *,
        visibility: Float[Tensor, "_"] | None = None,
        vsd: Float[Tensor, "_ _ t"] | None = None,
        targets: Mapping[str, int] | None = None,
    ) -> PicturePoses:
        """Gather records; an estimate that is not valid is none, and its row of ``vsd`` is not read."""
        kept = [index for index, estimate in enumerate(estimates) if estimate.valid]
        return cls(
            K=camera.K,
            width=camera.width,
            true_names=tuple(truth.name for truth in truths),
            true_cam_from_obj=_stack_poses(truths),
            visibility=torch.ones(len(truths), dtype=torch.float64) if visibility is None else visibility,
            names=tuple(estimates[index].name for index in kept),
            cam_from_obj=_stack_poses([estimates[index] for index in kept]),
            scores=torch.tensor([estimates[index].score for index in kept], dtype=torch.float64),
            vsd=None if vsd is None else vsd[kept],
            targets=targets,
        )

    def same_object_pairs(self) -> Int[Tensor, "p 2"]:
        """The pairs (estimate, truth) of one object: those whose VSD matters."""
        pairs = [
            (e, g)
            for e, name in enumerate(self.names)
            for g, true_name in enumerate(self.true_names)
            if name == true_name
        ]
        return torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)


@dataclass(frozen=True, eq=False)
class PairErrors:
    """The errors of all estimates of one object in one picture against all its instances there.

    The estimates stand in the order of falling score.

    Args:
        picture: the picture's index.
        name: the object's name.
        rank: ``(e,)`` int64 place of each estimate among all of the picture, of whatever object; 0 the
            surest.
        scores: ``(e,)`` float64.
        visibility: ``(g,)`` float64.
        target_count: how many instances were to be found; None: as many as are visible.
        diameter: of the object, metres.
        add: ``(e, g)`` ADD, or ADD-S of a symmetric object, metres.
        mssd: ``(e, g)`` metres.
        mspd: ``(e, g)`` pixels of a picture 640 wide.
        vsd: ``(t, e, g)`` or None.
    """

    picture: int
    name: str
    rank: Int[Tensor, " e"]
    scores: Float[Tensor, " e"]
    visibility: Float[Tensor, " g"]
    target_count: int | None
    diameter: float
    add: Float[Tensor, "e g"]
    mssd: Float[Tensor, "e g"]
    mspd: Float[Tensor, "e g"]
    vsd: Float[Tensor, "t e g"] | None

    def select(self, estimates: Tensor | slice = _ALL, truths: Tensor | slice = _ALL) -> PairErrors:
        """The errors of some estimates against some instances, given as masks, indices or slices."""
        return replace(
            self,
            rank=self.rank[estimates],
            scores=self.scores[estimates],
            visibility=self.visibility[truths],
            add=self.add[estimates][:, truths],
            mssd=self.mssd[estimates][:, truths],
            mspd=self.mspd[estimates][:, truths],
            vsd=None if self.vsd is None else self.vsd[:, estimates][:, :, truths],
        )

    def localization_targets(self, min_visibility: float) -> PairErrors:
        """What counts when the number k of instances is known: the k most visible and the k surest estimates.

        Args:
            min_visibility: where no ``target_count`` is given, k is the number of instances at least this
                visible.
        """
        count = self.target_count
        if count is None:
            count = int((self.visibility >= min_visibility).sum())
        most_visible = self.visibility.argsort(descending=True, stable=True)[:count].sort().values
        return self.select(slice(count), most_visible)


def pair_errors(pictures: Sequence[PicturePoses], objects: Mapping[str, ObjectShape]) -> list[PairErrors]:
    """Compare each estimate with each instance of the same object in its picture.

    Args:
        pictures: the poses, picture by picture.
        objects: the shape of every object that is named in a picture.

    Returns:
        One entry for each picture and object that is there, was to be found, or was estimated.

    Raises:
        ValueError: an object without a shape.

    Example:
        >>> camera = Camera.from_focal(600.0, 640, 480)
        >>> pose = PoseEstimate(torch.eye(3).double(), torch.eye(3).double()[2], 0.9, valid=True, name="mug")
        >>> shapes = {"mug": ObjectShape(0.1 * torch.eye(3, dtype=torch.float64), 0.1414)}
        >>> [errors] = pair_errors([PicturePoses.from_records(camera, [pose], [pose])], shapes)
        >>> errors.mssd
        tensor([[0.]], dtype=torch.float64)
    """
    groups = [
        _Group(index, name, picture) for index, picture in enumerate(pictures) for name in _named(picture)
    ]
    unknown = sorted({group.name for group in groups} - set(objects))
    if unknown:
        raise ValueError(f"objects: expected a shape for each object, got none for {', '.join(unknown)}")
    errors: dict[int, PairErrors] = {}
    for name, shape in objects.items():
        indices = [index for index, group in enumerate(groups) if group.name == name]
        measured = _measure([groups[index] for index in indices], shape)
        errors.update(zip(indices, measured, strict=True))
    return [errors[index] for index in range(len(groups))]


class _Group:
    """One object in one picture: the rows of its estimates, by falling score, and of its instances."""

    def __init__(self, index: int, name: str, picture: PicturePoses) -> None:
        self.index, self.name, self.picture = index, name, picture
        order = picture.scores.argsort(descending=True, stable=True).tolist()
        self.rank = [rank for rank, row in enumerate(order) if picture.names[row] == name]
        self.estimates = [order[rank] for rank in self.rank]
        self.truths = [row for row, true_name in enumerate(picture.true_names) if true_name == name]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.estimates), len(self.truths)


def _measure(groups: list[_Group], shape: ObjectShape) -> list[PairErrors]:
    """All pairs of one object in all pictures at once."""
    pairs = [(group, e, g) for group in groups for e in group.estimates for g in group.truths]
    estimate = _gather([group.picture.cam_from_obj[e] for group, e, _ in pairs], 4)
    truth = _gather([group.picture.true_cam_from_obj[g] for group, _, g in pairs], 4)
    K = _gather([group.picture.K for group, _, _ in pairs], 3)
    to_reference = torch.tensor([REFERENCE_WIDTH / group.picture.width for group, _, _ in pairs]).double()
    distance = adds if shape.is_symmetric else add
    columns = [
        distance(estimate, truth, shape.points),
        mssd(estimate, truth, shape.points, shape.symmetries),
        mspd(estimate, truth, shape.points, K, shape.symmetries) * to_reference,
    ]
    sizes = [e * g for e, g in (group.shape for group in groups)]
    parts = torch.stack(columns).split(sizes, dim=1)
    return [
        _assemble(group, shape, part.reshape(3, *group.shape))
        for group, part in zip(groups, parts, strict=True)
    ]


def _assemble(group: _Group, shape: ObjectShape, errors: Float[Tensor, "3 e g"]) -> PairErrors:
    picture = group.picture
    vsd = picture.vsd
    return PairErrors(
        picture=group.index,
        name=group.name,
        rank=torch.tensor(group.rank, dtype=torch.long),
        scores=picture.scores[group.estimates],
        visibility=picture.visibility[group.truths],
        target_count=None if picture.targets is None else picture.targets.get(group.name, 0),
        diameter=shape.diameter,
        add=errors[0],
        mssd=errors[1],
        mspd=errors[2],
        vsd=None if vsd is None else vsd[group.estimates][:, group.truths].permute(2, 0, 1),
    )


def _named(picture: PicturePoses) -> list[str]:
    return sorted({*picture.true_names, *picture.names, *(picture.targets or ())})


def _stack_poses(poses: Sequence[PoseEstimate]) -> Float[Tensor, "n 4 4"]:
    return _gather([pose.cam_from_obj for pose in poses], 4)


def _gather(matrices: list[Tensor], size: int) -> Tensor:
    return torch.stack(matrices) if matrices else torch.zeros(0, size, size, dtype=torch.float64)
