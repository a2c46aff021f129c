"""Run directories, the record in them, and files that are written whole or not at all."""

import dataclasses
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ml_core.errors import RunError
from ml_core.runs import (
    Finding,
    RunDir,
    RunRecord,
    read_json,
    read_jsonl,
    write_json,
    write_text,
)

AS_ROOT = os.geteuid() == 0


def make_record(**changes) -> RunRecord:
    return RunRecord(experiment_name="exp", seed=3, command="ml-core train a.yaml", **changes)


# ---- run directories ---------------------------------------------------------------------------


def test_a_run_directory_is_never_used_twice(tmp_path):
    runs = [RunDir.create(tmp_path / "exp", "now-seed1") for _ in range(3)]
    assert [run.name for run in runs] == ["now-seed1", "now-seed1-2", "now-seed1-3"]
    (tmp_path / "exp" / "taken").write_text("a file")
    assert RunDir.create(tmp_path / "exp", "taken").name == "taken-2"


def test_a_new_run_directory_would_survive_a_power_cut_with_all_folders_above(
    tmp_path, monkeypatch
):
    synced = []
    monkeypatch.setattr("ml_core.durable.sync", synced.append)
    monkeypatch.setattr("ml_core.runs.sync", synced.append)
    run = RunDir.create(tmp_path / "runs" / "exp", "now-seed1")
    assert set(synced) == {tmp_path, tmp_path / "runs", run.path.parent}
    assert synced[-1] == run.path.parent  # once the run is in it


def test_twenty_threads_racing_for_one_name_get_twenty_directories(tmp_path):
    with ThreadPoolExecutor(20) as pool:
        runs = list(pool.map(lambda _: RunDir.create(tmp_path / "new" / "exp", "run"), range(20)))
    assert len({run.path for run in runs}) == 20
    assert all(run.path.is_dir() for run in runs)


def test_a_parent_that_cannot_hold_runs_is_a_run_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    for parent in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunError, match=r"cannot write a run directory in .*Set output_dir"):
            RunDir.create(parent, "run")
    with pytest.raises(RunError, match=r"Read-only|Permission|No such"):
        RunDir.create(Path("/proc/nobody/may/write/here"), "run")


@pytest.mark.skipif(AS_ROOT, reason="root may write everywhere")
def test_a_read_only_parent_is_a_run_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="Permission denied"):
        RunDir.create(tmp_path, "run")


def test_nine_hundred_and_ninety_nine_runs_of_one_name_are_enough(tmp_path):
    for number in range(1, 1000):
        (tmp_path / ("run" if number == 1 else f"run-{number}")).mkdir()
    with pytest.raises(RunError, match="set another output_dir"):
        RunDir.create(tmp_path, "run")


def test_only_a_folder_with_a_record_opens_as_a_run(tmp_path):
    with pytest.raises(RunError, match=r"not a run directory: it has no run.json"):
        RunDir.open(tmp_path)
    make_record().save(RunDir(tmp_path))
    assert RunDir.open(str(tmp_path)).path == tmp_path


# ---- the record --------------------------------------------------------------------------------


def test_a_record_comes_back_as_it_was_saved(tmp_path):
    run = RunDir(tmp_path)
    record = make_record(
        status="completed",
        ended_at="2026-01-02T03:04:05+00:00",
        code={"commit": "abc", "dirty": True},
        packages={"torch": "2.13.0"},
        data={"train": {"num_rows": 10, "shape": [96, 96, 3]}},
        best={"epoch": 3, "value": 0.1 + 0.2},
        findings=[Finding("not-learning", "error", "it does not")],
        duration_s=12.5,
    )
    record.save(run)
    assert RunRecord.load(run) == record
    as_json = json.loads(json.dumps(dataclasses.asdict(record)))
    assert json.loads(run.record_path.read_text()) == as_json


def test_two_records_have_two_ids():
    assert make_record().run_id != make_record().run_id


