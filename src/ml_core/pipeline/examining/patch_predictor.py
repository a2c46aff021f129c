"""A trained model as a function of pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_core.evaluation.predictor import predict
from ml_core.pipeline.parts.splits import INFERENCE_BATCH_SIZE
from ml_core.pipeline.parts.trained_model import TrainedModel
from ml_core.pipeline.parts.unlabelled_batch import UnlabelledBatch, unlabelled


@dataclass(frozen=True)
class PatchPredictor:
    """Patches (N, H, W, 3) uint8 -> raw log-odds of tumour (N,), by the inference path."""

    trained: TrainedModel

    def __call__(self, patches: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        trained = self.trained
        return predict(
            trained.model, _batches(patches), trained.device, precision=trained.precision
        ).logit


def _batches(patches: npt.NDArray[np.uint8]) -> Iterator[UnlabelledBatch]:
    for start in range(0, len(patches), INFERENCE_BATCH_SIZE):
        stop = min(start + INFERENCE_BATCH_SIZE, len(patches))
        yield unlabelled(patches[start:stop], np.arange(start, stop))
