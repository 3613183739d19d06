"""Algorithm 1: draft under a mask, and where the draft is uncertain go back, retrieve, and write the sentence again."""

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from extract.attention import attention_received
from extract.generation import (
    ContextMaskedLLM,
    GenerationOutput,
    GenerationRequest,
    LastQueryState,
    MaskMode,
    PromptView,
    full_view,
    masked_view,
)
from extract.prompts import Span, complete_sentence_end, decode_text, decode_with_offsets, first_characters
from extract.tasks import MultiHopQA
from probe.rag.question import Question
from probe.rag.strategies import RetrievalState, Retrieved, Strategy
from probe.rag.triggers import Draft, TriggerDecision

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Look:
    """Asks for the last query with everything visible."""

    question: int
    view: PromptView


@dataclass(frozen=True)
class Paid:
    """Asks for the attention that the tokens of a draft are paid."""

    draft: tuple[int, ...]
    own: bool


Request = GenerationRequest | Look | Paid
Steps = Generator[Request, Any, None]


@dataclass(frozen=True)
class Settings:
    """How a run goes.

    Attributes:
        mask: How hidden tokens are hidden.
        keeps: Whether the keys of what was run are kept (see `ContextMaskedLLM.store`): what is counted as run.
        draft_length: Most tokens of a draft, and of a sentence written again.
        length: Most tokens of an answer.
        retries: Retrievals that one sentence may call for; after these it stands as it is.
        opening, marker, answer_end: How an answer is found (see `MultiHopQA`).

    """

    mask: MaskMode
    keeps: bool
    draft_length: int
    length: int
    retries: int
    opening: str
    marker: str
    answer_end: str

    @classmethod
    def of(cls, task: MultiHopQA, mask: MaskMode, draft_length: int, retries: int, keeps: bool = True) -> "Settings":
        """With a task's length of answers, and its way to find them."""
        form = task.answer_format
        return cls(mask, keeps, draft_length, task.budget, retries, form.opening, form.marker, form.end)

    def answered(self, text: str) -> int | None:
        """The character of the text at which the answer is over; None where more may belong to it."""
        said = f"{self.opening} {text}"
        marker = re.search(re.escape(self.marker), said, flags=re.IGNORECASE)
        if marker is None:
            return None
        answer = said[marker.end() :].lstrip(" :\n\t")
        end = re.search(self.answer_end, f"{answer}0")  # an end must hold whatever follows: `150.` may become `150.0`
        return len(text) - len(answer) + end.end() if end and end.end() <= len(answer) else None


@dataclass(frozen=True)
class Stop:
    """Ends a generation behind the answer, or behind its first sentence.

    A full stop is known to be an end by what stands behind it, so that a token more is generated than counts.
    """

    settings: Settings
    tokenizer: "PreTrainedTokenizerBase" = field(compare=False)
    said: tuple[int, ...]
    sentence: bool

    def __call__(self, tokens: Sequence[int]) -> bool:
        """Whether the generated tokens are enough."""
        return self.end(tokens) is not None

    def end(self, tokens: Sequence[int]) -> int | None:
        """The character of the answer behind which nothing counts."""
        text = decode_text(self.tokenizer, [*self.said, *tokens])
        ends = [self.settings.answered(text)]
        if self.sentence:
            ends.append(complete_sentence_end(text, len(decode_text(self.tokenizer, self.said).rstrip())))
        return min((end for end in ends if end is not None), default=None)


@dataclass(frozen=True)
class Written:
    """What counts of a generation.

    Attributes:
        tokens: Its tokens up to where it is to end.
        entropies: Entropy of the distribution that each was taken from, in nats.
        ended: Whether an end token followed.
        answered: Whether the answer is over with it.

    """

    tokens: list[int]
    entropies: tuple[float, ...]
    ended: bool
    answered: bool


@dataclass
class Round:
    """One turn of the loop.

    Attributes:
        draft: What was drafted.
        decision: What the trigger made of it.
        kept: The answer behind the cut, or with the draft where nothing fired.
        retrieved: What became visible.
        rewrite: The sentence written again.

    """

    draft: str
    decision: TriggerDecision
    kept: str
    retrieved: Retrieved | None = None
    rewrite: str | None = None


