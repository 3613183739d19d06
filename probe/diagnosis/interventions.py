"""Interventions at the critical token: context removed from the prompt, and heads' outputs amplified."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from extract.attention import RecordingPlan, instrumented, recording
from extract.generation import decode_step, masked_view, rotary_factors, rotary_groups
from extract.llm import LLM
from extract.prompts import Span
from extract.tasks import Sample
from extract.utils import frozen_inference
from probe.attribution import reading
from probe.diagnosis.decoding import MOST_LOGITS, AnswerDecoding

MOST_TOKENS = 16384
"""Most tokens of one forward; a prompt that exceeds them by itself runs alone."""


@dataclass(frozen=True)
class Reading:
    """What the model would write after a prompt, along the gold answer.

    Attributes:
        token: Its choice for the first token.
        log_probs: Log-probabilities of the right and the wrong token there.
        exact: Whether every token of the gold answer is its choice: greedy decoding then writes the gold answer.

    """

    token: int
    log_probs: tuple[float, float]
    exact: bool


@dataclass(frozen=True)
class Request:
    """A prompt to read.

    Attributes:
        ids: Prompt tokens, with lead and gold answer up to the token in question.
        gold: The gold answer from that token on.
        wrong: The wrong token.

    """

    ids: list[int]
    gold: list[int]
    wrong: int


def removed(ids: Sequence[int], context: Span, hidden: Sequence[Span]) -> list[int]:
    """A prompt's tokens without some spans of its context; positions close up.

    Args:
        ids: Prompt tokens.
        context: Token span of the context.
        hidden: Spans to remove, within it.

    >>> removed([5, 6, 7, 8, 9], context=(1, 4), hidden=[(2, 3)])
    [5, 6, 8, 9]

    """
    gone = {place for start, end in hidden for place in range(start, end)}
    shown = [(place, place + 1) for place in range(*context) if place not in gone]
    return list(masked_view(ids, context, shown, "concat").tokens)


@frozen_inference()
def read(llm: LLM, requests: Sequence[Request]) -> list[Reading]:
    """Read several prompts, those of similar length in one forward."""
    samples = [Sample(n, "", one.ids, [], len(one.gold), "", "") for n, one in enumerate(requests)]
    found = dict[int, Reading]()
    for group in rotary_groups(llm.model, samples):
        order = sorted(group.indices, key=lambda number: len(requests[number].ids) + len(requests[number].gold))
        with rotary_factors(llm.model, group):
            for batch in _batches(order, requests, int(llm.model.config.vocab_size)):
                found.update(zip(batch, _forward(llm, [requests[number] for number in batch]), strict=True))
    return [found[number] for number in range(len(requests))]


def _batches(order: Sequence[int], requests: Sequence[Request], vocabulary: int) -> Iterator[list[int]]:
    """Prompts that go together; `order` is ascending by length."""
    batch, most = list[int](), 0
    for number in order:
        one = requests[number]
        length, gold, rows = len(one.ids) + len(one.gold), max(most, len(one.gold)), len(batch) + 1
        if batch and (rows * length > MOST_TOKENS or rows * gold * vocabulary > MOST_LOGITS):
            yield batch
            batch, gold = [], len(one.gold)
        batch.append(number)
        most = gold
    if batch:
        yield batch


def _forward(llm: LLM, requests: list[Request]) -> list[Reading]:
    """One forward of right-padded prompts: padding comes last, so no query sees it."""
    device, steps = llm.model.device, max(len(one.gold) for one in requests)
    rows = [[*one.ids, *one.gold[:-1]] for one in requests]
    tokens = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    positions, gold = torch.zeros(len(rows), steps, dtype=torch.long), torch.full((len(rows), steps), -1)
    for row, (ids, one) in enumerate(zip(rows, requests, strict=True)):
        tokens[row, : len(ids)] = torch.tensor(ids)
        # Token t is predicted from the position before it; shorter answers repeat their last position.
        positions[row] = (len(one.ids) - 1 + torch.arange(steps)).clamp(max=len(ids) - 1)
        gold[row, : len(one.gold)] = torch.tensor(one.gold)
    with reading(llm.model, positions.to(device)):
        logits = llm.model(input_ids=tokens.to(device), use_cache=False).logits
    gold, wrong = gold.to(device), torch.tensor([one.wrong for one in requests], device=device)
    chosen: Tensor = logits.argmax(dim=-1)
    exact = ((chosen == gold) | (gold < 0)).all(dim=1)
    pair = torch.stack([gold[:, 0], wrong], dim=1)
    log_probs = logits[:, 0].float().log_softmax(dim=-1).gather(1, pair)
    columns = zip(chosen[:, 0].tolist(), log_probs.tolist(), exact.tolist(), strict=True)
    return [Reading(token, (right, other), same) for token, (right, other), same in columns]


def amplified(
    decoding: AnswerDecoding,
    rows: Sequence[int],
    added: Sequence[list[int]],
    heads: Sequence[Sequence[int]],
    factor: float,
) -> list[int]:
    """The model's choice after given tokens, with the outputs of some heads scaled at that step alone.

    Args:
        decoding: A decoded batch; its keys are taken over.
        rows: Places in the batch; a row may occur several times.
        added: Tokens after the prompt of each.
        heads: Heads of each, layer-major.
        factor: Of their outputs before the output projection.

    """
    model = decoding.llm.model
    config = model.config.get_text_config(decoder=True)
    scale = _scales(heads, int(config.num_hidden_layers), int(config.num_attention_heads), factor).to(model.device)
    batch, cache = decoding.continued(rows, added)
    with instrumented(model), recording(model, RecordingPlan(scale=scale)):
        logits = decode_step(model, batch, cache, batch.width)
    chosen: list[int] = logits.argmax(dim=-1).tolist()
    return chosen


def _scales(heads: Sequence[Sequence[int]], layers: int, width: int, factor: float) -> Float[Tensor, "row layer head"]:
    scale = torch.ones(len(heads), layers * width)
    for row, chosen in enumerate(heads):
        scale[row, list(chosen)] = factor
    return scale.view(len(heads), layers, width)
