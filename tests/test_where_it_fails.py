"""The verbs `explain`, `slice` and `report` on a tiny run: what a user types, gets and reads."""

import csv
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from tiny_champion import copy_tiny, train_tiny, write_champion
from tiny_pcam import write_config
from typed import typed

from ml_core.cli import main
from ml_core.config import Config
from ml_core.evaluation.features import FeatureTable
from ml_core.evaluation.predictions import Predictions
from ml_core.pipeline.evaluate import evaluate
from ml_core.pipeline.examining.scored_split import load_scored
from ml_core.pipeline.parts.operating_run import open_operating_run
from ml_core.pipeline.train import train
from ml_core.runs import RunDir, read_json, write_json

QUICK = ("evaluation.probe_patches=100", "evaluation.saliency_patches=16")


@pytest.fixture
def type_(capfd):
    """Type a command; returns its exit code and all that it printed."""

    def run(*arguments):
        done = typed(capfd, *arguments)
        return done.code, done.out

    return run


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return train_tiny(tmp_path_factory.mktemp("fails"))


@pytest.fixture(scope="module")
def explained(original, tmp_path_factory):
    """A run that went through `explain`, then `slice`; tests only read it."""
    run = copy_tiny(original, tmp_path_factory.mktemp("explained") / "mine")
    options = [part for setting in QUICK for part in ("--set", setting)]
    main_without_exit("explain", run.path, *options)
    main_without_exit("slice", run.path, "--set", 'slices.dark="brightness < 185"')
    return run


def main_without_exit(*arguments):
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        assert not end.code, arguments


@pytest.fixture
def run(original, tmp_path):
    return copy_tiny(original, tmp_path / "mine")


# ---- what the files hold -----------------------------------------------------------------------


def test_every_result_file_says_which_weights_and_operating_point_it_is_of(explained):
    scores = read_json(explained.metrics_path)
    for path in (
        explained.slices_path("valid"),
        explained.errors_path("valid"),
        explained.uncertainty_path("valid"),
        explained.explain_path("valid"),
    ):
        content = read_json(path)
        assert content["format"] == 1
        assert content["split"] == "valid" and content["n"] == 64
        assert content["threshold"] == scores["threshold"]
        assert content["weights_sha256"] == scores["weights_sha256"]
        assert content["calibration"]["kind"] == "none" and content["champion_sha256"] is None


def test_a_slices_metrics_can_be_computed_again_from_the_tables(explained):
    content = read_json(explained.slices_path("valid"))
    (own,) = [each for each in content["slices"] if each["kind"] == "own"]
    assert (own["name"], own["where"]) == ("dark", "brightness < 185")
    table = Predictions.load(explained.predictions_path("valid"))
    assert 0 < own["n"] < len(table)
    with open(explained.slices_csv_path("valid"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(content["slices"])
    assert {row["name"] for row in rows} == {each["name"] for each in content["slices"]}


def test_all_errors_are_listed_and_no_other_patch(explained):
    table = Predictions.load(explained.predictions_path("valid"))
    wrong = table.index[(table.y_prob >= 0.5) != (table.labels == 1)]
    errors = read_json(explained.errors_path("valid"))
    assert sorted(each["index"] for each in errors["errors"]) == sorted(wrong)
    assert errors["num_errors"] == len(wrong)


def test_features_are_kept_of_the_split_and_of_train_and_of_the_same_weights(explained):
    table = Predictions.load(explained.predictions_path("valid"))
    valid = FeatureTable.load(explained.features_path("valid"))
    train = FeatureTable.load(explained.features_path("train"))
    assert np.array_equal(valid.index, table.index)
    assert len(train) == 96 and set(train.y_true) == {0, 1}
    assert valid.weights_sha256 == train.weights_sha256 == table.weights_sha256
    assert valid.features.shape[1] == train.features.shape[1] <= 16


def test_explaining_again_gives_the_same_file(original, tmp_path):
    contents = []
    for name in ("one", "two"):
        run = copy_tiny(original, tmp_path / name)
        options = [part for setting in QUICK for part in ("--set", setting)]
        main_without_exit("explain", run.path, *options)
        main_without_exit("slice", run.path)
        paths = (run.explain_path("valid"), run.slices_path("valid"), run.errors_path("valid"))
        contents += [path.read_text().replace(str(tmp_path / name), "") for path in paths]
    assert contents[:3] == contents[3:]


# ---- what the user reads -----------------------------------------------------------------------


def test_slice_says_what_is_worse_and_where_the_rest_is(type_, run):
    code, said = type_("slice", run.path, "--json")
    assert code == 0, said
    result = json.loads(said.splitlines()[-1])
    assert read_json(RunDir(run.path).slices_path("valid"))["num_tested"] == result["num_tested"]
    assert "no slice can be scored: all" in said  # of 64 patches, a fifth is too small
    assert "no features are stored" in said and "ml-core explain" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--split", "test"), "the test split is sealed"),
        (("--split", "tset"), "Did you mean 'test'?"),
        (("--set", 'slices.x="brightnes < 3"'), "brightness"),
        (("--set", "slices.x=\"__import__('os').system('touch pwned') == 0\""), "allowed"),
        (("--set", 'slices.x="slide == 1"'), "slide"),
        (("--set", "model.name=cnn"), "was trained with its own"),
        (("--set", "evaluation.false_discovery_rate=0"), "greater than 0"),
    ],
)
def test_a_users_mistake_is_said_and_nothing_is_written(type_, run, arguments, message):
    code, said = type_("slice", run.path, *arguments)
    assert code == 2 and message in said and "Traceback" not in said
    assert not run.slices_path("valid").exists()
    assert not list(run.path.rglob("pwned"))


