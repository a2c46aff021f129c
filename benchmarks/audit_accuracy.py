"""How exactly an audit finds what was planted in a damaged data set.

    python benchmarks/audit_accuracy.py data/poisoned/audit data/poisoned/truth.csv --out FILE

Reads the patches.parquet of an audit and a table of truth (split, index, kind), and prints the
precision and recall of each kind, of all broken patches together, and of exclusions.csv.

Wanted: at least 0.99 for each.
"""

import argparse
import json
from collections.abc import Set
from pathlib import Path

import pandas as pd

# What a kind of damage is called here and there.
FLAGS = {"black": "black", "white": "white", "nan": "non-finite", "block_1e5": "out-of-range"}
Places = Set[tuple[str, int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("audit", type=Path, help="folder of an audit")
    parser.add_argument("truth", type=Path, help="csv: split, index, kind")
    parser.add_argument("--out", type=Path, help="write the figures there, as JSON")
    options = parser.parse_args()
    patches = pd.read_parquet(options.audit / "patches.parquet")
    truth = pd.read_csv(options.truth, keep_default_na=False)  # a kind is called nan
    scores = {}
    for kind, flag in FLAGS.items():
        flagged = patches[patches["flags"].str.split().map(lambda ids, flag=flag: flag in ids)]
        scores[kind] = compare(places(flagged), places(truth[truth["kind"] == kind]))
    wanted = patches["flags"].str.split().map(lambda ids: bool(set(ids) & set(FLAGS.values())))
    scores["any of these"] = compare(places(patches[wanted]), places(truth))
    excluded = pd.read_csv(options.audit / "exclusions.csv")
    broken = excluded["reason"].str.split().map(lambda ids: bool(set(ids) & set(FLAGS.values())))
    scores["left out for it"] = compare(places(excluded[broken]), places(truth))
    for kind, score in scores.items():
        print(f"{kind:16} planted {score['planted']:6,}  found {score['found']:6,}  "
              f"precision {score['precision']:.4f}  recall {score['recall']:.4f}")  # fmt: skip
    if options.out:
        options.out.write_text(json.dumps(scores, indent=2) + "\n")


def places(table: pd.DataFrame) -> Places:
    return set(zip(table["split"].astype(str), table["index"].astype(int), strict=True))


def compare(found: Places, planted: Places) -> dict[str, float]:
    right = len(found & planted)
    return {
        "planted": len(planted),
        "found": len(found),
        "precision": right / len(found) if found else float("nan"),
        "recall": right / len(planted) if planted else float("nan"),
    }


if __name__ == "__main__":
    main()
