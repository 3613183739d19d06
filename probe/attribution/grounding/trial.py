"""Trials of one question: its answer in each context, with label and scores."""

from typing import Any

import torch
from torch import Tensor

from extract.llm import LLM
from extract.tasks import AnswerFormat, contains
from probe.attribution.ablated_runs import AblatedRuns
from probe.attribution.grounding.contexts import Context, Question, context_words
from probe.attribution.grounding.labels import answer_span, label, tokens_of
from probe.attribution.grounding.scores import Measured, answer_scores, token_scores
from probe.attribution.prompts import SourcedPrompt
from probe.attribution.record import AttributionRecord
from probe.results import Trial, strict


def without_context(llm: LLM, prompt: SourcedPrompt, record: AttributionRecord) -> Tensor:
    """Log-probability of each token of an answer without any passage in the prompt."""
    if not len(record.tokens):
        return torch.zeros(0)
    runs = AblatedRuns(llm, prompt, record.tokens)
    return runs.log_probs(torch.zeros(1, runs.sources, dtype=torch.bool))[0]


def grounding_trials(
    llm: LLM,
    form: AnswerFormat,
    question: Question,
    prompts: dict[Context, SourcedPrompt],
    records: dict[Context, AttributionRecord],
) -> list[Trial]:
    """One trial for each context, without the fields that identify the sample.

    Args:
        llm: The frozen model.
        form: How an answer is found in a generation.
        question: The question with its contexts.
        prompts: Their prompts.
        records: The answers to them.

    """
    spans = {context: answer_span(form, record.text) for context, record in records.items()}
    answers = {name: None if span is None else records[name].text[slice(*span)] for name, span in spans.items()}
    found = []
    for context, record in records.items():
        span, answer, text = spans[context], answers[context], context_words(question.records[context])
        tokens = [] if span is None else tokens_of(record.texts, span)
        grounded = label(context, answers, question.gold, question.planted) if tokens else None
        fields: Trial = {"context": context, "gold": question.gold, "planted": question.planted, "answer": answer}
        fields |= {"generation": record.text, "tokens": len(tokens), "grounded": grounded, "in_context": None}
        fields |= {"scores": {}, "token_scores": {}}
        if tokens:
            measured = Measured(record, text, without_context(llm, prompts[context], record))
            by_token = token_scores(measured)
            fields["in_context"] = bool(contains(text, answer or ""))
            fields["scores"] = strict(answer_scores(by_token, tokens, measured))
            fields["token_scores"] = {name: values[tokens].tolist() for name, values in by_token.items()}
        found.append(fields)
    return found


def record_fields(trial: Trial) -> dict[str, Any]:
    """A trial as a flat row: its scores as columns, without those of tokens."""
    left_out = ("scores", "token_scores")
    return {**{name: value for name, value in trial.items() if name not in left_out}, **trial["scores"]}
