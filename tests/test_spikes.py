"""Spikes in a loss or a gradient norm: found where planted, and not in healthy noise."""

from __future__ import annotations

import numpy as np
import pytest

from ml_core.evaluation.spikes import WINDOW, find_spikes


def healthy(seed: int, num_steps: int = 2000, spread: float = 0.35) -> np.ndarray:
    """A norm that falls over training, with log-normal noise as real ones have."""
    trend = np.linspace(np.log(5), np.log(1), num_steps)
    return np.exp(trend + spread * np.random.default_rng(seed).standard_normal(num_steps))


def test_a_planted_spike_is_found_with_its_step_value_and_ratio():
    values = healthy(0)
    values[777] = 30 * np.median(values[727:777])
    (spike,) = find_spikes(values)
    assert spike.position == 777
    assert spike.value == values[777]
    assert spike.ratio == pytest.approx(30, rel=0.01)


def test_healthy_noise_spikes_less_than_once_in_a_thousand_steps():
    spikes = sum(len(find_spikes(healthy(seed))) for seed in range(20))
    assert spikes <= 20  # of 40,000 steps


def test_a_fall_is_not_a_spike():
    values = healthy(1)
    values[900:910] /= 50
    assert all(not 900 <= spike.position < 910 for spike in find_spikes(values))


def test_a_constant_that_doubles_is_one_and_that_rises_by_half_is_none():
    flat = np.ones(WINDOW + 1)
    assert find_spikes([*flat, 1.5]) == []
    assert [spike.position for spike in find_spikes([*flat, 2.1])] == [WINDOW + 1]


def test_the_first_steps_and_short_runs_are_not_judged():
    values = healthy(2)
    values[WINDOW - 1] *= 100
    assert find_spikes(values[:WINDOW]) == []
    assert all(spike.position >= WINDOW for spike in find_spikes(values))


def test_missing_values_and_zeros_neither_spike_nor_raise():
    values = healthy(3)
    values[500], values[1000] = np.nan, 0.0
    assert all(np.isfinite(spike.ratio) for spike in find_spikes(values))
    assert find_spikes([float("nan")] * 200) == []
