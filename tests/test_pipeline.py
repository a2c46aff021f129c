"""The main job from the command line, on real files: what a user types, reads and gets."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tiny_pcam import make_patches, write_config, write_split, write_tiny_pcam
from typed import typed

from ml_core.cli_options import command_line
from ml_core.config import Config
from ml_core.data.layout import split_paths
from ml_core.errors import RunError
from ml_core.evaluation.predictions import Predictions
from ml_core.runs import RunDir, RunRecord, read_json, read_jsonl, write_json


@pytest.fixture
def ml_core(capfd):
    """Type a command: ml_core("train", config)."""
    return lambda *arguments: typed(capfd, *arguments)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return write_tiny_pcam(tmp_path_factory.mktemp("tiny") / "data")


@pytest.fixture
def config(data_dir, tmp_path):
    return write_config(tmp_path / "config.yaml", data_dir)


@pytest.fixture
def trained(ml_core, config):
    """A finished run."""
    done = ml_core("train", config, "--json")
    assert done.code == 0, done.out
    return RunDir.open(done.json["runs"][0]["run"])


# ---- the main job ------------------------------------------------------------------------------


def test_run_checks_trains_every_seed_evaluates_and_reports(ml_core, data_dir, tmp_path):
    config = write_config(tmp_path / "config.yaml", data_dir, seeds=[1, 2])
    done = ml_core("run", config, "--json")
    assert done.code == 0, done.out
    result = done.json
    assert result["status"] == "completed"
    assert len(result["runs"]) == 2
    for trained, seed in zip(result["runs"], (1, 2), strict=True):
        run = RunDir.open(trained["run"])
        record = RunRecord.load(run)
        assert record.seed == seed
        assert record.status == "completed"
        assert record.best["weights_sha256"]
        assert run.report_path.stat().st_size > 10_000
        assert trained["metrics"]["roc_auc"]["low"] <= trained["metrics"]["roc_auc"]["value"]
    assert "<html" in Path(result["report"]).read_text()
    assert "first batch: (32, 3, 96, 96) uint8" in done.out
    assert "epoch 2/2" in done.out


def test_every_number_can_be_computed_again_from_the_predictions_table(ml_core, trained):
    done = ml_core("evaluate", trained.path, "--json")
    assert done.code == 0, done.out
    scores = read_json(trained.metrics_path)
    table = Predictions.load(trained.predictions_path("valid"))
    assert table.metrics()["roc_auc"] == scores["metrics"]["roc_auc"]["value"]
    assert sum(scores["confusion"].values()) == len(table) == 64
    assert scores["weights_sha256"] == RunRecord.load(trained).best["weights_sha256"]
    best = RunRecord.load(trained).best["epoch"]
    logged = {line["epoch"]: line for line in read_jsonl(trained.metrics_log_path)}[best]
    assert scores["metrics"]["loss"]["value"] == pytest.approx(logged["val_loss"], abs=1e-6)
    assert not RunRecord.load(trained).findings


def test_the_record_says_what_ran_on_what(trained):
    record = read_json(trained.record_path)
    assert record["command"].startswith("ml-core train")
    assert record["packages"]["torch"]
    assert record["hardware"]["torch_threads"]
    assert record["data"]["train"]["x_sha256"]
    assert record["data"]["valid"]["num_patches"] == 64
    assert record["model"]["num_parameters"] > 27648 * 16
    assert record["model"]["flops_per_patch"] >= 2 * 27648 * 16
    assert record["first_batch"]["shape"] == [32, 3, 96, 96]


def test_the_test_split_is_sealed(ml_core, trained):
    done = ml_core("evaluate", trained.path, "--split", "test")
    assert done.code == 2
    assert "sealed" in done.out


def test_fast_dev_run_goes_through_everything_and_keeps_nothing(ml_core, config, tmp_path):
    done = ml_core("train", config, "--fast-dev-run", "--json")
    assert done.code == 0, done.out
    assert done.json["status"] == "completed"
    assert "resuming" in done.out
    assert (done.json["device"], done.json["num_train"]) == ("cpu", 96)
    assert done.json["estimated_s"] > 0 and done.json["peak_rss_mb"] > 100
    assert list((tmp_path / "runs").iterdir()) == []


def test_the_course_entry_point_does_what_train_does(config, tmp_path):
    script = Path(__file__).parents[1] / "experiments" / "train.py"
    done = subprocess.run(
        [sys.executable, script, "--config", config, "--json"],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    run = json.loads(done.stdout.splitlines()[-1])["runs"][0]["run"]
    assert RunRecord.load(RunDir.open(run)).status == "completed"


def test_settings_given_with_set_are_used_and_recorded(ml_core, config):
    done = ml_core("train", config, "--set", "training.epochs=1", "--set", "seed=9", "--json")
    run = RunDir.open(done.json["runs"][0]["run"])
    assert len(list(read_jsonl(run.metrics_log_path))) == 1
    assert "seed: 9" in run.config_path.read_text()
    assert RunRecord.load(run).seed == 9


def test_a_subset_is_recorded_and_said(ml_core, config):
    done = ml_core("train", config, "--set", "data.max_patches=40", "--json")
    assert "56 of 96 in the file are NOT used" in done.out
    record = RunRecord.load(RunDir.open(done.json["runs"][0]["run"]))
    assert record.data["train"]["num_patches"] == 40


# ---- predict -----------------------------------------------------------------------------------


def test_predict_gives_evaluates_probabilities_from_hdf5_and_from_images(
    ml_core, trained, data_dir, tmp_path
):
    ml_core("evaluate", trained.path)
    expected = Predictions.load(trained.predictions_path("valid")).y_prob
    valid_path = split_paths(data_dir, "valid").x
    with h5py.File(valid_path) as file:
        for i in range(3):
            Image.fromarray(file["x"][i]).save(tmp_path / f"{i}.png")
        Image.fromarray(file["x"][3]).save(tmp_path / "3.tiff")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no more")
    Image.new("RGB", (50, 50)).save(tmp_path / "small.jpg")
    images = sorted([*tmp_path.glob("*.png"), *tmp_path.glob("*.tiff"), *tmp_path.glob("*.jpg")])
    out = tmp_path / "out.csv"
    done = ml_core("predict", trained.path, valid_path, *images, "--out", out, "--json")
    assert done.code == 0, done.out
    assert done.json["errors"] == 2
    table = pd.read_csv(out)
    from_file = table[table["file"] == str(valid_path)]
    assert np.allclose(from_file["y_prob"], expected, atol=1e-6)
    by_name = table.set_index(table["file"].map(lambda f: Path(f).name))
    for i, name in enumerate(["0.png", "1.png", "2.png", "3.tiff"]):
        assert by_name.loc[name, "y_prob"] == pytest.approx(expected[i], abs=1e-6)
    assert "not an image" in by_name.loc["broken.png", "error"]
    assert "50 x 50" in by_name.loc["small.jpg", "error"]
    assert np.isnan(by_name.loc["broken.png", "y_prob"])


def test_predict_refuses_what_it_cannot_read(ml_core, trained, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    assert ml_core("predict", trained.path, text).code == 2
    assert ml_core("predict", trained.path, tmp_path / "absent.png").code == 2
    out = tmp_path / "out.xlsx"
    done = ml_core("predict", trained.path, tmp_path / "absent.png", "--out", out)
    assert done.code == 2
    assert ".csv or .parquet" in done.out


def test_predict_refuses_the_test_split_by_place_and_by_bytes(ml_core, trained, tmp_path):
    data_path = Config.load(trained.config_path).data.data_path
    test = split_paths(data_path, "test").x
    was_there = test.is_file()
    if not was_there:
        labels = np.arange(20) % 2
        write_split(data_path, "test", make_patches(labels, 9), labels)
    try:
        copy = tmp_path / "copy.h5"
        copy.write_bytes(test.read_bytes())
        for file in (test, copy):
            done = ml_core("predict", trained.path, file, "--out", tmp_path / "out.csv")
            assert done.code == 2
            assert "is the test split of this run's data, which is sealed" in done.out
    finally:
        if not was_there:
            split_paths(data_path, "test").y.unlink()
            test.unlink()


# ---- stopping and going on ---------------------------------------------------------------------


def test_ctrl_c_saves_says_how_to_resume_and_the_resumed_run_is_the_same(
    ml_core, data_dir, tmp_path
):
    config = write_config(
        tmp_path / "config.yaml", data_dir, training={"epochs": 40}, data={"batch_size": 8}
    )
    straight = RunDir.open(ml_core("train", config, "--json").json["runs"][0]["run"])

    process = subprocess.Popen(
        [sys.executable, "-m", "ml_core.cli", "train", config],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    wait_until(lambda: count_steps(tmp_path / "runs" / "tiny", besides=straight) > 20)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    assert "go on with: ml-core train --resume" in out
    stopped = RunDir.open(out.rsplit("--resume ", 1)[1].strip())
    assert RunRecord.load(stopped).status == "interrupted"
    assert 20 < count_lines(stopped.steps_log_path) < 40 * 12

    done = ml_core("train", "--resume", stopped.path)
    assert done.code == 0, done.out
    assert digest(stopped) == digest(straight)
    assert count_lines(stopped.steps_log_path) == count_lines(straight.steps_log_path)


def test_a_killed_run_resumes_to_the_same_bits(ml_core, data_dir, tmp_path):
    config = write_config(
        tmp_path / "config.yaml", data_dir, training={"epochs": 40}, data={"batch_size": 8}
    )
    straight = RunDir.open(ml_core("train", config, "--json").json["runs"][0]["run"])
    process = subprocess.Popen(
        [sys.executable, "-m", "ml_core.cli", "train", config], stdout=subprocess.DEVNULL
    )
    wait_until(lambda: count_steps(tmp_path / "runs" / "tiny", besides=straight) > 30)
    process.kill()
    process.wait()
    (killed,) = (p for p in (tmp_path / "runs" / "tiny").iterdir() if p != straight.path)
    assert RunRecord.load(RunDir(killed)).status == "running"
    done = ml_core("train", "--resume", killed)
    assert done.code == 0, done.out
    assert digest(RunDir(killed)) == digest(straight)
    assert [line["step"] for line in read_jsonl(RunDir(killed).steps_log_path)] == list(
        range(1, 40 * 12 + 1)
    )


def wait_until(condition, timeout_s=90):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "training did not get there"
        time.sleep(0.02)


def count_steps(parent, besides):
    return sum(count_lines(p / "steps.jsonl") for p in parent.iterdir() if p != besides.path)


def count_lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def digest(run):
    """Return what the last checkpoint holds, but for the token of the process that wrote it."""
    last = run.checkpoints_dir / "last"
    digests = read_json(last / "MANIFEST.json")["sha256"]
    state = read_json(last / "state.json")
    assert state.pop("writer")
    return {**digests, "state.json": state}


def test_a_finished_run_is_not_resumed(ml_core, trained):
    done = ml_core("train", "--resume", trained.path)
    assert done.code == 2
    assert "nothing to resume" in done.out


def test_resume_takes_no_other_config(ml_core, trained, config):
    assert ml_core("train", config, "--resume", trained.path).code == 2
    done = ml_core("run", "--resume", trained.path, "--set", "seed=3")
    assert done.code == 2
    assert "--set seed:" in done.out and "was trained with its own" in done.out


def test_a_run_whose_data_have_changed_is_neither_evaluated_nor_resumed(ml_core, tmp_path):
    data_dir = write_tiny_pcam(tmp_path / "own")
    config = write_config(tmp_path / "config.yaml", data_dir)
    run = RunDir.open(ml_core("train", config, "--json").json["runs"][0]["run"])
    with h5py.File(split_paths(data_dir, "valid").x, "r+") as file:
        file["x"][0, 0, 0, 0] ^= 1
    done = ml_core("evaluate", run.path)
    assert done.code == 2
    assert "has changed since the run was trained" in done.out

    record = read_json(run.record_path)
    write_json(run.record_path, {**record, "status": "interrupted"})
    done = ml_core("train", "--resume", run.path)
    assert done.code == 2
    assert "rows 0 to 63 (1 group of 1,024) differ" in done.out


def test_data_that_are_not_what_is_recorded_beside_them_are_not_trained_on(ml_core, tmp_path):
    data_dir = write_tiny_pcam(tmp_path / "own")
    assert ml_core("data", "manifest", data_dir).code == 0
    with h5py.File(split_paths(data_dir, "train").x, "r+") as file:
        file["x"][3, 0, 0, 0] ^= 1
    done = ml_core("train", write_config(tmp_path / "config.yaml", data_dir))
    assert done.code == 2
    assert "is not what dataset.json records" in done.out
    assert not (tmp_path / "runs").exists()


def test_a_trained_run_can_be_scored_anew_where_its_data_have_moved(
    ml_core, trained, data_dir, tmp_path
):
    moved = tmp_path / "moved"
    shutil.copytree(data_dir, moved)
    done = ml_core(
        "evaluate", trained.path, "--json",
        "--set", f"data.data_path={moved}", "--set", "evaluation.threshold=0.9",
    )  # fmt: skip
    assert done.code == 0, done.out
    assert done.json["threshold"] == 0.9
    refused = ml_core("evaluate", trained.path, "--set", "model.hidden_units=[8]")
    assert refused.code == 2
    assert "evaluation.threshold" in refused.out


def test_a_changed_checkpoint_is_not_scored(ml_core, trained):
    weights = trained.checkpoints_dir / "best" / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    done = ml_core("evaluate", trained.path)
    assert done.code == 2
    assert "has changed since it was written" in done.out


# ---- bad input ---------------------------------------------------------------------------------


def broken(name):
    """Return a function that spoils a good data folder in the way `name` says."""

    def rewrite_labels(make):
        def spoil(data):
            path = split_paths(data, "train").y
            with h5py.File(path) as file:
                labels = file["y"][:]
            with h5py.File(path, "w") as file:
                file["y"] = make(labels)

        return spoil

    def rewrite_patches(make):
        def spoil(data):
            path = split_paths(data, "train").x
            with h5py.File(path) as file:
                patches = file["x"][:]
            with h5py.File(path, "w") as file:
                file["x"] = make(patches)

        return spoil

    def nan_pixel(patches):
        patches = patches.astype("float32")
        patches[7, 3, 3, 1] = np.nan
        return patches

    def standardised(patches):
        return ((patches - 180.0) / 40).astype("float32")

    def cut_off(data):
        path = split_paths(data, "train").x
        os.truncate(path, path.stat().st_size // 2)

    def rename(data):
        path = split_paths(data, "valid").x
        path.rename(path.with_name(path.name.replace("valid", "vaild")))

    def wrong_key(data):
        with h5py.File(split_paths(data, "train").x, "r+") as file:
            file.move("x", "images")

    return {
        "misspelt file": (rename, "vaild"),
        "missing folder": (shutil.rmtree, "no such|does not exist|there is no"),
        "truncated": (cut_off, "truncated"),
        "empty": (lambda d: split_paths(d, "train").x.write_bytes(b""), "empty"),
        "not HDF5": (lambda d: split_paths(d, "train").x.write_bytes(b"x" * 999), "HDF5"),
        "wrong key": (wrong_key, "images"),
        "lengths differ": (rewrite_labels(lambda y: y[:-1]), "95"),
        "wrong shape": (rewrite_patches(lambda x: x[:, :, :, 0]), "shape"),
        "other size": (rewrite_patches(lambda x: x[:, :64, :64]), "64 x 64"),
        "zero length": (rewrite_patches(lambda x: x[:0]), "no patch|holds 0|length|empty"),
        "label 2": (rewrite_labels(lambda y: y * 2), "neither 0 nor 1"),
        "negative labels": (rewrite_labels(lambda y: -y.astype("int8")), "neither 0 nor 1"),
        "text labels": (rewrite_labels(lambda y: np.array([b"a"] * len(y))), "type"),
        "one class": (rewrite_labels(lambda y: y * 0), "none is tumour"),
        "NaN pixel": (rewrite_patches(nan_pixel), "NaN"),
        "range unknown": (rewrite_patches(standardised), "below zero"),
    }[name]


@pytest.mark.parametrize(
    "name",
    [
        "misspelt file", "missing folder", "truncated", "empty", "not HDF5", "wrong key",
        "lengths differ", "wrong shape", "other size", "zero length", "label 2",
        "negative labels", "text labels", "one class", "NaN pixel", "range unknown",
    ],
)  # fmt: skip
def test_bad_data_is_refused_in_words_before_a_run_is_made(ml_core, data_dir, tmp_path, name):
    import re

    own = tmp_path / "data"
    shutil.copytree(data_dir, own)
    config = write_config(tmp_path / "config.yaml", own)
    spoil, words = broken(name)
    spoil(own)
    done = ml_core("train", config)
    assert done.code == 2, done.out
    assert "Traceback" not in done.out
    assert re.search(words, done.out), done.out
    assert str(own) in done.out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int64", "uint16", "bool"])
@pytest.mark.parametrize("shape", [(-1,), (-1, 1), (-1, 1, 1, 1)])
def test_labels_of_any_integer_type_and_shape_are_read(ml_core, tmp_path, dtype, shape):
    labels = np.arange(64) % 2
    for seed, split in enumerate(("train", "valid")):
        stored = labels.astype(dtype).reshape(shape)
        write_split(tmp_path / "data", split, make_patches(labels, seed), stored)
    done = ml_core("data", "info", tmp_path / "data", "--json")
    assert done.code == 0, done.out
    assert done.json["train"]["num_positive"] == 32


@pytest.mark.parametrize("scale", [1 / 255, 1.0])
def test_float_patches_train_and_say_once_that_they_are_slow(ml_core, tmp_path, scale):
    for seed, (split, num) in enumerate({"train": 96, "valid": 64}.items()):
        labels = np.arange(num) % 2
        patches = (make_patches(labels, seed) * scale).astype("float32")
        write_split(tmp_path / "data", split, patches, labels)
    config = write_config(tmp_path / "config.yaml", tmp_path / "data")
    done = ml_core("train", config, "--json")
    assert done.code == 0, done.out
    assert done.out.count("_train_x.h5: stored as") == 1
    assert RunRecord.load(RunDir.open(done.json["runs"][0]["run"])).first_batch["high"] > 200


def test_damaged_float_patches_are_refused_unless_filtered(ml_core, tmp_path):
    """The course's damaged set: black, white, NaN and blocks at 1e5 in a float file."""
    for seed, split in enumerate(("train", "valid")):
        labels = np.arange(96) % 2
        patches = make_patches(labels, seed).astype("float32")
        if split == "train":
            patches[0], patches[1] = 0, 255
            patches[2, 5, 5] = np.nan
            patches[3, 10:15, 10:15] = 1e5
        write_split(tmp_path / "data", split, patches, labels)
    config = write_config(tmp_path / "config.yaml", tmp_path / "data")
    refused = ml_core("train", config)
    assert refused.code == 2
    assert "NaN" in refused.out and "on_findings" in refused.out
    done = ml_core("train", config, "--set", "data.filter_data=true", "--json")
    assert done.code == 0, done.out
    record = RunRecord.load(RunDir.open(done.json["runs"][0]["run"]))
    assert record.data["train"]["num_filtered"] == 4
    assert record.data["train"]["num_patches"] == 92


