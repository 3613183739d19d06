"""Greedy answers of a batch whose first decode steps are recorded, and their cache, for steps along other tokens."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from extract.attention import PreallocatedLayer, RecordingPlan, instrumented, preallocated_cache
from extract.contribution import LogitContributions, Sources, Spans, prompt_sources
from extract.generation import Batch, decode_step, pad, prefill_continued, prefill_prompts
from extract.llm import LLM
from extract.tasks import Sample
from probe.attribution import common_prefix, reading

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel

SIGNALS = (
    *("entropy", "log_prob"),
    *("context_attention", "peak_attention", "copying_heads", "context_contribution", "peak_contribution"),
)
"""What is recorded of the first tokens; the first two are the output's alone."""
MOST_LOGITS = 2**27
"""Most logits of one forward; an answer that exceeds them by itself runs alone."""


@dataclass(frozen=True)
class Generated:
    """A greedy answer.

    Attributes:
        tokens: Its tokens, without an end token.
        ended: Whether an end token followed.
        signals: Each of `SIGNALS` at the first tokens.

    """

    tokens: list[int]
    ended: bool
    signals: dict[str, list[float]]


class AnswerDecoding:
    """Decoding of a batch of prompts; afterwards rows can be continued along other tokens, without another prefill.

    Args:
        llm: The frozen model.
        samples: The prompts.
        spans: Of each prompt, its sources: evidence and segments of the context.
        early: First decode steps that are recorded.

    """

    def __init__(self, llm: LLM, samples: Sequence[Sample], spans: Sequence[Sequence[Spans]], early: int) -> None:
        self.llm, self.samples, self.spans, self._early = llm, samples, spans, early
        self.batch = pad(samples, llm.tokenizer.pad_token_id or 0, device=llm.model.device)
        self.cache = prefill_prompts(llm.model, self.batch, self.batch.tokens.shape[1], llm.prefill_chunk)

    def run(self) -> list[Generated]:
        """Every row's answer. Steps after the recorded ones run the model as it is."""
        batch, ends = self.batch, torch.tensor(self.llm.end_tokens, device=self.batch.tokens.device)
        lengths, running = batch.budgets.clone(), torch.ones_like(batch.budgets, dtype=torch.bool)
        recorded = min(self._early, batch.tokens.shape[1] - batch.width)
        signals = self._recorded_steps(recorded)
        for step in range(int(batch.budgets.max())):
            if step >= recorded:
                self._plain_step(batch.width + step)
            ended = torch.isin(batch.tokens[:, batch.width + step], ends) & running
            lengths = torch.where(ended, step, lengths)
            running &= ~ended & (batch.budgets > step + 1)
            if step + 1 >= recorded and not running.any():
                break
        return self._collect(lengths, signals)

    def _collect(self, lengths: Int[Tensor, "batch"], signals: Float[Tensor, "batch step signal"]) -> list[Generated]:
        tokens, found = self.batch.tokens[:, self.batch.width :].tolist(), signals.cpu()
        rows = zip(tokens, lengths.tolist(), self.batch.budgets.tolist(), found, strict=True)
        return [
            Generated(
                row[:length],
                length < budget,
                dict(zip(SIGNALS, part[: max(1, length)].T.tolist(), strict=True)),
            )
            for row, length, budget, part in rows
        ]

    def _plain_step(self, keys: int) -> None:
        self.batch.tokens[:, keys] = decode_step(self.llm.model, self.batch, self.cache, keys).argmax(dim=-1)

    def _recorded_steps(self, count: int) -> Float[Tensor, "batch step signal"]:
        members = prompt_sources(self.batch.real, self.batch.width, self.spans)
        contributions = LogitContributions(self.llm.model, Sources.of(members))
        columns, rows = members.float(), list[tuple[Tensor, ...]]()
        with instrumented(self.llm.model):
            for step in range(count):
                keys = self.batch.width + step
                with contributions.recording(RecordingPlan(columns=columns[:, :keys])) as recorder:
                    logits = decode_step(self.llm.model, self.batch, self.cache, keys).float()
                generated = logits.argmax(dim=-1)
                contributions.add(recorder, generated)
                self.batch.tokens[:, keys] = generated
                rows.append(_output_signals(logits, generated))
                rows[-1] += _attention_signals(recorder.mass, recorder.argmax, self.batch, members, generated)
        if not rows:
            return torch.zeros(len(self.samples), 0, len(SIGNALS))
        signals = [torch.stack(column, dim=1) for column in zip(*rows, strict=True)]
        return torch.stack([*signals, *_contribution_signals(contributions.result())], dim=2)

    def continued(self, rows: Sequence[int], added: Sequence[Sequence[int]]) -> tuple[Batch, "DynamicCache"]:
        """Rows whose prompts go on with given tokens, for one step more, and their keys but those of the last token.

        Keys that the answers share with the given tokens are taken over.

        Args:
            rows: Places in the batch; a row may occur several times.
            added: Tokens after the prompt of each.

        """
        batch = self._padded(rows, [[*self.samples[row].ids, *tokens] for row, tokens in zip(rows, added, strict=True)])
        donors = list[tuple[int, int, int]]()
        for row, tokens in zip(rows, added, strict=True):
            first, shared = int(self.batch.padding[row]), common_prefix(self._answer(row), tokens)
            donors.append((row, first, min(self.cache.get_seq_length() - first, len(self.samples[row].ids) + shared)))
        return batch, prefill_continued(self.llm.model, batch, self.cache, donors, self.llm.prefill_chunk)

    def along(
        self, rows: Sequence[int], added: Sequence[Sequence[int]], before: Sequence[int], kept: int = 0
    ) -> "ForcedPass":
        """Rows run along given tokens, all of them in one forward.

        Args:
            rows: Places in the batch.
            added: Tokens after the prompt of each.
            before: How many of them come before the first one that is predicted.
            kept: Hidden states to keep: of each predicted token that of its query, and so many less one before it.

        """
        batch = self._padded(rows, [self.samples[row].ids for row in rows], added)
        ends = batch.width + torch.tensor([len(tokens) for tokens in added], device=batch.tokens.device)
        batch.tokens[:, batch.width :] = batch.forced.clamp(min=0)
        shared = min(
            min(common_prefix(self._answer(row), tokens), lead, max(0, lead + 1 - kept))
            for row, tokens, lead in zip(rows, added, before, strict=True)
        )
        cache = self._keys_of(rows, batch, shared)
        start, stop = cache.get_seq_length(), batch.tokens.shape[1] - 1
        queries = [batch.width - 1 - start + lead for lead in before]
        first = torch.tensor(queries, device=batch.tokens.device)
        steps = max(len(tokens) - lead for tokens, lead in zip(added, before, strict=True))
        # Token t is predicted from the position before it; shorter rows repeat their last position.
        places = (first[:, None] + torch.arange(steps, device=first.device)).minimum(ends[:, None] - 2 - start)
        with _head_inputs(self.llm.model) as states, reading(self.llm.model, places):
            logits = self.llm.model(
                input_ids=batch.tokens[:, start:stop],
                # Padding after a row comes last, so no query before it sees it.
                attention_mask=batch.real[:, :stop] if batch.padded else None,
                position_ids=batch.positions[:, start:stop].minimum(batch.positions.gather(1, ends[:, None] - 1)),
                past_key_values=cache,
                use_cache=True,
            ).logits
        return ForcedPass(batch, cache, logits, states[0].cpu() if kept else states[0][:, :0].cpu(), queries)

    def after(
        self, forced: "ForcedPass", rows: Sequence[int], chosen: Sequence[int], added: Sequence[Sequence[int]]
    ) -> tuple[Batch, "DynamicCache"]:
        """Rows of a forced pass up to some of its tokens, for one step more, and their keys but those of the last one.

        Args:
            forced: The pass.
            rows: Places of its rows in this batch.
            chosen: Which of them.
            added: Tokens of each, after the prompt.

        """
        prompts = [[*self.samples[rows[one]].ids, *tokens] for one, tokens in zip(chosen, added, strict=True)]
        batch = self._padded([rows[one] for one in chosen], prompts)
        padding = forced.batch.padding.tolist()
        donors = [(one, padding[one], len(ids)) for one, ids in zip(chosen, prompts, strict=True)]
        return batch, prefill_continued(self.llm.model, batch, forced.cache, donors, self.llm.prefill_chunk)

    def _answer(self, row: int) -> list[int]:
        answer: list[int] = self.batch.tokens[row, self.batch.width :].tolist()
        return answer

    def _padded(
        self, rows: Sequence[int], prompts: Sequence[list[int]], forced: Sequence[Sequence[int]] | None = None
    ) -> Batch:
        """A batch of prompts, with room for the forced tokens, or for one."""
        tokens = [[0]] * len(rows) if forced is None else [list(one) for one in forced]
        parts = zip(rows, prompts, tokens, strict=True)
        samples = [Sample(row, "", ids, [], len(some), "", "", some) for row, ids, some in parts]
        return pad(samples, self.llm.tokenizer.pad_token_id or 0, device=self.llm.model.device)

    def _keys_of(self, rows: Sequence[int], batch: Batch, shared: int) -> "DynamicCache":
        """Keys of some rows' prompts but the last token, and of the first `shared` tokens of their answers.

        With sliding windows the first keys are gone, and the prompts run again.
        """
        model, capacity = self.llm.model, batch.tokens.shape[1]
        if any(self.cache.is_sliding):
            return prefill_prompts(model, batch, capacity, self.llm.prefill_chunk)
        cache, skipped = preallocated_cache(model, capacity), self.batch.width - batch.width
        held = min(self.cache.get_seq_length(), self.batch.width - 1 + shared)
        for target, layer in zip(cache.layers, self.cache.layers, strict=True):
            assert isinstance(layer, PreallocatedLayer)
            assert isinstance(target, PreallocatedLayer)
            target.update(*layer.rows_between(rows, skipped, held))
        return cache


