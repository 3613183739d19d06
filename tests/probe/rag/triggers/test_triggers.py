"""Retrieval triggers: RIND against a slow reference, its content words, and retrieval at fixed intervals."""

import math
import types
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from extract.attention.received import received_attention
from extract.errors import UserError
from extract.prompts import Span, TokenizedText, sentence_spans, word_spans
from probe.rag import RIND, Always, EveryN, Never, PosTags, StopWords, Trigger
from probe.rag.triggers import Draft
from probe.rag.triggers.rind import rind_values

NONE: frozenset[int] = frozenset()


def draft_of(pieces: Sequence[str], entropies: Sequence[float], received: Sequence[float], start: int = 0) -> Draft:
    """A draft whose tokens are these pieces of text; those before `start` are the answer so far."""
    offsets, at = list[Span](), 0
    for piece in pieces:
        offsets.append((at, at + len(piece)))
        at += len(piece)
    text = TokenizedText("".join(pieces), list(range(len(pieces))), offsets)
    return Draft(text, start, entropies[start:], received[start:])


def reference(
    pieces: Sequence[str], entropies: Sequence[float], received: Sequence[float], plain: bool
) -> dict[Span, float]:
    """Values by word, character by character: every token and word is searched anew."""
    text = "".join(pieces)
    values: dict[Span, float] = {}
    for first, last in sentence_spans(text):
        mine: dict[Span, tuple[float, float]] = {}
        for start, end in word_spans(text):
            if not first <= start < last:
                continue
            inside = []
            for number in range(len(pieces)):
                begin = len("".join(pieces[:number]))
                letters = [begin + i for i, c in enumerate(pieces[number]) if not c.isspace()]
                if letters and start <= letters[0] < end:
                    inside.append(number)
            if inside:
                mean = sum(entropies[n] for n in inside) / len(inside)
                mine[start, end] = (mean, sum(received[n] for n in inside))
        total = sum(a for _, a in mine.values())
        for (start, end), (entropy, attention) in mine.items():
            share = attention if plain else (attention / total * len(mine) if total else 0.0)
            (content,) = StopWords().mark([text[start:end]])
            values[start, end] = entropy * share if content else 0.0
    return values


PIECES = st.lists(
    st.sampled_from([" the", " Ma", "ria", " of", "1", ".", " X.", "\n", " ", " und", "er", "!"]), max_size=14
)


@given(PIECES, st.randoms(use_true_random=False), st.booleans())
def test_values_equal_a_slow_reference(pieces: list[str], random: Any, plain: bool) -> None:
    entropies, received = ([random.random() * 3 for _ in pieces] for _ in range(2))
    rind = RIND(threshold=0.7, attention="plain" if plain else "sentence")
    found = rind.decide(draft_of(pieces, entropies, received), NONE)
    expected = reference(pieces, entropies, received, plain)
    assert {word.span: pytest.approx(word.value) for word in found.words} == expected
    hits = [span for span, value in expected.items() if value > 0.7]
    if not hits:
        assert found.hit is None
        return
    assert found.hit is not None
    assert found.words[found.hit].span == min(hits)
    assert found.sentence_start == max(start for start, _ in sentence_spans("".join(pieces)) if start <= min(hits)[0])


@given(st.lists(st.floats(0, 1), min_size=1))
def test_normalised_attention_sums_to_the_number_of_words(received: list[float]) -> None:
    ones = [1.0] * len(received)
    values = rind_values(ones, received, [True] * len(received), normalise=True)
    assert sum(values) == pytest.approx(len(received) if sum(received) else 0.0)


def test_a_worked_example() -> None:
    # Two words of one sentence: shares .25 and .75 of the attention, × 2 words, × entropy.
    draft = draft_of(["Maria", " swim", "s."], [1.0, 2.0, 1.0], [0.1, 0.2, 0.1])
    found = RIND(threshold=2.0).decide(draft, NONE)
    assert [word.value for word in found.words] == pytest.approx([1.0 * 0.25 * 2, 1.5 * 0.75 * 2])
    assert found.hit == 1
    assert [word.value for word in RIND(attention="plain").decide(draft, NONE).words] == pytest.approx([0.1, 0.45])


