"""Ids of samples: equal content has equal ids in every store, and rows of several stores are distinct."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules import ScoreRows
from extract.errors import UserError
from extract.llm import LLM
from extract.store import ScoreStore, content_id, sample_names, shared_names
from extract.tasks import NIAH, MultiHopQA
from extract.tasks.sources import SyntheticQA
from tests.conftest import ROOT
from tests.helpers.stores import make_store

Extract = Callable[..., tuple[int, str]]
HAYSTACK = "--data.init_args.task.init_args.haystack"
FORMAT_2 = ROOT / "tests/extract/store/format_2"


@pytest.fixture
def haystack(tmp_path: Path) -> Path:
    (tmp_path / "hay.txt").write_text("One is one. Two is two. Three is three. Four is four. " * 30)
    return tmp_path / "hay.txt"


def needles(llm: LLM, **settings: Any) -> set[str]:
    task = NIAH(**{"lengths": {"low": 50, "high": 60}, "runs": 4, **settings})
    task.prepare(llm)
    return {task.sample(number).id for number in range(len(task))}


def test_a_needle_is_the_same_in_every_haystack_and_at_every_place(llm: LLM, haystack: Path) -> None:
    ids = needles(llm)
    assert len(ids) == 4
    assert needles(llm, haystack=str(haystack)) == ids
    assert needles(llm, depths=[50.0], lengths=[80.0]) == ids
    assert not ids & needles(llm, seed=1)


def test_a_question_is_the_same_in_every_file_and_context(llm: LLM) -> None:
    def questions(**source: Any) -> dict[str, str]:
        task = MultiHopQA(SyntheticQA(count=3, **source))
        task.prepare(llm)
        samples = [task.sample(number) for number in task.order()]
        return {sample.id: str(sample.fields["record"]) for sample in samples}

    found = questions()
    assert set(found.values()) == {"fiction-0-0", "fiction-0-1", "fiction-0-2"}
    assert questions() == found
    assert not found.keys() & questions(seed=1).keys()


@given(st.lists(st.text(max_size=5), min_size=2, max_size=2), st.lists(st.text(max_size=5), min_size=2, max_size=2))
def test_ids_are_equal_where_all_parts_are(one: list[str], other: list[str]) -> None:
    assert (content_id(*one) == content_id(*other)) == (one == other)


def test_an_early_needle_is_known_by_its_uuid() -> None:
    """The ids of an early store, and those that a task of today gives to the same needles."""
    store = ScoreStore(FORMAT_2)
    rows = store.samples().to_pylist()
    assert all(row["id"].startswith("NIAH:0:") for row in rows)
    names = store.sample_names()
    for row in rows:
        assert names[row["sample"]] == {row["id"], content_id(row["gold"])}
        assert sample_names(row["id"]) == names[row["sample"]]  # as a checkpoint keeps it, without the store


def test_an_early_question_is_known_by_its_text() -> None:
    question = ("5a8b57f25542995d1e6f1371", "Who sings?", "Ada")
    assert sample_names(*question) == {question[0], content_id(*question[1:])}
    assert shared_names([sample_names(*question), {"other"}], {content_id("Who sings?", "Ada")}) == [
        content_id("Who sings?", "Ada")
    ]


def test_needles_of_another_haystack_are_no_test_set(extract_tiny: Extract, haystack: Path, tmp_path: Path) -> None:
    runs = ("--data.init_args.task.init_args.runs", 10)
    assert extract_tiny(tmp_path / "a", *runs)[0] == 0
    assert extract_tiny(tmp_path / "b", *runs, HAYSTACK, haystack)[0] == 0
    with pytest.raises(UserError, match=r"shares 9 samples with the training and validation splits"):
        ScoreRows(str(tmp_path / "a"), test_store=str(tmp_path / "b")).setup("fit")
    assert extract_tiny(tmp_path / "c", *runs, HAYSTACK, haystack, "--data.init_args.task.init_args.seed", 3)[0] == 0
    ScoreRows(str(tmp_path / "a"), test_store=str(tmp_path / "c")).setup("fit")


def test_rows_of_several_stores_are_distinct(tmp_path: Path) -> None:
    made = [make_store(tmp_path / name, samples=4, shards=2, name=name, seed=n) for n, name in enumerate("ab")]
    stores = [ScoreStore(folder) for folder in made]
    for table in ("steps", "samples"):
        rows = datasets.concatenate_datasets([store.dataset(table) for store in stores])
        numbers = {(row["store"], row["sample"]) for row in rows.select_columns(["store", "sample"])}
        assert len(numbers) == 8
        assert {store for store, _ in numbers} == {store.fingerprint[:12] for store in stores}
    assert ScoreStore(shutil.copytree(FORMAT_2, tmp_path / "early")).dataset("steps")["store"][0] == "ee68639e0e83"


def test_a_row_names_its_sample_without_the_other_table(extract_tiny: Extract, tmp_path: Path) -> None:
    assert extract_tiny(tmp_path / "s")[0] == 0
    store = ScoreStore(tmp_path / "s")
    ids = {row["sample"]: row["id"] for row in store.samples().to_pylist()}
    files, cache = f"{tmp_path}/s/steps/*.arrow", str(tmp_path / "cache")
    raw = datasets.load_dataset("arrow", data_files=files, split="train", cache_dir=cache)
    assert all(row["id"] == ids[row["sample"]] for row in raw.select_columns(["sample", "id"]))
