"""What logging one training step costs the training loop.

    python benchmarks/tracking.py

Four values a step, as the trainer logs them, in µs of processor time per step: our tracker with and
without TensorBoard events, against torch's SummaryWriter and against a bare buffered JSON line. The
ways take turns, so that a busy machine slows all of them; the fastest round of each counts.
MLflow is not in the list because it is not in the loop: one log_metric to a server that refuses
blocks for 247 s with its defaults.
"""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from ml_core.tracking import ExperimentTracker

NUM_STEPS = 5_000
NUM_ROUNDS = 5
VALUES = {
    "loss": 0.61234567,
    "learning_rate": 1e-3,
    "grad_norm": 1.23456789,
    "patches_per_s": 12345.6,
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        ours = ExperimentTracker("with", {}, folder)
        plain = ExperimentTracker("without", {}, folder, tensorboard=False)
        torchs = SummaryWriter(Path(folder) / "torch")
        with open(Path(folder) / "bare.jsonl", "w") as bare:
            ways: dict[str, Callable[[int], object]] = {
                "log_step, TensorBoard on": lambda step: ours.log_step(step, VALUES, epoch=1),
                "log_step, TensorBoard off": lambda step: plain.log_step(step, VALUES, epoch=1),
                "torch SummaryWriter, 4 scalars": lambda step: [
                    torchs.add_scalar(key, value, step) for key, value in VALUES.items()
                ],
                "json.dumps to a buffered file": lambda step: bare.write(
                    json.dumps({"step": step, **VALUES}) + "\n"
                ),
            }
            fastest = dict.fromkeys(ways, float("inf"))
            for _ in range(NUM_ROUNDS):
                for name, log in ways.items():
                    fastest[name] = min(fastest[name], microseconds_per_step(log))
        started = time.process_time()
        ours.truncate(NUM_STEPS)
        num_lines = NUM_STEPS * NUM_ROUNDS
        rebuild = (time.process_time() - started) / num_lines * 1e6
        for tracker in (ours, plain, torchs):
            tracker.close()
    for name, cost in fastest.items():
        print(f"{name:32} {cost:6.1f} µs per step")
    print(f"{'truncate on resume':32} {rebuild:6.1f} µs per line of the log")


def microseconds_per_step(log: Callable[[int], object]) -> float:
    """Return the processor time, of all threads, per call of `log(step)`."""
    started = time.process_time()
    for step in range(1, NUM_STEPS + 1):
        log(step)
    return (time.process_time() - started) / NUM_STEPS * 1e6


if __name__ == "__main__":
    main()
