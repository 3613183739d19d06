"""Every supported family against eager attention over the full sequence, without cache, batch or dropped keys."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from extract.attention import RecordingPlan, instrumented, recording
from extract.generation import Decoded, DynamicHeads, decode, generate_ablated
from extract.llm import LLM
from extract.scores import ExcludedKeys
from extract.tasks import Sample
from probe.experiments.ablation import AblateDynamic, AblateRandom, Condition, NoAblation, Preparation
from probe.heads import HeadCounts, Ranking
from tests.helpers import reference
from tests.helpers.families import FAMILIES, SIZES, WINDOW, projected, save

LENGTHS = (45, 31, 38)
STEPS = 20
SINK, LOCAL = 1, 2
EXCLUDED = ExcludedKeys(SINK, LOCAL)
LAYERS, HEADS = SIZES["num_hidden_layers"], SIZES["num_attention_heads"]


class Pair:
    """A family's model as `LLM` loads it, and the same weights with eager attention."""

    def __init__(self, folder: Path, dtype: str = "float32") -> None:
        self.llm = LLM(str(folder), dtype=dtype, prefill_chunk=13)  # type: ignore[arg-type]
        self.model = self.llm.model
        self.eager = LLM(str(folder), dtype=dtype, attention="eager").model  # type: ignore[arg-type]

    def last(self, prompt: list[int], **options: Any) -> Any:
        """The eager model on a full prompt."""
        return self.eager(torch.tensor([prompt]), use_cache=False, **options)


@pytest.fixture(scope="module")
def folders(llm: LLM, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("families")
    return {name: save(family, llm.tokenizer, folder / name) for name, family in FAMILIES.items()}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Iterator[Pair]:
    with torch.inference_mode():
        yield Pair(folders[request.param])


def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(5, 400, (n,), generator=generator).tolist() for n in LENGTHS]


def samples(steps: int = STEPS) -> list[Sample]:
    """Two evidence spans: one within the tiny windows of the first queries, one beyond."""
    return [
        Sample(row, str(row), ids, [(4, 8), (len(ids) - 9, len(ids) - 4)], steps, "", "")
        for row, ids in enumerate(prompts())
    ]


def padded() -> tuple[Tensor, Tensor, Tensor]:
    """The prompts left-padded: tokens, mask, positions."""
    width = max(LENGTHS)
    ids = torch.tensor([[2] * (width - len(prompt)) + prompt for prompt in prompts()])
    mask = torch.stack([torch.arange(width) >= width - n for n in LENGTHS])
    return ids, mask, (mask.cumsum(1) - 1).clamp(min=0)


def agrees(chosen: Tensor, truth: Tensor, tie: float) -> None:
    """Chosen columns are the largest of each row, or as large up to `tie`: keys of heads, tokens of steps."""
    loss = truth.max(1).values - truth.gather(1, chosen[:, None])[:, 0]
    assert loss.le(tie).all(), loss.max()


def follows(
    decoded: Decoded, row: int, sample: Sample, truth: dict[str, Any], tolerance: float, mean: float = 1.0
) -> None:
    """A decoded row against the reference, step by step: argmax positions, and masses (worst, and on average)."""
    differences = []
    ids = sample.ids + decoded.tokens[row].tolist()
    evidence = torch.zeros(len(ids), dtype=torch.bool)
    for start, end in sample.evidence:
        evidence[start:end] = True
    for step, attention in enumerate(map(Tensor.float, truth["attention"])):
        keys = attention.shape[1]
        agrees(decoded.argmax[row, step], attention, tolerance)
        kept = torch.zeros(keys, dtype=torch.bool)
        kept[SINK : keys - LOCAL] = True
        total, part = attention[:, kept].sum(1), attention[:, kept & evidence[:keys]].sum(1)
        reasoning = decoded.reasoning[row, step].nan_to_num()
        torch.testing.assert_close(reasoning * total, part, atol=tolerance, rtol=0)
        differences.append((reasoning * total - part).abs())
        argmax = decoded.argmax[row, step]
        eq1 = evidence[argmax] & (torch.tensor(ids)[argmax] == ids[len(sample.ids) + step])
        assert torch.equal(decoded.copy_paste[row, step], eq1)
    assert torch.stack(differences).mean() <= mean


