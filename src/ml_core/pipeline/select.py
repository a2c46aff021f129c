"""Choose the champion among runs, on validation only, and freeze it in champion.json.

Reads each run's record, config and validation predictions (made where they are missing) and, for
the baselines, the train and valid split; writes champion.json. The test split is not opened.

    ml-core select runs/pcam_cnn_search/study-20260102-030405
    ml-core select runs/pcam_mlp/2026* runs/pcam_cnn/2026* --set selection.rule=one_standard_error
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ml_core.errors import RunError
from ml_core.evaluation.cross_fit import calibration_report
from ml_core.evaluation.operating_plots import operating_figures
from ml_core.evaluation.threshold import ChosenThreshold, choose_threshold
from ml_core.findings import Finding
from ml_core.log import shown
from ml_core.page.figure_style import save_figure
from ml_core.pipeline.parts.baselines import baseline_table
from ml_core.pipeline.parts.splits import run_exclusions
from ml_core.pipeline.parts.trained_model import load_run_config
from ml_core.pipeline.selecting.candidate_tables import CandidateTables, predict_candidates
from ml_core.pipeline.selecting.candidates import Given, find_candidates, listed
from ml_core.pipeline.selecting.selection_settings import SelectionSettings, load_settings
from ml_core.runs import RunDir, read_json, utc_now
from ml_core.selection.champion import Champion, freeze, name_run
from ml_core.selection.evidence import (
    check_choice,
    compare_with_baselines,
    compare_with_runner_up,
    decision_metric,
    evidence_of,
    refuse_unless_all_are_beaten,
)
from ml_core.selection.groups import Group, data_differences, group_runs
from ml_core.selection.operating_point import (
    Ready,
    make_ready,
    ready_baselines,
    score,
    standard_error,
)
from ml_core.selection.paired import Contender
from ml_core.selection.prior import at_deployment
from ml_core.selection.rules import Choice, Scored, Standing, choose
from ml_core.selection.runs import SPLIT, Candidate, LeftOut
from ml_core.selection.summary import render_summary
from ml_core.tracking import sync_champion

logger = logging.getLogger("ml_core.select")

SEED = 0  # of all resamples: the same candidates give the same champion.json


def select(
    paths: Sequence[Path],
    out: Path | None = None,
    *,
    overrides: Iterable[str] = (),
    command: str,
) -> dict[str, Any]:
    """Return the content of champion.json, with "champion" and "run" as the paths of both.

    Candidates are the runs at `paths`, or the complete trials of a study; the rule is the section
    `selection` of their configs, which `overrides` may replace. "kept" is where a former champion
    was put. Raises RunError where no candidate is left, they were trained on different data or with
    different rules, or the best of them does not beat every baseline.
    """
    given = find_candidates(paths)
    settings = load_settings(given.candidates, overrides)
    _refuse_other_data(given.candidates)
    tables = predict_candidates(given.candidates, settings.run_overrides)
    groups, repeated = group_runs(tables.candidates)
    left_out = [*given.left_out, *tables.left_out, *repeated]
    choice = _choose(groups, tables, settings)
    out = out or _beside(given)
    best, champion = _prove(choice, left_out, tables, settings, out, command)
    logger.info("%s", render_summary(choice, champion))
    if left_out:
        logger.info("not used\n%s", listed(left_out))
    for finding in champion.findings:
        level = logging.INFO if finding.severity == "info" else logging.WARNING
        logger.log(level, "%s %s", finding.message, finding.action)
    kept, is_new = freeze(champion, out)
    if kept is not None:
        logger.info("the former %s is kept as %s", out.name, shown(kept))
    logger.info("%s %s", "frozen in" if is_new else "the same as before:", shown(out))
    _draw(best, champion, out.with_name(f"{out.stem}-figures"))
    _register(choice.champion.candidate.run, settings.run_overrides, out)
    return {
        **read_json(out),
        "champion": str(out),
        "run": str(choice.champion.candidate.run.path),
        "weights_sha256": choice.champion.candidate.weights_sha256,
        "kept": None if kept is None else str(kept),
    }


def _register(run: RunDir, overrides: Sequence[str], champion: Path) -> None:
    """Send the champion to MLflow's registry, if its run names a server; never an error."""
    uri = load_run_config(run, overrides).tracking.mlflow_uri
    if uri is not None:
        outcome = sync_champion(champion, uri)
        logger.log(logging.INFO if outcome.complete else logging.WARNING, "%s", outcome.message)


