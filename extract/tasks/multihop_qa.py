"""Question answering over a context with marked evidence (HotpotQA and its like)."""

import copy
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch.utilities import rank_zero_info
from tqdm import tqdm

from extract.errors import UserError
from extract.prompts import Prompt, Span, encode, render, sentences, tokens_between
from extract.tasks.answer_metrics import ANSWER_END, exact_match, f1, find_answer
from extract.tasks.base import Sample, Task
from extract.tasks.passages import GAP, gold, shown_text, spans
from extract.tasks.prompt_styles import CONTEXT, EXAMPLE, STYLES, SYSTEM, TEMPLATE
from extract.tasks.sources import Loaded, Passage, Record, Source

if TYPE_CHECKING:
    from extract.llm import LLM


@dataclass(frozen=True)
class Placed:
    """Token span of a context, and of each of its sentences with its text."""

    context: Span
    sentences: list[tuple[Span, str]]


class MultiHopQA(Task):
    """Ask questions whose context holds known supporting facts.

    Args:
        source: Where the records come from: `extract.HotpotQA`, `extract.HubHotpotQA`, `extract.JsonLines`,
            `extract.SyntheticQA`, or a class of your own.
        style: `chain` asks for a chain of thought that ends "So the answer is …", as RAG uses it; `short` for the
            answer alone. The four keys after `context` change a style's texts.
        context: What the prompt shows: the `full` context, the `gold` sentences alone, or `none`.
        instruction, marker, opening, budget: What the prompt asks for; what stands before the answer; the first words
            put into the model's mouth; most tokens to generate.
        answer_end: Regular expression of an answer's end.
        teacher_forcing: Score along the gold answer instead of the generated one.
        overlong: A prompt that does not fit with its answer is left out (`drop`), or loses passages without
            evidence, the last first (`cut`), and is left out only if that does not suffice.
        max_tokens: Most tokens of prompt and answer; by default the model's own context.
        limit: Use only the first records.
        system, template, context_template: Texts; without a context the latter is left out.
        examples: Earlier turns, each with `context`, `question` and `answer`; by default one of fiction, for small
            models answer in the wanted form only after they have seen it. An empty list shows none.

    """

    def __init__(
        self,
        source: Source,
        style: Literal["chain", "short"] = "chain",
        context: Literal["full", "gold", "none"] = "full",
        instruction: str | None = None,
        marker: str | None = None,
        opening: str = "",
        budget: int | None = None,
        answer_end: str = ANSWER_END,
        teacher_forcing: bool = False,
        overlong: Literal["drop", "cut"] = "drop",
        max_tokens: int | None = None,
        limit: int | None = None,
        system: str = SYSTEM,
        template: str = TEMPLATE,
        context_template: str = CONTEXT,
        examples: list[dict[str, str]] | None = None,
    ) -> None:
        self.source, self.style, self.context = source, style, context
        preset = STYLES[style]
        self.instruction = preset.instruction if instruction is None else instruction
        self.marker = preset.marker if marker is None else marker
        self.opening, self.budget = opening, preset.budget if budget is None else budget
        self.answer_end, self.teacher_forcing = answer_end, teacher_forcing
        self.overlong, self.max_tokens, self.limit = overlong, max_tokens, limit
        self.system, self.template, self.context_template = system, template, context_template
        self.examples = [{**EXAMPLE, "answer": EXAMPLE[style]}] if examples is None else examples

    @functools.cached_property
    def _loaded(self) -> Loaded:
        return self.source.load()

    def prepare(self, llm: "LLM") -> None:
        """Load the records, measure every prompt, report what is left out."""
        self._check()
        self._llm, self._tokenizer = llm, llm.tokenizer
        loaded = self._loaded
        self._records: dict[int, Record] = {}
        lengths: dict[int, int] = {}
        chosen = loaded.records[: self.limit]
        for number, record in enumerate(tqdm(chosen, desc="Measuring prompts", disable=len(chosen) < 500)):
            fitted, length = self._fit(record)
            if fitted:
                self._records[number], lengths[number] = fitted, length
        self._order = sorted(lengths, key=lambda number: (lengths[number], number))
        self._report(len(chosen))

    def _check(self) -> None:
        holes = (
            ("template", self.template, "{context}"),
            ("template", self.template, "{question}"),
            ("context_template", self.context_template, "{context}"),
        )
        for where, text, hole in holes:
            if text.count(hole) != 1:
                raise UserError(f"task {where}: it must hold {hole} once")
        if self.budget < 1 or (self.limit is not None and self.limit < 1):
            raise UserError(f"task: budget {self.budget} and limit {self.limit} must be at least 1")
        for example in self.examples:
            if missing := {"context", "question", "answer"} - set(example):
                raise UserError(f"task examples: one lacks {', '.join(sorted(missing))}")
        try:
            re.compile(self.answer_end)
        except re.error as error:
            raise UserError(f"task answer_end: '{self.answer_end}' is no regular expression ({error})") from error

    def _fit(self, record: Record) -> tuple[Record | None, int]:
        """The record, cut if need be, and its prompt's length; None if it cannot fit."""
        window = min(self._llm.context_length, self.max_tokens or self._llm.context_length)
        fitted = record
        while True:
            length = len(self._render(fitted)[0].ids)
            if length + self._budget(record) <= window:
                if fitted is not record:
                    self._loaded.repair("passages without evidence cut to fit", record.id)
                return fitted, length
            spare = [n for n, passage in enumerate(fitted.passages) if not passage.evidence]
            if self.overlong == "drop" or not spare or self.context != "full":
                self._loaded.refuse(f"longer than {window} tokens", record.id)
                return None, length
            fitted = replace(fitted, passages=(*fitted.passages[: spare[-1]], *fitted.passages[spare[-1] + 1 :]))

    def _budget(self, record: Record) -> int:
        return len(self._forced(record)) if self.teacher_forcing else self.budget

    def _report(self, chosen: int) -> None:
        loaded = self._loaded
        for what, groups in (("left out", loaded.refused), ("repaired", loaded.repaired)):
            for reason, names in groups.items():
                some = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
                rank_zero_info(f"questions {what}: {len(names)}, {reason} ({some}); the store's manifest names all")
        if not self._order:
            raise UserError(f"task source: none of {chosen} questions is usable; see the reasons above")

    def __len__(self) -> int:
        """Number of usable questions."""
        return len(self._order)

    def order(self) -> list[int]:
        """By length, so that a batch holds little padding."""
        return self._order

    def describe(self) -> dict[str, Any]:
        """Settings, the source, and every record that was left out or repaired."""
        names = (
            *("style", "context", "instruction", "marker", "opening", "budget", "answer_end", "teacher_forcing"),
            *("overlong", "max_tokens", "limit", "system", "template", "context_template", "examples"),
        )
        return {
            "class": "MultiHopQA",
            "source": self.source.describe(),
            **{name: getattr(self, name) for name in names},
            "questions": len(self),
            "left_out": self._loaded.refused,
            "repaired": self._loaded.repaired,
        }

    def sample(self, index: int) -> Sample:
        """The sample of a record's number."""
        record = self._records[index]
        prompt, start, length = self._render(record)
        evidence = [tokens_between(prompt, start + a, start + b) for a, b in spans(self._shown(record))]
        context = tokens_between(prompt, start, start + length) if length else (0, 0)
        return Sample(
            index=index,
            id=record.id,
            ids=prompt.ids,
            evidence=evidence,
            budget=self._budget(record),
            question=record.question,
            gold=record.answer,
            forced=self._forced(record) if self.teacher_forcing else None,
            fields={
                "kind": record.kind,
                "level": record.level,
                "passages": len(self._shown(record)),
                "length": context[1] - context[0],
                "depth": depth(evidence, context),
            },
        )

    def without_context(self) -> "MultiHopQA":
        """The same prepared questions, asked without their contexts."""
        bare = copy.copy(self)
        bare.__dict__.pop("_turns", None)
        bare.context = "none"
        return bare

    def placed(self, index: int) -> "Placed":
        """Where the context of a record's prompt and its sentences stand."""
        prompt, start, length = self._render(self._records[index])
        shown = prompt.text[start : start + length]
        parts = [(a + len(shown[a:b]) - len(shown[a:b].lstrip()), b) for a, b in sentences(shown)]
        found = [(tokens_between(prompt, start + a, start + b), shown[a:b]) for a, b in parts]
        return Placed(tokens_between(prompt, start, start + length), found)

    def _shown(self, record: Record) -> Sequence[Passage]:
        """The passages that the prompt shows."""
        if self.context == "none":
            return ()
        return record.passages if self.context == "full" else [gold(p) for p in record.passages if p.evidence]

    def _render(self, record: Record) -> tuple[Prompt, int, int]:
        """The prompt, the character at which its context begins, and the context's length."""
        shown = GAP.join(shown_text(passage) for passage in self._shown(record))
        user, start = self._user(record.question, shown)
        prompt = render(self._tokenizer, self.system, user, self._llm.chat, self.opening, self._turns)
        if user not in prompt.text:
            raise UserError(f"question {record.id}: the chat template changes the text, so evidence cannot be placed")
        return prompt, prompt.text.rindex(user) + start, len(shown)

    @functools.cached_property
    def _turns(self) -> list[tuple[str, str]]:
        """The examples as turns, in the form of the question to come."""
        shown = self.context != "none"
        return [
            (self._user(example["question"], example["context"] if shown else "")[0], example["answer"])
            for example in self.examples
        ]

    def _user(self, question: str, shown: str) -> tuple[str, int]:
        """The user's turn, and the character at which its context begins."""
        template = self.template.replace("{context}", self.context_template if shown else "")
        before, _, after = template.partition("{context}") if shown else (template, "", "")
        head = self._fill(before, question)
        user = f"{head}{shown}{self._fill(after, question)}"
        lead = len(user) - len(user.lstrip())
        return user.strip(), len(head) - lead  # chat templates strip turns

    def _fill(self, text: str, question: str) -> str:
        """Question and instruction in one pass: braces in a question stay what they are."""
        values = {"question": question, "instruction": self.instruction}
        return re.sub(r"\{(question|instruction)\}", lambda hole: values[hole.group(1)], text)

    def _forced(self, record: Record) -> list[int]:
        """Tokens of the gold answer, as they follow the prompt."""
        said = STYLES[self.style].gold.replace("{answer}", record.answer)
        if self.opening:
            said = f" {record.answer}"
        return encode(self._tokenizer, said, special=False).ids

    def grade(self, sample: Sample, answer: str) -> dict[str, float]:
        """Exact match and F1 as HotpotQA counts them, and whether an answer was found at all.

        A generation without the marker is wrong. A forced one was not the model's: its figures are NaN.
        """
        if sample.forced is not None:
            return {"em": float("nan"), "f1": float("nan"), "answered": float("nan")}
        found = find_answer(f"{self.opening} {answer}".strip(), self.marker, self.answer_end)
        if found is None:
            return {"em": 0.0, "f1": 0.0, "answered": 0.0}
        return {"em": exact_match(found, sample.gold), "f1": f1(found, sample.gold), "answered": 1.0}


def depth(evidence: list[Span], context: Span) -> float:
    """Mean position of the evidence tokens, in percent of the context; NaN without evidence."""
    positions = [position for start, end in evidence for position in range(start, end)]
    if not positions:
        return float("nan")
    return 100 * (sum(positions) / len(positions) - context[0]) / (context[1] - context[0])