def test_decoding_equals_eager_attention_over_the_full_sequence(family: Pair) -> None:
    """Padded, batched, cached, prefilled in chunks, beyond the window: within 1e-5, hidden states within 1e-4."""
    chosen = samples()
    decoded = decode(family.llm, chosen, EXCLUDED)
    for row, sample in enumerate(chosen):
        answer = decoded.tokens[row, : decoded.lengths[row]].tolist()
        truth = reference.replay(family.eager, sample.ids, answer)
        agrees(decoded.tokens[row, : len(answer)], truth["logits"], 1e-4)
        torch.testing.assert_close(decoded.hidden[row, : len(answer)], truth["hidden"], atol=1e-4, rtol=1e-4)
        follows(decoded, row, sample, truth, 1e-5)


@pytest.mark.parametrize("name", ["llama-gqa", "gemma2", "gpt-oss", "deepseek-v3", "mistral"])
@torch.inference_mode()
def test_bfloat16_equals_bfloat16_eager(folders: dict[str, Path], name: str) -> None:
    """Masses within 0.1, on average 0.01; a head's key gets at most 0.1 less than the one that eager attention favours.

    Weights are rounded differently, and gpt-oss' eager softmax itself is in bfloat16.
    """
    pair = Pair(folders[name], "bfloat16")
    chosen = samples()
    decoded = decode(pair.llm, chosen, EXCLUDED)
    for row, sample in enumerate(chosen):
        answer = decoded.tokens[row, : decoded.lengths[row]].tolist()
        follows(decoded, row, sample, reference.replay(pair.eager, sample.ids, answer), 0.1, 0.01)


@pytest.mark.parametrize("cache", ["none", "stock", "own"])
def test_the_last_row_is_recorded_in_prefill_and_after_any_cache(family: Pair, cache: str) -> None:
    """A sliding-window layer of a stock cache holds only its last keys; recorded indices are positions all the same."""
    from extract.attention import preallocated_cache

    ids, mask, positions = padded()
    columns = torch.rand(*ids.shape, 3, generator=torch.Generator().manual_seed(2)) * mask[..., None]
    model, cut = family.model, 40
    with instrumented(model):
        past, start = None, 0
        if cache != "none":
            past = DynamicCache(config=model.config) if cache == "stock" else preallocated_cache(model, ids.shape[1])
            for part in (slice(0, 30), slice(30, cut)):
                inputs = {"input_ids": ids[:, part], "position_ids": positions[:, part]}
                model(**inputs, attention_mask=mask[:, : part.stop], past_key_values=past)
            start = cut
        for stop in (ids.shape[1],) if past is None else range(cut + 1, ids.shape[1] + 1):
            inputs = {"input_ids": ids[:, start:stop], "position_ids": positions[:, start:stop]}
            with recording(model, RecordingPlan(columns=columns[:, :stop])) as recorder:
                model(**inputs, attention_mask=mask[:, :stop], past_key_values=past)
            start = stop
            for row, prompt in enumerate(prompts()):
                pad = ids.shape[1] - len(prompt)
                if stop <= pad:
                    continue
                truth = torch.stack(family.last(prompt[: stop - pad], output_attentions=True).attentions)[:, 0, :, -1]
                agrees((recorder.argmax[row] - pad).flatten(), truth.flatten(0, 1), 1e-5)
                wanted = torch.einsum("lhk,kc->lhc", truth, columns[row, pad:stop])
                torch.testing.assert_close(recorder.mass[row], wanted, atol=1e-5, rtol=0)


def test_hidden_is_what_the_head_reads(family: Pair) -> None:
    prompt = prompts()[0]
    truth = family.last(prompt, output_hidden_states=True).hidden_states[-1]
    read: list[Tensor] = []
    hook = family.eager.get_output_embeddings().register_forward_pre_hook(lambda _, x: read.append(x[0]))
    family.last(prompt)
    hook.remove()
    torch.testing.assert_close(truth, read[0], atol=0, rtol=0)
    with instrumented(family.model), recording(family.model) as recorder:
        family.model(torch.tensor([prompt]))
        torch.testing.assert_close(recorder.hidden, truth[:, -1], atol=1e-4, rtol=1e-4)


