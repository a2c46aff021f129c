"""The test split: opened for a champion only, counted before it is looked at, never to choose."""

import dataclasses
import re
import shutil
import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest
import typer
from tiny_champion import (
    NUM_TEST,
    TEMPERATURE,
    THRESHOLD,
    copy_tiny,
    train_tiny,
    write_champion,
)

from ml_core.audit.files import AuditDir, AuditRecord
from ml_core.cli import app
from ml_core.config import Config
from ml_core.data.checks import check_splits, hash_splits
from ml_core.data.layout import split_paths
from ml_core.data.patch_file import PatchFile
from ml_core.errors import DataError, MLCoreError, RunError
from ml_core.evaluation.baselines import BASELINES, BaselineTable
from ml_core.evaluation.openings import ledger_path, read_openings
from ml_core.evaluation.predictions import Predictions
from ml_core.findings import Finding
from ml_core.metrics import compute_metrics
from ml_core.pipeline import evaluate as evaluate_stage
from ml_core.pipeline import select
from ml_core.pipeline.compare import compare
from ml_core.pipeline.evaluate import evaluate
from ml_core.pipeline.parts.baselines import baseline_table
from ml_core.pipeline.parts.splits import open_split
from ml_core.pipeline.parts.trained_model import SETTABLE
from ml_core.pipeline.report import report
from ml_core.pipeline.sealed import opening, sealed_test
from ml_core.pipeline.sealed.audit_of_test import check_test_audit
from ml_core.pipeline.sealed.entrant import load_entrant
from ml_core.runs import RunDir, RunRecord, read_json, read_jsonl
from ml_core.selection.champion import sha256_of_champion


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    run = train_tiny(tmp_path_factory.mktemp("tiny"))
    baseline_table(Config.load(run.config_path), "test", {})  # kept beside the runs, for all copies
    return run


@pytest.fixture(autouse=True)
def no_figures(request, monkeypatch):
    """Drawing takes longer than all the rest; one test looks at the figures."""
    if "figures" not in request.node.name:
        for stage in (sealed_test, evaluate_stage):
            monkeypatch.setattr(stage, "prediction_figures", lambda predictions, scores: {})
            monkeypatch.setattr(stage, "save_figures", lambda run, figures: [])


@pytest.fixture
def run(first_run, tmp_path) -> RunDir:
    """A run of its own for each test, with its own data."""
    return copy_tiny(first_run, tmp_path / "own")


@pytest.fixture
def champion(run):
    return write_champion(run)


def data_dir_of(run):
    return run.path.parents[2] / "data"


def x_sha256_of(run):
    return hash_splits(data_dir_of(run), ["test"])["test"][0]


def ledger_of(run):
    return ledger_path(data_dir_of(run), x_sha256_of(run))


def entries(run):
    return list(read_jsonl(ledger_of(run)))


@pytest.fixture
def reads(monkeypatch):
    """Note for every block of patches that is read: its file, and the ledgers there were."""
    seen = []
    read = PatchFile.read

    def note(self, rows):
        ledgers = [path.read_text() for path in self.path.parent.glob("test_openings-*")]
        seen.append((self.path.name, "".join(ledgers)))
        return read(self, rows)

    monkeypatch.setattr(PatchFile, "read", note)
    return seen


def test_reads(reads):
    """What was read of the test split."""
    return [ledgers for name, ledgers in reads if "test" in name]


test_reads.__test__ = False


# ---- opened for a champion ---------------------------------------------------------------------


