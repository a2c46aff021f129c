"""Run the test of each protection twice, with it and without it: a process of its own, forked.

    python tests/faults/switched_off.py NAME...

Prints a line of JSON per protection and state: {"name", "is_on", "num_passed", "num_failed"}.
Everything is imported once, which takes longer than most of the tests.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import pytest
from protections import PROTECTIONS, Protection

TESTS = Path(__file__).resolve().parents[1]


class Count:
    """Counts how the bodies of tests ended."""

    def __init__(self) -> None:
        self.num_passed = self.num_failed = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.num_passed += report.passed
            self.num_failed += report.failed


def run_test(node: str) -> Count:
    """Run a test of this process's ml_core, up to its first failure."""
    count = Count()
    with tempfile.TemporaryDirectory() as folder:
        options = ["-q", "-x", "-p", "no:cacheprovider", f"--basetemp={folder}/t", "--rootdir"]
        pytest.main([*options, str(TESTS.parent), str(TESTS / node)], plugins=[count])
    return count


def in_child(protection: Protection, *, is_on: bool) -> None:
    """Run the test of `protection` in a forked process, which prints what came of it."""
    sys.stdout.flush()
    if child := os.fork():
        os.waitpid(child, 0)
        return
    answer = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    try:
        if not is_on:
            protection.switch_off()
        count = run_test(protection.test)
        line = {"name": protection.name, "is_on": is_on, **vars(count)}
        os.write(answer, json.dumps(line).encode() + b"\n")
    finally:
        os._exit(0)


if __name__ == "__main__":
    sys.path.insert(0, str(TESTS))
    import ml_core.pipeline.train  # noqa: F401 - with torch, before the forks

    by_name = {protection.name: protection for protection in PROTECTIONS}
    for name in sys.argv[1:]:
        in_child(by_name[name], is_on=True)
        in_child(by_name[name], is_on=False)
