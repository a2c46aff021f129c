"""How far runs that differ only in their seed call the same patches alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ml_core.evaluation.predictions import Predictions
from ml_core.evaluation.seed_calls import calls_of, seed_calls


class Tally(NamedTuple):
    """Errors of the run itself among some patches."""

    num_wrong: int
    num_patches: int


@dataclass(frozen=True)
class SeedAgreement:
    """How `runs`, the run itself first, call the same patches."""

    runs: tuple[str, ...]
    all_agree: float  # share of patches that all call alike
    kappa: float  # Fleiss'; NaN where all call every patch the same
    when_agree: Tally
    when_split: Tally
    by_votes: tuple[Tally, ...]  # by how many of the runs call tumour: 0, 1, ..., all


def measure_seeds(
    predictions: Predictions,
    threshold: float,
    seed_predictions: Mapping[str, Predictions],
    run_name: str,
) -> SeedAgreement:
    """Return how the run and at least one other seed agree, all called at `threshold`.

    Raises RunError as `seed_calls` does.
    """
    own = calls_of(predictions, threshold)
    calls = np.vstack([own, seed_calls(predictions, threshold, seed_predictions)])  # (S + 1, N)
    votes = calls.sum(axis=0)
    is_wrong = own != (predictions.labels == 1)
    agree = (votes == 0) | (votes == len(calls))
    return SeedAgreement(
        runs=(run_name, *seed_predictions),
        all_agree=float(agree.mean()),
        kappa=fleiss_kappa(votes, len(calls)),
        when_agree=_tally(is_wrong, agree),
        when_split=_tally(is_wrong, ~agree),
        by_votes=tuple(_tally(is_wrong, votes == number) for number in range(len(calls) + 1)),
    )


def fleiss_kappa(votes: npt.NDArray[np.integer], num_raters: int) -> float:
    """Return the agreement of raters beyond chance, 1 for perfect; NaN where chance is perfect.

    `votes` (N,) counts who says yes, of `num_raters` >= 2. Fleiss, Psychological Bulletin 76
    (1971); with two raters it is Scott's pi, not Cohen's kappa, as all share one rate.
    """
    yes = votes.astype(np.float64)
    no = num_raters - yes
    alike = (yes * (yes - 1) + no * (no - 1)) / (num_raters * (num_raters - 1))
    rate = yes.mean() / num_raters
    by_chance = rate**2 + (1 - rate) ** 2
    return float((alike.mean() - by_chance) / (1 - by_chance)) if by_chance < 1 else float("nan")


def _tally(is_wrong: npt.NDArray[np.bool_], where: npt.NDArray[np.bool_]) -> Tally:
    return Tally(int(is_wrong[where].sum()), int(where.sum()))
