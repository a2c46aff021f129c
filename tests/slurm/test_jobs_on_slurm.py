"""`ml-core jobs` says how real jobs are: those that wait, run, and have ended in every way.

They are submitted all at once and looked at twice, since most of their time is waiting for a limit.
In place of Python a script stands that ends as ml-core would.
"""

from __future__ import annotations

import datetime
import json
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, available

from ml_core.cluster.job_request import JobRequest
from ml_core.cluster.job_script import render_script
from ml_core.cluster.profile import load_profile
from ml_core.cluster.submission import Submission, SubmittedJob

pytestmark = pytest.mark.slurm

PYTHON = f"""#!/bin/bash
if [[ $1 == -c ]]; then exec {sys.executable} -S "$@"; fi
shift 2
case $1 in
  refuse) echo "error: no patches in /data/pcam"; exit 2 ;;
  find) echo "2 errors, 1 warning"; exit 3 ;;
  crash) exec {sys.executable} -S -c 'raise KeyError(7)' ;;
  fill) exec {sys.executable} -S -c 'import time; x = b"1" * (300 << 20); time.sleep(60)' ;;
  overrun) trap '' USR1 TERM; for _ in {{1..900}}; do sleep 0.1; done ;;
  save) trap 'exit 130' USR1 TERM; for _ in {{1..900}}; do sleep 0.1; done ;;
  again) if [[ -z $SLURM_RESTART_COUNT ]]; then for _ in {{1..900}}; do sleep 0.1; done; fi ;;
esac
"""


