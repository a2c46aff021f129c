"""How a job script ends on a real Slurm: at its limit, cancelled, preempted, on a bad node.

In place of Python a script stands that saves in a second: what is tested is the script and Slurm.
"""

import dataclasses
import platform
import sys
import time
from pathlib import Path

import pytest

from ml_core.cluster.job_request import JobRequest
from ml_core.cluster.job_script import render_script
from ml_core.cluster.profile import load_profile

pytestmark = pytest.mark.slurm

PYTHON = f"""#!/bin/bash
if [[ $1 == -c ]]; then exec {sys.executable} "$@"; fi
shift 2
printf 'attempt %s on %s:' "${{SLURM_RESTART_COUNT:-0}}" "$SLURMD_NODENAME"
printf ' <%s>' "$@"; echo " and ${{LEAKED-nothing}}"
trap 'echo saved; exit 130' USR1 TERM
if [[ $1 == fail || $1 == "fail on $SLURMD_NODENAME" ]]; then exit 1; fi
if [[ $1 == wait && -z $SLURM_RESTART_COUNT ]]; then for _ in {{1..900}}; do sleep 0.1; done; fi
"""


@pytest.fixture
def submit(slurm, tmp_path):
    """Submit a job of these words; returns its id and the path of its log."""
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)

    def submit(*words: str, partition: str = "long", time: str = "01:00:00", **changes: object):
        request = JobRequest(
            name="job", arguments=words, folder=tmp_path, python=python,
            python_version=platform.python_version(), mem_mb=100, cpus=1,
        )  # fmt: skip
        request = dataclasses.replace(request, **changes)
        profile = load_profile(
            "generic-cpu", [f"partition={partition}", f"time={time}", "signal_s=30"]
        )
        job = slurm.sbatch(render_script(request, profile))
        return job, request.log_path(job)

    return submit


def wait_for(log: Path, text: str) -> None:
    deadline = time.monotonic() + 30
    while not log.exists() or text not in log.read_text():
        assert time.monotonic() < deadline, log.read_text() if log.exists() else "no log"
        time.sleep(0.1)


def test_a_job_at_its_time_limit_saves_and_comes_back_into_the_same_log(slurm, submit):
    job, log = submit("wait", time="00:01:00")
    wait_for_restart(slurm, job)
    assert slurm.wait(job, "COMPLETED")["Restarts"] == "1"
    lines = log.read_text().splitlines()
    said = [line for line in lines if line.startswith(("attempt", "saved"))]
    assert [line.split(" on ")[0] for line in said] == ["attempt 0", "saved", "attempt 1"]


def wait_for_restart(slurm, job: str) -> None:
    deadline = time.monotonic() + 90
    while slurm.show(job)["Restarts"] == "0":
        assert time.monotonic() < deadline, slurm.show(job)
        time.sleep(0.2)


def test_a_cancelled_job_saves_and_stays_cancelled(slurm, submit):
    job, log = submit("wait")
    wait_for(log, "attempt 0")
    slurm.run("scancel", job)
    wait_for(log, "saved")
    time.sleep(7)  # a requeue would have started it again by now
    assert slurm.show(job)["JobState"] == "CANCELLED"
    assert "attempt 1" not in log.read_text()


def test_a_job_that_a_person_tells_to_stop_stays_stopped(slurm, submit):
    job, log = submit("wait")
    wait_for(log, "attempt 0")
    slurm.run("scancel", "--signal=USR1", job)
    assert slurm.wait(job, "FAILED")["ExitCode"] == "130:0"
    assert "told to stop by a person" in log.read_text()


def test_a_preempted_job_saves_and_comes_back(slurm, submit):
    job, log = submit("wait", partition="low")
    wait_for(log, "attempt 0")
    node = slurm.show(job)["NodeList"]
    slurm.sbatch("#!/bin/bash\nsleep 2\n", "--partition=high", f"--nodelist={node}", "--exclusive")
    wait_for_restart(slurm, job)
    assert slurm.wait(job, "COMPLETED")["Restarts"] == "1"
    assert "saved" in log.read_text()


def test_a_job_leaves_a_bad_node_out_and_ends_well_on_another(slurm, submit):
    job, log = submit("fail on n1")
    record = slurm.wait(job, "COMPLETED")
    assert (record["NodeList"], record["ExcNodeList"]) == ("n2", "n1")
    assert "leaving out n1, and trying another node" in log.read_text()


def test_a_job_that_fails_on_every_node_ends_as_failed(slurm, submit):
    job, log = submit("fail")
    assert slurm.wait(job, "FAILED")["ExitCode"] == "1:0"
    assert "error: failed on n1,n2 and not tried again" in log.read_text()


def test_of_an_array_only_the_task_that_was_preempted_comes_back(slurm, submit):
    array, log = submit("wait", partition="low", array_arguments=(("a",), ("b",)))
    logs = [log.with_name(f"job-{array}_{task}.log") for task in (0, 1)]
    for log in logs:
        wait_for(log, "attempt 0")
    last = f"{array}_1"  # which has the number of the whole array
    node = slurm.show(last)["NodeList"]
    slurm.sbatch("#!/bin/bash\nsleep 2\n", "--partition=high", f"--nodelist={node}", "--exclusive")
    wait_for(logs[1], "attempt 1")
    assert "attempt 1" not in logs[0].read_text()
    assert slurm.show(f"{array}_0")["JobState"] == "RUNNING"


def test_ranks_on_two_nodes_meet_on_the_first(slurm, submit):
    job, log = submit("rank", nodes=2)
    slurm.wait(job, "COMPLETED")
    starts = sorted(line for line in log.read_text().splitlines() if line.startswith("attempt"))
    assert [line.split(":")[0] for line in starts] == ["attempt 0 on n1", "attempt 0 on n2"]


def test_slurm_takes_a_folder_of_any_name_and_words_as_they_are(slurm, submit, tmp_path):
    folder = tmp_path / "a  b $(touch pwned) 'q' \"d\" #1 100% é"
    folder.mkdir()
    slurm.env["LEAKED"] = "the login shell's"
    try:
        job, log = submit("a b", "$(touch pwned)", "it's", folder=folder)
        slurm.wait(job, "COMPLETED")
    finally:
        del slurm.env["LEAKED"]
    assert "<a b> <$(touch pwned)> <it's> and nothing\n" in log.read_text()
    assert list(tmp_path.rglob("pwned")) == []
