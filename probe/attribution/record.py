"""Attribution records: what the decode steps of an answer leave of every head's attention and contribution."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from extract.attention import RecordingPlan, instrumented
from extract.contribution import LogitContributions, Sources, prompt_sources
from extract.errors import UserError
from extract.generation import Batch, decode_step, pad, prefill_prompts, rotary_factors, rotary_groups
from extract.llm import LLM, narrowest_window
from extract.prompts import decode_with_offsets, tokenize_with_offsets
from extract.tasks import Sample
from extract.utils import DelayedReads, frozen_inference
from probe.attribution.prompts import SourcedPrompt

if TYPE_CHECKING:
    from transformers import DynamicCache

BUDGET = 100
"""Default number of tokens of a generated answer: that of a chain of thought."""


@dataclass(frozen=True, eq=False)
class AttributionRecord:
    """What the decode steps of one answer leave, on the host; attribution needs no further forward.

    The last two of the sources are the answer so far and the rest of the prompt.

    Attributes:
        tokens: Tokens of the answer, without an end token.
        texts: Text that each of them adds, special tokens left out; together the answer's text.
        log_probs: Log-probability of each.
        attention: Attention of each head on each source, summed over its tokens.
        contribution: Logit contribution of each source through each head.
        copies: Whether the most attended token of the whole sequence is the token that is generated: Eq. 1 with the
            context in place of the needle.
        hidden: Final hidden state of the query that chose the token.
        entropies: Entropy of the next-token distribution at each, in nats.

    """

    tokens: Int[Tensor, "token"]
    texts: tuple[str, ...]
    log_probs: Float[Tensor, "token"]
    attention: Float[Tensor, "token layer head source"]
    contribution: Float[Tensor, "token layer head source"]
    copies: Bool[Tensor, "token layer head"]
    hidden: Float[Tensor, "token hidden"]
    entropies: Float[Tensor, "token"]

    @property
    def text(self) -> str:
        """The answer."""
        return "".join(self.texts)

    @property
    def sources(self) -> int:
        """Number of sources, without the answer so far and the rest of the prompt."""
        return self.attention.shape[-1] - 2


def record_answers(
    llm: LLM, prompts: Sequence[SourcedPrompt], answers: Sequence[str] | None = None, budget: int = BUDGET
) -> list[AttributionRecord]:
    """Record the answers to some prompts, which are decoded together.

    Args:
        llm: The frozen model.
        prompts: Questions with their documents.
        answers: Given answers, along which the model is run (teacher forcing); None: it generates greedily.
        budget: Most tokens of a generated answer.

    Raises:
        UserError: an answer is empty or has no tokens, prompt and answer exceed the model's context, a source exceeds a
            sliding window, or how the model's heads write to the logits is not known.

    """
    given = [None] * len(prompts) if answers is None else [answer_tokens(llm, answer) for answer in answers]
    samples = [
        Sample(number, "", prompt.ids, [], budget if forced is None else len(forced), prompt.question, "", forced)
        for number, (prompt, forced) in enumerate(zip(prompts, given, strict=True))
    ]
    for prompt, sample in zip(prompts, samples, strict=True):
        check_lengths(llm, prompt, sample.budget)
    return _record(llm, samples, prompts) if samples else []


def record_tokens(
    llm: LLM, prompts: Sequence[SourcedPrompt], tokens: Sequence[Sequence[int]]
) -> list[AttributionRecord]:
    """Record the model along given tokens of each answer (teacher forcing): at least one each.

    Raises:
        UserError: how the model's heads write to the logits is not known.

    """
    pairs = enumerate(zip(prompts, tokens, strict=True))
    samples = [Sample(n, "", one.ids, [], len(ids), one.question, "", list(ids)) for n, (one, ids) in pairs]
    return _record(llm, samples, prompts) if samples else []


def answer_tokens(llm: LLM, answer: str) -> list[int]:
    """Tokens of a given answer, as they follow the prompt.

    Raises:
        UserError: it is empty, or the tokenizer has no tokens for a part of it.

    """
    if not answer.strip():
        raise UserError("an answer without text cannot be attributed; leave it out to let the model answer")
    ids = tokenize_with_offsets(llm.tokenizer, answer, special=False).ids
    if llm.tokenizer.unk_token_id in ids:
        shown = " ".join(answer.split())[:60]
        raise UserError(f"answer '{shown}': the model's tokenizer has no tokens for a part of it; correct its text")
    return ids


def check_lengths(llm: LLM, prompt: SourcedPrompt, budget: int) -> None:
    """Check that a prompt fits; needs no weights.

    Raises:
        UserError: prompt and answer exceed the model's context, or a source a sliding window.

    """
    if budget < 1:
        raise UserError(f"an answer needs a budget of at least 1 token, not {budget}")
    if len(prompt.ids) + budget > llm.context_length:
        raise UserError(
            f"question '{prompt.question[:60]}': {len(prompt.ids)} tokens of the prompt and {budget} of the answer "
            f"exceed the model's context of {llm.context_length}; give fewer documents"
        )
    window = narrowest_window(llm)
    for number, spans in enumerate(prompt.spans):
        if window is not None and (tokens := sum(end - start for start, end in spans)) > window:
            raise UserError(
                f"source {number + 1} (document {prompt.sources[number].document + 1}) has {tokens} tokens, more than "
                f"the sliding window of {window} of some layers; choose a smaller unit"
            )


@frozen_inference()
def _record(llm: LLM, samples: list[Sample], prompts: Sequence[SourcedPrompt]) -> list[AttributionRecord]:
    records = dict[int, AttributionRecord]()
    for group in rotary_groups(llm.model, samples):
        with rotary_factors(llm.model, group):
            batch = pad(group.samples, llm.tokenizer.pad_token_id or 0, device=llm.model.device)
            cache = prefill_prompts(llm.model, batch, batch.tokens.shape[1], llm.prefill_chunk)
            spans = [prompts[number].spans for number in group.indices]
            with instrumented(llm.model):
                decoded = _Decoding(llm, batch, cache, spans).run()
        for row, number in enumerate(group.indices):
            records[number] = decoded.record(llm, row, len(spans[row]))
    return [records[number] for number in range(len(samples))]


@dataclass(frozen=True, eq=False)
class _Decoded:
    """All steps of a batch, on the host; steps after a row's length are meaningless."""

    lengths: list[int]
    tokens: Int[Tensor, "batch step"]
    log_probs: Float[Tensor, "batch step"]
    copies: Bool[Tensor, "batch step layer head"]
    hidden: Float[Tensor, "batch step hidden"]
    entropies: Float[Tensor, "batch step"]
    attention: Float[Tensor, "batch step layer head source"]
    contribution: Float[Tensor, "batch step layer head source"]

    def record(self, llm: LLM, row: int, sources: int) -> AttributionRecord:
        """One row's record. Other rows may have more sources: theirs are columns without a token here."""
        tokens = self.tokens[row, : self.lengths[row]]
        columns = [*range(sources), self.attention.shape[-1] - 2, self.attention.shape[-1] - 1]
        part = slice(0, len(tokens))
        return AttributionRecord(
            tokens=tokens,
            texts=tuple(decode_with_offsets(llm.tokenizer, tokens.tolist()).pieces()),
            log_probs=self.log_probs[row, part],
            attention=self.attention[row, part][..., columns],
            contribution=self.contribution[row, part][..., columns],
            copies=self.copies[row, part],
            hidden=self.hidden[row, part],
            entropies=self.entropies[row, part],
        )


