"""Steps of a recorded run taken again, from its record alone, in a folder of its own."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ml_core.checkpoint import load_checkpoint
from ml_core.config import Config
from ml_core.data.checks import digest_splits
from ml_core.data.layout import split_paths
from ml_core.data.loader import Batch, PatchLoader
from ml_core.data.versions.digests import FileDigest, digest_file
from ml_core.errors import TrainingError
from ml_core.models import PatchClassifier, build_from_spec
from ml_core.numerics.state_hash import tensor_digests, training_state
from ml_core.pipeline.parts.device import choose_device
from ml_core.pipeline.parts.numerics import prepare
from ml_core.pipeline.parts.splits import (
    check_data,
    inference_loader,
    open_split,
    recorded,
    run_exclusions,
)
from ml_core.pipeline.parts.training_parts import build_trainer
from ml_core.reproducibility import data_digests
from ml_core.runs import RunDir, RunRecord, read_jsonl
from ml_core.solver import Trainer
from ml_core.tracking import ExperimentTracker
from ml_core.tracking.chain import Chain
from ml_core.verification.differences import Difference
from ml_core.verification.replay_plan import ReplayPlan

logger = logging.getLogger("ml_core.verify")

SPLITS = ("train", "valid")


@dataclass(frozen=True)
class Replay:
    """What was found on the way: the logs of the steps taken again, the data, this machine."""

    run: RunDir
    data: Mapping[str, Any]  # SplitRecord as JSON, by split
    digests: Mapping[str, Any]  # as data-digests.json has them
    numerics: Mapping[str, Any]
    differences: list[Difference] = field(default_factory=list)  # that no log can show


class _EnoughError(Exception):
    """The last step of the plan is done and its line is written."""


def replay(
    run: RunDir, record: RunRecord, config: Config, plan: ReplayPlan, folder: Path
) -> Replay:
    """Take the steps of `plan` again, writing into `folder`; `run` is read only.

    `config` is the run's own, with nothing set anew but where things are. Raises ConfigError where
    this machine cannot honour the run's level of numerics, DataError for data that do not train.
    """
    again = RunDir(folder / run.name)
    again.path.mkdir()
    if plan.checkpoint is not None:
        _copy_logs(run, again)
    exclude = run_exclusions(run, record)
    files = _digest_files(config, record)
    hashes = {s: (files[f"{s}_x"][1].sha256, files[f"{s}_y"][1].sha256) for s in SPLITS}
    checks = check_data(config, SPLITS, exclude, hashes)
    found = Replay(
        again,
        data={check.split: recorded(config, check) for check in checks},
        digests=data_digests(files),
        numerics=prepare(config, _num_threads_of(record, config)),
    )
    with _trainer(again, config, exclude, plan) as (trainer, batches, valid):
        if plan.checkpoint is not None:
            found.differences.extend(_compare_optimizer(trainer, run, plan.after_step))
        try:
            trainer.fit(_FirstSteps(batches, trainer, plan.last_step), valid)
        except _EnoughError:
            pass
        except TrainingError as error:
            found.differences.append(_explain_stop(trainer, plan, error))
    return found


def _digest_files(config: Config, record: RunRecord) -> dict[str, tuple[Path, FileDigest]]:
    """Return path and digest of each file, by "train_x" and so on.

    A file whose bytes are not the run's is read to its values, however it is packed: where these
    are the same, or in which rows they are not, decides.
    """
    files = {}
    for split, digests in digest_splits(config.data.files_dir, SPLITS).items():
        paths = split_paths(config.data.files_dir, split)
        for part, path, digest in zip("xy", (paths.x, paths.y), digests, strict=True):
            is_same = digest.sha256 == record.data.get(split, {}).get(f"{part}_sha256")
            known = digest if is_same or part in digest.datasets else digest_file(path)
            files[f"{split}_{part}"] = (path, known)
    return files


def _copy_logs(run: RunDir, again: RunDir) -> None:
    """Give the replay the logs that its checkpoint goes on with; what is later is cut there."""
    for name in ("steps_log_path", "gradients_log_path", "metrics_log_path", "chain_path"):
        if getattr(run, name).is_file():
            shutil.copyfile(getattr(run, name), getattr(again, name))


def _num_threads_of(record: RunRecord, config: Config) -> int | None:
    """Return the thread team to replay with: the run's, or this machine's where none matters."""
    if config.training.numerics == "portable":
        return None
    recorded = record.numerics.get("num_threads", record.hardware.get("torch_threads"))
    return config.training.num_threads if recorded is None else int(recorded)


@contextlib.contextmanager
def _trainer(
    again: RunDir, config: Config, exclude: Mapping[str, Any], plan: ReplayPlan
) -> Iterator[tuple[Trainer, PatchLoader, PatchLoader]]:
    """Yield the loop as it stood after `plan.after_step`, its batches, and those of valid."""
    device = choose_device(config.training.device)
    train_set, valid_set = (open_split(config, split, exclude) for split in SPLITS)
    checkpoint = load_checkpoint(plan.checkpoint) if plan.checkpoint else None
    document = config.model_dump(mode="json")
    name = config.experiment_name
    with (
        ExperimentTracker(name, document, run=again, tensorboard=False) as tracker,
        contextlib.closing(Chain(again.chain_path)) as chain,
    ):
        trainer, batches = build_trainer(
            config,
            train_set,
            device,
            model=build_from_spec(checkpoint.model_spec) if checkpoint else None,
            tracker=tracker,
            chain=chain,
        )
        assert isinstance(trainer.model, PatchClassifier)
        if checkpoint is not None:
            trainer.load_checkpoint(checkpoint)
        yield trainer, batches, inference_loader(config, valid_set, device, again=True)


class _FirstSteps:
    """The batches of `loader` until `trainer` has taken step `last_step`; then _EnoughError.

    An epoch that ends with that step is ended as any other: its validation and its link are on
    record too.
    """

    def __init__(self, loader: PatchLoader, trainer: Trainer, last_step: int) -> None:
        self.batch_sampler = loader.batch_sampler  # by which the loop chooses the epoch
        self._loader = loader
        self._trainer = trainer
        self._last_step = last_step

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._loader:
            if self._trainer.state.step >= self._last_step:
                raise _EnoughError
            yield batch


def _compare_optimizer(trainer: Trainer, run: RunDir, step: int) -> list[Difference]:
    """Return how the checkpoint's optimizer differs from the link of its step; [] if it has none.

    Its weights are compared with those of every other checkpoint.
    """
    then = next((each for each in read_jsonl(run.chain_path) if each["step"] == step), None)
    if then is None:
        return []
    now, recorded = (
        tensor_digests(training_state(trainer.model, trainer.optimizer)),
        then["tensors"],
    )
    names = (name for name in dict.fromkeys([*recorded, *now]) if name.startswith("optimizer."))
    first = next((name for name in names if now.get(name) != recorded.get(name)), None)
    if first is None:
        return []
    return [
        Difference(
            "numerics",
            f"the checkpoint at step {step} of {run.name}, first tensor {first}",
            f"SHA-256 {recorded.get(first, 'not there')}",
            f"SHA-256 {now.get(first, 'not there')}",
            "It was changed after the run: use another checkpoint, or start from the seed.",
            is_edit=True,
        )
    ]


def _explain_stop(trainer: Trainer, plan: ReplayPlan, error: TrainingError) -> Difference:
    step = trainer.state.step + 1
    return Difference(
        "numerics",
        f"step {step} of {plan.last_step}",
        "went well",
        f"stopped: {error}",
        "Look at the first difference above it; the same code, data and machine stop nowhere.",
    )
