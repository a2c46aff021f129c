"""Real trainings of a few steps: each parameter shows in what they do, and a dead one does not."""

import logging
import typing
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import BaseModel
from tiny_pcam import make_patches, write_config, write_split, write_tiny_pcam

from ml_core.config import Config
from ml_core.pipeline.parts import training_parts
from ml_core.pipeline.parts.data_gate import Gate
from ml_core.pipeline.parts.splits import check_data
from ml_core.pipeline.searching import probe
from ml_core.pipeline.searching.probe import probe_effects
from ml_core.pipeline.train import train_seed
from ml_core.runs import RunDir, read_jsonl
from ml_core.search.effects import check_effects
from ml_core.search.probe_points import conditions
from ml_core.search.space import Space, overrides
from ml_core.solver import trainer as trainer_module

SPACE = Space.from_dict(
    {
        "data.batch_size": {"choices": [16, 32]},
        "model.hidden_units": {"choices": [[8], [16]]},
        "model.dropout_rate": {"choices": [0.1, 0.4]},
        "optimizer.lr": {"choices": [1e-4, 1e-3]},
        "training.accumulate_steps": {"choices": [1, 2]},
    }
)
MLP = {"model.hidden_units": [8]}
CNN = {"model.name": "cnn", "model.widths": [8], "data.max_patches": 48, "data.batch_size": 16}
SGD = {**MLP, "optimizer.name": "sgd"}
ELASTIC = {**MLP, "training.numerics": "elastic", "training.num_threads": 1}
LONG = {**MLP, "training.epochs": 6}
# (what else is set, key, two values of it)
SEARCHABLE = [
    (MLP, "seed", 1, 2),
    (MLP, "data.batch_size", 16, 32),
    (MLP, "data.balanced", True, False),
    (MLP, "data.filter_data", True, False),
    (MLP, "data.max_patches", 40, 48),
    (MLP, "data.augment.dihedral", True, False),
    (MLP, "data.augment.stain_jitter", 0.0, 0.05),
    ({}, "model.name", "mlp", "cnn"),
    ({}, "model.hidden_units", [8], [8, 8]),
    (MLP, "model.dropout_rate", 0.0, 0.1),
    (MLP, "model.normalization", "standard", "none"),
    (CNN, "model.widths", [8], [8, 8]),
    (CNN, "model.blocks_per_stage", 1, 2),
    (CNN, "model.dropout_rate", 0.0, 0.1),
    (CNN, "model.normalization", "standard", "none"),
    (CNN, "model.average_orientations", False, True),
    (MLP, "training.epochs", 2, 3),
    (MLP, "training.best_metric", "val_roc_auc", "val_loss"),
    (MLP, "training.early_stopping_patience", None, 3),
    (MLP, "training.clip_grad_norm", 1e5, 1e6),  # may act later
    (MLP, "training.accumulate_steps", 2, 3),
    (MLP, "training.label_smoothing", 0.0, 0.01),
    (MLP, "training.precision", "fp32", "bf16"),
    (MLP, "training.numerics", "fast", "portable"),
    (ELASTIC, "training.micro_batch", 4, 16),
    (MLP, "optimizer.name", "adamw", "adam"),
    (MLP, "optimizer.lr", 1e-3, 1.01e-3),
    (MLP, "optimizer.weight_decay", 0.0, 1e-3),
    (MLP, "optimizer.betas", [0.9, 0.999], [0.8, 0.999]),
    (MLP, "optimizer.betas", [0.9, 0.999], [0.9, 0.99]),
    ({**MLP, "optimizer.name": "adam"}, "optimizer.weight_decay", 0.0, 1e-3),
    (SGD, "optimizer.lr", 1e-2, 2e-2),
    (SGD, "optimizer.weight_decay", 0.0, 1e-3),
    (SGD, "optimizer.momentum", 0.5, 0.9),
    ({**SGD, "data.batch_size": 96, "training.epochs": 3}, "optimizer.momentum", 0.5, 0.9),
    (SGD, "optimizer.nesterov", False, True),
    (MLP, "scheduler.name", "constant", "cosine"),
    (MLP, "scheduler.warmup_epochs", 0.0, 1.0),
    ({**MLP, "scheduler.name": "cosine"}, "scheduler.warmup_epochs", 0.0, 1.0),
    ({**MLP, "scheduler.name": "cosine"}, "scheduler.min_factor", 0.0, 0.1),
    ({**MLP, "scheduler.name": "one_cycle"}, "scheduler.warmup_share", 0.3, 0.5),
    ({**MLP, "scheduler.name": "one_cycle"}, "scheduler.start_factor", 0.04, 0.1),
    ({**MLP, "scheduler.name": "one_cycle"}, "scheduler.min_factor", 0.0, 0.1),
    ({**LONG, "scheduler.name": "step"}, "scheduler.step_epochs", 4, 5),
    ({**LONG, "scheduler.name": "step"}, "scheduler.gamma", 0.1, 0.5),
    ({**LONG, "scheduler.name": "step"}, "scheduler.warmup_epochs", 0.0, 1.0),
    ({**LONG, "scheduler.name": "plateau"}, "scheduler.gamma", 0.1, 0.5),
    ({**LONG, "scheduler.name": "plateau"}, "scheduler.patience", 1, 3),
]
# What says where things are and how they are shown, or can only be one thing: no trial differs.
SAME_WHATEVER_IT_IS = {
    "experiment_name", "seeds", "output_dir", "data.data_path", "data.dataset_type",
    "data.input_shape", "data.num_workers", "data.on_findings", "data.audit_dir",
    "data.ledger_dir", "data.local_copy", "data.placement", "model.num_classes",
    "training.channels_last", "training.device", "training.num_threads",
    "training.checkpoint_every", "training.chain_every", "training.rank_timeout_s",
}  # fmt: skip
NOT_OF_A_TRIAL = {"tracking", "evaluation", "search", "selection", "slices"}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A small MLP on 96 patches, two of which are black, and more normal ones than tumours."""
    folder = write_tiny_pcam(tmp_path_factory.mktemp("probe") / "data", num_train=4, num_valid=32)
    labels = (np.arange(96) % 3 == 0).astype(int)
    patches = make_patches(labels)
    patches[[5, 50]] = 0
    write_split(folder, "train", patches, labels.reshape(-1, 1, 1, 1))
    return Config.load(write_config(folder.parent / "config.yaml", folder))


@pytest.fixture(scope="module")
def deed_at(config):
    """What a training with some parameters does, worked out once for each."""

    @cache
    def of(lines):
        return probe.probe(probe._with_params(config, dict(lines)), {})

    return lambda params: of(tuple((key, value) for key, value in params.items()))


def frozen(params):
    """The same with tuples for lists, which can be keys."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in params.items()}


