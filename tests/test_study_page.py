import json
import math
import re
from dataclasses import replace

import pytest
from fabricated_study import (
    SPACE,
    evaluate_trial,
    fabricate_record,
    fabricate_study,
    fabricate_trial,
)
from test_report import Page

from ml_core.errors import RunError
from ml_core.evaluation.predictions import Predictions
from ml_core.findings import Finding
from ml_core.pipeline.searching.study_report import compare_best_two, study_report
from ml_core.runs import read_json
from ml_core.search.deed import Deed
from ml_core.search.page import render
from ml_core.search.page.facts import read_study_facts
from ml_core.search.page.findings import study_findings
from ml_core.search.page.verdict import build_verdict, compute_cost
from ml_core.search.study_dir import StudyDir, StudyRecord
from ml_core.search.trials import load_trials

HOSTILE = "<script>alert('x')</script>&\"$x_{1}$"
PARAMS = {"optimizer.lr": 1e-2, "data.batch_size": 64}
FLAT = {
    "optimizer.lr": {"low": 1e-4, "high": 1e-1, "log": True},
    "data.batch_size": {"choices": [32, 64, 128]},
}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Leave the PNG files empty: to draw them takes most of the time, and others look at them."""
    monkeypatch.setattr(render, "save_figure", lambda figure, path: path.touch())


def report(study):
    path = study_report(study.path)["report"]
    with open(path, encoding="utf-8") as file:
        return Page(file.read())


def study_of(folder, trials, **changes):
    """Write a study; `trials` are arguments of `fabricate_trial` after the number."""
    study = StudyDir.create(folder, "study")
    fabricate_record(**{"num_trials": len(trials), "space": FLAT, **changes}).save(study)
    for number, (params, values, state, *more) in enumerate(trials):
        times = {"start_s": 100.0 * number, "seconds": 90.0, **(more[0] if more else {})}
        fabricate_trial(study, number, params, values, state, **times)
    return study


def findings_of(study, comparison=None):
    found = study_findings(read_study_facts(study), comparison)
    return {finding.id: finding for finding in found}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A completed study of 20 trials, the best of them evaluated; tests only read it."""
    study = fabricate_study(tmp_path_factory.mktemp("studies"))
    best = read_study_facts(study).best
    evaluate_trial(study, best.number)
    return study


@pytest.fixture(scope="module")
def page(study):
    return report(study)


# ---- the page --------------------------------------------------------------------------------


def test_the_verdict_names_the_best_trial_with_the_interval_of_its_run(study, page):
    facts = read_study_facts(study)
    (title,) = page.all("h1")
    assert title["text"] == f"Best: trial {facts.best.number}, ROC-AUC {facts.best.value:.4f}"
    (tile,) = page.all("div", data_metric="roc_auc")
    scores = read_json(facts.best.run.metrics_path)["metrics"]["roc_auc"]
    assert page.values_in(tile) == [facts.best.value, scores["low"], scores["high"]]
    assert "95 % interval" in tile["text"]


def test_the_table_has_every_trial_once_with_its_value_and_its_run(study, page):
    rows = {int(row["data-trial"]): row for row in page.all("tr") if "data-trial" in row}
    trials = load_trials(study)
    assert sorted(rows) == [trial.number for trial in trials]
    for trial in trials:
        assert page.values_in(rows[trial.number]) == [trial.value]
        (link,) = [a for a in page.all("a") if rows[trial.number] in a["within"]]
        assert (study.path / link["href"] / "run.json").is_file()
    order = [number for number in rows if trials[number].state == "complete"]
    values = [trials[number].value for number in order]
    assert values == sorted(values, reverse=True), "the best first"
    assert list(rows)[: len(order)] == order, "pruned ones after complete ones"


def test_a_run_with_a_report_is_linked_by_it(tmp_path):
    study = study_of(tmp_path, [(PARAMS, [0.6], "complete")])
    (study.attempt(0).run.report_path).write_text("<p>report</p>")
    assert [a["href"] for a in report(study).all("a") if "trials/" in a["href"]] == [
        "trials/0000/run/report.html"
    ]


def test_counts_and_figures_are_those_of_the_trials(study, page):
    trials = load_trials(study)
    pruned = sum(trial.state == "pruned" for trial in trials)
    (tile,) = page.all("div", data_score="complete")
    assert f"{20 - pruned} of 20" in " ".join(tile["text"].split())
    assert f"{pruned} pruned" in tile["text"]
    names = {figure["data-figure"] for figure in page.all("figure")}
    assert names == {
        "history", "learning_curves", "importance", "parallel", "timeline",
        *(f"slice_{key}" for key in SPACE),
    }  # fmt: skip
    assert {path.stem for path in study.figures_dir.iterdir()} == names


