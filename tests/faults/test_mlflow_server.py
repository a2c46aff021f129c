"""MLflow gone, hung, failing, slow or lying: training does not notice, and nothing is lost."""

import random
import sys

import pytest
from faulty_proxy import FAULTS, faulty_way_to
from mlflow import MlflowClient
from mlflow_server import REFUSED, make_run, on_server, points, sync_state
from run_bits import final_bits
from tiny_pcam import write_config, write_tiny_pcam

from ml_core.config import Config
from ml_core.errors import TrackingError
from ml_core.pipeline.track_sync import track_sync
from ml_core.pipeline.train import train
from ml_core.runs import RunDir, RunRecord, read_jsonl
from ml_core.tracking import ExperimentTracker, finish_sync
from ml_core.tracking.mlflow_sync import sync_run
from ml_core.tracking.tracker import NOT_VALUES

pytestmark = pytest.mark.faults

SHARE_OF_FAULTS = 0.1  # of requests; a sync takes some 25, so that one try in 14 gets through
MOST_TRIES = 200


@pytest.fixture
def server(real_mlflow):
    return real_mlflow


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """A hung server is given up after a second, so that the tests end."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr("ml_core.tracking.mlflow_server.KNOCK_S", 1.0)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    data = write_tiny_pcam(folder / "data")
    training = {"epochs": 2, "num_threads": 1}
    return Config.load(write_config(folder / "config.yaml", data, training=training))


def trained(config, uri=None):
    tracking = config.tracking.model_copy(update={"mlflow_uri": uri})
    result = train(config.model_copy(update={"tracking": tracking}), command="a test")
    return RunDir.open(result["runs"][0]["run"])


def logged_points(run):
    """Return what the local logs hold, as MLflow is to have it: {key: [(step, value), ...]}."""
    found = {}
    for log, x_axis, prefix in (
        (run.steps_log_path, "step", "step/"),
        (run.metrics_log_path, "epoch", ""),
    ):
        for line in read_jsonl(log):
            for key, value in line.items():
                if key not in (*NOT_VALUES, "crc") and value is not None:
                    found.setdefault(prefix + key, []).append((line[x_axis], value))
    return found


def server_points(uri, run):
    found = on_server(uri, run)
    return {key: points(uri, found.info.run_id, key) for key in found.data.metrics}


def check_the_server_has_the_log(uri, run):
    assert server_points(uri, run) == logged_points(run)
    before = on_server(uri, run).to_dictionary()
    again = sync_run(run, uri)
    assert (again.sent, again.artifacts_sent) == (0, 0)
    assert on_server(uri, run).to_dictionary() == before
    assert server_points(uri, run) == logged_points(run)


def test_a_server_that_is_broken_for_the_whole_run_costs_nothing_but_the_wait_at_its_end(
    server, config, draws, fault
):
    outages = fault(16, "a server that is broken for the whole run, then mended")
    straight = final_bits(trained(config))
    kinds = ["refuse", "fail", "hang", "slow", "cut_before", "cut_after", "nonsense"]
    for kind in kinds[: draws(full=len(kinds), short=1)]:
        with faulty_way_to(server.uri, lambda _, kind=kind: kind) as proxy, outages.case(kind):
            run = trained(config, REFUSED if kind == "refuse" else proxy.uri)
            assert RunRecord.load(run).status == "completed"
            assert final_bits(run) == straight
            assert kind == "slow" or not sync_state(run.path)["complete"]
            track_sync([run.path], server.uri)
            check_the_server_has_the_log(server.uri, run)


def test_a_server_that_fails_at_random_gets_each_value_once(server, tmp_path, draws, fault):
    outages = fault(16, "a tenth of all requests fail, at random, until the sync is through")
    for seed in range(draws(full=30, short=3)):
        rng = random.Random(seed)
        run = make_run(tmp_path, name=f"run-{seed}", num_epochs=rng.randrange(1, 4))
        faults = [fault for fault in FAULTS if fault != "hang" or rng.random() < 0.2]

        def choose(_number, rng=rng, faults=faults):
            return rng.choice(faults) if rng.random() < SHARE_OF_FAULTS else "pass"

        with faulty_way_to(server.uri, choose) as proxy, outages.case(f"seed {seed}"):
            assert is_synced(run, proxy.uri), f"not synced after {MOST_TRIES} tries"
            proxy.choose = lambda _: "pass"
            check_the_server_has_the_log(proxy.uri, run)


def is_synced(run, uri):
    for _ in range(MOST_TRIES):
        try:
            sync_run(run, uri)
        except TrackingError as error:
            assert "ml-core track sync" in str(error)
            continue
        return True
    return False


# ---- what a step does for MLflow: nothing ------------------------------------------------------


class CallCount:
    """Counts the function calls of this thread, Python's and C's; `per_step` are the steps'."""

    def __init__(self, monkeypatch):
        self.num_calls, self.at_steps = 0, []
        log_step = ExperimentTracker.log_step

        def counted(tracker, *args, **kwargs):
            log_step(tracker, *args, **kwargs)
            self.at_steps.append(self.num_calls)

        monkeypatch.setattr(ExperimentTracker, "log_step", counted)

    def count(self, act):
        """Return the calls between the first step and the last of what `act` trains."""
        self.num_calls, self.at_steps = 0, []
        sys.setprofile(self._profile)
        try:
            act()
        finally:
            sys.setprofile(None)
        return self.at_steps[-1] - self.at_steps[0]

    def _profile(self, _frame, event, _argument):
        self.num_calls += event in ("call", "c_call")


