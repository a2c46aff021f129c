"""Say whether a data folder holds what its manifest, or PCam's official checksums, promise.

Reads dataset.json and every file that changed since the last time; writes .dataset.verified.json
beside the manifest, so that a verify that was stopped goes on where it was.

    ml-core data verify data/pcam
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_core.data.versions.digest_cache import DigestCache
from ml_core.data.versions.manifest import MANIFEST_NAME, Manifest
from ml_core.data.versions.official import OFFICIAL_FILES, OfficialFile
from ml_core.data.versions.verify import (
    Verdict,
    compare_with_manifest,
    compare_with_official,
    find_swap,
)
from ml_core.errors import DataError

logger = logging.getLogger("ml_core.data")

STATE_NAME = ".dataset.verified.json"


def data_verify(
    folder: Path,
    manifest_path: Path | None = None,
    *,
    state_dir: Path | None = None,
    fresh: bool = False,
    official: Sequence[OfficialFile] = OFFICIAL_FILES,
) -> dict[str, Any]:
    """Return {"against", "version", "files": status by name, "num_remembered"}.

    Against `manifest_path`, else `folder`/dataset.json, else the official checksums. Raises
    DataError naming every file that is wrong. `state_dir` holds the memory of files that were
    verified and not touched since; `fresh` reads them all the same.
    """
    path = manifest_path or folder / MANIFEST_NAME
    state = (state_dir or path.parent) / STATE_NAME
    cache = DigestCache(state, fresh=fresh)
    version = None
    if manifest_path is not None or path.exists():
        manifest = Manifest.load(path)
        version, against = manifest.version, f"{path} (version {manifest.version})"
        verdicts = compare_with_manifest(folder, manifest, cache, leave_out=[path])
    else:
        against = "the official checksums of PCam"
        verdicts = compare_with_official(folder, cache, official)
    wrong = [each for each in verdicts if each.is_wrong]
    if wrong:
        raise DataError(_explain(folder, against, verdicts))
    for each in verdicts:
        logger.info("%-8s  %s%s", each.status, each.name, each.detail and f": {each.detail}")
    num_ok = sum(each.status in ("ok", "repacked") for each in verdicts)
    logger.info("%s: %d files are as in %s", folder, num_ok, against)
    return {
        "against": str(path) if version else "official",
        "version": version,
        "files": {each.name: each.status for each in verdicts},
        "num_remembered": cache.num_remembered,
    }


def _explain(folder: Path, against: str, verdicts: Sequence[Verdict]) -> str:
    """Return the message: every file that is wrong, what they have in common, what to do."""
    wrong = [each for each in verdicts if each.is_wrong]
    num_ok = sum(each.status in ("ok", "repacked") for each in verdicts)
    said = "1 file is" if len(wrong) == 1 else f"{len(wrong)} files are"
    lines = [f"{folder} is not as in {against}: {said} wrong, {num_ok} right."]
    lines += [
        f"  {each.status:<10}  {each.name}{each.detail and f': {each.detail}'}" for each in wrong
    ]
    swap = find_swap(verdicts)
    if swap is not None:
        lines.append(
            f"The files of {swap[0]} and {swap[1]} are swapped: exchange their names. "
            "(PCam's own table of checksums has valid and test swapped.)"
        )
    elif any(each.content_of for each in wrong):
        lines.append("Give the misnamed files their right names.")
    if any(not each.content_of for each in wrong):
        lines.append(
            "Copy or download the changed files again; or, if they are meant, record the new "
            "version: ml-core data manifest DIR"
        )
    return "\n".join(lines)