@pytest.mark.parametrize(
    ("around", "key", "one", "other"),
    SEARCHABLE,
    ids=[f"{around.get('model.name', '')}-{key}-{other}" for around, key, _, other in SEARCHABLE],
)
def test_every_searchable_key_of_the_config_is_seen_to_act(deed_at, around, key, one, other):
    around = {k: v for k, v in around.items() if k != key}
    deeds = [({key: value}, deed_at(frozen({**around, key: value}))) for value in (one, other)]
    assert check_effects({key: ()}, deeds) == []


def test_no_key_of_the_config_is_forgotten_above():
    tried = {key for _, key, _, _ in SEARCHABLE}
    known = {key for key in leaf_keys(Config) if key.partition(".")[0] not in NOT_OF_A_TRIAL}
    assert known == tried | SAME_WHATEVER_IT_IS


def leaf_keys(section, prefix=""):
    for name, field in section.model_fields.items():
        inner = [each for each in types_in(field.annotation) if is_section(each)]
        if not inner:
            yield prefix + name
        for each in inner:
            yield from leaf_keys(each, f"{prefix}{name}.")


def types_in(annotation):
    args = typing.get_args(annotation)
    return [annotation, *(each for arg in args for each in types_in(arg))]


def is_section(annotation):
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


# ---- planted defects -------------------------------------------------------------------------


