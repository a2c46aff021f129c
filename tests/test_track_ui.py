"""MLflow's real pages, opened on the files of runs that MLflow has never heard of."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from fabricated_champion import make_champion
from mlflow import MlflowClient
from mlflow_server import REFUSED, make_run, runs_on_server, wait_until
from test_mlflow_study import add_trial, make_study

from ml_core.errors import RunError, TrackingError
from ml_core.pipeline import track_ui as stage
from ml_core.pipeline.track_ui import find, track_ui
from ml_core.tracking.sync_state import is_up_to_date
from ml_core.tracking.ui_server import choose_port


def make_runs(folder: Path) -> Path:
    """Make a folder of runs: one run with a champion, and a study of two trials."""
    experiment = folder / "runs" / "pcam"
    experiment.mkdir(parents=True)
    make_champion(experiment)
    study = make_study(experiment)
    add_trial(study, 0, "complete", 0.8)
    add_trial(study, 1, "pruned", 0.6)
    for config in (folder / "runs").rglob("config.yaml"):
        rewrite_config(config)
    return folder / "runs"


def rewrite_config(path: Path, **tracking: Any) -> None:
    path.write_text(
        yaml.safe_dump(
            {"experiment_name": "pcam", "data": {"data_path": "/patches"}, "tracking": tracking}
        )
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(url: str, body: dict[str, Any] | None = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200
        return bytes(answer.read())


def processes_with(text: str) -> list[int]:
    """Return the processes of this machine whose command line holds `text`, but this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if text.encode() in command and int(path.name) != os.getpid():
            found.append(int(path.name))
    return found


def answers(url: str) -> bool:
    try:
        return bool(get(f"{url}/health"))
    except OSError:
        return False


def test_it_shows_runs_studies_and_champions_until_ctrl_c(tmp_path: Path) -> None:
    runs, port = make_runs(tmp_path), free_port()
    url = f"http://127.0.0.1:{port}"
    code = f"import sys; from ml_core.pipeline.track_ui import track_ui; from pathlib import Path; \
import json; print(json.dumps(track_ui(Path({str(runs)!r}), {port})))"
    command = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: answers(url), "MLflow answers", timeout_s=150)
        assert b"<title>MLflow</title>" in get(url)
        found = get(f"{url}/api/2.0/mlflow/experiments/search", {"max_results": 10})
        experiments = {
            each["name"]: each["experiment_id"] for each in json.loads(found)["experiments"]
        }
        search = {"experiment_ids": [experiments["pcam"]], "max_results": 100}
        shown = json.loads(get(f"{url}/api/2.0/mlflow/runs/search", search))["runs"]
        names = sorted(run["info"]["run_name"] for run in shown)
        assert names == ["run-1", "study-20260102-030405", "trial-0000", "trial-0001"]
        champion = json.loads(
            get(f"{url}/api/2.0/mlflow/registered-models/alias?name=pcam&alias=champion")
        )
        assert champion["model_version"]["version"] == "1"
        (run_id,) = (r["info"]["run_id"] for r in shown if r["info"]["run_name"] == "run-1")
        page = get(f"{url}/get-artifact?path=report.html&run_uuid={run_id}")
        assert page == b"<html>report</html>"
        telemetry = json.loads(get(f"{url}/ajax-api/3.0/mlflow/ui-telemetry"))
        assert telemetry["disable_ui_telemetry"] is True
        assert not listens_beyond_loopback(port)
        assert processes_with(str(runs / "mlflow.db"))
    finally:
        command.send_signal(signal.SIGINT)
        printed, _ = command.communicate(timeout=60)
    assert command.returncode == 0
    assert json.loads(printed)["url"] == url
    assert processes_with(str(runs / "mlflow.db")) == processes_with(f"--port {port}") == []
    with pytest.raises(OSError, match="refused"):
        get(url)


def listens_beyond_loopback(port: int) -> bool:
    """Return whether something listens at `port` on any other address (proc(5): net/tcp)."""
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            address, state = line.split()[1], line.split()[3]
            host, found_port = address.split(":")
            if state == "0A" and int(found_port, 16) == port and host != "0100007F":
                return True
    return False


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database with MLflow's tables: to make them takes seconds."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have track_ui end as by Ctrl-C where its server would start; return what was to be served."""
    uris: list[str] = []

    def interrupt() -> None:
        raise KeyboardInterrupt

    @contextmanager
    def serve(uri: str, artifacts_dir: Path, port: int) -> Iterator[Any]:
        uris.append(uri)
        process = SimpleNamespace(wait=interrupt)
        yield SimpleNamespace(url=f"http://127.0.0.1:{port}", process=process, start_s=0.0)

    monkeypatch.setattr(stage, "serving", serve)
    return uris


