"""The runs that a command was given: single ones, or all trials of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ml_core.errors import RunError
from ml_core.log import shown
from ml_core.runs import RunDir
from ml_core.search.study_dir import StudyDir
from ml_core.search.trials import Trial, load_trials
from ml_core.selection.runs import Candidate, LeftOut, read_candidates


@dataclass(frozen=True)
class Given:
    """What was found at the paths: runs that ended, runs that did not, and the studies."""

    candidates: list[Candidate]
    left_out: list[LeftOut]
    studies: list[StudyDir] = field(default_factory=list)


def find_candidates(paths: Sequence[Path]) -> Given:
    """Return the runs at `paths`, each a run's directory or a study's.

    Of a study its complete trials are candidates; the others are left out with their reasons.
    Raises RunError where a path is neither, where a study has no trial, and where no run is left.
    """
    runs: list[RunDir] = []
    left_out: list[LeftOut] = []
    studies: list[StudyDir] = []
    for path in paths:
        if (path / "study.json").is_file():
            studies.append(StudyDir.open(path))
            complete, others = _trials_of(studies[-1])
            runs += complete
            left_out += others
        else:
            runs.append(_open_run(path))
    if not runs and not left_out:
        raise RunError("no run was given. Give directories of runs, or of a study.")
    candidates, others = read_candidates(runs)
    left_out += others
    if not candidates:
        raise RunError(f"no run can be used:\n{listed(left_out)}")
    return Given(candidates, left_out, studies)


def listed(left_out: Sequence[LeftOut]) -> str:
    """Return one line for each run that does not count, with its reason."""
    return "\n".join(f"  {shown(each.path)}: {each.reason}" for each in left_out)


def _open_run(path: Path) -> RunDir:
    if path.is_dir() and not (path / "run.json").is_file():
        inside = sorted(each.parent for each in path.glob("*/run.json"))
        if inside:
            raise RunError(
                f"{path} is not a run but a folder of {len(inside)}. Give the runs themselves: "
                f"{shown(path)}/*"
            )
    return RunDir.open(path)


def _trials_of(study: StudyDir) -> tuple[list[RunDir], list[LeftOut]]:
    """Return the runs of complete trials, and why the others are none."""
    trials = load_trials(study)
    if not trials:
        raise RunError(
            f"the study {study.path} has no trial yet. Go on with: "
            f"ml-core tune --resume {shown(study.path)}"
        )
    complete, others = [], []
    for trial in trials:
        run = study.attempt(trial.number, trial.attempt).run
        if trial.state == "complete":
            complete.append(run)
        else:
            others.append(LeftOut(run.path, _why(trial)))
    if not complete:
        raise RunError(
            f"no trial of {study.path} is complete, so there is nothing to choose from:\n"
            f"{listed(others)}"
        )
    return complete, others


def _why(trial: Trial) -> str:
    """Return how a trial that is not complete stands, with its error, or else its cause."""
    if trial.state == "pruned":
        return f"trial {trial.number} was pruned: the search stopped it early"
    detail = trial.error or trial.cause
    return f"trial {trial.number} is {trial.state}" + (f": {detail}" if detail else "")
