"""Write one self-contained HTML page about evaluated runs.

Reads the files of each run and, for the example patches, the data files; writes report.html into
the run, or beside the runs when there are several.

    ml-core report runs/pcam_cnn/20260102-030405-seed42
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_core.data.layout import split_paths
from ml_core.data.patch_file import PatchFile
from ml_core.evaluation.report import render_report
from ml_core.log import shown
from ml_core.pipeline.trained_model import load_run_config
from ml_core.runs import RunDir

logger = logging.getLogger("ml_core.report")


def report(
    paths: Sequence[Path], out: Path | None = None, overrides: Iterable[str] = ()
) -> dict[str, Any]:
    """Return {"report": path}; raises RunError for a run that was not evaluated."""
    runs = [RunDir.open(path) for path in paths]
    if out is None:
        first = runs[0]
        out = (
            first.report_path if len(runs) == 1 else first.path.parent / f"{first.name}-seeds.html"
        )
    data_path = load_run_config(runs[0], overrides).data.data_path

    def read_patches(split: str, index: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        return PatchFile(split_paths(data_path, split).x).read(index)

    written = render_report(runs, out, read_patches=read_patches)
    logger.info("report %s", shown(written))
    return {"report": str(written)}
