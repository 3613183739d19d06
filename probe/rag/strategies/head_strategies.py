"""Strategies whose windows are where some heads look: they differ in which heads (Algorithm 2, Table 4)."""

import random
from abc import abstractmethod
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from extract.errors import UserError
from extract.scores import ExcludedKeys, kept_keys, reasoning_score
from probe.models import ProbeRegressor
from probe.rag import Trigger
from probe.rag.strategies.base import RetrievalState, Retrieved, Strategy
from probe.rag.strategies.windows import Windows


class HeadStrategy(Strategy):
    """Algorithm 2 with some heads' attention."""

    @abstractmethod
    def heads(self, state: RetrievalState, count: int) -> list[int]:
        """The heads to listen to, layer-major."""

    def retrieve(self, state: RetrievalState) -> Retrieved:
        """Windows about the context positions that the heads look at, on average."""
        assert self.windows is not None
        heads = self.heads(state, self.windows.heads)
        start, end = state.question.context
        rows = state.seen.attention
        scores = rows[torch.tensor(heads, device=rows.device), start:end].mean(dim=0)
        return Retrieved([(start + a, start + b) for a, b in self.windows.around(scores)], heads)


class DynamicHeadsStrategy(HeadStrategy):
    """The heads that the probe expects, from the hidden state, to score highest now."""

    label, uses_probe, paper = "dynamic", True, "dynamic"

    def set_probe(self, probe: ProbeRegressor) -> None:
        """Keep the probe."""
        self._probe = probe

    @torch.inference_mode()
    def heads(self, state: RetrievalState, count: int) -> list[int]:
        """Highest predictions."""
        hidden = state.seen.hidden[None].to(self._probe.head_means)
        return top(self._probe.predict_scores(hidden)[0], count)


class StaticHeadsStrategy(HeadStrategy):
    """Fixed heads: the highest mean score over the probe's training rows."""

    label, uses_probe, paper = "static", False, "static"

    def set_probe(self, probe: ProbeRegressor) -> None:
        """The probe carries these means."""
        self._means = probe.head_means

    def heads(self, state: RetrievalState, count: int) -> list[int]:
        """The same at each retrieval."""
        del state
        return top(self._means, count)


class DynamicRandomHeadsStrategy(HeadStrategy):
    """New random heads at each retrieval.

    Args:
        name, windows, trigger: See `Strategy`.
        seed: With question and number of the retrieval it fixes the draw.

    """

    label, paper = "dynamic random", "dynamic random"

    def __init__(
        self,
        name: str | None = None,
        windows: Windows | None = None,
        trigger: Trigger | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(name, windows, trigger)
        self.seed = seed

    def describe(self) -> dict[str, Any]:
        """With the seed."""
        return {**super().describe(), "seed": self.seed}

    def heads(self, state: RetrievalState, count: int) -> list[int]:
        """A fresh draw."""
        return self._draw(state, count, f"{self.seed}:{state.question.sample.id}:{state.number}")

    def _draw(self, state: RetrievalState, count: int, seed: str) -> list[int]:
        return random.Random(seed).sample(range(len(state.seen.attention)), count)


class FixedRandomHeadsStrategy(DynamicRandomHeadsStrategy):
    """Random heads, the same at every retrieval of every question."""

    label, paper = "fixed random", "fixed random"

    def heads(self, state: RetrievalState, count: int) -> list[int]:
        """One draw."""
        return self._draw(state, count, f"{self.seed}")


class OracleHeadsStrategy(HeadStrategy):
    """The heads whose true reasoning score (Eq. 2) is highest now: what a perfect probe would choose.

    Args:
        name, windows, trigger: See `Strategy`.
        sink, local: First and last tokens that Eq. 2 leaves out.

    """

    label = "oracle"

    def __init__(
        self,
        name: str | None = None,
        windows: Windows | None = None,
        trigger: Trigger | None = None,
        sink: int = ExcludedKeys.sink,
        local: int = ExcludedKeys.local,
    ) -> None:
        super().__init__(name, windows, trigger)
        self.excluded = ExcludedKeys(sink, local)

    def prepare(self, windows: Windows, trigger: Trigger) -> None:
        """Refuse less than none."""
        super().prepare(windows, trigger)
        sink, local = self.excluded.sink, self.excluded.local
        if min(sink, local) < 0:
            raise UserError(f"rag strategy '{self.name}': sink and local of 0 or more, not {sink}, {local}")

    def describe(self) -> dict[str, Any]:
        """With the tokens left out."""
        return {**super().describe(), **asdict(self.excluded)}

    def heads(self, state: RetrievalState, count: int) -> list[int]:
        """Highest scores, by the supporting facts."""
        return top(true_scores(state, self.excluded), count)


def top(scores: Float[Tensor, "head"], count: int) -> list[int]:
    """The heads of highest score, the first of equal ones."""
    found: list[int] = scores.argsort(descending=True, stable=True)[:count].tolist()
    return found


def true_scores(state: RetrievalState, excluded: ExcludedKeys) -> Float[Tensor, "head"]:
    """Eq. 2 of each head at this query; −1 for a head without any kept attention."""
    rows = state.seen.attention
    keys = rows.shape[1]
    kept = kept_keys(torch.ones(1, keys, dtype=torch.bool, device=rows.device), excluded)[0]
    evidence = torch.zeros(keys, dtype=torch.bool, device=rows.device)
    evidence[torch.tensor(sorted(state.question.evidence), dtype=torch.long, device=rows.device)] = True
    on_evidence, on_kept = ((rows * columns).sum(dim=1)[None] for columns in (kept & evidence, kept))
    return reasoning_score(on_evidence, on_kept, (kept & evidence).any()[None])[0].nan_to_num(nan=-1.0)
