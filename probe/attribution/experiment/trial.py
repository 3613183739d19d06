"""Trials of one answer: every method's scores of its sources, evaluated on held-out ablations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from extract.llm import LLM
from extract.tasks import contains
from extract.tasks.sources import Record
from extract.utils import PositiveInt, Seed, check_fields
from probe.attribution.ablated_runs import AblatedRuns
from probe.attribution.masks import held_out_masks, leave_one_out_masks
from probe.attribution.methods import AttributionMethod
from probe.attribution.metrics import (
    largest_drop_share,
    linear_datamodeling_score,
    mean_rank,
    precision_recall,
    without_top,
)
from probe.attribution.prompts import SourcedPrompt
from probe.attribution.record import AttributionRecord
from probe.results import strict


@dataclass(frozen=True)
class Evaluation:
    """How attributions are evaluated.

    Attributes:
        held_out: Ablated runs of the linear datamodeling score; no method uses them. Fewer for a few sources.
        top: Numbers of top sources whose removal is measured.
        cited: Top sources that count as cited, for precision and recall on supporting facts.
        seed: Of the held-out masks.

    """

    held_out: PositiveInt = 32
    top: tuple[PositiveInt, ...] = (1, 3, 5)
    cited: PositiveInt = 2
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_fields(self)


def supporting_sources(record: Record, prompt: SourcedPrompt) -> list[int]:
    """Sources that share a character with a supporting fact.

    Args:
        record: Passages with their evidence.
        prompt: Sources of the same passages.

    """
    facts = [passage.evidence for passage in record.passages]
    return [
        number
        for number, source in enumerate(prompt.sources)
        if any(start < source.end and end > source.start for start, end in facts[source.document])
    ]


def attribution_trials(
    llm: LLM,
    methods: Sequence[AttributionMethod],
    evaluation: Evaluation,
    record: Record,
    prompt: SourcedPrompt,
    answer: AttributionRecord,
) -> list[dict[str, Any]]:
    """Metrics of each method on one answer, without those that identify the sample.

    Args:
        llm: The frozen model.
        methods: The methods.
        evaluation: How they are evaluated.
        record: The question, its gold answer and its passages.
        prompt: Its sources.
        answer: What was generated or given.

    """
    sources = len(prompt.sources)
    held_out = held_out_masks(evaluation.held_out, sources, evaluation.seed)
    runs = AblatedRuns(llm, prompt, answer.tokens, held_out)
    masks = [method.ablations(runs) for method in methods]
    # All runs of all methods together, so that they share forwards.
    runs.log_probs(torch.cat([held_out, leave_one_out_masks(sources), *masks]))
    scores = [method.scores(answer, prompt, runs) for method in methods]
    top = [without_top(one, size) for one in scores for size in evaluation.top]
    runs.log_probs(torch.stack(top) if top else held_out)
    facts = supporting_sources(record, prompt)
    plain = len(prompt.ids) + len(answer.tokens)
    found = []
    for method, needed, one in zip(methods, masks, scores, strict=True):
        cost = runs.cost(needed)
        counted = {"runs": len(needed), "forward_tokens": cost, "forward_ratio": cost / plain}
        metrics = {
            **_metrics(evaluation, runs, held_out, answer, one),
            **_evidence(evaluation, record, prompt, facts, one),
        }
        found.append({"method": method.name, "metrics": strict({**metrics, **counted}), "scores": one.tolist()})
    return found


def _metrics(
    evaluation: Evaluation,
    runs: AblatedRuns,
    held_out: Tensor,
    answer: AttributionRecord,
    scores: Float[Tensor, "source"],
) -> dict[str, float]:
    """Faithfulness: what the model does without sources."""
    whole, drops = float(answer.log_probs.sum()), leave_one_out_masks(runs.sources)
    without = [without_top(scores, size)[None] for size in evaluation.top]
    log_probs = [float(runs.log_probs(mask).sum()) for mask in without]
    return {
        "lds": linear_datamodeling_score(scores, held_out, runs.log_probs(held_out).sum(dim=1)),
        **{f"drop_{size}": whole - value for size, value in zip(evaluation.top, log_probs, strict=True)},
        "largest_drop_share": largest_drop_share(scores, whole - runs.log_probs(drops).sum(dim=1)),
    }


def _evidence(
    evaluation: Evaluation, record: Record, prompt: SourcedPrompt, facts: list[int], scores: Float[Tensor, "source"]
) -> dict[str, float]:
    """Agreement with the supporting facts; the planted source is the fact that has the gold answer."""
    texts = prompt.source_texts()
    planted = [number for number in facts if contains(texts[number], record.answer)]
    precision, recall = precision_recall(scores, facts, evaluation.cited)
    return {"planted_rank": mean_rank(scores, planted), "precision": precision, "recall": recall}


def sample_fields(
    prompt: SourcedPrompt, answer: AttributionRecord, record: Record, correct: float
) -> Mapping[str, Any]:
    """What a trial says of the answer, whatever the method."""
    return {
        "tokens": len(answer.tokens),
        "sources": len(prompt.sources),
        "prompt_tokens": len(prompt.ids),
        "copied_tokens": int(answer.copies.flatten(1).any(dim=1).sum()),
        "log_prob": float(answer.log_probs.sum()),
        "correct": correct,
        "gold": record.answer,
        "answer": answer.text,
    }
