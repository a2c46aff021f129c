"""benchmarks/gpu.sh: one command for whatever needs a GPU; here with the CPU in its place."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def load(name, path, monkeypatch):
    """Return a module of benchmarks, which is no package of ours."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def gpu(monkeypatch):
    return load("gpu", BENCHMARKS / "gpu.py", monkeypatch)


@pytest.fixture
def turns(monkeypatch):
    return load("in_turns", BENCHMARKS / "gpu_checks" / "in_turns.py", monkeypatch)


@pytest.fixture
def run(gpu, tmp_path):
    """`run(code, limit_s)` gives the outcome of a check that is these lines."""

    def run(code, limit_s=30.0):
        code = (
            "import json, os, signal, subprocess, sys, time\n"
            "answer = open(sys.argv[sys.argv.index('--answer') + 1], 'w')\n" + code
        )
        check = gpu.Check("made_up", limit_s, "how does it end?")
        return gpu.run_check(check, limit_s, [sys.executable, "-c", code], tmp_path)

    return run


ANSWERS = "json.dump({'status': 'passed', 'line': '7 of 7', 'figures': {'a': 1}}, answer, );"
ANSWERS += "answer.flush();"


def gpu_script(*options, out_dir):
    return subprocess.run(
        ["bash", str(BENCHMARKS / "gpu.sh"), "--cpu", *options],
        env={**os.environ, "PYTHON": sys.executable, "OUT": str(out_dir), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=550,
    )


# ---- one check --------------------------------------------------------------------------------


def test_what_a_check_answers_is_its_outcome(run):
    outcome = run(ANSWERS)
    assert (outcome.status, outcome.line, outcome.figures) == ("passed", "7 of 7", {"a": 1})
    assert outcome.said == ""


def test_a_check_that_hangs_is_stopped_with_its_children_and_keeps_what_it_knew(run, tmp_path):
    child = tmp_path / "child"
    outcome = run(
        f"{ANSWERS} process = subprocess.Popen(['sleep', '600']);"
        f"open({str(child)!r}, 'w').write(str(process.pid)); time.sleep(600)",
        limit_s=3.0,
    )
    assert outcome.status == "failed" and outcome.line == "stopped after its 3 s; 7 of 7"
    assert outcome.figures == {"a": 1}
    assert is_gone(int(child.read_text()))


def is_gone(pid):
    """Return whether the process ended; it may be a zombie until its new parent looks."""
    for _ in range(100):
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return True
        if stat.rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_a_check_that_is_killed_is_told_with_the_signal(run):
    outcome = run(f"{ANSWERS} os.kill(os.getpid(), signal.SIGSEGV)")
    assert outcome.status == "failed" and outcome.line == "killed by SIGSEGV; 7 of 7"


def test_a_check_that_dies_before_it_answers_is_told_with_its_last_words(run):
    outcome = run("answer.close(); os.remove(answer.name); raise SystemExit('no CUDA here')")
    assert outcome.status == "failed"
    assert outcome.line == "ended with exit code 1; it never answered"
    assert "no CUDA here" in outcome.said


def test_a_package_that_is_missing_leaves_its_checks_out(gpu, tmp_path):
    code = """
import runpy, sys
sys.modules["pydantic"] = None  # as if it were not installed
runpy.run_module("gpu_checks", run_name="__main__", alter_sys=True)
"""
    command = [sys.executable, "-c", code, "step", "--device", "cpu", "--scratch", str(tmp_path)]
    outcome = gpu.run_check(gpu.Check("step", 60, ""), 60, command, tmp_path)
    assert (outcome.status, outcome.line) == ("left out", "pydantic is not installed here")


# ---- all of them ------------------------------------------------------------------------------


def test_every_check_has_its_module_and_the_whole_stays_under_nine_minutes(gpu):
    modules = {path.stem for path in (BENCHMARKS / "gpu_checks").glob("*.py")}
    assert {check.name for check in gpu.CHECKS} <= modules
    assert gpu.BUDGET_S + 10 < 540
    for check in gpu.CHECKS:
        assert "def check(asked: Asked, answer: Answer)" in (
            BENCHMARKS / "gpu_checks" / f"{check.name}.py"
        ).read_text(encoding="utf-8")


def test_no_check_gets_more_than_what_is_left_and_the_last_ones_are_left_out_aloud(gpu):
    now, limits = [0.0], []

    def run(check, limit_s):
        limits.append(limit_s)
        now[0] += limit_s
        return gpu.Outcome(check.name, check.asks, "passed", "")

    checks = [gpu.Check(name, 60, "") for name in "abc"]
    outcomes = list(gpu.run_all(checks, run, budget_s=100, clock=lambda: now[0]))
    assert limits == [60, 40]
    assert [outcome.status for outcome in outcomes] == ["passed", "passed", "left out"]
    assert outcomes[2].line == "not reached: the 100 s of all checks are used up"


def test_a_failed_check_stops_no_other_and_makes_the_exit_code_1(
    gpu, tmp_path, monkeypatch, capsys
):
    checks = (gpu.Check("no_such_check", 60, ""), gpu.Check("machine", 60, ""))
    monkeypatch.setattr(gpu, "CHECKS", checks)
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--cpu"])
    assert gpu.main() == 1
    printed = capsys.readouterr().out
    assert "1 failed, 1 passed" in printed and f"torch {torch.__version__}" in printed
    report = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert report["data"] == "drawn patches: no folder was given"
    failed, machine = report["checks"]
    assert failed["status"] == "failed"
    assert "No module named 'gpu_checks.no_such_check'" in failed["line"]
    assert machine["status"] == "passed" and machine["figures"]["packages"]["pydantic"]


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    done = gpu_script("--data", str(tmp_path / "nowhere"), out_dir=tmp_path)
    assert done.returncode == 2
    assert "nowhere is no folder" in done.stderr


@pytest.mark.slow
def test_every_check_can_be_tried_on_a_cpu(tmp_path):
    done = gpu_script(out_dir=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())["checks"]
    left_out = {each["name"] for each in found if each["status"] == "left out"}
    assert left_out <= {"suite", "transfer", "compiled", "golden"}


# ---- rates ------------------------------------------------------------------------------------


def test_sides_take_turns_and_the_first_round_warms_up(turns):
    now, order = [0.0], []

    def side(name, seconds, patches):
        def work():
            order.append(name)
            now[0] += seconds * (10 if order.count(name) == 1 else 1)  # slow the first time
            return patches

        return work

    sides = {"a": side("a", 1.0, 100), "b": side("b", 2.0, 100)}
    rates = turns.in_turns(sides, torch.device("cpu"), seconds=16.0, clock=lambda: now[0])
    assert rates == {"a": [100.0] * 6, "b": [50.0] * 6}
    assert order == ["a", "b"] * 7
    assert turns.medians(rates) == {"a": 100.0, "b": 50.0}


def test_a_ratio_is_the_median_of_the_ratios_of_the_rounds(turns):
    assert turns.ratio([10, 40, 30], [10, 20, 30]) == 1.0  # of the medians it would be 1.5
