"""`doctor` tells at once all that would end a job, and leaves nothing behind."""

import json
import os
import re
import sys
from pathlib import Path

import pytest
from tiny_pcam import write_config, write_tiny_pcam

from ml_core.audit.files import AuditDir, AuditRecord
from ml_core.checkpoint import KEEP
from ml_core.cluster.profile import load_profile
from ml_core.config import Config
from ml_core.errors import ConfigError
from ml_core.findings import Finding
from ml_core.pipeline import doctor as stage
from ml_core.pipeline.doctor import doctor, examine
from ml_core.preflight.check import error
from ml_core.preflight.gpu import Gpu
from ml_core.preflight.python import check_python
from ml_core.preflight.torch_here import check_torch

RECORDED = Path(__file__).parent / "slurm" / "recorded"


@pytest.fixture(scope="module")
def own_python():
    """What this Python says of itself: asked once, since it takes a good part of a second."""
    return check_python(None, (), is_cluster=False)


@pytest.fixture(autouse=True)
def machine(program, monkeypatch, own_python):
    """A machine without Slurm and GPU, outside of any job; programs can be put on its PATH."""
    checks, python = own_python
    monkeypatch.setattr(stage, "check_python", lambda *_, **__: ([*checks], python))
    for name in [name for name in os.environ if name.startswith(("SLURM", "SBATCH"))]:
        monkeypatch.delenv(name)
    return program


@pytest.fixture
def slurm(machine):
    """A login node of the recorded cluster, without accounting."""
    machine("scontrol", f"cat {RECORDED}/partitions.txt")
    machine("sinfo", f"cat {RECORDED}/nodes.txt")


@pytest.fixture
def config_path(tmp_path):
    data = write_tiny_pcam(tmp_path / "data", 16, 8)
    return write_config(tmp_path / "config.yaml", data)


def told(result, about):
    """Return the checks about one thing."""
    return [check for check in result["checks"] if check["about"] == about]


def only(result, about):
    (check,) = told(result, about)
    return check


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_what_is_well_is_told_too_and_nothing_stays_behind(config_path, tmp_path, capsys):
    before = tree(tmp_path)
    result = doctor(config_path)
    assert tree(tmp_path) == before
    assert result["status"] == "warning"  # of the audit that is not there yet
    abouts = [check["about"] for check in result["checks"]]
    assert abouts == [
        "config", "python", "packages", "data", "audit", "outputs", "space", "memory", "cores",
        "gpu", "slurm", "clock",
    ]  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(abouts) and lines[1].startswith("ok       python     3.")
    assert json.loads(json.dumps(result)) == result


def test_a_config_that_does_not_load_is_one_error_and_the_rest_is_looked_at(config_path):
    result = doctor(config_path, overrides=["data.datapath=x"])
    assert result["status"] == "error"
    check = only(result, "config")
    assert "datapath" in check["told"] and "data_path" in check["told"]
    assert only(result, "python")["level"] == "ok"
    assert not told(result, "data")


def test_packages_of_a_python_that_is_wrong_are_not_told_as_well(monkeypatch, own_python):
    wrong = [error("python", "made with another")]
    monkeypatch.setattr(stage, "check_python", lambda *_, **__: (wrong, own_python[1]))
    assert not told(doctor(None), "packages")


def test_without_a_config_the_machine_is_looked_at():
    result = doctor(None)
    assert result["status"] == "ok"
    assert not told(result, "memory") and only(result, "gpu")


def test_an_unknown_profile_is_refused_as_everywhere():
    with pytest.raises(ConfigError, match="snellius-gpu"):
        doctor(None, profile="snelius-gpu")


def test_all_errors_are_told_at_once(config_path, tmp_path):
    (tmp_path / "taken").write_text("")
    result = doctor(
        config_path,
        ask=["mem_gb=0.2", "nodes=2", "time=00:01:00"],
        overrides=[
            f"output_dir={tmp_path}/taken/runs", f"data.data_path={tmp_path}/nowhere",
            "training.device=cuda",
        ],
    )  # fmt: skip
    errors = {check["about"] for check in result["checks"] if check["level"] == "error"}
    assert errors == {"data", "outputs", "memory", "ranks", "gpu", "time"}


