"""Interface of an attribution method."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from extract.errors import UserError
from extract.llm import LLM
from probe.attribution.ablated_runs import AblatedRuns
from probe.attribution.prompts import SourcedPrompt
from probe.attribution.record import AttributionRecord


class AttributionMethod(ABC):
    """Scores the influence of each source on each token of an answer: subclass it for another method.

    Args:
        name: Its name in tables; by default the class's `default_name`.
        **settings: What determines its scores, in plain values.

    """

    default_name: str

    def __init__(self, name: str | None = None, **settings: Any) -> None:
        self.name, self.settings = name or self.default_name, settings

    def prepare(self, llm: LLM) -> None:
        """Load what it needs; called once, before any answer.

        Raises:
            UserError: a setting does not fit the model.

        """
        del llm

    @property
    def training_ids(self) -> frozenset[str]:
        """Ids of the samples that it was trained or chosen on, known once it is prepared; none of them is evaluated."""
        return frozenset()

    def describe(self) -> dict[str, Any]:
        """Class and settings, in plain values."""
        return {"class": type(self).__name__, **self.settings}

    def ablations(self, runs: AblatedRuns) -> Bool[Tensor, "run source"]:
        """Masks of the ablated runs that it needs; by default none."""
        return torch.zeros(0, runs.sources, dtype=torch.bool)

    @abstractmethod
    def attribute(
        self, record: AttributionRecord, prompt: SourcedPrompt, runs: AblatedRuns | None = None
    ) -> Float[Tensor, "token source"]:
        """Score of each source for each token of the answer, in any unit.

        Args:
            record: The answer.
            prompt: Question and sources.
            runs: Makes ablated runs of the answer; only for methods that need some.

        """

    def scores(
        self, record: AttributionRecord, prompt: SourcedPrompt, runs: AblatedRuns | None = None
    ) -> Float[Tensor, "source"]:
        """Score of each source for the whole answer: by default the sum over its tokens."""
        return self.attribute(record, prompt, runs).sum(dim=0)

    def needed(self, runs: AblatedRuns | None) -> AblatedRuns:
        """The ablated runs, for a method that needs them.

        Raises:
            UserError: there are none.

        """
        if runs is None:
            raise UserError(f"{type(self).__name__} needs ablated runs of the answer: pass `AblatedRuns`")
        return runs


class RecordMethod(AttributionMethod):
    """A method that needs the record of the answer's decode steps alone: neither the prompt's text nor further runs."""

    @abstractmethod
    def score_record(self, record: AttributionRecord) -> Float[Tensor, "token source"]:
        """Score of each source for each token."""

    def attribute(
        self, record: AttributionRecord, prompt: SourcedPrompt, runs: AblatedRuns | None = None
    ) -> Float[Tensor, "token source"]:
        """Scores of the record."""
        del prompt, runs
        return self.score_record(record)
