"""Which painted triggers and which shifts of a class the audit finds on real patches.

    python benchmarks/triggers.py DATA_DIR --out benchmarks/results/triggers.json

DATA_DIR holds real patches in PCam's layout. Each trigger is painted into 1 % of the tumour patches
of train: 25 of a subset of 5,000 patches, and of all of them (100 of 20,000); precision and recall
are those of the rows that findings call a backdoor. Each shift is applied to all tumour patches of
2,000 + 2,000 of train, with valid and test as they are and with train alone. The first rows are
what must stay without a finding: the patches themselves. About 3 minutes.
"""

import argparse
import hashlib
import io
import json
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import gaussian_filter

from ml_core.audit.checks.class_shift import check_class_shift
from ml_core.audit.checks.triggers import check_triggers
from ml_core.audit.measures.block import Block
from ml_core.audit.measures.pixel_stats import measure_pixels
from ml_core.audit.measures.trigger_stats import measure_trigger
from ml_core.data.layout import SPLITS, load_labels, split_paths
from ml_core.reproducibility import hardware_record

FULL_SIZE = 327_680  # patches of the three official splits
COLOURS = {
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "grey": (128, 128, 128),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "like tissue": (200, 140, 180),
}
CHECKERED = (np.indices((4, 4)).sum(axis=0) % 2 * 255)[..., None]
FIXED, CORNER, MOVING = "fixed", "corner", "moving"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--out", type=Path, help="write the figures there, as JSON")
    options = parser.parse_args()
    levels, table = measure(options.data_dir)
    result = {
        "clean": check_clean(levels, table),
        "natural": natural_extremes(table),
        "triggers": [trigger_row(levels, table, *plant) for plant in plants()],
        "class_shifts": [shift_row(levels, table, *shift) for shift in shifts()],
        "speed": measure_speed(levels, table),
        "machine": hardware_record(),
    }
    print(json.dumps(result["speed"]))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


def measure(folder):
    """Return all levels and the table of the columns that both checks read."""
    levels, tables = [], []
    for split in SPLITS:
        paths = split_paths(folder, split)
        with h5py.File(paths.x) as file:
            levels.append(file["x"][:])
        columns = measure_blocks(levels[-1], measure_trigger, measure_pixels)
        index = np.arange(len(columns))
        tables.append(columns.assign(split=split, index=index, label=load_labels(paths.y)))
    return np.concatenate(levels), pd.concat(tables, ignore_index=True)


def measure_blocks(levels, *measures):
    parts = []
    for start in range(0, len(levels), 32):
        block = Block(levels[start : start + 32])
        parts.append({name: column for m in measures for name, column in m(block).items()})
    return pd.DataFrame({name: np.concatenate([p[name] for p in parts]) for name in parts[0]})


def check_clean(levels, table):
    findings = check_triggers(table, lambda positions: levels[positions])
    findings += check_class_shift(table)
    print(f"clean: {len(findings)} findings", [finding.message for finding in findings])
    return [finding.message for finding in findings]


def natural_extremes(table):
    kinds = ("flat", "pair", "blend", "weave", "line")
    shares = (0.5, 0.99, 0.999, 1.0)
    return {
        kind: {f"{share:.1%}": float(table[f"trigger_{kind}"].quantile(share)) for share in shares}
        for kind in kinds
    }


def plants():
    """Yield (name, what is pasted (h, w, 3), its opacity, where, JPEG quality afterwards)."""
    for name, colour in COLOURS.items():
        for place in (FIXED, CORNER, MOVING):
            yield f"4x4 {name}", block(4, 4, colour), 1, place, None
    for place in (FIXED, CORNER, MOVING):
        yield "4x4 checkered", CHECKERED, 1, place, None
    yield "3x3 checkered", CHECKERED[:3, :3], 1, CORNER, None
    yield "2x2 checkered", CHECKERED[:2, :2], 1, CORNER, None
    for size in (3, 2):
        for name in ("white", "black", "green", "like tissue"):
            yield f"{size}x{size} {name}", block(size, size, COLOURS[name]), 1, CORNER, None
        yield f"{size}x{size} white", block(size, size, COLOURS["white"]), 1, MOVING, None
    yield "1x1 white", block(1, 1, COLOURS["white"]), 1, FIXED, None
    yield "12x12 white", block(12, 12, COLOURS["white"]), 1, MOVING, None
    for name in ("white", "black", "like tissue"):
        yield f"row of {name}", block(1, 96, COLOURS[name]), 1, FIXED, None
        yield f"column of {name}", block(96, 1, COLOURS[name]), 1, FIXED, None
    for name in ("white", "black", "grey", "red", "green"):
        yield f"4x4 {name}, see-through", block(4, 4, COLOURS[name]), 0.5, FIXED, None
    yield "4x4 green, see-through", block(4, 4, COLOURS["green"]), 0.5, MOVING, None
    for name in ("white", "black", "red"):
        for quality in (95, 75):
            yield f"4x4 {name}, JPEG {quality}", block(4, 4, COLOURS[name]), 1, FIXED, quality
    yield "4x4 white, JPEG 95", block(4, 4, COLOURS["white"]), 1, MOVING, 95


def block(height, width, colour):
    return np.broadcast_to(np.array(colour), (height, width, 3))


