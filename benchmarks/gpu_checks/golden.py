"""Whether portable training has the committed bits on the GPU: benchmarks/golden_hash.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from gpu_checks.answer import Answer
from gpu_checks.asked import Asked

SCRIPT = Path(__file__).resolve().parents[1] / "golden_hash.py"
DIFFERENT = 3  # its exit code


def check(asked: Asked, answer: Answer) -> None:
    if asked.is_tiny:
        answer.settle("left out", "tests/test_golden_hash.py does it on a CPU")
        return
    told = asked.scratch / "golden-hashes.json"
    command = [
        sys.executable, str(SCRIPT), "--device", "cuda", "--optimizer", "adamw", "--out", str(told),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, DIFFERENT):
        print(done.stderr)
        raise RuntimeError(f"golden_hash.py ended with {done.returncode}: {done.stderr[-300:]}")
    found = json.loads(told.read_text(encoding="utf-8"))
    answer.note(differences=found["differences"], machine=found["machine"], native=found["native"])
    answer.judge(
        not found["differences"],
        "; ".join(found["differences"]) or "parts and weights are the committed ones, bit for bit",
    )
