"""What a run computed, to the bit, and nothing of when or how fast."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ml_core.checkpoint import load_last
from ml_core.runs import RunDir, read_jsonl

OF_THE_MOMENT = ("time", "seconds", "train_patches_per_s", "patches_per_s", "crc")


def final_bits(run: RunDir) -> tuple[str, str, str]:
    """Return the digests of the last weights, the optimizer's state and all that was logged."""
    checkpoint = load_last(run.checkpoints_dir)
    optimizer = (checkpoint.path / "optimizer.safetensors").read_bytes()
    logged = [computed(path) for path in (run.steps_log_path, run.metrics_log_path)]
    return checkpoint.weights_sha256, _sha256(optimizer), _sha256(json.dumps(logged).encode())


def computed(log: Path) -> list[dict[str, Any]]:
    """Return the lines of a log in their order, without what differs between two equal runs."""
    return [
        {key: value for key, value in line.items() if key not in OF_THE_MOMENT}
        for line in read_jsonl(log)
    ]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
