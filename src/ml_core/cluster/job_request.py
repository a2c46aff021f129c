"""One job as it is wanted: which words of ml-core, where, with how much, after what."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ml_core.errors import ClusterError

# SURF allows in the name of a job what most clusters do: letters, digits and ._/- (its page "SLURM
# batch system"); here it names files too, hence without the slash.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
JOB_ID = re.compile(r"[1-9]\d*(_\d+)?")
GPUS = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*:)?[1-9]\d*")
VERSION = re.compile(r"\d+\.\d+\.\d+")
SHA256 = re.compile(r"[0-9a-f]{64}")
# In a file name sbatch takes a backslash for "expand no % here", and a line ends with its line.
NO_FILE_NAME = re.compile(r"[\\\x00-\x1f\x7f]")


@dataclass(frozen=True)
class JobRequest:
    """What `render_script` makes a batch script of; None leaves it to the profile.

    A task is one process, a rank of a training. GPUs, cores and memory are those of one task.

    `stage`: folder of data that each node copies to its own disk, where `--set data.local_copy`
    then points; the verb must take --set.
    `resume_dir`: folder of runs in which a job that was started again looks for the run that it had
    begun, and goes on with it: `VERB --resume RUN` in place of `arguments` and `array_arguments`.

    Raises ClusterError for what cannot be written into a script.
    """

    name: str
    arguments: tuple[str, ...]  # the words after ml-core; paths in them absolute
    folder: Path  # absolute, of the log and of what the job notes; must be there before it starts
    python: Path  # interpreter, absolute; see `find_interpreter`
    python_version: str  # of that interpreter: "3.12.3"
    array_arguments: tuple[tuple[str, ...], ...] = ()  # one job per entry, with these words more
    array_at_once: int | None = None  # how many of them may run at a time
    after: tuple[str, ...] = ()  # jobs that must end well first: "123", or "123_4" of an array
    stage: Path | None = None  # see above
    resume_dir: Path | None = None  # see above
    time_s: int | None = None
    mem_mb: int | None = None
    cpus: int | None = None
    gpus: str | None = None  # "1", or "a100:1"
    nodes: int | None = None
    tasks_per_node: int | None = None
    requeue: bool | None = None
    code_sha256: str | None = None  # of the code when it was submitted; the job warns of another

    def __post_init__(self) -> None:
        _check("job name", self.name, NAME, "letters, digits, '.', '_' and '-'")
        _check("Python version", self.python_version, VERSION, "three numbers, such as 3.12.3")
        for job in self.after:
            _check("job to wait for", job, JOB_ID, "the number of a job, such as 123 or 123_4")
        if self.gpus is not None:
            _check("gpus", self.gpus, GPUS, "a number of them, or type:number such as a100:1")
        if self.code_sha256 is not None:
            _check("code_sha256", self.code_sha256, SHA256, "64 of the digits 0-9 and a-f")
        if not self.arguments:
            raise ClusterError("a job needs words after ml-core, such as: train CONFIG.")
        for word in (*self.arguments, *(word for words in self.array_arguments for word in words)):
            if "\0" in word:
                raise ClusterError(f"{word!r} holds a zero byte, which no command line can carry.")
        for what, path in self._paths().items():
            _check_path(what, path)
        for what, number in self._numbers().items():
            if number is not None and number < 1:
                raise ClusterError(f"{what} is {number}; allowed is a whole number from 1 on.")

    @property
    def log_pattern(self) -> str:
        """The path of the log, as sbatch is told: with %j, or %A_%a for a job of an array."""
        job = "%A_%a" if self.array_arguments else "%j"
        return f"{str(self.folder).replace('%', '%%')}/{self.name}-{job}.log"

    def log_path(self, job: str) -> Path:
        """Return the path of the log of the job "123", or "123_4" of an array."""
        return self.folder / f"{self.name}-{job}.log"

    def _paths(self) -> dict[str, Path]:
        paths = {"folder": self.folder, "python": self.python}
        optional = {"stage": self.stage, "resume_dir": self.resume_dir}
        return paths | {what: path for what, path in optional.items() if path is not None}

    def _numbers(self) -> dict[str, int | None]:
        return {
            "time_s": self.time_s, "mem_mb": self.mem_mb, "cpus": self.cpus, "nodes": self.nodes,
            "tasks_per_node": self.tasks_per_node, "array_at_once": self.array_at_once,
        }  # fmt: skip


def _check(what: str, value: str, pattern: re.Pattern[str], allowed: str) -> None:
    if not pattern.fullmatch(value):
        raise ClusterError(f"{what} {value!r} cannot be given to Slurm; allowed: {allowed}.")


def _check_path(what: str, path: Path) -> None:
    if not path.is_absolute():
        raise ClusterError(f"{what} {path} is relative; a job starts elsewhere. Give it from / on.")
    if NO_FILE_NAME.search(str(path)):
        raise ClusterError(
            f"{what} {str(path)!r} holds a backslash or a control character, which Slurm's file "
            "names cannot. Give it another name."
        )
