"""Processes that train one model together: which one this is, and the little they tell one another.

Only integers and text cross between them, as bytes. Sums of integers have the same bits in any
order, so neither the number of ranks nor the route of the numbers is felt.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from ml_core.errors import ConfigError, RankError
from ml_core.rank_meeting import PATIENCE_S as MEETING_S
from ml_core.rank_meeting import meet

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import ProcessGroup
    from torch.distributed.distributed_c10d import PrefixStore

PATIENCE_S = 1800.0  # rank 0 reads and checks all the data before the others hear of the run
# what is agreed on, and validation, is summed on the CPU, which nccl alone does not serve
BACKENDS = {"gloo": "gloo", "nccl": "cpu:gloo,cuda:nccl"}
FIRST_PORT, NUM_PORTS = 20_000, 12_000  # below those that Linux gives away, from 32,768


@dataclass(frozen=True)
class Ranks:
    """This process among the `world_size` that train together: all compute, rank 0 writes.

    Alone, which is the default, nothing travels and every method returns at once. All ranks call
    the same methods in the same order; RankError where another one has died or is too late.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0  # among those of this machine: the number of its GPU
    _lines: _Lines | None = field(default=None, repr=False, compare=False)

    @property
    def is_first(self) -> bool:
        """Whether this rank is the one that writes and speaks."""
        return self.rank == 0

    def sum_(self, numbers: Tensor) -> None:
        """Replace `numbers`, int64, by their sums over all ranks."""
        if self.world_size > 1:
            self._connected.sum_(numbers)

    def any(self, wants: bool) -> bool:
        """Return whether any rank wants; as patient as `sum_`."""
        if self.world_size == 1:
            return wants
        import torch

        asked = torch.tensor([int(wants)])
        self.sum_(asked)
        return bool(asked)

    def share_text(self, text: str | None) -> str:
        """Return the text of rank 0, for which the others, who pass None, wait half an hour."""
        if self.world_size > 1:
            return self._connected.share_text(text)
        assert text is not None, "rank 0 has the text"
        return text

    def wait(self) -> None:
        """Return when all ranks have come here; as patient as `share_text`."""
        if self.world_size > 1:
            self._connected.wait()

    @property
    def _connected(self) -> _Lines:
        assert self._lines is not None, "ranks speak inside process_group() only"
        return self._lines


ALONE = Ranks()


def ranks_from_environment(environment: Mapping[str, str] = os.environ) -> Ranks:
    """Return which rank this process is, as torchrun or srun said; `ALONE` where neither did.

    torchrun sets RANK, WORLD_SIZE and LOCAL_RANK; a step of srun with several tasks sets
    SLURM_PROCID, SLURM_STEP_NUM_TASKS and SLURM_LOCALID. Raises ConfigError where half is set.
    """
    if "RANK" in environment or "WORLD_SIZE" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    elif environment.get("SLURM_STEP_NUM_TASKS", "1") != "1":
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
    else:
        return ALONE
    rank, world_size, local_rank = (_number(environment, name) for name in names)
    if not 0 <= local_rank <= rank < world_size:
        raise ConfigError(
            f"{names[0]} is {rank}, {names[2]} is {local_rank} and {names[1]} is {world_size}; "
            f"ranks are numbered from 0 to {names[1]} - 1. Start them by torchrun or srun, which "
            "set all three."
        )
    return Ranks(rank, world_size, local_rank)


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name)
    if value is None:
        raise ConfigError(
            f"{name} is not set, though other variables say that several ranks train together. "
            "Start them by torchrun or srun, which set them all, or unset RANK and WORLD_SIZE."
        )
    try:
        return int(value)
    except ValueError as error:
        raise ConfigError(f"{name} is {value!r}; allowed is a whole number.") from error


@contextmanager
def process_group(
    ranks: Ranks,
    timeout_s: float,
    backend: str = "gloo",
    environment: MutableMapping[str, str] = os.environ,
) -> Iterator[Ranks]:
    """Connect the ranks while inside: yields `ranks` with its methods at work.

    `sum_` waits `timeout_s` for the others; `backend` is gloo, or nccl where the sums lie on GPUs.
    They meet at MASTER_ADDR and MASTER_PORT, which torchrun sets; srun's tasks on one machine need
    neither. Raises ConfigError where that is not known, RankError where a rank does not come.
    """
    if ranks.world_size == 1:
        yield ranks
        return
    from torch import distributed

    address = _meeting_point(environment)
    try:
        with _loopback_if_enough(environment):
            board = _board(address, ranks, environment)
            meet(board, ranks.rank, ranks.world_size)
            distributed.init_process_group(
                "gloo",
                store=board,
                rank=ranks.rank,
                world_size=ranks.world_size,
                timeout=timedelta(seconds=MEETING_S),
            )
            patient = distributed.new_group(timeout=timedelta(seconds=PATIENCE_S), backend="gloo")
            strict = distributed.new_group(
                timeout=timedelta(seconds=timeout_s), backend=BACKENDS[backend]
            )
    except (RuntimeError, ValueError) as error:
        raise _lost(ranks, f"the ranks did not meet at {address}", error) from error
    assert strict is not None and patient is not None  # every rank is a member
    try:
        yield replace(ranks, _lines=_Lines(ranks, strict, timeout_s, patient))
    finally:
        distributed.destroy_process_group()


