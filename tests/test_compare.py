"""Runs side by side: what is a mean over seeds, what is not, and what is said of both."""

import json
import math
import shutil
import statistics
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from fabricated_candidates import (
    LABELS,
    fabricate_candidate,
    fabricate_logits,
    save_predictions,
    write_weights,
)
from fabricated_run import fabricate_split

from ml_core import checkpoint
from ml_core.errors import RunError
from ml_core.metrics import delong_test
from ml_core.pipeline.compare import compare
from ml_core.runs import RunRecord, read_json, write_json
from ml_core.selection.groups import differences, group_runs, label_groups
from ml_core.selection.runs import BEST_WEIGHTS, read_candidates
from ml_core.selection.spread import compute_spread


@pytest.fixture
def printed(said):
    """What the user has read so far."""
    return lambda: "\n".join(said.messages)


@pytest.fixture
def three_seeds(tmp_path):
    return [fabricate_candidate(tmp_path, seed).path for seed in (1, 2, 3)]


def reason_for(result, run) -> str:
    (found,) = [each["reason"] for each in result["not_used"] if each["run"] == str(run)]
    return found


# ---- the mean over seeds -------------------------------------------------------------------------


def test_the_spread_is_the_one_worked_by_hand():
    spread = compute_spread([0.90, 0.92, 0.97])
    assert spread.mean == pytest.approx(0.93)
    assert spread.sd == pytest.approx(math.sqrt((0.03**2 + 0.01**2 + 0.04**2) / 2))
    half = 4.302653 * spread.sd / math.sqrt(3)  # Student's t, 2 degrees of freedom, 97.5 %
    assert (spread.low, spread.high) == pytest.approx((0.93 - half, 1.0))  # 1.0195 is no accuracy
    assert compute_spread([0.90, 0.92, 0.97], highest=math.inf).high == pytest.approx(0.93 + half)
    assert (spread.min, spread.max, spread.n) == (0.90, 0.97, 3)


def test_the_interval_of_the_mean_holds_the_truth_in_95_of_100_samples():
    generator = np.random.default_rng(0)
    samples = generator.normal(0.9, 0.01, (2000, 3))
    held = [spread.low <= 0.9 <= spread.high for spread in map(compute_spread, samples)]
    assert 0.935 <= np.mean(held) <= 0.965


def test_one_value_has_no_spread_and_none_has_no_mean():
    one = compute_spread([0.9])
    assert (one.n, one.mean) == (1, 0.9)
    assert math.isnan(one.sd) and math.isnan(one.low)
    assert math.isnan(compute_spread([None, float("nan")]).mean)


def test_three_seeds_give_mean_deviation_and_range_of_every_metric(three_seeds):
    result = compare(three_seeds)
    (group,) = result["groups"]
    assert (group["n"], group["seeds"]) == (3, [1, 2, 3])
    assert group["runs"] == [str(path) for path in three_seeds]
    scores = [read_json(path / "metrics.json")["metrics"] for path in three_seeds]
    assert set(group["metrics"]) == set(scores[0])
    for name, spread in group["metrics"].items():
        values = [each[name]["value"] for each in scores]
        assert spread["mean"] == pytest.approx(statistics.mean(values))
        assert spread["sd"] == pytest.approx(statistics.stdev(values))
        assert (spread["min"], spread["max"]) == (min(values), max(values))
        assert spread["low"] < spread["mean"] < spread["high"]


def test_one_run_says_that_it_has_no_spread(three_seeds, printed):
    result = compare(three_seeds[:1])
    spread = result["groups"][0]["metrics"]["roc_auc"]
    assert spread["n"] == 1
    assert spread["sd"] is spread["low"] is spread["high"] is None
    assert "one run, no spread" in printed()


def test_a_metric_that_a_run_does_not_have_counts_the_runs_that_do(three_seeds):
    path = three_seeds[0] / "metrics.json"
    scores = read_json(path)
    scores["metrics"]["precision"]["value"] = None
    write_json(path, scores)
    metrics = compare(three_seeds)["groups"][0]["metrics"]
    assert (metrics["precision"]["n"], metrics["recall"]["n"]) == (2, 3)


# ---- a mean of three seeds that is one run is impossible -----------------------------------------


def test_the_same_run_given_three_times_counts_once(three_seeds, printed):
    result = compare([three_seeds[0]] * 3)
    assert result["groups"][0]["n"] == 1
    assert "it was given twice; it counts once" in printed()


