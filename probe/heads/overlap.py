"""Agreement of two static rankings of heads, beside what chance gives."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from extract.errors import UserError
from probe.heads.ranking import Ranking


@dataclass(frozen=True)
class Overlap:
    """Agreement of two rankings.

    Attributes:
        unit: What is compared: heads, or KV heads where a side ranks these.
        heads: Number of heads.
        n: Size of the compared top sets.
        shared: Heads in both top sets.
        expected: Expected shared heads of two random top sets, n² / heads.
        p_shared: One-sided hypergeometric p-value: P(as many shared heads or more) for random top sets.
        ranked: Heads that both sides rank; the rank correlation is over these.
        spearman: Spearman's rank correlation, ties with their mean rank; NaN where it is undefined.
        p_spearman: One-sided permutation p-value of it.

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
    """Overlap of the top `n` heads of two rankings of one LLM, and their rank correlation.

    A TSV's grid with fewer columns than the other side ranks KV heads, and so does any with fewer than `heads`, if
    given. Then both sides are compared by KV head, with the largest score of each group: query heads that share one
    score would make the null distribution too narrow.

    Args:
        first: A ranking.
        second: Another one.
        n: Size of the top sets.
        layers: Of the LLM; by default as many as either side has.
        heads: Query heads of each layer; likewise.
        seed: Of the permutations.

    Raises:
        UserError: the grids are those of two LLMs, or a side ranks fewer than `n`.

    >>> a = Ranking(np.array([[0.9, 0.1, 0.8], [0.2, 0.3, 0.4]]), whole=True, source="a")
    >>> b = Ranking(np.array([[0.7, 0.0, 0.2], [0.1, 0.6, 0.5]]), whole=True, source="b")
    >>> found = ranking_overlap(a, b, n=2)
    >>> found.shared, round(found.expected, 3), round(found.p_shared, 3), round(found.spearman, 3)
    (1, 0.667, 0.6, 0.771)

    """
    grids = _common_grids(first, second, layers, heads)
    columns = heads or max(side.scores.shape[1] for side in (first, second))
    tops = [set(grid.top(n)) for grid in grids]
    total, shared = grids[0].scores.size, len(tops[0] & tops[1])
    a, b = (grid.scores.ravel() for grid in grids)
    both = np.isfinite(a) & np.isfinite(b)
    rho, p_rho = _spearman(a[both], b[both], seed)
    return Overlap(
        unit="heads" if grids[0].grid.heads == columns else "KV heads",
        heads=total,
        n=n,
        shared=shared,
        expected=n * n / total,
        p_shared=float(stats.hypergeom.sf(shared - 1, total, n, n)),
        ranked=int(both.sum()),
        spearman=rho,
        p_spearman=p_rho,
    )


def _common_grids(first: Ranking, second: Ranking, layers: int | None, heads: int | None) -> list[Ranking]:
    """Both rankings over the same heads, or KV heads where either side ranks these."""
    sides = (first, second)
    if heads is None and not _of_one_llm(first, second):
        held = ", ".join(f"{side.source} ranks {side.extent()}" for side in sides)
        raise UserError(f"{held}: rankings of two LLMs are not compared (if one is by KV head, give --heads)")
    if heads is not None:
        sides = (replace(first, grouped=True), replace(second, grouped=True))
    columns = heads or max(side.scores.shape[1] for side in sides)
    rows = layers or max(side.scores.shape[0] for side in sides)
    kv_heads = min([side.scores.shape[1] for side in sides if side.whole] + [columns])
    return [side.on_grid(rows, columns).by_kv_head(kv_heads) for side in sides]


def _of_one_llm(first: Ranking, second: Ranking) -> bool:
    """Whether one LLM can have both grids: a list of a few heads fits a larger one, KV heads their query heads."""
    part, whole = sorted((first, second), key=lambda side: side.whole)
    if not whole.whole:
        return True
    if not part.whole:
        held = part.grid.heads <= whole.grid.heads or whole.grouped
        return part.grid.layers <= whole.grid.layers and held
    narrow, wide = sorted((first, second), key=lambda side: side.grid.heads)
    grouped = narrow.grouped and not wide.grouped and wide.grid.heads % narrow.grid.heads == 0
    return first.grid.layers == second.grid.layers and (narrow.grid.heads == wide.grid.heads or grouped)


Scores = Float[np.ndarray, "head"]


def _spearman(a: Scores, b: Scores, seed: int) -> tuple[float, float]:
    """Spearman's correlation and its one-sided p-value by 1,000 permutations (all of them, for 6 heads or fewer)."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan"), float("nan")
    x, y = (stats.zscore(stats.rankdata(side)) for side in (a, b))

    def correlation(permuted: Any, axis: int) -> Any:
        del axis
        return permuted @ y / len(y)

    test = stats.permutation_test(
        (x,),
        correlation,
        permutation_type="pairings",
        vectorized=True,
        n_resamples=1000,
        alternative="greater",
        random_state=np.random.default_rng(seed),  # `rng` since SciPy 1.15
    )
    return float(test.statistic), float(test.pvalue)