def test_a_step_does_no_work_for_mlflow(server, config, monkeypatch, draws, fault):
    monkeypatch.setattr(
        "ml_core.pipeline.parts.run_in_training.finish_sync",
        lambda handle: finish_sync(handle, timeout_s=1),
    )
    steps = fault(16, "calls per step beside a broken server: less than 1 % more")
    calls = CallCount(monkeypatch)
    calls.count(lambda: trained(config))  # what is done once per process
    alone = calls.count(lambda: trained(config))
    for kind in ("hang", "refuse", "fail")[: draws(full=3, short=1)]:
        with faulty_way_to(server.uri, lambda _, kind=kind: kind) as proxy, steps.case(kind):
            uri = REFUSED if kind == "refuse" else proxy.uri
            beside = calls.count(lambda uri=uri: trained(config, uri))
            assert abs(beside - alone) < 0.01 * alone, f"{alone} calls became {beside}"


def test_a_step_that_calls_mlflow_is_seen_in_the_count_of_calls(server, config, monkeypatch, fault):
    calls = CallCount(monkeypatch)
    calls.count(lambda: trained(config))
    alone = calls.count(lambda: trained(config))
    client, log_step = MlflowClient(server.uri), ExperimentTracker.log_step
    mlflow_run = client.create_run(client.create_experiment("in the step")).info.run_id

    def chatty(tracker, step, values, **kwargs):
        client.log_metric(mlflow_run, "loss", values["loss"], step=step)
        log_step(tracker, step, values, **kwargs)

    monkeypatch.setattr(ExperimentTracker, "log_step", chatty)
    assert calls.count(lambda: trained(config)) > 1.01 * alone
    fault(24, "MLflow: called in the step").held("seen in the count of calls")


def test_a_sync_that_does_not_ask_what_is_there_sends_values_twice(
    server, tmp_path, monkeypatch, fault
):
    monkeypatch.setattr("ml_core.tracking.mlflow_run.MlflowRun._steps_on_server", lambda *_: set())
    run = make_run(tmp_path)
    sync_run(run, server.uri)
    with pytest.raises(AssertionError):
        check_the_server_has_the_log(server.uri, run)
    fault(24, "MLflow: the question what it has").held("a second sync")
