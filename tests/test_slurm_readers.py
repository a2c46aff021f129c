"""What Slurm prints is read right, on text recorded from a real cluster, and said in one sentence.

recorded/readers_*.txt come from Slurm 22.05.8 with slurmdbd and three nodes (n1, n2, g1 with GPUs),
by the very commands of list_partitions, list_jobs and read_usage; g1 was drained and n2 dead. The
other files there are of the cluster that the tests in that folder start, see its README.
"""

import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from ml_core.cluster import job_script
from ml_core.cluster.slurm import (
    ExitCode,
    Job,
    Refused,
    Request,
    default_partition,
    fields,
    list_jobs,
    list_partitions,
    read_usage,
    refuse_request,
    run,
    show_job,
    why_ended,
    why_pending,
)
from ml_core.cluster.slurm.accounting import USAGE_FIELDS, parse_usage
from ml_core.cluster.slurm.jobs import parse_jobs
from ml_core.cluster.slurm.log_tail import read_tail
from ml_core.cluster.slurm.partitions import parse_nodes, parse_partitions
from ml_core.errors import ClusterError

RECORDED = Path(__file__).parent / "slurm" / "recorded"


NUM_LATER_FIELDS = len(USAGE_FIELDS) - USAGE_FIELDS.index("Partition")


def recorded(name: str) -> str:
    text = (RECORDED / f"readers_{name}.txt").read_text(encoding="utf-8")
    return as_asked_now(text) if name == "usage" else text


def as_asked_now(usage: str) -> str:
    """Return accounts that were recorded before the last fields were asked for, these empty."""
    return usage.replace("\n", fields.FIELD_END * NUM_LATER_FIELDS + "\n")


@pytest.fixture(scope="module")
def jobs() -> dict[str, Job]:
    return {job.id: job for job in parse_jobs(recorded("jobs"))}


@pytest.fixture(scope="module")
def usage():
    return parse_usage(recorded("usage"))


@pytest.fixture(scope="module")
def partitions():
    return parse_partitions(recorded("partitions"), parse_nodes(recorded("nodes")))


# ---- commands ----------------------------------------------------------------------------------


def test_without_slurm_the_error_says_so_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match=r"no Slurm here: sinfo is not on PATH\. Log in to the"):
        run("sinfo")


def test_a_program_that_may_not_be_executed_is_said_to_be(program, tmp_path):
    program("sinfo", "true")
    (tmp_path / "bin" / "sinfo").write_bytes(b"\x7fELF")
    with pytest.raises(ClusterError, match="sinfo cannot be started: Exec format error"):
        run("sinfo")


def test_a_refusal_is_in_slurms_words_each_once(program):
    says = "for words in 'invalid x: y.' no no; do echo \"sbatch: error: $words\" >&2; done; exit 1"
    program("sbatch", says)
    with pytest.raises(Refused, match=r"^sbatch refuses: invalid x: y; no\. What it takes") as told:
        run("sbatch")
    assert told.value.words == "invalid x: y; no"


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("slurm_load_jobs error: Access/permission denied", "ask whoever runs the cluster"),
        ("Unable to contact slurm controller (connect failure)", "try again in a minute"),
        (
            "sinfo: fatal: Could not establish a configuration source",
            "controller cannot be reached",
        ),
    ],
)
def test_a_refusal_says_what_to_do_about_rights_and_the_controller(program, words, remedy):
    program("sinfo", f"echo '{words}' >&2; exit 1")
    with pytest.raises(Refused, match=remedy):
        run("sinfo")


def test_a_program_that_hangs_is_left_after_its_time(program):
    program("squeue", "sleep 30")
    with pytest.raises(ClusterError, match=r"squeue has not answered for 0\.2 s.*scontrol ping"):
        run("squeue", timeout_s=0.2)


def test_what_a_user_set_for_their_own_eyes_does_not_reach_the_readers(program, monkeypatch):
    monkeypatch.setenv("SQUEUE_FORMAT", "%i")
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    monkeypatch.setenv("SLURM_CONF", "/etc/of/mine")
    program("squeue", 'echo "${SQUEUE_FORMAT-unset} $SLURM_TIME_FORMAT $LC_ALL $SLURM_CONF"; cat')
    assert run("squeue", stdin="in") == "unset standard C /etc/of/mine\nin"


def test_arguments_reach_the_program_as_they_are(program):
    program("sbatch", 'printf "%s|" "$@"')
    assert run("sbatch", "a b", "$(id)", "'") == "a b|$(id)|'|"


def test_the_readers_load_without_the_heavy_packages():
    heavy = "{'torch', 'numpy', 'pandas', 'h5py', 'pydantic'}"
    code = f"import sys, ml_core.cluster.slurm; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


