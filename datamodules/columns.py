"""Columns of a score store as memory-mapped arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.paging import random_access, will_need
from extract.store import ScoreStore


class ShardedColumn:
    """A column of vectors that lies in several memory-mapped arrays.

    Args:
        arrays: One contiguous [rows, width] array for each shard.

    >>> column = ShardedColumn([np.array([[0], [1]]), np.array([[2], [3], [4]])])
    >>> column.take(np.array([1, 2, 4])).ravel().tolist()
    [1, 2, 4]

    """

    def __init__(self, arrays: Sequence[NDArray[Any]]) -> None:
        self.arrays = list(arrays)
        self.starts = np.cumsum([0, *(len(array) for array in arrays)])
        self._addresses = np.array([array.ctypes.data for array in arrays])

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Copy of the given rows, which must ascend: one gather for each shard that holds any."""
        self._read_ahead(rows)
        out = np.empty((len(rows), self.arrays[0].shape[1]), dtype=self.arrays[0].dtype)
        cuts = np.searchsorted(rows, self.starts)
        for shard in np.flatnonzero(np.diff(cuts)):
            first, last = cuts[shard], cuts[shard + 1]
            within = rows[first:last] - self.starts[shard]
            # mode="clip" writes straight into `out`; numpy buffers the result in its checking mode.
            np.take(self.arrays[shard], within, axis=0, out=out[first:last], mode="clip")
        return out

    def _read_ahead(self, rows: NDArray[np.int64]) -> None:
        """Begin to read all of the rows before the first of them is waited for."""
        shard = np.searchsorted(self.starts, rows, side="right") - 1
        size = self.arrays[0].shape[1] * self.arrays[0].itemsize
        will_need(self._addresses[shard] + (rows - self.starts[shard]) * size, size)


@dataclass(frozen=True)
class Columns:
    """The columns of a score store that probes and statistics read.

    Attributes:
        hidden: Final hidden state of each row.
        scores: Score of each head, by row.
        sample: Sample number of each row; rows of a sample are consecutive, in step order.
        step: Step number of each row in its sample, from 0.

    """

    hidden: ShardedColumn
    scores: ShardedColumn
    sample: NDArray[np.int64]
    step: NDArray[np.int64]

    @classmethod
    def of(cls, store: ScoreStore, target: str) -> "Columns":
        """The columns of a store, memory-mapped; `target` names the scores."""
        hidden, scores = (ShardedColumn(store.vectors(name)) for name in ("hidden", target))
        for array in (*hidden.arrays, *scores.arrays):
            random_access(array)  # `take` says what it reads
        return cls(hidden, scores, store.scalars("sample"), store.scalars("step").astype(np.int64))

    def with_future(self, rows: NDArray[np.int64], offset: int) -> NDArray[np.int64]:
        """Those of `rows` whose sample has a row `offset` steps later."""
        rows = rows[rows + offset < len(self.sample)]
        same: NDArray[np.bool_] = self.sample[rows] == self.sample[rows + offset]
        return rows[same]
