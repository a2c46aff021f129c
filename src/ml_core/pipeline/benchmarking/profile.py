"""Which operations of a training take its time: a trace to look at, and the costliest in words."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity

from ml_core.config import Config
from ml_core.data.patch_file import Rows
from ml_core.page.text import percent
from ml_core.pipeline.benchmarking.measuring.reading import endless
from ml_core.pipeline.parts.device import choose_device
from ml_core.pipeline.parts.splits import open_split
from ml_core.pipeline.parts.training_parts import build_trainer
from ml_core.runs import write_text
from ml_core.selection.tables import render_table
from ml_core.solver.batches import grouped

TRACE, SUMMARY = "trace.json.gz", "summary.txt"
WARM_UP, RECORDED = 3, 5  # steps; a trace of more takes a browser minutes to open
MOST_SHOWN = 10

# What torch calls the operations that a training is mostly made of, in the words of the model.
IN_WORDS = {
    "aten::mkldnn_convolution": "convolution",
    "aten::cudnn_convolution": "convolution",
    "aten::_slow_conv2d_forward": "convolution",
    "aten::convolution_backward": "convolution, backward",
    "aten::mkldnn_linear": "linear layer",
    "aten::addmm": "linear layer",
    "aten::mm": "product of matrices: linear layers, backward",
    "aten::native_group_norm": "group norm",
    "aten::native_group_norm_backward": "group norm, backward",
    "aten::clamp_min": "ReLU",
    "aten::clamp_min_": "ReLU",
    "aten::threshold_backward": "ReLU, backward",
    "aten::copy_": "copies: other type, memory format or device",
    "aten::fill_": "filling with a number",
    "aten::zero_": "filling with zeros",
    "aten::add": "sums",
    "aten::add_": "sums in place: gradients, residuals",
    "aten::sum": "sums over a tensor",
    "aten::avg_pool2d": "average pooling",
    "aten::avg_pool2d_backward": "average pooling, backward",
    "aten::index_select": "gathering rows",
    "aten::index": "gathering rows",
    "aten::div": "divisions: preprocessing",
    "aten::div_": "divisions: preprocessing",
    "aten::sub": "differences: preprocessing",
    "aten::sub_": "differences: preprocessing",
    "aten::_log_softmax": "loss",
    "aten::nll_loss_forward": "loss",
    "aten::nll_loss_backward": "loss, backward",
    "aten::amax": "highest value: pooling",
    "aten::mean": "mean: pooling",
    "aten::linalg_vector_norm": "gradient norm",
    "aten::_foreach_norm": "gradient norm",
    "aten::_fused_adamw_": "optimizer, fused",
    "aten::_local_scalar_dense": "waiting for a number of the device",
    "aten::item": "waiting for a number of the device",
    "enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__": "reading the next batch",
    "enumerate(DataLoader)#_MultiProcessingDataLoaderIter.__next__": "waiting for a reader",
}


@dataclass(frozen=True)
class Operation:
    """One kind of operation: how often a step does it, and its own time in a step."""

    name: str  # torch's
    calls: float
    seconds: float
    share: float  # of all operations

    @property
    def in_words(self) -> str:
        """What it does, where that is known, else torch's name for it."""
        return IN_WORDS.get(self.name, self.name)


def profile_training(
    config: Config, exclude: Mapping[str, Rows], folder: Path
) -> Sequence[Operation]:
    """Write the trace and the summary into `folder`; return the operations, the costliest first.

    Of five steps of the training, reading included, after three that are not recorded. The trace
    opens in chrome://tracing and ui.perfetto.dev.
    """
    folder.mkdir(parents=True, exist_ok=True)
    device = choose_device(config.training.device)
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    steps = _steps(config, exclude, device)
    for _ in itertools.islice(steps, WARM_UP):
        pass
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or its library writes between our lines
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in itertools.islice(steps, RECORDED):
            pass
    profiler.export_chrome_trace(str(folder / TRACE))
    operations = operations_of(profiler, on_device=device.type == "cuda")
    write_text(folder / SUMMARY, render_operations(operations) + "\n")
    return operations


def operations_of(profiler: torch.profiler.profile, *, on_device: bool) -> list[Operation]:
    """Return what a profiler saw, by the time that each operation itself took, longest first."""
    times = "self_device_time_total" if on_device else "self_cpu_time_total"  # microseconds
    # a kernel's time is that of its operation as well, which alone has a name in words
    operations = [each for each in profiler.key_averages() if each.device_type == DeviceType.CPU]
    events = [each for each in operations if getattr(each, times) > 0]
    total = sum(getattr(each, times) for each in events) or 1.0
    found = [
        Operation(
            name=each.key,
            calls=each.count / RECORDED,
            seconds=getattr(each, times) / 1e6 / RECORDED,
            share=getattr(each, times) / total,
        )
        for each in events
    ]
    return sorted(found, key=lambda each: -each.seconds)


def render_operations(operations: Sequence[Operation]) -> str:
    """Return a row for each of the ten costliest operations, and what the others take together."""
    header = ("a step's time", "", "calls", "each", "")
    rows = [
        (
            percent(each.share),
            f"{1000 * each.seconds:.2f} ms",
            f"{each.calls:g}",
            f"{1000 * each.seconds / each.calls:.3f} ms",
            _named(each),
        )
        for each in operations[:MOST_SHOWN]
    ]
    others = operations[MOST_SHOWN:]
    if others:
        seconds, calls = sum(each.seconds for each in others), sum(each.calls for each in others)
        share = percent(sum(each.share for each in others))
        rows.append((share, f"{1000 * seconds:.2f} ms", f"{calls:g}", "", f"{len(others)} others"))
    return render_table(header, rows, left=(4,))


def _named(operation: Operation) -> str:
    known = operation.in_words != operation.name and "#" not in operation.name
    return f"{operation.in_words} ({operation.name})" if known else operation.in_words


def _steps(config: Config, exclude: Mapping[str, Rows], device: torch.device) -> Iterator[float]:
    """Yield the loss of one step of a training after the other."""
    trainer, loader = build_trainer(config, open_split(config, "train", exclude), device)
    trainer.state.start_epoch(1)
    if trainer.augment is not None:
        trainer.augment.set_epoch(1)
    trainer.model.train()
    for group in grouped(endless(loader), config.training.accumulate_steps):
        yield trainer.train_step(group)