# ---- how Slurm writes things -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "secs"),
    [
        ("2:00", 120),
        ("00:02:00", 120),
        ("1:30:00", 5400),
        ("1-12:00:00", 129_600),
        ("365-00:00:00", 31_536_000),
        ("UNLIMITED", None),
        ("NOT_SET", None),
    ],
)
def test_durations_are_read_and_written_as_slurm_does(text, secs):
    assert fields.seconds(text) == secs
    if secs is not None:
        assert fields.seconds(fields.duration(secs)) == secs


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("gpu:a100:2,gpu:h100:1", {"a100": 2, "h100": 1}),
        ("gpu:4(S:0-1)", {"": 4}),
        ("gpu:a100:4(S:0-1),shard:16,tmpfs:5T", {"a100": 4}),
        ("gpu:a100_1g.5gb:28(S:0,2)", {"a100_1g.5gb": 28}),
        ("gpu:1080ti:8", {"1080ti": 8}),
        ("(null)", {}),
        ("craynetwork:4", {}),
    ],
)
def test_gpus_of_a_node_are_counted_by_type(text, gpus):
    assert fields.gpus_of_gres(text) == gpus


def test_gpus_of_a_job_are_counted_once():
    assert fields.gpus_of_tres("cpu=4,gres/gpu:a100=2,gres/gpu=2,mem=1G") == {"a100": 2}
    assert fields.gpus_of_tres("cpu=4,gres/gpu=3,gres/gpumem=9G,gres/gpuutil=7") == {"": 3}


# ---- partitions --------------------------------------------------------------------------------


def test_partitions_have_their_limits_and_nodes(partitions):
    by_name = {partition.name: partition for partition in partitions}
    assert list(by_name) == ["short", "long", "gpu", "down", "off", "empty", "low", "high"]
    short, long, gpu = by_name["short"], by_name["long"], by_name["gpu"]
    assert (short.max_time_s, short.default_time_s, short.max_nodes) == (120, 60, None)
    assert (short.cpus_per_node, short.mem_per_node_mb, short.gpus_per_node) == (2, 400, {})
    assert (long.max_time_s, long.max_nodes, long.mem_per_node_mb) == (129_600, 1, 200)
    assert (gpu.max_time_s, gpu.cpus_per_node) == (None, 3)
    assert gpu.gpus_per_node == {"a100": 2, "h100": 1}
    assert (gpu.accounts, short.accounts) == (("course", "thesis"), None)
    assert [by_name[name].state for name in ("short", "down", "off")] == ["UP", "DOWN", "INACTIVE"]
    assert default_partition(partitions) is short


def test_drained_and_dead_nodes_are_not_usable_busy_ones_are(partitions):
    usable = {node.name: node.is_usable for partition in partitions for node in partition.nodes}
    assert usable == {"n1": True, "n2": False, "g1": False}  # n1 was allocated


@pytest.mark.parametrize(
    ("state", "is_usable"),
    [
        ("idle", True), ("mixed", True), ("completing", True), ("planned", True),
        ("idle+powered_down", True), ("idle~", True), ("idle+maint", False), ("down*", False),
        ("idle*", False), ("mixed+drain", False), ("inval", False), ("idle+not_responding", False),
    ],
)  # fmt: skip
def test_a_node_is_usable_unless_its_state_says_otherwise(state, is_usable):
    line = fields.FIELD_END.join(["p*", "n9", state, "8", "1000", "(null)"]) + fields.RECORD_END
    (node,) = parse_nodes(line)["p"]
    assert node.is_usable == is_usable


def test_a_partition_is_one_line_of_a_list(partitions):
    assert [str(partition) for partition in partitions][1:4] == [
        "long: 1-12:00:00, 1 of 2 nodes up, per node 2 CPUs, 0.195 GB",
        "gpu: no time limit, 0 of 1 nodes up, per node 3 CPUs, 0.781 GB, 2 GPUs a100, 1 GPU h100",
        "down [DOWN]: no time limit, 1 of 1 nodes up, per node 1 CPUs, 0.391 GB",
    ]


def test_lines_that_newer_versions_add_are_read_over():
    text = (
        recorded("partitions")
        .splitlines()[0]
        .replace(
            "MaxCPUsPerNode=UNLIMITED", "MaxCPUsPerNode=UNLIMITED MaxCPUsPerSocket=8 NodeSets=ALL"
        )
    )
    assert parse_partitions(f"\nsomething else\n{text}\n") == parse_partitions(text)


def all_up(partitions):
    """The same partitions with every node back."""
    return [
        replace(partition, nodes=tuple(replace(node, is_usable=True) for node in partition.nodes))
        for partition in partitions
    ]


