"""From a profile and a request to a batch script: what it asks, what it runs, how it ends.

The snapshots show whole scripts. After a change that is meant: python tests/test_job_script.py
"""

import dataclasses
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_slurm import PROGRAMS, FakeSlurm
from programs import write_program
from test_architecture import loaded_by

from ml_core.cluster.interpreter import find_interpreter
from ml_core.cluster.job_request import JobRequest
from ml_core.cluster.job_script import render_script
from ml_core.cluster.profile import Profile, list_profiles, load_profile
from ml_core.cluster.run_of_job import give_up_empty_runs, run_of_job
from ml_core.cluster.same_code import other_code
from ml_core.errors import ClusterError, ConfigError, RunError
from ml_core.lease import Lease
from ml_core.reproducibility.code import source_digest
from ml_core.runs import RunDir, RunRecord

SNAPSHOTS = Path(__file__).parent / "snapshots"
HOSTILE = ["a b", "it's", '"', "$(touch pwned)", "`touch pwned`", "; touch pwned", "new\nline", "*"]

ONE = JobRequest(
    name="pcam_cnn",
    arguments=("train", "/data/pcam_cnn.yaml"),
    folder=Path("/jobs/pcam_cnn"),
    python=Path("/venvs/pcam/bin/python"),
    python_version="3.12.3",
)
SEEDS = (("--set", "seed=42"), ("--set", "seed=43"), ("--set", "seed=44"))
TUNE = ("tune", "--resume", "/runs/pcam_cnn/study-1", "--workers", "1")
SHOWN = {
    "single": (ONE, "generic-cpu"),
    "gpu-staged-resumed": (
        dataclasses.replace(
            ONE,
            stage=Path("/data/pcam"),
            resume_dir=Path("/runs/pcam_cnn"),
            code_sha256="5a" * 32,
        ),
        "snellius-gpu",
    ),
    "array-of-seeds": (
        dataclasses.replace(ONE, array_arguments=SEEDS, resume_dir=Path("/runs/pcam_cnn")),
        "snellius-thin",
    ),
    "array-of-workers": (
        dataclasses.replace(ONE, arguments=TUNE, array_arguments=((), ()), array_at_once=1),
        "generic-gpu",
    ),
    "two-nodes": (dataclasses.replace(ONE, nodes=2, tasks_per_node=4), "snellius-gpu"),
    "end-of-a-chain": (
        dataclasses.replace(
            ONE, arguments=("report", "/runs/pcam_cnn/run-1"), after=("12", "13_1"), requeue=False
        ),
        "generic-cpu",
    ),
}


@pytest.mark.parametrize("name", SHOWN)
def test_scripts_are_as_shown(name):
    assert shown(name) == (SNAPSHOTS / f"{name}.sh").read_text()


def shown(name: str) -> str:
    request, profile = SHOWN[name]
    return render_script(request, load_profile(profile))