def test_the_commands_to_type_are_given(study, page):
    commands = [pre["text"] for pre in page.all("pre")]
    best = read_study_facts(study).best
    assert commands == [
        f"ml-core train {best.run.config_path} --set 'seeds=[1, 2, 3]'",
        f"ml-core select {study.path}",
    ]
    assert "The best of 20 is optimistic" in page.text


def test_the_page_needs_nothing_else_and_is_the_same_each_time(study, page):
    assert not re.search(r"<script|src=\"http|@import|url\(http", page.html)
    assert "default-src 'none'" in page.html
    ids = [element["id"] for element in page.elements if element["id"]]
    assert len(ids) == len(set(ids))
    assert report(study).html == page.html


def test_hostile_names_and_errors_are_shown_as_they_are(tmp_path):
    space = {HOSTILE: {"choices": [HOSTILE, "b"]}}
    trials = [
        ({HOSTILE: HOSTILE}, [0.6], "complete"),
        ({HOSTILE: "b"}, [], "failed", {"cause": "error", "error": HOSTILE}),
    ]
    page = report(study_of(tmp_path, trials, space=space, experiment_name=HOSTILE))
    assert "<script>" not in page.html
    assert page.text.count(HOSTILE) >= 4


# ---- studies that did not go well ------------------------------------------------------------


def test_a_study_that_has_just_begun_has_a_page(tmp_path):
    study = study_of(tmp_path, [], num_trials=6, status="running", ended_at=None)
    page = report(study)
    assert page.all("h1")[0]["text"] == "No trial has begun"
    assert "No trial has begun." in page.text and page.all("figure") == []
    assert f"ml-core tune --resume {study.path}" in page.text


def test_a_running_study_says_what_is_left_and_how_to_go_on(tmp_path):
    trials = [(PARAMS, [0.6, 0.7], "complete"), (PARAMS, [0.5], "running"), (PARAMS, [], "lost")]
    study = study_of(tmp_path, trials, num_trials=9, status="running")
    found = findings_of(study)["not-finished"]
    assert "8 of 9 trials have not ended" in found.message
    assert f"ml-core tune --resume {study.path}" in found.action
    text = report(study).text
    assert "1 running" in text and "1 to be tried again" in text


def test_failures_of_one_cause_are_one_finding_with_that_cause(tmp_path):
    trials = [
        (PARAMS, [], "failed", {"cause": "error", "error": f"ConfigError: lr {0.1 * n} is too big"})
        for n in range(4)
    ]
    study = study_of(tmp_path, trials, status="failed")
    found = findings_of(study)["all-failed"]
    assert found.severity == "error"
    assert "all 4 trials that ended failed, all for the same cause" in found.message
    assert "lr 0.0 is too big" in found.message
    page = report(study)
    assert page.all("h1")[0]["text"] == "No trial is complete: there is no best one"
    assert [f["data-figure"] for f in page.all("figure")] == ["timeline"], "no empty figure"


def test_a_few_failures_are_said_with_their_numbers(tmp_path):
    good = [(PARAMS, [0.6], "complete")] * 8
    killed = (PARAMS, [], "failed", {"cause": "error", "error": "MemoryError: no room"})
    found = findings_of(study_of(tmp_path, [*good, killed]))["trials-failed"]
    assert found.severity == "info"
    assert "1 trial failed (8): error: MemoryError: no room" in found.message
    many = findings_of(study_of(tmp_path / "many", [*good[:3], killed, killed]))["trials-failed"]
    assert many.severity == "warning" and "2 trials failed (3 and 4)" in many.message


def test_a_trial_whose_run_is_gone_keeps_its_row(tmp_path):
    study = study_of(tmp_path, [(PARAMS, [0.6], "complete", {"run": False})])
    (row,) = [row for row in report(study).all("tr") if "data-trial" in row]
    assert "0.6000" in row["text"]


def test_a_page_that_cannot_be_written_is_an_error_that_says_so(tmp_path):
    study = study_of(tmp_path, [(PARAMS, [0.6], "complete")])
    study.figures_dir.write_text("in the way")
    with pytest.raises(RunError, match=r"cannot write the page .*study\.html"):
        study_report(study.path)
    with pytest.raises(RunError, match="is not a study"):
        study_report(tmp_path)


# ---- findings --------------------------------------------------------------------------------


