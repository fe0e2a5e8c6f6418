"""Photographs baked onto a mesh: one texture cell a triangle, filled from the photo that sees it best."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from sightline.geometry.cameras import Camera
from sightline.geometry.poses import transform
from sightline.records import TriangleMesh
from sightline.rendering import render_views

_PADDING = 2  # texels around a triangle, so that bilinear look-ups stay inside its cell
_LARGEST_CELL = 1024
_LARGEST_ATLAS = 8192
# where on a triangle it is asked whether a photo sees it: the middle, near the corners, near the edges
_PROBES = torch.tensor(
    [[1, 1, 1], [8, 1, 1], [1, 8, 1], [1, 1, 8], [4, 4, 1], [1, 4, 4], [4, 1, 4]], dtype=torch.float64
)
_PROBES = _PROBES / _PROBES.sum(1, keepdim=True)


@dataclass(frozen=True, eq=False)
class PosedPhoto:
    """A photograph whose camera and object pose are known.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        camera: its camera.
        cam_from_obj: ``(4, 4)`` float64, metres.
        mask: ``(h, w)`` bool, the object's visible pixels where something else covers it; None: all of it.

    Raises:
        ValueError: an image whose size is not the camera's.
    """

    image: UInt8[Tensor, "h w 3"]
    camera: Camera
    cam_from_obj: Float[Tensor, "4 4"]
    mask: Bool[Tensor, "h w"] | None = None

    def __post_init__(self) -> None:
        """Check the size."""
        height, width = self.image.shape[:2]
        if (width, height) != self.camera.image_size:
            raise ValueError(
                f"photo: the image is {width}x{height}, its camera {self.camera.width}x{self.camera.height}"
            )


def bake_photos(mesh: TriangleMesh, photos: list[PosedPhoto]) -> tuple[TriangleMesh, float]:
    """Give a mesh the texture that photographs show.

    Each triangle gets a texture cell as fine as the photo that sees it best; each texel takes the mean of the
    photos that see it, weighted by the square of the cosine of the viewing angle. Texels that no photo sees
    get the mean colour, which gives no features and no edges inside.

    Args:
        mesh: the object's surface, metres; its own colours are replaced.
        photos: at least one.

    Returns:
        The textured mesh, and the share of its surface that a photo saw.

    Raises:
        ValueError: no photo, or none that sees the mesh.
    """
    if not photos:
        raise ValueError("baking: expected at least one posed photograph, got none")
    sides = _cell_sides(mesh, photos)
    corners, width, height = _pack(sides)
    colour = torch.zeros(height, width, 3)
    weight = torch.zeros(height, width)
    texels, face, bary = _texels_of_cells(sides, corners)
    points = (mesh.vertices.double()[mesh.faces[face]] * bary[..., None]).sum(1)
    normals = _face_normals(mesh)[face]
    for photo in photos:
        seen, value = _look_up(mesh, photo, points, normals)
        colour[texels[:, 1], texels[:, 0]] += value * seen[:, None]
        weight[texels[:, 1], texels[:, 0]] += seen
    covered = weight > 0
    if not bool(covered.any()):
        raise ValueError("baking: no photograph sees the mesh at its pose")
    colour[covered] /= weight[covered][:, None]
    colour[~covered] = colour[covered].mean(0)
    texture = colour.mul(255).round().clamp(0, 255).to(torch.uint8)
    uv = _corner_uv(sides, corners, width, height)
    share = _covered_area(mesh, face, covered[texels[:, 1], texels[:, 0]])
    return TriangleMesh(mesh.vertices, mesh.faces, uv=uv, texture=texture), share


def _cell_sides(mesh: TriangleMesh, photos: list[PosedPhoto]) -> Int[Tensor, " f"]:
    """The side in texels of each triangle's right-angled cell: its longest edge in the best photo."""
    longest = torch.full((len(mesh.faces),), 1.0, dtype=torch.float64)
    corners = mesh.vertices.double()[mesh.faces]
    normals = _face_normals(mesh).repeat_interleave(len(_PROBES), dim=0)
    probes = (_PROBES[None, :, :, None] * corners[:, None]).sum(2).reshape(-1, 3)
    for photo in photos:
        pixels = photo.camera.project(transform(photo.cam_from_obj, mesh.vertices.double()))[mesh.faces]
        edges = (pixels - pixels.roll(1, dims=1)).norm(dim=-1).amax(1)
        seen = (_look_up(mesh, photo, probes, normals)[0] > 0).reshape(-1, len(_PROBES)).any(1)
        edges = torch.where(seen & edges.isfinite(), edges, 1.0)
        longest = torch.maximum(longest, edges)
    return longest.ceil().clamp(2, _LARGEST_CELL).long()


