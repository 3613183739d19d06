"""Heads that a probe predicts for critical tokens: from the right hidden states, counted as they are."""

import html
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from extract.llm import LLM
from probe import ProbeClassifier, ProbeRegressor
from probe.diagnosis import Recording, TrainingPrompts, record_batch
from probe.diagnosis.experiment import predicted_summary
from probe.diagnosis.predicted_heads import EXPECTED, PREDICTED, ReadProbe, acting_heads, predictions
from probe.metrics import Bootstrap
from probe.models import Probe, save_pretrained
from tests.conftest import Run
from tests.helpers.measured import measured
from tests.probe.diagnosis.test_answers import Words, small


def saved(folder: Path, llm: LLM, kind: type[Probe], offset: int = 0) -> str:
    """An untrained probe of a model."""
    torch.manual_seed(offset)
    config = llm.model.config
    heads = config.num_hidden_layers * config.num_attention_heads
    made = kind(in_features=config.hidden_size, num_heads=heads, hidden=(8,))
    made.head_means.copy_(torch.rand(heads))
    if isinstance(made, ProbeClassifier):
        made.threshold = torch.tensor(0.5)
    made.training_record = {
        **{"llm": llm.identity.as_dict(), "store": "s", "target": made.target, "seen": []},
        **{"split": {"seed": 0, "offset": offset, "by": "sample", "sizes": {"train": 1}, "fractions": [0.7, 0.2, 0.1]}},
    }
    save_pretrained(made, folder)
    return str(folder)


def reader(steps: tuple[int, ...], *others: int) -> Recording:
    probes = tuple(ReadProbe(None, one, []) for one in (steps, *((other,) for other in others)))  # type: ignore[arg-type]
    return Recording("right", 3, TrainingPrompts(0.0), None, probes)


def test_states_are_those_of_the_steps_before_a_critical_token(llm: LLM, tmp_path: Path) -> None:
    """Also of steps that the answer shares, as far as the prompt's last token; the record is the same without."""
    model, task, how = small(llm, "llama-gqa", tmp_path), Words(), reader((0, 1), 6)
    task.prepare(model)
    samples = [task.sample(index) for index in task.order()]
    bare = record_batch(model, task, samples, Recording("right", 3, TrainingPrompts(0.0), None))
    for answer, other in zip(record_batch(model, task, samples, how), bare, strict=True):
        token, sample = answer.token, answer.sample
        assert token is not None
        assert other.token is not None
        assert (token.position, token.wrong) == (other.token.position, other.token.wrong)
        ids = [*sample.ids, *answer.gold.lead, *answer.gold.gold[: token.position]]
        with torch.inference_mode():
            states = model.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0]
        assert len(token.states) == min(6, len(ids) - len(sample.ids)) + 1
        for steps, state in enumerate(token.states):
            torch.testing.assert_close(state, states[-1 - steps], atol=1e-4, rtol=1e-3)


def test_expected_predicted_and_acting_heads_are_counted(llm: LLM, tmp_path: Path) -> None:
    model = small(llm, "llama-gqa", tmp_path / "llm")
    probes = [
        ReadProbe.of(saved(tmp_path / "now", model, ProbeClassifier), model),
        ReadProbe.of(saved(tmp_path / "later", model, ProbeRegressor, offset=2), model),
    ]
    assert [one.steps for one in probes] == [(0, 1, 4), (2,)]
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(4, model.model.config.hidden_size, generator=generator)
    attention = torch.rand(len(probes[0].probe.head_means), 5, generator=generator)
    acting = acting_heads(attention, evidence=2)
    assert acting.tolist() == [max(row[:2]) > max(row[2:]) for row in attention.tolist()]
    assert acting_heads(attention[:, :2], evidence=2).all()
    found = predictions(probes, states, acting)
    # Step 4 is before the answer.
    assert [(one["probe"], one["steps"]) for one in found] == [(0, 0), (0, 1), (1, 2)]
    for one in found:
        probe = probes[one["probe"]].probe
        means = probe.head_means.tolist()
        expected = sorted(range(len(means)), key=lambda head: -means[head])[:EXPECTED]
        with torch.inference_mode():
            scores = probe.predict_scores(states[one["steps"]][None])[0].tolist()
        best = sorted(range(len(means)), key=lambda head: -scores[head])[:PREDICTED]
        chosen = best if isinstance(probe, ProbeRegressor) else [n for n, score in enumerate(scores) if score >= 0.5]
        both = [head for head in chosen if acting[head]]
        assert one["expected"] == len(expected)
        assert one["predicted"] == len(set(expected) & set(chosen))
        assert one["acted"] == sum(bool(acting[head]) for head in expected)
        assert one["both"] == len(set(expected) & set(both))
        assert (one["all_predicted"], one["all_both"]) == (len(chosen), len(both))


