"""What becomes visible when a retrieval is called for, and the strategies without heads; those with: `heads`."""

from abc import ABC
from dataclasses import asdict, dataclass
from typing import Any

from extract.generation import LastQueryState
from extract.prompts import Span
from probe.models import ProbeRegressor
from probe.rag import Question, Trigger
from probe.rag.strategies.windows import Windows


@dataclass(frozen=True)
class Retrieved:
    """Visible token spans of the prompt, and the heads that chose them, layer-major; None without heads."""

    windows: list[Span]
    heads: list[int] | None = None


@dataclass(frozen=True)
class RetrievalState:
    """Where a retrieval takes place.

    Attributes:
        question: The question.
        seen: The last query with everything visible.
        text: The answer so far and the draft that called for the retrieval.
        number: Retrievals before this one.

    """

    question: Question
    seen: LastQueryState
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

    def set_probe(self, probe: ProbeRegressor) -> None:
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

    def retrieve(self, state: RetrievalState) -> Retrieved:
        """What becomes visible: by default what is visible anyway."""
        return Retrieved(self.first(state.question))
