"""A power cut at any moment of a run: what a disk may then hold is made, and gone on from."""

import shutil
from pathlib import Path

import pytest
from crash_states import CALLS, read_events, states_of, write_state
from saver import BEST_STEPS, best_take, last_take, live, save_take
from traced_child import needs_strace, run_traced

from ml_core.checkpoint import files
from ml_core.lease import Lease
from ml_core.runs import RunDir, RunRecord, read_jsonl
from ml_core.tracking.log_file import LogFile

pytestmark = [pytest.mark.faults, needs_strace]

FEWEST_STATES = 500  # that the full draw must try


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> tuple[Path, Path]:
    """What strace wrote of a run, and where that run was."""
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "run").mkdir()
    options = ("-e", CALLS, "-s", "1000000", "-o", str(folder / "log"))
    assert run_traced(live, [folder / "run"], *options) == 0
    return folder / "log", folder / "run"


def marked(disk, what: str) -> int:
    """Return the last step that was `begun` or `saved`, 0 for none."""
    return max((int(mark.split()[1]) for mark in disk.marks if mark.startswith(what)), default=0)


def go_on(run: RunDir, saved: int, begun: int) -> None:
    """Do what a resume does, and see that it has what it needs and takes nothing else."""
    with Lease.take(run) as lease:
        last = last_take(run.path)
        assert last is not None or saved == 0, "nothing is left"
        last = last or 0
        assert saved <= last <= begun, f"went on from {last}, not from {saved}..{begun}"
        assert (best_take(run.path) or 0) == max((b for b in BEST_STEPS if b <= last), default=0)
        if last:
            log = LogFile(run.steps_log_path)
            log.keep(lambda line: line["step"] <= last, is_enough=lambda line: line["step"] >= last)
            log.append({"step": last + 1})
            log.close()
            steps = [line["step"] for line in read_jsonl(run.steps_log_path)]
            assert steps == list(range(1, last + 2)), f"logged {steps}"
            assert RunRecord.load(run).status in ("running", "completed")
        lease.take_over_at(last)
        save_take(run.path, last + 1, last + 1, lease=lease)
    assert last_take(run.path) == last + 1


def test_after_a_power_cut_a_run_goes_on_from_its_last_save_or_the_one_in_progress(
    recorded, tmp_path, draws, fault
):
    cuts = fault(4, "power cut: every prefix of a run's writes, with what was not synced in 9 ways")
    log, run = recorded
    num_states = sum(1 for _ in states_of(read_events(log), run))
    assert num_states >= FEWEST_STATES
    every = max(1, num_states // draws(full=num_states, short=60))
    for number, (disk, state, name) in enumerate(states_of(read_events(log), run)):
        if number % every:
            continue
        folder = tmp_path / "state"
        write_state(disk, state, folder)
        with cuts.case(name):
            go_on(RunDir(folder), marked(disk, "saved"), marked(disk, "begun"))
        shutil.rmtree(folder)


def lost_without_fsync(recorded, tmp_path: Path, every: int) -> list[str]:
    """Return why it went wrong in each state of a run that never called fsync."""
    log, run = recorded
    why = []
    for number, (disk, state, _) in enumerate(
        states_of(read_events(log, with_fsync=False), run, start=["checkpoints"])
    ):
        if number % every == 0:
            folder = tmp_path / "state"
            write_state(disk, state, folder)
            try:
                go_on(RunDir(folder), marked(disk, "saved"), marked(disk, "begun"))
            except Exception as error:
                why.append(str(error))
            shutil.rmtree(folder)
    return why


def test_without_fsync_a_save_that_had_returned_is_lost(recorded, tmp_path, draws, fault):
    control = fault(24, "no fsync: a power cut loses saves that had returned")
    why = lost_without_fsync(recorded, tmp_path, draws(full=3, short=40))
    with control.case("no fsync"):
        assert any("every checkpoint in" in each for each in why)
        assert not any("mixed" in each for each in why)  # the digests still notice every one


def test_without_digests_what_a_power_cut_left_is_loaded(
    recorded, tmp_path, monkeypatch, draws, fault
):
    control = fault(24, "no digests: half a checkpoint is loaded after a power cut")
    monkeypatch.setattr(files, "_verify", lambda *_: None)
    why = lost_without_fsync(recorded, tmp_path, draws(full=3, short=9))
    with control.case("no digests"):
        assert any("mixed" in each for each in why)
