"""The Python of the job: does it start, was its environment made with it, do modules load?"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ml_core.cluster.interpreter import Interpreter, find_interpreter
from ml_core.cluster.job_script import SHELL_DIR
from ml_core.errors import ConfigError
from ml_core.preflight.check import Check, error, ok, warning
from ml_core.preflight.programs import Answer, ask_program
from ml_core.preflight.versions import is_within

OLDEST = ">=3.11"  # pyproject.toml, requires-python
TIMEOUT_S = 30.0  # a module system that reads thousands of files of a shared disk takes seconds

# What login(1) sets; the rest is the business of the files that a login shell reads.
_OF_A_LOGIN = ("HOME", "LANG", "LOGNAME", "SHELL", "TERM", "USER")
_LOGIN_PATH = "/usr/local/bin:/usr/bin:/bin"
_NO_MODULES = "there is no 'module' on"
_MARK = "-- the Python of the job --"  # whatever a login shell prints comes before
_QUESTION = f"""
import json, platform
print({_MARK!r})
print(platform.python_version())
import importlib.metadata, importlib.util
packages = {{}}
for each in importlib.metadata.distributions():
    said = each.metadata
    if said["Name"] and said["Version"]:
        packages.setdefault(said["Name"], [said["Version"], said.get_all("Requires-Dist") or []])
found = importlib.util.find_spec("ml_core")
print(json.dumps([packages, found and found.origin]))
"""


@dataclass(frozen=True)
class Package:
    """A package that is installed: its version, and the lines of what it requires."""

    version: str
    requires: tuple[str, ...] = ()


@dataclass(frozen=True)
class JobPython:
    """The interpreter a job will start, as it is without the user's own packages and paths."""

    path: Path
    version: str
    packages: Mapping[str, Package] = field(default_factory=dict)
    ml_core: Path | None = None  # folder of the package


def check_python(
    python: Path | None, modules: Sequence[str], *, is_cluster: bool, has_setup: bool = False
) -> tuple[list[Check], JobPython | None]:
    """Return how the job's Python and modules are, and what it says of itself, if it starts.

    `python` is the profile's, None for this process's own. The modules are loaded in a login shell
    of this machine by the very lines of the job script. On a cluster nothing that the user's own
    shell has set is handed on, as a job is started; a profile's own lines (`has_setup`) are not
    run, and may be what an interpreter that does not start here is started by.
    """
    try:
        interpreter = find_interpreter(python)
    except ConfigError as problem:
        return [error("python", problem)], None
    environment = _environment(as_a_job=is_cluster or bool(modules))
    answer = _ask(interpreter, modules, environment)
    checks = []
    if modules:
        checks.append(_modules_told(answer, modules, is_cluster=is_cluster))
        if checks[0].level == "warning":
            answer = _ask(interpreter, (), environment)
        elif checks[0].level == "error":
            return checks, None
    found = _parse(answer.output, interpreter.path)
    if found is None and has_setup:
        told = f"{interpreter.path} does not start here without the profile's own lines (setup)."
        return [*checks, warning("python", told, "Packages were not looked at.")], None
    return [*checks, _python_told(interpreter, found, answer)], found


def check_setup(lines: Sequence[str]) -> list[Check]:
    """Return an error where bash cannot read the profile's own lines; nothing is run."""
    if not lines:
        return []
    answer = ask_program(["bash", "-n", "-c", "\n".join(lines)], timeout_s=TIMEOUT_S)
    if answer.code == 0:
        return []
    said = (answer.problem.strip().splitlines() or ["bash does not say why"])[0]
    told = f"bash cannot read these lines of the profile: {said.removeprefix('bash: -c: ')}."
    return [error("setup", told, "Mend them: the job would stop there.")]


def _environment(*, as_a_job: bool) -> dict[str, str]:
    """Return the variables that the interpreter is started with: the user's, or a login's."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    if as_a_job:
        ours = {"PATH": _LOGIN_PATH} | {key: ours[key] for key in _OF_A_LOGIN if key in ours}
    return {**ours, "PYTHONNOUSERSITE": "1"}


def _ask(
    interpreter: Interpreter, modules: Sequence[str], environment: Mapping[str, str]
) -> Answer:
    """Start the interpreter as the job does, after loading the modules if there are any."""
    if not modules:
        words = [str(interpreter.path), "-c", _QUESTION]
        return ask_program(words, timeout_s=TIMEOUT_S, environment=environment)
    script = "\n".join([
        "set -euo pipefail",
        'stop() { echo "error: $*" >&2; exit 2; }',
        f"modules=({shlex.join(modules)})",
        f"python={shlex.quote(str(interpreter.path))}",
        f"python_version={shlex.quote(interpreter.version)}",
        (SHELL_DIR / "modules.sh").read_text(encoding="utf-8"),
        'exec "$python" -c "$1"',
    ])  # fmt: skip
    words = ["bash", "-lc", script, "bash", _QUESTION]
    return ask_program(words, timeout_s=TIMEOUT_S, environment=environment)


def _modules_told(answer: Answer, modules: Sequence[str], *, is_cluster: bool) -> Check:
    stopped = re.findall(r"^error: (.*)$", answer.problem, re.MULTILINE)
    if answer.code == 2 and stopped:
        if _NO_MODULES in stopped[-1] and not is_cluster:
            told = f"{', '.join(modules)} could not be tried: this machine has no 'module'."
            return warning("modules", told, "Run ml-core doctor on the cluster too.")
        return error("modules", f"the job would stop at its start: {stopped[-1]}.")
    if answer.code is None:
        return error("modules", f"{', '.join(modules)}: {answer.problem}.", "Try module load.")
    return ok("modules", f"{', '.join(modules)} load here.")


def _python_told(interpreter: Interpreter, found: JobPython | None, answer: Answer) -> Check:
    path, made_with = interpreter.path, interpreter.version
    anew = f"Make the environment anew: uv venv {path.parent.parent}"
    if found is None:
        said = answer.problem.strip().splitlines() or [f"exit code {answer.code}"]
        return error("python", f"{path} does not start: {said[-1]}.", f"{anew}.")
    if not is_within(found.version, OLDEST):
        return error("python", f"{path} is Python {found.version}; {OLDEST} is needed.", f"{anew}.")
    if _minor(found.version) != _minor(made_with):
        return error(
            "python",
            f"the environment of {path} was made with Python {made_with}, and starts "
            f"{found.version} now, which finds none of its packages.",
            f"{anew} --python {found.version}, or load the module of {made_with}.",
        )
    return ok("python", f"{found.version}, {path}.")


def _parse(output: str, path: Path) -> JobPython | None:
    """Return what the interpreter said of itself; None where it did not come so far."""
    lines = output.rpartition(f"{_MARK}\n")[2].splitlines()
    if _MARK not in output or not lines:
        return None
    if len(lines) < 2:
        return JobPython(path, lines[0])
    packages, origin = json.loads(lines[1])
    return JobPython(
        path,
        lines[0],
        {name: Package(version, tuple(requires)) for name, (version, requires) in packages.items()},
        Path(origin).parent if origin else None,
    )


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]
