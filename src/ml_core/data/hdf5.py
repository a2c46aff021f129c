"""Opening one data set of an HDF5 file, or saying what is wrong with the file."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from ml_core.data.hdf5_holes import check_no_holes
from ml_core.errors import DataError, did_you_mean

_GZIP_MAGIC = b"\x1f\x8b"


def open_file(path: Path) -> h5py.File:
    """Return `path` opened for reading, without HDF5's locks; raises DataError saying why not.

    Locks are off because shared file systems of clusters often refuse them, and nobody writes here.
    """
    _check_is_file(path)
    try:
        return h5py.File(path, "r", locking=False)
    except (OSError, RuntimeError) as error:
        raise DataError(_explain_open_error(path, error)) from error


@contextmanager
def open_dataset(path: Path, key: str) -> Iterator[h5py.Dataset]:
    """Yield data set `key` of `path`, none of whose values is missing; raises DataError.

    What HDF5 says against it while it is open is a DataError too.
    """
    with open_file(path) as file, decodable(path):
        dataset = find_dataset(file, path, key)
        check_no_holes(dataset, path)
        yield dataset


def find_dataset(file: h5py.File, path: Path, key: str) -> h5py.Dataset:
    """Return data set `key` of an open file; raises DataError listing the keys there are."""
    with decodable(path):
        found = file.get(key)
        if isinstance(found, h5py.Dataset):
            return found
        keys = sorted(file)
    there = f"it has: {', '.join(keys)}" if keys else "it has none"
    raise DataError(f"{path}: no data set '{key}'; {there}.{did_you_mean(key, keys)}")


def files_behind(dataset: h5py.Dataset, path: Path) -> list[Path]:
    """Return the files besides `path` that hold values of `dataset`, as HDF5 finds them."""
    if dataset.is_virtual:
        names = {source.file_name for source in dataset.virtual_sources()} - {"."}
        return [path.parent / name for name in sorted(names)]
    return [Path(name) for name, _, _ in dataset.external or ()]


@contextmanager
def decodable(path: Path, what: str | Callable[[], str] = "it") -> Iterator[None]:
    """Turn what h5py raises for damage, in a body that asks for `what` of `path`, into DataError.

    That is any of the types below: a damaged header may claim more memory than there is, or name a
    type or a text that does not exist.
    """
    try:
        yield
    except (OSError, RuntimeError, MemoryError, LookupError, ValueError, TypeError) as error:
        asked_for = what if isinstance(what, str) else what()
        raise DataError(
            f"{path}: {asked_for} cannot be read: {error or type(error).__name__}. The file is "
            "damaged; copy or unpack it again."
        ) from error


def _check_is_file(path: Path) -> None:
    if path.is_dir():
        raise DataError(f"{path} is a folder; an HDF5 file is needed.")
    if not path.parent.is_dir():
        raise DataError(f"{path} is missing: there is no folder {path.parent}.")
    if not path.exists():
        names = sorted(p.name for p in path.parent.iterdir())
        near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.6)
        hint = f"the nearest names there: {', '.join(near)}" if near else _listing(names)
        raise DataError(f"{path} is missing; {hint}.")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes). Copy or unpack it again.")


def _listing(names: list[str]) -> str:
    if not names:
        return "its folder is empty"
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"its folder holds: {', '.join(names[:5])}{more}"


def _explain_open_error(path: Path, error: Exception) -> str:
    try:
        with path.open("rb") as raw:
            start = raw.read(8)
    except OSError as cause:
        return f"{path} cannot be read: {cause.strerror}."
    if start.startswith(_GZIP_MAGIC):
        return f"{path} is still gzip-compressed. Unpack it first: gunzip < FILE.gz > FILE"
    if start.strip(b"\0") == b"":
        return f"{path} is not an HDF5 file: it starts with zeros. Copy or unpack it again."
    if start != b"\x89HDF\r\n\x1a\n":
        return f"{path} is not an HDF5 file: it starts with {start!r}."
    if "unable to lock file" in str(error):
        return (
            f"{path} is locked by a process that writes it, or lies where locks are refused, and "
            "HDF5_USE_FILE_LOCKING asks for one. Wait for the writer, or unset that variable."
        )
    if "already open for" in str(error):
        return (
            f"{path} is being written, or was not closed by the program that wrote it. Wait for "
            "it; if it was killed, make the file again."
        )
    size = path.stat().st_size
    return (
        f"{path} is truncated or damaged ({size:,} bytes): {_first_clause(error)}. "
        "Copy or unpack it again."
    )


def _first_clause(error: Exception) -> str:
    """Return HDF5's own words without the part that only names the call."""
    text = str(error)
    return text[text.find("(") + 1 :].rstrip(")") if "(" in text else text
