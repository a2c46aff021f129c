"""How well the audit finds wrong labels that were planted among real patches.

    python benchmarks/label_errors.py PCAM_DIR --out label_errors.json

PCAM_DIR holds PCam's files (train is used; the figures kept are of 20,000 real patches). Measured:

  ranking   AUC of the suspicion, flipped against right labels, for random flips of 1, 5 and 10 %,
            of one class alone, and on a sample of 5,000; several seeds each. Wanted: 0.85 at 5 %
  estimate  the estimated noise rate beside the planted one, and how often the check warns; the
            same on clean samples, where it must not
  groups    balls of 30, 60 and 100 alike patches of one class flipped among 5,000, by how pure the
            surroundings are: how often found, precision and recall
  speed     microseconds per patch of the features, and seconds of both checks at --rows rows
            (the real features with noise added, so that no two are alike), of processor time: set
            OMP_NUM_THREADS=1 to have them of one thread
"""

import argparse
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_core.audit.checks.disagreeing_groups import check_disagreeing_groups
from ml_core.audit.checks.label_errors import check_label_errors, rank_label_errors, rank_patches
from ml_core.audit.measures.block import Block
from ml_core.audit.measures.features import FeatureBank, fit_features
from ml_core.data.layout import load_labels, split_paths
from ml_core.data.patch_file import PatchFile, evenly_spaced
from ml_core.metrics import compute_metrics
from ml_core.reproducibility import hardware_record

SEEDS = range(4)
# (patches or None for all, share flipped, class flipped or None for both)
PLANS = [
    (None, 0.01, None),
    (None, 0.05, None),
    (None, 0.1, None),
    (None, 0.1, 0),
    (None, 0.1, 1),
    (5000, 0.05, None),
]
NUM_BALLS = 60  # of each size
PURITIES = (0.95, 0.85, 0.7, 0.0)  # share of one class in five times the ball, at least

Features = npt.NDArray[np.float32]


def judge(patches, features):
    """Return the findings on the labels of a table."""
    return check_label_errors(patches, rank_patches(patches, features))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where PCam's files are")
    parser.add_argument("--out", type=Path, help="write the figures there, as JSON")
    parser.add_argument("--rows", type=int, default=327_680)
    options = parser.parse_args()
    patches, features, speed = measure(options.folder)
    result = {
        "num_patches": len(patches),
        "ranking": measure_ranking(patches, features),
        "clean": measure_clean(patches, features),
        "groups": measure_groups(patches, features),
        "speed": speed | measure_checks(patches, features, options.rows),
        "machine": hardware_record(),
    }
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


def measure(folder: Path) -> tuple[pd.DataFrame, Features, dict[str, float]]:
    """Return the table of train, its features, and what they cost."""
    paths = split_paths(folder, "train")
    file = PatchFile(paths.x)
    start = time.process_time()
    bank = fit_features(file.read(evenly_spaced(len(file), 3000)), seed=0)
    fit_s = time.process_time() - start
    parts, hashes, times = [], [], []
    for start_row in range(0, len(file), 32):
        levels = file.read(np.arange(start_row, min(start_row + 32, len(file))))
        parts.append(timed(bank, levels, times))
        hashes += [hashlib.sha256(each).hexdigest()[:32] for each in levels]
    patches = pd.DataFrame({"split": "train", "index": range(len(file)), "content_hash": hashes})
    patches["label"] = load_labels(paths.y)
    per_patch = float(np.median(times)) * 1e6
    print(f"features: fit {fit_s:.1f} s, {per_patch:.0f} us per patch", flush=True)
    return patches, np.concatenate(parts), {"fit_s": fit_s, "us_per_patch": per_patch}


def timed(bank: FeatureBank, levels: npt.NDArray[np.uint8], times: list[float]) -> Features:
    start = time.process_time()
    features = bank.measure(Block(levels))["features"]
    times.append((time.process_time() - start) / len(levels))
    return features


def measure_ranking(patches: pd.DataFrame, features: Features) -> list[dict[str, Any]]:
    """Return for each plan the AUC of the ranking, the estimated rate and the warnings."""
    results = []
    for num, share, of_class in PLANS:
        aucs, rates, warned = [], [], 0
        for seed in SEEDS:
            rng = np.random.default_rng(seed)
            rows = np.sort(rng.choice(len(patches), num or len(patches), replace=False))
            sample = patches.iloc[rows].reset_index(drop=True)
            flipped = rng.random(len(sample)) < share
            if of_class is not None:
                flipped &= (sample["label"] == of_class).to_numpy()
            sample["label"] = np.where(flipped, 1 - sample["label"], sample["label"])
            ranked = rank_label_errors(
                features[rows], sample["label"].to_numpy(), sample["content_hash"].to_numpy()
            )
            aucs.append(compute_metrics(flipped.astype(int), 1 - ranked.prob_given)["roc_auc"])
            (finding,) = judge(sample, features[rows])
            rates.append(finding.facts["noise_rate"])
            warned += finding.severity == "warning"
        results.append(
            {
                "num_patches": num or len(patches),
                "share_flipped": share,
                "of_class": of_class,
                "auc_mean": float(np.mean(aucs)),
                "auc_range": [min(aucs), max(aucs)],
                "estimated_rate_mean": float(np.mean(rates)),
                "warned": f"{warned} of {len(SEEDS)}",
            }
        )
        print("ranking", results[-1], flush=True)
    return results


