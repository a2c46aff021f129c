"""Write one self-contained HTML page about evaluated runs.

Reads the files of each run, for the example patches the data files, and for a run that was opened
the test set for the ledger of that set; writes report.html into the run, or beside the runs when
there are several. A champion.json stands for its run.

    ml-core report runs/pcam_cnn/20260102-030405-seed42
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_core.data.layout import split_paths
from ml_core.data.patch_file import PatchFile
from ml_core.evaluation.openings import Openings
from ml_core.evaluation.report import render_report
from ml_core.log import shown
from ml_core.pipeline.parts.batches_of import patches_of_steps
from ml_core.pipeline.parts.trained_model import load_run_config
from ml_core.pipeline.sealed.opening import count_openings
from ml_core.runs import RunDir, RunRecord, read_json
from ml_core.selection.champion import Champion, sha256_of_champion

logger = logging.getLogger("ml_core.report")


def report(
    paths: Sequence[Path], out: Path | None = None, overrides: Iterable[str] = ()
) -> dict[str, Any]:
    """Return {"report": path}; raises RunError for a run that was not evaluated."""
    overrides = list(overrides)
    champions: dict[Path, Mapping[str, Any]] = {}
    runs = [_open(path, champions) for path in paths]
    if out is None:
        first = runs[0]
        out = (
            first.report_path if len(runs) == 1 else first.path.parent / f"seeds-{first.name}.html"
        )
    data_path = load_run_config(runs[0], overrides).data.data_path

    def read_patches(split: str, index: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        return PatchFile(split_paths(data_path, split).x).read(index)

    def read_openings(run: RunDir, x_sha256: str) -> Openings:
        return count_openings(run, RunRecord.load(run), load_run_config(run, overrides), x_sha256)

    def patches_of(run: RunDir, steps: Sequence[int]) -> Mapping[int, npt.NDArray[np.int64]]:
        return patches_of_steps(run, load_run_config(run, overrides), steps)

    written = render_report(
        runs,
        out,
        read_patches,
        read_openings=read_openings,
        patches_of=patches_of,
        champions=champions,
    )
    logger.info("report %s", shown(written))
    return {"report": str(written)}


def _open(path: Path, champions: dict[Path, Mapping[str, Any]]) -> RunDir:
    """Return the run at `path`, or that of the champion there, which is added to `champions`."""
    if not path.is_file():
        return RunDir.open(path)
    run = Champion.load(path).check(path)
    champions[run.path] = {"sha256": sha256_of_champion(path), **read_json(path)}
    return run
