"""Needle prompts: as A.1 says, and fixed by seed and number alone."""

import uuid
from pathlib import Path

import pytest

from extract.errors import UserError
from extract.llm import LLM
from extract.tasks.answer_metrics import rouge_l
from extract.tasks.haystack import load_haystack
from extract.tasks.niah import NIAH, NeedleTexts


@pytest.fixture(scope="module")
def task(llm: LLM) -> NIAH:
    made = NIAH(lengths={"low": 50, "high": 300}, runs=60)
    made.prepare(llm)
    return made


def test_prompt_is_the_papers(llm: LLM, tmp_path: Path) -> None:
    (tmp_path / "hay.txt").write_text("One is one. Two is two. Three is three. Four is four.")
    task = NIAH([12], [50], haystack=str(tmp_path / "hay.txt"), haystack_start="zero")
    task.prepare(llm)
    sample = task.sample(0)
    assert llm.tokenizer.decode(sample.ids) == (
        "<|im_start|>system\nYou are a helpful AI bot that answers questions for a user. Keep your response short and "
        "direct.<|im_end|>\n<|im_start|>user\nContext:\n"
        f"One is one. The magic word is {sample.gold}. Two is two. Three is three.\n\n"
        "Question:\nWhat is the magic word?\n\nInstruction:\n"
        "Don't give information outside the document or repeat your findings.<|im_end|>\n<|im_start|>assistant\n"
    )
    (span,) = sample.evidence
    assert llm.tokenizer.decode(sample.ids[slice(*span)]) == f" The magic word is {sample.gold}."


def test_samples_are_fixed_by_seed_and_number(llm: LLM, task: NIAH) -> None:
    again = NIAH(lengths={"low": 50, "high": 300}, runs=10)
    again.prepare(llm)
    assert [again.sample(i) for i in range(10)] == [task.sample(i) for i in range(10)]
    other = NIAH(lengths={"low": 50, "high": 300}, runs=10, seed=1)
    other.prepare(llm)
    assert other.sample(0).gold != task.sample(0).gold
    assert uuid.UUID(task.sample(0).gold).version == 4
    # a golden value: a change here changes every store
    assert task.sample(0).gold == "e174956c-92b5-464e-acdb-d99895aeee42"


def test_lengths_depths_and_order(llm: LLM, task: NIAH) -> None:
    samples = [task.sample(i) for i in task.order()]
    assert len({s.gold for s in samples}) == len(samples)
    lengths = [s.fields["length"] for s in samples]
    assert lengths == sorted(lengths)
    template = len(samples[0].ids) - lengths[0]  # type: ignore[operator]
    for sample in samples:
        assert abs(len(sample.ids) - int(sample.fields["length"]) - template) <= 8
        start, end = sample.evidence[0]
        assert sample.budget == end - start + 16


@pytest.mark.filterwarnings("ignore:task depths")  # short haystacks
def test_a_grid_has_every_cell_so_many_times(llm: LLM) -> None:
    task = NIAH({"start": 100, "stop": 300, "step": 100}, [0, 50, 100], runs=2, haystack_start="zero")
    task.prepare(llm)
    cells = [(s.fields["length"], s.fields["requested_depth"]) for s in map(task.sample, range(len(task)))]
    assert len(cells) == 18
    assert sorted(set(cells)) == [(n, d) for n in (100, 200, 300) for d in (0, 50, 100)]
    starts = [task.sample(i).evidence[0][0] for i in range(0, 6, 2)]
    assert starts == sorted(starts)
    assert starts[0] < starts[2]


def test_haystack_is_repeated_when_short(llm: LLM, tmp_path: Path) -> None:
    (tmp_path / "hay.txt").write_text("Red fish swim. Blue fish hide.")
    task = NIAH([100], [100], haystack=str(tmp_path / "hay.txt"))
    task.prepare(llm)
    text = llm.tokenizer.decode(task.sample(0).ids)
    assert text.count("Red fish swim.") > 5
    assert abs(len(task.sample(0).ids) - 100 - 97) <= 10