def test_a_copied_run_counts_once(three_seeds, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(three_seeds[0], copy, symlinks=True)
    result = compare([three_seeds[0], copy])
    assert result["groups"][0]["n"] == 1
    assert "it is a copy of" in reason_for(result, copy)


def test_two_runs_with_one_seed_and_config_are_one_seed_and_the_later_counts(tmp_path):
    old = fabricate_candidate(tmp_path / "a", 7, 2.2, started_at="2026-01-02T03:04:05+00:00")
    new = fabricate_candidate(tmp_path / "b", 7, 2.4, started_at="2026-01-03T03:04:05+00:00")
    for paths in ([old.path, new.path], [new.path, old.path]):
        result = compare(paths)
        assert result["groups"][0]["runs"] == [str(new.path)]
        assert "it repeats seed 7 of" in reason_for(result, old.path)


def test_seeds_that_changed_nothing_are_one_run(tmp_path):
    """Three directories, three run_ids, three seeds in the record, and the same weights."""
    runs = [fabricate_candidate(tmp_path, seed) for seed in (1, 2, 3)]
    for run in runs:
        record = RunRecord.load(run)
        record.best["weights_sha256"] = write_weights(run, "the same")
        record.save(run)
        save_predictions(run, fabricate_logits(1, 2.3))
    result = compare([run.path for run in runs])
    assert result["groups"][0]["n"] == 1
    reasons = [each["reason"] for each in result["not_used"]]
    assert len(reasons) == 2 and all("changed nothing" in reason for reason in reasons)


# ---- runs that may not be in a mean --------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("running", "it has not ended, or was killed"),
        ("failed", "it failed (out of luck)"),
        ("diverged", "not finite"),
        ("interrupted", "it was interrupted; go on with: ml-core train --resume"),
        ("pruned", "the search stopped it early"),
    ],
)
def test_a_run_that_did_not_end_well_is_listed_and_not_in_the_mean(tmp_path, status, words):
    good = fabricate_candidate(tmp_path, 1)
    bad = fabricate_candidate(tmp_path, 2, status=status, error="out of luck")
    result = compare([good.path, bad.path])
    assert result["groups"][0]["seeds"] == [1]
    assert words in reason_for(result, bad.path)


def without_scores(run):
    run.metrics_path.unlink()


def scored_on_train(run):
    write_json(run.metrics_path, {**read_json(run.metrics_path), "split": "train"})


def scored_with_other_weights(run):
    write_json(run.metrics_path, {**read_json(run.metrics_path), "weights_sha256": "ab" * 32})


def predicted_with_other_weights(run):
    scores = read_json(run.metrics_path)
    save_predictions(run, fabricate_logits(2, 2.3), weights_sha256="cd" * 32)
    write_json(run.metrics_path, scores)


def with_changed_weights(run):
    write_weights(run, "trained a little more")


def with_damaged_predictions(run):
    path = run.predictions_path("valid")
    path.write_bytes(path.read_bytes()[:-30])


def with_nan(run):
    logit = fabricate_logits(2, 2.3)
    logit[17] = np.nan
    save_predictions(run, logit)


def with_damaged_record(run):
    run.record_path.write_text('{"seed": "two"}')


def with_damaged_scores(run):
    run.metrics_path.write_text('{"split": "valid", "metrics"')


def without_config(run):
    run.config_path.unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (without_scores, "it is not evaluated; do so with: ml-core evaluate"),
        (scored_on_train, "is of split 'train', and runs are compared on 'valid'"),
        (scored_with_other_weights, "its scores are of other weights (abababababab)"),
        (predicted_with_other_weights, "its predictions are of other weights (cdcdcdcdcdcd)"),
        (with_changed_weights, "its best weights have changed since it was trained"),
        (with_damaged_predictions, "is not a readable parquet file"),
        (with_nan, "1 of 1,500 values that are no probability, the first at index 17"),
        (with_damaged_record, "is not a run record"),
        (with_damaged_scores, "cannot be read"),
        (without_config, "there is no config file"),
    ],
)
def test_a_run_whose_files_do_not_hold_together_is_listed_with_the_reason(tmp_path, spoil, words):
    good, bad = (fabricate_candidate(tmp_path, seed) for seed in (1, 2))
    spoil(bad)
    result = compare([good.path, bad.path])
    assert result["groups"][0]["seeds"] == [1]
    assert words in reason_for(result, bad.path)