def test_the_champion_is_scored_at_its_own_threshold_and_temperature(run, champion):
    before = run.metrics_path.read_bytes()
    result = evaluate(champion, "test", command="ml-core evaluate champion.json --split test")
    scores = read_json(run.scores_path("test"))
    table = Predictions.load(run.predictions_path("test"))
    assert len(table) == scores["n"] == NUM_TEST
    assert scores["threshold"] == THRESHOLD and scores["sealed"] is True
    calibrated = 1 / (1 + np.exp(-table.logit / TEMPERATURE))
    expected = compute_metrics(table.labels, calibrated, THRESHOLD)
    for name in ("recall", "precision", "f2", "brier"):
        assert scores["metrics"][name]["value"] == pytest.approx(expected[name], abs=1e-12)
    assert scores["metrics"]["recall"]["low"] is not None
    assert set(scores["baselines"]) >= {"always_positive", "prior", "mean_colour"}
    raw = compute_metrics(table.labels, 1 / (1 + np.exp(-table.logit)), 0.5)
    assert scores["raw_at_half"]["metrics"]["brier"]["value"] == pytest.approx(raw["brier"])
    assert result["run"] == str(run.path) and result["metrics"] == scores["metrics"]
    assert run.metrics_path.read_bytes() == before  # metrics.json stays that of valid


def test_the_opening_says_who_when_what_on_which_data_and_how_it_ended(run, champion):
    evaluate(champion, "test", command="ml-core evaluate champion.json --split test")
    opened, ended = entries(run)
    record = RunRecord.load(run)
    assert opened["event"] == "opened" and "@" in opened["who"]
    assert opened["command"] == "ml-core evaluate champion.json --split test"
    assert opened["champion"] == sha256_of_champion(champion)
    assert opened["run_id"] == record.run_id
    assert opened["weights_sha256"] == record.best["weights_sha256"]
    assert (opened["threshold"], opened["sealed"]) == (THRESHOLD, True)
    assert opened["data"]["x_sha256"] == x_sha256_of(run)
    assert opened["data"]["num_patches"] == NUM_TEST
    assert "commit" in opened["code"] and opened["time"].endswith("+00:00")
    assert (ended["event"], ended["outcome"]) == ("ended", "scored")
    assert ended["opening"] == opened["opening"]
    scores = read_json(run.scores_path("test"))
    assert ended["metrics"]["recall"] == scores["metrics"]["recall"]["value"]
    assert scores["openings"]["said"] == "This test set was opened once, by 1 champion."


def test_the_opening_is_on_the_disk_before_the_first_test_patch_is_read(run, champion, reads):
    evaluate(champion, "test")
    of_test = test_reads(reads)
    assert of_test
    assert all('"event": "opened"' in ledgers for ledgers in of_test)


def test_the_same_champion_may_be_scored_again_and_that_is_counted(run, champion):
    first = evaluate(champion, "test")
    again = evaluate(champion, "test")
    assert again["metrics"] == first["metrics"]
    assert again["openings"]["said"] == "This test set was opened 2 times, by 1 champion."
    assert [finding["id"] for finding in again["findings"]] == ["test-not-audited"]


def test_a_champion_tested_after_another_says_that_it_may_have_been_chosen_by_it(run, champion):
    evaluate(champion, "test")
    other = write_champion(run, "other.json", created_at="2026-01-03T00:00:00+00:00")
    scores = evaluate(other, "test")
    assert scores["openings"]["said"] == "This test set was opened 2 times, by 2 champions."
    assert "test-seen-before" in [finding["id"] for finding in scores["findings"]]


def test_a_champion_on_valid_is_its_run_on_valid(run, champion):
    assert evaluate(champion)["metrics"] == evaluate(run.path)["metrics"]
    assert not ledger_of(run).exists()


def test_the_test_split_has_figures_of_its_own(run, champion):
    before = {path.name: path.read_bytes() for path in run.figures_dir.iterdir()}
    evaluate(champion, "test")
    after = {path.name: path.read_bytes() for path in run.figures_dir.iterdir()}
    assert {name: after[name] for name in before} == before
    assert {"test-roc.png", "test-reliability.png"} <= set(after) - set(before)


# ---- sealed ------------------------------------------------------------------------------------


def test_without_a_champion_the_test_split_is_sealed_and_what_to_do_is_said(run, reads):
    with pytest.raises(RunError, match=r"sealed(.|\n)*ml-core select(.|\n)*--unsealed"):
        evaluate(run.path, "test")
    assert test_reads(reads) == [] and not ledger_of(run).exists()


