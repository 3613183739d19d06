"""Forced openings against plain transformers: the full text run again for each token, without any cache."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from extract.errors import UserError
from extract.generation import Decoded, DynamicHeads, StepHeads, check_forcing, decode, generate_ablated
from extract.llm import LLM
from extract.prompts import ForcedOpening
from extract.tasks import MultiHopQA, Sample
from extract.tasks.sources.synthetic import SyntheticQA
from tests.helpers import reference
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


class Fixed:
    """Ablates the same heads at every step; by default the dynamic ones."""

    def __init__(self, heads: set[int] | None = None) -> None:
        self.heads = heads

    def ablated(self, heads: StepHeads) -> torch.Tensor:
        if self.heads is None:
            return heads.dynamic
        return torch.tensor([head in self.heads for head in range(12)]).expand_as(heads.dynamic)

    def of(self, dynamic: list[int]) -> set[int]:
        return set(dynamic) if self.heads is None else self.heads


@pytest.mark.parametrize(("operator", "keep"), [("zero", "clean"), ("zero", "masked"), ("mean", "clean")])
def test_the_condition_holds_while_an_answer_is_forced(
    tiny: LLM, tiny_llm_folder: Path, operator: str, keep: str
) -> None:
    """Against full eager forwards with heads ablated by hooks: the answer, the opening unablated, what follows it."""
    task, samples = asked(tiny, force=LIMIT)
    samples = [replace(sample, ids=sample.ids[-70:], evidence=[(5, 40)]) for sample in samples[1:]]  # for `slow`
    eager = LLM(str(tiny_llm_folder), attention="eager").model
    conditions, eq2 = [Fixed(set()), Fixed(), Fixed({1, 5, 10}), Fixed({1, 5, 10}), Fixed({0})], (0.45, 2, 6)
    heads, opening = DynamicHeads("reasoning", *eq2), task.opening(tiny.tokenizer)
    plain = generate_ablated(tiny, samples, conditions, heads, operator, keep)  # type: ignore[arg-type]
    found = generate_ablated(tiny, samples, conditions, heads, operator, keep, opening)  # type: ignore[arg-type]
    for name in ("lengths", "tokens", "before", "ablated", "after"):
        assert torch.equal(getattr(plain, name), getattr(found, name)), name
    assert plain.continuations == [[None] * len(conditions)] * len(samples)
    forced = tiny.tokenizer(f" {MARKER}", add_special_tokens=False)["input_ids"]
    different = set()
    for row, sample in enumerate(samples):
        slow = reference.SlowAblation(eager, set(range(5, 40)), eq2)
        fill = slow.mean_outputs(sample.ids) if operator == "mean" else None
        for number, condition in enumerate(conditions):
            steps = slow.generate(sample.ids, sample.budget, tiny.end_tokens, condition.of, fill, keep)
            said = [token for token, *_ in steps if token not in tiny.end_tokens]
            past = {len(sample.ids) - 1 + step: one[2] for step, one in enumerate(steps)} if keep == "masked" else {}
            ids = [*sample.ids, *said, *forced]
            after = slow.generate(ids, LIMIT, tiny.end_tokens, condition.of, fill, keep, past)
            wanted = [token for token, *_ in after if token not in tiny.end_tokens]
            assert found.of(row, number).continuation == wanted
            different.add((row, *wanted))
    assert len(different) > len(samples)  # conditions matter


def test_openings_are_not_forced_on_ablated_models_with_windows(tiny: LLM, tmp_path: Path) -> None:
    windowed = LLM(str(save(FAMILIES["mistral"], tiny.tokenizer, tmp_path)))
    with pytest.raises(UserError, match="set it to 0"):
        check_forcing(windowed.model)
