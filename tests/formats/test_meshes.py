from __future__ import annotations

import errno
import hashlib
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from sightline.formats.meshes import read_mesh, write_mesh
from sightline.records import TriangleMesh
from tests.real_data import real_path

BOX_FACES = [[0, 2, 1], [1, 2, 3], [4, 5, 6], [5, 7, 6], [0, 1, 4], [1, 5, 4], [2, 6, 3], [3, 6, 7]]


def box(*, colored=False, textured=False, size=(0.19, 0.26, 0.075)):
    """Four walls and two lids short of two, metres: enough to see a swap of axes."""
    corners = torch.tensor([[x, y, z] for z in (0, 1) for y in (0, 1) for x in (0, 1)], dtype=torch.float64)
    faces = torch.tensor(BOX_FACES)
    rng = torch.Generator().manual_seed(0)
    colors = torch.rand(8, 3, generator=rng) if colored else None
    uv = torch.rand(len(faces), 3, 2, generator=rng) if textured else None
    texture = torch.randint(0, 256, (16, 24, 3), dtype=torch.uint8, generator=rng) if textured else None
    return TriangleMesh(corners * torch.tensor(size, dtype=torch.float64), faces, colors, uv, texture)


def assert_same_triangles(mesh, other, atol=1e-15):
    """Equal up to the order of vertices and faces, and which of a face's corners comes first."""

    def rows(m):
        values = [m.vertices[m.faces]]
        if m.uv is not None:
            values.append(m.uv.double())
        if m.vertex_colors is not None:
            values.append(m.vertex_colors[m.faces].double())
        corners = torch.cat(values, dim=-1)
        return corners.reshape(len(corners), -1).numpy()

    a, b = rows(mesh), rows(other)
    assert a.shape == b.shape
    distance = np.abs(a[:, None] - b[None]).max(-1)
    assert distance.min(1).max() <= atol and distance.min(0).max() <= atol


@pytest.mark.parametrize("suffix", [".ply", ".obj"])
@pytest.mark.parametrize("unit", ["m", "cm", "mm", "in"])
def test_write_then_read_is_identity_in_every_unit(tmp_path, suffix, unit):
    write_mesh(tmp_path / f"box{suffix}", box(), unit)
    loaded = read_mesh(tmp_path / f"box{suffix}")
    assert loaded.unit == unit and f'"unit {unit}"' in loaded.unit_reason
    assert_same_triangles(loaded.mesh, box(), atol=1e-15)


def test_the_numbers_in_the_file_are_in_its_unit(tmp_path):
    write_mesh(tmp_path / "box.ply", box(), "mm")
    raw = trimesh.load_mesh(tmp_path / "box.ply", process=False)
    assert np.allclose(raw.extents, [190, 260, 75])
    assert np.allclose(read_mesh(tmp_path / "box.ply").mesh.bounds[1], [0.19, 0.26, 0.075])


