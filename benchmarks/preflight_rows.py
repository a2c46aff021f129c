"""Plant each mistake that ended cluster jobs before they computed anything, and print what is said.

    python benchmarks/preflight_rows.py

Prints a Markdown table: the mistake, the command, what is said about it, seconds. What `doctor`
finds is then submitted all the same, which must be refused: at the end no job is in the queue.
A Slurm of two nodes is started for it (tests/slurm). `module` is a function of bash here, which
like some sites' says nothing by its exit code about a name that it does not know.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "tests"), str(ROOT / "tests" / "slurm")]

from cluster import Cluster, available  # noqa: E402  # of tests/slurm
from tiny_pcam import write_config, write_tiny_pcam  # noqa: E402  # of tests

MODULES = """\
module() {
  [[ $2 != 2024 ]] || { LOADEDMODULES=$2; return; }
  echo "ERROR: Unable to locate a modulefile for '$2'" >&2
}
"""
LONGEST = 220  # characters of what is said; the rest is a list
# One core, and what a tiny training needs: a request that the test cluster can fulfil.
PROFILE = """\
base: generic-cpu
partition: long
cpus_per_task: 1
mem_gb: 1.5
time: "01:00:00"
"""


@dataclass(frozen=True)
class Row:
    """A planted mistake: the words after ml-core, and the word that what is said must hold."""

    row: str
    mistake: str
    words: tuple[str, ...]
    about: str
    is_mistake: bool = True
    closed: Path | None = None  # folder in which nobody may write
    environment: dict[str, str] = field(default_factory=dict)


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    if (reason := available()) is not None:
        sys.exit(f"error: no test cluster: {reason}")
    with tempfile.TemporaryDirectory() as name, Cluster(Path(name) / "slurm") as cluster:
        work = Path(name) / "work"
        work.mkdir()
        Path(name).chmod(0o755)
        environment = {**os.environ, **cluster.env}
        print("| | mistake | command | what is said | exit code | s | submitted all the same |")
        print("|---|---|---|---|---|---|---|")
        for row in plant(work):
            said, code, took_s = ask(row, row.words, work, environment)
            command = shlex.join(["ml-core", *row.words])
            cells = [row.row, row.mistake, f"`{command}`", said, str(code), f"{took_s:.1f}"]
            text = " | ".join([*cells, submitted_all_the_same(row, work, environment)])
            print(f"| {text.replace(str(work), '~').replace(str(ROOT), 'CHECKOUT')} |", flush=True)
        queue = cluster.run("squeue", "--noheader", "--states=all").stdout.split("\n")
        print(f"\nJobs in the queue afterwards: {len(list(filter(None, queue)))}")


def submitted_all_the_same(row: Row, work: Path, environment: dict[str, str]) -> str:
    """Return how `submit` took what `doctor` had found."""
    if row.words[0] != "doctor" or not row.is_mistake:
        return ""
    _, code, took_s = ask(row, ("submit", "train", *row.words[1:]), work, environment)
    return f"exit code {code}, {took_s:.1f} s"


def plant(work: Path) -> list[Row]:
    """Return A1 to A10, their files in `work`."""
    write_config(work / "config.yaml", write_tiny_pcam(work / "data"))
    (work / "cluster.yaml").write_text(PROFILE)
    (work / ".bash_profile").write_text(MODULES)
    make_venv(work / "bare")
    make_venv(work / "old", "3.9.18")
    colleagues = work / "colleagues"
    colleagues.mkdir()
    here = ("config.yaml", "--profile", "cluster.yaml")

    def doctor(*words: str) -> tuple[str, ...]:
        return ("doctor", *here, *words)

    return [
        Row("A1", "a package is missing", doctor("--ask", "python=bare"), "packages"),
        Row("A2", "the data are elsewhere", doctor("--set", "data.data_path=pcam"), "data"),
        Row("A3", "venv of another Python", doctor("--ask", "python=old"), "python"),
        Row(
            "A4", "unknown module", doctor("--ask", "modules=[2024,Python/3.99]"), "modules",
            environment={"HOME": str(work)},
        ),
        Row("A5", "unknown partition", doctor("--ask", "partition=lnog"), "slurm"),
        Row("A5", "more time than there is", doctor("--ask", "time=9-00:00:00"), "slurm"),
        Row(
            "A6", "a typo in one's own command",
            ("submit", "train", *here, "--sett", "training.epochs=3"), "--set",
        ),
        Row(
            "A6", "a typo in one's own code", ("submit", "train", *here), "NameError",
            environment={"PYTHONPATH": str(write_broken_code(work / "src"))},
        ),
        Row("A7", "a key that nobody reads", doctor("--set", "data.datapath=pcam"), "config"),
        Row("A8", "no GPU on a login node", doctor(), "gpu", is_mistake=False),
        Row(
            "A9", "a folder of somebody else",
            doctor("--set", "output_dir=colleagues/runs"), "outputs", closed=colleagues,
        ),
        Row("A10", "less memory than it needs", doctor("--ask", "mem_gb=0.4"), "memory"),
    ]  # fmt: skip


def write_broken_code(folder: Path) -> Path:
    """Copy the package, with a typo in a line that only training reaches."""
    shutil.copytree(ROOT / "src" / "ml_core", folder / "ml_core")
    step = folder / "ml_core" / "solver" / "step.py"
    right = "norm, layer_norms = self._clip()"
    text = step.read_text()
    assert right in text
    step.write_text(text.replace(right, "norm, layer_norms = slef._clip()"))
    return folder


def make_venv(folder: Path, version: str | None = None) -> Path:
    """Make an environment of this ml_core and nothing else; `version` is what it says it is of."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    (site_packages / "ml_core.pth").write_text(f"{ROOT / 'src'}\n")
    if version is not None:
        (folder / "pyvenv.cfg").write_text(f"home = {sys.base_prefix}/bin\nversion = {version}\n")
    return folder


def ask(
    row: Row, words: Sequence[str], work: Path, environment: dict[str, str]
) -> tuple[str, int, float]:
    """Return what is said about the mistake, the exit code, and how long that took."""
    with closed(row.closed):
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "ml_core", *words],
            cwd=work,
            env={**environment, **row.environment, "COLUMNS": "400", "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        took_s = time.monotonic() - started
    return find_said(done.stdout + done.stderr, row.about), done.returncode, took_s


def find_said(text: str, about: str) -> str:
    """Return the line that says it, and the first of those that are indented below it."""
    lines = text.splitlines()
    is_about = [about in line and ("error" in line or line.startswith("ok")) for line in lines]
    at = is_about.index(True) if any(is_about) else 0
    below = [line.strip() for line in lines[at + 1 : at + 3] if line.startswith("  ")]
    said = f"{' '.join(lines[at].split())} {'; '.join(below)}".rstrip()
    return said if len(said) <= LONGEST else f"{said[:LONGEST].rstrip()} ..."


@contextmanager
def closed(folder: Path | None) -> Iterator[None]:
    """Let nobody write in `folder` meanwhile, not even root, whom its rights do not stop."""
    if folder is None:
        yield
        return
    folder.chmod(0o555)
    subprocess.run(["chattr", "+i", folder], check=os.geteuid() == 0, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", folder], check=False, capture_output=True)


if __name__ == "__main__":
    main()
