"""Two configs in turns: the ratio with its interval, and what happens to a side that ends."""

import math
import os
import signal

import pytest
from tiny_pcam import write_config, write_tiny_pcam

from ml_core.config import Config
from ml_core.errors import ConfigError, DataError, TrainingError
from ml_core.pipeline.benchmark import compare
from ml_core.pipeline.benchmarking.comparing.compare import compare_in_turns, render_compared
from ml_core.pipeline.benchmarking.comparing.contestant import Contestant
from ml_core.pipeline.benchmarking.comparing.paired_ratio import paired_ratio


class Told:
    """A side that gives the next of its rates, and notes when it had its turn."""

    def __init__(self, name, rates, turns):
        self.name, self._rates, self._turns = name, rates, turns

    def take_turn(self, contest, seconds):
        self._turns.append((self.name, contest, seconds))
        return next(self._rates)


def test_what_meets_both_of_a_round_is_no_part_of_the_interval():
    noise = [1.0, 0.2, 5.0, 0.7]
    found = paired_ratio([300 * each for each in noise], [200 * each for each in noise])
    assert (found.ratio, found.num) == (pytest.approx(1.5), 4)
    assert found.low == pytest.approx(found.high) == pytest.approx(1.5)
    assert found.is_difference


def test_the_interval_is_students_of_the_log_ratios():
    """Log-ratios -1, 0, 1: mean 0, error 1 / sqrt(3), and t(0.975, 2) is 4.3027 (any table)."""
    found = paired_ratio([math.exp(-1), 1.0, math.exp(1)], [1.0, 1.0, 1.0])
    assert found.ratio == pytest.approx(1)
    assert found.high == pytest.approx(math.exp(4.3027 / math.sqrt(3)), rel=1e-4)
    assert found.low == pytest.approx(1 / found.high)
    assert not found.is_difference


def test_two_rounds_are_refused():
    with pytest.raises(ValueError, match="2 rounds tell nothing of the spread; 3 at least"):
        paired_ratio([1.0, 1.0], [1.0, 1.0])


def test_the_sides_take_turns_and_who_begins_changes():
    turns, told = [], []
    a, b = (Told(name, iter([1e9, 1e9] + [rate] * 6), turns) for name, rate in (("a", 3), ("b", 2)))
    found = compare_in_turns(a, b, rounds=3, seconds=0.5, report=told.append)
    assert "".join(name for name, _, _ in turns) == "baba" + "abab" + "baba" + "abab"
    assert {each[1:] for each in turns} == {("end to end", 0.5), ("forward", 0.5)}
    assert [each.contest for each in found] == ["end to end", "forward"]
    assert found[0].a == (3, 3, 3)  # the turns before the first round are not counted
    assert found[0].ratio.ratio == pytest.approx(1.5)
    assert len(told) == 16


def test_a_difference_is_claimed_only_where_the_interval_leaves_out_one():
    turns = []
    faster = Told("a", iter([1, 1, 3, 10, 3.1, 11, 3.2, 9]), turns)
    other = Told("b", iter([1, 1, 2, 10, 2, 10, 2, 10]), turns)
    rows = render_compared(
        compare_in_turns(faster, other, rounds=3, seconds=1), ("new", "old")
    ).splitlines()
    assert rows[0].split() == ["patches/s", "new", "old", "ratio", "95", "%", "interval"]
    assert rows[1].startswith("end to end ")
    assert rows[1].endswith("new is faster")
    assert rows[2].endswith("no difference")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    data = write_tiny_pcam(folder / "data")
    return Config.load(write_config(folder / "config.yaml", data, model={"hidden_units": [4]}))


@pytest.fixture(scope="module")
def compared(config):
    """Two real configs, of which the second reads by a process of its own."""
    data = config.data.model_copy(update={"num_workers": 1})
    other = config.model_copy(update={"data": data})
    return compare(config, other, rounds=3, seconds=0.01, names=("here", "there"))


def test_two_real_configs_train_and_predict_in_turns(compared):
    assert (compared["a"], compared["b"]) == ("here", "there")
    for contest in ("end_to_end", "forward"):
        found = compared[contest]
        assert len(found["a"]) == len(found["b"]) == 3
        assert 0 < found["ratio"]["low"] <= found["ratio"]["ratio"] <= found["ratio"]["high"]
    assert "Student's t" in compared["interval"]


def test_a_side_that_is_killed_ends_the_comparison_in_words(config):
    with Contestant("b", config, {}) as side:
        assert side.take_turn("forward", 0.01) > 0
        os.kill(side._process.pid, signal.SIGKILL)
        with pytest.raises(TrainingError, match="the process that measured b was ended"):
            side.take_turn("forward", 0.01)


def test_what_a_side_cannot_do_is_said_with_its_name(config, tmp_path):
    data = config.data.model_copy(update={"data_path": tmp_path / "nowhere"})
    with (
        Contestant("b", config.model_copy(update={"data": data}), {}) as side,
        pytest.raises(DataError, match=r"b: .*nowhere"),
    ):
        side.take_turn("end to end", 0.01)


def test_too_few_rounds_and_no_time_are_refused_at_the_door(config):
    with pytest.raises(ConfigError, match="2 rounds tell nothing of the spread; ask for at least"):
        compare(config, config, rounds=2)
    with pytest.raises(ConfigError, match="0 seconds for each thing; give a number above 0"):
        compare(config, config, seconds=0)
