"""Train a config twice, each in a process of its own, and say whether both are the same run.

Reads what `train` reads; writes two run directories under output_dir, like any others. The second
may have other settings, or several ranks: what the config's level of numerics promises not to
matter, is shown not to.

    ml-core twin experiments/configs/pcam_cnn.yaml --other data.num_workers=2
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ml_core.config import Config
from ml_core.errors import ConfigError, RunError
from ml_core.log import shown
from ml_core.pipeline.verify import verify_two

logger = logging.getLogger("ml_core.verify")

INTERRUPTED = 130  # what `ml-core train` exits with


def twin(
    path: Path,
    overrides: Iterable[str] = (),
    *,
    others: Iterable[str] = (),
    other_ranks: int = 1,
) -> dict[str, Any]:
    """Return the verdict as JSON, with the two "runs"; of several seeds the first is taken.

    `others`: overrides of the second training alone; `other_ranks`: how many processes share it.
    Raises ConfigError for a config that is not valid, RunError where a training fails.
    """
    first = _of_one_seed(path, list(overrides))
    second = _of_one_seed(path, [*first, *others])
    level = Config.load(path, second).training.numerics
    if other_ranks > 1 and level == "fast":  # refused now, not after the first training
        raise ConfigError(
            "--other-ranks: training.numerics is fast, whose weights depend on the number of "
            "ranks. Set training.numerics to elastic or portable."
        )
    runs: list[str] = []
    for number, settings, ranks in ((1, first, 1), (2, second, other_ranks)):
        logger.info("twin %d of 2%s", number, f", {ranks} ranks" if ranks > 1 else "")
        run = _train(path, settings, ranks)
        if run is None:
            return {"status": "interrupted", "runs": runs}
        runs.append(run)
    a, b = (Path(run) for run in runs)
    logger.info("comparing %s and %s", shown(a), shown(b))
    return {**verify_two(a, b), "runs": runs}


def _of_one_seed(path: Path, settings: list[str]) -> list[str]:
    """Return `settings` with the first of the seeds they give; raises ConfigError."""
    return [*settings, f"seed={Config.load(path, settings).all_seeds[0]}", "seeds=null"]


def _train(config: Path, settings: Sequence[str], ranks: int) -> str | None:
    """Train in a fresh process, saying what it says; return the run, None if interrupted."""
    command = [sys.executable]
    if ranks > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command += ["-m", "ml_core.cli", "train", str(config), "--json"]
    for setting in settings:
        command += ["--set", setting]
    result: dict[str, Any] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith('{"'):
                result = json.loads(line)
            else:
                logger.info("  %s", line.rstrip())
    if process.returncode == INTERRUPTED or result.get("status") == "interrupted":
        return None
    if process.returncode or not result.get("runs"):
        raise RunError(
            f"a training of {shown(config)} ended with exit code {process.returncode}, so there "
            "is no pair to compare. Mend what it says above, then run twin again."
        )
    return str(result["runs"][0]["run"])