@pytest.mark.parametrize(
    "request_",
    [
        Request(),
        Request("short", nodes=2, time_s=120, mem_mb=300),
        Request("long", cpus=2, mem_mb=200),
        Request("gpu", gpus=2, gpu_type="a100", cpus=3, account="thesis"),
        Request("gpu", gpus=3),
        Request("short,long", time_s=3600),  # one of them is enough
    ],
)
def test_a_request_that_can_run_is_let_through(partitions, request_):
    refuse_request(all_up(partitions), request_)


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (Request("nope"), "^unknown partition 'nope'. This cluster has:\n  short: 2:00,"),
        (Request("shrt"), "^unknown partition 'shrt'. Did you mean 'short'?"),
        (Request("down"), "cannot run here. down: it is DOWN. This"),
        (Request("off"), "off: it is INACTIVE"),
        (Request("empty"), "empty: it has no nodes. This"),
        (Request(time_s=3600), "short: 1:00:00 of time is more than its limit of 2:00. This"),
        (Request("long", nodes=2), "2 nodes are more than the 1 it gives a job"),
        (Request(cpus=3), "3 CPUs per node are more than the 2 of a node"),
        (Request("gpu", cpus=4), "4 CPUs per node are more than the 3 of a node"),
        (Request("long", mem_mb=201), "201 MB of memory per node are more than the 200 MB of a"),
        (Request("gpu", gpus=3, gpu_type="a100"), "3 GPUs a100 per node, where a node has 2 a100"),
        (Request("gpu", gpus=1, gpu_type="v100"), "1 GPU v100 per node, where a node has 2 a100"),
        (Request(gpus=1), "1 GPU per node, where no node has one"),
        (Request(nodes=3), "3 such nodes are asked for, and 2 nodes have all of that together"),
        (Request(cpus=2, mem_mb=400), "1 such nodes are asked for, and 0 nodes have all of that"),
        (Request("gpu", account="x"), "account 'x' may not use it; these may: course, thesis"),
        (Request("short,long", time_s=10**6), "short: 11-13:46:40 of time .*; long: 11-13:46:40"),
    ],
)  # fmt: skip
def test_a_request_that_cannot_run_is_refused_with_what_there_is(partitions, request_, why):
    with pytest.raises(ClusterError, match=why) as told:
        refuse_request(all_up(partitions), request_)
    assert "\n  gpu: no time limit, 1 of 1 nodes up" in str(told.value)


def test_a_partition_whose_nodes_are_all_down_is_refused(partitions):
    with pytest.raises(ClusterError, match="gpu: none of its nodes is up"):
        refuse_request(partitions, Request("gpu"))


def test_denied_accounts_and_other_qos_are_refused(partitions):
    short = replace(partitions[0], denied_accounts=("guest",), qos=("normal", "long"))
    for request_, why in (
        (Request(account="guest"), "account 'guest' may not use it"),
        (Request(qos="fast"), "QOS 'fast' may not be used with it; these may: normal, long"),
    ):
        with pytest.raises(ClusterError, match=why):
            refuse_request([short], request_)
    refuse_request([short], Request(account="mine", qos="long"))


def test_a_cluster_without_a_default_or_any_partition_is_told(partitions):
    with pytest.raises(ClusterError, match=r"which partition\?.*no default"):
        refuse_request(
            [partition for partition in partitions if not partition.is_default], Request()
        )
    with pytest.raises(ClusterError, match="shows no partition to this user"):
        refuse_request([], Request("short"))


def test_partitions_are_read_from_the_two_programs(program, partitions):
    program("scontrol", f'[ "$1 $2" = "show partition" ] && cat {RECORDED}/readers_partitions.txt')
    program("sinfo", f"cat {RECORDED}/readers_nodes.txt")
    assert list_partitions() == partitions


# ---- jobs --------------------------------------------------------------------------------------


def test_a_running_job_has_its_facts(jobs):
    assert jobs["140"] == Job(
        id="140",
        array_task=None,
        name="running",
        user="root",
        state="RUNNING",
        reason=None,
        partition="long",
        nodes="n1",
        num_nodes=1,
        submitted=datetime(2026, 11, 22, 22, 7, 20),
        started=datetime(2026, 11, 22, 22, 7, 21),
        elapsed_s=7,
        limit_s=300,
        restarts=0,
        exit_code=None,
        dependency=None,
        stdout=Path("/u/me/slurm-140.out"),
    )


def test_a_name_cannot_pass_for_another_field_or_another_job(jobs):
    assert jobs["107"].name == "a b|c JobState=FAILED ExitCode=9:0"
    assert (jobs["107"].state, jobs["107"].exit_code) == ("COMPLETED", ExitCode(0))
    assert jobs["108"].name == "two\nlines"
    assert len(jobs) == len(recorded("jobs").split(fields.RECORD_END)) - 1


def test_tasks_of_an_array_have_ids_that_scancel_takes(jobs):
    assert [job for job in jobs if job.startswith("137_")] == ["137_[2-3]", "137_0", "137_1"]
    assert (jobs["137_[2-3]"].array_task, jobs["137_0"].array_task) == ("2-3%2", "0")


def test_logs_are_named_as_slurm_names_them(jobs):
    # task 2 started last, and bears the array's own number: %A is still the array's
    assert jobs["106_2"].stdout == Path("/u/me/seeds-106_2.log")
    assert jobs["106_1"].stdout == Path("/u/me/seeds-106_1.log")
    assert jobs["137_[2-3]"].stdout is None  # each will have its own


