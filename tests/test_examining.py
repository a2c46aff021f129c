"""What `slice` and `explain` stand on: the right predictions and patches, the other seeds."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from tiny_champion import copy_tiny, train_tiny, write_champion
from tiny_pcam import make_patches, write_config, write_split

from ml_core.audit.files import AuditDir
from ml_core.config import Config
from ml_core.data.layout import split_paths
from ml_core.errors import ConfigError, DataError, RunError
from ml_core.evaluation.predictions import Predictions
from ml_core.pipeline.audit import audit
from ml_core.pipeline.evaluate import evaluate
from ml_core.pipeline.examining.patch_table import MEASURED_HERE, patches_of, shortcuts_of_audit
from ml_core.pipeline.examining.sample import sample_of
from ml_core.pipeline.examining.scored_split import load_scored
from ml_core.pipeline.examining.sibling_seeds import predictions_of_other_seeds
from ml_core.pipeline.parts.operating_run import open_operating_run
from ml_core.pipeline.train import train
from ml_core.runs import RunDir, RunRecord, read_json


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return train_tiny(tmp_path_factory.mktemp("examined"))


@pytest.fixture
def run(original, tmp_path):
    return copy_tiny(original, tmp_path / "mine")


def data_of(run: RunDir):
    return Config.load(run.config_path).data.data_path


# ---- the operating point -----------------------------------------------------------------------


def test_a_run_is_raw_at_its_own_threshold_and_a_champion_calibrated_at_its(run):
    raw = Predictions.load(run.predictions_path("valid"))
    by_itself = open_operating_run(run.path)
    assert by_itself.threshold == 0.5
    assert np.array_equal(load_scored(by_itself, "valid").y_prob, raw.y_prob)
    champion = open_operating_run(write_champion(run))
    assert champion.threshold == 0.3
    assert load_scored(champion, "valid").logit == pytest.approx(raw.logit / 1.7)
    assert champion.describe()["champion_sha256"] == champion.champion_sha256 is not None


def test_a_champions_threshold_cannot_be_set_beside_it(run):
    with pytest.raises(RunError, match="has its own, chosen on valid"):
        open_operating_run(write_champion(run), ["evaluation.threshold=0.9"])


def test_predictions_of_other_weights_are_refused(run):
    path = run.predictions_path("valid")
    dataclasses.replace(Predictions.load(path), weights_sha256="0" * 64).save(path)
    with pytest.raises(RunError, match="is of the weights 000000000000, but the best of this run"):
        load_scored(open_operating_run(run.path), "valid")


def test_predictions_that_are_not_there_are_asked_for(run):
    run.predictions_path("valid").unlink()
    operating = open_operating_run(run.path)
    with pytest.raises(RunError, match=r"has no predictions of valid .* ml-core evaluate"):
        load_scored(operating, "valid")
    with pytest.raises(RunError, match=r"ml-core evaluate .* --split train"):
        load_scored(operating, "train")
    with pytest.raises(RunError, match=r"unknown split 'vald'.* Did you mean 'valid'"):
        load_scored(operating, "vald")


def test_the_test_split_is_looked_at_only_where_it_was_opened_for_this_champion(run):
    with pytest.raises(RunError, match="the test split is sealed"):
        load_scored(open_operating_run(run.path), "test")
    champion = write_champion(run)
    with pytest.raises(RunError, match="was not opened for this champion"):
        load_scored(open_operating_run(champion), "test")
    evaluate(champion, "test", command="ml-core evaluate")
    opened = load_scored(open_operating_run(champion), "test")
    assert (opened.split, len(opened)) == ("test", 40)
    other = write_champion(run, "other.json", command="ml-core select something else")
    with pytest.raises(RunError, match="was not opened for this champion"):
        load_scored(open_operating_run(other), "test")


# ---- the patches -------------------------------------------------------------------------------


def test_the_audits_table_is_used_where_it_holds_every_scored_patch(run):
    operating = open_operating_run(run.path)
    index = load_scored(operating, "valid").index
    table = patches_of(operating, "valid", index)
    assert table.source.endswith("audit/quick/patches.parquet")  # training made that audit
    assert set(index) <= set(table.rows["index"])
    audit(data_of(run))
    full = patches_of(operating, "valid", index)
    assert full.source == str(AuditDir(data_of(run) / "audit").patches_path)
    assert "label_belief" in full.rows and set(full.rows["split"]) == {"valid"}


def test_patches_that_no_audit_holds_are_measured_as_an_audit_would(run):
    operating = open_operating_run(run.path)
    index = load_scored(operating, "valid").index
    of_audit = patches_of(operating, "valid", index).rows
    shutil.rmtree(data_of(run) / "audit")
    table = patches_of(operating, "valid", index)
    assert table.source == MEASURED_HERE
    assert list(table.rows["index"]) == sorted(index)
    for name in ("mean_r", "focus", "haematoxylin", "content_hash", "label"):
        pd.testing.assert_series_equal(table.rows[name], of_audit[name])
    assert not {"flags", "label_belief"} & set(table.rows)


def test_an_audit_that_looked_at_a_sample_is_used_only_for_patches_in_it(run):
    path = data_of(run) / "audit" / "quick" / "patches.parquet"
    rows = pd.read_parquet(path)
    rows[rows["index"] != 5].to_parquet(path, index=False)
    operating = open_operating_run(run.path)
    index = load_scored(operating, "valid").index
    assert patches_of(operating, "valid", index[index != 5]).source == str(path)
    table = patches_of(operating, "valid", index)
    assert table.source == MEASURED_HERE and set(table.rows["index"]) == set(index)


def test_an_audit_of_other_bytes_is_not_used(run):
    folder = AuditDir(data_of(run) / "audit" / "quick")
    content = json.loads(folder.record_path.read_text())
    content["digests"]["valid"][0] = "0" * 64
    folder.record_path.write_text(json.dumps(content))
    operating = open_operating_run(run.path)
    index = load_scored(operating, "valid").index
    assert patches_of(operating, "valid", index).source == MEASURED_HERE


@pytest.mark.parametrize("damage", [b"", b"PAR1 nothing"])
def test_an_audits_table_that_cannot_be_read_is_said_and_measured_anew(run, caplog, damage):
    (data_of(run) / "audit" / "quick" / "patches.parquet").write_bytes(damage)
    operating = open_operating_run(run.path)
    index = load_scored(operating, "valid").index
    assert patches_of(operating, "valid", index).source == MEASURED_HERE
    assert "cannot be used" in caplog.text


def test_patches_are_not_measured_from_files_that_have_changed(run):
    shutil.rmtree(data_of(run) / "audit")
    operating = open_operating_run(run.path)
    index = load_scored(operating, "valid").index
    labels = np.arange(64) % 2
    write_split(data_of(run), "valid", make_patches(labels, 99), labels.reshape(-1, 1, 1, 1))
    with pytest.raises(RunError, match="has changed since the run was trained"):
        patches_of(operating, "valid", index)
    split_paths(data_of(run), "valid").x.unlink()
    with pytest.raises(DataError):
        patches_of(operating, "valid", index)


def test_shortcuts_are_those_of_the_audit_that_the_run_keeps(run):
    operating = open_operating_run(run.path)
    table = shortcuts_of_audit(operating, "valid")
    assert {"blockiness", "focus", "mean-colour"} <= {row["property"] for row in table}
    assert {row["split"] for row in table} == {"valid"}
    run.audit_path.unlink()
    assert shortcuts_of_audit(operating, "valid") == []


# ---- the other seeds ---------------------------------------------------------------------------


def test_other_seeds_of_the_recipe_speak_and_other_recipes_do_not(run, caplog):
    caplog.set_level("INFO", logger="ml_core.slice")
    folder = run.path.parents[2]
    for name, changes in {
        "seed": {"seed": 7},
        "recipe": {"seed": 8, "model": {"name": "mlp", "hidden_units": [8]}},
        "untold": {"seed": 9},
    }.items():
        path = write_config(folder / f"{name}.yaml", data_of(run), **changes)
        trained = train(Config.load(path), command="ml-core train")["runs"][0]["run"]
        if name != "untold":
            evaluate(RunDir.open(trained).path)
    operating = open_operating_run(run.path)
    predictions = load_scored(operating, "valid")
    found = predictions_of_other_seeds(operating, predictions)
    (name,) = found
    assert RunRecord.load(RunDir(run.path.parent / name)).seed == 7
    assert np.array_equal(found[name].index, predictions.index)
    assert not np.array_equal(found[name].y_prob, predictions.y_prob)
    assert "does not speak as another seed" in caplog.text  # the one that was not evaluated
    path = RunDir(run.path.parent / name).predictions_path("valid")
    table = Predictions.load(path)
    columns = ("index", "y_true", "y_prob", "logit")
    fewer = {column: getattr(table, column)[1:] for column in columns}
    dataclasses.replace(table, **fewer).save(path)
    assert predictions_of_other_seeds(operating, predictions) == {}
    assert "it scored other patches" in caplog.text


# ---- the sample --------------------------------------------------------------------------------


def test_a_sample_is_a_function_of_seed_and_row_whatever_else_is_there():
    index = np.arange(100, 600)
    few = sample_of(index, 50, seed=3)
    assert len(few) == 50 and (np.diff(few) > 0).all() and set(few) <= set(index)
    shuffled = np.random.default_rng(0).permutation(index)
    assert np.array_equal(sample_of(shuffled, 50, seed=3), few)
    assert not np.array_equal(sample_of(index, 50, seed=4), few)
    assert set(few) <= set(sample_of(index, 80, seed=3))
    assert np.array_equal(sample_of(shuffled, 1000, seed=3), index)


# ---- own slices --------------------------------------------------------------------------------


def test_a_slice_that_is_no_query_is_refused_before_training(tmp_path, run):
    path = write_config(tmp_path / "c.yaml", data_of(run), slices={"dark": "brightnes < 90"})
    with pytest.raises(ConfigError, match=r"dark.*brightness"):
        train(Config.load(path), command="ml-core train")
    assert not (tmp_path / "runs").exists()


def test_slices_can_be_given_to_a_run_that_was_trained(run):
    operating = open_operating_run(run.path, ['slices.dark="brightness < 90"'])
    assert operating.config.slices == {"dark": "brightness < 90"}
    assert read_json(run.record_path)["status"] == "completed"
