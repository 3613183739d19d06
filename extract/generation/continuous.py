"""Continuous batching: the place of a finished prompt in the decoded batch is taken by the next prompt."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from extract.attention import PreallocatedLayer, instrumented, preallocated_cache
from extract.generation.batching import pad, warn_of_windows
from extract.generation.greedy import Decoded, contributions_of, scored_step, without_end
from extract.generation.longrope import RotaryGroup, run_by_group
from extract.generation.prefill import DecodingWatch, layer_pairs, prefill_beside
from extract.llm import LLM
from extract.prompts import ForcedOpening
from extract.scores import ExcludedKeys
from extract.tasks import Sample
from extract.utils import DelayedReads, frozen_inference


@frozen_inference()
def decode_continuously(
    llm: LLM,
    samples: Sequence[Sample],
    slots: int,
    excluded: ExcludedKeys = ExcludedKeys(),  # noqa: B008 (frozen)
    opening: ForcedOpening | None = None,
    watch: DecodingWatch | None = None,
    contribution: bool = False,
) -> Decoded:
    """Greedy generation with the scores of all heads at each step, by continuous batching.

    The rows are those of `extract.generation.decode`, up to rounding, and depend on the prompts and `slots` alone. A
    prompt that ends makes place for the next one; without a next one the batch shrinks. So no row is run for a prompt
    that has ended, save on a GPU the steps that are queued before the host reads the end token.

    Args:
        llm: The frozen model.
        samples: Prompts; each is generated to an end token or to its own budget, or along its forced tokens.
        slots: Most prompts that are decoded together.
        excluded: Keys that Eq. 2 leaves out.
        opening: Continues generations that ended without an answer; they are no steps, and change none.
        watch: Receives the number of tokens and steps that were run.
        contribution: Also compute each head's logit contribution from the evidence.

    Raises:
        UserError: the model's attention cannot be recorded, or how its heads write to the logits is not known.

    """
    warn_of_windows(llm.model, samples)

    def run(group: RotaryGroup) -> Decoded:
        return _ContinuousBatch(llm, group.samples, slots, excluded, opening, watch, contribution).run()

    return run_by_group(llm.model, samples, run)


@dataclass(eq=False)
class _Row:
    """A prompt and its answer so far.

    Attributes:
        number: Of the prompt among all.
        sample: The prompt; of an answer that is continued, with that answer and its forced opening.
        continues: Whether it continues an answer, so that its steps are none of the answer's.
        answer: Tokens generated so far.
        first: Column of its first token, while it is in the batch.
        ended: Whether its last token is generated.

    """

    number: int
    sample: Sample
    continues: bool = False
    answer: list[int] = field(default_factory=list)
    first: int = 0
    ended: bool = False

    @property
    def tokens(self) -> list[int]:
        """Prompt and answer so far."""
        return [*self.sample.ids, *self.answer]

    @property
    def left(self) -> int:
        """Most tokens to come."""
        return self.sample.budget - len(self.answer)

    def rest(self) -> Sample:
        """What is left to generate, as a prompt."""
        forced = None if self.sample.forced is None else self.sample.forced[len(self.answer) :]
        return replace(self.sample, ids=self.tokens, budget=self.left, forced=forced)

    def add(self, token: int, ends: Sequence[int]) -> None:
        """Add the next token of the answer; one that ends it counts."""
        self.answer.append(token)
        self.ended = token in ends or not self.left


class _ContinuousBatch:
    """The decoded batch. Between two changes of its rows it is an ordinary one, whose prompts include the answers.

    All rows end at the same column, where the next token is written; `keys` counts the columns up to it. A prompt that
    comes in is prefilled on its own and its keys are written into its place, before that column, whatever was there:
    columns before a row's first token are padding.
    """

    def __init__(
        self,
        llm: LLM,
        samples: Sequence[Sample],
        slots: int,
        excluded: ExcludedKeys,
        opening: ForcedOpening | None,
        watch: DecodingWatch | None,
        contribution: bool,
    ) -> None:
        self.llm, self.excluded, self.opening, self.watch = llm, excluded, opening, watch
        self.fill = llm.tokenizer.pad_token_id or 0
        self.sources: Literal["evidence"] | None = "evidence" if contribution else None
        self.slots = min(slots, len(samples))
        self.waiting = deque(_Row(number, sample) for number, sample in enumerate(samples))
        self.rows: list[_Row] = []
        # A cache that is full is copied to another one, with room for as many steps again.
        self.room = max(sample.budget for sample in samples)
        self.keys = max(len(sample.ids) for sample in samples)
        self.capacity = self.keys + self.room
        self.cache = preallocated_cache(llm.model, self.capacity)
        self.parts: list[list[list[Tensor]]] = [[] for _ in samples]
        self.continuations: list[list[int] | None] = [None] * len(samples)

    def run(self) -> Decoded:
        """All prompts' rows, in their order."""
        while self.waiting or self.rows:
            self._fit_cache()
            self._fill()
            if self.rows:
                self._decode()
                self._force_openings()
        columns = zip(*([torch.cat(steps) for steps in zip(*parts, strict=True)] for parts in self.parts), strict=True)
        padded: list[Any] = [pad_sequence(list(column), batch_first=True) for column in columns]
        lengths = [sum(len(part[0]) for part in parts) for parts in self.parts]
        return Decoded(lengths, *[*padded[:5], self.continuations, *padded[5:]])

    def _longest(self) -> int:
        """Columns that the longest row takes or, of those that wait, will take."""
        lengths = [*(self.keys - row.first for row in self.rows), *(len(row.sample.ids) for row in self.waiting)]
        return max(lengths, default=0)

    def _fit_cache(self) -> None:
        """Move all rows to a new cache where this one is full, or too narrow for a prompt that waits."""
        longest = self._longest()
        if longest <= self.keys <= self.capacity:
            return
        former, shift = self.cache, self.keys - longest
        self.keys, self.capacity = longest, longest + self.room
        self.cache = preallocated_cache(self.llm.model, self.capacity)
        for (layer,) in layer_pairs(self.cache):
            source = former.layers.pop(0)  # freed layer by layer, so that memory does not double
            assert isinstance(source, PreallocatedLayer)
            layer.take_over(source, shift)
        for row in self.rows:
            row.first -= shift

    def _fill(self) -> None:
        """Let waiting prompts take the free places; without any the batch shrinks."""
        free = [*(place for place, row in enumerate(self.rows) if row.ended), *range(len(self.rows), self.slots)]
        for place in free[: len(self.waiting)]:
            self._admit(place, self.waiting.popleft())
        while any(row.ended for row in self.rows):
            # The last row moves into the gap, so that one row is copied, and not all that stay.
            last = self.rows.pop()
            gap = len(self.rows) if last.ended else next(n for n, row in enumerate(self.rows) if row.ended)
            self.rows[gap : gap + 1] = [] if last.ended else [last]
            for (layer,) in layer_pairs(self.cache):
                layer.close_gap(gap)
        self.slots = len(self.rows)

    def _admit(self, place: int, row: _Row) -> None:
        """Prefill a prompt but its last token, and write its keys into a place of the batch."""
        row.first = self.keys - len(row.sample.ids)
        if self.keys > 1:
            # A prompt of one token has no keys, but the first keys make the buffers: its own, in a column of padding.
            ids = row.sample.ids[:-1] or row.sample.ids
            held = [(other.tokens[:-1], other.first) for other in self.rows]
            single = prefill_beside(self.llm, ids, self.cache, held, None if row.continues else self.watch)
            start = self.keys - 1 - len(ids)
            for layer, source in layer_pairs(self.cache, single):
                layer.write_row(place, start, source, self.slots)
        self.rows[place : place + 1] = [row]

    def _decode(self) -> None:
        """Steps of all rows until one ends, or the cache is full."""
        batch = pad([row.rest() for row in self.rows], self.fill, self.llm.model.device, self.keys)
        contributions = contributions_of(self.llm, batch, self.sources)
        begun = [len(row.answer) for row in self.rows]
        steps, reads = list[tuple[Tensor, ...]](), DelayedReads(batch.tokens.device)
        with instrumented(self.llm.model):
            for _ in range(min(self.capacity - self.keys + 1, *(row.left for row in self.rows))):
                steps.append(scored_step(self.llm, batch, self.cache, self.keys, self.excluded, contributions))
                batch.tokens[:, self.keys] = steps[-1][0]
                self.keys += 1
                for tokens in reads.put(steps[-1][0]):
                    self._add(tokens.tolist())
                if any(row.ended for row in self.rows):
                    break
            for tokens in reads.rest():
                self._add(tokens.tolist())
            columns = [torch.stack(column, dim=1).cpu() for column in zip(*steps, strict=True)]
            if contributions is not None:
                columns.append(contributions.result().flatten(2, 3).cpu())
        for place, (row, first) in enumerate(zip(self.rows, begun, strict=True)):
            if not row.continues:
                self.parts[row.number].append([column[place, : len(row.answer) - first] for column in columns])

    def _add(self, tokens: Sequence[int]) -> None:
        """Add the tokens of a step to the rows that have not ended."""
        going = [(row, token) for row, token in zip(self.rows, tokens, strict=True) if not row.ended]
        for row, token in going:
            row.add(token, self.llm.end_tokens)
        answers = sum(not row.continues for row, _ in going)
        if self.watch is not None and answers:
            self.watch.decoded(answers)

    def _force_openings(self) -> None:
        """Keep the continuations that have ended; answers that have ended and need one are the next to take a place."""
        for row in self.rows:
            said = without_end(row.answer, self.llm.end_tokens)
            if row.ended and row.continues:
                self.continuations[row.number] = said
            elif row.ended and self.opening and row.sample.forced is None and (forced := self.opening.tokens(said)):
                ids = [*row.sample.ids, *said, *forced]
                continued = replace(row.sample, ids=ids, budget=self.opening.limit)
                self.waiting.appendleft(_Row(row.number, continued, continues=True))
