"""Static heads: the ranking of all heads by mean score over a store's training rows."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from datamodules import Pass, ScoreRows, Sequences, Split
from extract.errors import UserError
from extract.llm import LLMIdentity
from extract.scores import ExcludedKeys, Target, is_dynamic
from probe.heads.head_counts import HeadCounts
from probe.heads.ranking import Ranking


class HeadMeans(Metric):
    """Mean score of each head over all rows that have one: what static heads are ranked by.

    Args:
        *shape: Number of heads; number of offsets and of heads where scores have both.
        **kwargs: See `torchmetrics.Metric`.

    >>> means = HeadMeans(3)
    >>> means.update(torch.tensor([[0.0, 0.2, torch.nan], [1.0, torch.nan, torch.nan]]))
    >>> means.compute()
    tensor([0.5000, 0.2000, 0.0000], dtype=torch.float64)

    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, *shape: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("total", "count"):
            self.add_state(name, default=torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, scores: Float[Tensor, "row *head"]) -> None:
        """Add rows; a missing score (NaN) is left out."""
        self.total += scores.double().nansum(dim=0)
        self.count += scores.isfinite().sum(dim=0)

    def compute(self) -> Float[Tensor, "*head"]:
        """The means in float64; 0 for a head without any score."""
        return self.total / self.count.clamp(min=1)


def training_means(rows: ScoreRows) -> Float[Tensor, "*head"]:
    """Mean score of each head over the training rows of a data module.

    Raises:
        UserError: no training row has a score.

    """
    means: HeadMeans | None = None
    for chunk in rows.training_chunks(known=False):
        means = means or HeadMeans(*chunk.scores.shape[1:])
        means.update(chunk.scores)
    if means is None or not means.count.any():
        raise UserError(
            f"{rows.store_path}: no training row has a {rows.target} score (prompts no longer than the tokens that "
            "Eq. 2 leaves out?)"
        )
    found: Tensor = means.compute().float()
    return found


def store_ranking(store: str, target: Target, split: Split) -> Ranking:
    """Static ranking of a score store: heads by mean score over the training rows."""
    rows = ScoreRows(store, target, split)
    rows.setup("test")
    grid = training_means(rows).double().reshape(rows.identity.layers, rows.identity.heads)
    return Ranking(grid.numpy(), True, store)


@dataclass(frozen=True)
class StoreHeads:
    """Static ranking and number of dynamic heads of a store's training samples.

    Attributes:
        ranking: Heads by mean score over all training steps that have one.
        counts: Numbers of dynamic heads at the training steps that have a score.
        ids: Ids of the training samples.
        identity: The LLM.
        record: Store, its fingerprint and the split, for results.
        ever: Number of heads that are dynamic at any training step.
        excluded: Keys that Eq. 2 of the store leaves out.

    """

    ranking: Ranking
    counts: HeadCounts
    ids: frozenset[str]
    identity: LLMIdentity
    record: dict[str, Any]
    ever: int
    excluded: ExcludedKeys | None = None

    def refuse_shared(self, ids: list[str]) -> None:
        """Refuse to evaluate prompts that the static ranking was computed from.

        Raises:
            UserError: one of them is a training sample.

        """
        if shared := self.ids & set(ids):
            raise UserError(
                f"{min(shared)} is a training sample of {self.record['store']}, which static heads and n are computed "
                "from; give the task another seed, or take another --store"
            )


def read_store_heads(store: str, target: Target, threshold: float, split: Split) -> StoreHeads:
    """Static ranking and number of dynamic heads of a store's training samples, in one pass.

    Args:
        store: The score store's folder.
        target: The score to rank by.
        threshold: Reasoning scores or contributions from here on make a head dynamic (copy-paste scores are 0 or 1).
        split: Which samples are training samples.

    """
    data = Sequences(store=store, target=target, split=split)
    data.setup("test")
    samples, identity = data.whole_samples(Pass("train")), data.identity
    means, steps = HeadMeans(data.num_heads), torch.zeros(data.num_heads + 1, dtype=torch.int64)
    ever = torch.zeros(data.num_heads, dtype=torch.bool)
    for number in range(len(samples)):
        scores = samples[number].scores.double()
        means.update(scores)
        dynamic = is_dynamic(scores, target, threshold)
        ever |= dynamic.any(dim=0)
        count = dynamic.sum(dim=1)[scores.isfinite().any(dim=1)]
        steps += count.bincount(minlength=len(steps))
    grid = means.compute().reshape(identity.layers, identity.heads)
    record = {"store": store, "fingerprint": data.store.fingerprint, "split": data.split_record()}
    ids = frozenset(data.split_ids("train"))
    counts = HeadCounts(tuple(steps.double().tolist()))
    ranking = Ranking(grid.numpy(), True, store)
    return StoreHeads(ranking, counts, ids, identity, record, int(ever.sum()), data.store.excluded)


def never_dynamic_note(sizes: Iterable[int], ever: int, steps: str) -> str:
    """What to say of static sets that are larger than the number of heads ever dynamic; empty where none is.

    Args:
        sizes: Of the static sets.
        ever: Heads that are dynamic at any step.
        steps: Which steps these are.

    >>> never_dynamic_note([20, 50, 100], ever=73, steps="evaluation")
    'static sets of 100 hold heads that are never dynamic: only 73 are at any evaluation step'
    >>> never_dynamic_note([20], ever=73, steps="evaluation")
    ''

    """
    if not (large := sorted({size for size in sizes if size > ever})):
        return ""
    held = f"static sets of {', '.join(map(str, large))} hold heads that are never dynamic"
    return f"{held}: only {ever} are at any {steps} step"
