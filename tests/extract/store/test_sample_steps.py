"""Steps: the rows of one sample of a store."""

from pathlib import Path

import numpy as np
import pytest

from extract import ScoreStore, UserError
from extract.llm import LLM
from tests.helpers.explorer_store import explorer_store
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


def test_argmax_positions_are_kept_and_a_missing_sample_is_refused(llm: LLM, tmp_path: Path) -> None:
    store = ScoreStore(explorer_store(tmp_path / "s", llm))
    found = store.steps(2).argmax
    assert found is not None and np.array_equal(found.reshape(12, -1), store.vectors("argmax")[0][24:36])
    with pytest.raises(UserError, match="holds no sample 99"):
        store.steps(99)
