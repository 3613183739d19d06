"""Continuous batching against decoding all prompts together, and against one prompt at a time."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from extract.generation import Decoded, decode, decode_continuously
from extract.generation import continuous as continuous_module
from extract.generation import prefill as prefill_module
from extract.llm import LLM
from extract.prompts import ForcedOpening
from extract.tasks import Sample
from tests.extract.attention.test_families import EXCLUDED
from tests.helpers.emulated_device import emulated_device
from tests.helpers.families import FAMILIES, save

NAMES = ("llama-gqa", "gemma2", "mistral")
ENDS = tuple(range(2, 500, 11))
"""So many end tokens that random models soon generate one."""


class Opening(ForcedOpening):
    """Two tokens of the tiny vocabulary, after answers of an even number of tokens."""

    def tokens(self, generated: Sequence[int]) -> list[int]:
        return [] if len(generated) % 2 else [5, 6]


@pytest.fixture(scope="module")
def folders(llm: LLM, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("families")
    return {name: str(save(FAMILIES[name], llm.tokenizer, folder / name)) for name in NAMES}


def model(folder: str, ends: Sequence[int] = ENDS) -> LLM:
    llm = LLM(folder, prefill_chunk=13)
    llm._ends = tuple(ends)
    return llm


def prompts(count: int, seed: int = 0, shortest: int = 1) -> list[Sample]:
    """Prompts of 1 to 45 tokens with answers of 1 to 30; some with a common prefix, some with forced tokens."""
    rng = random.Random(seed)
    prefix = [rng.randrange(5, 400) for _ in range(20)]
    made = []
    for number in range(count):
        ids = [rng.randrange(5, 400) for _ in range(rng.choice([shortest, rng.randint(shortest + 1, 45)]))]
        ids = [*prefix, *ids] if rng.random() < 0.4 else ids
        budget = rng.randint(1, 30)
        forced = [rng.randrange(5, 400) for _ in range(budget)] if rng.random() < 0.2 else None
        evidence = [(len(ids) // 3, len(ids) // 3 + 3)] if len(ids) > 9 else []
        made.append(Sample(number, str(number), ids, evidence, budget, "", "", forced))
    return made


def assert_equal_rows(one: Decoded, other: Decoded) -> None:
    """Tokens and argmax equal, scores and states within the tolerances of batches of other sizes."""
    assert one.lengths == other.lengths
    assert one.continuations == other.continuations
    for number, length in enumerate(one.lengths):
        for name in ("tokens", "copy_paste", "argmax"):
            assert getattr(one, name)[number, :length].equal(getattr(other, name)[number, :length]), name
        for name in ("hidden", "reasoning", "contribution"):
            if getattr(one, name) is not None:
                pair = (getattr(decoded, name)[number, :length] for decoded in (one, other))
                torch.testing.assert_close(*pair, atol=1e-4, rtol=0, equal_nan=True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("slots", [1, 2, 3, 12, 99])
def test_rows_are_those_of_decoding_together(folders: dict[str, str], name: str, slots: int) -> None:
    llm, samples = model(folders[name]), prompts(12)
    together = decode(llm, samples, EXCLUDED, Opening(llm.tokenizer, str, limit=4), sources="evidence")
    with pytest.MonkeyPatch.context() as patch:
        for module in (prefill_module, continuous_module):
            patch.setattr(module, "SHORTEST_SHARED", 5)
        options = (EXCLUDED, Opening(llm.tokenizer, str, limit=4), None, True)
        assert_equal_rows(decode_continuously(llm, samples, slots, *options), together)
    assert len(set(together.lengths)) > 4
