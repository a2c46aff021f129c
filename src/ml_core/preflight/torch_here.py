"""What torch itself says, for those who wait for it to load: `ml-core doctor --torch`."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ml_core.preflight.check import Check, error, ok, warning
from ml_core.preflight.gpu import Gpu, check_driver
from ml_core.preflight.programs import ask_program

TIMEOUT_S = 120.0  # from a cold shared disk torch has been seen to load for a minute
SLOW_S = 20.0
_QUESTION = """
import json, time
started = time.monotonic()
import torch
took_s = time.monotonic() - started
print(json.dumps({
    "version": torch.__version__, "took_s": took_s, "threads": torch.get_num_threads(),
    "cuda": torch.version.cuda, "gpus": torch.cuda.device_count(),
    "works": torch.cuda.is_available(),
}))
"""


def check_torch(python: Path, gpus: list[Gpu]) -> list[Check]:
    """Return how torch loads in the job's Python, and whether it sees the `gpus` of this machine.

    In a process of its own, so that a torch that crashes is a line too.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    answer = ask_program(
        [str(python), "-s", "-c", _QUESTION], timeout_s=TIMEOUT_S, environment=environment
    )
    if answer.code != 0:
        said = answer.problem.strip().splitlines() or [f"exit code {answer.code}"]
        return [error("torch", f"does not load: {said[-1]}.", "Install it again; see packages.")]
    said_it = json.loads(answer.output.strip().splitlines()[-1])
    version, cuda, took_s = said_it["version"], said_it["cuda"], float(said_it["took_s"])
    built = f"for CUDA {cuda}" if cuda else "for CPUs only"
    told = f"{version} ({built}) loads in {took_s:.1f} s, {said_it['threads']} threads here."
    checks = [ok("torch", told)]
    if took_s > SLOW_S:
        remedy = "Put the environment on a faster disk; every process of a job waits so long."
        checks.append(warning("torch", f"loading took {took_s:.0f} s.", remedy))
    if gpus and cuda is None:
        remedy = "Install the torch that is built for CUDA."
        checks.append(
            error("torch", f"there is a GPU ({gpus[0].name}), and it cannot use one.", remedy)
        )
    elif gpus and not said_it["works"]:
        problem = check_driver(gpus[0].driver, cuda)
        told = f"there is a GPU ({gpus[0].name}), and torch cannot use it."
        checks.append(problem or error("torch", told, "See: nvidia-smi"))
    return checks
