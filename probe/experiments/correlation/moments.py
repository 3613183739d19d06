"""Moments of (hidden state, scores k steps later) for every offset k, in one pass and in constant memory."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric

from probe.experiments.correlation.cca import JointMoments


class PairedMoments(Metric):
    """Sums from which the covariances of every offset follow exactly; they add up over batches and processes.

    Row n of x is paired with row n + k of y within a sample. So offset k leaves out a sample's last k rows of x and its
    first k rows of y. A row's outer product x xᵀ is added once, at the largest k that uses the row; Σ_xx of an offset
    is the sum over its own and all larger k. A row with a missing score ends a sequence: no pair reaches over it.

    Args:
        x_size: Columns of x (hidden states).
        y_size: Columns of y (scores).
        offsets: Largest k.
        x_centre: Subtracted from x before squaring, against cancellation; near the mean, the same on every process.
        y_centre: Likewise from y.

    Three steps of one sample, x = (0, 1, 2) and y = (5, 7, 9): at k = 1 the pairs are (0, 7) and (1, 9).

    >>> metric = PairedMoments(x_size=1, y_size=1, offsets=1)
    >>> x, y = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[5.0], [7.0], [9.0]])
    >>> metric.update(x, y, sample=torch.tensor([4, 4, 4]))
    >>> [(moments.count, moments.x_mean.item(), round(moments.xy.item(), 3)) for moments in metric.compute()]
    [(3, 1.0, 1.333), (2, 0.5, 0.5)]

    """

    full_state_update = False
    count: Tensor
    x_sum: Tensor
    y_sum: Tensor
    xx: Tensor
    yy: Tensor
    xy: Tensor
    x_min: Tensor
    x_max: Tensor
    y_min: Tensor
    y_max: Tensor

    def __init__(
        self,
        x_size: int,
        y_size: int,
        offsets: int = 0,
        x_centre: Float[Tensor, "x"] | None = None,
        y_centre: Float[Tensor, "y"] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.offsets = offsets
        self.register_buffer("x_centre", torch.zeros(x_size) if x_centre is None else x_centre, persistent=False)
        self.register_buffer("y_centre", torch.zeros(y_size) if y_centre is None else y_centre, persistent=False)
        self.x_centre: Tensor
        self.y_centre: Tensor
        number = offsets + 1
        shapes = {"x_sum": [x_size], "y_sum": [y_size], "xx": [x_size] * 2, "yy": [y_size] * 2, "xy": [x_size, y_size]}
        self.add_state("count", default=torch.zeros(number, dtype=torch.int64), dist_reduce_fx="sum")
        for name, shape in shapes.items():
            zeros = torch.zeros(number, *shape, dtype=torch.float64)
            self.add_state(name, default=zeros, dist_reduce_fx="sum")
        for side, size in (("x", x_size), ("y", y_size)):
            self.add_state(f"{side}_min", default=torch.full((number, size), torch.inf), dist_reduce_fx="min")
            self.add_state(f"{side}_max", default=torch.full((number, size), -torch.inf), dist_reduce_fx="max")

    def update(self, x: Float[Tensor, "row x"], y: Float[Tensor, "row y"], sample: Int[Tensor, "row"]) -> None:
        """Add whole samples, rows in step order."""
        # Rows without all scores are dropped, and what follows one is another sequence.
        known = y.isfinite().all(dim=1)
        sequence = torch.cumsum(~known, dim=0)[known]
        if not bool(known.all()):
            x, y, sample = x[known], y[known], sample[known]
        x, y = x - self.x_centre, y - self.y_centre
        # The sequence of each row, its place in it, and the rows that follow it there.
        new = torch.ones(len(x), dtype=torch.bool, device=x.device)
        new[1:] = (sample[1:] != sample[:-1]) | (sequence[1:] != sequence[:-1])
        unit = torch.cumsum(new, dim=0) - 1
        lengths = torch.bincount(unit)
        begins = torch.cumsum(lengths, dim=0) - lengths
        step = torch.arange(len(x), device=x.device) - begins[unit]
        left = lengths[unit] - 1 - step
        for k in range(self.offsets + 1):
            # Pair i of this offset: early[i] is k steps before late[i].
            early, late = (x, y) if k == 0 else (x[left >= k], y[step >= k])
            # Rows that no larger offset uses; the largest one takes all that are left.
            final = (early, late) if k == self.offsets else (x[left == k], y[step == k])
            self.xx[k] += upper_gram(final[0])
            self.yy[k] += upper_gram(final[1])
            if not len(early):
                continue
            self.count[k] += len(early)
            self.x_sum[k] += early.sum(dim=0)
            self.y_sum[k] += late.sum(dim=0)
            self.xy[k] += early.T @ late
            self._extend_range("x", k, early)
            self._extend_range("y", k, late)

    def _extend_range(self, side: str, k: int, rows: Float[Tensor, "row column"]) -> None:
        """Smallest and largest value of each column so far."""
        low, high = torch.aminmax(rows, dim=0)
        smallest, largest = getattr(self, f"{side}_min")[k], getattr(self, f"{side}_max")[k]
        torch.minimum(smallest, low, out=smallest)
        torch.maximum(largest, high, out=largest)

    def compute(self) -> list[JointMoments | None]:
        """Moments of each offset, k = 0 first; None where no sequence is that long."""
        return [self._moments(k) for k in range(self.offsets + 1)]

    def _moments(self, k: int) -> JointMoments | None:
        count = int(self.count[k])
        if not count:
            return None
        # Added, never subtracted: nothing cancels.
        xx, yy = (squares[k:].sum(dim=0) for squares in (self.xx, self.yy))
        x, y = self.x_sum[k] / count, self.y_sum[k] / count
        return JointMoments(
            count=count,
            x_mean=_numpy(x),
            y_mean=_numpy(y),
            # E[x xᵀ] - E[x] E[x]ᵀ, both from the centre.
            xx=_numpy(_whole(xx) / count - torch.outer(x, x)),
            yy=_numpy(_whole(yy) / count - torch.outer(y, y)),
            xy=_numpy(self.xy[k] / count - torch.outer(x, y)),
            x_range=_numpy(self.x_max[k] - self.x_min[k]),
            y_range=_numpy(self.y_max[k] - self.y_min[k]),
        )


def upper_gram(x: Float[Tensor, "row column"]) -> Float[Tensor, "column column"]:
    """Gram matrix xᵀ x on and above the diagonal, by bands of columns: little more than half of the products.

    >>> upper_gram(torch.tensor([[1.0, 2.0], [3.0, 4.0]])).triu()
    tensor([[10., 14.],
            [ 0., 20.]])

    """
    out = x.new_zeros(x.shape[1], x.shape[1])
    band = max(128, -(-x.shape[1] // 8))
    for first in range(0, x.shape[1], band):
        out[first : first + band, first:] = x[:, first : first + band].T @ x[:, first:]
    return out


def _whole(upper: Float[Tensor, "column column"]) -> Float[Tensor, "column column"]:
    """A symmetric matrix from its upper half."""
    half = upper.triu()
    return half + half.triu(1).T


def _numpy(values: Tensor) -> Any:
    return values.double().cpu().numpy().astype(np.float64, copy=False)
