"""The linear baseline: ridge regression from the hidden state to the score of every head."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from datamodules import RowBatches, Rows
from extract.errors import UserError

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class LinearMap:
    """A fitted linear map: `hidden @ weight.T + bias`.

    Attributes:
        weight: A row for each head.
        bias: Of each head.
        alpha: The chosen regularisation strength, a row.

    """

    weight: Float[Tensor, "head hidden"]
    bias: Float[Tensor, "head"]
    alpha: float

    def __call__(self, inputs: Float[Tensor, "row hidden"]) -> Float[Tensor, "row head"]:
        """The mapped rows."""
        return inputs @ self.weight.T + self.bias


ALPHAS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Candidate regularisation strengths, a row and for hidden states of unit variance."""


def fit_ridge(train: RowBatches, val: RowBatches, limit: int = 100_000) -> LinearMap:
    """Ridge regression on standardised hidden states, its strength chosen by the squared error on validation rows.

    Minimises |Y - X W|² + α N |W|² over W for N training rows X (standardised) with scores Y, for each α of `ALPHAS`.

    Args:
        train: Training rows; rows with a head that has no score are left out.
        val: Validation rows.
        limit: Most rows of either split held in memory, evenly spaced over it.

    Raises:
        UserError: a split without a row that has a score of every head.

    """
    (x, y), (x_val, y_val) = (_arrays(part, limit) for part in (train, val))
    if not len(x) or not len(x_val):
        raise UserError("no row of the training or validation split has a score for every head: no ridge baseline")
    return ridge_map(x, y, x_val, y_val)


def ridge_map(x: Matrix, y: Matrix, x_val: Matrix, y_val: Matrix) -> LinearMap:
    """Ridge regression from rows in memory (see `fit_ridge`).

    Args:
        x: Inputs of the training rows, at least one.
        y: Their scores.
        x_val: Inputs of the validation rows, which choose the strength.
        y_val: Their scores.

    """
    mean, scale, level = x.mean(axis=0), x.std(axis=0) + 1e-6, y.mean(axis=0)
    x, x_val = (x - mean) / scale, (x_val - mean) / scale
    maps = _ridge_weights(x, y - level, [alpha * len(x) for alpha in ALPHAS])
    best = int(np.argmin([np.square(x_val @ one + level - y_val).mean() for one in maps]))
    # Undo the standardisation: the map takes hidden states as they are.
    weight = maps[best].T / scale
    return LinearMap(torch.from_numpy(weight).float(), torch.from_numpy(level - weight @ mean).float(), ALPHAS[best])


def _ridge_weights(x: Matrix, y: Matrix, strengths: Sequence[float]) -> list[Matrix]:
    """Weights W = (XᵀX + λ)⁻¹ XᵀY = Xᵀ (XXᵀ + λ)⁻¹ Y for each λ, by the smaller of both products, formed once."""
    if len(x) < x.shape[1]:
        return [x.T @ one for one in _solutions(x @ x.T, y, strengths)]
    return _solutions(x.T @ x, x.T @ y, strengths)


def _solutions(products: Matrix, targets: Matrix, strengths: Sequence[float]) -> list[Matrix]:
    from scipy.linalg import solve

    return [solve(products + strength * np.eye(len(products)), targets, assume_a="pos") for strength in strengths]


def spaced_rows(batches: RowBatches, limit: int) -> Rows:
    """At most `limit` rows of a split, evenly spaced over it."""
    return batches.read(batches.rows[:: max(1, -(-len(batches.rows) // limit))])


def _arrays(batches: RowBatches, limit: int) -> tuple[Matrix, Matrix]:
    """Hidden states and scores in float64 of at most `limit` rows that have a score of every head."""
    rows = spaced_rows(batches, limit)
    complete = rows.scores.isfinite().all(dim=1)
    return rows.hidden[complete].double().numpy(), rows.scores[complete].double().numpy()
