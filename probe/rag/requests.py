"""Requests of a run to the model, and the batches that the requests of many runs share."""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from extract.attention import attention_received
from extract.generation import ContextMaskedLLM, GenerationRequest, PromptView


@dataclass(frozen=True)
class FullContextQuery:
    """Request: hidden state and attention of the last token, with the full context visible.

    Attributes:
        question: Number of the question; keys are shared among the views of a question.
        view: Prompt and answer so far.

    """

    question: int
    view: PromptView


@dataclass(frozen=True)
class ReceivedAttention:
    """Request: the attention that each token of a draft receives from later ones (for RIND).

    Attributes:
        draft: Drafted tokens.
        include_self: Whether a token's attention on itself counts.

    """

    draft: tuple[int, ...]
    include_self: bool


Request = GenerationRequest | FullContextQuery | ReceivedAttention
"""A `GenerationRequest` asks for greedy tokens: a draft, or a rewritten sentence."""
Steps = Generator[Request, Any, None]
"""A run in progress: it yields requests and is sent their results."""
_Number = tuple[int, int]
"""Of a run: its question, and its place among that question's runs."""


def run_together(
    masked: ContextMaskedLLM,
    steps: Sequence[Sequence[Steps]],
    ended: Callable[[int], None] | None = None,
    slots: int | None = None,
) -> None:
    """Run all to their ends: requests of the same kind go to the model as one batch.

    Args:
        masked: The model.
        steps: The runs of each question.
        ended: Is called with the number of runs that have ended since its last call.
        slots: Most questions at a time: where all runs of one have ended, the next one's begin (continuous batching);
            None: all.

    """
    pending, waiting = dict[_Number, Request](), deque(range(len(steps)))
    left = sum(map(len, steps))
    while True:
        while waiting and (slots is None or len({question for question, _ in pending}) < slots):
            question = waiting.popleft()
            for place in range(len(steps[question])):
                _advance(steps, pending, (question, place), None)
        going = len(pending) + sum(len(steps[question]) for question in waiting)
        if ended is not None:
            ended(left - going)
        left = going
        if not pending:
            break
        for number, result in _results(masked, pending).items():
            _advance(steps, pending, number, result)


def _results(masked: ContextMaskedLLM, pending: dict[_Number, Request]) -> dict[_Number, Any]:
    """Results of one kind of the pending requests, by run.

    Generation waits for the other kinds, so that its batches are as large as can be.
    """
    queries = {number: one for number, one in pending.items() if isinstance(one, FullContextQuery)}
    if queries:
        distinct = dict.fromkeys(queries.values())
        found = {query: masked.read_full_context(query.question, query.view) for query in distinct}
        return {number: found[query] for number, query in queries.items()}
    drafts = {number: one for number, one in pending.items() if isinstance(one, ReceivedAttention)}
    if drafts:
        own = next(iter(drafts.values())).include_self
        alike = {number: one.draft for number, one in drafts.items() if one.include_self == own}
        return dict(zip(alike, attention_received(masked.llm.model, list(alike.values()), own), strict=True))
    jobs = {number: one for number, one in pending.items() if isinstance(one, GenerationRequest)}
    return dict(zip(jobs, masked.generate(list(jobs.values())), strict=True))


def _advance(steps: Sequence[Sequence[Steps]], pending: dict[_Number, Request], number: _Number, result: Any) -> None:
    """Send a run its result; keep its next request, or forget it where it has ended."""
    question, place = number
    try:
        pending[number] = steps[question][place].send(result)
    except StopIteration:
        pending.pop(number, None)