@dataclass(frozen=True, eq=False)
class ForcedPass:
    """One forward along given tokens.

    Attributes:
        batch: The prompts and the tokens after them.
        cache: Keys of all but the last token.
        logits: Of each token that is predicted.
        states: Hidden states that the LM head reads, of every query, on the host; of none where they are not kept.
        first: Of each row the query that predicts the first of these tokens.

    """

    batch: Batch
    cache: "DynamicCache"
    logits: Float[Tensor, "row step vocabulary"]
    states: Float[Tensor, "row query hidden"]
    first: Sequence[int]

    def states_until(self, row: int, position: int, kept: int) -> Float[Tensor, "state hidden"]:
        """The last `kept` states until the query that predicts a token, last one first; fewer near the prompt."""
        end = self.first[row] + position + 1
        return self.states[row, max(0, end - kept) : end].flip(0)


@contextmanager
def _head_inputs(model: "PreTrainedModel") -> Iterator[list[Tensor]]:
    """Hidden states that the LM head gets, of all positions where it is entered before `reading`."""
    states = list[Tensor]()

    def keep(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        states.append(inputs[0])

    hook = model.get_output_embeddings().register_forward_pre_hook(keep)
    try:
        yield states
    finally:
        hook.remove()


def _output_signals(logits: Float[Tensor, "batch token"], generated: Int[Tensor, "batch"]) -> tuple[Tensor, ...]:
    """Entropy of the output distribution in nats, and log-probability of the generated token."""
    log_probs = logits.log_softmax(dim=-1)
    entropy = torch.special.entr(log_probs.exp()).sum(dim=-1)
    return entropy, log_probs.gather(1, generated[:, None])[:, 0]


def _attention_signals(
    mass: Float[Tensor, "batch layer head source"],
    argmax: Int[Tensor, "batch layer head"],
    batch: Batch,
    members: Bool[Tensor, "batch capacity source"],
    generated: Int[Tensor, "batch"],
) -> tuple[Tensor, ...]:
    """Mean attention on the context, largest attention on one segment, share of heads that copy from the context."""
    context = mass.flatten(1, 2)[..., :-2]
    flat = argmax.flatten(1)
    inside = members[..., :-2].any(dim=2).gather(1, flat)
    copying = inside & (batch.tokens.gather(1, flat) == generated[:, None])
    return context.sum(dim=2).mean(dim=1), context.amax(dim=(1, 2)), copying.float().mean(dim=1)


def _contribution_signals(found: Float[Tensor, "batch step layer head source"]) -> list[Tensor]:
    """The context's and its largest segment's contribution, by the sum of all sources' absolute contributions."""
    sources = found.sum(dim=(2, 3))
    total = sources.abs().sum(dim=2).clamp(min=1e-12)
    context = sources[..., :-2]
    return [context.sum(dim=2) / total, context.amax(dim=2) / total]
