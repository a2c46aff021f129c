"""Write one self-contained HTML page about evaluated runs, and a model card of each.

Reads the files of each run, for the example patches the data files, and for a run that was opened
the test set for the ledger of that set; writes report.html into the run, or beside the runs when
there are several, and model-card.md into each run. A champion.json stands for its run. Of two runs
the page also says what differs between them: scores, patches, slices.

    ml-core report runs/pcam_cnn/20260102-030405-seed42
    ml-core report runs/pcam_mlp/20260102-030405-seed42 runs/pcam_cnn/20260102-030405-seed42
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_core.data.layout import split_paths
from ml_core.data.patch_file import PatchFile
from ml_core.errors import RunError
from ml_core.evaluation.openings import Openings
from ml_core.evaluation.report import render_report
from ml_core.evaluation.report.model_card import render_model_card
from ml_core.evaluation.report.run_facts import read_run_facts
from ml_core.evaluation.report.sealed_page import ReadOpenings
from ml_core.log import shown
from ml_core.pipeline.parts.batches_of import patches_of_steps
from ml_core.pipeline.parts.trained_model import load_run_config
from ml_core.pipeline.parts.two_runs import compare_two
from ml_core.pipeline.sealed.opening import count_openings
from ml_core.runs import RunDir, RunRecord, read_json, write_text
from ml_core.selection.champion import Champion, sha256_of_champion

logger = logging.getLogger("ml_core.report")


def report(
    paths: Sequence[Path], out: Path | None = None, overrides: Iterable[str] = ()
) -> dict[str, Any]:
    """Return {"report": path, "model_cards": paths}; raises RunError for what is no run."""
    overrides = list(overrides)
    champions: dict[Path, Mapping[str, Any]] = {}
    runs = [_open(path, champions) for path in paths]
    _refuse_repeated(runs)
    if out is None:
        first = runs[0]
        alone = len(runs) == 1
        out = first.report_path if alone else first.path.parent / _name_together(runs)
    files_dir = load_run_config(runs[0], overrides).data.files_dir

    def read_patches(split: str, index: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        return PatchFile(split_paths(files_dir, split).x).read(index)

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
        comparison=compare_two(runs, out.parent, read_patches) if len(runs) == 2 else None,
    )
    cards = [_write_card(run, champions.get(run.path), read_openings) for run in runs]
    logger.info("report %s", shown(written))
    return {"report": str(written), "model_cards": [str(card) for card in cards]}


def _refuse_repeated(runs: Sequence[RunDir]) -> None:
    seen: set[Path] = set()
    for run in runs:
        if run.path.resolve() in seen:
            raise RunError(f"{shown(run.path)} is given twice; give each run once.")
        seen.add(run.path.resolve())


def _name_together(runs: Sequence[RunDir]) -> str:
    """Return the name of the page about several runs: two are compared, more are seeds."""
    if len(runs) == 2:
        return f"compared-{runs[0].name}-{runs[1].name}.html"
    return f"seeds-{runs[0].name}.html"


def _write_card(
    run: RunDir, champion: Mapping[str, Any] | None, read_openings: ReadOpenings
) -> Path:
    """Write model-card.md into the run, from the numbers that its report shows."""
    facts = read_run_facts(run, champion)
    said = None
    if facts.test is not None and facts.test.scores is not None:
        # a ledger that is damaged now is a finding of the report; the card has what was known
        with contextlib.suppress(RunError):
            said = str(read_openings(run, facts.test.scores["data"]["x_sha256"]))
    try:
        write_text(run.model_card_path, render_model_card(facts, said))
    except OSError as error:
        raise RunError(
            f"cannot write {run.model_card_path}: {error.strerror or error}. Make the folder of "
            "the run writable."
        ) from error
    return run.model_card_path


def _open(path: Path, champions: dict[Path, Mapping[str, Any]]) -> RunDir:
    """Return the run at `path`, or that of the champion there, which is added to `champions`."""
    if not path.is_file():
        return RunDir.open(path)
    run = Champion.load(path).check(path)
    champions[run.path] = {
        "sha256": sha256_of_champion(path),
        "path": str(path),
        **read_json(path),
    }
    return run
