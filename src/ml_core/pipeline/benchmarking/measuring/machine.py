"""The machine as far as it decides how fast anything is: cores, GPU, clocks, and who else works."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping
from typing import Any

import torch

from ml_core.preflight.programs import ask_program
from ml_core.reproducibility import hardware_record
from ml_core.reproducibility.hardware import gpu_record

TIMEOUT_S = 10.0  # without its persistence daemon the driver takes seconds to wake
BUSY = 0.25  # of the cores in use by others: enough to move a median of small pieces by that much
_JOB = ("SLURM_JOB_ID", "SLURM_JOB_PARTITION", "SLURM_JOB_CPUS_PER_NODE", "SLURM_ARRAY_TASK_ID")
# nvidia-smi --help-query-gpu: MHz and W
_CLOCKS = ("clocks.sm", "clocks.max.sm", "clocks.mem", "clocks.max.mem", "power.limit")


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return what `hardware_record` does, with the node around this process and its load.

    Besides: "cores_of_node"; "whole_node", whether this process may use all of them; "load", the
    mean number of processes that ran or waited in the last minute; "slurm", the job, or None; and
    of a GPU its "mig" slice and "clocks", each None where the driver does not say.
    """
    record = hardware_record()
    num_cores = os.cpu_count() or 1
    record |= {
        "cores_of_node": num_cores,
        "whole_node": record["cores_available"] >= num_cores,
        "load": _load(),
        "slurm": slurm_job(os.environ),
    }
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        record |= gpu_record(index)
        uuid = str(torch.cuda.get_device_properties(index).uuid)
        record["gpu"] |= {"mig": mig_slice(_ask("-L"), record["gpu"]["name"], uuid)}
        record["gpu"] |= {"clocks": read_clocks(_ask_clocks(f"--id=GPU-{uuid}") or _ask_clocks())}
    return record


def slurm_job(environment: Mapping[str, str]) -> dict[str, str] | None:
    """Return what Slurm says of this job, by its variables in lower case; None outside of one."""
    if "SLURM_JOB_ID" not in environment:
        return None
    return {
        name.removeprefix("SLURM_").lower(): environment[name]
        for name in _JOB
        if name in environment
    }


def mig_slice(listed: str, name: str, uuid: str) -> str | None:
    """Return the slice of a GPU that this process has, such as "1g.10gb"; None for a whole one.

    `name` is torch's, which ends in it with newer drivers. Otherwise it is looked up by `uuid` in
    what `nvidia-smi -L` lists, a line for each GPU and, indented, each slice.
    """
    if found := re.search(r"\bMIG (\d+g\.\d+gb\S*)", name):
        return found[1]
    for line in listed.splitlines():
        found = re.match(r"\s+MIG (\S+)\s+Device\s+\d+: \(UUID: (?:MIG-)?([^)]+)\)", line)
        if found and found[2] in uuid:
            return found[1]
    return None


def read_clocks(answer: str) -> dict[str, float | None] | None:
    """Return clocks in MHz and the limit in W of the GPU in `answer`; None unless it is one GPU.

    A slice of a GPU answers "[N/A]", which is None.
    """
    rows = list(csv.reader(answer.splitlines(), skipinitialspace=True))
    if len(rows) != 1 or len(rows[0]) != len(_CLOCKS):
        return None
    return {name: _number(word) for name, word in zip(_CLOCKS, rows[0], strict=True)}


def is_busy(machine: Mapping[str, Any]) -> str:
    """Return that others were at work before the first measurement, in words; "" if not.

    The load is of the whole node, so it is held against all of its cores.
    """
    load, num_cores = machine["load"], machine["cores_of_node"]
    if load is None or load < BUSY * num_cores:
        return ""
    plural = "s" if num_cores != 1 else ""
    return f"the machine was busy: load {load:.1f} on {num_cores} core{plural}"


def in_words(machine: Mapping[str, Any]) -> str:
    """Return the machine in a line: processor, cores, GPU with its slice and clock, node, job."""
    cores, all_cores = machine["cores_available"], machine["cores_of_node"]
    plural = "s" if cores != 1 else ""
    of_node = "" if machine["whole_node"] else f" of {all_cores}"
    parts = [f"{machine['processor']}, {cores}{of_node} core{plural}", _gpu(machine["gpu"])]
    if job := machine["slurm"]:
        node = "a whole node" if machine["whole_node"] else "a shared node"
        partition = job.get("job_partition")
        parts.append(f"{node}{f' of {partition}' if partition else ''}")
    return "; ".join(part for part in parts if part)


def _gpu(gpu: Mapping[str, Any] | None) -> str:
    if gpu is None:
        return "no GPU"
    mig = gpu.get("mig")
    sliced = f", slice {mig}" if mig and mig not in gpu["name"] else ""
    clocks = gpu.get("clocks") or {}
    now, most = clocks.get("clocks.sm"), clocks.get("clocks.max.sm")
    clock = f", {now:.0f} of {most:.0f} MHz" if now and most else ""
    return f"{gpu['name']}{sliced}, {gpu['memory_gib']:.0f} GB{clock}"


def _load() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def _ask_clocks(*which: str) -> str:
    return _ask(f"--query-gpu={','.join(_CLOCKS)}", "--format=csv,noheader,nounits", *which)


def _ask(*options: str) -> str:
    """Return what nvidia-smi prints; "" where it is not there or refuses."""
    answer = ask_program(["nvidia-smi", *options], timeout_s=TIMEOUT_S)
    return answer.output if answer.code == 0 else ""


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None
