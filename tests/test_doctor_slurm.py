"""What Slurm, GPUs, CPUs and the network say is told before a job waits for it.

Programs on PATH answer what real ones printed; those of Slurm were recorded from 22.05.8.
"""

import socket
from pathlib import Path

import pytest

from ml_core.cluster.profile import load_profile
from ml_core.preflight.account import check_account, is_enforced
from ml_core.preflight.cores import check_cores, check_ranks
from ml_core.preflight.gpu import check_driver, check_gpu, kind_of_machine, parse_gpus
from ml_core.preflight.network import check_tracker
from ml_core.preflight.slurm import check_slurm, check_time, check_variables, memory_of, request_of

RECORDED = Path(__file__).parent / "slurm" / "recorded"


def only(checks):
    (check,) = checks
    return check


@pytest.fixture
def slurm(program):
    """A Slurm with the partitions of the recorded one: short (default), long, down, project ..."""
    program("scontrol", f"cat {RECORDED}/partitions.txt")
    program("sinfo", f"cat {RECORDED}/nodes.txt")


def told(*ask, needs_slurm=True):
    return check_slurm(load_profile("generic-cpu", ask), needs_slurm=needs_slurm)


# ---- partitions and limits ---------------------------------------------------------------------

FITS = ("partition=long", "cpus_per_task=1", "mem_gb=0.5", "time=01:00:00")


def test_a_request_that_can_run_is_one_line(slurm):
    checks, partitions = told(*FITS)
    assert only(checks).level == "ok"
    assert "partition long can run this: 1 CPU, 0.5 GB, 1:00:00" in only(checks).told
    assert len(partitions) > 3


@pytest.mark.parametrize(
    "ask, words",
    [
        ("partition=lnog", "Did you mean 'long'?"),
        ("time=2-00:00:00", "more than its limit of 1-00:00:00"),
        ("partition=down", "it is DOWN"),
        ("cpus_per_task=64", "64 CPUs per node are more than"),
        ("mem_gb=500", "more than the"),
        ("gpus=8", "8 GPUs per node"),
    ],
)
def test_what_no_partition_can_run_is_an_error_that_lists_them(slurm, ask, words):
    checks, _ = told(*FITS, ask)
    check = only(checks)
    assert check.level == "error" and words in check.told
    assert check.remedy.splitlines()[0] == "This cluster has:"
    names = [line.split(":")[0].split()[0] for line in check.remedy.splitlines()[1:]]
    assert {"short", "long", "down"} <= set(names)


@pytest.mark.parametrize("needs_slurm, level", [(True, "error"), (False, "ok")])
def test_no_slurm_is_an_error_only_for_who_needs_it(program, needs_slurm, level):
    checks, partitions = told(needs_slurm=needs_slurm)
    assert only(checks).level == level and "no Slurm here" in only(checks).told
    assert partitions == []


@pytest.mark.parametrize("needs_slurm, level", [(True, "error"), (False, "warning")])
def test_a_slurm_that_refuses_to_answer_is_told_in_its_own_words(program, needs_slurm, level):
    program("scontrol", f"cat {RECORDED}/partitions.txt")
    program("sinfo", "echo 'slurm_load_partitions: Access/permission denied' >&2; exit 1")
    checks, _ = told(needs_slurm=needs_slurm)
    assert only(checks).level == level
    assert "permission denied" in only(checks).told and "ask whoever runs" in only(checks).told


def test_a_request_is_of_a_whole_node():
    profile = load_profile(
        "generic-gpu",
        ["gpus=a100:2", "tasks_per_node=2", "nodes=3", "mem_gb=4", "cpus_per_task=5"],
    )
    request = request_of(profile)
    assert (request.nodes, request.cpus, request.mem_mb) == (3, 10, 8192)
    assert (request.gpus, request.gpu_type, request.time_s) == (4, "a100", 4 * 3600)


