"""How far two static rankings of heads agree, beside what chance gives."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from probe.heads.ranking import Ranking


@dataclass(frozen=True)
class Overlap:
    """Agreement of two rankings.

    Attributes:
        unit: What is compared: heads, or KV heads where one side ranks these.
        heads: How many there are.
        n: Size of the tops compared.
        shared: Heads in both tops.
        expected: Shared heads of two random tops, n² / heads.
        p_shared: Chance of as many shared heads or more (hypergeometric).
        ranked: Heads that both sides rank; Spearman's correlation is over these.
        spearman: NaN where it is undefined.
        p_spearman: Chance of one as large or larger when one side is permuted (1,000 times).

    """

    unit: str
    heads: int
    n: int
    shared: int
    expected: float
    p_shared: float
    ranked: int
    spearman: float
    p_spearman: float


def ranking_overlap(
    first: Ranking,
    second: Ranking,
    n: int = 20,
    layers: int | None = None,
    heads: int | None = None,
    seed: int = 0,
) -> Overlap:
    """Compare the top `n` and the order of two rankings of one LLM's heads.

    A grid with fewer columns than `heads` ranks KV heads; then both sides are compared by KV head, a group's score
    being its largest: copies of one score would make the null too narrow.

    Args:
        first: A ranking.
        second: The other one.
        n: Size of the tops.
        layers: Of the LLM; by default as many as either side shows.
        heads: Query heads a layer; likewise.
        seed: Of the permutations.

    Raises:
        UserError: the grids do not fit each other, or a side ranks fewer than `n`.

    """
    sides = (first, second)
    columns = heads or max(side.scores.shape[1] for side in sides)
    rows = layers or max(side.scores.shape[0] for side in sides)
    groups = min([side.scores.shape[1] for side in sides if side.whole] + [columns])
    grids = [side.on_grid(rows, columns).by_kv_head(groups) for side in sides]
    tops = [set(grid.top(n)) for grid in grids]
    total, shared = grids[0].scores.size, len(tops[0] & tops[1])
    a, b = (grid.scores.ravel() for grid in grids)
    both = np.isfinite(a) & np.isfinite(b)
    rho, p_rho = _spearman(a[both], b[both], seed)
    return Overlap(
        unit="heads" if groups == columns else "KV heads",
        heads=total,
        n=n,
        shared=shared,
        expected=n * n / total,
        p_shared=float(stats.hypergeom.sf(shared - 1, total, n, n)),
        ranked=int(both.sum()),
        spearman=rho,
        p_spearman=p_rho,
    )


def _spearman(a: Any, b: Any, seed: int, permutations: int = 1000) -> tuple[float, float]:
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan"), float("nan")
    x, y = (stats.zscore(stats.rankdata(side)) for side in (a, b))
    rng = np.random.default_rng(seed)
    null = np.array([rng.permutation(x) @ y for _ in range(permutations)]) / len(x)
    rho = float(x @ y / len(x))
    return rho, float((1 + (null >= rho - 1e-12).sum()) / (permutations + 1))
