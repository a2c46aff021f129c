"""The predictions of one split as they are used: calibrated, and of the best weights."""

from __future__ import annotations

from ml_core.errors import RunError, did_you_mean
from ml_core.evaluation.predictions import Predictions
from ml_core.log import shown
from ml_core.pipeline.parts.operating_run import OperatingRun
from ml_core.runs import read_json

SPLITS = ("train", "valid", "test")


def load_scored(operating: OperatingRun, split: str) -> Predictions:
    """Return the labelled predictions of `split`, calibrated as `operating` says.

    Raises RunError for an unknown split, for predictions that are missing, of other weights than
    the best, or without labels, and for a test split that was not opened for this champion: only
    `evaluate` opens it.
    """
    run = operating.run
    if split not in SPLITS:
        near = did_you_mean(split, SPLITS)
        raise RunError(f"unknown split '{split}'; allowed are {', '.join(SPLITS)}.{near}")
    if split == "test":
        _refuse_sealed(operating)
    path = run.predictions_path(split)
    if not path.is_file():
        option = "" if split == "valid" else f" --split {split}"
        raise RunError(
            f"{shown(run.path)} has no predictions of {split} to look at. Make them first: "
            f"ml-core evaluate {shown(run.path)}{option}"
        )
    raw = Predictions.load(path)
    best = operating.record.best.get("weights_sha256")
    if raw.weights_sha256 != best:
        raise RunError(
            f"{shown(path)} is of the weights {str(raw.weights_sha256)[:12]}, but the best of this "
            f"run are {str(best)[:12]}. Evaluate again: ml-core evaluate {shown(run.path)}"
        )
    assert len(raw.labels) > 0, "a predictions table has rows; labels raises where they are missing"
    return operating.calibration.calibrate(raw)


def _refuse_sealed(operating: OperatingRun) -> None:
    run = operating.run
    if operating.champion_sha256 is None:
        raise RunError(
            "the test split is sealed: where a model fails is found on valid, and what was changed "
            f"after a look at test has no honest score left. Look at valid: ml-core slice "
            f"{shown(run.path)}. For a champion whose test split was opened: ml-core slice "
            "champion.json --split test"
        )
    path = run.scores_path("test")
    champion = (read_json(path).get("champion") or {}) if path.is_file() else {}
    if champion.get("sha256") != operating.champion_sha256:
        raise RunError(
            f"the test split was not opened for this champion ({operating.champion_sha256[:12]}), "
            "and slices do not open it. First, counted: ml-core evaluate champion.json --split test"
        )
