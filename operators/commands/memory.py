"""Memory that a training step frees is what the next one needs."""

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
KEPT = 2**30  # bytes at the top of the heap that are kept
LARGEST = 2**25  # bytes of a block that comes from the heap: the most that glibc allows
# What users set to settle this themselves.
_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_freed_memory() -> bool:
    """Have glibc keep up to a gigabyte of freed memory in this process instead of returning it to the system.

    By default it gives most of it back as soon as it is free, and the system hands it out again page by page, zeroed:
    of an epoch of the 64 x 64 Darcy TFNO that was 14 % (`benchmarks.training`). For processes of our own commands only;
    a library has no business with the memory of others.

    Returns
    -------
    bool
        Whether it was done: not where another allocator is in use, or the user has settled the matter by a variable.
    """
    if any(name in os.environ for name in _VARIABLES):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # musl, macOS, Windows
        return False
    return bool(mallopt(_MMAP_THRESHOLD, LARGEST) and mallopt(_TRIM_THRESHOLD, KEPT))
