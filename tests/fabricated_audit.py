"""The audit of a damaged data set without any check being run: its table, findings and patches."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ml_core.audit.measures.block import Block
from ml_core.audit.measures.pixel_stats import measure_pixels
from ml_core.errors import DataError

NUM = {"train": 120, "valid": 60, "test": 60}
SPLITS = tuple(NUM)
KINDS = ("black", "white", "non-finite", "out-of-range")


@dataclass
class FabricatedAudit:
    audit: dict
    patches: pd.DataFrame
    read: Callable
    levels: dict = field(repr=False)


def draw_levels(num, seed=0):
    """Return (levels (num, 96, 96, 3), labels (num,)): pink fields with dark nuclei as blots."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, num)
    ground = rng.normal((214, 160, 200), (12, 18, 10), (num, 1, 1, 3))
    levels = ground + rng.normal(0, 7, (num, 96, 96, 1))
    y, x = np.mgrid[:96, :96]
    for i in range(num):
        for _ in range(14 + 14 * labels[i]):
            centre, radius = rng.uniform(0, 96, 2), rng.uniform(3, 5 + 2 * labels[i])
            inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
            levels[i][inside] = np.add((96, 52, 130), rng.normal(0, 12, 3))
    return np.clip(levels, 0, 255).astype(np.uint8), labels


def damage(levels, labels, share=0.06, seed=0):
    """Damage some rows in place; return the rows by kind, and the duplicated pairs."""
    rng = np.random.default_rng(seed)
    num = max(2, int(len(levels) * share))
    rows = rng.permutation(len(levels))[: 5 * num].reshape(5, num)
    by_kind = {kind: np.sort(rows[i]) for i, kind in enumerate(KINDS)}
    levels[by_kind["black"]] = 0
    levels[by_kind["white"]] = 255
    for row in by_kind["non-finite"]:
        top, left = rng.integers(0, 64, 2)
        levels[row, top : top + 24, left : left + 32] = 0  # as NaN is read
    for row in by_kind["out-of-range"]:
        top, left = rng.integers(0, 91, 2)
        levels[row, top : top + 5, left : left + 5] = 255  # as 1e5 is read
    clean = np.setdiff1d(np.arange(len(levels)), rows[:4])
    pairs = np.column_stack([clean[:num], clean[-num:]])
    levels[pairs[:, 1]] = levels[pairs[:, 0]]
    return by_kind, pairs


def fabricate_audit(levels=None, labels=None, mode="full", **changes) -> FabricatedAudit:
    """Return the audit of `levels` and `labels` by split, whose train is damaged here."""
    if levels is None:
        drawn = {split: draw_levels(NUM[split], seed) for seed, split in enumerate(SPLITS)}
        levels = {split: each[0] for split, each in drawn.items()}
        labels = {split: each[1] for split, each in drawn.items()}
    levels = {split: each.copy() for split, each in levels.items()}
    by_kind, pairs = damage(levels["train"], labels["train"])
    across = [(i, i + 1) for i in range(4)] if "valid" in levels else []
    for train_row, valid_row in across:
        levels["valid"][valid_row] = levels["train"][train_row][::-1]
    patches = measure(levels, labels)
    findings = fabricate_findings(patches, by_kind, pairs, across)
    patches["flags"] = flags(patches, findings)

    def read(split, rows):
        if len(rows) and rows[-1] >= len(levels[split]):
            raise DataError(f"{split}: patch {rows[-1]} cannot be read.")
        return levels[split][rows]

    audit = {
        "format": 1,
        "mode": mode,
        "created_at": "2026-01-02T03:04:05+00:00",
        "ml_core": "0.2.0",
        "duration_s": 118.4,
        "data_path": "/data/pcam course",
        "num_threads": 2,
        "splits": {split: fabricate_record(split, patches, findings) for split in levels},
        "findings": findings,
        "not_checked": [
            {"check": "slides in several splits", "why": "no meta csv lies beside the files"},
            {"check": "overlapping coordinates", "why": "no meta csv lies beside the files"},
        ],
        "exclusions_sha256": hashlib.sha256(b"exclusions").hexdigest(),
    }
    if mode == "quick":
        for record in audit["splits"].values():
            record["num_rows"] *= 40
    return FabricatedAudit({**audit, **changes}, patches, read, levels)


