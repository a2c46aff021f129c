"""What the last layer of a run's model sees: of the scored patches, and of some of train."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ml_core.data.patch_file import Rows
from ml_core.data.pcam import PCAMDataset
from ml_core.errors import RunError
from ml_core.evaluation.features import (
    FeatureTable,
    fit_basis,
    logit_direction,
    tapped_features,
)
from ml_core.evaluation.neighbours import Neighbours, find_neighbours
from ml_core.evaluation.predictions import Predictions
from ml_core.evaluation.predictor import predict
from ml_core.findings import Finding
from ml_core.log import progress, shown
from ml_core.pipeline.examining.sample import sample_of
from ml_core.pipeline.parts.operating_run import OperatingRun
from ml_core.pipeline.parts.splits import INFERENCE_BATCH_SIZE, open_split, run_exclusions
from ml_core.pipeline.parts.trained_model import TrainedModel
from ml_core.pipeline.parts.unlabelled_batch import UnlabelledBatch, unlabelled

logger = logging.getLogger("ml_core.explain")

TRAIN_SAMPLE = 5000  # patches of train that neighbours are looked for among
SAME_LOGIT = 1e-4  # the same weights on the same patches differ by less, on any machine

Floats32 = npt.NDArray[np.float32]


def tap_features(operating: OperatingRun, trained: TrainedModel, raw: Predictions) -> list[Finding]:
    """Write features/SPLIT.parquet for the patches of `raw`, and features/train.parquet.

    The logit is taken out of both, and their axes are those of train (`fit_basis`). Returns a
    finding where the model now says something else than `raw`, which are its predictions as they
    were stored, and one where it has no last linear layer, so that no features are written.
    """
    exclude = run_exclusions(operating.run, operating.record)
    scored = open_split(operating.config, raw.split, exclude)
    train = open_split(operating.config, "train", exclude)
    sample = sample_of(train.indices, TRAIN_SAMPLE, operating.config.seed)
    try:
        direction = logit_direction(trained.model)
        of_train, _ = _tap(trained, train, sample, "features of train")
        features, logits = _tap(trained, scored, raw.index, f"features of {raw.split}")
    except ValueError as error:
        return [Finding("no-features", "warning", f"No features are kept: {error}")]
    basis = fit_basis(of_train, direction)
    labels = train.labels[np.searchsorted(train.indices, sample)]
    known = FeatureTable(
        split=raw.split,
        index=raw.index,
        features=basis.apply(features),
        y_true=raw.labels,
        run_id=raw.run_id,
        weights_sha256=raw.weights_sha256,
        epoch=raw.epoch,
        share_kept=basis.share_kept,
    )
    known.save(operating.run.features_path(raw.split))
    if raw.split != "train":
        replace(
            known, split="train", index=sample, features=basis.apply(of_train), y_true=labels
        ).save(operating.run.features_path("train"))
    return _compare(raw, logits)


def features_of(operating: OperatingRun, predictions: Predictions) -> FeatureTable | None:
    """Return the features of just these patches, in their order; None, and said, without them."""
    if predictions.split == "test":
        return None  # explain does not look at test
    path = operating.run.features_path(predictions.split)
    if not path.is_file():
        option = "" if predictions.split == "valid" else f" --split {predictions.split}"
        logger.info(
            "no features are stored, so slices are not looked for among patches that look alike to "
            "the model, and errors have no neighbours: ml-core explain %s%s",
            shown(operating.run.path),
            option,
        )
        return None
    try:
        table = FeatureTable.load(path)
        _check_weights(table, predictions)
        rows = table.of(predictions.index)
    except RunError as error:
        logger.warning(
            "no search among patches that look alike to the model, no neighbours of errors: %s %s",
            error,
            f"ml-core explain {shown(operating.run.path)}",
        )
        return None
    return replace(table, index=predictions.index, y_true=predictions.y_true, features=rows)


def neighbours_in_train(
    operating: OperatingRun, features: FeatureTable | None
) -> Neighbours | None:
    """Return the train patches nearest to each scored one, where both have features."""
    path = operating.run.features_path("train")
    if features is None or not path.is_file():
        return None
    try:
        return find_neighbours(features, FeatureTable.load(path))
    except RunError as error:
        logger.warning("errors have no neighbours: %s", error)
        return None


def _tap(
    trained: TrainedModel, dataset: PCAMDataset, rows: Rows, what: str
) -> tuple[Floats32, npt.NDArray[np.float64]]:
    """Return features (N, D) and raw logits (N,) of `rows`, in their order."""

    def batches() -> Iterator[UnlabelledBatch]:
        for start in range(0, len(order), INFERENCE_BATCH_SIZE):
            here = rows[order[start : start + INFERENCE_BATCH_SIZE]]
            yield unlabelled(dataset.file.read(here), here)

    order = np.argsort(rows)
    total = -(-len(rows) // INFERENCE_BATCH_SIZE)
    with tapped_features(trained.model) as tap:
        found = predict(
            trained.model,
            progress(batches(), total=total, description=what),
            trained.device,
            precision=trained.precision,
        )
    back = np.argsort(order)
    return tap.features()[back], found.logit[back]


def _check_weights(table: FeatureTable, predictions: Predictions) -> None:
    if table.weights_sha256 != predictions.weights_sha256:
        raise RunError(
            f"they are of the weights {str(table.weights_sha256)[:12]}, the predictions of "
            f"{str(predictions.weights_sha256)[:12]}. Make them again with the explain stage."
        )


def _compare(raw: Predictions, logits: npt.NDArray[np.float64]) -> list[Finding]:
    gap = np.abs(raw.logit - logits)
    if gap.max() <= SAME_LOGIT * max(1.0, float(np.abs(raw.logit).max())):
        return []
    worst = int(gap.argmax())
    message = (
        f"the model now gives patch {raw.index[worst]} the logit {logits[worst]:.6g}, and "
        f"{raw.logit[worst]:.6g} is in its predictions: other hardware, other packages, or another "
        "file of patches."
    )
    return [Finding("explained-other-logits", "warning", message)]
