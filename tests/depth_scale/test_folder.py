import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from sightline.depth_scale.depth_network import DepthModel
from sightline.depth_scale.folder import ScaleFolder
from sightline.formats.images import write_depth, write_image, write_mask
from tests.depth_scale.scale_scenes import VIEWS, write_camera, write_folder

SIZE = (32, 24)  # width, height


def put(root, name="a", *, image=True, mask=True, depth=1.5, camera="camera.json"):
    """One picture of 32x24 pixels with a mask of 8x8 in it."""
    inside = np.zeros(SIZE[::-1], dtype=bool)
    inside[8:16, 8:16] = True
    if image:
        write_image(root / "images" / f"{name}.png", np.full((*SIZE[::-1], 3), 90, dtype=np.uint8))
    if mask:
        write_mask(root / "masks" / f"{name}.png", inside)
    if depth is not None:
        write_depth(root / "depth" / f"{name}.png", np.full(SIZE[::-1], depth))
    if camera is not None:
        path = root / camera
        path.parent.mkdir(exist_ok=True, parents=True)
        K = [[40, 0, 15.5], [0, 40, 11.5], [0, 0, 1]]
        path.write_text(json.dumps({"K": K, "width": SIZE[0], "height": SIZE[1]}))
    return root


def only(root, **options):
    (sample,) = ScaleFolder(root, **options).samples()
    return sample


def fault(root, **options) -> str:
    with pytest.raises((ValueError, OSError)) as caught:
        list(ScaleFolder(root, **options).samples())
    return str(caught.value)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("rendered"))


def test_rendered_folder_is_read_in_order(rendered):
    folder = ScaleFolder(rendered)
    assert len(folder) == len(VIEWS)
    assert folder[0].mask_name == "masks/view_0.png"
    for sample, (depth, focal) in zip(folder.samples(), VIEWS, strict=True):
        assert float(sample.camera.K[0, 0]) == focal
        median = float(sample.depth[sample.mask > 0].median())
        assert abs(median / depth - 1) < 0.06  # the near faces of a box of 12 cm
        assert sample.depth_source == f"depth/{sample.entry.name}.png"


def test_stream_holds_one_picture_at_a_time(rendered, monkeypatch):
    import sightline.depth_scale.folder as module

    opened = []
    monkeypatch.setattr(module, "read_depth", lambda path, _: opened.append(path) or np.ones((240, 320), "f"))
    samples = ScaleFolder(rendered).samples()
    assert opened == []
    next(samples)
    assert len(opened) == 1


def test_several_objects_share_one_reading(tmp_path, monkeypatch):
    put(tmp_path, "shot_1", mask=False)
    put(tmp_path, "shot_10", mask=False)
    for name in ("shot_1_mug", "shot_1_tea_box", "shot_10_mug"):
        write_mask(tmp_path / "masks" / f"{name}.png", np.ones(SIZE[::-1], dtype=bool))
    import sightline.depth_scale.folder as module

    opened, read = [], module.read_depth
    monkeypatch.setattr(module, "read_depth", lambda path, unit: opened.append(path.stem) or read(path, unit))
    folder = ScaleFolder(tmp_path)
    names = [(s.entry.name, s.entry.object_name) for s in folder.samples()]
    assert names == [("shot_1", "mug"), ("shot_1", "tea_box"), ("shot_10", "mug")]
    assert opened == ["shot_1", "shot_10"]
    assert folder.object_names == ["mug", "tea_box"]
    assert [entry.name for entry in ScaleFolder(tmp_path, object_name="tea_box")] == ["shot_1"]
    assert "no object is called 'cup', there are: 'mug', 'tea_box'" in fault(tmp_path, object_name="cup")


def test_depth_files_of_every_kind(tmp_path):
    for name, unit in (("millimetres", 1.0), ("tenths", 0.1)):
        root = put(tmp_path / name, depth=None)
        write_depth(root / "depth" / "a.png", np.full(SIZE[::-1], 1.5), depth_scale_mm=unit)
        assert float(only(root, depth_unit_mm=unit).depth.max()) == pytest.approx(1.5)
    root = put(tmp_path / "array", depth=None)
    (root / "depth").mkdir()
    np.save(root / "depth" / "a.npy", np.full(SIZE[::-1], 1.5))
    assert float(only(root).depth.max()) == 1.5
    (root / "depth" / "a.npy").unlink()
    np.savez(root / "depth" / "a.npz", np.full(SIZE[::-1], 2.5))
    assert float(only(root).depth.max()) == 2.5


def test_inverse_depth_is_taken_as_it_is_stored(tmp_path):
    root = put(tmp_path, depth=None)
    values = np.full(SIZE[::-1], 40000, dtype=np.uint16)
    values[0, 0] = 0  # infinitely far, not missing
    (root / "depth").mkdir()
    Image.fromarray(values).save(root / "depth" / "a.png")
    depth = only(root, depth_mode="inv_depth", depth_unit_mm=7.0).depth
    assert torch.equal(depth, torch.from_numpy(values.astype(np.float32)))