def test_patterns_of_a_log_are_filled_in():
    text = recorded("jobs").replace("/u/me/%x-%A_%a.log", "/logs/by-%u/%4a-%j-100%%.log")
    logs = {job.id: job.stdout for job in parse_jobs(text)}
    assert logs["106_0"] == Path("/logs/by-root/0000-111-100%.log")


def test_exit_codes_and_signals_of_ended_jobs_are_told_apart(jobs):
    codes = {name: jobs[name].exit_code for name in ("100", "101", "104", "105", "140")}
    assert codes == {
        "100": ExitCode(0),
        "101": ExitCode(1),
        "104": ExitCode(130),
        "105": ExitCode(0, signal=9),
        "140": None,
    }


def test_a_job_that_was_put_back_counts_its_restarts(jobs):
    job = jobs["135"]
    assert (job.restarts, job.state, job.reason, job.is_waiting) == (
        1,
        "PENDING",
        "BeginTime",
        True,
    )


def test_a_dependency_is_told(jobs):
    assert jobs["143"].dependency == "afterok:138(unfulfilled)"
    assert jobs["142"].dependency is None


def test_jobs_are_asked_for_by_user_or_id_ended_ones_too(program, tmp_path, jobs):
    program("squeue", f'echo "$*" >> {tmp_path}/asked; cat {RECORDED}/readers_jobs.txt')
    assert list_jobs(user="me") == tuple(jobs.values())
    assert show_job("106_1") == next(iter(jobs.values()))
    by_user, by_id, _ = (tmp_path / "asked").read_text(encoding="utf-8").split("\n")
    assert by_user.startswith("--states=all --noheader")
    assert by_user.endswith(" --user=me")
    assert by_id.endswith(" --jobs=106_1")