@pytest.mark.parametrize("suffix", [".glb", ".stl"])
def test_single_precision_formats_round_trip(tmp_path, suffix):
    write_mesh(tmp_path / f"box{suffix}", box())
    loaded = read_mesh(tmp_path / f"box{suffix}")
    assert loaded.unit == "m" and len(loaded.mesh.vertices) == 8
    assert_same_triangles(loaded.mesh, box(), atol=1e-7)


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb"])
def test_vertex_colours_round_trip(tmp_path, suffix):
    write_mesh(tmp_path / f"box{suffix}", box(colored=True))
    assert_same_triangles(read_mesh(tmp_path / f"box{suffix}").mesh, box(colored=True), atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb"])
def test_a_texture_round_trips_with_v_down(tmp_path, suffix):
    mesh = box(textured=True)
    write_mesh(tmp_path / f"box{suffix}", mesh)
    loaded = read_mesh(tmp_path / f"box{suffix}").mesh
    assert torch.equal(loaded.texture, mesh.texture)
    assert_same_triangles(loaded, mesh, atol=1e-6)


def test_files_keep_v_up_as_other_programs_expect(tmp_path):
    mesh = box(textured=True)
    write_mesh(tmp_path / "box.obj", mesh)
    first = next(
        line for line in (tmp_path / "box.obj").read_text().splitlines() if line.startswith("vt")
    ).split()
    assert float(first[1]) == pytest.approx(float(mesh.uv[0, 0, 0]))
    assert float(first[2]) == pytest.approx(1 - float(mesh.uv[0, 0, 1]))


def test_the_hash_is_that_of_the_file(tmp_path):
    write_mesh(tmp_path / "box.ply", box())
    expected = hashlib.sha256((tmp_path / "box.ply").read_bytes()).hexdigest()
    assert read_mesh(tmp_path / "box.ply").sha256 == expected


def test_a_given_unit_wins_and_says_against_what(tmp_path):
    write_mesh(tmp_path / "box.ply", box(), "cm")
    loaded = read_mesh(tmp_path / "box.ply", unit="mm")
    assert loaded.unit == "mm" and loaded.unit_reason == "given, against the file's own cm"
    assert loaded.mesh.diameter == pytest.approx(box().diameter / 10)


def write_bare_ply(path, scale):
    """A PLY that does not say its unit."""
    mesh = box()
    trimesh.Trimesh(mesh.vertices.numpy() * scale, mesh.faces.numpy(), process=False).export(path)


def test_an_ambiguous_size_asks_for_the_unit(tmp_path):
    write_bare_ply(tmp_path / "box.ply", 100)
    with pytest.raises(ValueError, match=r"box\.ply: the unit is not known.*0\.331 m if cm.*give unit="):
        read_mesh(tmp_path / "box.ply")
    assert read_mesh(tmp_path / "box.ply", unit="cm").unit_reason == "given"


@pytest.mark.parametrize(("scale", "unit"), [(1.0, "m"), (1000.0, "mm")])
def test_a_telling_size_is_inferred_with_the_reason(tmp_path, scale, unit):
    write_bare_ply(tmp_path / "box.ply", scale)
    loaded = read_mesh(tmp_path / "box.ply")
    assert loaded.unit == unit and loaded.unit_reason.startswith("inferred: the diameter")
    assert loaded.mesh.diameter == pytest.approx(box().diameter)


def test_no_unit_makes_sense(tmp_path):
    write_bare_ply(tmp_path / "box.ply", 1e6)
    with pytest.raises(ValueError, match="is no object of"):
        read_mesh(tmp_path / "box.ply")


def test_bop_models_are_in_millimetres(tmp_path):
    path = tmp_path / "obj_000005.ply"
    write_bare_ply(path, 300)  # 99 units: centimetres or millimetres by size alone
    assert read_mesh(path).unit_reason == "implied: a BOP model by its name, and BOP is in mm"
    info = {"5": {"diameter": box().diameter * 300}}
    (tmp_path / "models_info.json").write_text(json.dumps(info))
    loaded = read_mesh(path)
    assert loaded.unit == "mm" and "models_info.json beside it" in loaded.unit_reason
    (tmp_path / "models_info.json").write_text(json.dumps({"5": {"diameter": 7.0}}))
    with pytest.raises(ValueError, match="the unit is not known"):
        read_mesh(path)


def test_gltf_is_metres_unless_that_is_absurd(tmp_path):
    write_mesh(tmp_path / "box.glb", box())
    assert read_mesh(tmp_path / "box.glb").unit_reason == "stated: glTF is in metres by specification"
    write_mesh(tmp_path / "huge.glb", box().scaled(1000.0))
    with pytest.raises(ValueError, match=r"huge\.glb: glTF is in metres.*diameter of 330.*give unit="):
        read_mesh(tmp_path / "huge.glb")
    assert read_mesh(tmp_path / "huge.glb", unit="mm").mesh.diameter == pytest.approx(box().diameter)


def test_unknown_units_are_refused(tmp_path):
    write_mesh(tmp_path / "box.ply", box())
    with pytest.raises(ValueError, match="expected one of m, cm, mm, in, got 'furlong'"):
        read_mesh(tmp_path / "box.ply", unit="furlong")
    with pytest.raises(ValueError, match="metres by specification"):
        write_mesh(tmp_path / "box.glb", box(), "mm")


def test_a_mesh_without_faces_is_refused(tmp_path):
    trimesh.PointCloud(np.eye(3)).export(tmp_path / "points.ply")
    with pytest.raises(ValueError, match=r"points\.ply: expected a mesh with faces"):
        read_mesh(tmp_path / "points.ply", unit="m")


def test_missing_foreign_and_unknown_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.ply: no such mesh"):
        read_mesh(tmp_path / "absent.ply")
    for suffix in (".ply", ".glb", ".stl", ".obj"):
        (tmp_path / f"text{suffix}").write_text("hello, I am no mesh")
        with pytest.raises(ValueError, match=rf"text\{suffix}: "):
            read_mesh(tmp_path / f"text{suffix}", unit="m")
    (tmp_path / "part.step").write_text("ISO-10303-21;")
    with pytest.raises(ValueError, match=r"expected one of \.ply.*got '\.step'"):
        read_mesh(tmp_path / "part.step")


@pytest.mark.parametrize("suffix", [".ply", ".glb", ".stl"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_meshes_are_named(tmp_path, suffix, share):
    write_mesh(tmp_path / f"box{suffix}", box(colored=suffix == ".ply"))
    whole = (tmp_path / f"box{suffix}").read_bytes()
    (tmp_path / f"cut{suffix}").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=rf"cut\{suffix}: "):
        read_mesh(tmp_path / f"cut{suffix}", unit="m")


@pytest.mark.parametrize("share", [0.5, 0.75, 0.9])
def test_truncated_ascii_ply_is_named(tmp_path, share):
    mesh = box()
    shape = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy())
    text = shape.export(file_type="ply", encoding="ascii")
    (tmp_path / "cut.ply").write_bytes(text[: int(len(text) * share)])
    with pytest.raises(ValueError, match=r"cut\.ply: "):
        read_mesh(tmp_path / "cut.ply", unit="m")


@pytest.mark.parametrize("missing", ["box.mtl", "box_texture.png"])
def test_a_missing_material_or_texture_is_named(tmp_path, missing):
    write_mesh(tmp_path / "box.obj", box(textured=True))
    (tmp_path / missing).unlink()
    with pytest.raises(FileNotFoundError, match=rf"box\.obj: names {missing}, which is not there.*colors=F"):
        read_mesh(tmp_path / "box.obj")
    assert read_mesh(tmp_path / "box.obj", colors=False).mesh.texture is None


@pytest.mark.parametrize("name", ["-s 1 1 1 box_texture.png", r"C:\tex\box_texture.png", "a/box_texture.png"])
def test_textures_are_found_as_people_name_them(tmp_path, name):
    write_mesh(tmp_path / "box.obj", box(textured=True))
    material = (tmp_path / "box.mtl").read_text().replace("box_texture.png", name)
    (tmp_path / "box.mtl").write_text(material)
    assert torch.equal(read_mesh(tmp_path / "box.obj").mesh.texture, box(textured=True).texture)


def test_a_truncated_texture_is_named(tmp_path):
    write_mesh(tmp_path / "box.obj", box(textured=True))
    (tmp_path / "box_texture.png").write_bytes((tmp_path / "box_texture.png").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"box_texture\.png: expected a whole picture"):
        read_mesh(tmp_path / "box.obj")


def test_texture_coordinates_without_a_material_are_no_texture(tmp_path):
    text = "# unit m\nv 0 0 0\nv .1 0 0\nv 0 .1 0\nvt 0 0\nvt 1 0\nvt 0 1\nf 1/1 2/2 3/3\n"
    (tmp_path / "bare.obj").write_text(text)
    mesh = read_mesh(tmp_path / "bare.obj").mesh
    assert mesh.texture is None and mesh.vertex_colors is None


def test_a_missing_ply_texture_is_named(tmp_path):
    write_mesh(tmp_path / "box.ply", box(textured=True))
    (tmp_path / "box_texture.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"box\.ply: names box_texture\.png"):
        read_mesh(tmp_path / "box.ply")


def test_a_full_disk_leaves_no_mesh(tmp_path, monkeypatch):
    def fill_up(self, data):
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill_up)
    with pytest.raises(OSError, match="No space"):
        write_mesh(tmp_path / "box.ply", box())
    assert list(tmp_path.iterdir()) == []


def sample(mesh, face):
    """The texture's colour at the middle of a face."""
    height, width = mesh.texture.shape[:2]
    u, v = mesh.uv[face].mean(0).tolist()
    return mesh.texture[min(int(v * height), height - 1), min(int(u * width), width - 1)].tolist()


def scene_of_two(left, right):
    scene = trimesh.Scene()
    scene.add_geometry(left, node_name="left")
    moved = np.eye(4)
    moved[:3, 3] = (0.5, 0, 0)
    scene.add_geometry(right, node_name="right", transform=moved)
    return scene


def triangle(visual=None, **kwargs):
    vertices = np.array([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0]])
    return trimesh.Trimesh(vertices, [[0, 1, 2]], visual=visual, process=False, **kwargs)


