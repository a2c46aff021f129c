"""Ask the model itself: where it looks, what the centre is worth, and which changes unsettle it.

Reads the run's best checkpoint, predictions/SPLIT.parquet, and the files of train and of the split;
writes explain.json (explain-train.json of train) and features/SPLIT.parquet, features/train.parquet
into the run. Run it before `slice`, which uses the features.

    ml-core explain runs/pcam_cnn/20260102-030405-seed42
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_core.data.layout import split_paths
from ml_core.data.patch_file import PatchFile, Rows
from ml_core.errors import RunError
from ml_core.evaluation.attribution.saliency import measure_saliency
from ml_core.evaluation.attribution.visibility import measure_visibility
from ml_core.evaluation.predictions import Predictions
from ml_core.evaluation.robustness.corruptions import corruptions_for
from ml_core.evaluation.robustness.measure import measure_robustness, num_predictions
from ml_core.log import counted, shown
from ml_core.pipeline.examining.patch_predictor import PatchPredictor
from ml_core.pipeline.examining.result_files import head_of, write_result
from ml_core.pipeline.examining.said import say_explained
from ml_core.pipeline.examining.sample import sample_of
from ml_core.pipeline.examining.scored_split import load_scored
from ml_core.pipeline.examining.tapped import tap_features
from ml_core.pipeline.examining.train_looks import facts_of_levels, look_at_train
from ml_core.pipeline.parts.operating_run import OperatingRun, open_operating_run
from ml_core.pipeline.parts.splits import check_data, refuse_other_data, run_exclusions
from ml_core.pipeline.parts.trained_model import load_trained

logger = logging.getLogger("ml_core.explain")


def explain(path: Path, split: str = "valid", overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Return {"run", "split", "explain"}; the figures are in explain.json.

    `path` is a run's directory, asked raw at its own threshold, or a champion.json, asked
    calibrated at the champion's. At most `evaluation.probe_patches` patches are changed and
    `evaluation.saliency_patches` mapped, drawn by key. The test split is refused: what is learned
    from it by looking is learned for good. Raises RunError, DataError, CheckpointError.
    """
    if split == "test":
        raise RunError(
            "explain looks at train and valid only: whoever asks a model about its test patches "
            "cannot test with them again. Leave --split away."
        )
    operating = open_operating_run(path, overrides)
    predictions = load_scored(operating, split)
    run, config = operating.run, operating.config
    exclude = run_exclusions(run, operating.record)
    splits = list(dict.fromkeys(("train", split)))  # of train alone, once
    refuse_other_data(operating.record, check_data(config, splits, exclude))
    trained = load_trained(run, config)
    file = PatchFile(split_paths(config.data.files_dir, split).x)
    looks = look_at_train(operating)

    findings = tap_features(operating, trained, _raw(operating, split))
    settings, seed = config.evaluation, config.seed
    mapped = sample_of(predictions.index, settings.saliency_patches, seed)
    with _measured(operating), counted("where it looks", 2 * len(mapped)) as progress:
        saliency = measure_saliency(
            trained.model,
            file.read,
            mapped,
            _labels(predictions, mapped),
            device=trained.device,
            seed=seed,
            progress=progress,
        )
    probed = sample_of(predictions.index, settings.probe_patches, seed)
    ask, labels = PatchPredictor(trained), _labels(predictions, probed)
    asked = (ask, file.read, probed, labels, operating.threshold)
    with _measured(operating), counted("centre and ring", len(probed)) as progress:
        visibility = measure_visibility(
            *asked,
            fill=looks.colour,
            seed=seed,
            calibrate=operating.calibration.apply,
            num_resamples=settings.num_resamples,
            progress=progress,
        )
    corruptions = corruptions_for(*config.data.input_shape[1:])
    num_changed = num_predictions(len(probed), corruptions)
    with _measured(operating), counted("changed patches", num_changed) as progress:
        robustness = measure_robustness(
            *asked,
            facts_of=facts_of_levels,
            train_range=looks.ranges,
            seed=seed,
            calibrate=operating.calibration.apply,
            corruptions=corruptions,
            num_resamples=settings.num_resamples,
            progress=progress,
        )
    content = {
        **head_of(operating, predictions),
        "train_looks": {"ranges": looks.ranges, "source": looks.source},
        "saliency": saliency.to_dict(),
        "visibility": visibility,
        "robustness": robustness.to_dict(),
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }
    write_result(run.explain_path(split), content)
    say_explained(content)
    return {"run": str(run.path), "split": split, "explain": str(run.explain_path(split))}


@contextmanager
def _measured(operating: OperatingRun) -> Iterator[None]:
    """Say as a RunError of which run it is that its patches or logits cannot be measured."""
    try:
        yield
    except ValueError as error:
        raise RunError(
            f"{shown(operating.run.path)} cannot be explained: {error} Needed are a model that "
            "gives finite logits and predictions of at least two patches, whose sides are 6 pixels "
            "or more: train or evaluate again with such."
        ) from error


def _raw(operating: OperatingRun, split: str) -> Predictions:
    return Predictions.load(operating.run.predictions_path(split))


def _labels(predictions: Predictions, index: Rows) -> npt.NDArray[np.int64]:
    """Return the labels of rows that are among the predictions."""
    order = np.argsort(predictions.index)
    return predictions.labels[order][np.searchsorted(predictions.index[order], index)]
