"""The predictions table: one row per patch, from which every metric can be recomputed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ml_core.errors import RunError
from ml_core.evaluation.baselines import BaselineTable, score_baselines
from ml_core.evaluation.split_table import check_unique, facts_of, read_table, write_table
from ml_core.metrics import (
    SAMPLE_FACTS,
    baseline_metrics,
    compute_intervals,
    compute_metrics,
    confusion,
)
from ml_core.numerics.elementary_arrays import exp, log1p
from ml_core.runs import RunDir

SCHEMA = pa.schema(
    [
        pa.field("split", pa.string(), nullable=False),
        pa.field("index", pa.int64(), nullable=False),
        pa.field("y_true", pa.int8()),  # null throughout where the patches have no labels
        pa.field("y_prob", pa.float64(), nullable=False),
        pa.field("logit", pa.float64(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Predictions:
    """What one model says about the patches of one split.

    `logit` is the log-odds of tumour and `y_prob` its sigmoid, both float64 (N,); `index` is the
    row in the source file, int64 (N,), each once; `y_true` is int64 (N,), or None without labels.
    """

    split: str
    index: npt.NDArray[np.int64]
    y_true: npt.NDArray[np.int64] | None
    y_prob: npt.NDArray[np.float64]
    logit: npt.NDArray[np.float64]
    run_id: str | None = None
    weights_sha256: str | None = None
    epoch: int | None = None

    def __len__(self) -> int:
        return len(self.index)

    @property
    def nll(self) -> npt.NDArray[np.float64]:
        """The loss of each patch, from the logit: finite where y_prob has reached 0 or 1."""
        excess = np.where(self.labels == 1, -self.logit, self.logit)
        # log(1 + e^excess), without overflow
        loss: npt.NDArray[np.float64] = np.maximum(excess, 0.0) + log1p(exp(-np.abs(excess)))
        return loss

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """`y_true`, or RunError where there are none: new patches cannot be scored."""
        if self.y_true is None:
            raise RunError(
                f"the {len(self)} predictions of split {self.split!r} have no labels, so they "
                "cannot be scored. Give the label file to predict, or read y_prob as it is."
            )
        return self.y_true

    def metrics(self, threshold: float = 0.5) -> dict[str, float]:
        """Return `compute_metrics` of this table."""
        return compute_metrics(self.labels, self.y_prob, threshold, nll=self.nll)

    def save(self, path: Path) -> None:
        """Write the table as parquet, so that a reader sees the old or the new file, never a part.

        Raises RunError for a patch that is there twice, and when the file cannot be written.
        """
        assert self.split, "a predictions table names its split"
        check_unique(self.split, self.index, path)
        facts = {
            "run_id": self.run_id,
            "weights_sha256": self.weights_sha256,
            "epoch": self.epoch,
        }
        table = pa.table(
            {
                "split": pa.array([self.split] * len(self), pa.string()),
                "index": pa.array(self.index, pa.int64()),
                "y_true": pa.nulls(len(self), pa.int8())
                if self.y_true is None
                else pa.array(self.y_true.astype(np.int8), pa.int8()),
                "y_prob": pa.array(self.y_prob, pa.float64()),
                "logit": pa.array(self.logit, pa.float64()),
            },
            schema=SCHEMA.with_metadata(
                {key: str(value) for key, value in facts.items() if value is not None}
            ),
        )
        write_table(table, path)

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read a table that `save` wrote.

        Raises RunError when the file is missing or damaged, lacks a column or has one of another
        type, is empty, holds several splits, or names a patch twice.
        """
        split, table = read_table(path, SCHEMA, what="predictions table", again="Predict again.")
        y_true, logit = table["y_true"], table["logit"].to_numpy()
        if 0 < y_true.null_count < len(y_true):
            raise RunError(
                f"{path} has no label for {y_true.null_count} of {len(y_true)} patches; "
                "allowed are labels for all of them or for none."
            )
        unlabelled = y_true.null_count == len(y_true)
        facts = facts_of(table)
        return cls(
            split=split,
            index=table["index"].to_numpy(),
            y_true=None if unlabelled else y_true.to_numpy().astype(np.int64),
            y_prob=table["y_prob"].to_numpy(),
            logit=logit,
            run_id=facts.get("run_id"),
            weights_sha256=facts.get("weights_sha256"),
            epoch=int(facts["epoch"]) if "epoch" in facts else None,
        )


def evaluate_predictions(
    predictions: Predictions,
    threshold: float = 0.5,
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    baselines: BaselineTable | None = None,
    baseline_thresholds: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Return the content of metrics.json: scores with intervals, baselines, and what was scored.

    With `baselines`, each is scored on the same patches, joined by index, and stands beside the
    model with the paired difference in ROC-AUC (`score_baselines`); a baseline is called at 0.5
    unless `baseline_thresholds` has one for it. Without, only what needs no train split is there.

    Undefined values are None, which JSON writes as null. Raises RunError without labels, and for
    baselines of other patches.
    """
    labels, probs, nll = predictions.labels, predictions.y_prob, predictions.nll
    values = compute_metrics(labels, probs, threshold, nll=nll)
    intervals = compute_intervals(labels, probs, threshold, num_resamples, level, seed, nll=nll)
    return {
        "split": predictions.split,
        "threshold": threshold,
        "n": len(predictions),
        "positives": int(values["positives"]),
        "prevalence": values["prevalence"],
        "metrics": {
            name: {
                "value": null_if_nan(values[name]),
                "low": null_if_nan(interval.low),
                "high": null_if_nan(interval.high),
            }
            for name, interval in intervals.items()
        },
        "baselines": _baselines(predictions, threshold, level, baselines, baseline_thresholds),
        "baseline_facts": {} if baselines is None else dict(baselines.facts),
        "confusion": confusion(labels, probs, threshold)._asdict(),
        "run_id": predictions.run_id,
        "weights_sha256": predictions.weights_sha256,
        "epoch": predictions.epoch,
        "predictions_file": RunDir(Path()).predictions_path(predictions.split).as_posix(),
        "num_resamples": num_resamples,
        "level": level,
        "seed": seed,
    }


def sigmoid(logit: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the probabilities of log-odds, the same bits everywhere, without overflow."""
    small = exp(-np.abs(logit))
    prob: npt.NDArray[np.float64] = np.where(logit >= 0, 1.0, small) / (1.0 + small)
    return prob


def null_if_nan(value: float) -> float | None:
    """Return `value`, or None where it is not finite: JSON has no NaN."""
    return value if math.isfinite(value) else None


def _baselines(
    predictions: Predictions,
    threshold: float,
    level: float,
    table: BaselineTable | None,
    thresholds: Mapping[str, float] | None,
) -> dict[str, Any]:
    labels = predictions.labels
    if table is None:
        return {
            name: _nulls({key: metrics[key] for key in metrics if key not in SAMPLE_FACTS})
            for name, metrics in baseline_metrics(labels, threshold).items()
        }
    probs = table.probs_of(predictions.split, predictions.index, labels)
    scores = score_baselines(labels, predictions.y_prob, probs, thresholds=thresholds, level=level)
    return _nulls(scores)


def _nulls(value: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _nulls(each) if isinstance(each, Mapping) else null_if_nan(each)
        for name, each in value.items()
    }
