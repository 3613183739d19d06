"""The linear baseline: ridge regression from the hidden state to every head, by scikit-learn."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from datamodules import RowBatches
from extract.errors import UserError


@dataclass(frozen=True)
class Linear:
    """`hidden @ weight.T + bias`, and the regularisation that won."""

    weight: Float[Tensor, "head hidden"]
    bias: Float[Tensor, "head"]
    alpha: float


ALPHAS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Candidates, per row and for hidden states of unit variance."""


def fit_ridge(train: RowBatches, val: RowBatches, limit: int = 100_000) -> Linear:
    """Ridge regression on standardised hidden states; its strength is the one of least squared error in validation.

    Args:
        train: Rows to fit; those with a head that has no score are left out.
        val: Rows to choose the strength on.
        limit: Most training rows held in memory, an even choice of all.

    Raises:
        UserError: no row is left.

    """
    from sklearn.linear_model import Ridge

    x, y = _arrays(train, limit)
    x_val, y_val = _arrays(val, limit)
    if not len(x) or not len(x_val):
        raise UserError("no row of the training or validation split has a score for every head: no ridge baseline")
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-6
    x, x_val = (x - mean) / scale, (x_val - mean) / scale
    fits = [Ridge(alpha=alpha * len(x), solver="cholesky").fit(x, y) for alpha in ALPHAS]
    errors = [float(np.square(fit.predict(x_val) - y_val).mean()) for fit in fits]
    best = int(np.argmin(errors))
    weight = fits[best].coef_ / scale
    bias = fits[best].intercept_ - weight @ mean
    return Linear(torch.from_numpy(weight).float(), torch.from_numpy(bias).float(), ALPHAS[best])


def _arrays(batches: RowBatches, limit: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Hidden states and scores of the split in float64: an even choice of at most `limit` rows."""
    chosen = batches.rows[:: max(1, -(-len(batches.rows) // limit))]
    rows = batches.read(chosen)
    whole = rows.scores.isfinite().all(dim=1)
    return rows.hidden[whole].double().numpy(), rows.scores[whole].double().numpy()
