"""Probabilities that mean what they say: one temperature, or a monotone curve, for all logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from ml_core.errors import RunError, did_you_mean
from ml_core.evaluation.predictions import Predictions, sigmoid
from ml_core.evaluation.reliability import ReliabilityBins, calibration_scores, reliability_bins
from ml_core.metrics.arrays import Floats, Ints, checked

__all__ = [
    "Calibration",
    "ReliabilityBins",
    "calibration_scores",
    "checked_logits",
    "fit_calibration",
    "reliability_bins",
    "sigmoid",
]

Kind = Literal["temperature", "isotonic", "none"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# Root mean square of the calibrated logits. Above 10 it says "one wrong in 20,000", which no
# validation split can show; below 0.001 every patch has a probability of 0.5, to three digits.
SHARPEST, FLATTEST = 10.0, 0.001
_FEW = 1000  # with fewer patches isotonic regression learns them by heart (scikit-learn's guide)


@dataclass(frozen=True)
class Calibration:
    """A map from logits to probabilities that never turns the order of two patches round.

    `none`: the sigmoid. `temperature`: the sigmoid of logit / `temperature`. `isotonic`: straight
    lines between `knots`, pairs (logit, probability), both rising, and constant beyond the ends;
    patches on a flat piece become ties. `note` says where the fit came to a limit.
    """

    kind: Kind = "none"
    temperature: float = 1.0
    knots: tuple[tuple[float, float], ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        _check_kind(self.kind)
        if not 0 < self.temperature < np.inf:
            raise ValueError(f"temperature is {self.temperature}; allowed are numbers above 0.")
        if (self.kind == "isotonic") != bool(self.knots):
            raise ValueError("knots are needed for isotonic calibration, and for no other.")
        if self.knots:
            logits, probs = np.array(self.knots).T
            inside = probs[0] > 0 and probs[-1] < 1
            if not (inside and (np.diff(logits) > 0).all() and (np.diff(probs) >= 0).all()):
                raise ValueError(
                    "the knots of a calibration must rise in logit and never fall in probability, "
                    "which lies between 0 and 1 without both."
                )

    def apply(self, logit: npt.ArrayLike) -> Floats:
        """Return probabilities (N,) of `logit` (N,); raises ValueError for a NaN."""
        logits = np.asarray(logit, dtype=np.float64)
        if np.isnan(logits).any():
            raise ValueError(f"{int(np.isnan(logits).sum())} of {logits.size} logits are NaN.")
        if self.kind == "isotonic":
            knot_logits, knot_probs = np.array(self.knots).T
            probs: Floats = np.interp(logits, knot_logits, knot_probs)
            return probs
        return sigmoid(logits / self.temperature)

    def calibrate(self, predictions: Predictions) -> Predictions:
        """Return the table with calibrated `y_prob` and the `logit` that belongs to it."""
        if self.kind == "none":
            return predictions
        probs = self.apply(predictions.logit)
        if self.kind == "isotonic":
            logits = np.log(probs) - np.log1p(-probs)
        else:
            logits = predictions.logit / self.temperature
        return replace(predictions, y_prob=probs, logit=logits)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold and `from_dict` turns into an equal calibration."""
        return {
            "kind": self.kind,
            "temperature": self.temperature,
            "knots": [list(knot) for knot in self.knots],
            "note": self.note,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Calibration:
        """Return what `to_dict` wrote, whatever else is there. Raises RunError for less."""
        try:
            return cls(
                kind=content["kind"],
                temperature=float(content["temperature"]),
                knots=tuple((float(x), float(y)) for x, y in content["knots"]),
                note=str(content["note"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"this is no calibration: {type(error).__name__}: {error}. "
                "Needed are kind, temperature, knots and note. Select again."
            ) from error


def fit_calibration(kind: str, y_true: npt.ArrayLike, logit: npt.ArrayLike) -> Calibration:
    """Return the calibration of `kind` that loses least on labels (N,) with logits (N,).

    Raises RunError where there is nothing to learn from: one class, or equal logits; ValueError
    for an unknown kind, and arrays that are not labels and finite logits.
    """
    _check_kind(kind)
    labels, logits = checked_logits(y_true, logit)
    if kind == "none":
        return Calibration()
    _check_informative(labels, logits)
    if kind == "isotonic":
        return _fit_isotonic(labels, logits)
    return _fit_temperature(labels, logits)


def checked_logits(y_true: npt.ArrayLike, logit: npt.ArrayLike) -> tuple[Ints, Floats]:
    """Return the two as 1-d int64 and float64; raises ValueError where they are no such thing."""
    logits = np.asarray(logit, dtype=np.float64)
    if not np.isfinite(logits).all():
        wrong = ~np.isfinite(logits)
        raise ValueError(
            f"{int(wrong.sum())} of {logits.size} logits are NaN or infinite, the first at "
            f"position {int(np.flatnonzero(wrong)[0])}. Needed are finite log-odds of tumour."
        )
    labels, _ = checked(y_true, sigmoid(logits))
    return labels, logits


def _fit_temperature(labels: Ints, logits: Floats) -> Calibration:
    """Minimise the mean loss of logit / T (Guo et al., ICML 2017), which is convex in 1 / T."""
    from scipy.optimize import brentq

    signed = np.where(labels == 1, logits, -logits)
    scale = np.sqrt(np.mean(logits**2))

    def slope(sharpness: float) -> float:
        """Return the derivative of the loss by 1 / T where the calibrated logits have this RMS."""
        return float(np.mean(-signed * sigmoid(-signed * (sharpness / scale))))

    if slope(FLATTEST) >= 0:
        return Calibration(
            "temperature",
            float(scale / FLATTEST),
            note="The larger the temperature, the smaller the loss: the logits do not rise with "
            "the share of tumours, so the probabilities were flattened to 0.5.",
        )
    if slope(SHARPEST) <= 0:
        return Calibration(
            "temperature",
            float(scale / SHARPEST),
            note="The smaller the temperature, the smaller the loss: the logits part the classes "
            "without an error, or nearly, so there is nothing to measure over-confidence by. The "
            f"temperature was stopped where the logits' root mean square is {SHARPEST:g}.",
        )
    sharpness = brentq(slope, FLATTEST, SHARPEST, xtol=1e-12, rtol=1e-14)
    return Calibration("temperature", float(scale / sharpness))


def _fit_isotonic(labels: Ints, logits: Floats) -> Calibration:
    """Fit a rising step curve by least squares (Zadrozny and Elkan, KDD 2002), as knots.

    Ends are pulled in to 1 / (N- + 2) and (N+ + 1) / (N+ + 2), which N- normal patches and N+
    tumours can vouch for (Platt 1999), so that no probability is 0 or 1 and every loss is finite.
    """
    from sklearn.isotonic import IsotonicRegression

    positives = int(labels.sum())
    lowest = 1 / (len(labels) - positives + 2)
    highest = (positives + 1) / (positives + 2)
    curve = IsotonicRegression(y_min=lowest, y_max=highest).fit(logits, labels)
    knots = zip(curve.X_thresholds_.tolist(), curve.y_thresholds_.tolist(), strict=True)
    few = (
        f"Isotonic calibration on {len(labels):,} patches follows their chance: below {_FEW:,} "
        "temperature is the safer choice."
    )
    return Calibration("isotonic", knots=tuple(knots), note=few if len(labels) < _FEW else "")


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        near = did_you_mean(str(kind), KINDS)
        raise ValueError(f"unknown calibration {kind!r}; allowed: {', '.join(KINDS)}.{near}")


def _check_informative(labels: Ints, logits: Floats) -> None:
    positives = int(labels.sum())
    if positives in (0, len(labels)):
        kind = "tumour" if positives else "normal"
        raise RunError(
            f"probabilities cannot be calibrated on these patches: all {len(labels):,} are {kind}. "
            "Needed are patches of both classes, as a stratified validation split has them."
        )
    if np.ptp(logits) == 0:
        raise RunError(
            f"probabilities cannot be calibrated: all {len(labels):,} patches have the logit "
            f"{logits[0]:g}. The model tells none from another; train it again."
        )
