"""ExperimentTracker: what is in the files, after good days and bad ones."""

import json
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ml_core.errors import RunError
from ml_core.runs import RunDir, RunRecord, read_jsonl
from ml_core.tracking import ExperimentTracker, log_file
from ml_core.tracking.event_file import EventFile


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[ExperimentTracker]:
    with ExperimentTracker("pcam", {"seed": 7}, tmp_path) as tracker:
        yield tracker


@contextmanager
def files_limited_to(num_bytes: int) -> Iterator[None]:
    """Make writes beyond `num_bytes` fail as on a full disk: first a short write, then an error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def scalars_in(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """Return what TensorBoard itself reads, purging nothing: every point of every file."""
    accumulator = EventAccumulator(
        str(directory), size_guidance={"scalars": 0}, purge_orphaned_data=False
    )
    accumulator.Reload()
    return {
        tag: [(point.step, point.value) for point in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }


def log_steps(tracker: ExperimentTracker, steps: range) -> None:
    for step in steps:
        tracker.log_step(step, {"loss": 1 / step}, epoch=1 + (step - 1) // 5)


def test_a_directory_is_made_for_each_run_and_never_shared(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        with ExperimentTracker("pcam", {}, tmp_path) as tracker:
            names.append(tracker.run.name)
    assert names == ["pcam", "pcam-2", "pcam-3"]


def test_a_run_made_by_the_tracker_is_one_that_every_command_can_open(tmp_path: Path) -> None:
    config = {"seed": 7, "data": {"data_path": tmp_path / "patches", "sizes": (96, 96)}}
    with ExperimentTracker("pcam", config, tmp_path) as tracker:
        record = RunRecord.load(RunDir.open(tracker.run.path))
        assert (record.experiment_name, record.seed, record.status) == ("pcam", 7, "running")
    assert RunRecord.load(tracker.run).status == "completed"
    assert yaml.safe_load(tracker.run.config_path.read_text())["data"]["sizes"] == [96, 96]


def test_an_error_inside_the_with_block_makes_the_run_failed(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), ExperimentTracker("pcam", {}, tmp_path) as tracker:
        raise ZeroDivisionError
    assert RunRecord.load(tracker.run).status == "failed"


def test_the_config_and_record_of_a_given_run_are_left_alone(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, "given")
    run.config_path.write_text("seed: 1\n")
    RunRecord("pcam", 1, "test").save(run)
    before = run.record_path.read_bytes()
    with ExperimentTracker("pcam", {"seed": 2}, run=run):
        pass
    assert run.config_path.read_text() == "seed: 1\n"
    assert run.record_path.read_bytes() == before


def test_an_epoch_is_one_line_with_its_time_and_null_for_what_is_undefined(
    tracker: ExperimentTracker,
) -> None:
    tracker.log_metrics(1, {"val_loss": 0.5, "val_f1": float("nan")}, step=79)
    tracker.log_metrics(2, {"val_loss": float("inf")})
    first, second = read_jsonl(tracker.run.metrics_log_path)
    assert list(first) == ["epoch", "step", "time", "val_loss", "val_f1"]
    assert (first["epoch"], first["step"], first["val_loss"]) == (1, 79, 0.5)
    assert first["time"].endswith("+00:00")
    assert first["val_f1"] is None
    assert second["val_loss"] is None
    assert "step" not in second


def test_a_step_is_in_the_file_when_log_step_returns_even_if_the_process_is_killed(
    tmp_path: Path,
) -> None:
    code = f"""
import os, signal
from ml_core.tracking import ExperimentTracker, log_file
tracker = ExperimentTracker("pcam", {{}}, {str(tmp_path)!r})
for step in range(1, 1001):
    tracker.log_step(step, {{"loss": 0.5}}, epoch=1)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], check=False)
    assert killed.returncode == -signal.SIGKILL
    lines = list(read_jsonl(tmp_path / "pcam" / "steps.jsonl"))
    assert [line["step"] for line in lines] == list(range(1, 1001))


