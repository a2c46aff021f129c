"""`ml-core audit`, from files to files: what is planted is found, and no damage is a traceback."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
from tiny_pcam import rewrite_train, write_config, write_split

from ml_core import cli
from ml_core.audit import examine, run_checks
from ml_core.audit.files import AuditDir, AuditRecord, exclusions_of
from ml_core.audit.reader import PatchReader
from ml_core.data.exclusions import load_exclusions
from ml_core.data.layout import split_paths
from ml_core.data.patch_file import PatchFile, evenly_spaced
from ml_core.data.synthetic import write_synthetic
from ml_core.errors import DataError
from ml_core.findings import SEVERITIES, Finding
from ml_core.pipeline.audit import audit

SHARED = Path(__file__).resolve().parents[2] / "shared" / "pcam"


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic")
    write_synthetic(folder, 120, 60, 60)
    return folder


@pytest.fixture
def folder(synthetic, tmp_path):
    return Path(shutil.copytree(synthetic, tmp_path / "data"))


@pytest.fixture
def as_nobody(synthetic, tmp_path):
    """Be a user who may not read everything; gives a folder that such a user can write in."""
    folder = Path(tempfile.mkdtemp())
    if os.geteuid() != 0:
        yield folder
        shutil.rmtree(folder)
        return
    audit(synthetic, tmp_path / "first")  # so that Python, in root's home, has loaded all it needs
    folder.chmod(0o777)
    nobody = 65534
    os.seteuid(nobody)
    try:
        yield folder
    finally:
        os.seteuid(0)
        shutil.rmtree(folder)


@pytest.fixture
def without_page(monkeypatch):
    """The page takes most of the time of a small audit, and has tests of its own."""
    monkeypatch.setattr("ml_core.pipeline.audit.render_audit", lambda *_: None)


def ids(result, severity=None):
    return [f["id"] for f in result["findings"] if severity in (None, f["severity"])]


def record_of(result):
    return AuditRecord.load(AuditDir(Path(result["audit"])))


def test_synthetic_patches_have_no_errors_and_all_files_are_written(folder):
    result = audit(folder)
    assert ids(result, "error") == [] and not result["failed"]
    written = folder / "audit"
    assert {p.name for p in written.iterdir()} == {
        "audit.html", "audit.json", "exclusions.csv", "patches.parquet", "figures",
    }  # fmt: skip
    table = pd.read_parquet(written / "patches.parquet")
    assert table["split"].value_counts().to_dict() == {"train": 120, "valid": 60, "test": 60}
    assert {"content_hash", "perceptual_hash", "mean_r", "focus", "eosin", "flags"} <= {*table}
    assert "<h1" in (written / "audit.html").read_text()
    assert any((written / "figures").iterdir())


@pytest.mark.usefixtures("without_page")
def test_the_same_bytes_give_the_same_findings(folder, tmp_path):
    first, second = (record_of(audit(folder, tmp_path / name)) for name in ("a", "b"))
    assert first.findings == second.findings and first.splits == second.splits
    same = [(tmp_path / name / "patches.parquet").read_bytes() for name in ("a", "b")]
    assert same[0] == same[1]


def test_planted_damage_is_found_row_by_row_and_listed_for_exclusion(folder):
    def damage(patches):
        patches[3], patches[4], patches[7] = 0, 255, patches[8]
        patches[5, 0, 0, 0] = np.nan
        patches[6, 10:15, 20:25] = 1e5

    rewrite_train(folder, damage)
    result = audit(folder)
    assert set(ids(result, "error")) == {"black", "white", "non-finite", "out-of-range"}
    assert {"bytes-wasted", "dtype-differs", "exact-duplicates"} <= set(ids(result, "warning"))
    assert result["failed"]
    excluded = load_exclusions(folder / "audit" / "exclusions.csv")
    assert set(excluded["train"]) >= {3, 4, 5, 6, 8} and len(excluded["train"]) == 5
    table = pd.read_parquet(folder / "audit" / "patches.parquet").set_index(["split", "index"])
    assert table["flags"][("train", 5)] == "non-finite"
    splits = record_of(result).splits
    assert splits["train"]["num_excluded"] == 5 and splits["train"]["dtype"] == "float32"


@pytest.mark.skipif(not (SHARED / "poison.py").is_file(), reason=f"{SHARED} is absent")
@pytest.mark.usefixtures("without_page")
def test_every_damage_of_the_poisoned_set_is_found_and_nothing_else(real_pcam, tmp_path):
    small, poisoned = tmp_path / "small", tmp_path / "poisoned"
    for split, step in (("train", 10), ("valid", 5), ("test", 5)):
        paths = split_paths(real_pcam, split)
        with h5py.File(paths.x) as x, h5py.File(paths.y) as y:
            write_split(small, split, x["x"][::step], y["y"][::step])
    script = [sys.executable, str(SHARED / "poison.py"), str(small), str(poisoned)]
    subprocess.run(script, check=True, capture_output=True)
    result = audit(poisoned)
    truth = pd.read_csv(poisoned / "truth.csv", keep_default_na=False)  # a kind is called nan
    found = {f.id: set(f.indices) for f in record_of(result).findings if f.split == "train"}
    names = {"black": "black", "white": "white", "nan": "non-finite", "block_1e5": "out-of-range"}
    for kind, id_ in names.items():
        assert found[id_] == set(truth["index"][truth["kind"] == kind])
    assert set(ids(result, "error")) == set(names.values())
    assert {"dtype-differs", "bytes-wasted", "class-imbalance", "label-shift"} <= set(
        ids(result, "warning")
    )


@pytest.mark.usefixtures("without_page")
def test_a_quick_audit_looks_at_a_sample_says_so_and_leaves_the_full_one_alone(folder, monkeypatch):
    full = audit(folder)
    monkeypatch.setattr("ml_core.audit.examine.QUICK_PATCHES", 50)
    quick = audit(folder, quick=True)
    assert (full["mode"], quick["mode"]) == ("full", "quick")
    assert quick["audit"] == str(folder / "audit" / "quick")
    record = record_of(quick)
    assert record.splits["train"]["num_examined"] == 50
    assert record.splits["train"]["num_rows"] == 120
    assert "near duplicates" in [each["check"] for each in record.not_checked]
    assert record_of(full).mode == "full"


BAD_TRAIN = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not hdf5"),
    "cut in the middle": lambda path: os.truncate(path, path.stat().st_size // 2),
    "cut in the header": lambda path: os.truncate(path, 1000),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "missing": lambda path: path.unlink(),
    "standardised": lambda path: rewrite_train(path.parent, standardise),
    "in no known range": lambda path: rewrite_train(path.parent, lambda x: x.__imul__(40)),
}


def standardise(patches):
    patches -= patches.mean()
    patches /= patches.std()


@pytest.mark.parametrize("how", BAD_TRAIN)
@pytest.mark.usefixtures("without_page")
def test_a_split_that_cannot_be_read_is_an_error_in_words_and_the_others_are_audited(folder, how):
    path = split_paths(folder, "train").x
    BAD_TRAIN[how](path)
    result = audit(folder)
    (error,) = [f for f in result["findings"] if f["severity"] == "error"]
    assert error["id"] in ("unreadable", "value-range") and error["split"] == "train"
    assert path.name in error["message"]
    assert set(record_of(result).splits) == {"valid", "test"}
    if how == "standardised":
        assert "as standardised values do" in error["message"]


@pytest.mark.usefixtures("without_page")
def test_files_that_may_not_be_read_are_errors_in_words(as_nobody):
    folder = as_nobody / "data"
    write_synthetic(folder, 40, 20, 20)
    denied = [split_paths(folder, "train").x, split_paths(folder, "valid").y]
    for path in denied:
        path.chmod(0)
    result = audit(folder)
    errors = {f["id"]: f for f in result["findings"] if f["severity"] == "error"}
    assert set(errors) == {"unreadable", "labels-unusable"}
    for error, path in zip(errors.values(), denied, strict=True):
        assert path.name in error["message"] and "Permission denied" in error["message"]
    assert set(record_of(result).splits) == {"valid", "test"}


BAD_LABELS = {
    "cut": lambda path: os.truncate(path, 100),
    "missing": lambda path: path.unlink(),
    "of another split": lambda path: shutil.copy(split_paths(path.parent, "valid").y, path),
}


@pytest.mark.parametrize("how", BAD_LABELS)
@pytest.mark.usefixtures("without_page")
def test_without_usable_labels_the_patches_are_still_audited(folder, how):
    BAD_LABELS[how](split_paths(folder, "train").y)
    result = audit(folder)
    assert "labels-unusable" in ids(result, "error")
    assert record_of(result).splits["train"]["num_unlabelled"] == 120


@pytest.mark.usefixtures("without_page")
def test_a_bad_meta_csv_is_a_warning_and_its_slides_are_unknown(folder):
    split_paths(folder, "train").meta.write_text("coord_x,coord_y\n1,2\n")
    result = audit(folder)
    assert "meta-unusable" in ids(result, "warning") and "slides-unknown" in ids(result, "info")


@pytest.mark.usefixtures("without_page")
def test_a_file_that_vanishes_while_it_is_read_is_a_finding(folder, monkeypatch):
    import ml_core.audit.measure as measure

    monkeypatch.setattr(measure, "_READ_BYTES", 10 * 96 * 96 * 3)
    path = split_paths(folder, "train").x
    real_measure = measure._measure

    def vanish(file, raw, measures):
        path.unlink(missing_ok=True)
        return real_measure(file, raw, measures)

    monkeypatch.setattr(measure, "_measure", vanish)
    result = audit(folder)
    (error,) = [f for f in result["findings"] if f["severity"] == "error"]
    assert "was deleted or replaced" in error["message"]


@pytest.mark.usefixtures("without_page")
def test_patches_of_another_size_are_an_error(folder):
    write_split(folder, "test", np.zeros((4, 64, 64, 3), np.uint8), np.array([0, 1, 0, 1]))
    split_paths(folder, "test").meta.unlink()
    result = audit(folder)
    assert "patch-size-differs" in ids(result, "error")
    assert set(record_of(result).splits) == {"train", "valid"}


@pytest.mark.parametrize("num", [1, 2, 5])
@pytest.mark.parametrize("what", ["noise", "all alike", "of one class"])
def test_tiny_and_degenerate_splits_are_audited_without_a_word_on_stderr(
    tmp_path, num, what, capsys, recwarn
):
    levels = np.random.default_rng(0).integers(0, 256, (num, 96, 96, 3), dtype=np.uint8)
    if what == "all alike":
        levels[:] = levels[0]
    labels = np.zeros(num, np.int64) if what == "of one class" else np.arange(num) % 2
    write_split(tmp_path / "data", "train", levels, labels)
    audit(tmp_path / "data")
    assert capsys.readouterr().err == ""
    assert [str(warning.message) for warning in recwarn] == []


def test_a_folder_without_splits_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no split"):
        audit(tmp_path)
    with pytest.raises(DataError, match="no split can be read"):
        split_paths(tmp_path, "train").x.write_text("x")
        audit(tmp_path)


@pytest.mark.usefixtures("without_page")
def test_what_lies_in_the_output_folder_is_left_alone(folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "probe").write_text("precious")
    audit(folder, tmp_path / "out", quick=True)
    assert (tmp_path / "out" / "probe").read_text() == "precious"


@pytest.mark.usefixtures("without_page")
def test_a_quick_audit_does_not_replace_a_full_one(folder, tmp_path):
    audit(folder, tmp_path / "out")
    with pytest.raises(DataError, match="holds a full audit"):
        audit(folder, tmp_path / "out", quick=True)


def test_wrong_paths_are_refused_in_words_and_nothing_is_made(tmp_path):
    with pytest.raises(DataError, match="nowhere does not exist"):
        audit(tmp_path / "nowhere")
    (tmp_path / "x.h5").write_bytes(b"")
    with pytest.raises(DataError, match="is a file; give the folder it is in"):
        audit(tmp_path / "x.h5")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no split"):
        audit(tmp_path / "empty")
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_folder_that_may_not_be_entered_is_refused_in_words(as_nobody):
    (as_nobody / "data").mkdir()
    (as_nobody / "data").chmod(0)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        audit(as_nobody / "data")
    (as_nobody / "data").chmod(0o777)


@pytest.mark.usefixtures("without_page")
@pytest.mark.parametrize("side", [1, 8, 31])
def test_patches_too_small_to_hold_the_centre_are_an_error(folder, side):
    patches = np.zeros((4, side, side, 3), np.uint8)
    write_split(folder, "train", patches, np.array([0, 1, 0, 1]))
    split_paths(folder, "train").meta.unlink()
    result = audit(folder)
    (error,) = [f for f in result["findings"] if f["severity"] == "error"]
    assert error["id"] == "patch-too-small"
    assert f"{side} x {side} pixels; at least 32 x 32" in error["message"]


@pytest.mark.usefixtures("without_page")
def test_a_quick_audit_finds_exact_copies_too(folder):
    def repeat(patches):
        patches[:30] = patches[30:60]

    rewrite_train(folder, repeat)
    assert "exact-duplicates" in ids(audit(folder, quick=True), "warning")


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(folder, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(DataError, match=r"cannot write in .*Name another folder: --out DIR"):
        audit(folder, blocked / "audit")


def run_cli(*arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return ended.value.code


@pytest.mark.usefixtures("without_page")
def test_the_exit_code_follows_fail_on(folder, capsys):
    assert run_cli("audit", folder) in (0, None)
    rewrite_train(folder, lambda patches: patches[:2].fill(255))
    assert run_cli("audit", folder, "--json") == 3
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "white" in ids(printed, "error")
    rewrite_train(folder, lambda patches: None)


@pytest.mark.usefixtures("without_page")
def test_fail_on_warning_exits_with_3_where_error_does_not(folder):
    def repeat(patches):
        patches[1] = patches[0]

    rewrite_train(folder, repeat)
    assert run_cli("audit", folder, "--fail-on", "error") in (0, None)
    assert run_cli("audit", folder, "--fail-on", "warning") == 3
    assert run_cli("audit", folder, "--fail-on", "nothing") in (0, None)


@pytest.mark.usefixtures("without_page")
def test_a_config_names_the_data_and_the_place_of_its_audit(folder, tmp_path):
    config = write_config(tmp_path / "c.yaml", folder, data={"audit_dir": str(tmp_path / "here")})
    assert audit(config, quick=True)["audit"] == str(tmp_path / "here" / "quick")
    with pytest.raises(DataError, match="--set changes a config"):
        audit(folder, overrides=["seed=1"])


@pytest.mark.usefixtures("without_page")
def test_an_audit_of_another_version_or_a_damaged_one_is_refused_in_words(folder):
    place = AuditDir(Path(audit(folder, quick=True)["audit"]))
    raw = json.loads(place.record_path.read_text())
    place.record_path.write_text(json.dumps({**raw, "format": 99}))
    with pytest.raises(DataError, match="no audit that this version can read"):
        AuditRecord.load(place)
    place.record_path.write_text(json.dumps({**raw, "mode": "slow"}))
    with pytest.raises(DataError, match="is not an audit: mode"):
        AuditRecord.load(place)
    place.record_path.write_text("{")
    with pytest.raises(DataError, match=r"is damaged: .*Audit again"):
        AuditRecord.load(place)
    place.record_path.write_text("[]")
    with pytest.raises(DataError, match="no audit that this version can read"):
        AuditRecord.load(place)
    place.record_path.unlink()
    with pytest.raises(DataError, match=r"cannot be read: .*No such file"):
        AuditRecord.load(place)


@pytest.mark.usefixtures("without_page")
def test_every_check_is_given_the_measurements_of_its_own_patches(folder, monkeypatch):
    with h5py.File(split_paths(folder, "train").x, "r+") as file:
        for row in (0, 1, 50):
            file["x"][row] = 0
        levels = file["x"][...]
    sound = np.setdiff1d(np.arange(240), [0, 1, 50])
    real_checks, given = examine.run_checks, {}

    def numbered(patches, *, aside, **rest):
        """Give each patch its position in the table as descriptors and as features."""
        position = np.arange(len(patches), dtype=np.float32)
        return real_checks(
            patches, aside={name: np.stack([position] * 2, axis=1) for name in aside}, **rest
        )

    def near(patches, descriptors, read):
        given["near"] = descriptors[:, 0]
        np.testing.assert_array_equal(read(np.arange(120)), levels)
        return []

    def rank(patches, features):
        given["rank"] = features[:, 0]
        return SimpleNamespace(prob_given=features[:, 0])

    monkeypatch.setattr(examine, "run_checks", numbered)
    monkeypatch.setattr(run_checks, "check_near_duplicates", near)
    monkeypatch.setattr(run_checks, "rank_patches", rank)
    monkeypatch.setattr(run_checks, "check_label_errors", lambda *_: [])
    monkeypatch.setattr(
        run_checks,
        "check_disagreeing_groups",
        lambda patches, features: given.update(groups=features[:, 0]) or [],
    )
    audit(folder)
    np.testing.assert_array_equal(given["near"], np.arange(240))  # it leaves out by itself
    for name in ("rank", "groups"):
        np.testing.assert_array_equal(given[name], sound, err_msg=name)
    belief = pd.read_parquet(folder / "audit" / "patches.parquet")["label_belief"].to_numpy()
    assert np.flatnonzero(np.isnan(belief)).tolist() == [0, 1, 50]
    np.testing.assert_array_equal(belief[sound], sound)


@pytest.mark.usefixtures("without_page")
def test_flags_and_counts_are_those_of_the_patches_own_split(folder):
    with h5py.File(split_paths(folder, "valid").x, "r+") as file:
        file["x"][5] = 0
    splits = record_of(audit(folder)).splits
    table = pd.read_parquet(folder / "audit" / "patches.parquet").set_index(["split", "index"])
    assert "black" in table["flags"][("valid", 5)].split()
    assert "black" not in " ".join(table["flags"].drop(("valid", 5))).split()
    assert {split: each["num_excluded"] for split, each in splits.items()} == {
        "train": 0, "valid": 1, "test": 0,
    }  # fmt: skip
    for split, each in splits.items():
        assert each["num_flagged"] == (table["flags"][split] != "").sum()


@pytest.mark.usefixtures("without_page")
def test_a_quick_audit_knows_the_label_and_slide_of_each_patch_of_its_sample(folder, monkeypatch):
    monkeypatch.setattr("ml_core.audit.examine.QUICK_PATCHES", 25)
    labels = {split: np.random.default_rng(0).integers(0, 2, 60) for split in ("valid", "test")}
    for split in labels:
        with h5py.File(split_paths(folder, split).y, "w") as file:
            file["y"] = labels[split]
        meta = pd.read_csv(split_paths(folder, split).meta)
        meta.assign(wsi=[f"{split} {i}" for i in range(60)]).drop(
            columns=["tumor_patch", "center_tumor_patch"], errors="ignore"
        ).to_csv(split_paths(folder, split).meta, index=False)
    result = audit(folder, quick=True)
    table = pd.read_parquet(Path(result["audit"]) / "patches.parquet")
    for split in labels:
        here = table[table["split"] == split]
        assert here["index"].max() >= 57
        np.testing.assert_array_equal(here["label"], labels[split][here["index"]])
        assert here["slide"].tolist() == [f"{split} {i}" for i in here["index"]]
    splits = record_of(result).splits
    assert splits["valid"]["x_sha256"] is None  # hashing takes longer than a quick audit
    assert splits["valid"]["num_positive"] == labels["valid"].sum()  # of all, not of the sample


@pytest.mark.usefixtures("without_page")
def test_what_was_not_checked_is_said_of_the_splits_it_is_true_of(folder):
    for path in (split_paths(folder, "test").x, split_paths(folder, "test").y):
        path.unlink()
    split_paths(folder, "valid").meta.unlink()
    assert record_of(audit(folder)).not_checked == [
        {"check": "test", "why": "there is no file of it that can be read"},
        {"check": "slides", "why": "no meta csv names the slides of valid"},
    ]


def test_an_audit_whose_page_cannot_be_made_leaves_none_that_looks_whole(folder, monkeypatch):
    place = AuditDir(Path(audit(folder, quick=True)["audit"]))
    assert place.record_path.exists() and place.page_path.exists()

    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("ml_core.pipeline.audit.render_audit", fail)
    with pytest.raises(ZeroDivisionError):
        audit(folder, quick=True)
    assert not place.record_path.exists() and not place.page_path.exists()


def test_a_patch_with_several_faults_is_listed_once_with_each_of_them():
    def finding(id_, split, *rows, exclude=True):
        return Finding(id_, "error", "", split=split, indices=rows, exclude=exclude)

    findings = [
        finding("exact-duplicates", "valid", 9, 4),
        finding("black", "train", 7),
        finding("out-of-focus", "train", 3, exclude=False),
        finding("exact-duplicates", "train", 2, 7),
        finding("exact-duplicates", "train", 2),
    ]
    assert list(exclusions_of(findings)) == [
        ("train", 2, "exact-duplicates"),
        ("train", 7, "black exact-duplicates"),
        ("valid", 4, "exact-duplicates"),
        ("valid", 9, "exact-duplicates"),
    ]


def test_a_long_list_of_patches_is_read_again_piece_by_piece(tmp_path):
    patches = np.random.default_rng(0).integers(0, 256, (600, 8, 8, 3), dtype=np.uint8)
    write_split(tmp_path, "valid", patches, np.zeros(600, int))
    files = {"valid": PatchFile(split_paths(tmp_path, "valid").x)}
    table = pd.DataFrame({"split": "valid", "index": np.arange(598, -1, -2)})
    read = PatchReader(files, table)
    np.testing.assert_array_equal(read(np.arange(299, -1, -1)), patches[::2])
    np.testing.assert_array_equal(read.at("valid", np.arange(600)), patches)


@pytest.mark.usefixtures("without_page")
def test_the_worst_findings_come_first(folder):
    with h5py.File(split_paths(folder, "test").x, "r+") as file:
        file["x"][5] = 0
    found = [finding.severity for finding in record_of(audit(folder, quick=True)).findings]
    assert len(set(found)) > 1 and found == sorted(found, key=SEVERITIES.index)


@pytest.mark.usefixtures("without_page")
def test_patches_of_another_width_are_an_error(folder):
    write_split(folder, "test", np.zeros((4, 96, 64, 3), np.uint8), np.array([0, 1, 0, 1]))
    split_paths(folder, "test").meta.unlink()
    assert "patch-size-differs" in ids(audit(folder, quick=True), "error")


@pytest.mark.usefixtures("without_page")
def test_a_quick_audit_counts_the_labels_of_all_patches(folder, monkeypatch):
    monkeypatch.setattr("ml_core.audit.examine.QUICK_PATCHES", 25)
    labels = np.ones(60, int)
    labels[np.setdiff1d(np.arange(60), evenly_spaced(60, 25))[7]] = 0
    with h5py.File(split_paths(folder, "valid").y, "w") as file:
        file["y"] = labels
    assert "class-missing" not in ids(audit(folder, quick=True))
