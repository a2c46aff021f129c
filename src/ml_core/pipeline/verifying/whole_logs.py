"""A run's logs as training leaves them: each step once, and all of them as far as the run went."""

from __future__ import annotations

from pathlib import Path

from ml_core.errors import RunError
from ml_core.runs import RunDir, read_jsonl
from ml_core.tracking.chain import check_chain

_ADVICE = "it was changed after the run. Put it back as it was."


def check_logs(run: RunDir, *, is_over: bool) -> None:
    """Raise RunError naming the log in which a line is missing, and the step.

    The logs of a run that `is_over` all end with its last step; one that was killed may have come
    further in one than in another. Without a chain a run is of before chains.
    """
    links = list(read_jsonl(run.chain_path))
    check_chain(run.chain_path, links)
    ends = {
        run.steps_log_path: _last_of_all(run.steps_log_path),
        run.metrics_log_path: max((e["step"] for e in read_jsonl(run.metrics_log_path)), default=0),
    }
    if run.chain_path.is_file():
        ends[run.chain_path] = links[-1]["step"] if links else 0
    longest = max(ends, key=lambda path: ends[path])
    for path, end in ends.items():
        if is_over and end < ends[longest]:
            raise RunError(
                f"{path} ends at step {end}, {longest.name} at step {ends[longest]}: {_ADVICE}"
            )


def _last_of_all(path: Path) -> int:
    """Return the last step of the log, 0 without one; raises RunError where one is left out."""
    last = 0
    for record in read_jsonl(path):
        if record.get("step") != last + 1:
            raise RunError(f"{path} goes on with step {record.get('step')} after {last}: {_ADVICE}")
        last += 1
    return last
