"""An audit's folder: the only code that knows its file names, and what audit.json holds."""

from __future__ import annotations

import dataclasses
import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from ml_core.data.checks import hash_file
from ml_core.data.exclusions import write_exclusions
from ml_core.errors import DataError, first_problem
from ml_core.findings import SEVERITIES, Finding, Severity
from ml_core.runs import write_text

FORMAT = 1
Mode = Literal["full", "quick"]


@dataclass(frozen=True)
class AuditDir:
    """Paths of one audit; nothing here creates a file."""

    path: Path

    @property
    def record_path(self) -> Path:
        return self.path / "audit.json"

    @property
    def patches_path(self) -> Path:
        return self.path / "patches.parquet"

    @property
    def exclusions_path(self) -> Path:
        return self.path / "exclusions.csv"

    @property
    def page_path(self) -> Path:
        return self.path / "audit.html"

    @property
    def figures_dir(self) -> Path:
        return self.path / "figures"


@dataclass(frozen=True)
class AuditRecord:
    """What audit.json holds: what was examined, how, and what was found, the worst first."""

    mode: Mode
    data_path: str
    created_at: str
    ml_core: str  # version
    command: str
    duration_s: float
    num_threads: int
    splits: Mapping[str, Mapping[str, Any]]  # those that were read: files, counts, storage
    digests: Mapping[str, tuple[str | None, str | None]]  # SHA-256 of each split's x and y
    findings: Sequence[Finding]
    not_checked: Sequence[Mapping[str, str]] = ()  # {"check": what, "why": why not}
    exclusions_sha256: str | None = None
    format: int = field(default=FORMAT)

    @classmethod
    def load(cls, folder: AuditDir) -> AuditRecord:
        """Read audit.json; raises DataError when it is missing, damaged or of another version."""
        try:
            text = folder.record_path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{folder.record_path} cannot be read: {error}.") from error
        return cls.parse(text, str(folder.record_path))

    @classmethod
    def parse(cls, text: str, where: str) -> AuditRecord:
        """Return the audit whose JSON is `text`, from the file called `where`; see `load`."""
        try:
            raw = json.loads(text)
            if not isinstance(raw, dict) or raw.get("format") != FORMAT:
                raise DataError(
                    f"{where} is no audit that this version can read (format {FORMAT}). "
                    "Audit again: ml-core audit."
                )
            return TypeAdapter(cls).validate_python(raw)
        except ValidationError as error:
            raise DataError(f"{where} is not an audit: {first_problem(error)}.") from error
        except ValueError as error:
            raise DataError(f"{where} is damaged: {error}. Audit again: ml-core audit.") from error

    def to_json(self) -> str:
        """Return the content of audit.json."""
        # One line per finding: with thousands of row numbers an indented list is unreadable.
        raw = {**dataclasses.asdict(self), "findings": []}
        text = json.dumps(raw, indent=1, allow_nan=False)
        lines = ",\n  ".join(json.dumps(dataclasses.asdict(each)) for each in self.findings)
        return text.replace('"findings": []', f'"findings": [\n  {lines}]')

    def save(self, folder: AuditDir) -> None:
        write_text(folder.record_path, self.to_json())

    def num(self, severity: Severity) -> int:
        """Return how many findings are of this severity."""
        return sum(finding.severity == severity for finding in self.findings)

    @property
    def verdict(self) -> str:
        """Return the counts of findings in words, for example "2 errors, 1 warning, 4 notes"."""
        words = {"error": "error", "warning": "warning", "info": "note"}
        counts = [(self.num(severity), words[severity]) for severity in SEVERITIES]
        return ", ".join(f"{n} {word}{'' if n == 1 else 's'}" for n, word in counts)

    def is_of(self, sha256: Mapping[str, tuple[str, str]]) -> bool:
        """Whether this is an audit of these bytes: {split: (SHA-256 of x, of y)}."""
        return all(self.digests.get(split) == found for split, found in sha256.items())


def worst_first(findings: Sequence[Finding]) -> list[Finding]:
    """Return findings by severity, in the order of the checks within each."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def exclusions_of(findings: Sequence[Finding]) -> Iterator[tuple[str, int, str]]:
    """Yield (split, index, reasons) of each patch better left out, once, by split and row."""
    reasons: dict[tuple[str, int], list[str]] = {}
    for finding in findings:
        if finding.exclude:
            for index in finding.indices:
                reasons.setdefault((finding.split, index), []).append(finding.id)
    for (split, index), ids in sorted(reasons.items(), key=operator.itemgetter(0)):
        yield split, index, " ".join(dict.fromkeys(ids))


def save_exclusions(folder: AuditDir, findings: Sequence[Finding]) -> str:
    """Write exclusions.csv, also where nothing is to be left out; return its SHA-256."""
    write_exclusions(folder.exclusions_path, exclusions_of(findings))
    return hash_file(folder.exclusions_path)
