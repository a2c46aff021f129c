"""Labels that a cheap model, which never saw them, finds hard to believe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit
from scipy.stats import rankdata

from ml_core.audit.statistics.kernel_ridge import NUM_FOLDS, out_of_fold_scores
from ml_core.audit.statistics.proportions import Proportion, proportion, weighted_sum
from ml_core.findings import Finding
from ml_core.page.text import percent

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]

# Of each class, the share of surest patches that is judged. At a half, 3.4 % of clean real labels
# are contradicted instead of 1.1 %; a tenth would make the intervals 1.4 times as wide.
_SURE_SHARE = 0.2
# Lower end of the interval from which a class is called noisy, times how many patches of the other
# class there are for one of this: of five times as many, five times as many look like this one.
# Clean real patches reach at most 0.009 (20,000), 0.018 (15 random samples of 5,000), 0.033 (of
# 3,000) and, for a class at 1:5, 0.070 (of 3,500); 5 % of flips among 20,000 gives 0.048.
_NOISY = 0.04
# Below, the model is too weak to judge labels: clean random samples of 2,000 real patches reach
# 0.042, of 1,000 0.086 and of 600, where the AUC falls to 0.82, 0.106.
_LEAST_PATCHES = 3000
_LEAST_AUC = 0.8
_LEAST_PER_CLASS = 10  # so that every fold has seen both classes
_NUM_EXAMPLES = 12


@dataclass(frozen=True)
class LabelErrors:
    """Which labels are hard to believe; arrays are aligned with the rows that were handed in."""

    prob_given: Floats32  # out-of-fold probability of the label a row has; NaN where not judged
    prob_tumour: Floats32  # out-of-fold probability of label 1; NaN where not judged
    order: Ints  # rows that were judged, the most suspicious first
    auc: float  # of `prob_tumour` against the labels as given; NaN where nothing was judged


@dataclass(frozen=True)
class NoiseEstimate:
    """How many labels are wrong, as far as a cheap model can tell."""

    rate: float  # of all labels, and the ends of its 95 % interval
    low: float
    high: float
    per_class: tuple[Proportion, Proportion]  # surest normal, surest tumour: labelled otherwise
    contradicted: Ints  # the rows of those counts, the most suspicious first
    confident_joint: float  # share off the diagonal of the confident joint

    @property
    def is_beyond_hard_patches(self) -> bool:
        """Whether one class is contradicted more than clean labels are by so cheap a model."""
        normal, tumour = self.per_class
        odds = tumour.num / normal.num
        return normal.low > _NOISY * max(1, odds) or tumour.low > _NOISY * max(1, 1 / odds)


def rank_label_errors(
    features: Floats32,
    labels: npt.NDArray[np.integer],
    groups: Sequence[str] | npt.NDArray[Any] | None = None,
    seed: int = 0,
) -> LabelErrors:
    """Return how much each label is believed by a model fitted to other rows.

    `features` (n, d) of any scale; `labels` (n,): 0, 1, or -1 for unknown, which is left out. Rows
    of one group, for example exact repeats, share a fold. Folds are random otherwise: patches of
    one slide may be on both sides, which is wrong for measuring a classifier but right here, since
    the best witnesses against a wrong label are its neighbours on the same slide.

    With fewer than 10 rows of either class nothing is judged: all NaN, an empty order.
    """
    known = np.flatnonzero(labels >= 0)
    given = labels[known].astype(np.int64)
    prob_given = np.full(len(labels), np.nan, np.float32)
    prob_tumour = prob_given.copy()
    if np.bincount(given, minlength=2).min() < _LEAST_PER_CLASS:
        return LabelErrors(prob_given, prob_tumour, np.zeros(0, np.int64), float("nan"))
    codes = pd.factorize(np.arange(len(labels)) if groups is None else np.asarray(groups))[0][known]
    folds = np.random.default_rng(seed).integers(0, NUM_FOLDS, codes.max() + 1)[codes]
    scores = out_of_fold_scores(features[known], given, folds, seed)
    prob = _calibrate(scores, given)
    prob_tumour[known] = prob
    prob_given[known] = np.where(given == 1, prob, 1 - prob)
    order = known[np.argsort(prob_given[known], kind="stable")]
    return LabelErrors(prob_given, prob_tumour, order, _auc(scores, given))


def estimate_noise(prob_tumour: Floats32, labels: npt.NDArray[np.integer]) -> NoiseEstimate | None:
    """Return the estimated share of wrong labels; None unless both labels are among those judged.

    Where a patch is surely of a class, its label can only be the other by mistake: the share of
    other labels among the surest fifth of a class estimates its rate of flips (anchor points; Liu
    and Tao, "Classification with noisy labels by importance reweighting", PAMI 2016). A patch's own
    label has no part in how sure the model is of it. Residual mistakes of the model are in the
    estimate: about 1 % on clean real patches.

    `confident_joint` is the estimate of confident learning (Northcutt, Jiang and Chuang, JAIR
    2021) by cleanlab, from all patches: an upper bound, for a weak model's mistakes are counted as
    wrong labels. Clean real patches give 7.7 %, with 5 % of flips 11.6 %.
    """
    judged = np.flatnonzero(~np.isnan(prob_tumour))
    given, prob = labels[judged].astype(np.int64), prob_tumour[judged].astype(np.float64)
    counts = np.bincount(given, minlength=2)
    if counts.min() == 0:
        return None
    surest_first = np.argsort(prob, kind="stable")
    sure_normal = surest_first[: _num_sure(counts[0])]
    sure_tumour = surest_first[-_num_sure(counts[1]) :][::-1]
    wrong = (sure_normal[given[sure_normal] == 1], sure_tumour[given[sure_tumour] == 0])
    normal = proportion(len(wrong[0]), len(sure_normal))
    tumour = proportion(len(wrong[1]), len(sure_tumour))
    rate, low, high = weighted_sum(normal, tumour, float(counts[0] / len(given)))
    rows = np.concatenate(wrong)
    rows = rows[np.argsort(-np.abs(prob[rows] - 0.5), kind="stable")]
    joint = _confident_joint(prob, given)
    return NoiseEstimate(rate, low, high, (normal, tumour), judged[rows], joint)


def rank_patches(patches: pd.DataFrame, features: Floats32, seed: int = 0) -> LabelErrors:
    """Return the ranking of all patches of a table; `features` are aligned with it.

    One model for all splits, since small ones gain by the others: of the surest tumours of 1,500
    clean real patches it contradicts 2 %, where a model of their own contradicts 6 %.
    """
    labels, groups = patches["label"].to_numpy(), patches["content_hash"].to_numpy()
    return rank_label_errors(features, labels, groups, seed)


def check_label_errors(patches: pd.DataFrame, ranked: LabelErrors) -> list[Finding]:
    """Return per split how many labels look wrong, and which patches to look at first.

    `ranked` is that of `rank_patches` for the same table.

    Sees: random flips, of both classes or of one, from about 5 % of a class on; the ranking puts a
    flipped label above a right one in 93 % of pairs on real patches. Cannot see: which of the
    suspects are wrong (a cheap model's mistakes look the same, so nothing is excluded); flips of
    hard patches only, since the sure ones are judged; few flips in a rare class (at 1:5 fewer than
    about 20 %), for as many look like it by chance; mistakes that follow the looks, such as one
    slide labelled wrongly throughout, for they are then the rule that the model learns; noise in
    fewer than 3,000 patches, or where the model is poor (AUC under 0.8).
    """
    labels = patches["label"].to_numpy()
    findings = []
    for split in patches["split"].unique():
        rows = np.flatnonzero((patches["split"] == split).to_numpy())
        noise = estimate_noise(ranked.prob_tumour[rows], labels[rows])
        if noise is not None:
            findings.append(_describe(str(split), patches, rows, ranked, noise))
    return findings


def _describe(
    split: str, patches: pd.DataFrame, rows: Ints, ranked: LabelErrors, noise: NoiseEstimate
) -> Finding:
    index, labels = patches["index"].to_numpy()[rows], patches["label"].to_numpy()[rows]
    prob = ranked.prob_given[rows]
    judged = rows[~np.isnan(prob)]
    split_auc = _auc(ranked.prob_tumour[judged], patches["label"].to_numpy()[judged])
    order = np.argsort(prob, kind="stable")[: len(judged)]
    can_tell = len(ranked.order) >= _LEAST_PATCHES and ranked.auc >= _LEAST_AUC
    noisy = can_tell and noise.is_beyond_hard_patches
    return Finding(
        "label-errors",
        "warning" if noisy else "info",
        _message(split, noise, noisy, can_tell),
        "Look at the most suspicious patches and correct their labels at the source; a cheap "
        "model's doubt is no reason to leave a patch out.",
        split=split,
        count=len(noise.contradicted),
        share=len(noise.contradicted) / len(judged),
        indices=tuple(sorted(index[noise.contradicted].tolist())),
        examples=tuple(((split, int(each)),) for each in index[order[:_NUM_EXAMPLES]]),
        facts={
            "noise_rate": noise.rate,
            "noise_rate_interval": [noise.low, noise.high],
            "surest_normal_labelled_tumour": asdict(noise.per_class[0]),
            "surest_tumour_labelled_normal": asdict(noise.per_class[1]),
            "confident_joint_rate": noise.confident_joint,
            "model_auc": split_auc,
            "model_auc_all_splits": ranked.auc,
            "num_judged": len(judged),
            "num_unknown": len(rows) - len(judged),
            "suspects": [
                {"index": int(index[i]), "label": int(labels[i]), "prob_given": float(prob[i])}
                for i in order[:_NUM_EXAMPLES]
            ],
        },
    )


def _message(split: str, noise: NoiseEstimate, noisy: bool, can_tell: bool) -> str:
    normal, tumour = noise.per_class
    rate = f"{percent(noise.rate)} ({percent(noise.low)} to {percent(noise.high)})"
    seen = (
        f"{normal.count:,} of the {normal.num:,} patches that look normal most surely are labelled "
        f"tumour, {tumour.count:,} of the {tumour.num:,} surest tumours normal"
    )
    if noisy:
        return f"{split}: about {rate} of the labels seem wrong: {seen}."
    if can_tell:
        return f"{split}: no more labels seem wrong ({rate}) than hard patches explain: {seen}."
    return f"{split}: too few patches or too weak a model to tell label noise: {seen}."


def _num_sure(count: int) -> int:
    return max(1, int(_SURE_SHARE * count))


def _calibrate(scores: Floats, labels: Ints) -> Floats:
    """Return probabilities of label 1 by logistic regression on the score (Platt, 1999)."""
    inputs = np.stack((scores, np.ones_like(scores)), axis=1)
    weights = np.zeros(2)
    ridge = 1e-3 * np.eye(2)  # separable scores would drive the weights to infinity
    for _ in range(25):  # Newton's steps; 8 are enough on real patches
        prob = expit(inputs @ weights)
        curvature = (inputs * (prob * (1 - prob))[:, None]).T @ inputs + ridge
        weights += np.linalg.solve(curvature, inputs.T @ (labels - prob) - ridge @ weights)
    calibrated: Floats = expit(inputs @ weights)
    return calibrated


def _confident_joint(prob_tumour: Floats, labels: Ints) -> float:
    from cleanlab.count import estimate_joint  # 1 s, most of it scikit-learn

    joint = estimate_joint(labels, np.stack((1 - prob_tumour, prob_tumour), axis=1))
    return float(joint[0, 1] + joint[1, 0])


def _auc(scores: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> float:
    """Return the area under the ROC curve, by ranks; both labels must occur."""
    ranks = rankdata(scores)
    num_tumour = int((labels == 1).sum())
    above = ranks[labels == 1].sum() - num_tumour * (num_tumour + 1) / 2
    return float(above / (num_tumour * (len(labels) - num_tumour)))
