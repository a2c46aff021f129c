"""Ranks: who they are, that they hear one another, and what happens when one is gone."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from ranked_processes import run_ranks

from ml_core.distributed import (
    ALONE,
    BACKENDS,
    Ranks,
    _loopback_if_enough,
    _meeting_point,
    process_group,
)
from ml_core.distributed import ranks_from_environment as ranks_from
from ml_core.errors import ConfigError, RankError


def test_a_process_that_nobody_numbered_is_alone():
    assert ranks_from({}) == ALONE == Ranks(0, 1, 0)
    assert ranks_from({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}) == ALONE  # sbatch, before srun
    assert ranks_from({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}) == ALONE


def test_torchrun_and_srun_say_which_rank_this_is():
    torchrun = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
    assert ranks_from(torchrun) == Ranks(5, 8, 1)
    srun = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "3"}
    assert ranks_from(srun) == Ranks(3, 4, 3)
    assert ranks_from(torchrun | srun) == Ranks(5, 8, 1)  # torchrun was started by srun


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"RANK": "0"}, "WORLD_SIZE is not set"),
        ({"WORLD_SIZE": "2"}, "RANK is not set"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "LOCAL_RANK is not set"),
        ({"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "RANK is 2"),
        ({"RANK": "-1", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "RANK is -1"),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "-1"}, "LOCAL_RANK is -1"),
        ({"RANK": "one", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "RANK is 'one'"),
        ({"SLURM_STEP_NUM_TASKS": "2"}, "SLURM_PROCID is not set"),
    ],
)
def test_half_an_environment_is_refused_by_the_name_of_the_variable(environment, named):
    with pytest.raises(ConfigError, match=named):
        ranks_from(environment)


def test_the_ranks_meet_where_torchrun_says_or_on_the_machine_of_the_step():
    torchrun = {"MASTER_ADDR": "node-1", "MASTER_PORT": "29500"}
    assert _meeting_point(torchrun) == "tcp://node-1:29500"
    step = {"SLURM_STEP_NUM_NODES": "1", "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}
    assert _meeting_point(step) == "tcp://127.0.0.1:20112"
    assert _meeting_point(step | {"SLURM_STEP_ID": "1"}) == "tcp://127.0.0.1:20113"
    with pytest.raises(ConfigError, match="MASTER_ADDR and MASTER_PORT are not set"):
        _meeting_point(step | {"SLURM_STEP_NUM_NODES": "2"})


def test_only_ranks_of_one_machine_listen_on_loopback_and_only_if_nobody_chose():
    here = {"MASTER_ADDR": "127.0.0.1"}
    for environment, expected in [
        (here, True),
        ({"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "host"}, True),
        ({"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "host"}, False),
        (here | {"GLOO_SOCKET_IFNAME": "ib0"}, "ib0"),
    ]:
        inside = dict(environment)
        with _loopback_if_enough(inside):
            found = inside.get("GLOO_SOCKET_IFNAME", "")
        assert found.startswith("lo") == (expected is True)
        assert inside == environment
        assert expected != "ib0" or found == "ib0"


def test_alone_nothing_travels():
    with process_group(ALONE, 1.0) as ranks:
        numbers = torch.tensor([3, 4])
        ranks.sum_(numbers)
        ranks.wait()
        assert numbers.tolist() == [3, 4] and ranks.share_text("here") == "here"


def tell_one_another(ranks):
    ranks.wait()
    text = ranks.share_text("Grüße\n" * 1000 if ranks.is_first else None)
    empty = ranks.share_text("" if ranks.is_first else None)
    numbers = torch.tensor([ranks.rank, 2**61, -1]) // torch.tensor([1, ranks.world_size, 1])
    ranks.sum_(numbers)
    return text, empty, numbers.tolist()


def test_ranks_hear_the_text_of_the_first_and_have_the_same_sums():
    told = run_ranks(3, tell_one_another)
    assert told == [("Grüße\n" * 1000, "", [3, 2**61 // 3 * 3, -3])] * 3


def refuse_floats(ranks):
    ranks.sum_(torch.zeros(1))


def test_floats_are_not_summed_since_their_order_would_be_felt():
    assert all(isinstance(error, AssertionError) for error in run_ranks(2, refuse_floats))


def lose_the_second(ranks, how):
    if ranks.rank == 1:
        os.kill(os.getpid(), how)
    started = time.monotonic()
    try:
        ranks.sum_(torch.zeros(1000, dtype=torch.int64))
    except RankError as error:
        return time.monotonic() - started, str(error)
    return None


def test_a_rank_that_is_killed_is_missed_at_once():
    (waited, said), gone = run_ranks(2, lose_the_second, signal.SIGKILL, timeout_s=30.0)
    assert gone is None and waited < 5
    assert "rank 0 of 2 cannot go on" in said and "has died" in said and "--resume" in said


def test_a_rank_that_hangs_is_missed_after_the_timeout():
    (waited, said), _ = run_ranks(2, lose_the_second, signal.SIGSTOP, timeout_s=1.0, stopped=[1])
    assert 0.9 < waited < 5
    assert "has not answered for 1 s" in said


def leave_the_first_text_unsaid(ranks):
    ranks.wait()
    if ranks.is_first:
        time.sleep(0.5)  # the other has heard that all are there
        os.kill(os.getpid(), signal.SIGKILL)
    ranks.share_text(None)


def test_a_first_rank_that_dies_before_it_speaks_is_missed_at_once():
    started = time.monotonic()
    gone, error = run_ranks(2, leave_the_first_text_unsaid)
    assert gone is None and isinstance(error, RankError) and "rank 0 has died" in str(error)
    assert time.monotonic() - started < 15


def test_the_module_loads_without_torch():
    code = "import sys; import ml_core.distributed as d; d.ranks_from_environment({}); "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_ranks_on_gpus_still_sum_what_lies_on_the_cpu():
    """No nccl here: gloo stands for it, in the same kind of group."""
    assert BACKENDS["nccl"] == "cpu:gloo,cuda:nccl"
    both = BACKENDS["nccl"].replace("nccl", "gloo")
    assert run_ranks(2, sum_in, both) == [1, 1]
    for said in run_ranks(2, sum_in, "cuda:gloo"):
        assert "No backend type associated with device type cpu" in str(said)


def sum_in(ranks, backend):
    """Return the sum of the numbers of the ranks, in a group of `backend`, or what went wrong."""
    from torch import distributed

    numbers = torch.tensor([ranks.rank])
    group = distributed.new_group(backend=backend)
    try:
        distributed.all_reduce(numbers, group=group)
    except RuntimeError as error:
        return str(error)
    return numbers.item()