def measure(levels, labels):
    """Return the table of the patches, measured as the audit does, 64 at a time."""
    parts = []
    for split, patches in levels.items():
        for start in range(0, len(patches), 64):
            block = patches[start : start + 64]
            columns = dict(measure_pixels(Block(block)))
            columns["index"] = np.arange(start, start + len(block))
            columns["label"] = np.asarray(labels[split][start : start + 64], np.int8)
            columns["split"] = split
            parts.append(pd.DataFrame(columns))
    table = pd.concat(parts, ignore_index=True)
    return table.assign(split=pd.Categorical(table["split"], SPLITS))


def finding(name, severity, message, action="", **fields):
    plain = {
        "split": "", "count": 0, "share": 0.0, "indices": [], "exclude": False, "examples": [],
        "facts": {},
    }  # fmt: skip
    return {
        "id": name,
        "severity": severity,
        "message": message,
        "action": action,
        **plain,
        **fields,
    }


def about_rows(name, severity, said, action, rows, num, split="train", exclude=True, **fields):
    share = len(rows) / num
    return finding(
        name, severity, f"{split}: {len(rows):,} of {num:,} patches ({share:.1%}) {said}.", action,
        split=split, count=len(rows), share=share, indices=[int(row) for row in rows],
        exclude=exclude, examples=[[[split, int(row)]] for row in rows[:12]], **fields,
    )  # fmt: skip


def fabricate_findings(patches, by_kind, pairs, across):
    train = patches[patches["split"] == "train"]
    num, labels = len(train), train["label"].to_numpy()
    leave_out = "Leave them out: train with data.on_findings=exclude."
    said = {
        "black": "are entirely black",
        "white": "are entirely white",
        "non-finite": "hold NaN or infinite values",
        "out-of-range": "hold values outside 0..255, up to 100,000",
    }
    broken = [
        about_rows(kind, "error", said[kind], leave_out, by_kind[kind], num) for kind in KINDS
    ]
    broken[2]["facts"] = {"values_per_patch": {"median": 768, "max": 2304}, "share_nan": 0.0278}
    broken[3]["facts"] = {"largest": 1e5, "smallest": 0.0, "values_per_patch": 75}
    repeated = about_rows(
        "exact-duplicates", "warning", "repeat another patch of the split exactly",
        "Keep one of each, or count a repeated patch once when you score.", pairs[:, 1], num,
        exclude=False, facts={"groups": len(pairs), "largest_group": 2},
    )  # fmt: skip
    repeated["examples"] = [[["train", int(a)], ["train", int(b)]] for a, b in pairs[:12]]
    suspects = np.flatnonzero(labels == 1)[:12]
    return [
        *broken,
        finding(
            "dtype-differs", "error",
            "Splits are stored differently: train as float32, valid and test as uint8.",
            "Store train as uint8: `ml-core data pack` does, and saves 995.0 MB.",
            facts={
                "dtype": {"train": "float32", "valid": "uint8", "test": "uint8"},
                "bytes_wasted": 995_000_000,
            },
        ),
        *([finding(
            "duplicates-across-splits", "error",
            f"{len(across)} patches of valid repeat one of train, upside down or turned.",
            "Leave them out of valid, since the model has seen them.", split="valid",
            count=len(across), share=len(across) / 60, indices=[b for _, b in across], exclude=True,
            examples=[[["train", a], ["valid", b]] for a, b in across],
            facts={"pairs": [
                {"train": a, "valid": b, "transform": "flipped", "distance": 0} for a, b in across
            ]},
        )] if across else []),
        repeated,
        finding(
            "label-shift", "warning", "Tumour is 16.7 % of train but 50.0 % of valid and test.",
            "Balance batches, and choose the threshold on data that are like the day of use.",
            facts={"share_positive": {"train": 0.167, "valid": 0.5, "test": 0.5},
                   "interval": {"train": [0.161, 0.172], "valid": [0.475, 0.525]}},
        ),
        finding(
            "class-imbalance", "warning", "train: 5.0 normal patches for each tumour patch.",
            "Sample batches by class.", split="train", facts={"ratio": 4.99},
        ),
        about_rows(
            "label-errors", "warning", "have a label that their look contradicts",
            "Look at them, the least plausible first.", suspects, num, exclude=False,
            facts={"noise_rate": 0.021, "noise_interval": [0.014, 0.029]},
        ),
        finding(
            "shortcut-colour", "warning", "Mean colour alone predicts the label with AUC 0.742.",
            "A model must beat this before it has learnt tissue.",
            split="train", facts={
                "property": "mean colour, bottom row", "auc": 0.742,
                "auc_interval": [0.735, 0.749], "num_patches": num,
            },
        ),
        finding(
            "drift", "warning", "valid differs from train in 3 of 9 statistics, most in mean_b.",
            "Find out what was done to train or valid alone, and undo it.", split="valid",
            facts={"first": "train", "together_auc": 0.83, "effects": fabricate_effects()[:3]},
        ),
        finding(
            "slides-unknown", "info", "Whether slides are in several splits cannot be told.",
            "Put the meta csv beside the files.",
        ),
        finding(
            "splits-compared", "info", "Between splits the patches of a class differ somewhat.",
            facts={"effects": fabricate_effects(), "large_delta": 0.474},
        ),
        finding(
            "shortcuts-compared", "info", "How well simple properties predict the label.",
            facts={"table": fabricate_aucs()},
        ),
    ]  # fmt: skip


