"""Real ranks for tests: processes that talk over gloo, started in a fraction of a second.

They are forked from a server that has loaded torch once and has done nothing else yet.
"""

import multiprocessing
import os
import socket
import time
import traceback

import torch

from ml_core.distributed import Ranks, process_group

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["torch._dynamo", "torch.distributed", "ml_core.pipeline.train"])


def run_ranks(world_size, job, *arguments, timeout_s=30.0, stopped=()):
    """Return what `job(ranks, *arguments)` returns on each rank, in their order.

    `job` is a function of a test module. A rank that raises gives its exception, a rank that was
    killed None; those that are `stopped` are not waited for.
    """
    port = free_port()
    results, processes = [], []
    for rank in range(world_size):
        receiving, sending = _server.Pipe(duplex=False)
        process = _server.Process(
            target=_run_rank, args=(sending, rank, world_size, port, timeout_s, job, arguments)
        )
        process.start()
        sending.close()
        processes.append((process, receiving))
    for rank, (process, receiving) in enumerate(processes):
        try:
            is_there = rank not in stopped and receiving.poll(120)
            results.append(receiving.recv() if is_there else None)
        except EOFError:
            results.append(None)
        finally:
            process.kill()  # a no-op for one that has ended; SIGKILL also ends a stopped one
            process.join()
    return results


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def _run_rank(sending, rank, world_size, port, timeout_s, job, arguments):
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    try:
        with process_group(Ranks(rank, world_size), timeout_s) as ranks:
            result = job(ranks, *arguments)
    except Exception as error:
        traceback.print_exc()
        result = error
    sending.send(result)


def start_cli(world_size, arguments, folder):
    """Start `ml-core ARGUMENTS` as torchrun would, without loading torch anew for each rank.

    What each rank says is in folder/rank-N.log.
    """
    port = free_port()
    processes = []
    for rank in range(world_size):
        log = folder / f"rank-{rank}.log"
        places = {"RANK": rank, "LOCAL_RANK": rank, "MASTER_PORT": port}
        environment = {
            **{name: str(value) for name, value in places.items()},
            **dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(world_size)),
            "MASTER_ADDR": "127.0.0.1",
        }
        arguments = [str(argument) for argument in arguments]
        processes.append(_server.Process(target=_run_cli, args=(environment, arguments, log)))
        processes[-1].start()
    return processes


def finish_cli(processes, wait_s=120.0):
    """Return the exit codes, None for a rank that has not ended; nothing is left running."""
    ends_at = time.monotonic() + wait_s
    codes = []
    for process in processes:
        process.join(max(0.0, ends_at - time.monotonic()))
        codes.append(process.exitcode)
    for process in processes:
        process.kill()
        process.join()
    return codes


def _run_cli(environment, arguments, log):
    from ml_core.cli import main

    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(environment)
    main(arguments)