def measure_clean(patches: pd.DataFrame, features: Features) -> list[dict[str, Any]]:
    """Return how often clean samples give a warning, and the estimated rate there."""
    results = []
    for num in (3000, 5000, len(patches)):
        found, rates = [], []
        for seed in SEEDS if num < len(patches) else [0]:
            rng = np.random.default_rng(seed)
            rows = np.sort(rng.choice(len(patches), num, replace=False))
            sample = patches.iloc[rows].reset_index(drop=True)
            (finding,) = judge(sample, features[rows])
            rates.append(finding.facts["noise_rate"])
            found += [finding, *check_disagreeing_groups(sample, features[rows])]
        warned = sum(finding.severity != "info" for finding in found)
        joint = found[0].facts["confident_joint_rate"]
        results.append(
            {
                "num_patches": num,
                "warnings": warned,
                "estimated_rate_range": [min(rates), max(rates)],
                "confident_joint_rate": joint,
            }
        )
        print("clean", results[-1], flush=True)
    return results


def measure_groups(patches: pd.DataFrame, features: Features) -> list[dict[str, Any]]:
    """Return how often flipped balls among 5,000 patches are found, by purity and size."""
    rows = evenly_spaced(len(patches), 5000)
    sample, inputs = patches.iloc[rows].reset_index(drop=True), features[rows]
    table = pd.DataFrame(
        each for size in (30, 60, 100) for each in flip_balls(sample, inputs, size)
    )
    results = []
    for (size, purity), balls in table.groupby(["size", "purity_at_least"]):
        found = balls[balls["found"]]
        results.append(
            {
                "size": int(size),
                "purity_at_least": float(purity),
                "num_balls": len(balls),
                "found": len(found),
                "precision_mean": float(found["precision"].mean()) if len(found) else None,
                "recall_mean": float(found["recall"].mean()) if len(found) else None,
            }
        )
        print("groups", results[-1], flush=True)
    return results


def flip_balls(sample: pd.DataFrame, inputs: Features, size: int) -> Iterator[dict[str, Any]]:
    """Yield for each of NUM_BALLS centres what the check makes of its flipped neighbourhood."""
    scaled = (inputs - inputs.mean(axis=0)) / inputs.std(axis=0)
    labels = sample["label"].to_numpy()
    for centre in np.random.default_rng(size).choice(len(sample), NUM_BALLS, replace=False):
        nearest = np.argsort(((scaled - scaled[centre]) ** 2).sum(axis=1), kind="stable")
        own = nearest[labels[nearest] == labels[centre]][:size]
        purity = float((labels[nearest[: 5 * size]] == labels[centre]).mean())
        flipped = labels.copy()
        flipped[own] = 1 - flipped[own]
        findings = check_disagreeing_groups(sample.assign(label=flipped), inputs)
        found = np.isin(sample["index"], findings[0].indices) if findings else np.zeros(5000, bool)
        yield {
            "size": size,
            "purity_at_least": next(each for each in PURITIES if purity >= each),
            "found": bool(found[own].any()),
            "precision": found[own].sum() / max(found.sum(), 1),
            "recall": found[own].mean(),
        }


def measure_checks(patches: pd.DataFrame, features: Features, num: int) -> dict[str, float]:
    """Return the seconds that each check takes for `num` rows."""
    rows = np.arange(num) % len(patches)
    # a whole standard deviation apart, or copies of one odd patch would be a group of their own
    noise = np.random.default_rng(0).normal(size=(num, features.shape[1])).astype(np.float32)
    inputs = features[rows] + noise * features.std(axis=0)
    table = patches.iloc[rows].reset_index(drop=True)
    table["index"] = np.arange(num)
    table["content_hash"] = [f"{row:032x}" for row in range(num)]
    seconds = {}
    for check in (check_label_errors, check_disagreeing_groups):
        start = time.process_time()
        check(table, inputs)
        seconds[f"{check.__name__}_s"] = time.process_time() - start
    print("speed", num, "rows", seconds, flush=True)
    return {"rows": num, **seconds}


if __name__ == "__main__":
    main()
