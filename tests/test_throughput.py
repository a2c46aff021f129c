"""What --fast-dev-run measures for those who ask for time and memory: rates, a sum, a peak."""

import multiprocessing
import re
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_pcam import write_config, write_tiny_pcam

from ml_core.config import Config
from ml_core.pipeline.parts import throughput
from ml_core.pipeline.parts.memory_used import PeakMemory
from ml_core.pipeline.parts.throughput import Throughput, as_json, measure_throughput

SIZES = [100, 8, 8, 8, 4]  # patches of each batch


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: clock.now)
    return clock


def take(clock, seconds, per_step=1, sizes=SIZES):
    """Take the batches of a loader, each so many seconds; return what was timed."""
    batches = [SimpleNamespace(labels=[0] * size) for size in sizes]
    loader = type("Loader", (), {"batch_sampler": None, "__iter__": lambda _: iter(batches)})()
    taken = 0
    timed = throughput._Timed(loader, lambda: taken // per_step, torch.device("cpu"))
    for number, _ in enumerate(timed):
        clock.now += seconds[number]
        taken += 1
    return timed, taken


def test_the_first_step_is_not_timed(clock):
    timed, taken = take(clock, [60.0, 0.5, 0.5, 0.5, 0.25])
    assert (timed.num_timed, taken) == (4, 5)
    assert timed.rate == 28 / 1.75


def test_a_step_of_several_batches_is_one_step(clock):
    timed, _ = take(clock, [9.0, 1.0, 0.5, 0.5, 0.5], per_step=2)
    assert timed.num_timed == 1  # of batches 3 and 4; the last one is no whole step
    assert timed.rate == 16 / 1.0


def test_no_more_steps_are_taken_than_the_clock_needs(clock):
    timed, taken = take(clock, [60.0, 1.5, 1.5, 1.5, 1.5])
    assert (timed.num_timed, taken) == (2, 3)
    _, taken = take(clock, [0.0] * 100, sizes=[8] * 100)
    assert taken == throughput.MOST_STEPS + 1


def test_of_one_step_alone_its_start_is_timed_too_and_of_none_nothing(clock):
    timed, _ = take(clock, [4.0], sizes=[32])
    assert (timed.rate, timed.num_timed) == (8.0, 0)
    timed, _ = take(clock, [4.0], sizes=[32], per_step=2)
    assert timed.rate is None
    none = as_json(Throughput(32, 16, None, 100.0, 0), 3)
    assert none["estimated_s"] is None
    assert none["estimate"] == "not known: the data are less than one step"


def test_the_estimate_shows_its_arithmetic():
    found = as_json(Throughput(20_000, 1_500, 1_000.0, 3_000.0, 7), 10)
    assert found["estimated_s"] == 205.0
    assert found["estimate"] == (
        "10 epochs x (20,000 patches / 1,000 per s + 1,500 to validate / 3,000 per s) = 205 s"
    )


@pytest.mark.parametrize("num_workers", [0, 1])
def test_what_is_measured_is_the_config_as_it_will_train(tmp_path, num_workers):
    data = write_tiny_pcam(tmp_path / "data", num_train=96, num_valid=600)
    path = write_config(tmp_path / "config.yaml", data, data={"num_workers": num_workers})
    before = sorted(tmp_path.rglob("*"))
    found = measure_throughput(Config.load(path), {"train": np.array([0, 1])})
    assert (found.num_train, found.num_valid) == (94, 600)
    assert found.timed_steps == 2  # of three batches of up to 32
    assert found.seconds(2) > 0
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_is_written_where_a_training_would_save_in_between(tmp_path, monkeypatch):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    config = write_config(
        tmp_path / "config.yaml",
        write_tiny_pcam(tmp_path / "data"),
        training={"checkpoint_every": 1},
    )
    assert measure_throughput(Config.load(config), {}).timed_steps > 1
    assert list(folder.iterdir()) == []


def test_the_peak_is_of_this_process_and_of_what_its_readers_hold_besides():
    with PeakMemory() as memory:
        own = _resident_mib()
        ready, release = multiprocessing.Event(), multiprocessing.Event()
        reader = multiprocessing.get_context("fork").Process(target=_hold, args=(ready, release))
        reader.start()
        ready.wait(30)
        deadline = time.monotonic() + 30
        while memory._peak_kb / 1024 < own + 90 and time.monotonic() < deadline:
            time.sleep(0.01)
        release.set()
        reader.join()
    assert own + 90 < memory.mib
    assert memory._peak_kb / 1024 < 2 * own  # what the reader shares is counted once


def _hold(ready, release):
    held = bytearray(b"x" * 100 * 2**20)
    ready.set()
    release.wait(30)
    assert held


def _resident_mib():
    with open("/proc/self/smaps_rollup") as file:
        return int(re.search(r"Rss: +(\d+)", file.read())[1]) / 1024
