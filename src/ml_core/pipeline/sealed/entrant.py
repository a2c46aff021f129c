"""What the test split may be opened for: a champion as it was frozen, or, unsealed, any run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_core.config import Config
from ml_core.data.checks import SplitRecord
from ml_core.errors import RunError
from ml_core.evaluation.calibration import Calibration
from ml_core.log import shown
from ml_core.pipeline.parts.splits import refuse_other_data
from ml_core.pipeline.parts.trained_model import load_run_config
from ml_core.runs import RunDir, RunRecord, read_json
from ml_core.selection.champion import Champion, sha256_of_champion

THRESHOLD_KEY = "evaluation.threshold"


@dataclass(frozen=True)
class Entrant:
    """A run, and how its logits become calls; `champion` is None for an unsealed opening.

    `champion` is the content of champion.json, with the "sha256" of that.
    """

    run: RunDir
    record: RunRecord
    config: Config
    champion: Mapping[str, Any] | None
    threshold: float
    calibration: Calibration

    @property
    def champion_sha256(self) -> str | None:
        return None if self.champion is None else str(self.champion["sha256"])

    @property
    def baseline_thresholds(self) -> dict[str, float]:
        """The threshold that each baseline got on valid, by the rule that gave the champion's."""
        baselines = {} if self.champion is None else self.champion["baselines"]
        return {name: float(each["threshold"]) for name, each in baselines.items()}

    def refuse_other_data(self, checks: Sequence[SplitRecord]) -> None:
        """Raise RunError unless train and valid are what was trained on and chosen on."""
        refuse_other_data(self.record, checks)
        for check in checks if self.champion is not None else ():
            assert self.champion is not None
            then, now = self.champion["data"][check.split], check.to_dict()
            if differing := [key for key, value in then.items() if now.get(key) != value]:
                raise RunError(
                    f"the champion was chosen on other {check.split} patches than "
                    f"{shown(self.run.path)} now uses: {', '.join(differing)} differ. Choose again "
                    "on these: ml-core select."
                )


def load_entrant(path: Path, overrides: Sequence[str], *, unsealed: bool) -> Entrant:
    """Return the champion of the champion.json at `path`, its weights checked; or, unsealed, a run.

    Raises RunError for one where the other is needed, for a threshold among the `overrides`, and
    where run or weights are no longer those that were chosen.
    """
    for override in overrides:
        if override.partition("=")[0].strip() == THRESHOLD_KEY:
            raise RunError(
                f"--set {THRESHOLD_KEY}: a threshold is never set for the test split. It is the "
                "champion's, chosen on valid: ml-core select RUN... --set "
                "selection.threshold.rule=..."
            )
    return _load_run(path, overrides) if unsealed else _load_champion(path, overrides)


def _load_champion(path: Path, overrides: Sequence[str]) -> Entrant:
    if path.is_dir():
        raise RunError(
            "the test split is sealed: a model chosen by looking at it would have no honest score "
            f"left. Choose on valid: ml-core select {shown(path)}. Then open test for the "
            "champion: ml-core evaluate champion.json --split test. For teaching, --unsealed opens "
            "it for any run; that is counted too, and the report is stamped."
        )
    champion = Champion.load(path)
    run = champion.check(path)
    calibration, threshold = champion.operating_point(path)
    return Entrant(
        run=run,
        record=RunRecord.load(run),
        config=load_run_config(run, overrides),
        champion={**read_json(path), "sha256": sha256_of_champion(path)},
        threshold=threshold,
        calibration=calibration,
    )


def _load_run(path: Path, overrides: Sequence[str]) -> Entrant:
    if path.is_file():
        raise RunError(f"{path}: a champion opens the test split by itself. Leave --unsealed away.")
    run = RunDir.open(path)
    scores_path = run.scores_path("test")
    if scores_path.is_file() and read_json(scores_path).get("sealed"):
        raise RunError(
            f"{shown(scores_path)} holds the scores of this run as a champion, and an unsealed "
            "opening would replace them. Look at those."
        )
    config = load_run_config(run, overrides)
    return Entrant(
        run=run,
        record=RunRecord.load(run),
        config=config,
        champion=None,
        threshold=config.evaluation.threshold,
        calibration=Calibration("none"),
    )
