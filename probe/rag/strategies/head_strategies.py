"""Strategies whose windows follow the attention of some heads (Algorithm 2, Table 4); they differ in which heads."""

import random
from abc import abstractmethod
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from extract.generation import LastQueryState
from extract.heads import top_k
from extract.scores import ExcludedKeys, kept_keys, reasoning_score
from extract.utils import NonNegativeInt, Seed, frozen_inference
from probe.models import ProbeRegressor
from probe.rag import Trigger
from probe.rag.strategies.base import RetrievalState, Retrieved, Strategy
from probe.rag.strategies.windows import Windows


class HeadStrategy(Strategy):
    """Algorithm 2 with the attention of selected heads."""

    reads_full_context = True

    @abstractmethod
    def heads(self, state: RetrievalState, count: int) -> list[int]:
        """The heads whose attention is averaged, layer-major."""

    def retrieve(self, state: RetrievalState) -> Retrieved:
        """Windows around the context positions that the heads attend to most, on average."""
        assert self.windows is not None
        heads = self.heads(state, self.windows.heads)
        start, end = state.question.context
        rows = _last_query(state).attention
        scores = rows[torch.tensor(heads, device=rows.device), start:end].mean(dim=0)
        return Retrieved([(start + a, start + b) for a, b in self.windows.select(scores)], heads)


class DynamicHeadsStrategy(HeadStrategy):
    """The heads of highest score at this step, as the probe predicts them from the hidden state."""

    default_name, uses_probe, paper_column = "dynamic", True, "dynamic"

    def set_probe(self, probe: ProbeRegressor) -> None:
        """Keep the probe."""
        self._probe = probe

    @frozen_inference()
    def heads(self, state: RetrievalState, count: int) -> list[int]:
        """Top heads by predicted score."""
        hidden = _last_query(state).hidden[None].to(self._probe.head_means)
        return _top(self._probe.predict_scores(hidden)[0], count)


class StaticHeadsStrategy(HeadStrategy):
    """Fixed heads: those of highest mean score over the probe's training rows."""

    default_name, uses_probe, paper_column = "static", False, "static"

    def set_probe(self, probe: ProbeRegressor) -> None:
        """Keep the mean scores, which the probe carries."""
        self._means = probe.head_means

    def heads(self, state: RetrievalState, count: int) -> list[int]:
        """The same at each retrieval."""
        del state
        return _top(self._means, count)


class DynamicRandomHeadsStrategy(HeadStrategy):
    """New random heads at each retrieval.

    Args:
        name, windows, trigger: See `Strategy`.
        seed: With the question and the number of the retrieval it determines the sample.

    """

    default_name, paper_column = "dynamic random", "dynamic random"

    def __init__(
        self,
        name: str | None = None,
        windows: Windows | None = None,
        trigger: Trigger | None = None,
        seed: Seed = 0,
    ) -> None:
        super().__init__(name, windows, trigger)
        self.seed = seed

    def describe(self) -> dict[str, Any]:
        """Settings of every strategy, and the seed."""
        return {**super().describe(), "seed": self.seed}

    def heads(self, state: RetrievalState, count: int) -> list[int]:
        """A new sample for each retrieval."""
        return self._sample(state, count, f"{self.seed}:{state.question.sample.name}:{state.number}")

    def _sample(self, state: RetrievalState, count: int, seed: str) -> list[int]:
        return random.Random(seed).sample(range(len(_last_query(state).attention)), count)


class FixedRandomHeadsStrategy(DynamicRandomHeadsStrategy):
    """Random heads, the same at every retrieval of every question."""

    default_name, paper_column = "fixed random", "fixed random"

    def heads(self, state: RetrievalState, count: int) -> list[int]:
        """One sample for all retrievals."""
        return self._sample(state, count, f"{self.seed}")


class OracleHeadsStrategy(HeadStrategy):
    """The heads of highest true reasoning score (Eq. 2) at this step: the choice of a perfect probe.

    Args:
        name, windows, trigger: See `Strategy`.
        sink, local: First and last tokens that Eq. 2 leaves out.

    """

    default_name = "oracle"
    excluded: ExcludedKeys

    def __init__(
        self,
        name: str | None = None,
        windows: Windows | None = None,
        trigger: Trigger | None = None,
        sink: NonNegativeInt = ExcludedKeys.sink,
        local: NonNegativeInt = ExcludedKeys.local,
    ) -> None:
        super().__init__(name, windows, trigger)
        self.excluded = ExcludedKeys(sink, local)

    def describe(self) -> dict[str, Any]:
        """Settings of every strategy, and the tokens left out."""
        return {**super().describe(), **asdict(self.excluded)}

    def heads(self, state: RetrievalState, count: int) -> list[int]:
        """Top heads by true score."""
        return _top(reasoning_scores(state, self.excluded), count)


def _last_query(state: RetrievalState) -> LastQueryState:
    assert state.last_query is not None
    return state.last_query


def _top(scores: Float[Tensor, "head"], count: int) -> list[int]:
    heads: list[int] = top_k(scores, count).tolist()
    return heads


def reasoning_scores(state: RetrievalState, excluded: ExcludedKeys) -> Float[Tensor, "head"]:
    """Reasoning score (Eq. 2) of each head at the last query; NaN for a head without attention on kept keys."""
    rows = _last_query(state).attention
    keys = rows.shape[1]
    kept = kept_keys(torch.ones(1, keys, dtype=torch.bool, device=rows.device), excluded)[0]
    evidence = torch.zeros(keys, dtype=torch.bool, device=rows.device)
    evidence[torch.tensor(sorted(state.question.evidence), dtype=torch.long, device=rows.device)] = True
    on_evidence, on_kept = ((rows * columns).sum(dim=1)[None] for columns in (kept & evidence, kept))
    return reasoning_score(on_evidence, on_kept, (kept & evidence).any()[None])[0]
