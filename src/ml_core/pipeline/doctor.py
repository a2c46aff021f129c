"""Tell in seconds what would end a job, before it waits in a queue.

Reads the config, the headers of the data, the last audit, and what the machine, the job's Python
and Slurm say. Writes nothing that stays: every place that a run writes to is tried with a file.

    ml-core doctor experiments/configs/pcam_cnn.yaml --profile snellius-gpu
"""

from __future__ import annotations

import dataclasses
import os
import pwd
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_core.audit.files import AuditDir, AuditRecord
from ml_core.cluster.profile import Profile, load_profile
from ml_core.config import Config
from ml_core.config.section import SQLITE
from ml_core.data.layout import AUDIT_DIR
from ml_core.errors import ConfigError, DataError
from ml_core.log import console
from ml_core.preflight.account import check_account
from ml_core.preflight.check import Check, error, ok, warning, worst
from ml_core.preflight.clock import check_clock
from ml_core.preflight.cores import check_cores, check_ranks
from ml_core.preflight.data import check_audited, check_data, check_findings
from ml_core.preflight.file_systems import check_shared, read_mounts
from ml_core.preflight.gpu import check_gpu, find_gpus, kind_of_machine
from ml_core.preflight.memory import check_memory, checkpoint_bytes, estimate_memory
from ml_core.preflight.model_size import ModelSize, cnn_size, mlp_size
from ml_core.preflight.network import check_tracker
from ml_core.preflight.outputs import check_outputs
from ml_core.preflight.packages import check_packages
from ml_core.preflight.python import JobPython, check_python, check_setup
from ml_core.preflight.slurm import (
    check_slurm,
    check_time,
    check_variables,
    has_slurm,
    memory_of,
    node_names,
)
from ml_core.preflight.space import check_space
from ml_core.preflight.there import is_folder
from ml_core.preflight.torch_here import check_torch

SPLITS = ("train", "valid")
KEPT_CHECKPOINTS = 6  # four generations (`ml_core.checkpoint`), the best, and one being written

_STYLES = {"ok": "", "warning": "yellow", "error": "bold red"}


def doctor(
    config_path: Path | None,
    *,
    profile: str = "generic-cpu",
    ask: Sequence[str] = (),
    overrides: Sequence[str] = (),
    with_torch: bool = False,
) -> dict[str, Any]:
    """Print a line per check; return {"status": the worst level, "checks": [...]}, for `--json`.

    A config that does not load is one error, and what does not need it is looked at all the same.
    Raises ConfigError for a profile that is not one.
    """
    asked = load_profile(profile, ask)
    checks: list[Check] = []
    config = None
    if config_path is not None:
        try:
            config = Config.load(config_path, overrides)
            checks.append(ok("config", f"{config_path} has no unknown key and no wrong value."))
        except ConfigError as problem:
            checks.append(error("config", problem))
    checks += examine(config, asked, with_torch=with_torch)
    for check in checks:
        console().print(str(check), style=_STYLES[check.level], markup=False)
    return {"status": worst(checks), "checks": [dataclasses.asdict(check) for check in checks]}


def examine(
    config: Config | None,
    profile: Profile,
    *,
    with_torch: bool = False,
    submits: bool = False,
    needs_slurm: bool = False,
) -> list[Check]:
    """Return what was looked at: the job's Python, the data, the places, the request, the cluster.

    Without a config, what does not need one. `submits`: it is for a new job, also where one asks
    from within a job. With `needs_slurm` a Slurm that is not there or does not answer is an error.
    Nothing is printed.
    """
    kind = kind_of_machine(os.environ, has_slurm=has_slurm())
    is_this_job = kind == "job" and not submits
    checks, python = check_python(
        profile.python, profile.modules, is_cluster=has_slurm(), has_setup=bool(profile.setup)
    )
    if python is not None and worst(checks) != "error":  # else nothing it says of them holds
        checks += check_packages(python)
    checks += check_setup(profile.setup)
    slurm, partitions = check_slurm(profile, needs_slurm=needs_slurm)
    if config is not None:
        about_data, rows = check_data(config.data.data_path, SPLITS, config.data.input_shape[1:])
        checks += [*about_data, *_audited(config, rows), *_outputs(config)]
        checks += _memory(config, profile, rows, is_this_job=is_this_job)
        checks += _cores(config, profile, is_this_job=is_this_job)
    if node_names(partitions) - {os.uname().nodename}:  # jobs run on other machines too
        checks += check_shared(_places(config, python), read_mounts())
    device = config.training.device if config else None
    checks += check_gpu(device, profile.gpus, kind, submits=submits)
    if with_torch and python is not None:
        checks += check_torch(python.path, find_gpus()[0])
    checks += [*slurm, *check_time(profile), *check_variables(os.environ)]
    if partitions:  # it answers: one that does not would be waited for again and again
        checks += check_account(_user(), profile.account)
    folder = config.output_dir if config else Path.cwd()
    checks += check_clock(folder, time.time, ask_slurm=bool(partitions))
    return [*checks, *check_tracker(config.tracking.mlflow_uri if config else None)]


