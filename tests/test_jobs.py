"""`ml-core jobs` joins what squeue, sacct, the submissions and the logs say of each job.

squeue and sacct answer with what the real ones said of the jobs of slurm/test_jobs_on_slurm.py: a
chain and an array of three tasks, some of which waited, and which later had ended in every way.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from programs import write_program

from ml_core.cluster.slurm.accounting import USAGE_FIELDS
from ml_core.cluster.slurm.jobs import JOB_FIELDS
from ml_core.cluster.submission import Submission, SubmittedJob, remember
from ml_core.errors import ClusterError
from ml_core.pipeline.jobs import jobs

RECORDED = Path(__file__).parent / "slurm" / "recorded"
NAMES = (
    "overrun", "blocked", "done", "refuse", "find", "crash", "fill", "later", "latest", "awaits",
    "tasks", "save", "again",
)  # fmt: skip
NO_ACCOUNTS = "echo 'Slurm accounting storage is disabled' >&2; exit 1"
# the jobs of --jobs=4,11_2, or all; its second field is the number, of an array too
SQUEUE = r"""
for word; do case $word in --jobs=*) jobs=,${{word#--jobs=}},; esac; done
awk -v jobs="$jobs" -v RS='\036' -v ORS='\036' -v FS='\037' \
  '$2 && (jobs == "" || index(jobs, "," $2 ",") || index(jobs, "," $2 "_"))' {recorded}
"""
NOW = datetime.now(UTC)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The folder of the submitted jobs and their logs; programs of Slurm are in ../bin."""
    for name in ("bin", "jobs"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    text = (RECORDED / "listed_logs.txt").read_text(encoding="utf-8")
    for block in text.removeprefix("== ").split("\n== "):
        name, _, log = block.partition("\n")
        (tmp_path / "jobs" / name).write_text(log, encoding="utf-8")
    return tmp_path / "jobs"


def put(folder: Path, name: str, line: str) -> None:
    """Put a program of Slurm on PATH that is a line of shell."""
    write_program(folder.parent / "bin" / name, line)


def slurm_says(folder: Path, when: str) -> None:
    """Let squeue and sacct say what they said `during` the jobs or `after` them."""
    put(folder, "squeue", SQUEUE.format(recorded=RECORDED / f"listed_{when}_squeue.txt"))
    put(folder, "sacct", f"cat {RECORDED}/listed_{when}_sacct.txt")


def slurm_has_forgotten(folder: Path) -> None:
    put(folder, "squeue", "true")
    put(folder, "sacct", NO_ACCOUNTS)


def submitted(folder: Path, *names: str, at: datetime = NOW) -> Submission:
    """Register these of the jobs as one submission, all of them if none are named."""
    submission = Submission(
        folder=folder, command="ml-core submit chain x.yaml", verb="chain",
        submitted_at=at.isoformat(), user="root", cluster="test", profile="generic-cpu",
        commit=None, jobs=tuple(job(folder, name) for name in names or NAMES),
    )  # fmt: skip
    submission.save()
    remember(submission)
    return submission


def job(folder: Path, name: str) -> SubmittedJob:
    pattern = "%A_%a" if name == "tasks" else "%j"
    return SubmittedJob(
        id=str(NAMES.index(name) + 1), name=name, num_tasks=3 if name == "tasks" else None,
        log=f"{folder}/{name}-{pattern}.log", go_on=f"ml-core submit {name}",
    )  # fmt: skip


def told(*ids: str, all_: bool = False) -> dict[str, dict]:
    """Return the records of the jobs, by name; of an array by their number."""
    records = jobs(ids, all_=all_)["jobs"]
    return {each["name" if each["id"].isdecimal() else "id"]: each for each in records}


# ---- the list ----------------------------------------------------------------------------------


def test_jobs_are_listed_in_the_order_of_their_submission(folder):
    submitted(folder)
    slurm_says(folder, "during")
    assert list(told()) == [*NAMES[:10], "11_[0-2]", "save", "again"]


def test_states_are_those_of_squeue(folder):
    submitted(folder)
    slurm_says(folder, "during")
    states = {name: record["state"] for name, record in told().items()}
    assert states["overrun"] == "RUNNING"
    assert states["refuse"] == "FAILED"
    assert states["11_[0-2]"] == "PENDING"


def test_a_job_that_runs_has_nothing_to_explain(folder):
    submitted(folder)
    slurm_says(folder, "during")
    assert told()["overrun"]["why"] == ""


def test_what_is_printed_is_short_and_plain(folder, caplog):
    submitted(folder)
    slurm_says(folder, "during")
    with caplog.at_level("INFO"):
        jobs()
    lines = caplog.text.split("\n")
    assert any(line.endswith("JOB       NAME     STATE      TIME/LIMIT") for line in lines)
    place = next(n for n, line in enumerate(lines) if line.startswith("4  "))
    assert lines[place : place + 3] == [
        "4         refuse   FAILED     0:01/10:00",
        "    it was refused: no patches in /data/pcam",
        "    go on: ml-core submit refuse",
    ]
    assert "\x1b" not in caplog.text


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("done", "it ran to its end."),
        ("refuse", "it was refused: no patches in /data/pcam"),
        ("find", "it ran to its end, and what it found needs a look: 2 errors, 1 warning"),
        ("crash", "it stopped at a mistake of the program, whose traceback is in its log: KeyErro"),
        ("fill", "it ran out of memory: 100 MB were asked for, and it was last seen using 308 MB"),
        ("overrun", "it reached its time limit of 1:00: take it up again, perhaps with more time."),
        ("save", "it was cancelled by root: if that was not meant, take it up again."),
        ("blocked", "it was cancelled by root before it started."),
    ],
)
@pytest.mark.parametrize("squeue", ["knows", "has forgotten"])
def test_each_end_is_told_also_when_only_the_accounts_remember(folder, squeue, name, why):
    submitted(folder)
    slurm_says(folder, "after")
    if squeue == "has forgotten":
        put(folder, "squeue", "true")
    assert told(all_=True)[name]["why"].startswith(why)


@pytest.mark.parametrize(
    ("name", "state", "why"),
    [
        ("done", "COMPLETED", "it ran to its end."),
        ("refuse", "FAILED", "it was refused: no patches in /data/pcam"),
        ("find", "FAILED", "it ran to its end, and what it found needs a look: 2 errors, 1 war"),
        ("overrun", "TIMEOUT", "it reached its time limit: take it up again"),
        ("save", "CANCELLED", "it was cancelled: if that was not meant, take it up again."),
        ("again", "COMPLETED", "it ran to its end."),
        ("later", "UNKNOWN", "Slurm knows nothing of it here, or no more (it was submitted to the "
         "cluster test); it has written no log."),
    ],
)  # fmt: skip
def test_where_slurm_has_forgotten_all_the_log_tells(folder, name, state, why):
    submitted(folder)
    slurm_has_forgotten(folder)
    record = told()[name]
    assert record["state"] == state
    assert record["why"].startswith(why)


def test_without_slurm_the_logs_are_told_and_that_it_is_not_here(folder, caplog, monkeypatch):
    submitted(folder)
    monkeypatch.setenv("PATH", str(folder))
    records = told()
    assert records["refuse"]["why"] == "it was refused: no patches in /data/pcam"
    assert records["later"]["why"] == "it has written no log."
    assert "no Slurm here: squeue is not on PATH" in caplog.text
    assert caplog.text.count("logs alone") == 1
    assert jobs()["slurm"] is False


def test_without_slurm_and_submissions_there_is_nothing_to_tell(folder, monkeypatch):
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(ClusterError, match="no Slurm here"):
        jobs()


def test_missing_accounts_are_said_once(folder, caplog):
    submitted(folder)
    slurm_says(folder, "after")
    put(folder, "sacct", NO_ACCOUNTS)
    with caplog.at_level("INFO"):
        assert jobs()["accounts"] is False
    assert caplog.text.count("What jobs used is not told: this cluster keeps no accounts.") == 1


def test_accounts_that_do_not_answer_are_said_and_the_rest_is_told(folder, caplog):
    submitted(folder)
    slurm_says(folder, "after")
    put(folder, "sacct", "echo 'sacct: error: Connection refused' >&2; exit 1")
    with caplog.at_level("INFO"):
        assert told()["refuse"]["why"].startswith("it was refused: no patches")
    assert "What jobs used is not told: sacct refuses: Connection refused" in caplog.text


def test_a_job_that_found_something_ran_to_its_end_and_is_not_to_be_taken_up_again(folder, caplog):
    submitted(folder, "find", "crash")
    slurm_says(folder, "after")
    with caplog.at_level("INFO"):
        assert told()["find"]["did_well"]
    assert "go on: ml-core submit crash" in caplog.text
    assert "go on: ml-core submit find" not in caplog.text


@pytest.mark.parametrize("squeue", ["knows", "has forgotten"])
def test_the_rest_of_a_chain_names_the_job_that_failed_before_it(folder, squeue):
    submitted(folder, "refuse", "later", "latest")
    slurm_says(folder, "after")
    if squeue == "has forgotten":
        put(folder, "squeue", "true")
    records = told(all_=True)
    for name, before in (("later", 4), ("latest", 8)):
        why = f"the job before it failed ({before}): mend that one, and submit both again."
        assert records[name]["why"] == why
        (alone,) = told(records[name]["id"]).values()
        assert alone["why"] == why


# ---- who is listed -----------------------------------------------------------------------------


def test_a_job_of_another_origin_is_listed_too(folder):
    slurm_says(folder, "after")
    record = told()["refuse"]
    assert (record["verb"], record["go_on"], record["folder"]) == (None, None, None)
    assert record["why"].startswith("it ended with exit code 2: see its log")


def test_a_number_that_slurm_gave_again_is_not_taken_for_the_submitted_job(folder):
    submission = submitted(folder)
    other = folder.parent / "other"
    other.mkdir()
    later = (NOW + timedelta(seconds=1)).isoformat()
    same_number = SubmittedJob("4", "train", None, f"{other}/%j.log", "go on so")
    renamed = replace(submission, folder=other, submitted_at=later, jobs=(same_number,))
    renamed.save()
    remember(renamed)
    slurm_says(folder, "after")
    assert told()["refuse"]["go_on"] is None


def test_jobs_that_ended_more_than_a_day_ago_are_left_to_all(folder):
    submitted(folder, at=NOW - timedelta(days=3))
    slurm_has_forgotten(folder)
    old = (NOW - timedelta(days=2)).timestamp()
    for log in folder.glob("*.log"):
        os.utime(log, (old, old))
    os.utime(folder / "refuse-4.log")  # one that waited long and ended today
    assert list(told()) == ["refuse"]
    assert len(told(all_=True)) == 15


def test_nothing_at_all_is_said_to_be_nothing(folder, caplog):
    slurm_has_forgotten(folder)
    with caplog.at_level("INFO"):
        assert jobs()["jobs"] == []
        assert jobs(all_=True)["jobs"] == []
    assert "in the queue, and none ended within a day; older ones: --all.\n" in caplog.text
    assert "in the queue, and none was submitted from here.\n" in caplog.text


# ---- by number ---------------------------------------------------------------------------------


def test_one_job_is_told_in_full_with_the_end_of_its_log(folder, caplog):
    submitted(folder)
    slurm_says(folder, "after")
    with caplog.at_level("INFO"):
        record = told("7")["fill"]
    for line in (
        "job 7  fill  FAILED",
        "    go on      ml-core submit fill",
        "    used       CPU 12 % of 1, memory 308 MB of 100 MB",
        "    on         n2, partition long",
        f"    log        {folder}/fill-7.log",
        "    | srun: error: n2: task 0: Killed",
    ):
        assert f"{line}\n" in caplog.text
    assert record["log_end"][-1].endswith("ml-core ended with exit code 137 after 1 s, job RUNNING")


@pytest.mark.parametrize("asked", ["11", "11_1", "11_[0-2]"])
def test_an_array_is_meant_by_its_number_and_by_each_of_its_tasks(folder, asked):
    submitted(folder)
    slurm_says(folder, "during")
    assert list(told(asked)) == ["11_[0-2]"]


def test_a_task_of_an_array_has_its_own_log(folder):
    submitted(folder)
    slurm_says(folder, "after")
    assert [record["log"] for record in told("11").values()] == [
        f"{folder}/tasks-11_{task}.log" for task in range(3)
    ]


def test_a_job_that_only_the_accounts_know_is_found_by_its_number(folder):
    put(folder, "squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    put(folder, "sacct", f"cat {RECORDED}/listed_after_sacct.txt")
    record = told("1")["overrun"]
    assert (record["state"], record["limit_s"], record["started"]) == (
        "TIMEOUT", 60, "2026-11-23T00:28:35",
    )  # fmt: skip


def test_a_number_that_nobody_knows_is_an_error_and_so_is_what_is_none(folder):
    submitted(folder)
    slurm_says(folder, "after")
    with pytest.raises(ClusterError, match="nobody knows a job 99: neither squeue nor sacct"):
        jobs(["4", "99"])
    with pytest.raises(ClusterError, match="'4; rm' is no job's id"):
        jobs(["4; rm"])


def test_a_task_that_was_cancelled_while_it_waited_leaves_no_trace_and_is_told(folder):
    submitted(folder)
    slurm_says(folder, "after")
    for name in ("squeue", "sacct"):  # as measured: Slurm then lists the other tasks only
        text = (RECORDED / f"listed_after_{name}.txt").read_text(encoding="utf-8")
        end = "\x1e" if name == "squeue" else "\n"
        kept = [row for row in text.split(end) if not is_task(row.lstrip("\n"), "11", "2")]
        (folder / name).write_text(end.join(kept), encoding="utf-8")
        put(folder, name, f"cat {folder}/{name}")
    (folder / "tasks-11_2.log").unlink()
    records = told()
    assert records["11_1"]["state"] == "COMPLETED"
    assert records["11_2"]["why"].startswith("it was cancelled while it waited, it seems")


def test_an_array_that_was_cancelled_before_it_began_is_told_by_its_tasks(folder):
    submitted(folder)
    for log in folder.glob("tasks-*.log"):
        log.unlink()
    # as measured: the bare number, and in sacct the tasks besides
    bare = {"JobID": "11", "ArrayJobID": "11", "ArrayTaskID": "N/A", "State": "CANCELLED"}
    put(folder, "squeue", f"printf '%s\\036' '{row(JOB_FIELDS, **bare, Name='tasks')}'")
    cancelled = {"State": "CANCELLED by 0", "ElapsedRaw": "0"}
    number = row(USAGE_FIELDS, **cancelled, JobID="11", JobName="allocation")
    tasks = row(USAGE_FIELDS, **cancelled, JobID="11_[0-2]", JobName="tasks")
    put(folder, "sacct", f"printf '%s\\n' '{number}' '{tasks}'")
    records = jobs(["11"])["jobs"]
    assert [each["id"] for each in records] == ["11_0", "11_1", "11_2"]
    assert {each["why"] for each in records} == {"it was cancelled before it started."}


def row(names, **values: str) -> str:
    return "\x1f".join({**dict.fromkeys(names, ""), **values}.values())


def is_task(row: str, array: str, task: str) -> bool:
    cells = row.split("\x1f")
    return cells[0].partition(".")[0] == f"{array}_{task}" or cells[1:3] == [array, task]


# ---- the command -------------------------------------------------------------------------------


def test_the_verb_prints_records_as_json_and_loads_nothing_heavy(folder):
    submitted(folder)
    slurm_says(folder, "after")
    code = (
        "import sys, ml_core.pipeline.jobs; from ml_core.cli import app\n"
        "try: app(['jobs', '--json'])\n"
        "finally: print({'torch', 'numpy', 'pandas', 'h5py'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.rstrip("\n").rpartition("\n")[2])
    assert result["accounts"] and result["slurm"]
    assert {record["id"]: record["verb"] for record in result["jobs"]}["4"] == "chain"
    assert done.stderr == "set()\n"
