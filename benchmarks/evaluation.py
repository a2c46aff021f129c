"""How long does judging 32,768 predictions take?

    python benchmarks/evaluation.py [--out evaluation.json]

As many patches as PCam's test split, half of them tumour, two models of which one is better, 1,000
resamples. Seconds of wall time and of processor time of all threads, the fastest of three rounds
each (wanted: all of it below 5 s of wall time on two cores):

  metrics      every metric of one model
  intervals    of every metric of one model
  delong       the paired test of the ROC-AUC
  paired       the paired bootstrap of every metric, as against a runner-up
  baselines    the paired bootstrap of F2 and DeLong's test against each of six baselines
  threshold    the choice for a recall of 0.95, and what it will give, out of bag
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ml_core.evaluation.threshold import ThresholdRule, choose_threshold
from ml_core.metrics import compute_intervals, compute_metrics, delong_test, paired_bootstrap
from ml_core.reproducibility import hardware_record

NUM_PATCHES = 32_768
NUM_BASELINES = 6
NUM_ROUNDS = 3


def two_models() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels and the probabilities of a good and a fair model, all distinct."""
    generator = np.random.default_rng(0)
    y_true = np.arange(NUM_PATCHES) % 2
    shared = generator.normal(size=NUM_PATCHES)
    logits = [
        skill * (2 * y_true - 1) + shared + generator.normal(size=NUM_PATCHES)
        for skill in (2.0, 1.0)
    ]
    return y_true, *(1 / (1 + np.exp(-logit)) for logit in logits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the figures there, as JSON")
    options = parser.parse_args()
    y_true, good, fair = two_models()
    tasks: dict[str, Callable[[], object]] = {
        "metrics": lambda: compute_metrics(y_true, good),
        "intervals": lambda: compute_intervals(y_true, good),
        "delong": lambda: delong_test(y_true, good, fair),
        "paired": lambda: paired_bootstrap(y_true, good, fair),
        "baselines": lambda: [
            (delong_test(y_true, good, fair), paired_bootstrap(y_true, good, fair, metrics=["f2"]))
            for _ in range(NUM_BASELINES)
        ],
        "threshold": lambda: choose_threshold(y_true, good, ThresholdRule("recall")),
    }
    wall, processor = {}, {}
    for name, task in tasks.items():
        rounds = [seconds_of(task) for _ in range(NUM_ROUNDS)]
        wall[name], processor[name] = (min(times) for times in zip(*rounds, strict=True))
    for seconds in (wall, processor):
        seconds["together"] = sum(seconds.values())
    for name in wall:
        print(f"{name:10} {wall[name]:6.2f} s, of a processor {processor[name]:6.2f} s")
    if options.out:
        result = {
            "num_patches": NUM_PATCHES,
            "wall_s": wall,
            "processor_s": processor,
            "machine": hardware_record(),
        }
        options.out.write_text(json.dumps(result, indent=2) + "\n")


def seconds_of(task: Callable[[], object]) -> tuple[float, float]:
    """Return the wall time and the processor time of one call."""
    wall, processor = time.perf_counter(), time.process_time()
    task()
    return time.perf_counter() - wall, time.process_time() - processor


if __name__ == "__main__":
    main()
