"""Reading ahead: the kernel is told which rows of a memory map come next, and fetches them while others are used."""

import ctypes
import functools
import mmap
from collections.abc import Callable

import numpy as np
from jaxtyping import Int


@functools.cache
def _madvise() -> Callable[..., int] | None:
    """The C library's madvise; None where there is none."""
    try:
        call = ctypes.CDLL(None).madvise
    except (OSError, AttributeError, TypeError):
        return None
    call.argtypes = (ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int)
    return call


def read_ahead(address: int, size: int, rows: Int[np.ndarray, "row"]) -> None:
    """Ask the kernel to read rows of an array into its cache, all at the same time and without waiting for them.

    A row that is touched without it is read alone, and the process waits for the disk. It is advice: nothing follows
    from it but time, and where the platform has none, nothing happens.

    Args:
        address: Of the array in memory.
        size: Bytes of a row.
        rows: Numbers of the rows.

    """
    advise, wanted = _madvise(), getattr(mmap, "MADV_WILLNEED", None)
    if advise is None or wanted is None:
        return
    begins = address + rows * size
    firsts = begins // mmap.PAGESIZE * mmap.PAGESIZE
    for first, length in zip(firsts.tolist(), (begins + size - firsts).tolist(), strict=True):
        advise(first, length, wanted)
