"""Algorithm 1: draft under a mask; where the draft is uncertain, retract it, retrieve, and rewrite the sentence."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from extract.generation import (
    GenerationOutput,
    GenerationRequest,
    LastQueryState,
    PromptView,
    full_view,
    masked_view,
)
from extract.prompts import ForcedOpening, Span, decode_text, decode_with_offsets, first_characters
from extract.tasks import AnswerFormat, MultiHopQA
from probe.rag.question import Question
from probe.rag.requests import FullContextQuery, ReceivedAttention, Request, Steps
from probe.rag.settings import Decoding
from probe.rag.stopping import StoppingCriterion, complete_answer_end
from probe.rag.strategies import RetrievalState, Retrieved, Strategy
from probe.rag.triggers import Draft, TriggerDecision

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class RunSettings:
    """Settings of a run.

    Attributes:
        decoding: How drafts are decoded.
        answer_format: How the answer is recognised.
        max_tokens: Most tokens of an answer.
        reuses_keys: Whether keys of earlier forwards are reused, so that common prefixes do not count as run again.
        opening: Continues an answer that ended without the marker; None: it does not.

    """

    decoding: Decoding
    answer_format: AnswerFormat
    max_tokens: int
    reuses_keys: bool = True
    opening: ForcedOpening | None = None

    @classmethod
    def of(
        cls,
        task: MultiHopQA,
        decoding: Decoding,
        reuses_keys: bool = True,
        tokenizer: "PreTrainedTokenizerBase | None" = None,
    ) -> "RunSettings":
        """With a task's length and end of answers; with its forced opening, if there is a tokenizer for it."""
        opening = None if tokenizer is None else task.opening(tokenizer)
        return cls(decoding, task.answer_format, task.budget, reuses_keys, opening)


@dataclass(frozen=True)
class Continuation:
    """The part of a generation that counts.

    Attributes:
        tokens: Its tokens, up to where the answer or the sentence ends.
        entropies: Entropy of the next-token distribution that each was taken from, in nats.
        ended: Whether an end token followed.
        answered: Whether the answer is complete with it.

    """

    tokens: list[int]
    entropies: tuple[float, ...]
    ended: bool
    answered: bool


@dataclass
class Round:
    """One iteration of Algorithm 1.

    Attributes:
        draft: Text of the draft.
        decision: Outcome of the trigger on it.
        kept: The answer after the draft was retracted, or accepted where nothing fired.
        retrieved: What became visible; None where nothing fired.
        rewrite: The rewritten sentence; None where nothing fired.

    """

    draft: str
    decision: TriggerDecision
    kept: str
    retrieved: Retrieved | None = None
    rewrite: str | None = None