class Submitter:
    """Submits to `slurm` what `ml-core submit` would, and registers it as that does."""

    def __init__(self, slurm: Cluster, folder: Path) -> None:
        self.slurm, self.folder = slurm, folder
        self.python = folder / "python"
        self.python.write_text(PYTHON)
        self.python.chmod(0o755)
        self.jobs: list[SubmittedJob] = []

    def __call__(self, word: str, node: str, *, time: str = "00:10:00", **changes: Any) -> str:
        request = JobRequest(
            name=word, arguments=(word, "x.yaml"), folder=self.folder, python=self.python,
            python_version=platform.python_version(), mem_mb=100, cpus=1,
            **{"requeue": False, **changes},
        )  # fmt: skip
        asked = ["partition=long", f"time={time}", "signal_s=30"]
        script = render_script(request, load_profile("generic-cpu", asked))
        job = self.slurm.sbatch(script, f"--nodelist={node}")
        num_tasks = len(request.array_arguments) or None
        go_on = f"ml-core submit {word} x.yaml"
        self.jobs.append(SubmittedJob(job, word, num_tasks, request.log_pattern, go_on))
        return job

    def register(self) -> None:
        """Write what `ml-core submit` writes: a record and a line of the register."""
        now = datetime.datetime.now(datetime.UTC).isoformat()
        jobs = tuple(self.jobs)
        Submission(
            self.folder, "ml-core submit chain x.yaml", "chain", now, "root", "test", "generic-cpu",
            None, jobs,
        ).save()  # fmt: skip
        path = self.folder / "state" / "ml-core" / "submissions.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"submitted_at": now, "folder": str(self.folder)}) + "\n")

    def look(self, *words: str) -> tuple[str, dict[str, Any]]:
        """Return what ``ml-core jobs`` prints, and its records by the number of the job."""
        state = f"XDG_STATE_HOME={self.folder / 'state'}"
        command = ("-m", "ml_core", "jobs", *words, "--json")
        done = self.slurm.run("env", state, sys.executable, *command, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        told, _, last = done.stdout.rstrip("\n").rpartition("\n")
        return told, {record["id"]: record for record in json.loads(last)["jobs"]}

    def wait_for(self, job: str, text: str) -> None:
        log = next(each for each in self.jobs if each.id == job).log_path(job)
        deadline = time.monotonic() + 60
        while not log.exists() or text not in log.read_text():
            assert time.monotonic() < deadline, f"job {job} has not printed {text}"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def looks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Jobs that end in every way, by name: how they are told while some run, and at the end."""
    if reason := available():
        pytest.skip(f"no test cluster: {reason}")
    with Cluster(tmp_path_factory.mktemp("jobs_slurm")) as slurm:
        submit = Submitter(slurm, tmp_path_factory.mktemp("jobs"))
        ids = {"overrun": submit("overrun", "n1", time="00:01:00")}
        slurm.wait(ids["overrun"], "RUNNING")
        ids["blocked"] = submit("blocked", "n1")
        for word in ("done", "refuse", "find", "crash", "fill"):
            ids[word] = submit(word, "n2")
        ids["later"] = submit("later", "n2", after=(ids["refuse"],))
        ids["latest"] = submit("latest", "n2", after=(ids["later"],))
        ids["awaits"] = submit("awaits", "n2", after=(ids["overrun"],))
        ids["tasks"] = submit("tasks", "n2", array_arguments=((), ("x",), ()), array_at_once=1)
        submit.register()
        during = _while_some_wait(slurm, submit, ids)
        yield {"ids": ids, "submit": submit, "during": during, "after": _at_the_end(submit)}


def _while_some_wait(slurm: Cluster, submit: Submitter, ids: dict[str, str]) -> Any:
    slurm.wait(ids["refuse"], "FAILED")
    during = submit.look()
    slurm.run("scancel", ids["blocked"])
    ids["save"] = submit("save", "n2")
    ids["again"] = submit("again", "n2", requeue=True)
    submit.wait_for(ids["save"], "ml-core 'save'")
    slurm.run("scancel", ids["save"])
    submit.wait_for(ids["again"], "ml-core 'again'")
    time.sleep(1)
    slurm.run("scontrol", "requeue", ids["again"])
    slurm.wait(ids["again"], "COMPLETED")
    slurm.wait(ids["overrun"], "TIMEOUT", timeout_s=120)
    return during


def _at_the_end(submit: Submitter) -> Any:
    """Return the last look, once the accounts, which another daemon keeps, know of every end."""
    submit.register()  # those too that came later
    deadline = time.monotonic() + 30
    while True:
        told, records = submit.look()
        missing = [job for job, record in records.items() if record["cpus"] is None]
        if not missing:
            return told, records
        assert time.monotonic() < deadline, missing
        time.sleep(0.5)


def why(looks: dict[str, Any], name: str, when: str = "after") -> str:
    return str(looks[when][1][looks["ids"][name]]["why"])


def test_a_job_that_runs_and_those_that_wait_for_it_say_so(looks):
    overrun = looks["ids"]["overrun"]
    assert looks["during"][1][overrun]["state"] == "RUNNING"
    assert why(looks, "overrun", "during") == ""
    assert why(looks, "blocked", "during").startswith("it is among the next: wait until enough")
    assert why(looks, "awaits", "during") == f"it waits for job {overrun} to end well: wait."


def test_tasks_of_an_array_that_wait_are_one_line(looks):
    assert f"\n{looks['ids']['tasks']}_[0-2]  " in looks["during"][0]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("done", "it ran to its end."),
        ("refuse", "it was refused: no patches in /data/pcam"),
        ("find", "it ran to its end, and what it found needs a look: 2 errors, 1 warning"),
        ("crash", "it stopped at a mistake of the program, whose traceback is in its log: KeyErro"),
        ("fill", "it ran out of memory: 100 MB were asked for, and it was last seen using "),
        ("overrun", "it reached its time limit of 1:00: take it up again, perhaps with more time."),
        ("save", "it was cancelled by root: if that was not meant, take it up again."),
        ("blocked", "it was cancelled by root before it started."),
        ("again", "it ran to its end."),
    ],
)
def test_each_end_is_told_in_a_sentence(looks, name, told):
    assert why(looks, name).startswith(told)


def test_the_rest_of_a_chain_names_the_job_that_failed_before_it(looks):
    ids = looks["ids"]
    for name, before in (("later", "refuse"), ("latest", "later"), ("awaits", "overrun")):
        told = f"the job before it failed ({ids[before]}): mend that one, and submit both again."
        assert why(looks, name) == told


def test_a_requeued_job_counts_its_restarts(looks):
    assert looks["after"][1][looks["ids"]["again"]]["restarts"] == 1
    assert "requeued once" in looks["after"][0]


def test_one_job_in_full_has_the_end_of_its_log_and_what_it_used(looks):
    job = looks["ids"]["fill"]
    told, records = looks["submit"].look(job)
    assert list(records) == [job]
    assert 100 < records[job]["max_rss_mb"] < 400
    assert records[job]["asked_mem_mb"] == 100
    assert f"\n    log        {looks['submit'].folder}/fill-{job}.log\n" in told
    assert "exceeded memory limit" in told


def test_the_number_of_an_array_stands_for_its_tasks(looks):
    array = looks["ids"]["tasks"]
    _, records = looks["submit"].look(array)
    assert {job: record["state"] for job, record in records.items()} == {
        f"{array}_{task}": "COMPLETED" for task in range(3)
    }


def test_without_accounts_everything_else_is_told(tmp_path_factory):
    if reason := available():
        pytest.skip(f"no test cluster: {reason}")
    with Cluster(tmp_path_factory.mktemp("slurm"), accounting=False) as slurm:
        submit = Submitter(slurm, tmp_path_factory.mktemp("jobs"))
        refuse, fill = submit("refuse", "n1"), submit("fill", "n2")
        submit.register()
        slurm.wait(refuse, "FAILED")
        slurm.wait(fill, "FAILED")
        told, records = submit.look()
        assert records[refuse]["why"] == "it was refused: no patches in /data/pcam"
        assert records[fill]["why"].startswith("it ran out of memory. Submit it with more")
        assert "What jobs used is not told: this cluster keeps no accounts." in told