def fabricate_effects():
    names = ("mean_r", "mean_g", "mean_b", "std_luma", "haematoxylin", "eosin", "focus",
             "blockiness", "all together")  # fmt: skip
    pairs = (("train", "valid"), ("train", "test"), ("valid", "test"))
    rng = np.random.default_rng(5)
    return [
        {"statistic": name, "first": first, "second": second, "label": label, "delta": delta,
         "delta_low": delta - 0.05, "delta_high": delta + 0.05, "distance": 0.2, "p_holm": 1e-9}
        for name in names for first, second in pairs for label in (0, 1)
        for delta in [round(float(rng.normal(0, 0.25)), 3)]
    ]  # fmt: skip


def fabricate_aucs():
    aucs = {"mean-colour": 0.81, "colour-statistics": 0.87, "blockiness": 0.64, "focus": 0.71,
            "neighbours": 0.92, "row number": 0.55}  # fmt: skip
    return [
        {"split": split, "property": name, "auc": auc - 0.02 * i, "low": auc - 0.02 * i - 0.03,
         "high": auc - 0.02 * i + 0.03, "num_patches": 1500, "warning_from": 0.9}
        for name, auc in aucs.items() for i, split in enumerate(SPLITS)
    ]  # fmt: skip


def flags(patches, findings):
    ids = [[] for _ in range(len(patches))]
    places = zip(patches["split"], patches["index"], strict=True)
    positions = {place: i for i, place in enumerate(places)}
    for each in findings:
        for row in each["indices"]:
            ids[positions[each["split"], row]].append(each["id"])
    return [" ".join(each) for each in ids]


def fabricate_record(split, patches, findings):
    table = patches[patches["split"] == split]
    rows = {row for f in findings if f["split"] == split for row in f["indices"]}
    excluded = {
        row for f in findings if f["split"] == split and f["exclude"] for row in f["indices"]
    }
    is_train = split == "train"
    return {
        "x_path": f"/data/pcam course/camelyonpatch_level_2_split_{split}_x.h5",
        "y_path": f"/data/pcam course/camelyonpatch_level_2_split_{split}_y.h5",
        "x_sha256": hashlib.sha256(split.encode()).hexdigest(),
        "y_sha256": hashlib.sha256(split.upper().encode()).hexdigest(),
        "num_rows": len(table),
        "num_examined": len(table),
        "num_positive": int((table["label"] == 1).sum()),
        "num_unlabelled": int((table["label"] < 0).sum()),
        "shape": [96, 96, 3],
        "dtype": "float32" if is_train else "uint8",
        "layout": "contiguous",
        "value_range": "0..255",
        "num_bytes": len(table) * 27648 * (4 if is_train else 1),
        "num_flagged": len(rows),
        "num_excluded": len(excluded),
        "official": None if is_train else split,
    }
