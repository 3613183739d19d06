"""What becomes visible when a retrieval is called for, and the strategies without heads; those with: `heads`."""

from abc import ABC
from dataclasses import asdict, dataclass
from typing import Any, Literal

from extract.errors import UserError
from extract.masked import Seen
from extract.prompt import Span
from probe.rag.bm25 import best_sentences
from probe.rag.question import Question
from probe.rag.triggers import Never, Trigger
from probe.rag.windows import Windows, merged
from probe.regressor import ProbeRegressor


@dataclass(frozen=True)
class Retrieved:
    """Visible token spans of the prompt, and the heads that chose them, layer-major; None without heads."""

    windows: list[Span]
    heads: list[int] | None = None


@dataclass(frozen=True)
class Moment:
    """Where a retrieval takes place.

    Attributes:
        question: The question.
        seen: The last query with everything visible.
        text: The answer so far and the draft that called for the retrieval.
        number: Retrievals before this one.

    """

    question: Question
    seen: Seen
    text: str
    number: int


class Strategy(ABC):
    """One column of the comparison.

    Args:
        name: What the table calls it; by default the class's label.
        windows: Its own settings of Algorithm 2; null: the evaluation's.
        trigger: Its own trigger; null: the evaluation's.

    """

    label: str
    bare = False
    """The context is left out of the prompt."""
    uses_probe = False
    paper: str | None = None
    """The column of Table 4."""

    def __init__(self, name: str | None = None, windows: Windows | None = None, trigger: Trigger | None = None) -> None:
        self.name, self.windows, self.trigger = name or self.label, windows, trigger

    def prepare(self, windows: Windows, trigger: Trigger) -> None:
        """Take the evaluation's settings where it has none of its own."""
        self.windows, self.trigger = self.windows or windows, self.trigger or trigger
        self.windows.check()

    def meet(self, probe: ProbeRegressor) -> None:
        """See the trained probe."""
        del probe

    def describe(self) -> dict[str, Any]:
        """Class and settings."""
        assert self.windows is not None
        assert self.trigger is not None
        return {"class": type(self).__name__, "windows": asdict(self.windows), "trigger": self.trigger.describe()}

    def first(self, question: Question) -> list[Span]:
        """What is visible while no retrieval is in force: nothing of the context."""
        del question
        return []

    def retrieve(self, moment: Moment) -> Retrieved:
        """What becomes visible: by default what is visible anyway."""
        return Retrieved(self.first(moment.question))


class BM25(Strategy):
    """Sentences of the context by BM25, with question, answer and draft as query: the plain competitor.

    Args:
        name, windows, trigger: See `Strategy`.
        tokens: Sentences are taken, best first, until so many tokens are visible.

    """

    label = "bm25"

    def __init__(
        self,
        name: str | None = None,
        windows: Windows | None = None,
        trigger: Trigger | None = None,
        tokens: int = 192,
    ) -> None:
        super().__init__(name, windows, trigger)
        self.tokens = tokens

    def prepare(self, windows: Windows, trigger: Trigger) -> None:
        """Refuse a budget of nothing."""
        super().prepare(windows, trigger)
        if self.tokens < 1:
            raise UserError(f"rag strategy '{self.name}': tokens of at least 1, not {self.tokens}")

    def describe(self) -> dict[str, Any]:
        """With the tokens."""
        return {**super().describe(), "tokens": self.tokens}

    def retrieve(self, moment: Moment) -> Retrieved:
        """The best sentences."""
        question = moment.question
        query = f"{question.sample.question} {moment.text}"
        return Retrieved(merged(best_sentences(question.sentences, query, self.tokens)))


class Gold(Strategy):
    """The supporting facts themselves.

    Args:
        name, windows, trigger: See `Strategy`.
        when: `always`: visible from the first draft on, and nothing is retrieved: what perfect windows could give.
            `fired`: visible when the trigger fires, as for the other strategies.

    """

    label = "gold"

    def __init__(
        self,
        name: str | None = None,
        windows: Windows | None = None,
        trigger: Trigger | None = None,
        when: Literal["always", "fired"] = "always",
    ) -> None:
        super().__init__(name, windows, Never() if when == "always" else trigger)
        self.when = when

    def describe(self) -> dict[str, Any]:
        """With when."""
        return {**super().describe(), "when": self.when}

    def first(self, question: Question) -> list[Span]:
        """The facts, if always."""
        return merged(question.sample.evidence) if self.when == "always" else []

    def retrieve(self, moment: Moment) -> Retrieved:
        """The facts."""
        return Retrieved(merged(moment.question.sample.evidence))


class Full(Strategy):
    """Everything visible all the time: the model as it is."""

    label = "full"

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name, trigger=Never())

    def first(self, question: Question) -> list[Span]:
        """The context."""
        return [question.context]


class WithoutRAG(Strategy):
    """The context is left out of the prompt, not masked; no retrieval."""

    label, bare, paper = "w/o RAG", True, "w/o RAG"

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name, trigger=Never())
