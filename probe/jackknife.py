"""Intervals of figures that need a fit: the delete-a-group jackknife."""

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import stats

Values = NDArray[np.float64]


def jackknife(estimate: Float[Values, "*figure"], left_out: Float[Values, "group *figure"]) -> tuple[Values, Values]:
    """95 % intervals: estimate ± t · se, with se² = (G - 1) / G · Σ (θ₋g - mean θ₋)² and G - 1 degrees of freedom.

    Args:
        estimate: The figures on all samples.
        left_out: The same figures with one group of samples left out in turn, G of them.

    Returns:
        Lower and upper bounds.

    """
    groups = len(left_out)
    spread = np.square(left_out - left_out.mean(axis=0)).sum(axis=0)
    half = stats.t.ppf(0.975, groups - 1) * np.sqrt((groups - 1) / groups * spread)
    return estimate - half, estimate + half
