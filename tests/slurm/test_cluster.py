"""The test cluster itself: what the other tests of this folder rely on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cluster as cluster_module
import pytest
from cluster import Cluster, available
from daemons import processes_with, wait_until

pytestmark = pytest.mark.slurm
BASH = "#!/bin/bash\nset -euo pipefail\n"


def test_a_step_of_two_nodes_runs_on_both(slurm):
    done = slurm.run("srun", "--nodes=2", "printenv", "SLURMD_NODENAME")
    assert sorted(done.stdout.split()) == ["n1", "n2"]


def test_an_unknown_partition_is_refused_in_the_words_of_slurm(slurm):
    done = slurm.run("sbatch", "--partition=rome", "--wrap=true", check=False)
    assert done.returncode == 1
    assert "Batch job submission failed: Invalid partition name specified" in done.stderr


def accounted(slurm, job):
    done = slurm.run("sacct", "-X", "-n", "-P", f"--jobs={job}", "--format=JobID,State")
    return done.stdout


def test_a_job_ends_with_its_log_and_its_account(slurm):
    job = slurm.sbatch(BASH + "srun echo from $SLURM_JOB_ID\n")
    assert slurm.wait(job, "COMPLETED")["ExitCode"] == "0:0"
    assert slurm.log(job) == f"from {job}\n"
    ends_at = time.monotonic() + 30  # accounting is told by another daemon, a little later
    while (account := accounted(slurm, job)) != f"{job}|COMPLETED\n":
        assert time.monotonic() < ends_at, account
        time.sleep(0.2)


def test_waiting_for_a_job_that_failed_shows_its_log(slurm):
    job = slurm.sbatch(BASH + "echo the reason; exit 3\n")
    with pytest.raises(AssertionError, match=r"is FAILED \(NonZeroExitCode\)(?s:.)*the reason"):
        slurm.wait(job, "COMPLETED", timeout_s=3600)  # at once, or this test does not end


def test_a_requeued_job_starts_again_within_seconds(slurm):
    again = 'if [[ -z ${SLURM_RESTART_COUNT:-} ]]; then scontrol requeue "$SLURM_JOB_ID"; fi\n'
    job = slurm.sbatch(BASH + again)
    assert slurm.wait(job, "COMPLETED", timeout_s=30)["Restarts"] == "1"


def test_a_time_limit_can_be_moved_close(slurm):
    script = BASH + "srun bash -c 'trap \"echo warned; exit\" USR1; while :; do sleep 0.1; done'\n"
    job = slurm.sbatch(script, "--partition=long", "--signal=USR1@30")
    slurm.wait(job, "RUNNING")
    slurm.end_soon(job)
    slurm.wait(job, "COMPLETED", timeout_s=45)
    assert "warned\n" in slurm.log(job)


def test_a_job_outlives_a_killed_slurmd_and_a_killed_controller(slurm):
    step = "srun bash -c 'echo begun; sleep 8; echo unharmed'\n"
    job = slurm.sbatch(BASH + step, "--nodelist=n1")
    slurm.wait_for_log(job, "begun")
    slurm.kill_slurmd("n1")
    slurm.restart_slurmctld()
    slurm.start_slurmd("n1")
    slurm.wait(job, "COMPLETED", timeout_s=30)
    assert slurm.log(job) == "begun\nunharmed\n"


def test_a_node_without_power_takes_its_jobs_with_it_and_no_others(slurm):
    script = BASH + "srun bash -c 'echo begun; sleep 60'\n"
    jobs = [slurm.sbatch(script, f"--nodelist={node}") for node in ("n1", "n2")]
    for job in jobs:
        slurm.wait_for_log(job, "begun")
    slurm.kill_slurmd("n1", with_jobs=True)
    alive = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in slurm.processes]
    slurm.start_slurmd("n1")
    lives = [any(f"[{job}.0]".encode() in line for line in alive) for job in jobs]
    assert lives == [False, True]


def is_alive(pid):
    """Whether a process runs: one that has ended, and waits for its parent, has no command."""
    path = Path(f"/proc/{pid}/cmdline")
    return path.exists() and path.read_bytes() != b""


def test_nothing_is_left_when_a_test_fails_amid_a_job(tmp_path):
    if reason := available():
        pytest.skip(f"no test cluster: {reason}")
    # A process that has left its session and its parent, as a server that a job starts
    script = BASH + "setsid sleep 600 &\nsrun bash -c 'echo begun; sleep 600'\n"
    with pytest.raises(ZeroDivisionError), Cluster(tmp_path / "slurm") as cluster:
        cluster.wait_for_log(cluster.sbatch(script), "begun")
        before = {pid: Path(f"/proc/{pid}/comm").read_text() for pid in cluster.processes}
        raise ZeroDivisionError
    assert {"slurmctld\n", "slurmd\n", "slurmdbd\n", "munged\n", "sleep\n"} <= {*before.values()}
    assert cluster.processes == []
    assert not [name for pid, name in before.items() if is_alive(pid)]


def test_the_daemons_listen_to_this_machine_only(slurm):
    listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    # proc(5): a local address in hexadecimal, its port, ..., and 0A for a socket that listens
    sockets = [line.split()[1].split(":") for line in listening.splitlines() if " 0A " in line]
    ports = [slurm.ports.slurmctld, slurm.ports.slurmdbd, slurm.ports.database, *slurm.ports.slurmd]
    found = {int(port, 16): address for address, port in sockets if int(port, 16) in ports}
    assert found == dict.fromkeys(ports, "0100007F")  # 127.0.0.1


def test_the_daemons_end_with_a_test_session_that_is_killed(tmp_path):
    if reason := available():
        pytest.skip(f"no test cluster: {reason}")
    start = (
        "import os, pathlib, sys; from cluster import Cluster\n"
        "Cluster(pathlib.Path(sys.argv[1])).start(); os.kill(os.getpid(), 9)"
    )
    folder = tmp_path / "slurm"
    done = subprocess.run([sys.executable, "-c", start, folder], cwd=Path(__file__).parent)
    assert done.returncode == -signal.SIGKILL
    wait_until(lambda: not processes_with(f"SLURM_CONF={folder}/slurm.conf"), "all have ended")


def test_without_accounting_sacct_says_so(tmp_path):
    if reason := available():
        pytest.skip(f"no test cluster: {reason}")
    with Cluster(tmp_path / "slurm", accounting=False) as cluster:
        done = cluster.run("sacct", check=False)
    assert (done.returncode, done.stderr) == (1, "Slurm accounting storage is disabled\n")


def test_the_reason_for_having_no_cluster_names_what_to_do(monkeypatch):
    monkeypatch.setattr(cluster_module, "PATH", "/nonexistent")
    assert "slurmctld" in available() and "tests/slurm/install.sh" in available()


def test_only_root_gets_a_cluster(monkeypatch):
    monkeypatch.setattr(cluster_module, "PROGRAMS", ())
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert available() == "only root may start slurmd"


def test_installing_twice_does_nothing():
    if reason := available():
        pytest.skip(f"no test cluster: {reason}")
    script = Path(__file__).with_name("install.sh")
    done = subprocess.run([script], check=True, capture_output=True, text=True)
    assert done.stdout == "Slurm, munge and MariaDB are here already.\n"
