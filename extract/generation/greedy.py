"""Greedy decoding of a batch, with both retrieval scores of every head at every step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from extract.attention import RecordingPlan, instrumented, recording
from extract.contribution import LogitContributions, Sources, Spans, prompt_sources
from extract.generation.batching import Batch, pad, reasoning_columns, warn_of_windows
from extract.generation.longrope import RotaryGroup, run_by_group
from extract.generation.prefill import DecodingWatch, decode_step, prefill_continued, prefill_prompts
from extract.llm import LLM
from extract.prompts import ForcedOpening
from extract.scores import ExcludedKeys, copy_paste_score, reasoning_score
from extract.tasks import Sample
from extract.utils import DelayedReads, frozen_inference

if TYPE_CHECKING:
    from transformers import DynamicCache


@dataclass(frozen=True)
class Decoded:
    """Greedy generations of a batch, on the host. Step `t` holds what the query that chose token `t` attended to.

    Attributes:
        lengths: Steps of each sample; the one that generates an end token counts. Later entries are meaningless.
        tokens: Generated tokens.
        hidden: Final hidden state of the query, which the LM head reads.
        copy_paste, reasoning: Eq. 1 and Eq. 2 of each head, layer-major.
        argmax: Most attended position of each head, in the unpadded sequence of prompt and answer.
        continuations: Tokens that followed a forced opening, without an end token; None where none was forced.
        contribution: Logit contribution of each source through each head, layer-major; None where none is asked for.

    """

    lengths: list[int]
    tokens: Int[Tensor, "batch step"]
    hidden: Float[Tensor, "batch step hidden"]
    copy_paste: Bool[Tensor, "batch step head"]
    reasoning: Float[Tensor, "batch step head"]
    argmax: Int[Tensor, "batch step head"]
    continuations: list[list[int] | None]
    contribution: Float[Tensor, "batch step head source"] | None = None


@frozen_inference()
def decode(
    llm: LLM,
    samples: Sequence[Sample],
    excluded: ExcludedKeys = ExcludedKeys(),  # noqa: B008 (frozen)
    opening: ForcedOpening | None = None,
    watch: DecodingWatch | None = None,
    sources: Literal["evidence"] | Sequence[Sequence[Spans]] | None = None,
) -> Decoded:
    """Greedy generation of one batch, with the scores of all heads at each step.

    Each prompt but its last token is prefilled on its own, by the model's own attention. From the last prompt token on
    all prompts go together, and each step is recorded.

    Args:
        llm: The frozen model.
        samples: Prompts; each is generated to an end token or to its own budget, or along its forced tokens.
        excluded: Keys that Eq. 2 leaves out.
        opening: Continues generations that ended without an answer; they are no steps, and change none.
        watch: Receives the number of tokens and steps that were run.
        sources: Whose logit contributions are computed: `evidence`, the sum over a sample's evidence; or the token
            spans of each source of each sample, to which answer so far and rest of the prompt are added as the last
            two (see `extract.contribution.prompt_sources`). None: no contributions, and not one operation more.

    Raises:
        UserError: the model's attention cannot be recorded, or how its heads write to the logits is not known.

    """
    warn_of_windows(llm.model, samples)

    def run(group: RotaryGroup) -> Decoded:
        batch = pad(group.samples, llm.tokenizer.pad_token_id or 0, device=llm.model.device)
        cache = prefill_prompts(llm.model, batch, batch.tokens.shape[1], llm.prefill_chunk, watch)
        chosen = sources if sources is None or sources == "evidence" else [sources[i] for i in group.indices]
        contributions = contributions_of(llm, batch, chosen)
        with instrumented(llm.model):
            decoded = _generate(llm, batch, cache, excluded, watch, contributions)
        if opening is None:
            return decoded
        return replace(decoded, continuations=_continued(llm, group.samples, decoded, batch, cache, opening))

    return run_by_group(llm.model, samples, run)


def contributions_of(
    llm: LLM, batch: Batch, sources: Literal["evidence"] | Sequence[Sequence[Spans]] | None
) -> LogitContributions | None:
    """What computes the contributions of a batch's sources; None: nothing does."""
    if sources is None:
        return None
    if sources == "evidence":
        return LogitContributions(llm.model, Sources.of(batch.evidence[..., None], batch.evidence_here[..., None]))
    return LogitContributions(llm.model, Sources.of(prompt_sources(batch.real, batch.width, sources)))


