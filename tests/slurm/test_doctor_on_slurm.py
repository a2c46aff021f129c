"""`doctor` asks a real Slurm: its partitions, accounts and clock, and what a job was given."""

import json
import shlex
import sys

import pytest
from tiny_pcam import write_config, write_tiny_pcam

pytestmark = pytest.mark.slurm

FITS = ("cpus_per_task=1", "mem_gb=1.5", "time=01:00:00")


@pytest.fixture
def doctor(tmp_path):
    """The words of `ml-core doctor` for a small config, with what is asked of Slurm."""
    config = write_config(tmp_path / "config.yaml", write_tiny_pcam(tmp_path / "data", 16, 8))

    def words(*ask):
        asked = [word for each in (*FITS, *ask) for word in ("--ask", each)]
        return [sys.executable, "-m", "ml_core", "doctor", str(config), *asked, "--json"]

    return words


def checks_of(output):
    result = json.loads(output.splitlines()[-1])
    return {check["about"]: check for check in result["checks"]}


def test_on_a_login_node_it_answers_of_partitions_accounts_and_clock(slurm, doctor):
    checks = checks_of(slurm.run(*doctor("partition=long")).stdout)
    assert checks["slurm"]["level"] == "ok"
    assert checks["account"]["told"] == "charged to your default, root (yours: root)."
    assert "Slurm's controller" in checks["clock"]["told"] and checks["clock"]["level"] == "ok"
    assert "this is a login node" in checks["gpu"]["told"]
    assert checks["shared"]["level"] == "warning"  # n1 and n2 might be other machines


@pytest.mark.parametrize(
    "ask, words",
    [
        ("partition=lnog", "Did you mean 'long'?"),
        ("partition=down", "it is DOWN"),
        ("partition=short", "more than its limit of 2:00"),
        ("account=course", "account 'course' is none of yours"),
    ],
)
def test_what_would_wait_for_ever_is_an_error(slurm, doctor, ask, words):
    done = slurm.run(*doctor("partition=long", ask), check=False)
    assert done.returncode == 3
    errors = [each for each in checks_of(done.stdout).values() if each["level"] == "error"]
    assert len(errors) == 1 and words in errors[0]["told"]


def test_within_a_job_it_looks_at_what_the_job_was_given(slurm, doctor):
    command = shlex.join(doctor("partition=long", "cpus_per_task=8"))
    options = ("--partition=long", "--cpus-per-task=1", "--mem=1200M", "--time=10")
    job = slurm.sbatch(f"#!/bin/bash\n{command}\n", *options)
    slurm.wait(job, "COMPLETED", "FAILED")
    checks = checks_of(slurm.log(job))
    assert "1 CPU (of this job)" in checks["cores"]["told"]
    assert "the job asks for 1.17 GB" in checks["memory"]["told"]
    assert "this job has none" in checks["gpu"]["told"]
