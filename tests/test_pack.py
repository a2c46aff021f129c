"""Packing: images or any HDF5 become PCam's flat files, exactly, whole, or not at all."""

import contextlib
import hashlib
import os
import resource
import shutil
import subprocess

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tiny_pcam import write_split

from ml_core.data.checks import check_splits
from ml_core.data.layout import load_labels, split_paths
from ml_core.data.packing import pack as pack_module
from ml_core.data.packing.pack import skipped_path
from ml_core.data.patch_file import PatchFile
from ml_core.data.synthetic import write_synthetic
from ml_core.errors import DataError
from ml_core.pipeline.data_pack import data_pack

NUM = 30
LABELS = np.arange(NUM) % 2


@pytest.fixture
def patches():
    return np.random.default_rng(0).integers(1, 255, (NUM, 96, 96, 3), dtype=np.uint8)


@pytest.fixture
def images(tmp_path, patches):
    """A folder of images with a csv whose order is not that of the names."""
    folder = tmp_path / "images"
    (folder / "deep").mkdir(parents=True)
    names = [f"deep/{NUM - row:03d}.{('png', 'tif')[row % 2]}" for row in range(NUM)]
    for name, patch in zip(names, patches, strict=True):
        Image.fromarray(patch).save(folder / name)
    pd.DataFrame({"file": names, "label": LABELS}).to_csv(folder / "labels.csv", index=False)
    return folder


def change_table(folder, change):
    table = pd.read_csv(folder / "labels.csv", dtype=str)
    table = change(table)
    table.to_csv(folder / "labels.csv", index=False)


def packed(folder, split="train"):
    """Return (patches, labels) of a packed split, which must be mapped bytes."""
    paths = split_paths(folder, split)
    file = PatchFile(paths.x)
    assert file.is_flat and file.is_bytes and file.layout == "contiguous"
    with h5py.File(paths.x, locking=False) as stored:  # the same patches are the same bytes
        assert h5py.h5g.get_objinfo(stored["x"].id).mtime == 0
    with h5py.File(paths.y) as labels:
        assert labels["y"].shape == (len(file), 1, 1, 1) and labels["y"].dtype == np.uint8
    return file.read(np.arange(len(file))), load_labels(paths.y)


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def store(path, data, labels=LABELS, key="x", label_key="y", **options):
    with h5py.File(path, "w") as file:
        file.create_dataset(key, data=data, **options)
        file[label_key] = labels
    return path


# Images