def _refuse_other_data(candidates: Sequence[Candidate]) -> None:
    if found := data_differences(candidates):
        raise RunError(
            "these runs were trained or validated on different data, so their scores cannot be "
            "compared:\n"
            + "\n".join(f"  {each}" for each in found)
            + "\nSelect among runs on the same data."
        )


def _choose(
    groups: Sequence[Group], tables: CandidateTables, settings: SelectionSettings
) -> Choice:
    standings = [
        Standing(
            group,
            tuple(Scored(run, score(tables.of(run), settings.rule)) for run in group.runs),
        )
        for group in groups
    ]
    return choose(
        standings,
        settings.selection.rule,
        metric=settings.selection.metric,
        min_recall=settings.selection.min_recall,
        standard_error=lambda run, metric: standard_error(
            tables.of(run), metric, settings.rule, settings.num_resamples, SEED
        ),
    )


def _beside(given: Given) -> Path:
    """Return where champion.json goes: into the study, or into the folder that all runs share."""
    if len(given.studies) == 1:
        return given.studies[0].champion_path
    parents = [candidate.run.path.resolve().parent for candidate in given.candidates]
    shared = Path(os.path.commonpath(parents))
    if shared == Path(shared.root):
        raise RunError("these runs share no folder; say where champion.json goes: --out FILE.")
    return shared / "champion.json"


def _prove(
    choice: Choice,
    left_out: Sequence[LeftOut],
    tables: CandidateTables,
    settings: SelectionSettings,
    out: Path,
    command: str,
) -> tuple[Ready, Champion]:
    """Return the champion, ready to decide, and what is frozen; RunError if it beats too few."""
    candidate, selection = choice.champion.candidate, settings.selection
    try:
        best = make_ready(candidate, tables.of(candidate), selection.calibration, settings.rule)
    except RunError as error:
        raise RunError(f"{candidate.run.path}: {error}") from error
    labels = best.raw.labels
    chosen = choose_threshold(
        labels, best.calibrated.y_prob, settings.rule, settings.num_resamples, SEED
    )
    baselines = _compare_with_baselines(best, chosen, settings)
    refuse_unless_all_are_beaten(str(candidate.run.path), baselines)
    if settings.rule.kind == "recall":  # who asks for recall must gain by it over calling all
        in_f2 = _compare_with_always_positive(best, chosen, settings)
        refuse_unless_all_are_beaten(str(candidate.run.path), in_f2)
    runner_up, findings = _compare_with_runner_up(choice, best, tables, settings, out)
    champion = Champion(
        created_at=utc_now(),
        command=command,
        rule=settings.to_dict(),
        run=name_run(candidate, out),
        evidence=evidence_of(choice, best, left_out, settings.num_resamples, SEED),
        runner_up=runner_up,
        threshold=chosen.to_dict(),
        calibration=calibration_report(selection.calibration, labels, best.raw.logit, SEED)[1],
        prior_shift=at_deployment(chosen, selection.deployment_prevalence),
        baselines=baselines,
        data={
            split: {key: record[key] for key in ("x_sha256", "y_sha256", "num_patches")}
            for split, record in candidate.record.data.items()
        },
        code=dict(candidate.record.code),
        findings=[*findings, *check_choice(choice, left_out)],
    )
    return best, champion


