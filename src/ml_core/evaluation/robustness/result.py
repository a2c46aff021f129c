"""What stands out among a model's curves: the worst corruption, and whether turning matters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ml_core.evaluation.robustness.curves import Curve, Fall, Point
from ml_core.findings import Finding
from ml_core.page.text import decimal, enumerated, percent, signed

METRIC = "roc_auc"  # what "worst" and "flat" are about: it needs no threshold
# Turning a patch changes the last bits of a sound model, and on which pixels its strides fall.
# Averaged over orientations the CNN on real patches does not move at all; an MLP moves by up to
# 0.024 of ROC-AUC (luck of 500 patches: tissue has no way up) and calls 8 % of them otherwise.
FLAT_TOLERANCE = 0.005  # of ROC-AUC, with an interval that leaves out 0
FLAT_CALLS_TOLERANCE = 0.05  # of the patches
# Twice what parts two published architectures on PCam (DenseNet 0.955, P4M-DenseNet 0.963; Veeling
# et al., MICCAI 2018).
FALL_WARNING_FROM = 0.015
RECALL_WARNING_FROM = 0.05  # one tumour in twenty is missed that was found before


@dataclass(frozen=True)
class Robustness:
    """The curves of one model on `num_patches` patches of `shape` (height, width)."""

    num_patches: int
    shape: tuple[int, int]
    level: float
    num_resamples: int
    curves: tuple[Curve, ...]

    @property
    def worst(self) -> Fall | None:
        """Where the ROC-AUC falls deepest; None where it falls nowhere or is undefined."""
        return _deepest(self._falls(METRIC))

    @property
    def worst_in_train_range(self) -> Fall | None:
        """The same among points whose patches look, by the fact that is moved, like train's."""
        return _deepest(self._falls(METRIC, _is_like_train))

    @property
    def worst_recall_in_train_range(self) -> Fall | None:
        """Where most tumours are missed at the threshold: no ROC-AUC shows that."""
        return _deepest(self._falls("recall", _is_like_train))

    @property
    def flat_ok(self) -> bool | None:
        """Whether turned and mirrored patches are scored and called as untouched ones are.

        They are not where for any of them the ROC-AUC moves by more than FLAT_TOLERANCE, with an
        interval that leaves out 0, or more than FLAT_CALLS_TOLERANCE of the calls change. None
        where nothing was turned or the ROC-AUC is undefined.
        """
        turned = self._falls(METRIC, _is_flat)
        if self.is_undefined or not turned:
            return None
        return not any(map(_matters, turned))

    @property
    def is_undefined(self) -> bool:
        """Whether the patches are of one class, so that nothing can be said to fall."""
        return any(np.isnan(curve.points[0].metrics[METRIC].value) for curve in self.curves)

    def to_dict(self) -> dict[str, Any]:
        """Return what explain.json holds of it; None where undefined."""
        falls = {
            "worst": self.worst,
            "worst_in_train_range": self.worst_in_train_range,
            "worst_recall_in_train_range": self.worst_recall_in_train_range,
        }
        return {
            "n": self.num_patches,
            "shape": list(self.shape),
            "metric": METRIC,
            "level": self.level,
            "num_resamples": self.num_resamples,
            "curves": [curve.to_dict() for curve in self.curves],
            **{name: None if fall is None else fall.to_dict() for name, fall in falls.items()},
            "flat_ok": self.flat_ok,
            "findings": [asdict(finding) for finding in self.findings],
        }

    @property
    def findings(self) -> list[Finding]:
        """What a reader must know: falls on turned patches, and on patches that look like train's.

        Of a fall outside the train range only the figures tell: patches of a kind that was never
        learned may well be called wrongly.
        """
        if self.is_undefined:
            return [
                *self._about_shape(),
                Finding(
                    id="robustness-undefined",
                    severity="warning",
                    message=f"The {self.num_patches:,} patches that were changed are of one class, "
                    "so that no ROC-AUC and no worst corruption is defined.",
                    action="Change patches of both classes.",
                ),
            ]
        return [
            *self._about_turning(),
            *self._about_auc(),
            *self._about_recall(),
            *self._about_shape(),
        ]

    def _about_shape(self) -> list[Finding]:
        height, width = self.shape
        if height == width or not self._falls(METRIC, _is_flat):
            return []
        return [
            Finding(
                id="no-quarter-turns",
                severity="info",
                message=f"Patches of {height} x {width} pixels are not square, so they were turned "
                "by 180 degrees and mirrored only: a quarter turn would change their shape.",
                facts={"shape": [height, width]},
            )
        ]

    def _about_turning(self) -> list[Finding]:
        turned = [fall for fall in self._falls(METRIC, _is_flat) if _matters(fall)]
        if not turned:
            return []
        said = [
            f"{fall.curve.name} ({fall.point.label}) moves the ROC-AUC by "
            f"{signed(fall.difference.value)} and changes {percent(fall.point.calls_changed)} of "
            "the calls"
            for fall in turned
        ]
        return [
            Finding(
                id="orientation-matters",
                severity="warning",
                message=f"Tissue has no way up, but {enumerated(said)}.",
                action="Train with data.augment.dihedral, or average over orientations.",
                facts={"turned": [fall.to_dict() for fall in turned]},
            )
        ]

    def _about_auc(self) -> list[Finding]:
        fall = self.worst_in_train_range
        if fall is None or not _is_sure(fall, FALL_WARNING_FROM):
            return []
        return [
            Finding(
                id="fragile-within-train-range",
                severity="warning",
                message=f"{_said(fall)}, though by {_place(fall)} such patches look like train's.",
                action="Augment training with it, and watch for slides that look so.",
                facts=fall.to_dict(),
            )
        ]

    def _about_recall(self) -> list[Finding]:
        fall = self.worst_recall_in_train_range
        if fall is None or not _is_sure(fall, RECALL_WARNING_FROM):
            return []
        share = fall.point.metrics["recall"].value
        return [
            Finding(
                id="recall-falls-within-train-range",
                severity="warning",
                message=f"{_said(fall)} at the threshold, to {percent(share)}, though by "
                f"{_place(fall)} such patches look like train's.",
                action="A threshold holds for patches that look like those it was chosen on: "
                "check it on each new scanner and laboratory.",
                facts=fall.to_dict(),
            )
        ]

    def _falls(
        self, metric: str, where: Callable[[Curve, Point], bool] = lambda curve, point: True
    ) -> list[Fall]:
        """Return every point but the untouched ones, with what `metric` differs there."""
        return [
            Fall(curve, point, metric)
            for curve in self.curves
            for point in curve.points[1:]
            if where(curve, point)
        ]


