"""Jobs that are left alone, killed or started twice, each in a folder and a process of its own."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import one_job
from forked import context
from one_job import check_logs, do_job, newest_run
from run_bits import final_bits
from tiny_pcam import write_config, write_tiny_pcam

from ml_core.runs import read_json

PATIENCE_S = 300


class Jobs:
    """Makes jobs on one data set, and knows what one that was left alone computes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = write_tiny_pcam(folder / "data", one_job.NUM_TRAIN, one_job.NUM_VALID)
        self._num = 0
        first = context().Process(target=time.sleep, args=(0,))  # it waits for the server of forks
        first.start()
        first.join()
        straight = self.new()
        started = time.monotonic()
        assert finish(straight) == 0, output_of(straight)
        self.seconds = time.monotonic() - started
        self.bits = results(straight)
        files = [path for path in (straight.parent / "runs").rglob("*") if path.is_file()]
        self.num_bytes = sum(path.stat().st_size for path in files)

    def new(self, **data: int) -> Path:
        """Return the config of a job that has not begun."""
        self._num += 1
        folder = self.folder / f"job-{self._num}"
        folder.mkdir()
        settings = {**one_job.SETTINGS, "data": {**one_job.SETTINGS["data"], **data}}
        return write_config(folder / "config.yaml", self.data, **settings)


@functools.cache
def shared_jobs(folder: Path) -> Jobs:
    """Return the jobs that all fault tests of this process share; made in `folder` by the first."""
    (folder / "jobs").mkdir()
    return Jobs(folder / "jobs")


def start(
    config: Path,
    change: Callable[[], None] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Any:
    """Start the job in a process of its own; `change` switches something off there."""
    child = context().Process(target=do_job, args=(config, environment, change))
    child.start()
    return child


def finish(config: Path, change: Callable[[], None] | None = None) -> int:
    """Let the job end; return its exit code."""
    child = start(config, change)
    child.join(PATIENCE_S)
    assert child.exitcode is not None, "the job hangs"
    return int(child.exitcode)


def output_of(config: Path) -> str:
    """Return the end of what the job has printed."""
    output = config.parent / "output.log"
    return output.read_text()[-2000:] if output.is_file() else ""


def results(config: Path) -> tuple[object, ...]:
    """Return what the job's run computed and its scores; see that its logs and report are whole."""
    run = newest_run(config.parent)
    assert run is not None
    check_logs(run)
    assert run.report_path.is_file()
    scores = {key: value for key, value in read_json(run.metrics_path).items() if key != "run_id"}
    return (*final_bits(run), scores)
