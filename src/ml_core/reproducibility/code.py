"""Which code runs: its commit, and everything in which it differs from that commit."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ml_core.reproducibility.secret_text import why_secret

PACKAGE = Path(__file__).resolve().parents[1]

LARGEST_PATCH = 2**20  # bytes of one file's patch; source files are far below it
LARGEST_DIFF = 16 * 2**20  # bytes of all patches together
MOST_NEW_FILES = 200  # of which the content is kept

# Whatever the user's git is set to, `git apply` must take the patch.
_PLAIN = (
    "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--src-prefix=a/",
    "--dst-prefix=b/",
)  # fmt: skip
_PATCH_BEGINS = re.compile(rb"^(?=diff --git )", re.MULTILINE)


def code_record(package: Path = PACKAGE) -> tuple[dict[str, Any], str]:
    """Return which code runs, and its difference from the commit (empty when there is none).

    The record: `commit`, that of the repository in which the package lies (an installed copy has
    none); `dirty`; `untracked`, the new files of the package; `left_out`, which files' content is
    not in the difference, and why; `source_sha256` of the package's own files, by which two
    installed copies can be compared. `git apply` takes the difference, new files included.
    """
    source = {"source_sha256": source_digest(package)}
    commit = _git(package, "rev-parse", "HEAD")
    tracked = _git(package, "ls-files", "--error-unmatch", "--", ".")
    if commit is None or tracked is None:
        why = "git knows no commit of the package"
        return {"commit": None, "dirty": None, "why": why, **source}, ""
    top = Path(os.fsdecode(_git(package, "rev-parse", "--show-toplevel") or b"").strip())
    listed = _git(package, "ls-files", "-z", "--others", "--exclude-standard", "--", ".") or b""
    names = [os.fsdecode(name) for name in listed.split(b"\0") if name]
    changed = _split(_git(package, "diff", *_PLAIN, "HEAD", "--", ":/") or b"")
    new = _patches_of_new(top, [(package / name).relative_to(top) for name in names])
    diff, left_out = _keep([*changed, *new])
    record = {
        "commit": commit.decode().strip(),
        "dirty": bool(changed or names),
        "untracked": names,
        "left_out": left_out,
    }
    return {**record, **source}, diff


def source_digest(package: Path = PACKAGE) -> str:
    """Return the SHA-256 over name and content of every file of the package, sorted by name.

    What Python makes of them (`__pycache__`) is not in it, nor are hidden files.
    """
    digest = hashlib.sha256()
    for path in sorted(_source_files(package)):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{content}  {path.relative_to(package).as_posix()}\n".encode())
    return digest.hexdigest()


def _source_files(package: Path) -> Iterable[Path]:
    for folder, folders, names in os.walk(package):
        folders[:] = [name for name in folders if name != "__pycache__" and name[0] != "."]
        yield from (Path(folder) / name for name in names if name[0] != ".")


def _patches_of_new(top: Path, paths: Iterable[Path]) -> list[tuple[str, bytes | None]]:
    """Return (path, patch that makes the file) per new file; None beyond MOST_NEW_FILES."""
    patches: list[tuple[str, bytes | None]] = []
    for number, path in enumerate(paths):
        patch = None
        if number < MOST_NEW_FILES and (top / path).stat().st_size <= LARGEST_PATCH:
            patch = _git(top, "diff", *_PLAIN, "--no-index", "--", os.devnull, str(path), differs=1)
        patches.append((path.as_posix(), patch))
    return patches


def _split(diff: bytes) -> list[tuple[str, bytes | None]]:
    """Return (path, patch) per file of a diff; a line of content never begins as a patch does."""
    patches = [patch for patch in _PATCH_BEGINS.split(diff) if patch]
    return [(_path_of(patch), patch) for patch in patches]


def _path_of(patch: bytes) -> str:
    """Return the b/ side of ``diff --git a/PATH b/PATH``; without renames both sides are equal."""
    header = patch.split(b"\n", 1)[0].removeprefix(b"diff --git ")
    half = header[: len(header) // 2].decode(errors="replace").strip('"')
    return half.removeprefix("a/")


def _keep(patches: Iterable[tuple[str, bytes | None]]) -> tuple[str, dict[str, str]]:
    """Return the patches that may be kept, one after the other, and why each other one is not."""
    kept, left_out, size = [], {}, 0
    for path, patch in patches:
        why = _why_left_out(path, patch, room=LARGEST_DIFF - size)
        if why is None:
            assert patch is not None
            kept.append(patch)
            size += len(patch)
        else:
            left_out[path] = why
    return b"".join(kept).decode(), left_out


def _why_left_out(path: str, patch: bytes | None, room: int) -> str | None:
    if patch is None or len(patch) > min(LARGEST_PATCH, room):
        return "too large"
    if re.search(rb"^Binary files .* differ$", patch, re.MULTILINE):
        return "binary"
    try:
        return why_secret(path, patch.decode())
    except UnicodeDecodeError:
        return "not UTF-8 text"


def _git(folder: Path, *arguments: str, differs: int = 0) -> bytes | None:
    """Return what git prints, or None where it fails or is not installed.

    `differs` is an exit status that is no failure. As bytes: text mode would drop "\\r".
    """
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, timeout=30, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode in (0, differs) else None
