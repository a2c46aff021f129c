"""Runs that differ in nothing but the seed, and what the others differ in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_core.config.recipe import NOT_THE_RECIPE
from ml_core.page.text import short_hash
from ml_core.selection.runs import Candidate, LeftOut

MOST_VALUES = 5  # of a key that a sentence lists
ABSENT = "not set"


@dataclass(frozen=True)
class Group:
    """Runs of one recipe on the same data, in order of their seeds: one run for each seed."""

    runs: tuple[Candidate, ...]

    @property
    def seeds(self) -> list[int]:
        return [run.record.seed for run in self.runs]

    @property
    def simplicity(self) -> tuple[float, float, str]:
        """See `Candidate.simplicity`."""
        return min(run.simplicity for run in self.runs)


def group_runs(candidates: Sequence[Candidate]) -> tuple[list[Group], list[LeftOut]]:
    """Return the candidates by recipe and data, in the order given, and those that repeat a seed.

    Of two runs with one seed the one that began last counts. Of two whose best weights are equal
    to the bit only the first counts: whatever their seeds say, that is one training.
    """
    alike: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        alike.setdefault(_key(candidate), []).append(candidate)
    groups, left_out = [], []
    for members in alike.values():
        kept: list[Candidate] = []
        by_name = sorted(members, key=lambda run: run.name)
        for run in sorted(by_name, key=lambda run: run.record.started_at, reverse=True):
            if reason := _repeats(run, kept):
                left_out.append(LeftOut(run.run.path, reason))
            else:
                kept.append(run)
        groups.append(Group(tuple(sorted(kept, key=lambda run: run.record.seed))))
    return groups, left_out


def differences(runs: Sequence[Candidate]) -> list[str]:
    """Return what the runs differ in, seeds apart, such as "optimizer.lr is 0.001 or 0.003"."""
    return [*data_differences(runs), *config_differences(runs), *scoring_differences(runs)]


def data_differences(runs: Sequence[Candidate]) -> list[str]:
    """Return which files, by their SHA-256, and which lists of exclusions differ."""
    data = [data_identity(run) for run in runs]
    found = []
    for key in dict.fromkeys(key for each in data for key in each):
        hashes = _distinct(short_hash(each.get(key), 8) for each in data)
        if len(hashes) > 1:
            verb = "differs" if key == "exclusions.csv" else "differ"
            found.append(f"{key} {verb} (sha256 {_either(hashes)})")
    return found


def config_differences(runs: Sequence[Candidate]) -> list[str]:
    """Return the keys of the recipe that differ, with their values."""
    return [f"{key} is {_either(values)}" for key, values in _differing_keys(runs).items()]


def scoring_differences(runs: Sequence[Candidate]) -> list[str]:
    """Return whether their metrics.json were made at different thresholds."""
    thresholds = _distinct(str(run.scores["threshold"]) for run in runs if run.scores)
    if len(thresholds) < 2:
        return []
    return [f"the runs are scored at threshold {_either(thresholds)}"]


def provenance_differences(runs: Sequence[Candidate]) -> list[str]:
    """Return differences in code and packages: worth knowing, no reason not to pool the runs."""
    found = []
    commits = _distinct(_commit(run) for run in runs)
    if len(commits) > 1:
        found.append(f"the code is of commit {_either(commits)}")
    names = sorted({name for run in runs for name in run.record.packages})
    for name in names:
        versions = _distinct(run.record.packages.get(name, ABSENT) for run in runs)
        if len(versions) > 1:
            found.append(f"{name} is {_either(versions)}")
    return found


def label_groups(groups: Sequence[Group]) -> list[str]:
    """Return for each group what tells it from the others, such as "lr 0.003, batch_size 64".

    The last part of a key is enough where no other key ends like it.
    """
    firsts = [group.runs[0] for group in groups]
    keys = list(_differing_keys(firsts))
    names = {key: _short(key, keys) for key in keys}
    flat = [_flatten(run.config) for run in firsts]
    labels = [
        ", ".join(f"{names[key]} {_brief(values.get(key, 'not set'))}" for key in keys)
        for values in flat
    ]
    if len(set(labels)) == len(labels) and all(labels):
        return labels
    data = [short_hash(data_identity(run).get("train patches"), 8) for run in firsts]
    return [
        ", ".join(part for part in (label, f"train {train}, {run.name}") if part)
        for label, train, run in zip(labels, data, firsts, strict=True)
    ]


def data_identity(run: Candidate) -> dict[str, str]:
    """Return the SHA-256 of each file of the data that the run used, and of its exclusions."""
    identity = {}
    for split, record in run.record.data.items():
        identity[f"{split} patches"] = record["x_sha256"]
        identity[f"{split} labels"] = record["y_sha256"]
    identity["exclusions.csv"] = run.record.audit.get("exclusions_sha256") or "none"
    return identity


def recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config's keys, dotted, without those in NOT_THE_RECIPE."""
    flat = _flatten(config)
    return {key: value for key, value in flat.items() if not _is_left_out(key)}


def _key(candidate: Candidate) -> str:
    whole = {"config": recipe(candidate.config), "data": data_identity(candidate)}
    text = json.dumps(whole, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _repeats(run: Candidate, kept: Sequence[Candidate]) -> str:
    """Return why `run` is no further seed beside `kept`, "" if it is one."""
    for other in kept:
        if other.record.seed == run.record.seed:
            return (
                f"it repeats seed {run.record.seed} of {other.run.path}, which began later; a seed "
                "counts once"
            )
        if other.weights_sha256 == run.weights_sha256:
            return (
                f"its best weights are, to the bit, those of {other.run.path}: its seed "
                f"{run.record.seed} changed nothing, so it is not another run"
            )
    return ""


def _differing_keys(runs: Sequence[Candidate]) -> dict[str, list[str]]:
    """Return the keys of the recipe that differ, with their distinct values as words.

    Where a section's `name` differs its other keys may be missing on one side, as momentum at
    adam: that is not told a second time.
    """
    recipes = [recipe(run.config) for run in runs]
    found: dict[str, list[str]] = {}
    for key in dict.fromkeys(key for each in recipes for key in each):
        values = _distinct(str(each[key]) if key in each else ABSENT for each in recipes)
        named_apart = f"{key.rpartition('.')[0]}.name" in found
        if len(values) > 1 and not (named_apart and ABSENT in values):
            found[key] = values
    return found


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return {"optimizer.lr": 0.001, ...}, a section's `name` before its other keys."""
    flat: dict[str, Any] = {}
    for key, value in sorted(config.items(), key=lambda item: item[0] != "name"):
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _is_left_out(key: str) -> bool:
    parts = key.split(".")
    return any(".".join(parts[:length]) in NOT_THE_RECIPE for length in (1, 2))


def _short(key: str, keys: Iterable[str]) -> str:
    last = key.rpartition(".")[2]
    alone = sum(other.rpartition(".")[2] == last for other in keys) == 1
    return last if alone and last != "name" else key.removesuffix(".name")


def _brief(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _commit(run: Candidate) -> str:
    code = run.record.code
    return short_hash(code.get("commit")) + (" with changes" if code.get("dirty") else "")


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _either(values: Sequence[str]) -> str:
    if len(values) > MOST_VALUES:
        return f"{', '.join(values[:MOST_VALUES])}, ... ({len(values)} values)"
    return f"{', '.join(values[:-1])} or {values[-1]}"
