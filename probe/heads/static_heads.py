"""Static heads: the ranking of all heads by mean score over a store's training rows."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from datamodules import Pass, ScoreRows, Sequences, Split
from extract.errors import UserError
from extract.llm import LLMIdentity
from extract.scores import Target, is_dynamic
from probe.heads.ranking import Ranking


def store_ranking(store: str, target: Target, split: Split) -> Ranking:
    """Mean score of each head over the training rows of a score store."""
    rows = ScoreRows(store, target, split)
    rows.setup("test")
    grid = rows.head_means().double().reshape(rows.identity.layers, rows.identity.heads)
    return Ranking(grid.numpy(), True, store)


@dataclass(frozen=True)
class StoreHeads:
    """Training samples of a store, summed up.

    Attributes:
        ranking: Heads by mean score over all training steps that have one.
        steps, empty: Training steps with a score, and those of them without any dynamic head.
        dynamic: Dynamic heads of all training steps together.
        ids: The training samples.
        identity: The LLM.
        record: Store, its fingerprint and the split, for results.

    """

    ranking: Ranking
    steps: int
    empty: int
    dynamic: int
    ids: frozenset[str]
    identity: LLMIdentity
    record: dict[str, Any]

    def average(self, count_empty: bool) -> float:
        """Dynamic heads a step, steps without any counted or not; 0 where no step has any."""
        steps = self.steps if count_empty else self.steps - self.empty
        return self.dynamic / max(steps, 1)

    def refuse_shared(self, ids: list[str]) -> None:
        """Prompts that are evaluated must not be those that chose the static heads."""
        if shared := self.ids & set(ids):
            raise UserError(
                f"{min(shared)} is a training sample of {self.record['store']}, so static heads and n would be known "
                "from it; give the task another seed, or take another --store"
            )


def read_store_heads(store: str, target: Target, threshold: float, split: Split) -> StoreHeads:
    """Read the training samples once."""
    data = Sequences(store, target, split)
    data.setup("test")
    samples, identity = data.whole_samples(Pass("train")), data.identity
    total, known = np.zeros(data.num_heads), np.zeros(data.num_heads)
    steps = empty = dynamic = 0
    for number in range(len(samples)):
        scores = samples[number].scores.double().numpy()
        scored = np.isfinite(scores)
        total, known = total + np.nansum(scores, axis=0), known + scored.sum(axis=0)
        count = is_dynamic(scores, target, threshold).sum(axis=1)[scored.any(axis=1)]
        steps, empty, dynamic = steps + len(count), empty + int((count == 0).sum()), dynamic + int(count.sum())
    grid = (total / np.maximum(known, 1)).reshape(identity.layers, identity.heads)
    record = {"store": store, "fingerprint": data.store.fingerprint, "split": data.split_record()}
    ids = frozenset(data.split_ids("train"))
    return StoreHeads(Ranking(grid, True, store), steps, empty, dynamic, ids, identity, record)


class HeadMeans(Metric):
    """Mean score of each head over all rows that have one."""

    full_state_update = False
    total: Tensor
    known: Tensor

    def __init__(self, num_heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("total", "known"):
            self.add_state(name, default=torch.zeros(num_heads, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, scores: Float[Tensor, "row head"]) -> None:
        """Add rows; a missing score is left out."""
        self.total += scores.double().nansum(dim=0)
        self.known += scores.isfinite().sum(dim=0)

    def compute(self) -> Tensor:
        """The means, 0 for a head without any score."""
        return self.total / self.known.clamp(min=1)
