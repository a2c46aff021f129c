"""Dividing a data set: no slide or patient in two splits, and shares as wanted as can be."""

import hashlib
import itertools
import json

import h5py
import numpy as np
import pandas as pd
import pytest
from tiny_pcam import write_split

from ml_core.data.checks import check_splits
from ml_core.data.layout import SPLITS, load_labels, split_paths
from ml_core.data.packing.patch_groups import find_groups
from ml_core.data.packing.split import assign_groups, assign_rows, describe_splits
from ml_core.data.patch_file import PatchFile
from ml_core.errors import DataError
from ml_core.pipeline.data_pack import data_pack
from ml_core.pipeline.data_split import data_split

WANTED = {"train": 0.7, "valid": 0.15, "test": 0.15}


def draw_slides(seed, num_slides=100, with_tumour=0.3):
    """Return (slide of each patch, label): very unequal slides, tumour in some of them."""
    rng = np.random.default_rng(seed)
    num = np.maximum(2, (rng.lognormal(0, 1.2, num_slides) * 100).astype(int))
    tumour = np.zeros(num_slides, int)
    chosen = rng.choice(num_slides, int(num_slides * with_tumour), replace=False)
    tumour[chosen] = np.maximum(1, num[chosen] * rng.beta(0.6, 1.2, len(chosen)))
    slides = np.repeat(np.arange(num_slides), num)
    labels = np.concatenate([np.arange(n) < t for n, t in zip(num, tumour, strict=True)])
    return np.char.mod("s%03d", slides), labels.astype(np.int64)


def worst_error(splits, groups, labels, wanted=WANTED):
    """Return the largest difference between reached and wanted share of a class."""
    return max(
        max(abs(each.share_negative - each.wanted), abs(each.share_positive - each.wanted))
        for each in describe_splits(splits, groups, labels, wanted)
    )


@pytest.mark.parametrize("seed", range(3))
def test_no_group_is_in_two_splits_and_shares_are_reached(seed):
    groups, labels = draw_slides(seed)
    splits = assign_groups(groups, labels, WANTED, seed)
    assert pd.Series(splits).groupby(groups).nunique().max() == 1
    assert worst_error(splits, groups, labels) < 0.005
    for each in describe_splits(splits, groups, labels, WANTED):
        assert abs(each.num_groups - 100 * each.wanted) <= 4
        assert each.num_patches == (splits == each.split).sum()
        assert each.num_positive == labels[splits == each.split].sum()


def test_the_shares_of_few_tumour_slides_are_as_near_as_any_division_comes():
    """By trying them all: 7 slides hold the tumour, 93 normal ones fill the rest up."""
    groups, labels = draw_slides(5, 100, 0.07)
    tumour = pd.Series(labels).groupby(groups).sum().to_numpy()
    share = tumour[tumour > 0] / tumour.sum()
    nearest = min(
        max(abs(share[np.array(a) == i].sum() - w) for i, w in enumerate(WANTED.values()))
        for a in itertools.product(range(3), repeat=len(share))
        if len(set(a)) == 3
    )
    reached = worst_error(assign_groups(groups, labels, WANTED), groups, labels)
    assert nearest - 1e-9 <= reached < nearest + 0.02


def test_the_division_follows_the_seed_and_not_the_order_of_rows():
    groups, labels = draw_slides(1)
    splits = assign_groups(groups, labels, WANTED, seed=3)
    order = np.random.default_rng(0).permutation(len(groups))
    assert np.array_equal(assign_groups(groups[order], labels[order], WANTED, 3), splits[order])
    assert not np.array_equal(assign_groups(groups, labels, WANTED, seed=4), splits)


def test_the_division_of_a_seed_stays_the_same_between_versions():
    groups = np.repeat([f"s{i:02d}" for i in range(30)], [1 + i * i % 17 for i in range(30)])
    labels = (np.arange(len(groups)) % 5 == 0).astype(np.int64)
    splits = assign_groups(groups, labels, WANTED, seed=3)
    assert list(np.unique(groups[splits == "valid"])) == ["s01", "s07", "s09", "s22"]