@dataclass(frozen=True)
class _Lines:
    """The open connections of a rank: one that waits `timeout_s`, and a patient one."""

    ranks: Ranks
    strict: ProcessGroup
    timeout_s: float
    patient: ProcessGroup

    def sum_(self, numbers: Tensor) -> None:
        import torch
        from torch import distributed

        assert numbers.dtype == torch.int64, "only integers have the same sum in any order"
        try:
            distributed.all_reduce(numbers, group=self.strict)
        except RuntimeError as error:
            late = f"another rank has died, or has not answered for {self.timeout_s:g} s"
            raise _lost(self.ranks, late, error) from error

    def wait(self) -> None:
        import torch
        from torch import distributed

        try:
            distributed.all_reduce(torch.zeros(1), group=self.patient)
        except RuntimeError as error:
            raise _lost(self.ranks, "another rank has died, or does not come", error) from error

    def share_text(self, text: str | None) -> str:
        import torch
        from torch import distributed

        assert (text is not None) == self.ranks.is_first, "rank 0 has the text, and nobody else"
        content = torch.tensor(list((text or "").encode()), dtype=torch.uint8)
        size = torch.tensor(len(content))
        try:
            distributed.broadcast(size, src=0, group=self.patient)
            if not self.ranks.is_first:
                content = torch.empty(int(size), dtype=torch.uint8)
            distributed.broadcast(content, src=0, group=self.patient)
        except RuntimeError as error:
            raise _lost(self.ranks, "rank 0 has died, or has not answered", error) from error
        return bytes(content.tolist()).decode()


def _lost(ranks: Ranks, what: str, error: Exception) -> RankError:
    """Return the error of a rank that misses others; gloo knows an address at best, no rank."""
    # "[/pytorch/.../pair.cc:547] Connection closed by peer [127.0.0.1]:2. This is typically ..."
    reason = str(error).partition("\n")[0].rpartition("] ")[2].partition(". ")[0]
    return RankError(
        f"rank {ranks.rank} of {ranks.world_size} cannot go on: {what} ({reason}). The other's own "
        "message, or that of its machine, says why. Checkpoints are whole: start the ranks again, "
        "as many as you like, with ml-core train --resume RUN."
    )


def _board(address: str, ranks: Ranks, environment: Mapping[str, str]) -> PrefixStore:
    """Open the store at `address`: rank 0's, unless torchrun, which starts the ranks, has its own.

    As in torch 2.13 (torch/distributed/rendezvous.py), but for one thing: it does not wait for the
    others, so that `meet` can say who is missing. Each start by torchrun has its own keys.
    """
    # public as torch.distributed.TCPStore, but its stubs do not know that
    from torch._C._distributed_c10d import TCPStore
    from torch.distributed.distributed_c10d import PrefixStore

    host, _, port = address.removeprefix("tcp://").rpartition(":")
    store = TCPStore(
        host,
        int(port),
        ranks.world_size,
        is_master=ranks.is_first and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True",
        timeout=timedelta(seconds=MEETING_S),
        wait_for_workers=False,
        multi_tenant=True,
    )
    start = environment.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"ml-core-{start}", store)


def _meeting_point(environment: Mapping[str, str]) -> str:
    """Return where the ranks meet, as torch wants it; raises ConfigError where nobody said."""
    if "MASTER_ADDR" in environment and "MASTER_PORT" in environment:
        return f"tcp://{environment['MASTER_ADDR']}:{_number(environment, 'MASTER_PORT')}"
    if environment.get("SLURM_STEP_NUM_NODES") == "1":
        step = _number(environment, "SLURM_JOB_ID") * 16 + _number(environment, "SLURM_STEP_ID")
        return f"tcp://127.0.0.1:{FIRST_PORT + step % NUM_PORTS}"
    raise ConfigError(
        "MASTER_ADDR and MASTER_PORT are not set: the ranks cannot know where to meet. torchrun "
        "sets them; with srun on several machines export the name of the first one and a free port."
    )


@contextmanager
def _loopback_if_enough(environment: MutableMapping[str, str]) -> Iterator[None]:
    """Let gloo listen where only this machine reaches it, if all ranks are here.

    By itself it takes the address of the host's name, which a laptop or a container may not have.
    """
    name = "GLOO_SOCKET_IFNAME"
    world_size = environment.get("WORLD_SIZE")
    is_one_machine = (
        environment.get("MASTER_ADDR") in ("127.0.0.1", "localhost", "::1")
        or (world_size is not None and environment.get("LOCAL_WORLD_SIZE") == world_size)
        or environment.get("SLURM_STEP_NUM_NODES") == "1"
    )
    loopback = [interface for _, interface in socket.if_nameindex() if interface.startswith("lo")]
    if name in environment or not is_one_machine or not loopback:
        yield
        return
    environment[name] = loopback[0]
    try:
        yield
    finally:
        del environment[name]
