"""Checkpoints: whole or not there, verified before use, and exact."""

import json
import os
import pickle
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from ml_core.checkpoint import (
    MANIFEST_FILE,
    MODEL_FILE,
    OPTIMIZER_FILE,
    STATE_FILE,
    load_best,
    load_checkpoint,
    load_last,
    load_optimizer_state,
    save_checkpoint,
    sha256_of,
)
from ml_core.errors import CheckpointError, RunError
from ml_core.lease import Lease
from ml_core.runs import RunDir

FILES = (MODEL_FILE, OPTIMIZER_FILE, STATE_FILE, MANIFEST_FILE)


class Net(nn.Module):
    """Kernels in channels-last memory, a 1x1 kernel, a norm with buffers, a scalar."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Flatten()
        )
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.to(memory_format=torch.channels_last)

    def forward(self, images):
        return self.net(images).mean(dim=1) * self.scale


OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1 / 3, betas=(0.87, 0.9991)),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3, weight_decay=0.1),
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, nesterov=True),
}


def take_steps(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(4, 3, 6, 6, generator=generator)
        optimizer.zero_grad()
        model(images.to(memory_format=torch.channels_last)).square().sum().backward()
        optimizer.step()


def make(name: str = "adamw", steps: int = 0) -> tuple[Net, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = Net()
    optimizer = OPTIMIZERS[name](model.parameters())
    take_steps(model, optimizer, range(steps))
    return model, optimizer


def save(
    directory: Path, step: int, best: bool = False, lease: Lease | None = None, **state
) -> Path:
    model, optimizer = make(steps=1)
    return save_checkpoint(
        directory,
        step,
        model=model,
        model_spec={"name": "net"},
        optimizer=optimizer,
        state={"step": step, **state},
        best=best,
        lease=lease,
    )


def generations(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("step-*"))


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# ---- what comes back ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_from_a_checkpoint_to_the_same_bits(tmp_path, name):
    straight, optimizer = make(name, steps=6)

    stopped, stopped_optimizer = make(name, steps=3)
    state = {"loss": 0.1 + 0.2, "best": None, "inf": float("inf")}
    path = save_checkpoint(
        tmp_path,
        3,
        model=stopped,
        model_spec={"name": "net", "options": {"widths": [8]}},
        optimizer=stopped_optimizer,
        state=state,
        best=True,
    )
    checkpoint = load_checkpoint(path)
    assert checkpoint.state == state
    assert checkpoint.model_spec == {"name": "net", "options": {"widths": [8]}}
    assert checkpoint.weights_sha256 == sha256_of(path / MODEL_FILE)
    resumed, resumed_optimizer = make(name)
    resumed.load_state_dict(checkpoint.model_state)
    load_optimizer_state(resumed_optimizer, checkpoint.optimizer_state)
    take_steps(resumed, resumed_optimizer, range(3, 6))

    for ours, theirs in zip(resumed.parameters(), straight.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        mine, other = resumed_optimizer.state[ours], optimizer.state[theirs]
        assert mine.keys() == other.keys()
        for key in mine:
            assert torch.equal(mine[key], other[key]) and mine[key].dtype == other[key].dtype
            assert mine[key].stride() == other[key].stride(), key
    buffers = zip(resumed.buffers(), straight.buffers(), strict=True)
    assert all(torch.equal(a, b) for a, b in buffers)
    for group, other in zip(resumed_optimizer.param_groups, optimizer.param_groups, strict=True):
        assert {k: v for k, v in group.items() if k not in ("params", "betas")} == {
            k: v for k, v in other.items() if k not in ("params", "betas")
        }
        assert tuple(group.get("betas", ())) == other.get("betas", ())


def test_kernels_keep_their_channels_last_moments(tmp_path):
    save(tmp_path, 1)
    model, optimizer = make()
    load_optimizer_state(optimizer, load_last(tmp_path).optimizer_state)
    kernel = model.net[0].weight
    moment = optimizer.state[kernel]["exp_avg"]
    assert moment.is_contiguous(memory_format=torch.channels_last)
    assert not moment.is_contiguous()


def test_a_model_without_optimizer_and_one_with_tied_weights_can_be_saved(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    save_checkpoint(tmp_path, 1, model=model, model_spec={}, optimizer=None, state={}, best=False)
    checkpoint = load_last(tmp_path)
    assert checkpoint.optimizer_state == {"state": {}, "param_groups": []}
    model.load_state_dict(checkpoint.model_state)


# ---- links and generations ---------------------------------------------------------------------


def test_last_and_best_point_at_what_they_say(tmp_path):
    for step, best in [(1, False), (2, True), (3, False)]:
        save(tmp_path, step, best=best)
    assert load_last(tmp_path).state["step"] == 3
    assert load_best(tmp_path).state["step"] == 2
    assert load_checkpoint(tmp_path / "last").state["step"] == 3


def test_old_generations_go_and_the_best_of_each_kept_one_stays(tmp_path):
    for step in range(1, 8):
        save(tmp_path, step, best=step == 2)
    assert generations(tmp_path) == [f"step-{step:08d}" for step in (2, 4, 5, 6, 7)]
    assert load_best(tmp_path).state["step"] == 2
    save(tmp_path, 8, best=True)  # should it be damaged, 2 is again the best
    assert generations(tmp_path) == [f"step-{step:08d}" for step in (2, 5, 6, 7, 8)]
    for step in (9, 10, 11):
        save(tmp_path, step)
    assert generations(tmp_path) == [f"step-{step:08d}" for step in (2, 8, 9, 10, 11)]
    save(tmp_path, 12)
    assert generations(tmp_path) == [f"step-{step:08d}" for step in (8, 9, 10, 11, 12)]


def test_the_directory_can_be_moved(tmp_path):
    save(tmp_path / "here", 1, best=True)
    links = [tmp_path / "here" / name for name in ("best", "last")]
    assert not any(link.readlink().is_absolute() for link in links)
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert load_best(tmp_path / "there").state["step"] == 1


@pytest.mark.parametrize("links", ["as folders", "left out"])
def test_a_run_copied_by_a_tool_without_links_is_scored_and_goes_on(tmp_path, links):
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    with Lease.take(run) as lease:
        lease.take_over_at(0)
        for step in (1, 2, 3):
            save(run.checkpoints_dir, step, best=step == 2, lease=lease)
    copy = RunDir(tmp_path / "copy")
    shutil.copytree(run.path, copy.path, symlinks=links == "left out")
    if links == "left out":
        (copy.checkpoints_dir / "best").unlink()
        (copy.checkpoints_dir / "last").unlink()
    assert load_best(copy.checkpoints_dir).path.name == "step-00000002"
    assert load_last(copy.checkpoints_dir).path.name == "step-00000003"
    save(copy.checkpoints_dir, 4)
    names = ["best", "last", *(f"step-{step:08d}" for step in (1, 2, 3, 4))]
    assert names_in(copy.checkpoints_dir) == names
    assert (copy.checkpoints_dir / "best").readlink().name == "step-00000002"
    assert (copy.checkpoints_dir / "last").readlink().name == "step-00000004"


def test_a_run_that_was_moved_away_is_not_begun_anew_where_it_was(tmp_path):
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    with Lease.take(run) as lease:
        lease.take_over_at(0)
        save(run.checkpoints_dir, 1, lease=lease)
        run.path.rename(tmp_path / "elsewhere")
        with pytest.raises(RunError, match=r"generation\.json is gone"):
            save(run.checkpoints_dir, 2, lease=lease)
    assert not run.path.exists()


def test_the_same_step_can_be_saved_again(tmp_path):
    save(tmp_path, 1, best=True, take=1)
    save(tmp_path, 1, take=2)
    assert load_last(tmp_path).state["take"] == 2
    assert load_best(tmp_path).state["take"] == 2
    assert names_in(tmp_path) == ["best", "last", "step-00000001"]


def test_a_step_that_was_the_best_is_so_when_it_is_saved_again(tmp_path):
    # A checkpoint in mid-epoch falls on the end of an epoch that was once saved as the best.
    for step in (1, 2):
        save(tmp_path, step, best=True)
    save(tmp_path, 2)
    assert load_last(tmp_path).is_best
    assert load_best(tmp_path).state["step"] == 2


def test_a_save_at_an_earlier_step_does_not_drop_itself(tmp_path):
    for step in (10, 20, 30, 40, 50):
        save(tmp_path, step)
    save(tmp_path, 13)
    assert "step-00000013" in generations(tmp_path)


def test_what_a_killed_save_left_behind_is_removed_by_the_next(tmp_path):
    for name in (".step-00000001.tmp", ".step-00000002.alone.new.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / MODEL_FILE).write_bytes(b"half")
    (tmp_path / ".last.tmp").symlink_to("step-00000000")
    save(tmp_path, 2)
    assert names_in(tmp_path) == ["last", "step-00000002"]


def test_a_best_checkpoint_whose_save_was_killed_before_the_link_gets_it_on_resume(
    tmp_path, monkeypatch
):
    # Else the resumed run would believe in epoch 2's score and hand out epoch 1's weights.
    save(tmp_path, 1, best=True)

    def killed(*_arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("ml_core.checkpoint.generations._Writer.point", killed)
        save(tmp_path, 2, best=True)
    assert load_best(tmp_path).state["step"] == 1
    assert load_last(tmp_path).is_best
    assert load_best(tmp_path).state["step"] == 2


def test_where_the_best_is_damaged_best_is_what_it_was_at_the_checkpoint_before(tmp_path):
    # Else a run that is stopped again before it gets there would have no best checkpoint at all.
    save(tmp_path, 1, best=True)
    for step in (2, 3, 4):
        save(tmp_path, step, best=step == 4)
    (tmp_path / "step-00000004" / MODEL_FILE).write_bytes(b"")
    assert load_last(tmp_path).state["step"] == 3
    assert load_best(tmp_path).state["step"] == 1


# ---- damage ------------------------------------------------------------------------------------


def test_one_flipped_bit_anywhere_is_found_and_the_generation_before_is_used(tmp_path, caplog):
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    rng = random.Random(0)
    for name in FILES:
        file = newest / name
        whole = file.read_bytes()
        for _ in range(60):
            damaged = bytearray(whole)
            damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
            file.write_bytes(damaged)
            with pytest.raises(CheckpointError, match=newest.name):
                load_checkpoint(newest)
        caplog.clear()
        assert load_last(tmp_path).state["step"] == 1
        assert newest.name in caplog.text and "Trying the checkpoint before it" in caplog.text
        file.write_bytes(whole)
    assert load_last(tmp_path).state["step"] == 2


def test_every_bit_of_the_manifest_before_its_digests_counts(tmp_path):
    path = save(tmp_path, 1)
    whole = (path / MANIFEST_FILE).read_bytes()
    for bit in range(8 * whole.index(b".safetensors")):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        (path / MANIFEST_FILE).write_bytes(damaged)
        with pytest.raises(CheckpointError):
            load_checkpoint(path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "longer", "folder", "unreadable"])
def test_a_file_that_is_not_what_was_written_is_named(tmp_path, name, damage):
    path = save(tmp_path, 1)
    file = path / name
    content = file.read_bytes()
    file.unlink()
    if damage == "empty":
        file.write_bytes(b"")
    elif damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "longer":
        file.write_bytes(content + b"\0")
    elif damage == "folder":
        file.mkdir()
    elif damage == "unreadable":
        file.symlink_to("/proc/self/mem")  # reading it fails as a bad disk does
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "manifest", [[], {}, {"sha256": {}}, {"format": 1}, {"format": 1, "sha256": {}}, None]
)
def test_a_manifest_that_lists_nothing_vouches_for_nothing(tmp_path, manifest):
    path = save(tmp_path, 1)
    (path / MANIFEST_FILE).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError):
        load_checkpoint(path)


def test_a_checkpoint_of_another_format_is_refused_as_such(tmp_path):
    path = save(tmp_path, 1)
    manifest = json.loads((path / MANIFEST_FILE).read_text())
    (path / MANIFEST_FILE).write_text(json.dumps({**manifest, "format": 2}))
    with pytest.raises(CheckpointError, match="has format 2; this version reads format 1"):
        load_checkpoint(path)


class Planted:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", [MODEL_FILE, OPTIMIZER_FILE])
@pytest.mark.parametrize("manifest_follows", [False, True])
def test_a_planted_pickle_is_never_unpickled(tmp_path, name, manifest_follows):
    path = save(tmp_path / "checkpoints", 1)
    touched = tmp_path / "touched"
    torch.save(Planted(touched), path / name)
    if manifest_follows:
        manifest = json.loads((path / MANIFEST_FILE).read_text())
        manifest["sha256"][name] = sha256_of(path / name)
        (path / MANIFEST_FILE).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError):
        load_last(tmp_path / "checkpoints")
    assert not touched.exists()
    pickle.loads(pickle.dumps(Planted(touched)))
    assert touched.exists()  # the trap works


def test_without_any_whole_checkpoint_there_is_a_clear_error(tmp_path):
    with pytest.raises(CheckpointError, match="holds no checkpoint; the run ended before"):
        load_last(tmp_path)
    with pytest.raises(CheckpointError, match=r"there is no checkpoint .*best"):
        load_best(tmp_path)
    for step in (1, 2):
        (save(tmp_path, step) / STATE_FILE).unlink()
    with pytest.raises(CheckpointError, match=r"every checkpoint in .* is damaged"):
        load_last(tmp_path)


# ---- crashes -----------------------------------------------------------------------------------

KILL_SAVERS = """
import os, random, signal, sys, time, logging
from pathlib import Path
import torch
from ml_core.checkpoint import load_best, load_last, save_checkpoint

