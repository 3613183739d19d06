"""The extraction stage as a LightningModule: `lightning predict` runs it."""

from dataclasses import dataclass
from typing import Any

from extract.decode import Decoded, decode
from extract.llm import LLM
from extract.stage import LLMStage
from extract.task import Sample, Task


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


@dataclass(frozen=True)
class Extracted:
    """What one batch gives: generations with scores (None for an empty batch), answers as text, their metrics."""

    decoded: Decoded | None
    answers: list[str]
    metrics: list[dict[str, float]]


class Extraction(LLMStage):
    """Generate greedily and score every head at every step; a `ScoreWriter` callback keeps the rows.

    Args:
        llm: The frozen model (linked from the top-level `llm:`).
        sink: First tokens that Eq. 2 leaves out.
        local: Last tokens that Eq. 2 leaves out, the query's own included.

    """

    def __init__(self, llm: LLM | None = None, sink: int = 4, local: int = 64) -> None:
        super().__init__(llm)
        self.sink, self.local = sink, local

    def describe(self) -> dict[str, Any]:
        """The settings that determine scores, for the store's manifest."""
        return {"sink": self.sink, "local": self.local}

    def on_predict_start(self) -> None:
        """Put the model where the Trainer works."""
        self.place_llm()

    def predict_step(self, batch: PromptBatch) -> Extracted:
        """Rows of one batch."""
        if not batch.samples:
            return Extracted(None, [], [])
        decoded = decode(self.llm, batch.samples, self.sink, self.local)
        pairs = zip(decoded.tokens.tolist(), decoded.lengths, strict=True)
        answers = [str(self.llm.tokenizer.decode(row[:n], skip_special_tokens=True)).strip() for row, n in pairs]
        graded = zip(batch.samples, answers, strict=True)
        return Extracted(decoded, answers, [batch.task.grade(sample, answer) for sample, answer in graded])
