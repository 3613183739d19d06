"""`lightning diagnose FILE` of one's own questions: its page and results, going on, thresholds, refusals."""

import html
import json
from pathlib import Path
from typing import Any

import pytest

from extract.errors import UserError
from extract.llm import LLM
from extract.tasks import PromptBatch
from probe import Diagnosis
from probe.diagnosis import CHANCE
from probe.diagnosis.experiment import Sorting, holds_questions
from tests.conftest import Run

TOWNS = ("Eastmill", "Norwick", "Longridge")


def question(number: int) -> dict[str, Any]:
    towns = " ".join(f"{town} lies in the province of Westria, near the old river." for town in TOWNS)
    context = f"Ada {number} lives in {TOWNS[number % 3]}. {towns}"
    end = context.index(".") + 1
    asked = f"Where does Ada {number} live?"
    return {
        "id": str(number),
        "question": asked,
        "answer": TOWNS[number % 3],
        "context": context,
        "evidence": [[0, end]],
    }


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    file = tmp_path / "questions.jsonl"
    file.write_text("\n".join(json.dumps(question(number)) for number in range(5)))
    return file


def test_a_file_of_questions_is_diagnosed_in_one_command(
    run: Run, questions: Path, tiny_llm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran, step = list[int](), Diagnosis.test_step

    def counted(self: Diagnosis, batch: PromptBatch) -> None:
        ran.extend([batch.number] if batch.samples else [])
        step(self, batch)

    monkeypatch.setattr(Diagnosis, "test_step", counted)
    page, results = tmp_path / "page.html", tmp_path / "page_run" / "results.json"
    arguments = ("diagnose", questions, "--output", page, "--llm.name", tiny_llm_folder, "--device", "cpu")
    arguments += ("--batch_size", 3, "--budget", 6)
    code, said = run(*arguments)
    assert code == 0, said
    text = html.unescape(page.read_text())
    assert text.count('<article class="card">') == 5
    assert all(question(number)["question"] in text for number in range(5))
    record = json.loads(results.read_text())
    assert (record["thresholds"]["written"], record["held_out_failures"], ran) == (CHANCE.written, 5, [0, 1])
    assert record["task"]["source"]["class"] == "JsonLines"
    assert run(*arguments)[0] == 0
    assert ran == [0, 1]
    # Thresholds and supported causes of a former run sort the same trials.
    record |= {"thresholds": {"attended": -9, "written": -1e9, "outvoted": 0.0}, "supported": ["context"]}
    former = tmp_path / "former.json"
    former.write_text(json.dumps({name: value for name, value in record.items() if name != "sha256"}))
    assert run(*arguments, "--thresholds", former)[0] == 0
    again = json.loads(results.read_text())
    assert (ran, again["thresholds"]["attended"], again["supported"]) == ([0, 1], -9, ["context"])
    assert "context" in again["reported"]["held_out"]
    assert "other settings" in run(*arguments, "--thresholds", "own")[1]  # training answers are not intervened on
    assert "other settings" in run(*arguments, "--style", "chain")[1]


def test_bad_input_is_one_line_before_weights_load(
    run: Run, questions: Path, tiny_llm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LLM, "model", property(lambda _: pytest.fail("weights were loaded")))
    (tmp_path / "rag.json").write_text('{"experiment": "rag"}')
    (tmp_path / "none.json").write_text('{"experiment": "diagnosis", "thresholds": null}')
    (tmp_path / "list.json").write_text('[{"id": "1", "question": "Who?"}]')
    given = ("--llm.name", tiny_llm_folder, "--output", tmp_path / "page.html")
    for wrong, arguments in (
        ("no.jsonl", (tmp_path / "no.jsonl",)),
        ("no usable question", (tmp_path / "list.json",)),
        ("--thresholds much", (questions, "--thresholds", "much")),
        ("results of another experiment", (questions, "--thresholds", tmp_path / "rag.json")),
        ("too few solved answers", (questions, "--thresholds", tmp_path / "none.json")),
        ("--device moon", (questions, "--device", "moon")),
        ("batch_size", (questions, "--batch_size", 0)),
    ):
        code, said = run("diagnose", *arguments, *given)
        errors = [line for line in said.splitlines() if line.startswith("error:")]
        assert (code, len(errors)) == (2, 1), said
        assert wrong in errors[0]


def test_files_of_questions_are_told_from_results(questions: Path, tmp_path: Path) -> None:
    listed, results = tmp_path / "list.json", tmp_path / "results.json"
    listed.write_text(f"\n [{questions.read_text().splitlines()[0]}]")
    results.write_text('\n{"experiment": "diagnosis"}')
    assert [holds_questions(file) for file in (questions, listed, results)] == [True, True, False]
    assert [holds_questions(tmp_path / name) for name in ("no.jsonl", "no.json")] == [True, False]
    assert Sorting.of("chance").training == 0
    assert Sorting.of("own") == Sorting(None, 0.3)
    with pytest.raises(UserError, match="`chance`, `own`, or"):
        Sorting.of(str(tmp_path / "no"))
