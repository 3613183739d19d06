"""A sample of a store step by step, and tokens as pieces of text."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extract import ScoreStore, UserError
from extract.llm import LLM
from extract.prompts import token_texts
from tests.helpers.explorer_store import told_store
from tests.helpers.stores import make_store


def test_steps_are_the_rows_of_their_sample(tmp_path: Path) -> None:
    store = ScoreStore(make_store(tmp_path / "s", samples=9, shards=2))
    owner = store.scalars("sample")
    for number in range(9):
        steps = store.steps(number)
        rows = np.flatnonzero(owner == number)
        assert steps.sample["id"] == f"toy:{number}"
        assert steps.argmax is None and len(steps) == len(rows)
        assert np.array_equal(steps.tokens, store.scalars("token")[rows])
        assert np.array_equal(steps.hidden, np.concatenate(store.vectors("hidden"))[rows])
        copied = np.concatenate(store.vectors("copy_paste"))[rows]
        assert np.array_equal(steps.copy_paste.reshape(len(steps), -1), copied > 0)
        for step in range(len(steps)):
            assert steps.scoring(step) == [divmod(head, 3) for head in np.flatnonzero(copied[step]).tolist()]


def test_looks_are_kept_and_a_missing_sample_is_refused(llm: LLM, tmp_path: Path) -> None:
    store = ScoreStore(told_store(tmp_path / "s", llm))
    found = store.steps(2).argmax
    assert found is not None and np.array_equal(found.reshape(12, -1), store.vectors("argmax")[0][24:36])
    with pytest.raises(UserError, match="holds no sample 99"):
        store.steps(99)


@example("naïve 日本語 😀 é\n")
@given(st.text(st.characters(codec="utf-8", exclude_characters="�"), max_size=40))
def test_pieces_join_to_the_text(text: str) -> None:
    tokenizer = TOKENIZER.tokenizer
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    found = token_texts(tokenizer, ids)
    assert len(found) == len(ids)
    whole = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    assert "".join(found).replace("�", "") == whole.replace("�", "")


TOKENIZER = LLM()
