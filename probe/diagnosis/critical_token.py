"""The critical token: the first at which the model, along the gold answer, would write something else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from extract.attention import RecordingPlan, instrumented
from extract.contribution import LogitContributions, Sources, prompt_sources
from extract.generation import decode_step
from extract.llm import LLM
from extract.prompts import tokenize_with_offsets
from extract.tasks import GoldContinuation
from probe.diagnosis.decoding import MOST_LOGITS, AnswerDecoding, ForcedPass

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
        states: Hidden states of the query that predicts it, and of earlier ones, last one first; as many as were kept.

    """

    position: int
    right: int
    wrong: int
    log_probs: tuple[float, float]
    attention: Float[Tensor, "head source"]
    to_right: Float[Tensor, "head source"]
    to_wrong: Float[Tensor, "head source"]
    states: Float[Tensor, "state hidden"]


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


@dataclass(frozen=True)
class _Place:
    """A step along a gold answer: its token, the strongest competitor, whether that one is the model's choice."""

    position: int
    right: int
    wrong: int
    log_probs: tuple[float, float]
    astray: bool


def critical_tokens(
    decoding: AnswerDecoding,
    rows: Sequence[int],
    gold: Sequence[GoldTokens],
    failed: Sequence[bool],
    kept: int = 0,
) -> list[CriticalToken | None]:
    """Critical tokens of some answers: one forward along the gold answers finds them, one recorded step follows.

    Of a failed answer it is the first whose argmax is another token; before the first letter or digit of the gold
    answer a choice without any (a quotation mark, an asterisk) is a matter of form, and does not count. None where
    there is none. Of a solved answer it is the one with the smallest margin of log-probability.

    Args:
        decoding: The decoded batch.
        rows: Places in it.
        gold: Their gold answers.
        failed: Whether each answer failed.
        kept: Hidden states to keep until each critical token, as far as the prompt's last token.

    """
    vocabulary = int(decoding.llm.model.config.get_text_config(decoder=True).vocab_size)
    most = max(1, MOST_LOGITS // (vocabulary * max(len(one.gold) for one in gold)))
    found = list[CriticalToken | None]()
    for start in range(0, len(rows), most):
        part = slice(start, start + most)
        found += _found(decoding, rows[part], gold[part], failed[part], kept)
    return found


def _found(
    decoding: AnswerDecoding, rows: Sequence[int], gold: Sequence[GoldTokens], failed: Sequence[bool], kept: int
) -> list[CriticalToken | None]:
    forced = decoding.along(rows, [one.lead + one.gold for one in gold], [len(one.lead) for one in gold], kept)
    choices = _choices(forced.logits, gold)
    places = [
        _astray(decoding.llm, one, row) if wrong else _nearest(one, row)
        for one, row, wrong in zip(gold, choices, failed, strict=True)
    ]
    chosen = {row: place for row, place in enumerate(places) if place is not None}
    states = [forced.states_until(row, place.position, kept) for row, place in chosen.items()]
    recorded = iter(_recorded(decoding, rows, forced, gold, chosen, states) if chosen else [])
    return [None if place is None else next(recorded) for place in places]


def _choices(logits: Float[Tensor, "row step vocabulary"], gold: Sequence[GoldTokens]) -> list[list[_Place]]:
    """Of each row and step the gold token, its strongest competitor, and the log-probability of both."""
    steps = logits.shape[1]
    right = torch.tensor([[*one.gold, *[0] * (steps - len(one.gold))] for one in gold], device=logits.device)
    top, totals = logits.topk(2, dim=-1).indices, logits.float().logsumexp(dim=-1, keepdim=True)
    wrong = torch.where(top[..., 0] == right, top[..., 1], top[..., 0])
    log_probs = logits.gather(2, torch.stack([right, wrong], dim=2)).float() - totals
    columns = zip(wrong.tolist(), log_probs.tolist(), (top[..., 0] != right).tolist(), gold, strict=True)
    return [
        [_Place(step, token, others[step], (*pairs[step],), astray[step]) for step, token in enumerate(one.gold)]
        for others, pairs, astray, one in columns
    ]


def _astray(llm: LLM, gold: GoldTokens, row: Sequence[_Place]) -> _Place | None:
    """The first step whose choice is another token, matters of form left aside."""
    wrong = (one for one in row if one.astray)
    counted = (one for one in wrong if one.position >= gold.content or has_content(llm.tokenizer, one.wrong))
    return next(counted, None)


def _nearest(gold: GoldTokens, row: Sequence[_Place]) -> _Place:
    """The step of the smallest margin, from the first token with content on."""
    return min(row[gold.content :], key=lambda one: one.log_probs[0] - one.log_probs[1])


def _recorded(
    decoding: AnswerDecoding,
    rows: Sequence[int],
    forced: ForcedPass,
    gold: Sequence[GoldTokens],
    chosen: Mapping[int, _Place],
    states: Sequence[Tensor],
) -> list[CriticalToken]:
    """One recorded step at the critical tokens of some rows."""
    model, places = decoding.llm.model, list(chosen.values())
    added = [gold[row].lead + gold[row].gold[: place.position] for row, place in chosen.items()]
    batch, cache = decoding.after(forced, rows, list(chosen), added)
    spans = [decoding.spans[rows[row]] for row in chosen]
    members = prompt_sources(batch.real, batch.width, spans)
    contributions = LogitContributions(model, Sources.of(members))
    plan = RecordingPlan(columns=members[:, : batch.width].float())
    with instrumented(model), contributions.recording(plan) as recorder:
        decode_step(model, batch, cache, batch.width)
    for tokens in ([place.right for place in places], [place.wrong for place in places]):
        contributions.add(recorder, torch.tensor(tokens, device=batch.tokens.device))
    # Two directions: [row, 2, layer, head, source].
    right, wrong = contributions.result().flatten(2, 3).unbind(dim=1)
    mass, right, wrong = (part.cpu() for part in (recorder.mass.flatten(1, 2), right, wrong))
    return [
        CriticalToken(
            position=place.position,
            right=place.right,
            wrong=place.wrong,
            log_probs=place.log_probs,
            attention=mass[row, :, : len(spans[row])],
            to_right=right[row, :, : len(spans[row])],
            to_wrong=wrong[row, :, : len(spans[row])],
            states=states[row],
        )
        for row, place in enumerate(places)
    ]