def test_logging_opens_no_connection_and_loads_neither_torch_nor_mlflow(tmp_path: Path) -> None:
    code = f"""
import sys
def refuse(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.fork"):
        raise SystemExit(f"the tracker used {{event}} {{args}}")
sys.addaudithook(refuse)
from ml_core.tracking import ExperimentTracker, log_file
with ExperimentTracker("pcam", {{}}, {str(tmp_path)!r}) as tracker:
    tracker.log_step(1, {{"loss": 0.5}})
    tracker.log_metrics(1, {{"val_loss": 0.5}}, step=1)
    tracker.truncate(0)
assert not {{"torch", "mlflow"}} & set(sys.modules)
"""
    dead = {**os.environ, "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=dead, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_after_a_resume_each_step_and_epoch_is_logged_exactly_once(tmp_path: Path) -> None:
    tracker = ExperimentTracker("pcam", {}, tmp_path)
    log_steps(tracker, range(1, 13))
    tracker.log_metrics(1, {"val_loss": 0.9}, step=5)
    tracker.log_metrics(2, {"val_loss": 0.8}, step=10)
    with open(tracker.run.steps_log_path, "a") as file:
        file.write('{"step": 13, "los')  # the process dies here; its tracker is never closed

    resumed = ExperimentTracker("pcam", {}, run=tracker.run)
    resumed.truncate(after_step=7)
    log_steps(resumed, range(8, 16))
    resumed.log_metrics(2, {"val_loss": 0.7}, step=10)
    resumed.close()

    steps = list(read_jsonl(tracker.run.steps_log_path))
    epochs = list(read_jsonl(tracker.run.metrics_log_path))
    assert [line["step"] for line in steps] == list(range(1, 16))
    assert [(line["epoch"], line["val_loss"]) for line in epochs] == [(1, 0.9), (2, 0.7)]
    shown = scalars_in(tracker.run.tensorboard_dir)
    assert shown["step/loss"] == [(step, pytest.approx(1 / step)) for step in range(1, 16)]
    assert shown["epoch/val_loss"] == [(1, pytest.approx(0.9)), (2, pytest.approx(0.7))]


def test_epochs_logged_without_a_step_are_dropped_by_their_epoch(
    tracker: ExperimentTracker,
) -> None:
    for epoch in (1, 2, 3):
        tracker.log_metrics(epoch, {"val_loss": 0.5})
    tracker.truncate(after_step=100, after_epoch=2)
    assert [line["epoch"] for line in read_jsonl(tracker.run.metrics_log_path)] == [1, 2]


def test_an_epoch_whose_last_step_was_saved_before_it_was_over_is_logged_once(
    tracker: ExperimentTracker,
) -> None:
    # A checkpoint in mid-epoch may fall on its last step; the kill came after the epoch's line.
    log_steps(tracker, range(1, 11))
    tracker.log_metrics(1, {"val_loss": 0.9}, step=5)
    tracker.log_metrics(2, {"val_loss": 0.8}, step=10)
    tracker.truncate(after_step=10, after_epoch=1)
    tracker.log_metrics(2, {"val_loss": 0.8}, step=10)
    assert [line["epoch"] for line in read_jsonl(tracker.run.metrics_log_path)] == [1, 2]
    assert [line["step"] for line in read_jsonl(tracker.run.steps_log_path)] == list(range(1, 11))


def test_a_line_cut_short_by_a_crash_is_never_continued(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, "crashed")
    run.steps_log_path.write_bytes(b'{"step": 1}\n{"step": 2, "loss": 0.')
    with ExperimentTracker("pcam", {}, run=run) as tracker:
        tracker.log_step(2, {"loss": 0.25})
    assert [line["step"] for line in read_jsonl(run.steps_log_path)] == [1, 2]


def test_a_damaged_line_is_named_instead_of_dropped(tracker: ExperimentTracker) -> None:
    log_steps(tracker, range(1, 3))
    with open(tracker.run.steps_log_path, "a") as file:
        file.write("\0\0\0\n")
    with pytest.raises(RunError, match=r"steps\.jsonl, line 3 is damaged: it is not JSON"):
        tracker.truncate(after_step=3)
    assert len(tracker.run.steps_log_path.read_bytes().splitlines()) == 3


def test_what_a_power_cut_made_of_lines_after_the_checkpoint_does_not_stop_a_resume(
    tracker: ExperimentTracker,
) -> None:
    # The lines up to a checkpoint are synced before it is; those after it are logged once more.
    log_steps(tracker, range(1, 4))
    with open(tracker.run.steps_log_path, "ab") as file:
        file.write(b"\0\0\0\n")
    log_steps(tracker, range(5, 7))
    tracker.truncate(after_step=3)
    log_steps(tracker, range(4, 6))
    assert [line["step"] for line in read_jsonl(tracker.run.steps_log_path)] == [1, 2, 3, 4, 5]


def test_a_full_disk_is_an_error_at_once_and_leaves_whole_lines(tmp_path: Path) -> None:
    with ExperimentTracker("pcam", {}, tmp_path, tensorboard=False) as tracker:
        log_steps(tracker, range(1, 4))
        size = tracker.run.steps_log_path.stat().st_size
        with files_limited_to(size + 10), pytest.raises(OSError, match=r"steps\.jsonl"):
            log_steps(tracker, range(4, 5))
        log_steps(tracker, range(4, 6))  # space was made
    assert [line["step"] for line in read_jsonl(tracker.run.steps_log_path)] == [1, 2, 3, 4, 5]


def test_the_name_of_a_new_log_is_made_to_survive_a_power_cut_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(log_file, "sync", synced.append)
    for _ in range(2):
        log = log_file.LogFile(tmp_path / "steps.jsonl")
        log.append({"step": 1})
        log.close()
    assert synced == [tmp_path]


def test_a_disk_too_full_for_tensorboard_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    events = EventFile(tmp_path)
    with files_limited_to(100), caplog.at_level(logging.WARNING):
        for step in range(1, 11):
            events.add_scalars(step, 0.0, {"step/loss": 0.5})
            events.flush()
        events.close()
    assert len(caplog.records) == 1
    assert "no longer written" in caplog.text


def test_a_run_goes_on_where_tensorboard_cannot_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = RunDir.create(tmp_path, "blocked")
    run.tensorboard_dir.write_text("a file where the folder should be")
    with ExperimentTracker("pcam", {}, run=run) as tracker:
        log_steps(tracker, range(1, 4))
        tracker.truncate(after_step=2)
    assert [line["step"] for line in read_jsonl(run.steps_log_path)] == [1, 2]
    assert [record.levelname for record in caplog.records] == ["WARNING"] * len(caplog.records)
    assert len(caplog.records) == 1


def test_tensorboard_reads_epochs_and_steps_each_on_its_own_axis(
    tracker: ExperimentTracker,
) -> None:
    tracker.log_step(1, {"loss": 0.5, "grad_norm": float("nan")}, epoch=1)
    tracker.log_metrics(1, {"val_loss": 0.25}, step=1)
    shown = scalars_in(tracker.run.tensorboard_dir)
    assert shown == {"step/loss": [(1, 0.5)], "epoch/val_loss": [(1, 0.25)]}


def test_torch_and_numpy_scalars_are_logged_as_numbers(tracker: ExperimentTracker) -> None:
    numpy, torch = pytest.importorskip("numpy"), pytest.importorskip("torch")
    tracker.log_step(1, {"loss": torch.tensor(0.5), "grad_norm": numpy.float32(0.25)})
    (line,) = read_jsonl(tracker.run.steps_log_path)
    assert (line["loss"], line["grad_norm"]) == (0.5, 0.25)


def test_checkpoint_paths_lie_in_the_run_and_can_be_written(tracker: ExperimentTracker) -> None:
    path = tracker.get_checkpoint_path("best.safetensors")
    assert isinstance(path, str)
    Path(path).write_bytes(b"weights")
    assert Path(path).is_relative_to(tracker.run.path)


def test_closing_twice_is_harmless(tracker: ExperimentTracker) -> None:
    tracker.log_step(1, {"loss": 0.5})
    tracker.close()
    tracker.close()
    assert json.loads(tracker.run.record_path.read_text())["status"] == "completed"


@pytest.mark.parametrize("epoch", [0, 1])
def test_an_epoch_after_the_checkpoint_that_a_power_cut_made_rubbish_is_dropped(tracker, epoch):
    for number in (1, 2):
        tracker.log_step(10 * number, {"loss": 0.5})
        tracker.log_metrics(number, {"val_loss": 0.5}, step=10 * number)
    path = tracker.run.metrics_log_path
    lines = path.read_bytes().splitlines(keepends=True)
    lines[epoch] = b"\0" * 20 + lines[epoch][20:]
    path.write_bytes(b"".join(lines))
    tracker.truncate(10 * epoch + 5, epoch)  # saved in the middle of the epoch after it
    assert [record["epoch"] for record in read_jsonl(path)] == list(range(1, epoch + 1))


@pytest.mark.parametrize("what", ["removed", "replaced"])
def test_a_log_that_lost_its_name_is_said_before_a_checkpoint_counts_on_it(tracker, what):
    tracker.log_step(1, {"loss": 0.5})
    tracker.flush()
    path = tracker.run.steps_log_path
    content = path.read_bytes()
    path.unlink()
    if what == "replaced":  # as an editor does it
        path.write_bytes(content)
    tracker.log_step(2, {"loss": 0.5})
    with pytest.raises(RunError, match=r"steps\.jsonl was replaced or removed .*train --resume"):
        tracker.flush()
