"""What a trial did, read from the files of its run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ml_core.runs import RunDir, RunRecord, read_jsonl
from ml_core.search.deed import NUM_FIRST_STEPS, Deed, digest

WHOLE = ("completed", "stopped_early")
# Of a log's record: what depends on the machine and the hour, not on what was computed.
CLOCK_KEYS = {"time", "seconds", "patches_per_s", "train_patches_per_s"}


def deed_of_run(run: RunDir) -> Deed:
    """Return the deed of `run`: the loss of every step and the metrics of every epoch.

    Raises RunError where its record or a log is damaged.
    """
    record = RunRecord.load(run)
    steps = list(read_jsonl(run.steps_log_path))
    epochs = list(read_jsonl(run.metrics_log_path))
    first = steps[:NUM_FIRST_STEPS]
    return Deed(
        batch_shape=tuple(record.first_batch.get("shape", ())),
        num_patches=int(record.data.get("train", {}).get("num_patches", 0)),
        steps_per_epoch=sum(step["epoch"] == 1 for step in steps),
        num_epochs=len(epochs),
        num_parameters=int(record.model.get("num_parameters", 0)),
        losses=tuple(number(step["loss"]) for step in first),
        grad_norm=number(first[-1].get("grad_norm")) if first else number(None),
        learning_rates=digest([step.get("learning_rate") for step in steps]),
        val_loss=number(epochs[0].get("val_loss")) if epochs else number(None),
        history=_history(steps, epochs),
        is_whole=record.status in WHOLE,
    )


def number(value: float | None) -> float:
    """Return `value`, NaN for the null that a log has in its place."""
    return float("nan") if value is None else float(value)


def _history(steps: Sequence[Mapping[str, Any]], epochs: Sequence[Mapping[str, Any]]) -> str:
    computed = [
        sorted((key, value) for key, value in record.items() if key not in CLOCK_KEYS)
        for record in (*steps, *epochs)
    ]
    return digest(computed)
