"""All that can only be checked on a GPU, one check after the other, inside one budget of time.

    benchmarks/gpu.sh --data FOLDER      # real patches in PCam's layout; without: drawn ones
    benchmarks/gpu.sh --only resident same_bits
    benchmarks/gpu.sh --cpu              # the CPU in the GPU's place, tiny sizes: tries the script

Each check is a module of benchmarks/gpu_checks, run in a process of its own: one that fails, hangs
or loses the GPU stops no other. A line is printed for each, and gpu.json, written anew after each,
has all figures: in $OUT, or in gpu-results. Exit code 1 where a check failed, else 0; what could
not be checked is said, and is no failure.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BUDGET_S = 520.0  # "under 9 minutes", and a kill takes a moment
LEAST_S = 10.0  # a process that loads torch has no answer sooner
NUM_SAID = 3000  # characters of what a failed check wrote


@dataclass(frozen=True)
class Check:
    """A module of gpu_checks: the seconds it may take, and the question that it answers."""

    name: str
    limit_s: float
    asks: str


# By worth: where time runs out, what comes last is what is left out. The first one takes the time
# of loading torch from a cold disk.
CHECKS = (
    Check("machine", 45, "which GPU, versions and clocks, and which packages are missing?"),
    Check("resident", 75, "does training on patches that lie on the GPU keep it busy?"),
    Check("same_bits", 60, "do two trainings, and all placements, end in the same weights?"),
    Check("learning", 70, "how long until the valid ROC-AUC is 0.94?"),
    Check("forward", 50, "patches per second and latency, by precision, layout and batch size?"),
    Check("step", 40, "what does a training step take beside a bare one, fused, or as a graph?"),
    Check("suite", 40, "do the tests that a CPU skips pass?"),
    Check("verb", 65, "does ml-core benchmark say the same?"),
    Check("memory_end", 30, "is a batch size that does not fit told as the limit?"),
    Check("transfer", 20, "how much faster do pinned batches travel?"),
    Check("compiled", 60, "what does torch.compile bring?"),
    Check("golden", 120, "has portable training the committed bits?"),
)


@dataclass(frozen=True)
class Outcome:
    """How a check ended: passed, failed, measured (there is no bar), or left out; and in words."""

    name: str
    asks: str
    status: str
    line: str
    seconds: float = 0.0
    figures: Mapping[str, Any] = field(default_factory=dict)
    said: str = ""  # the end of what it wrote, where it failed


def run_all(
    checks: Iterable[Check],
    run: Callable[[Check, float], Outcome],
    budget_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Outcome]:
    """Yield the outcome of each check as `run(check, limit_s)` gives it, in order.

    No check gets more than what is left of `budget_s`; with less than LEAST_S it is left out.
    """
    ends_at = clock() + budget_s
    for check in checks:
        left_s = ends_at - clock()
        if left_s < LEAST_S:
            line = f"not reached: the {budget_s:.0f} s of all checks are used up"
            yield Outcome(check.name, check.asks, "left out", line)
            continue
        yield run(check, min(check.limit_s, left_s))


def run_check(check: Check, limit_s: float, command: Sequence[str], scratch: Path) -> Outcome:
    """Return how `command` answered `check`, killed with all its children after `limit_s`.

    It is given --answer, a file in `scratch` that it writes whenever it knows more, and --seconds.
    """
    answer_path, log_path = scratch / f"{check.name}.json", scratch / f"{check.name}.log"
    command = [*command, "--answer", str(answer_path), "--seconds", str(limit_s)]
    started = time.monotonic()
    with open(log_path, "wb") as log:
        ended = _run(command, limit_s, log.fileno())
    seconds = round(time.monotonic() - started, 1)
    said = log_path.read_text(encoding="utf-8", errors="replace")[-NUM_SAID:]
    answer: dict[str, Any] = {"status": "failed", "line": "it never answered", "figures": {}}
    if answer_path.is_file():
        answer = json.loads(answer_path.read_text(encoding="utf-8"))
    if ended:
        answer |= {"status": "failed", "line": f"{ended}; {answer['line']}"}
    failed = answer["status"] == "failed"
    return Outcome(check.name, check.asks, **answer, seconds=seconds, said=said if failed else "")


def _run(command: Sequence[str], limit_s: float, output: int) -> str:
    """Run `command` in a process group of its own; return "", or in words why it ended early."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        env=_environment(), process_group=0,
    )  # fmt: skip
    try:
        code = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return f"stopped after its {limit_s:.0f} s"
    finally:
        _kill_group(process)
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}" if code else ""


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a check: the compiler's workers outlive it, and hold the GPU."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _environment() -> dict[str, str]:
    """Return what a check sees: this checkout, and cuBLAS as training has it from the start."""
    paths = [str(ROOT / "src"), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "PYTHONUNBUFFERED": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # read when CUDA starts
    }


