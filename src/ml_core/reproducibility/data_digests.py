"""data-digests.json: what each data file held when a run read it, 1,024 rows at a time.

    {"format": 1, "files": {"train_x": {"name": "..._x.h5", "size": 7.., "sha256": "...",
                                        "groups": ["...", ...]}, "train_y": ...}}

`groups`: a SHA-256 per 1,024 rows (patches or labels), so that a change is found to its rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

FORMAT = 1
ROWS_PER_GROUP = 1024


class _DatasetDigest(Protocol):
    @property
    def groups(self) -> tuple[str, ...]: ...


class FileDigest(Protocol):
    """What `ml_core.data.versions.digests.digest_file` returns; data is a layer above this one."""

    @property
    def size(self) -> int: ...
    @property
    def sha256(self) -> str: ...
    @property
    def datasets(self) -> Mapping[str, _DatasetDigest]: ...


def data_digests(files: Mapping[str, tuple[Path, FileDigest]]) -> dict[str, Any]:
    """Return the JSON of data-digests.json for `files`: "SPLIT_x" or "SPLIT_y" -> (path, digest).

    The groups are those of the data set that the key names, "x" or "y".
    """
    return {
        "format": FORMAT,
        "files": {key: _file_entry(key, path, digest) for key, (path, digest) in files.items()},
    }


def _file_entry(key: str, path: Path, digest: FileDigest) -> dict[str, Any]:
    dataset = digest.datasets.get(key.rpartition("_")[2])
    return {
        "name": path.name,
        "size": digest.size,
        "sha256": digest.sha256,
        "groups": list(dataset.groups) if dataset else [],
    }


def changed_rows(
    then: Mapping[str, Any], now: Mapping[str, Any], key: str
) -> tuple[int, int] | None:
    """Return the first and last row of the first 1,024 of file `key` that are not as they were.

    None where the values are equal (the file may still be packed otherwise), or not recorded.
    """
    a, b = (list(record["files"][key]["groups"]) for record in (then, now))
    if a == b or not a or not b:
        return None
    first = next(
        (number for number, (x, y) in enumerate(zip(a, b, strict=False)) if x != y),
        min(len(a), len(b)),
    )
    return first * ROWS_PER_GROUP, (first + 1) * ROWS_PER_GROUP - 1