@pytest.mark.parametrize("name", SHOWN)
def test_no_script_has_what_shellcheck_finds(name, tmp_path):
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed; Debian has it: apt-get install shellcheck")
    script = tmp_path / "job.sh"
    script.write_text(shown(name))
    # SC1090: the site's own file; SC2016: expanded on the node; SC2100: data-1f is no difference
    done = subprocess.run(
        [shellcheck, "--exclude=SC1090,SC2016,SC2100", script], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


# Profiles


def test_built_in_profiles_are_listed_and_all_give_scripts():
    profiles = list_profiles()
    assert list(profiles) == ["generic-cpu", "generic-gpu", "snellius-gpu", "snellius-thin"]
    assert all(profiles.values())
    for name in profiles:
        assert "#SBATCH --time=04:00:00\n" in render_script(ONE, load_profile(name))


def test_another_partition_brings_its_own_share_of_a_node():
    thin = load_profile("snellius-thin")
    assert (thin.partition, thin.cpus_per_task, thin.mem_gb) == ("rome", 16, 28)
    thin = load_profile("snellius-thin", ["partition=genoa"])
    assert (thin.partition, thin.cpus_per_task, thin.mem_gb) == ("genoa", 24, 42)
    gpu = load_profile("snellius-gpu", ["partition=gpu_h100", "mem_gb=90", "time=12:00:00"])
    assert (gpu.gpus, gpu.cpus_per_task, gpu.mem_gb, gpu.time) == ("1", 16, 90, "12:00:00")


def test_ones_own_profile_starts_from_a_built_in_one(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: snellius-gpu\naccount: abc123\nmem_per_cpu_gb: 4\npython: venv\n")
    mine = load_profile(path)
    assert (mine.partition, mine.cpus_per_task, mine.account) == ("gpu_a100", 18, "abc123")
    assert (mine.mem_gb, mine.mem_per_cpu_gb) == (None, 4)
    assert mine.python == tmp_path / "venv"
    assert load_profile(path, ["account=other", "modules=[]"]).modules == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base: snellius", "there is no profile 'snellius'. Did you mean 'snellius-"),
        ("partion: rome", "partion: unknown key. Did you mean 'partition'?"),
        ("time: 12:00:00", 'time: allowed is "HH:MM:SS" or "D-HH:MM:SS", in quotes'),
        ("gpus: a100:many", "gpus: 'a100:many'. Allowed: a number of GPUs, or type:number"),
        ('partition: "a b"', "partition: 'a b'. Allowed: a name"),
        ('modules: ["x; rm"]', "modules.0: 'x; rm'. Allowed: the name of a module"),
        ('scratch: "$TMPDIR"', "scratch: '$TMPDIR'. Allowed: the name of an environment variable"),
        ('sbatch: ["--output=x"]', "'--output=x' is set by the job script itself"),
        ('sbatch: ["-p x"]', "sbatch.0: '-p x'. Allowed: an option of sbatch"),
        ('setup: ["#SBATCH --mem=1"]', "put it under `sbatch`"),
        ("mem_gb: 1\nmem_per_cpu_gb: 1", "keep one"),
        ("signal_s: 5", "signal_s: Input should be greater than or equal to 30"),
        ("requeue: maybe", "requeue: Input should be a valid boolean"),
    ],
)
def test_a_wrong_profile_says_where_and_what_is_allowed(tmp_path, text, said):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_profile(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_an_unknown_profile_names_those_there_are():
    with pytest.raises(
        ConfigError, match=r"'snellius-cpu'.* Did you mean .* or the path of a YAML"
    ):
        load_profile("snellius-cpu")
    with pytest.raises(ConfigError, match="not of the form key=value, such as time="):
        load_profile("generic-cpu", ["time"])


# Requests


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "a b"}, "job name 'a b' cannot be given to Slurm; allowed: letters"),
        ({"name": "a\n#SBATCH --uid=0"}, "job name"),
        ({"after": ("12; rm",)}, "job to wait for '12; rm'"),
        ({"python_version": "3.12"}, "three numbers, such as 3.12.3"),
        ({"arguments": ()}, "a job needs words after ml-core"),
        ({"arguments": ("a\0b",)}, "zero byte"),
        ({"folder": Path("jobs")}, "folder jobs is relative"),
        ({"folder": Path("/jobs/a\nb")}, "control character"),
        ({"stage": Path("/data/a\\b")}, "backslash"),
        ({"gpus": "many"}, "gpus 'many' cannot be given to Slurm; allowed: a number"),
        ({"code_sha256": "$(touch pwned)"}, "64 of the digits 0-9 and a-f"),
        ({"nodes": 0}, "nodes is 0; allowed is a whole number from 1 on"),
    ],
)
def test_a_request_that_no_script_can_hold_is_refused(changes, said):
    with pytest.raises(ClusterError) as caught:
        dataclasses.replace(ONE, **changes)
    assert said in str(caught.value)


