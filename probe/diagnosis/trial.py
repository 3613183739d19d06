"""Trials: one answer each, with statistics of its critical token and the outcome of every intervention."""

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from extract.llm import LLM
from extract.prompts import Span
from extract.tasks import Task
from probe.diagnosis.answers import DiagnosedAnswer, Recording
from probe.diagnosis.critical_token import CriticalToken
from probe.diagnosis.interventions import Reading, Request, read, removed
from probe.diagnosis.predicted_heads import ReadProbe, acting_heads, predictions
from probe.diagnosis.segments import Segments
from probe.diagnosis.settings import Intervening
from probe.diagnosis.statistics import attended_margin, most_opposing, outvoted_share, written_score
from probe.results import Trial, strict

INTERVENTIONS = {
    "only_evidence": "only the evidence",
    "without_evidence": "without the evidence",
    "without_segment": "without the named segment",
    "without_random": "without a random segment",
    "amplified": "named heads amplified",
    "amplified_random": "random heads amplified",
}
"""Interventions, as results name them; the first four change the prompt, the others heads at the critical token."""
SHOWN = 3
"""Segments that write most to the right token, and to the wrong one, that a trial names with their text."""


def diagnosis_trials(llm: LLM, task: Task, answers: Sequence[DiagnosedAnswer], how: Recording) -> list[Trial]:
    """Trials of some answers; prompts that interventions change are read together.

    Args:
        llm: The frozen model.
        task: Knows the context of each prompt.
        answers: Recorded answers.
        how: How they were recorded.

    """
    requests = [_requests(task, answer, how.intervening) for answer in answers]
    readings = iter(read(llm, [request for named in requests for request in named.values()]))
    found = [{name: next(readings) for name in named} for named in requests]
    return [_trial(llm, how.probes, *pair) for pair in zip(answers, found, strict=True)]


def _requests(task: Task, answer: DiagnosedAnswer, how: Intervening | None) -> dict[str, Request]:
    """Prompts to read: without any context for a failed answer, and those of the interventions."""
    if answer.token is None or not answer.failed:
        return {}
    context, segments = task.context_span(answer.sample.index), answer.segments
    hidden = {"no_context": [context], "prior": [context]}
    if answer.intervened and how is not None:
        hidden |= {"only_evidence": list(segments.others), "without_evidence": list(segments.evidence)}
        hidden |= _without_segments(answer, answer.token, how)
    before, gold = answer.gold.gold[: answer.token.position], answer.gold.gold[answer.token.position :]
    leads = {name: answer.gold.bare if name == "prior" else answer.gold.lead for name in hidden}
    return {
        name: Request([*removed(answer.sample.ids, context, spans), *leads[name], *before], gold, answer.token.wrong)
        for name, spans in hidden.items()
    }


def _without_segments(answer: DiagnosedAnswer, token: CriticalToken, how: Intervening) -> dict[str, list[Span]]:
    """The segment that opposes most, and a random other one of its kind."""
    others, evidence = answer.segments.others, len(answer.segments.evidence)
    named = most_opposing(_margins(token), evidence)
    if named is None:
        return {}
    rest = [span for place, span in enumerate(others) if place != named and answer.segments.matched[place]]
    found = {"without_segment": [others[named]]}
    if rest:
        found["without_random"] = [random.Random(f"{how.seed}:{answer.sample.id}:segment").choice(rest)]
    return found


def _margins(token: CriticalToken) -> Tensor:
    """Contribution of each source to the right token's logit less that to the wrong one's, summed over heads."""
    return (token.to_right - token.to_wrong).sum(dim=0)


def _trial(llm: LLM, probes: Sequence[ReadProbe], answer: DiagnosedAnswer, readings: dict[str, Reading]) -> Trial:
    fields = answer.sample.fields
    token = answer.token
    found: Trial = {
        "sample": answer.sample.index,
        "id": answer.sample.name,
        "training": answer.training,
        "failed": answer.failed,
        "metric": answer.metric,
        "length": fields.get("length"),
        "depth": fields.get("depth"),
        "cell_depth": fields.get("requested_depth", fields.get("depth")),
        "question": answer.sample.question,
        "gold": answer.sample.gold,
        "answer": answer.text,
        "ended": answer.generated.ended,
        "tokens": len(answer.generated.tokens),
        "other_form": answer.other_form,
        "cut_off": answer.cut_off,
        "signals": answer.generated.signals,
        "token": None if token is None else _token_record(llm, probes, answer, token, readings),
        "interventions": {} if token is None else _outcomes(answer, token, readings),
    }
    return dict(strict(found))


def _token_record(
    llm: LLM,
    probes: Sequence[ReadProbe],
    answer: DiagnosedAnswer,
    token: CriticalToken,
    readings: dict[str, Reading],
) -> dict[str, Any]:
    prior, blind = readings.get("prior"), readings.get("no_context")
    prior_wins = prior is not None and prior.token == token.wrong
    segments, margins = answer.segments, _margins(token)
    evidence, matched = len(segments.evidence), _matched(segments)
    named = most_opposing(margins, evidence)
    heads = [divmod(head, int(llm.model.config.num_attention_heads)) for head in (answer.heads or ([],))[0]]
    return {
        "position": token.position,
        "of": len(answer.gold.gold),
        "right": llm.tokenizer.decode([token.right]),
        "wrong": llm.tokenizer.decode([token.wrong]),
        "log_probs": list(token.log_probs),
        "prior_log_probs": None if prior is None else list(prior.log_probs),
        "prior": None if prior is None else llm.tokenizer.decode([prior.token]),
        "attended": attended_margin(token.attention, evidence, matched),
        "written": written_score(token.to_right.sum(dim=0), evidence, matched),
        "outvoted": outvoted_share(margins, evidence),
        "prior_wins": prior_wins,
        "follows": blind is not None and blind.token == token.wrong and not prior_wins,
        "matched": sum(segments.matched),
        "segment": None if named is None else _source(llm, answer, margins, evidence + named),
        "sources": [_source(llm, answer, margins, place) for place in _shown(margins)],
        "heads": [list(head) for head in heads],
        "predictions": predictions(probes, token.states, acting_heads(token.attention, evidence)),
    }


def _matched(segments: Segments) -> Tensor:
    return torch.tensor(segments.matched, dtype=torch.bool)


def _shown(margins: Tensor) -> list[int]:
    """Sources of the largest margins, then of the smallest ones."""
    order = margins.argsort(descending=True, stable=True).tolist()
    return list(dict.fromkeys([*order[:SHOWN], *order[-SHOWN:]]))


def _source(llm: LLM, answer: DiagnosedAnswer, margins: Tensor, place: int) -> dict[str, Any]:
    """A source with its text, and what it writes."""
    segments = answer.segments
    start, end = (*segments.evidence, *segments.others)[place]
    return {
        "start": start,
        "end": end,
        "text": llm.tokenizer.decode(answer.sample.ids[start:end]),
        "evidence": place < len(segments.evidence),
        "margin": float(margins[place]),
    }


def _outcomes(answer: DiagnosedAnswer, token: CriticalToken, readings: dict[str, Reading]) -> dict[str, Any]:
    """Of each intervention whether the right token is now the choice, whether it changed, and the whole answer."""
    found = {
        name: {"rescued": one.token == token.right, "changed": one.token != token.wrong, "exact": one.exact}
        for name, one in readings.items()
        if name in INTERVENTIONS
    }
    chosen = zip(("amplified", "amplified_random"), answer.amplified, strict=False)
    return found | {
        name: {"rescued": one == token.right, "changed": one != token.wrong, "exact": None} for name, one in chosen
    }
