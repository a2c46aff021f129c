"""One job of a scheduler: it trains a config to its end, from wherever the last one was stopped."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from ml_core.checkpoint import load_last
from ml_core.config import Config
from ml_core.errors import CheckpointError, in_words
from ml_core.pipeline.evaluate import evaluate
from ml_core.pipeline.report import report
from ml_core.pipeline.train import resume, train
from ml_core.runs import RunDir, RunRecord, read_jsonl

STEPS_PER_EPOCH, EPOCHS, INTERVAL = 4, 3, 2
NUM_TRAIN, NUM_VALID, BATCH_SIZE = 64, 32, 16
SETTINGS = {
    "data": {"batch_size": BATCH_SIZE},
    "model": {"hidden_units": [4]},
    "training": {
        "epochs": EPOCHS,
        "num_threads": 1,
        "checkpoint_every": INTERVAL,  # the end of an epoch is one of these steps
        "chain_every": 3,
    },
}


def do_job(
    config_path: Path,
    environment: Mapping[str, str] | None = None,
    change: Callable[[], None] | None = None,
) -> None:
    """Train, evaluate and report; `change` switches something off before.

    Exits with 2 where that raised what a user can mend, as the command line does.
    """
    # As in a process of the command line. Readers that this child's own way of starting processes
    # would give it have another parent, and so outlive a kill.
    multiprocessing.set_start_method("fork", force=True)
    os.environ.update(environment or {})
    folder = config_path.parent
    with open(folder / "output.log", "ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    if change is not None:
        change()
    try:
        run = _train_to_the_end(Config.load(config_path), folder)
        _say(folder, "evaluate")
        evaluate(run)
        _say(folder, "report")
        report([run])
        _say(folder, "done")
    except Exception as error:
        told = in_words(error)
        if told is None:
            raise
        print(f"error: {told}", file=sys.stderr, flush=True)
        os._exit(2)


def _train_to_the_end(config: Config, folder: Path) -> Path:
    _say(folder, "start")
    run = newest_run(folder)
    if run is not None:
        if RunRecord.load(run).status == "completed":
            return run.path
        try:
            _say(folder, "train")
            resume(run.path, command="a test")
            return run.path
        except CheckpointError as error:
            if "holds no checkpoint" not in str(error):
                raise
    _say(folder, "train")
    train(config, command="a test")
    found = newest_run(folder)
    assert found is not None
    return found.path


def _say(folder: Path, phase: str) -> None:
    (folder / "phase").write_text(phase)


def phase_of(config_path: Path) -> str:
    """Return what the job was at: start, train, evaluate, report or done."""
    phase = config_path.parent / "phase"
    return phase.read_text() if phase.is_file() else "start"


def newest_run(folder: Path) -> RunDir | None:
    """Return the run that was begun last and has a record, if any."""
    records = sorted(folder.glob("runs/tiny/*/run.json"), key=lambda path: _age(path.parent.name))
    return RunDir(records[-1].parent) if records else None


def _age(name: str) -> tuple[str, int]:
    """Return what sorts names of runs of the same second: NAME, NAME-2, ..., NAME-10."""
    stamp, _, number = name.partition("-seed42")
    return stamp, int(number.removeprefix("-") or 1)


def num_lost_steps(folder: Path) -> int:
    """Return how many steps were taken, and logged, that no checkpoint of the newest run has."""
    run = newest_run(folder)
    if run is None:
        return 0
    steps = [line["step"] for line in read_jsonl(run.steps_log_path)]
    try:
        saved = load_last(run.checkpoints_dir).state["train"]["step"]
    except CheckpointError:
        saved = 0
    return max(steps, default=0) - saved


def check_logs(run: RunDir) -> None:
    """Fail unless each step and each epoch of the whole run is logged once, in order."""
    steps = [line["step"] for line in read_jsonl(run.steps_log_path)]
    layers = [line["step"] for line in read_jsonl(run.gradients_log_path)]
    epochs = [line["epoch"] for line in read_jsonl(run.metrics_log_path)]
    assert steps == layers == list(range(1, STEPS_PER_EPOCH * EPOCHS + 1)), f"steps {steps}"
    assert epochs == list(range(1, EPOCHS + 1)), f"epochs {epochs}"