def textured_triangle(color, uv=((0.2, 0.2), (0.8, 0.2), (0.2, 0.8)), factor=None):
    picture = Image.fromarray(np.full((32, 16, 3), color, np.uint8))
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=picture, baseColorFactor=factor)
    return triangle(trimesh.visual.TextureVisuals(uv=np.array(uv), material=material))


def test_two_textures_are_stacked_into_one_picture(tmp_path):
    left, right = textured_triangle((255, 0, 0)), textured_triangle((0, 0, 255))
    scene_of_two(left, right).export(tmp_path / "two.glb")
    mesh = read_mesh(tmp_path / "two.glb").mesh
    by_x = mesh.vertices[mesh.faces][:, :, 0].mean(1).argsort().tolist()
    assert [sample(mesh, face) for face in by_x] == [[255, 0, 0], [0, 0, 255]]
    assert float(mesh.vertices[:, 0].max()) == pytest.approx(0.6)  # the scene's transform was applied


def test_texture_and_plain_colour_in_one_scene(tmp_path):
    plain = trimesh.visual.material.PBRMaterial(baseColorFactor=[0, 255, 0, 255])
    green = triangle(trimesh.visual.TextureVisuals(uv=np.zeros((3, 2)), material=plain))
    scene_of_two(textured_triangle((255, 0, 0)), green).export(tmp_path / "two.glb")
    mesh = read_mesh(tmp_path / "two.glb").mesh
    by_x = mesh.vertices[mesh.faces][:, :, 0].mean(1).argsort().tolist()
    assert [sample(mesh, face) for face in by_x] == [[255, 0, 0], [0, 255, 0]]