def test_finer_depth_is_averaged_without_its_holes(tmp_path):
    root = put(tmp_path, depth=None)
    fine = np.full((48, 64), 2.0)
    fine[0, 0], fine[:2, 2:4], fine[2, 0] = 0.0, 0.0, 4.0
    fine[4, 0] = np.nan
    (root / "depth").mkdir()
    np.save(root / "depth" / "a.npy", fine)
    depth = only(root).depth
    assert depth.shape == (24, 32)
    assert float(depth[0, 0]) == 2.0
    assert bool(depth[0, 1].isnan())
    assert float(depth[1, 0]) == 2.5
    assert float(depth[2, 0]) == 2.0


def test_finer_mask_becomes_shares_of_cells(tmp_path):
    root = put(tmp_path, mask=False)
    fine = np.zeros((72, 96), dtype=bool)
    fine[10:31, 13:40] = True
    write_mask(root / "masks" / "a.png", fine)
    mask = only(root).mask
    assert mask.shape == (24, 32)
    assert float(mask.sum()) * 9 == pytest.approx(fine.sum(), rel=1e-5)  # area is kept
    assert 0 < float(mask[3, 5]) < 1


def test_camera_of_the_picture_goes_before_that_of_all(tmp_path):
    root = put(put(tmp_path, "a"), "b")
    write_image(root / "images" / "a.png", np.zeros((240, 320, 3), dtype=np.uint8))
    write_camera(root / "cameras" / "a.json", 555.0)
    focals = [float(sample.camera.K[0, 0]) for sample in ScaleFolder(root).samples()]
    assert focals == [555.0, 40.0]


def test_camera_from_exif(tmp_path):
    root = put(tmp_path, image=False, camera=None)
    (root / "images").mkdir()
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 26  # FocalLengthIn35mmFilm
    Image.new("RGB", SIZE).save(root / "images" / "a.jpg", exif=exif)
    assert float(only(root).camera.K[0, 0]) == pytest.approx(26 / np.hypot(36, 24) * 40)


def test_pictures_are_optional_where_the_camera_knows_its_size(tmp_path):
    sample = only(put(tmp_path, image=False))
    assert sample.camera.image_size == SIZE
    assert sample.entry.image is None
    (tmp_path / "camera.json").write_text('{"fx": 40, "fy": 40, "cx": 16, "cy": 12}')
    assert "camera.json: expected width and height, because images/ has no a" in fault(tmp_path)


def test_photo_without_exif_and_camera(tmp_path):
    message = fault(put(tmp_path, camera=None))
    assert f"{tmp_path / 'images' / 'a.png'}: expected cameras/a.json or camera.json" in message
    assert "EXIF tells no focal length" in message
    message = fault(put(tmp_path / "bare", camera=None, image=False))
    assert "there is no picture a either" in message


