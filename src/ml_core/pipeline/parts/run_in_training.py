"""Training in a run's directory: everything is wired together, fitted, and left on record.

Rank 0 writes: checkpoints, logs, the record. The other ranks build the same and take their part.
"""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import dataclass
from typing import Any

from ml_core.checkpoint import Checkpoint, load_best
from ml_core.config import Config
from ml_core.data.loader import PatchLoader
from ml_core.data.worker_faults import explained
from ml_core.distributed import ALONE, Ranks
from ml_core.errors import MLCoreError, RunError, TrainingError
from ml_core.findings import Finding
from ml_core.lease import Lease
from ml_core.log import shown
from ml_core.models import PatchClassifier, build_from_spec, describe_model
from ml_core.pipeline.parts.device import choose_device
from ml_core.pipeline.parts.elsewhere import elsewhere_findings
from ml_core.pipeline.parts.finished_run import result_of
from ml_core.pipeline.parts.ranks import Invitation
from ml_core.pipeline.parts.same_on_ranks import facts_here
from ml_core.pipeline.parts.splits import inference_loader, open_split, run_exclusions
from ml_core.pipeline.parts.training_parts import build_trainer
from ml_core.runs import RunDir, RunRecord, utc_now
from ml_core.solver import Trainer
from ml_core.solver.interrupt import StopRequest
from ml_core.solver.state import FitResult
from ml_core.solver.trainer import OnEpoch
from ml_core.tracking import ExperimentTracker, finish_sync, start_sync
from ml_core.tracking.chain import Chain

logger = logging.getLogger("ml_core.train")