def test_memory_by_core_is_that_of_all_cores_and_none_is_not_known():
    ask = ["mem_gb=", "mem_per_cpu_gb=2", "cpus_per_task=3", "tasks_per_node=2"]
    assert memory_of(load_profile("generic-cpu", ask)) == 2048 * 3 * 2
    assert memory_of(load_profile("generic-cpu", ["mem_gb="])) is None


def test_variables_that_override_the_script_are_named_and_others_are_not():
    check = only(check_variables({"SBATCH_PARTITION": "gpu", "SBATCH_TIMELIMIT": "5", "SHELL": ""}))
    assert check.level == "warning" and "SBATCH_PARTITION=gpu, SBATCH_TIMELIMIT=5" in check.told
    assert "unset SBATCH_PARTITION SBATCH_TIMELIMIT" in check.remedy
    assert not check_variables({"SBATCH_DEBUG": "1", "SLURM_CONF": "x"})


def test_a_limit_without_time_to_save_is_an_error():
    assert only(check_time(load_profile("generic-cpu", ["time=00:03:00"]))).level == "error"
    assert not check_time(load_profile("generic-cpu", ["time=00:04:00"]))


# ---- accounts ----------------------------------------------------------------------------------


@pytest.fixture
def accounting(program):
    """`accounting(names, default, enforced)`: sacctmgr and scontrol as 22.05 prints them."""

    def make(names, default="", enforced="none"):
        lines = "".join(f"{name}\\n" for name in names)
        program(
            "sacctmgr",
            f'case $* in *associations*) printf "{lines}" ;; *) echo "{default}" ;; esac',
        )
        program("scontrol", f"echo 'AccountingStorageEnforce = {enforced}'")

    return make


def test_a_default_account_is_told(accounting):
    accounting(["course", "thesis"], "course")
    assert "your default, course (yours: course, thesis)" in only(check_account("ada", None)).told


def test_an_account_of_others_is_an_error_that_names_yours(accounting):
    accounting(["course", "thesis"], "course")
    check = only(check_account("ada", "thesiss"))
    assert check.level == "error" and "Did you mean 'thesis'?" in check.told
    assert "Yours: course, thesis" in check.remedy


def test_without_a_default_one_must_be_named(accounting):
    accounting(["course"])
    assert "--ask account=course" in only(check_account("ada", None)).remedy


def test_a_user_without_any_is_refused_only_where_accounts_are_enforced(accounting):
    accounting([], enforced="associations,limits")
    assert only(check_account("ada", None)).level == "error"
    accounting([])
    assert check_account("ada", None) == []


def test_a_site_without_accounting_says_nothing(program):
    program("sacctmgr", "echo 'sacctmgr: error: accounting storage is disabled' >&2; exit 1")
    assert check_account("ada", None) == []


@pytest.mark.parametrize("value, expected", [("none", False), ("limits", True), ("(null)", False)])
def test_limits_imply_accounts(value, expected):
    assert (
        is_enforced(f"AccountingStorageHost   = x\nAccountingStorageEnforce = {value}\n")
        is expected
    )


# ---- GPUs --------------------------------------------------------------------------------------

A100 = "NVIDIA A100-SXM4-40GB, 40960, 535.104.05"


def levels(*arguments):
    return [check.level for check in check_gpu(*arguments)]


def test_no_gpu_on_a_login_node_is_as_expected_and_the_job_has_its_own(program):
    check = only(check_gpu("cuda", "a100:1", "login node"))
    assert check.level == "ok"
    assert "this is a login node" in check.told and "no GPU is expected here" in check.told
    assert "the job asks for a100:1" in check.told


def test_a_device_that_the_profile_does_not_ask_for_is_an_error(program):
    assert levels("cuda:0", None, "login node") == ["error", "ok"]
    assert levels("cpu", "1", "login node") == ["warning", "ok"]
    assert levels("auto", "1", "login node") == ["ok"]
    assert levels(None, None, "login node") == ["ok"]