def test_unsealed_it_is_opened_counted_and_stamped(run):
    scores = evaluate(run.path, "test", unsealed=True, command="ml-core evaluate --unsealed")
    assert scores["sealed"] is False and scores["champion"] is None
    assert scores["threshold"] == 0.5
    said = "This test set was opened once, by no champion; once unsealed."
    assert scores["openings"]["said"] == said
    assert entries(run)[0]["sealed"] is False
    page = (report([run.path]), run.report_path.read_text())[1]
    assert page.index(said) < page.index("UNSEALED:</b>") < page.index("<h1")
    assert "<title>UNSEALED: " in page


@pytest.mark.parametrize("unsealed", [False, True])
@pytest.mark.parametrize("spelling", ["evaluation.threshold=0.2", " evaluation.threshold =0.2"])
def test_a_threshold_cannot_be_set_for_the_test_split(run, champion, unsealed, spelling):
    with pytest.raises(RunError, match=r"never set for the test split(.|\n)*ml-core select"):
        evaluate(run.path if unsealed else champion, "test", [spelling], unsealed=unsealed)
    assert not ledger_of(run).exists()


def test_unsealed_is_only_for_a_run_and_only_for_test(run, champion):
    with pytest.raises(RunError, match="a champion opens the test split by itself"):
        evaluate(champion, "test", unsealed=True)
    with pytest.raises(RunError, match="valid is open"):
        evaluate(run.path, "valid", unsealed=True)


def test_an_unsealed_opening_does_not_replace_the_champions_scores(run, champion):
    evaluate(champion, "test")
    with pytest.raises(RunError, match="as a champion"):
        evaluate(run.path, "test", unsealed=True)
    assert len(entries(run)) == 2


def flip_a_bit(path):
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def change_a_pixel(run, split):
    with h5py.File(split_paths(data_dir_of(run), split).x, "r+") as file:
        file["x"][0, 0, 0, 0] ^= 1


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda run: flip_a_bit(run.checkpoints_dir / "best" / "model.safetensors"), "weights"),
        (lambda run: change_a_pixel(run, "valid"), "has changed since the run was trained"),
        (lambda run: change_a_pixel(run, "train"), "has changed since the run was trained"),
        (lambda run: split_paths(data_dir_of(run), "test").x.unlink(), "test_x"),
        (lambda run: split_paths(data_dir_of(run), "test").y.write_bytes(b"no"), "test_y"),
    ],
)
def test_what_has_changed_is_refused_before_the_test_split_is_opened(run, champion, spoil, words):
    path = ledger_of(run)
    spoil(run)
    with pytest.raises(MLCoreError, match=words):
        evaluate(champion, "test")
    assert not path.exists()


def test_a_champion_of_other_patches_is_refused_before_the_test_split_is_opened(run):
    record = RunRecord.load(run)
    data = {split: dict(each) for split, each in record.data.items()}
    chosen_on = {
        split: {key: each[key] for key in ("x_sha256", "y_sha256", "num_patches")}
        for split, each in data.items()
    }
    chosen_on["valid"]["num_patches"] = 63
    champion = write_champion(run, data=chosen_on)
    with pytest.raises(RunError, match=r"other valid patches(.|\n)*num_patches"):
        evaluate(champion, "test")
    assert not ledger_of(run).exists()


def test_train_given_out_as_test_is_refused(run, champion):
    for name in ("x", "y"):
        train, test = (
            getattr(split_paths(data_dir_of(run), split), name) for split in ("train", "test")
        )
        test.write_bytes(train.read_bytes())
    with pytest.raises(DataError, match="has the same content"):
        evaluate(champion, "test")


# ---- what the audit says beside it -------------------------------------------------------------

LEAK = Finding(
    "duplicates-across-splits",
    "warning",
    "valid: 2 of 64 patches are in test too, pixel for pixel (test: 3 of 40 patches).",
    split="valid",
    indices=(4, 9),
    exclude=True,
    facts={"other_split": "test"},
)
OF_TRAIN = Finding("exact-duplicates", "warning", "train: 2 patches repeat.", split="train")


