"""A model made ready to decide: calibrated, with the threshold that the rule chooses for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ml_core.errors import RunError
from ml_core.evaluation.calibration import Calibration, fit_calibration
from ml_core.evaluation.predictions import Predictions
from ml_core.evaluation.threshold import METRICS as AT_THRESHOLD
from ml_core.evaluation.threshold import ThresholdRule, best_threshold
from ml_core.metrics import auc_standard_error, compute_intervals, compute_metrics
from ml_core.selection.paired import Contender, Floats, Ints
from ml_core.selection.runs import Candidate

ONE_SIGMA = 0.682689  # of a normal distribution lies within one standard deviation


@dataclass(frozen=True)
class Ready:
    """A candidate, its predictions calibrated, and the threshold for them."""

    candidate: Candidate
    raw: Predictions
    calibration: Calibration
    calibrated: Predictions
    threshold: float

    @property
    def contender(self) -> Contender:
        """What is compared with others on the same patches."""
        table = self.calibrated
        ranking = self.raw.y_prob if self.calibration.kind == "isotonic" else None
        return Contender(self.candidate.name, table.y_prob, self.threshold, table.nll, ranking)


def make_ready(candidate: Candidate, table: Predictions, kind: str, rule: ThresholdRule) -> Ready:
    """Return the candidate calibrated by `kind` and with the threshold of `rule`.

    Both are fitted on `table`, its validation predictions. Raises RunError where no threshold keeps
    the rule.
    """
    calibration = fit_calibration(kind, table.labels, table.logit)
    calibrated = calibration.calibrate(table)
    threshold = best_threshold(calibrated.labels, calibrated.y_prob, rule)
    return Ready(candidate, table, calibration, calibrated, threshold)


def score(table: Predictions, rule: ThresholdRule) -> dict[str, float]:
    """Return the metrics of uncalibrated predictions at the threshold of `rule`.

    Temperature keeps the order of the patches, so what is called, and what is counted of that, is
    as with calibrated predictions; loss and Brier score are of the probabilities as the model gave
    them. Where no threshold keeps the rule, what would follow from one is NaN.
    """
    try:
        threshold = best_threshold(table.labels, table.y_prob, rule)
    except RunError:
        metrics = compute_metrics(table.labels, table.y_prob, nll=table.nll)
        return {name: float("nan") if name in AT_THRESHOLD else metrics[name] for name in metrics}
    return compute_metrics(table.labels, table.y_prob, threshold, nll=table.nll)


def ready_baselines(
    y_true: Ints, y_prob: Mapping[str, Floats], rule: ThresholdRule
) -> list[Contender]:
    """Return the baselines, each with the threshold of `rule` for its own probabilities.

    Where there is no such threshold it is 0.5: for the constants, above all. What else a constant
    could answer is there as well, since always positive and always negative are both among them.
    """
    contenders = []
    for name, probs in y_prob.items():
        try:
            threshold = best_threshold(y_true, probs, rule)
        except RunError:
            threshold = 0.5
        contenders.append(Contender(name, probs, threshold))
    return contenders


def standard_error(
    table: Predictions, metric: str, rule: ThresholdRule, num_resamples: int, seed: int
) -> tuple[float, str]:
    """Return the standard error of a metric of one run over the patches, and how it was got.

    DeLong's for ROC-AUC. For the rest half the width of the metric's 68.27 % interval over the
    patches, which is one standard error where they vary normally.
    """
    if metric == "roc_auc":
        return auc_standard_error(table.labels, table.y_prob), "DeLong's, over the patches"
    threshold = best_threshold(table.labels, table.y_prob, rule)
    low, high = compute_intervals(
        table.labels, table.y_prob, threshold, num_resamples, ONE_SIGMA, seed, nll=table.nll
    )[metric]
    return (high - low) / 2, "from its interval over the patches"


def check_two_classes(table: Predictions, candidate: Candidate) -> None:
    """Raise RunError where validation holds one class: nothing can be ranked or chosen on it."""
    positives = int(table.labels.sum())
    if not 0 < positives < len(table):
        kind = "tumour" if positives else "normal"
        raise RunError(
            f"all {len(table):,} validation patches of {candidate.run.path} are {kind}, so no "
            "threshold and no ROC-AUC can be had from them. Give a validation split of both "
            "classes (ml-core data split makes one), and train again."
        )