def test_images_are_packed_to_the_bit_in_the_order_of_the_csv(images, patches, tmp_path):
    result = data_pack(images, tmp_path / "out")
    x, y = packed(tmp_path / "out")
    assert np.array_equal(x, patches) and np.array_equal(y, LABELS)
    assert result["splits"] == {"train": {"patches": NUM, "positive": NUM // 2, "skipped": 0}}
    assert sorted(p.name[-4:] for p in (tmp_path / "out").iterdir()) == ["x.h5", "y.h5"]
    assert check_splits(tmp_path / "out", ["train"])[0].num_patches == NUM


@pytest.mark.parametrize("num_threads", [1, 4])
def test_blocks_and_threads_change_no_byte(images, tmp_path, monkeypatch, num_threads):
    data_pack(images, tmp_path / "whole")
    monkeypatch.setattr("ml_core.data.packing.source._BLOCK_BYTES", 3 * 96 * 96 * 3)
    data_pack(images, tmp_path / "blocks", num_threads=num_threads)
    assert digests(tmp_path / "whole") == digests(tmp_path / "blocks")


def test_the_csv_may_name_splits_slides_places_and_patients(images, patches, tmp_path):
    splits = np.array(["test", "train", "valid"])[np.arange(NUM) % 3]

    def add(table):
        return table.assign(
            split=splits, Slide=[f"s{i % 5}" for i in range(NUM)], patient="p 1", coord_x=range(NUM)
        )

    change_table(images, add)
    data_pack(images, tmp_path / "out")
    for split in ("train", "valid", "test"):
        rows = np.flatnonzero(splits == split)
        x, y = packed(tmp_path / "out", split)
        assert np.array_equal(x, patches[rows]) and np.array_equal(y, LABELS[rows])
        meta = pd.read_csv(split_paths(tmp_path / "out", split).meta)
        pcam = ["coord_y", "coord_x", "tumor_patch", "center_tumor_patch", "wsi"]
        assert list(meta) == [*pcam, "patient"]
        assert list(meta["wsi"]) == [f"s{i % 5}" for i in rows]
        assert list(meta["coord_x"]) == list(rows) and meta["coord_y"].isna().all()
        assert np.array_equal(meta["center_tumor_patch"], LABELS[rows] == 1)
        assert meta["tumor_patch"].isna().all() and set(meta["patient"]) == {"p 1"}


@pytest.mark.parametrize(
    ("column", "row", "value", "said"),
    [
        ("file", 3, "../secret.png", r"row 3: the file name '\.\./secret\.png' is not allowed"),
        ("file", 3, "/etc/secret.png", r"row 3: the file name '/etc/secret\.png' is not allowed"),
        ("file", 3, "deep/../../secret.png", "not allowed.*without '..'"),
        ("file", 3, "", "row 3: the file name '' is not allowed"),
        ("file", 3, "./deep//030.png", r"2 rows name a file .*'deep/030.png' in rows 0, 3"),
        ("file", 3, "deep/28.png", r"1 of 30 files .* missing, first 'deep/28.png' of row 3. Did"),
        ("label", 3, "2", r"1 labels are neither 0 nor 1, first '2' in row 3"),
        ("label", 3, "", r"labels are neither 0 nor 1, first '' in row 3"),
        ("label", 3, "tumour", r"first 'tumour' in row 3. Allowed: 0 and 1"),
        ("split", 3, "val", r"1 splits are unknown, first 'val'.* Did you mean 'valid'\?"),
        ("coord_x", 3, "left", r"1 values of coord_x are no numbers, first 'left' in row 3"),
    ],
)
def test_a_wrong_value_is_refused_with_its_row(images, tmp_path, column, row, value, said):
    def change(table):
        table["split"], table["coord_x"] = "train", "7"
        table.loc[row, column] = value
        return table

    (tmp_path / "secret.png").write_bytes((images / "deep/030.png").read_bytes())
    change_table(images, change)
    with pytest.raises(DataError, match=said):
        data_pack(images, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no row of values"),
        ("file,label\n", "has no row of values"),
        ("file;label\na.png;1\n", "no column file; it has: file;label.*commas"),
        ("file,class\na.png,1\n", "no column label; it has: file, class. Allowed names.*target"),
        ("file,label,y\na.png,1,1\n", "the columns label and y both mean label"),
        ("file,label,label\na.png,1,0\n", "a column stands there twice"),
        ("file,label,wsi\na.png,1\n", "row 0 has 2 values where the heading has 3"),
        ("file,label\na.png,1\nb.png,1,2\n", "row 1 has 3 values where the heading has 2"),
        ('file,label\n"a.png,1\n', "cannot be read as csv"),
        ("file,label\n\xff.png,1\n", "cannot be read as csv"),
    ],
)
def test_a_csv_that_is_none_is_refused(images, tmp_path, text, said):
    (images / "labels.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=said):
        data_pack(images, tmp_path / "out")


def test_a_csv_of_a_spreadsheet_is_read(images, tmp_path):
    change_table(images, lambda table: table.assign(label=[f" {v}.0 " for v in LABELS]))
    text = (images / "labels.csv").read_text()
    (images / "labels.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    data_pack(images, tmp_path / "out")
    assert np.array_equal(packed(tmp_path / "out")[1], LABELS)


def test_a_folder_without_a_csv_says_which_there_are(images, tmp_path):
    (images / "labels.csv").rename(images / "truth.csv")
    with pytest.raises(DataError, match=r"no labels\.csv .*it has truth\.csv.*--labels"):
        data_pack(images, tmp_path / "out")
    data_pack(images, tmp_path / "out", labels=images / "truth.csv")


def test_images_that_the_csv_does_not_name_are_left_out_with_a_warning(images, tmp_path, caplog):
    change_table(images, lambda table: table[5:])
    data_pack(images, tmp_path / "out")
    assert "5 of 30 images are not in labels.csv and are left out" in caplog.text
    assert len(packed(tmp_path / "out")[0]) == NUM - 5


def damage_images(folder):
    """Break five images in five ways; return what is said of each, by row."""
    names = pd.read_csv(folder / "labels.csv")["file"]
    (folder / names[2]).write_bytes((folder / names[2]).read_bytes()[:2000])
    Image.new("CMYK", (96, 96)).save(folder / names[5], format="TIFF")
    frames = [Image.new("RGB", (96, 96), colour) for colour in ("red", "blue")]
    frames[0].save(folder / names[7], format="TIFF", save_all=True, append_images=frames[1:])
    Image.fromarray(np.zeros((96, 96), np.uint16)).save(folder / names[8])
    (folder / names[11]).write_bytes(b"not an image")
    return {
        2: "truncated",
        5: "pixel format CMYK",
        7: "holds 2 images",
        8: "pixel format I;16",
        11: "is not an image that can be read",
    }


def test_damaged_images_are_refused_all_at_once(images, tmp_path):
    reasons = damage_images(images)
    with pytest.raises(DataError, match=r"5 of 30 patches cannot be packed") as error:
        data_pack(images, tmp_path / "out")
    for row, reason in reasons.items():
        assert reason in str(error.value) and f"rows {row} (deep/" in str(error.value)
    assert "--skip-damaged" in str(error.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_damaged_images_are_left_out_and_listed_when_asked_for(images, patches, tmp_path):
    reasons = damage_images(images)
    change_table(images, lambda table: table.assign(wsi=[f"s{i}" for i in range(NUM)]))
    result = data_pack(images, tmp_path / "out", skip_damaged=True)
    assert result["splits"]["train"] == {"patches": 25, "positive": 12, "skipped": 5}
    kept = np.setdiff1d(np.arange(NUM), list(reasons))
    x, y = packed(tmp_path / "out")
    assert np.array_equal(x, patches[kept]) and np.array_equal(y, LABELS[kept])
    meta = pd.read_csv(split_paths(tmp_path / "out", "train").meta)
    assert list(meta["wsi"]) == [f"s{row}" for row in kept]
    skipped = pd.read_csv(skipped_path(tmp_path / "out", "train"))
    assert list(skipped["row"]) == list(reasons)
    assert skipped["file"][0] == "deep/028.png"
    for said, reason in zip(skipped["reason"], reasons.values(), strict=True):
        assert reason in said


def test_images_of_several_sizes_are_refused_with_the_sizes_seen(images, tmp_path):
    for name in ("027.tif", "025.tif"):
        Image.new("RGB", (64, 80)).save(images / "deep" / name)
    with pytest.raises(DataError, match=r"2 of 30 .*has 64 x 80 pixels where 96 x 96 are wanted"):
        data_pack(images, tmp_path / "out")


def test_skipping_does_not_throw_away_most_of_the_data(images, tmp_path):
    with pytest.raises(DataError, match=r"30 of 30 .*--skip-damaged leaves out 50% at most"):
        data_pack(images, tmp_path / "out", size=64, skip_damaged=True)
    assert list((tmp_path / "out").iterdir()) == []


def test_an_image_that_would_fill_the_memory_is_refused(images, tmp_path):
    whole = (images / "deep/030.png").read_bytes()
    huge = whole[:16] + (100_000).to_bytes(4) * 2 + whole[24:]
    (images / "deep/028.png").write_bytes(huge)
    with pytest.raises(DataError, match="1 of 30 patches cannot be packed"):
        data_pack(images, tmp_path / "out")


# HDF5

STORED = {
    "uint8": lambda p: p,
    "float32 in 0..255": lambda p: p.astype(np.float32),
    "float32 in 0..1": lambda p: (p / 255).astype(np.float32),
    "float64 in 0..1": lambda p: p / 255,
    "uint16 in 0..65535": lambda p: p.astype(np.uint16) * 257,
    "int64 in 0..255": lambda p: p.astype(np.int64),
}
LAYOUTS = {
    "contiguous": {},
    "one patch a chunk": {"chunks": (1, 96, 96, 3)},
    "gzip": {"chunks": (7, 96, 96, 3), "compression": "gzip", "shuffle": True},
    "lzf, chunks across a patch": {"chunks": (4, 40, 50, 2), "compression": "lzf"},
}


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_hdf5_is_packed_to_the_same_bytes(tmp_path, patches, stored, layout, monkeypatch):
    monkeypatch.setattr("ml_core.data.packing.source._BLOCK_BYTES", 10 * 96 * 96 * 3)
    path = store(tmp_path / "any.h5", STORED[stored](patches), **LAYOUTS[layout])
    data_pack(path, tmp_path / "out", num_threads=3)
    x, y = packed(tmp_path / "out")
    assert np.array_equal(x, patches) and np.array_equal(y, LABELS)


def test_chunks_are_not_cut(tmp_path, patches, monkeypatch):
    monkeypatch.setattr("ml_core.data.packing.source._BLOCK_BYTES", 10 * 96 * 96 * 3)
    source = pack_source_of(store(tmp_path / "any.h5", patches, chunks=(4, 96, 96, 3)))
    assert [len(rows) for rows in source.blocks(np.arange(NUM))] == [8, 8, 8, 6]
    assert [list(rows) for rows in source.blocks(np.array([1, 7, 8, 29]))] == [[1, 7], [8], [29]]


def pack_source_of(path):
    from ml_core.data.packing.source import Hdf5Source

    return Hdf5Source(path, "x")


def test_keys_split_labels_and_meta_can_be_named(tmp_path, patches):
    path = store(tmp_path / "any.h5", patches, key="images", label_key="classes")
    meta = pd.DataFrame({"wsi": ["a"] * NUM, "coord_x": range(NUM)})
    meta.to_csv(tmp_path / "where.csv", index=False)
    options = {"key": "images", "label_key": "classes", "split": "valid"}
    data_pack(path, tmp_path / "out", meta=tmp_path / "where.csv", **options)
    x, y = packed(tmp_path / "out", "valid")
    assert np.array_equal(x, patches) and np.array_equal(y, LABELS)
    assert pd.read_csv(split_paths(tmp_path / "out", "valid").meta).equals(meta)
    with pytest.raises(DataError, match="no data set 'x'; it has: classes, images"):
        data_pack(path, tmp_path / "other")
    with pytest.raises(DataError, match=r"unknown split 'val'.*Did you mean 'valid'"):
        data_pack(path, tmp_path / "other", **{**options, "split": "val"})


@pytest.mark.parametrize("label_key", ["y", "classes"])
def test_labels_of_an_hdf5_file_are_checked(tmp_path, patches, label_key):
    path = store(tmp_path / "any.h5", patches, LABELS * 2, label_key=label_key)
    with pytest.raises(DataError, match=r"any\.h5.*: 15 .*labels are neither 0 nor 1 \(2\)"):
        data_pack(path, tmp_path / "out", label_key=label_key)
    path = store(tmp_path / "any.h5", patches, LABELS[1:], label_key=label_key)
    with pytest.raises(DataError, match=r"30 patches but .* 29 labels"):
        data_pack(path, tmp_path / "out", label_key=label_key)


def test_a_pcam_folder_is_packed_whole_with_its_meta_files(tmp_path):
    write_synthetic(tmp_path / "in", 40, 20, 10, seed=3)
    data_pack(tmp_path / "in", tmp_path / "out")
    for split, num in (("train", 40), ("valid", 20), ("test", 10)):
        x, y = packed(tmp_path / "out", split)
        before = split_paths(tmp_path / "in", split)
        assert np.array_equal(x, PatchFile(before.x).read(np.arange(num)))
        assert np.array_equal(y, load_labels(before.y))
        assert split_paths(tmp_path / "out", split).meta.read_text() == before.meta.read_text()


def test_a_meta_file_of_another_length_is_refused_and_of_other_labels_said(tmp_path, caplog):
    write_synthetic(tmp_path / "in", 40, 20, 40, seed=3)
    meta = split_paths(tmp_path / "in", "train").meta
    meta.write_bytes(split_paths(tmp_path / "in", "test").meta.read_bytes())
    data_pack(tmp_path / "in", tmp_path / "out")
    assert "is it the meta file of another split?" in caplog.text
    meta.write_bytes(split_paths(tmp_path / "in", "valid").meta.read_bytes())
    with pytest.raises(DataError, match=r"_train_meta\.csv has 20 rows for 40 patches"):
        data_pack(tmp_path / "in", tmp_path / "other")


@pytest.fixture
def damaged(tmp_path, patches):
    """Float32 with NaN in rows 4 and 9, Inf in 12, a block at 1e5 in 20, and -3 in 21."""
    stored = patches.astype(np.float32)
    stored[[4, 9], :5, :5] = np.nan
    stored[12, 0, 0, 0], stored[20, :5, :5], stored[21, 9, 9, 1] = np.inf, 1e5, -3
    return store(tmp_path / "damaged.h5", stored)


def test_nan_and_values_out_of_range_are_refused_not_clipped(damaged, tmp_path):
    with pytest.raises(DataError, match=r"5 of 30 patches cannot be packed") as error:
        data_pack(damaged, tmp_path / "out")
    assert "holds NaN or Inf (3: rows 4, 9, 12)" in str(error.value)
    assert "holds values outside 0..255 (2: rows 20, 21)" in str(error.value)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("block", [1, 4, 100])
def test_damaged_patches_are_left_out_and_listed(damaged, patches, tmp_path, block, monkeypatch):
    monkeypatch.setattr("ml_core.data.packing.source._BLOCK_BYTES", 4 * block * 96 * 96 * 3)
    data_pack(damaged, tmp_path / "out", skip_damaged=True, num_threads=2)
    kept = np.setdiff1d(np.arange(NUM), [4, 9, 12, 20, 21])
    x, y = packed(tmp_path / "out")
    assert np.array_equal(x, patches[kept]) and np.array_equal(y, LABELS[kept])
    skipped = pd.read_csv(skipped_path(tmp_path / "out", "train"))
    assert list(skipped["row"]) == [4, 9, 12, 20, 21]
    assert list(skipped["reason"][2:4]) == ["holds NaN or Inf", "holds values outside 0..255"]
    # nothing tells the file from one that was packed from the sound patches alone
    store(tmp_path / "sound.h5", patches[kept], LABELS[kept])
    data_pack(tmp_path / "sound.h5", tmp_path / "sound")
    name = split_paths(tmp_path, "train").x.name
    assert digests(tmp_path / "sound")[name] == digests(tmp_path / "out")[name]


def test_rounding_up_to_white_is_no_damage(tmp_path, patches):
    stored = patches.astype(np.float32)
    stored[0, 0, 0] = 255.4, -0.4, 0.6
    data_pack(store(tmp_path / "any.h5", stored), tmp_path / "out")
    assert list(packed(tmp_path / "out")[0][0, 0, 0]) == [255, 0, 1]


def test_a_range_that_cannot_be_told_is_refused(tmp_path, patches):
    path = store(tmp_path / "any.h5", (patches / 127.5 - 1).astype(np.float32))
    with pytest.raises(DataError, match="cannot tell what its float32 values mean"):
        data_pack(path, tmp_path / "out")


def test_all_real_patches_are_packed_as_they_are(real_pcam, tmp_path):
    source = tmp_path / "gzip"
    source.mkdir()
    for split in ("valid", "test"):
        before = split_paths(real_pcam, split)
        x = PatchFile(before.x).read(np.arange(300))
        write_split(source, split, x, load_labels(before.y)[:300])
        data_pack(split_paths(source, split).x, tmp_path / "out", split=split)
        assert np.array_equal(packed(tmp_path / "out", split)[0], x)


def test_the_patches_dropped_from_poisoned_data_are_those_that_were_poisoned(
    tmp_path, patches, damaged
):
    write_split(tmp_path / "in", "train", h5py.File(damaged)["x"][...], LABELS)
    write_split(tmp_path / "in", "valid", patches, LABELS)
    result = data_pack(tmp_path / "in", tmp_path / "out", skip_damaged=True)
    assert [each["skipped"] for each in result["splits"].values()] == [5, 0]
    assert not skipped_path(tmp_path / "out", "valid").exists()


# Files


def test_files_that_are_there_are_kept_unless_forced(images, damaged, tmp_path):
    change_table(images, lambda table: table.assign(wsi="a"))
    data_pack(images, tmp_path / "out")
    before = digests(tmp_path / "out")
    with pytest.raises(DataError, match=r"_x\.h5 is there already.*--force"):
        data_pack(damaged, tmp_path / "out", skip_damaged=True)
    assert digests(tmp_path / "out") == before
    data_pack(damaged, tmp_path / "out", skip_damaged=True, force=True)
    # the meta csv of the old patches is gone with them
    names = sorted(name.partition("split_")[2] for name in digests(tmp_path / "out"))
    assert names == ["train_skipped.csv", "train_x.h5", "train_y.h5"]


def test_a_split_can_be_added_to_others(images, tmp_path, patches):
    data_pack(images, tmp_path / "out")
    data_pack(images, tmp_path / "out", split="valid")
    assert np.array_equal(packed(tmp_path / "out", "valid")[0], patches)


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_source_is_never_replaced_by_its_copy(tmp_path, patches, kind):
    write_split(tmp_path / "in", "train", patches, LABELS)
    before = digests(tmp_path / "in")
    source = tmp_path / "in" if kind == "folder" else split_paths(tmp_path / "in", "train").x
    (tmp_path / "link").symlink_to(tmp_path / "in")
    with pytest.raises(DataError, match="where the source lies"):
        data_pack(source, tmp_path / "link", force=True)
    assert digests(tmp_path / "in") == before


def test_a_disk_without_room_is_said_before_anything_is_written(images, small_disk):
    with pytest.raises(DataError, match=r"0 MiB free; 30 patches need 1 MiB"):
        data_pack(images, small_disk / "out")
    assert list((small_disk / "out").iterdir()) == []


def test_a_disk_that_fills_up_meanwhile_leaves_the_old_files(images, small_disk, monkeypatch):
    subprocess.run(["mount", "-o", "remount,size=2m", small_disk], check=True)
    data_pack(images, small_disk / "out")
    before = digests(small_disk / "out")
    plenty = shutil.disk_usage("/")._replace(free=2**40)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: plenty)
    change_table(images, lambda table: table.assign(wsi="a"))
    (small_disk / "ballast").write_bytes(bytes(800_000))
    with pytest.raises(DataError, match=r"cannot write patches .*No space left on device"):
        data_pack(images, small_disk / "out", force=True)
    assert digests(small_disk / "out") == before


@pytest.mark.parametrize("limit", [1000, 100_000, 30 * 27_648])
def test_a_write_that_fails_leaves_nothing(images, tmp_path, limit):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(DataError, match="cannot write patches to"):
            data_pack(images, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error(images, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write patches to"):
        data_pack(images, tmp_path / "file" / "out")


@pytest.mark.parametrize("file", ["x", "y"])
def test_a_disk_that_stores_other_bytes_is_caught(images, tmp_path, monkeypatch, file):
    plain = pack_module._forget_cached

    def flip(path):
        plain(path)
        if file == "y":
            path = path.with_name(path.name.replace("_x.h5", "_y.h5"))
        content = bytearray(path.read_bytes())
        if file == "x":
            content[-1000] ^= 1  # one bit of the last patch
        else:
            with h5py.File(path) as labels:
                content[labels["y"].id.get_offset() + 3] ^= 1
        path.write_bytes(content)

    monkeypatch.setattr(pack_module, "_forget_cached", flip)
    with pytest.raises(DataError, match="read back differently"):
        data_pack(images, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("num_renames", [0, 1, 2, 3])
def test_a_kill_while_files_are_put_in_place_leaves_no_mixture(
    images, tmp_path, monkeypatch, num_renames
):
    """Whatever rename was the last, a reader finds the new patches with their labels, or none."""
    data_pack(images, tmp_path / "out")
    table = pd.read_csv(images / "labels.csv")[::-1].assign(wsi="a")
    table.to_csv(tmp_path / "new.csv", index=False)
    plain, left = os.replace, iter(range(num_renames))

    def replace(source, target):
        if next(left, None) is None:
            raise KeyboardInterrupt
        plain(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with contextlib.suppress(KeyboardInterrupt):
        data_pack(images, tmp_path / "out", labels=tmp_path / "new.csv", force=True)
    monkeypatch.undo()
    paths = split_paths(tmp_path / "out", "train")
    assert paths.y.exists() == (num_renames == 3)
    if paths.y.exists():
        data_pack(images, tmp_path / "new", labels=tmp_path / "new.csv")
        assert digests(tmp_path / "out") == digests(tmp_path / "new")
    assert not [p for p in (tmp_path / "out").iterdir() if p.name.startswith(".")]


def test_a_source_that_is_not_there_and_options_that_do_not_apply_are_refused(
    images, tmp_path, patches
):
    with pytest.raises(DataError, match="there is no file or folder"):
        data_pack(tmp_path / "absent", tmp_path / "out")
    with pytest.raises(DataError, match="is not an HDF5 file"):
        data_pack(images / "deep/030.png", tmp_path / "out")
    with pytest.raises(DataError, match="leave out --meta"):
        data_pack(images, tmp_path / "out", meta=images / "labels.csv")
    write_split(tmp_path / "in", "train", patches, LABELS)
    with pytest.raises(DataError, match="leave out --split"):
        data_pack(tmp_path / "in", tmp_path / "out", split="valid")
    change_table(images, lambda table: table.assign(split="train"))
    with pytest.raises(DataError, match="has a column split, and --split valid is given too"):
        data_pack(images, tmp_path / "out", split="valid")


def test_memory_does_not_grow_with_the_file(tmp_path, patches, monkeypatch):
    monkeypatch.setattr("ml_core.data.packing.source._BLOCK_BYTES", 5 * 96 * 96 * 3)
    largest = []
    plain = pack_module.hashlib.sha256

    def sha256(data):
        largest.append(len(data))
        return plain(data)

    monkeypatch.setattr(pack_module.hashlib, "sha256", sha256)
    path = store(tmp_path / "any.h5", np.tile(patches, (10, 1, 1, 1)), np.tile(LABELS, 10))
    data_pack(path, tmp_path / "out")
    assert len(largest) == 2 * 60 and max(largest) == 5
