"""The baselines of a split, fitted once on train and kept for every run on the same data.

Reads the train split and the split that is scored; keeps the table in
`output_dir`/baselines/KEY/SPLIT.parquet, and in baselines.json beside it what the key stands for.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ml_core.config import Config
from ml_core.data.checks import hash_splits
from ml_core.data.patch_file import Rows
from ml_core.data.pcam import PCAMDataset
from ml_core.errors import DataError, RunError
from ml_core.evaluation.baselines import BaselineTable
from ml_core.evaluation.baselines.fit import RECIPE, ReadPatches, fit_baselines
from ml_core.log import shown
from ml_core.pipeline.parts.splits import open_split
from ml_core.runs import write_json

logger = logging.getLogger("ml_core.baselines")

Hashes = Mapping[str, tuple[str, str]]


def baseline_table(
    config: Config, split: str, exclude: Mapping[str, Rows], hashes: Hashes | None = None
) -> BaselineTable:
    """Return what each baseline says about the patches of `split` that `config` uses.

    They are fitted on the train patches that a training would use, and drawn as it would draw
    them. `exclude`: rows to leave out of each split. `hashes`: SHA-256 of the patches and of the
    labels of train and `split`, as the caller knows them, from a run's record for instance; what
    is missing is computed. A kept table of these bytes is returned without reading a patch. Before
    one is made, files whose hashes were given are hashed again: the table is of the bytes that its
    key names, or there is none.

    A kept table that is damaged is made anew, and one that cannot be written is returned all the
    same; both are said. Whoever asks for test opens it, and has to count that.

    Raises DataError for files that are missing, damaged, or not those of `hashes`, and for a train
    split of one class.
    """
    known = {name: hashes[name] for name in ("train", split) if hashes and name in hashes}
    unknown = [name for name in dict.fromkeys(("train", split)) if name not in known]
    every = {**known, **hash_splits(config.data.files_dir, unknown)}
    made_of = _made_of(config, split, exclude, every)
    key = _digest(json.dumps(made_of, sort_keys=True).encode())[:16]
    folder = config.output_dir / "baselines" / key
    kept = _load(folder / f"{split}.parquet", key)
    if kept is not None:
        return kept
    _refuse_other_bytes(config, known)
    table = _make(config, split, exclude, {"key": key})
    _keep(table, folder, {"key": key, "made_of": made_of})
    return table


def _made_of(
    config: Config, split: str, exclude: Mapping[str, Rows], hashes: Hashes
) -> dict[str, Any]:
    """Return everything that the numbers of a table follow from."""
    data = config.data
    return {
        "recipe": RECIPE,
        "split": split,
        "data": {
            name: {
                "x_sha256": hashes[name][0],
                "y_sha256": hashes[name][1],
                "excluded": _digest(np.sort(exclude.get(name, _NO_ROWS)).astype("<i8").tobytes()),
            }
            for name in ("train", split)
        },
        "filter_data": data.filter_data,
        "max_patches": data.max_patches,
        "balanced": data.balanced,
    }


def _load(path: Path, key: str) -> BaselineTable | None:
    """Return the table that is kept, or None; says what is wrong with one that cannot be used."""
    try:
        if not path.exists():
            return None
        table = BaselineTable.load(path)
    except (RunError, OSError) as error:
        logger.warning("%s The baselines are computed anew.", error)
        return None
    if table.facts.get("key") != key or table.split != path.stem:
        logger.warning(
            "%s holds the baselines of split %s with key %s, which belong elsewhere. "
            "The baselines are computed anew.",
            path, table.split, table.facts.get("key"),
        )  # fmt: skip
        return None
    return table


def _refuse_other_bytes(config: Config, known: Hashes) -> None:
    for split, found in hash_splits(config.data.files_dir, list(known)).items():
        if found != tuple(known[split]):
            raise DataError(
                f"the files of {split} in {config.data.files_dir} have changed since they were "
                f"recorded: their SHA-256 was {_short(known[split])} and is {_short(found)}. Put "
                "the old files back: the baselines must know the same patches as the model."
            )


def _make(
    config: Config, split: str, exclude: Mapping[str, Rows], facts: Mapping[str, Any]
) -> BaselineTable:
    """Fit on train and predict `split`; says how long that took."""
    started = time.monotonic()
    train_set = open_split(config, "train", exclude)
    scored = open_split(config, split, exclude)
    logger.info("baselines of %s: fitted once for these data, then kept", split)
    baselines = fit_baselines(_reader(train_set), train_set.labels, balanced=config.data.balanced)
    if baselines.not_converged:
        logger.warning(
            "baselines that had not converged when they were stopped, so may be too weak: %s",
            ", ".join(baselines.not_converged),
        )
    table = BaselineTable(
        split=split,
        index=scored.indices,
        y_true=scored.labels,
        y_prob=baselines.predict(_reader(scored), len(scored)),
        facts={**baselines.facts, **facts},
    )
    logger.info(
        "baselines of %s: fitted on %s patches, %s scored, %.0f s",
        split,
        f"{baselines.facts['fitted_on']:,}",
        f"{len(table):,}",
        time.monotonic() - started,
    )
    return table


def _reader(dataset: PCAMDataset) -> ReadPatches:
    return lambda positions: dataset.file.read(dataset.indices[positions])


def _keep(table: BaselineTable, folder: Path, about: Mapping[str, Any]) -> None:
    """Write both files, the table last: where there is one, it is explained."""
    try:
        write_json(folder / "baselines.json", about)
        table.save(folder / f"{table.split}.parquet")
    except (OSError, RunError) as error:
        logger.warning(
            "the baselines cannot be kept in %s (%s), so they are computed again the next time.",
            shown(folder), error,
        )  # fmt: skip


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _short(hashes: tuple[str, str]) -> str:
    return " and ".join(each[:12] for each in hashes)


_NO_ROWS: Rows = np.empty(0, np.int64)
