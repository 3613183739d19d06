"""Citations of an attributed answer: spans, cited texts, flags, plain values."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from extract.errors import UserError
from probe.attribution.citations import as_documents
from tests.helpers.attributed_answers import attributed, example


def test_neighbouring_tokens_with_the_same_source_are_one_citation() -> None:
    first, second = example().citations()
    assert (first["text"], first["start"], first["end"]) == ("Eastmill, in", 0, 12)
    assert (first["document_index"], first["document_title"], first["cited_text"]) == (
        *(1, None),
        "Maria Hill swam in Eastmill.",
    )
    assert (second["text"], second["cited_text"]) == ("Westria", "Eastmill is a town in Westria. ")
    assert second["share"] == pytest.approx(0.8)


def test_a_token_below_the_threshold_is_flagged_and_cites_nothing() -> None:
    answer = example()
    assert answer.grounded.tolist() == [True, False, True, True, False, False]  # "," and "." have no positive score
    assert "today" not in "".join(one["text"] for one in answer.citations())


def test_the_json_is_plain_and_holds_every_number() -> None:
    answer = example()
    found = json.loads(answer.to_json())
    assert found == answer.to_dict()
    assert "".join(token["text"] for token in found["tokens"]) == found["answer"] == answer.answer
    torch.testing.assert_close(torch.tensor(found["matrix"]), answer.matrix)


WORDS = st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=12)


@given(tokens=WORDS, data=st.data())
def test_citations_are_exact_slices_in_order_without_overlap(tokens: list[str], data: st.DataObject) -> None:
    texts = data.draw(st.lists(st.text(min_size=2, max_size=12), min_size=1, max_size=3))
    scores = st.floats(-1, 1, width=32) | st.just(math.nan)
    rows = data.draw(
        st.lists(
            st.lists(scores, min_size=len(texts) * 2, max_size=len(texts) * 2),
            min_size=len(tokens),
            max_size=len(tokens),
        )
    )
    shares = data.draw(st.lists(st.floats(0, 1, width=32), min_size=len(tokens), max_size=len(tokens)))
    answer = attributed(tokens, [("", text, [(0, 1), (1, len(text))]) for text in texts], rows, shares)
    end = 0
    for one in answer.citations():
        assert answer.answer[one["start"] : one["end"]] == one["text"]
        text = answer.documents[one["document_index"]].text
        assert text[one["start_char_index"] : one["end_char_index"]] == one["cited_text"] != ""
        assert end <= one["start"] < one["end"]
        assert 0 < one["share"] <= 1
        end = one["end"]
    json.loads(answer.to_json())


@pytest.mark.parametrize(
    ("given_documents", "message"),
    [
        ([], "no documents"),
        ("a text", "a list of texts"),
        (["a", "\n"], "document 2 has no text"),
        ([{"title": "a"}], "document 1 has no text"),
        ([{"text": "a", "body": "b"}], "document 1 has the key 'body'"),
        ([3], "document 1 is a int"),
        (["\ud800"], "document 1 is not Unicode"),
    ],
)
def test_documents_that_are_none_are_refused_in_one_line(given_documents: object, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        as_documents(given_documents)  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)