def _audited(config: Config, rows: Mapping[str, int]) -> Iterator[Check]:
    """Yield what the audit says of files with so many `rows`, the full one before a quick one."""
    data = config.data
    folder = data.audit_dir or data.data_path / AUDIT_DIR
    for audit_dir in (AuditDir(folder), AuditDir(folder / "quick")):
        if is_folder(audit_dir.path) and audit_dir.record_path.is_file():
            try:
                yield from _audit(config, audit_dir, rows)
            except DataError as problem:
                yield warning("audit", str(problem))
            return
    if rows:
        told = f"there is none in {folder}; a training makes a quick one, of a sample, first."
        yield warning("audit", told, f"All patches: ml-core audit {data.data_path}")


def _audit(config: Config, audit_dir: AuditDir, rows: Mapping[str, int]) -> list[Check]:
    """Return whether the audit is of these files, and which of its errors stop a training."""
    audit = AuditRecord.load(audit_dir)
    found = [
        each
        for each in audit.findings
        if each.severity == "error"
        and each.split in ("", *SPLITS)
        # of these a training drops those that data.filter_data does not want, patch by patch
        and not (config.data.filter_data and each.exclude and each.indices)
    ]
    stopping = check_findings(
        [each.message for each in found],
        policy=config.data.on_findings,
        mode=audit.mode,
        can_be_left_out=all(each.exclude for each in found),
        page=audit_dir.page_path,
    )
    same = check_audited(
        config.data.data_path,
        SPLITS,
        audited_at=audit.created_at,
        verdict=f"{audit.mode}, {audit.verdict}",
        rows_then={split: int(each["num_rows"]) for split, each in audit.splits.items()},
        rows_now=rows,
    )
    return [same, *stopping]


def _outputs(config: Config) -> list[Check]:
    """Return whether the run's own folders, its files elsewhere and the rest can be written."""
    runs = config.output_dir / config.experiment_name
    jobs = config.output_dir / "jobs"
    needed = {"output_dir": config.output_dir, "runs": runs, "jobs": jobs}
    uri = config.tracking.mlflow_uri or ""
    database = {"tracking.mlflow_uri": Path(uri.removeprefix(SQLITE))}
    spared = {
        "data.audit_dir": config.data.audit_dir or config.data.data_path / AUDIT_DIR,
        "data.ledger_dir": config.data.ledger_dir or config.data.data_path,
    }
    if not is_folder(config.data.data_path):  # which is an error of its own
        spared = {key: path for key, path in spared.items() if is_folder(path)}
    checks = check_outputs(needed, database if uri.startswith(SQLITE) else {}, spared)
    runs_of = checkpoint_bytes(_model_size(config), _moments(config)) * KEPT_CHECKPOINTS
    return [*checks, *check_space(config.output_dir, runs_of * len(config.all_seeds))]


def _memory(
    config: Config, profile: Profile, rows: Mapping[str, int], *, is_this_job: bool
) -> list[Check]:
    training = config.training
    most = config.data.max_patches or max(rows.values(), default=0)
    in_use = sum(min(num, most) for num in rows.values())
    need = estimate_memory(
        _model_size(config),
        moments=_moments(config),
        batch_size=config.data.batch_size,
        micro_batch=None if training.numerics == "fast" else training.micro_batch,
        num_workers=config.data.num_workers,
        numerics=training.numerics,
        on_gpu=profile.gpus is not None and training.device != "cpu",
        num_held=in_use if config.data.placement == "ram" else 0,
    )
    given = os.environ.get("SLURM_MEM_PER_NODE") if is_this_job else None
    asked_mb = float(given) if given else memory_of(profile)
    return [check_memory(need, asked_mb, profile.tasks_per_node)]


def _cores(config: Config, profile: Profile, *, is_this_job: bool) -> list[Check]:
    given = os.environ.get("SLURM_CPUS_PER_TASK") if is_this_job else None
    cores = check_cores(
        cpus=int(given) if given else profile.cpus_per_task,
        whose="of this job" if given else "as the profile asks",
        num_workers=config.data.num_workers,
        num_threads=config.training.num_threads,
    )
    ranks = check_ranks(
        profile.nodes * profile.tasks_per_node,
        numerics=config.training.numerics,
        batch_size=config.data.batch_size,
        micro_batch=config.training.micro_batch,
    )
    return [*cores, *ranks]


def _places(config: Config | None, python: JobPython | None) -> dict[str, Path]:
    """Return what the machines of the jobs must see: interpreter, code, data, output."""
    places: dict[str, Path] = {}
    if python is not None:
        places["Python"] = python.path
        if python.ml_core is not None:
            places["ml_core"] = python.ml_core
    if config is not None:
        places |= {"data.data_path": config.data.data_path, "output_dir": config.output_dir}
    return places


def _user() -> str:
    """Return the name of who runs this, the number where the system knows none."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _model_size(config: Config) -> ModelSize:
    model, shape = config.model, config.data.input_shape
    if model.name == "mlp":
        return mlp_size(shape, model.hidden_units, model.num_classes)
    return cnn_size(shape, model.widths, model.blocks_per_stage, model.num_classes)


def _moments(config: Config) -> int:
    """Return how many numbers the optimizer keeps per parameter."""
    if config.optimizer.name == "sgd":
        return int(config.optimizer.momentum > 0)
    return 2