def five(lr, **best):
    """Four trials in the middle, and a best one."""
    middle = [({**PARAMS, "optimizer.lr": lr * 10**-0.1}, [0.6], "complete")] * 4
    return [*middle, ({**PARAMS, **best}, [0.9], "complete")]


@pytest.mark.parametrize(
    ("best", "side"),
    [
        ({"optimizer.lr": 0.0995}, "upper"),
        ({"optimizer.lr": 1.001e-4}, "lower"),
        ({"optimizer.lr": 3e-3}, None),
        ({"data.batch_size": 32}, "lower"),
        ({"data.batch_size": 128}, "upper"),
        ({"data.batch_size": 64}, None),
    ],
)
def test_a_best_value_at_the_end_of_its_range_asks_for_a_wider_one(tmp_path, best, side):
    found = findings_of(study_of(tmp_path, five(1e-2, **best))).get("best-at-edge")
    assert (found and found.facts["side"]) == side
    if found:
        (key,) = best
        assert f"at the {side} end" in found.message and f"search.space.{key}" in found.action


def test_choices_that_are_no_numbers_or_only_two_have_no_edge(tmp_path):
    space = {"optimizer.name": {"choices": ["a", "b", "c"]}, "data.batch_size": {"choices": [1, 2]}}
    params = {"optimizer.name": "a", "data.batch_size": 1}
    study = study_of(tmp_path, [(params, [0.6], "complete")] * 6, space=space)
    assert "best-at-edge" not in findings_of(study)


def test_a_parameter_that_trials_show_to_do_nothing_is_an_error_on_the_page(tmp_path):
    """The runs of a batch-size search whose loader was built once."""
    trials = [({**PARAMS, "data.batch_size": size}, [0.6, 0.7], "complete") for size in (32, 64)]
    study = study_of(tmp_path, trials)
    for log in ("steps_log_path", "metrics_log_path", "record_path"):
        first, second = (getattr(study.attempt(number).run, log) for number in (0, 1))
        second.write_bytes(first.read_bytes())
    found = findings_of(study)
    assert found["no-effect"].facts["parameter"] == "data.batch_size"
    assert found["effect-not-tested"].facts["parameters"] == ["optimizer.lr"]
    page = report(study)
    rows = {row["data-parameter"]: row["text"] for row in page.all("tr") if "data-parameter" in row}
    assert rows["data.batch_size"].split()[-1] == "no"
    assert rows["optimizer.lr"].endswith("not tested ")
    assert page.all("li", data_finding="no-effect")


def probes():
    """A batch size that did nothing in the first steps, and a learning rate that did."""
    base = Deed(losses=(0.5,))
    return [
        {"params": PARAMS, "deed": base.to_dict()},
        {"params": {**PARAMS, "data.batch_size": 128}, "deed": base.to_dict()},
        {"params": {**PARAMS, "optimizer.lr": 1e-3}, "deed": Deed(losses=(0.4,)).to_dict()},
    ]


def test_what_the_probes_saw_stands_where_no_two_trials_can_be_compared(tmp_path):
    trials = [(PARAMS, [0.6], "complete")] * 2
    found = findings_of(study_of(tmp_path, trials, probes=probes()))
    assert found["no-effect"].facts["parameter"] == "data.batch_size"
    assert "effect-not-tested" not in found, "the learning rate was seen to act"


def test_trials_that_differ_are_believed_over_probes_that_did_not(tmp_path):
    """A parameter may act only after the steps of a probe."""
    trials = [
        (PARAMS, [0.6], "complete"),
        ({**PARAMS, "data.batch_size": 128}, [0.6], "complete"),
    ]
    assert "no-effect" not in findings_of(study_of(tmp_path, trials, probes=probes()))


def test_findings_of_the_study_itself_are_shown(tmp_path):
    odd = Finding("odd-data", "warning", "the data are odd.")
    old = Finding("no-effect", "error", "known better by now.")
    study = study_of(tmp_path, [(PARAMS, [0.6], "complete")], findings=[odd, old])
    text = report(study).text
    assert "the data are odd." in text and "known better by now." not in text


def test_a_best_trial_within_chance_of_the_second_is_said(tmp_path):
    trials = [({**PARAMS, "optimizer.lr": lr}, [0.6], "complete") for lr in (1e-3, 2e-3, 3e-3)]
    study = study_of(tmp_path, trials)
    assert "best-not-told-apart" not in findings_of(study), "nothing is known without predictions"
    evaluate_trial(study, 0)
    evaluate_trial(study, 1, noise=0.1)
    report(study)
    text = report(study).text
    assert "the best, trial 0, is not better than the second, trial 1, beyond chance" in text
    assert "DeLong" in text and "1,500 patches" in text
    evaluate_trial(study, 1, noise=3.0)
    assert "beyond chance" not in report(study).text


