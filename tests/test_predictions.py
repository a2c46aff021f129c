import errno
import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_core.errors import RunError
from ml_core.evaluation.predictions import Predictions, evaluate_predictions
from ml_core.metrics import compute_metrics


def make_predictions(num_patches: int = 200, **changes) -> Predictions:
    generator = np.random.default_rng(0)
    y_true = generator.integers(0, 2, num_patches)
    logit = generator.normal(size=num_patches) + 2 * y_true - 1
    fields = {
        "split": "valid",
        "index": np.arange(num_patches)[::-1] + 7,
        "y_true": y_true,
        "y_prob": 1 / (1 + np.exp(-logit)),
        "logit": logit,
        "run_id": "8f3a",
        "weights_sha256": "ab" * 32,
        "epoch": 7,
    }
    return Predictions(**{**fields, **changes})


def test_a_saved_table_comes_back_bit_for_bit_with_its_provenance(tmp_path: Path):
    predictions = make_predictions()
    predictions.save(tmp_path / "predictions" / "valid.parquet")
    loaded = Predictions.load(tmp_path / "predictions" / "valid.parquet")
    for name in ("index", "y_true", "y_prob", "logit"):
        assert np.array_equal(getattr(loaded, name), getattr(predictions, name))
        assert getattr(loaded, name).dtype == getattr(predictions, name).dtype
    assert loaded.split == "valid"
    assert (loaded.run_id, loaded.weights_sha256, loaded.epoch) == ("8f3a", "ab" * 32, 7)


def test_any_parquet_reader_sees_the_columns_by_name(tmp_path: Path):
    make_predictions(3).save(tmp_path / "valid.parquet")
    table = pq.read_table(tmp_path / "valid.parquet")
    assert table.column_names == ["split", "index", "y_true", "y_prob", "logit"]
    assert table["split"].to_pylist() == ["valid"] * 3


def test_patches_without_labels_are_saved_and_refuse_to_be_scored(tmp_path: Path):
    make_predictions(y_true=None, run_id=None, epoch=None).save(tmp_path / "new.parquet")
    loaded = Predictions.load(tmp_path / "new.parquet")
    assert loaded.y_true is None and loaded.run_id is None and loaded.epoch is None
    with pytest.raises(RunError, match="have no labels, so they cannot be scored"):
        evaluate_predictions(loaded)


def test_saving_replaces_the_old_table_and_leaves_nothing_else_behind(tmp_path: Path):
    path = tmp_path / "valid.parquet"
    make_predictions(5).save(path)
    make_predictions(9).save(path)
    assert len(Predictions.load(path)) == 9
    assert [file.name for file in tmp_path.iterdir()] == ["valid.parquet"]


def test_who_is_reading_the_old_table_still_reads_all_of_it(tmp_path: Path):
    path = tmp_path / "valid.parquet"
    make_predictions(500).save(path)
    old = path.read_bytes()
    with open(path, "rb") as reader:
        make_predictions(9).save(path)
        assert reader.read() == old


def test_a_full_disk_keeps_the_old_table_and_says_so(tmp_path: Path, monkeypatch):
    path = tmp_path / "valid.parquet"
    make_predictions(5).save(path)

    def no_space(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(RunError, match=r"cannot write .*No space left on device\. Free some"):
        make_predictions(9).save(path)
    assert len(Predictions.load(path)) == 5
    assert [file.name for file in tmp_path.iterdir()] == ["valid.parquet"]


def test_a_patch_that_is_there_twice_is_refused_by_save_and_load(tmp_path: Path):
    path = tmp_path / "valid.parquet"
    index = np.array([3, 1, 3])
    with pytest.raises(RunError, match="1 patches of split 'valid' are there more than once, in"):
        make_predictions(3, index=index).save(path)
    make_predictions(3).save(path)
    table = pq.read_table(path)
    pq.write_table(table.set_column(1, "index", pa.array(index)), path)
    with pytest.raises(RunError, match="more than once, index 3"):
        Predictions.load(path)


def rewrite(path: Path, change) -> None:
    pq.write_table(change(pq.read_table(path)), path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop_columns(["y_prob", "logit"]), "lacks the columns y_prob, logit; it has"),
        (lambda t: t.slice(0, 0), "holds no patches"),
        (
            lambda t: t.set_column(0, "split", pa.array(["valid", "test", "test"])),
            "holds the splits",
        ),
        (
            lambda t: t.set_column(3, "y_prob", pa.array(["high", "low", "low"])),
            "not what a predictions table holds",
        ),
        (
            lambda t: t.set_column(3, "y_prob", pa.array([0.1, None, 0.2])),
            "not what a predictions table holds",
        ),
        (
            lambda t: t.set_column(2, "y_true", pa.array([0, None, 1], pa.int8())),
            "no label for 1 of 3 patches",
        ),
    ],
)
def test_a_table_of_another_kind_is_refused_with_what_is_wrong(tmp_path: Path, change, words):
    path = tmp_path / "valid.parquet"
    make_predictions(3).save(path)
    rewrite(path, change)
    with pytest.raises(RunError, match=words):
        Predictions.load(path)


def test_a_missing_or_damaged_file_is_named(tmp_path: Path):
    path = tmp_path / "valid.parquet"
    with pytest.raises(RunError, match=r"valid\.parquet does not exist"):
        Predictions.load(path)
    make_predictions().save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(RunError, match=r"valid\.parquet is not a readable parquet file"):
        Predictions.load(path)


def test_the_loss_of_a_patch_stays_exact_where_its_probability_has_saturated():
    logit = np.array([800.0, -800.0, 40.0])
    predictions = make_predictions(
        3, logit=logit, y_prob=np.array([1.0, 0.0, 1.0]), y_true=np.array([0, 0, 1])
    )
    assert predictions.nll == pytest.approx([800.0, 0.0, math.exp(-40)])
    assert predictions.metrics()["loss"] == pytest.approx(800 / 3)


def test_metrics_json_holds_the_scores_and_what_was_scored():
    predictions = make_predictions()
    result = evaluate_predictions(predictions, threshold=0.4, num_resamples=50, seed=3)
    expected = compute_metrics(predictions.y_true, predictions.y_prob, 0.4)
    for name, metric in result["metrics"].items():
        assert metric["value"] == pytest.approx(expected[name])
        assert metric["low"] <= metric["value"] <= metric["high"]
    assert sum(result["confusion"].values()) == result["n"] == 200
    assert result["predictions_file"] == "predictions/valid.parquet"
    assert (result["split"], result["threshold"], result["epoch"]) == ("valid", 0.4, 7)
    assert (result["num_resamples"], result["seed"]) == (50, 3)
    assert result["weights_sha256"] == "ab" * 32
    assert result["baselines"]["always_positive"]["recall"] == 1.0


def test_undefined_scores_are_null_in_metrics_json():
    result = evaluate_predictions(make_predictions(y_true=np.ones(200, int)), num_resamples=20)
    text = json.dumps(result, allow_nan=False)
    assert json.loads(text)["metrics"]["roc_auc"] == {"value": None, "low": None, "high": None}
    assert json.loads(text)["baselines"]["always_negative"]["precision"] is None
