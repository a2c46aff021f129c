"""The folder of a benchmark: the only code that knows its file names.

runs/pcam_cnn/benchmark-20260102-030405/
    benchmark.json      everything measured, as `figures` has it
    config.yaml         what was measured
    throughput.png      patches per second over batch sizes, a line for each way to compute
    time.png            where the time of a training goes
    profile/            a trace of torch's profiler and its costliest operations
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ml_core.errors import RunError, first_problem
from ml_core.pipeline.benchmarking.figures import Benchmark
from ml_core.runs import RunDir, read_json, write_json

RECORD = "benchmark.json"


@dataclass(frozen=True)
class BenchmarkDir:
    """Paths of one benchmark; nothing here makes a file except `create` and `save`."""

    path: Path

    @classmethod
    def create(cls, parent: Path, now: dt.datetime) -> BenchmarkDir:
        """Make a folder nobody has used, named after `now`; raises RunError where it cannot be."""
        return cls(RunDir.create(parent, f"benchmark-{now:%Y%m%d-%H%M%S}").path)

    @property
    def record_path(self) -> Path:
        return self.path / RECORD

    @property
    def config_path(self) -> Path:
        return self.path / "config.yaml"

    @property
    def throughput_path(self) -> Path:
        return self.path / "throughput.png"

    @property
    def time_path(self) -> Path:
        return self.path / "time.png"

    @property
    def profile_dir(self) -> Path:
        return self.path / "profile"

    def save(self, benchmark: Benchmark) -> None:
        """Write benchmark.json, whole or not at all; what is not finite becomes null."""
        write_json(self.record_path, dataclasses.asdict(benchmark))


def load_benchmark(path: Path) -> Benchmark:
    """Return the benchmark in `path`, a benchmark.json or its folder; raises RunError."""
    file = path / RECORD if path.is_dir() else path
    try:
        return TypeAdapter(Benchmark).validate_python(read_json(file))
    except ValidationError as error:
        raise RunError(
            f"{file} is not a benchmark that this version can read: {first_problem(error)}. "
            "Measure again: ml-core benchmark."
        ) from error