def _generate(
    llm: LLM,
    batch: Batch,
    cache: "DynamicCache",
    excluded: ExcludedKeys,
    watch: DecodingWatch | None,
    contributions: LogitContributions | None,
) -> Decoded:
    """All steps of a prefilled batch, until every row has ended."""
    tokens, width = batch.tokens, batch.width
    ends = torch.tensor(llm.end_tokens, device=tokens.device)
    lengths = batch.budgets.clone()
    rows: list[tuple[Tensor, ...]] = []
    running, counts = len(tokens), DelayedReads(tokens.device)
    for step in range(int(batch.budgets.max())):
        keys = width + step
        generated, *scores = scored_step(llm, batch, cache, keys, excluded, contributions)
        rows.append((generated, *scores))
        if keys < tokens.shape[1]:
            tokens[:, keys] = generated
        # Rows that have ended run along, for the batch is one tensor; their steps are beyond `lengths`.
        ended = torch.isin(generated, ends) & (lengths > step)
        lengths = torch.where(ended, step + 1, lengths)
        # The one value of a step that the host reads, on a GPU while the next step runs.
        for left in counts.put((lengths > step + 1).sum()):
            _report(watch, running)
            running = int(left)
        if not running:
            break
    for left in counts.rest():
        _report(watch, running)
        running = int(left)
    return _collect(rows, lengths, contributions)


def _report(watch: DecodingWatch | None, rows: int) -> None:
    """Report a step and the answers that it continued; steps after the end of all answers are not reported."""
    if watch is not None and rows:
        watch.decoded(rows)


def scored_step(
    llm: LLM,
    batch: Batch,
    cache: "DynamicCache",
    keys: int,
    excluded: ExcludedKeys,
    contributions: LogitContributions | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """One recorded decode step of an instrumented model: a row of `Decoded`, its fields in their order."""
    columns = reasoning_columns(batch, keys, excluded)
    plan = RecordingPlan(columns=columns)
    with recording(llm.model, plan) if contributions is None else contributions.recording(plan) as recorder:
        chosen = decode_step(llm.model, batch, cache, keys).argmax(dim=-1)
    forced = batch.forced[:, keys - batch.width]
    generated = torch.where(forced >= 0, forced, chosen)
    if contributions is not None:
        contributions.add(recorder, generated)
    argmax, mass = recorder.argmax.flatten(1), recorder.mass.flatten(1, 2)
    copied = copy_paste_score(argmax, batch.tokens[:, :keys], batch.evidence[:, :keys], generated)
    reasoning = reasoning_score(mass[..., 0], mass[..., 1], columns[..., 0].any(dim=1))
    return generated, recorder.hidden.float(), copied, reasoning, argmax - batch.padding[:, None]


def _collect(rows: list[tuple[Tensor, ...]], lengths: Tensor, contributions: LogitContributions | None) -> Decoded:
    """Stack the steps on the device; one copy to the host at the end."""
    steps = lengths.tolist()
    last = max(steps)  # the loop may have run longer
    columns: list[Any] = [torch.stack(column, dim=1).cpu() for column in zip(*rows[:last], strict=True)]
    found = None if contributions is None else contributions.result()[:, :last].flatten(2, 3).cpu()
    return Decoded(steps, *[*columns, [None] * len(steps), found])


def _continued(
    llm: LLM, samples: Sequence[Sample], decoded: Decoded, batch: Batch, cache: "DynamicCache", opening: ForcedOpening
) -> list[list[int] | None]:
    """Greedy tokens after the forced openings, from the keys of prompts and answers in the batch's cache."""
    continuations: list[list[int] | None] = [None] * len(samples)
    rows, prompts, donors = list[int](), list[Sample](), list[tuple[int, int, int]]()
    for row, sample in enumerate(samples):
        answer = without_end(decoded.tokens[row, : decoded.lengths[row]].tolist(), llm.end_tokens)
        if sample.forced is None and (forced := opening.tokens(answer)):
            first = int(batch.padding[row])
            held = min(cache.get_seq_length() - first, len(sample.ids) + len(answer))
            rows.append(row)
            prompts.append(replace(sample, ids=[*sample.ids, *answer, *forced], budget=opening.limit))
            donors.append((row, first, held))
    if rows:
        continued = pad(prompts, llm.tokenizer.pad_token_id or 0, device=llm.model.device)
        keys = prefill_continued(llm.model, continued, cache, donors, llm.prefill_chunk)
        for row, tokens in zip(rows, _greedy_tokens(llm, continued, keys), strict=True):
            continuations[row] = tokens
    return continuations


def _greedy_tokens(llm: LLM, batch: Batch, cache: "DynamicCache") -> list[list[int]]:
    """Plain greedy tokens of a prefilled batch, each row's up to its end token."""
    tokens, ends = batch.tokens, torch.tensor(llm.end_tokens, device=batch.tokens.device)
    ended = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    counts = DelayedReads(tokens.device)
    for keys in range(batch.width, tokens.shape[1]):
        tokens[:, keys] = decode_step(llm.model, batch, cache, keys).argmax(dim=-1)
        ended = ended | torch.isin(tokens[:, keys], ends)
        if any(counts.put(ended.all())):
            break
    return [without_end(row, llm.end_tokens) for row in tokens[:, batch.width : keys + 1].tolist()]


def without_end(tokens: Sequence[int], ends: Sequence[int]) -> list[int]:
    """The tokens before the first end token.

    >>> without_end([5, 6, 2, 7], ends=[2])
    [5, 6]

    """
    return list(takewhile(lambda token: token not in ends, tokens))
