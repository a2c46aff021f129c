"""Programs made up for a test: a few lines of shell, found where a real one would be."""

from __future__ import annotations

import shutil
from pathlib import Path


def write_program(path: Path, lines: str, *, shell: str = "/bin/bash") -> Path:
    """Write a program of these lines of shell; return its path."""
    path.write_text(f"#!{shell}\n{lines}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


class ProgramsAlone:
    """A folder to be the whole PATH: what is put into it, and `cat` and `sleep` to write that."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        for tool in ("cat", "sleep"):
            (folder / tool).symlink_to(shutil.which(tool) or "")

    def __call__(self, name: str, lines: str) -> None:
        write_program(self.folder / name, lines, shell="/bin/sh")