def test_folder_without_masks(tmp_path):
    message = fault(put(tmp_path, mask=False))
    assert "expected a folder masks/" in message
    assert "holds camera.json, depth, images" in message
    (tmp_path / "masks").mkdir()
    assert "masks: expected mask pictures, there are none" in fault(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        ScaleFolder(tmp_path / "nowhere")


def test_mask_of_no_picture(tmp_path):
    put(tmp_path, "a")
    write_mask(tmp_path / "masks" / "ab.png", np.ones((2, 2), dtype=bool))
    assert "masks/ab.png: no picture of this name" in fault(tmp_path)


def test_picture_without_mask_is_told(tmp_path):
    folder = ScaleFolder(put(put(tmp_path, "a"), "b", mask=False))
    assert len(folder) == 1
    assert folder.without_mask == ["b"]


def test_missing_depth(tmp_path):
    assert "expected a depth map of a in depth/ (.png, .tif, .npy or .npz)" in fault(
        put(tmp_path, depth=None)
    )


@pytest.mark.parametrize("kind", ["images", "masks", "depth"])
@pytest.mark.parametrize("keep", [0, 40])
def test_truncated_file_is_named(tmp_path, kind, keep):
    file = put(tmp_path) / kind / "a.png"
    if kind == "images":
        keep = 0  # of a picture the header alone is read
    file.write_bytes(file.read_bytes()[:keep])
    assert str(file) in fault(tmp_path)


def test_map_of_another_picture_is_named(tmp_path):
    put(tmp_path)
    write_mask(tmp_path / "masks" / "a.png", np.ones((32, 24), dtype=bool))
    assert "masks/a.png: the mask has 24x32 pixels, which is no resized picture of 32x24" in fault(tmp_path)
    put(tmp_path, depth=None)
    write_depth(tmp_path / "depth" / "a.png", np.ones((32, 24)))
    assert "depth/a.png: the depth map has 24x32 pixels" in fault(tmp_path)


def test_small_grids_are_not_taken_for_other_pictures(tmp_path):
    """A latent grid of a picture whose sides are not its multiples."""
    root = put(tmp_path, depth=None)
    write_depth(root / "depth" / "a.png", np.ones((3, 5)))
    assert only(root).mask.shape == (3, 5)
    write_depth(root / "depth" / "a.png", np.ones((2, 5)))
    assert "has 5x2 pixels" in fault(root)


def test_unknown_depth_mode(tmp_path):
    assert "depth_mode: expected one of inv_depth, depth, got 'metric'" in fault(
        tmp_path, depth_mode="metric"
    )


@pytest.mark.parametrize("unit", [0.0, -1.0, float("nan")])
def test_bad_depth_unit(tmp_path, unit):
    assert "depth_unit_mm: expected a positive number" in fault(put(tmp_path), depth_unit_mm=unit)


class Constant(torch.nn.Module):
    def forward(self, pixel_values):
        return SimpleNamespace(predicted_depth=torch.full_like(pixel_values[:, 0], 2.0))


def as_it_is(images, **_):
    return {"pixel_values": [torch.from_numpy(images[0]).permute(2, 0, 1) / 255]}


@pytest.mark.parametrize(("canonical", "depth"), [(None, 2.0), (20.0, 4.0)])
def test_depth_model_gets_the_focal_length_if_it_can_use_it(tmp_path, canonical, depth):
    model = DepthModel(Constant(), processor=as_it_is, kind="metric_depth", canonical_focal_px=canonical)
    sample = only(put(tmp_path, depth=None), depth_model=model)
    assert float(sample.depth[0, 0]) == pytest.approx(depth)
    assert "metres" in sample.depth_source


def test_depth_model_goes_before_the_files_and_says_its_mode(tmp_path):
    model = DepthModel(Constant(), processor=as_it_is, kind="inverse_depth", name="net")
    folder = ScaleFolder(put(tmp_path), depth_model=model)
    assert folder.depth_mode == "inv_depth"
    assert float(next(folder.samples()).depth[0, 0]) == 2.0
    assert "net gives 'inv_depth', not 'depth'" in fault(tmp_path, depth_model=model, depth_mode="depth")
    message = fault(put(tmp_path / "bare", image=False), depth_model=model)
    assert "no picture a whose depth could be estimated" in message


def write_bop(root):
    """Two pictures; the first with a whole and a half hidden object, the second with none."""
    K = [40, 0, 15.5, 0, 40, 11.5, 0, 0, 1]
    pose = {"cam_R_m2c": [1, 0, 0, 0, 1, 0, 0, 0, 1], "cam_t_m2c": [0, 0, 1500]}
    root.mkdir(exist_ok=True, parents=True)
    cameras = {str(i): {"cam_K": K, "depth_scale": 0.1} for i in (0, 1)}
    (root / "scene_camera.json").write_text(json.dumps(cameras))
    truth = {"0": [{"obj_id": 5, **pose}, {"obj_id": 7, **pose}], "1": []}
    (root / "scene_gt.json").write_text(json.dumps(truth))
    box = {"bbox_visib": [8, 8, 8, 8], "bbox_obj": [8, 8, 8, 8], "px_count_all": 64}
    infos = {"0": [{**box, "visib_fract": share} for share in (1.0, 0.5)], "1": []}
    (root / "scene_gt_info.json").write_text(json.dumps(infos))
    inside = np.zeros(SIZE[::-1], dtype=bool)
    inside[8:16, 8:16] = True
    for i in (0, 1):
        write_image(root / "rgb" / f"{i:06d}.png", np.full((*SIZE[::-1], 3), 90, dtype=np.uint8))
        write_depth(root / "depth" / f"{i:06d}.png", np.full(SIZE[::-1], 1.5), depth_scale_mm=0.1)
    for i in (0, 1):
        write_mask(root / "mask_visib" / f"000000_{i:06d}.png", inside)
    return root


def test_bop_scene(tmp_path):
    folder = ScaleFolder(write_bop(tmp_path / "000003"))
    first, second = folder.samples()
    assert (first.entry.object_name, second.entry.object_name) == ("obj_000005", "obj_000007")
    assert (first.entry.visibility, second.entry.visibility) == (1.0, 0.5)
    assert first.entry.mask_name == "mask_visib/000000_000000.png"
    assert float(first.depth[9, 9]) == pytest.approx(1.5)  # by its own depth scale
    assert float(first.camera.K[0, 0]) == 40.0
    assert folder.without_mask == ["rgb/000001.png"]


def test_bop_scene_without_masks(tmp_path):
    root = write_bop(tmp_path)
    for file in (root / "mask_visib").iterdir():
        file.unlink()
    assert "holds no mask of the objects in scene_gt.json" in fault(root)
    (root / "mask_visib").rmdir()
    assert "in mask_visib/, there is no such folder" in fault(root)