def test_every_split_has_both_classes_though_shares_would_be_nearer_without():
    """Three slides of 100 tumour patches each: a third is far from 15 %, but 0 is worse."""
    groups = np.repeat([f"s{i:02d}" for i in range(23)], 100)
    labels = np.zeros(len(groups), np.int64)
    labels[:300] = 1
    reached = describe_splits(assign_groups(groups, labels, WANTED), groups, labels, WANTED)
    assert [each.num_positive for each in reached] == [100, 100, 100]


def test_thousands_of_patients_take_no_time():
    groups = np.char.mod("p%05d", np.arange(6000) // 2)
    labels = (np.arange(6000) % 7 == 0).astype(np.int64)
    splits = assign_groups(groups, labels, WANTED)
    assert worst_error(splits, groups, labels) < 0.001


@pytest.mark.parametrize(
    ("groups", "labels", "said"),
    [
        (
            ["a", "b", "b"],
            [0, 1, 0],
            r"labelled 0 \(normal\) come from 2 of 2 groups, and each of t",
        ),
        (["a", "b", "c", "d"], [1, 1, 0, 0], r"labelled 0 \(normal\) come from 2 of 4"),
        (["a", "b", "c", "d"], [0, 0, 0, 1], r"labelled 1 \(tumour\) come from 1 of 4"),
        (["a", "b", "c", "d"], [0, 0, 0, 0], r"labelled 1 \(tumour\) come from 0 of 4"),
    ],
)
def test_too_few_groups_are_refused(groups, labels, said):
    with pytest.raises(DataError, match=said):
        assign_groups(np.array(groups), np.array(labels), WANTED)


def test_patches_one_by_one_are_divided_within_each_class():
    labels = (np.arange(1000) < 200).astype(np.int64)
    splits = assign_rows(labels, WANTED, seed=1)
    for each in describe_splits(splits, None, labels, WANTED):
        assert each.num_patches == 1000 * each.wanted
        assert each.num_positive == 200 * each.wanted
    assert not np.array_equal(assign_rows(labels, WANTED, seed=2), splits)
    with pytest.raises(DataError, match=r"test would hold .* 0 of them tumour"):
        assign_rows((np.arange(1000) < 2).astype(np.int64), WANTED)


# Groups


def table(**columns):
    return pd.DataFrame(columns, dtype=str)


def test_patients_are_taken_before_slides():
    meta = table(wsi=["s1", "s2", "s3"], patient=["p1", "p1", "p2"])
    assert find_groups(meta, None, "x")[0] == "patient"
    assert list(find_groups(meta, None, "x")[1]) == ["p1", "p1", "p2"]
    assert list(find_groups(meta, "wsi", "x")[1]) == ["s1", "s2", "s3"]
    assert find_groups(table(wsi=["s1"], patient=[""]), None, "x")[0] == "wsi"


@pytest.mark.parametrize(
    ("meta", "by", "said"),
    [
        (None, None, r"there is no meta csv.* share its stain.*--ungrouped"),
        (table(coord_x=["1"]), None, "neither wsi nor patient.*--ungrouped"),
        (table(wsi=["", ""]), None, "neither wsi nor patient"),
        (table(wsi=["s1"]), "patient", "has no patient; it has: wsi"),
        (table(wsi=["s1"]), "slide", "grouped by patient or wsi"),
        (table(wsi=["s1", "", ""]), None, "2 of 3 patches have no wsi, first row 1"),
        (
            table(wsi=["s1", "s1", "s2"], patient=["p1", "p2", "p2"]),
            None,
            "1 slides belong to several patients, first 's1' to p1, p2.*--by wsi",
        ),
    ],
)
def test_groups_that_are_not_known_are_refused(meta, by, said):
    with pytest.raises(DataError, match=said):
        find_groups(meta, by, "x.h5")


# The stage

NUM = 120
SLIDES = [f"s{i // 6:02d}" for i in range(NUM)]
LABELS = (np.arange(NUM) % 3 == 0).astype(np.int64)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A packed train split of 20 slides of 6 patches, 2 of them tumour, 10 patients."""
    folder = tmp_path_factory.mktemp("packed")
    patches = np.random.default_rng(0).integers(0, 256, (NUM, 32, 32, 3), dtype=np.uint8)
    write_split(folder, "train", patches, LABELS)
    patients = [f"p{i // 12}" for i in range(NUM)]
    meta = pd.DataFrame({"coord_x": range(NUM), "wsi": SLIDES, "patient": patients})
    meta.to_csv(split_paths(folder, "train").meta, index=False)
    return folder


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize("by", ["wsi", "patient", None])
def test_the_files_hold_what_the_table_of_splits_says(source, tmp_path, by):
    result = data_split(source, tmp_path / "out", by=by, seed=5)
    rows = pd.read_csv(tmp_path / "out" / "splits.csv")
    assert list(rows) == ["row", "group", "label", "split"]
    assert np.array_equal(rows["row"], np.arange(NUM)) and np.array_equal(rows["label"], LABELS)
    assert rows.groupby("group")["split"].nunique().max() == 1
    assert list(rows["group"][:13:12]) == (["s00", "s02"] if by == "wsi" else ["p0", "p1"])
    everything = PatchFile(split_paths(source, "train").x).read(np.arange(NUM))
    for split in SPLITS:
        here = np.flatnonzero(rows["split"] == split)
        paths = split_paths(tmp_path / "out", split)
        file = PatchFile(paths.x)
        assert file.is_flat and file.is_bytes
        assert np.array_equal(file.read(np.arange(len(file))), everything[here])
        assert np.array_equal(load_labels(paths.y), LABELS[here])
        assert list(pd.read_csv(paths.meta)["coord_x"]) == list(here)
        assert result["splits"][split]["num_patches"] == len(here)
    assert result["by"] == (by or "patient")
    assert json.loads(json.dumps(result))["splits"]["valid"]["wanted"] == 0.15
    assert len(check_splits(tmp_path / "out", SPLITS, patch_size=None)) == 3


def test_the_same_seed_gives_the_same_files(source, tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        data_split(source, tmp_path / name, by="wsi", seed=seed)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert digests(tmp_path / "a")["splits.csv"] != digests(tmp_path / "c")["splits.csv"]


def test_a_split_that_is_not_wanted_is_not_made(source, tmp_path):
    result = data_split(source, tmp_path / "out", valid=0.25, test=0)
    assert set(result["splits"]) == {"train", "valid"}
    assert len(list((tmp_path / "out").iterdir())) == 7


def test_an_older_division_is_kept_unless_forced_and_never_mixed_with_the_new(source, tmp_path):
    data_split(source, tmp_path / "out")
    before = digests(tmp_path / "out")
    with pytest.raises(DataError, match=r"is there already.*--force"):
        data_split(source, tmp_path / "out", seed=1)
    with pytest.raises(DataError, match="holds files of test that this division does not make"):
        data_split(source, tmp_path / "out", test=0, force=True)
    assert digests(tmp_path / "out") == before
    data_split(source, tmp_path / "out", seed=1, by="wsi", force=True)
    assert digests(tmp_path / "out") != before
    for path in (tmp_path / "out").glob("camelyonpatch*"):
        path.unlink()
    with pytest.raises(DataError, match=r"splits\.csv is there already"):
        data_split(source, tmp_path / "out")


def test_a_division_that_fails_keeps_the_old_one_whole(source, tmp_path, monkeypatch):
    data_split(source, tmp_path / "out")
    before = digests(tmp_path / "out")

    def fail(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ml_core.data.packing.pack._forget_cached", fail)
    with pytest.raises(DataError, match="No space left on device"):
        data_split(source, tmp_path / "out", seed=1, force=True)
    assert digests(tmp_path / "out") == before


def test_one_by_one_only_on_request_and_with_a_warning(source, tmp_path, caplog):
    split_paths(source, "train")
    bare = tmp_path / "bare"
    patches = PatchFile(split_paths(source, "train").x).read(np.arange(NUM))
    write_split(bare, "train", patches, LABELS)
    with pytest.raises(DataError, match=r"there is no meta csv.*--ungrouped"):
        data_split(bare, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    data_split(bare, tmp_path / "out", ungrouped=True)
    assert "scores will be too good for a new slide" in caplog.text
    assert pd.read_csv(tmp_path / "out" / "splits.csv")["group"].isna().all()


def test_a_slide_with_most_of_the_tumour_is_named(tmp_path, caplog):
    patches = np.random.default_rng(0).integers(0, 256, (NUM, 32, 32, 3), dtype=np.uint8)
    labels = np.zeros(NUM, np.int64)
    labels[[0, 1, 2, 3, 4, 5, 6, 12]] = 1
    write_split(tmp_path / "in", "train", patches, labels)
    meta = tmp_path / "meta.csv"
    pd.DataFrame({"wsi": SLIDES}).to_csv(meta, index=False)
    data_split(tmp_path / "in", tmp_path / "out", valid=0.3, test=0.3, meta=meta)
    assert "train has 75.0 % of the tumour patches where 40.0 % were wanted" in caplog.text
    assert "The largest, s00, holds 75.0 % of them alone" in caplog.text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"valid": 0.5, "test": 0.5}, "leave 0 for train"),
        ({"valid": -0.1}, "Allowed: shares from 0"),
        ({"valid": 0, "test": 0}, "leave 1 for train"),
        ({"valid": float("nan")}, "Allowed: shares"),
        ({"ungrouped": True, "by": "wsi"}, "contradict each other"),
        ({"seed": -1}, "seeds are 0 or more"),
        ({"by": "hospital"}, "grouped by patient or wsi"),
        ({"source_split": "val"}, "unknown split 'val'"),
        ({"source_split": "test"}, "is missing"),
    ],
)
def test_options_that_make_no_sense_are_refused(source, tmp_path, options, said):
    with pytest.raises(DataError, match=said):
        data_split(source, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_sources_that_cannot_be_divided_are_refused(source, tmp_path):
    with pytest.raises(DataError, match="where the source lies"):
        data_split(source, source, force=True)
    with pytest.raises(DataError, match=r"holds none of PCam's files.*data pack"):
        data_split(tmp_path, tmp_path / "out")
    data_split(source, tmp_path / "divided")
    with pytest.raises(DataError, match=r"holds train, valid, test already.*--source-split train"):
        data_split(tmp_path / "divided", tmp_path / "out")
    data_split(tmp_path / "divided", tmp_path / "out", source_split="train", test=0)
    paths = split_paths(tmp_path / "floats", "train")
    paths.x.parent.mkdir()
    for before, after in zip(
        (split_paths(source, "train").y, split_paths(source, "train").meta),
        (paths.y, paths.meta),
        strict=True,
    ):
        after.write_bytes(before.read_bytes())
    with h5py.File(split_paths(source, "train").x) as file, h5py.File(paths.x, "w") as new:
        new["x"] = file["x"][...].astype(np.float32)
    with pytest.raises(DataError, match=r"holds float32.*Pack it first: ml-core data pack"):
        data_split(tmp_path / "floats", tmp_path / "other")


def test_images_are_packed_and_divided_by_the_slides_of_their_csv(source, tmp_path):
    from PIL import Image

    patches = PatchFile(split_paths(source, "train").x).read(np.arange(NUM))
    (tmp_path / "images").mkdir()
    for row, patch in enumerate(patches):
        Image.fromarray(patch).save(tmp_path / "images" / f"{row}.png")
    names = [f"{row}.png" for row in range(NUM)]
    csv = pd.DataFrame({"file": names, "label": LABELS, "slide": SLIDES})
    csv.to_csv(tmp_path / "images" / "labels.csv", index=False)
    data_pack(tmp_path / "images", tmp_path / "packed")
    data_split(tmp_path / "packed", tmp_path / "by_image", seed=5)
    data_split(source, tmp_path / "by_file", by="wsi", seed=5)
    for split in SPLITS:
        a, b = (split_paths(tmp_path / name, split) for name in ("by_image", "by_file"))
        assert a.x.read_bytes() == b.x.read_bytes() and a.y.read_bytes() == b.y.read_bytes()


def test_patches_without_a_slide_do_not_tie_patients_together():
    meta = table(wsi=["s1", "", ""], patient=["p1", "p2", "p3"])
    assert list(find_groups(meta, None, "x")[1]) == ["p1", "p2", "p3"]


def test_patches_divided_one_by_one_follow_the_seed(source, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        data_split(source, tmp_path / name, ungrouped=True, seed=seed)
    rows = [(tmp_path / name / "splits.csv").read_text() for name in "abc"]
    assert rows[0] == rows[1] != rows[2]


def test_dividing_patches_one_by_one_needs_each_class_in_each_split():
    with pytest.raises(DataError):
        assign_rows((np.arange(1000) >= 2).astype(np.int64), WANTED, seed=0)
