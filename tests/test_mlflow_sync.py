"""What reaches a real MLflow server, and what happens when it is dead, hung, or killed."""

import fcntl
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow_server import (
    CONFIG,
    REFUSED,
    MlflowServer,
    artifacts_of,
    log_epoch,
    make_run,
    on_server,
    points,
    running_server,
    set_status,
    sync_state,
    wait_until,
)
from tiny_pcam import write_config, write_tiny_pcam

from ml_core.errors import RunError, TrackingError
from ml_core.runs import RunDir, RunRecord, read_jsonl
from ml_core.tracking import ExperimentTracker, finish_sync, start_sync
from ml_core.tracking.describe import MAX_PARAM_LENGTH, describe_params, describe_tags
from ml_core.tracking.log_file import LogReader
from ml_core.tracking.mlflow_server import explain
from ml_core.tracking.mlflow_sync import sync_run, wait_for_news


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with running_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


def history(uri: str, run: RunDir, key: str) -> list[tuple[int, float]]:
    return points(uri, on_server(uri, run).info.run_id, key)


def artifacts(uri: str, run: RunDir) -> set[str]:
    return artifacts_of(uri, on_server(uri, run).info.run_id)


def num_steps_sent(run: RunDir) -> int:
    return int(sync_state(run.path).get("lines", {}).get("steps.jsonl", 0))


def test_a_whole_run_arrives(server: MlflowServer, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    result = sync_run(run, server.uri)
    found = on_server(server.uri, run)

    assert (result.sent, result.already_there, result.skipped) == (42, 0, 2)
    assert result.mlflow_run_id == found.info.run_id
    assert found.info.run_name == run.name
    assert found.info.status == "FINISHED"
    assert found.info.end_time - found.info.start_time == 3_600_000
    assert found.data.params["optimizer.lr"] == "0.001"
    assert found.data.params["data.batch_size"] == "64"
    assert found.data.tags["commit"] == "0123abc"
    assert found.data.tags["dirty"] == "true"
    assert found.data.tags["seed"] == "42"
    assert found.data.tags["host"] == "node7"
    assert found.data.tags["status"] == "completed"
    assert found.data.tags["data.train.sha256.x"] == "aa"
    assert found.data.tags["finding.not-learning"] == "warning: AUC 0.5 in all epochs"
    assert history(server.uri, run, "val_loss") == [(1, 0.5), (2, 0.25)]
    assert history(server.uri, run, "step/loss") == [(step, 1 / step) for step in range(1, 21)]
    assert not any("net.0.weight" in key for key in found.data.metrics)  # gradients stay files
    assert artifacts(server.uri, run) == {
        "config.yaml",
        "run.json",
        "changes.diff",
        "metrics.json",
        "report.html",
        "figures/roc.svg",
        "predictions/valid.parquet",
    }
    assert sync_state(run.path)["complete"] is True
    logged = next(iter(LogReader(run.metrics_log_path)))["time"]
    (point, _) = MlflowClient(server.uri).get_metric_history(found.info.run_id, "val_loss")
    assert time.gmtime(point.timestamp / 1000)[:6] == time.strptime(logged[:19], "%Y-%m-%dT%X")[:6]


@pytest.mark.parametrize("module", ["tracking.mlflow_sync", "pipeline.track_ui"])
def test_mlflow_is_told_to_be_quiet_before_it_is_imported(module: str) -> None:
    """Its telemetry reports from the moment of the import on."""
    code = f"""
import os, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "mlflow":
            print(os.environ["MLFLOW_DISABLE_TELEMETRY"], os.environ["MLFLOW_LOGGING_LEVEL"])

sys.meta_path.insert(0, Watch())
import ml_core.{module}
"""
    bare = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=bare, capture_output=True, text=True, check=False)
    assert done.stdout == "true WARNING\n", done.stderr


