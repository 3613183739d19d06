"""`lightning overlap`: agreement of two static rankings of heads."""

from datamodules import Split
from extract.scores import Target
from extract.store import always_verified
from extract.utils import DataConsole, PositiveInt, user_path
from probe.heads import Ranking, ranking_overlap, read_ranking, store_ranking
from probe.results import TextTable


def overlap(
    first: str,
    second: str,
    n: PositiveInt = 20,
    target: Target = "copy_paste",
    layers: PositiveInt | None = None,
    heads: PositiveInt | None = None,
    verify: bool = False,
) -> None:
    """Compare two static rankings of heads: shared top heads and Spearman's correlation, each beside chance.

    Both rankings must be of the same LLM. If one of them ranks KV heads, both are compared by KV head.

    Args:
        first: A ranking file (.json, .yaml, .tsv) or a score store.
        second: The other ranking.
        n: Number of top heads to compare.
        target: Score that a store is ranked by: copy_paste (Eq. 1), reasoning (Eq. 2) or contribution (in logits).
        layers: Layers of the LLM; by default as many as either ranking names.
        heads: Query heads of a layer; by default as many as either ranking names.
        verify: Hash every shard, also those that have not changed since they were verified.

    """
    with always_verified(verify):
        result = ranking_overlap(_read(first, target), _read(second, target), n, layers, heads)
    title = f"{first} and {second}: {result.heads} {result.unit}"
    table = TextTable(title, ["", "observed", "by chance", "p"], complete="written to a file, the output has all")
    table.add_row(f"shared in the top {n}", str(result.shared), f"{result.expected:.2f}", f"{result.p_shared:.2g}")
    if result.ranked:
        name = f"Spearman over {result.ranked} that both rank"
        table.add_row(name, f"{result.spearman:.3f}", "0", f"{result.p_spearman:.2g}")
    DataConsole().print(table)


def _read(path: str, target: Target) -> Ranking:
    return store_ranking(path, target, Split()) if user_path(path).is_dir() else read_ranking(path)
