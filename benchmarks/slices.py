"""How long does scoring 30 slices of 32,768 predictions take, and how much memory?

    python benchmarks/slices.py [--out slices.json]

As many patches as PCam's test split, half of them tumour. The slices are the two ends of ten
numbers, a fifth of the patches each, and ten random ones of the same size; 1,000 resamples. Seconds
of wall time and of processor time of all threads, and the peak of memory of the whole process
(wanted: below 25 s of wall time on two cores and below 1 GB):

  patches  where slides are not known: intervals and tests patch by patch
  slides   of 54 slides that differ in size and in difficulty: bootstrap and jackknife over slides
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ml_core.evaluation.predictions import Predictions, sigmoid
from ml_core.evaluation.slices.scores import score_slices
from ml_core.evaluation.slices.slice import Slice
from ml_core.reproducibility import hardware_record

NUM_PATCHES, NUM_SLIDES = 32_768, 54
SHARE = 0.2


def fabricate() -> tuple[Predictions, np.ndarray, list[Slice]]:
    """Return predictions, the slide of each patch, and 30 slices of a fifth of them each."""
    generator = np.random.default_rng(0)
    sizes = generator.lognormal(sigma=0.7, size=NUM_SLIDES)
    slide = generator.choice(NUM_SLIDES, NUM_PATCHES, p=sizes / sizes.sum())
    y_true = np.arange(NUM_PATCHES) % 2
    shift = generator.normal(size=NUM_SLIDES)[slide] * 0.5
    logit = 3.0 * (2 * y_true - 1) + 2.0 * (shift + generator.normal(size=NUM_PATCHES))
    index = np.arange(NUM_PATCHES)
    predictions = Predictions("test", index, y_true, sigmoid(logit), logit)
    numbers = (
        generator.normal(size=(20, NUM_PATCHES)) + generator.normal(size=(20, NUM_SLIDES))[:, slide]
    )
    ends = [(values < np.quantile(values, SHARE)) for values in numbers[:10]]
    ends += [(values >= np.quantile(values, 1 - SHARE)) for values in numbers[:10]]
    ends += [generator.random(NUM_PATCHES) < SHARE for _ in range(10)]
    slices = [Slice(f"slice {number}", "fact", "", mask) for number, mask in enumerate(ends)]
    return predictions, np.array([f"slide {each:02d}" for each in slide], dtype=object), slices


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the figures there, as JSON")
    options = parser.parse_args()
    predictions, slide, slices = fabricate()
    tasks: dict[str, Callable[[], object]] = {
        "patches": lambda: score_slices(predictions, 0.5, slices),
        "slides": lambda: score_slices(predictions, 0.5, slices, slides=slide),
    }
    wall, processor = {}, {}
    for name, task in tasks.items():
        wall[name], processor[name] = seconds_of(task)
        print(f"{name:10} {wall[name]:6.2f} s, of a processor {processor[name]:6.2f} s")
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak of memory {peak_mib:.0f} MiB")
    if options.out:
        result = {
            "num_patches": NUM_PATCHES,
            "num_slices": len(slices),
            "num_slides": NUM_SLIDES,
            "wall_s": wall,
            "processor_s": processor,
            "peak_mib": peak_mib,
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