class _Decoding:
    """Greedy or forced decode steps of a prefilled batch, each recorded."""

    def __init__(self, llm: LLM, batch: Batch, cache: "DynamicCache", spans: Sequence[Sequence[list[tuple[int, int]]]]):
        members = prompt_sources(batch.real, batch.width, spans)
        self._llm, self._batch, self._cache = llm, batch, cache
        self._contributions = LogitContributions(llm.model, Sources.of(members))

    def run(self) -> _Decoded:
        """All steps, until every row has ended; an end token is no part of a generated answer."""
        batch, rows = self._batch, list[tuple[Tensor, ...]]()
        ends = torch.tensor(self._llm.end_tokens, device=batch.tokens.device)
        lengths, running = batch.budgets.clone(), torch.ones_like(batch.budgets, dtype=torch.bool)
        reads = DelayedReads(batch.tokens.device)
        for step in range(int(batch.budgets.max())):
            rows.append(self._step(batch.width + step))
            ended = torch.isin(rows[-1][0], ends) & running & (batch.forced[:, step] < 0)
            lengths = torch.where(ended, step, lengths)
            running = running & ~ended & (batch.budgets > step + 1)
            if not all(reads.put(running.any())):
                break
        columns = [torch.stack(column, dim=1) for column in zip(*rows, strict=True)]
        columns += self._contributions.attention(), self._contributions.result()
        fields: list[Any] = [column.cpu() for column in columns]
        return _Decoded(lengths.tolist(), *fields)

    def _step(self, keys: int) -> tuple[Tensor, ...]:
        """One step: tokens, log-probabilities, copies, hidden states and entropies. Its query is at `keys - 1`."""
        batch, model = self._batch, self._llm.model
        with self._contributions.recording(RecordingPlan()) as recorder:
            logits = decode_step(model, batch, self._cache, keys).float()
        forced = batch.forced[:, keys - batch.width]
        generated = torch.where(forced >= 0, forced, logits.argmax(dim=-1))
        self._contributions.add(recorder, generated)
        if keys < batch.tokens.shape[1]:
            batch.tokens[:, keys] = generated
        log_probs = logits.log_softmax(dim=-1)
        argmax = recorder.argmax
        attended = batch.tokens.gather(1, argmax.flatten(1)).view_as(argmax)
        copies = attended == generated[:, None, None]
        chosen = log_probs.gather(1, generated[:, None])[:, 0]
        # -Σ p log p; a token of probability 0 adds 0, also where its log-probability is -∞.
        lowest = torch.finfo(log_probs.dtype).min
        entropies = -torch.linalg.vecdot(log_probs.exp(), log_probs.clamp_min_(lowest))
        return generated, chosen, copies, recorder.hidden.float(), entropies
