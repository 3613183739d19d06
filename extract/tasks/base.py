"""Interface of a task: numbered samples with a prompt, the token spans of its evidence, and metrics of an answer."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from extract.errors import UserError
from extract.prompts import ForcedOpening, Span
from extract.tasks.answer_format import GoldContinuation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from extract.llm import LLM


@dataclass(frozen=True)
class Sample:
    """One tokenized prompt with its evidence and gold answer.

    Attributes:
        index: Number within the task; with the task's seed it determines everything else.
        id: Identifies the sample by its content (`extract.store.content_id`): two stores that share an id share a
            sample, and a probe trained on it in one is not evaluated on it in the other.
        ids: Prompt tokens.
        evidence: Half-open token spans of the needle or of the supporting facts.
        budget: Most tokens to generate.
        question, gold: The question and the gold answer.
        forced: Tokens to score along instead of generated ones (teacher forcing); `budget` is their number.
        fields: Further columns of the store's `samples` table: numbers and strings, the same keys in every sample.
            `record` is the sample's name in its source.

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

    @property
    def name(self) -> str:
        """Its name in its source, else its id."""
        return str(self.fields.get("record", self.id))


class Task(ABC):
    """A fixed set of samples and the metrics of their answers: subclass it to extract scores on another task.

    A sample depends on the task's settings, its seed and the sample's number alone, so that batch size, number of
    processes and resuming change nothing.

    Attributes:
        force: Most tokens generated after a forced opening (see `forced_opening`); 0: none is forced.

    """

    force: int = 0

    @abstractmethod
    def prepare(self, llm: "LLM") -> None:
        """Load what samples need (texts, tokenizer); called once, before anything else.

        Raises:
            UserError: the settings are wrong.

        """

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def sample(self, index: int) -> Sample:
        """The sample of that number."""

    @abstractmethod
    def grade(self, sample: Sample, answer: str) -> dict[str, float]:
        """Metrics of a generated answer, by name; the same names for every sample."""

    def forced_opening(self, answer: str) -> str:
        """Text to append to a generation that ended without an answer in the form wanted, so that the model gives one.

        Empty where nothing is to be forced; by default always.
        """
        del answer
        return ""

    def opening(self, tokenizer: "PreTrainedTokenizerBase") -> ForcedOpening | None:
        """The forced opening as tokens; None where none is forced."""
        return ForcedOpening(tokenizer, self.forced_opening, self.force) if self.force else None

    def grade_forced(self, sample: Sample, answer: str, continuation: str | None) -> dict[str, float]:
        """Further metrics, where `force` is above 0: of the answer and what followed its forced opening.

        Args:
            sample: The sample.
            answer: Text that the model generated.
            continuation: Text that it generated after the forced opening; None where none was forced.

        """
        del sample, answer, continuation
        return {}

    def grade_all(self, sample: Sample, answer: str, continuation: str | None = None) -> dict[str, float]:
        """All metrics of an answer: those of `grade` and, where openings are forced, those of `grade_forced`."""
        forced = self.grade_forced(sample, answer, continuation) if self.force else {}
        return {**self.grade(sample, answer), **forced}

    def context_span(self, index: int) -> Span:
        """Token span of the context, evidence included, in the prompt of the sample of that number.

        Raises:
            UserError: the task does not say; by default always.

        """
        raise UserError(f"task {type(self).__name__}: sample {index} has no known context; define `context_span`")

    def gold_continuation(self, sample: Sample, answer: str, solved: bool) -> GoldContinuation:
        """Where the answer should have gone on otherwise, and how; by default it is the gold answer from the start.

        Args:
            sample: The sample.
            answer: Text that the model generated.
            solved: Whether it is right; then how it went on.

        """
        del answer, solved
        return GoldContinuation("", sample.gold)

    def extracted(self, answer: str) -> str:
        """The answer within a generation; by default all of it."""
        return answer

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Every setting that determines the samples, for the store's manifest."""

    def order(self) -> list[int]:
        """Sample numbers in the order to run them: neighbours share a batch, so that similar lengths come together."""
        return list(range(len(self)))


@dataclass(frozen=True)
class PromptBatch:
    """Samples that are decoded together.

    Attributes:
        number: Position in the run's fixed list of batches; it names the batch's files, whichever process runs it.
        samples: Empty for a process without any work.
        task: Evaluates the answers.

    """

    number: int
    samples: list[Sample]
    task: Task
