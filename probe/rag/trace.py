"""A finished run of masked RAG in plain values: what happened, what it found and what it cost."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from extract.prompts import decode_text
from probe.rag.loop import Round, Run


def trace(run: Run, grade: dict[str, float], heads_per_layer: int) -> dict[str, Any]:
    """Everything about a finished run, in plain values."""
    sample = run.question.sample
    return {
        "sample": sample.index,
        "id": sample.id,
        "question": sample.question,
        "gold": sample.gold,
        "strategy": run.strategy.name,
        "context": list(run.question.context),
        "evidence": [list(span) for span in sample.evidence],
        "rounds": [_round(run, round_, heads_per_layer) for round_ in run.rounds],
        "text": run.text,
        "stop": run.stop,
        "metrics": {**grade, **{name: _plain(value) for name, value in figures(run).items()}},
    }


def _round(run: Run, round_: Round, heads_per_layer: int) -> dict[str, Any]:
    found, ids = round_.retrieved, run.question.sample.ids
    return {
        "draft": round_.draft,
        "words": [asdict(word) for word in round_.decision.words],
        "hit": round_.decision.hit,
        "kept": round_.kept,
        "heads": None if found is None or found.heads is None else [divmod(h, heads_per_layer) for h in found.heads],
        "windows": None if found is None else [_window(run, start, end, ids) for start, end in found.windows],
        "rewrite": round_.rewrite,
    }


def _window(run: Run, start: int, end: int, ids: list[int]) -> dict[str, Any]:
    return {"start": start, "end": end, "text": decode_text(run.tokenizer, ids[start:end])}


def figures(run: Run) -> dict[str, float]:
    """What a run cost and found; NaN where nothing was retrieved or nothing can be."""
    found = [round_.retrieved for round_ in run.rounds if round_.retrieved is not None]
    shown = [{position for start, end in one.windows for position in range(start, end)} for one in found]
    if not found and not run.strategy.bare and run.strategy.first(run.question):
        shown = [{i for start, end in run.strategy.first(run.question) for i in range(start, end)}]
    evidence = run.question.evidence
    recall = [_share(one & evidence, evidence) for one in shown]
    precision = [_share(one & evidence, one) for one in shown]
    return {
        "recall": _mean(recall),
        "precision": _mean(precision),
        "first_recall": recall[0] if recall else float("nan"),
        "first_chance": len(shown[0]) / (run.question.context[1] - run.question.context[0]) if shown else float("nan"),
        "visible": _mean([len(one) for one in shown]),
        "retrievals": len(found),
        "stuck": run.stuck,
        "masked_tokens": run.masked,
        "forward_tokens": run.masked + run.looked + run.weighed,
    }


def _plain(value: float) -> float | None:
    """JSON knows no NaN."""
    return None if math.isnan(value) else value


def _share(part: set[int], whole: set[int]) -> float:
    return len(part) / len(whole) if whole else float("nan")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