def test_an_unknown_job_is_none_and_other_refusals_are_raised(program):
    program("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert show_job("4444") is None
    program("squeue", "echo 'slurm_load_jobs error: Socket timed out' >&2; exit 1")
    with pytest.raises(Refused, match="Socket timed out"):
        show_job("4444")


def test_what_is_no_id_is_refused_before_slurm_is_asked(program):
    for ask in (show_job, lambda job: read_usage([job])):
        with pytest.raises(ClusterError, match="'12; rm' is no job's id"):
            ask("12; rm")


def test_no_ids_are_no_jobs_and_nothing_is_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list_jobs(ids=[]) == ()
    assert read_usage([]) == {}


# ---- accounting --------------------------------------------------------------------------------


def test_usage_joins_what_a_job_was_given_with_what_its_steps_used(usage):
    used = usage["100"]
    assert (used.state, used.exit_code, used.elapsed_s, used.cpus) == (
        "COMPLETED",
        ExitCode(0),
        6,
        1,
    )
    assert used.cpu_efficiency == pytest.approx(4.037 / 6)
    assert used.max_rss_mb == pytest.approx(156.24609375)
    assert (used.asked_mem_mb, used.nodes) == (200, "n1")
    assert used.mem_efficiency == pytest.approx(156.24609375 / 200)


def accounts(*rows: list[str]) -> str:
    """Return rows of the first fields as sacct prints them."""
    return as_asked_now("".join(fields.FIELD_END.join(row) + "\n" for row in rows))


def test_memory_of_several_tasks_is_their_sum_and_gpus_are_told():
    step = ["7.0", "COMPLETED", "0:0", "", "60", "4", "1-00:00:02", "1048576", "",
            "cpu=4", "cpu=1,gres/gpumem=9,gres/gpuutil=150,mem=3145728", "n[1-2]"]  # fmt: skip
    own = ["7", "COMPLETED", "0:0", "0:0", "60", "4", "1-00:00:02.5", "", "4096M",
           "cpu=4,gres/gpu:a100=2,gres/gpu=2,mem=8G", "", "n[1-2]"]  # fmt: skip
    used = parse_usage(accounts(own, step))["7"]
    assert (used.cpu_s, used.max_rss_mb, used.asked_mem_mb) == (86_402.5, 3, 8192)
    assert (used.gpus, used.gpu_percent) == ({"a100": 2}, 150)


def test_what_was_not_measured_is_none_and_never_nought(usage):
    for job in ("140", "117", "141"):  # running, lost with its node, waiting
        assert usage[job].cpu_efficiency is None
        assert usage[job].mem_efficiency is None
    assert usage["109"].gpus == {"a100": 2}
    assert usage["109"].gpu_percent is None


def test_codes_above_128_which_sacct_shortens_are_mended(usage):
    assert usage["104"].exit_code == ExitCode(130)  # sacct says 2:0
    assert usage["110"].exit_code == ExitCode(137)  # sacct says 9:0, its step 0:9
    assert usage["102"].exit_code == ExitCode(2)
    assert usage["105"].exit_code == ExitCode(0, signal=9)


def test_usage_has_the_ids_of_jobs(jobs, usage):
    assert {job for job in jobs if job in usage} == set(jobs)


def test_an_absurd_memory_is_none():
    row = ["7", "CANCELLED by 1000", "0:0", "0:0", "0", "1", "00:00:00", "",
           "18446744073709551616.00M", "", "", "None assigned"]  # fmt: skip
    used = parse_usage(accounts(row))["7"]
    assert (used.asked_mem_mb, used.nodes, used.cancelled_by) == (None, None, 1000)


def test_a_name_with_a_newline_takes_no_other_field_with_it():
    text = as_asked_now(fields.FIELD_END.join(["8", "COMPLETED", *[""] * 10]) + "\n")
    used = parse_usage(text.replace("\n", "two\nlines\n"))
    assert (list(used), used["8"].name) == (["8"], "two")


def test_usage_has_names_times_and_tasks():
    text = (RECORDED / "listed_after_sacct.txt").read_text(encoding="utf-8")
    used = parse_usage(text)["1"]
    assert (used.name, used.user, used.partition, used.limit_s) == ("overrun", "root", "long", 60)
    assert (used.started, used.ended) == (
        datetime(2026, 11, 23, 0, 28, 35), datetime(2026, 11, 23, 0, 30, 4),
    )  # fmt: skip
    assert used.num_tasks == 1


def test_without_accounting_there_is_no_usage(program):
    program("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    assert read_usage(["7"]) is None


def test_usage_is_asked_for_by_id(program, usage):
    later = fields.FIELD_END * NUM_LATER_FIELDS
    program(
        "sacct",
        f'while read -r line; do echo "$line{later}"; done <{RECORDED}/readers_usage.txt',
    )
    assert read_usage(["100", "137_1"]) == usage


# ---- why a job waits ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("w-time", "its time limit of 3-00:00:00 is more than long allows, so it will never start"),
        ("w-nodes", "long does not give 2 nodes to one job"),
        ("w-config", "it asks for more than short has or allows"),
        ("w-mem", "it asks for more memory than long gives: scancel 121 and ask for less."),
        ("w-down", "partition down takes no jobs now"),
        ("w-account", "the machines that it could run on are busy, down or reserved"),
        ("w-held", "its owner holds it: scontrol release 124."),
        ("w-admin", "an administrator holds it"),
        (
            "w-begin",
            "it may not start earlier: wait. Slurm expects to start it at 2026-11-23 01:05.",
        ),
        ("w-requeued", "it was stopped and is put back; Slurm waits a moment before it starts it"),
        ("w-never", "the job it waits for has ended otherwise than it needs, so it will never"),
        ("w-dependency", "it waits for job 138 to end well: wait."),
        ("w-resources", "it is among the next: wait until enough of long is free. Slurm expects"),
        ("w-priority", "jobs of a higher priority are before it in long: wait. Slurm expects to"),
        ("w-array2", "as many tasks of its array run as it allows at once"),
        ("w-maint", "maintenance begins before it could end"),
        ("w-qos", "its QOS has as much at once as it may (jobs): wait until others have ended."),
        ("w-budget", "the budget of its account is used up (CPUs x time): ask for more"),
    ],
)
def test_a_waiting_job_says_why_and_what_to_do(jobs, name, told):
    waiting = [job for job in jobs.values() if job.is_waiting and job.name == name]
    assert any(why_pending(job).startswith(told) for job in waiting), why_pending(waiting[0])


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("AssocGrpBillingMinutes", "the budget of its account is used up (billing units x time)"),
        ("AssocGrpGRES", "its account has as much at once as it may (GPUs)"),
        ("AssocGrpCPURunMinutesLimit", "its account has as much at once as it may (CPUs)"),
        ("AssocMaxJobsLimit", "its account has as much at once as it may (jobs)"),
        ("AssocMaxWallDurationPerJobLimit", "it asks for more than its account allows one job (t"),
        ("QOSMaxGRESPerUser", "you have as much at once as its QOS allows (GPUs)"),
        ("QOSMaxCpuPerJobLimit", "it asks for more than its QOS allows one job (CPUs)"),
        ("QOSMaxSubmitJobPerUserLimit", "its QOS has as much at once as it may (jobs, waiting one"),
        ("QOSMinCpuNotSatisfied", "it asks for less than its QOS wants (CPUs)"),
        ("QOSMinGRES", "it asks for less than its QOS wants (GPUs)"),
        ("MaxJobsPerAccount", "its QOS has as much at once as it may (jobs)"),
        ("MaxGRESPerAccount", "you have as much at once as its QOS allows (GPUs)"),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-2]", "a machine it needs is down, reserved or busy"
         " (n[1-2])"),
        ("ReqNodeNotAvail", "a machine it needs is down, reserved or busy: wait"),
        ("launch failed requeued held", "it could not be started and is held"),
        ("JobHoldMaxRequeue", "it was started again too often"),
        (None, "the scheduler has not looked at it yet"),
        ("Job's account not known, so it can't use this partition", "Slurm says: Job's account n"),
        ("SomethingNew", "Slurm says: SomethingNew."),
    ],
)  # fmt: skip
def test_documented_reasons_are_explained_and_others_passed_on(jobs, reason, told):
    assert why_pending(replace(jobs["118"], reason=reason)).startswith(told)


