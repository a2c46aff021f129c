"""A small training as a job of the test cluster: held at a step, disturbed, and looked at."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cluster import Cluster
from run_bits import final_bits
from tiny_pcam import write_config

from ml_core.cluster.job_request import JobRequest
from ml_core.cluster.job_script import render_script
from ml_core.cluster.profile import load_profile
from ml_core.lease import Generation, Lineage
from ml_core.runs import RunDir, RunRecord, read_jsonl

STEPS_PER_EPOCH, EPOCHS, INTERVAL = 4, 3, 2
NUM_STEPS = STEPS_PER_EPOCH * EPOCHS
NUM_TRAIN, NUM_VALID, BATCH_SIZE = 64, 32, 16
SECTIONS = {
    "data": {"batch_size": BATCH_SIZE},
    "model": {"hidden_units": [4]},
    "training": {"epochs": EPOCHS, "num_threads": 1, "checkpoint_every": INTERVAL},
}
PATIENCE_S = 300  # seven begin at once on a core, and a requeued one waits before it does
WITHOUT_SLURM = {name: text for name, text in os.environ.items() if not name.startswith("SLURM_")}
# Stands for the interpreter of a venv. Where the job's folder has broken-NODE, that node is.
PYTHON = """\
#!/bin/bash
broken=$(cat {folder}/broken-"$SLURMD_NODENAME" 2>/dev/null)
[[ $broken != python ]] || exit 127
if [[ "$1 $2" == "-m ml_core" ]]; then
  [[ $broken != ml-core ]] || exit 1
  shift 2
  set -- {paced} {folder} "$@"
fi
exec {python} "$@"
"""


def config_in(folder: Path, data: Path, /, **sections: dict[str, Any]) -> Path:
    """Write the config of a training of NUM_STEPS steps into a new folder; `sections` add keys."""
    folder.mkdir(parents=True)
    names = {*SECTIONS, *sections}
    merged = {name: {**SECTIONS.get(name, {}), **sections.get(name, {})} for name in names}
    return write_config(folder / "config.yaml", data, **merged)


def train_here(config: Path) -> RunDir:
    """Train without Slurm, undisturbed; return the run."""
    command = [sys.executable, "-m", "ml_core", "train", str(config)]
    done = subprocess.run(
        command, env={**WITHOUT_SLURM, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = config.parent.glob("runs/tiny/*")
    return RunDir(path)


class TrainingJob:
    """The job of one config, in the folder of that: there are its log, its runs and its gates.

    Slurm starts it again under the same id, so a gate is of one `start`: 0, then 1, and so on.
    """

    def __init__(self, slurm: Cluster, config: Path, *words: str) -> None:
        self.slurm, self.config, self.folder = slurm, config, config.parent
        self.words = words or ("train", str(config))
        self.id = ""

    def submit(
        self,
        *options: str,
        partition: str = "long",
        time: str = "01:00:00",
        **changes: Any,
    ) -> None:
        """Give it to Slurm, `options` to sbatch; `changes` are of the JobRequest."""
        python = self.folder / "python"
        paced = Path(__file__).with_name("paced_ml_core.py")
        python.write_text(PYTHON.format(folder=self.folder, paced=paced, python=sys.executable))
        python.chmod(0o755)
        asked: dict[str, Any] = {
            "name": "job", "arguments": self.words, "folder": self.folder, "python": python,
            "python_version": platform.python_version(), "mem_mb": 1000, "cpus": 1,
            "resume_dir": self.folder / "runs" / "tiny",
        }  # fmt: skip
        self.request = JobRequest(**{**asked, **changes})
        profile = load_profile(
            "generic-cpu", [f"partition={partition}", f"time={time}", "signal_s=30"]
        )
        self.id = self.slurm.sbatch(render_script(self.request, profile), *options)

    def hold(self, step: int, *, start: int = 0) -> None:
        """Let it wait after `step`, until it is released or told to stop."""
        (self.folder / f"gate-{start}").write_text(str(step))

    def release(self, *, start: int = 0) -> None:
        (self.folder / f"gate-{start}").unlink()

    def wait_until_held(self, *, start: int = 0) -> None:
        """Return once it waits; fails with its log where it does not come so far."""
        at = self.folder / f"at-{start}"
        self.wait_for(at.exists, f"start {start} waits")

    def wait_for_log(self, text: str) -> None:
        self.wait_for(lambda: text in self.log, f"the log has {text!r}")

    def wait_for(self, holds: Callable[[], bool], what: str) -> None:
        """Return once `holds` does; fails with the job's state and log where it does not."""
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            state = self.state["JobState"]
            has_ended = state in ("FAILED", "CANCELLED", "TIMEOUT") and not holds()
            assert not has_ended and time.monotonic() < deadline, (
                f"job {self.id} is {state}, in vain until {what}:\n{self.log[-2000:]}"
            )
            time.sleep(0.3)

    def ends_as(self, state: str) -> dict[str, str]:
        """Return what Slurm knows of it once it has ended; fails where that is not `state`."""
        return self.slurm.wait(self.id, state, timeout_s=PATIENCE_S)

    @property
    def state(self) -> dict[str, str]:
        """What Slurm knows of it now."""
        return self.slurm.show(self.id)

    @property
    def log(self) -> str:
        path = self.request.log_path(self.id)
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def runs(self) -> list[RunDir]:
        """Its runs, the oldest first."""
        found = [RunDir(path.parent) for path in self.folder.glob("runs/tiny/*/generation.json")]
        return sorted(found, key=lambda run: generations(run)[0].started_at)

    @property
    def run(self) -> RunDir:
        """Its run; fails where it has none, or more than one."""
        (run,) = self.runs
        return run


def in_groups(number: int, size: int) -> Iterator[range]:
    """Yield the draws 0, 1, ... in groups of at most `size`, which run at the same time."""
    for start in range(0, number, size):
        yield range(start, min(start + size, number))


def check_completed(run: RunDir, bits: Sequence[object]) -> None:
    """Fail unless the run is complete, logged each step and epoch once, and has these `bits`."""
    record = RunRecord.load(run)
    assert (record.status, record.error) == ("completed", None)
    steps = [line["step"] for line in read_jsonl(run.steps_log_path)]
    epochs = [line["epoch"] for line in read_jsonl(run.metrics_log_path)]
    assert steps == list(range(1, NUM_STEPS + 1)), f"logged steps {steps}"
    assert epochs == list(range(1, EPOCHS + 1)), f"logged epochs {epochs}"
    assert final_bits(run) == bits, "other bits than those of the undisturbed run"


def generations(run: RunDir) -> tuple[Generation, ...]:
    """Return the processes that trained in the run, in order."""
    return Lineage.read(run.lease_path).generations


def went_on_at(run: RunDir) -> list[int | None]:
    """Return the step at which each process that trained in the run began."""
    return [each.taken_over_at_step for each in generations(run)]
