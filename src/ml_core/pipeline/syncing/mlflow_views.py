"""What MLflow is told of a study or a champion, read from their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ml_core.errors import RunError
from ml_core.findings import Finding
from ml_core.runs import RunDir, read_json
from ml_core.search.study_dir import StudyDir, StudyRecord
from ml_core.search.trials import Trial, load_trials
from ml_core.selection.champion import Champion, sha256_of_champion
from ml_core.selection.runs import BEST_WEIGHTS
from ml_core.tracking.mlflow_registry import ChampionView
from ml_core.tracking.mlflow_study import StudyView, TrialView

HEADLINE = ("roc_auc", "recall", "specificity", "precision", "f2")
NOTHING = {"value": None}
NETWORK_FILE = "state.json"  # as checkpoint.py, which loads torch, names what rebuilds the network


def view_study(study: StudyDir) -> StudyView:
    """Return what MLflow is told of a study; raises RunError when its files are damaged."""
    record = StudyRecord.load(study)
    return StudyView(
        path=study.path,
        study_id=record.study_id,
        name=record.name,
        experiment_name=record.experiment_name,
        status=record.status,
        started_at=record.started_at,
        ended_at=record.ended_at,
        maximize=record.direction == "maximize",
        space=record.space,
        tags={
            "metric": record.metric,
            "direction": record.direction,
            "num_trials": record.num_trials,
            "sampler": record.sampler,
            "pruner": record.pruner,
            "command": record.command,
            "commit": record.code.get("commit"),
            "dirty": record.code.get("dirty"),
            "mlflow.note.content": _as_list(record.findings) or None,
        },
        trials=[_view_trial(trial) for trial in load_trials(study)],
        files=[path for path in _study_files(study) if path.is_file()],
    )


def view_champion(path: Path) -> ChampionView:
    """Return what MLflow is told of a champion; raises RunError where its weights have changed."""
    champion = Champion.load(path)
    run = champion.check(path)
    weights = run.checkpoints_dir / BEST_WEIGHTS
    return ChampionView(
        path=path,
        run=run,
        weights_sha256=champion.run["weights_sha256"],
        created_at=champion.created_at,
        tags={
            "threshold": champion.threshold.get("value"),
            "threshold_rule": champion.threshold.get("rule"),
            "calibration": champion.calibration.get("kind"),
            "temperature": champion.calibration.get("temperature"),
            "epoch": champion.run["epoch"],
            "champion_sha256": sha256_of_champion(path),
            "commit": champion.code.get("commit"),
            "test_openings": _test_openings(run, path),
            **_scores(champion),
        },
        description=_describe(champion),
        files=[path, weights, weights.with_name(NETWORK_FILE)],
    )


def _view_trial(trial: Trial) -> TrialView:
    return TrialView(
        number=trial.number,
        attempt=trial.attempt,
        state=trial.state,
        value=trial.value,
        ended_at=trial.last.ended_at,
        params=trial.params,
        run=trial.run,
    )


def _study_files(study: StudyDir) -> list[Path]:
    return [
        study.record_path,
        study.config_path,
        study.page_path,
        study.table_path,
        study.champion_path,
        *sorted(study.figures_dir.rglob("*")),
    ]


def _test_openings(run: RunDir, champion_path: Path) -> Any:
    """Return how often the test set was opened when this champion was scored on it, if it was."""
    try:
        scores = read_json(run.scores_path("test"))
        is_this = scores["champion"]["sha256"] == sha256_of_champion(champion_path)
        return scores["openings"]["num"] if is_this else None
    except (RunError, KeyError, TypeError):
        return None


def _scores(champion: Champion) -> dict[str, str]:
    """Return the headline metrics on validation, each with its interval, as MLflow shows them."""
    metrics = champion.evidence.get("metrics", {})
    return {
        f"valid.{name}": f"{found['value']:.4f} ({found['low']:.4f} to {found['high']:.4f})"
        for name in HEADLINE
        if None not in (found := metrics.get(name, NOTHING)).values()
    }


def _describe(champion: Champion) -> str:
    evidence = champion.evidence
    lines = [
        f"Chosen for {evidence.get('chosen_for')}, on {evidence.get('num_patches')} patches of "
        f"{evidence.get('split')}.",
        f"`{champion.command}`",
        _as_list(champion.findings),
    ]
    return "\n\n".join(lines).strip()


def _as_list(findings: list[Finding]) -> str:
    return "\n".join(f"- **{f.severity}** {f.id}: {f.message}" for f in findings)
