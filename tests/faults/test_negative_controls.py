"""Each protection switched off: the test that guards it must fail, and pass while it is on."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from protections import PROTECTIONS

pytestmark = pytest.mark.faults

RUNNER = Path(__file__).with_name("switched_off.py")


def test_the_test_of_each_protection_fails_without_it(draws, fault):
    controls = fault(24, "a protection switched off: its test fails, and passes with it")
    protections = list(PROTECTIONS)
    random.Random(0).shuffle(protections)
    names = [one.name for one in protections[: draws(full=len(protections), short=4)]]
    done = subprocess.run(
        [sys.executable, str(RUNNER), *names],
        env={**os.environ, "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    ended = {}
    for line in map(json.loads, done.stdout.splitlines()):
        ended[line["name"], line["is_on"]] = (line["num_passed"], line["num_failed"])
    for name in names:
        with controls.case(name):
            passed, failed = ended.get((name, True), (0, 0))
            assert (passed > 0, failed) == (True, 0), f"with it {failed} failed, {passed} passed"
            _, failed = ended.get((name, False), (0, 0))
            assert failed, "its test does not miss it"