def keep_audit(run, **changes):
    """Give the run the audit of its data, as it keeps it since training."""
    audit = AuditRecord(
        mode="full",
        data_path="data",
        created_at="2026-01-02T03:04:05+00:00",
        ml_core="0",
        command="ml-core audit data",
        duration_s=1.0,
        num_threads=1,
        splits={},
        digests=hash_splits(data_dir_of(run), ("train", "valid", "test")),
        findings=[LEAK, OF_TRAIN],
    )
    dataclasses.replace(audit, **changes).save(AuditDir(run.path))


def test_a_leak_into_test_that_the_audit_knows_stands_beside_the_score(run, champion):
    keep_audit(run)
    (finding,) = evaluate(champion, "test")["findings"]
    assert (finding["message"], finding["severity"]) == (LEAK.message, "warning")


def test_a_leak_whose_patches_the_run_left_out_is_a_fact_and_no_warning(run):
    keep_audit(run)
    (check,) = check_splits(data_dir_of(run), ["test"])
    rows = {"valid": np.array([4, 9, 11])}
    (finding,) = check_test_audit(run, check, rows)
    assert finding.severity == "info" and finding.message.endswith("of valid were left out.")
    (finding,) = check_test_audit(run, check, {"valid": np.array([4])})
    assert finding.severity == "warning"


@pytest.mark.parametrize("change", ["quick", "of another test set", "absent", "damaged"])
def test_without_a_full_audit_of_the_test_set_leaks_are_said_to_be_unknown(run, champion, change):
    keep_audit(run, mode="quick" if change == "quick" else "full")
    if change == "of another test set":
        keep_audit(run, digests={"test": ("a" * 64, "b" * 64)})
    elif change == "absent":
        run.audit_path.unlink()
    elif change == "damaged":
        run.audit_path.write_text("{")
    findings = evaluate(champion, "test")["findings"]
    assert findings[0]["id"] == "test-not-audited"
    assert [finding["id"] for finding in findings[1:]] == (
        ["duplicates-across-splits"] if change == "quick" else []
    )


# ---- counted, whatever happens -----------------------------------------------------------------


KILLED = """
import os, signal, sys
from pathlib import Path
from ml_core.pipeline.sealed import sealed_test
from ml_core.pipeline.evaluate import evaluate
sealed_test.predict_split = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
evaluate(Path(sys.argv[1]), "test", command="killed")
"""


def test_an_opening_that_was_killed_still_counts(run, champion):
    done = subprocess.run([sys.executable, "-c", KILLED, str(champion)], check=False)
    assert done.returncode == -signal.SIGKILL
    (opened,) = entries(run)
    assert opened["command"] == "killed"
    assert not run.scores_path("test").exists()
    scores = evaluate(champion, "test")
    assert scores["openings"]["said"] == "This test set was opened 2 times, by 1 champion."
    outcomes = read_openings(x_sha256_of(run), [data_dir_of(run)], None).openings
    assert [each.outcome for each in outcomes] == ["", "scored"]


def test_an_opening_that_failed_still_counts_and_says_why(run, champion, monkeypatch):
    def fail(*arguments):
        raise DataError("the disk of the patches is gone.")

    monkeypatch.setattr(sealed_test, "predict_split", fail)
    with pytest.raises(DataError, match="is gone"):
        evaluate(champion, "test")
    opened, ended = entries(run)
    assert opened["event"] == "opened"
    assert (ended["outcome"], ended["error"]) == ("failed", "the disk of the patches is gone.")


