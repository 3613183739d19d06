"""Advice to the operating system on memory maps (madvise): which rows are read next, and no others.

Without it a page that is not in memory comes with those around it, up to megabytes, of which shuffled rows need none.
"""

import ctypes
import functools
import mmap
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def random_access(array: NDArray[Any]) -> None:
    """Read no pages around those that are touched: `will_need` reads ahead instead.

    Args:
        array: Lies in a memory map, by rows.

    """
    _advise("MADV_RANDOM", np.array([array.ctypes.data]), np.array([array.nbytes]))


def will_need(addresses: NDArray[np.int64], size: int) -> None:
    """Begin to read rows into memory, all of them at the same time, and do not wait.

    Args:
        addresses: Where they begin.
        size: Bytes of a row.

    """
    if len(addresses):
        begin = addresses - addresses % mmap.PAGESIZE
        end = addresses + size + (-(addresses + size)) % mmap.PAGESIZE
        # Rows on the same pages, or on pages that follow one another, are one range; addresses of shards may go back.
        breaks = np.flatnonzero((begin[1:] > end[:-1]) | (begin[1:] < begin[:-1]))
        first, last = begin[np.append(0, breaks + 1)], end[np.append(breaks, len(end) - 1)]
        _advise("MADV_WILLNEED", first, last - first)


def _advise(name: str, addresses: NDArray[np.int64], sizes: NDArray[np.int64]) -> None:
    """Give advice on ranges. It is no more than that: a system that has none, or refuses it, reads as it would."""
    advice: int | None = getattr(mmap, name, None)
    if advice is None:
        return
    madvise, inside = _madvise(), addresses % mmap.PAGESIZE
    for address, size in zip((addresses - inside).tolist(), (sizes + inside).tolist(), strict=True):
        madvise(address, size, advice)  # a range a call


@functools.cache
def _madvise() -> Callable[[int, int, int], int]:
    """The C library's function: Python's is a method of `mmap` objects, which Arrow's maps are not."""
    function = ctypes.CDLL(None).madvise
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return function
