"""Keeping the memory that was freed, instead of giving it back and asking for it anew.

A step frees and takes the same tens of megabytes dozens of times. glibc gives large pieces back to
the system at once, which fills every page with zeros when it is asked for again: a quarter of the
time of a training step on a CPU, half of that of a forward pass.
"""

from __future__ import annotations

import ctypes
import sys

# <malloc.h> of glibc. The largest threshold that all its versions take is 32 MiB (mallopt(3)):
# what is larger, a whole data set say, is given back as before.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
LARGEST_KEPT = 32 * 2**20
MOST_KEPT = 2**30  # free memory at the end of the heap, in bytes


def reuse_memory() -> bool:
    """Let this process, and those it forks, keep what it frees; return whether that can be had.

    No result changes, and the highest use of memory stays what it was. Elsewhere than with glibc on
    Linux nothing is done: its allocator is the one that needs it.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGEST_KEPT) and mallopt(_M_TRIM_THRESHOLD, MOST_KEPT))
