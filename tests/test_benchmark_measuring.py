"""What `ml-core benchmark` measures: by a clock that waits, of real files, until memory ends."""

import multiprocessing
import os
import resource
import signal
import subprocess
import time
from dataclasses import asdict, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from tiny_pcam import make_patches, write_config, write_split, write_tiny_pcam

from ml_core.config import Config
from ml_core.data.layout import split_paths
from ml_core.data.patch_file import PatchFile
from ml_core.data.pcam import PCAMDataset
from ml_core.errors import ConfigError, DataError
from ml_core.numerics.arithmetic import arithmetic
from ml_core.pipeline.benchmarking.figures import AtBatch, Computing, Limit, Rate
from ml_core.pipeline.benchmarking.measuring import (
    child,
    computing,
    end_to_end,
    peak,
    reading_parts,
    warm_split,
)
from ml_core.pipeline.benchmarking.measuring.batch_sizes import measure_sizes
from ml_core.pipeline.benchmarking.measuring.byte_ranges import ByteRanges, read_ranges
from ml_core.pipeline.benchmarking.measuring.child import in_child
from ml_core.pipeline.benchmarking.measuring.computing import (
    measure_computing,
    variants_of,
    with_piece,
)
from ml_core.pipeline.benchmarking.measuring.device_faults import faults_told
from ml_core.pipeline.benchmarking.measuring.end_to_end import measure_end_to_end
from ml_core.pipeline.benchmarking.measuring.peak import measure_peak
from ml_core.pipeline.benchmarking.measuring.reading import measure_reading
from ml_core.pipeline.benchmarking.measuring.timing import latency_of, rate_from, rate_of
from ml_core.pipeline.benchmarking.measuring.transfer import measure_transfer
from ml_core.pipeline.benchmarking.measuring.work_on_batch import WorkOnBatch
from ml_core.pipeline.parts.splits import open_split
from ml_core.pipeline.parts.training_parts import build_trainer

CPU = torch.device("cpu")
SOON = 0.02  # seconds: enough to go through everything once
NAP = 0.03  # planted in a reader, whose own work here takes a thousandth of a second


