"""The learning-rate range test: what a curve suggests, and the verb that takes it."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from tiny_pcam import write_config, write_tiny_pcam

from ml_core.cli import main
from ml_core.config import Config
from ml_core.pipeline.lr_find import lr_find
from ml_core.solver.lr_range_test import RangeTest, has_diverged, learning_rates, smooth, suggest


def curve(noise: float, seed: int = 0, learns: bool = True) -> RangeTest:
    """A loss that falls from 1e-4 on, is lowest at 1e-2 and rises from 3e-2 on, with noise."""
    rates = learning_rates(1e-6, 1.0, 160)
    loss = np.full(160, 0.7)
    if learns:
        loss -= 0.15 * np.clip(np.log10(rates / 1e-4) / 2, 0, 1)
        loss += 0.5 * np.clip(np.log10(rates / 3e-2), 0, None)
    losses = loss + noise * np.random.default_rng(seed).standard_normal(160)
    return RangeTest(rates, losses, smooth(losses.tolist()))


def test_the_suggestion_lies_between_the_lowest_loss_and_where_it_rises():
    suggestion = suggest(curve(noise=0.02), diverged=False)
    assert 3e-3 < suggestion.lowest <= suggestion.learning_rate <= suggestion.edge < 0.15
    assert suggestion.learning_rate == pytest.approx(math.sqrt(suggestion.lowest * suggestion.edge))
    assert 1e-4 < suggestion.steepest < 1e-2


def test_a_loss_that_never_falls_gets_no_suggestion_whatever_its_noise():
    tests = [curve(noise=0.05, seed=seed, learns=False) for seed in range(300)]
    suggestions = [suggest(test, diverged=False) for test in tests]
    silent = [each for each in suggestions if each.learning_rate is None]
    assert len(silent) >= 298
    assert all("learns at no rate" in each.reason for each in silent)


def test_a_clear_fall_is_found_in_noise():
    found = [suggest(curve(0.05, seed), False).learning_rate for seed in range(50)]
    assert sum(rate is not None for rate in found) >= 48


def test_the_test_ends_where_the_loss_is_not_finite_or_four_times_the_lowest():
    assert has_diverged([0.7, math.nan])
    assert has_diverged([0.7] * 20 + [30.0])
    assert not has_diverged([0.7] * 20 + [2.0])


def test_a_test_that_diverges_at_once_says_so():
    suggestion = suggest(
        RangeTest(np.array([1e-6]), np.array([math.nan]), np.array([math.nan])), True
    )
    assert suggestion.learning_rate is None
    assert suggestion.diverged_at == 1e-6
    assert "not finite" in suggestion.reason


@pytest.fixture(scope="module")
def config_path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lr")
    data = write_tiny_pcam(folder / "data")
    return write_config(folder / "config.yaml", data)


def test_the_verb_writes_the_curve_and_leaves_no_run(config_path, capsys):
    main_without_exit(["train", str(config_path), "--lr-find", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    (folder,) = (config_path.parent / "runs" / "tiny").iterdir()
    assert result["folder"] == str(folder)
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml", "lr_find.csv", "lr_find.json", "lr_find.png",
    }  # fmt: skip
    rows = list(csv.DictReader((folder / "lr_find.csv").read_text().splitlines()))
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates[0] == pytest.approx(1e-6)
    assert rates == sorted(rates)


def test_the_same_seed_gives_the_same_curve_and_another_seed_another(config_path):
    curves = []
    for seed in (1, 1, 2):
        config = Config.load(config_path, [f"seed={seed}"])
        folder = lr_find(config, command="test")["folder"]
        curves.append(Path(folder, "lr_find.csv").read_text())
    assert curves[0] == curves[1] != curves[2]


def test_a_range_test_and_a_fast_dev_run_are_not_asked_for_together(config_path, capsys):
    with pytest.raises(SystemExit) as exit_code:
        main(["train", str(config_path), "--lr-find", "--fast-dev-run"])
    assert exit_code.value.code == 2
    assert "give one of them" in capsys.readouterr().err


def main_without_exit(arguments):
    try:
        main(arguments)
    except SystemExit as exit_code:
        assert not exit_code.code
