"""The meeting of ranks before they train: each says that it is there; who is missing is said."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterable, Sequence
from typing import Protocol

from ml_core.errors import RankError

logger = logging.getLogger("ml_core.train")

# All are started at once, but torch alone takes a minute to load from a slow disk.
PATIENCE_S = 180.0
TOLD_EVERY_S = 30.0
_LOOK_S = 0.1


class Board(Protocol):
    """What the ranks write on: a store of torch.distributed."""

    def set(self, key: str, value: str) -> None: ...
    def get(self, key: str) -> bytes: ...
    def check(self, keys: list[str]) -> bool: ...


def meet(
    board: Board,
    rank: int,
    world_size: int,
    *,
    patience_s: float = PATIENCE_S,
    told_every_s: float = TOLD_EVERY_S,
) -> None:
    """Return when all ranks have come here.

    Rank 0 says every `told_every_s` who is there and who is not. Raises RankError with the same
    after `patience_s`, and what the board raises where it is gone.
    """
    board.set(_key(rank), socket.gethostname())
    started = time.monotonic()
    tell_at = told_every_s
    while not board.check([_key(each) for each in range(world_size)]):
        waited_s = time.monotonic() - started
        if waited_s >= patience_s:
            raise RankError(
                f"rank {rank} of {world_size} cannot go on: after {waited_s:.0f} s "
                f"{_who_is_there(board, world_size)}. What these printed, or their machine, says "
                "why. Nothing was trained: start the ranks again."
            )
        if rank == 0 and waited_s >= tell_at:
            logger.warning("after %.0f s %s", waited_s, _who_is_there(board, world_size))
            tell_at += told_every_s
        time.sleep(_LOOK_S)


def _who_is_there(board: Board, world_size: int) -> str:
    there = [rank for rank in range(world_size) if board.check([_key(rank)])]
    hosts = sorted({board.get(_key(rank)).decode() for rank in there})
    missing = sorted({*range(world_size)} - {*there})
    return (
        f"{_ranks(there)} of {world_size} {'is' if len(there) == 1 else 'are'} here "
        f"(on {', '.join(hosts)}), and {_ranks(missing)} {'is' if len(missing) == 1 else 'are'} not"
    )


def _ranks(numbers: Sequence[int]) -> str:
    """Return "rank 3", or "ranks 0-2, 5"."""
    return f"rank{'' if len(numbers) == 1 else 's'} {', '.join(_spans(numbers))}"


def _spans(numbers: Iterable[int]) -> Iterable[str]:
    """Yield rising numbers as "0-2" where they follow one another."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][-1] + 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    return (str(span[0]) if len(span) == 1 else f"{span[0]}-{span[-1]}" for span in spans)


def _key(rank: int) -> str:
    return f"rank-{rank}"
