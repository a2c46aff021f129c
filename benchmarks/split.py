"""How near do slide-aware splits come to the wanted shares, here and in scikit-learn?

    python benchmarks/split.py

Drawn data sets of 50 to 400 very unequal slides, tumour in some of them, eight of each kind; 70 %
train, 15 % valid, 15 % test. Printed: the largest difference between the reached and the wanted
share of normal or tumour patches, median and worst of the eight, and the seconds of one division.
StratifiedGroupKFold makes equal folds only: seven, of which one is valid and one test (14.3 %).
"""

from __future__ import annotations

import time
import warnings

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from ml_core.data.packing.split import assign_groups, describe_splits

WANTED = {"train": 0.7, "valid": 0.15, "test": 0.15}
SEVENTHS = {"train": 5 / 7, "valid": 1 / 7, "test": 1 / 7}
CASES = ((50, 0.15), (50, 0.3), (100, 0.15), (100, 0.3), (216, 0.25), (400, 0.1), (400, 0.3))


def draw(seed: int, num_slides: int, with_tumour: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (slide, label) of each patch: 600 patches a slide in the median, sizes log-normal."""
    rng = np.random.default_rng(seed + 1000 * num_slides)
    num = np.maximum(1, (rng.lognormal(0, 1.2, num_slides) * 600).astype(int))
    tumour = np.zeros(num_slides, int)
    chosen = rng.choice(num_slides, max(3, int(num_slides * with_tumour)), replace=False)
    tumour[chosen] = np.maximum(1, (num[chosen] * rng.beta(0.6, 1.2, len(chosen))).astype(int))
    labels = np.concatenate([np.arange(n) < t for n, t in zip(num, tumour, strict=True)])
    return np.char.mod("s%04d", np.repeat(np.arange(num_slides), num)), labels.astype(np.int64)


def divide_in_folds(groups: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """Return the split of each row by scikit-learn's folds."""
    splits = np.full(len(labels), "train", "<U5")
    folds = StratifiedGroupKFold(7, shuffle=True, random_state=seed).split(labels, labels, groups)
    for name, (_, rows) in zip(("valid", "test"), folds, strict=False):
        splits[rows] = name
    return splits


def main() -> None:
    """Print a line per kind of data set and method."""
    warnings.simplefilter("ignore")  # folds without tumour
    for num_slides, with_tumour in CASES:
        errors: dict[str, list[float]] = {"ml-core": [], "sklearn": []}
        seconds = dict.fromkeys(errors, 0.0)
        for seed in range(8):
            groups, labels = draw(seed, num_slides, with_tumour)
            for name in errors:
                start = time.perf_counter()
                if name == "ml-core":
                    wanted, splits = WANTED, assign_groups(groups, labels, WANTED, seed)
                else:
                    wanted, splits = SEVENTHS, divide_in_folds(groups, labels, seed)
                seconds[name] += (time.perf_counter() - start) / 8
                found = describe_splits(splits, groups, labels, wanted)
                shares = [(s.share_negative, s.share_positive, s.wanted) for s in found]
                errors[name].append(max(max(abs(n - w), abs(p - w)) for n, p, w in shares))
        for name, values in errors.items():
            print(
                f"{num_slides} slides, {with_tumour:.0%} with tumour, {name:7}: median "
                f"{np.median(values):.4f}, worst {max(values):.4f}, {seconds[name]:.2f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
