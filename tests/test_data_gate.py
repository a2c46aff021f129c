"""What an audit's errors do to a training: refuse it, leave patches out, or be written down."""

import dataclasses

import h5py
import numpy as np
import pytest
from tiny_pcam import rewrite_train, write_config, write_split, write_tiny_pcam

from ml_core.audit.files import AuditDir
from ml_core.config import Config
from ml_core.data.checks import hash_file
from ml_core.data.exclusions import load_exclusions, write_exclusions
from ml_core.data.layout import split_paths
from ml_core.data.pcam import PCAMDataset
from ml_core.data.versions.official import OFFICIAL_FILES
from ml_core.errors import DataError, RunError
from ml_core.pipeline.audit import audit
from ml_core.pipeline.data_stage import data_stage
from ml_core.pipeline.evaluate import evaluate
from ml_core.pipeline.parts.data_gate import pass_gate
from ml_core.pipeline.report import report
from ml_core.pipeline.train import resume, train
from ml_core.runs import RunDir, RunRecord, read_json

DAMAGED = (0, 1, 7, 30)


@pytest.fixture(autouse=True)
def _without_page(monkeypatch):
    monkeypatch.setattr("ml_core.pipeline.audit.render_audit", lambda *_: None)


@pytest.fixture
def folder(tmp_path):
    return write_tiny_pcam(tmp_path / "data")


@pytest.fixture
def damaged(folder):
    def damage(patches):
        patches[DAMAGED[0]], patches[DAMAGED[1]] = 0, 255
        patches[DAMAGED[2], 5, 5] = np.nan
        patches[DAMAGED[3], :5, :5] = 1e5

    rewrite_train(folder, damage)
    return folder


def config_of(folder, **data):
    return Config.load(write_config(folder.parent / "c.yaml", folder, data=data))


def train_once(folder, **data):
    result = train(config_of(folder, **data), command="test")
    run = RunDir.open(result["runs"][0]["run"])
    return run, RunRecord.load(run)


def test_without_an_audit_a_quick_one_is_made_kept_and_named_in_the_record(folder):
    run, record = train_once(folder)
    place = AuditDir(folder / "audit" / "quick")
    assert record.audit["mode"] == "quick" and record.audit["policy"] == "refuse"
    assert record.audit["path"] == str(place.path)
    assert record.audit["sha256"] == hash_file(place.record_path) == hash_file(run.audit_path)
    assert "near duplicates" in record.audit["not_checked"]
    written = place.record_path.stat().st_mtime_ns
    train_once(folder)
    assert place.record_path.stat().st_mtime_ns == written  # found, not made again


def test_a_full_audit_of_these_bytes_is_taken_before_a_quick_one(folder):
    audit(folder)
    _, record = train_once(folder)
    assert record.audit["mode"] == "full" and not (folder / "audit" / "quick").exists()


def test_an_audit_of_other_bytes_does_not_count(folder):
    audit(folder)
    labels = np.arange(96) % 2
    labels[:2] = labels[1::-1]
    with h5py.File(split_paths(folder, "train").y, "w") as file:
        file["y"] = labels
    assert train_once(folder)[1].audit["mode"] == "quick"


def test_errors_refuse_the_training_name_themselves_and_say_what_to_do(damaged):
    with pytest.raises(DataError) as refused:
        train_once(damaged)
    text = str(refused.value)
    assert "nothing is trained, the audit found 4 errors." in text
    for part in ("NaN or infinite", "outside the file's range", "entirely black"):
        assert part in text
    assert f"ml-core audit {damaged}" in text and "data.on_findings=exclude" in text
    assert not (damaged.parent / "runs").exists()


def test_after_a_full_audit_the_refusal_points_to_its_list(damaged):
    audit(damaged)
    with pytest.raises(DataError, match=r"--set data\.on_findings=exclude"):
        train_once(damaged)


def test_errors_in_a_split_that_is_not_used_do_not_refuse(folder):
    write_split(folder, "test", np.zeros((8, 96, 96, 3), np.uint8), np.arange(8) % 2)
    assert train_once(folder)[1].status == "completed"


def test_exclude_leaves_the_listed_patches_out_everywhere(damaged, monkeypatch):
    audit(damaged)
    seen = []
    real_init = PCAMDataset.__init__

    def note(self, *args, **kwargs):
        real_init(self, *args, **kwargs)
        seen.append(self)

    monkeypatch.setattr(PCAMDataset, "__init__", note)
    run, record = train_once(damaged, on_findings="exclude")
    train_set = seen[0]
    assert not set(DAMAGED) & set(train_set.indices) and len(train_set) == 96 - len(DAMAGED)
    assert len(train_set.labels) == len(train_set)
    assert record.data["train"]["num_excluded"] == len(DAMAGED)
    assert record.data["train"]["num_patches"] == 96 - len(DAMAGED)
    assert load_exclusions(run.exclusions_path)["train"].tolist() == list(DAMAGED)
    assert record.audit["policy"] == "exclude" and len(record.audit["exclusions_sha256"]) == 64


