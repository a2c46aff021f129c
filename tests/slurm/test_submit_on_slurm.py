"""What `ml-core submit` queues on a real Slurm: it trains, waits, chains, and takes back."""

import functools
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import typer.main
from tiny_pcam import make_patches, write_config, write_split, write_tiny_pcam

from ml_core.cli import app
from ml_core.cluster.slurm import list_jobs
from ml_core.cluster.submission import Submission
from ml_core.config import Config
from ml_core.errors import ClusterError
from ml_core.pipeline import submit as stage
from ml_core.pipeline.submitting import queueing
from ml_core.pipeline.submitting.waiting import wait_for_jobs
from ml_core.runs import RunDir, RunRecord, write_text

pytestmark = pytest.mark.slurm

# A worker of a search is three processes with torch, whose memory Slurm adds up: 1.7 GB.
ASK = ("partition=long", "mem_gb=1.9", "cpus_per_task=1", "time=00:10:00", "signal_s=30")
SEARCH = {
    "space": {"optimizer.lr": {"low": 0.001, "high": 0.1, "log": True}},
    "num_trials": 2, "pruner": {"name": "none"},
}  # fmt: skip


@pytest.fixture
def submit(slurm, tmp_path, monkeypatch):
    """Submit words, as a user of the cluster; the fast run has tests of its own."""
    monkeypatch.setattr(stage, "wait_for_jobs", functools.partial(wait_for_jobs, look_s=0.5))
    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, slurm.env[name])
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    commands = typer.main.get_command(app).commands

    def submit(verb, *words, **options):
        given = {"profile": "generic-cpu", "ask": ASK, "fast_dev_run": False, "wait": True}
        words = [str(word) for word in words]
        return stage.submit(verb, words, commands=commands, command="", **{**given, **options})

    return submit


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path / "tiny.yaml", write_tiny_pcam(tmp_path / "data"))


def logs(folder: str) -> str:
    return "\n".join(path.read_text() for path in sorted(Path(folder).glob("*.log")))


def test_two_seeds_are_trained_side_by_side_and_waited_for(submit, config, tmp_path, said):
    result = submit("train", config, "--set", "seeds=[1,2]")
    assert result["status"] == "completed", logs(result["folder"])
    runs = sorted((tmp_path / "runs" / "tiny").glob("*-seed*/run.json"))
    records = [json.loads(path.read_text()) for path in runs]
    assert sorted((each["seed"], each["status"]) for each in records) == [
        (1, "completed"), (2, "completed"),
    ]  # fmt: skip
    (job,) = result["jobs"]
    assert {f"{job['id']}_{seed} (train-tiny): it ran to its end." for seed in (0, 1)} <= set(
        said.messages
    )


def write_sided_pcam(folder: Path) -> Path:
    """Patches with a dark bar on the left where there is tumour, else the same on the right.

    The baselines see colours, and means of the centre and of all, of convolutions with strides of 8
    in all: a bar moved by a multiple of that, away from centre and edges, is the same to them.
    """
    for seed, (split, num) in enumerate({"train": 96, "valid": 64}.items()):
        labels = np.arange(num) % 2
        patches = make_patches(np.zeros(num), seed)
        patches[labels == 1, 20:76, 10:22] //= 3
        patches[labels == 0, 20:76, 74:86] //= 3
        write_split(folder, split, patches, labels.reshape(-1, 1, 1, 1))
    return folder


def test_a_chain_ends_in_the_report_of_its_champion(submit, tmp_path):
    data = {"augment": {"dihedral": False}}  # which would turn left into right
    folder = write_sided_pcam(tmp_path / "data")
    config = write_config(tmp_path / "search.yaml", folder, search=SEARCH, data=data)
    result = submit("chain", config, array=2)
    assert result["status"] == "completed", logs(result["folder"])
    (study,) = (tmp_path / "runs" / "tiny").glob("study-*")
    champion = json.loads((study / "champion.json").read_text())
    run = study / champion["run"]["path"]
    assert (run / "metrics.json").is_file()
    assert (run / "report.html").is_file()
    assert not (run / "metrics-test.json").exists()