def test_a_time_limit_that_is_mostly_warning_is_refused():
    with pytest.raises(ClusterError, match=r"told to save 120 s before it.*at least 240 s"):
        render_script(dataclasses.replace(ONE, time_s=180), load_profile("generic-cpu"))


def test_what_a_job_asks_goes_before_what_the_profile_says():
    request = dataclasses.replace(
        ONE, time_s=90_001, mem_mb=1500, cpus=2, gpus="a100:1", nodes=2, tasks_per_node=3
    )
    lines = sbatch_lines(request, load_profile("snellius-gpu", ["exclude=[n1,n2]", "account=me"]))
    assert {
        "--time=25:01:00", "--mem=4500M", "--cpus-per-task=2", "--gpus-per-node=a100:3",
        "--nodes=2", "--ntasks-per-node=3", "--exclude=n1,n2", "--account=me",
    } <= set(lines)  # fmt: skip


def sbatch_lines(request: JobRequest, profile: Profile) -> list[str]:
    lines = render_script(request, profile).splitlines()
    return [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")]


def test_a_log_is_where_the_request_says_it_will_be():
    folder = Path("/jobs/100% of it")
    one = dataclasses.replace(ONE, folder=folder)
    array = dataclasses.replace(one, array_arguments=SEEDS)
    assert one.log_pattern == "/jobs/100%% of it/pcam_cnn-%j.log"
    assert one.log_path("12") == folder / "pcam_cnn-12.log"
    assert array.log_pattern == "/jobs/100%% of it/pcam_cnn-%A_%a.log"
    assert array.log_path("12_1") == folder / "pcam_cnn-12_1.log"
    lines = sbatch_lines(one, load_profile("generic-cpu"))
    assert '--output="/jobs/100%% of it/pcam_cnn-%j.log"' in lines


def test_an_interpreter_knows_the_version_that_its_venv_was_made_with(tmp_path):
    for line, version in (
        ("version = 3.11.2", "3.11.2"),
        ("version_info = 3.12.3.final", "3.12.3"),
    ):
        venv = tmp_path / version
        (venv / "bin").mkdir(parents=True)
        (venv / "bin" / "python").symlink_to(sys.executable)
        (venv / "pyvenv.cfg").write_text(f"home = /usr/bin\n{line}\n")
        found = find_interpreter(venv)
        assert (found.path, found.version) == (venv / "bin" / "python", version)
        assert find_interpreter(venv / "bin" / "python") == found
    assert find_interpreter().version == platform.python_version()
    with pytest.raises(ConfigError, match=r"no interpreter .*/nowhere .* new one: uv venv"):
        find_interpreter(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="is of no venv"):
        find_interpreter(fake(tmp_path).python)


def test_the_modules_of_jobs_load_without_torch_or_numpy():
    loaded = loaded_by(
        "import ml_core.cluster.job_script, ml_core.cluster.profile, ml_core.cluster.interpreter, "
        "ml_core.cluster.run_of_job"
    )
    assert loaded & {"torch", "numpy", "pandas", "h5py"} == set()


# Scripts at work


def fake(tmp_path: Path) -> FakeSlurm:
    folder = tmp_path / "fake"
    folder.mkdir()
    return FakeSlurm(folder)


@pytest.fixture
def slurm(tmp_path) -> FakeSlurm:
    return fake(tmp_path)


@pytest.fixture
def request_here(slurm, tmp_path):
    """A job whose folder and interpreter are there."""
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    return dataclasses.replace(
        ONE, folder=jobs, python=slurm.python, python_version=platform.python_version()
    )


@pytest.fixture
def run_script(slurm, request_here):
    """Run the script of the job with changes, on a profile with overrides."""

    def run(*overrides: str, variables: dict[str, str] | None = None, **changes: object):
        request = dataclasses.replace(request_here, **changes)
        script = render_script(request, load_profile("generic-cpu", overrides))
        return slurm.run(script, **(variables or {}))

    return run


def test_a_job_runs_its_words_with_the_threads_it_was_given(run_script):
    ended = run_script(variables={"PYTHONPATH": "/other", "OMP_NUM_THREADS": "64"})
    assert (ended.code, ended.words) == (0, ["train", "/data/pcam_cnn.yaml"])
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONUNBUFFERED", "PYTHONNOUSERSITE")
    assert [ended.environment[name] for name in names] == ["3", "3", "1", "1"]
    assert {"PYTHONPATH", "MASTER_ADDR"} & set(ended.environment) == set()


def test_hostile_words_and_folders_arrive_as_they_are_and_are_never_code(
    slurm, run_script, tmp_path
):
    folder = tmp_path / "a  b $(touch pwned) 'q' \"d\" #1 100% `touch pwned`; é"
    folder.mkdir()
    ended = run_script(
        arguments=("train", *HOSTILE),
        array_arguments=(tuple(HOSTILE),),
        folder=folder,
        stage=folder,
        variables={"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "0", "TMPDIR": str(tmp_path)},
    )
    assert ended.code == 0, ended.log
    assert ended.words[:-2] == ["train", *HOSTILE, *HOSTILE]
    assert ended.staged[2] == str(folder)
    assert list(tmp_path.rglob("pwned")) == []


def test_bash_takes_every_script_with_hostile_words():
    for words in ([each] for each in HOSTILE):
        request = dataclasses.replace(ONE, arguments=("train", *words), array_arguments=(words,))
        script = render_script(request, load_profile("snellius-gpu"))
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_each_task_of_an_array_adds_its_own_words(run_script):
    for task, seed in (("0", "42"), ("2", "44")):
        variables = {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": task}
        ended = run_script(array_arguments=SEEDS, variables=variables)
        assert ended.words == ["train", "/data/pcam_cnn.yaml", "--set", f"seed={seed}"]


def test_a_failure_passes_its_code_on_and_is_not_tried_again(run_script):
    for code in ("2", "3", "137"):
        ended = run_script(variables={"CODE": code})
        assert (ended.code, ended.scontrol) == (int(code), [])
        assert f"ml-core ended with exit code {code}" in ended.log


def soon() -> str:
    return str(int(time.time()) + 100)


def test_a_job_that_saved_for_its_time_limit_is_requeued(run_script):
    ended = run_script(variables={"CODE": "130", "ENDS_AT": soon()})
    assert ended.scontrol == ["requeue 5"]


@pytest.mark.parametrize("code", ["130", "138", "143"])
def test_a_preempted_job_is_requeued_even_if_it_could_not_save(run_script, code):
    ended = run_script(variables={"CODE": code, "ENDS_AT_LATER": str(int(time.time()) + 3600)})
    assert ended.scontrol == ["requeue 5"]


def test_a_job_that_its_time_limit_kills_before_it_has_saved_would_not_get_further(run_script):
    ended = run_script(variables={"CODE": "138", "ENDS_AT": soon()})
    assert (ended.code, ended.scontrol) == (138, [])
    assert "error: the time limit came before anything was saved" in ended.log


def test_a_job_that_a_person_told_to_stop_is_not_requeued(run_script):
    ended = run_script(variables={"CODE": "130"})
    assert (ended.code, ended.scontrol) == (130, [])
    assert "told to stop by a person" in ended.log


@pytest.mark.parametrize("code", ["138", "143"])
def test_a_preemption_while_the_node_is_looked_at_is_left_to_slurm(run_script, slurm, code):
    """A script that ends by it would be FAILED; one that goes on is requeued when it is killed."""
    slurm.write_program("srun", f'[[ $* != *"bad node"* ]] || exit {code}\n{PROGRAMS["srun"]}')
    ended = run_script()
    assert (ended.code, ended.words) == (0, ["train", "/data/pcam_cnn.yaml"])


def test_a_node_that_cannot_be_looked_at_ends_the_job_with_a_word(run_script, slurm):
    slurm.write_program("srun", "echo 'srun: error: Unable to create step' >&2; exit 1\n")
    ended = run_script()
    assert (ended.code, ended.words) == (1, None)
    assert "error: srun cannot start anything on n1 (exit code 1)" in ended.log


@pytest.mark.parametrize("code", ["0", "130"])
def test_a_job_that_slurm_took_away_neither_succeeds_nor_comes_back(run_script, code):
    ended = run_script(variables={"CODE": code, "STATE": "COMPLETING", "ENDS_AT": soon()})
    assert (ended.code, ended.scontrol) == (1, [])
    assert "what it did here is not its result" in ended.log


def test_a_job_that_ends_while_the_controller_is_down_ends_as_its_work_did(run_script):
    ended = run_script(variables={"SQUEUE_CODE": "1"})
    assert (ended.code, ended.scontrol) == (0, [])
    ended = run_script(variables={"SQUEUE_CODE": "1", "CODE": "130"})
    assert ended.scontrol == ["requeue 5"]


def test_a_copy_on_a_lost_node_leaves_the_new_one_alone(run_script, slurm):
    slurm.write_program("squeue", PROGRAMS["squeue"].replace("${SLURM_RESTART_COUNT:-0}", "1"))
    ended = run_script(variables={"CODE": "130", "ENDS_AT": soon()})
    assert (ended.code, ended.scontrol) == (1, [])


def test_of_an_array_the_one_task_is_requeued(run_script):
    variables = {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "2", "CODE": "130"}
    ended = run_script(array_arguments=SEEDS, variables=variables | {"ENDS_AT": soon()})
    assert ended.scontrol == ["requeue 5_2"]


def test_without_requeue_nothing_is_started_again(run_script):
    for code in ("130", "1"):
        ended = run_script("requeue=no", variables={"CODE": code, "ENDS_AT": soon()})
        assert (ended.code, ended.scontrol) == (int(code), [])


def test_a_requeue_that_slurm_refuses_ends_with_what_to_do(run_script):
    ended = run_script(variables={"CODE": "130", "ENDS_AT": soon(), "SCONTROL_CODE": "1"})
    assert (ended.code, ended.scontrol) == (130, ["requeue 5"] * 6)
    assert "error: Slurm does not requeue it; go on by hand: ml-core train --resume" in ended.log


def test_a_node_on_which_work_fails_at_once_is_left_out_three_times_at_most(run_script):
    excluded = ["n1", "n1,n2"]
    for start, node in enumerate(("n1", "n2", "n3")):
        ended = run_script(
            "exclude=[n9]",
            variables={"CODE": "1", "SLURMD_NODENAME": node, "SLURM_RESTART_COUNT": str(start)},
        )
        assert ended.code == 1
        wanted = excluded[start : start + 1]
        update = [f"update JobId=5 ExcNodeList={nodes},n9" for nodes in wanted]
        assert ended.scontrol == (["requeue 5", *update] if update else [])
    assert "error: failed on n1,n2,n3 and not tried again" in ended.log


def test_a_job_does_not_wait_for_ever_for_nodes_that_are_all_left_out(run_script, slurm):
    slurm.write_program("sinfo", "echo n1\n")
    ended = run_script(variables={"CODE": "1"})
    assert (ended.code, ended.scontrol) == (1, [])
    assert "failed on n1 and not tried again" in ended.log


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"PYTHON_STARTS": "no"}, "n1 cannot start"),
        ({"NVIDIA_CODE": "9"}, "n1 has GPUs that do not answer"),
        ({"TMPDIR": "/proc/nowhere"}, "n1 cannot write /proc/nowhere"),
    ],
)
def test_a_node_that_does_not_work_is_left_out_before_any_work(run_script, variables, said):
    ended = run_script("gpus=1", stage=Path("/data"), variables=variables)
    assert (ended.code, ended.words) == (1, None)
    assert f"error: {said}" in ended.log
    assert ended.scontrol == ["requeue 5", "update JobId=5 ExcNodeList=n1"]


