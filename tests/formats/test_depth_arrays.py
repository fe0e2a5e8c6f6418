import numpy as np
import pytest

from sightline.formats.depth_arrays import read_depth_array

DEPTH = np.arange(6, dtype=np.float64).reshape(2, 3) / 4


@pytest.mark.parametrize("shape", [(2, 3), (1, 2, 3), (2, 3, 1), (1, 1, 2, 3)])
def test_array_is_read_as_it_is(tmp_path, shape):
    np.save(tmp_path / "a.npy", DEPTH.reshape(shape))
    read = read_depth_array(tmp_path / "a.npy")
    assert read.dtype == np.float32
    assert np.array_equal(read, DEPTH)


def test_narrow_map_keeps_its_axes(tmp_path):
    np.save(tmp_path / "a.npy", DEPTH[:, :1])
    assert read_depth_array(tmp_path / "a.npy").shape == (2, 1)


def test_archive_with_one_array_or_one_called_depth(tmp_path):
    np.savez(tmp_path / "one.npz", anything=DEPTH)
    np.savez_compressed(tmp_path / "many.npz", other=np.zeros(3), depth=DEPTH)
    for name in ("one.npz", "many.npz"):
        assert np.array_equal(read_depth_array(tmp_path / name), DEPTH)


def test_faults_are_named(tmp_path):
    np.save(tmp_path / "int.npy", np.ones((2, 2), dtype=np.uint16))
    np.save(tmp_path / "cube.npy", np.ones((2, 3, 4)))
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object))
    np.savez(tmp_path / "two.npz", a=DEPTH, b=DEPTH)
    for name, fault in (
        ("int.npy", "expected floating-point depth, got uint16"),
        ("cube.npy", r"expected a depth map \(h, w\), got shape \(2, 3, 4\)"),
        ("object.npy", "expected a whole NumPy file"),
        ("two.npz", "called 'depth', got a, b"),
    ):
        with pytest.raises(ValueError, match=rf"{name}: .*{fault}"):
            read_depth_array(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"none\.npy: no such depth map"):
        read_depth_array(tmp_path / "none.npy")


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.98])
def test_truncated_file_is_named(tmp_path, name, share):
    if name == "a.npy":
        np.save(tmp_path / name, np.ones((30, 40)))
    else:
        np.savez(tmp_path / name, np.ones((30, 40)))
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=rf"{name}: expected a whole NumPy file"):
        read_depth_array(tmp_path / name)
