"""Greedy batched decoding that scores every head at every step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from extract.cache import ReservedLayer, reserved_cache
from extract.instrument import Recorder, instrumented, recording
from extract.llm import LLM
from extract.scores import copy_paste_score, kept_keys, reasoning_score
from extract.task import Sample

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel


@dataclass(frozen=True)
class Decoded:
    """A batch of generations. Row `t` of a sample belongs to the query that chose its token `t`.

    Attributes:
        lengths: Rows of each sample; the step that generates an end token is one.
        tokens: Generated tokens.
        hidden: Final hidden state, which the LM head reads.
        copy_paste, reasoning: Eq. 1 and Eq. 2 of each head, layer-major.
        argmax: Most attended prompt or answer position of each head, in the unpadded sequence.

    """

    lengths: list[int]
    tokens: Int[Tensor, "batch step"]
    hidden: Float[Tensor, "batch step hidden"]
    copy_paste: Bool[Tensor, "batch step head"]
    reasoning: Float[Tensor, "batch step head"]
    argmax: Int[Tensor, "batch step head"]


@dataclass(frozen=True)
class _Batch:
    """Left-padded prompts with room for the answers; `forced` is -1 where the model chooses the token itself."""

    tokens: Int[Tensor, "batch capacity"]
    real: Bool[Tensor, "batch capacity"]
    evidence: Bool[Tensor, "batch capacity"]
    forced: Int[Tensor, "batch step"]
    budgets: Int[Tensor, "batch"]
    width: int

    @property
    def padding(self) -> Int[Tensor, "batch"]:
        return (~self.real).sum(dim=1)


def _pad(samples: Sequence[Sample], pad: int, device: torch.device) -> _Batch:
    width = max(len(sample.ids) for sample in samples)
    shape = (len(samples), width + max(sample.budget for sample in samples))
    tokens = torch.full(shape, pad, dtype=torch.long)
    real, evidence = torch.ones(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    for row, sample in enumerate(samples):
        first = width - len(sample.ids)
        tokens[row, first:width] = torch.tensor(sample.ids)
        real[row, :first] = False
        for start, end in sample.evidence:
            evidence[row, first + start : first + end] = True
    budgets = torch.tensor([sample.budget for sample in samples])
    forced = torch.full((len(samples), shape[1] - width), -1)
    for row, sample in enumerate(samples):
        if sample.forced is not None:
            forced[row, : sample.budget] = torch.tensor(sample.forced)
    return _Batch(tokens.to(device), real.to(device), evidence.to(device), forced.to(device), budgets.to(device), width)


@torch.inference_mode()
def decode(llm: LLM, samples: Sequence[Sample], sink: int = 4, local: int = 64) -> Decoded:
    """Greedy generation of one batch, with the scores of all heads at each step.

    Each prompt up to its last token is prefilled on its own, by the model's own attention: without padding there is no
    mask, so nothing of size n × n. From the last prompt token on all go together, and each step is recorded.

    Args:
        llm: The frozen model.
        samples: Prompts; each is generated to an end token or to its own budget, or along its forced tokens.
        sink: First tokens that Eq. 2 leaves out.
        local: Last tokens that Eq. 2 leaves out.

    """
    model = llm.model
    batch = _pad(samples, pad=llm.tokenizer.pad_token_id or 0, device=model.device)
    cache = _prefill(model, batch)
    with instrumented(model):
        return _generate(llm, batch, cache, sink, local)


def _prefill(model: "PreTrainedModel", batch: _Batch) -> "DynamicCache":
    """Keys of every prompt but its last token, right-aligned in one cache with room for the answers."""
    cache = reserved_cache(model, batch.tokens.shape[1])
    for row, pad in enumerate(batch.padding.tolist()):
        prompt = batch.tokens[row : row + 1, pad : batch.width - 1]
        if not prompt.shape[1]:
            continue
        alone = reserved_cache(model, prompt.shape[1])
        model(input_ids=prompt, past_key_values=alone, use_cache=True, logits_to_keep=1)
        for layer, single in zip(cache.layers, alone.layers, strict=True):
            assert isinstance(layer, ReservedLayer)
            assert isinstance(single, ReservedLayer)
            layer.place(row, pad, single, len(batch.tokens))
    return cache


def _columns(batch: _Batch, keys: int, sink: int, local: int) -> Float[Tensor, "batch key 2"]:
    """What Eq. 2 sums attention over: kept evidence, and all kept keys."""
    kept = kept_keys(batch.real[:, :keys], sink, local)
    return torch.stack([kept & batch.evidence[:, :keys], kept], dim=2).float()


def _generate(llm: LLM, batch: _Batch, cache: "DynamicCache", sink: int, local: int) -> Decoded:
    model, tokens, width = llm.model, batch.tokens, batch.width
    positions = (batch.real.cumsum(dim=1) - 1).clamp(min=0)
    ends = torch.tensor(llm.end_tokens, device=tokens.device)
    lengths = batch.budgets.clone()
    recorder = Recorder(model)
    rows: list[tuple[Tensor, ...]] = []

    def forward(keys: int) -> Tensor:
        logits: Tensor = model(
            input_ids=tokens[:, keys - 1 : keys],
            attention_mask=batch.real[:, :keys],
            position_ids=positions[:, keys - 1 : keys],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits[:, -1]

    with recording(recorder, model):
        for step in range(int(batch.budgets.max())):
            keys = width + step
            recorder.columns = _columns(batch, keys, sink, local)
            forced = batch.forced[:, step]
            generated = torch.where(forced >= 0, forced, forward(keys).argmax(dim=-1))
            rows.append(_row(recorder, batch, generated, keys))
            if keys < tokens.shape[1]:
                tokens[:, keys] = generated
            ended = torch.isin(generated, ends) & (lengths > step)
            lengths = torch.where(ended, step + 1, lengths)
            if bool((lengths <= step + 1).all()):
                break
    return _collect(rows, lengths)


def _row(recorder: Recorder, batch: _Batch, generated: Tensor, keys: int) -> tuple[Tensor, ...]:
    argmax, mass = recorder.argmax.flatten(1), recorder.mass.flatten(1, 2)
    copied = copy_paste_score(argmax, batch.tokens[:, :keys], batch.evidence[:, :keys], generated)
    assert recorder.columns is not None
    reasoning = reasoning_score(mass[..., 0], mass[..., 1], recorder.columns[..., 0].any(dim=1))
    return generated, recorder.hidden.float(), copied, reasoning, argmax - batch.padding[:, None]


def _collect(rows: list[tuple[Tensor, ...]], lengths: Tensor) -> Decoded:
    """Stack the steps on the device; one copy to the host at the end."""
    columns = [torch.stack(column, dim=1).cpu() for column in zip(*rows, strict=True)]
    return Decoded(lengths.tolist(), *columns)
