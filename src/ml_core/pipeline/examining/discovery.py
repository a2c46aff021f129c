"""The search for failures, wired to a run."""

from __future__ import annotations

import pandas as pd

from ml_core.evaluation.discovery.discover import discover_slices
from ml_core.evaluation.discovery.discovered import Discovery
from ml_core.evaluation.features import FeatureTable
from ml_core.evaluation.predictions import Predictions
from ml_core.pipeline.parts.operating_run import OperatingRun


def search_failures(
    operating: OperatingRun,
    predictions: Predictions,
    facts: pd.DataFrame,
    copies: pd.Series | None,
    features: FeatureTable | None,
) -> Discovery:
    """Return the slices that one half of the patches suggests and the other half judges.

    `copies` names patches of equal pixels alike, so that they stay in one half.
    """
    return discover_slices(
        predictions,
        operating.threshold,
        facts,
        features=None if features is None else features.features,
        slides=facts["slide"].to_numpy(object) if "slide" in facts else None,
        groups=None if copies is None else copies.to_numpy(object),
        seed=operating.config.seed,
        false_discovery_rate=operating.config.evaluation.false_discovery_rate,
    )