def test_a_run_keeps_its_own_list_whatever_becomes_of_the_audit(damaged):
    audit(damaged)
    run, record = train_once(damaged, on_findings="exclude")
    write_exclusions(damaged / "audit" / "exclusions.csv", [("train", 50, "mine")])
    assert evaluate(run.path, "train")["metrics"]["roc_auc"]["value"] is not None
    record.status = "interrupted"
    record.save(run)
    longer = run.config_path.read_text().replace("epochs: 2", "epochs: 3")
    run.config_path.write_text(longer)
    assert resume(run.path, command="test")["status"] == "completed"


def test_exclude_without_a_full_audit_is_refused(damaged):
    with pytest.raises(DataError, match=f"looks at a sample. First: ml-core audit {damaged}"):
        train_once(damaged, on_findings="exclude")


def test_exclude_does_not_hide_what_leaving_out_cannot_mend(folder):
    with h5py.File(split_paths(folder, "train").x, "r+") as file:
        file["x"][:] = np.where(file["x"][:] > 190, 255, 0)
    audit(folder)
    with pytest.raises(DataError, match=r"leaving patches out does not mend(.|\n)*0 or 255"):
        train_once(folder, on_findings="exclude")


def test_a_list_that_was_edited_by_hand_is_used_and_said_to_be_edited(damaged, caplog):
    audit(damaged)
    path = damaged / "audit" / "exclusions.csv"
    path.write_text(path.read_text() + "train,50,pen mark\n")
    with caplog.at_level("WARNING", "ml_core"):
        _, record = train_once(damaged, on_findings="exclude")
    assert "was edited since the audit" in caplog.text
    assert record.data["train"]["num_excluded"] == len(DAMAGED) + 1


def test_ignore_trains_and_the_report_says_so(folder):
    with h5py.File(split_paths(folder, "train").x, "r+") as file:
        file["x"][3:5] = 0  # bytes: nothing else would refuse them
    run, record = train_once(folder, on_findings="ignore")
    assert record.status == "completed"
    (ignored,) = record.audit["ignored"]
    assert "entirely black" in ignored
    evaluate(run.path)
    report([run.path])
    page = run.report_path.read_text()
    assert "Trained in spite of 1 error that the audit of the data found" in page
    assert "entirely black" in page


def test_a_data_folder_that_cannot_be_written_does_not_stop_a_training(folder, caplog):
    (folder / "audit").write_text("in the way")
    with caplog.at_level("WARNING", "ml_core"):
        _, record = train_once(folder)
    assert "the audit cannot be kept" in caplog.text and "data.audit_dir" in caplog.text
    assert record.audit["path"] is None and record.audit["verdict"]


def test_the_audit_is_looked_for_where_the_config_says(folder, tmp_path):
    _, record = train_once(folder, audit_dir=str(tmp_path / "elsewhere"))
    place = tmp_path / "elsewhere" / "quick"
    assert record.audit["path"] == str(place)
    assert read_json(place / "audit.json")["mode"] == "quick"
    assert not (folder / "audit").exists()


def test_an_audit_of_the_source_holds_for_a_staged_copy(damaged, tmp_path):
    audit(damaged)
    data_stage(damaged, tmp_path / "local")
    _, record = train_once(damaged, local_copy=str(tmp_path / "local"), on_findings="exclude")
    assert record.audit["mode"] == "full"
    assert record.data["train"]["num_excluded"] == len(DAMAGED)


@pytest.mark.parametrize("text", ["", "[]", '{"format": 1}', '{"format": 0}'])
def test_a_damaged_audit_is_not_used_and_a_quick_one_is_made(folder, text, caplog):
    place = folder / "audit"
    place.mkdir()
    (place / "audit.json").write_text(text)
    with caplog.at_level("WARNING", "ml_core"):
        _, record = train_once(folder)
    assert "It is not used." in caplog.text and record.audit["mode"] == "quick"


@pytest.mark.parametrize("change", ["lost", "edited"])
def test_a_run_whose_own_list_has_changed_is_refused(damaged, change):
    audit(damaged)
    run, record = train_once(damaged, on_findings="exclude")
    if change == "lost":
        run.exclusions_path.unlink()
    else:
        run.exclusions_path.write_text(run.exclusions_path.read_text() + "train,9,mine\n")
    with pytest.raises(RunError, match=r"exclusions\.csv (is missing|has changed)"):
        evaluate(run.path)
    record.status = "interrupted"
    record.save(run)
    with pytest.raises(RunError, match=r"exclusions\.csv (is missing|has changed)"):
        resume(run.path, command="test")


