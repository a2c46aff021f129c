"""Whether a data folder holds what its manifest, or PCam's official checksums, say."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ml_core.data.layout import SPLITS
from ml_core.data.read_through import FileStamp
from ml_core.data.versions.digest_cache import DigestCache
from ml_core.data.versions.digests import ROWS_PER_GROUP, DatasetDigest, FileDigest, digest_file
from ml_core.data.versions.manifest import Manifest, list_files
from ml_core.data.versions.official import OFFICIAL_FILES, OfficialFile
from ml_core.errors import DataError

# repacked: other bytes, the same values. absent: an official file that can be done without.
Status = Literal["ok", "repacked", "changed", "missing", "unreadable", "extra", "absent"]

_SPLIT_OF = {file.name: file.split for file in OFFICIAL_FILES}
_MAX_RANGES = 5  # of rows that are named; what follows is counted


@dataclass(frozen=True)
class Verdict:
    """What was found of one file. `is_wrong`: the folder is not the data set it should be."""

    name: str
    status: Status
    detail: str = ""
    is_wrong: bool = False
    content_of: str = ""  # the file whose content this one holds, where that is another


def compare_with_manifest(
    folder: Path, manifest: Manifest, cache: DigestCache, *, leave_out: Collection[Path] = ()
) -> list[Verdict]:
    """Return a verdict per file of the manifest and per other file of `folder`.

    Files whose size is right are hashed (through `cache`); only those that differ are read again,
    for the rows that changed. An extra file is wrong where PCam's layout would read it by its name.
    """
    known = {record.sha256: name for name, record in manifest.files.items()}
    verdicts = [
        _compare(folder / name, name, record, known, cache)
        for name, record in sorted(manifest.files.items())
    ]
    missing = {
        each.name: manifest.files[each.name] for each in verdicts if each.status == "missing"
    }
    skipped = {path.absolute() for path in leave_out}
    extras = [
        name
        for name in list_files(folder)
        if name not in manifest.files and (folder / name).absolute() not in skipped
    ]
    return verdicts + [_judge_extra(folder / name, name, missing, cache) for name in extras]


def compare_with_official(
    folder: Path, cache: DigestCache, files: Sequence[OfficialFile] = OFFICIAL_FILES
) -> list[Verdict]:
    """Return a verdict per official file, packed or not, and per other file of `folder`.

    A split of which no file is there, and a meta csv, may be absent. Raises DataError when the
    folder holds none of the files under any name.
    """
    there = set(list_files(folder))
    expected = {file.name: file.md5 for file in files}
    expected |= {file.archive_name: file.archive_md5 for file in files}
    known = {md5: name for name, md5 in expected.items()}
    verdicts = [
        _compare_md5(folder / name, name, md5, known, cache)
        for name, md5 in expected.items()
        if name in there
    ]
    verdicts += [
        _judge_extra_md5(folder / name, name, known, there, cache)
        for name in sorted(there - set(expected))
    ]
    if not any(each.status != "extra" or each.content_of for each in verdicts):
        raise DataError(
            f"{folder} has no dataset.json and holds none of PCam's files ({files[0].name}, ...). "
            "If these are other data, record them first: ml-core data manifest DIR"
        )
    return verdicts + _judge_absent(files, there)


def find_swap(verdicts: Sequence[Verdict]) -> tuple[str, str] | None:
    """Return two splits whose files are under each other's names, or None."""
    moves = {(_split_of(each.name), _split_of(each.content_of)) for each in verdicts}
    for first, second in itertools.combinations(SPLITS, 2):
        if {(first, second), (second, first)} <= moves:
            return first, second
    return None


def describe_changes(record: FileDigest, found: FileDigest) -> str:
    """Return in words how the content of a file differs from its record, with the rows."""
    said = []
    for name in sorted({*record.datasets, *found.datasets}):
        old, new = record.datasets.get(name), found.datasets.get(name)
        if old is None or new is None:
            said.append(f"'{name}' is {'new' if old is None else 'gone'}")
        elif old != new:
            said.append(f"'{name}': {_describe_dataset(old, new)}")
    if said:
        return "; ".join(said)
    if record.size != found.size:
        return f"{found.size:,} bytes instead of {record.size:,}"
    return "the same size, other bytes"


def describe_rows(groups: Sequence[int], num_rows: int) -> str:
    """Return the rows of rising, at least one, numbers of groups in words, of `num_rows` rows."""
    ranges = list(_ranges(groups))
    named = [
        f"{first * ROWS_PER_GROUP:,} to {min((last + 1) * ROWS_PER_GROUP, num_rows) - 1:,}"
        for first, last in ranges[:_MAX_RANGES]
    ]
    more = f" and {len(ranges) - _MAX_RANGES} more stretches" if len(ranges) > _MAX_RANGES else ""
    noun = "group" if len(groups) == 1 else "groups"
    return f"rows {', '.join(named)}{more} ({len(groups)} {noun} of {ROWS_PER_GROUP:,})"


