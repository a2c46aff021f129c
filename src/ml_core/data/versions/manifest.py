"""dataset.json: the version of a data set, small enough to keep in git.

It names every file of the folder with its size and digests, and for HDF5 files the digest of each
1,024 patches, so that `data verify` can say which rows changed. The same data give the same bytes:
there is no time and no machine in it. `version` covers names and content and nothing else, so
chunking or compressing a file anew leaves it as it was.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from ml_core.data.layout import AUDIT_DIR, LABEL_KEY, PATCH_KEY, SPLITS, load_labels, split_paths
from ml_core.data.versions.digests import FileDigest, digest_file
from ml_core.errors import DataError, RunError, first_problem
from ml_core.runs import read_json, write_json

logger = logging.getLogger("ml_core.data")

MANIFEST_NAME = "dataset.json"
FORMAT = 1
_UNFINISHED = (".part", ".tmp")
_VERSION_DIGITS = 12  # 48 bits: two versions of one data set never share them by chance


@dataclass(frozen=True)
class SplitCount:
    """How many patches a split holds, and how many of each class."""

    patches: int
    shape: tuple[int, ...]  # of one patch
    dtype: str
    labels: Mapping[str, int]  # by label, "0" normal and "1" tumour; empty without a label file


@dataclass(frozen=True)
class Manifest:
    """What a data set consists of; `files` by their path in the folder, with forward slashes."""

    files: Mapping[str, FileDigest]
    splits: Mapping[str, SplitCount] = dataclasses.field(default_factory=dict)
    note: str = ""

    @property
    def version(self) -> str:
        """The first 12 hexadecimal digits of SHA-256 over a line "NAME CONTENT" per file."""
        lines = "".join(f"{name} {self.files[name].content}\n" for name in sorted(self.files))
        digest = hashlib.sha256(lines.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:_VERSION_DIGITS]

    def save(self, path: Path) -> None:
        """Write it to `path`, whole or not at all; raises DataError."""
        value: dict[str, Any] = {"format": FORMAT, "version": self.version}
        if self.note:
            value["note"] = self.note
        value["splits"] = {name: dataclasses.asdict(each) for name, each in self.splits.items()}
        value["files"] = {name: dataclasses.asdict(self.files[name]) for name in sorted(self.files)}
        try:
            write_json(path, value)
        except OSError as error:
            raise DataError(
                f"{path} cannot be written: {error.strerror}. Give another place: --out FILE."
            ) from error

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Return what `path` says; raises DataError when it is missing, damaged or edited."""
        try:
            raw = read_json(path)
        except RunError as error:
            raise DataError(f"{error} Make it: ml-core data manifest DIR") from error
        if raw.pop("format", None) != FORMAT:
            raise DataError(
                f"{path} is not a manifest of format {FORMAT}. Make it anew: ml-core data manifest."
            )
        version = raw.pop("version", None)
        try:
            manifest = TypeAdapter(cls).validate_python(raw)
        except ValidationError as error:
            raise DataError(f"{path} is not a manifest: {first_problem(error)}.") from error
        _check_names(manifest, path)
        if version != manifest.version:
            raise DataError(
                f"{path} says version {version}, but its files make {manifest.version}: it was "
                "edited, or merged. Take it from git again, or make it anew: ml-core data manifest."
            )
        return manifest


def build_manifest(folder: Path, *, note: str = "", leave_out: Collection[Path] = ()) -> Manifest:
    """Return the manifest of `folder`, reading every file once; raises DataError.

    Left out: dataset.json, hidden and unfinished files (see `list_files`), and `leave_out`.
    """
    skipped = {path.absolute() for path in leave_out}
    names = [name for name in list_files(folder) if (folder / name).absolute() not in skipped]
    if not names:
        raise DataError(f"{folder} holds no file to make a manifest of.")
    # One file after the other: a disk is read fastest from one place, and the digests of a file
    # are taken side by side already.
    files = {name: digest_file(folder / name) for name in names}
    return Manifest(files, _count_splits(folder, files), note)


def list_files(folder: Path) -> list[str]:
    """Return the files of a data set, sorted, as paths in `folder` with forward slashes.

    Files in subfolders count and links to files are followed; dataset.json, the folder of an audit,
    and names that start with a dot or end with .part or .tmp do not count. Raises DataError.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder.")

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be listed: {error.strerror}.") from error

    found = []
    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if Path(parent) == folder and AUDIT_DIR in folders:
            folders.remove(AUDIT_DIR)
        for path in (Path(parent) / name for name in folders):
            if path.is_symlink():  # it may lead back to where it came from
                logger.warning("%s is a link to a folder and is left out.", path)
        found += [
            path.relative_to(folder).as_posix()
            for path in (Path(parent) / name for name in names)
            if _is_data(path)
        ]
    return sorted(name for name in found if name != MANIFEST_NAME)


def _is_data(path: Path) -> bool:
    """Return whether `path` counts; a link to nowhere does, so that it is found to be missing."""
    if path.name.startswith(".") or path.name.endswith(_UNFINISHED):
        return False
    return path.is_file() or path.is_symlink()  # and no pipe, which would be waited for


def _count_splits(folder: Path, files: Mapping[str, FileDigest]) -> dict[str, SplitCount]:
    counts = {}
    for split in SPLITS:
        paths = split_paths(folder, split)
        patches = files[paths.x.name].datasets.get(PATCH_KEY) if paths.x.name in files else None
        if patches is None:
            continue
        labels = {}
        if paths.y.name in files and LABEL_KEY in files[paths.y.name].datasets:
            values, numbers = np.unique(load_labels(paths.y), return_counts=True)
            labels = {
                str(value): int(number) for value, number in zip(values, numbers, strict=True)
            }
        counts[split] = SplitCount(patches.shape[0], patches.shape[1:], patches.dtype, labels)
    return counts


def _check_names(manifest: Manifest, path: Path) -> None:
    for name in manifest.files:
        parts = PurePosixPath(name)
        if not name or parts.is_absolute() or ".." in parts.parts:
            raise DataError(f"{path} names {name!r}, which is not a file inside the data folder.")
