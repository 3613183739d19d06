"""`lightning ranking`: the static ranking of a score store, as a file of other projects."""

from typing import Literal

from datamodules import Split
from extract.scores import Target
from extract.store import always_verified
from extract.utils import PositiveInt, say
from probe.heads import store_ranking, write_ranking


def ranking(
    store: str,
    file: str,
    target: Target = "copy_paste",
    split: Split = Split(),  # noqa: B008 (frozen)
    kv_heads: PositiveInt | None = None,
    reduce: Literal["max", "mean"] = "max",
    verify: bool = False,
) -> None:
    """Write the static ranking of a score store: heads by their mean score over the training rows.

    Args:
        store: Folder of the score store.
        file: File to write; its suffix is its format: .json (Wu et al.), .yaml (QRHead), .tsv (DuoAttention, KV heads).
        target: Score to rank by: copy_paste (Eq. 1), reasoning (Eq. 2) or contribution (in logits).
        split: Which rows are training rows.
        kv_heads: KV heads of a layer, to rank these instead of query heads.
        reduce: How the scores of a KV head's query heads become one score.
        verify: Hash every shard, also those that have not changed since they were verified.

    """
    with always_verified(verify):
        heads = store_ranking(store, target, split)
    if kv_heads is not None:
        heads = heads.by_kv_head(kv_heads, reduce)
    write_ranking(heads, file)
    say(f"written to {file}")
