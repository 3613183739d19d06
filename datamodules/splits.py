"""Division of a store's rows into training, validation and test."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from extract.errors import UserError
from extract.utils import PositiveInt, Seed, Share, check_fields, digest

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """A seeded random division of samples, or of single rows.

    Attributes:
        by: `sample` keeps all rows of a sample together. `row` divides single rows, so that training and test rows may
            share a sample and its context: it leaks, and serves for comparison with results obtained so.
        fractions: Shares of training, validation and test (A.5: 70/20/10). The last may be 0 where the test rows come
            from another store.
        seed: Of the division alone.
        limit: Train on this many of the training samples (or rows) only, for learning curves. Validation and test stay
            the same, and a smaller training set is a subset of a larger one.

    >>> parts = Split(fractions=(0.5, 0.25, 0.25)).rows(np.array([0, 0, 1, 2, 2, 3]))
    >>> {name: rows.tolist() for name, rows in parts.items()}
    {'train': [0, 1, 3, 4], 'val': [2], 'test': [5]}

    """

    by: Literal["sample", "row"] = "sample"
    fractions: tuple[Share, Share, Share] = (0.7, 0.2, 0.1)
    seed: Seed = 0
    limit: PositiveInt | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def units(self, samples: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
        """Sample (or row) numbers of each part.

        Args:
            samples: Sample number of each row.

        Raises:
            UserError: fractions that do not add up to 1, or a part without anything in it.

        """
        if min(self.fractions[:2]) <= 0 or self.fractions[2] < 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise UserError(f"data.split.fractions: three positive numbers that add up to 1, not {self.fractions}")
        if self.limit is not None and self.limit < 1:
            raise UserError(f"data.split.limit: at least 1, not {self.limit}")
        units = np.unique(samples) if self.by == "sample" else np.arange(len(samples))
        shuffled = np.random.default_rng(self.seed).permutation(units)
        cuts = np.round(np.cumsum(self.fractions)[:2] * len(units)).astype(int)
        parts = dict(zip(SPLITS, np.split(shuffled, cuts), strict=True))
        parts["train"] = parts["train"][: self.limit]
        for name, part in parts.items():
            if not len(part) and (name != "test" or self.fractions[2]):
                raise UserError(
                    f"data.split: the {name} part of {len(units)} {self.by}s is empty; extract more prompts"
                )
        return {name: np.sort(part) for name, part in parts.items()}

    def rows(self, samples: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
        """Row numbers of each part, ascending."""
        units = self.units(samples)
        if self.by == "row":
            return units
        return {name: np.flatnonzero(np.isin(samples, part)) for name, part in units.items()}

    def record(self, samples: NDArray[np.int64]) -> dict[str, Any]:
        """The division in plain values, with a hash of its parts, for checkpoints."""
        units = self.units(samples)
        hashed = digest({name: part.tolist() for name, part in units.items()})
        settings = {"by": self.by, "fractions": list(self.fractions), "seed": self.seed, "limit": self.limit}
        return {**settings, "sizes": {name: len(part) for name, part in units.items()}, "sha256": hashed}
