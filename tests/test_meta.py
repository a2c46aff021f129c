"""A meta csv is read as it is meant, or refused with what is wrong and where."""

import numpy as np
import pandas as pd
import pytest

from ml_core.audit.meta import load_meta
from ml_core.errors import DataError

PCAM = """,coord_y,coord_x,tumor_patch,center_tumor_patch,wsi
0,148960,54080,True,True,camelyon16_train_tumor_016
1,33920,14784,False,False,camelyon16_train_normal_033
2,42112,13568,True,False,camelyon16_train_tumor_016
"""


def written(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "camelyonpatch_level_2_split_train_meta.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def test_a_file_of_pcam_is_read(tmp_path):
    meta = load_meta(written(tmp_path, PCAM), 3)
    assert meta["slide"].tolist()[:2] == [
        "camelyon16_train_tumor_016",
        "camelyon16_train_normal_033",
    ]
    assert meta["coord_x"].tolist() == [54080.0, 14784.0, 13568.0]
    assert meta["coord_y"].tolist() == [148960.0, 33920.0, 42112.0]
    assert meta["tumor_patch"].tolist() == [True, False, True]
    assert meta["center_tumor_patch"].tolist() == [True, False, False]
    assert meta["center_tumor_patch"].dtype == "boolean"
    assert meta["patient"].tolist() == [None] * 3  # slides named alike say nothing of patients


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_an_own_file_may_name_patients_and_leave_cells_empty(tmp_path, newline, encoding):
    text = 'wsi, coord_x ,coord_y,patient\n"a, b",1.5,2,p1\n,,,\nc,3,4,\n'
    meta = load_meta(written(tmp_path, text.replace("\n", newline), encoding), 3)
    assert meta["slide"].tolist() == ["a, b", None, "c"]
    assert meta["patient"].tolist() == ["p1", None, None]
    assert np.array_equal(meta["coord_x"], [1.5, np.nan, 3], equal_nan=True)
    assert list(meta.columns) == ["slide", "coord_x", "coord_y", "patient"]


def test_names_that_look_like_numbers_or_nothing_stay_names(tmp_path):
    meta = load_meta(written(tmp_path, "wsi,coord_x,coord_y\n007,1,1\nNA,1,1\nnull,1,1\n"), 3)
    assert meta["slide"].tolist() == ["007", "NA", "null"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("wsi", "wis", r"no column 'wsi'; it has: .*wis.*Did you mean 'wis'"),
        (",", ";", r"no column 'wsi'.*separated by commas"),
        (
            "True,False",
            "yes,False",
            r"values of tumor_patch.*first in row 2: 'yes'.*True and False",
        ),
        ("14784", "far", r"1 values of coord_x.*first in row 1: 'far'.*numbers"),
        ("14784", "inf", r"1 values of coord_x.*'inf'"),
        ("\n1,", "\n2,", None),
        ("0,148960", "0,0,148960", r"not a csv table|cannot be read"),
        (",False,False", ',"False,False', r"not a csv table"),
        ("_033", "\0", r"zero bytes"),
        ("_033", "x" * 10_000, r"bytes for 3 patches, more than 1,024 a row"),
    ],
)
def test_a_damaged_file_is_refused_with_the_place(tmp_path, old, new, said):
    path = written(tmp_path, PCAM.replace(old, new))
    if said is None:  # a first column that is no row number means nothing
        assert len(load_meta(path, 3)) == 3
        return
    with pytest.raises(DataError, match=said) as error:
        load_meta(path, 3)
    assert str(path) in str(error.value)


def test_the_meta_file_of_another_split_is_refused_by_its_length(tmp_path):
    with pytest.raises(DataError, match="has 3 rows for 4 patches"):
        load_meta(written(tmp_path, PCAM), 4)
    with pytest.raises(DataError, match="has 3 rows for 2 patches"):
        load_meta(written(tmp_path, PCAM), 2)


def test_a_file_sorted_by_something_else_is_refused(tmp_path):
    lines = PCAM.splitlines()
    text = "\n".join([lines[0], lines[2], lines[1], lines[3]])
    with pytest.raises(DataError, match=r"row 0 is numbered 1 .*out of order"):
        load_meta(written(tmp_path, text), 3)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf \n", "is empty"),
        (b"\x1f\x8b\x08\x00rest", r"not UTF-8 text: byte 1 is 0x8b.*\.gz must be unpacked"),
        ("wsi,coord_x,coord_y\nsl\xe4de,1,1".encode("latin-1"), "not UTF-8 text: byte 22"),
        (b"\0" * 50, "zero bytes"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, content, said):
    with pytest.raises(DataError, match=said):
        load_meta(written(tmp_path, content), 3)


def test_a_file_that_cannot_be_opened_is_named(tmp_path):
    written(tmp_path, PCAM)
    with pytest.raises(
        DataError, match=r"missing; the nearest name there: .*split_train_meta\.csv"
    ):
        load_meta(tmp_path / "camelyonpatch_level_2_split_trian_meta.csv", 3)
    with pytest.raises(DataError, match="no folder"):
        load_meta(tmp_path / "away" / "meta.csv", 3)
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        load_meta(tmp_path, 10_000)


def test_what_pandas_writes_is_read_back(tmp_path):
    rows = 1000
    table = pd.DataFrame(
        {
            "coord_y": np.arange(rows),
            "coord_x": np.arange(rows),
            "tumor_patch": True,
            "center_tumor_patch": False,
            "wsi": "camelyon16_train_normal_033",
        }
    )
    path = tmp_path / "meta.csv"
    table.to_csv(path)
    assert load_meta(path, rows)["coord_y"].iloc[-1] == rows - 1