def test_an_opening_that_was_interrupted_still_counts(run, champion, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(sealed_test, "predict_split", interrupt)
    with pytest.raises(KeyboardInterrupt):
        evaluate(champion, "test")
    assert entries(run)[1]["outcome"] == "interrupted"


def test_scores_stand_where_only_their_outcome_could_not_be_written(
    run, champion, monkeypatch, caplog
):
    def full(*arguments):
        raise RunError("No space left on device")

    monkeypatch.setattr(opening, "record_outcome", full)
    with caplog.at_level("WARNING", "ml_core"):
        evaluate(champion, "test")
    assert "how this opening ended is not in its ledger" in caplog.text
    assert run.scores_path("test").is_file() and len(entries(run)) == 1


def test_a_full_disk_at_the_ledger_is_refused_before_any_patch_is_read(
    run, champion, small_disk, reads
):
    (small_disk / "ballast").write_bytes(bytes(256 * 1024))
    with pytest.raises(RunError, match=r"No space left on device(.|\n)*data\.ledger_dir"):
        evaluate(champion, "test", [f"data.ledger_dir={small_disk}"])
    assert test_reads(reads) == [] and not run.predictions_path("test").exists()


@pytest.fixture
def read_only_data(run):
    """The run's data on a disk that can only be read."""
    folder = data_dir_of(run)
    try:
        mount = ["mount", "--bind", str(folder), str(folder)]
        subprocess.run(mount, check=True, capture_output=True)
        again = ["mount", "-o", "remount,ro,bind", str(folder)]
        subprocess.run(again, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a read-only folder needs the right to mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_where_the_data_can_only_be_read_the_ledger_is_with_the_runs_and_said(
    run, champion, read_only_data, caplog
):
    with caplog.at_level("WARNING", "ml_core"):
        evaluate(champion, "test")
    elsewhere = ledger_path(run.path.parents[1], x_sha256_of(run))
    assert "Read-only file system" in caplog.text and str(elsewhere) in caplog.text
    assert len(list(read_jsonl(elsewhere))) == 2
    scores = evaluate(champion, "test")
    assert scores["openings"]["num"] == 2


def test_openings_are_counted_over_the_data_folder_and_the_output_folder(run, champion):
    evaluate(champion, "test")
    ledger_of(run).rename(ledger_path(run.path.parents[1], x_sha256_of(run)))
    assert evaluate(champion, "test")["openings"]["num"] == 2
    assert len(entries(run)) == 2  # the second is with the data again


@pytest.mark.parametrize("where", ["data", "runs"])
def test_a_ledger_that_was_tampered_with_is_refused_before_any_patch_is_read(
    run, champion, reads, where
):
    evaluate(champion, "test")
    path = ledger_of(run)
    if where == "runs":
        path = path.rename(ledger_path(run.path.parents[1], x_sha256_of(run)))
    path.write_text(path.read_text().replace('"sealed": true', '"sealed": 1'))
    del reads[:]
    with pytest.raises(RunError, match="line 2: does not hold the hash of line 1"):
        evaluate(champion, "test")
    assert test_reads(reads) == []


def test_a_ledger_that_lost_its_end_is_said_beside_the_score(run, champion):
    evaluate(champion, "test")
    ledger_of(run).unlink()
    scores = evaluate(champion, "test")
    assert scores["openings"]["num"] == 2
    assert "ledger-incomplete" in [finding["id"] for finding in scores["findings"]]


# ---- never to choose ---------------------------------------------------------------------------


def options_of_all_verbs():
    """Yield (verb, option) of everything that can be typed."""

    def walk(command, name):
        for sub in getattr(command, "commands", {}).items():
            yield from walk(sub[1], f"{name} {sub[0]}".strip())
        for option in command.params:
            yield from ((name, spelling) for spelling in option.opts if spelling.startswith("--"))

    return walk(typer.main.get_command(app), "")


def test_only_evaluate_has_an_option_that_opens_test():
    telling = re.compile("split|test|seal|threshold|recall|calibrat")
    found = {
        (verb, option)
        for verb, option in options_of_all_verbs()
        if telling.search(option) and not verb.startswith("data ")  # these know files, no model
    }
    looking = {("explain", "--split"), ("slice", "--split")}  # refuse test, or need it opened
    assert found == {("evaluate", "--split"), ("evaluate", "--unsealed"), *looking}
    assert ("select", "--set") in set(options_of_all_verbs())  # the walk does see the verbs


@pytest.mark.parametrize(
    "key",
    [
        "evaluation.threshold",
        "selection.threshold.rule",
        "selection.threshold.at_least",
        "selection.calibration",
        "selection.deployment_prevalence",
        "data.max_patches",
        "data.filter_data",
    ],
)
def test_no_key_changes_what_the_champion_does_with_the_test_split(champion, key):
    values = {"rule": "youden", "calibration": "isotonic"}
    value = values.get(key.rpartition(".")[2], "2" if "patches" in key else "0.9")
    with pytest.raises(MLCoreError, match=r"test split|was trained with its own"):
        load_entrant(champion, [f"{key}={value}"], unsealed=False)


def test_what_may_be_set_leaves_threshold_and_calibration_as_they_were_frozen(champion, tmp_path):
    plain = load_entrant(champion, [], unsealed=False)
    for override in (f"data.ledger_dir={tmp_path}", "evaluation.num_resamples=200"):
        changed = load_entrant(champion, [override], unsealed=False)
        assert (changed.threshold, changed.calibration) == (plain.threshold, plain.calibration)
    assert {key.partition(".")[0] for key in SETTABLE} <= {
        "data", "evaluation", "slices", "tracking", "training",
    }  # fmt: skip


def weak_baselines(config, split, exclude, hashes=None):
    """Baselines that a tiny model beats: on tiny data the true ones make no error either."""
    patches = open_split(config, split, exclude)
    chance = np.random.default_rng(0).random(len(patches))
    constants = {"always_positive": 1.0, "always_negative": 0.0, "prior": 0.5}
    y_prob = {name: np.full(len(patches), constants.get(name, np.nan)) for name in BASELINES}
    y_prob |= {name: chance for name in BASELINES if name not in constants}
    return BaselineTable(split, patches.indices, patches.labels, y_prob, {})


def choose(run, out):
    """Go through every verb that compares, scores and chooses; return what was chosen."""
    evaluate(run.path)
    compare([run.path])
    select.select([run.path], out, command="ml-core select")
    chosen = read_json(out)
    return {name: chosen[name] for name in ("run", "threshold", "calibration", "evidence")}


def test_every_verb_that_chooses_gives_the_same_whatever_the_test_split_says(
    run, tmp_path, monkeypatch
):
    monkeypatch.setattr(select, "baseline_table", weak_baselines)
    out = run.path.parent / "champion.json"
    path = split_paths(data_dir_of(run), "test").y
    chosen = choose(run, out)
    evaluate(run.path, "test", unsealed=True)  # its predictions and scores now lie in the run
    assert choose(run, out) == chosen
    with h5py.File(path, "r+") as file:
        file["y"][:] = 1 - file["y"][:]
    evaluate(run.path, "test", unsealed=True)
    assert choose(run, out) == chosen
    for name in (path, split_paths(data_dir_of(run), "test").x, run.predictions_path("test")):
        name.unlink()
    assert choose(run, out) == chosen  # none of these verbs needs the test split
    report([run.path])
    assert read_json(out)["threshold"] == chosen["threshold"]


def test_a_threshold_found_on_test_and_frozen_by_hand_is_said_beside_its_score(run, monkeypatch):
    """The one way round the seal, look first and then fix what was seen, leaves its trace."""
    monkeypatch.setattr(select, "baseline_table", weak_baselines)
    evaluate(run.path, "test", unsealed=True)
    text = run.config_path.read_text()
    run.config_path.write_text(text.replace("threshold: 0.5", "threshold: 0.4"))
    out = run.path.parent / "champion.json"
    overrides = ["selection.threshold.rule=fixed"]
    select.select([run.path], out, overrides=overrides, command="ml-core select")
    scores = evaluate(out, "test")
    assert scores["openings"]["said"].endswith("by 1 champion; once unsealed.")
    assert "test-seen-before" in [finding["id"] for finding in scores["findings"]]
    page = (report([run.path]), run.report_path.read_text())[1]
    assert "had been opened once for others, once unsealed" in page


def test_an_opening_whose_ledger_was_sent_elsewhere_is_found_beside_the_data_too(
    run, champion, tmp_path
):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    evaluate(champion, "test", [f"data.ledger_dir={elsewhere}"], command="a test")
    shutil.rmtree(elsewhere)
    again = evaluate(champion, "test", command="a test")
    assert again["openings"]["num"] == 2
    assert [entry["event"] for entry in entries(run)].count("opened") == 2