def test_explain_never_touches_the_test_split(type_, run):
    code, said = type_("explain", run.path, "--split", "test")
    assert code == 2 and "train and valid only" in said
    assert not run.explain_path("test").exists()


def test_a_folder_that_cannot_be_written_is_said(type_, run):
    run.slices_path("valid").mkdir()
    code, said = type_("slice", run.path)
    assert code == 2 and "cannot write" in said and "Traceback" not in said


def test_a_slice_over_what_is_not_known_of_these_patches_is_said_and_stops_nothing(type_, run):
    code, said = type_("slice", run.path, "--set", "slices.lab='slide == \"a\"'")
    assert code == 0, said
    rows = read_json(run.slices_path("valid"))["slices"]
    (lab,) = [each for each in rows if each["name"] == "lab"]
    assert lab["n"] == 0 and lab["too_small"] and "for want of slide" in lab["said"]


# ---- of a champion -----------------------------------------------------------------------------


def test_a_champion_is_sliced_at_its_own_point_and_on_test_only_once_opened(type_, run):
    champion = write_champion(run)
    code, said = type_("slice", champion)
    assert code == 0, said
    content = read_json(run.slices_path("valid"))
    assert content["threshold"] == 0.3 and content["calibration"]["temperature"] == 1.7
    code, said = type_("slice", champion, "--split", "test")
    assert code == 2 and "was not opened for this champion" in said


def test_on_test_nothing_is_searched_or_chosen_but_what_valid_gave_is_seen_again(type_, run):
    champion = write_champion(run)
    evaluate(champion, "test", command="ml-core evaluate")
    code, said = type_("slice", champion, "--split", "test")
    assert code == 0, said
    assert read_json(run.slices_path("test"))["discovery"] is None
    assert read_json(run.uncertainty_path("test"))["abstention"] is None

    type_("slice", champion)
    on_valid = read_json(run.slices_path("valid"))
    on_valid["discovery"]["slices"] = [
        {"name": "dark", "where": "brightness < 186", "is_confirmed": True},
        {"name": "bright", "where": "brightness > 186", "is_confirmed": False},
    ]
    write_json(run.slices_path("valid"), on_valid)
    uncertainty = read_json(run.uncertainty_path("valid"))
    uncertainty["abstention"] = {"below": 0.25, "above": 0.5, "target_risk": 0.02}
    write_json(run.uncertainty_path("valid"), uncertainty)
    code, said = type_("slice", champion, "--split", "test")
    assert code == 0, said
    names = {each["name"] for each in read_json(run.slices_path("test"))["slices"]}
    assert "found on valid: dark" in names and "found on valid: bright" not in names
    seen = read_json(run.uncertainty_path("test"))["abstention"]
    assert (seen["below"], seen["above"], seen["target_risk"]) == (0.25, 0.5, 0.02)
    y_prob = load_scored(open_operating_run(champion), "test").y_prob
    assert seen["coverage"] == np.mean((y_prob <= 0.25) | (y_prob >= 0.5))

    type_("slice", run.path)  # valid at another operating point: not what this champion gave
    code, said = type_("slice", champion, "--split", "test")
    assert code == 0 and "of another operating point than this champion's" in said
    of_test = read_json(run.slices_path("test"))
    assert "found on valid: dark" not in {each["name"] for each in of_test["slices"]}
    assert of_test["findings"][0]["id"] == "nothing-from-valid"
    assert "ml-core explain" not in said  # which refuses test


