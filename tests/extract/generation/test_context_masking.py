"""Prompts with a partly masked context: every mode of masking against one explicit mask over the full prompt."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from extract.attention import attention_received
from extract.generation import ContextMaskedLLM, GenerationRequest, MaskMode, PromptView, full_view, masked_view
from extract.llm import LLM
from extract.prompts import Span
from tests.helpers.families import FAMILIES, save

CONTEXT = (6, 40)
WINDOWS = {"none": [], "two": [(8, 14), (20, 33)], "all": [CONTEXT], "edges": [(6, 9), (37, 40)]}


@pytest.fixture(scope="module")
def tiny(llm: LLM, tmp_path_factory: pytest.TempPathFactory) -> LLM:
    """Its weights are large, so that a single missing key shows in the entropies."""
    return LLM(str(save(FAMILIES["llama-gqa"], llm.tokenizer, tmp_path_factory.mktemp("masking"))))


def prompt(length: int = 52, seed: int = 0) -> list[int]:
    return [int(x) for x in torch.randint(5, 500, (length,), generator=torch.Generator().manual_seed(seed))]


def masked_logits(llm: LLM, ids: Sequence[int], hidden: set[int]) -> Tensor:
    """Last logits with one boolean mask over everything, no cache: a hidden token is no key of another token."""
    count = len(ids)
    mask = torch.full((count, count), torch.finfo(torch.float32).min)
    for query in range(count):
        for key in range(query + 1):
            if key not in hidden or key == query:
                mask[query, key] = 0
    model = llm.model
    assert isinstance(model, LlamaForCausalLM)
    out = model(torch.tensor([list(ids)]), attention_mask=mask[None, None], use_cache=False)
    logits: Tensor = out.logits[0, -1]
    return logits


def greedy(llm: LLM, ids: list[int], hidden: set[int], count: int) -> tuple[list[int], list[float]]:
    tokens, entropies = list[int](), list[float]()
    for _ in range(count):
        logits = masked_logits(llm, [*ids, *tokens], hidden)
        shares = logits.double().softmax(0)
        entropies.append(float(-(shares * shares.log()).sum()))
        tokens.append(int(logits.argmax()))
    return tokens, entropies


def never(tokens: Sequence[int]) -> bool:
    del tokens
    return False


def hidden_by(windows: Sequence[Span]) -> set[int]:
    return set(range(*CONTEXT)) - {p for start, end in windows for p in range(start, end)}


@pytest.mark.parametrize("mask", ["packed", "in_place"])
@pytest.mark.parametrize("name", WINDOWS)
def test_generation_equals_a_boolean_mask_without_cache(tiny: LLM, mask: MaskMode, name: str) -> None:
    ids, windows = prompt(), WINDOWS[name]
    request = GenerationRequest(0, masked_view(ids, CONTEXT, windows, mask), 6, never)
    (found,) = ContextMaskedLLM(tiny, chunk=7).generate([request])
    tokens, entropies = greedy(tiny, ids, hidden_by(windows), 6)
    assert list(found.tokens) == tokens
    assert found.entropies == pytest.approx(entropies, abs=1e-4)


def test_concat_is_the_prompt_without_the_masked_tokens(tiny: LLM) -> None:
    ids = prompt()
    request = GenerationRequest(0, masked_view(ids, CONTEXT, WINDOWS["two"], "concat"), 6, never)
    (found,) = ContextMaskedLLM(tiny).generate([request])
    short = [token for position, token in enumerate(ids) if position not in hidden_by(WINDOWS["two"])]
    assert list(found.tokens) == greedy(tiny, short, set(), 6)[0]


@pytest.mark.parametrize("mask", ["packed", "in_place", "concat"])
def test_neither_cached_keys_nor_the_batch_change_a_generation(tiny: LLM, mask: MaskMode) -> None:
    """Requests of several questions, lengths, windows and limits: one at a time, in one batch, and from cached keys."""
    requests = []
    for question in range(3):
        ids = prompt(50 + 4 * question, question // 2)  # two of them share their beginning
        for windows in WINDOWS.values():
            short = masked_view(ids, CONTEXT, windows, mask)
            requests.append(GenerationRequest(question, short, 3, never))
            requests.append(GenerationRequest(question, short.extended([7, 9, 11]), 9, never))
    masked = ContextMaskedLLM(tiny, keep=4)
    first, second = masked.generate(requests), masked.generate(requests)
    for request, one, two in zip(requests, first, second, strict=True):
        (single,) = ContextMaskedLLM(tiny).generate([request])
        assert single.tokens == one.tokens == two.tokens
        assert len(one.tokens) == request.limit
        assert one.entropies == pytest.approx(single.entropies, abs=1e-4)
        assert two.entropies == pytest.approx(single.entropies, abs=1e-4)
    for request, one in list(zip(requests, first, strict=True))[-2:]:  # the latest, whose keys are certainly cached
        longer = GenerationRequest(request.question, request.view.extended([*one.tokens, 5]), 3, never)
        (cached,), (single,) = masked.generate([longer]), ContextMaskedLLM(tiny).generate([longer])
        assert cached.tokens == single.tokens
        assert cached.entropies == pytest.approx(single.entropies, abs=1e-4)


def test_equal_requests_run_once(tiny: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    masked, calls = ContextMaskedLLM(tiny), list[int]()
    run = masked._generate
    monkeypatch.setattr(masked, "_generate", lambda requests: calls.append(len(requests)) or run(requests))
    one, two = masked.generate([GenerationRequest(0, full_view(prompt()), 3, never) for _ in range(2)])
    assert calls == [1]
    assert one == two


def test_generation_ends_with_an_end_token_or_when_the_request_stops_it(tiny: LLM) -> None:
    view = full_view(prompt())
    request = GenerationRequest(0, view, 8, never)
    (plain,) = ContextMaskedLLM(tiny).generate([request])
    (stopped,) = ContextMaskedLLM(tiny).generate([GenerationRequest(0, view, 8, lambda tokens: len(tokens) == 3)])
    assert stopped.tokens == plain.tokens[:3]
    masked = ContextMaskedLLM(tiny)
    step = next(n for n in range(1, 8) if plain.tokens[n] not in plain.tokens[:n])
    masked._ends = frozenset({plain.tokens[step]})
    (ended,) = masked.generate([request])
    assert (ended.tokens, ended.ended) == (plain.tokens[:step], True)
    (after,) = masked.generate([GenerationRequest(0, view.extended(ended.tokens), 2, never)])
    assert after.ended  # the same distribution, from cached keys
    assert not after.tokens


def test_the_last_query_over_the_full_context_equals_eager_attention(tiny: LLM) -> None:
    ids = prompt()
    masked = ContextMaskedLLM(tiny, chunk=9)
    masked.generate([GenerationRequest(0, full_view(ids), 4, never)])  # leaves keys to continue from
    for answer in ([], [5, 6, 7]):
        state = masked.read_full_context(0, full_view(ids).extended(answer))
        tiny.model.set_attn_implementation("eager")
        out = tiny.model(torch.tensor([[*ids, *answer]]), output_attentions=True, output_hidden_states=True)
        tiny.model.set_attn_implementation("sdpa")
        rows = torch.cat([layer[0, :, -1] for layer in out.attentions])
        assert torch.allclose(state.attention, rows, atol=1e-5)
        assert torch.allclose(state.hidden, out.hidden_states[-1][0, -1], atol=1e-4)


def test_attention_within_drafts_equals_each_draft_alone(tiny: LLM) -> None:
    drafts = [prompt(9, 1), prompt(4, 2), [], prompt(9, 1), prompt(1, 3)]
    found = attention_received(tiny.model, drafts, include_self=True)
    assert tiny.model.config._attn_implementation == "sdpa"
    tiny.model.set_attn_implementation("eager")
    for draft, received in zip(drafts, found, strict=True):
        assert len(received) == len(draft)
        if draft:
            maps = tiny.model(torch.tensor([draft]), output_attentions=True).attentions[-1][0]
            assert torch.allclose(received, maps.amax(dim=1).mean(dim=0), atol=1e-5)
    tiny.model.set_attn_implementation("sdpa")


def test_views() -> None:
    ids = list(range(100, 110))
    packed = masked_view(ids, (2, 8), [(3, 5)], "packed")
    assert packed == PromptView((100, 101, 103, 104, 108, 109), (0, 1, 3, 4, 8, 9), (True,) * 6, 10)
    assert packed.extended([7]).positions[-1] == 10
    assert masked_view(ids, (2, 8), [(3, 5)], "concat").extended([7]).positions == tuple(range(7))
    in_place = masked_view(ids, (2, 8), [(3, 5)], "in_place")
    assert in_place.tokens == tuple(ids)
    assert [position for position, visible in enumerate(in_place.visible) if not visible] == [2, 5, 6, 7]
    assert packed.common_prefix(masked_view(ids, (2, 8), [(3, 6)], "packed")) == 4
    assert full_view(ids).common_prefix(in_place) == 2


@pytest.mark.parametrize("name", ["mistral", "gemma3", "gpt-oss"])
def test_sliding_windows_count_keys_so_masked_tokens_run_under_a_mask(llm: LLM, tmp_path: Path, name: str) -> None:
    """Against eager attention over the full prompt, without cache; the context is longer than the window."""
    tiny = LLM(str(save(FAMILIES[name], llm.tokenizer, tmp_path)))
    ids = [int(x) for x in torch.randint(5, 500, (52,), generator=torch.Generator().manual_seed(0))]
    masked = ContextMaskedLLM(tiny, chunk=9)
    assert (masked.exact_mask("packed"), masked.exact_mask("concat")) == ("in_place", "concat")
    views = [masked_view(ids[cut:], (6, 40 - cut), [(8, 14)], masked.exact_mask("packed")) for cut in (0, 7)]
    found = masked.generate([GenerationRequest(0, view, 5, never) for view in views])
    state = masked.read_full_context(0, full_view(ids))
    tiny.model.set_attn_implementation("eager")
    for view, one in zip(views, found, strict=True):
        tokens, keys = list(view.tokens), list(view.visible)
        for token in one.tokens:
            mask = torch.tensor([keys], dtype=torch.long)
            logits = tiny.model(torch.tensor([tokens]), attention_mask=mask, use_cache=False).logits[0, -1]
            assert logits.max() - logits[token] < 1e-4
            tokens, keys = [*tokens, token], [*keys, True]
    out = tiny.model(torch.tensor([ids]), output_attentions=True, output_hidden_states=True, use_cache=False)
    assert torch.allclose(state.attention, torch.cat([layer[0, :, -1] for layer in out.attentions]), atol=1e-5)
    assert torch.allclose(state.hidden, out.hidden_states[-1][0, -1], atol=1e-4)
