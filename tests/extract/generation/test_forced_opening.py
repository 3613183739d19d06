"""Forced openings against plain transformers: the full text run again for each token, without any cache."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from extract.generation import Decoded, decode
from extract.llm import LLM
from extract.prompts import ForcedOpening
from extract.tasks import MultiHopQA, Sample
from extract.tasks.sources.synthetic import SyntheticQA
from tests.helpers.families import FAMILIES, save

MARKER = "So the answer is"
LIMIT = 5


def asked(llm: LLM, **options: int) -> tuple[MultiHopQA, list[Sample]]:
    """Three questions, whose answers may have 1, 4 and 7 tokens."""
    task = MultiHopQA(SyntheticQA(3, seed=3), budget=7, **options)
    task.prepare(llm)
    return task, [replace(task.sample(number), budget=1 + 3 * number) for number in range(3)]


def plain_greedy(llm: LLM, ids: list[int], limit: int) -> list[int]:
    """Greedy tokens by transformers' own `generate`, without its end token."""
    out = llm.model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        max_new_tokens=limit,
        do_sample=False,
        use_cache=False,
        eos_token_id=list(llm.end_tokens),
        pad_token_id=llm.tokenizer.pad_token_id,
    )
    return [token for token in out[0, len(ids) :].tolist() if token not in llm.end_tokens]


def check(llm: LLM, samples: list[Sample], decoded: Decoded) -> None:
    for number, sample in enumerate(samples):
        answer = decoded.tokens[number, : decoded.lengths[number]].tolist()
        answer = answer[:-1] if answer[-1] in llm.end_tokens else answer
        opening = llm.tokenizer(f" {MARKER}", add_special_tokens=False)["input_ids"]
        assert decoded.continuations[number] == plain_greedy(llm, [*sample.ids, *answer, *opening], LIMIT)


@pytest.fixture(scope="module")
def tiny(tiny_llm_folder: Path) -> LLM:
    return LLM(str(tiny_llm_folder))


def test_forced_tokens_equal_plain_transformers_and_change_no_row(tiny: LLM) -> None:
    task, samples = asked(tiny, force=LIMIT)
    before, decoded = decode(tiny, samples), decode(tiny, samples, opening=task.opening(tiny.tokenizer))
    assert before.continuations == [None, None, None]
    for name in ("tokens", "hidden", "copy_paste", "reasoning", "argmax"):
        assert torch.equal(getattr(before, name).nan_to_num(), getattr(decoded, name).nan_to_num()), name
    assert before.lengths == decoded.lengths
    check(tiny, samples, decoded)


def test_only_the_opening_and_what_follows_is_run(tiny: LLM) -> None:
    task, samples = asked(tiny, force=LIMIT)
    tokens = list[int]()
    hook = tiny.model.register_forward_pre_hook(
        lambda _, __, inputs: tokens.append(inputs["input_ids"].numel()), with_kwargs=True
    )
    decode(tiny, samples)
    without = sum(tokens)
    decode(tiny, samples, opening=task.opening(tiny.tokenizer))
    hook.remove()
    # The last token of an answer that its budget cut, the opening, and at most so many tokens, for each sample.
    assert sum(tokens) - 2 * without <= len(samples) * (1 + 4 + LIMIT)


def test_sliding_windows_run_the_prompt_again(tiny: LLM, tmp_path: Path) -> None:
    family = FAMILIES["mistral"]
    family = replace(family, options={**family.options, "vocab_size": len(tiny.tokenizer)})
    windowed = LLM(str(save(family, tiny.tokenizer, tmp_path)))
    task, samples = asked(windowed, force=LIMIT)
    check(windowed, samples, decode(windowed, samples, opening=task.opening(windowed.tokenizer)))


def test_an_answer_that_has_the_marker_is_left_as_it_is(tiny: LLM) -> None:
    task, samples = asked(tiny, force=LIMIT)
    opening = task.opening(tiny.tokenizer)
    assert opening is not None
    said = tiny.tokenizer("It is. So the answer is Oslo", add_special_tokens=False)["input_ids"]
    assert opening.tokens(said) == []
    given = ForcedOpening(tiny.tokenizer, lambda _: "", LIMIT)
    assert decode(tiny, samples, opening=given).continuations == [None, None, None]
    forced = replace(samples[0], budget=2, forced=[5, 6])
    assert decode(tiny, [forced], opening=opening).continuations == [None]  # teacher forcing: the answer is given


@pytest.mark.parametrize(
    ("said", "joined"), [("It rains.", "It rains. So"), ("It rains.\n", "It rains.\nSo"), ("", "So")]
)
def test_the_opening_continues_the_text(tiny: LLM, said: str, joined: str) -> None:
    opening = ForcedOpening(tiny.tokenizer, lambda _: MARKER, LIMIT)
    ids = tiny.tokenizer(said, add_special_tokens=False)["input_ids"] if said else []
    assert tiny.tokenizer.decode([*ids, *opening.tokens(ids)]) == f"{joined} the answer is"
