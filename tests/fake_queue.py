"""A Slurm that takes jobs and never runs them: programs on PATH, answering as 22.05 did.

Its words are those in slurm/recorded. What it was asked is in `calls`; squeue says what `queue`
was given.
"""

from __future__ import annotations

import json
from pathlib import Path

from programs import write_program

from ml_core.cluster.slurm.fields import FIELD_END, RECORD_END
from ml_core.cluster.slurm.jobs import JOB_FIELDS

# $DIR holds what it knows. sbatch numbers jobs from 1, and refuses one of them, or is silent.
PROGRAMS = {
    "sbatch": """\
env | grep ^SBATCH_ >"$DIR/environment"
number=$(($(cat "$DIR/number") + 1))
if [[ $number == "$(cat "$DIR/refused")" ]]; then
  echo "sbatch: error: invalid partition specified: nowhere" >&2
  echo "sbatch: error: Batch job submission failed: Invalid partition name specified" >&2
  exit 1
fi
echo $number >"$DIR/number"
cp "${@: -1}" "$DIR/$number.sh"
sed -n 's/^#SBATCH --chdir=//p' "${@: -1}" | sed "s/.*/$number\x1f&\x1e/" >>"$DIR/folders"
[[ $number != "$(cat "$DIR/silent")" ]] || exec sleep 5
echo $number
""",
    "squeue": """\
if [[ -e $DIR/down ]]; then
  [[ $(cat "$DIR/down") == "for good" ]] || rm "$DIR/down"
  echo "slurm_load_jobs error: Unable to contact slurm controller (connect failure)" >&2
  exit 1
fi
if [[ "$*" == *WorkDir* ]]; then cat "$DIR/folders"; exit; fi
cat "$DIR/queue"
[[ ! -e $DIR/queue.next ]] || mv "$DIR/queue.next" "$DIR/queue"
""",
    "sacct": """\
echo "Slurm accounting storage is disabled" >&2
exit 1
""",
    "scancel": 'printf "%s\\n" "$*" >>"$DIR/cancelled"\n',
    "scontrol": 'echo "ClusterName             = test"\n',
}


class FakeQueue:
    """The programs are in `bin_dir`, to be put on PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "fake_queue"
        self.bin_dir = self.folder / "bin"
        self.bin_dir.mkdir(parents=True)
        for name, body in PROGRAMS.items():
            self.write_program(name, f"DIR={self.folder}\n{body}")
        for name, text in {
            "number": "0",
            "refused": "",
            "queue": "",
            "folders": "",
            "silent": "",
        }.items():
            (self.folder / name).write_text(text)

    def write_program(self, name: str, body: str) -> Path:
        return write_program(self.bin_dir / name, body)

    def refuse(self, number: int) -> None:
        """Refuse the job that would have this number."""
        (self.folder / "refused").write_text(str(number))

    def take_silently(self, number: int) -> None:
        """Take the job of this number, and not say so."""
        (self.folder / "silent").write_text(str(number))

    @property
    def scripts(self) -> list[str]:
        """The scripts that were taken, in their order."""
        paths = sorted(self.folder.glob("*.sh"), key=lambda path: int(path.stem))
        return [path.read_text() for path in paths]

    @property
    def cancelled(self) -> list[str]:
        path = self.folder / "cancelled"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def environment(self) -> list[str]:
        """The variables that sbatch saw of its own, ``SBATCH_ACCOUNT=me``."""
        return (self.folder / "environment").read_text().splitlines()

    def show(self, **states: str) -> None:
        """Let squeue list jobs: ``show(j12="RUNNING", j13_0="FAILED 2")``, a code after a state."""
        (self.folder / "queue").write_text(rows(**states))

    def show_next(self, **states: str) -> None:
        """Let squeue list these from its second answer on."""
        (self.folder / "queue.next").write_text(rows(**states))

    def go_down(self, how_long: str) -> None:
        """Let the controller be away, "once" or "for good"."""
        (self.folder / "down").write_text(how_long)


def rows(**states: str) -> str:
    """Return what squeue prints for jobs of JOB_FIELDS."""
    return "".join(_row(name.removeprefix("j"), state) for name, state in states.items())


def _row(job: str, told: str) -> str:
    array, _, task = job.partition("_")
    state, _, code = told.partition(" ")
    values = {
        "JobID": array, "ArrayJobID": array, "ArrayTaskID": task or "N/A", "State": state,
        "Reason": "None", "Partition": "long", "NodeList": "n1", "NumNodes": "1",
        "SubmitTime": "2026-11-22T22:07:52", "StartTime": "2026-11-22T22:09:25",
        "TimeUsed": "0:10", "TimeLimit": "1:00", "RestartCnt": "0",
        "exit_code": str(int(code or 0) << 8), "Dependency": "(null)", "UserName": "root",
        "STDOUT": "/u/alice/jobs/job-%j.log", "Name": "job",
    }  # fmt: skip
    assert set(values) == set(JOB_FIELDS)
    return FIELD_END.join(values[name] for name in JOB_FIELDS) + RECORD_END + "\n"


def fast_run_that_says(queue: FakeQueue, code: int = 0, **measured: object) -> Path:
    """Return a Python whose ``-m ml_core train ... --fast-dev-run`` ends so; it notes its words."""
    said = json.dumps({"status": "completed", "seconds": 4.2, "device": "cpu", **measured})
    body = f"printf '%s\\n' \"$@\" >{queue.folder}/fast_run\necho 'model  mlp'\n"
    body += f"echo '{said}'\n" if code == 0 else "echo 'error: a lot is wrong.' >&2\n"
    return queue.write_program("fast-python", f"{body}exit {code}\n")
