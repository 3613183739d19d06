"""The critical token: the first at which the model, along the gold answer, would write something else."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from extract.attention import RecordingPlan, instrumented
from extract.contribution import LogitContributions, Sources, prompt_sources
from extract.generation import decode_step
from extract.llm import LLM
from extract.prompts import tokenize_with_offsets
from extract.tasks import GoldContinuation
from probe.diagnosis.decoding import Continuation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class GoldTokens:
    """Tokens of the right answer.

    Attributes:
        lead: Tokens before it.
        bare: Tokens of the lead without earlier sentences; the same where there are none.
        gold: Its own tokens.
        content: Place of the first one with a letter or digit.

    """

    lead: list[int]
    bare: list[int]
    gold: list[int]
    content: int


@dataclass(frozen=True, eq=False)
class CriticalToken:
    """The recorded step of the critical token, on the host.

    Attributes:
        position: Its place in the gold answer.
        right, wrong: The gold answer's token, and its strongest competitor: of a failed answer the model's choice.
        log_probs: Log-probability of both, with the whole context.
        attention: Attention of each head, layer-major, on each source.
        to_right, to_wrong: Logit contribution of each source through each head to both tokens.

    """

    position: int
    right: int
    wrong: int
    log_probs: tuple[float, float]
    attention: Float[Tensor, "head source"]
    to_right: Float[Tensor, "head source"]
    to_wrong: Float[Tensor, "head source"]


def gold_tokens(llm: LLM, text: GoldContinuation) -> GoldTokens:
    """Tokens of a lead and the gold answer after it; a token that both share is the gold answer's."""
    found = tokenize_with_offsets(llm.tokenizer, text.lead + text.gold, special=False)
    first = next(place for place, (_, end) in enumerate(found.offsets) if end > len(text.lead))
    bare = text.lead if text.bare is None else text.bare
    short = tokenize_with_offsets(llm.tokenizer, bare + text.gold, special=False).ids
    ids = found.ids[first:]
    content = next((place for place, token in enumerate(ids) if has_content(llm.tokenizer, token)), 0)
    # A gold answer that is tokenized otherwise after the bare lead keeps the tokens it has after the whole one.
    same = short[len(short) - len(ids) :] == ids
    return GoldTokens(found.ids[:first], short[: len(short) - len(ids)] if same else found.ids[:first], ids, content)


def has_content(tokenizer: "PreTrainedTokenizerBase", token: int) -> bool:
    """Whether a token is more than spaces and punctuation. End tokens are, and so is a piece of a character."""
    text = str(tokenizer.decode([token]))
    return token in tokenizer.all_special_ids or "\ufffd" in text or any(map(str.isalnum, text))


def critical_tokens(
    continuation: Continuation, gold: Sequence[GoldTokens], failed: Sequence[bool]
) -> list[CriticalToken | None]:
    """Run a batch along its gold answers and record each row's critical token.

    Of a failed answer it is the first whose argmax is another token; before the first letter or digit of the gold
    answer a choice without any (a quotation mark, an asterisk) is a matter of form, and does not count. None where
    there is none. Of a solved answer it is the one with the smallest margin of log-probability.

    Args:
        continuation: The rows.
        gold: Their gold answers.
        failed: Whether each answer failed.

    """
    return _ForcedDecoding(continuation, gold, failed).run()