def test_another_python_than_that_of_the_submission_is_refused(run_script):
    ended = run_script(python_version="3.9.1")
    assert (ended.code, ended.words) == (2, None)
    assert "and was 3.9.1 when this was submitted" in ended.log


# `module` as a site's init file defines it; what a name does is in the function.
MODULE = """
module() {{
  case $2 in
    good) export LOADEDMODULES=${{LOADEDMODULES:+$LOADEDMODULES:}}good/1.2 ;;
    silent) : ;;
    broken) return 1 ;;
    python) export LOADEDMODULES=python PATH={other}:$PATH ;;
  esac
}}
export -f module
"""


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        ("[good]", None),
        ("[good, silent]", "error: there is no module silent"),
        ("[broken]", "error: module load broken failed"),
        ("[python]", "error: the modules load Python 3.1.4, and the environment of"),
    ],
)
def test_a_module_that_is_not_there_or_does_not_fit_ends_the_job(
    slurm, request_here, tmp_path, modules, said
):
    other = tmp_path / "other"
    other.mkdir()
    write_program(other / "python3", "echo 3.1.4")
    script = render_script(request_here, load_profile("generic-cpu", [f"modules={modules}"]))
    ended = slurm.run(MODULE.format(other=other) + script)
    assert ended.code == (0 if said is None else 2), ended.log
    assert said is None or said in ended.log
    assert (ended.words is None) == (said is not None)


