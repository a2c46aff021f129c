"""Measure how fast a config reads, computes and trains on this machine, and say what bounds it.

Reads the config and its train split; writes a folder with the figures, their plots and the config
(see `ml_core.pipeline.benchmarking.files`). The model is thrown away.

    ml-core benchmark experiments/configs/pcam_cnn.yaml
    ml-core benchmark experiments/configs/pcam_cnn.yaml --quick --profile

Not measured: validation, checkpoints, several ranks, and starting; what was left out besides, and
why, is in the table.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_core.config import Config
from ml_core.data.checks import SplitRecord
from ml_core.data.patch_file import Rows
from ml_core.errors import ConfigError, RunError
from ml_core.log import console, counted, shown
from ml_core.page.figure_style import save_figure
from ml_core.pipeline.benchmarking.comparing.compare import compare_in_turns, render_compared
from ml_core.pipeline.benchmarking.comparing.contestant import CONTESTS, Contestant
from ml_core.pipeline.benchmarking.comparing.paired_ratio import FEWEST_ROUNDS
from ml_core.pipeline.benchmarking.figures import Benchmark
from ml_core.pipeline.benchmarking.files import RECORD, BenchmarkDir, load_benchmark
from ml_core.pipeline.benchmarking.judging.bottleneck import judge
from ml_core.pipeline.benchmarking.judging.time_parts import parts_of_time
from ml_core.pipeline.benchmarking.measure_all import Effort, measure_all
from ml_core.pipeline.benchmarking.measuring.machine import describe_machine, in_words, is_busy
from ml_core.pipeline.benchmarking.profile import profile_training, render_operations
from ml_core.pipeline.benchmarking.telling.partitions import (
    describe,
    render_partitions,
    slowest_first,
)
from ml_core.pipeline.benchmarking.telling.plots import plot_throughput, plot_time
from ml_core.pipeline.benchmarking.telling.table import render_benchmark, render_verdict
from ml_core.pipeline.parts.data_gate import pass_gate
from ml_core.pipeline.parts.device import choose_device
from ml_core.pipeline.parts.numerics import prepare
from ml_core.pipeline.parts.splits import check_data, check_placement
from ml_core.reproducibility import package_versions
from ml_core.runs import RunDir, utc_now, write_text

logger = logging.getLogger("ml_core.benchmark")

SPLITS = ("train", "valid")  # what a training holds in memory; only train is read
QUICK = 0.3  # of the seconds for each thing


def benchmark(
    config: Config,
    *,
    quick: bool = False,
    profile: bool = False,
    sizes: Sequence[int] = (),
    seconds: float = 1.0,
    out: Path | None = None,
    command: str = "",
) -> dict[str, Any]:
    """Measure `config`, print the table and the verdict; return them in short, for `--json`.

    `seconds` for each thing measured; `sizes` are the batch sizes, by default 1 to 512 and the
    config's. `quick` measures the config's own way to compute only, at three sizes. `out` is the
    folder to make, by default one named after the time. Raises DataError, ConfigError and RunError
    as a training does, and ConfigError where the device gives up.
    """
    _refuse_nonsense(sizes, seconds)
    effort = Effort(seconds * QUICK if quick else seconds, tuple(sizes), quick)
    prepare(config, config.training.num_threads)  # what it sets is too late once CUDA has started
    device = choose_device(config.training.device)
    machine = describe_machine(device)  # before anything here makes it busy
    logger.info("%s", in_words(machine))
    busy = _warn_if_busy(machine)
    checks, exclude = _pass_checks(config)
    folder = _make_folder(config, out)
    write_text(folder.config_path, config.dump_yaml())
    measured = measure_all(config, checks, exclude, device, effort)
    result = Benchmark(
        command=command,
        measured_at=utc_now(),
        machine=machine,
        versions=package_versions(),
        verdict=judge(measured),
        **{each.name: getattr(measured, each.name) for each in dataclasses.fields(measured)},
    )
    folder.save(result)
    throughput = plot_throughput(result.computing, config.data.batch_size)
    save_figure(throughput, folder.throughput_path)
    save_figure(plot_time(parts_of_time(measured)), folder.time_path)
    if profile:
        operations = profile_training(config, exclude, folder.profile_dir)
        _print(f"the costliest operations of a training step\n{render_operations(operations)}")
    _warn_if_busy(machine)  # again: by now it has scrolled away
    _print(f"\n{render_benchmark(result)}\n\n{render_verdict(result.verdict)}\n")
    logger.info("all of it, and plots, in %s", shown(folder.path))
    return {
        "status": "completed",
        "folder": str(folder.path),
        "busy": busy,
        **describe(result),
        **dataclasses.asdict(result.verdict),
    }


def compare(
    a: Config,
    b: Config,
    *,
    rounds: int = 9,
    seconds: float = 1.0,
    names: tuple[str, str] = ("a", "b"),
) -> dict[str, Any]:
    """Measure both in turns; print and return how many times as fast `a` is, with its interval.

    Each is in a process of its own that is kept alive; in each of `rounds` both train and both
    predict for `seconds`. Raises what a training of either does.
    """
    if rounds < FEWEST_ROUNDS:
        raise ConfigError(
            f"{rounds} rounds tell nothing of the spread; ask for at least {FEWEST_ROUNDS}."
        )
    _refuse_nonsense((), seconds)
    excluded = [_pass_checks(config)[1] for config in (a, b)]
    total = 2 * len(CONTESTS) * (rounds + 1)
    logger.info("%d rounds of %d turns, %g s each", rounds + 1, 2 * len(CONTESTS), seconds)
    with (
        Contestant(names[0], a, excluded[0]) as first,
        Contestant(names[1], b, excluded[1]) as second,
        counted("in turns", total, "turns") as advance,
    ):
        compared = compare_in_turns(first, second, rounds=rounds, seconds=seconds, report=advance)
    _print(render_compared(compared, names))
    return {
        "status": "completed",
        "a": names[0],
        "b": names[1],
        "interval": "95 %, Student's t of the log-ratios of the rounds",
        **{
            each.contest.replace(" ", "_"): {
                **dataclasses.asdict(each),
                "is_difference": each.ratio.is_difference,
            }
            for each in compared
        },
    }


def table_of(paths: Sequence[Path]) -> dict[str, Any]:
    """Print the benchmarks in `paths` as one table, the slowest first; return its rows.

    A path is a benchmark's folder, its benchmark.json, or a folder of such folders, as the tasks of
    a Slurm array make them. Raises RunError where there is none.
    """
    found = slowest_first([load_benchmark(each) for path in paths for each in _records_in(path)])
    if not found:
        raise RunError("no benchmark was given; give folders that hold a benchmark.json.")
    _print(render_partitions(found))
    for each in found:
        if busy := is_busy(each.machine):
            logger.warning("%s: %s", each.machine["hostname"], busy)
    return {"status": "completed", "rows": [describe(each) for each in found]}


def _pass_checks(config: Config) -> tuple[list[SplitRecord], Mapping[str, Rows]]:
    """Return what is known of the data, and the rows to leave out, as a training does."""
    gate = pass_gate(config, SPLITS)
    checks = check_data(config, SPLITS, gate.exclude, gate.hashes)
    check_placement(config, checks)
    return checks, gate.exclude


def _warn_if_busy(machine: Mapping[str, Any]) -> str:
    if busy := is_busy(machine):
        logger.warning("%s, so all figures are too low and uneven", busy)
    return busy


def _refuse_nonsense(sizes: Sequence[int], seconds: float) -> None:
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"{seconds:g} seconds for each thing; give a number above 0, such as 1.")
    if wrong := [size for size in sizes if size < 1]:
        raise ConfigError(f"batches of {wrong[0]} patches cannot be; give sizes of 1 and more.")


def _make_folder(config: Config, out: Path | None) -> BenchmarkDir:
    if out is not None:
        return BenchmarkDir(RunDir.create(out.parent, out.name).path)
    parent = config.output_dir / config.experiment_name
    return BenchmarkDir.create(parent, dt.datetime.now())


def _records_in(path: Path) -> list[Path]:
    """Return the benchmarks at `path`: itself, or all in the folders in it, by name."""
    if path.is_file() or (path / RECORD).is_file():
        return [path]
    found = sorted(each.parent for each in path.glob(f"*/{RECORD}"))
    if not found:
        raise RunError(f"{path} holds no {RECORD}; ml-core benchmark CONFIG makes one.")
    return found


def _print(text: str) -> None:
    console().print(text, markup=False)