class _ForcedDecoding:
    """Recorded steps along given tokens."""

    def __init__(self, continuation: Continuation, gold: Sequence[GoldTokens], failed: Sequence[bool]) -> None:
        self._rows, self._batch = continuation, continuation.batch
        model, device = continuation.llm.model, continuation.batch.tokens.device
        self._model = model
        self._members = prompt_sources(self._batch.real, self._batch.width, continuation.spans)
        self._columns = self._members.float()
        self._contributions = LogitContributions(model, Sources.of(self._members))
        self._failed = torch.tensor(list(failed), device=device)
        self._content = torch.tensor([one.content for one in gold], device=device)
        self._form = max(one.content for one in gold)
        self._sources = [len(spans) for spans in continuation.spans]

    def run(self) -> list[CriticalToken | None]:
        """All steps, until the critical token of every row is found."""
        budgets, rows = self._batch.budgets, list[tuple[Tensor, ...]]()
        open_rows = torch.ones_like(self._failed)
        with instrumented(self._model):
            for step in range(int(budgets.max())):
                rows.append(self._step(step))
                open_rows &= ~(rows[-1][-1] & self._failed) & (budgets > step + 1)
                if not open_rows.any():
                    break
        columns: list[Any] = [torch.stack(column, dim=1) for column in zip(*rows, strict=True)]
        return self._collect(columns)

    def _step(self, step: int) -> tuple[Tensor, ...]:
        """Gold token, competitor, log-probabilities of both, attention, and whether the answer goes wrong here."""
        batch, keys = self._batch, self._batch.width + step
        with self._contributions.recording(RecordingPlan(columns=self._columns[:, :keys])) as recorder:
            logits = decode_step(self._model, batch, self._rows.cache, keys).float()
        gold, top = batch.forced[:, step].clamp(min=0), logits.topk(2, dim=-1).indices
        wrong = torch.where(top[:, 0] == gold, top[:, 1], top[:, 0])
        for token in (gold, wrong):
            self._contributions.add(recorder, token)
        if keys < batch.tokens.shape[1]:
            batch.tokens[:, keys] = gold
        log_probs = logits.log_softmax(dim=-1).gather(1, torch.stack([gold, wrong], dim=1))
        astray = (top[:, 0] != gold) & self._counts(step, wrong) & (batch.budgets > step)
        return gold, wrong, log_probs, recorder.mass.flatten(1, 2), astray

    def _counts(self, step: int, wrong: Int[Tensor, "batch"]) -> Bool[Tensor, "batch"]:
        """Whether another token than the gold one is more than a matter of form."""
        counts = self._content <= step
        if step >= self._form:  # nothing to ask the host
            return counts
        content = [has_content(self._rows.llm.tokenizer, token) for token in wrong.tolist()]
        return counts | torch.tensor(content, device=counts.device)

    def _collect(self, columns: list[Tensor]) -> list[CriticalToken | None]:
        gold, wrong, log_probs, attention, astray = columns
        position = torch.where(self._failed, astray.int().argmax(dim=1), self._nearest(log_probs))
        there = (~self._failed | astray.any(dim=1)).tolist()
        row = torch.arange(len(position), device=position.device)
        # Two directions were computed at each step: [batch, 2 · step, head, source].
        contributions = self._contributions.result().flatten(2, 3)
        chosen = [gold[row, position], wrong[row, position], log_probs[row, position], attention[row, position]]
        chosen += [contributions[row, 2 * position], contributions[row, 2 * position + 1]]
        places = position.tolist()
        hosted = [part.cpu() for part in chosen]
        return [self._token(number, places[number], hosted) if found else None for number, found in enumerate(there)]

    def _nearest(self, log_probs: Float[Tensor, "batch step 2"]) -> Int[Tensor, "batch"]:
        """Step of the smallest margin, from the first token with content on."""
        steps = torch.arange(log_probs.shape[1], device=log_probs.device)
        outside = (steps < self._content[:, None]) | (steps >= self._batch.budgets[:, None])
        return (log_probs[..., 0] - log_probs[..., 1]).masked_fill(outside, float("inf")).argmin(dim=1)

    def _token(self, row: int, position: int, chosen: list[Tensor]) -> CriticalToken:
        gold, wrong, log_probs, *sources = chosen
        right_prob, wrong_prob = log_probs[row].tolist()
        known = (part[row, :, : self._sources[row]] for part in sources)
        return CriticalToken(position, int(gold[row]), int(wrong[row]), (right_prob, wrong_prob), *known)