def test_a_site_without_modules_is_told_to_do_without(run_script):
    ended = run_script("modules=[good]")
    assert (ended.code, ended.words) == (2, None)
    assert "error: there is no 'module' on n1; where none is needed, set modules: []" in ended.log


def test_lines_of_the_profile_run_as_they_are(run_script):
    ended = run_script('setup=["export SEEN=$NOT_SET-yes"]')
    assert ended.environment["SEEN"] == "-yes"


def test_data_are_copied_to_the_node_and_read_there(run_script, tmp_path):
    ended = run_script(stage=Path("/data/pcam"), variables={"TMPDIR": str(tmp_path)})
    _, _, source, copy = ended.staged
    assert (source, Path(copy).parent) == ("/data/pcam", tmp_path)
    assert ended.words[2:] == ["--set", f"data.local_copy={copy}"]


@pytest.mark.parametrize(
    "variables", [{"TMPDIR": ""}, {"TMPDIR": "{tmp_path}", "STAGE_CODE": "2"}], ids=["no", "full"]
)
def test_data_that_cannot_be_copied_are_read_where_they_lie(run_script, tmp_path, variables):
    variables = {name: text.format(tmp_path=tmp_path) for name, text in variables.items()}
    ended = run_script(stage=Path("/data/pcam"), variables=variables)
    assert (ended.code, ended.words) == (0, ["train", "/data/pcam_cnn.yaml"])
    assert "the data are read where they lie: /data/pcam" in ended.log


