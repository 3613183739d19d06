"""Greedy batched decoding that scores every head at every step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from extract.attention import Recorder, instrumented, recording
from extract.generation.batching import Batch, pad, reasoning_columns, warn_of_windows
from extract.generation.longrope import by_regime
from extract.generation.prefill import advance, prefill
from extract.llm import LLM
from extract.scores import ExcludedKeys, copy_paste_score, reasoning_score
from extract.tasks import Sample

if TYPE_CHECKING:
    from transformers import DynamicCache


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


@torch.inference_mode()
def decode(
    llm: LLM,
    samples: Sequence[Sample],
    excluded: ExcludedKeys = ExcludedKeys(),  # noqa: B008 (frozen)
) -> Decoded:
    """Greedy generation of one batch, with the scores of all heads at each step.

    Each prompt up to its last token is prefilled on its own, by the model's own attention: without padding there is no
    mask, so nothing of size n × n. From the last prompt token on all go together, and each step is recorded.

    Args:
        llm: The frozen model.
        samples: Prompts; each is generated to an end token or to its own budget, or along its forced tokens.
        excluded: Keys that Eq. 2 leaves out.

    """
    model = llm.model
    warn_of_windows(model, samples)

    def run(some: list[Sample]) -> Decoded:
        batch = pad(some, llm.tokenizer.pad_token_id or 0, device=model.device)
        cache = prefill(model, batch, batch.tokens.shape[1], chunk=llm.prefill_chunk)
        with instrumented(model):
            return _generate(llm, batch, cache, excluded)

    return by_regime(model, samples, run)


def _generate(llm: LLM, batch: Batch, cache: "DynamicCache", excluded: ExcludedKeys) -> Decoded:
    tokens, width = batch.tokens, batch.width
    ends = torch.tensor(llm.end_tokens, device=tokens.device)
    lengths = batch.budgets.clone()
    recorder = Recorder(llm.model)
    rows: list[tuple[Tensor, ...]] = []
    with recording(recorder, llm.model):
        for step in range(int(batch.budgets.max())):
            keys = width + step
            recorder.columns = reasoning_columns(batch, keys, excluded)
            forced = batch.forced[:, step]
            generated = torch.where(forced >= 0, forced, advance(llm.model, batch, cache, keys).argmax(dim=-1))
            rows.append(_row(recorder, batch, generated, keys))
            if keys < tokens.shape[1]:
                tokens[:, keys] = generated
            ended = torch.isin(generated, ends) & (lengths > step)
            lengths = torch.where(ended, step + 1, lengths)
            if bool((lengths <= step + 1).all()):
                break
    return _collect(rows, lengths)


def _row(recorder: Recorder, batch: Batch, generated: Tensor, keys: int) -> tuple[Tensor, ...]:
    argmax, mass = recorder.argmax.flatten(1), recorder.mass.flatten(1, 2)
    copied = copy_paste_score(argmax, batch.tokens[:, :keys], batch.evidence[:, :keys], generated)
    assert recorder.columns is not None
    reasoning = reasoning_score(mass[..., 0], mass[..., 1], recorder.columns[..., 0].any(dim=1))
    return generated, recorder.hidden.float(), copied, reasoning, argmax - batch.padding[:, None]


def _collect(rows: list[tuple[Tensor, ...]], lengths: Tensor) -> Decoded:
    """Stack the steps on the device; one copy to the host at the end."""
    columns = [torch.stack(column, dim=1).cpu() for column in zip(*rows, strict=True)]
    return Decoded(lengths.tolist(), *columns)