def test_where_no_run_is_left_the_error_lists_why(tmp_path):
    run = fabricate_candidate(tmp_path, 1, status="failed", error="no such file")
    with pytest.raises(RunError, match=r"no run can be used:\n.*it failed \(no such file\)"):
        compare([run.path])
    other = fabricate_candidate(tmp_path, 2)
    without_scores(other)
    with pytest.raises(RunError, match=r"no run can be compared:\n.*it is not evaluated"):
        compare([other.path])


def test_a_path_that_is_no_run_is_refused_with_what_to_give(tmp_path, three_seeds):
    with pytest.raises(RunError, match=r"is not a run but a folder of 3\. Give .*/\*"):
        compare([tmp_path])
    with pytest.raises(RunError, match="is not a run directory"):
        compare([tmp_path / "nothing"])
    with pytest.raises(RunError, match="no run was given"):
        compare([])
    with pytest.raises(RunError, match=r"unknown metric 'roc_acu'.* Did you mean 'roc_auc'"):
        compare(three_seeds, metric="roc_acu")


def test_the_weights_that_are_hashed_are_those_that_a_checkpoint_loads():
    assert BEST_WEIGHTS.name == checkpoint.MODEL_FILE


# ---- runs that differ ----------------------------------------------------------------------------


def test_runs_of_another_config_are_refused_and_what_differs_is_named(tmp_path):
    paths = [fabricate_candidate(tmp_path, 1, lr=lr).path for lr in (0.001, 0.003)]
    with pytest.raises(RunError, match=r"than the seed.*\n  optimizer\.lr is 0\.001 or 0\.003\n"):
        compare(paths)


def test_runs_of_other_data_are_refused_by_their_hashes(tmp_path):
    one = fabricate_candidate(tmp_path, 1)
    data = {
        "train": fabricate_split("train", 20_000, x_sha256="99ab" * 16),
        "valid": fabricate_split("valid", 1500),
    }
    two = fabricate_candidate(tmp_path, 2, data=data)
    with pytest.raises(RunError, match=r"train patches differ \(sha256 [0-9a-f]{8} or 99ab99ab\)"):
        compare([one.path, two.path])


def test_runs_that_left_out_other_patches_are_refused(tmp_path):
    one = fabricate_candidate(tmp_path, 1)
    two = fabricate_candidate(tmp_path, 2, audit={"exclusions_sha256": "12345678" * 8})
    with pytest.raises(RunError, match=r"exclusions\.csv differs \(sha256 none or 12345678\)"):
        compare([one.path, two.path])


def test_runs_scored_at_different_thresholds_are_refused_even_as_rows(tmp_path):
    one, two = (fabricate_candidate(tmp_path, seed) for seed in (1, 2))
    write_json(one.metrics_path, {**read_json(one.metrics_path), "threshold": 0.3})
    with pytest.raises(RunError, match=r"scored at threshold 0\.3 or 0\.5.*evaluation\.threshold"):
        compare([one.path, two.path], mixed=True)


def test_what_does_not_decide_what_is_learned_does_not_part_runs(tmp_path):
    one, two = (fabricate_candidate(tmp_path / name, seed) for name, seed in (("a", 1), ("b", 2)))
    text = two.config_path.read_text().replace("pcam_cnn", "another_name")
    two.config_path.write_text(text.replace("/data/pcam", "/elsewhere/pcam"))
    two.config_path.write_text(two.config_path.read_text() + "tracking: {tensorboard: false}\n")
    assert compare([one.path, two.path])["groups"][0]["seeds"] == [1, 2]


def test_other_code_or_packages_are_told_and_do_not_part_runs(tmp_path, printed):
    one = fabricate_candidate(tmp_path, 1)
    two = fabricate_candidate(
        tmp_path, 2, code={"commit": "f" * 40, "dirty": True}, packages={"torch": "2.12.0"}
    )
    (group,) = compare([one.path, two.path])["groups"]
    assert group["n"] == 2
    assert "torch is 2.13.0 or 2.12.0" in group["also_differ_in"]
    assert "ffffffffffff with changes" in printed()


def candidates_of(*runs):
    found, left_out = read_candidates(runs)
    assert left_out == []
    return found