def _pack(sides: Int[Tensor, " f"]) -> tuple[Int[Tensor, "f 2"], int, int]:
    """Shelf packing of square cells, largest first; returns each cell's top-left texel and the atlas size."""
    cells = sides + 1 + 2 * _PADDING
    width = max(int(cells.max()), math.ceil(math.sqrt(float((cells.double() ** 2).sum()) * 1.1)))
    corners = torch.zeros(len(cells), 2, dtype=torch.long)
    x = y = shelf = 0
    for index in cells.argsort(descending=True).tolist():
        cell = int(cells[index])
        if x + cell > width:
            x, y, shelf = 0, y + shelf, 0
        corners[index, 0], corners[index, 1] = x, y
        x, shelf = x + cell, max(shelf, cell)
    height = y + shelf
    if max(width, height) > _LARGEST_ATLAS:
        raise ValueError(
            f"baking: the texture would have {width}x{height} texels; use a coarser mesh or smaller photos"
        )
    return corners, width, height


def _texels_of_cells(
    sides: Int[Tensor, " f"], corners: Int[Tensor, "f 2"]
) -> tuple[Int[Tensor, "p 2"], Int[Tensor, " p"], Float[Tensor, "p 3"]]:
    """Every texel of every cell with its face and (unclamped outside by the padding) barycentric weights."""
    places, faces, weights = [], [], []
    for side in sides.unique().tolist():
        members = (sides == side).nonzero()[:, 0]
        span = torch.arange(-_PADDING, side + 1 + _PADDING)
        grid = torch.stack(torch.meshgrid(span, span, indexing="xy"), dim=-1).reshape(-1, 2)
        inside = grid.sum(1) <= side + 2 * _PADDING
        grid = grid[inside]
        b, c = (grid.double() / side).unbind(1)
        bary = torch.stack([1 - b - c, b, c], dim=1)
        origin = corners[members] + _PADDING
        places.append((origin[:, None] + grid).reshape(-1, 2))
        faces.append(members[:, None].expand(-1, len(grid)).reshape(-1))
        weights.append(bary.expand(len(members), -1, -1).reshape(-1, 3))
    return torch.cat(places), torch.cat(faces), torch.cat(weights)


def _corner_uv(
    sides: Int[Tensor, " f"], corners: Int[Tensor, "f 2"], width: int, height: int
) -> Float[Tensor, "f 3 2"]:
    origin = (corners + _PADDING).double()
    step = sides.double()[:, None]
    right = torch.tensor([1.0, 0.0]) * step
    down = torch.tensor([0.0, 1.0]) * step
    texel = torch.stack([origin, origin + right, origin + down], dim=1)
    # a texel's centre lies half a texel inside its cell of the unit square
    return ((texel + 0.5) / torch.tensor([width, height])).float()


