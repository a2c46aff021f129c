"""A config in a process of its own, ready to work, that works only when it is told to."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Literal, get_args

import torch

from ml_core.config import Config
from ml_core.data.loader import Batch
from ml_core.data.patch_file import Rows
from ml_core.errors import MLCoreError, TrainingError
from ml_core.pipeline.benchmarking.measuring.child import PRELOADED, why_ended
from ml_core.pipeline.benchmarking.measuring.device_faults import (
    is_device_error,
    is_out_of_memory,
    told,
)
from ml_core.pipeline.benchmarking.measuring.end_to_end import PREFETCHED, hold_still
from ml_core.pipeline.benchmarking.measuring.reading import endless
from ml_core.pipeline.benchmarking.measuring.timing import synchronise
from ml_core.pipeline.benchmarking.measuring.variants import variants_of
from ml_core.pipeline.benchmarking.measuring.work_on_batch import WorkOnBatch
from ml_core.pipeline.parts.device import choose_device
from ml_core.pipeline.parts.numerics import prepare
from ml_core.pipeline.parts.splits import open_split
from ml_core.pipeline.parts.training_parts import build_trainer
from ml_core.solver.batches import grouped

Contest = Literal["end to end", "forward"]
CONTESTS: tuple[Contest, ...] = get_args(Contest)


class Contestant:
    """Inside `with`, a process that has built the training of `config` and waits for its turns."""

    def __init__(self, name: str, config: Config, exclude: Mapping[str, Rows]) -> None:
        self.name = name
        self._given = config, dict(exclude)

    def __enter__(self) -> Contestant:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, *self._given))
        self._process.start()
        theirs.close()  # with the child's, which ends with it, the pipe ends
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pipe.close()  # which it hears as the end
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def take_turn(self, contest: Contest, seconds: float) -> float:
        """Return the patches per second of about `seconds` of work.

        Raises what the child met: an MLCoreError as it is, and TrainingError where it was ended.
        """
        try:
            self._pipe.send((contest, seconds))
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join()
            raise TrainingError(
                f"the process that measured {self.name} was ended: "
                f"{why_ended(self._process.exitcode)}. Give more memory, or smaller batches."
            ) from error
        if isinstance(answer, MLCoreError):
            raise type(answer)(f"{self.name}: {answer}") from answer
        assert isinstance(answer, float)
        return answer


def _serve(pipe: Connection, config: Config, exclude: Mapping[str, Rows]) -> None:
    """Answer each turn asked for with a rate, until nobody asks any more."""
    works = dict[Contest, Callable[[], int]]()
    device: torch.device | None = None
    with contextlib.suppress(EOFError):
        while True:
            contest, seconds = pipe.recv()
            try:
                if device is None:
                    prepare(config, config.training.num_threads)
                    device = choose_device(config.training.device)
                if contest not in works:
                    works[contest] = _build(contest, config, exclude, device)
                pipe.send(_rate(works[contest], seconds, device, config))
            except MLCoreError as error:
                pipe.send(type(error)(str(error)))
            except (RuntimeError, MemoryError) as error:
                if not (is_out_of_memory(error) or is_device_error(error)):
                    raise
                pipe.send(TrainingError(f"{device} gave up: {told(error)}."))


def _rate(work: Callable[[], int], seconds: float, device: torch.device, config: Config) -> float:
    """Return the rate of `work`, after what readers have prepared in the turns of the other."""
    for _ in range(1 + PREFETCHED * config.data.num_workers):
        work()
    synchronise(device)
    started, patches = time.perf_counter(), 0
    while patches == 0 or time.perf_counter() - started < seconds:
        patches += work()
    synchronise(device)
    return patches / (time.perf_counter() - started)


def _build(
    contest: Contest, config: Config, exclude: Mapping[str, Rows], device: torch.device
) -> Callable[[], int]:
    """Return one piece of the work, which returns how many patches it did."""
    if contest == "forward":
        own = variants_of(config, device)[0]
        return WorkOnBatch(config, own).prepare("forward", config.data.batch_size)
    return _training(config, exclude, device)


def _training(
    config: Config, exclude: Mapping[str, Rows], device: torch.device
) -> Callable[[], int]:
    """Return a step of the training on its next batches, at a learning rate of 0.

    So no step diverges however often it is taken; nothing is written.
    """
    trainer, loader = build_trainer(config, open_split(config, "train", exclude), device)
    hold_still(trainer)
    groups: Iterator[list[Batch]] = grouped(endless(loader), config.training.accumulate_steps)

    def take_step() -> int:
        group = next(groups)
        trainer.state.start_epoch(1)  # the number of a batch seeds its step, and has an end
        trainer.train_step(group)
        return sum(len(batch.labels) for batch in group)

    return take_step
