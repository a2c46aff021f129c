"""The sections `tracking`, `evaluation` and `selection`: what becomes of a trained model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from ml_core.config.section import MLFLOW_PATTERN, Section
from ml_core.config_problems import PASSWORD

SELECTION_METRICS = (
    "roc_auc", "pr_auc", "accuracy", "balanced_accuracy", "f1", "f2", "brier", "loss",
)  # fmt: skip


class TrackingConfig(Section):
    """Where the run's numbers go besides its own files."""

    tensorboard: bool = Field(True, description="write TensorBoard events")
    mlflow_uri: str | None = Field(
        None,
        pattern=MLFLOW_PATTERN,
        description="sqlite:///file.db or http(s)://server; fed by a separate process",
    )

    @field_validator("mlflow_uri")
    @classmethod
    def _refuse_password(cls, uri: str | None) -> str | None:
        """The config is kept in every run and sent to the server, so it must hold no secret."""
        if uri is not None and PASSWORD.search(uri):
            raise ValueError(
                "holds a password, which would be kept in every run. Leave it out of the address "
                "and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead"
            )
        return uri


class EvaluationConfig(Section):
    """How the predictions are scored."""

    threshold: float = Field(0.5, gt=0, lt=1, description="tumour from this probability on")
    num_resamples: int = Field(
        1000, ge=100, description="bootstrap resamples, where an interval needs them"
    )
    false_discovery_rate: float = Field(
        0.05, gt=0, lt=1, description="expected share of false alarms among the slices reported"
    )
    target_risk: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="error rate that leaving doubtful patches to a person must keep; null: half "
        "of what it is on all patches",
    )
    probe_patches: int = Field(
        500, ge=100, description="patches that `explain` corrupts and half hides"
    )
    saliency_patches: int = Field(
        64, ge=16, description="patches of which `explain` measures where the model looks"
    )


class ThresholdConfig(Section):
    """How the champion's threshold is chosen, on the validation split only."""

    rule: Literal["f_beta", "recall", "specificity", "cost", "youden", "fixed"] = Field(
        "recall",
        description="f_beta: the highest F-beta; recall, specificity: at least `at_least`, then "
        "the best of the other; cost: the lowest expected cost; youden: the highest "
        "recall + specificity; fixed: evaluation.threshold",
    )
    beta: float = Field(2.0, gt=0, description="of f_beta; 2 counts recall twice as much")
    at_least: float = Field(0.95, gt=0, lt=1, description="of recall and specificity")
    cost_false_negative: float = Field(10.0, gt=0, description="of cost: a tumour not called")
    cost_false_positive: float = Field(1.0, gt=0, description="of cost: a false alarm")


class SelectionConfig(Section):
    """How `select` finds and freezes a champion, on the validation split only."""

    rule: Literal["best_mean", "one_standard_error", "constraint"] = Field(
        "best_mean",
        description="best_mean: the highest mean over seeds; one_standard_error: the model "
        "with the fewest parameters within one standard error of it; constraint: recall of at "
        "least min_recall at its threshold, then the best precision",
    )
    metric: Literal[SELECTION_METRICS] = Field(  # type: ignore[valid-type]  # one list, two uses
        "roc_auc", description="which metric ranks the candidates"
    )
    min_recall: float = Field(0.95, gt=0, le=1, description="of constraint")
    threshold: ThresholdConfig = Field(ThresholdConfig(), description="see below")
    calibration: Literal["temperature", "isotonic", "none"] = Field(
        "temperature", description="what makes the champion's probabilities mean what they say"
    )
    deployment_prevalence: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of tumour where the model will be used: PPV and NPV are stated for it",
    )