def test_a_job_says_in_its_log_that_the_code_was_changed_while_it_waited(run_script):
    ended = run_script(code_sha256=source_digest())
    assert (ended.code, "warning" in ended.log) == (0, False)
    ended = run_script(code_sha256="0" * 64)
    assert (ended.code, ended.words) == (0, ["train", "/data/pcam_cnn.yaml"])
    assert "changed after this was submitted (its SHA-256 was 000000000000" in ended.log


def test_other_code_is_another_file_in_the_package(tmp_path):
    (tmp_path / "code.py").write_text("seed = 1\n")
    submitted = source_digest(tmp_path)
    assert other_code(submitted, tmp_path) is None
    (tmp_path / "code.py").write_text("seed = 2\n")
    assert f"the code in {tmp_path} was changed" in str(other_code(submitted, tmp_path))


def test_ranks_on_several_nodes_are_told_where_to_meet(run_script):
    ended = run_script(nodes=2, variables={"SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "12007"})
    assert ended.environment["MASTER_PORT"] == "20007"
    assert ended.environment["MASTER_ADDR"] == platform.node()


def a_run(folder: Path, name: str, job: str, *, saved: bool) -> RunDir:
    run = RunDir.create(folder, name)
    Lease.take(run, job=job).release()
    if saved:
        (run.checkpoints_dir / "step-00000010").mkdir(parents=True)
    return run


def test_a_restarted_job_goes_on_with_the_run_it_had_begun(run_script, tmp_path):
    runs = tmp_path / "runs"
    a_run(runs, "another", job="4", saved=True)
    mine = a_run(runs, "mine", job="5", saved=True)
    variables = {"SLURM_ARRAY_JOB_ID": "4", "SLURM_ARRAY_TASK_ID": "1"}
    again = variables | {"SLURM_RESTART_COUNT": "1"}
    first = run_script(array_arguments=SEEDS, resume_dir=runs, variables=variables)
    assert first.words == ["train", "/data/pcam_cnn.yaml", "--set", "seed=43"]
    second = run_script(array_arguments=SEEDS, resume_dir=runs, variables=again)
    assert second.words == ["train", "--resume", str(mine.path)]


def test_a_restarted_job_that_had_saved_nothing_begins_again(run_script, tmp_path):
    runs = tmp_path / "runs"
    a_run(runs, "mine", job="5", saved=False)
    assert run_of_job(runs, "5") is None
    ended = run_script(resume_dir=runs, variables={"SLURM_RESTART_COUNT": "1"})
    assert ended.words == ["train", "/data/pcam_cnn.yaml"]


@pytest.mark.parametrize("asked", ["by the script", "directly"])
def test_a_run_that_was_cut_off_empty_says_so_and_its_first_copy_is_fenced(
    run_script, tmp_path, asked
):
    runs = tmp_path / "runs"
    empty, other = (RunDir.create(runs, name) for name in ("empty", "other"))
    for run in (empty, other):
        RunRecord(experiment_name="tiny", seed=42, command="a test").save(run)
    first_copy = Lease.take(empty, job="5")
    Lease.take(other, job="6").release()
    if asked == "directly":
        assert give_up_empty_runs(runs, "5", restart=1) == [empty.path]
    else:
        ended = run_script(resume_dir=runs, variables={"SLURM_RESTART_COUNT": "1"})
        assert ended.words == ["train", "/data/pcam_cnn.yaml"]
    record = RunRecord.load(empty)
    assert (record.status, RunRecord.load(other).status) == ("interrupted", "running")
    assert record.error == "job 5 was started again before anything was saved here"
    with pytest.raises(RunError, match="was taken over by job 5, restart 1"):
        first_copy.check()


def test_of_two_starts_of_a_job_the_later_ones_run_is_gone_on_with(tmp_path):
    """The first copy, on a lost node, may make its run after the second has made its own."""
    runs = {}
    for restart, name in ((1, "second"), (0, "first")):
        runs[name] = RunDir.create(tmp_path, name)
        Lease.take(runs[name], job="5", restart=restart).release()
        (runs[name].checkpoints_dir / "step-00000010").mkdir(parents=True)
    assert run_of_job(tmp_path, "5") == runs["second"].path


def test_a_run_that_has_saved_is_not_given_up(tmp_path):
    mine = a_run(tmp_path, "mine", job="5", saved=True)
    RunRecord(experiment_name="tiny", seed=42, command="a test").save(mine)
    assert give_up_empty_runs(tmp_path, "5", restart=1) == []
    assert RunRecord.load(mine).status == "running"


def test_a_damaged_run_of_another_job_is_passed_over(tmp_path):
    mine = a_run(tmp_path, "mine", job="5", saved=True)
    other = a_run(tmp_path, "other", job="6", saved=True)
    other.lease_path.write_text("{")
    assert run_of_job(tmp_path, "5") == mine.path
    assert run_of_job(tmp_path, "6") is None
    assert run_of_job(tmp_path / "nowhere", "5") is None


if __name__ == "__main__":
    SNAPSHOTS.mkdir(exist_ok=True)
    for name in SHOWN:
        (SNAPSHOTS / f"{name}.sh").write_text(shown(name))