def test_every_seed_gets_the_list_that_was_read_at_the_gate(damaged, tmp_path):
    audit(damaged)
    gate = pass_gate(config_of(damaged, on_findings="exclude"), ("train", "valid"))
    (damaged / "audit" / "exclusions.csv").unlink()
    run = RunDir.create(tmp_path / "runs", "later")
    gate.save(run)
    assert load_exclusions(run.exclusions_path)["train"].tolist() == list(DAMAGED)
    assert hash_file(run.exclusions_path) == gate.record["exclusions_sha256"]


def test_errors_that_an_edited_list_lets_in_are_written_down(folder):
    with h5py.File(split_paths(folder, "train").x, "r+") as file:
        file["x"][3:5] = 0
    audit(folder)
    write_exclusions(folder / "audit" / "exclusions.csv", [("train", 3, "black")])
    run, record = train_once(folder, on_findings="exclude")
    assert record.audit["exclusions_edited"] and len(record.audit["ignored"]) == 1
    report([run.path])
    page = run.report_path.read_text()
    assert "was edited by hand" in page and "entirely black" in page


def test_a_leak_is_found_without_a_full_audit(folder):
    with h5py.File(split_paths(folder, "valid").x) as file:
        known = file["x"][:10]
    with h5py.File(split_paths(folder, "train").x, "r+") as file:
        file["x"][:10] = known
    with pytest.raises(DataError, match=r"10 of 96 patches .* are in valid too"):
        train_once(folder)


def test_official_files_under_the_wrong_name_are_refused_without_a_full_audit(folder, monkeypatch):
    paths = split_paths(folder, "valid")
    md5 = hash_file(paths.x, "md5")
    official = [
        dataclasses.replace(f, md5=md5 if f.split == "test" else "-") for f in OFFICIAL_FILES
    ]
    monkeypatch.setattr("ml_core.audit.checks.identity.OFFICIAL_FILES", official)
    monkeypatch.setattr("ml_core.audit.examine.NUM_ROWS", {"test": 64})
    with pytest.raises(DataError, match="valid: this file is PCam's official test split"):
        train_once(folder)


def test_a_page_that_cannot_be_written_does_not_stop_a_training(folder, monkeypatch, caplog):
    def fail(*_):
        raise DataError("no room for figures")

    monkeypatch.setattr("ml_core.pipeline.audit.render_audit", fail)
    with h5py.File(split_paths(folder, "train").x, "r+") as file:
        file["x"][3:5] = 0
    with caplog.at_level("WARNING", "ml_core"):
        _, record = train_once(folder, on_findings="ignore")
    assert "no room for figures" in caplog.text and record.status == "completed"


def test_errors_of_patches_that_the_filter_drops_do_not_refuse(folder):
    with h5py.File(split_paths(folder, "train").x, "r+") as file:
        file["x"][3], file["x"][4] = 0, 255
    _, record = train_once(folder, filter_data=True)
    assert record.audit["verdict"].startswith("2 errors") and "ignored" not in record.audit
    assert record.data["train"]["num_patches"] == 94


def test_one_damaged_patch_that_the_filter_keeps_is_enough_to_refuse(folder):
    def damage(patches):
        patches[3, :5, :5] = 1e5  # its mean is beyond 255
        patches[4, 0, 0, 0] = 1e5  # hardly moves the mean

    rewrite_train(folder, damage)
    with pytest.raises(DataError, match=r"the audit found 1 error\.\n.*outside the file's range"):
        train_once(folder, filter_data=True)


def test_an_audit_of_the_same_labels_but_other_patches_does_not_count(folder):
    audit(folder)
    with h5py.File(split_paths(folder, "train").x, "r+") as file:
        file["x"][3, 0, 0, 0] ^= 1
    assert train_once(folder)[1].audit["mode"] == "quick"


def test_the_audit_before_a_training_draws_a_page_only_of_errors_and_leaves_no_older_one(
    damaged, monkeypatch
):
    drawn = []
    monkeypatch.setattr("ml_core.pipeline.audit.render_audit", lambda *given: drawn.append(given))
    page = AuditDir(damaged / "audit" / "quick").page_path
    with pytest.raises(DataError, match="nothing is trained"):
        train_once(damaged)
    assert [given[3] for given in drawn] == [page]
    page.write_text("of the damaged file")
    write_tiny_pcam(damaged)
    train_once(damaged)
    assert len(drawn) == 1 and not page.exists()
