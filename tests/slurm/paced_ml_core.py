"""`python -m ml_core ARGUMENTS` whose training waits where a test wants to disturb it.

    python tests/slurm/paced_ml_core.py FOLDER train config.yaml

Before each step it looks at FOLDER/gate-0 (gate-1 once Slurm has started the job again, and so on):
after the step that is written there it goes no further while that file is there, unless it is asked
to stop; EVALUATION is the step before a trained run is evaluated. FOLDER/at-0 says where it waits.
Nothing else differs, and what waits costs nothing: many such jobs share a core.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_core.pipeline.run
from ml_core.cli import main
from ml_core.solver.trainer import Trainer

EVALUATION = 1_000_000


class Gate:
    """Where the training of this process waits."""

    def __init__(self, folder: Path) -> None:
        restart = os.environ.get("SLURM_RESTART_COUNT", "0")
        self._gate, self._at = folder / f"gate-{restart}", folder / f"at-{restart}"

    def wait(self, step: int, is_told_to_stop: Callable[[], bool]) -> None:
        """Return when the next step may be taken after `step`."""
        while (held_at := self._read()) is not None and step >= held_at and not is_told_to_stop():
            if not self._at.exists():
                self._at.write_text(str(step))
            time.sleep(0.05)

    def _read(self) -> int | None:
        try:
            return int(self._gate.read_text())
        except FileNotFoundError:
            return None


def pace(gate: Gate) -> None:
    """Make every training and evaluation of this process wait at `gate`."""
    take_step, evaluate = Trainer.train_step, ml_core.pipeline.run.evaluate

    def paced_step(trainer: Trainer, group: Any) -> float:
        gate.wait(trainer.state.step, lambda: bool(trainer._stop))
        return take_step(trainer, group)

    def paced_evaluate(*arguments: Any, **options: Any) -> dict[str, Any]:
        gate.wait(EVALUATION, lambda: False)  # asked to stop, it is left by an exception
        return evaluate(*arguments, **options)

    Trainer.train_step = paced_step  # type: ignore[method-assign]  # that is the point
    ml_core.pipeline.run.evaluate = paced_evaluate


if __name__ == "__main__":
    pace(Gate(Path(sys.argv[1])))
    sys.argv = ["ml-core", *sys.argv[2:]]  # what the run's record calls its command
    main()
