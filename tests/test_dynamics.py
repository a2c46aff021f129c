"""Training by step on the page: all seeds on one axis, layers as colours, spikes with patches."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fabricated_run import fabricate_run

from ml_core.errors import DataError
from ml_core.evaluation.dynamics_plots import plot_by_step, plot_layers
from ml_core.evaluation.report import render_report
from ml_core.evaluation.report.dynamics import MAX_SPIKES, build_dynamics
from ml_core.evaluation.report.run_facts import read_run_facts
from ml_core.runs import read_jsonl

SPIKE_STEP = 100


@pytest.fixture
def runs(tmp_path):
    """Two seeds; in the first a batch's gradient jumps, and both log two layers."""
    found = [fabricate_run(tmp_path, seed) for seed in (1, 2)]
    for number, run in enumerate(found):
        lines = list(read_jsonl(run.steps_log_path))
        if number == 0:
            lines[SPIKE_STEP - 1]["grad_norm"] = 60.0
        run.steps_log_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        layers = [
            {"step": line["step"], "epoch": line["epoch"], "net.0": 0.5, "net.3": line["grad_norm"]}
            for line in lines
        ]
        run.gradients_log_path.write_text("".join(json.dumps(line) + "\n" for line in layers))
    return found


def facts_of(runs):
    return {f"seed {number}": read_run_facts(run) for number, run in enumerate(runs, start=1)}


def patches_of(_, steps):
    return {step: np.arange(10 * step, 10 * step + 3) for step in steps}


def test_a_planted_spike_is_listed_with_its_step_ratio_and_the_patches_of_its_batch(runs):
    dynamics = build_dynamics(facts_of(runs), "a", patches_of)
    (row,) = (row for row in dynamics.spikes if row.spike.value == 60.0)
    assert (row.run, row.step, row.what) == ("seed 1", SPIKE_STEP, "gradient norm")
    assert row.spike.ratio > 20
    assert row.patches == (1000, 1001, 1002)
    assert len(dynamics.spikes) <= MAX_SPIKES * len(runs)


def test_every_seed_is_on_each_axis_and_has_a_picture_of_its_layers(runs):
    dynamics = build_dynamics(facts_of(runs), "a")
    assert [block.name for block in dynamics.figures] == ["learning_rate", "loss", "grad_norm"]
    assert all("seed 1, seed 2" in block.svg for block in dynamics.figures)
    assert [block.title for block in dynamics.layers] == [
        "Gradient norm of each layer, seed 1", "Gradient norm of each layer, seed 2",
    ]  # fmt: skip
    assert "net.3" in dynamics.layers[0].svg


def test_where_the_data_are_gone_the_spike_is_listed_and_why_is_said(runs):
    def gone(_, steps):
        raise DataError("the train file is gone")

    dynamics = build_dynamics(facts_of(runs), "a", gone)
    assert dynamics.why_no_patches == "the train file is gone"
    assert all(row.patches is None for row in dynamics.spikes)


def test_runs_without_a_log_of_steps_have_no_dynamics(tmp_path):
    facts = {"seed 0": read_run_facts(fabricate_run(tmp_path, logs=False))}
    assert build_dynamics(facts, "a") is None


def test_the_page_about_several_seeds_shows_them_and_the_same_files_give_the_same_bytes(
    runs, tmp_path
):
    pages = [
        render_report(runs, tmp_path / name, patches_of=patches_of).read_text()
        for name in ("a.html", "b.html")
    ]
    assert pages[0] == pages[1]
    assert "Training by step" in pages[0]
    assert "1000, 1001, 1002" in pages[0]


def test_a_layer_without_gradients_and_missing_values_are_drawn_without_a_warning(recwarn):
    steps = np.arange(1.0, 501.0)
    zeros, holes = np.zeros(500), np.where(steps % 7 == 0, np.nan, 1.0)
    plot_layers(steps, {"a": zeros, "b": holes})
    plot_by_step({"one": (steps, holes)}, "loss")
    plot_by_step({"empty": (steps, np.full(500, np.nan))}, "loss")
    assert not recwarn.list
