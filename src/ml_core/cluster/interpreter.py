"""The Python a job starts: which file it is, and which version its environment was made with."""

from __future__ import annotations

import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from ml_core.errors import ConfigError


@dataclass(frozen=True)
class Interpreter:
    """An interpreter, and the version that its environment was made with, as "3.12.3"."""

    path: Path
    version: str


def find_interpreter(python: Path | None = None) -> Interpreter:
    """Return that of a venv's folder or of an interpreter in one; this process's own for None.

    Links are kept as they are: a venv's interpreter is a link, and known as a venv by its place.
    Raises ConfigError where there is none, or nothing that says its version.
    """
    if python is None:
        return Interpreter(Path(sys.executable).absolute(), platform.python_version())
    python = python.expanduser().absolute()
    path = python / "bin" / "python" if python.is_dir() else python
    if not os.access(path, os.X_OK) or path.is_dir():
        raise ConfigError(
            f"python: there is no interpreter {path} that can be started. Give the folder of a "
            "venv, or its bin/python; a new one: uv venv VENV."
        )
    return Interpreter(path, _made_with(path))


def _made_with(path: Path) -> str:
    """Return what pyvenv.cfg says, as `version` (python -m venv) or `version_info` (uv)."""
    made_by = path.parent.parent / "pyvenv.cfg"
    try:
        text = made_by.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"python: {path} is of no venv: {made_by} cannot be read. Make one, which nobody "
            "changes while a job waits: uv venv VENV."
        ) from error
    found = re.search(r"^version(?:_info)?\s*=\s*(\d+\.\d+\.\d+)", text, re.MULTILINE)
    if found is None:
        raise ConfigError(f"python: {made_by} names no version. Make it anew: uv venv VENV.")
    return found[1]