# ---- the report --------------------------------------------------------------------------------


def test_the_report_holds_what_explain_and_slice_found(type_, explained):
    code, said = type_("report", explained.path)
    assert code == 0, said
    page = explained.report_path.read_text()
    assert "slices.json" in page and "explain.json" in page
    card = explained.model_card_path.read_text()
    assert "slices.json" in card and "explain.json" in card


def shown(run: RunDir) -> str:
    """Return the page without what is quoted on it: the changes of this very file, for one."""
    page = re.sub(r"<pre.*?</pre>", "", run.report_path.read_text(), flags=re.DOTALL)
    return " ".join(page.split())


def test_results_of_another_operating_point_are_a_finding_of_the_report(type_, run):
    type_("slice", run.path, "--set", "evaluation.threshold=0.7")
    code, said = type_("report", run.path)
    assert code == 0, said
    assert "slices.json is raw, at threshold 0.7" in shown(run)
    assert "the scores are raw, at threshold 0.5" in shown(run)
    champion = write_champion(run)
    type_("report", champion)
    assert "the champion calls at threshold 0.3, temperature calibration" in shown(run)
    type_("slice", champion)
    type_("report", champion)
    assert "the champion calls at threshold 0.3, temperature calibration" not in shown(run)
    type_("report", run.path)
    assert "is a champion&#39;s, at threshold 0.3" in shown(run)


def test_the_report_of_two_runs_says_what_differs_and_of_three_does_not(type_, original, tmp_path):
    run = copy_tiny(original, tmp_path / "mine")
    for seed in (5, 6):
        config = write_config(
            tmp_path / f"{seed}.yaml",
            run.path.parents[2] / "data",
            seed=seed,
            output_dir=str(run.path.parents[1]),
        )
        train(Config.load(config), command="ml-core train")
    runs = sorted(path.parent for path in run.path.parent.glob("*/run.json"))
    assert len(runs) == 3
    for path in runs:
        evaluate(path)
    out = tmp_path / "both.html"
    code, said = type_("report", *runs[:2], "--out", out)
    assert code == 0, said
    assert 'id="compared' in out.read_text()
    code, said = type_("report", *runs, "--out", out)
    assert code == 0, said
    assert 'id="compared' not in out.read_text()


# ---- what a reviewer typed -----------------------------------------------------------------------


def test_a_process_that_ends_right_after_reading_a_table_is_not_aborted(run):
    """pyarrow's threads outlived the file they read, and 3 of 10 refusals ended with SIGABRT."""
    code = (
        "import sys; from pathlib import Path; from ml_core.evaluation.predictions import "
        "Predictions; Predictions.load(Path(sys.argv[1])); sys.exit(2)"
    )
    command = [sys.executable, "-c", code, str(run.predictions_path("valid"))]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(8)]
    assert [process.wait(timeout=120) for process in started] == [2] * 8


def test_a_run_is_not_compared_with_itself(type_, run):
    code, said = type_("report", run.path, run.path / ".." / run.name)
    assert code == 2 and "is given twice" in said


def test_a_query_that_holds_no_patch_is_named(type_, run):
    code, said = type_("slice", run.path, "--set", 'slices.none="brightness < 0"')
    assert code == 0 and "of your own slices, 1 hold no patch: none (brightness < 0" in said


def test_what_stands_in_the_way_of_a_file_is_to_be_moved(type_, run):
    run.slices_path("valid").mkdir()
    _, said = type_("slice", run.path)
    assert "Is a directory. Move that folder away, and run the stage again." in said
