"""Which patches a step held: worked out afterwards, and equal to what training used."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_pcam import write_config, write_tiny_pcam

from ml_core.config import Config
from ml_core.pipeline.parts.batches_of import patches_of_steps
from ml_core.pipeline.train import train
from ml_core.runs import RunDir
from ml_core.solver import Trainer


def trained_and_watched(tmp_path, monkeypatch, **sections):
    """Train and return the run, its config, and the rows that each step really held."""
    data = write_tiny_pcam(tmp_path / "data")
    config = Config.load(write_config(tmp_path / "config.yaml", data, **sections))
    held, original = [], Trainer.train_step

    def watched(trainer, group):
        held.append(np.sort(np.concatenate([np.asarray(batch.index) for batch in group])))
        return original(trainer, group)

    monkeypatch.setattr(Trainer, "train_step", watched)
    run = RunDir.open(train(config, command="test")["runs"][0]["run"])
    return run, Config.load(run.config_path), held


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"training": {"epochs": 3, "accumulate_steps": 3}},
        {"data": {"balanced": False, "max_patches": 50, "batch_size": 16}},
    ],
    ids=["as it is", "accumulated", "a subset, not balanced"],
)
def test_every_step_held_what_is_worked_out_afterwards(tmp_path, monkeypatch, sections):
    run, config, held = trained_and_watched(tmp_path, monkeypatch, **sections)
    steps = list(range(1, len(held) + 1))
    found = patches_of_steps(run, config, steps)
    assert list(found) == steps
    for step, rows in zip(steps, held, strict=True):
        assert np.array_equal(found[step], rows), step


def test_another_seed_held_other_patches(tmp_path, monkeypatch):
    run, config, held = trained_and_watched(tmp_path, monkeypatch)
    other = patches_of_steps(run, config.model_copy(update={"seed": 7}), [1])
    assert not np.array_equal(other[1], held[0])
