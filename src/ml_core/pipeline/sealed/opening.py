"""One opening of the test split: written down before it begins, and how it ended afterwards."""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import platform
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ml_core
from ml_core.config import Config
from ml_core.data.checks import SplitRecord
from ml_core.errors import RunError
from ml_core.evaluation.ledger import append_line
from ml_core.evaluation.openings import (
    OPENED,
    Openings,
    ledger_path,
    read_openings,
    record_opening,
    record_outcome,
)
from ml_core.log import shown
from ml_core.pipeline.parts.trained_model import load_run_config
from ml_core.pipeline.sealed.entrant import Entrant
from ml_core.reproducibility import code_record
from ml_core.runs import RunDir, RunRecord, utc_now

logger = logging.getLogger("ml_core.evaluate")


@contextmanager
def opened(
    entrant: Entrant, weights_sha256: str, test: SplitRecord, command: str
) -> Iterator[dict[str, Any]]:
    """Count an opening of the test split, then run the body, during which patches may be read.

    What the body adds to the dict that is yielded goes into the ledger with how it ended; whatever
    ended it, the opening stays counted. Raises RunError, before the body, where the opening cannot
    be written down or a ledger was tampered with.
    """
    count_openings(entrant.run, entrant.record, entrant.config, test.x_sha256)  # all are whole
    folders = [_data_ledger_dir(entrant.config), entrant.config.output_dir]
    copy_path = entrant.run.openings_copy_path
    entry = _entry(entrant, weights_sha256, test, command)
    ledger = record_opening(entry, test.x_sha256, folders, copy_path)
    _tell_elsewhere(entrant, entry, test.x_sha256, ledger)
    logger.info("this opening of the test split is written down in %s", shown(ledger))
    outcome: dict[str, Any] = {"outcome": "failed"}
    try:
        yield outcome
        outcome["outcome"] = "scored"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            outcome["outcome"] = "interrupted"
        outcome["error"] = str(error) or type(error).__name__
        raise
    finally:
        outcome["time"] = utc_now()
        try:
            record_outcome(entry["opening"], outcome, test.x_sha256, ledger, copy_path)
        except RunError as error:  # the opening is counted all the same
            logger.warning("how this opening ended is not in its ledger: %s", error)


def count_openings(run: RunDir, record: RunRecord, config: Config, x_sha256: str) -> Openings:
    """Return the openings of the test set with these patches, as far as this run can know.

    Looked for in every folder where one may have been written, with the data also where they lay
    when the run was trained. Raises RunError when a ledger was tampered with.
    """
    folders = [_data_ledger_dir(config), config.data.data_path, config.output_dir]
    folders = [each.resolve() for each in (*folders, *_own_folders(run, record))]
    return read_openings(x_sha256, folders, run.openings_copy_path)


def _own_folders(run: RunDir, record: RunRecord) -> list[Path]:
    """Return where a run's own config, without overrides, and its data say a ledger may be."""
    own = load_run_config(run)
    trained_on = Path(record.data["valid"]["x_path"]).parent
    return [_data_ledger_dir(own), own.data.data_path, trained_on, own.output_dir]


def _tell_elsewhere(
    entrant: Entrant, entry: Mapping[str, Any], x_sha256: str, ledger: Path
) -> None:
    """Write the opening also where other runs look, if an override sent its ledger elsewhere.

    It is counted once by its id; where a folder cannot be written, the first ledger has it.
    """
    folders = {each.resolve() for each in _own_folders(entrant.run, entrant.record)}
    if ledger.parent.resolve() in folders:
        return
    for folder in folders:
        if folder.is_dir():
            with contextlib.suppress(OSError):
                append_line(ledger_path(folder, x_sha256), {"event": OPENED, **entry})


def _data_ledger_dir(config: Config) -> Path:
    return config.data.ledger_dir or config.data.data_path


def _entry(
    entrant: Entrant, weights_sha256: str, test: SplitRecord, command: str
) -> dict[str, Any]:
    code, _ = code_record()
    return {
        "opening": uuid.uuid4().hex,
        "time": utc_now(),
        "who": f"{_user()}@{platform.node()}",
        "command": command,
        "champion": entrant.champion_sha256,
        "sealed": entrant.champion is not None,
        "run_id": entrant.record.run_id,
        "run": str(entrant.run.path.resolve()),
        "weights_sha256": weights_sha256,
        "threshold": entrant.threshold,
        "data": {key: getattr(test, key) for key in ("x_sha256", "y_sha256", "num_patches")},
        "code": {"commit": code["commit"], "dirty": code["dirty"]},
        "ml_core": ml_core.__version__,
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container a process may run as a number without a name
        return str(os.getuid())