def test_predictions_of_other_patches_are_not_compared(tmp_path):
    study = study_of(tmp_path, [(PARAMS, [0.6], "complete")] * 2)
    for number in (0, 1):
        evaluate_trial(study, number)
    assert compare_best_two(read_study_facts(study))["num_patches"] == 1500
    path = study.attempt(1).run.predictions_path("valid")
    predictions = Predictions.load(path)
    replace(predictions, index=predictions.index + 1).save(path)
    assert compare_best_two(read_study_facts(study)) is None


# ---- numbers ---------------------------------------------------------------------------------


def test_pruning_saved_the_epochs_that_were_not_trained(tmp_path):
    """Worked by hand: 4 epochs in 40 s; one epoch in 12 s, so three more would be 36 s."""
    trials = [
        (PARAMS, [0.5, 0.6, 0.7, 0.8], "complete", {"start_s": 0.0, "seconds": 40.0}),
        (PARAMS, [0.5], "pruned", {"start_s": 0.0, "seconds": 12.0, "worker": 1}),
    ]
    cost = compute_cost(load_trials(study_of(tmp_path, trials)))
    assert (cost.spent_s, cost.saved_s, cost.wall_s) == (52.0, 36.0, 40.0)
    assert cost.share_saved == pytest.approx(36 / 88)
    assert cost.num_side_by_side == 2 and cost.share_busy == pytest.approx(52 / 80)


def test_trials_one_after_the_other_are_one_at_a_time(tmp_path):
    times = [{"start_s": 0.0, "seconds": 10.0}, {"start_s": 10.0, "seconds": 10.0}]
    study = study_of(tmp_path, [(PARAMS, [0.6], "complete", each) for each in times])
    assert compute_cost(load_trials(study)).num_side_by_side == 1
    assert math.isnan(compute_cost([]).share_saved)


def test_a_trial_that_was_tried_again_counts_once_and_is_said(tmp_path):
    study = study_of(tmp_path, [(PARAMS, [0.6], "lost"), (PARAMS, [0.5, 0.8, 0.7], "complete")])
    fabricate_trial(study, 0, PARAMS, [0.6, 0.7], "complete", start_s=300.0, attempt=1)
    verdict = build_verdict(read_study_facts(study))
    assert verdict.counts["complete"] == 2 and verdict.num_retried == 1
    assert verdict.others == "1 tried again" and verdict.best_epoch == 2
    assert len([row for row in report(study).all("tr") if "data-trial" in row]) == 2


def test_the_lead_of_the_best_is_said_and_a_tie_too(tmp_path):
    ahead = study_of(tmp_path / "a", [(PARAMS, [0.9], "complete"), (PARAMS, [0.75], "complete")])
    tie = study_of(tmp_path / "b", [(PARAMS, [0.9], "complete"), (PARAMS, [0.9], "complete")])
    alone = study_of(tmp_path / "c", [(PARAMS, [0.9], "complete")])
    said = [build_verdict(read_study_facts(each)).optimism for each in (ahead, tie, alone)]
    assert said[0].endswith("It is 0.15 ahead of the second, trial 1.")
    assert said[1].endswith("Trial 1 has the same value.")
    assert said[2] == ""


def test_a_loss_is_best_when_it_is_lowest(tmp_path):
    trials = [
        ({**PARAMS, "optimizer.lr": lr}, [v], "complete") for lr, v in ((1e-3, 0.2), (2e-3, 0.9))
    ]
    study = study_of(tmp_path, trials, metric="val_loss", direction="minimize")
    page = report(study)
    assert page.all("h1")[0]["text"] == "Best: trial 0, loss 0.2000"
    rows = [int(row["data-trial"]) for row in page.all("tr") if "data-trial" in row]
    assert rows == [0, 1]


def test_a_given_list_of_trials_has_axes_although_it_has_no_space(tmp_path):
    trials = [({"optimizer.lr": 10.0**-n}, [0.5 + n / 20], "complete") for n in range(7)]
    study = study_of(tmp_path, trials, space={}, sampler={"name": "list"})
    figures = {figure["data-figure"] for figure in report(study).all("figure")}
    assert {"slice_optimizer.lr", "parallel"} <= figures
    record = StudyRecord.load(study)
    assert json.dumps(record.space) == "{}"
