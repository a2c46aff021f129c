import numpy as np
import pytest
from tiny_pcam import make_patches, write_split

from ml_core.data import PCAMDataset, get_dataloaders
from ml_core.data.checks import check_splits
from ml_core.data.exclusions import load_exclusions, write_exclusions
from ml_core.data.layout import split_paths
from ml_core.errors import DataError

LABELS = np.arange(20) % 2


@pytest.fixture
def folder(tmp_path):
    for seed, split in enumerate(("train", "valid")):
        write_split(tmp_path / "data", split, make_patches(LABELS, seed), LABELS)
    return tmp_path / "data"


def open_train(folder, **options):
    paths = split_paths(folder, "train")
    return PCAMDataset(paths.x, paths.y, **options)


def test_what_is_written_is_read_back_in_rising_order_and_once(tmp_path):
    path = tmp_path / "exclusions.csv"
    write_exclusions(path, [("train", 7, "black"), ("train", 2, "a, b"), ("test", 0, "white")])
    found = load_exclusions(path)
    assert {split: rows.tolist() for split, rows in found.items()} == {
        "train": [2, 7],
        "valid": [],
        "test": [0],
    }
    with open(path, "a") as file:
        file.write("train,7,again\n")
    assert load_exclusions(path)["train"].tolist() == [2, 7]


def test_what_a_spreadsheet_makes_of_a_list_is_read_too(tmp_path):
    path = tmp_path / "exclusions.csv"
    path.write_bytes(b"\xef\xbb\xbfsplit,index,reason\r\ntrain,4,black\r\n\r\n")
    assert load_exclusions(path)["train"].tolist() == [4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "its first line must be split,index,reason"),
        ("index\n", "its first line must be split,index,reason and is 'index'"),
        ("split,index,reason\nval,1,x\n", "line 2: unknown split 'val'; .* Did you mean 'valid'"),
        ("split,index,reason\ntrain,1,x\ntrain,-1,x\n", "line 3: '-1' is not a row number"),
        ("split,index,reason\ntrain,1e3,x\n", "'1e3' is not a row number"),
        ("split,index,reason\ntrain,1\n", "line 2: 2 fields; needed are"),
    ],
)
def test_a_list_that_says_something_else_is_refused_with_its_line(tmp_path, text, message):
    path = tmp_path / "exclusions.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load_exclusions(path)


def test_a_list_that_is_missing_or_binary_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"is missing: .*ml-core audit"):
        load_exclusions(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read"):
        load_exclusions(tmp_path / "binary.csv")


def test_data_set_filter_subset_and_labels_share_one_index(folder):
    rows = np.array([0, 5, 6, 19])
    dataset = open_train(folder, exclude=rows)
    assert dataset.indices.tolist() == [i for i in range(20) if i not in rows]
    np.testing.assert_array_equal(dataset.labels, LABELS[dataset.indices])
    for i, row in enumerate(dataset.indices):
        assert dataset[i][1] == LABELS[row]
    both = open_train(folder, exclude=rows, filter_data=True, subset=8)
    assert len(both) == 8 and not set(both.indices) & set(rows)


def test_the_checks_count_what_the_data_set_holds(folder):
    exclude = {"train": np.array([1, 3]), "valid": np.array([], np.int64)}
    train, valid = check_splits(folder, exclude=exclude)
    assert (train.num_excluded, train.num_patches, train.num_positive) == (2, 18, 8)
    assert (valid.num_excluded, valid.num_patches) == (0, 20)
    assert train.num_rows == 20


def test_damaged_patches_that_are_left_out_do_not_stop_a_run(tmp_path):
    for seed, split in enumerate(("train", "valid")):
        patches = make_patches(LABELS, seed).astype(np.float32)
        patches[4, 0, 0, 0] = np.nan
        write_split(tmp_path, split, patches, LABELS)
    with pytest.raises(DataError, match="1 of 20 patches are damaged"):
        check_splits(tmp_path)
    only = np.array([4])
    assert check_splits(tmp_path, exclude={"train": only, "valid": only})[0].num_patches == 19
    assert 4 not in open_train(tmp_path, exclude=only).indices


def test_a_list_made_for_a_longer_file_is_refused(folder):
    with pytest.raises(DataError, match=r"row 20 is to be left out, but there are 20 patches"):
        open_train(folder, exclude=np.array([2, 20]))


def test_leaving_out_everything_is_refused(folder):
    with pytest.raises(DataError, match="all 20 patches are to be left out"):
        open_train(folder, exclude=np.arange(20))


def test_the_loaders_of_the_course_sample_from_what_is_left(folder, tmp_path):
    path = tmp_path / "exclusions.csv"
    left_out = [1, 2, 3, 5, 7]
    write_exclusions(path, [("train", row, "black") for row in left_out])
    data = {"data_path": str(folder), "batch_size": 4, "exclusions": str(path)}
    train, valid = get_dataloaders({"data": data})
    assert not set(train.dataset.indices) & set(left_out)
    images, labels = zip(*train, strict=True)
    assert sum(len(each) for each in labels) == 15 == sum(len(each) for each in images)
    assert len(valid.dataset) == 20


def test_rows_are_read_back_in_rising_order_however_many_and_far_apart(tmp_path):
    path = tmp_path / "exclusions.csv"
    rows = [70_000, 3, 100_001, 64, 9]
    write_exclusions(path, [("valid", row, "black") for row in rows])
    assert load_exclusions(path)["valid"].tolist() == sorted(rows)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train,99999999999999999999,x", "'99999999999999999999' is not a row number"),
        ("train,²,x", "'²' is not a row number"),
        ("train,1,x,y", "line 2: 4 fields; needed are"),
    ],
)
def test_a_line_that_is_nearly_right_is_refused_in_words(tmp_path, line, message):
    path = tmp_path / "exclusions.csv"
    path.write_text(f"split,index,reason\n{line}\n", encoding="utf-8")
    with pytest.raises(DataError, match=message):
        load_exclusions(path)


def test_negative_rows_are_refused_and_not_counted_from_the_end(folder):
    with pytest.raises(DataError, match="made for another file"):
        open_train(folder, exclude=np.array([-1, 2]))