@dataclass(frozen=True)
class RunInTraining:
    """A run with what is needed to train in it, from its start or on from a checkpoint."""

    run: RunDir
    record: RunRecord
    config: Config
    checkpoint: Checkpoint | None = None
    ranks: Ranks = ALONE

    def train(self, lease: Lease, on_epoch: OnEpoch | None = None) -> dict[str, Any]:
        """Train as the rank that writes, and return what `result_of` does.

        Signals are heard until all is written: Slurm tells of a time limit once, and that must
        neither end this process nor be forgotten.
        """
        with StopRequest() as stop:
            fitted = self._fit_and_record(lease, on_epoch, stop)
            told_to_stop = fitted.told_to_stop or bool(stop)
            return result_of(self.run, self.record, told_to_stop=told_to_stop)

    def take_part(self) -> FitResult:
        """Train as one of the other ranks, which write nothing."""
        trainer, batches, valid = self._build()
        return trainer.fit(batches, valid)

    def _fit_and_record(
        self, lease: Lease, on_epoch: OnEpoch | None, stop: StopRequest
    ) -> FitResult:
        """Fit, and leave the record as it ended, whatever happens."""
        run, record, config = self.run, self.record, self.config
        logger.info("run    %s", shown(run.path))
        started = time.monotonic()
        record.save(run)  # before the syncer looks, which leaves a run that is not running
        sync = start_sync(run, config.tracking.mlflow_uri) if config.tracking.mlflow_uri else None
        try:
            self._invite()
            with explained():  # torch raises a reader's death wherever this process happens to be
                result = self._fit(lease, on_epoch, stop)
            record.status = result.status
            record.findings = [*result.findings, *elsewhere_findings(record)]
        except BaseException as error:
            self._note_error(error)
            if isinstance(error, OSError):
                raise _explain_os_error(error, run) from error
            raise
        finally:
            record.ended_at = utc_now()
            record.duration_s += time.monotonic() - started
            # a full disk must not hide the first error, nor a fenced process overwrite the record
            with contextlib.suppress(OSError, RunError):
                lease.check()
                record.save(run)
            if sync is not None and not record.study:  # what a trial lacks, its study sends
                logger.info("%s", finish_sync(sync).message)
        self._tell_end()
        return result

    def _invite(self) -> None:
        """Tell the other ranks, if there are any, what to train."""
        if self.ranks.world_size > 1:
            path = self.checkpoint.path if self.checkpoint else None
            self.ranks.share_text(Invitation(self.run, path, facts_here(self.config)).to_text())

    def _note_error(self, error: BaseException) -> None:
        """Keep in the record how the training failed."""
        record = self.record
        record.status = "diverged" if isinstance(error, TrainingError) else "failed"
        if isinstance(error, KeyboardInterrupt):
            record.status = "interrupted"
        record.error = str(error) or type(error).__name__
        if isinstance(error, TrainingError):
            record.add_finding(Finding("non-finite", "error", str(error)))

    def _tell_end(self) -> None:
        run, best = self.run, self.record.best
        if self.record.status == "interrupted":
            logger.info("interrupted; go on with: ml-core train --resume %s", shown(run.path))
            return
        logger.info(
            "best epoch %s with %s %.4f, checkpoint %s",
            best.get("epoch"), self.config.training.best_metric,
            best.get("value", float("nan")), shown(run.checkpoints_dir / "best"),
        )  # fmt: skip

    def _fit(self, lease: Lease, on_epoch: OnEpoch | None, stop: StopRequest) -> FitResult:
        """Train, logging and saving in the run, and keep in the record what was best."""
        config = self.config
        chain = Chain(self.run.chain_path)
        tracker = ExperimentTracker(
            config.experiment_name,
            config.model_dump(mode="json"),
            run=self.run,
            tensorboard=config.tracking.tensorboard,
        )
        with tracker, contextlib.closing(chain):
            trainer, batches, valid = self._build(
                tracker=tracker, on_epoch=on_epoch, chain=chain, lease=lease, stop=stop
            )
            try:
                result = trainer.fit(batches, valid)
            except BaseException:
                # the first error is the one to tell
                with contextlib.suppress(OSError, MLCoreError):
                    self._note_best(trainer)
                raise
            self._note_best(trainer)
            return result

    def _note_best(self, trainer: Trainer) -> None:
        """Keep in the record what the first batch was, and which checkpoint was the best so far."""
        self.record.first_batch = trainer.first_batch
        checkpoints = self.run.checkpoints_dir
        is_saved = (checkpoints / "best").exists()  # or the disk was full by then
        if trainer.state.best_epoch is not None and is_saved:
            self.record.best = {
                "epoch": trainer.state.best_epoch,
                "metric": trainer.settings.best_metric,
                "value": trainer.state.best_value,
                "weights_sha256": load_best(checkpoints).weights_sha256,
            }

    def _build(self, **parts: Any) -> tuple[Trainer, PatchLoader, PatchLoader]:
        """Wire data, model, optimizer and schedule together, as far as the checkpoint had come.

        Returns the loop, its batches and those of the validation split. `parts` go to the loop.
        """
        config, checkpoint, ranks = self.config, self.checkpoint, self.ranks
        device = choose_device(config.training.device)
        exclude = run_exclusions(self.run, self.record)
        train_set, valid_set = (open_split(config, split, exclude) for split in ("train", "valid"))
        model = build_from_spec(checkpoint.model_spec) if checkpoint else None
        trainer, batches = build_trainer(
            config, train_set, device, model=model, ranks=ranks, **parts
        )
        assert isinstance(trainer.model, PatchClassifier)
        if ranks.is_first:
            self._describe(trainer.model)
        if checkpoint is not None:
            trainer.load_checkpoint(checkpoint)
        valid = inference_loader(config, valid_set, device, ranks, again=True)
        return trainer, batches, valid

    def _describe(self, model: PatchClassifier) -> None:
        """Say what is trained, and keep it in the record."""
        described = self.record.model = describe_model(model)
        self.record.save(self.run)
        logger.info(
            "model  %s, %s parameters, %.1f MFLOP per patch",
            described["name"],
            f"{described['num_parameters']:,}",
            described["flops_per_patch"] / 1e6,
        )


def _explain_os_error(error: OSError, run: RunDir) -> RunError:
    where = f" ({error.filename})" if error.filename else ""
    return RunError(
        f"training stopped, the system says: {error.strerror or error}{where}. The checkpoints "
        f"written so far are whole. Mend it (free space, rights), then go on with: "
        f"ml-core train --resume {shown(run.path)}"
    )
