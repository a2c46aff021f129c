"""How long `ml-core train` takes from the start of its process to its first training step.

    python benchmarks/startup.py DATA_DIR [--config experiments/configs/pcam_cnn.yaml] [--rounds 7]

Files are in the page cache and the audit is stored: a first run, not counted, sees to both, and
tells which modules of other packages are loaded on the way. The runs that count load those first
and are timed then: the interpreter, torch, other packages, and the rest, which is our own code.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).resolve().parents[1] / "experiments" / "configs"
BARS = {"total_s": 4.0, "ours_s": 0.5}
NUM_STEPS = 5  # the first one, and others to compare it with
# Parts of our own time, by the place where the training looks them up.
PARTS = (
    "ml_core.config:Config.load",
    "ml_core.pipeline.train:pass_gate",
    "ml_core.pipeline.train:check_data",
    "ml_core.pipeline.train:prepare",
    "ml_core.pipeline.train:code_record",
    "ml_core.pipeline.train:hardware_record",
    "ml_core.pipeline.train:installed_packages",
    "ml_core.pipeline.parts.run_in_training:RunInTraining._build",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of PCam files, audited")
    parser.add_argument("--config", type=Path, default=CONFIGS / "pcam_cnn.yaml")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = _run(arguments, Path(folder), modules=[])
        runs = [_run(arguments, Path(folder), found["modules"]) for _ in range(arguments.rounds)]
    rows = [run["seconds"] for run in runs]
    medians = {name: round(statistics.median(row[name] for row in rows), 3) for name in rows[0]}
    document = {
        "config": arguments.config.name,
        "seconds": medians,
        "fastest_total_s": round(min(row["total_s"] for row in rows), 3),
        "other_packages": _by_package(runs),
        "bars": BARS,
        "rounds": arguments.rounds,
    }
    print(json.dumps(document, indent=1))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(document, indent=1) + "\n")


def _by_package(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Return the seconds of the packages that take most to load, the longest first."""
    names = runs[0]["packages"]
    medians = {name: statistics.median(run["packages"][name] for run in runs) for name in names}
    ordered = sorted(medians.items(), key=lambda item: -item[1])
    return {name: round(seconds, 3) for name, seconds in ordered if seconds >= 0.01}


def _run(arguments: argparse.Namespace, folder: Path, modules: list[str]) -> dict[str, Any]:
    """Start a training in a process of its own, which ends after a few steps; return its times."""
    told = folder / "told.json"
    settings = [f"data.data_path={arguments.data.resolve()}", f"output_dir={folder / 'runs'}"]
    order = {
        "verb": ["train", str(arguments.config), *(p for s in settings for p in ("--set", s))],
        "modules": modules,
        "told": str(told),
        "spawned": time.monotonic(),  # one clock for all processes of a Linux machine
    }
    done = subprocess.run(
        [sys.executable, __file__, "--child", json.dumps(order)], capture_output=True, text=True
    )
    if done.returncode != 0:
        raise SystemExit(f"the training did not get to its first step:\n{done.stderr}")
    return dict(json.loads(told.read_text()))


class Child:
    """The training process: loads the `modules`, then trains as the command line does."""

    def __init__(self, order: dict[str, Any], started: float) -> None:
        self.order = order
        self.seconds = {"interpreter_s": started - order["spawned"]}
        self.packages: dict[str, float] = {}
        self.steps: list[float] = []

    def train(self) -> None:
        before = time.monotonic()
        if self.order["modules"]:
            self._load("torch")
            self.seconds["torch_s"] = time.monotonic() - before
        before = time.monotonic()
        for name in self.order["modules"]:
            self._load(name)
        self.seconds["other_packages_s"] = time.monotonic() - before
        self.before_ours = time.monotonic()
        import ml_core.cli
        import ml_core.pipeline.train
        from ml_core.solver.step import OptimizerStep

        self.seconds["of_which_ours_imports"] = time.monotonic() - self.before_ours
        for part in PARTS:
            self._time_part(part)
        take = OptimizerStep.take
        OptimizerStep.take = lambda *a, **k: self._step(take, *a, **k)  # type: ignore[method-assign]
        ml_core.cli.main(self.order["verb"])

    def _load(self, name: str) -> None:
        before = time.monotonic()
        try:
            importlib.import_module(name)
        except ImportError:
            return  # some modules are put into sys.modules by another's code only
        package = name.partition(".")[0]
        self.packages[package] = self.packages.get(package, 0.0) + time.monotonic() - before

    def _time_part(self, part: str) -> None:
        module_name, _, path = part.partition(":")
        owner: Any = importlib.import_module(module_name)
        *classes, name = path.split(".")
        for each in classes:
            owner = getattr(owner, each)
        function = getattr(owner, name)

        def timed(*arguments: Any, **options: Any) -> Any:
            before = time.monotonic()
            result = function(*arguments, **options)
            self.seconds[f"of_which_{name}"] = time.monotonic() - before
            return result

        is_bound = hasattr(function, "__self__")  # a class method brings its class
        setattr(owner, name, staticmethod(timed) if is_bound else timed)

    def _step(self, take: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        before = time.monotonic()
        if not self.steps:
            self.seconds["ours_s"] = before - self.before_ours
            self.seconds["total_s"] = before - self.order["spawned"]
        result = take(*arguments, **options)
        self.steps.append(time.monotonic() - before)
        if len(self.steps) == NUM_STEPS:
            self._tell()
        return result

    def _tell(self) -> None:
        self.seconds["first_step_s"] = self.steps[0]
        self.seconds["later_step_s"] = statistics.median(self.steps[1:])
        foreign = [
            name for name in sys.modules if name.partition(".")[0] not in ("ml_core", "__main__")
        ]
        told = {"seconds": self.seconds, "packages": self.packages, "modules": foreign}
        Path(self.order["told"]).write_text(json.dumps(told))
        os._exit(0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        Child(json.loads(sys.argv[2]), time.monotonic()).train()
    else:
        main()
