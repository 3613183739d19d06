"""Which pages of a store are asked for: exactly those of the rows that are read, and none around them."""

import mmap
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules import ScoreRows, paging
from datamodules.columns import ShardedColumn
from tests.helpers.stores import make_store

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=5),
    width=st.integers(1, 900),
    chosen=st.lists(st.integers(0, 199), max_size=30),
)
def test_a_take_asks_for_the_pages_of_its_rows_and_returns_them(
    lengths: list[int], width: int, chosen: list[int]
) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.random((length, width)) for length in lengths]
    rows = np.array(sorted(row for row in chosen if row < sum(lengths)), dtype=np.int64)
    asked, former = set[int](), range(0)

    def madvise(address: int, size: int, advice: int) -> int:
        nonlocal former
        assert address % mmap.PAGESIZE == 0
        assert advice == mmap.MADV_WILLNEED
        pages = range(address // mmap.PAGESIZE, -(-(address + size) // mmap.PAGESIZE))
        assert not former or not former.start <= pages.start <= former.stop  # else they are one range
        asked.update(pages)
        former = pages
        return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paging, "_madvise", lambda: madvise)
        taken = ShardedColumn(arrays).take(rows)
    whole = np.concatenate(arrays)
    np.testing.assert_array_equal(taken, whole[rows])
    needed, owner = set[int](), np.repeat(range(len(lengths)), lengths)
    for row in rows.tolist():
        place = arrays[owner[row]][row - sum(lengths[: owner[row]])]
        needed |= {address // mmap.PAGESIZE for address in range(place.ctypes.data, place.ctypes.data + place.nbytes)}
    assert asked == needed


@linux
def test_pages_around_shuffled_rows_are_not_read(tmp_path: Path) -> None:
    """The maps of both columns are for random access: flag `rr` of the kernel."""
    data = ScoreRows(str(make_store(tmp_path / "store")))
    data.setup("fit")
    columns = data.batches("train").columns
    for array in (*columns.hidden.arrays, *columns.scores.arrays):
        assert "rr" in flags_at(array.ctypes.data + array.nbytes // 2)


def flags_at(address: int) -> list[str]:
    """Flags of the memory map around an address."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if bounds := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(bounds[1], 16) <= address < int(bounds[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return line.split()[1:]
    raise AssertionError("no such map")


@linux
def test_the_kernel_accepts_the_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a map of a file, whose rows do not begin with a page."""
    file = tmp_path / "rows"
    file.write_bytes(os.urandom(64 * 5000))
    array, madvise, answers = np.memmap(file, np.uint8, "r", shape=(64, 5000)), paging._madvise(), list[int]()
    monkeypatch.setattr(paging, "_madvise", lambda: lambda *given: answers.append(madvise(*given)))
    paging.random_access(array)
    paging.will_need(array.ctypes.data + np.array([3, 4, 40]) * 5000, 5000)
    assert answers == [0, 0, 0]  # rows 3 and 4 are one range


def test_a_system_without_advice_reads_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(mmap, "MADV_WILLNEED")
    assert ShardedColumn([np.arange(4)[:, None]]).take(np.array([1, 3])).ravel().tolist() == [1, 3]
