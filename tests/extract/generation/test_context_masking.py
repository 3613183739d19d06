"""Prompts with a partly hidden context: every way to hide it against one explicit mask over the whole prompt."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from extract.attention import attention_received
from extract.generation import Job, Mask, MaskedLLM, View, view, whole
from extract.llm import LLM
from extract.prompts import Span
from tests.helpers.families import FAMILIES, save

CONTEXT = (6, 40)
WINDOWS = {"none": [], "two": [(8, 14), (20, 33)], "all": [CONTEXT], "edges": [(6, 9), (37, 40)]}


@pytest.fixture(scope="module")
def tiny(tiny_llm_folder: Path) -> LLM:
    return LLM(str(tiny_llm_folder))


def prompt(length: int = 52, seed: int = 0) -> list[int]:
    return [int(x) for x in torch.randint(5, 9000, (length,), generator=torch.Generator().manual_seed(seed))]


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
def test_generation_equals_a_boolean_mask_without_cache(tiny: LLM, mask: Mask, name: str) -> None:
    ids, windows = prompt(), WINDOWS[name]
    (found,) = MaskedLLM(tiny, chunk=7).generate([Job(0, view(ids, CONTEXT, windows, mask), 6, never)])
    tokens, entropies = greedy(tiny, ids, hidden_by(windows), 6)
    assert list(found.tokens) == tokens
    assert found.entropies == pytest.approx(entropies, abs=1e-4)


def test_concat_is_the_prompt_without_the_hidden_tokens(tiny: LLM) -> None:
    ids = prompt()
    (found,) = MaskedLLM(tiny).generate([Job(0, view(ids, CONTEXT, WINDOWS["two"], "concat"), 6, never)])
    short = [token for place, token in enumerate(ids) if place not in hidden_by(WINDOWS["two"])]
    assert list(found.tokens) == greedy(tiny, short, set(), 6)[0]


@pytest.mark.parametrize("mask", ["packed", "in_place", "concat"])
def test_what_was_run_before_and_what_runs_beside_change_nothing(tiny: LLM, mask: Mask) -> None:
    """Jobs of several questions, lengths, windows and limits, alone and together, with and without kept keys."""
    jobs = []
    for question in range(3):
        ids = prompt(50 + 4 * question, question // 2)  # two of them share their beginning
        for windows in WINDOWS.values():
            said = view(ids, CONTEXT, windows, mask)
            jobs += [Job(question, said, 3, never), Job(question, said.then([7, 9, 11]), 9, never)]
    together = MaskedLLM(tiny, keep=4)
    first, again = together.generate(jobs), together.generate(jobs)
    for job, one, two in zip(jobs, first, again, strict=True):
        (alone,) = MaskedLLM(tiny).generate([job])
        assert alone.tokens == one.tokens == two.tokens
        assert len(one.tokens) == job.limit
        assert one.entropies == pytest.approx(alone.entropies, abs=1e-4)
        assert two.entropies == pytest.approx(alone.entropies, abs=1e-4)


def test_equal_jobs_run_once(tiny: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    masked, calls = MaskedLLM(tiny), list[int]()
    run = masked._generate
    monkeypatch.setattr(masked, "_generate", lambda jobs: calls.append(len(jobs)) or run(jobs))
    job = Job(0, whole(prompt()), 3, never)
    one, two = masked.generate([job, Job(0, whole(prompt()), 3, never)])
    assert calls == [1]
    assert one == two


def test_generation_ends_with_an_end_token_or_when_enough_is_said(tiny: LLM) -> None:
    job = Job(0, whole(prompt()), 8, never)
    (plain,) = MaskedLLM(tiny).generate([job])
    (enough,) = MaskedLLM(tiny).generate([Job(0, job.view, 8, lambda tokens: len(tokens) == 3)])
    assert enough.tokens == plain.tokens[:3]
    masked = MaskedLLM(tiny)
    place = next(n for n in range(1, 8) if plain.tokens[n] not in plain.tokens[:n])
    masked._ends = frozenset({plain.tokens[place]})
    (ended,) = masked.generate([job])
    assert (ended.tokens, ended.ended) == (plain.tokens[:place], True)
    (after,) = masked.generate([Job(0, job.view.then(ended.tokens), 2, never)])
    assert after.ended  # the same distribution again, from kept keys
    assert not after.tokens


def test_a_look_equals_eager_attention(tiny: LLM) -> None:
    ids = prompt()
    masked = MaskedLLM(tiny, chunk=9)
    masked.generate([Job(0, whole(ids), 4, never)])  # leaves keys to go on from
    for said in ([], [5, 6, 7]):
        seen = masked.look(0, whole(ids).then(said))
        tiny.model.set_attn_implementation("eager")
        out = tiny.model(torch.tensor([[*ids, *said]]), output_attentions=True, output_hidden_states=True)
        tiny.model.set_attn_implementation("sdpa")
        rows = torch.cat([layer[0, :, -1] for layer in out.attentions])
        assert torch.allclose(seen.rows, rows, atol=1e-5)
        assert torch.allclose(seen.hidden, out.hidden_states[-1][0, -1], atol=1e-4)


def test_attention_within_drafts_equals_each_draft_alone(tiny: LLM) -> None:
    drafts = [prompt(9, 1), prompt(4, 2), [], prompt(9, 1), prompt(1, 3)]
    found = attention_received(tiny.model, drafts, own=True)
    assert tiny.model.config._attn_implementation == "sdpa"
    tiny.model.set_attn_implementation("eager")
    for draft, paid in zip(drafts, found, strict=True):
        assert len(paid) == len(draft)
        if draft:
            maps = tiny.model(torch.tensor([draft]), output_attentions=True).attentions[-1][0]
            assert torch.allclose(paid, maps.amax(dim=1).mean(dim=0), atol=1e-5)
    tiny.model.set_attn_implementation("sdpa")


def test_views() -> None:
    ids = list(range(100, 110))
    packed = view(ids, (2, 8), [(3, 5)], "packed")
    assert packed == View((100, 101, 103, 104, 108, 109), (0, 1, 3, 4, 8, 9), (True,) * 6, 10)
    assert packed.then([7]).positions[-1] == 10
    assert view(ids, (2, 8), [(3, 5)], "concat").then([7]).positions == tuple(range(7))
    in_place = view(ids, (2, 8), [(3, 5)], "in_place")
    assert in_place.tokens == tuple(ids)
    assert [place for place, seen in enumerate(in_place.visible) if not seen] == [2, 5, 6, 7]
    assert packed.shared(view(ids, (2, 8), [(3, 6)], "packed")) == 4
    assert whole(ids).shared(in_place) == 2


@pytest.mark.parametrize("name", ["mistral", "gemma3", "gpt-oss"])
def test_windows_count_keys_so_hidden_tokens_run_under_a_mask(llm: LLM, tmp_path: Path, name: str) -> None:
    """Against eager attention over the whole prompt, without cache; the context is longer than the window."""
    tiny = LLM(str(save(FAMILIES[name], llm.tokenizer, tmp_path)))
    ids = [int(x) for x in torch.randint(5, 500, (52,), generator=torch.Generator().manual_seed(0))]
    masked = MaskedLLM(tiny, chunk=9)
    assert (masked.exact("packed"), masked.exact("concat")) == ("in_place", "concat")
    jobs = [Job(0, view(ids[cut:], (6, 40 - cut), [(8, 14)], masked.exact("packed")), 5, never) for cut in (0, 7)]
    found, look = masked.generate(jobs), masked.look(0, whole(ids))
    tiny.model.set_attn_implementation("eager")
    for job, one in zip(jobs, found, strict=True):
        tokens, keys = list(job.view.tokens), list(job.view.visible)
        for token in one.tokens:
            seen = torch.tensor([keys], dtype=torch.long)
            logits = tiny.model(torch.tensor([tokens]), attention_mask=seen, use_cache=False).logits[0, -1]
            assert logits.max() - logits[token] < 1e-4
            tokens, keys = [*tokens, token], [*keys, True]
    out = tiny.model(torch.tensor([ids]), output_attentions=True, output_hidden_states=True, use_cache=False)
    assert torch.allclose(look.rows, torch.cat([layer[0, :, -1] for layer in out.attentions]), atol=1e-5)
    assert torch.allclose(look.hidden, out.hidden_states[-1][0, -1], atol=1e-4)
