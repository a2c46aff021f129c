"""Ranks that wait for others say for whom, and do not wait for ever."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from ranked_processes import run_ranks
from torch import distributed

from ml_core import rank_meeting
from ml_core.errors import RankError
from ml_core.rank_meeting import meet


@pytest.fixture
def board(monkeypatch):
    monkeypatch.setattr(rank_meeting.socket, "gethostname", lambda: "n1")
    return distributed.HashStore()


def test_all_go_on_when_the_last_has_come(board):
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda rank: meet(board, rank, 3), range(3))) == [None] * 3


@pytest.fixture
def clock(monkeypatch):
    """A clock that runs only while somebody sleeps."""
    clock = SimpleNamespace(now=0.0)

    def sleep(seconds):
        clock.now += seconds

    monkeypatch.setattr(
        rank_meeting, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep)
    )
    return clock


def test_the_first_rank_says_every_half_minute_who_is_missing(board, clock, caplog):
    board.set("rank-2", "n2")
    who = "ranks 0, 2 of 6 are here (on n1, n2), and ranks 1, 3-5 are not"
    with pytest.raises(RankError) as caught:
        meet(board, 0, 6)
    assert caplog.messages == [f"after {waited} s {who}" for waited in (30, 60, 90, 120, 150)]
    assert f"rank 0 of 6 cannot go on: after 180 s {who}. What these printed" in str(caught.value)


def test_the_others_leave_the_telling_to_the_first_but_end_as_soon(board, clock, caplog):
    with pytest.raises(RankError, match=r"180 s rank 1 of 2 is here \(on n1\), and rank 0 is not"):
        meet(board, 1, 2)
    assert caplog.messages == []


def sum_of_ranks(ranks):
    import torch

    numbers = torch.tensor([ranks.rank + 1])
    ranks.sum_(numbers)
    return int(numbers)


def test_ranks_that_have_met_train_together():
    assert run_ranks(2, sum_of_ranks) == [3, 3]
