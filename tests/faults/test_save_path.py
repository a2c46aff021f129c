"""A save killed, or refused by the disk, at every system call that it makes."""

import shutil
from pathlib import Path

import pytest
from forked import FAILED
from saver import (
    best_take,
    last_take,
    nothing_yet,
    one_save,
    save_again,
    save_first,
    save_in_place,
    save_next,
    save_take,
    six_saves,
)
from traced_child import needs_strace, places_of, run_traced, spread

from ml_core.checkpoint import load_checkpoint
from ml_core.lease import Lease
from ml_core.runs import RunDir

pytestmark = [pytest.mark.faults, needs_strace]

ERRORS = ("ENOSPC", "EIO", "EDQUOT")


# What was there, the save that is broken, and by what may be found after it what is then the best:
# the save before, or this one.
SAVES = {
    "the first": (nothing_yet, save_first, {None: None, 1: 1}),
    "the next step": (six_saves, save_next, {6: 1, 7: 7}),
    "the same step again": (six_saves, save_again, {6: 1, 7: 7}),
}


class Broken:
    """Breaks one save again and again, each time from the same beginning."""

    def __init__(self, folder: Path, begin, save) -> None:
        self.begin, self.save = folder / "begin", save
        self.run = folder / "run"
        begin(self.begin)
        self._start()
        self.places = places_of(save, [self.run], self.run, folder / "places")

    def _start(self) -> None:
        shutil.rmtree(self.run, ignore_errors=True)
        shutil.copytree(self.begin, self.run, symlinks=True)

    def break_at(self, place, what: str) -> int:
        self._start()
        return run_traced(self.save, [self.run], "-e", place.inject(what), "-o", "/dev/null")


def look(run_path: Path, best_by_last: dict[int | None, int | None]) -> int | None:
    """Return the save that is found, and see that the next process can take over and save."""
    run = RunDir(run_path)
    with Lease.take(run) as lease:
        found = last_take(run_path)
        assert found in best_by_last, f"found {found}"
        assert best_take(run_path) == best_by_last[found]
        for path in run.checkpoints_dir.glob("step-*"):
            load_checkpoint(path)  # old ones are there or not there as well
        step = max((int(path.name[5:]) for path in run.checkpoints_dir.glob("step-*")), default=0)
        lease.take_over_at(step)
        save_take(run_path, 80, 8, lease=lease)
    assert last_take(run_path) == 8
    names = {path.name for path in run.checkpoints_dir.iterdir()}
    assert not [name for name in names if name.endswith(".tmp")], f"left behind: {names}"
    return found


@pytest.mark.parametrize("name", SAVES)
def test_a_save_killed_at_any_system_call_leaves_the_one_before_or_the_new_one(
    tmp_path, draws, fault, name
):
    begin, save, best_by_last = SAVES[name]
    kills = fault(2, f"SIGKILL at every system call of a save: {name}")
    broken = Broken(tmp_path, begin, save)
    found = set()
    for place in spread(broken.places, draws(full=10**6, short=10)):
        with kills.case(f"kill at {place}"):
            assert broken.break_at(place, "signal=KILL") == -9
            found.add(look(broken.run, best_by_last))
    assert found == set(best_by_last)  # kills before and after the moment that counts


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", SAVES)
def test_a_save_refused_at_any_system_call_raises_or_is_whole_and_loses_nothing(
    tmp_path, draws, fault, name, error
):
    begin, save, best_by_last = SAVES[name]
    refusals = fault(3, f"{error} at every system call of a save: {name}")
    broken = Broken(tmp_path, begin, save)
    for place in spread(broken.places, draws(full=10**6, short=5)):
        with refusals.case(f"{error} at {place}"):
            code = broken.break_at(place, f"error={error}")
            assert code in (0, FAILED), f"exit code {code}"
            found = look(broken.run, best_by_last)
            assert code == FAILED or found == list(best_by_last)[-1], "said to be saved"


def test_a_save_in_place_is_lost_by_some_kill(tmp_path, draws, fault):
    control = fault(24, "checkpoints written in place: a kill loses the only one")
    broken = Broken(tmp_path, one_save, save_in_place)
    lost = []
    for place in spread(broken.places, draws(full=10**6, short=24)):
        broken.break_at(place, "signal=KILL")
        try:
            look(broken.run, {6: 6, 7: 7})
        except AssertionError:
            lost.append(place)
    with control.case("in place"):
        assert lost, "no kill lost it: the test above shows nothing"