def test_a_place_that_cannot_even_be_looked_at_is_an_error_and_no_crash(config_path, tmp_path):
    # as a colleague's closed folder, which would not stop root
    beyond = tmp_path / ("too long for the system" * 20)
    result = doctor(
        config_path,
        overrides=[
            f"output_dir={beyond}/runs", f"data.data_path={beyond}",
            f"tracking.mlflow_uri=sqlite:///{beyond}/mlflow.db",
        ],
    )  # fmt: skip
    errors = [check["about"] for check in result["checks"] if check["level"] == "error"]
    assert errors == ["data", "outputs", "outputs", "outputs", "outputs"]


def test_relative_paths_are_those_of_the_config_wherever_one_stands(config_path, monkeypatch):
    monkeypatch.chdir("/")
    assert only(doctor(config_path), "data")["level"] == "ok"


# ---- the audit ---------------------------------------------------------------------------------


def write_audit(data, findings, mode="full"):
    record = AuditRecord(
        mode=mode, data_path=str(data), created_at="2999-01-01T00:00:00+00:00", ml_core="0",
        command="", duration_s=0.0, num_threads=1,
        splits={"train": {"num_rows": 16}, "valid": {"num_rows": 8}},
        digests={}, findings=findings,
    )  # fmt: skip
    folder = AuditDir(data / "audit" / ("quick" if mode == "quick" else "."))
    folder.path.mkdir(parents=True)
    record.save(folder)


BROKEN = Finding("nan", "error", "3 patches hold NaN.", split="train", indices=(1,), exclude=True)


def test_errors_of_the_audit_stop_a_job_unless_the_config_says_otherwise(config_path, tmp_path):
    write_audit(tmp_path / "data", [BROKEN])
    same, stopping = told(doctor(config_path), "audit")
    assert same["level"] == "ok" and stopping["level"] == "error"
    assert "3 patches hold NaN" in stopping["told"]
    for override in ("data.on_findings=exclude", "data.filter_data=true"):
        levels = [c["level"] for c in told(doctor(config_path, overrides=[override]), "audit")]
        assert set(levels) == {"ok"}


def test_errors_of_the_sealed_split_stop_no_training(config_path, tmp_path):
    sealed = Finding("nan", "error", "in test", split="test", indices=(1,), exclude=True)
    write_audit(tmp_path / "data", [sealed], mode="quick")
    assert only(doctor(config_path), "audit")["level"] == "ok"


def test_a_damaged_audit_is_a_warning(config_path, tmp_path):
    write_audit(tmp_path / "data", [])
    (tmp_path / "data" / "audit" / "audit.json").write_text("{")
    assert only(doctor(config_path), "audit")["level"] == "warning"


# ---- on a cluster ------------------------------------------------------------------------------

FITS = ["partition=long", "cpus_per_task=1", "mem_gb=1", "time=01:00:00"]


def test_on_a_login_node_the_request_is_held_against_the_partitions(slurm, config_path):
    result = doctor(config_path, ask=FITS)
    assert only(result, "slurm")["level"] == "ok"
    assert "this is a login node" in only(result, "gpu")["told"]
    result = doctor(config_path, ask=[*FITS, "partition=gpu_a100"])
    assert "unknown partition 'gpu_a100'" in only(result, "slurm")["told"]


def test_what_the_other_machines_may_not_see_is_told_on_a_cluster_only(
    slurm, machine, config_path, tmp_path
):
    check = only(doctor(config_path, ask=FITS), "shared")
    assert f"data.data_path ({tmp_path}/data)" in check["told"]
    machine("scontrol", "exit 1")
    assert not told(doctor(config_path, ask=FITS), "shared")


def test_without_slurm_a_submission_is_refused_and_a_question_is_not():
    profile = load_profile("generic-cpu")
    assert [c.level for c in examine(None, profile) if c.about == "slurm"] == ["ok"]
    needed = examine(None, profile, needs_slurm=True)
    assert [c.level for c in needed if c.about == "slurm"] == ["error"]


def test_a_controller_that_does_not_answer_is_asked_once(machine, tmp_path):
    machine("scontrol", f"echo x >>{tmp_path}/asked; exit 1")
    machine("sacctmgr", f"echo x >>{tmp_path}/asked; exit 1")
    doctor(None)
    assert (tmp_path / "asked").read_text() == "x\n"


