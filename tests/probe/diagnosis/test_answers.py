"""Recorded answers, critical tokens and interventions against plain eager forwards."""

from pathlib import Path
from typing import Any

import pytest
import torch

from extract import NIAH
from extract.attention import RecordingPlan, instrumented, recording
from extract.generation import decode
from extract.llm import LLM
from extract.tasks import GoldContinuation, Sample, Task
from probe.diagnosis import Intervening, Recording, TrainingPrompts, diagnosis_trials, record_batch
from probe.diagnosis.answers import DiagnosedAnswer
from probe.diagnosis.critical_token import CriticalToken, gold_tokens, has_content
from probe.diagnosis.interventions import Request, read, removed
from tests.helpers.families import FAMILIES, projected, save
from tests.helpers.reference import replay
from tests.helpers.reference_contributions import contributions

EARLY = 3
TEXTS = ("abc", "The green boat", "12 - it")


class Words(Task):
    """Prompts of random tokens with two spans of evidence, whose gold answers are a few words."""

    def __init__(self, solved: bool = False) -> None:
        self.solved = solved

    def prepare(self, llm: LLM) -> None:
        self.llm = llm

    def __len__(self) -> int:
        return len(TEXTS)

    def sample(self, index: int) -> Sample:
        generator = torch.Generator().manual_seed(index)
        ids = torch.randint(300, 4000, (40 + 7 * index,), generator=generator).tolist()
        return Sample(index, str(index), ids, [(8, 12), (20, 25)], 6 + index, "Which?", TEXTS[index])

    def context_span(self, index: int) -> tuple[int, int]:
        return 4, 36 + 6 * index

    def gold_continuation(self, sample: Sample, answer: str, solved: bool) -> GoldContinuation:
        del answer, solved
        return GoldContinuation("It is", f" {sample.gold}")

    def grade(self, sample: Sample, answer: str) -> dict[str, float]:
        del sample, answer
        return {"right": float(self.solved)}

    def describe(self) -> dict[str, Any]:
        return {}


class Models:
    """Tiny models with the embedded tokenizer, and the same with eager attention; each is made once."""

    def __init__(self, llm: LLM, folder: Path) -> None:
        self._llm, self._folder, self._made = llm, folder, dict[str, tuple[LLM, Any]]()

    def __call__(self, name: str) -> tuple[LLM, Any]:
        if name not in self._made:
            model = small(self._llm, name, self._folder / name)
            self._made[name] = model, LLM(model.name, attention="eager").model
        return self._made[name]


