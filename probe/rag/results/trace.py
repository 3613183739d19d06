"""Trace of a run of masked RAG, in plain values: its rounds, its answer, what was retrieved and what it cost."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from extract.prompts import Span, decode_text

if TYPE_CHECKING:  # reading traces needs no model
    from extract.heads import HeadGrid
    from probe.rag.loop import Round, Run

Trace = dict[str, Any]
"""A line of `traces.jsonl`."""


def run_trace(run: "Run", answer_metrics: dict[str, float], grid: "HeadGrid") -> Trace:
    """Trace of a finished run.

    Args:
        run: The run.
        answer_metrics: Metrics of its answer.
        grid: The model's heads.

    """
    sample = run.question.sample
    return {
        "sample": sample.index,
        "id": sample.name,
        "question": sample.question,
        "gold": sample.gold,
        "strategy": run.strategy.name,
        "context": list(run.question.context),
        "evidence": [list(span) for span in sample.evidence],
        "rounds": [_round(run, round_, grid) for round_ in run.rounds],
        "text": run.text,
        **({} if run.settings.opening is None else {"continuation": run.forced_text}),
        "stop": run.stop,
        "metrics": {**answer_metrics, **{name: _without_nan(value) for name, value in run_metrics(run).items()}},
    }


def _round(run: "Run", round_: "Round", grid: "HeadGrid") -> dict[str, Any]:
    found = round_.retrieved
    heads = None if found is None or found.heads is None else [grid.layer_and_head(head) for head in found.heads]
    return {
        "draft": round_.draft,
        "words": [asdict(word) for word in round_.decision.words],
        "hit": round_.decision.hit,
        "kept": round_.kept,
        "heads": heads,
        "windows": None if found is None else [_window(run, window) for window in found.windows],
        "rewrite": round_.rewrite,
    }


def _window(run: "Run", window: Span) -> dict[str, Any]:
    start, end = window
    return {"start": start, "end": end, "text": decode_text(run.tokenizer, run.question.sample.ids[start:end])}


def run_metrics(run: "Run") -> dict[str, float]:
    """Retrieval metrics and cost of a run; NaN where nothing was retrieved, or the question has no evidence.

    recall, precision: |V ∩ E| / |E| and |V ∩ E| / |V| of the visible context tokens V and the supporting facts' tokens
    E, mean over the retrievals (without any: of the initial windows). first_recall: recall of the first retrieval.
    first_chance: its expected value for as many tokens sampled at random, |V| / |C| with the context's tokens C.
    visible: |V|. stuck: sentences that fired again after their last retry. forced_tokens: tokens run for a forced
    opening and what follows it, where openings are forced; masked_tokens and forward_tokens do not include them.
    """
    evidence, (start, end) = run.question.evidence, run.question.context
    visible = _visible_sets(run)
    recall = [_share(len(one & evidence), len(evidence)) for one in visible]
    precision = [_share(len(one & evidence), len(one)) for one in visible]
    return {
        "recall": _mean(recall),
        "precision": _mean(precision),
        "first_recall": recall[0] if recall else math.nan,
        "first_chance": len(visible[0]) / (end - start) if visible else math.nan,
        "visible": _mean([len(one) for one in visible]),
        "retrievals": sum(round_.retrieved is not None for round_ in run.rounds),
        "stuck": run.stuck,
        "masked_tokens": run.masked_tokens,
        "forward_tokens": run.forward_tokens,
        **({} if run.settings.opening is None else {"forced_tokens": run.forced_tokens}),
    }


def _visible_sets(run: "Run") -> list[set[int]]:
    """Visible context tokens of each retrieval; of a run without any, those visible from the start."""
    windows = [round_.retrieved.windows for round_ in run.rounds if round_.retrieved is not None]
    if not windows and not run.strategy.without_context and (initial := run.strategy.initial_windows(run.question)):
        windows = [initial]
    return [{position for start, end in spans for position in range(start, end)} for spans in windows]


def _without_nan(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value


def _share(part: int, total: int) -> float:
    return part / total if total else math.nan


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
