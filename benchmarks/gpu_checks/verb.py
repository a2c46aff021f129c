"""Whether `ml-core benchmark` works on the GPU, and what it says bounds the recipe."""

from __future__ import annotations

import json
from pathlib import Path

from gpu_checks.answer import Answer
from gpu_checks.asked import Asked
from gpu_checks.recipe import load_recipe, write_noise
from ml_core.pipeline.benchmark import benchmark

NEEDED_S = 20.0  # for one of them


def check(asked: Asked, answer: Answer) -> None:
    num = 192 if asked.is_tiny else 5000
    data_dir = asked.data_dir or write_noise(asked.scratch / "verb", num, 64)
    lines = []
    for placement in ("file",) if asked.is_tiny else ("file", "gpu"):
        if asked.left_s < NEEDED_S:
            break
        config = load_recipe(
            asked, data_dir, f"data.placement={placement}", "data.on_findings=ignore",
            f"data.audit_dir={asked.scratch / 'audit'}", f"output_dir={asked.scratch / 'runs'}",
        )  # fmt: skip
        found = benchmark(
            config,
            quick=True,
            sizes=(1, 16) if asked.is_tiny else (1, 64, 512),
            seconds=0.3 if asked.is_tiny else 1.0,
            out=asked.scratch / f"benchmark-{placement}",
        )
        record = json.loads((Path(found["folder"]) / "benchmark.json").read_text(encoding="utf-8"))
        answer.note(**{placement: {**found, "end_to_end": record["end_to_end"]}})
        lines.append(f"{placement}: {found['sentence']}")
        answer.settle("measured", " ".join(lines))
