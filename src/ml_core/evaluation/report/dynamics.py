"""How training went by step, over the runs of a report: rates, losses, gradients and spikes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_core.errors import MLCoreError
from ml_core.evaluation.dynamics_plots import plot_by_step, plot_layers
from ml_core.evaluation.report.figure_block import FigureBlock, figure_block
from ml_core.evaluation.report.run_facts import RunFacts
from ml_core.evaluation.spikes import Spike, find_spikes
from ml_core.runs import RunDir

Floats = npt.NDArray[np.float64]
# The rows of the train file that the batches of each step held, by step.
PatchesOf = Callable[[RunDir, Sequence[int]], Mapping[int, npt.NDArray[np.int64]]]

VALUES = {
    "learning_rate": ("Learning rate", "learning rate"),
    "loss": ("Training loss of a batch", "loss"),
    "grad_norm": ("Gradient norm", "gradient norm"),
}
WATCHED = ("loss", "grad_norm")  # in which a spike is looked for
MAX_SPIKES = 12  # of each run in the table, the largest first


@dataclass(frozen=True)
class SpikeRow:
    """One spike as the table shows it; `patches` is None where the data could not be read."""

    run: str
    step: int
    epoch: int
    what: str
    spike: Spike
    patches: tuple[int, ...] | None


@dataclass(frozen=True)
class Dynamics:
    """Figures by step of all runs together and of each run's layers, and the spikes."""

    anchor: str
    figures: Sequence[FigureBlock]
    layers: Sequence[FigureBlock]
    spikes: Sequence[SpikeRow]
    num_spikes: int
    num_steps: int
    why_no_patches: str
    folders: Mapping[str, str]  # of each run, as seen from the page


def build_dynamics(
    all_facts: Mapping[str, RunFacts], anchor: str, patches_of: PatchesOf | None = None
) -> Dynamics | None:
    """Return what steps.jsonl and gradients.jsonl of the runs show, by name; None without steps.

    `patches_of` tells which patches a step was made of.
    """
    logged = {name: facts for name, facts in all_facts.items() if facts.steps}
    if not logged:
        return None
    found = {name: _spikes(facts) for name, facts in logged.items()}
    rows, why_not = [], ""
    for name, facts in logged.items():
        largest = sorted(found[name], key=lambda each: -each[1].ratio)[:MAX_SPIKES]
        steps = sorted({_step(facts, spike) for _, spike in largest})
        patches: Mapping[int, npt.NDArray[np.int64]] = {}
        if steps and patches_of is not None:
            try:
                patches = patches_of(facts.run, steps)
            except (MLCoreError, OSError) as error:
                why_not = str(error)
        rows += [_row(name, facts, key, spike, patches) for key, spike in largest]
    return Dynamics(
        anchor=anchor,
        figures=_figures(logged, found, anchor),
        layers=_layer_figures(logged, anchor),
        spikes=rows,
        num_spikes=sum(map(len, found.values())),
        num_steps=sum(len(facts.steps) for facts in logged.values()),
        why_no_patches=why_not,
        folders={name: facts.folder for name, facts in logged.items()},
    )


def _figures(
    logged: Mapping[str, RunFacts], found: Mapping[str, list[tuple[str, Spike]]], anchor: str
) -> list[FigureBlock]:
    blocks = []
    for key, (title, label) in VALUES.items():
        runs = {
            name: (_column(facts.steps, "step"), _column(facts.steps, key))
            for name, facts in logged.items()
        }
        marked = {
            name: (
                np.array(
                    [float(_step(logged[name], each)) for what, each in spikes if what == key]
                ),
                np.array([each.value for what, each in spikes if what == key]),
            )
            for name, spikes in found.items()
        }
        figure = plot_by_step(runs, label, marked, may_be_log=key != "learning_rate")
        described = f"{title} by step of {', '.join(runs)}"
        blocks.append(figure_block(figure, key, anchor, title, described, "steps.jsonl"))
    return blocks


def _layer_figures(logged: Mapping[str, RunFacts], anchor: str) -> list[FigureBlock]:
    blocks = []
    for number, (name, facts) in enumerate(logged.items(), start=1):
        if not facts.gradients:
            continue
        layers = [key for key in facts.gradients[0] if key not in ("step", "epoch", "time")]
        norms = {layer: _column(facts.gradients, layer) for layer in layers}
        if not norms:
            continue
        figure = plot_layers(_column(facts.gradients, "step"), norms)
        title = "Gradient norm of each layer" + (f", {name}" if len(logged) > 1 else "")
        blocks.append(
            figure_block(figure, f"layers{number}", anchor, title, title, "gradients.jsonl")
        )
    return blocks


def _spikes(facts: RunFacts) -> list[tuple[str, Spike]]:
    return [(key, spike) for key in WATCHED for spike in find_spikes(_column(facts.steps, key))]


def _step(facts: RunFacts, spike: Spike) -> int:
    return int(facts.steps[spike.position]["step"])


def _row(
    name: str,
    facts: RunFacts,
    key: str,
    spike: Spike,
    patches: Mapping[int, npt.NDArray[np.int64]],
) -> SpikeRow:
    step = _step(facts, spike)
    rows = tuple(patches[step].tolist()) if step in patches else None
    epoch = int(facts.steps[spike.position].get("epoch") or 0)
    return SpikeRow(name, step, epoch, VALUES[key][1], spike, rows)


def _column(records: Sequence[Mapping[str, Any]], key: str) -> Floats:
    """Return one key of all records as numbers (S,); what is missing or null is NaN."""
    values = [record.get(key) for record in records]
    return np.array([np.nan if value is None else float(value) for value in values])
