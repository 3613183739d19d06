"""Columns of a score store as memory-mapped arrays, and the rows to take from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.store import ScoreStore


class Shards:
    """Rows of a column that lies in several memory-mapped arrays.

    Args:
        arrays: One [rows, width] array for each shard.

    """

    def __init__(self, arrays: Sequence[NDArray[Any]]) -> None:
        self.arrays = list(arrays)
        self.starts = np.cumsum([0, *(len(array) for array in arrays)])

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """The chosen rows, given in ascending order: one gather for each shard that holds any."""
        out = np.empty((len(rows), self.arrays[0].shape[1]), dtype=self.arrays[0].dtype)
        cuts = np.searchsorted(rows, self.starts)
        for number in np.flatnonzero(np.diff(cuts)):
            first, last = cuts[number], cuts[number + 1]
            # mode="clip" writes straight into `out`; numpy buffers the result in its checking mode.
            chosen = rows[first:last] - self.starts[number]
            np.take(self.arrays[number], chosen, axis=0, out=out[first:last], mode="clip")
        return out


@dataclass(frozen=True)
class Columns:
    """What is read of a store.

    Attributes:
        hidden, scores: Vectors of each row.
        sample: Sample number of each row; rows of a sample lie together, in step order.

    """

    hidden: Shards
    scores: Shards
    sample: NDArray[np.int64]

    @classmethod
    def of(cls, store: ScoreStore, target: str) -> "Columns":
        """The columns of a store, memory-mapped."""
        return cls(Shards(store.vectors("hidden")), Shards(store.vectors(target)), store.scalars("sample"))

    def with_future(self, rows: NDArray[np.int64], offset: int) -> NDArray[np.int64]:
        """Those of `rows` whose sample goes on for `offset` steps more."""
        rows = rows[rows + offset < len(self.sample)]
        same: NDArray[np.bool_] = self.sample[rows] == self.sample[rows + offset]
        return rows[same]