def test_of_several_partitions_one_that_does_not_take_it_is_no_reason_to_give_up(jobs):
    job = replace(jobs["118"], reason="PartitionTimeLimit", partition="long,short")
    assert why_pending(job).startswith("one of long,short does not take it (PartitionTimeLimit)")
    assert "never start" in why_pending(replace(job, partition="short"))


@pytest.mark.parametrize(
    ("dependency", "told"),
    [
        ("afterany:7_*(unfulfilled),afterok:8_3(unfulfilled)", "job 7 to end, job 8_3 to end well"),
        ("afterok:7(failed)?afterok:8(unfulfilled)", "job 8 to end well"),
        ("after:7+30(unfulfilled)", "job 7 to start"),
        ("singleton(unfulfilled)", "another job (singleton(unfulfilled))"),
        (None, "another job"),
    ],
)
def test_what_a_job_waits_for_is_told_in_words(jobs, dependency, told):
    job = replace(jobs["143"], dependency=dependency)
    assert why_pending(job) == f"it waits for {told}: wait."


def test_reasons_as_scontrol_writes_them_are_the_same(jobs):
    text = recorded("jobs").replace("\x1fJobHeldUser\x1f", "\x1flaunch_failed_requeued_held\x1f")
    held = next(job for job in parse_jobs(text) if job.id == "124")
    assert why_pending(held).startswith("it could not be started and is held")


# ---- why a job ended ---------------------------------------------------------------------------

STEPD = "slurmstepd-n1: error: "


def notice(why: str, of: str = "JOB 1") -> str:
    return f"{STEPD}*** {of} ON n1 CANCELLED AT 2026-11-22T21:55:32{why} ***\n"


LOGS = {
    "limit": "epoch 3\n" + notice(" DUE TO TIME LIMIT", "STEP 1.0") + notice(" DUE TO TIME LIMIT"),
    "preempted": notice("", "STEP 1.0") + notice(" DUE TO PREEMPTION"),
    "cancelled": notice("") + "srun: error: n1: task 0: Terminated\n",
    "node": notice(" DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS"),
    "requeued": notice(" DUE TO JOB REQUEUE"),
    "oom": f"{STEPD}Detected 1 oom_kill event in StepId=7.0. Some of the step tasks have been OOM "
    "Killed.\nsrun: error: n1: task 0: Out Of Memory\n",
    "over": f"{STEPD}StepId=5.0 exceeded memory limit (313688064 > 104857600), being killed\n"
    "srun: error: n2: task 0: Killed\n",
    "traceback": "error: of before\nTraceback (most recent call last):\n"
    '  File "a.py", line 1, in <module>\n    f()\nKeyError: 7\n\n'
    "During handling of the above exception, another exception occurred:\n\n"
    'Traceback (most recent call last):\n  File "a.py", line 2, in f\n    g()\n'
    "ml_core.x.Odd: it broke\nsrun: error: n1: task 0: Exited with exit code 1\n",
    "gpu": "Traceback (most recent call last):\n  File 'a.py'\n"
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\n",
    "ranks": "error: rank 1 of 2 cannot go on: another rank has died\n"
    "error: no space left on /scratch\n"
    "error: rank 0 of 2 cannot go on: another rank has died\n",
    "interrupted": "srun: error: n2: task 0: Exited with exit code 130\n",
}


@pytest.mark.parametrize(
    ("job", "log", "told"),
    [
        ("100", "", "it ran to its end."),
        ("101", "traceback", "it stopped at a mistake of the program, whose traceback is in its "
         "log: ml_core.x.Odd: it broke"),
        ("101", "gpu", "its GPU ran out of memory: make data.batch_size smaller"),
        ("102", "ranks", "it was refused: no space left on /scratch"),
        ("103", "", "it ran to its end, and what it found needs a look: see its log."),
        ("104", "", "it was interrupted, and saved a checkpoint first: resume it."),
        ("105", "", "it was killed (SIGKILL), which is most often for want of memory"),
        ("110", "over", "it ran out of memory: 60 MB were asked for, and it was last seen using"),
        ("110", "oom", "it ran out of memory: 60 MB were asked for"),
        ("113", "", "it made room for a job of a higher priority: resume it."),
        ("114", "", "it was cancelled by root: if that was not meant, resume it."),
        ("116", "", "it reached its time limit of 1:00: resume it, perhaps with more time."),
        ("117", "", "the machine it ran on failed (n2): resume it, perhaps without that machine."),
        ("127", "", "it was cancelled by root before it started."),
    ],
)  # fmt: skip
def test_an_ended_job_says_why_and_what_to_do(jobs, usage, job, log, told):
    why = why_ended(jobs[job], usage[job], LOGS.get(log, ""), go_on="resume it")
    assert why.startswith(told)
    assert "\n" not in why


