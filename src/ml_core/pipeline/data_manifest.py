"""Write dataset.json, the version of a data set, small enough to keep in git.

Reads every file of the folder once; writes dataset.json into it, or where --out says.

    ml-core data manifest data/pcam --note "as downloaded"
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ml_core.data.versions.manifest import MANIFEST_NAME, Manifest, build_manifest
from ml_core.errors import DataError

logger = logging.getLogger("ml_core.data")


def data_manifest(folder: Path, out: Path | None = None, note: str = "") -> dict[str, Any]:
    """Return {"manifest", "version", "num_files", "size", "splits"}; raises DataError."""
    path = out or folder / MANIFEST_NAME
    before = _version_of(path)
    manifest = build_manifest(folder, note=note, leave_out=[path])
    manifest.save(path)
    size = sum(each.size for each in manifest.files.values())
    logger.info("%s: version %s, %d files, %s bytes", path, manifest.version, len(manifest.files),
                f"{size:,}")  # fmt: skip
    for split, count in manifest.splits.items():
        classes = ", ".join(f"{number:,} with label {k}" for k, number in count.labels.items())
        logger.info("%s: %s patches%s", split, f"{count.patches:,}", classes and f": {classes}")
    if before not in (None, manifest.version):
        logger.info("It was version %s before; verify says what changed.", before)
    return {
        "manifest": str(path),
        "version": manifest.version,
        "num_files": len(manifest.files),
        "size": size,
        "splits": {
            name: {"patches": each.patches, "labels": dict(each.labels)}
            for name, each in manifest.splits.items()
        },
    }


def _version_of(path: Path) -> str | None:
    """Return the version that `path` records, or None where there is none to be read."""
    try:
        return Manifest.load(path).version
    except DataError:
        return None