class Clock:
    """A clock that only work moves."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def work(self, *seconds, patches=8):
        """Return a work that takes these times in turn, and the last of them for ever."""
        left = list(seconds)

        def work():
            self.now += left.pop(0) if len(left) > 1 else left[0]
            return patches

        return work


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def config(tmp_path):
    return load_config(tmp_path)


def load_config(tmp_path, *overrides, num_train=96):
    if not (tmp_path / "data").is_dir():
        write_tiny_pcam(tmp_path / "data", num_train=num_train)
    return Config.load(write_config(tmp_path / "config.yaml", tmp_path / "data"), overrides)


def own_variant(config):
    return variants_of(config, CPU)[0]


# ---- the clock -----------------------------------------------------------------------------------


def test_a_rate_is_patches_over_seconds_with_the_middle_half(clock):
    assert rate_of(clock.work(0.1), device=CPU, budget_s=2.0, clock=clock).median == approx(80)
    rate = rate_from([(8, 1.0), (8, 2.0), (8, 4.0), (8, 8.0), (8, 8.0)])
    assert asdict(rate) == {"median": 2.0, "low": 1.0, "high": 4.0, "num": 5}


def approx(value):
    return pytest.approx(value, rel=1e-6)


def test_what_is_slow_because_it_is_new_is_not_timed(clock):
    rate = rate_of(clock.work(3.0, 1.0, 0.5, 0.1), device=CPU, budget_s=40.0, clock=clock)
    assert (rate.low, rate.high) == approx((80, 80))


def test_warming_up_ends_with_a_quarter_of_the_budget(clock):
    rates = iter(range(10_000))
    jumpy = clock.work(*(1.0 if next(rates) % 2 else 2.0 for _ in range(500)))
    rate = rate_of(jumpy, device=CPU, budget_s=40.0, clock=clock)
    assert 19 <= rate.num <= 21  # of 30 s, at 1.5 s each


def test_five_pieces_are_timed_whatever_the_budget_and_three_of_long_ones(clock):
    assert rate_of(clock.work(1.0), device=CPU, budget_s=3.0, clock=clock).num == 5
    assert rate_of(clock.work(30.0), device=CPU, budget_s=3.0, clock=clock).num == 3


def test_calls_too_short_for_the_clock_are_timed_together(clock):
    rate = rate_of(clock.work(0.001), device=CPU, budget_s=1.0, clock=clock)
    assert rate.median == approx(8000)
    assert 20 < rate.num < 50  # pieces of 32 calls: of one call each there were a thousand


def test_the_clock_is_read_when_the_device_is_done(clock, monkeypatch):
    queue = []

    def wait(device):
        while queue:
            clock.now += queue.pop()

    def launch():
        queue.append(0.1)
        return 8

    monkeypatch.setattr(torch.cuda, "synchronize", wait)
    cuda = torch.device("cuda")
    assert rate_of(launch, device=cuda, budget_s=3.0, clock=clock).median == approx(80)
    assert latency_of(launch, device=cuda, budget_s=3.0, clock=clock).p50 == approx(0.1)


def test_latency_is_that_of_single_calls_with_the_rare_slow_ones(clock):
    seconds = [0.001] * 8 + [*([0.001] * 49), 0.1] * 20
    latency = latency_of(clock.work(*seconds), device=CPU, budget_s=2.5, clock=clock)
    assert (latency.p50, latency.p95, latency.p99) == approx((0.001, 0.001, 0.1))


# ---- a process of its own ------------------------------------------------------------------------


def count_and(report, end):
    for number in range(3):
        report(number)
    if end == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if end == "exit":
        os._exit(7)
    if isinstance(end, Exception):
        raise end


@pytest.mark.parametrize(
    ("end", "why"),
    [
        ("", ""),
        ("killed", "killed, by the system for want of memory or by somebody"),
        ("exit", "ended by itself, with exit status 7"),
        (MemoryError(), "MemoryError"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "CUDA out of memory. Tried"),
        (RuntimeError("CUDA error: the launch failed\nhints"), "CUDA error: the launch failed"),
    ],
)
def test_what_a_child_reported_is_there_however_it_ends(end, why):
    told = []
    assert in_child(count_and, end, on_report=told.append) == ([0, 1, 2], why)
    assert told == [0, 1, 2]


def fall_silent(report):
    report(os.getpid())
    time.sleep(60)


def test_a_child_that_hangs_is_ended(monkeypatch):
    in_child(count_and, "")  # the process that children are forked from is there
    monkeypatch.setattr(child, "SILENT_S", 2.0)
    (pid,), why = in_child(fall_silent)
    assert why == "it said nothing for 2 s and was ended"
    assert not Path(f"/proc/{pid}").exists()


def test_a_users_mistake_in_a_child_is_raised_and_so_is_ours():
    with pytest.raises(DataError, match="the file is gone"):
        in_child(count_and, DataError("the file is gone"))
    with pytest.raises(RuntimeError, match=r"count_and[\s\S]*KeyError"):
        in_child(count_and, KeyError("ours"))


def test_a_gpu_that_goes_while_this_process_measures_is_told_in_words():
    cuda = torch.device("cuda:0")
    lost = r"cuda:0 does not answer.*GPU is lost\. See whether nvidia-smi"
    with pytest.raises(ConfigError, match=lost), faults_told("a batch", cuda):
        raise RuntimeError("CUDA error: GPU is lost\nCUDA kernel errors might be ...")
    too_large = r"a batch does not fit.*data\.batch_size lower"
    with pytest.raises(ConfigError, match=too_large), faults_told("a batch", cuda):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")


# ---- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [None, (1, 96, 96, 3), (8, 48, 96, 3)])
def test_the_stored_bytes_of_patches_are_found_each_once(tmp_path, chunks):
    path, patches = tmp_path / "x.h5", make_patches(np.arange(20) % 2)
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_dataset("x", data=patches, chunks=chunks)
    ranges = ByteRanges(PatchFile(path)).of(np.array([9, 3, 4, 9]))
    rows = [3, 4, 9] if chunks in (None, (1, 96, 96, 3)) else range(16)  # two chunks of eight
    assert sum(each.size for each in ranges) == len(rows) * patches[0].nbytes
    stored = b"".join(path.read_bytes()[each.start : each.start + each.size] for each in ranges)
    assert sorted(stored) == sorted(patches[list(rows)].tobytes())
    with path.open("rb") as file:
        assert read_ranges(file.fileno(), ranges) == len(stored)


def test_no_bytes_are_made_up_for_patches_that_lie_in_another_file(tmp_path):
    layout = h5py.VirtualLayout((4, 96, 96, 3), "u1")
    with h5py.File(tmp_path / "there.h5", "w") as there:
        there["x"] = make_patches(np.arange(4) % 2)
        layout[:] = h5py.VirtualSource(there["x"])
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_virtual_dataset("x", layout)
    with pytest.raises(LookupError, match="virtual"):
        ByteRanges(PatchFile(tmp_path / "x.h5"))


def test_a_reading_has_every_number_of_readers_and_ends_them(tmp_path, monkeypatch):
    monkeypatch.setattr("ml_core.pipeline.benchmarking.measuring.reading.num_cores", lambda: 2)
    reading = measure_reading(load_config(tmp_path, "data.num_workers=1"), {}, budget_s=SOON)
    assert list(reading.by_workers) == [0, 1, 2]
    assert reading.warm == reading.by_workers[1]
    assert list(reading.parts) == ["stored", "decoded", "rest"]
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("owner", "method", "part"),
    [(PatchFile, "read", "decoded"), (PCAMDataset, "__getitems__", "rest")],
)
def test_a_reader_that_sleeps_is_not_busy_and_the_sleep_is_in_its_part(
    config, monkeypatch, owner, method, part
):
    real = getattr(owner, method)
    monkeypatch.setattr(owner, method, lambda *args: (time.sleep(NAP), real(*args))[1])
    monkeypatch.setattr("ml_core.pipeline.benchmarking.measuring.reading.num_cores", lambda: 1)
    monkeypatch.setattr(reading_parts, "_computing_s", time.thread_time)  # without other work here
    reading = measure_reading(config, {}, budget_s=SOON)
    assert reading.busy < 0.5
    assert reading.parts[part] > NAP * 0.9
    assert max(value for name, value in reading.parts.items() if name != part) < NAP


def test_patches_held_in_memory_have_no_parts_no_other_readers_and_no_cold_read(tmp_path, said):
    reading = measure_reading(load_config(tmp_path, "data.placement=ram"), {}, budget_s=SOON)
    assert list(reading.by_workers) == [0]
    assert (reading.parts["stored"], reading.parts["decoded"]) == (0, 0)
    assert (reading.cold, "read once" in reading.cold_failed) == (None, True)
    assert "not measured" not in said.text  # as if somebody had asked for readers


def test_a_cold_read_comes_off_the_disk(tmp_path):
    kind = subprocess.run(["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True)
    if kind.stdout.strip() in ("tmpfs", "ramfs"):
        pytest.skip(f"needs a disk: {tmp_path} is in memory")
    reading = measure_reading(load_config(tmp_path, "data.batch_size=16"), {}, budget_s=SOON)
    assert reading.cold is not None
    assert reading.cold.median > 0
    assert reading.cold_failed == ""


def test_a_large_file_is_read_in_part_before_it_is_measured_and_a_huge_one_as_it_is(
    config, monkeypatch
):
    monkeypatch.setattr(warm_split, "MOST_PATCHES", 32)
    read = []
    real = PatchFile.read_raw
    monkeypatch.setattr(
        PatchFile, "read_raw", lambda self, rows: (read.append(len(rows)), real(self, rows))[1]
    )
    assert len(warm_split.open_as_later(config, {})) == 32
    assert sum(read) == 32
    monkeypatch.setattr(warm_split, "free_memory", lambda: 1000)
    assert len(warm_split.open_as_later(config, {})) == 96
    assert sum(read) == 32


def test_what_lies_in_memory_cannot_be_read_cold_and_that_is_said(tmp_path, small_disk):
    write_split(small_disk, "train", make_patches([0, 1, 0, 1]), np.array([0, 1, 0, 1]))
    in_ram = Config.load(write_config(tmp_path / "ram.yaml", small_disk))
    reading = measure_reading(in_ram, {}, budget_s=SOON)
    assert reading.cold is None
    assert "keeps the file in memory whatever it is told: 100% of the pages" in reading.cold_failed


# ---- computing -----------------------------------------------------------------------------------


def test_the_configs_own_way_is_first_and_each_other_changes_one_thing(tmp_path):
    own, *others = variants_of(load_config(tmp_path, "training.num_threads=1"), CPU)
    assert asdict(own) == {
        "device": "cpu", "precision": "fp32", "layout": "channels_last", "compiled": False,
        "threads": 1,
    }  # fmt: skip
    changes = [asdict(other).items() - asdict(own).items() for other in others]
    assert {len(change) for change in changes} == {1}
    assert {name for change in changes for name, _ in change} >= {"precision", "layout", "compiled"}
    assert variants_of(load_config(tmp_path, "training.numerics=portable"), CPU)[0].precision == (
        "exact"
    )


@pytest.mark.parametrize(
    ("work", "change", "why"),
    [
        ("forward", {"precision": "tf32"}, "TF32 is arithmetic of a GPU"),
        ("train step", {"precision": "fp16"}, "no training is offered in fp16"),
        ("forward", {"precision": "exact", "compiled": True}, "exact arithmetic is not compiled"),
        ("train step", {"compiled": True}, "no training is offered compiled"),
    ],
)
def test_a_way_that_cannot_be_had_says_why(config, work, change, why):
    found = measure_computing(
        config, work, replace(own_variant(config), **change), [8], budget_s=SOON
    )
    assert why in found.failed
    assert found.at == ()


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_forward_pass_is_measured_from_small_to_large_batches(config, precision):
    told = []
    variant = replace(own_variant(config), precision=precision)
    found = measure_computing(
        config, "forward", variant, [16, 2], budget_s=SOON, report=told.append
    )
    assert [each.batch_size for each in found.at] == [2, 16]
    assert found.latency.num >= 20
    assert (found.limit, found.failed) == (None, "")
    assert told[-1] == found
    assert [len(each.at) for each in told] == [0, 1, 2]


@pytest.mark.parametrize(
    ("numerics", "precision"),
    [("fast", "bf16"), ("elastic", "fp32"), ("portable", "exact"), ("portable", "fp32")],
)
def test_a_training_step_is_measured_at_every_level(tmp_path, numerics, precision):
    config = load_config(tmp_path, f"training.numerics={numerics}", "training.num_threads=1")
    variant = replace(own_variant(config), precision=precision)
    found = measure_computing(config, "train step", variant, [4], budget_s=SOON)
    assert (len(found.at), found.latency, found.failed) == (1, None, "")


def say_threads(report, *arguments):
    measure_sizes(lambda _: None, *arguments)
    report(torch.get_num_threads())


def test_a_variant_has_the_threads_it_is_named_by(config):
    for threads in (1, 2):
        variant = replace(own_variant(config), threads=threads)
        assert in_child(say_threads, config, "forward", variant, (2,), SOON) == ([threads], "")


def test_tf32_and_fp16_are_in_force_inside_and_nothing_stays_of_them():
    def in_force():
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    torch.backends.cudnn.allow_tf32 = False
    try:
        with arithmetic("tf32", "cuda"):
            assert in_force() == ("high", True)
        assert in_force() == ("highest", False)
    finally:
        torch.backends.cudnn.allow_tf32 = True  # torch's default
    with arithmetic("fp16", "cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float16
    with pytest.raises(ValueError, match="unknown precision 'fp8'; allowed: fp32, bf16"):
        arithmetic("fp8", "cpu")


def test_steps_are_taken_on_real_patches_and_change_no_weight(config):
    patches = WorkOnBatch(config, own_variant(config))
    before = {name: value.clone() for name, value in patches.model.state_dict().items()}
    step = patches.prepare("train step", 8)
    assert [step(), step()] == [8, 8]
    after = patches.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    with h5py.File(split_paths(config.data.data_path, "train").x) as file:
        real = {patch.tobytes() for patch in file["x"]}
    images = patches._batch(200).images.permute(0, 2, 3, 1)
    assert {patch.contiguous().numpy().tobytes() for patch in images} == real


def with_little_memory(report, *arguments):
    """As `measure_sizes`, where the process may have 300 MB more than it has."""
    now = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (now + 300 * 2**20,) * 2)
    measure_sizes(report, *arguments)


@pytest.mark.parametrize("work", ["forward", "train step"])
def test_a_batch_that_memory_does_not_hold_is_the_limit(config, work):
    variant = own_variant(config)
    pieces, why = in_child(with_little_memory, config, work, variant, (4, 65_536), SOON)
    assert why == ""
    found = Computing(work, variant)
    for piece in pieces:
        found = with_piece(found, piece)
    assert [each.batch_size for each in found.at] == [4]
    assert found.limit.batch_size == 65_536
    assert "allocate" in found.limit.why
    pieces, _ = in_child(with_little_memory, config, work, variant, (65_536,), SOON)
    limit = pieces[-1]
    assert (limit.batch_size, "allocate" in limit.why) == (65_536, True)  # the first size as well


def test_a_batch_that_would_not_fit_is_not_tried(config):
    found = measure_computing(
        config, "forward", own_variant(config), [64, 256, 2**40], budget_s=SOON
    )
    assert [each.batch_size for each in found.at] == [64, 256]
    assert found.at[1].memory > found.at[0].memory >= 0
    assert found.limit.batch_size == 2**40
    assert "GB that are free" in found.limit.why


def killed_at_the_second(report, config, work, variant, sizes, budget_s):
    report(AtBatch(sizes[0], Rate(1.0, 1.0, 1.0, 5), None))
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_size_at_which_the_system_kills_is_the_limit(config, monkeypatch):
    monkeypatch.setattr(computing, "measure_sizes", killed_at_the_second)
    found = measure_computing(config, "forward", own_variant(config), [8, 4], budget_s=SOON)
    assert found.limit == Limit(8, "killed, by the system for want of memory or by somebody")
    assert [each.batch_size for each in found.at] == [4]


def without_compiler(report, *arguments):
    os.environ.update(CXX="/nowhere/c++", PATH="", TORCHINDUCTOR_CACHE_DIR="")
    measure_sizes(report, *arguments)


@pytest.mark.slow
def test_without_a_compiler_compiled_is_told_and_the_rest_is_measured(config, tmp_path):
    compiled = replace(own_variant(config), compiled=True)
    pieces, why = in_child(without_compiler, config, "forward", compiled, (4,), SOON)
    assert (len(pieces), why) == (1, "")
    assert "ompiler" in pieces[0]


def test_a_gpu_that_is_gone_is_a_users_error_and_one_that_answers_has_a_limit(config, monkeypatch):
    on_gpu = replace(own_variant(config), device="cuda:0")
    with pytest.raises(ConfigError, match="sees 0 GPUs"):
        measure_computing(config, "forward", on_gpu, [8], budget_s=SOON)
    ends = iter(["CUDA error: GPU is lost", "CUDA error: GPU is lost", "CUDA error: assert", ""])
    monkeypatch.setattr(computing, "in_child", lambda *_, on_report=None: ([], next(ends)))
    with pytest.raises(ConfigError, match=r"cuda:0 does not answer.*GPU is lost"):
        measure_computing(config, "forward", on_gpu, [8], budget_s=SOON)
    found = measure_computing(config, "forward", on_gpu, [8], budget_s=SOON)
    assert found.limit == Limit(8, "CUDA error: assert")


def test_data_that_cannot_be_read_are_told_and_not_a_limit(config):
    split_paths(config.data.data_path, "train").x.unlink()
    with pytest.raises(DataError, match="train_x"):
        measure_computing(config, "forward", own_variant(config), [8], budget_s=SOON)
    for measure in (measure_reading, measure_end_to_end):
        with pytest.raises(DataError, match="train_x"):
            measure(config, {}, budget_s=SOON)


# ---- the training, the device --------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["one_cycle", "plateau"])
def test_end_to_end_leaves_nothing_behind_and_no_step_diverges(tmp_path, schedule):
    config = load_config(
        tmp_path,
        "optimizer.lr=1e6",
        f"scheduler.name={schedule}",
        "training.accumulate_steps=2",
    )
    before = sorted(tmp_path.rglob("*"))
    found = measure_end_to_end(config, {}, budget_s=SOON)
    assert sorted(set(tmp_path.rglob("*")) - set(before)) == [config.output_dir]
    assert found.training.median > 0
    assert found.in_memory.median > 0
    assert 0 <= found.waited < 1


@pytest.mark.parametrize("schedule", ["one_cycle", "plateau"])
def test_a_training_that_is_held_still_changes_no_weight(tmp_path, schedule):
    config = load_config(tmp_path, f"scheduler.name={schedule}")
    trainer, loader = build_trainer(config, open_split(config, "train", {}), CPU)
    end_to_end.hold_still(trainer)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    for batch in loader:
        trainer.train_step([batch])
    after = trainer.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_training_that_waits_is_seen_to_and_other_numbers_of_readers_are_tried(
    config, monkeypatch
):
    real = PCAMDataset.__getitems__
    monkeypatch.setattr(
        PCAMDataset, "__getitems__", lambda *args: (time.sleep(0.1), real(*args))[1]
    )
    monkeypatch.setattr("ml_core.pipeline.benchmarking.measuring.end_to_end.num_cores", lambda: 2)
    found = measure_end_to_end(config, {}, budget_s=SOON)
    assert found.waited > 0.5
    assert found.in_memory.median > found.training.median
    assert list(found.by_workers) == [0, 1, 2]
    assert multiprocessing.active_children() == []


def test_rows_that_a_run_leaves_out_are_left_out(config, monkeypatch):
    seen = set()
    real = PCAMDataset.__getitems__

    def note(self, positions):
        seen.update(self.indices[positions].tolist())
        return real(self, positions)

    monkeypatch.setattr(PCAMDataset, "__getitems__", note)
    excluded = {"train": np.arange(10)}
    measure_end_to_end(config, excluded, budget_s=SOON)
    measure_reading(config, excluded, budget_s=SOON)
    assert seen
    assert min(seen) == 10


def test_a_cpu_has_no_transfer(config):
    assert measure_transfer(config, CPU, budget_s=SOON) is None


@pytest.mark.parametrize("precision", ["fp32", "bf16", "exact"])
def test_the_peak_counts_operations_and_bytes(monkeypatch, precision):
    seen = []

    def once(work, *, device, budget_s):
        seen.append(work())
        return Rate(1.0, 1.0, float(seen[-1]), 5)

    monkeypatch.setattr(peak, "CPU_SIZE", 64)
    monkeypatch.setattr(peak, "COPY_BYTES", 1 << 20)
    monkeypatch.setattr(peak, "rate_of", once)
    found = measure_peak(CPU, precision, budget_s=SOON)
    assert (found.flops, found.bytes) == (2 * 64**3, 2 << 20)