@pytest.mark.parametrize("job", ["100", "103", "104", "105", "113", "114", "116", "117", "127"])
def test_the_accounts_alone_tell_the_same(jobs, usage, job):
    told = why_ended(jobs[job], usage[job]).replace(" of 1:00", "")  # which sacct was not asked for
    assert why_ended(None, usage[job]) == told


@pytest.mark.parametrize(
    ("log", "told"),
    [
        ("limit", "it reached its time limit: "),
        ("preempted", "it made room for a job"),
        ("cancelled", "it was cancelled: if"),
        ("node", "the machine it ran on failed: "),
        ("oom", "it ran out of memory. Submit it with more"),
        ("over", "it ran out of memory. Submit it with more"),
        ("interrupted", "it was interrupted, and saved a checkpoint first"),
        ("traceback", "it stopped at a mistake of the program, whose traceback"),
        (
            "ranks",
            "Slurm has forgotten how it ended, and keeps no accounts. Its log ends with: n",
        ),
        ("", "Slurm has forgotten how it ended, and keeps no accounts."),
    ],
)
def test_where_slurm_has_forgotten_the_log_tells(log, told):
    assert why_ended(None, None, LOGS.get(log, "")).startswith(told)


def test_what_an_earlier_start_left_in_the_log_does_not_count():
    starts = (LOGS["oom"], LOGS["limit"], LOGS["requeued"], LOGS["cancelled"])
    assert why_ended(None, None, "".join(starts)).startswith("it was cancelled")


def script_says(text: str) -> str:
    """Return a line as our script writes it."""
    return f"2026-11-22T21:55:32  {text}\n"


def test_the_words_that_are_looked_for_are_those_of_the_script():
    shell = Path(job_script.__file__).parent / "shell"
    script = (shell / "job.sh").read_text() + (shell / "work.sh").read_text()
    assert 'say() { printf \'%s  %s\\n\' "$(date +%FT%T)" "$*"; }' in script
    assert 'say "job $job, start $((restarts + 1)), on $SLURM_JOB_NODELIST' in script
    assert 'say "ml-core ended with exit code $code after $((SECONDS - began)) s, job $' in script
    assert "failed on $left_out and not tried again;" in (shell / "nodes.sh").read_text()


@pytest.mark.parametrize(
    ("log", "told"),
    [
        ("ml-core ended with exit code 0 after 9 s, job RUNNING", "it ran to its end."),
        ("ml-core ended with exit code 0 after 9 s, job state unknown", "it ran to its end."),
        ("ml-core ended with exit code 0 after 9 s, job PENDING", "Slurm has forgotten how it"),
        ("ml-core ended with exit code 130 after 9 s, job RUNNING", "it was interrupted, and sav"),
        ("ml-core ended with exit code 7 after 9 s, job RUNNING", "it ended with exit code 7: bye"),
    ],
)
def test_the_scripts_last_words_tell_the_end_where_slurm_has_forgotten(log, told):
    assert why_ended(None, None, "bye\n" + script_says(log)).startswith(told)


def test_a_start_that_the_script_notes_ends_what_counts_of_an_earlier_one():
    begins = script_says("job 5, start 2, on n2, must end at 2026-11-23T00:34:17")
    lost = "srun: error: Node failure on n1\n"
    done = script_says("ml-core ended with exit code 0 after 9 s, job RUNNING")
    assert why_ended(None, None, lost + begins + done) == "it ran to its end."


def test_the_script_giving_up_is_not_the_first_cause(jobs):
    log = "error: no GPU answers\nerror: failed on n1,n2 and not tried again; what came first\n"
    told = why_ended(replace(jobs["101"], exit_code=ExitCode(1)), None, log)
    assert told == "it ended with exit code 1: no GPU answers"


def test_a_job_warned_too_late_says_what_the_script_found(jobs):
    log = "error: the time limit came before anything was saved, as it would again: ask for more\n"
    told = why_ended(replace(jobs["101"], exit_code=ExitCode(138)), None, log)
    assert told.startswith("it was ended by SIGUSR1: the time limit came before anything was saved")


def test_a_wrong_option_is_told_in_the_words_of_the_command_line(jobs):
    log = "Usage: ml-core train [OPTIONS]\n\nError: No such option: --epoch\n"
    assert why_ended(jobs["102"], None, log) == "it was refused: No such option: --epoch"


@pytest.mark.parametrize("source", ["squeue", "sacct", "sacct alone"])
def test_a_job_whose_predecessor_failed_was_cancelled_by_slurm_and_names_it(jobs, usage, source):
    cancelled = {"state": "CANCELLED", "elapsed_s": 0}
    job = replace(jobs["128"], **cancelled)
    used = replace(usage["127"], **cancelled, cancelled_by=None, reason="Dependency")
    if source == "squeue":
        told = why_ended(job, used)
    else:
        told = why_ended(None, used, before="102" if source == "sacct" else None)
    which = "" if source == "sacct alone" else " (102)"
    assert told == f"the job before it failed{which}: mend that one, and submit both again."