directory = Path(sys.argv[1])
rng = random.Random(0)
torch.set_num_threads(1)
model = torch.nn.Linear(300, 300)
optimizer = torch.optim.AdamW(model.parameters())
model(torch.ones(1, 300)).sum().backward()
optimizer.step()

def save(step):
    save_checkpoint(
        directory, step, model=model, model_spec={}, optimizer=optimizer,
        state={"step": step}, best=step % 4 == 1,
    )

step = 1
save(step)
started = time.monotonic()
save(step)
seconds = time.monotonic() - started  # of a save, on this machine as busy as it is
for _ in range(15):
    child = os.fork()
    while child == 0:
        step += 1
        save(step)
    time.sleep(seconds * (1 + 4 * rng.random()))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    step = load_last(directory).state["step"]
    best = load_best(directory).state["step"]
    assert best == max(s for s in range(step + 1) if s % 4 == 1), (step, best)
print(step)
"""


def test_fifteen_kills_in_the_middle_of_saving_leave_a_whole_last_and_the_right_best(tmp_path):
    killing = [sys.executable, "-c", KILL_SAVERS, str(tmp_path / "checkpoints")]
    done = subprocess.run(killing, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no warning: nothing damaged had to be passed over
    assert int(done.stdout) > 1  # some saves came through, however slow the machine


def test_a_full_disk_is_an_os_error_and_loses_no_checkpoint(small_disk):
    kept = []
    with pytest.raises(OSError, match="No space left on device"):
        for step in range(1, 100):
            save(small_disk, step, best=step == 1, padding="x" * 40_000)
            kept.append(step)
    assert kept
    assert generations(small_disk) == [f"step-{step:08d}" for step in kept]
    assert load_last(small_disk).state["step"] == kept[-1]
    assert load_best(small_disk).state["step"] == 1
    assert names_in(small_disk) == ["best", "last", *generations(small_disk)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_an_os_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        save(tmp_path, 1)
