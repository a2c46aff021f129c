"""What the page needs of a study, read from its files and those of its trials' runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ml_core.errors import RunError
from ml_core.evaluation.plots import METRIC_LABELS
from ml_core.findings import Finding
from ml_core.runs import RunDir, read_json
from ml_core.search.axis import Axis, axes_of, axes_of_list
from ml_core.search.deed import Deed
from ml_core.search.deed_of_run import deed_of_run
from ml_core.search.effects import Params, check_effects, comparable
from ml_core.search.importance import Importances, compute_importances
from ml_core.search.probe_points import conditions
from ml_core.search.space import Space
from ml_core.search.study_dir import StudyDir, StudyRecord
from ml_core.search.trials import Trial, best_trial, load_trials


@dataclass(frozen=True)
class StudyFacts:
    """A study as it stands; `best` and `second` are complete trials, None without such."""

    study: StudyDir
    record: StudyRecord
    trials: Sequence[Trial]
    space: Space
    axes: Sequence[Axis]
    best: Trial | None
    second: Trial | None
    importances: Importances
    effects: Sequence[Finding] = ()  # whether each parameter changed what trials did
    scores: Mapping[str, Any] = field(default_factory=dict)  # metrics.json of the best trial's run

    @property
    def metric(self) -> str:
        """The metric without the split it is of: roc_auc."""
        return self.record.metric.removeprefix("val_")

    @property
    def label(self) -> str:
        return METRIC_LABELS.get(self.metric, self.metric)

    def of_state(self, *states: str) -> list[Trial]:
        return [trial for trial in self.trials if trial.state in states]


def read_study_facts(study: StudyDir) -> StudyFacts:
    """Return the facts of `study`; raises RunError when its files are damaged.

    A damaged run of a trial only takes away what would be read from it.
    """
    record = StudyRecord.load(study)
    trials = load_trials(study)
    all_params = [dict(trial.params) for trial in trials]
    space = Space.from_dict(record.space) if record.space else Space.of_trials(all_params)
    is_list = record.sampler.get("name") == "list" or not record.space
    best = best_trial(trials, record)
    second = best_trial([trial for trial in trials if trial is not best], record)
    return StudyFacts(
        study=study,
        record=record,
        trials=trials,
        space=space,
        axes=axes_of_list(all_params) if is_list else axes_of(space),
        best=best,
        second=second,
        importances=compute_importances(trials, space, record.direction),
        effects=_effects(record, trials, space),
        scores=_scores(best.run) if best and best.run else {},
    )


def _effects(record: StudyRecord, trials: Sequence[Trial], space: Space) -> list[Finding]:
    """Return what probes and trials say of each parameter; the trials, where both speak of it.

    A parameter may act after the few steps of a probe, so a trial in which it did is believed.
    """
    decided_by = conditions(space)
    probes = [(each["params"], Deed.from_dict(each["deed"])) for each in record.probes]
    by_probes = check_effects(decided_by, probes) if probes else []
    by_trials = check_effects(decided_by, _deeds(trials, decided_by))
    untested = _untested(by_trials)
    tested = [key for key in decided_by if key not in untested]
    findings = [each for each in by_probes if each.facts.get("parameter") not in tested]
    findings = [each for each in findings if each.id != "effect-not-tested"]
    findings += [each for each in by_trials if each.id != "effect-not-tested"]
    still_untested = untested & _untested(by_probes) if probes else untested
    if still_untested:
        left = {key: value for key, value in decided_by.items() if key in still_untested}
        findings += check_effects(left, [])
    return findings


def _untested(findings: Sequence[Finding]) -> set[str]:
    return {key for each in findings if each.id == "effect-not-tested"
            for key in each.facts["parameters"]}  # fmt: skip


def _deeds(
    trials: Sequence[Trial], decided_by: Mapping[str, Sequence[str]]
) -> list[tuple[Params, Deed]]:
    """Return what those trials did that differ from another in one parameter alone."""
    ended = [trial for trial in trials if trial.state in ("complete", "pruned") and trial.run]
    places = comparable(decided_by, [trial.params for trial in ended])
    deeds = []
    for place in sorted(places):
        run = ended[place].run
        assert run is not None, "only trials with a run are looked at"
        try:
            deeds.append((ended[place].params, deed_of_run(run)))
        except RunError:
            continue
    return deeds


def _scores(run: RunDir) -> Mapping[str, Any]:
    """Return metrics.json of a run that was evaluated on valid, else nothing."""
    try:
        scores = read_json(run.metrics_path)
    except RunError:
        return {}
    return scores if scores.get("split") == "valid" else {}
