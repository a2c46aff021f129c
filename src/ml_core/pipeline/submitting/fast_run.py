"""Two batches through everything, here and now, before a job waits for hours to fail at once."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

from ml_core.config import Config
from ml_core.errors import ClusterError
from ml_core.reproducibility.hardware import nvidia_driver

logger = logging.getLogger("ml_core.submit")


def take_fast_run(config_path: Path, config: Config) -> dict[str, Any]:
    """Return what ``ml-core train --fast-dev-run`` gives for the config, with "is_on_cpu".

    A config for GPUs is tried on the CPU where this machine has no GPU. Raises ClusterError with
    the error of that run, when it fails; its output is then printed.
    """
    is_on_cpu = config.training.device.startswith("cuda") and nvidia_driver() is None
    command = [sys.executable, "-m", "ml_core", "train", str(config_path), "--fast-dev-run"]
    command += ["--json", *(["--set", "training.device=cpu"] if is_on_cpu else [])]
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL,
        check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        output = done.stdout + done.stderr
        logger.info("%s", output.rstrip())
        why = _last_error(output).rstrip(".")
        raise ClusterError(
            f"--fast-dev-run failed, so nothing was submitted: {why}. To submit all the same: "
            "--no-fast-dev-run."
        )
    return {**json.loads(lines[-1]), "is_on_cpu": is_on_cpu}


def _last_error(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    ours = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (ours or lines or ["it printed nothing."])[-1]