def test_a_sentence_without_uncertain_content_words_does_not_fire() -> None:
    draft = draft_of([" The", " of.", " Westria."], [9.0, 9.0, 0.1], [1.0, 1.0, 1.0])
    found = RIND(threshold=1.0).decide(draft, NONE)
    assert found.hit is None
    assert [word.value for word in found.words[:2]] == [0, 0]


def test_the_first_sentence_fires_even_if_a_later_word_has_a_higher_value() -> None:
    draft = draft_of(["Maria", " swims.", " Eastmill", " shines."], [2.0, 2.0, 9.0, 9.0], [1.0] * 4)
    found = RIND(threshold=1.0).decide(draft, NONE)
    assert (found.hit, found.sentence_start) == (0, 0)
    later = RIND(threshold=1.0).decide(draft, frozenset({0}))
    assert (later.hit, later.sentence_start) == (2, len("Maria swims."))


def test_only_drafted_words_count_though_their_sentence_began_before() -> None:
    draft = draft_of(["Maria", " went", " to", " Westria."], [9.0, 9.0, 9.0, 3.0], [1.0] * 4, start=3)
    found = RIND(threshold=1.0).decide(draft, NONE)
    assert [word.text for word in found.words] == ["Westria."]
    assert (found.hit, found.sentence_start) == (0, 0)  # the sentence begins in the answer


def test_retrieval_at_fixed_intervals() -> None:
    draft = draft_of(["One", " two.", " Three.", " Four."], [0.0] * 4, [])
    starts = [start for start, _ in sentence_spans(draft.text.text)]

    def first(trigger: Trigger, exhausted: frozenset[int] = NONE) -> int | None:
        found = trigger.decide(draft, exhausted)
        assert len(found.words) == 4
        return None if found.hit is None else found.sentence_start

    assert first(Never()) is None
    assert first(Always()) == 0
    assert first(Always(), frozenset({0})) == starts[1]
    assert first(EveryN(2), frozenset({0})) == starts[2]
    with pytest.raises(UserError, match=r"EveryN\.n: at least 1"):
        EveryN(0)


def test_content_words() -> None:
    words_ = ["The", "(province)", "of", "Westria,", "1950.", "—", "was", "not", "Maria's"]
    assert StopWords().mark(words_) == [False, True, False, True, True, False, False, False, True]
    assert StopWords(["westria"]).mark(["the", "Westria."]) == [True, False]


def test_pos_tags_come_from_the_named_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    def pipeline(text: str) -> list[Any]:
        tags = {"Maria": "PROPN", "swims": "VERB", ".": "PUNCT", "in": "ADP"}
        places = [(0, "Maria"), (6, "in"), (9, "swims"), (14, ".")]
        assert text == "Maria in swims."
        return [types.SimpleNamespace(idx=at, pos_=tags[word]) for at, word in places]

    monkeypatch.setitem(__import__("sys").modules, "spacy", types.SimpleNamespace(load=lambda _: pipeline))
    assert PosTags("any").mark(["Maria", "in", "swims."]) == [True, False, True]
    monkeypatch.setitem(__import__("sys").modules, "spacy", None)
    with pytest.raises(UserError, match="is not installed"):
        PosTags("any").mark(["a"])


@pytest.mark.parametrize("own", [True, False])
def test_received_attention(own: bool) -> None:
    maps = torch.rand(2, 3, 5, 5).tril()
    lengths = [5, 3]
    found = received_attention(maps, torch.tensor(lengths), own)
    for draft, length in enumerate(lengths):
        for key in range(length):
            asks = range(key if own else key + 1, length)
            mean = sum(max((float(maps[draft, h, q, key]) for q in asks), default=0.0) for h in range(3)) / 3
            assert math.isclose(float(found[draft, key]), mean, rel_tol=1e-5)
