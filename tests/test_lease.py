"""Who may write into a run: one process, and nothing of those it came after."""

import errno
import fcntl
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ml_core.checkpoint import generations, load_best, load_checkpoint, load_last, save_checkpoint
from ml_core.errors import CheckpointError, ConfigError, RunError
from ml_core.lease import Generation, Lease, Lineage, run_lock, slurm_job
from ml_core.runs import RunDir
from ml_core.tracking.log_file import LogFile


@pytest.fixture
def run(tmp_path) -> RunDir:
    return RunDir.create(tmp_path, "run")


def take_over(run: RunDir, restart: int, step: int | None = 0) -> Lease:
    """Take the run as another start of one job does, and go on from `step`."""
    lease = Lease.take(run, job="7", restart=restart)
    if step is not None:
        lease.take_over_at(step)
    return lease


def save(run: RunDir, step: int, lease: Lease | None, *, best: bool = False) -> Path:
    return save_checkpoint(
        run.checkpoints_dir,
        step,
        model=torch.nn.Linear(2, 2),
        model_spec={},
        optimizer=None,
        state={"step": step, "token": lease.token if lease else None},
        best=best,
        lease=lease,
    )


def steps_in(run: RunDir) -> list[int]:
    return sorted(int(path.name[5:]) for path in run.checkpoints_dir.glob("step-*"))


# ---- one at a time -----------------------------------------------------------------------------


def test_each_process_is_entered_with_where_it_went_on(run):
    with Lease.take(run) as first:
        first.take_over_at(0)
    with Lease.take(run, job="12", restart=3) as second:
        assert Lineage.read(run.lease_path).newest.taken_over_at_step is None
        second.take_over_at(40)
    told = Lineage.read(run.lease_path).generations
    assert [(g.job, g.restart, g.taken_over_at_step) for g in told] == [
        (None, 0, 0),
        ("12", 3, 40),
    ]
    assert [g.token for g in told] == [first.token, second.token]
    assert len({first.token, second.token}) == 2
    assert all(g.pid == os.getpid() and len(g.token) == 16 for g in told)


@pytest.mark.parametrize(
    ("job", "restart"),
    [(None, 0), (None, 5), ("7", 0), ("8", 1)],
    ids=["no job", "no job, a restart", "the same start", "another job"],
)
def test_while_one_trains_another_is_refused_and_leaves_no_trace(run, job, restart):
    with Lease.take(run, job="7", restart=0) as lease:
        before = run.lease_path.read_bytes()
        with pytest.raises(RunError, match=r"another process is training in .* \(job 7, restart 0"):
            Lease.take(run, job=job, restart=restart)
        assert run.lease_path.read_bytes() == before
        lease.check()
    Lease.take(run).release()


def test_a_later_start_of_the_same_job_takes_over_though_the_first_lives(run):
    first = take_over(run, 0)
    second = take_over(run, 1, step=40)
    second.check()
    with pytest.raises(RunError, match=r"was taken over by job 7, restart 1, process \d+ on"):
        first.check()
    with pytest.raises(RunError, match="was taken over by"):
        first.take_over_at(60)
    first.release()  # the first ends now, and does not let go of the second's lock
    with pytest.raises(RunError, match="another process is training"):
        Lease.take(run)
    second.release()
    Lease.take(run).release()


def test_an_earlier_start_of_the_same_job_that_comes_late_is_refused(run):
    with take_over(run, 2), pytest.raises(RunError, match="another process"):
        Lease.take(run, job="7", restart=1)


def test_a_lock_is_waited_for_while_the_readers_of_a_killed_process_end(run, monkeypatch):
    gone = Generation("t", None, 0, run_lock.socket.gethostname(), pid=2**22 + 1, started_at="now")
    Lineage((gone,)).write(run.lease_path)
    waited = []
    held = open(run.lock_path, "w")  # noqa: SIM115 - closed while waiting
    fcntl.flock(held, fcntl.LOCK_EX)

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            held.close()

    monkeypatch.setattr(run_lock.time, "sleep", wait)
    Lease.take(run).release()
    assert len(waited) == 3


def test_the_wait_for_readers_ends(run, monkeypatch):
    monkeypatch.setattr(run_lock, "ORPHANS_S", 0.15)
    gone = Generation("t", None, 0, run_lock.socket.gethostname(), pid=2**22 + 1, started_at="now")
    Lineage((gone,)).write(run.lease_path)
    with open(run.lock_path, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="another process is training"):
            Lease.take(run)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_on_a_disk_without_locks_the_token_alone_decides(run, monkeypatch, caplog, number):
    def no_locks(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(run_lock.fcntl, "flock", no_locks)
    first = Lease.take(run)
    second = Lease.take(run)
    assert "a disk without locks" in caplog.text
    second.check()
    with pytest.raises(RunError, match="was taken over"):
        first.check()


def test_another_error_of_the_lock_is_not_taken_for_a_disk_without_them(run, monkeypatch):
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "bad disk")

    monkeypatch.setattr(run_lock.fcntl, "flock", broken)
    with pytest.raises(OSError, match="bad disk"):
        Lease.take(run)