def test_a_repeating_texture_is_laid_out(tmp_path):
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[:, :2] = (255, 0, 0)
    picture[:, 2:] = (0, 0, 255)
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(picture))
    uv = np.array([[-1.0, 0.1], [2.0, 0.1], [-1.0, 0.9]])
    triangle(trimesh.visual.TextureVisuals(uv=uv, material=material)).export(tmp_path / "tiled.glb")
    mesh = read_mesh(tmp_path / "tiled.glb").mesh
    assert float(mesh.uv.min()) >= 0 and float(mesh.uv.max()) <= 1
    assert mesh.texture.shape == (4, 12, 3)
    assert torch.equal(mesh.texture[:, 4:8], torch.from_numpy(picture))


def test_a_colour_factor_multiplies_the_texture_in_linear_light(tmp_path):
    textured_triangle((255, 255, 255), factor=[128, 255, 255, 255]).export(tmp_path / "dim.glb")
    red = read_mesh(tmp_path / "dim.glb").mesh.texture[0, 0].tolist()
    # IEC 61966-2-1: linear 128/255 = 0.502 is 188 in sRGB.
    assert red == [188, 255, 255]


def test_face_colours_become_vertex_colours(tmp_path):
    colors = np.array([[255, 0, 0, 255], [0, 255, 0, 255]], np.uint8)
    vertices = np.array([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [0.1, 0.1, 0]])
    shape = trimesh.Trimesh(vertices, [[0, 1, 2], [1, 3, 2]], face_colors=colors, process=False)
    shape.export(tmp_path / "faces.ply")
    mesh = read_mesh(tmp_path / "faces.ply").mesh
    assert mesh.vertex_colors[mesh.faces].tolist() == [[[1, 0, 0]] * 3, [[0, 1, 0]] * 3]


def test_a_mirroring_transform_turns_the_faces_over(tmp_path):
    scene = trimesh.Scene()
    scene.add_geometry(trimesh.creation.box((0.1, 0.1, 0.1)), transform=np.diag([-1.0, 1, 1, 1]))
    scene.export(tmp_path / "mirror.glb")
    mesh = read_mesh(tmp_path / "mirror.glb").mesh
    corners = mesh.vertices[mesh.faces]
    volume = torch.linalg.det(corners).sum() / 6
    assert float(volume) == pytest.approx(0.001, rel=1e-5)


def test_obj_materials_without_textures_give_plain_colours(tmp_path):
    (tmp_path / "two.mtl").write_text("newmtl red\nKd 1 0 0\nnewmtl blue\nKd 0 0 1\n")
    points = "v 0 0 0\nv .1 0 0\nv 0 .1 0\nv .1 .1 0\n"
    faces = "usemtl red\nf 1 2 3\nusemtl blue\nf 2 4 3\n"
    (tmp_path / "two.obj").write_text("# unit m\nmtllib two.mtl\n" + points + faces)
    mesh = read_mesh(tmp_path / "two.obj").mesh
    colors = {tuple(row) for row in mesh.vertex_colors[mesh.faces].mean(1).tolist()}
    assert colors == {(1.0, 0.0, 0.0), (0.0, 0.0, 1.0)}


def test_reading_is_quiet(tmp_path, caplog):
    write_mesh(tmp_path / "box.obj", box(textured=True))
    with caplog.at_level(logging.WARNING):
        read_mesh(tmp_path / "box.obj")
    assert not caplog.records


@pytest.mark.real
def test_the_real_box_must_not_be_read_wrong():
    path = real_path("cookies_box/box.ply")
    with pytest.raises(ValueError, match=r"0\.328 m if cm"):
        read_mesh(path)
    assert read_mesh(path, unit="cm").mesh.bounds[1].tolist() == pytest.approx([0.189, 0.258, 0.075])


@pytest.mark.real
def test_the_real_watering_can_is_in_millimetres():
    loaded = read_mesh(real_path("lmo_scene/obj_000005.ply"))
    assert loaded.unit == "mm" and loaded.mesh.diameter == pytest.approx(0.2014, abs=5e-4)
    assert len(loaded.mesh.vertices) == 22831 and loaded.mesh.vertex_colors is not None
