"""Saves of a small checkpoint whose weights say which save wrote them."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from ml_core.checkpoint import Checkpoint, generations, load_best, load_last, save_checkpoint
from ml_core.checkpoint.files import write_file
from ml_core.errors import CheckpointError
from ml_core.lease import Lease
from ml_core.runs import RunDir, RunRecord
from ml_core.tracking.log_file import LogFile


def save_take(
    run_path: Path, step: int, take: int, *, best: bool = False, lease: Lease | None = None
) -> None:
    """Save a model and an optimizer that are functions of `take`."""
    torch.set_num_threads(1)
    model = torch.nn.Linear(6, 5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, take)
        parameter.grad = torch.full_like(parameter, take)
    optimizer.step()
    save_checkpoint(
        RunDir(run_path).checkpoints_dir,
        step,
        model=model,
        model_spec={},
        optimizer=optimizer,
        state={"step": step, "take": take},
        best=best,
        lease=lease,
    )


def take_of(checkpoint: Checkpoint) -> int:
    """Return which save the checkpoint is of; every tensor in it must be of that one."""
    take = int(checkpoint.state["take"])
    values = checkpoint.model_state.values()
    moments = [moment["momentum_buffer"] for moment in checkpoint.optimizer_state["state"].values()]
    weight = torch.tensor(float(take)) - 0.1 * torch.tensor(float(take))
    assert all(torch.equal(value, weight.expand_as(value)) for value in values), "mixed weights"
    assert len(moments) == 2
    assert all(bool((moment == take).all()) for moment in moments), "mixed moments"
    return take


def last_take(run_path: Path) -> int | None:
    """Return the save that a resumed run would go on from, None where there is none."""
    try:
        return take_of(load_last(RunDir(run_path).checkpoints_dir))
    except CheckpointError as error:
        assert "holds no checkpoint" in str(error), str(error)
        return None


def best_take(run_path: Path) -> int | None:
    """Return the save that `best` points at, None where there is no such link."""
    directory = RunDir(run_path).checkpoints_dir
    return take_of(load_best(directory)) if (directory / "best").is_symlink() else None


# ---- what is broken, and what was there before ---------------------------------------------------


def save_first(run_path: Path) -> None:
    """The first save of a run."""
    with Lease.take(RunDir(run_path)) as lease:
        save_take(run_path, 10, 1, best=True, lease=lease)


def save_next(run_path: Path) -> None:
    """A save after which an old one is dropped."""
    with Lease.take(RunDir(run_path)) as lease:
        lease.take_over_at(60)
        save_take(run_path, 70, 7, best=True, lease=lease)


def save_again(run_path: Path) -> None:
    """A save in the place of one of the same step."""
    with Lease.take(RunDir(run_path)) as lease:
        lease.take_over_at(60)
        save_take(run_path, 60, 7, best=True, lease=lease)


def save_in_place(run_path: Path) -> None:
    """What `save_again` must not be: the files written where they will lie."""
    generations._Writer.publish = _publish_in_place
    save_take(run_path, 60, 7, best=True)


def _publish_in_place(self, final, files):
    final.mkdir(exist_ok=True)
    for name, content in files.items():
        write_file(final / name, content)


def nothing_yet(run_path: Path) -> None:
    run_path.mkdir()


def six_saves(run_path: Path) -> None:
    """Best at step 10, the newest at 60, one dropped already."""
    run_path.mkdir()
    with Lease.take(RunDir(run_path)) as lease:
        lease.take_over_at(0)
        for take in range(1, 7):
            save_take(run_path, 10 * take, take, best=take == 1, lease=lease)


def one_save(run_path: Path) -> None:
    run_path.mkdir()
    save_take(run_path, 60, 6, best=True)


BEST_STEPS = (2, 6, 8, 18)  # of those below


def live(run_path: Path) -> None:
    """Train for 24 steps, saving at every second, stopped and gone on with after the twelfth.

    What was begun and what has returned is said in the file `marks` beside the run.
    """
    marks = os.open(run_path.parent / "marks", os.O_WRONLY | os.O_CREAT, 0o600)
    run = RunDir(run_path)
    record = RunRecord("tiny", 1, "a test")
    for first, last in ((1, 13), (13, 24)):  # 13 is logged twice, and must not stay so
        with Lease.take(run) as lease:
            lease.take_over_at(first - 1)
            record.status = "running"
            record.save(run)
            log = LogFile(run.steps_log_path)
            log.keep(
                lambda line, before=first: line["step"] < before,
                is_enough=lambda line, before=first: line["step"] >= before - 1,
            )
            for step in range(first, last + 1):
                log.append({"step": step, "loss": 1 / step})
                if step % 2 == 0:
                    log.sync()
                    os.write(marks, b"begun %d" % step)
                    save_take(run_path, step, step, best=step in BEST_STEPS, lease=lease)
                    os.write(marks, b"saved %d" % step)
            log.close()
            record.status = "completed"
            record.save(run)
