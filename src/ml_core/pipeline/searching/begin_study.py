"""A new study: looked at, probed and written, ready for workers to join.

Reads a config with a section `search`, and the train and valid split; writes study.json,
config.yaml and what the data gate let through. A part of

    ml-core tune experiments/configs/pcam_cnn_search.yaml
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ml_core.config import Config
from ml_core.data.patch_file import Rows
from ml_core.findings import Finding
from ml_core.log import shown
from ml_core.pipeline.parts.data_gate import pass_gate
from ml_core.pipeline.parts.device import choose_device
from ml_core.pipeline.parts.splits import check_data, recorded
from ml_core.pipeline.searching.named_study import publish
from ml_core.pipeline.searching.probe import probe_effects
from ml_core.pipeline.searching.search_plan import SearchPlan, plan_search
from ml_core.pipeline.searching.study_data import SPLITS, save_gate
from ml_core.reproducibility import code_record, package_versions
from ml_core.runs import write_text
from ml_core.search.effects import check_effects
from ml_core.search.probe_points import conditions
from ml_core.search.study_dir import StudyDir, StudyRecord

logger = logging.getLogger("ml_core.tune")


def begin_study(
    config: Config, *, num_workers: int, command: str, path: Path | None = None
) -> StudyDir:
    """Return a new study of which no trial has run yet, for any number of workers to join.

    It lies at `path`, by default in a folder of its time. A trial gets the CPU threads that it has
    where `num_workers` run side by side. Raises
    ConfigError before anything is written when a trial would be no valid config, DataError for
    data that the audit refuses.
    """
    plan = plan_search(config)
    choose_device(config.training.device)  # before a directory is made for nothing
    gate = pass_gate(config, SPLITS)
    checks = check_data(config, SPLITS, gate.exclude, gate.hashes)
    config = _with_threads(config, num_workers)
    text = config.dump_yaml()
    record = _new_record(config, plan, command)
    record.config_sha256 = hashlib.sha256(text.encode()).hexdigest()
    record.data = {check.split: recorded(config, check) for check in checks}
    record.probes, record.findings = _probe(config, plan, gate.exclude)
    study = _new_folder(config, path)
    record.name = (path or study.path).name
    write_text(study.config_path, text)
    save_gate(study, gate)
    record.save(study)  # last: with it the directory is a study, which others may join
    if path is not None:
        study = publish(study, path, config)
    logger.info("study  %s, %d trials", shown(study.path), record.num_trials)
    return study


def _new_folder(config: Config, path: Path | None) -> StudyDir:
    """Make the folder of a study, or for one at `path` a folder beside it."""
    if path is not None:
        return StudyDir.create(path.parent, f".{path.name}.new")
    name = f"study-{dt.datetime.now():%Y%m%d-%H%M%S}"
    return StudyDir.create(config.output_dir / config.experiment_name, name)


def _probe(
    config: Config, plan: SearchPlan, exclude: Mapping[str, Rows]
) -> tuple[list[dict[str, Any]], list[Finding]]:
    """Try whether each searched parameter does anything, and say what does not.

    A list is not a space to probe; what its trials did is compared when they have ended.
    """
    if plan.sampler["name"] == "list":
        return [], []
    deeds = probe_effects(config, plan.space, exclude)
    findings = check_effects(conditions(plan.space), deeds)
    for finding in findings:
        if finding.severity != "info":
            logger.warning("%s %s", finding.message, finding.action)
    return [{"params": params, "deed": deed.to_dict()} for params, deed in deeds], findings


def _with_threads(config: Config, num_workers: int) -> Config:
    """Pin the CPU threads of a trial: a share of them; another number changes the last bits."""
    if config.training.num_threads is not None:
        return config
    share = max(1, torch.get_num_threads() // num_workers)
    training = config.training.model_copy(update={"num_threads": share})
    return config.model_copy(update={"training": training})


def _new_record(config: Config, plan: SearchPlan, command: str) -> StudyRecord:
    assert config.search is not None, "without it there is no plan"
    return StudyRecord(
        name="",  # known when its directory is made
        experiment_name=config.experiment_name,
        command=command,
        metric=config.training.best_metric,
        direction=plan.direction,
        num_trials=plan.num_trials,
        sampler=plan.sampler,
        pruner=plan.pruner,
        space=plan.space.to_dict(),
        max_retries=config.search.max_retries,
        lost_after_s=config.search.lost_after_s,
        code=code_record()[0],
        packages={**package_versions(), "optuna": metadata.version("optuna")},
    )
