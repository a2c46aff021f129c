"""Readers, threads and ranks against the CPUs that the job is given, not those of the machine."""

from __future__ import annotations

from ml_core.preflight.check import Check, error, ok, warning


def check_cores(*, cpus: int, whose: str, num_workers: int, num_threads: int | None) -> list[Check]:
    """Return whether the processes and threads of a task fit into its `cpus`.

    `whose` says where that number is from: "as the profile asks".
    """
    checks = []
    if num_workers + 1 > cpus:
        told = (
            f"data.num_workers {num_workers} and the training itself are {num_workers + 1} "
            f"processes on {_cpus(cpus)} ({whose}): they wait for one another."
        )
        remedy = f"Set data.num_workers to {cpus - 1}, or --ask cpus_per_task={num_workers + 1}"
        checks.append(warning("cores", told, remedy))
    if num_threads is not None and num_threads > cpus:
        told = f"training.num_threads is {num_threads}, on {_cpus(cpus)} ({whose})."
        remedy = f"Set it to {cpus}, or --ask cpus_per_task={num_threads}"
        checks.append(warning("cores", told, remedy))
    plural = "s" if num_threads != 1 else ""
    threads = "as many threads" if num_threads is None else f"{num_threads} thread{plural}"
    readers = f"{num_workers} reader processes" if num_workers else "no reader processes"
    return checks or [ok("cores", f"{_cpus(cpus)} ({whose}) for {threads}, {readers}.")]


def _cpus(number: int) -> str:
    return f"{number} CPU{'s' * (number != 1)}"


def check_ranks(num_ranks: int, *, numerics: str, batch_size: int, micro_batch: int) -> list[Check]:
    """Return whether `num_ranks` processes can share a training; nothing where it is one."""
    if num_ranks == 1:
        return []
    if numerics == "fast":
        told = (
            f"{num_ranks} tasks are asked for, but training.numerics is fast: its sums of gradients"
            " would depend on their number, so they would be refused."
        )
        return [error("ranks", told, "Set training.numerics to elastic, or ask for one task.")]
    pieces = -(-batch_size // micro_batch)
    if pieces < num_ranks:
        told = (
            f"a batch of {batch_size} patches is {pieces} micro-batches of {micro_batch}, fewer "
            f"than the {num_ranks} tasks: some would only wait."
        )
        return [warning("ranks", told, "Raise data.batch_size, or lower training.micro_batch.")]
    return [ok("ranks", f"{num_ranks} tasks share the {pieces} micro-batches of a batch.")]
