"""What a run directory, or the present, says about how a result came about; read without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ml_core.errors import RunError
from ml_core.reproducibility import (
    code_record,
    hardware_record,
    installed_packages,
    package_versions,
)
from ml_core.reproducibility.packages import parse_packages
from ml_core.runs import RunDir, RunRecord, read_json
from ml_core.yaml_file import read_yaml


@dataclass(frozen=True)
class RunEvidence:
    """The record of a run, or of the present. None or an empty mapping: it was not recorded."""

    name: str
    status: str = ""
    code: Mapping[str, Any] = field(default_factory=dict)
    changes: str = ""  # changes.diff; "" where the code is its commit
    config: Mapping[str, Any] = field(default_factory=dict)  # resolved, as run.json has it
    config_file: Mapping[str, Any] | None = None  # what config.yaml says by now
    data: Mapping[str, Any] = field(default_factory=dict)  # per split, as in run.json
    digests: Mapping[str, Any] | None = None  # data-digests.json
    exclusions_sha256: str | None = None  # of the list of patches that are left out
    packages: Mapping[str, str] = field(default_factory=dict)  # the few that can change a result
    all_packages: Mapping[str, str] | None = None  # packages.txt
    hardware: Mapping[str, Any] = field(default_factory=dict)
    numerics: Mapping[str, Any] = field(default_factory=dict)
    logs: RunDir | None = None  # where steps.jsonl, gradients.jsonl and chain.jsonl are

    @property
    def is_present(self) -> bool:
        """Whether it is of this process and not of a run, which always has a status."""
        return not self.status

    @property
    def is_over(self) -> bool:
        """Whether the run took every step that its config asks for."""
        return self.status in ("completed", "stopped_early")


def read_evidence(run: RunDir) -> RunEvidence:
    """Return what the run at `run` recorded; raises RunError or ConfigError for a damaged file."""
    record = RunRecord.load(run)
    packages = _read_text(run.packages_path)
    return RunEvidence(
        name=run.name,
        status=record.status,
        code=record.code,
        changes=_read_text(run.diff_path) or "",
        config=record.config,
        config_file=read_yaml(run.config_path) if run.config_path.exists() else None,
        data=record.data,
        digests=read_json(run.data_digests_path) if run.data_digests_path.exists() else None,
        exclusions_sha256=record.audit.get("exclusions_sha256"),
        packages=record.packages,
        all_packages=None if packages is None else parse_packages(packages),
        hardware=record.hardware,
        numerics=record.numerics,
        logs=run,
    )


def evidence_of_now(
    config: Mapping[str, Any],
    *,
    data: Mapping[str, Any],
    digests: Mapping[str, Any] | None,
    numerics: Mapping[str, Any],
    exclusions_sha256: str | None = None,
    logs: RunDir | None = None,
) -> RunEvidence:
    """Return what this process would record: code, packages and hardware, and what is given.

    `config`: resolved, as JSON. `data`: SplitRecord.to_dict() by split. `digests`: `data_digests`
    of the files as they are now. `numerics`: `numerics_record` after `prepare_numerics`. `logs`: of
    a replay, if one was made.
    """
    code, changes = code_record()
    return RunEvidence(
        name="now",
        code=code,
        changes=changes,
        config=config,
        data=data,
        digests=digests,
        exclusions_sha256=exclusions_sha256,
        packages=package_versions(),
        all_packages=installed_packages(),
        hardware=hardware_record(),
        numerics=numerics,
        logs=logs,
    )


def _read_text(path: Path) -> str | None:
    """Return the text of a file, None where there is none."""
    try:
        return path.read_bytes().decode()  # as bytes first: text mode would drop "\r"
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read: {error}. Copy it again.") from error