def test_on_a_machine_or_in_a_job_it_is_what_is_there_that_counts(program):
    assert levels("cuda", None, "machine") == ["error"]
    assert levels("auto", "1", "machine") == ["ok"]
    assert levels("auto", "1", "job") == ["warning"]
    program("nvidia-smi", f"echo '{A100}'")
    assert levels("cuda", None, "machine") == ["ok"]
    assert levels("cpu", None, "job") == ["warning"]
    assert "A100-SXM4-40GB, 40 GB, driver 535.104.05" in check_gpu("auto", None, "job")[0].told


def test_a_driver_that_does_not_answer_is_told_in_its_words(program):
    program("nvidia-smi", "echo 'NVIDIA-SMI has failed because ...'; exit 9")
    assert "NVIDIA-SMI has failed" in only(check_gpu("cuda", None, "machine")).told


def test_a_gpu_without_a_memory_of_its_own_is_one_too():
    (gpu,) = parse_gpus("NVIDIA GH200, [N/A], 560.35.03\n")
    assert gpu.mem_gb is None


def test_which_machine_this_is():
    assert kind_of_machine({"SLURM_JOB_ID": "1"}, has_slurm=True) == "job"
    assert kind_of_machine({}, has_slurm=True) == "login node"
    assert kind_of_machine({}, has_slurm=False) == "machine"


def test_a_driver_is_held_against_the_cuda_of_torch():
    assert check_driver("535.104.05", "12.8") is None
    assert check_driver("535.104.05", "13.0").level == "error"


# ---- CPUs --------------------------------------------------------------------------------------


def cores(**changes):
    asked = {"cpus": 4, "whose": "as the profile asks", "num_workers": 0, "num_threads": None}
    return check_cores(**{**asked, **changes})


def test_readers_and_threads_are_held_against_the_allocation():
    assert only(cores(num_workers=3)).level == "ok"
    check = only(cores(num_workers=4))
    assert check.level == "warning" and "5 processes on 4 CPUs" in check.told
    assert "data.num_workers to 3, or --ask cpus_per_task=5" in check.remedy
    assert only(cores(num_threads=5)).level == "warning"


def ranks(num_ranks, numerics="elastic"):
    return check_ranks(num_ranks, numerics=numerics, batch_size=64, micro_batch=32)


def test_several_ranks_in_fast_are_refused_before_they_start():
    assert only(ranks(2, "fast")).level == "error"
    assert ranks(1, "fast") == []
    assert only(ranks(2)).level == "ok"
    assert only(ranks(3)).level == "warning"


# ---- network -----------------------------------------------------------------------------------


@pytest.fixture
def server():
    """The address of something that takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def test_a_server_that_answers_is_told_and_one_that_does_not_is_a_warning(server):
    assert only(check_tracker(f"http://{server}/mlflow", {})).level == "ok"
    with socket.socket() as taken:  # a port at which nobody listens
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        check = only(check_tracker(f"http://127.0.0.1:{port}", {}))
    assert check.level == "warning" and "does not answer from here" in check.told


def test_where_a_proxy_is_set_the_proxy_is_tried(server):
    check = only(check_tracker("http://no.such.host.invalid", {"http_proxy": f"http://{server}"}))
    assert check.level == "ok" and "proxy" in check.told


def test_a_proxy_may_be_named_without_a_scheme_and_spares_what_no_proxy_lists(server):
    uri, proxy = "http://no.such.host.invalid", {"http_proxy": server}
    assert only(check_tracker(uri, proxy)).told.startswith(f"{server} answers (the proxy)")
    check = only(check_tracker(uri, {**proxy, "no_proxy": "localhost,.host.invalid"}))
    assert check.told.startswith("no.such.host.invalid:80 does not answer")


@pytest.mark.parametrize("uri", ["http://localhost:99999", "http://[bad", "http://host:port"])
def test_what_is_no_address_is_an_error_and_no_crash(uri):
    assert only(check_tracker(uri, {})).level == "error"


def test_a_file_or_no_tracker_needs_no_network():
    assert check_tracker(None, {}) == check_tracker("sqlite:///mlflow.db", {}) == []
