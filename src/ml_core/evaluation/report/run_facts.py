"""What the files of one run say, read once; what is absent or does not agree becomes a finding."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ml_core.evaluation.predictions import Predictions
from ml_core.evaluation.report.files import FileFact, Reader
from ml_core.evaluation.report.split_facts import SplitFacts, read_test_facts, read_valid_facts
from ml_core.findings import Finding, Severity
from ml_core.runs import RunDir, RunRecord, read_json, read_jsonl

FAILURE_FILES = {  # what -> what it holds; its name is RunDir's
    "slices": "scores of slices of patches, with tests",
    "errors": "every error, and doubtful labels",
    "uncertainty": "risk over coverage, agreement of seeds",
    "explain": "attribution, centre and ring, robustness",
}

TRAIN_AND_VALID_ONLY = ("explain",)  # which its stage refuses to make of the test split

STATUS_FINDINGS: dict[str, tuple[Severity, str]] = {
    "running": ("warning", "This run has not ended: what follows is its state so far."),
    "interrupted": ("warning", "This run was interrupted before its last epoch."),
    "pruned": ("info", "This run is a trial that its study stopped early: others were better."),
    "failed": ("error", "This run failed."),
    "diverged": ("error", "This run diverged: its loss or gradient was not finite."),
}


@dataclass
class RunFacts:
    """Everything the report knows about a run; None or empty where a file is absent.

    `valid` is what metrics.json scores; `test` what metrics-test.json does, None where the test
    split was not opened for this run. `champion` is the content of champion.json where it chose
    this run. `failures` holds the content of slices.json, errors.json, uncertainty.json and
    explain.json, and of slices-test.json and its like, by the name of the file.

    `folder` leads from the page to the run, as the beginning of a link: "" or "seed1/".
    `champion_file` is the name of the file that `champion` was read from and the folder it is in,
    seen likewise; None where nobody told. `champion_path` is where a command finds champion.json.
    """

    run: RunDir
    record: RunRecord
    valid: SplitFacts
    folder: str = ""
    test: SplitFacts | None = None
    champion: Mapping[str, Any] | None = None
    champion_file: tuple[str, str | None] = ("champion.json", None)
    champion_path: str = "champion.json"
    failures: dict[str, dict[str, Any]] = field(default_factory=dict)
    config: str | None = None
    diff: str | None = None
    epochs: list[dict[str, Any]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    gradients: list[dict[str, Any]] = field(default_factory=list)
    files: list[FileFact] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def scores(self) -> dict[str, Any] | None:
        """The content of metrics.json."""
        return self.valid.scores

    @property
    def predictions(self) -> Predictions | None:
        """The predictions that metrics.json scores."""
        return self.valid.predictions

    @property
    def labelled(self) -> Predictions | None:
        """The predictions that metrics.json scores, where they can be compared with a truth."""
        return self.valid.labelled

    @property
    def best_epoch(self) -> int | None:
        """The epoch whose weights count as best, as run.json has it."""
        epoch = self.record.best.get("epoch")
        return int(epoch) if epoch is not None else None

    def file(self, name: str) -> FileFact:
        """Return what became of the file `name`."""
        return next(file for file in self.files if file.name == name)

    def failures_of(self, split: str) -> dict[str, dict[str, Any] | None]:
        """Return the contents by what they are, "slices" to "explain"; None where not read."""
        return {
            what: self.failures.get(self.run.result_path(what, split).name)
            for what in failure_files(split)
        }


def failure_files(split: str) -> dict[str, str]:
    """Return the files that tell where a model fails on `split`: what -> what it holds."""
    left_out = TRAIN_AND_VALID_ONLY if split == "test" else ()
    return {what: holds for what, holds in FAILURE_FILES.items() if what not in left_out}


def read_run_facts(
    run: RunDir, champion: Mapping[str, Any] | None = None, *, page_dir: Path | None = None
) -> RunFacts:
    """Read every file of `run` that the report shows.

    Only run.json must be there; raises RunError without it. Any other file that is damaged is a
    finding, and so is a score that its predictions table does not give. `champion` is the content
    of champion.json, where one chose this run, and may say its "path"; a test score brings its
    own. `page_dir` is the folder of the page that will show these facts; None for that of the run.
    """
    record, reader = RunRecord.load(run), Reader(run)
    reader.files.append(FileFact("run.json", "command, code, packages, hardware, data", "read"))
    reader.read(run.audit_path, read_json, "what was found in the data")
    config = reader.read(run.config_path, _read_text, "the resolved configuration")
    diff = reader.read(run.diff_path, _read_text, "changes that are in no commit")
    epochs = reader.read(run.metrics_log_path, _read_log, "one record per epoch") or []
    steps = reader.read(run.steps_log_path, _read_log, "one record per step") or []
    gradients = reader.read(run.gradients_log_path, _read_log, "one norm per layer and step") or []
    valid = read_valid_facts(run, record, reader)
    test = read_test_facts(run, record, reader)
    folder = folder_from(page_dir, run.path) if page_dir else ""
    champion_file = _champion_file(champion, page_dir or run.path)
    champion_path = (champion or {}).get("path", "champion.json")
    if test is not None and test.scores is not None and test.scores["champion"]:
        if test.scores["champion"]["sha256"] != (champion or {}).get("sha256"):
            champion_path = "champion.json"  # what was given is another one, or none was
        champion, champion_file = test.scores["champion"], (test.scores_file.name, folder)
    failures = {**_read_failures(run, "valid", reader), **_read_failures(run, "test", reader)}
    return RunFacts(
        run=run,
        record=record,
        valid=valid,
        folder=folder,
        test=test,
        champion=champion,
        champion_file=champion_file,
        champion_path=champion_path,
        failures=failures,
        config=config,
        diff=diff,
        epochs=epochs,
        steps=steps,
        gradients=gradients,
        files=reader.files,
        findings=[*_status_findings(record), *reader.findings, *valid.findings],
    )


def folder_from(page_dir: Path, path: Path) -> str:
    """Return the beginning of a link from a page in `page_dir` to what is in the folder `path`."""
    steps = Path(os.path.relpath(path.absolute(), page_dir.absolute())).as_posix()
    return "" if steps == "." else f"{quote(steps)}/"


def _champion_file(champion: Mapping[str, Any] | None, page_dir: Path) -> tuple[str, str | None]:
    if champion is None or "path" not in champion:
        return "champion.json", None
    path = Path(champion["path"])
    return path.name, folder_from(page_dir, path.parent)


def _read_failures(run: RunDir, split: str, reader: Reader) -> dict[str, dict[str, Any]]:
    """Return the contents by file name; of test only what is there, since few runs have any."""
    contents = {}
    for what, holds in failure_files(split).items():
        path = run.result_path(what, split)
        if split == "valid" or path.is_file():
            content = reader.read(path, read_json, holds)
            if content is not None:
                contents[path.name] = content
    return contents


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _read_log(path: Path) -> list[dict[str, Any]]:
    return list(read_jsonl(path))


def _status_findings(record: RunRecord) -> list[Finding]:
    findings = []
    if record.status in STATUS_FINDINGS:
        severity, message = STATUS_FINDINGS[record.status]
        reason = f" {record.error}" if record.error else ""
        findings.append(Finding(f"status-{record.status}", severity, message + reason))
    findings += record.findings
    if ignored := record.audit.get("ignored"):
        errors = "1 error" if len(ignored) == 1 else f"{len(ignored)} errors"
        message = (
            f"Trained in spite of {errors} that the audit of the data found "
            f"(data.on_findings: {record.audit['policy']}): {' '.join(ignored)}"
        )
        findings.append(Finding("audit-ignored", "error", message))
    if record.audit.get("exclusions_edited"):
        message = "The list of patches to leave out was edited by hand after the audit."
        findings.append(Finding("exclusions-edited", "warning", message))
    if record.code.get("dirty"):
        message = (
            f"The code that ran is in no commit: it is {record.code.get('commit', 'unknown')} with "
            "the changes in changes.diff."
        )
        findings.append(Finding("uncommitted-code", "warning", message))
    return findings