def _split_of(name: str) -> str | None:
    return _SPLIT_OF.get(name.removesuffix(".gz"))


def _compare(
    path: Path, name: str, record: FileDigest, known: Mapping[str, str], cache: DigestCache
) -> Verdict:
    if not path.exists():
        return Verdict(name, "missing", is_wrong=True)
    try:
        is_same_size = FileStamp.of(path).size == record.size
        if is_same_size and cache.digest(path, "sha256") == record.sha256:
            return Verdict(name, "ok")
        found = digest_file(path)
    except DataError as error:
        return Verdict(name, "unreadable", str(error), is_wrong=True)
    if found.sha256 in known:
        return _misnamed(name, known[found.sha256])
    if found.content == record.content:
        return Verdict(name, "repacked", "stored in another way, the values are the same")
    return Verdict(name, "changed", describe_changes(record, found), is_wrong=True)


def _compare_md5(
    path: Path, name: str, md5: str, known: Mapping[str, str], cache: DigestCache
) -> Verdict:
    try:
        found = cache.digest(path, "md5")
    except DataError as error:
        return Verdict(name, "unreadable", str(error), is_wrong=True)
    if found == md5:
        return Verdict(name, "ok")
    if found in known:
        return _misnamed(name, known[found])
    size = path.stat().st_size
    detail = f"not the official file: {size:,} bytes with MD5 {found}, the official one has {md5}"
    return Verdict(name, "changed", detail, is_wrong=True)


def _judge_absent(files: Sequence[OfficialFile], there: Collection[str]) -> list[Verdict]:
    """Return a verdict per file that is there neither packed nor unpacked."""
    absent = [file for file in files if not {file.name, file.archive_name} & set(there)]
    splits_there = {file.split for file in files if file not in absent}
    return [
        Verdict(file.name, "missing", is_wrong=True)
        if file.split in splits_there and file.part != "meta"
        else Verdict(file.name, "absent")
        for file in absent
    ]


def _misnamed(name: str, content_of: str) -> Verdict:
    detail = f"holds {content_of} under a wrong name"
    return Verdict(name, "changed", detail, is_wrong=True, content_of=content_of)


def _judge_extra(
    path: Path, name: str, missing: Mapping[str, FileDigest], cache: DigestCache
) -> Verdict:
    try:
        size = FileStamp.of(path).size
        for wanted, record in missing.items():
            if size == record.size and cache.digest(path, "sha256") == record.sha256:
                return _renamed(name, wanted)
    except DataError as error:
        return Verdict(name, "extra", str(error))
    if name in _SPLIT_OF:
        return Verdict(name, "extra", "would be read as data, but is not recorded", is_wrong=True)
    return Verdict(name, "extra")


def _judge_extra_md5(
    path: Path, name: str, known: Mapping[str, str], there: Collection[str], cache: DigestCache
) -> Verdict:
    if path.suffix in (".h5", ".hdf5", ".gz", ".csv"):
        try:
            found = known.get(cache.digest(path, "md5"))
        except DataError as error:
            return Verdict(name, "extra", str(error))
        if found is not None and found not in there:
            return _renamed(name, found)
    return Verdict(name, "extra")


def _renamed(name: str, wanted: str) -> Verdict:
    detail = f"is {wanted} under another name; rename it"
    return Verdict(name, "extra", detail, is_wrong=True, content_of=wanted)


def _describe_dataset(old: DatasetDigest, new: DatasetDigest) -> str:
    if old.dtype != new.dtype or old.shape[1:] != new.shape[1:]:
        return f"{new.dtype} {new.shape} instead of {old.dtype} {old.shape}"
    said = []
    if old.shape != new.shape:
        said.append(f"{new.shape[0]:,} rows instead of {old.shape[0]:,}")
    num_groups = min(len(old.groups), len(new.groups))
    differing = [i for i in range(num_groups) if old.groups[i] != new.groups[i]]
    if differing:
        num_rows = min(old.shape[0], new.shape[0])
        said.append(f"{describe_rows(differing, num_rows)} differ")
    return ", ".join(said)


def _ranges(groups: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of each run of consecutive numbers of a rising sequence."""
    first = last = groups[0]
    for group in groups[1:]:
        if group != last + 1:
            yield first, last
            first = group
        last = group
    yield first, last
