"""Score rows with the scores of several later steps: one pass trains a probe for each offset."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.row_batches import RowBatches, Rows
from datamodules.score_rows import Part, ScoreRows
from extract.errors import UserError
from extract.utils import Repetitions


class OffsetBatches(RowBatches):
    """As `RowBatches`, with scores [row, offset, head] of k = 0 … `offset`; NaN past the end of the sample."""

    def read(self, rows: NDArray[np.int64]) -> Rows:
        """Rows of the store by their numbers, which must ascend; `known` are the scores of the step before."""
        scores = torch.stack([self.scores_at(rows, k) for k in range(self.offset + 1)], dim=1)
        return self._batch(rows, scores, last_known=-1)


class OffsetRows(ScoreRows):
    """Rows for probes of all offsets k = 0 … `offsets`.

    Args:
        offsets: Largest k (A.4: 10).
        **kwargs: See `ScoreRows`, all but its `offset`.

    """

    def __init__(self, offsets: Repetitions = 10, **kwargs: Any) -> None:
        super().__init__(offset=0, **kwargs)
        self.offsets = offsets

    @property
    def probed_target(self) -> str:
        """The target, which the CLI links into models that serve both; a link from `target` would reach every model."""
        return self.target

    def setup(self, stage: str) -> None:
        """Open the columns and divide the rows.

        Raises:
            UserError: negative `offsets`, or a split without a row that has a step so much later.

        """
        if self.offsets < 0:
            raise UserError(f"data.offsets: {self.offsets} must be at least 0")
        super().setup(stage)
        for name, rows in self._rows.items():
            if not len(self._columns[name].with_future(rows, self.offsets)):
                raise UserError(f"data.offsets {self.offsets}: no row of the {name} split has a step that far ahead")

    def training_chunks(self, size: int = 65536, known: bool = True) -> Iterator[Rows]:
        """As `ScoreRows.training_chunks`; a row has the scores of all offsets, so a chunk has fewer rows."""
        return super().training_chunks(max(1, size // (self.offsets + 1)), known)

    def batches(self, split: Part) -> RowBatches:
        """The batches of a split; training ones are shuffled anew each epoch."""
        return OffsetBatches(self._columns[split], self._rows[split], self.offsets, **self._reading(split))
