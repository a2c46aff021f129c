"""Official files into a data folder: fetched, checked, unpacked, checked again."""

from __future__ import annotations

import glob
import gzip
import hashlib
import shutil
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ml_core.data.file_errors import readable, writable
from ml_core.data.read_through import BLOCK_BYTES, hash_through
from ml_core.data.transfer.fetch import Expected, fetch
from ml_core.data.transfer.folder_lock import locked
from ml_core.data.transfer.patience import Patience
from ml_core.data.versions.official import ZENODO_URL, OfficialFile
from ml_core.durable import written_aside
from ml_core.errors import DataError
from ml_core.log import progress


@dataclass(frozen=True)
class Downloaded:
    """Names of the files that came now, and of those that were there and right."""

    fetched: tuple[str, ...]
    already_there: tuple[str, ...]


def download(
    folder: Path,
    files: Sequence[OfficialFile],
    patience: Patience,
    *,
    base_url: str | None = None,
    keep_archives: bool = False,
) -> Downloaded:
    """Put `files` into `folder`, one after the other, and return which were fetched.

    A file that is there and right is left alone; what a stopped download left is gone on from. A
    file has its name only when its MD5 was right. `base_url` is a mirror, BASE_URL/NAME; it may be
    http, while Zenodo is only asked by https. Raises DataError, before anything is fetched for
    files that are there and wrong and for too little space, and for all that `fetch` may meet.
    """
    with locked(folder, wait=False):
        there = [file.name for file in files if (folder / file.name).exists()]
        _refuse_wrong(folder, files)
        to_fetch = [file for file in files if file.name not in there]
        _remove_leftovers(folder, to_fetch)
        _check_space(folder, to_fetch, keep_archives)
        known = {file.archive_md5: file.archive_name for file in files}
        for file in to_fetch:
            archive = folder / file.archive_name
            if not archive.exists():
                expected = Expected(
                    md5=file.archive_md5,
                    max_size=file.max_size,
                    size=file.archive_size,
                    is_gzip=file.is_packed,
                    known=known,
                )
                url = _url(file.archive_name, base_url)
                fetch(url, archive, expected, patience, only_https=base_url is None)
            if file.is_packed:
                unpack(archive, folder / file.name, file)
                if not keep_archives:
                    archive.unlink()
    return Downloaded(tuple(file.name for file in to_fetch), tuple(there))


def unpack(archive: Path, path: Path, file: OfficialFile) -> None:
    """Write what `archive` (gzip) holds to `path`, whole and with the right MD5 or not at all.

    Raises DataError for a damaged archive, one that holds more than `file` can have, another
    content, and a disk that cannot be written.
    """
    md5 = hashlib.md5(usedforsecurity=False)
    size = 0
    blocks = progress(
        _unpacked_blocks(archive),
        total=-(-file.unpacked_size // BLOCK_BYTES),
        description=f"unpacking {path.name}",
        unit="blocks",
    )
    with writable(path), written_aside(path) as aside, open(aside, "wb") as target:
        for block in blocks:
            size += len(block)
            if size > file.max_size:
                raise DataError(
                    f"{archive} unpacks to more than the {file.max_size:,} bytes there can be; "
                    "it is not what its name says. Remove it and download again."
                )
            target.write(block)
            md5.update(block)
        target.flush()
        if md5.hexdigest() != file.md5:
            raise DataError(
                f"{archive} unpacks to {size:,} bytes with MD5 {md5.hexdigest()}, where "
                f"{path.name} has {file.md5}. Remove it and download again."
            )


def _unpacked_blocks(archive: Path) -> Iterator[bytes]:
    with readable(archive):
        try:
            with gzip.open(archive, "rb") as stream:
                while block := stream.read(BLOCK_BYTES):
                    yield block
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(
                f"{archive} is damaged: {error}. Remove it and download again."
            ) from error


def _refuse_wrong(folder: Path, files: Sequence[OfficialFile]) -> None:
    """Raise DataError naming the files and archives that are there and not the official ones."""
    wrong = []
    for file in files:
        pairs = {file.name: file.md5, file.archive_name: file.archive_md5}
        # where the file is there, its archive is not needed, and is nobody's business
        name = file.name if (folder / file.name).exists() else file.archive_name
        if (folder / name).exists() and hash_through(folder / name, "md5")[0] != pairs[name]:
            wrong.append(name)
    if wrong:
        raise DataError(
            f"{folder} holds files that are not the official ones, or not whole: "
            f"{', '.join(wrong)}. They are left as they are: move or remove them, or name another "
            "folder. (To go on with one that is only cut short, rename it to NAME.part.)"
        )


def _remove_leftovers(folder: Path, files: Sequence[OfficialFile]) -> None:
    """Remove what a killed process wrote aside; whoever holds the lock is the only writer."""
    with writable(folder):
        for file in files:
            for leftover in folder.glob(f".{glob.escape(file.name)}.*.tmp"):
                leftover.unlink(missing_ok=True)


def _check_space(folder: Path, files: Sequence[OfficialFile], keep_archives: bool) -> None:
    packed = [file.archive_size or file.unpacked_size for file in files if file.is_packed]
    archives = sum(packed) if keep_archives else max(packed, default=0)
    needed = sum(file.unpacked_size for file in files) + archives
    began = [folder / name for file in files for name in (file.archive_name, _part(file))]
    needed -= sum(path.stat().st_size for path in began if path.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{folder} has {free:,} bytes free, but about {needed:,} are needed. Make room, name a "
            "folder on a larger disk, or take fewer splits: --split."
        )


def _part(file: OfficialFile) -> str:
    return f"{file.archive_name}.part"


def _url(name: str, base_url: str | None) -> str:
    return ZENODO_URL.format(name=name) if base_url is None else f"{base_url.rstrip('/')}/{name}"
