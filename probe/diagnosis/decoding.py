"""Greedy answers of a batch whose first decode steps are recorded, and their cache, for steps along other tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from extract.attention import RecordingPlan, instrumented
from extract.contribution import LogitContributions, Sources, Spans, prompt_sources
from extract.generation import Batch, decode_step, pad, prefill_continued, prefill_prompts
from extract.llm import LLM
from extract.tasks import Sample
from probe.attribution import common_prefix

if TYPE_CHECKING:
    from transformers import DynamicCache

SIGNALS = (
    *("entropy", "log_prob"),
    *("context_attention", "peak_attention", "copying_heads", "context_contribution", "peak_contribution"),
)
"""What is recorded of the first tokens; the first two are the output's alone."""


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

    def continued(
        self, rows: Sequence[int], added: Sequence[Sequence[int]], gold: Sequence[Sequence[int]]
    ) -> "Continuation":
        """Rows whose prompts go on with given tokens; keys that the answers share with these are taken over.

        Args:
            rows: Places in the batch.
            added: Tokens after the prompt of each.
            gold: Tokens along which each is then run.

        """
        samples, donors = list[Sample](), list[tuple[int, int, int]]()
        for row, tokens, forced in zip(rows, added, gold, strict=True):
            ids, first = self.samples[row].ids, int(self.batch.padding[row])
            answer = self.batch.tokens[row, self.batch.width :].tolist()
            held = min(self.cache.get_seq_length() - first, len(ids) + common_prefix(answer, tokens))
            samples.append(Sample(row, "", [*ids, *tokens], [], len(forced), "", "", list(forced)))
            donors.append((row, first, held))
        batch = pad(samples, self.llm.tokenizer.pad_token_id or 0, device=self.llm.model.device)
        cache = prefill_continued(self.llm.model, batch, self.cache, donors, self.llm.prefill_chunk)
        return Continuation(self.llm, batch, cache, [self.spans[row] for row in rows])


@dataclass(frozen=True, eq=False)
class Continuation:
    """A batch of prompts with their keys, to be run along given tokens.

    Attributes:
        llm: The frozen model.
        batch: The prompts, with the tokens as forced ones.
        cache: Their keys but those of the last token.
        spans: Sources of each.

    """

    llm: LLM
    batch: Batch
    cache: "DynamicCache"
    spans: Sequence[Sequence[Spans]]


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