def test_syncing_twice_changes_nothing(server: MlflowServer, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    first = sync_run(run, server.uri)
    before = on_server(server.uri, run).to_dictionary()
    second = sync_run(run, server.uri)
    assert (second.sent, second.already_there, second.artifacts_sent) == (0, first.sent, 0)
    assert on_server(server.uri, run).to_dictionary() == before
    assert len(history(server.uri, run, "step/loss")) == 20


def test_without_its_notes_a_syncer_still_sends_no_value_twice(
    server: MlflowServer, tmp_path: Path
) -> None:
    run = make_run(tmp_path)
    sync_run(run, server.uri)
    (run.path / "sync.json").unlink()
    again = sync_run(run, server.uri)
    assert (again.sent, again.already_there) == (0, 42)


def test_a_file_is_sent_again_only_when_it_changed(server: MlflowServer, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    sync_run(run, server.uri)
    run.report_path.write_text("<html>a better report</html>")
    assert sync_run(run, server.uri).artifacts_sent == 1
    run_id = on_server(server.uri, run).info.run_id
    path = MlflowClient(server.uri).download_artifacts(run_id, "report.html", str(tmp_path))
    assert "better" in Path(path).read_text()


def test_a_resumed_run_updates_its_status_its_findings_and_a_changed_setting(
    server: MlflowServer, tmp_path: Path
) -> None:
    run = make_run(tmp_path, status="interrupted")
    sync_run(run, server.uri)
    assert on_server(server.uri, run).info.status == "KILLED"

    run.config_path.write_text(run.config_path.read_text().replace("0.001", "0.01"))
    record = RunRecord.load(run)
    record.status, record.findings = "completed", []
    record.save(run)
    sync_run(run, server.uri)
    found = on_server(server.uri, run)
    assert found.info.status == "FINISHED"
    assert found.data.params["optimizer.lr"] == "0.001"  # MLflow keeps a parameter for ever
    assert found.data.tags["changed.optimizer.lr"] == "0.01"
    assert not any(tag.startswith("finding.") for tag in found.data.tags)


def test_a_live_run_is_followed_through_a_resume_to_its_end(
    server: MlflowServer, tmp_path: Path
) -> None:
    run = make_run(tmp_path, status="running", num_epochs=1)
    sync = start_sync(run, server.uri)
    wait_until(
        lambda: sync_state(run.path).get("lines", {}).get("steps.jsonl") == 10, "10 steps came"
    )
    assert on_server(server.uri, run).info.status == "RUNNING"
    with ExperimentTracker("pcam", CONFIG, run=run, tensorboard=False) as tracker:
        tracker.truncate(after_step=7)
        for step in range(8, 11):
            tracker.log_step(step, {"loss": 1 / step, "learning_rate": 0.001}, epoch=1)
        tracker.log_metrics(1, {"val_loss": 0.5}, step=10)
        log_epoch(tracker, 2)
    set_status(run, "stopped_early")
    outcome = finish_sync(sync, timeout_s=20)
    assert outcome.complete, outcome.message
    assert server.uri in outcome.message
    assert history(server.uri, run, "step/loss") == [(step, 1 / step) for step in range(1, 21)]
    assert history(server.uri, run, "val_loss") == [(1, 0.5), (2, 0.25)]
    assert on_server(server.uri, run).info.status == "FINISHED"


def test_a_server_killed_in_mid_run_gets_the_rest_later_and_nothing_twice(
    server: MlflowServer, tmp_path: Path
) -> None:
    run = make_run(tmp_path, status="running", num_epochs=1)
    sync = start_sync(run, server.uri)
    wait_until(
        lambda: sync_state(run.path).get("lines", {}).get("steps.jsonl") == 10, "10 steps came"
    )
    server.kill()
    try:
        with ExperimentTracker("pcam", CONFIG, run=run, tensorboard=False) as tracker:
            log_epoch(tracker, 2)
        set_status(run, "completed")
        started = time.monotonic()
        outcome = finish_sync(sync, timeout_s=10)
        assert time.monotonic() - started < 5
        assert not outcome.complete
        assert "1 of 2 epochs, 10 of 20 steps" in outcome.message
        assert f"ml-core track sync {run.path}" in outcome.message
        assert "\n" not in outcome.message
    finally:
        server.start()
    result = sync_run(run, server.uri)
    assert (result.sent, result.already_there) == (21, 21)
    assert history(server.uri, run, "step/loss") == [(step, 1 / step) for step in range(1, 21)]
    assert history(server.uri, run, "val_loss") == [(1, 0.5), (2, 0.25)]
    assert on_server(server.uri, run).info.status == "FINISHED"


def test_a_syncer_whose_training_was_killed_sends_what_there_is_and_ends(
    server: MlflowServer, tmp_path: Path
) -> None:
    run = make_run(tmp_path, status="running")
    code = f"""
import os, signal
from pathlib import Path
from ml_core.runs import RunDir
from ml_core.tracking import start_sync
handle = start_sync(RunDir(Path({str(run.path)!r})), {server.uri!r})
print(handle.process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=False)
    syncer = int(killed.stdout)
    wait_until(lambda: not Path(f"/proc/{syncer}/cmdline").exists(), "the syncer is gone")
    assert len(history(server.uri, run, "step/loss")) == 20
    assert on_server(server.uri, run).info.status == "KILLED"


def test_a_refusing_server_is_reported_at_once_and_training_ends(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    sync = start_sync(run, REFUSED)
    started = time.monotonic()
    outcome = finish_sync(sync, timeout_s=30)
    assert time.monotonic() - started < 15  # importing MLflow; the refusal itself takes no time
    assert "2 of 2 epochs, 20 of 20 steps" in outcome.message
    assert "connection refused" in outcome.message

    started = time.monotonic()
    with pytest.raises(TrackingError, match=r"connection refused.*ml-core track sync"):
        sync_run(run, REFUSED)
    assert time.monotonic() - started < 3
    assert sync_state(run.path)["complete"] is False
    assert "refused" in sync_state(run.path)["error"]


def test_a_server_that_never_answers_costs_its_timeout_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as hung:
        uri = f"http://127.0.0.1:{hung.getsockname()[1]}"
        sync = start_sync(run, uri)
        started = time.monotonic()
        outcome = finish_sync(sync, timeout_s=1)
        assert time.monotonic() - started < 3
        assert not outcome.complete
        assert "not done after 1 s" in outcome.message
        assert sync.process is not None
        assert sync.process.poll() is not None

        monkeypatch.setattr("ml_core.tracking.mlflow_server.KNOCK_S", 1.0)
        started = time.monotonic()
        with pytest.raises(TrackingError, match="no answer in time"):
            sync_run(run, uri)
        assert time.monotonic() - started < 4


def test_seeds_sent_at_once_into_a_new_database_file_all_arrive_whole(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"seed{seed}") for seed in range(2)]
    uri = f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}"
    command = [sys.executable, "-m", "ml_core.tracking.mlflow_sync", "--uri", uri, "--run"]

    def sync(run: RunDir) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, str(run.path)], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    with ThreadPoolExecutor() as pool:
        for done in pool.map(sync, runs):
            assert done.returncode == 0, done.stderr
    for run in runs:
        assert history(uri, run, "step/loss") == [(step, 1 / step) for step in range(1, 21)]
        assert "predictions/valid.parquet" in artifacts(uri, run)
    assert {path.name for path in tmp_path.iterdir()} == {"new", "seed0", "seed1"}
    assert (tmp_path / "new" / "mlflow-artifacts" / "pcam").is_dir()
    again = sync_run(runs[0], uri)
    assert (again.sent, again.already_there, again.artifacts_sent) == (0, 42, 0)


def test_two_syncers_of_one_run_take_turns(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with open(run.path / ".sync.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(TrackingError, match="by another process"):
            sync_run(run, REFUSED, lock_wait_s=0.3)


def test_a_damaged_run_is_named_before_the_server_is_asked(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run\.json does not exist"):
        sync_run(RunDir(tmp_path / "nowhere"), REFUSED)
    run = make_run(tmp_path)
    run.record_path.write_text("{")
    with pytest.raises(RunError, match=r"run\.json cannot be read"):
        sync_run(run, REFUSED)


def test_a_run_of_someone_else_is_refused_in_words(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run.path / ".sync.lock").mkdir()  # as unwritable as a file can be for root too
    with pytest.raises(RunError, match="cannot write in"):
        sync_run(run, REFUSED)


def test_a_damaged_log_line_is_named(server: MlflowServer, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with open(run.steps_log_path, "a") as file:
        file.write('{"step": "twenty"\n')
    with pytest.raises(RunError, match=r"steps\.jsonl, line 21"):
        sync_run(run, server.uri)
    assert "line 21" in sync_state(run.path)["error"]


def test_a_server_that_fails_is_quoted(tmp_path: Path) -> None:
    class Failing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(503, "out of database connections")

        do_POST = do_GET

        def log_message(self, *args: object) -> None: ...

    run = make_run(tmp_path)
    with HTTPServer(("127.0.0.1", 0), Failing) as failing:
        threading.Thread(target=failing.serve_forever, daemon=True).start()
        with pytest.raises(TrackingError, match=r"503"):
            sync_run(run, f"http://127.0.0.1:{failing.server_port}")
        failing.shutdown()


def test_a_password_in_the_address_is_never_written_or_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    uri = "http://user:hunter2@127.0.0.1:9"
    with pytest.raises(TrackingError) as caught:
        sync_run(run, uri)
    assert "http://127.0.0.1:9" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    for path in run.path.rglob("*"):
        assert not path.is_file() or b"hunter2" not in path.read_bytes(), path
    quoted = MlflowException(f"API request to {uri}/api failed.\nTraceback ...")
    assert explain(quoted, uri) == "API request to http://127.0.0.1:9/api failed"


def test_a_pause_between_attempts_ends_when_the_run_does(tmp_path: Path) -> None:
    run = make_run(tmp_path, status="running")
    threading.Timer(0.3, set_status, [run, "completed"]).start()
    started = time.monotonic()
    wait_for_news(60, run, run.record_path.stat().st_mtime_ns, os.getppid())
    assert 0.2 < time.monotonic() - started < 10


def test_values_too_long_for_mlflow_say_where_the_whole_is(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.config_path.write_text(f"note: {'x' * 10_000}\n'odd=key': [1, 2]\n")
    params = describe_params(run)
    assert len(params["note"]) == MAX_PARAM_LENGTH
    assert params["note"].endswith("(10000 characters; all of them in config.yaml)")
    assert params["odd_key"] == "[1, 2]"


def test_tags_leave_out_what_the_record_does_not_know(tmp_path: Path) -> None:
    tags = describe_tags(RunRecord("pcam", 1, "test", run_id="r", started_at="now"))
    assert tags == {"status": "running", "seed": "1", "command": "test"}


def test_a_line_still_being_written_is_read_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    reader = LogReader(path)
    assert list(reader) == []
    path.write_text('{"step": 1}\n{"st')
    assert list(reader) == [{"step": 1}]
    with open(path, "a") as file:
        file.write('ep": 2}\n')
    assert list(reader) == [{"step": 2}]
    assert reader.num_lines == 2


def test_a_training_whose_server_is_killed_ends_well_and_is_completed_later(
    server: MlflowServer, tmp_path: Path
) -> None:
    """The whole way: a real training, its server killed in the middle, then `track sync`."""
    data_dir = write_tiny_pcam(tmp_path / "data")
    config = write_config(
        tmp_path / "config.yaml",
        data_dir,
        experiment_name="pcam",
        training={"epochs": 60},
        data={"batch_size": 8},
        tracking={"tensorboard": False, "mlflow_uri": server.uri},
    )
    server.start_if_dead()
    command = [sys.executable, "-m", "ml_core.cli"]
    training = subprocess.Popen(
        [*command, "train", config], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    runs = tmp_path / "runs" / "pcam"
    wait_until(lambda: any(runs.glob("*/sync.json")), "training has started", timeout_s=90)
    (run,) = (RunDir(path) for path in runs.iterdir())
    wait_until(lambda: bool(sync_state(run.path).get("lines")), "a part is sent", timeout_s=90)
    assert training.poll() is None, "training ended before its server could be killed"
    server.kill()
    try:
        printed, _ = training.communicate(timeout=580)  # 6 s on an idle core
    finally:
        training.kill()
    assert training.returncode == 0, printed
    assert RunRecord.load(run).status == "completed"
    assert f"ml-core track sync {run.path}" in printed

    server.start_if_dead()
    for _ in range(2):  # a second time changes nothing
        subprocess.run([*command, "track", "sync", run.path], check=True)
    epochs = [line["epoch"] for line in read_jsonl(run.metrics_log_path)]
    steps = [line["step"] for line in read_jsonl(run.steps_log_path)]
    assert [step for step, _ in history(server.uri, run, "val_loss")] == epochs
    assert [step for step, _ in history(server.uri, run, "step/loss")] == steps
    assert len(steps) == 60 * 12
    found = on_server(server.uri, run)
    assert found.data.params["training.epochs"] == "60"
    assert found.info.status == "FINISHED"
