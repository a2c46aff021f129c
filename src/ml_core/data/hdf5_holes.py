"""Whether every value of an HDF5 data set was ever written: HDF5 reads zeros where none was."""

from __future__ import annotations

import math
from pathlib import Path

import h5py
import numpy as np

from ml_core.errors import DataError


def check_no_holes(dataset: h5py.Dataset, path: Path) -> None:
    """Raise DataError where a part of `dataset`, of the file `path`, would be read as zeros.

    Such a part is a chunk that was never written, as a program killed in the middle leaves it, or
    one in another file that is not there or too short. Zeros that were written pass.
    """
    if not dataset.shape or 0 in dataset.shape:
        return
    if dataset.is_virtual:
        _check_sources(dataset, path)
    elif dataset.external:
        _check_external(dataset, path)
    elif dataset.chunks:
        _check_chunks(dataset, path)
    elif dataset.id.get_storage_size() == 0:
        raise DataError(f"{_where(dataset, path)}: nothing was ever written into it. {_REMEDY}")


_REMEDY = (
    "Reading would give zeros there without a word. Whoever made the file was stopped: make it "
    "again, or copy it again from where it is whole."
)


def _check_chunks(dataset: h5py.Dataset, path: Path) -> None:
    """Read the index of the chunks, and no chunk: about 1 s for 260,000 of them.

    Their places and sizes are checked as well: HDF5 2.0 trusts an index, and a wrong size kills the
    process (13 of 2,000 files with a few bytes changed).
    """
    found: list[tuple[int, ...]] = []
    dataset.id.chunk_iter(
        lambda chunk: found.append(
            (chunk.byte_offset, chunk.size, chunk.filter_mask, *chunk.chunk_offset)
        )
    )
    table = np.array(found, np.uint64).reshape(len(found), 3 + dataset.ndim)
    places, sizes, masks, corners = table[:, 0], table[:, 1], table[:, 2], table[:, 3:]
    limits, file_size = _stored_sizes(dataset), np.uint64(path.stat().st_size)
    is_sound = (limits.start <= sizes) & (sizes < limits.stop) & (sizes <= file_size)
    is_sound &= (places > 0) & (places <= file_size - np.minimum(sizes, file_size))
    is_sound &= (corners < dataset.shape).all(axis=1) & (corners % dataset.chunks == 0).all(axis=1)
    if dataset.fletcher32:
        is_sound &= masks == 0  # every filter was used, the checksum's too
    if not is_sound.all() or len(np.unique(places)) < len(places):
        raise DataError(
            f"{_where(dataset, path)}: the index of its chunks names places or sizes that cannot "
            "be. The file is damaged; copy or unpack it again."
        )
    extents = zip(dataset.shape, dataset.chunks, strict=True)
    num_needed = math.prod(-(-extent // chunk) for extent, chunk in extents)
    num_there = len({tuple(chunk[3:]) for chunk in found})
    if num_there < num_needed:
        raise DataError(
            f"{_where(dataset, path)}: {num_needed - num_there:,} of its {num_needed:,} chunks "
            f"were never written. {_REMEDY}"
        )


def _stored_sizes(dataset: h5py.Dataset) -> range:
    """Return how many bytes a chunk may take in the file.

    What deflate makes of n bytes is never above n + n / 1000 + 12 (zlib's manual), nor do we expect
    it of other filters; Fletcher's checksum takes 4 bytes, and no filter works on nothing.
    """
    num_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize
    if dataset.id.get_create_plist().get_nfilters() == 0:
        return range(num_bytes, num_bytes + 1)
    if dataset.compression is None and dataset.scaleoffset is None and dataset.fletcher32:
        return range(num_bytes + 4, num_bytes + 5)
    return range(5, num_bytes + num_bytes // 1000 + 64)


def _check_sources(dataset: h5py.Dataset, path: Path) -> None:
    for source in dataset.virtual_sources():
        file = path if source.file_name == "." else path.parent / source.file_name
        try:
            with h5py.File(file, "r", locking=False) as opened:
                inner = opened[source.dset_name]
                if inner.is_virtual or inner.external:
                    raise DataError(
                        f"{_where(dataset, path)}: made of {file}, whose values lie in other files "
                        "again. Make one file of it: ml-core data pack."
                    )
                check_no_holes(inner, file)
        except (OSError, KeyError, RuntimeError, AttributeError) as error:
            raise DataError(
                f"{_where(dataset, path)}: a part of it is '{source.dset_name}' of {file}, which "
                f"cannot be read: {error}. {_REMEDY}"
            ) from error


def _check_external(dataset: h5py.Dataset, path: Path) -> None:
    there = 0
    for name, offset, size in dataset.external:
        file = Path(name)
        if not file.is_file():
            raise DataError(f"{_where(dataset, path)}: its values are in {file}, which is missing.")
        there += min(size, max(0, file.stat().st_size - offset))
    if there < dataset.nbytes:
        raise DataError(
            f"{_where(dataset, path)}: the files that hold its values have {there:,} bytes of "
            f"{dataset.nbytes:,}. {_REMEDY}"
        )


def _where(dataset: h5py.Dataset, path: Path) -> str:
    return f"{path}, data set '{dataset.name.lstrip('/')}'"
