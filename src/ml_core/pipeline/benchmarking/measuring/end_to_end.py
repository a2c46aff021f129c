"""The training as it is, beside the same steps on one batch that stays in memory."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torch.optim.lr_scheduler import LambdaLR

from ml_core.config import Config
from ml_core.data.loader import Batch, PatchLoader
from ml_core.data.patch_file import Rows
from ml_core.data.worker_faults import explained
from ml_core.errors import RunError
from ml_core.pipeline.benchmarking.figures import EndToEnd, Rate
from ml_core.pipeline.benchmarking.measuring.device_faults import faults_told
from ml_core.pipeline.benchmarking.measuring.reading import endless, num_cores, with_workers
from ml_core.pipeline.benchmarking.measuring.timing import rate_from, synchronise
from ml_core.pipeline.benchmarking.measuring.warm_split import open_as_later
from ml_core.pipeline.parts.device import choose_device
from ml_core.pipeline.parts.splits import train_loader
from ml_core.pipeline.parts.training_parts import build_trainer
from ml_core.runs import RunDir
from ml_core.solver import Trainer
from ml_core.solver.batches import grouped
from ml_core.tracking import ExperimentTracker
from ml_core.tracking.chain import Chain

NUM_TURNS = 7
FEWEST_TURNS = 3
WAITS = 0.05  # a share of the time from which other numbers of readers are worth trying
PREFETCHED = 2  # batches of each reader: torch's prefetch_factor


def measure_end_to_end(config: Config, exclude: Mapping[str, Rows], *, budget_s: float) -> EndToEnd:
    """Return the rates of both, in turns, and the share of its time that the training waits.

    It is the training's own loop, log included, at a learning rate of 0, so that no step diverges;
    the log goes into a folder under output_dir that is removed. `budget_s` for each side: those
    two, no readers, and where the training waits, one reader and as many as there are cores.
    Patches are read as all epochs but the first find them: see `warm_split`. Validation and
    checkpoints are not in it. The caller has made this process ready
    (`pipeline.parts.numerics.prepare`). Raises ConfigError where device or memory give up.
    """
    device, own = choose_device(config.training.device), config.data.num_workers
    with (
        _logs(config) as (tracker, chain),
        explained(),
        faults_told(f"a training with batches of {config.data.batch_size}", device),
    ):
        dataset = open_as_later(config, exclude)
        trainer, loader = build_trainer(config, dataset, device, tracker=tracker, chain=chain)
        hold_still(trainer)

        def with_readers(num_workers: int) -> _Steps:
            other = train_loader(with_workers(config, num_workers), dataset, device)
            return _Steps(trainer, _groups(other, config), lead_in=_lead_in(other))

        by_workers = {own: _Steps(trainer, _groups(loader, config), lead_in=_lead_in(loader))}
        if own:
            by_workers[0] = with_readers(0)
        in_memory = _Steps(trainer, itertools.repeat(next(by_workers[own].groups)), lead_in=1)
        _take_turns([in_memory, *by_workers.values()], budget_s)
        if by_workers[own].waited > WAITS and config.data.placement == "file":
            more = {each: with_readers(each) for each in {1, num_cores()} - set(by_workers)}
            _take_turns(list(more.values()), budget_s)
            by_workers |= more
        return EndToEnd(
            training=by_workers[own].rate(),
            in_memory=in_memory.rate(),
            waited=by_workers[own].waited,
            by_workers={number: by_workers[number].rate() for number in sorted(by_workers)},
        )


class _Steps:
    """Steps of `trainer` on `groups` of batches, timed turn by turn.

    The first `lead_in` steps of a turn are not: what readers have prepared while others had their
    turn would be a gift.
    """

    def __init__(self, trainer: Trainer, groups: Iterator[list[Batch]], *, lead_in: int) -> None:
        self.groups = groups
        self._trainer = trainer
        self._lead_in = lead_in
        self._turns = list[tuple[int, float]]()  # patches, seconds
        self._waited_s = 0.0

    @property
    def waited(self) -> float:
        """The share of the time in which no batch was there."""
        return self._waited_s / sum(seconds for _, seconds in self._turns)

    def rate(self) -> Rate:
        return rate_from(self._turns)

    def take_turn(self, seconds: float) -> None:
        """Take steps for so long, at least one."""
        self._trainer.state.start_epoch(1)  # the number of a batch seeds its step, and has an end
        for _ in range(self._lead_in):
            self._trainer.train_step(next(self.groups))
        patches, waited_s = 0, 0.0
        started = now = self._now()
        while patches == 0 or now - started < seconds:
            asked = time.perf_counter()
            group = next(self.groups)
            waited_s += time.perf_counter() - asked
            self._trainer.train_step(group)
            patches += sum(len(batch.labels) for batch in group)
            now = time.perf_counter()
        self._turns.append((patches, self._now() - started))
        self._waited_s += waited_s

    def _now(self) -> float:
        synchronise(self._trainer.device)
        return time.perf_counter()


def _take_turns(sides: Sequence[_Steps], budget_s: float) -> None:
    """Let the sides take steps in turns, so that other work on the machine meets all of them.

    Each has `budget_s` in all; fewer turns are taken where single steps are long.
    """
    started = time.perf_counter()
    for number in range(NUM_TURNS):
        if number >= FEWEST_TURNS and time.perf_counter() - started > 3 * budget_s * len(sides):
            return
        for side in sides:
            side.take_turn(budget_s / NUM_TURNS)


def _groups(loader: PatchLoader, config: Config) -> Iterator[list[Batch]]:
    return grouped(endless(loader), config.training.accumulate_steps)


def _lead_in(loader: PatchLoader) -> int:
    return PREFETCHED * loader.num_workers + 1


def hold_still(trainer: Trainer) -> None:
    """Let every step be the first one: at a learning rate of 0, by whatever schedule."""
    for group in trainer.optimizer.param_groups:
        group["lr"] = 0.0
    if isinstance(trainer.scheduler, LambdaLR):
        trainer.scheduler.base_lrs = [0.0 for _ in trainer.scheduler.base_lrs]
    if trainer.augment is not None:
        trainer.augment.set_epoch(1)
    trainer.model.train()


@contextlib.contextmanager
def _logs(config: Config) -> Iterator[tuple[ExperimentTracker, Chain]]:
    """Give a run's logs, on the disk where runs lie, in a folder that is removed."""
    try:
        config.output_dir.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix="benchmark-", dir=config.output_dir)
    except OSError as error:
        raise RunError(f"cannot write in {config.output_dir}: {error.strerror}.") from error
    with folder as name:
        run = RunDir.create(Path(name), "run")
        tensorboard = config.tracking.tensorboard
        tracker = ExperimentTracker("benchmark", {}, run=run, tensorboard=tensorboard)
        with tracker, contextlib.closing(Chain(run.chain_path)) as chain:
            yield tracker, chain
