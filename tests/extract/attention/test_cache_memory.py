"""Number of prompts that memory holds, against the caches that the models really make."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from extract.attention import PreallocatedLayer, preallocated_cache, slots_of
from extract.attention import cache_memory as module
from extract.llm import LLM
from tests.helpers.families import FAMILIES, save


@pytest.mark.parametrize("name", ["llama-gqa", "gemma2", "mistral", "deepseek-v3"])
def test_bytes_of_a_token_are_those_of_the_cache_of_a_batch(llm: LLM, tmp_path: Path, name: str) -> None:
    tiny = LLM(str(save(FAMILIES[name], llm.tokenizer, tmp_path)))
    cache, rows, tokens = preallocated_cache(tiny.model, 6), 3, 6
    tiny.model(torch.arange(rows * tokens).view(rows, tokens), past_key_values=cache, use_cache=True)
    held = 0
    for layer in cache.layers:
        assert isinstance(layer, PreallocatedLayer)
        assert layer.keys is not None
        assert layer.values is not None
        held += sum(states.numel() * states.element_size() for states in (layer.keys, layer.values))
    assert module.bytes_of_token(tiny.model) == {torch.device("cpu"): held // (rows * tokens)}


@given(
    free=st.integers(0, 10**6),
    size=st.integers(1, 1000),
    tokens=st.lists(st.integers(1, 500), min_size=1, max_size=9),
)
def test_as_many_prompts_as_fit_in_half_of_the_free_memory(free: int, size: int, tokens: list[int]) -> None:
    other = torch.device("cuda", 1)  # it has three times as much memory, for twice as many keys
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "bytes_of_token", lambda _: {torch.device("cpu"): size, other: 2 * size})
        patched.setattr(module, "free_bytes", lambda device: 3 * free if device == other else free)
        slots = slots_of("auto", None, tokens)  # type: ignore[arg-type]
    assert slots is not None
    fits = [count for count in range(1, len(tokens) + 1) if 2 * count * max(tokens) * size <= free]
    assert slots == max(fits, default=1)


def test_other_settings_ask_for_no_memory() -> None:
    assert [slots_of(setting, None, [5, 6]) for setting in (None, 1, 7)] == [None, 1, 7]  # type: ignore[arg-type]


def test_processes_share_the_free_memory_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    assert module.free_bytes(torch.device("cpu")) == 1000
    monkeypatch.setattr(module.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(module.distributed, "get_world_size", lambda: 4)
    assert module.free_bytes(torch.device("cpu")) == 250