def _is_like_train(curve: Curve, point: Point) -> bool:
    return point.in_train_range is True


def _is_flat(curve: Curve, point: Point) -> bool:
    return curve.expect == "flat"


def _deepest(falls: Iterable[Fall]) -> Fall | None:
    """Return the deepest fall, the first of equals; None where nothing falls."""
    deeper = [fall for fall in falls if fall.difference.value < 0]
    return min(deeper, key=lambda fall: fall.difference.value, default=None)


def _matters(turned: Fall) -> bool:
    value, low, high = turned.difference
    moves = abs(value) > FLAT_TOLERANCE and (low > 0 or high < 0)
    return moves or turned.point.calls_changed > FLAT_CALLS_TOLERANCE


def _is_sure(fall: Fall, deeper_than: float) -> bool:
    """Whether a fall is deeper than that, and its whole interval below 0."""
    return fall.difference.value < -deeper_than and fall.difference.high < 0


_METRIC_NAMES = {"roc_auc": "ROC-AUC"}


def _said(fall: Fall) -> str:
    """Return "blur (sigma 1) lowers ROC-AUC by 0.021 (0.012 to 0.030)"."""
    value, low, high = fall.difference
    name = _METRIC_NAMES.get(fall.metric, fall.metric)
    return (
        f"{fall.curve.name} ({fall.point.label}) lowers {name} by {decimal(-value)} "
        f"({decimal(-high)} to {decimal(-low)})"
    )


def _place(fall: Fall) -> str:
    """Return "focus (median 5,022, train 1,710 to 33,490)"; "orientation" where no fact moves."""
    if fall.curve.fact is None or fall.curve.train_range is None:
        return "orientation"
    low, high = fall.curve.train_range
    median = fall.point.fact_median
    return f"{fall.curve.fact} (median {_short(median)}, train {_short(low)} to {_short(high)})"


def _short(value: float) -> str:
    """Return 33490.2 as "33,490" and 0.06019 as "0.0602"."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
