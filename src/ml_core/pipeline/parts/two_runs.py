"""Two runs patch by patch, for their report: paired differences, and who changed sides."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ml_core.errors import RunError
from ml_core.evaluation.predictions import Predictions
from ml_core.evaluation.report.comparison import Comparison, compare_runs
from ml_core.evaluation.report.gallery import ReadPatches
from ml_core.evaluation.report.overview import run_names
from ml_core.evaluation.report.run_facts import RunFacts, read_run_facts
from ml_core.runs import RunDir
from ml_core.selection.paired import Contender, check_same_patches, paired_differences

logger = logging.getLogger("ml_core.report")


def compare_two(
    runs: Sequence[RunDir], page_dir: Path, read_patches: ReadPatches | None
) -> Comparison:
    """Return how the second of two runs differs from the first, on the patches both scored.

    Each is judged as its metrics.json has it: raw, at its own threshold. Where they cannot be
    compared patch by patch (other patches, no scores, one class), the comparison says why.
    """
    a, b = (read_run_facts(run, page_dir=page_dir) for run in runs)
    names = run_names([a, b])
    try:
        differences = _paired(a, b, names)
    except RunError as error:
        logger.warning("the two runs are not compared patch by patch: %s", error)
        differences = {}
    return compare_runs(a, b, differences, names=(names[0], names[1]), read_patches=read_patches)


def _paired(a: RunFacts, b: RunFacts, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the paired differences, `b` minus `a`; raises RunError where there are none."""
    (first, _), (second, _) = scored = _scored(a), _scored(b)
    together = " and ".join(names)
    check_same_patches(first.index, first.labels, second.index, second.labels, together)
    if len(np.unique(first.labels)) < 2:
        raise RunError("the patches are of one class.")
    of_a, of_b = (
        Contender(name, table.y_prob, threshold, table.nll)
        for name, (table, threshold) in zip(names, scored, strict=True)
    )
    assert a.scores is not None, "_scored raises without"
    resampling = {key: a.scores[key] for key in ("num_resamples", "seed", "level")}
    return paired_differences(first.labels, of_b, of_a, **resampling)


def _scored(facts: RunFacts) -> tuple[Predictions, float]:
    """Return the predictions that metrics.json scores, by rising index, and its threshold."""
    if facts.scores is None or facts.labelled is None:
        raise RunError(f"{facts.run.name} has no scores with predictions; evaluate it first.")
    table = facts.labelled
    order = np.argsort(table.index)
    columns = ("index", "y_true", "y_prob", "logit")
    rising = {name: getattr(table, name)[order] for name in columns}
    return dataclasses.replace(table, **rising), float(facts.scores["threshold"])
