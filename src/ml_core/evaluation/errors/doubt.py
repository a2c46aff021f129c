"""Whether an error is the model's or the label's, by evidence that is not the model's alone."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from ml_core.evaluation.errors.witnesses import Witnesses
from ml_core.evaluation.predictions import Predictions
from ml_core.metrics.arrays import Floats
from ml_core.page.text import percent

Doubt = Literal["label", "model", "unclear"]

# Measured on 3,000 real patches of valid and test with 5 % of all labels flipped, three draws, the
# best CNN and an audit of the flipped labels: of the errors marked at 50, 67 % are flips (of all
# errors 27 %), and 55 % of the flips among the errors are marked; at 20 it is 60 and 69 %, at 150
# 82 and 40 %. With 1 % flipped, 28 % of those marked at 50 are flips. Neighbours and other seeds
# beside these two tell flips from hard patches no better (AUC 0.845 instead of 0.849 on valid):
# what is hard is hard for all of them. So they are shown, and do not decide.
LEAST_ODDS = 50.0
_SMALLEST = 1e-6  # a belief of 0 would outweigh everything


def odds_against_label(predictions: Predictions, label_belief: Floats) -> Floats:
    """Return the odds that the label is wrong, (N,): the model's times the audit's; NaN unknown.

    The two were fitted apart, to other figures of the pixels and to other rows, so their odds are
    multiplied as if each erred by itself: naive Bayes with even odds beforehand. Not quite true,
    for what is hard for one is often hard for both: the odds rank, they are no probability.
    """
    belief = label_belief.clip(_SMALLEST, 1 - _SMALLEST)
    logit_of_label = np.where(predictions.labels == 1, predictions.logit, -predictions.logit)
    odds: Floats = np.exp((np.log1p(-belief) - np.log(belief) - logit_of_label).clip(-700, 700))
    return odds


def is_label_doubtful(odds: Floats, label_belief: Floats) -> npt.NDArray[np.bool_]:
    """Return which labels are doubtful, (N,): by the odds, with the audit against the label too."""
    doubtful: npt.NDArray[np.bool_] = (odds >= LEAST_ODDS) & (label_belief < 0.5)
    return doubtful


def whose_error(row: int, is_doubtful: bool, witnesses: Witnesses) -> Doubt:
    """Return who seems wrong: the label, or the model where a witness takes the label's side.

    The audit is asked first, then the other seeds, then the neighbours: the first who knows the
    patch and leans to one side decides.
    """
    if is_doubtful:
        return "label"
    belief = witnesses.label_belief[row]
    if not math.isnan(belief):
        return "model" if belief >= 0.5 else "unclear"
    others = (witnesses.seeds_agree[row], witnesses.neighbours_agree[row])
    return "model" if any(share < 0.5 for share in others) else "unclear"


def reasons(
    row: int, odds: Floats, called: str, witnesses: Witnesses, num_neighbours: int
) -> tuple[str, ...]:
    """Return one sentence for each witness that knows the patch, in its figures."""
    said = []
    belief = witnesses.label_belief[row]
    if not math.isnan(belief):
        said.append(
            f"the audit's model, which has not seen this label, gives it {percent(belief)}; with "
            f"this model's, the odds against it are {_in_words(odds[row])}"
        )
    neighbours, seeds = witnesses.neighbours_agree[row], witnesses.seeds_agree[row]
    if not math.isnan(neighbours):
        number = round(neighbours * num_neighbours)
        said.append(f"{number} of the {num_neighbours} nearest train patches are labelled {called}")
    if not math.isnan(seeds):
        number = round(seeds * witnesses.num_seeds)
        said.append(f"{number} of {witnesses.num_seeds} other seeds call it {called} as well")
    return tuple(said)


def _in_words(odds: float) -> str:
    return f"{odds:,.0f} to 1" if odds >= 1 else f"1 to {1 / odds:,.0f}"
