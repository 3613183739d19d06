"""Canonical correlation analysis from moments alone (claim 3): min-max scaling, PCA and CCA without the rows."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]


@dataclass  # not frozen: torchmetrics refuses frozen results
class JointMoments:
    """First and second moments of paired rows of x and y.

    Attributes:
        count: Rows.
        x_mean: Mean of x, from any fixed origin.
        y_mean: Of y.
        xx: Covariance of x, normalised by `count`.
        yy: Covariance of y.
        xy: Cross-covariance.
        x_range: Largest minus smallest value of each column of x.
        y_range: Of y.

    >>> moments = JointMoments.of(np.array([[0.0], [2.0]]), np.array([[1.0], [5.0]]))
    >>> moments.x_mean, moments.xy
    (array([1.]), array([[2.]]))

    """

    count: int
    x_mean: Float[np.ndarray, "x"]
    y_mean: Float[np.ndarray, "y"]
    xx: Float[np.ndarray, "x x"]
    yy: Float[np.ndarray, "y y"]
    xy: Float[np.ndarray, "x y"]
    x_range: Float[np.ndarray, "x"]
    y_range: Float[np.ndarray, "y"]

    @classmethod
    def of(cls, x: Float[np.ndarray, "row x"], y: Float[np.ndarray, "row y"]) -> "JointMoments":
        """Moments of rows in memory."""
        a, b, count = x - x.mean(0), y - y.mean(0), len(x)
        means, ranges = (x.mean(0), y.mean(0)), (np.ptp(x, axis=0), np.ptp(y, axis=0))
        return cls(count, *means, a.T @ a / count, b.T @ b / count, a.T @ b / count, *ranges)

    def without(self, part: "JointMoments") -> "JointMoments | None":
        """Moments of the rows that are not in `part`, a subset of the rows; None if none are left.

        With n rows in all, of which m are in `part`, a mean of the rest is (n μ - m μ') / (n - m), and so is the raw
        second moment Σ + μ μᵀ, from which the mean of the rest is subtracted again. The ranges stay those of all rows:
        moments do not determine them.
        """
        count = self.count - part.count
        if not count:
            return None
        whole, share = self.count / count, part.count / count
        x, y = (whole * getattr(self, name) - share * getattr(part, name) for name in ("x_mean", "y_mean"))

        def rest(name: str, left: str, right: str, means: Matrix) -> Matrix:
            """A covariance of the rest: weighted raw second moments minus the outer product of its means."""
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

    def of_columns(self, x: slice, y: slice) -> "JointMoments":
        """Moments of some columns of x and y.

        >>> moments = JointMoments.of(np.array([[0.0, 1.0], [2.0, 1.0]]), np.array([[1.0], [5.0]]))
        >>> moments.of_columns(slice(0, 1), slice(None)).xx
        array([[1.]])

        """
        means, ranges = (self.x_mean[x], self.y_mean[y]), (self.x_range[x], self.y_range[y])
        return JointMoments(self.count, *means, self.xx[x, x], self.yy[y, y], self.xy[x, y], *ranges)


@dataclass(frozen=True)
class CCASettings:
    """CCASettings of the analysis (A.4).

    Attributes:
        components: Canonical components to retain; fewer where a side has fewer principal components.
        x_variance: Share of variance that PCA retains of x (hidden states).
        y_variance: And of y (scores).
        scale_x: Min-max scale the columns of x before PCA, too; A.4 scales y alone.

    >>> CCASettings()
    CCASettings(components=50, x_variance=0.95, y_variance=0.99, scale_x=False)

    """

    components: int = 50
    x_variance: float = 0.95
    y_variance: float = 0.99
    scale_x: bool = False


@dataclass(frozen=True)
class Canonical:
    """Fitted canonical directions.

    Attributes:
        correlations: Of each component on the fitting rows, largest first.
        x_weights: Columns turn centred x into canonical variates of variance 1.
        y_weights: Likewise of y.
        x_components: Principal components of x that PCA retains.
        y_components: Of y.

    The second column of x is constant and gets no weight:

    >>> x, y = np.array([[0.0, 7.0], [1.0, 7.0], [2.0, 7.0]]), np.array([[0.0], [3.0], [6.0]])
    >>> fitted = canonical(JointMoments.of(x, y), CCASettings())
    >>> fitted.correlations.round(4), fitted.x_components, fitted.x_weights.round(4)
    (array([1.]), 1, array([[1.2247],
           [0.    ]]))

    """

    correlations: Float[np.ndarray, "component"]
    x_weights: Float[np.ndarray, "x component"]
    y_weights: Float[np.ndarray, "y component"]
    x_components: int
    y_components: int


def whiten(
    covariance: Float[np.ndarray, "column column"], variance: float, width: Float[np.ndarray, "column"] | None = None
) -> Float[np.ndarray, "column component"]:
    """Min-max scaling, PCA and whitening in one linear map W: Wᵀ Σ W = I (A.4).

    Constant columns are left out. Like scikit-learn's `PCA(n_components=variance)`, it retains the first components
    whose explained variances add up to more than the share, and never one without variance.

    Args:
        covariance: Σ.
        variance: Share of variance to retain, in (0, 1].
        width: Range of each column, largest minus smallest value, to scale by; None: columns are not scaled.

    Returns:
        Weights for centred, unscaled columns.

    >>> covariance = np.array([[4.0, 0.0], [0.0, 0.01]])
    >>> weights = whiten(covariance, variance=0.95, width=np.array([2.0, 1.0]))
    >>> weights.shape, weights.T @ covariance @ weights
    ((2, 1), array([[1.]]))

    """
    # Min-max scaling divides a column by its range: D Σ D, with 0 for a constant column.
    scale = np.ones(len(covariance))
    if width is not None:
        scale = np.divide(1.0, width, out=np.zeros_like(width), where=width > 0)
    # Principal axes V and their variances λ, largest first; `eigh` returns them smallest first.
    values, vectors = np.linalg.eigh(covariance * scale[:, None] * scale)
    values, vectors = values[::-1], vectors[:, ::-1]
    # Numerical rank: below this multiple of the largest, an eigenvalue is rounding error.
    rank = int((values > max(values[0], 0) * len(values) * np.finfo(np.float64).eps * 10).sum())
    # The smallest number of components whose cumulative share exceeds `variance`.
    share = np.cumsum(values[:rank]) / values[:rank].sum() if rank else np.zeros(0)
    retained = min(rank, int(np.searchsorted(share, variance, side="right")) + 1)
    # W = D V λ^(-1/2)
    weights: Matrix = scale[:, None] * vectors[:, :retained] / np.sqrt(values[:retained])
    return weights


@dataclass(frozen=True)
class Whitening:
    """Whitening maps of both sides: what a fit computes before it correlates them (see `whiten`).

    Attributes:
        x: Of hidden states.
        y: Of scores.

    >>> moments = JointMoments.of(np.array([[0.0], [2.0]]), np.array([[1.0], [5.0]]))
    >>> Whitening.of(moments, CCASettings())
    Whitening(x=array([[1.]]), y=array([[0.5]]))

    """

    x: Float[np.ndarray, "x x_component"]
    y: Float[np.ndarray, "y y_component"]

    @classmethod
    def of(
        cls,
        moments: JointMoments,
        settings: CCASettings,
        x: Float[np.ndarray, "x x_component"] | None = None,
        y: Float[np.ndarray, "y y_component"] | None = None,
    ) -> "Whitening":
        """Whitening maps by moments; `x` and `y` are those of a side where they are known."""
        if x is None:
            x = whiten(moments.xx, settings.x_variance, moments.x_range if settings.scale_x else None)
        return cls(x, whiten(moments.yy, settings.y_variance, moments.y_range) if y is None else y)


def canonical(moments: JointMoments, settings: CCASettings, known: Whitening | None = None) -> Canonical:
    """Canonical correlations after min-max scaling of y and PCA of either side (A.4).

    With W the whitening maps, the singular values of W_xᵀ Σ_xy W_y are the canonical correlations, and its singular
    vectors, mapped back by W, the directions.

    Args:
        moments: Of the fitting rows.
        settings: Scaling, variances and number of components.
        known: The whitening maps of these moments, where another fit has computed them.

    >>> x = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> y = np.array([[0.0], [1.0], [1.0], [2.0]])
    >>> canonical(JointMoments.of(x, y), CCASettings()).correlations.round(4)  # of one column each: |Pearson's r|
    array([0.9487])

    """
    maps = Whitening.of(moments, settings) if known is None else known
    x, y = maps.x, maps.y
    left, values, right = np.linalg.svd(x.T @ moments.xy @ y, full_matrices=False)
    number = min(settings.components, len(values))
    return Canonical(
        correlations=np.clip(values[:number], 0, 1),  # rounding may leave [0, 1]
        x_weights=x @ left[:, :number],
        y_weights=y @ right[:number].T,
        x_components=x.shape[1],
        y_components=y.shape[1],
    )


def correlations_on(fitted: Canonical, moments: JointMoments) -> Float[np.ndarray, "component"]:
    """Correlations of fitted components on other rows: uᵀ Σ_xy v / √(uᵀ Σ_xx u · vᵀ Σ_yy v) for directions u, v.

    NaN where a component is constant on these rows.

    >>> x, y = np.array([[0.0], [1.0], [2.0]]), np.array([[0.0], [1.0], [2.0]])
    >>> correlations_on(canonical(JointMoments.of(x, y), CCASettings()), JointMoments.of(x, -y)).round(4)
    array([-1.])

    """
    shared: Vector = np.einsum("ic,ij,jc->c", fitted.x_weights, moments.xy, fitted.y_weights, optimize=True)
    x = np.einsum("ic,ij,jc->c", fitted.x_weights, moments.xx, fitted.x_weights, optimize=True)
    y = np.einsum("ic,ij,jc->c", fitted.y_weights, moments.yy, fitted.y_weights, optimize=True)
    product = np.sqrt(np.maximum(x, 0) * np.maximum(y, 0))
    found: Vector = np.divide(shared, product, out=np.full_like(shared, np.nan), where=product > 0)
    return found


def summary(correlations: Float[np.ndarray, "component"]) -> Float[np.ndarray, "metric"]:
    """Component 1, mean of the top 10 and of the top 50 (Figs. 4 and 8), or of as many as there are.

    A component that is constant on the evaluated rows (NaN) predicts nothing there and counts 0.

    >>> summary(np.array([0.9, 0.5, np.nan]))
    array([0.9       , 0.46666667, 0.46666667])

    """
    known = np.nan_to_num(correlations)
    return np.array([known[0], known[:10].mean(), known[:50].mean()])