class Run:
    """One question under one strategy.

    `steps` asks for what the model must do and is sent what it gave, so that many runs share its batches.

    Attributes:
        rounds: What happened.
        answer: Tokens of the answer so far.
        stop: Why it ended: `answered`, `ended` (an end token), `length`.
        masked, looked, weighed: Tokens run forward as if this run were alone: under the mask, for retrievals with
            everything visible, for RIND's attention.

    """

    def __init__(
        self, question: Question, strategy: Strategy, settings: Settings, tokenizer: "PreTrainedTokenizerBase"
    ) -> None:
        assert strategy.trigger is not None
        self.question, self.strategy, self.settings, self.tokenizer = question, strategy, settings, tokenizer
        self.trigger = strategy.trigger
        self.rounds: list[Round] = []
        self.answer: list[int] = []
        self.stop = ""
        self.masked = self.looked = self.weighed = 0
        self._stuck: set[int] = set()
        self._ran: list[PromptView] = []
        self._calls: dict[int, int] = {}

    def steps(self) -> Steps:
        """The loop of Algorithm 1."""
        visible, length = self.strategy.first(self.question), self.settings.length
        while not self.stop:
            written = draft = yield from self._generate(visible, sentence=False)
            decision = yield from self._decide(draft)
            if decision.hit is not None:
                text = self._text([*self.answer, *draft.tokens])
                self.answer = self._cut([*self.answer, *draft.tokens], decision.sentence)
                kept = self._text(self.answer)
                found = yield from self._retrieve(text)
                visible = found.windows
                written = yield from self._generate(visible, sentence=True)
                self.answer = [*self.answer, *written.tokens]
                said = self._text(self.answer)[len(kept) :]
                self.rounds.append(Round(self._text(draft.tokens), decision, kept, found, said))
            else:
                self.answer = [*self.answer, *draft.tokens]
                visible = self.strategy.first(self.question)
                self.rounds.append(Round(self._text(draft.tokens), decision, self._text(self.answer)))
            if written.answered:
                self.stop = "answered"
            elif written.ended or not written.tokens:
                self.stop = "ended"
            elif len(self.answer) >= length:
                self.stop = "length"

    def _generate(self, visible: list[Span], sentence: bool) -> Generator[Request, GenerationOutput, Written]:
        """Greedy tokens behind the answer under a mask: a draft, or one sentence."""
        settings = self.settings
        if self.strategy.bare:
            prompt = full_view(self.question.bare)
        else:
            prompt = masked_view(self.question.sample.ids, self.question.context, visible, settings.mask)
        said = prompt.extended(self.answer)
        limit = max(1, min(settings.draft_length, settings.length - len(self.answer)))
        stop = Stop(settings, self.tokenizer, tuple(self.answer), sentence)
        done = yield GenerationRequest(self.question.sample.index, said, limit, stop)
        run = said.extended(done.tokens if done.ended else done.tokens[:-1])
        self.masked += self._fresh(run)
        end, answer = stop.end(done.tokens), [*self.answer, *done.tokens]
        if end is None:
            return Written(list(done.tokens), done.entropies, done.ended, answered=False)
        tokens = self._cut(answer, end)[len(self.answer) :]
        return Written(tokens, done.entropies[: len(tokens)], done.ended, settings.answered(self._text(answer)) == end)

    def _fresh(self, run: PromptView) -> int:
        """Tokens of a view that this run has not run before, and remember it."""
        fresh = len(run) - max((former.common_prefix(run) for former in self._ran), default=0)
        if self.settings.keeps:
            self._ran.append(run)
        return fresh

    def _decide(self, draft: Written) -> Generator[Request, Any, TriggerDecision]:
        """What the trigger makes of the draft; a sentence that has used up its retries is passed over."""
        paid: list[float] = []
        if self.trigger.own is not None and draft.tokens:
            paid = (yield Paid(tuple(draft.tokens), self.trigger.own)).tolist()
            self.weighed += len(draft.tokens)
        said = decode_with_offsets(self.tokenizer, [*self.answer, *draft.tokens])
        spent = frozenset(start for start, calls in self._calls.items() if calls >= self.settings.retries)
        drafted = Draft(said, len(self.answer), draft.entropies, paid)
        decision = self.trigger.decide(drafted, spent)
        if spent and (first := self.trigger.decide(drafted, frozenset())).hit is not None and first.sentence in spent:
            self._stuck.add(first.sentence)
        if decision.hit is not None:
            self._calls[decision.sentence] = self._calls.get(decision.sentence, 0) + 1
        return decision

    def _cut(self, tokens: list[int], end: int) -> list[int]:
        """The tokens whose first character stands before that of the text."""
        places = first_characters(decode_with_offsets(self.tokenizer, tokens))
        return [token for token, place in zip(tokens, places, strict=True) if place < end]

    def _retrieve(self, text: str) -> Generator[Request, LastQueryState, Retrieved]:
        """Look with everything visible, and let the strategy choose."""
        seen_view = full_view(self.question.sample.ids).extended(self.answer)
        seen = yield Look(self.question.sample.index, seen_view)
        self.looked += self._fresh(seen_view)
        number = sum(round_.retrieved is not None for round_ in self.rounds)
        return self.strategy.retrieve(RetrievalState(self.question, seen, text, number))

    def _text(self, tokens: Sequence[int]) -> str:
        return decode_text(self.tokenizer, tokens)

    @property
    def stuck(self) -> int:
        """Sentences that called again after their last retry."""
        return len(self._stuck)

    @property
    def text(self) -> str:
        """The answer so far."""
        return self._text(self.answer)


def run_together(masked: ContextMaskedLLM, runs: Sequence[Run]) -> None:
    """Run all to their ends: what several of them ask for goes to the model as one batch."""
    steps = [run.steps() for run in runs]
    asked: dict[int, Request] = {}
    for number in range(len(runs)):
        _send(steps, asked, number, None)
    while asked:
        looks = {number: request for number, request in asked.items() if isinstance(request, Look)}
        paid = {number: request for number, request in asked.items() if isinstance(request, Paid)}
        jobs = {number: request for number, request in asked.items() if isinstance(request, GenerationRequest)}
        given: dict[int, Any] = {}
        if looks:
            seen = {look: masked.read_full_context(look.question, look.view) for look in dict.fromkeys(looks.values())}
            given = {number: seen[look] for number, look in looks.items()}
        elif paid:
            own = next(iter(paid.values())).own
            chosen = {number: request.draft for number, request in paid.items() if request.own == own}
            given = dict(zip(chosen, attention_received(masked.llm.model, list(chosen.values()), own), strict=True))
        else:
            given = dict(zip(jobs, masked.generate(list(jobs.values())), strict=True))
        for number, answer in given.items():
            _send(steps, asked, number, answer)


def _send(steps: list[Steps], asked: dict[int, Request], number: int, answer: Any) -> None:
    """Give a run what it asked for; note what it asks for next."""
    try:
        asked[number] = steps[number].send(answer)
    except StopIteration:
        asked.pop(number, None)
