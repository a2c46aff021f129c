"""Whether the tests that a CPU skips pass: all of the files that have such tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from gpu_checks.answer import Answer
from gpu_checks.asked import Asked

ROOT = Path(__file__).resolve().parents[2]
SKIPS = "skipif(not torch.cuda.is_available()"
NOT_THESE = "not slow and not faults and not slurm"


def check(asked: Asked, answer: Answer) -> None:
    files = [
        path for path in sorted((ROOT / "tests").glob("test_*.py"))
        if SKIPS in path.read_text(encoding="utf-8") and path.name != "test_gpu_script.py"
    ]  # fmt: skip
    names = ", ".join(path.name for path in files)
    if asked.device.type != "cuda" or not files:
        answer.settle("left out", f"a CPU skips what needs a GPU in {names or 'no file'}")
        return
    import pytest  # only to know that it is there

    command = [
        sys.executable, "-m", "pytest", "-q", "-rs", "-m", NOT_THESE, "-p", "no:cacheprovider",
        "--basetemp", str(asked.scratch / "pytest"), *map(str, files),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    answer.note(pytest=pytest.__version__, files=names, said=done.stdout[-2000:])
    last = " ".join(done.stdout.strip().splitlines()[-1:])
    answer.judge(done.returncode == 0, f"{last} in {names}")
