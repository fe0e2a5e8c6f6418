from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sightline.formats.box_labels import (
    LabelFile,
    LabelLine,
    convert_labels,
    find_line_format,
    read_label_file,
    write_box_lines,
)

SIZE = (640, 360)
EDGES = [[10.0, 20.0, 74.0, 110.0], [320.0, 180.0, 640.0, 360.0], [500.0, 90.0, 564.0, 126.0]]
HOUSE = torch.tensor(EDGES, dtype=torch.float64) - 0.5


def rows_in(line_format):
    """The same three boxes in each form; written out by hand."""
    w, h = SIZE
    rows = {
        "xyxy": EDGES,
        "xywh": [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in EDGES],
        "xyxy-normalised": [[x1 / w, y1 / h, x2 / w, y2 / h] for x1, y1, x2, y2 in EDGES],
        "yolo": [
            [3, (x1 + x2) / 2 / w, (y1 + y2) / 2 / h, (x2 - x1) / w, (y2 - y1) / h]
            for x1, y1, x2, y2 in EDGES
        ],
    }
    return rows[line_format]


def label(rows, size=SIZE, name="a.txt"):
    return LabelFile(Path(name), size, tuple(LabelLine(n, tuple(row)) for n, row in enumerate(rows, start=1)))


@pytest.mark.parametrize("line_format", ["xyxy", "xywh", "xyxy-normalised", "yolo"])
def test_every_form_gives_the_same_boxes_and_is_found(line_format):
    file = label(rows_in(line_format))
    boxes, classes = convert_labels(file, line_format)
    torch.testing.assert_close(boxes, HOUSE, rtol=0, atol=1e-9)
    assert classes == ((3, 3, 3) if line_format == "yolo" else None)
    # a size is only believed where three lines at least cannot be corners
    assert find_line_format([file, file, file]) == line_format


def test_the_folder_decides_and_not_the_line():
    both = label([[10, 20, 30, 40]], name="small.txt")  # corners or a size: nothing tells
    assert find_line_format([both, label([[300, 200, 500, 300]], name="b.txt")]) == "xyxy"
    sizes = [label([[300, 200, 40, 50]], name=f"{k}.txt") for k in range(3)]
    assert find_line_format([both, *sizes]) == "xywh"
    with pytest.raises(ValueError, match="give label_format='xyxy' or label_format='xywh'"):
        find_line_format([both])


def test_one_swapped_box_is_an_error_and_no_new_form():
    good = label([[300, 200, 500, 300]] * 20, name="good.txt")
    with pytest.raises(ValueError, match=r"bad\.txt:2: expected x1 < x2 and y1 < y2"):
        find_line_format([good, label([[1, 2, 300, 300], [50, 20, 30, 60]], name="bad.txt")])
    with pytest.raises(ValueError, match=r"bad\.txt:1: .*give label_format='xywh'"):
        find_line_format([label([[50, 20, 30, 60]], name="bad.txt")])


def test_mixtures_are_refused():
    pixels, shares = label([[300, 200, 500, 300]], name="p.txt"), label([[0.1, 0.2, 0.5, 0.6]], name="s.txt")
    with pytest.raises(ValueError, match=r"s\.txt:1: seems to be in shares.*p\.txt:1"):
        find_line_format([pixels, shares])
    with pytest.raises(ValueError, match=r"y\.txt:1: expected 4 numbers as in p\.txt:1, got 5"):
        find_line_format([pixels, label(rows_in("yolo")[:1], name="y.txt")])


def test_a_box_of_one_pixel_in_the_corner_is_no_mixture():
    assert find_line_format([label([[0, 0, 1, 1], [300, 200, 500, 300]])]) == "xyxy"


@pytest.mark.parametrize(
    ("line_format", "row", "words"),
    [
        ("xyxy", [30, 10, 20, 40], "x1 < x2"),
        ("xyxy", [30, 10, 30, 40], "x1 < x2"),
        ("xyxy", [30, 10, 642, 40], "within the picture of 640x360"),
        ("xyxy", [-3, 10, 60, 40], "within the picture"),
        ("xyxy", [30, 10, 60, 362], "within the picture"),  # 362 would fit a picture of 360x640
        ("xywh", [600, 10, 60, 40], "within the picture"),
        ("xywh", [60, 10, 0, 40], "width and height above 0"),
        ("yolo", [0, 0.9, 0.5, 0.3, 0.1], "within the picture"),
        ("yolo", [0.5, 0.5, 0.5, 0.3, 0.1], "class number"),
        ("xyxy-normalised", [0.5, 0.5, 1.2, 0.6], "within the picture"),
        ("yolo", [1, 2, 3, 4], "expected 5 numbers"),
    ],
)
def test_what_is_no_box_is_refused_with_file_and_line(line_format, row, words):
    with pytest.raises(ValueError, match=rf"a\.txt:2: .*{words}"):
        convert_labels(label([rows_in(line_format)[0], row]), line_format)


def test_rounding_at_the_edge_is_cut_off():
    boxes, _ = convert_labels(label([[0, 0.5, 0.5, 1.000002, 1.0]]), "yolo")
    assert boxes.tolist() == [[-0.5, -0.5, 639.5, 359.5]]


def test_files_say_where_they_are_wrong(tmp_path):
    path = tmp_path / "a.txt"
    for text, words in [
        ("1 2 3\n", "a.txt:1: expected 4 numbers"),
        ("1 2 3 4\n1 x 3 4\n", "a.txt:2: expected numbers"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=words):
            read_label_file(path, SIZE)
    path.write_text("1 2 nan 4\n")
    with pytest.raises(ValueError, match="finite"):
        read_label_file(path, SIZE)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not text"):
        read_label_file(path, SIZE)
    with pytest.raises(FileNotFoundError, match=r"b\.txt"):
        read_label_file(tmp_path / "b.txt", SIZE)
    with pytest.raises(ValueError, match="expected one of xyxy, xyxy-normalised, xywh, yolo; got 'voc'"):
        convert_labels(label([]), "voc")


def test_an_empty_file_has_no_boxes(tmp_path):
    write_box_lines(tmp_path / "a.txt", torch.zeros(0, 4))
    file = read_label_file(tmp_path / "a.txt", SIZE)
    assert convert_labels(file, "xyxy").boxes.shape == (0, 4) and find_line_format([file]) == "xyxy"


def test_write_then_read(tmp_path):
    write_box_lines(tmp_path / "a.txt", HOUSE)
    file = read_label_file(tmp_path / "a.txt", SIZE)
    assert torch.equal(convert_labels(file, "xyxy").boxes, HOUSE)
    with pytest.raises(ValueError, match="x1 < x2"):
        write_box_lines(tmp_path / "b.txt", torch.tensor([[5.0, 1, 3, 4]]))