def _compare_with_baselines(
    best: Ready, chosen: ChosenThreshold, settings: SelectionSettings
) -> dict[str, dict[str, Any]]:
    decision = decision_metric(settings.rule.kind, settings.rule.beta)
    return compare_with_baselines(
        best.raw.labels,
        best.contender,
        _baselines(best, settings),
        decision,
        optimism=_optimism(_judged(best, chosen, settings), decision),
        num_resamples=settings.num_resamples,
        seed=SEED,
    )


def _compare_with_always_positive(
    best: Ready, chosen: ChosenThreshold, settings: SelectionSettings
) -> dict[str, dict[str, Any]]:
    labels = best.raw.labels
    return compare_with_baselines(
        labels,
        best.contender,
        [Contender("always_positive", np.ones(len(labels)), 0.5)],
        "f2",
        optimism=_optimism(_judged(best, chosen, settings), "f2"),
        num_resamples=settings.num_resamples,
        seed=SEED,
    )


def _baselines(best: Ready, settings: SelectionSettings) -> list[Contender]:
    """Return the baselines of the data that the champion was trained on."""
    run, record, raw = best.candidate.run, best.candidate.record, best.raw
    table = baseline_table(
        load_run_config(run, settings.run_overrides),
        SPLIT,
        run_exclusions(run, record),
        {split: (each["x_sha256"], each["y_sha256"]) for split, each in record.data.items()},
    )
    return ready_baselines(raw.labels, table.probs_of(SPLIT, raw.index, raw.labels), settings.rule)


def _judged(best: Ready, chosen: ChosenThreshold, settings: SelectionSettings) -> ChosenThreshold:
    """Return a choice whose optimism is that of `chosen`.

    Isotonic steps were fitted to these labels, and resamples would keep them: the same rule on the
    uncalibrated probabilities has every cut to choose from.
    """
    if best.calibration.kind != "isotonic":
        return chosen
    raw = best.raw
    return choose_threshold(raw.labels, raw.y_prob, settings.rule, settings.num_resamples, SEED)


def _optimism(chosen: ChosenThreshold, metric: str) -> float:
    """Return by how much `metric` is too good on the patches that the threshold was chosen on."""
    estimate = chosen.expected[metric]
    in_sample, value = estimate["in_sample"], estimate["value"]
    return 0.0 if in_sample is None or value is None else max(0.0, in_sample - value)


def _compare_with_runner_up(
    choice: Choice, best: Ready, tables: CandidateTables, settings: SelectionSettings, out: Path
) -> tuple[dict[str, Any] | None, list[Finding]]:
    if choice.runner_up is None:
        return None, []
    run = choice.runner_up.candidate
    try:
        second = make_ready(run, tables.of(run), settings.selection.calibration, settings.rule)
    except RunError as error:
        message = f"The runner-up {run.name} could not be made ready to be compared: {error}"
        return None, [Finding("no-runner-up", "warning", message)]
    differences, findings = compare_with_runner_up(
        best.raw.labels,
        best.contender,
        second.contender,
        choice.metric,
        num_resamples=settings.num_resamples,
        seed=SEED,
    )
    found = {"run": name_run(run, out), "threshold": second.threshold, "differences": differences}
    return found, findings


def _draw(best: Ready, champion: Champion, folder: Path) -> None:
    """Save what the threshold trades and what calibration did; figures that fail cost nothing."""
    figures = operating_figures(
        best.raw.labels,
        best.raw.y_prob,
        best.calibrated.y_prob,
        ChosenThreshold.from_dict(champion.threshold),
        champion.rule["deployment_prevalence"],
    )
    try:
        folder.mkdir(exist_ok=True)
        for name, figure in figures.items():
            save_figure(figure, folder / f"{name}.png")
    except OSError as error:
        logger.warning("the figures cannot be written in %s: %s", shown(folder), error)
        return
    logger.info("figures in %s", shown(folder))
