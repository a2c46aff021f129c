"""Row 9: a rank dies or stalls. The others say so and end, and the ranks go on to the same bits."""

import os
import random
import signal
import time

import pytest
from ranked_processes import finish_cli, start_cli
from ranked_training import bits_of, only_run, said, train, wait_for_step, write_case, write_data

from ml_core.runs import RunRecord

WAYS = {"SIGKILL": signal.SIGKILL, "SIGSTOP": signal.SIGSTOP}
TIMEOUT_S = 5.0
FIRST_STEP, LAST_STEP = 2, 20  # of 24: there is a checkpoint by then, and the end is not near
BOUND_S = 60.0  # from the fault to the exit of the last rank that is left


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def straight(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("straight")
    return bits_of(train(1, folder, write_case(folder, data)))


def lose_a_rank(folder, step, lost, how, *arguments):
    """Train on two ranks, lose one at `step`; return the other's exit code, words and seconds."""
    processes = start_cli(2, ["train", *arguments], folder)
    wait_for_step(step, folder, processes)
    started = time.monotonic()
    os.kill(processes[lost].pid, how)
    (code,) = finish_cli([processes[1 - lost]], wait_s=BOUND_S + 30)
    seconds = time.monotonic() - started
    finish_cli([processes[lost]], wait_s=0.1)
    return code, said(folder, 2)[1 - lost], seconds


@pytest.mark.faults
@pytest.mark.parametrize("way", WAYS)
def test_a_lost_rank_ends_the_other_and_a_relaunch_has_the_same_bits(
    tmp_path, data, straight, draws, fault, way
):
    lost_ranks = fault(9, f"{way} of one of 2 gloo ranks")
    for number in range(draws(full=20, short=1)):
        chosen = random.Random(f"{way} {number}")
        step, lost, again = (
            chosen.randint(FIRST_STEP, LAST_STEP),
            chosen.randint(0, 1),
            chosen.choice([1, 2, 4]),
        )
        folder = tmp_path / str(number)
        folder.mkdir()
        with lost_ranks.case(f"rank {lost} at step {step}, then {again} ranks"):
            config = write_case(folder, data, checkpoint_every=1, rank_timeout_s=TIMEOUT_S)
            code, words, seconds = lose_a_rank(folder, step, lost, WAYS[way], config)
            assert code not in (0, None), words
            assert seconds < BOUND_S, f"{seconds:.0f} s"
            assert "another rank has died, or has not answered" in words, words
            assert "Traceback" not in words, words
            if lost != 0:
                assert RunRecord.load(only_run(folder)).status == "failed"  # it has not diverged
            resumed = train(again, folder, "--resume", only_run(folder).path)
            assert bits_of(resumed) == straight
