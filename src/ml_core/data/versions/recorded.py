"""Whether data files are still what was recorded of them: beside them, or by a run that read them.

Both compare what was just read with what was written down, and name the rows that differ; no
digest is remembered from an earlier reading, so bits that rot on the disk are seen.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_core.data.versions.digests import FileDigest, digest_file
from ml_core.data.versions.manifest import MANIFEST_NAME, Manifest
from ml_core.data.versions.verify import describe_changes, describe_rows
from ml_core.errors import DataError

logger = logging.getLogger("ml_core.data")


def check_recorded(files: Iterable[tuple[Path, FileDigest]]) -> None:
    """Raise DataError where dataset.json lies beside one of `files` and says otherwise of it.

    `files`: each with its digests as just read. One of other bytes and the same values is a warning
    in the log: it was repacked. Without a dataset.json nothing is known.
    """
    manifests: dict[Path, Manifest | None] = {}
    for path, found in files:
        place = path.parent / MANIFEST_NAME
        if place not in manifests:
            manifests[place] = Manifest.load(place) if place.is_file() else None
        manifest = manifests[place]
        if manifest is not None:
            _check_one(path, found, manifest.files.get(path.name), place)


def describe_recorded_rows(then: Mapping[str, Any], found: FileDigest, key: str) -> str:
    """Return which rows of data set `key` differ from a record of a run, "" where none is known.

    `then` is an entry of the run's data-digests.json: {"name", "size", "sha256", "groups": [...]}.
    """
    dataset = found.datasets.get(key)
    groups = list(then.get("groups") or ())
    if dataset is None or not groups or len(groups) != len(dataset.groups):
        return ""
    pairs = enumerate(zip(groups, dataset.groups, strict=True))
    differing = [number for number, (old, new) in pairs if old != new]
    return describe_rows(differing, dataset.shape[0]) if differing else ""


def _check_one(path: Path, found: FileDigest, record: FileDigest | None, manifest: Path) -> None:
    if record is None:
        raise DataError(
            f"{path} is not in {manifest}, which records the data of this folder. Take the file "
            f"away, or record what is there now: ml-core data manifest {path.parent}"
        )
    if found.sha256 == record.sha256:
        return
    whole = digest_file(path)  # decoded as well: another storage is no change
    if whole.content == record.content:
        logger.warning(
            "%s: its bytes are not those that %s records, its values are, every one: it was stored "
            "in another way, or a bit rotted where none of them is.",
            path,
            manifest.name,
        )
        return
    raise DataError(
        f"{path} is not what {manifest.name} records: {describe_changes(record, whole)}. "
        f"Bits rotted, or somebody changed it. Copy it again "
        f"from where it is whole; if it is meant, record it: ml-core data manifest {path.parent}"
    )