class Run:
    """One question under one strategy.

    Args:
        question: The question.
        strategy: A prepared strategy.
        settings: How it runs.
        tokenizer: The model's.

    Attributes:
        rounds: Every iteration so far.
        answer: Tokens of the answer so far.
        stop: Why it ended: `answered`, `ended` (an end token), `length`; empty while it runs.
        continuation: Tokens after the forced opening; None where none was forced.
        masked_tokens, full_context_tokens, attention_tokens, forced_tokens: Tokens run forward, counted as if this run
            were alone: under the mask, for full-context queries, for RIND's attention, and for the forced opening and
            what follows it, which no other count includes.

    """

    def __init__(
        self, question: Question, strategy: Strategy, settings: RunSettings, tokenizer: "PreTrainedTokenizerBase"
    ) -> None:
        assert strategy.trigger is not None
        self.question, self.strategy, self.settings, self.tokenizer = question, strategy, settings, tokenizer
        self.trigger = strategy.trigger
        self.rounds: list[Round] = []
        self.answer: list[int] = []
        self.stop = ""
        self.continuation: list[int] | None = None
        self.masked_tokens = self.full_context_tokens = self.attention_tokens = self.forced_tokens = 0
        self._stuck: set[int] = set()
        self._views: list[PromptView] = []
        self._fired: dict[int, int] = {}

    def steps(self) -> Steps:
        """Algorithm 1. Yields what the model must do, and is sent the results."""
        visible = self.strategy.initial_windows(self.question)
        while not self.stop:
            shown = visible
            draft = yield from self._generate(visible, one_sentence=False)
            decision = yield from self._decide(draft)
            if decision.hit is None:
                last, visible = draft, self.strategy.initial_windows(self.question)  # accept it, hide the context
                self.answer = [*self.answer, *draft.tokens]
                self.rounds.append(Round(self._text(draft.tokens), decision, self.text))
            else:  # the windows stay in force for the next draft
                last, visible = yield from self._rewrite(draft, decision)
                shown = visible
            self.stop = self._stop_reason(last)
        yield from self._force(shown)

    def _force(self, visible: list[Span]) -> Generator[Request, GenerationOutput, None]:
        """Continue an answer without the marker after it, with the windows under which its last tokens were generated.

        Nothing is retrieved any more, and the answer itself stays as it is.
        """
        opening = self.settings.opening
        if opening is None or not (forced := opening.tokens(self.answer)):
            return
        said = (*self.answer, *forced)
        before = self._prompt(visible).extended(said)
        stop = StoppingCriterion(self.settings.answer_format, self.tokenizer, said, one_sentence=False)
        done = yield GenerationRequest(self.question.sample.index, before, opening.limit, stop)
        self.continuation = list(done.tokens)
        self.forced_tokens = self._new_tokens(before.extended(done.tokens if done.ended else done.tokens[:-1]))

    def _prompt(self, visible: list[Span]) -> PromptView:
        """The prompt under the mask, or without its context."""
        if self.strategy.without_context:
            return full_view(self.question.prompt_without_context)
        mask = self.settings.decoding.mask
        return masked_view(self.question.sample.ids, self.question.context, visible, mask)

    def _rewrite(
        self, draft: Continuation, decision: TriggerDecision
    ) -> Generator[Request, Any, tuple[Continuation, list[Span]]]:
        """Retract the draft from the sentence that fired, retrieve, and generate that sentence again."""
        drafted = [*self.answer, *draft.tokens]
        self.answer = self._cut(drafted, decision.sentence_start)  # may reach back into the answer
        kept = self.text
        found = yield from self._retrieve(self._text(drafted))
        sentence = yield from self._generate(found.windows, one_sentence=True)
        self.answer = [*self.answer, *sentence.tokens]
        self.rounds.append(Round(self._text(draft.tokens), decision, kept, found, self.text[len(kept) :]))
        return sentence, found.windows

    def _stop_reason(self, last: Continuation) -> str:
        if last.answered:
            return "answered"
        if last.ended or not last.tokens:
            return "ended"
        return "length" if len(self.answer) >= self.settings.max_tokens else ""

    def _generate(self, visible: list[Span], one_sentence: bool) -> Generator[Request, GenerationOutput, Continuation]:
        """Greedy tokens after the answer so far, under a mask: a draft, or one sentence."""
        settings = self.settings
        before = self._prompt(visible).extended(self.answer)
        limit = max(1, min(settings.decoding.draft_length, settings.max_tokens - len(self.answer)))
        stop = StoppingCriterion(settings.answer_format, self.tokenizer, tuple(self.answer), one_sentence)
        done = yield GenerationRequest(self.question.sample.index, before, limit, stop)
        # The last token was generated but not run, unless an end token was generated after it.
        self.masked_tokens += self._new_tokens(before.extended(done.tokens if done.ended else done.tokens[:-1]))
        end, answer = stop.end(done.tokens), [*self.answer, *done.tokens]
        if end is None:
            return Continuation(list(done.tokens), done.entropies, done.ended, answered=False)
        tokens = self._cut(answer, end)[len(self.answer) :]
        answered = complete_answer_end(self._text(answer), settings.answer_format) == end
        return Continuation(tokens, done.entropies[: len(tokens)], done.ended, answered)

    def _new_tokens(self, run: PromptView) -> int:
        """Tokens of a view beyond its longest common prefix with an earlier one; the view is remembered."""
        new = len(run) - max((former.common_prefix(run) for former in self._views), default=0)
        if self.settings.reuses_keys:
            self._views.append(run)
        return new

    def _decide(self, draft: Continuation) -> Generator[Request, Any, TriggerDecision]:
        """Outcome of the trigger on the draft; a sentence whose retries are used up cannot fire."""
        received: list[float] = []
        if self.trigger.include_self is not None and draft.tokens:
            received = (yield ReceivedAttention(tuple(draft.tokens), self.trigger.include_self)).tolist()
            self.attention_tokens += len(draft.tokens)
        text = decode_with_offsets(self.tokenizer, [*self.answer, *draft.tokens])
        drafted = Draft(text, len(self.answer), draft.entropies, received)
        retries = self.settings.decoding.retries
        exhausted = frozenset(start for start, count in self._fired.items() if count >= retries)
        decision = self.trigger.decide(drafted, exhausted)
        if exhausted and (free := self.trigger.decide(drafted, frozenset())).hit is not None:
            self._stuck |= exhausted & {free.sentence_start}
        if decision.hit is not None:
            self._fired[decision.sentence_start] = self._fired.get(decision.sentence_start, 0) + 1
        return decision

    def _cut(self, tokens: list[int], end: int) -> list[int]:
        """The tokens whose first character is before character `end` of their text."""
        places = first_characters(decode_with_offsets(self.tokenizer, tokens))
        return [token for token, place in zip(tokens, places, strict=True) if place < end]

    def _retrieve(self, text: str) -> Generator[Request, LastQueryState, Retrieved]:
        """Let the strategy select what becomes visible, from a query of the full context if it needs one."""
        last_query = (yield from self._query_full_context()) if self.strategy.reads_full_context else None
        number = sum(round_.retrieved is not None for round_ in self.rounds)
        return self.strategy.retrieve(RetrievalState(self.question, last_query, text, number))

    def _query_full_context(self) -> Generator[Request, LastQueryState, LastQueryState]:
        """Hidden state and attention of the last token so far, with the full context visible."""
        full = full_view(self.question.sample.ids).extended(self.answer)
        last_query = yield FullContextQuery(self.question.sample.index, full)
        self.full_context_tokens += self._new_tokens(full)
        return last_query

    def _text(self, tokens: Sequence[int]) -> str:
        return decode_text(self.tokenizer, tokens)

    @property
    def stuck(self) -> int:
        """Sentences that fired again after their last retry."""
        return len(self._stuck)

    @property
    def forward_tokens(self) -> int:
        """Tokens run forward in all, but for those of the forced opening."""
        return self.masked_tokens + self.full_context_tokens + self.attention_tokens

    @property
    def text(self) -> str:
        """The answer so far."""
        return self._text(self.answer)

    @property
    def forced_text(self) -> str | None:
        """Text after the forced opening; None where none was forced."""
        return None if self.continuation is None else self._text(self.continuation)
