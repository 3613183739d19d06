"""`lightning test -c configs/grounding.yaml`: its files, going on after a stop, scores of trials, refusals."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from extract.llm import LLM
from extract.tasks import AnswerFormat, PromptBatch, contains
from extract.tasks.sources import Record, SyntheticQA
from probe.attribution import SourcedPrompts, record_answers
from probe.attribution.citations.spans import words
from probe.attribution.grounding import (
    BASELINES,
    CONTEXTS,
    SCORES,
    Grounding,
    GroundingOutcomes,
    TrainingShare,
    questions_of,
)
from probe.attribution.grounding.contexts import context_words
from probe.attribution.grounding.labels import answer_span, tokens_of
from probe.attribution.grounding.tables import grounding_tables, plot_auroc
from probe.attribution.grounding.trial import grounding_trials
from probe.metrics import Bootstrap
from tests.conftest import Run
from tests.helpers.measured import Measure, measured

NAMES = [*SCORES, *BASELINES]


@pytest.fixture
def measure(run: Run, tiny_llm_folder: Path, tmp_path: Path) -> Measure:
    """Results of a run of six questions of the tiny LLM, or its refusal."""
    return measured("grounding", run, tiny_llm_folder, tmp_path)


def test_a_run_leaves_its_results_and_goes_on(
    measure: Measure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = measure()
    assert isinstance(found, dict), found
    assert (found["experiment"], found["questions"], found["training_questions"]) == ("grounding", 6, 2)
    assert found["left_out"] == {}
    # A random model never has the gold answer, so that no answer is grounded by construction, and no area is defined.
    assert found["answers"]["removed"]["not grounded"] + found["answers"]["removed"]["no label"] == 6
    assert list(found["auroc"]["all"]["token"]) == NAMES
    assert {cell["value"] for cell in found["auroc"]["all"]["token"].values()} == {None}
    assert len(found["pairs"]["all"]["answer"]) == len(SCORES) * len(BASELINES)
    with (tmp_path / "out" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["context"] for row in rows] == [*CONTEXTS] * 6
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("results.json", "results.csv", "auroc.png", "auroc.pdf")
    }
    (tmp_path / "trials" / "000001.json").unlink()
    ran, step = list[int](), Grounding.test_step

    def counted(self: Grounding, batch: PromptBatch) -> None:
        ran.append(batch.number)
        step(self, batch)

    monkeypatch.setattr(Grounding, "test_step", counted)
    assert measure()["answers"] == found["answers"]
    assert ran == [1]
    assert "other settings (unit" in measure("--model.init_args.unit", "passage")


def test_scores_of_a_trial_are_those_of_its_definitions(tiny_llm_folder: Path) -> None:
    model, form = LLM(str(tiny_llm_folder)), AnswerFormat()
    questions, _ = questions_of(SyntheticQA(2, seed=4).load().records)
    question, maker = questions[0], SourcedPrompts(model)
    prompts = {name: maker.build(one.question, one.passages) for name, one in question.records.items()}
    records = {name: record_answers(model, [prompt], budget=8)[0] for name, prompt in prompts.items()}
    trials = grounding_trials(model, form, question, prompts, records)
    assert any(trial["tokens"] for trial in trials)
    for trial in trials:
        record, prompt = records[trial["context"]], prompts[trial["context"]]
        assert trial["generation"] == record.text
        if not trial["tokens"]:
            continue
        assert record.text.count(trial["answer"]) >= 1
        text = context_words(question.records[trial["context"]])
        assert trial["in_context"] == bool(contains(text, trial["answer"]))
        bare = prompt.builder.build(Record("1", prompt.question, "", ())).tokenized.ids
        answer = record.tokens.tolist()
        with torch.inference_mode():
            logits = model.model(torch.tensor([[*bare, *answer[:-1]]])).logits[0, len(bare) - 1 :].float()
        drops = record.log_probs - logits.log_softmax(-1)[range(len(answer)), answer]
        attended = record.attention.sum((1, 2))
        plain = {
            "low entropy": -record.entropies,
            "drop without context": drops,
            "attention share, all heads": attended[:, :-2].sum(1) / attended.sum(1),
            "contribution of the context": record.contribution[..., :-2].sum((1, 2, 3)),
        }
        span = answer_span(form, record.text)
        assert span is not None
        tokens = tokens_of(record.texts, span)
        for name, values in plain.items():
            wanted = [float(values[next(w for w in words(record.texts) if token in w)].mean()) for token in tokens]
            assert trial["token_scores"][name] == pytest.approx(wanted, abs=1e-3)
            assert trial["scores"][name] == pytest.approx(float(np.mean(wanted)), abs=1e-3)


LABELS: tuple[list[bool | None], ...] = ([True, None], [False], [True, False])


def made_up(questions: int) -> list[dict[str, Any]]:
    rng, trials = np.random.default_rng(0), list[dict[str, Any]]()
    for sample in range(questions):
        for context, labels in zip(CONTEXTS, LABELS, strict=True):
            grounded, tokens = labels[sample % len(labels)], int(rng.integers(1, 4))
            scores = {
                name: (rng.normal(size=tokens) + bool(grounded) * number / 4).tolist()
                for number, name in enumerate(NAMES)
            }
            trials.append({"sample": sample, "context": context, "grounded": grounded, "tokens": tokens})
            trials[-1] |= {"in_context": bool(rng.random() < 0.5), "token_scores": scores}
            trials[-1] |= {"scores": {name: float(np.mean(values)) for name, values in scores.items()}}
    return trials


def test_areas_are_of_held_out_questions_and_thresholds_of_the_others() -> None:
    trials, training = made_up(40), TrainingShare(0.25, seed=3)
    outcomes = GroundingOutcomes(trials[::-1], training)
    chosen = outcomes.training
    assert len(chosen) == 10
    found = outcomes.measured(Bootstrap(resamples=50))
    known = [trial for trial in trials if trial["grounded"] is not None and trial["sample"] not in chosen]
    for name in NAMES:
        areas = found["auroc"]["all"]
        labels = [trial["grounded"] for trial in known]
        assert areas["answer"][name]["value"] == pytest.approx(
            roc_auc_score(labels, [trial["scores"][name] for trial in known])
        )
        by_token = [(trial["grounded"], value) for trial in known for value in trial["token_scores"][name]]
        assert areas["token"][name]["value"] == pytest.approx(roc_auc_score(*zip(*by_token, strict=True)))
        threshold = found["thresholds"][name]
        reached = np.mean([value >= threshold["threshold"] for grounded, value in by_token if grounded])
        assert threshold["recall_grounded"]["value"] == pytest.approx(reached)
        assert threshold["recall_grounded"]["low"] <= reached <= threshold["recall_grounded"]["high"]
    fewer = [trial for trial in known if trial["context"] == "contradiction"]
    assert found["classes"]["contradiction"]["answer"] == {
        "positive": sum(trial["grounded"] for trial in fewer),
        "negative": sum(not trial["grounded"] for trial in fewer),
        "questions": len(fewer),
    }
    negative = [trial for trial in known if not trial["grounded"]]
    for group, stated in (("stated elsewhere", True), ("not stated", False)):
        wanted = sum(trial["in_context"] == stated for trial in negative)
        assert found["classes"][group]["answer"]["negative"] == wanted
        assert found["classes"][group]["answer"]["positive"] == len(known) - len(negative)
    again = GroundingOutcomes(trials, TrainingShare(0.25, seed=4)).measured(Bootstrap(resamples=50))
    assert again["thresholds"] != found["thresholds"]
    results = {**found, "llm": {"name": "made up"}}
    assert grounding_tables(results).renderables
    assert plot_auroc(results).axes


def test_bad_settings_are_one_line_before_weights_load(measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LLM, "model", property(lambda _: pytest.fail("weights were loaded")))
    ranges = {name: {"low": 20, "high": 30} for name in ("lengths", "depths")}
    niah = json.dumps({"class_path": "extract.NIAH", "init_args": ranges})
    task = "--data.init_args.task.init_args"
    for wrong, args in (
        ("grounding needs the full context", (f"{task}.context", "gold")),
        ("evaluated on generated answers", (f"{task}.teacher_forcing", "true")),
        ("runs on datamodules.Prompts with extract.MultiHopQA", ("--data.init_args.task", niah)),
        ("no question whose evidence can be replaced", (f"{task}.source.init_args.count", "1")),
        ("share", ("--model.init_args.training_questions.share", "1")),
        ("unit", ("--model.init_args.unit", "word")),
    ):
        said = measure(*args)
        errors = [line for line in said.splitlines() if line.startswith("error:")]
        assert len(errors) == 1, said
        assert wrong in errors[0]