def test_failed_answers_are_compared_with_solved_ones() -> None:
    """Held-out failures with solved training answers: shares, and the Mann-Whitney test of a planted difference."""
    rng = np.random.default_rng(0)

    def trial(failed: bool, training: bool, predicted: int) -> dict[str, Any]:
        one = {"probe": 0, "steps": 1, "expected": 10, "predicted": predicted, "acted": 4}
        return {"failed": failed, "training": training, "token": {"predictions": [one]}}

    failed, solved = rng.integers(0, 6, 30).tolist(), rng.integers(4, 10, 30).tolist()
    trials = [trial(True, False, value) for value in failed] + [trial(False, True, value) for value in solved]
    trials += [trial(True, True, 10), {"failed": True, "training": False, "token": None}]
    trials += [{"failed": True, "training": False, "token": {}}]  # of an earlier version
    predicted, acted = predicted_summary(trials, Bootstrap(resamples=200))
    assert (predicted["share"], predicted["steps"]) == ("predicted", 1)
    assert predicted["failed"]["value"] == pytest.approx(sum(failed) / 300)
    assert predicted["solved"]["value"] == pytest.approx(sum(solved) / 300)
    assert predicted["failed"]["low"] < predicted["failed"]["value"] < predicted["failed"]["high"]
    assert predicted["p"] == pytest.approx(stats.mannwhitneyu(failed, solved).pvalue)
    assert predicted["p_holm"] == pytest.approx(2 * predicted["p"])
    assert (acted["failed"]["value"], acted["p"]) == (pytest.approx(0.4), 1.0)
    alone = predicted_summary(trials[:30], Bootstrap(resamples=10))
    assert [(one["p"], one["solved"]["n"]) for one in alone] == [(None, 0)] * 2
    assert predicted_summary(trials[-2:], Bootstrap(resamples=10)) == []


def test_a_run_reads_its_probe(run: Run, tiny_llm_folder: Path, tmp_path: Path) -> None:
    measure = measured("diagnosis", run, tiny_llm_folder, tmp_path)
    probe = saved(tmp_path / "probe", LLM(str(tiny_llm_folder)), ProbeClassifier)
    later = saved(tmp_path / "later", LLM(str(tiny_llm_folder)), ProbeRegressor, offset=1)
    found = measure("--model.init_args.probe", json.dumps([probe, later]), "--model.init_args.interventions", "null")
    assert isinstance(found, dict), found
    assert [one["steps"] for one in found["probes"]] == [[0, 1, 4], [1]]
    records = {(one["steps"], one["share"]): one for one in found["expected_heads"]}
    assert records[0, "acted"]["failed"]["n"] == found["held_out_failures"]
    page = tmp_path / "cards.html"
    assert run("diagnose", tmp_path / "out" / "results.json", "--output", page)[0] == 0
    assert "expected heads attended to the evidence most" in html.unescape(page.read_text())

    assert "(probes" in measure("--model.init_args.interventions", "null")
    said = measure("--model.init_args.probe", tmp_path / "none")
    assert len([line for line in said.splitlines() if line.startswith("error:")]) == 1
