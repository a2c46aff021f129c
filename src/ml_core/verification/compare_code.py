"""Which code ran: the commit, the changes on top of it, and the files where neither is known."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from ml_core.reproducibility.patches import split_patches
from ml_core.verification.differences import NOT_RECORDED, Difference
from ml_core.verification.run_evidence import RunEvidence


def compare_code(a: RunEvidence, b: RunEvidence) -> Iterator[Difference]:
    """Yield what is not the same in the code of `a` and `b`."""
    if not a.code or not b.code:
        if a.code or b.code:
            yield Difference("code", "commit", _commit(a), _commit(b), "It cannot be told.")
        return
    is_same_source = _source(a) is not None and _source(a) == _source(b)
    is_same_commit = a.code.get("commit") == b.code.get("commit")
    if not is_same_commit:
        yield Difference(
            "code", _what(a, b), _commit(a), _commit(b), _advice(a, is_same_source),
            is_harmless=is_same_source,
        )  # fmt: skip
    if is_same_source:
        return  # what else differs in the repository is not run
    changes = list(_compare_changes(a, b))
    yield from changes
    if is_same_commit and not changes and _source(a) and _source(b):
        yield Difference(
            "code", "the package's own files", _short(_source(a)), _short(_source(b)),
            "Install the version that ran, or compare the two installations.",
        )  # fmt: skip


def _compare_changes(a: RunEvidence, b: RunEvidence) -> Iterator[Difference]:
    """Yield each file whose uncommitted changes are not the same."""
    here, there = _patches(a.changes), _patches(b.changes)
    for path in dict.fromkeys([*here, *there]):
        if here.get(path) != there.get(path):
            yield Difference(
                "code", f"uncommitted changes of {path}", _digest(here.get(path)),
                _digest(there.get(path)),
                _how_to_undo(here.get(path)),
            )  # fmt: skip
    for evidence in (a, b):
        for name in evidence.code.get("left_out", _unrecorded(evidence)):
            yield Difference(
                "code", f"content of {name}, changed in {evidence.name}", NOT_RECORDED,
                NOT_RECORDED, "It cannot be told whether it is the same; commit before you train.",
            )  # fmt: skip


def _how_to_undo(patch: bytes | None) -> str:
    if patch is None:
        return "The run had no change there: undo it, or commit before you train."
    return "Apply the run's changes.diff to its commit, or commit before you train."


def _unrecorded(evidence: RunEvidence) -> list[str]:
    """Return the new files of which an older version kept the names only."""
    return list(evidence.code.get("untracked", []))


def _patches(changes: str) -> dict[str, bytes]:
    """Return the patch of each file; without its index line, which git's settings change."""
    found = {}
    for path, patch in split_patches(changes.encode()).items():
        lines = patch.splitlines(keepends=True)
        found[path] = b"".join(line for line in lines if not line.startswith(b"index "))
    return found


def _what(a: RunEvidence, b: RunEvidence) -> str:
    if _source(a) is None or _source(b) is None:
        return "commit"
    state = "are the same" if _source(a) == _source(b) else "differ"
    return f"commit (the package's own files {state})"


def _advice(a: RunEvidence, is_same_source: bool) -> str:
    if is_same_source:
        return "The package's own files are the same in both, so no bit changes by it."
    commit = a.code.get("commit")
    if commit is None:
        return "Install the version of ml_core that ran."
    return f"Use the code that ran: git checkout {commit[:12]}."


def _commit(evidence: RunEvidence) -> str:
    if not evidence.code:
        return NOT_RECORDED
    commit = evidence.code.get("commit")
    return "none, an installed copy" if commit is None else str(commit)[:12]


def _source(evidence: RunEvidence) -> str | None:
    return evidence.code.get("source_sha256")


def _digest(patch: bytes | None) -> str:
    return "none" if patch is None else _short(hashlib.sha256(patch).hexdigest())


def _short(digest: str | None) -> str:
    return f"sha256 {(digest or '')[:12]}"
