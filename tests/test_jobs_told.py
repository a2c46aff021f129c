"""What is told of a job is safe to print, fits the terminal, and advises only where it matters."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ml_core.cluster.slurm import ExitCode, Usage
from ml_core.pipeline.job_list.efficiency import advise, used_of_asked
from ml_core.pipeline.job_list.log_end import MAX_BYTES, as_shown, last_lines, read_log_end
from ml_core.pipeline.job_list.same_tasks import merge_tasks
from ml_core.pipeline.job_list.told import render_in_full, render_list

GB = 1024.0

# ---- the end of a log --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("plain é \t text  ", "plain é \t text"),
        ("\x1b[1;31merror:\x1b[0m no data", "error: no data"),
        ("\x1b]0;a title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b(B\x1b[?25lhidden\x1b[?25h", "hidden"),
        ("epoch 1  10 %\repoch 1  50 %\repoch 1 100 %\r", "epoch 1 100 %"),
        ("a\x00b\x07c\x9bd", "abcd"),
        ("safe\u202ereversed", "safereversed"),
        ("ends in CRLF\r", "ends in CRLF"),
        ("\r", ""),
    ],
)
def test_a_line_is_what_a_terminal_would_end_up_showing(line, shown):
    assert as_shown(line) == shown


def test_only_the_end_of_a_long_log_is_read_from_a_whole_line_on(tmp_path):
    log = tmp_path / "log"
    log.write_text("".join(f"line {number:06}\n" for number in range(50_000)))
    lines = read_log_end(log).text.split("\n")
    assert lines[0].startswith("line ") and len(lines[0]) == len("line 000000")
    assert lines[-2:] == ["line 049999", ""]
    assert MAX_BYTES - 12 <= len("\n".join(lines)) <= MAX_BYTES


def test_one_line_longer_than_what_is_read_is_not_lost(tmp_path):
    (tmp_path / "log").write_text("x" * 3 * MAX_BYTES)
    assert read_log_end(tmp_path / "log").text == "x" * MAX_BYTES


def test_bytes_that_are_no_text_do_not_stop_it(tmp_path):
    (tmp_path / "log").write_bytes(b"\xff\xfe half \xc3\n")
    assert " half " in read_log_end(tmp_path / "log").text


def test_a_log_that_is_not_there_yet_is_empty_and_one_that_is_no_file_is_said(tmp_path):
    assert read_log_end(tmp_path / "log").text == ""
    assert read_log_end(tmp_path / "log").problem is None
    assert read_log_end(tmp_path).problem == "it is no file"
    os.mkfifo(tmp_path / "pipe")
    assert read_log_end(tmp_path / "pipe").problem == "it is no file"  # and nobody is waited for
    (tmp_path / "file").touch()
    assert read_log_end(tmp_path / "file" / "log").problem == "Not a directory"


def test_long_lines_are_cut_and_empty_ones_left_out():
    assert last_lines("a\n\n" + "b" * 300 + "\n\nc\n", 2) == ["b" * 199 + "…", "c"]


# ---- what it used ------------------------------------------------------------------------------

HOUR = Usage(
    job="1", state="COMPLETED", cancelled_by=None, exit_code=ExitCode(0), elapsed_s=3600, cpus=8,
    cpu_s=3600 * 8 * 0.9, max_rss_mb=20 * GB, asked_mem_mb=28 * GB,
)  # fmt: skip
ON_GPU = replace(HOUR, gpus={"a100": 2}, gpu_percent=180)


def test_what_was_used_is_told_of_what_was_asked():
    assert used_of_asked(HOUR) == "CPU 90 % of 8, memory 20 GB of 28 GB"
    assert used_of_asked(ON_GPU).endswith(", GPU 90 %")
    assert used_of_asked(replace(HOUR, cpu_s=None, max_rss_mb=None)) == ""
    assert used_of_asked(replace(HOUR, asked_mem_mb=None)).endswith("memory 20 GB")


@pytest.mark.parametrize("usage", [HOUR, ON_GPU])
def test_a_job_that_used_most_of_what_it_asked_for_gets_no_advice(usage):
    assert advise(usage, limit_s=2 * 3600) == []


@pytest.mark.parametrize(
    ("changes", "limit_s", "advice"),
    [
        ({"max_rss_mb": 1.1 * GB}, None, "asked 28 GB, used 1.1 GB: ask mem_gb=2"),
        ({"max_rss_mb": 8 * GB, "num_tasks": 4}, None, "asked 28 GB, used 8 GB: ask mem_gb=3"),
        ({"max_rss_mb": 27 * GB}, None, "used 27 GB of 28 GB, nearly all: ask mem_gb=34"),
        ({"cpu_s": 3600 * 1.5}, None, "its 8 cores worked 19 % of the time: ask cpus_per_task=2"),
        ({}, 10 * 3600, "took 1:00:00 of 10:00:00: ask time=01:20:00, since a shorter job"),
        ({"elapsed_s": 900, "cpu_s": 7000.0}, 5 * 3600, "took 15:00 of 5:00:00: ask time=01:00:00"),
    ],
)
def test_advice_names_the_key_to_ask_with(changes, limit_s, advice):
    (told,) = advise(replace(HOUR, **changes), limit_s)
    assert told.startswith(advice)


def test_gpus_that_wait_for_data_are_said_and_their_cores_are_not():
    (told,) = advise(replace(ON_GPU, gpu_percent=24, cpu_s=3600.0), None)
    assert told.startswith("its 2 GPUs were busy 12 % of the time: a larger data.batch_size")


@pytest.mark.parametrize(
    ("changes", "limit_s"),
    [
        ({"state": "FAILED", "max_rss_mb": 1.0}, 36_000),  # who knows what it would have used
        ({"elapsed_s": 300, "max_rss_mb": 1.0, "cpu_s": 1.0}, 3600),  # Slurm has hardly looked
        ({"max_rss_mb": 200.0, "asked_mem_mb": 2 * GB}, None),  # nobody waits for so little
        ({"cpus": 1, "cpu_s": 900.0}, None),  # there is no less
        ({"cpus": 2, "cpu_s": 0.48 * 7200, "num_tasks": 2}, None),  # one core for each task
        ({"max_rss_mb": None, "cpu_s": None}, None),
    ],
)
def test_there_is_no_advice_where_it_would_not_help(changes, limit_s):
    assert advise(replace(HOUR, **changes), limit_s) == []


# ---- the text ----------------------------------------------------------------------------------


def record(**changes: Any) -> dict[str, Any]:
    nothing = dict.fromkeys((
        "go_on", "exit_code", "elapsed_s", "limit_s", "partition", "nodes", "started", "ended",
        "command", "folder", "log", "log_problem",
    ))  # fmt: skip
    base = {"id": "12", "name": "train", "state": "RUNNING", "why": "", "is_over": False}
    rest = {"did_well": False, "restarts": 0, "used": "", "advice": [], "log_end": []}
    return {**nothing, **base, **rest, **changes}


def test_names_give_way_and_sentences_are_wrapped_on_a_narrow_terminal():
    long = record(name="a-name-that-is-much-too-long", state="PENDING", why="wait " * 20)
    long |= {"elapsed_s": 0, "limit_s": 600}
    lines = render_list([long], width=48).split("\n")
    assert max(map(len, lines)) <= 48
    assert lines[1].startswith("12   a-name-that-") and "…" in lines[1]
    assert all(line.startswith("    wait") for line in lines[2:])


def test_into_a_pipe_each_sentence_is_one_line():
    assert render_list([record(why="wait " * 50)], width=None).count("\n") == 2


def test_a_command_to_copy_is_never_broken():
    again = "ml-core train --resume " + "runs/x " * 20
    over = record(is_over=True, state="FAILED", nodes="n1", go_on=again)
    for text in (render_list([over], width=40), render_in_full(over, width=40)):
        assert over["go_on"] in text


def test_how_to_go_on_is_not_said_of_a_job_that_did_well_or_never_began():
    for changes in (
        {"did_well": True, "elapsed_s": 5, "nodes": "n1"},
        {"elapsed_s": 0},
        {"state": "UNKNOWN", "elapsed_s": None},
        {"is_over": False, "elapsed_s": 5, "nodes": "n1"},
    ):
        told = render_list([record(**{"is_over": True, "go_on": "so", **changes})], width=None)
        assert "go on" not in told


def test_a_log_that_cannot_be_read_or_is_empty_is_said():
    assert "log        /x (cannot be read: Permission denied)" in render_in_full(
        record(log="/x", log_problem="Permission denied"), width=None
    )
    assert "log        /x (nothing written yet)" in render_in_full(record(log="/x"), width=None)


def test_tasks_that_have_the_same_to_say_are_one_line():
    tasks = [record(id=f"7_{task}", state="UNKNOWN", log=f"/{task}") for task in (0, 1, 2, 3, 5)]
    tasks[3] |= {"state": "FAILED"}
    others = [record(id="7"), record(id="8_0", state="UNKNOWN"), record(id="8_[1-4]")]
    assert [each["id"] for each in merge_tasks([*tasks, *others])] == [
        "7_[0-2]", "7_3", "7_5", "7", "8_0", "8_[1-4]",
    ]  # fmt: skip
    assert [each["id"] for each in merge_tasks([tasks[0], tasks[1], tasks[4]])] == ["7_[0-1,5]"]


def test_a_list_has_one_line_for_tasks_that_nobody_knows_more_of():
    tasks = [record(id=f"7_{task}", state="UNKNOWN", why="it is gone.") for task in range(100)]
    assert render_list(tasks, width=None).split("\n")[1:] == [
        "7_[0-99]  train  UNKNOWN",
        "    it is gone.",
    ]


def test_a_finished_folder_is_named_with_the_command_that_made_it():
    told = render_in_full(record(command="ml-core submit train x", folder=str(Path("/f"))), None)
    assert "    submitted  ml-core submit train x\n    folder     /f" in told
