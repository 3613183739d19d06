"""Retrieval strategies: which context tokens become visible when a retrieval is triggered."""

from abc import ABC
from dataclasses import asdict, dataclass
from typing import Any

from extract.generation import LastQueryState
from extract.prompts import Span
from extract.scores import ExcludedKeys
from probe.models import ProbeRegressor
from probe.rag import Question, Trigger
from probe.rag.strategies.windows import Windows


@dataclass(frozen=True)
class Retrieved:
    """Result of a retrieval.

    Attributes:
        windows: Token spans of the prompt that become visible, sorted and disjoint.
        heads: The heads whose attention selected them, layer-major; None where no heads were used.

    """

    windows: list[Span]
    heads: list[int] | None = None


@dataclass(frozen=True)
class RetrievalState:
    """What a strategy may use at a retrieval.

    Attributes:
        question: The question.
        last_query: Hidden state and attention of the last token so far, with the full context visible; None for a
            strategy that does not read the full context.
        text: The answer so far, with the draft that triggered the retrieval.
        number: Retrievals before this one in the same run.

    """

    question: Question
    last_query: LastQueryState | None
    text: str
    number: int


class Strategy(ABC):
    """A retrieval strategy: one column of Table 4.

    Args:
        name: Its name in tables; by default the class's `default_name`.
        windows: Its own settings of Algorithm 2; null: the evaluation's.
        trigger: Its own trigger; null: the evaluation's.

    """

    default_name: str
    without_context = False
    """Whether the context is left out of the prompt."""
    reads_full_context = False
    """Whether a retrieval needs a forward of the last token with the full context visible."""
    uses_probe = False
    """Whether answers depend on the probe's predictions."""
    paper_column: str | None = None
    """The column of Table 4 that it reproduces."""
    excluded: ExcludedKeys | None = None
    """Keys that Eq. 2 leaves out, where it uses true reasoning scores."""

    def __init__(self, name: str | None = None, windows: Windows | None = None, trigger: Trigger | None = None) -> None:
        self.name, self.windows, self.trigger = name or self.default_name, windows, trigger

    def prepare(self, windows: Windows, trigger: Trigger) -> None:
        """Take the evaluation's settings where its own are null."""
        self.windows, self.trigger = self.windows or windows, self.trigger or trigger

    def set_probe(self, probe: ProbeRegressor) -> None:
        """Take what it needs of the trained probe."""
        del probe

    def describe(self) -> dict[str, Any]:
        """Class and settings, in plain values."""
        assert self.windows is not None
        assert self.trigger is not None
        return {"class": type(self).__name__, "windows": asdict(self.windows), "trigger": self.trigger.describe()}

    def initial_windows(self, question: Question) -> list[Span]:
        """Token spans of the context that are visible while no retrieval is in force: by default none."""
        del question
        return []

    def retrieve(self, state: RetrievalState) -> Retrieved:
        """What becomes visible at a retrieval: by default the initial windows."""
        return Retrieved(self.initial_windows(state.question))