@pytest.fixture(scope="module")
def models(llm: LLM, tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(llm, tmp_path_factory.mktemp("diagnosed"))


def small(llm: LLM, name: str, folder: Path) -> LLM:
    family = FAMILIES[name]
    sizes = {"vocab_size": len(llm.tokenizer), "max_position_embeddings": 1024}
    chosen = type(family)(family.kind, {**family.options, **sizes}, family.without)
    return LLM(str(save(chosen, llm.tokenizer, folder)), prefill_chunk=11)


def recorded(model: LLM, task: Words, share: float = 0.0) -> list[DiagnosedAnswer]:
    task.prepare(model)
    how = Recording("right", EARLY, TrainingPrompts(share), Intervening(heads=3, factor=2.5))
    return record_batch(model, task, [task.sample(index) for index in task.order()], how)


def critical(eager: Any, llm: LLM, answer: DiagnosedAnswer) -> tuple[int, torch.Tensor, dict[str, Any]]:
    """Position, log-probabilities and the eager replay of a failed answer's gold answer."""
    prompt, gold = answer.sample.ids + answer.gold.lead, answer.gold.gold
    truth = replay(eager, prompt, gold)
    wrong = [
        step
        for step, (chosen, right) in enumerate(zip(truth["tokens"], gold, strict=True))
        if chosen != right and (step >= answer.gold.content or has_content(llm.tokenizer, chosen))
    ]
    return wrong[0], truth["logits"].float().log_softmax(-1), truth


@pytest.mark.parametrize("name", ["llama-gqa", "gemma2"])
def test_a_critical_token_is_that_of_an_eager_forward(name: str, models: Models) -> None:
    """Position, log-probabilities, attention and both tokens' contributions; batched, after the answers' own keys."""
    model, eager = models(name)
    answers = recorded(model, Words())
    for answer in answers:
        token, sources = answer.token, answer.segments.spans
        assert token is not None
        position, log_probs, truth = critical(eager, model, answer)
        gold = answer.gold.gold
        assert (token.position, token.right, token.wrong) == (position, gold[position], truth["tokens"][position])
        wanted = [float(log_probs[position, one]) for one in (token.right, token.wrong)]
        assert list(token.log_probs) == pytest.approx(wanted, abs=1e-4)
        prompt = answer.sample.ids + answer.gold.lead + gold[:position]
        row = truth["attention"][position]
        for number, ((start, end),) in enumerate(sources):
            torch.testing.assert_close(token.attention[:, number], row[:, start:end].sum(1), atol=1e-5, rtol=1e-4)
        for chosen, found in ((token.right, token.to_right), (token.wrong, token.to_wrong)):
            heads = contributions(eager, prompt, [chosen]).tokens[0]
            for number, ((start, end),) in enumerate(sources):
                torch.testing.assert_close(found[:, number], heads[:, start:end].sum(1), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("solved", "share"), [(False, 0.0), (True, 0.999)])
def test_a_critical_token_costs_one_forward_along_the_answer_and_one_step(
    solved: bool, share: float, models: Models
) -> None:
    """However long the answers are; neither keys of a prompt nor those of tokens that an answer shares run again."""
    (model, _), task = models("llama-gqa"), Words(solved)
    task.prepare(model)
    queries = list[tuple[int, int]]()
    hook = model.model.register_forward_pre_hook(
        lambda _, __, inputs: queries.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
    )
    samples = [task.sample(index) for index in task.order()]
    try:
        answers = record_batch(model, task, samples, Recording("right", EARLY, TrainingPrompts(share), None))
    finally:
        hook.remove()
    assert all(answer.token is not None for answer in answers)
    assert queries[-1] == (len(answers), 1)
    longest = max(len(answer.gold.lead) + len(answer.gold.gold) for answer in answers)
    assert queries[-2][0] == len(answers)
    assert queries[-2][1] <= longest
    steps = max(sample.budget for sample in samples)
    assert sum(shape == (len(answers), 1) for shape in queries) == steps + 1
    assert sum(shape[0] == 1 for shape in queries) == sum(-(-(len(one.ids) - 1) // 11) for one in samples)


def test_many_logits_run_in_parts(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = models("llama-gqa")
    together = recorded(model, Words())
    monkeypatch.setattr("probe.diagnosis.critical_token.MOST_LOGITS", 1)
    for one, other in zip(recorded(model, Words()), together, strict=True):
        assert one.token is not None
        assert other.token is not None
        assert (one.token.position, one.token.wrong) == (other.token.position, other.token.wrong)
        torch.testing.assert_close(one.token.to_right, other.token.to_right, atol=1e-4, rtol=1e-3)


def test_a_solved_answer_is_recorded_where_it_came_nearest_to_another_one(models: Models) -> None:
    model, eager = models("llama-gqa")
    for answer in recorded(model, Words(solved=True), share=0.999):
        assert answer.token is not None
        gold = answer.gold.gold
        logits = replay(eager, answer.sample.ids + answer.gold.lead, gold)["logits"].float()
        margins = []
        for step in range(answer.gold.content, len(gold)):
            others = logits[step].clone()
            others[gold[step]] = -torch.inf
            margins.append(float(logits[step, gold[step]] - others.max()))
        step = answer.gold.content + min(range(len(margins)), key=margins.__getitem__)
        assert (answer.token.position, answer.token.right) == (step, gold[step])
    assert all(answer.token is None for answer in recorded(model, Words(solved=True), share=0.0))


def test_answers_are_those_of_extraction_and_signals_those_of_an_eager_forward(models: Models) -> None:
    (model, eager), task = models("llama-gqa"), Words()
    answers = recorded(model, task)
    samples = [task.sample(index) for index in task.order()]
    plain = decode(model, samples)
    for row, (answer, sample) in enumerate(zip(answers, samples, strict=True)):
        tokens = plain.tokens[row, : plain.lengths[row]].tolist()
        assert answer.generated.tokens == [token for token in tokens if token not in model.end_tokens]
        assert answer.generated.ended == (tokens[-1] in model.end_tokens)
        truth, (start, end) = replay(eager, sample.ids, tokens), task.context_span(sample.index)
        for step in range(min(EARLY, len(answer.generated.tokens))):
            at = {name: found[step] for name, found in answer.generated.signals.items()}
            log_probs, attention = truth["logits"][step].log_softmax(-1), truth["attention"][step]
            assert at["entropy"] == pytest.approx(float(-(log_probs.exp() * log_probs).sum()), abs=1e-4)
            assert at["log_prob"] == pytest.approx(float(log_probs[tokens[step]]), abs=1e-4)
            assert at["context_attention"] == pytest.approx(float(attention[:, start:end].sum(1).mean()), abs=1e-5)
            segments = torch.stack([attention[:, a:b].sum(1) for ((a, b),) in answer.segments.spans])
            assert at["peak_attention"] == pytest.approx(float(segments.max()), abs=1e-5)
            ids, best = torch.tensor(sample.ids + tokens), attention.argmax(1)
            copying = (best >= start) & (best < end) & (ids[best] == tokens[step])
            assert at["copying_heads"] == pytest.approx(float(copying.float().mean()), abs=1e-6)
            written = contributions(eager, sample.ids + tokens[:step], [tokens[step]]).tokens[0].sum(0)
            by_source = torch.stack([written[a:b].sum() for ((a, b),) in answer.segments.spans])
            length = len(sample.ids)
            rest = written[:start].sum() + written[end:length].sum()
            total = by_source.abs().sum() + rest.abs() + written[length:].sum().abs()
            assert at["context_contribution"] == pytest.approx(float(by_source.sum() / total), abs=1e-3)


@pytest.mark.parametrize("name", ["llama-gqa", "gemma2", "gpt-neox"])
def test_amplified_heads_are_scaled_at_the_last_query_alone(name: str, models: Models) -> None:
    model, eager = models(name)
    width = int(eager.config.num_attention_heads)
    for answer in recorded(model, Words()):
        assert answer.token is not None
        ids = answer.sample.ids + answer.gold.lead + answer.gold.gold[: answer.token.position]
        assert len(answer.heads[0]) == len(answer.heads[1]) == 3
        assert not set(answer.heads[0]) & set(answer.heads[1])
        for heads, chosen in zip(answer.heads, answer.amplified, strict=True):

            def change(layer: int, read: torch.Tensor, heads: list[int] = heads) -> torch.Tensor:
                parts = read.clone().unflatten(-1, (width, -1))
                for head in heads:
                    if head // width == layer:
                        parts[:, -1, head % width] *= 2.5
                return parts.flatten(-2)

            with torch.inference_mode(), projected(eager, change):
                logits = eager(torch.tensor([ids]), use_cache=False).logits[0, -1]
            assert float(logits.max() - logits[chosen]) < 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_a_scale_is_applied_in_every_family(name: str, llm: LLM, tmp_path: Path) -> None:
    """Of zero it is an ablation; of one it changes nothing; of two it is twice the head's output."""
    model = LLM(str(save(FAMILIES[name], llm.tokenizer, tmp_path))).model
    ids, layers = torch.arange(5, 25)[None], model.config.num_hidden_layers
    width = int(model.config.num_attention_heads)
    ablate = torch.zeros(1, layers, width, dtype=torch.bool)
    ablate[0, 0, 1] = ablate[0, -1, 0] = True

    def logits(plan: RecordingPlan) -> torch.Tensor:
        with torch.inference_mode(), instrumented(model), recording(model, plan):
            found: torch.Tensor = model(input_ids=ids, use_cache=False).logits
        return found

    def doubled(layer: int, read: torch.Tensor) -> torch.Tensor:
        return (read.unflatten(-1, (width, -1)) * (1 + ablate[0, layer].float())[:, None]).flatten(-2)

    assert logits(RecordingPlan(scale=(~ablate).float())).equal(logits(RecordingPlan(ablate=ablate)))
    assert logits(RecordingPlan(scale=torch.ones_like(ablate).float())).equal(logits(RecordingPlan()))
    with torch.inference_mode(), instrumented(model), projected(model, doubled):
        wanted = model(input_ids=ids, use_cache=False).logits
    found = logits(RecordingPlan(scale=1 + ablate.float()))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found, logits(RecordingPlan()), atol=1e-5)


def test_readings_are_those_of_single_forwards(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = models("gemma2")
    monkeypatch.setattr("probe.diagnosis.interventions.MOST_TOKENS", 60)
    generator = torch.Generator().manual_seed(3)
    requests = []
    for length, steps in ((9, 3), (30, 1), (17, 4), (9, 3), (12, 2)):
        ids = torch.randint(300, 4000, (length,), generator=generator).tolist()
        gold = torch.randint(300, 4000, (steps,), generator=generator).tolist()
        requests.append(Request(ids, gold, 77))
    greedy = list(requests[2].ids)
    with torch.inference_mode():
        for _ in range(3):
            greedy.append(int(model.model(torch.tensor([greedy])).logits[0, -1].argmax()))
    requests.append(Request(requests[2].ids, greedy[17:], 77))
    found = read(model, requests)
    for one, request in zip(found, requests, strict=True):
        with torch.inference_mode():
            logits = model.model(torch.tensor([request.ids + request.gold[:-1]])).logits[0].float()
        steps = logits[len(request.ids) - 1 :]
        assert one.token == int(steps[0].argmax())
        log_probs = steps[0].log_softmax(-1)
        assert one.log_probs == pytest.approx((float(log_probs[request.gold[0]]), float(log_probs[77])), abs=1e-4)
        assert one.exact == (steps.argmax(-1).tolist() == request.gold)
    assert [one.exact for one in found] == [False] * 5 + [True]


def test_trials_read_the_prompts_that_they_name(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each intervention shows exactly the tokens that it is to show, before lead and gold answer."""
    (model, _), task = models("llama-gqa"), Words()
    answers, read_prompts = recorded(model, task), list[Request]()

    def noted(model: LLM, requests: list[Request]) -> Any:
        read_prompts.extend(requests)
        return read(model, requests)

    monkeypatch.setattr("probe.diagnosis.trial.read", noted)
    how = Recording("right", EARLY, TrainingPrompts(0.0), Intervening(heads=3, factor=2.5))
    trials = diagnosis_trials(model, task, answers, how)
    prompts = iter(read_prompts)
    for answer, trial in zip(answers, trials, strict=True):
        token: CriticalToken = answer.token  # type: ignore[assignment]
        ids, (start, end) = answer.sample.ids, task.context_span(answer.sample.index)
        added = answer.gold.lead + answer.gold.gold[: token.position]
        evidence = [place for a, b in answer.sample.evidence for place in range(a, b)]
        segment = trial["token"]["segment"]
        named = range(segment["start"], segment["end"])
        opposing = (token.to_right - token.to_wrong).sum(0)[len(answer.segments.evidence) :]
        assert (named.start, named.stop) == answer.segments.others[int(opposing.argmin())]
        hidden: list[Any] = [range(start, end)] * 2
        hidden += [[place for place in range(start, end) if place not in evidence], evidence, named]
        for gone in hidden:
            wanted = [token for place, token in enumerate(ids) if place not in gone]
            assert next(prompts).ids == wanted + added
        random = next(prompts).ids
        assert len(ids) + len(added) - len(random) < len(ids) / 4
        assert random != [token for place, token in enumerate(ids) if place not in named] + added
        assert set(trial["interventions"]) == {
            *("only_evidence", "without_evidence", "without_segment", "without_random"),
            *("amplified", "amplified_random"),
        }
    assert removed([5, 6, 7], (1, 1), []) == [5, 6, 7]


def test_results_do_not_depend_on_the_batch(models: Models) -> None:
    (model, _), task = models("llama-gqa"), Words()
    how = Recording("right", EARLY, TrainingPrompts(0.0), Intervening(heads=3, factor=2.5))
    together = diagnosis_trials(model, task, recorded(model, task), how)
    for index, trial in enumerate(together):
        (alone,) = record_batch(model, task, [task.sample(index)], how)
        (found,) = diagnosis_trials(model, task, [alone], how)
        for name in ("attended", "written", "outvoted"):
            assert found["token"].pop(name) == pytest.approx(trial["token"].pop(name), rel=1e-3, abs=1e-4)
        for name in ("position", "right", "wrong", "heads", "matched"):
            assert found["token"][name] == trial["token"][name]
        assert found["interventions"] == trial["interventions"]


@pytest.mark.slow
def test_the_embedded_llm_copies_a_needle_from_its_evidence(llm: LLM) -> None:
    """At the hardest token of a solved answer some head attends to the needle most, and the needle writes the token."""
    task = NIAH(lengths=[120], depths=[50], runs=1, seed=3)
    task.prepare(llm)
    how = Recording("accuracy", 2, TrainingPrompts(0.999), None)
    (answer,) = record_batch(llm, task, [task.sample(0)], how)
    (trial,) = diagnosis_trials(llm, task, [answer], how)
    assert not trial["failed"]
    assert trial["token"]["attended"] > 0.3
    assert trial["token"]["written"] > 3
    assert trial["interventions"] == {}


def test_gold_tokens_begin_after_the_lead(llm: LLM) -> None:
    found = gold_tokens(llm, GoldContinuation("Well. It is", " - 7f3", "It is"))
    assert llm.tokenizer.decode(found.lead) == "Well. It is"
    assert llm.tokenizer.decode(found.bare) == "It is"
    assert llm.tokenizer.decode(found.gold) == " - 7f3"
    assert llm.tokenizer.decode(found.gold[found.content]).strip() == "7"
