"""Steps: the rows of one sample of a store."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extract import ScoreStore, UserError
from extract.llm import LLM
from extract.store import score_store
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


def test_a_sample_opens_its_own_shard_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of `steps` does not grow with the store: each table of samples is read once, then one shard a sample."""
    store, opened = ScoreStore(make_store(tmp_path / "s", samples=60, shards=20)), list[str]()
    original = score_store.read_shard

    def spy(path: Path) -> Any:
        opened.append(f"{path.parent.name}/{path.stem}")
        return original(path)

    monkeypatch.setattr(score_store, "read_shard", spy)
    store.steps(30)
    assert sorted(opened) == [*(f"samples/{number:06d}" for number in range(20)), "steps/000010"]
    opened.clear()
    for number in (31, 30, 59, 0, 58):
        assert store.steps(number).sample["sample"] == number
    assert opened == ["steps/000019", "steps/000000"]


@pytest.mark.parametrize("order", [(3, 2, 1, 0), (2, 0, 3, 1)])
def test_samples_in_any_order_of_shards_are_found(tmp_path: Path, order: tuple[int, ...]) -> None:
    """Extraction orders its batches by length, so that sample numbers do not ascend with the shards."""
    store = ScoreStore(make_store(tmp_path / "s", samples=22, shards=4))
    expected = {number: store.steps(number) for number in range(22)}
    tables = {name: [store.tables(name)[shard] for shard in order] for name in ("samples", "steps")}
    shuffled = ScoreStore(tmp_path / "s")
    shuffled._tables = tables
    for number, steps in expected.items():
        found = shuffled.steps(number)
        assert found.sample == steps.sample and np.array_equal(found.hidden, steps.hidden)
    with pytest.raises(UserError, match="holds no sample 22"):
        shuffled.steps(22)