def test_the_lock_ends_with_the_process_however_it_ends(run):
    code = (
        "import os, sys; from pathlib import Path; from ml_core.lease import Lease;"
        "from ml_core.runs import RunDir; Lease.take(RunDir(Path(sys.argv[1])));"
        "assert 'torch' not in sys.modules; os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, run.path], check=False)
    assert done.returncode == -9
    with Lease.take(run) as lease:
        assert len(lease.tokens) == 2


# ---- the check ---------------------------------------------------------------------------------


def test_the_check_reads_the_file_only_after_it_was_replaced(run, monkeypatch):
    reads = []
    read = Lineage.read
    monkeypatch.setattr(Lineage, "read", lambda path: reads.append(path) or read(path))
    with Lease.take(run) as lease:
        reads.clear()
        for _ in range(100):
            lease.check()
        assert len(reads) == 1
        os.utime(run.lease_path)  # touched, and still one's own
        lease.check()
        assert len(reads) == 2


def test_a_takeover_between_writing_and_looking_is_not_missed(run, monkeypatch):
    """The file that is remembered as one's own must be one that was read, not just one's last."""
    first = take_over(run, 0, step=None)
    write = Lineage.write
    later = []

    def overtaken(lineage: Lineage, path: Path) -> None:
        write(lineage, path)
        if not later:
            later.append(None)
            later.append(take_over(run, 1))

    monkeypatch.setattr(Lineage, "write", overtaken)
    first.take_over_at(0)
    with pytest.raises(RunError, match="was taken over"):
        first.check()


def test_a_run_that_was_deleted_stops_the_process_that_trains_in_it(run):
    with Lease.take(run) as lease:
        run.lease_path.unlink()
        with pytest.raises(RunError, match=r"generation\.json is gone.*--resume"):
            lease.check()


# ---- what of the old one counts ----------------------------------------------------------------


def lineage(*steps: int | None) -> Lineage:
    return Lineage(
        tuple(Generation(f"t{i}", "7", i, "h", 1, "now", step) for i, step in enumerate(steps))
    )


@pytest.mark.parametrize(
    ("token", "step", "counts"),
    [
        ("t2", 999, True),  # the newest
        ("t0", 40, True),  # what t1 went on from
        ("t0", 41, False),
        ("t0", 80, False),  # t2 took over at 80, but t0 had been replaced at 40
        ("t1", 80, True),
        ("t1", 81, False),
        ("?", 1, False),  # a token that lost a race to be entered
        (None, 1, False),
        (None, 0, True),
    ],
)
def test_a_writer_counts_up_to_where_a_later_one_took_over(token, step, counts):
    assert lineage(0, 40, 80).accepts(token, step) is counts


def test_a_process_that_chose_no_checkpoint_yet_limits_nobody():
    assert lineage(0, None).accepts("t0", 10**9)
    assert lineage(0, None, 40).accepts("t0", 41) is False


def test_checkpoints_from_before_there_were_leases_count_until_one_is_taken(run):
    save(run, 10, None)
    save(run, 20, None)
    with Lease.take(run) as lease:
        lease.take_over_at(10)
        assert load_last(run.checkpoints_dir).state["step"] == 10
    run.lease_path.unlink()  # as a user is told to do when it is damaged
    assert load_last(run.checkpoints_dir).state["step"] == 20


def test_a_checkpoint_of_a_replaced_process_is_refused_by_every_loader(run, caplog):
    first = take_over(run, 0)
    save(run, 40, first, best=True)
    second = take_over(run, 1, step=40)
    first.check = lambda: None  # as if it had looked before, and fell asleep
    save(run, 60, first, best=True)
    save(run, 80, first, best=True)
    for load in (load_best, lambda directory: load_checkpoint(directory / "last")):
        with pytest.raises(CheckpointError, match="by a process that another had replaced"):
            load(run.checkpoints_dir)
    assert load_last(run.checkpoints_dir).state == {"step": 40, "token": first.token}
    assert "Trying the checkpoint before it" in caplog.text
    assert load_best(run.checkpoints_dir).state["step"] == 40
    save(run, 50, second)  # what the new one writes pushes out what does not count
    assert steps_in(run) == [40, 50]
    assert load_last(run.checkpoints_dir).state["token"] == second.token


def test_damaged_checkpoints_do_not_push_out_what_was_just_written(run):
    with take_over(run, 0) as first:
        for step in (10, 20, 30):
            save(run, step, first)
    for step in (20, 30):
        (run.checkpoints_dir / f"step-{step:08d}" / "model.safetensors").write_bytes(b"")
    with take_over(run, 1, step=10) as second:
        save(run, 13, second)  # stopped soon after it went on
        assert steps_in(run) == [10, 13]
        assert load_last(run.checkpoints_dir).state["step"] == 13


def test_what_a_replaced_process_does_leaves_the_new_ones_work_alone(run):
    first = take_over(run, 0)
    save(run, 40, first, best=True)
    second = take_over(run, 1, step=40)
    in_hand = run.checkpoints_dir / f".step-00000060.{second.token}.new.tmp"
    replaced = run.checkpoints_dir / f".step-00000050.{second.token}.replaced.tmp"
    for folder in (in_hand, replaced):
        folder.mkdir()
    save(run, 60, second)
    in_hand.mkdir()
    replaced.mkdir()
    first.check = lambda: None
    save(run, 45, first)
    assert in_hand.is_dir() and replaced.is_dir()
    assert 60 in steps_in(run)


def test_a_save_after_the_takeover_publishes_nothing(run):
    first = take_over(run, 0)
    save(run, 40, first, best=True)
    second = take_over(run, 1, step=40)
    save(run, 50, second, best=True)
    before = {path: path.lstat() for path in run.checkpoints_dir.rglob("*")}
    with pytest.raises(RunError, match="was taken over"):
        save(run, 60, first, best=True)
    assert {path: path.lstat() for path in run.checkpoints_dir.rglob("*")}.keys() == before.keys()
    assert load_best(run.checkpoints_dir).state["step"] == 50


@pytest.mark.parametrize("at", range(1, 6))
def test_a_takeover_in_the_middle_of_a_save_ends_it_there(run, monkeypatch, at):
    first = take_over(run, 0)
    save(run, 40, first, best=True)
    looks, check = [], first.check

    def overtaken() -> None:
        looks.append(None)
        if len(looks) == at:
            take_over(run, 1, step=40)
        check()

    monkeypatch.setattr(first, "check", overtaken)
    with pytest.raises(RunError, match="was taken over"):
        save(run, 60, first, best=True)
    last, best = ((run.checkpoints_dir / name).readlink().name for name in ("last", "best"))
    assert (60 in steps_in(run)) == (at > 2)  # the second look is just before the rename
    assert last == ("step-00000060" if at > 3 else "step-00000040")
    assert best == ("step-00000060" if at > 4 else "step-00000040")
    assert load_last(run.checkpoints_dir).state["step"] == 40
    assert load_best(run.checkpoints_dir).state["step"] == 40


def test_a_process_whose_half_written_checkpoint_was_cleared_away_is_told_why(run, monkeypatch):
    # It slept while it wrote; the new one removed what a killed one would have left behind.
    first = take_over(run, 0)
    save(run, 40, first)

    def asleep(path: Path, _content: bytes) -> None:
        save(run, 50, take_over(run, 1, step=40))
        path.write_bytes(b"")

    with monkeypatch.context() as patch, pytest.raises(RunError, match="was taken over"):
        patch.setattr(generations, "write_file", Once(asleep, generations.write_file))
        save(run, 60, first)
    assert load_last(run.checkpoints_dir).state["step"] == 50


class Once:
    """Calls `first` the first time, then `always`."""

    def __init__(self, first, always) -> None:
        self.calls = iter([first])
        self.always = always

    def __call__(self, *arguments):
        return next(self.calls, self.always)(*arguments)


def test_log_lines_of_a_replaced_process_go_nowhere(run):
    old = LogFile(run.steps_log_path)
    for step in (1, 2, 3):
        old.append({"step": step})
    new = LogFile(run.steps_log_path)
    new.keep(lambda record: record["step"] <= 2)
    for step in (3, 4):
        old.append({"step": step, "by": "old"})
        new.append({"step": step, "by": "new"})
    lines = [json.loads(line) for line in run.steps_log_path.read_bytes().splitlines()]
    assert [(line["step"], line.get("by")) for line in lines] == [
        (1, None), (2, None), (3, "new"), (4, "new"),
    ]  # fmt: skip


# ---- the file and the scheduler ----------------------------------------------------------------


def test_a_changed_bit_of_generation_json_is_refused_with_what_to_do(run):
    with Lease.take(run) as lease:
        lease.take_over_at(0)
    whole = run.lease_path.read_bytes()
    said = Lineage.read(run.lease_path)
    num_refused, num_tried = 0, 300
    for bit in random.Random(0).sample(range(8 * len(whole)), num_tried):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        run.lease_path.write_bytes(damaged)
        try:
            assert Lineage.read(run.lease_path) == said
        except RunError:
            num_refused += 1
    assert num_refused > 0.8 * num_tried  # all but the indentation
    run.lease_path.write_bytes(whole.replace(b'"restart": 0', b'"restart": 1'))
    with pytest.raises(RunError, match=r"generation\.json is damaged: .*remove that file"):
        Lease.take(run)


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({}, (None, 0)),
        ({"SLURM_JOB_ID": "12"}, ("12", 0)),
        ({"SLURM_JOB_ID": "12", "SLURM_RESTART_COUNT": "2"}, ("12", 2)),
        ({"SLURM_RESTART_COUNT": "2"}, (None, 0)),
    ],
)
def test_the_scheduler_tells_the_job_and_its_restart(environment, told):
    assert slurm_job(environment) == told


def test_a_restart_count_that_is_no_number_is_refused():
    with pytest.raises(ConfigError, match=r"SLURM_RESTART_COUNT is 'x'; .*whole number"):
        slurm_job({"SLURM_JOB_ID": "12", "SLURM_RESTART_COUNT": "x"})
