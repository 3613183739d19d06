"""Logit contributions of every family against autograd on a full eager forward with frozen norms."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from extract.contribution import readout_of
from extract.errors import UserError
from extract.generation import Decoded, DynamicHeads, decode, generate_ablated
from extract.llm import LLM
from extract.tasks import Sample
from probe.experiments.ablation import AblateDynamic, NoAblation
from tests.helpers.families import FAMILIES, Family, save
from tests.helpers.reference_contributions import Truth, contributions

LENGTHS = (45, 31, 38)
STEPS = 10
SPANS = (((0, 3),), ((4, 8), (15, 20)), ((20, 29),))
"""Three sources, one of two spans; tokens that belong to none are the rest."""


def samples(steps: int = STEPS) -> list[Sample]:
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(5, 400, (n,), generator=generator).tolist() for n in LENGTHS]
    return [Sample(row, str(row), ids, [(4, 8), (15, 20)], steps, "", "") for row, ids in enumerate(prompts)]


def by_source(truth: Tensor, prompt: int) -> Tensor:
    """A step's contributions of tokens [head, key], summed over each source, the answer, and the rest."""
    members = torch.zeros(truth.shape[1], len(SPANS) + 2)
    for number, source in enumerate(SPANS):
        for start, end in source:
            members[start:end, number] = 1
    members[prompt:, -2] = 1
    members[:, -1] = 1 - members.sum(1)
    return truth @ members


def close(found: Tensor, wanted: Tensor) -> None:
    """Within 1e-4 of the largest contribution of the step."""
    assert float((found - wanted).abs().max()) <= 1e-4 * float(wanted.abs().max())


def follows(decoded: Decoded, row: int, sample: Sample, truth: Truth) -> None:
    assert decoded.contribution is not None
    for step in range(decoded.lengths[row]):
        found = decoded.contribution[row, step]
        close(found, by_source(truth.tokens[step], len(sample.ids)))
        close(found.sum(-1), truth.heads[step])


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, llm: LLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(FAMILIES[request.param], llm.tokenizer, tmp_path_factory.mktemp("family"))


def test_contributions_equal_autograd(folder: Path) -> None:
    """Padded, batched, cached, prefilled in chunks, beyond windows: each source through each head, at each step."""
    llm, chosen = LLM(str(folder), prefill_chunk=13), samples()
    decoded = decode(llm, chosen, sources=[SPANS] * len(chosen))
    eager = LLM(str(folder), attention="eager").model
    for row, sample in enumerate(chosen):
        answer = decoded.tokens[row, : decoded.lengths[row]].tolist()
        follows(decoded, row, sample, contributions(eager, sample.ids, answer))
    evidence = decode(llm, chosen, sources="evidence").contribution
    plain = decode(llm, chosen)
    assert evidence is not None
    assert plain.contribution is None
    torch.testing.assert_close(evidence[..., 0], decoded.contribution[..., 1], atol=1e-5, rtol=1e-4)  # type: ignore[index]
    for name in ("tokens", "hidden", "copy_paste", "reasoning", "argmax"):
        assert getattr(plain, name).equal(getattr(decoded, name)) or name == "reasoning"
    assert plain.reasoning.nan_to_num(-1).equal(decoded.reasoning.nan_to_num(-1))


def tiny(llm: LLM, name: str, folder: Path, **options: Any) -> LLM:
    family = FAMILIES[name]
    return LLM(str(save(replace(family, options={**family.options, **options}), llm.tokenizer, folder)))


def test_multipliers_of_granite(llm: LLM, tmp_path: Path) -> None:
    """Residual and embedding multipliers, and divided logits."""
    multipliers = {"residual_multiplier": 0.22, "embedding_multiplier": 12.0, "logits_scaling": 8.0}
    granite, chosen = LLM(str(save(Family("Granite", multipliers), llm.tokenizer, tmp_path))), samples(4)
    decoded = decode(granite, chosen, sources=[SPANS] * len(chosen))
    for row, sample in enumerate(chosen):
        answer = decoded.tokens[row, : decoded.lengths[row]].tolist()
        follows(decoded, row, sample, contributions(granite.model, sample.ids, answer))


