"""What the data gate let through, kept once for all trials, and whether it still holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_core.config import Config
from ml_core.data.checks import SplitRecord, hash_splits
from ml_core.data.exclusions import parse_exclusions, read_exclusions
from ml_core.data.layout import split_paths
from ml_core.data.read_through import FileStamp
from ml_core.errors import DataError, RunError
from ml_core.pipeline.parts.data_gate import Gate
from ml_core.pipeline.parts.splits import check_data
from ml_core.runs import read_json, write_json, write_text
from ml_core.search.study_dir import StudyDir, StudyRecord

SPLITS = ("train", "valid")


def save_gate(study: StudyDir, gate: Gate) -> None:
    """Keep a gate in the study: audit.json, exclusions.csv, gate.json."""
    write_text(study.audit_path, gate.audit)
    if gate.exclusions is not None:
        write_text(study.exclusions_path, gate.exclusions)
    kept = {"hashes": gate.hashes, "record": gate.record, "digests": gate.digests}
    write_json(study.gate_path, {name: dict(part) for name, part in kept.items()})


def load_gate(study: StudyDir) -> Gate:
    """Return the gate that `save_gate` kept; raises RunError or DataError when it is damaged."""
    kept = read_json(study.gate_path)
    try:
        hashes = {split: (x, y) for split, (x, y) in kept["hashes"].items()}
        record = dict(kept["record"])
        digests = dict(kept.get("digests", {}))  # older studies have none
        audit = study.audit_path.read_text(encoding="utf-8")
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{study.gate_path} or {study.audit_path.name} beside it is missing or damaged "
            f"({error!r}). Put it back, or begin a new study."
        ) from error
    if "exclusions_sha256" not in record:
        return Gate(hashes, record, audit, digests=digests)
    exclusions = read_exclusions(study.exclusions_path)
    exclude = parse_exclusions(exclusions, str(study.exclusions_path))
    return Gate(hashes, record, audit, exclude, exclusions, digests)


def trial_checks(
    study: StudyDir, of_study: Config, of_trial: Config, gate: Gate
) -> list[SplitRecord]:
    """Return the records of the splits as a trial uses them: the study's, unless it differs."""
    keys = ("filter_data", "max_patches", "input_shape")
    if any(getattr(of_study.data, key) != getattr(of_trial.data, key) for key in keys):
        return check_data(of_trial, SPLITS, gate.exclude, gate.hashes)
    kept = StudyRecord.load(study).data
    return [
        SplitRecord(**{**kept[split], "shape": tuple(kept[split]["shape"])}) for split in SPLITS
    ]


def refuse_other_bytes(study: StudyDir, config: Config) -> None:
    """Raise DataError when a file of the data is not, to the bit, what the study began with."""
    then = load_gate(study).hashes
    for split, now in hash_splits(config.data.files_dir, SPLITS).items():
        paths = split_paths(config.data.files_dir, split)
        for path, old, new in zip((paths.x, paths.y), then[split], now, strict=True):
            if old != new:
                raise DataError(
                    f"{path} has changed since the study began: its SHA-256 was {old[:12]} and is "
                    f"{new[:12]}. Put the old file back, or begin a new study."
                )


@dataclass(frozen=True)
class DataStamps:
    """Size, time and inode of each file of the data: cheap to compare before every trial."""

    stamps: Mapping[str, FileStamp]

    @classmethod
    def of(cls, files_dir: Path) -> DataStamps:
        """Return the stamps as they are now; raises DataError for a missing file."""
        files = [split_paths(files_dir, split) for split in SPLITS]
        paths = [path for each in files for path in (each.x, each.y)]
        return cls({str(path): FileStamp.of(path) for path in paths})

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> DataStamps:
        """Return what `to_json` gave."""
        return cls({path: FileStamp(*stamp) for path, stamp in raw.items()})

    def to_json(self) -> dict[str, list[int]]:
        """Return it as JSON takes it."""
        return {path: list(stamp) for path, stamp in self.stamps.items()}

    def check(self) -> None:
        """Raise DataError when a file was written or replaced since."""
        for path, then in self.stamps.items():
            if FileStamp.of(Path(path)) != then:
                raise DataError(
                    f"{path} was written or replaced while the study ran, so that its trials would "
                    "differ in more than their parameters. Put the old file back and go on with "
                    "ml-core tune --resume, which looks at its bytes; or begin a new study."
                )