def test_a_failed_job_is_told_with_its_error_and_nothing_waits_for_it(
    submit, config, tmp_path, said
):
    run = tmp_path / "runs" / "run-1"
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}")
    first = submit("report", run)
    assert first["status"] == "failed"
    assert "it was refused: " in said.text
    with pytest.raises(ClusterError, match=r"that job is FAILED, so this one would never start"):
        submit("train", config, after=[first["jobs"][0]["id"]])
    with pytest.raises(ClusterError, match="Slurm knows no such job"):
        submit("train", config, after=["9999"])


def test_what_sbatch_took_without_saying_so_is_cancelled(slurm, submit, config, monkeypatch):
    def interrupted(script):
        take(script)
        raise KeyboardInterrupt

    take = queueing.submit
    monkeypatch.setattr(queueing, "submit", interrupted)
    with pytest.raises(ClusterError, match=r"interrupted\. What Slurm had taken was cancelled"):
        submit("train", config, "--set", "seeds=[1,2]")
    states = {job.state for job in list_jobs() if job.name == "train-tiny"}
    assert not states & {"RUNNING", "PENDING"}


def test_a_task_cancelled_before_it_starts_is_no_good_end(slurm, submit, config, monkeypatch):
    def cancel_one(submission):
        slurm.run("scancel", f"{submission.jobs[0].id}_2")
        return wait_for_jobs(submission, look_s=1)

    monkeypatch.setattr(stage, "wait_for_jobs", cancel_one)
    result = submit("train", config, "--set", "seeds=[1,2,3]")
    assert result["status"] == "failed", logs(result["folder"])


def test_when_slurm_refuses_a_later_job_of_a_chain_none_is_left(
    slurm, submit, tmp_path, monkeypatch
):
    """Another chain's partition, as when an administrator takes one away meanwhile."""
    config = write_config(
        tmp_path / "search.yaml", write_tiny_pcam(tmp_path / "data"), search=SEARCH
    )
    render = queueing.render_script

    def with_third_elsewhere(request, profile):
        text = render(request, profile)
        if request.name.endswith("-workers"):
            return text.replace("--partition=long", "--partition=nowhere")
        return text

    monkeypatch.setattr(queueing, "render_script", with_third_elsewhere)
    with pytest.raises(ClusterError, match=r"workers: sbatch refuses: .*was cancelled: \d+, \d+"):
        submit("chain", config)
    submission = Submission.load(next((tmp_path / "runs" / "jobs").iterdir()))
    assert [slurm.show(job.id)["JobState"] for job in submission.jobs] == ["CANCELLED"] * 2


def test_of_two_who_resume_one_run_at_once_one_is_refused(slurm, submit, config, tmp_path):
    run = RunDir.create(tmp_path / "runs" / "tiny", "run-1")
    write_text(run.config_path, Config.load(config).dump_yaml())
    RunRecord("tiny", 42, "ml-core train", status="interrupted").save(run)

    def resume(_):
        try:
            return submit("train", "--resume", run.path, wait=False)["status"]
        except ClusterError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        first, second = sorted(pool.map(resume, range(2)), key=len)
    assert first == "submitted"
    assert re.search("is about to go on with|goes on with .*run-1 already", second)
    assert len(slurm.run("squeue", "--noheader", "--name=train-tiny").stdout.splitlines()) == 1


def test_variables_of_the_shell_do_not_change_a_job(slurm, submit, config, monkeypatch):
    monkeypatch.setenv("SBATCH_TIMELIMIT", "1")
    monkeypatch.setenv("SBATCH_PARTITION", "short")
    (job,) = submit("train", config, wait=False)["jobs"]
    record = slurm.show(job["id"])
    assert (record["TimeLimit"], record["Partition"]) == ("00:10:00", "long")


def test_the_fast_run_and_the_doctor_let_a_config_that_trains_through(submit, config):
    result = submit("train", config, fast_dev_run=True, wait=False)
    assert result["status"] == "submitted"