def replaced(ablate: Tensor, fill: Tensor | None, at: slice) -> Any:
    """The slow way: a change of what the projection reads. `ablate` [layer, head], `fill` [layer, head, size]."""

    def change(layer: int, read: Tensor) -> Tensor:
        heads = read.clone().unflatten(-1, (HEADS, -1))
        chosen = heads[:, at]
        instead = torch.zeros_like(chosen) if fill is None else fill[layer].expand_as(chosen)
        heads[:, at] = torch.where(ablate[layer][:, None], instead, chosen)
        return heads.flatten(-2)

    return change


@pytest.mark.parametrize("operator", ["zero", "mean"])
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_ablation_equals_changed_projection_columns(family: Pair, phase: str, operator: str) -> None:
    """Each sample its own heads; the reference changes what the output projection of the eager model reads."""
    model = family.model
    ablate = torch.rand(len(LENGTHS), LAYERS, HEADS, generator=torch.Generator().manual_seed(2)) > 0.5
    read: dict[int, Tensor] = {}
    with projected(family.eager, read.setdefault):
        family.last(prompts()[0])
    sizes = [read[layer].shape[-1] // HEADS for layer in range(LAYERS)]
    means = [torch.randn(len(LENGTHS), HEADS, size, generator=torch.Generator().manual_seed(3)) for size in sizes]
    ids, mask, positions = padded()
    replacement = dict(enumerate(means)) if operator == "mean" else None
    with instrumented(model):

        def run(chosen: Tensor | None) -> Tensor:
            cache, start = DynamicCache(config=model.config), 0
            if phase == "decode":
                start = ids.shape[1] - 1
                inputs = {"input_ids": ids[:, :start], "position_ids": positions[:, :start]}
                model(**inputs, attention_mask=mask[:, :start], past_key_values=cache)
            inputs = {"input_ids": ids[:, start:], "position_ids": positions[:, start:]}
            with recording(model, RecordingPlan(ablate=chosen, replacement=replacement)):
                logits: Tensor = model(**inputs, attention_mask=mask, past_key_values=cache).logits
            return logits

        plain, none, ablated = run(None), run(torch.zeros_like(ablate)), run(ablate)
    assert torch.equal(plain, none)  # bit for bit
    for row, prompt in enumerate(prompts()):
        fill = torch.stack([mean[row] for mean in means]) if operator == "mean" else None
        at = slice(None) if phase == "prefill" else slice(-1, None)
        with projected(family.eager, replaced(ablate[row], fill, at)):
            truth = family.last(prompt).logits[0, at]
        torch.testing.assert_close(ablated[row, -len(truth) :], truth, atol=1e-4, rtol=1e-4)
        assert (ablated - plain)[row, -1].abs().max() > 1e-3


def test_ablation_equals_full_forwards(family: Pair) -> None:
    """Claim 2's two passes, several conditions after one prompt: tokens and heads of each step."""
    eq2 = (0.3, SINK, LOCAL)
    shuffled = torch.randperm(LAYERS * HEADS, generator=torch.Generator().manual_seed(3)).tolist()
    rules: dict[Condition, Any] = {
        NoAblation(): lambda _: set(),
        AblateDynamic(): set,
        AblateRandom(n=4, seed=3): lambda _: set(shuffled[:4]),
    }
    for condition in rules:
        condition.prepare(
            Preparation(Ranking(np.zeros((LAYERS, HEADS)), True, "none"), HeadCounts((0.0, 1.0)), average=4.0)
        )
    chosen = samples(steps=3)[:2]
    for operator in ("zero", "mean"):
        found = generate_ablated(family.llm, chosen, list(rules), DynamicHeads("reasoning", *eq2), operator)  # type: ignore[arg-type]
        for row, sample in enumerate(chosen):
            evidence = {i for start, end in sample.evidence for i in range(start, end)}
            slow = reference.SlowAblation(family.eager, evidence, eq2)
            fill = slow.mean_outputs(sample.ids) if operator == "mean" else None
            for number, choose in enumerate(rules.values()):
                for step, (token, before, ablated, after) in enumerate(
                    slow.generate(sample.ids, 3, family.llm.end_tokens, choose, fill)
                ):
                    assert int(found.tokens[row, number, step]) == token
                    for heads, wanted in ((found.before, before), (found.ablated, ablated), (found.after, after)):
                        assert heads[row, number, step].nonzero().flatten().tolist() == sorted(wanted)
        assert found.ablated[:, 1].any()


def test_tiny_windows_are_shorter_than_the_prompts() -> None:
    assert min(LENGTHS) > WINDOW + 4