def test_steps_and_rows_together_are_as_alone(llm: LLM, tmp_path: Path) -> None:
    """Bounds of waiting steps and of batches change nothing; other numbers of sources neither."""
    model, chosen = tiny(llm, "gemma2", tmp_path), samples()
    together = decode(model, chosen, sources=[SPANS, SPANS[:1], ()])
    assert together.contribution is not None
    for row, spans in enumerate((SPANS, SPANS[:1], ())):
        alone = decode(model, [chosen[row]], sources=[spans]).contribution
        assert alone is not None
        kept = [*range(len(spans)), -2, -1]
        close(together.contribution[row, ..., kept], alone[0])
        assert not together.contribution[row, ..., len(spans) : -2].any()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("extract.contribution.logit_contributions.MOST_BYTES", 0)
        single = decode(model, chosen, sources=[SPANS, SPANS[:1], ()]).contribution
    assert single is not None
    close(single, together.contribution)


def test_all_contributions_and_all_other_writes_are_the_logit(llm: LLM) -> None:
    """Of the embedded LLM: attention's part by our sums, the rest from what its modules write to the stream."""
    sample = Sample(0, "0", llm.tokenizer("The capital of France is the city of").input_ids, [(2, 5)], 3, "", "")
    decoded = decode(llm, [sample], sources=[[[(0, 3)]]])
    assert decoded.contribution is not None
    ids = torch.tensor([sample.ids + decoded.tokens[0, :2].tolist()])
    model, writes = llm.model, list[Tensor]()
    parts = [model.get_input_embeddings(), *(module for name, module in model.named_modules() if name.endswith(".mlp"))]
    hooks = [part.register_forward_hook(lambda _, __, result: writes.append(result[0])) for part in parts]
    final: list[Tensor] = []
    hooks.append(model.model.norm.register_forward_pre_hook(lambda _, inputs: final.append(inputs[0][0])))
    with torch.inference_mode():
        logits = model(ids).logits[0]
    for hook in hooks:
        hook.remove()
    for step in range(3):
        position, token = len(sample.ids) - 1 + step, int(decoded.tokens[0, step])
        scale = (final[0][position].pow(2).mean() + model.config.rms_norm_eps).rsqrt()
        direction = model.lm_head.weight[token] * model.model.norm.weight * scale
        rest = sum(float(write[position] @ direction) for write in writes)  # it has no biases
        total = float(decoded.contribution[0, step].sum()) + rest
        assert total == pytest.approx(float(logits[position, token]), rel=1e-4)


def test_what_is_not_known_is_refused_by_name(llm: LLM, tmp_path: Path) -> None:
    """Each step from head to logit, changed: the model still runs, its contributions are refused."""

    def doubled(_: Any, __: Any, result: Any) -> Any:
        return (2 * result[0], *result[1:]) if isinstance(result, tuple) else 2 * result

    places = {
        "its logits are no known function": lambda model: model,
        "its layers do not add": lambda model: model.model.layers[1],
        "the last step of its attention is no projection": lambda model: model.model.layers[1].self_attn,
        "what its LM head reads is no known norm": lambda model: model.model.norm,
    }
    for number, (reason, place) in enumerate(places.items()):
        model = tiny(llm, "llama-gqa", tmp_path / str(number)).model
        place(model).register_forward_hook(doubled if number else scaled_logits)
        with pytest.raises(UserError, match=f"LlamaForCausalLM: {reason}"):
            readout_of(model)


def scaled_logits(_: Any, __: Any, result: Any) -> Any:
    result.logits = result.logits * 2
    return result


def test_ablation_finds_heads_by_contribution(llm: LLM, tmp_path: Path) -> None:
    """Without ablation its heads are those of extraction; an ablated head contributes nothing, another does."""
    model, chosen, threshold = tiny(llm, "gemma2", tmp_path), samples(3), 0.02
    wanted = decode(model, chosen, sources="evidence")
    assert wanted.contribution is not None
    everything = AblateDynamic()
    heads = DynamicHeads("contribution", threshold)
    found = generate_ablated(model, chosen, [NoAblation(), everything], heads)
    dynamic = wanted.contribution[..., 0] >= threshold
    assert 0 < dynamic.float().mean() < 1
    for row, steps in enumerate(wanted.lengths):
        assert found.before[row, 0, :steps].equal(dynamic[row, :steps])
        assert found.after[row, 0, :steps].equal(dynamic[row, :steps])
    assert found.ablated[:, 1].any()
    assert not (found.after & found.ablated).any()
