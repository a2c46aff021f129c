"""Which bytes were trained on: the file, and the first 1,024 of its rows that differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from ml_core.reproducibility.data_digests import changed_rows
from ml_core.verification.differences import Difference
from ml_core.verification.run_evidence import RunEvidence

_ROWS_OF = {"x": "patches", "y": "labels"}
_CHOSEN = ("num_patches", "num_excluded", "num_filtered")  # of two equal files, which rows


def compare_data(a: RunEvidence, b: RunEvidence) -> Iterator[Difference]:
    """Yield each file of a split that both have and whose bytes differ, and other choices of rows.

    Where a file was moved, renamed or packed otherwise, but holds the same values, nothing differs.
    """
    shared = [split for split in a.data if split in b.data]
    for split in shared:
        for part in ("x", "y"):
            if a.data[split][f"{part}_sha256"] != b.data[split][f"{part}_sha256"]:
                yield from _changed_file(a, b, split, part)
    if a.exclusions_sha256 != b.exclusions_sha256:
        yield Difference(
            "data", "exclusions.csv, the patches left out", _short(a.exclusions_sha256),
            _short(b.exclusions_sha256), "Leave out the same patches, by the run's own list.",
        )  # fmt: skip
    for split in shared:
        yield from _other_rows(split, a.data[split], b.data[split])


def _changed_file(a: RunEvidence, b: RunEvidence, split: str, part: str) -> Iterator[Difference]:
    name = PurePath(a.data[split][f"{part}_path"]).name
    here, there = (_short(e.data[split][f"{part}_sha256"]) for e in (a, b))
    what = f"{name} ({split} {_ROWS_OF[part]})"
    key = f"{split}_{part}"
    rows, advice = None, "Put the file back as it was; in which rows it differs is not recorded."
    if a.digests and b.digests and _has_groups(a.digests, key) and _has_groups(b.digests, key):
        rows = changed_rows(a.digests, b.digests, key)
        if rows is None:
            return
        advice = "Put the file back as it was, or fetch it again; ml-core data verify checks it."
    if rows is not None:
        last = min(rows[1], max(e.data[split]["num_rows"] for e in (a, b)) - 1)
        what = f"{what}, first in rows {rows[0]:,} to {last:,}"
    yield Difference("data", what, here, there, advice)


def _other_rows(
    split: str, here: Mapping[str, Any], there: Mapping[str, Any]
) -> Iterator[Difference]:
    for key in _CHOSEN:
        if key in here and key in there and here[key] != there[key]:
            yield Difference(
                "data", f"{split}: {key}", f"{here[key]:,}", f"{there[key]:,}",
                "Use the same patches: data.max_patches, data.filter_data and the exclusions.",
            )  # fmt: skip
            return


def _has_groups(digests: Mapping[str, Any], key: str) -> bool:
    """Return whether the rows of file `key` are on record, in a file that may have been edited."""
    files = digests.get("files")
    entry = files.get(key) if isinstance(files, dict) else None
    groups = entry.get("groups") if isinstance(entry, dict) else None
    return isinstance(groups, list) and bool(groups)


def _short(sha256: str | None) -> str:
    return "none" if sha256 is None else f"sha256 {sha256[:12]}"