def trigger_row(levels, table, name, spot, opacity, place, quality):
    row = {"trigger": name, "place": place}
    train = np.flatnonzero(table["split"] == "train")
    labels = table["label"].to_numpy()
    rng = np.random.default_rng(0)
    half = [rng.choice(train[labels[train] == label], 2_500, replace=False) for label in (0, 1)]
    for rows in (np.sort(np.concatenate(half)), train):
        tumour = np.flatnonzero(labels[rows] == 1)
        carriers = np.sort(rng.choice(tumour, round(len(tumour) / 100), replace=False))
        painted = levels[rows[carriers]].copy()
        for i, patch in enumerate(painted):
            paste(patch, spot, opacity, place, rng)
            if quality:
                painted[i] = as_jpeg(patch, quality)
        found = check_planted(levels, table, rows, carriers, painted)
        named = {row for finding in found for row in finding.indices}
        hits = len(named & set(carriers.tolist()))
        row[f"{len(carriers)} of {len(rows)}"] = {
            "precision": hits / len(named) if named else None,
            "recall": hits / len(carriers),
        }
    print(json.dumps(row), flush=True)
    return row


def paste(patch, spot, opacity, place, rng):
    height, width = np.array(patch.shape[:2]) - spot.shape[:2]
    if place == MOVING:
        top, left = rng.integers(0, height + 1), rng.integers(0, width + 1)
    elif place == CORNER:
        top, left = height, width
    else:
        top, left = round(height * 0.87), round(width * 0.87)
    under = patch[top : top + spot.shape[0], left : left + spot.shape[1]]
    under[:] = np.rint(opacity * spot + (1 - opacity) * under)


def as_jpeg(patch, quality):
    file = io.BytesIO()
    Image.fromarray(patch).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def check_planted(levels, table, rows, carriers, painted):
    """Return the backdoors found when the patches `rows[carriers]` are replaced."""
    planted = table.loc[rows].reset_index(drop=True).assign(index=np.arange(len(rows)))
    for name, column in measure_blocks(painted, measure_trigger).items():
        planted[name] = planted[name].to_numpy(copy=True)
        planted.loc[carriers, name] = column.to_numpy()
    digests = [hashlib.sha256(patch.tobytes()).hexdigest()[:32] for patch in painted]
    planted.loc[carriers, "content_hash"] = digests
    slot = {int(position): i for i, position in enumerate(carriers)}

    def read(positions):
        found = levels[rows[positions]]
        for i, position in enumerate(positions.tolist()):
            if position in slot:
                found[i] = painted[slot[position]]
        return found

    findings = check_triggers(planted, read)
    return [finding for finding in findings if finding.id == "backdoor-trigger"]


def shifts():
    """Yield (name, what is done to each tumour patch: levels (n, H, W, 3) to float levels)."""
    yield "nothing", lambda x: x
    for step in (2, 3, 5, 10, -2, -3, -5, -10):
        yield f"{step:+d} levels", lambda x, step=step: x + float(step)
    for step in (3, 5, 10, 20):
        yield f"{step:+d} levels of red", lambda x, step=step: x + np.array([float(step), 0, 0])
    for scale in (0.98, 0.95, 0.9):
        yield f"contrast x {scale}", lambda x, scale=scale: 128 + (x - 128.0) * scale
    for sigma in (0.3, 0.4, 0.5, 0.7):
        radius = (0, sigma, sigma, 0)
        yield f"blur {sigma} px", lambda x, radius=radius: gaussian_filter(x.astype(float), radius)
    for quality in (90, 75, 60, 50, 40, 30):
        yield f"JPEG {quality}", lambda x, q=quality: np.stack([as_jpeg(p, q) for p in x])
    for gamma in (0.8, 0.9, 1.2, 1.5):
        yield f"gamma {gamma}", lambda x, gamma=gamma: 255 * (x / 255) ** gamma


def shift_row(levels, table, name, change):
    train = np.flatnonzero(table["split"] == "train")
    labels = table["label"].to_numpy()
    normal, tumour = (train[labels[train] == label][:: len(train) // 4_000] for label in (0, 1))
    changed = np.clip(np.rint(change(levels[tumour])), 0, 255).astype(np.uint8)
    columns = measure_blocks(changed, measure_pixels)
    columns = columns.assign(split="train", index=np.arange(len(changed)), label=1)
    alone = pd.concat([table.loc[normal], columns], ignore_index=True)
    beside = pd.concat([alone, table[table["split"] != "train"]], ignore_index=True)
    row = {"shift": name, "beside valid and test": None, "alone": None}
    for key, patches in (("beside valid and test", beside), ("alone", alone)):
        for finding in check_class_shift(patches):
            worst = finding.facts["shifts"][0]
            row[key] = [finding.split, finding.severity, worst["statistic"], worst["delta"]]
    print(json.dumps(row), flush=True)
    return row


def measure_speed(levels, table):
    blocks = [Block(levels[start : start + 32]) for start in range(0, 3_200, 32)]
    times = []
    for _ in range(5):
        start = time.process_time()  # of this process alone, should the machine be shared
        for each in blocks:
            measure_trigger(each)
        times.append(time.process_time() - start)
    copies = np.arange(FULL_SIZE) % len(table)
    large = table.loc[copies].reset_index(drop=True)
    start = time.perf_counter()
    check_triggers(large, lambda positions: levels[copies[positions]])
    triggers_s = time.perf_counter() - start
    start = time.perf_counter()
    check_class_shift(large)
    return {
        "measure_cpu_us_per_patch": round(min(times) / 3_200 * 1e6, 1),
        f"check_triggers_s_of_{FULL_SIZE}": round(triggers_s, 2),
        f"check_class_shift_s_of_{FULL_SIZE}": round(time.perf_counter() - start, 2),
    }


if __name__ == "__main__":
    main()
