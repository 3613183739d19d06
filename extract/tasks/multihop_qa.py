"""Question answering over a context with marked evidence (HotpotQA and its like)."""

import copy
import functools
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from extract.errors import UserError
from extract.prompts import Span, tokenize_with_offsets
from extract.store import content_id
from extract.tasks.answer_format import GoldContinuation, fact_astray, fact_followed
from extract.tasks.base import Sample, Task
from extract.tasks.passages import cut_to_length
from extract.tasks.prompt_texts import ANSWER_STYLES, QuestionTexts
from extract.tasks.question_prompts import ContextSpans, PromptBuilder, evidence_depth
from extract.tasks.sources import LoadedRecords, Record, Source
from extract.utils import NonNegativeInt, PositiveInt, Progress, digest

if TYPE_CHECKING:
    from extract.llm import LLM


class MultiHopQA(Task):
    """Multi-hop question answering over a context whose supporting facts are known.

    Args:
        source: Where the records come from: `extract.HotpotQA`, `extract.HubHotpotQA`, `extract.JsonLines`,
            `extract.SyntheticQA`, or a class of your own.
        style: `chain` asks for a chain of thought that ends "So the answer is …", as RAG uses it; `short` for the
            answer alone. `texts` and `budget` change what a style asks for.
        context: What the prompt shows: the `full` context, the `gold` sentences alone, or `none`.
        budget: Most tokens to generate; null: 100 in style `chain` (DRAGIN's), 24 in `short`.
        teacher_forcing: Score along the gold answer instead of the generated one.
        overlong: A prompt that does not fit with its answer is left out (`drop`), or loses passages without
            evidence, the last first (`cut`), and is left out only if that does not suffice.
        max_tokens: Most tokens of prompt and answer; by default the model's own context.
        limit: Use only the first records.
        texts: Texts of the prompt.
        force: Most tokens of a forced answer: a generation that ended without the marker is continued after it, for
            `em_forced` and `f1_forced` alone; 0: none.

    """

    def __init__(
        self,
        source: Source,
        style: Literal["chain", "short"] = "chain",
        context: Literal["full", "gold", "none"] = "full",
        budget: PositiveInt | None = None,
        teacher_forcing: bool = False,
        overlong: Literal["drop", "cut"] = "drop",
        max_tokens: PositiveInt | None = None,
        limit: PositiveInt | None = None,
        texts: QuestionTexts = QuestionTexts(),  # noqa: B008 (frozen)
        force: NonNegativeInt = 0,
    ) -> None:
        self.source, self.style, self.context = source, style, context
        self.budget = ANSWER_STYLES[style].budget if budget is None else budget
        self.teacher_forcing, self.overlong = teacher_forcing, overlong
        self.max_tokens, self.limit, self.force = max_tokens, limit, force
        self.texts, self.answer_format = texts.in_style(style), texts.answer_format(style)

    @functools.cached_property
    def _loaded(self) -> LoadedRecords:
        return self.source.load()

    @functools.cached_property
    def _records_hash(self) -> str:
        """Hash of the records, wherever they came from."""
        return digest([asdict(record) for record in self._loaded.records[: self.limit]])

    def prepare(self, llm: "LLM") -> None:
        """Load the records, build and measure every prompt, report what is left out."""
        self.texts.check()
        if self.budget < 1 or (self.limit is not None and self.limit < 1):
            raise UserError(f"task: budget {self.budget} and limit {self.limit} must be at least 1")
        self._llm, self._prompts = llm, PromptBuilder(llm, self.texts, self.context)
        chosen = self._loaded.records[: self.limit]
        self._records: dict[int, Record] = {}
        lengths: dict[int, int] = {}
        with Progress("measuring prompts", len(chosen)) as progress:
            for number, record in enumerate(chosen):
                fitted, length = self._fit(record)
                if fitted is not None:
                    self._records[number], lengths[number] = fitted, length
                progress.show(number + 1)
        self._order = sorted(lengths, key=lambda number: (lengths[number], number))
        if not self._order:
            raise UserError(f"task source: no usable question; {'; '.join(self._loaded.summary()) or 'it has none'}")
        _report(self._loaded.summary())

    def _fit(self, record: Record) -> tuple[Record | None, int]:
        """The record, cut if need be, and its prompt's length; None if prompt and answer cannot fit."""
        window = min(self._llm.context_length, self.max_tokens or self._llm.context_length)
        most = window - self._answer_tokens(record)
        if self.overlong == "cut" and self.context == "full":
            fitted, length = cut_to_length(record, self._prompt_tokens, most)
        else:
            fitted, length = record, self._prompt_tokens(record)
        if length > most:
            self._loaded.reject(f"longer than {window} tokens", record.id)
            return None, length
        if fitted is not record:
            self._loaded.repair("passages without evidence cut to fit", record.id)
        return fitted, length

    def _prompt_tokens(self, record: Record) -> int:
        return len(self._prompts.build(record).tokenized.ids)

    def _answer_tokens(self, record: Record) -> int:
        return len(self._gold_tokens(record)) if self.teacher_forcing else self.budget

    def _gold_tokens(self, record: Record) -> list[int]:
        """Tokens of the gold answer, as they continue the prompt."""
        said = self.answer_format.gold_text(record.answer)
        return tokenize_with_offsets(self._llm.tokenizer, said, special=False).ids

    def __len__(self) -> int:
        """Number of usable questions."""
        return len(self._order)

    def order(self) -> list[int]:
        """By length, so that a batch holds little padding."""
        return self._order

    def describe(self) -> dict[str, Any]:
        """Settings, the records by their hash, and every one that was left out or repaired."""
        names = ("style", "context", "budget", "teacher_forcing", "overlong", "max_tokens", "limit")
        return {
            "class": "MultiHopQA",
            "source": self.source.describe(),
            "records_sha256": self._records_hash,
            **{name: getattr(self, name) for name in names},
            **asdict(self.texts),
            **({"force": self.force} if self.force else {}),  # earlier versions have no such key, and force nothing
            "questions": len(self),
            "left_out": self._loaded.rejected,
            "repaired": self._loaded.repaired,
        }

    def sample(self, index: int) -> Sample:
        """The sample of a record's number."""
        record = self._records[index]
        prompt = self._prompts.build(record)
        context, evidence = prompt.context_tokens(), prompt.evidence_tokens()
        return Sample(
            index=index,
            id=content_id(record.question, record.answer),
            ids=prompt.tokenized.ids,
            evidence=evidence,
            budget=self._answer_tokens(record),
            question=record.question,
            gold=record.answer,
            forced=self._gold_tokens(record) if self.teacher_forcing else None,
            fields={
                "record": record.id,
                "kind": record.kind,
                "level": record.level,
                "passages": len(prompt.passages),
                "length": context[1] - context[0],
                "depth": evidence_depth(evidence, context),
            },
        )

    def record(self, index: int) -> Record:
        """The record of that number, without the passages that were cut to fit."""
        return self._records[index]

    def without_context(self) -> "MultiHopQA":
        """The same prepared questions, asked without their contexts."""
        bare = copy.copy(self)
        bare.context = "none"
        bare._prompts = PromptBuilder(self._llm, self.texts, "none")
        return bare

    def context_spans(self, index: int) -> ContextSpans:
        """Token spans of the context and its sentences in a record's prompt."""
        return self._prompts.build(self._records[index]).context_spans()

    def context_span(self, index: int) -> Span:
        """Token span of the passages; (0, 0) where the prompt shows none."""
        return self._prompts.build(self._records[index]).context_tokens()

    def gold_continuation(self, sample: Sample, answer: str, solved: bool) -> GoldContinuation:
        """In a chain of thought a supporting fact; where none is missed, the gold answer after the marker."""
        form, record = self.answer_format, self._records[sample.index]
        lead = form.lead(answer)
        chain = lead[: len(lead) - len(form.marker)]
        facts = [one.text[start:end] for one in record.passages for start, end in one.evidence]
        found = fact_followed(chain, facts) if solved else fact_astray(chain, facts, record.question)
        return found or GoldContinuation(lead, form.gold_after(sample.gold), lead[len(chain) :])

    def extracted(self, answer: str) -> str:
        """The answer after the marker, without it the last sentence."""
        return self.answer_format.last(answer)

    def grade(self, sample: Sample, answer: str) -> dict[str, float]:
        """Exact match and F1 as HotpotQA counts them, and the other metrics of `AnswerFormat.grade`.

        With teacher forcing the generation is not the model's: its metrics are NaN.
        """
        return _own(sample, self.answer_format.grade(answer, sample.gold))

    def forced_opening(self, answer: str) -> str:
        """The marker, where a generation lacks it."""
        return self.answer_format.forced_opening(answer)

    def grade_forced(self, sample: Sample, answer: str, continuation: str | None) -> dict[str, float]:
        """Exact match and F1 of the answer after the marker, the generation's own or the forced one."""
        return _own(sample, self.answer_format.grade_forced(answer, sample.gold, continuation))


def _own(sample: Sample, metrics: dict[str, float]) -> dict[str, float]:
    """Metrics of a sample's answer; NaN where the task gave it (teacher forcing)."""
    return metrics if sample.forced is None else dict.fromkeys(metrics, float("nan"))


def _report(lines: Iterable[str]) -> None:
    from lightning.pytorch.utilities import rank_zero_info  # here, so that tasks import without lightning

    for line in lines:
        rank_zero_info(f"{line}; the store's manifest names all")