def test_only_what_changed_is_sent_again_unless_the_database_lost_it(
    tmp_path: Path, served: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = make_runs(tmp_path)
    other = make_run(runs / "pcam", name="other")
    rewrite_config(other.config_path)
    sent: list[str] = []
    send = stage.send

    def note(path: Path, uri: str | None) -> Any:
        sent.append(path.name)
        return send(path, uri)

    monkeypatch.setattr(stage, "send", note)
    track_ui(runs)
    assert sent == ["other", "run-1", "study-20260102-030405", "champion.json"]
    uri = f"sqlite:///{runs / 'mlflow.db'}"
    assert served == [uri]

    sent.clear()
    other.report_path.write_text("<html>a better report</html>")
    track_ui(runs)
    assert sent == ["other", "study-20260102-030405", "champion.json"]
    assert len(runs_on_server(uri, "pcam")) == 5
    on_server = {run.info.run_id for run in runs_on_server(uri, "pcam")}
    assert is_up_to_date(other, uri, on_server)
    assert not is_up_to_date(other, uri, set())  # the database was deleted since


def test_the_database_that_all_runs_name_is_the_one_that_is_opened(
    tmp_path: Path, served: list[str], empty_database: Path
) -> None:
    runs = make_runs(tmp_path)
    shutil.copy(empty_database, tmp_path / "team.db")
    uri = f"sqlite:///{tmp_path / 'team.db'}"
    for config in runs.rglob("config.yaml"):
        rewrite_config(config, mlflow_uri=uri)
    track_ui(runs)
    assert served == [uri]
    assert not (runs / "mlflow.db").exists()


def test_a_server_that_all_runs_name_is_asked_and_none_is_started(
    tmp_path: Path, served: list[str]
) -> None:
    run = make_run(tmp_path)
    rewrite_config(run.config_path, mlflow_uri=REFUSED)
    with pytest.raises(TrackingError, match="connection refused"):
        track_ui(tmp_path)
    assert served == []


def test_a_run_that_cannot_be_sent_is_named_and_the_others_are_shown(
    tmp_path: Path,
    served: list[str],
    caplog: pytest.LogCaptureFixture,
    empty_database: Path,
) -> None:
    shutil.copy(empty_database, tmp_path)
    good, bad = make_run(tmp_path, name="good"), make_run(tmp_path, name="bad")
    bad.record_path.write_text("{")
    track_ui(tmp_path)
    (found,) = runs_on_server(served[0], "pcam")
    assert found.info.run_name == good.name
    assert "bad is left out" in caplog.text
    assert "run.json cannot be read" in caplog.text


def test_what_lies_under_a_path_is_found_once(tmp_path: Path) -> None:
    runs = make_runs(tmp_path)
    copy = runs / "mlflow-artifacts" / "pcam" / "0f0f" / "artifacts"
    copy.mkdir(parents=True)
    (copy / "run.json").write_text("{}")
    assert str(find(runs)) == "1 run, 1 study, 1 champion"
    assert str(find(runs / "pcam" / "run-1")) == "1 run"
    assert str(find(runs / "pcam" / "study-20260102-030405")) == "1 study"


def test_nothing_to_show_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds no run .* and no study"):
        track_ui(tmp_path)
    with pytest.raises(RunError, match="is no folder"):
        track_ui(tmp_path / "runs")


def test_one_run_is_shown_from_a_database_beside_it(
    tmp_path: Path, served: list[str], empty_database: Path
) -> None:
    shutil.copy(empty_database, tmp_path)
    run = make_run(tmp_path)
    rewrite_config(run.config_path)
    track_ui(run.path)
    assert served == [f"sqlite:///{tmp_path / 'mlflow.db'}"]


def test_a_port_that_is_taken_is_refused_when_asked_for_and_passed_over_otherwise() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with pytest.raises(TrackingError, match=f"port {taken} cannot be used"):
            choose_port(taken)
        assert choose_port(None) != taken
    with pytest.raises(TrackingError, match="port 70000"):
        choose_port(70000)