def test_grades(task: NIAH) -> None:
    sample = task.sample(0)
    assert task.grade(sample, f"It is {sample.gold}!")["accuracy"] == 1
    wrong = sample.gold[:-1] + ("0" if sample.gold[-1] != "0" else "1")
    assert task.grade(sample, wrong)["accuracy"] == 0
    assert task.grade(sample, str(sample.fields["needle"]))["rouge_l"] == 1
    assert rouge_l("the cat sat", "the cat ran") == pytest.approx(2 / 3)


def test_python_reference_is_prose() -> None:
    text = load_haystack("pydoc")
    assert len(text) > 50_000
    assert "::=" not in text
    assert "\n" not in text


def test_a_folder_joins_its_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("Second.")
    (tmp_path / "a.txt").write_text("First.")
    assert load_haystack(str(tmp_path)) == "First. Second."


def test_files_of_a_folder_that_are_no_text_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    contents = {"a.txt": b"First.", "latin.txt": b"\xff", "none.txt": b" \n", "x.md": b"x", "y.md": b"y", ".hid": b"z"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    with caplog.at_level("INFO"):
        assert load_haystack(str(tmp_path)) == "First."
    (line,) = caplog.messages
    assert line.endswith(
        "1 files; left out: 1 not UTF-8 text (latin.txt), 1 empty (none.txt), 2 not .txt but .md (x.md, y.md)"
    )
    (tmp_path / "a.txt").unlink()
    with pytest.raises(UserError, match=r"no \.txt file with text: left out are 1 not UTF-8"):
        load_haystack(str(tmp_path))


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"lengths": [9000]}, "beyond the 8192 of embedded:smollm2; lower `lengths`"),
        ({"lengths": [0]}, "at least 1 token"),
        ({"lengths": [100], "depths": [101]}, "from 0 to 100"),
        ({"lengths": []}, "no sample"),
        ({"lengths": [100], "runs": 0}, "no sample"),
        ({"lengths": {"low": 300, "high": 100}}, "above high"),
        ({"lengths": {"start": 1, "stop": 5, "step": 0}}, "step must be positive"),
        ({"lengths": {"low": 3, "stop": 5}}, "not the keys"),
        ({"lengths": [100], "texts": NeedleTexts(needle="no hole")}, "must hold {uuid} once"),
        ({"lengths": [100], "haystack": "/nowhere.txt"}, "no such file"),
        ({"lengths": [1e12]}, "beyond the 8192 of embedded:smollm2; lower `lengths`"),
        ({"lengths": [50], "depths": {"start": 0, "stop": 100, "step": 1e-6}}, "a grid of 100,000,001 values"),
        ({"lengths": [50], "depths": {"start": 0, "stop": 1e308, "step": 1e-308}}, "a grid of inf values"),
        (
            {"lengths": {"start": 1, "stop": 9000, "step": 1}, "depths": [1] * 1000},
            "9,000,000 samples; at most 1,000,000",
        ),
        ({"lengths": [50], "runs": 2**31 - 1}, "2,147,483,647 samples; at most 1,000,000"),
        ({"lengths": [1e18]}, "beyond the 8192 of embedded:smollm2; lower `lengths`"),
        ({"lengths": {"low": 1, "high": 1e18}}, "beyond the 8192 of embedded:smollm2; lower `lengths`"),
        ({"lengths": [50], "margin": -1000}, "task margin: -1000 leaves no token for the answer"),
    ],
)
def test_bad_settings_are_named(llm: LLM, settings_: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        NIAH(**settings_).prepare(llm)  # type: ignore[arg-type]


def test_empty_haystack_is_named(llm: LLM, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(UserError, match="holds no sentence"):
        NIAH([50], haystack=str(tmp_path / "empty.txt")).prepare(llm)
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"no \.txt file"):
        NIAH([50], haystack=str(tmp_path / "folder")).prepare(llm)
