"""Canonical correlations from first and second moments alone (claim 3): scaling, PCA and CCA without the rows."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]


@dataclass  # not frozen: torchmetrics refuses frozen results
class JointMoments:
    """Moments of paired rows of x and y.

    Attributes:
        count: Rows.
        x_mean: Mean of x, from wherever it was measured.
        y_mean: Of y.
        xx: Covariance of x, sums divided by `count`.
        yy: Covariance of y.
        xy: Cross-covariance.
        x_range: Largest minus smallest value of each column of x.
        y_range: Of y.

    """

    count: int
    x_mean: Float[Vector, "x"]
    y_mean: Float[Vector, "y"]
    xx: Float[Matrix, "x x"]
    yy: Float[Matrix, "y y"]
    xy: Float[Matrix, "x y"]
    x_range: Float[Vector, "x"]
    y_range: Float[Vector, "y"]

    def without(self, part: "JointMoments") -> "JointMoments | None":
        """Moments of the rows that are not in `part`, one of their groups; None if there is none.

        The ranges stay those of all rows: what is left does not tell them.
        """
        count = self.count - part.count
        if not count:
            return None
        whole, share = self.count / count, part.count / count
        x, y = (whole * getattr(self, name) - share * getattr(part, name) for name in ("x_mean", "y_mean"))

        def rest(name: str, left: str, right: str, means: Matrix) -> Matrix:
            squares = (
                weight * (getattr(side, name) + np.outer(getattr(side, left), getattr(side, right)))
                for weight, side in ((whole, self), (-share, part))
            )
            return np.asarray(sum(squares) - means)

        return JointMoments(
            count,
            x,
            y,
            rest("xx", "x_mean", "x_mean", np.outer(x, x)),
            rest("yy", "y_mean", "y_mean", np.outer(y, y)),
            rest("xy", "x_mean", "y_mean", np.outer(x, y)),
            self.x_range,
            self.y_range,
        )


@dataclass(frozen=True)
class Canonical:
    """Fitted directions.

    Attributes:
        correlations: Of each component on the fitting rows, largest first.
        x_weights: Columns turn centred x into canonical variates of variance 1.
        y_weights: Likewise of y.
        x_kept: Principal components of x that were kept.
        y_kept: Of y.

    """

    correlations: Float[Vector, "component"]
    x_weights: Float[Matrix, "x component"]
    y_weights: Float[Matrix, "y component"]
    x_kept: int
    y_kept: int


def whiten(covariance: Matrix, width: Vector, variance: float) -> Matrix:
    """Min-max scaling, then the principal components that hold a share of the variance, each of variance 1.

    Columns that never move are left out. As scikit-learn's `PCA(n_components=variance)`, the first components whose
    variances add up to more than the share are kept; those without variance never are.

    Args:
        covariance: [column, column].
        width: Range of each column.
        variance: Share to keep, in (0, 1].

    Returns:
        [column, component] weights for centred, unscaled columns.

    """
    scale = np.divide(1.0, width, out=np.zeros_like(width), where=width > 0)
    values, vectors = np.linalg.eigh(covariance * scale[:, None] * scale)
    values, vectors = values[::-1], vectors[:, ::-1]
    real = int((values > max(values[0], 0) * len(values) * np.finfo(np.float64).eps * 10).sum())
    share = np.cumsum(values[:real]) / values[:real].sum() if real else np.zeros(0)
    kept = min(real, int(np.searchsorted(share, variance, side="right")) + 1)
    weights: Matrix = scale[:, None] * vectors[:, :kept] / np.sqrt(values[:kept])
    return weights


def canonical(moments: JointMoments, components: int, x_variance: float, y_variance: float) -> Canonical:
    """CCA after scaling and PCA of either side (A.4): a singular value decomposition of the whitened cross-covariance.

    Fewer components come back where a side has fewer.
    """
    x = whiten(moments.xx, moments.x_range, x_variance)
    y = whiten(moments.yy, moments.y_range, y_variance)
    left, values, right = np.linalg.svd(x.T @ moments.xy @ y, full_matrices=False)
    number = min(components, len(values))
    return Canonical(
        correlations=np.clip(values[:number], 0, 1),
        x_weights=x @ left[:, :number],
        y_weights=y @ right[:number].T,
        x_kept=x.shape[1],
        y_kept=y.shape[1],
    )


def correlations_on(fitted: Canonical, moments: JointMoments) -> Float[Vector, "component"]:
    """Correlations of fitted components on other rows; NaN where a component does not move there."""
    shared: Vector = np.einsum("ic,ij,jc->c", fitted.x_weights, moments.xy, fitted.y_weights, optimize=True)
    x = np.einsum("ic,ij,jc->c", fitted.x_weights, moments.xx, fitted.x_weights, optimize=True)
    y = np.einsum("ic,ij,jc->c", fitted.y_weights, moments.yy, fitted.y_weights, optimize=True)
    product = np.sqrt(np.maximum(x, 0) * np.maximum(y, 0))
    found: Vector = np.divide(shared, product, out=np.full_like(shared, np.nan), where=product > 0)
    return found
