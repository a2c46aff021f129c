"""A job script run without Slurm: programs on PATH answer for it, and write down what was asked.

What they answer was recorded from a real cluster; tests/slurm runs the scripts on one.
"""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from programs import write_program

PROGRAMS = {
    # srun runs the command after its options, on "one node"
    "srun": 'while [[ $1 == --* ]]; do shift; done\n"$@"\n',
    "squeue": '[[ $SQUEUE_CODE == 0 || ! -e $STEP_RAN ]] || exit "$SQUEUE_CODE"\n'
    'case $* in *State*) echo "$STATE" ;; *EndTime*) at=$ENDS_AT\n'
    '  [[ ! -e $STEP_RAN ]] || at=$ENDS_AT_LATER; date -d "@$at" +%FT%T ;;\n'
    "  *RestartCnt*) echo ${SLURM_RESTART_COUNT:-0} ;; esac\n",
    # a requeue ends the script that asks for it
    "scontrol": 'printf "%s\\n" "$*" >>"$SCONTROL_CALLS"\n[[ $SCONTROL_CODE == 0 ]] || exit 1\n'
    "[[ $1 != requeue ]] || kill -TERM $PPID\n",
    "sinfo": 'printf "%s\\n" n1 n2 n3 n4\n',
    "sleep": "exit 0\n",  # a script that waits for Slurm to come back is not waited for
    "nvidia-smi": 'exit "$NVIDIA_CODE"\n',
}
# Stands for the interpreter of a venv: answers -c, and takes part in `-m ml_core` by writing.
PYTHON = """\
[[ $PYTHON_STARTS == yes ]] || exit 127
case "$1 $2" in
  "-c "*) exec {real} -S "$@" ;;
  "-m ml_core.cluster."*) exec {real} "$@" ;;
  "-m ml_core") shift 2 ;;
esac
if [[ "$1 $2" == "data stage" ]]; then printf '%s\\0' "$@" >"$STAGED"; exit "$STAGE_CODE"; fi
printf '%s\\0' "$@" >"$STEP_RAN"
env >"$STEP_RAN.env"
exit "$CODE"
"""


@dataclass(frozen=True)
class Ended:
    """How a script ended: its exit code and log, what the step was started with, if it was."""

    code: int
    log: str
    words: list[str] | None
    environment: dict[str, str]
    staged: list[str] | None
    scontrol: list[str]


@dataclass
class FakeSlurm:
    """A node n1, on which `run` runs scripts as job 5; `variables` change what happens."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bin_dir = self.folder / "bin"
        self.bin_dir.mkdir()
        for name, body in PROGRAMS.items():
            self.write_program(name, body)
        self.python = self.write_program("venv-python", PYTHON.format(real=sys.executable))

    def write_program(self, name: str, body: str) -> Path:
        return write_program(self.bin_dir / name, body)

    def run(self, script: str, **variables: str) -> Ended:
        """Run the text of a script to its end; `variables` are of its environment."""
        files = {name: self.folder / name.lower() for name in ("STEP_RAN", "STAGED")}
        calls = self.folder / "scontrol_calls"
        for file in (*files.values(), calls):
            file.unlink(missing_ok=True)
        environment = {
            "PATH": f"{self.bin_dir}:/usr/bin:/bin", "HOSTNAME": "n1", "SLURM_JOB_ID": "5",
            "SLURM_JOB_NODELIST": "n1", "SLURM_JOB_NUM_NODES": "1", "SLURMD_NODENAME": "n1",
            "SLURM_CPUS_PER_TASK": "3", "SLURM_JOB_PARTITION": "long", "STATE": "RUNNING",
            "ENDS_AT": "4102444800", "CODE": "0", "STAGE_CODE": "0", "SCONTROL_CODE": "0",
            "SQUEUE_CODE": "0", "NVIDIA_CODE": "0", "PYTHON_STARTS": "yes",
            "SCONTROL_CALLS": str(calls),
            **{name: str(path) for name, path in files.items()},
            **self.variables, **variables,
        }  # fmt: skip
        environment.setdefault("ENDS_AT_LATER", environment["ENDS_AT"])
        done = subprocess.run(
            ["bash", "-s"], input=script, env=environment, cwd=self.folder,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return Ended(
            code=done.returncode,
            log=done.stdout + done.stderr,
            words=_words(files["STEP_RAN"]),
            environment=_environment(Path(f"{files['STEP_RAN']}.env")),
            staged=_words(files["STAGED"]),
            scontrol=calls.read_text().splitlines() if calls.exists() else [],
        )


def _words(path: Path) -> list[str] | None:
    return os.fsdecode(path.read_bytes()).split("\0")[:-1] if path.exists() else None


def _environment(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines() if path.exists() else []
    return dict(line.split("=", 1) for line in lines if "=" in line)