def test_an_unwritable_output_folder_is_refused_with_what_to_do(ml_core, data_dir, tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    config = write_config(tmp_path / "config.yaml", data_dir, output_dir=str(blocker / "runs"))
    for arguments in (["train", config], ["train", config, "--fast-dev-run"], ["run", config]):
        done = ml_core(*arguments)
        assert done.code == 2, done.out
        assert "output_dir" in done.out or "cannot write" in done.out


def test_a_full_disk_ends_training_in_words_and_keeps_whole_checkpoints(
    ml_core, data_dir, tmp_path, small_disk
):
    subprocess.run(["mount", "-o", "remount,size=3m", small_disk], check=True)
    config = write_config(
        tmp_path / "config.yaml",
        data_dir,
        output_dir=str(small_disk),
        model={"hidden_units": [4]},
        training={"epochs": 20},
        tracking={"tensorboard": True},
    )
    done = ml_core("train", config)
    assert done.code == 2, done.out
    assert "No space left" in done.out
    assert "--resume" in done.out
    (run_path,) = (small_disk / "tiny").iterdir()
    from ml_core.checkpoint import load_last

    assert load_last(RunDir(run_path).checkpoints_dir).state["train"]["step"] > 0
    subprocess.run(["mount", "-o", "remount,size=100m", small_disk], check=True)
    resumed = ml_core("train", "--resume", run_path)
    assert resumed.code == 0, resumed.out


def test_a_read_only_disk_is_refused(ml_core, data_dir, tmp_path, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    config = write_config(tmp_path / "config.yaml", data_dir, output_dir=str(small_disk))
    done = ml_core("train", config)
    assert done.code == 2
    assert "Read-only" in done.out


def test_a_device_that_is_not_there_is_refused(ml_core, config):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    done = ml_core("train", config, "--set", "training.device=cuda")
    assert done.code == 2
    assert "sees 0 GPUs" in done.out


def test_two_writers_in_one_run_are_refused(ml_core, trained):
    import fcntl

    record = RunRecord.load(trained)
    record.status = "interrupted"
    record.save(trained)
    with open(trained.lock_path, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = ml_core("train", "--resume", trained.path)
    assert done.code == 2
    assert "another process" in done.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "absent.yaml"], "no config file"),
        (["train"], "which config"),
        (["evaluate", "nowhere"], "not a run directory"),
        (["report", "nowhere"], "not a run directory"),
        (["data", "info", "nowhere"], "no"),
        (["track", "sync", "nowhere"], "nothing to send"),
        (["fly"], "No such command"),
        (["train", "--epochs", "3"], "No such option"),
    ],
)
def test_a_wrong_command_is_answered_in_words(ml_core, arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = ml_core(*arguments)
    assert done.code == 2
    assert words in done.out
    assert "Traceback" not in done.out


def test_a_run_that_was_not_evaluated_says_so_in_its_report_or_is_refused(ml_core, trained):
    done = ml_core("report", trained.path)
    assert "Traceback" not in done.out
    assert done.code in (0, 2)


def test_a_password_that_was_typed_is_not_kept_in_the_record(monkeypatch):
    typed = ["ml-core", "train", "a.yaml", "--set", "tracking.mlflow_uri=http://bob:s3cret@host/x"]
    monkeypatch.setattr(sys, "argv", typed)
    assert command_line() == (
        "ml-core train a.yaml --set tracking.mlflow_uri=http://bob:***@host/x"
    )


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("study", "is a study, not a run directory"),
        ("file", "not a run directory but a file"),
        ("nothing", "there is nothing of that name"),
        ("folder", "it has no run.json"),
    ],
)
def test_what_is_no_run_is_called_what_it_is(kind, words, tmp_path):
    path = tmp_path / kind
    if kind in ("study", "folder"):
        path.mkdir()
    if kind == "study":
        (path / "study.json").write_text("{}")
    if kind == "file":
        path.write_text("hello")
    with pytest.raises(RunError, match=words):
        RunDir.open(path)