def test_a_job_cancelled_within_its_first_second_had_started(jobs, usage):
    begun = replace(jobs["114"], elapsed_s=0), replace(usage["114"], elapsed_s=0)
    assert why_ended(*begun).startswith("it was cancelled by root: if that was not meant")


def test_a_requeued_job_cancelled_while_it_waits_had_started_before(jobs):
    waiting = replace(jobs["127"], restarts=1)
    assert why_ended(waiting) == "it was cancelled before it started again."


def test_a_dependent_job_that_its_owner_cancels_was_cancelled_by_its_owner(usage):
    used = replace(usage["127"], reason="Dependency")
    assert why_ended(None, used) == "it was cancelled by root before it started."


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (ExitCode(127), "its script calls a program that is not there"),
        (ExitCode(139), "the program crashed (SIGSEGV)"),
        (ExitCode(0, signal=15), "it was ended by SIGTERM"),
        (ExitCode(143), "it was ended by SIGTERM"),
        (ExitCode(0, signal=53), "Slurm could not start it on its machine"),
        (ExitCode(0, signal=62), "it was ended by signal 62"),
        (ExitCode(2), "it ended with exit code 2: bye"),
        (ExitCode(7), "it ended with exit code 7: bye"),
    ],
)
def test_other_exit_codes_and_signals_are_told(jobs, code, told):
    assert why_ended(replace(jobs["101"], exit_code=code), None, "bye\n").startswith(told)


def test_a_job_that_no_machine_fits_was_refused_by_slurm(jobs):
    job = replace(jobs["101"], reason="BadConstraints", exit_code=ExitCode(0, signal=1))
    assert why_ended(job).startswith("Slurm refused it: no machine has what it asks for")


def test_a_job_that_has_not_ended_has_no_such_reason(jobs):
    with pytest.raises(ValueError, match="has not ended: RUNNING"):
        why_ended(jobs["140"])


# ---- the other recordings ----------------------------------------------------------------------


def log_of(how: str) -> str:
    """Return what Slurm wrote into the log of a job that ended so."""
    text = (RECORDED / "job_logs.txt").read_text(encoding="utf-8")
    return next(part for part in text.split("== ") if part.startswith(f"{how}\n"))


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("time limit, nobody acted", "it reached its time limit"),
        ("scancel", "it was cancelled"),
        ("scancel, step exited 130", "it was cancelled"),
        ("preempted with GraceTime 5, nobody acted", "it made room for a job"),
        ("preempted with GraceTime 0", "it made room for a job"),
        ("node lost", "the machine it ran on failed"),
        ("out of memory", "it ran out of memory"),
        ("segmentation fault", "the program crashed (SIGSEGV)"),
        ("killed by a signal before it handled it", "it was ended by SIGUSR1"),
        ("one of two tasks exited 7, --kill-on-bad-exit=1", "it ended with exit code 7"),
        ("one of two tasks exited 7, --wait=5", "it ended with exit code 7"),
    ],
)
def test_each_kind_of_end_is_told_from_what_slurm_wrote_into_the_log(how, told):
    assert why_ended(None, None, log_of(how)).startswith(told)


@pytest.mark.parametrize("name", ["jobs_waiting", "jobs_requeued"])
def test_every_job_of_the_test_cluster_is_explained(name):
    text = (RECORDED / f"{name}.txt").read_text(encoding="utf-8")
    usage = parse_usage(as_asked_now((RECORDED / "usage.txt").read_text(encoding="utf-8")))
    jobs = parse_jobs(text)
    assert len(jobs) == text.count(fields.RECORD_END) > 10
    told = [why_pending(job) for job in jobs if job.is_waiting]
    told += [why_ended(job, usage.get(job.id)) for job in jobs if job.has_ended]
    passed_on = [why for why in told if why.startswith("Slurm says: ")]
    assert all("account" in why for why in passed_on)  # a sentence of Slurm's own


def test_what_srun_says_between_the_lines_of_a_traceback_is_not_its_end():
    srun = "srun: error: n2: task 0: Exited with exit code 1"
    log = f"Traceback (most recent call last):\n  File x\n{srun}\nKeyError: 'lr'\n"
    assert read_tail(log).traceback == "KeyError: 'lr'"


def test_of_an_error_with_a_list_below_it_the_words_that_announce_the_list_are_left_out():
    log = "error: there is no champion: x does not beat all. Not above 0 are:\n  roc_auc of prior\n"
    assert read_tail(log).error == "there is no champion: x does not beat all."
    assert read_tail("error: wrong: a: b\n").error == "wrong: a: b"
    assert read_tail("error: these are wrong:\n  a\n").error == "these are wrong:"