def _look_up(
    mesh: TriangleMesh, photo: PosedPhoto, points: Float[Tensor, "p 3"], normals: Float[Tensor, "p 3"]
) -> tuple[Float[Tensor, " p"], Float[Tensor, "p 3"]]:
    """The weight (0: hidden, outside or facing away) and colour with which a photo sees each point."""
    camera = photo.camera
    points_cam = transform(photo.cam_from_obj, points)
    pixels = camera.project(points_cam)
    size = torch.tensor([camera.width, camera.height], dtype=torch.float64)
    grid = ((pixels + 0.5) / size * 2 - 1).nan_to_num(nan=-9.0)
    visible = _depth_agrees(mesh, photo, points_cam)
    if photo.mask is not None:
        visible &= _sample(photo.mask.float()[None], grid)[:, 0] > 0.5
    inside = ((pixels > 1) & (pixels < size - 2)).all(1)
    cosine = _cosine(mesh, photo, points, normals)
    weight = torch.where(visible & inside & (cosine > 0.05), cosine**2, 0.0)
    value = _sample(photo.image.permute(2, 0, 1).float() / 255, grid)
    return weight.float(), value


def _depth_agrees(
    mesh: TriangleMesh, photo: PosedPhoto, points_cam: Float[Tensor, "p 3"]
) -> Bool[Tensor, " p"]:
    """Whether nothing of the mesh itself lies in front (tested in the undistorted picture)."""
    camera = photo.camera
    rendered = render_views(
        mesh, photo.cam_from_obj[None], camera.K, camera.image_size, outputs=("depth",)
    ).depth
    straight = Camera(camera.K, camera.width, camera.height).project(points_cam)
    size = torch.tensor([camera.width, camera.height], dtype=torch.float64)
    grid = ((straight + 0.5) / size * 2 - 1).nan_to_num(nan=-9.0)
    # the nearest of the surrounding depths decides, so that a texel at the silhouette is not lost
    around = F.max_pool2d(rendered[None], 3, stride=1, padding=1)[0]
    depth = _sample(around, grid, mode="nearest")[:, 0].double()
    return points_cam[:, 2] < depth * 1.002 + 1e-5


def _sample(
    maps: Float[Tensor, "c h w"], grid: Float[Tensor, "p 2"], mode: str = "bilinear"
) -> Float[Tensor, "p c"]:
    picked = F.grid_sample(maps[None], grid[None, None].float(), mode=mode, align_corners=False)
    return picked[0, :, 0].T


def _face_normals(mesh: TriangleMesh) -> Float[Tensor, "f 3"]:
    a, b, c = mesh.vertices.double()[mesh.faces].unbind(1)
    return F.normalize(torch.linalg.cross(b - a, c - a), dim=1)


def _outward(mesh: TriangleMesh) -> float:
    """1 or -1 for a closed mesh of one winding (whose faces then tell front from back), 0 for any other."""
    a, b, c = mesh.vertices.double()[mesh.faces].unbind(1)
    edges = torch.cat([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    count = len(mesh.vertices)
    forth, back = edges[:, 0] * count + edges[:, 1], edges[:, 1] * count + edges[:, 0]
    closed = len(forth.unique()) == len(forth) and torch.equal(forth.sort().values, back.sort().values)
    volume = (a * torch.linalg.cross(b, c)).sum()
    return float(volume.sign()) if closed else 0.0


def _cosine(
    mesh: TriangleMesh, photo: PosedPhoto, points: Float[Tensor, "p 3"], normals: Float[Tensor, "p 3"]
) -> Float[Tensor, " p"]:
    """The cosine of the viewing angle; of either side where the mesh does not say which is the outer one."""
    R, t = photo.cam_from_obj[:3, :3], photo.cam_from_obj[:3, 3]
    towards_camera = F.normalize(-(R.T @ t) - points, dim=1)
    cosine = (towards_camera * normals).sum(1)
    side = _outward(mesh)
    return cosine * side if side else cosine.abs()


def _covered_area(mesh: TriangleMesh, face: Int[Tensor, " p"], covered: Bool[Tensor, " p"]) -> float:
    a, b, c = mesh.vertices.double()[mesh.faces].unbind(1)
    area = torch.linalg.cross(b - a, c - a).norm(dim=1) / 2
    count = torch.zeros(len(area), dtype=torch.float64)
    total = count.index_add(0, face, torch.ones(len(face), dtype=torch.float64))
    seen = count.index_add(0, face, covered.double())
    return float((area * seen / total.clamp_min(1)).sum() / area.sum())