def dead(config, space=SPACE):
    findings = check_effects(conditions(space), probe_effects(config, space, {}))
    assert {finding.id for finding in findings} <= {"no-effect"}
    return {finding.facts["parameter"] for finding in findings}


def test_a_loader_built_once_with_the_first_batch_size_is_found(config, monkeypatch):
    build, kept = training_parts.train_loader, []

    def build_once(*args):
        kept.append(kept[0] if kept else build(*args))
        return kept[0]

    monkeypatch.setattr(training_parts, "train_loader", build_once)
    assert dead(config) == {"data.batch_size"}


def test_a_builder_that_ignores_hidden_units_is_found_although_it_keeps_the_option(
    config, monkeypatch
):
    build = training_parts.build_model

    def build_narrow(name, input_shape, hidden_units, **options):
        model = build(name, input_shape, hidden_units=(8,), **options)
        model.options["hidden_units"] = list(hidden_units)
        return model

    monkeypatch.setattr(training_parts, "build_model", build_narrow)
    assert dead(config) == {"model.hidden_units"}


def test_a_loop_that_steps_at_every_batch_whatever_is_asked_is_found(config, monkeypatch):
    monkeypatch.setattr(trainer_module, "grouped", lambda batches, _: ([each] for each in batches))
    few = {key: SPACE.parameters[key] for key in ("training.accumulate_steps", "optimizer.lr")}
    assert dead(config, Space(few)) == {"training.accumulate_steps"}


def test_patches_that_the_audit_left_out_are_left_out_of_the_probe(config):
    space = Space.from_dict({"optimizer.lr": {"low": 1e-4, "high": 1e-3}})
    deeds = probe_effects(config, space, {"train": np.array([0, 1, 2])})
    assert {deed.num_patches for _, deed in deeds} == {93}


def test_a_point_that_cannot_be_trained_is_kept_with_its_reason(config):
    space = Space.from_dict(
        {
            "scheduler.warmup_epochs": {"choices": [0.0, 1.0, 5.0]},
            "optimizer.lr": {"choices": [1e-3, 1e6]},
        }
    )
    findings = check_effects(conditions(space), probe_effects(config, space, {}))
    assert {finding.id for finding in findings} >= {"did-not-run"}
    said = " ".join(finding.message for finding in findings)
    assert "warmup_epochs 5" in said and "leaves nothing" in said
    assert "no-effect" not in {finding.id for finding in findings}


def test_a_probe_writes_nothing_and_leaves_threads_and_log_as_they_were(config, caplog):
    before = sorted(config.data.data_path.parent.rglob("*"))
    threads, level = torch.get_num_threads(), logging.getLogger("ml_core.train").level
    probe_effects(config, Space.from_dict({"optimizer.lr": {"choices": [1e-3]}}), {})
    with probe._threads(threads + 1):
        assert torch.get_num_threads() == threads + 1
    assert sorted(config.data.data_path.parent.rglob("*")) == before
    assert torch.get_num_threads() == threads
    assert logging.getLogger("ml_core.train").level == level


def test_a_probe_repeats_itself_to_the_bit_and_sees_what_training_does(config, tmp_path):
    """Its losses are those of the first steps that a real training logs."""
    written = tmp_path / "config.yaml"
    written.write_text(config.dump_yaml(), encoding="utf-8")
    params = {"data.batch_size": 16, "optimizer.lr": 2e-3}
    whole = Config.load(written, [*overrides(params), f"output_dir={tmp_path}"])
    one, again = probe.probe(whole, {}), probe.probe(whole, {})
    assert one == again
    checks = check_data(whole, ("train", "valid"), {})
    trained = train_seed(whole, whole.seed, checks, Gate({}, {}, "{}"), command="test")
    steps = list(read_jsonl(RunDir(Path(trained["run"])).steps_log_path))
    assert one.losses == pytest.approx([step["loss"] for step in steps[:3]], rel=1e-6)
    assert len(steps) == one.steps_per_epoch * one.num_epochs
