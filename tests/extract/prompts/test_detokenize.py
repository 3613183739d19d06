"""Text of tokens and the characters of each, in every kind of tokenizer, against decoding prefix by prefix."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extract.llm import LLM
from extract.prompts import Span, decode_text, decode_with_offsets, first_characters, token_texts
from tests.helpers.tokenizers import EXTRA, KINDS, fast

TEXTS = [
    "The town of Eastmill lies in Westria. So the answer is Westria.",
    "Géza von Cziffra (1900–1989) 日本語 🦉🦉 was here.\n\nSecond line",
    "  spaces   and\ttabs ",
    "",
]


@pytest.mark.parametrize("text", TEXTS)
def test_intervals_are_adjacent_and_make_up_the_text(llm: LLM, text: str) -> None:
    ids = llm.tokenizer(text, add_special_tokens=False)["input_ids"]
    decoded = decode_with_offsets(llm.tokenizer, ids)
    assert decoded.text == text
    assert [start for start, _ in decoded.offsets] == [0, *(end for _, end in decoded.offsets)][: len(ids)]
    assert "".join(decoded.pieces()) == text


def test_offsets_agree_with_the_tokenizers_own(llm: LLM) -> None:
    encoded = llm.tokenizer(TEXTS[0], add_special_tokens=False, return_offsets_mapping=True)
    offsets = decode_with_offsets(llm.tokenizer, encoded["input_ids"]).offsets
    assert offsets == [tuple(pair) for pair in encoded["offset_mapping"]]


def test_a_character_of_several_tokens_belongs_to_the_last_and_is_the_first_of_all(llm: LLM) -> None:
    ids = llm.tokenizer("a 🦉 b", add_special_tokens=False)["input_ids"]
    decoded = decode_with_offsets(llm.tokenizer, ids)
    assert decoded.pieces()[-2].endswith("🦉")
    owl = [place for place in first_characters(decoded) if place in (1, 2)]
    assert len(owl) > 1  # the bird takes several tokens, and each is placed at it or at the space before it
    assert decoded.text == "a 🦉 b"


def prefix_by_prefix(tokenizer: Any, ids: Sequence[int], special: bool) -> list[Span]:
    """Intervals by decoding every prefix from the first token on: slow, and right in any tokenizer."""
    offsets, end = list[Span](), 0
    for count in range(1, len(ids) + 1):
        text = decode_text(tokenizer, ids[:count], special)
        stop = max(end, len(text if count == len(ids) else text.rstrip("\ufffd")))
        offsets.append((end, stop))
        end = stop
    return offsets


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return fast(KINDS[request.param]())


@given(st.lists(st.integers(0, 1499), max_size=14) | st.lists(st.integers(3, 280), max_size=14), st.booleans())
def test_any_tokens_have_the_intervals_of_growing_prefixes(tokenizer: Any, ids: list[int], special: bool) -> None:
    """Bytes that make up no character, special tokens and spaces at any place included."""
    ids = [number % len(tokenizer) for number in ids]
    decoded = decode_with_offsets(tokenizer, ids, special)
    assert decoded.ids == ids
    assert decoded.text == decode_text(tokenizer, ids, special)
    assert decoded.offsets == prefix_by_prefix(tokenizer, ids, special)


@example("naïve 日本語 😀 é\n")
@given(st.text(st.sampled_from(f"{EXTRA} 日本語\n\t"), max_size=25))
def test_token_texts_join_to_the_text(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    found = token_texts(tokenizer, ids)
    assert len(found) == len(ids)
    assert "".join(found) == tokenizer.decode(ids, clean_up_tokenization_spaces=False).rstrip("\ufffd")
    cut = token_texts(tokenizer, ids[:-1])  # perhaps within a character
    assert "\ufffd" not in cut[-1:]