def main() -> int:
    options = parse_options()
    # told to end, it ends its check too, which is in another process group
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    checks = [check for check in CHECKS if not options.only or check.name in options.only]
    report = Report(Path(os.environ.get("OUT") or "gpu-results").resolve(), options.data)
    print(f"{len(checks)} checks on {report.data}, at most {options.budget:.0f} s", flush=True)
    with tempfile.TemporaryDirectory(prefix="gpu-checks-") as scratch:
        asked = ["--scratch", scratch, *asked_of(options)]

        def run(check: Check, limit_s: float) -> Outcome:
            command = [sys.executable, "-m", "gpu_checks", check.name, *asked]
            return run_check(check, limit_s, command, Path(scratch))

        for outcome in run_all(checks, run, options.budget):
            print(render(outcome), flush=True)
            report.add(outcome)
    print(report.in_words())
    return 1 if "failed" in report.statuses else 0


def asked_of(options: argparse.Namespace) -> list[str]:
    """Return the options that every check is given."""
    asked = ["--device", "cpu", "--tiny"] if options.cpu else ["--device", "cuda"]
    return [*asked, *(["--data", str(options.data.resolve())] if options.data else [])]


class Report:
    """gpu.json in `out_dir`, which it makes: written anew with each outcome."""

    def __init__(self, out_dir: Path, data_dir: Path | None) -> None:
        out_dir.mkdir(parents=True, exist_ok=True)
        self.path = out_dir / "gpu.json"
        self.data = "real patches" if data_dir else "drawn patches: no folder was given"
        self.outcomes: list[Outcome] = []
        self._began_at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        self._started = time.monotonic()

    @property
    def statuses(self) -> list[str]:
        return [outcome.status for outcome in self.outcomes]

    def add(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        content = {
            "command": " ".join(["benchmarks/gpu.sh", *sys.argv[1:]]),
            "began_at": self._began_at,
            "seconds": round(time.monotonic() - self._started, 1),
            "data": self.data,
            "checks": [asdict(each) for each in self.outcomes],
        }
        self.path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def in_words(self) -> str:
        """Return how many ended how, and where it is written."""
        statuses = self.statuses
        counted = [f"{statuses.count(status)} {status}" for status in sorted(set(statuses))]
        return f"{', '.join(counted)}, in {time.monotonic() - self._started:.0f} s; {self.path}"


def render(outcome: Outcome) -> str:
    """Return the lines of `outcome`; a failed check brings the end of what it wrote."""
    first = f"{outcome.status:9} {outcome.name:11} {outcome.seconds:4.0f} s  {outcome.line}"
    return "\n".join([first, *(f"    | {line}" for line in outcome.said.splitlines()[-12:])])


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of real patches in PCam's layout")
    parser.add_argument("--only", nargs="+", choices=[check.name for check in CHECKS], default=())
    parser.add_argument("--cpu", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="seconds for all checks")
    options = parser.parse_args()
    if options.data and not options.data.is_dir():
        parser.error(f"{options.data} is no folder; name the one that has the PCam files")
    return options


if __name__ == "__main__":
    sys.exit(main())
