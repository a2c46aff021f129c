"""The GPU and its driver, seen by nvidia-smi, and which kind of machine this is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ml_core.preflight.check import Check, error, ok, warning
from ml_core.preflight.programs import ask_program

TIMEOUT_S = 10.0  # without its persistence daemon the driver takes seconds to wake
# The oldest driver on Linux for each CUDA: CUDA Toolkit Release Notes, "CUDA Toolkit and Minimum
# Required NVIDIA Driver Version for CUDA Minor Version Compatibility" (11.x, 12.x, 13.x).
OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}
_QUERY = "--query-gpu=name,memory.total,driver_version"


@dataclass(frozen=True)
class Gpu:
    """A GPU of this machine; `mem_gb` is None where it does not say, as a slice of one may not."""

    name: str
    mem_gb: float | None
    driver: str


def find_gpus() -> tuple[list[Gpu], str]:
    """Return the GPUs that this process may use, and why there are none."""
    answer = ask_program(
        ["nvidia-smi", _QUERY, "--format=csv,noheader,nounits"], timeout_s=TIMEOUT_S
    )
    if answer.code == 0:
        return parse_gpus(answer.output), "nvidia-smi lists none"
    if "cannot be started" in answer.problem:
        return [], "there is no nvidia-smi"
    said = (answer.output or answer.problem).strip().splitlines() or ["it does not say why"]
    return [], f"nvidia-smi: {said[0].rstrip('.')}"


def parse_gpus(text: str) -> list[Gpu]:
    """Return what nvidia-smi prints for `_QUERY` as csv without header and units: MiB."""
    rows = ([word.strip() for word in line.split(",")] for line in text.splitlines())
    return [
        Gpu(name, float(memory) / 1024 if memory.isdecimal() else None, driver)
        for name, memory, driver in (row for row in rows if len(row) == 3)
    ]


def kind_of_machine(environment: Mapping[str, str], *, has_slurm: bool) -> str:
    """Return "job" within a job of Slurm, else "login node" where Slurm is, else "machine"."""
    if "SLURM_JOB_ID" in environment:
        return "job"
    return "login node" if has_slurm else "machine"


def check_gpu(
    device: str | None, asked: str | None, kind: str, *, submits: bool = False
) -> list[Check]:
    """Return whether what `training.device` wants is there, or will be where the job runs.

    `device` is None without a config; `asked` is what the profile asks of Slurm, as "a100:1", and
    counts where the run goes to a new job: on a login node, and where one `submits`.
    """
    gpus, why_none = find_gpus()
    seen = "; ".join(f"{gpu.name}{_memory(gpu)}, driver {gpu.driver}" for gpu in gpus)
    where = "this job has" if kind == "job" else "this machine has"
    if submits or kind == "login node":
        here = f"{where} {seen or 'no GPU'}"
        if kind == "login node":
            has = f"it has {seen}" if seen else "no GPU is expected here"
            here = f"this is a login node, outside of any job: {has}"
        told = f"{here}; the job asks for {asked or 'none'}."
        return [*_asked_told(device, asked), ok("gpu", told)]
    wants_gpu = device is not None and device.startswith("cuda")
    if wants_gpu and not gpus:
        told = f"training.device is {device}, and {where} no GPU: {why_none}."
        remedy = "Set training.device=auto, or ask for one: --profile generic-gpu."
        return [error("gpu", told, remedy)]
    if kind == "job" and asked and not gpus:
        told = f"this job has no GPU ({why_none}), and the profile asks for {asked}."
        return [warning("gpu", told, "Is this the job that was meant?")]
    if gpus and device == "cpu":
        told = f"{where} {seen}, and training.device is cpu: it will not be used."
        return [warning("gpu", told, "Set training.device=auto.")]
    none = f"{where} none ({why_none}): training is on the CPU."
    return [ok("gpu", f"{where} {seen}." if gpus else none)]


def _asked_told(device: str | None, asked: str | None) -> list[Check]:
    if device is not None and device.startswith("cuda") and asked is None:
        told = f"training.device is {device}, and the profile asks for no GPU."
        remedy = "Take a profile with GPUs (--profile generic-gpu), or --set training.device=auto."
        return [error("gpu", told, remedy)]
    if device == "cpu" and asked is not None:
        told = (
            f"training.device is cpu, and the profile asks for a GPU ({asked}), which is paid for."
        )
        return [warning("gpu", told, "Set training.device=auto, or take a profile without GPUs.")]
    return []


def check_driver(driver: str, cuda: str) -> Check | None:
    """Return that `driver`, "535.104.05", is too old for `cuda`, "12.8"; None where it is not."""
    needed = OLDEST_DRIVER.get(int(cuda.partition(".")[0]))
    found = re.match(r"\d+", driver)
    if needed is None or found is None or int(found[0]) >= needed:
        return None
    told = f"driver {driver} is older than {needed}, which CUDA {cuda} of this torch needs."
    return error("gpu", told, "Ask for a newer driver, or install a torch for an older CUDA.")


def _memory(gpu: Gpu) -> str:
    return "" if gpu.mem_gb is None else f", {gpu.mem_gb:.0f} GB"
