"""A flat patch file: one plain range of bytes that HDF5 gives a name, a shape and a type."""

from __future__ import annotations

from pathlib import Path

import h5py

from ml_core.data.layout import PATCH_KEY


def create_flat(path: Path, shape: tuple[int, int, int, int]) -> int:
    """Create `path` for uint8 patches of `shape` (N, H, W, 3); return where their bytes start.

    The caller writes them into the file: a disk that fills up in the middle of HDF5's own writing
    leaves a handle that can neither be flushed nor closed.
    """
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)  # so that the same patches are the same bytes
    with h5py.File(path, "w", locking=False) as file:
        space = h5py.h5s.create_simple(shape)
        dataset = h5py.h5d.create(file.id, PATCH_KEY.encode(), h5py.h5t.STD_U8LE, space, properties)
        return int(dataset.get_offset())


def shorten_flat(path: Path, shape: tuple[int, int, int, int], offset: int) -> None:
    """Make a file of `create_flat` hold `shape`, of fewer patches; its bytes stay where they are.

    HDF5 cannot resize a contiguous data set, but all it says about one stands before it, in as
    many bytes whatever the number of patches: the header of a shorter file takes its place.
    """
    head = path.with_name(f"{path.name}.head")
    try:
        assert create_flat(head, shape) == offset
        num_bytes = head.stat().st_size
        with open(head, "rb") as source, open(path, "r+b") as file:
            file.write(source.read(offset))
            file.truncate(num_bytes)
    finally:
        head.unlink(missing_ok=True)
