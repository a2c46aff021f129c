"""The count of a fault test: what is lost fails the test, and the record keeps what was tried."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fault_record import Fault, FaultLine, add_line

LINE = FaultLine(1, "kill", tried=5, held=5, seconds=1.0, draw="short", date="d", commit="c")
CONFTEST = Path(__file__).with_name("conftest.py")
CASES = """
import pytest

def test_holds(fault, draws):
    kills = fault(1, "kill")
    for number in range(draws(full=7, short=2)):
        kills.held(f"kill {number}")

def test_loses_one_of_two(fault):
    rot = fault(5, "rot")
    with rot.case("bit 1"):
        assert False, "bit 1 was not seen"
    rot.held("bit 2")

def test_stops_half_way(fault):
    fault(7, "cut").held("byte 0")
    raise OSError("gone")

def test_tries_nothing(fault):
    fault(8, "nothing")

def test_is_skipped(fault):
    fault(9, "skipped").held("one")
    pytest.skip("no strace here")
"""


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """The output and the record of a small session of fault tests."""
    folder = tmp_path_factory.mktemp("session")
    (folder / "conftest.py").write_text(CONFTEST.read_text())
    (folder / "test_cases.py").write_text(CASES)
    record = folder / "record.json"
    environ = {
        **os.environ,
        "PYTHONPATH": str(CONFTEST.parents[1]),
        "ML_CORE_FAULT_RECORD": str(record),
        "ML_CORE_FAULT_DRAWS": "full",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True)
    lines = {line["what"]: line for line in json.loads(record.read_text())}
    return done.stdout, lines


def test_the_full_draw_tries_as_often_as_it_says(session):
    line = session[1]["kill"]
    assert (line["row"], line["tried"], line["held"], line["draw"]) == (1, 7, 7, "full")


def test_a_lost_case_fails_the_test_and_is_recorded(session):
    output, lines = session
    assert "row 5, rot: lost 1 of 2" in output and "bit 1 was not seen" in output
    assert (lines["rot"]["tried"], lines["rot"]["held"]) == (2, 1)


def test_a_test_that_stops_counts_as_lost(session):
    assert (session[1]["cut"]["tried"], session[1]["cut"]["held"]) == (2, 1)


def test_a_fault_that_was_never_tried_fails(session):
    assert "row 8, nothing: nothing was tried" in session[0]


def test_a_skipped_test_leaves_no_line(session):
    assert "skipped" not in session[1]


def test_a_line_replaces_the_older_one_of_its_row_and_what(tmp_path):
    record = tmp_path / "record.json"
    for held in (4, 5):
        add_line(record, FaultLine(**{**vars(LINE), "held": held}))
    add_line(record, FaultLine(**{**vars(LINE), "what": "stop"}))
    kept = [(line["what"], line["held"]) for line in json.loads(record.read_text())]
    assert kept == [("kill", 5), ("stop", 5)]


def test_a_case_without_an_assert_that_fails_has_held():
    fault = Fault(1, "kill")
    with fault.case("kill 1"):
        assert True
    fault.check()
    assert fault.held_cases == ["kill 1"]


def test_a_case_in_which_nothing_is_raised_that_should_be_is_lost():
    fault = Fault(1, "kill")
    with fault.case("kill 1"), pytest.raises(OSError):
        pass
    assert fault.lost_cases == ["kill 1: DID NOT RAISE OSError"]


def test_an_error_that_is_no_assert_is_not_swallowed():
    with pytest.raises(OSError), Fault(1, "kill").case("kill 1"):
        raise OSError("gone")


# ---- the page made of the record ---------------------------------------------------------------


@pytest.fixture
def render(tmp_path, monkeypatch):
    """Return a function that makes the page of some lines."""
    monkeypatch.syspath_prepend(str(CONFTEST.parents[2] / "docs"))
    from reliability_table import render_reliability

    def render_lines(*changes):
        record = tmp_path / "record.json"
        for change in changes:
            add_line(record, FaultLine(**{**vars(LINE), "draw": "full", **change}))
        return render_reliability(record)

    return render_lines


def rows_of(page):
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines()]
    return {row[0]: row[3:] for row in cells if len(row) == 7 and row[0].isdigit()}


def test_a_row_without_a_run_is_not_shown(render):
    rows = rows_of(render())
    assert list(rows) == [str(number) for number in range(1, 26)]
    assert all(row == ["not shown", "", "", ""] for row in rows.values())


def test_a_row_adds_up_its_tests_under_their_oldest_date_and_all_their_commits(render):
    page = render(
        {"what": "kill", "tried": 200, "held": 200, "date": "2026-02-01", "commit": "bbb"},
        {"what": "stop", "tried": 30, "held": 30, "date": "2026-01-01", "commit": "aaa"},
    )
    assert rows_of(page)["1"] == ["230", "230", "2026-01-01", "aaa, bbb"]
    assert "| 1 | stop | 30 | 30 | 1.0 | full |" in page


def test_what_was_lost_and_a_short_draw_are_plain_to_see(render):
    page = render({"row": 5, "tried": 10, "held": 9, "draw": "short"})
    assert rows_of(page)["5"][:2] == ["10 (short draw)", "**9**"]


def test_a_line_of_an_unknown_row_is_refused(render):
    with pytest.raises(ValueError, match=r"rows that the matrix has not: \[26\]"):
        render({"row": 26})
