"""ExperimentTracker: what a run logs, in local files only."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from ml_core.runs import RunDir, RunRecord, read_jsonl, utc_now, write_text
from ml_core.tracking.event_file import EventFile
from ml_core.tracking.log_file import LogFile

NOT_VALUES = ("step", "epoch", "time")  # the keys of a log line that say when, not what


class ExperimentTracker:
    """Logs a run: metrics.jsonl per epoch, steps.jsonl per step, TensorBoard events of both.

    gradients.jsonl holds the gradient norm of each layer, per step.

    It writes into `run`; without one it makes `base_dir/experiment_name` (or `-2`, `-3`, ...: never
    a directory that exists) with its config.yaml and run.json, whose status `close` settles.
    A log that cannot be written raises OSError at once; trouble with TensorBoard is one warning.
    Nothing here touches a network: ml_core.tracking.mlflow_sync feeds MLflow from these files.
    """

    def __init__(
        self,
        experiment_name: str,
        config: Mapping[str, Any],
        base_dir: str | Path = "experiments/results",
        *,
        run: RunDir | None = None,
        tensorboard: bool = True,
    ) -> None:
        self._record: RunRecord | None = None
        if run is None:
            run = RunDir.create(Path(base_dir), experiment_name)
            seed = int(config.get("seed") or 0)
            self._record = RunRecord(experiment_name, seed, command="ExperimentTracker")
            self._record.save(run)
        self.run = run
        if not run.config_path.exists():
            plain = json.loads(json.dumps(config, default=str))
            write_text(run.config_path, yaml.safe_dump(plain, sort_keys=False))
        self._metrics = LogFile(run.metrics_log_path)
        self._steps = LogFile(run.steps_log_path)
        self._gradients = LogFile(run.gradients_log_path)
        self._events = EventFile(run.tensorboard_dir) if tensorboard else None

    def log_metrics(
        self, epoch: int, metrics: Mapping[str, float], *, step: int | None = None
    ) -> None:
        """Write the line of an epoch (from 1); on return it would survive a power cut.

        `step` is the number of the epoch's last step: what `truncate` goes by on resume.
        """
        when = {"epoch": epoch} if step is None else {"epoch": epoch, "step": step}
        record = self._metrics.append({**when, "time": utc_now(), **metrics})
        self._metrics.sync()
        self._steps.sync()
        self._show("epoch", epoch, record)
        if self._events is not None:
            self._events.flush()

    def log_step(self, step: int, values: Mapping[str, float], *, epoch: int | None = None) -> None:
        """Write the line of a step (from 1); on return it would survive a kill of this process."""
        when = {"step": step} if epoch is None else {"step": step, "epoch": epoch}
        record = self._steps.append({**when, "time": utc_now(), **values})
        self._show("step", step, record)

    def log_gradients(
        self, step: int, norms: Mapping[str, float], *, epoch: int | None = None
    ) -> None:
        """Write the gradient norm of each layer at a step, to its own file.

        Neither TensorBoard nor MLflow gets them: a value per layer and step would be most of what
        they hold. Five digits are kept, which a plot cannot show.
        """
        when = {"step": step} if epoch is None else {"step": step, "epoch": epoch}
        short = {layer: float(f"{norm:.5g}") for layer, norm in norms.items()}
        self._gradients.append({**when, **short})

    def flush(self) -> None:
        """Return when every line would survive a power cut; call it before saving a checkpoint."""
        for log in (self._metrics, self._steps, self._gradients):
            log.sync()
        if self._events is not None:
            self._events.flush()

    def truncate(self, after_step: int, after_epoch: int | None = None) -> None:
        """Forget what was logged later than a checkpoint, so that a resume logs each step once.

        Lines with a step beyond `after_step` go, and the lines of epochs beyond `after_epoch`, the
        last one that was over. The TensorBoard events are written anew from the lines that stay.
        Raises RunError when a log is damaged before that.
        """

        def is_enough(record: dict[str, Any]) -> bool:
            return bool(record.get("step", 0) >= after_step)

        def is_step_wanted(record: dict[str, Any]) -> bool:
            return bool(record.get("step", 0) <= after_step)

        def is_last_epoch(record: dict[str, Any]) -> bool:
            return is_enough(record) or record.get("epoch") == after_epoch

        def is_epoch_wanted(record: dict[str, Any]) -> bool:
            is_over = after_epoch is None or record.get("epoch", 0) <= after_epoch
            return is_over and is_step_wanted(record)

        self._steps.keep(is_step_wanted, is_enough=is_enough)
        self._gradients.keep(is_step_wanted, is_enough=is_enough)
        self._metrics.keep(is_epoch_wanted, is_enough=is_last_epoch, needs_none=after_epoch == 0)
        if self._events is not None:
            self._events.start_over()
            for record in read_jsonl(self.run.steps_log_path):
                self._show("step", record["step"], record)
            for record in read_jsonl(self.run.metrics_log_path):
                self._show("epoch", record["epoch"], record)
            self._events.flush()

    def get_checkpoint_path(self, filename: str) -> str:
        """Return the path of `filename` in the run's folder of checkpoints, which then exists."""
        self.run.checkpoints_dir.mkdir(parents=True, exist_ok=True)
        return str(self.run.checkpoints_dir / filename)

    def close(self, status: str = "completed") -> None:
        """Close the logs; `status` goes to run.json if this tracker made the run."""
        if self._events is not None:
            self._events.close()
        for log in (self._metrics, self._steps, self._gradients):
            log.close()
        if self._record is not None:
            self._record.status, self._record.ended_at = status, utc_now()
            self._record.save(self.run)
            self._record = None

    def __enter__(self) -> ExperimentTracker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close("completed" if kind is None else "failed")

    def _show(self, x_axis: str, position: int, record: Mapping[str, Any]) -> None:
        """Add a log line to TensorBoard as `epoch/val_loss`, `step/loss`, ..."""
        if self._events is not None:
            values = {f"{x_axis}/{k}": v for k, v in record.items() if k not in NOT_VALUES}
            wall_time = dt.datetime.fromisoformat(record["time"]).timestamp()
            self._events.add_scalars(position, wall_time, values)
