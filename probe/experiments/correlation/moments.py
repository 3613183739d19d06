"""Moments of (hidden state, scores k steps later) for every k at once, in one pass and in constant memory."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric

from probe.experiments.correlation.cca import JointMoments


class PairedMoments(Metric):
    """Sums from which the covariances of every offset follow exactly; they add up over batches and processes.

    Row n of x is paired with row n + k of y within a sample. So x leaves out a sample's last k rows and y its first k:
    a row's square is counted once, at the largest k that it takes part in, and what an offset needs is a sum over its
    own and all larger ones. A row with a missing score ends a sequence: no pair reaches over it.

    Args:
        x_size: Columns of x (hidden states).
        y_size: Columns of y (scores).
        offsets: Largest k.
        x_centre: Subtracted from x before squaring, so that little cancels; about the mean, the same on every process.
        y_centre: Likewise from y.

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
        known = y.isfinite().all(dim=1)
        sequence = torch.cumsum(~known, dim=0)[known]  # grows at each gap
        if not bool(known.all()):
            x, y, sample = x[known], y[known], sample[known]
        x, y = x - self.x_centre, y - self.y_centre
        new = torch.ones(len(x), dtype=torch.bool, device=x.device)
        new[1:] = (sample[1:] != sample[:-1]) | (sequence[1:] != sequence[:-1])
        unit = torch.cumsum(new, dim=0) - 1
        lengths = torch.bincount(unit)
        begins = torch.cumsum(lengths, dim=0) - lengths
        step = torch.arange(len(x), device=x.device) - begins[unit]
        left = lengths[unit] - 1 - step
        for k in range(self.offsets + 1):
            early, late = (x, y) if k == 0 else (x[left >= k], y[step >= k])
            final = (early, late) if k == self.offsets else (x[left == k], y[step == k])
            self.xx[k] += upper_gram(final[0])
            self.yy[k] += upper_gram(final[1])
            if not len(early):
                continue
            self.count[k] += len(early)
            self.x_sum[k] += early.sum(dim=0)
            self.y_sum[k] += late.sum(dim=0)
            self.xy[k] += early.T @ late
            for side, rows in (("x", early), ("y", late)):
                low, high = torch.aminmax(rows, dim=0)
                torch.minimum(getattr(self, f"{side}_min")[k], low, out=getattr(self, f"{side}_min")[k])
                torch.maximum(getattr(self, f"{side}_max")[k], high, out=getattr(self, f"{side}_max")[k])

    def compute(self) -> list[JointMoments | None]:
        """Moments of each offset; None where no sample is that long."""
        return [self._moments(k) for k in range(self.offsets + 1)]

    def _moments(self, k: int) -> JointMoments | None:
        count = int(self.count[k])
        if not count:
            return None
        xx, yy = (squares[k:].sum(dim=0) for squares in (self.xx, self.yy))  # added, never subtracted: nothing cancels
        x, y = self.x_sum[k] / count, self.y_sum[k] / count
        return JointMoments(
            count=count,
            x_mean=_numpy(x),
            y_mean=_numpy(y),
            xx=_numpy(_whole(xx) / count - torch.outer(x, x)),
            yy=_numpy(_whole(yy) / count - torch.outer(y, y)),
            xy=_numpy(self.xy[k] / count - torch.outer(x, y)),
            x_range=_numpy(self.x_max[k] - self.x_min[k]),
            y_range=_numpy(self.y_max[k] - self.y_min[k]),
        )


def upper_gram(x: Float[Tensor, "row column"]) -> Float[Tensor, "column column"]:
    """`x.T @ x` on and above the diagonal, by bands of columns: little more than half of the products."""
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