def test_within_a_job_its_own_cpus_and_memory_count(config_path, monkeypatch):
    for name, value in {"JOB_ID": "7", "CPUS_PER_TASK": "2", "MEM_PER_NODE": "300"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    result = doctor(config_path, overrides=["data.num_workers=2"])
    assert "on 2 CPUs (of this job)" in only(result, "cores")["told"]
    assert only(result, "memory")["level"] == "error"
    assert "this job has none" in only(result, "gpu")["told"]
    config = Config.load(config_path, ["data.num_workers=2"])
    other = {
        each.about: each for each in examine(config, load_profile("generic-cpu"), submits=True)
    }
    assert "as the profile asks" in other["cores"].told and other["memory"].level == "ok"
    assert "this job has no GPU; the job asks for none" in other["gpu"].told


def test_a_profile_with_a_gpu_leaves_batches_out_of_main_memory(config_path):
    for_gpu = doctor(config_path, profile="generic-gpu")
    for_cpu = doctor(config_path, profile="generic-cpu")
    assert only(for_gpu, "memory")["told"] != only(for_cpu, "memory")["told"]


def test_patches_kept_in_memory_are_counted_as_far_as_they_are_used(tmp_path):
    data = write_tiny_pcam(tmp_path / "many", 2000, 1000)
    config = write_config(tmp_path / "ram.yaml", data, data={"placement": "ram"})

    def kept(*overrides):
        told = only(doctor(config, overrides=overrides), "memory")["told"]
        return re.findall(r"patches kept in memory (\d+\.\d+)", told)

    assert kept() == ["0.08"]  # 3,000 patches of 27,648 bytes, in GB of 2**30
    assert kept("data.max_patches=500") == ["0.03"]
    assert kept("data.placement=file") == []


def test_the_moments_of_the_optimizer_are_counted(config_path):
    def terms(*overrides):
        return only(doctor(config_path, overrides=overrides), "space")["told"]

    sgd = terms("optimizer.name=sgd", "model.hidden_units=[2000]")
    assert sgd != terms("optimizer.name=adamw", "model.hidden_units=[2000]")
    for momentum, moments in ((0.5, 1), (0, 0)):
        config = Config.load(config_path, ["optimizer.name=sgd", f"optimizer.momentum={momentum}"])
        assert stage._moments(config) == moments


def test_as_many_checkpoints_are_counted_as_a_run_keeps():
    assert stage.KEPT_CHECKPOINTS == KEEP + 2  # the best, and one being written


# ---- torch, for who waits ----------------------------------------------------------------------


def test_torch_is_loaded_only_when_asked_for(config_path):
    assert not told(doctor(config_path), "torch")
    check = only(doctor(config_path, with_torch=True), "torch")
    assert check["level"] == "ok" and "loads in" in check["told"]


@pytest.fixture
def answering(tmp_path):
    """An interpreter with a torch that says of itself what it is given."""

    def make(**changes):
        said = {"version": "2.13", "took_s": 2.0, "threads": 4, "cuda": "12.8", "gpus": 1,
                "works": True, **changes}  # fmt: skip
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\necho '{json.dumps(said)}'\n")
        path.chmod(0o755)
        return path

    return make


A100 = [Gpu("A100", 40.0, "535.104.05")]


@pytest.mark.parametrize(
    "changes, gpus, words",
    [
        ({"cuda": None, "works": False}, A100, "built for CUDA"),
        ({"cuda": "13.0", "works": False}, A100, "driver 535.104.05 is older than 580"),
        ({"works": False}, A100, "torch cannot use it"),
        ({"took_s": 60.0}, A100, "loading took 60 s"),
    ],
)
def test_a_torch_that_cannot_use_the_gpu_says_why(answering, changes, gpus, words):
    checks = check_torch(answering(**changes), gpus)
    assert len(checks) == 2 and words in str(checks[1])


def test_a_torch_that_fits_is_one_line(answering):
    assert [check.level for check in check_torch(answering(), A100)] == ["ok"]
    assert [check.level for check in check_torch(answering(cuda=None), [])] == ["ok"]


def test_a_torch_that_does_not_load_is_told_with_its_last_words(tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'ImportError: libtorch.so: truncated' >&2\nexit 1\n")
    broken.chmod(0o755)
    (check,) = check_torch(broken, [])
    assert check.level == "error" and "libtorch.so: truncated" in check.told
    assert sys.executable not in str(check)