def test_a_model_of_another_kind_is_told_once_and_not_by_each_of_its_keys(tmp_path):
    cnn, mlp = (fabricate_candidate(tmp_path, 1, lr=lr) for lr in (0.001, 0.003))
    text = mlp.config_path.read_text()
    mlp.config_path.write_text(text.replace("name: cnn", "name: mlp\n  hidden_units: [64, 32]"))
    found = differences(candidates_of(cnn, mlp))
    assert found == ["model.name is cnn or mlp", "optimizer.lr is 0.001 or 0.003"]
    groups, _ = group_runs(candidates_of(cnn, mlp))
    assert label_groups(groups) == ["model cnn, lr 0.001", "model mlp, lr 0.003"]


# ---- a row for each kind -------------------------------------------------------------------------


@pytest.fixture
def two_kinds(tmp_path):
    weak = [fabricate_candidate(tmp_path, seed, 1.6, lr=0.001).path for seed in (1, 2)]
    strong = [fabricate_candidate(tmp_path, seed, 2.6).path for seed in (1, 2, 3)]
    return weak + strong


def test_mixed_runs_get_a_row_for_each_kind_the_best_first(two_kinds, printed):
    result = compare(two_kinds, mixed=True)
    assert [group["label"] for group in result["groups"]] == ["lr 0.003", "lr 0.001"]
    assert [group["n"] for group in result["groups"]] == [3, 2]
    assert result["differences"] == ["optimizer.lr is 0.003 or 0.001"]
    assert "lr 0.003" in printed() and "not what other seeds" in printed()


def test_of_a_metric_that_should_be_low_the_lowest_is_first(two_kinds):
    result = compare(two_kinds, mixed=True, metric="loss")
    means = [group["metrics"]["loss"]["mean"] for group in result["groups"]]
    assert means == sorted(means)


def test_the_best_runs_of_the_best_two_kinds_are_tested_on_the_same_patches(two_kinds):
    paired = compare(two_kinds, mixed=True)["paired"]
    scores = {path: read_json(Path(path) / "metrics.json") for path in paired["runs"]}
    assert ["lr0.003" in path for path in paired["runs"]] == [True, False]
    probs = [
        pq.read_table(Path(path) / "predictions/valid.parquet")["y_prob"].to_numpy()
        for path in paired["runs"]
    ]
    expected = delong_test(LABELS, *probs)
    found = paired["metrics"]["roc_auc"]
    assert found["difference"] == pytest.approx(expected.difference)
    assert (found["low"], found["high"]) == pytest.approx(tuple(expected.interval))
    for name, each in paired["metrics"].items():
        values = [scores[path]["metrics"][name]["value"] for path in paired["runs"]]
        assert (each["value"], each["other"]) == pytest.approx(tuple(values))
        assert each["difference"] == pytest.approx(values[0] - values[1])


def test_without_predictions_the_rows_stand_and_the_test_says_why_it_does_not(two_kinds, printed):
    for path in two_kinds:
        (path / "predictions" / "valid.parquet").unlink()
    result = compare(two_kinds, mixed=True)
    assert len(result["groups"]) == 2
    assert "does not exist" in result["paired"]["why_not"]
    assert "cannot be compared patch by patch" in printed()


def test_runs_on_other_validation_patches_have_rows_and_no_paired_test(tmp_path):
    one = fabricate_candidate(tmp_path, 1)
    data = {
        "train": fabricate_split("train", 20_000),
        "valid": fabricate_split("valid", 1500, x_sha256="99ab" * 16),
    }
    two = fabricate_candidate(tmp_path, 2, data=data, labels=1 - LABELS)
    result = compare([one.path, two.path], mixed=True)
    assert "other labels for 1,500 of 1,500" in result["paired"]["why_not"]
    assert "valid patches differ" in result["differences"][0]


def test_rows_and_champions_do_not_depend_on_the_order_of_the_arguments(two_kinds):
    forward, backward = (compare(paths, mixed=True) for paths in (two_kinds, two_kinds[::-1]))
    assert forward["groups"] == backward["groups"]
    assert forward["paired"] == backward["paired"]


def test_the_result_is_written_where_out_says(three_seeds, tmp_path):
    result = compare(three_seeds, out=tmp_path / "new" / "compare.json")
    written = json.loads((tmp_path / "new" / "compare.json").read_text())
    assert written == json.loads(json.dumps(result, allow_nan=False))