def test_a_finding_replaces_an_earlier_one_with_its_id():
    record = make_record(findings=[Finding("a", "error", "1"), Finding("b", "info", "2")])
    record.add_finding(Finding("a", "warning", "3"))
    assert record.findings == [Finding("b", "info", "2"), Finding("a", "warning", "3")]


def test_a_record_of_a_newer_version_still_loads(tmp_path):
    run = RunDir(tmp_path)
    record = make_record()
    write_json(run.record_path, {**dataclasses.asdict(record), "a_new_field": 1})
    assert RunRecord.load(run) == record


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"seed": None}, "seed"),
        ({"seed": "three"}, "seed"),
        ({"findings": None}, "findings"),
        ({"findings": ["text"]}, "findings.0"),
        ({"findings": [{"id": "a"}]}, "findings.0.severity"),
        ({"data": None}, "data"),
        ({"resumed_at": "once"}, "resumed_at"),
    ],
)
def test_a_record_with_a_wrong_field_is_a_run_error_that_names_it(tmp_path, changes, where):
    run = RunDir(tmp_path)
    write_json(run.record_path, {**dataclasses.asdict(make_record()), **changes})
    with pytest.raises(RunError, match=f"is not a run record: {where}: "):
        RunRecord.load(run)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe\x00", b'{"seed": 1}'])
def test_a_damaged_record_is_a_run_error(tmp_path, content):
    run = RunDir(tmp_path)
    run.record_path.write_bytes(content)
    with pytest.raises(RunError, match=r"run\.json"):
        RunRecord.load(run)


def test_a_missing_record_is_a_run_error(tmp_path):
    with pytest.raises(RunError, match="does not exist"):
        RunRecord.load(RunDir(tmp_path))
    (tmp_path / "run.json").mkdir()
    with pytest.raises(RunError, match="cannot be read"):
        RunRecord.load(RunDir(tmp_path))


# ---- files -------------------------------------------------------------------------------------


def test_json_holds_no_nan_and_paths_as_text(tmp_path):
    path = tmp_path / "a.json"
    nan, inf = float("nan"), float("inf")
    write_json(path, {"a": nan, "b": [inf, {"c": -inf}], "d": (1.5, nan), "e": Path("x/y")})
    expected = {"a": None, "b": [None, {"c": None}], "d": [1.5, None], "e": "x/y"}
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == expected
    with pytest.raises(TypeError):  # not turned into text behind one's back
        write_json(path, {"a": object()})
    assert read_json(path) == expected


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "report.txt"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \ud800")  # fails in the middle of writing
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(small_disk):
    path = small_disk / "report.txt"
    write_text(path, "old" * 1000)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new" * 100_000)
    assert path.read_text() == "old" * 1000
    assert list(small_disk.iterdir()) == [path]


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = tmp_path / "a" / "b.txt"
    texts = [letter * 300_000 for letter in "xy"]
    write_text(path, texts[0])

    def write_often(_: int) -> None:
        for number in range(15):
            write_text(path, texts[number % 2])

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write_often, 0)
        seen = set()
        while not writing.done():
            seen.add(path.read_text())
        writing.result()
    assert seen <= set(texts)


def test_a_last_line_cut_short_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"epoch": 1}\n{"epoch": 2}\n{"epo')
    assert list(read_jsonl(path)) == [{"epoch": 1}, {"epoch": 2}]
    path.write_bytes(b'{"epoch": 1}\n{"epoch": 2}')  # whole by chance; the writer ends lines
    assert list(read_jsonl(path)) == [{"epoch": 1}]
    path.write_bytes(b'{"epoch": 1}\n\x00\x00\x00\x00')  # what a file system may leave
    assert list(read_jsonl(path)) == [{"epoch": 1}]
    assert list(read_jsonl(tmp_path / "absent.jsonl")) == []


@pytest.mark.parametrize("line", [b"{", b"\xff\xff", b"", b"\x00\x00"])
def test_a_damaged_line_inside_a_log_is_a_run_error_that_names_it(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"epoch": 1}\n' + line + b'\n{"epoch": 3}\n')
    with pytest.raises(RunError, match=r"metrics\.jsonl, line 2 is damaged"):
        list(read_jsonl(path))
