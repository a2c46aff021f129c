"""The fixtures of fault tests: how many draws, and where their count goes.

A conftest.py takes them over; tests then ask for them by name:

    from fault_counts import draw, draws, fault, pytest_runtest_makereport

    @pytest.mark.faults
    def test_a_killed_run_resumes(tmp_path, draws, fault):
        kills = fault(1, "SIGKILL at a random moment")     # the row of the matrix, what breaks
        for number in range(draws(full=200, short=5)):     # by ML_CORE_FAULT_DRAWS=full|short
            with kills.case(f"kill {number}"):             # an assert fails: lost, and it goes on
                assert resumed_hash == straight_hash
        kills.held("kill 200")                             # the same by hand
        kills.lost("kill 201", "step 12 was logged twice")

At the end of the test every `fault` must have been tried and must have lost nothing. Where the
environment names a file (ML_CORE_FAULT_RECORD=docs/fault-record.json), its count goes there, lost
cases included; a skipped test leaves no line, so that its row says "not shown". A negative control
(a protection switched off, and the test that misses it) counts for row 24: `fault(24, "no CRC")`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_record import Fault, add_line, line_of

ROOT = Path(__file__).resolve().parents[1]
DRAWS = ("short", "full")
OUTCOME = pytest.StashKey[pytest.TestReport]()


@pytest.fixture(scope="session")
def draw() -> str:
    """`full` or `short`, as ML_CORE_FAULT_DRAWS says; short without it."""
    named = os.environ.get("ML_CORE_FAULT_DRAWS", "short")
    if named not in DRAWS:
        pytest.fail(f"ML_CORE_FAULT_DRAWS is {named!r}; it takes: {', '.join(DRAWS)}")
    return named


@pytest.fixture(scope="session")
def draws(draw: str) -> Callable[[int, int], int]:
    """`draws(full=200, short=5)`: how often to try, by ML_CORE_FAULT_DRAWS."""

    def choose(full: int, short: int) -> int:
        return full if draw == "full" else short

    return choose


@pytest.fixture
def fault(request: pytest.FixtureRequest, draw: str) -> Iterator[Callable[[int, str], Fault]]:
    """`fault(row, what)`: a count of this test's tries; see the top of this file."""
    faults: list[Fault] = []

    def start(row: int, what: str) -> Fault:
        faults.append(Fault(row, what))
        return faults[-1]

    started = time.monotonic()
    yield start
    outcome = request.node.stash.get(OUTCOME, None)
    if outcome is None or outcome.skipped:
        return
    if outcome.failed and faults:
        faults[-1].lost("the test itself", "stopped by an error")
    _record(faults, time.monotonic() - started, draw)
    if outcome.passed:
        for one in faults:
            one.check()


def _record(faults: list[Fault], seconds: float, draw: str) -> None:
    if record := os.environ.get("ML_CORE_FAULT_RECORD"):
        for one in faults:
            add_line(Path(record), line_of(one, seconds / len(faults), draw, ROOT))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Keep how the test's body ended where the fixture `fault` can see it."""
    report = (yield).get_result()
    if report.when == "call":
        item.stash[OUTCOME] = report
