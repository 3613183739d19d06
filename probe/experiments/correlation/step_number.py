"""What the step number alone predicts, and hidden states within a step: CCA with the step number as further columns."""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from probe.experiments.correlation.cca import Canonical, CCASettings, JointMoments, Matrix, Whitening, canonical


def with_step(values: Float[Tensor, "row column"], step: Int[Tensor, "row"], steps: int) -> Float[Tensor, "row both"]:
    """Columns followed by the one-hot step number; numbers beyond the last column count as that one.

    >>> with_step(torch.tensor([[0.5], [0.7]]), torch.tensor([1, 9]), steps=3)
    tensor([[0.5000, 0.0000, 1.0000, 0.0000],
            [0.7000, 0.0000, 0.0000, 1.0000]])

    """
    one_hot = F.one_hot(step.clamp(max=steps - 1).long(), steps)
    return torch.cat([values, one_hot.to(values.dtype)], dim=1)


@dataclass(frozen=True)
class StepwiseCCA:
    """CCA of hidden states, of the step number alone, and of hidden states within a step, from the same moments.

    Both sides of the moments have the one-hot step number after their own columns (`with_step`). The weights of every
    fit are over all columns, so that `correlations_on` evaluates each of them on the same moments.

    Attributes:
        hidden: Columns of hidden states in x.
        heads: Columns of scores in y.
        settings: Of the analysis.

    Scores that follow from the step number alone: it explains them, and hidden states within a step do not.

    >>> step = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    >>> hidden, one_hot = np.array([[0.0], [1], [0], [1], [0], [1], [0], [1]]), np.eye(2)[step]
    >>> scores = step[:, None] + np.array([[0.0], [0.1], [0.1], [0]] * 2)
    >>> moments = JointMoments.of(np.hstack([hidden, one_hot]), np.hstack([scores, one_hot]))
    >>> cca = StepwiseCCA(hidden=1, heads=1, settings=CCASettings())
    >>> fits = (cca.of_hidden(moments), cca.of_step(moments), cca.within_step(moments))
    >>> [round(float(fit.correlations[0]), 3) for fit in fits]
    [0.0, 0.995, 0.0]

    """

    hidden: int
    heads: int
    settings: CCASettings

    def whitening(self, moments: JointMoments, x: Float[np.ndarray, "x component"] | None = None) -> Whitening:
        """Whitening maps of hidden states and scores, for `of_hidden` and `of_step`; `x` where it is known."""
        return Whitening.of(self._own(moments), self.settings, x)

    def same_hidden(self, a: JointMoments, b: JointMoments) -> bool:
        """Whether two moments are of the same hidden states: their whitening maps are then the same, too."""
        a, b = self._own(a), self._own(b)
        return bool(np.array_equal(a.xx, b.xx) and np.array_equal(a.x_range, b.x_range))

    def of_hidden(self, moments: JointMoments, known: Whitening | None = None) -> Canonical:
        """Hidden states against scores (A.4); `known` are their whitening maps."""
        fit = canonical(self._own(moments), self.settings, known)
        return _padded(fit, x=(0, len(moments.xx)), y=len(moments.yy))

    def of_step(self, moments: JointMoments, known: Whitening | None = None) -> Canonical:
        """One-hot step numbers against scores, by the same steps; of `known` that of the scores is taken."""
        steps = moments.of_columns(slice(self.hidden, None), slice(self.heads))
        fit = canonical(steps, self.settings, Whitening.of(steps, self.settings, y=known.y if known else None))
        return _padded(fit, x=(self.hidden, len(moments.xx)), y=len(moments.yy))

    def within_step(self, moments: JointMoments) -> Canonical:
        """Deviations of hidden states and scores from their means at the step number (partial CCA).

        With s the one-hot step number and B = Σ_ss⁺ Σ_sx the means by step of the fitting rows, x - Bᵀ s is analysed,
        and so for y; the ranges that scale scores stay those of the scores themselves.
        """
        h, n = self.hidden, self.heads
        x_means, y_means = _means_by_step(moments.xx, h), _means_by_step(moments.yy, n)
        xx, yy, xy = moments.xx, moments.yy, moments.xy
        rest = replace(
            self._own(moments),
            xx=xx[:h, :h] - xx[:h, h:] @ x_means,
            yy=yy[:n, :n] - yy[:n, n:] @ y_means,
            xy=xy[:h, :n] - x_means.T @ xy[h:, :n] - xy[:h, n:] @ y_means + x_means.T @ xy[h:, n:] @ y_means,
        )
        fit = canonical(rest, self.settings)
        return replace(
            fit,
            x_weights=np.vstack([fit.x_weights, -x_means @ fit.x_weights]),
            y_weights=np.vstack([fit.y_weights, -y_means @ fit.y_weights]),
        )

    def _own(self, moments: JointMoments) -> JointMoments:
        """Moments without the columns of the step number."""
        return moments.of_columns(slice(self.hidden), slice(self.heads))


def _padded(fit: Canonical, x: tuple[int, int], y: int) -> Canonical:
    """The fit with weight 0 for all further columns: of x before the first and up to the number, of y up to it."""
    before, columns = x
    x_weights = np.pad(fit.x_weights, ((before, columns - before - len(fit.x_weights)), (0, 0)))
    return replace(fit, x_weights=x_weights, y_weights=np.pad(fit.y_weights, ((0, y - len(fit.y_weights)), (0, 0))))


def _means_by_step(covariance: Float[np.ndarray, "both both"], columns: int) -> Float[np.ndarray, "step column"]:
    """Σ_ss⁺ Σ_sx: means by step number, up to a constant. One-hot columns add up to 1, so Σ_ss is singular."""
    inverse = np.linalg.pinv(covariance[columns:, columns:], rcond=1e-10, hermitian=True)
    means: Matrix = inverse @ covariance[columns:, :columns]
    return means
