"""Which code runs: its commit, and everything in which it differs from that commit."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ml_core.reproducibility.patches import patch_of_new, split_patches
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

# By which git is told of another repository than that of the folder.
_OTHER_REPOSITORY = (
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR",
    "GIT_NAMESPACE", "GIT_PREFIX",
)  # fmt: skip


def code_record(package: Path = PACKAGE) -> tuple[dict[str, Any], str]:
    """Return which code runs, and its difference from the commit (empty when there is none).

    The record: `commit`, that of the repository in which the package lies (an installed copy has
    none); `dirty`; `untracked`, the new files of the package; `left_out`, which files' content is
    not in the difference, and why; `why`, where one of the first two is not known; `source_sha256`
    of the package's own files, by which two installed copies can be compared. `git apply` takes
    the difference, new files included.
    """
    source = {"source_sha256": source_digest(package)}
    commit = _git(package, "rev-parse", "HEAD")
    tracked = _git(package, "ls-files", "--error-unmatch", "--", ".")
    if commit is None or tracked is None:
        why = "git knows no commit of the package"
        return {"commit": None, "dirty": None, "why": why, **source}, ""
    top = Path(os.fsdecode(_git(package, "rev-parse", "--show-toplevel") or b"").rstrip("\n"))
    listed = _git(package, "ls-files", "-z", "--others", "--exclude-standard", "--", ".")
    differs = _git(package, "diff", *_PLAIN, "HEAD", "--", ":/")
    if listed is None or differs is None:  # too slow, or a damaged repository: not clean
        why = "git could not say what differs from the commit"
        return {"commit": commit.decode().strip(), "dirty": None, "why": why, **source}, ""
    names = [os.fsdecode(name) for name in listed.split(b"\0") if name]
    changed = split_patches(differs)
    new = _patches_of_new(top, [(package / name).relative_to(top) for name in names])
    diff, left_out = _keep([*changed.items(), *new])
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
        try:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError:  # a link to nowhere, or gone since it was listed
            content = "unreadable"
        digest.update(f"{content}  {path.relative_to(package).as_posix()}\n".encode())
    return digest.hexdigest()


def _source_files(package: Path) -> Iterable[Path]:
    for folder, folders, names in os.walk(package):
        folders[:] = [name for name in folders if name != "__pycache__" and name[0] != "."]
        yield from (Path(folder) / name for name in names if name[0] != ".")


def _patches_of_new(top: Path, paths: Iterable[Path]) -> Iterator[tuple[str, bytes | None]]:
    """Yield (path, patch that makes the file) per new file.

    None where there are too many, b"" where the file is gone by now, or no file.
    """
    for number, path in enumerate(paths):
        patch = None
        try:
            if number < MOST_NEW_FILES and (top / path).lstat().st_size <= LARGEST_PATCH:
                patch = patch_of_new(top, path)
        except OSError:
            patch = b""
        yield path.as_posix(), patch


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
    if not patch:
        return "cannot be read"
    if re.search(rb"^Binary files .* differ$", patch, re.MULTILINE):
        return "binary"
    try:
        return why_secret(path, patch.decode())
    except UnicodeDecodeError:
        return "not UTF-8 text"


def _git(folder: Path, *arguments: str) -> bytes | None:
    """Return what git prints, or None where it fails or is not installed; as it is, with "\\r".

    It is asked about `folder`, whatever repository the environment names (in a git hook it does),
    and takes no lock that somebody's commit may wait for.
    """
    environment = {key: value for key, value in os.environ.items() if key not in _OTHER_REPOSITORY}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            env={**environment, "GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None
