"""What a task is: numbered samples with a prompt, evidence spans and a grader."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from extract.prompts import Span

if TYPE_CHECKING:
    from extract.llm import LLM


@dataclass(frozen=True)
class Sample:
    """One prompt, ready for the model.

    Attributes:
        index: Number within the task; with the task's seed it determines everything else.
        id: Names the sample's random part or its record in every store that holds it: two stores that share an id
            share a sample, and a probe trained on one may not be evaluated on it in the other.
        ids: Prompt tokens.
        evidence: Half-open token spans of the needle or of the supporting facts.
        budget: Most tokens to generate.
        question, gold: What is asked and what a right answer holds.
        forced: Tokens to score along instead of generated ones (teacher forcing); `budget` is their number.
        fields: Further columns of the store's `samples` table: numbers and strings, the same keys in every sample.

    """

    index: int
    id: str
    ids: list[int]
    evidence: list[Span]
    budget: int
    question: str
    gold: str
    forced: list[int] | None = None
    fields: dict[str, int | float | str] = field(default_factory=dict)


class Task(ABC):
    """A set of samples fixed by its settings and seed alone: batch size, processes and resuming change nothing."""

    @abstractmethod
    def prepare(self, llm: "LLM") -> None:
        """Load what samples need (texts, tokenizer). Bad settings raise a UserError here."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def sample(self, index: int) -> Sample:
        """The sample of that number."""

    @abstractmethod
    def grade(self, sample: Sample, answer: str) -> dict[str, float]:
        """Metrics of a generated answer."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Every setting that determines the samples, for the store's manifest."""

    def order(self) -> list[int]:
        """Sample numbers in the order to run them; neighbours share a batch, so similar lengths belong together."""
        return list(range(len(self)))


@dataclass(frozen=True)
class PromptBatch:
    """Samples that run together. The batch's number names its shards, whichever process runs it.

    Attributes:
        number: Position in the run's fixed list of batches.
        samples: Empty for a process without any work.
        task: Grades the answers.

    """

    number: int
    samples: list[Sample]
    task: Task
