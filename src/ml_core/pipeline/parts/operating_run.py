"""A run with the operating point it is used at: its own, or that of the champion that froze it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_core.config import Config
from ml_core.errors import RunError
from ml_core.evaluation.calibration import Calibration
from ml_core.log import shown
from ml_core.pipeline.parts.trained_model import load_run_config
from ml_core.runs import RunDir, RunRecord
from ml_core.selection.champion import Champion, sha256_of_champion

_THRESHOLD_KEY = "evaluation.threshold"


@dataclass(frozen=True)
class OperatingRun:
    """Which weights are used, and how their logits become probabilities and calls.

    `champion_sha256` is the hash of the champion.json that says so; None for a run by itself,
    whose probabilities are raw and whose threshold is `evaluation.threshold`.
    """

    run: RunDir
    record: RunRecord
    config: Config
    calibration: Calibration
    threshold: float
    champion_sha256: str | None = None
    prior_shift: Mapping[str, Any] | None = None

    def describe(self) -> dict[str, Any]:
        """Return the operating point as result files state it."""
        return {
            "run_id": self.record.run_id,
            "threshold": self.threshold,
            "calibration": self.calibration.to_dict(),
            "champion_sha256": self.champion_sha256,
        }


def open_operating_run(path: Path, overrides: Iterable[str] = ()) -> OperatingRun:
    """Return the run at `path`, or that of the champion.json there, its weights checked.

    Raises RunError where there is neither, where the champion's weights have changed, and for a
    threshold among the `overrides` beside a champion, which has its own.
    """
    overrides = list(overrides)
    if not path.is_file():
        run = RunDir.open(path)
        config = load_run_config(run, overrides)
        return OperatingRun(
            run, RunRecord.load(run), config, Calibration("none"), config.evaluation.threshold
        )
    champion = Champion.load(path)
    run = champion.check(path)
    for override in overrides:
        if override.partition("=")[0].strip() == _THRESHOLD_KEY:
            raise RunError(
                f"--set {_THRESHOLD_KEY}: {shown(path)} has its own, chosen on valid. "
                "Choose another there: ml-core select RUN... --set selection.threshold.rule=..."
            )
    calibration, threshold = champion.operating_point(path)
    return OperatingRun(
        run=run,
        record=RunRecord.load(run),
        config=load_run_config(run, overrides),
        calibration=calibration,
        threshold=threshold,
        champion_sha256=sha256_of_champion(path),
        prior_shift=champion.prior_shift,
    )
